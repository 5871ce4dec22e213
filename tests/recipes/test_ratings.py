import json
from pathlib import Path

import pytest

from amenable import cli
from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback.leaderboard import RatingConfig
from amenable.feedback.store import Store
from amenable.recipes.ratings import Config, run

RATING = RatingConfig()


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    """Ten votes of two people, and a judge's ranking of three models, one with a name that would be markup."""
    with Store(tmp_path / "labels.db") as store:
        origins = {side: {"folder": f"runs/{side}", "sha256": side} for side in ("left", "right")}
        models = {"left": "ppo", "right": "[red]sft"}
        for n in range(10):
            turns = [{"user": "x", "left": "short", "right": "much longer than that"[: 10 + n]}]
            reply = {"annotator": f"person {n % 2}", "vote": "left" if n < 7 else "right", "turns": turns}
            store.append("vote", {**reply, "models": models, "origins": origins}, 0.0)
        meta = {"models": ["ppo", "[red]sft", "base"]}
        ranking = Ranking((Message("user", "x"),), ("a", "b", "c"), (1.0, 2.0, 2.0), "r", "judge", meta)
        store.add_rankings([ranking])
    return tmp_path / "labels.db"


def report(capsys: pytest.CaptureFixture, **options: object) -> str:
    run(Config(**options))  # type: ignore[arg-type]
    return str(capsys.readouterr().out)


def test_the_tables(votes: Path, capsys: pytest.CaptureFixture) -> None:
    text = report(capsys, labels_db=votes, rating=RATING)
    standings, rates = text.split("Win rates")
    rows = [line.split() for line in standings.splitlines() if "/" in line][1:]
    assert [row[1] for row in rows] == ["ppo", "[red]sft", "base"] and standings.startswith("13 battles")
    assert rows[0][-4:] == ["12", "9/0/3", "75%", "4"]
    assert "73% of 11" in rates and "50% of 1" in rates and "Bradley-Terry" in rates
    assert max(map(len, text.splitlines())) <= 110


def test_json_holds_the_same(votes: Path, capsys: pytest.CaptureFixture) -> None:
    result = json.loads(report(capsys, labels_db=votes, json=True, rating=RATING))
    assert result["battles"] == 13 and [row["name"] for row in result["players"]] == ["ppo", "[red]sft", "base"]
    assert result["win_rates"]["ppo"]["base"] == {"score": 1.0, "count": 1}
    assert result["terms"]["prior"] == 1.0


def test_whose_word_counts_and_of_what(votes: Path, capsys: pytest.CaptureFixture) -> None:
    def count(**options: object) -> int:
        return int(json.loads(report(capsys, labels_db=votes, json=True, rating=RATING, **options))["battles"])

    assert count(annotators=("judge",)) == 3 == count(sources=("rankings",))
    assert count(annotators=("person 0",)) == 5 and count(sources=("arena",)) == 10


def test_what_a_reader_must_know_is_told(tmp_path: Path, votes: Path, capsys: pytest.CaptureFixture) -> None:
    controlled = RatingConfig(length_controlled=True)
    assert "At equal length; being longer" in report(capsys, labels_db=votes, rating=controlled)
    rows = [{"model_a": a, "model_b": b, "winner": "model_a", **more} for a, b, more in (
        ("a", "b", {}), ("c", "d", {"answer_a": "x", "answer_b": "yy"}),
    )]  # fmt: skip
    file = tmp_path / "battles.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "never met" in report(capsys, data=(file,), rating=RATING)
    assert "nothing is said of lengths: 1 battle." in report(capsys, data=(file,), rating=controlled)


def test_without_votes_it_says_where_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such store.*amenable arena"):
        run(Config(labels_db=tmp_path / "nowhere.db"))
    assert not (tmp_path / "nowhere.db").exists()
    Store(tmp_path / "empty.db").close()
    with pytest.raises(InputError, match="nothing there compares"):
        run(Config(labels_db=tmp_path / "empty.db"))


def test_it_is_a_command(votes: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["ratings", "--labels-db", str(votes), "--rating.prior", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["battles"] == 13
    assert cli.main(["ratings", "--labels-db", str(votes), "--rating.anchor", "z"]) == 2
    assert "no comparison of the anchor 'z'" in capsys.readouterr().err
