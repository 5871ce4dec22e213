"""The audit of a judge behind an API: what it prints and writes, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from amenable import cli
from amenable.errors import InputError
from amenable.recipes import judge


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Thirty pairs; people prefer the shorter answer, which the judge's own model has written."""
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Question {i}?", "completions": [f"Yes {i}.", f"Well, yes, surely {i}."], "ranking": [1, 2]}
        | {"models": ["wise", "other"], "annotator": "Ann"}
        for i in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prefers_first_then_long(body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    """A judge that takes the answer shown first, unless the other is over twice as long."""
    text = body["messages"][0]["content"]
    first, _, rest = text.partition("[Answer A]\n")[2].partition("\n\n[Answer B]\n")
    second = rest.partition("\n\nWhich answer")[0]
    verdict = "B" if len(second) > 2 * len(first) else "A"
    return 200, {}, {"choices": [{"message": {"content": f"Verdict: {verdict}"}, "finish_reason": "stop"}]}


def test_biases_are_named_and_the_same_command_asks_nothing_again(
    chat_api: Any, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    chat_api.reply = prefers_first_then_long
    options = ["--judge", f"judge:{chat_api.url}:wise", "--data", str(pairs), "--out", str(tmp_path / "judge")]
    assert cli.main(["judge", *options]) == 0
    text = capsys.readouterr().err
    report = json.loads((tmp_path / "judge" / "judge.json").read_text())
    assert report["questions"] == len(chat_api.requests) == 120 and report["unclear"] == 0
    assert report["agreement"]["share"] == 0.0 and report["length"]["difference"]["value"] == 1.0
    assert report["self_preference"]["judge"]["share"] == 0.0 and report["self_preference"]["people"]["share"] == 1.0
    assert "It prefers the longer answer 100 points more often than people do." in text
    assert "It prefers wise 100 points less often than people do." in text
    assert "It prefers an answer whose words are repeated to the answer itself." in text
    assert "same verdict in both orders" in text and "no pair was ranked by two people" in text
    assert cli.main(["judge", *options, "--max-pairs", "30"]) == 0 and len(chat_api.requests) == 120
    again = json.loads((tmp_path / "judge" / "judge.json").read_text())
    assert again["agreement"] == report["agreement"] and again["questions"] == 0


def test_what_cannot_be_audited_is_refused(pairs: Path, chat_api: Any, tmp_path: Path) -> None:
    ties = tmp_path / "ties.jsonl"
    ties.write_text('{"prompt": "Q?", "completions": ["a", "b"], "ranking": [1, 1]}\n')
    spec = f"judge:{chat_api.url}:wise"
    for options, problem in (
        ({"judge": ""}, "no judge is named; give --judge judge:URL:MODEL"),
        ({"judge": "gpt"}, "names no model of an API"),
        ({"judge": spec, "data": ties}, "all completions are tied"),
        ({"judge": spec, "data": tmp_path / "none.jsonl"}, "none.jsonl"),
        ({"judge": "judge:http://127.0.0.1:9/v1:m"}, "127.0.0.1:9"),
    ):
        with pytest.raises(InputError, match=problem):
            judge.run(judge.Config(**{"data": pairs, "out": tmp_path / "out", **options}))
    assert not (tmp_path / "out").exists() and not chat_api.requests
    with pytest.raises(InputError, match="max_pairs"):
        judge.Config(max_pairs=-1)
