from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.feedback import annotators
from amenable.feedback.store import Store
from amenable.serve import tokens
from amenable.serve.tokens import TokenCache, require_token_holder


def test_a_revoked_token_ends_once_people_are_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now[0])
    with Store(tmp_path / "labels.db") as store:
        token = annotators.add(store, "Ann", "annotator", 0.0)
        cache = TokenCache(store)
        assert cache.user_for_token(token) == "Ann" and token in cache
        assert cache.user_for_token("x") is None and "x" not in cache
        annotators.revoke(store, "Ann", 1.0)
        now[0] += tokens.CACHE_SECONDS / 2
        assert token in cache
        now[0] += tokens.CACHE_SECONDS
        assert token not in cache


def test_somebody_must_hold_a_token(tmp_path: Path) -> None:
    with Store(tmp_path / "labels.db") as store:
        with pytest.raises(InputError, match=r"nobody holds a token.*annotators add NAME --role owner --labels-db"):
            require_token_holder(annotators.people(store), store, " --role owner")
        annotators.add(store, "Ann", "annotator", 0.0)
        require_token_holder(annotators.people(store), store)
        annotators.revoke(store, "Ann", 1.0)
        with pytest.raises(InputError, match="nobody holds a token"):
            require_token_holder(annotators.people(store), store)
