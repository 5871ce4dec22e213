import pytest

from amenable import cli


def test_a_person_is_added_listed_and_revoked(tmp_path, capsys):
    store = ["--labels-db", str(tmp_path / "runs" / "labels.db")]
    assert cli.main(["annotators", "add", "Ann", "--role", "owner", *store]) == 0
    token = capsys.readouterr().out.splitlines()[-1]
    assert len(token) > 40
    assert cli.main(["annotators", "list", *store]) == 0
    out = capsys.readouterr().out
    assert "Ann" in out and "owner" in out and token not in out and "revoked" not in out
    assert cli.main(["annotators", "revoke", "Ann", *store]) == 0
    cli.main(["annotators", *store])
    assert "revoked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["add"], "a name is missing"),
        (["list", "Ann"], "list takes no name"),
        (["list"], "no such store"),
        (["revoke", "Ann"], "no such store"),
        (["add", "x" * 99], "is not a name"),
    ],
)
def test_mistakes_are_said_in_a_line(tmp_path, capsys, options, said):
    assert cli.main(["annotators", *options, "--labels-db", str(tmp_path / "labels.db")]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
