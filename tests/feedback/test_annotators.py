import pytest

from amenable.errors import InputError
from amenable.feedback import annotators
from amenable.feedback.store import Store


def test_a_token_is_known_until_it_is_revoked_and_kept_nowhere(tmp_path):
    path = tmp_path / "labels.db"
    with Store(path) as store:
        token = annotators.add(store, "Ann", "annotator", 1.0)
        other = annotators.add(store, "Bo", "owner", 2.0)
        assert token != other and len(token) >= 40
        ann = annotators.person_for_token(annotators.people(store), token)
        assert ann is not None and (ann.name, ann.is_owner) == ("Ann", False)
        assert annotators.person_for_token(annotators.people(store), other).is_owner
        for wrong in ("", token[:-1], token + "x", token.swapcase(), "\ud800"):
            assert annotators.person_for_token(annotators.people(store), wrong) is None
        annotators.revoke(store, "Ann", 3.0)
        assert annotators.person_for_token(annotators.people(store), token) is None
        again = annotators.add(store, "Ann", "annotator", 4.0)
        assert annotators.person_for_token(annotators.people(store), token) is None
        assert annotators.person_for_token(annotators.people(store), again).name == "Ann"
    assert token.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_mistakes_are_said(tmp_path):
    with Store(tmp_path / "labels.db") as store:
        annotators.add(store, "Ann", "annotator", 1.0)
        with pytest.raises(InputError, match="there is an annotator 'Ann' already"):
            annotators.add(store, "Ann", "owner", 2.0)
        with pytest.raises(InputError, match=r"no annotator 'Bo'.*known: Ann"):
            annotators.revoke(store, "Bo", 2.0)
        for name in ("", " Ann", "a\nb", "x" * 61, "\x1b[31m"):
            with pytest.raises(InputError, match="is not a name"):
                annotators.add(store, name, "annotator", 2.0)
        assert [person.name for person in annotators.people(store)] == ["Ann"]


def test_names_are_data(tmp_path):
    names = ["'; DROP TABLE events; --", "<script>alert(1)</script>", "Ünï 👋"]
    with Store(tmp_path / "labels.db") as store:
        tokens = [annotators.add(store, name, "annotator", 1.0) for name in names]
        assert [annotators.person_for_token(annotators.people(store), token).name for token in tokens] == names
