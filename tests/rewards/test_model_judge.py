"""A model as judge: scores from 1 to 10, verdicts in both orders, replies that are nonsense, and a real endpoint."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from amenable import cli
from amenable.data.types import Conversation, Message
from amenable.errors import InputError
from amenable.evaluation.preference import preferences
from amenable.feedback.candidates import Candidates
from amenable.rewards.model_judge import LOWEST, ModelJudge, endpoint, load_judge, read_score, read_verdict
from amenable.rewards.options import RewardOptions
from amenable.rewards.rankings import rank_by_reward
from amenable.rewards.spec import load_reward
from amenable.train.log import Log
from amenable.train.runtime import Runtime

PROMPT = (Message("user", "name a red thing"),)


def answers_in(conversation: Conversation) -> tuple[str, str]:
    """The two answers in a question."""
    text = conversation[0].content
    first, _, rest = text.partition("[Answer A]\n")[2].partition("\n\n[Answer B]\n")
    return first, rest.partition("\n\nWhich answer")[0]


def likes_long(conversation: Conversation) -> str:
    text = conversation[0].content
    if "[The answer]" in text:
        answer = text.partition("[The answer]\n")[2].partition("\n\nHow good")[0]
        return f"It is fine. Score: {min(10, max(1, len(answer)))}/10"
    first, second = map(len, answers_in(conversation))
    return f"I thought.\nVerdict: {'tie' if first == second else 'A' if first > second else 'B'}"


def never(_: Conversation) -> str:
    raise AssertionError("sent again")


def test_ranks_follow_the_models_words_with_ties() -> None:
    assert ModelJudge(likes_long, "long").rank(PROMPT, ["a", "ccc", "bb", "dd", "bb"]) == [5, 1, 2, 2, 2]


def test_scores_are_the_models_words() -> None:
    assert ModelJudge(likes_long, "long")([PROMPT] * 3, ["a", "ccc", "c" * 99], ended=[True] * 3) == [1.0, 3.0, 10.0]


def test_a_judge_of_the_position_alone_prefers_none() -> None:
    judge = ModelJudge(lambda _: "A", "first")
    assert judge.rank(PROMPT, ["a", "b", "c"]) == [1, 1, 1]
    assert judge.calls == 6 and judge.bias([PROMPT], ["a"], ["b"]) == (1.0, 0.0)


def test_replies_are_cached_by_name_and_rubric(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "judge.jsonl"
    first = ModelJudge(likes_long, "long", cache_file=file)
    ranks, scores = first.rank(PROMPT, ["a", "bb", "ccc"]), first([PROMPT], ["bb"])
    with file.open("a") as lines:
        lines.write('{"question": "cut sho')
    again = ModelJudge(never, "long", cache_file=file)
    assert again.rank(PROMPT, ["a", "bb", "ccc"]) == ranks == [3, 2, 1] and again([PROMPT], ["bb"]) == scores
    assert again.calls == 0
    for other in (ModelJudge(never, "another", cache_file=file), ModelJudge(never, "long", "be brief", file)):
        with pytest.raises(AssertionError, match="sent again"):
            other.rank(PROMPT, ["a", "bb"])


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: A", 1.0), ("**Verdict:** B.", 0.0), ("verdict - TIE", 0.5), ("a", 1.0), ("Answer B.", 0.0),
        ("Verdict: A? no.\nVerdict: B", 0.0), ("Both are fine", None), ("", None), ("Verdict: Apple", None),
    ],
)  # fmt: skip
def test_verdicts(text: str, verdict: float | None) -> None:
    assert read_verdict(text) == verdict


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 7", 7.0), ("**Score:** 8/10", 8.0), ("score 3, no: Score: 4.5", 4.5), ("6", 6.0), ("9/10", 9.0),
        ("Score: 11", None), ("Score: 0", None), ("good", None), ("", None), ("3 of 4 facts are right", None),
    ],
)  # fmt: skip
def test_scores(text: str, score: float | None) -> None:
    assert read_score(text) == score


def test_nonsense_is_asked_again_with_the_form_of_the_reply() -> None:
    def late(conversation: Conversation) -> str:
        return "Score: 5" if len(conversation) == 3 and "Score: N" in conversation[-1].content else "who knows"

    judge = ModelJudge(late, "late")
    assert judge([PROMPT], ["a"]) == [5.0] and judge.calls == 2
    assert judge.take_counts() == {"questions": 1.0, "repeated": 1.0, "unclear": 0.0}


def test_nonsense_to_the_end_is_counted_and_stops_a_run_of_it() -> None:
    judge = ModelJudge(lambda _: "who knows", "lost", workers=1)
    assert judge([PROMPT], ["a"]) == [LOWEST] and judge.rank(PROMPT, ["a", "b"]) == [1, 1]
    assert judge.grade([PROMPT], ["a"], [""]) == [None]
    assert judge.take_counts() == {"questions": 3.0, "repeated": 3.0, "unclear": 3.0}
    with pytest.raises(InputError, match="judge:lost: 20 of 20 replies have no score; the last is 'who knows'"):
        judge([PROMPT] * 40, [str(i) for i in range(40)])


class Api(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        bad = body["model"] != "wise:8b" or self.headers["authorization"] != "Bearer secret"
        text = likes_long(tuple(Message(**message) for message in body["messages"]))
        reply: Any = {"error": "no"} if bad else {"choices": [{"message": {"content": text}}]}
        self.send_response(404 if bad else 200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_an_endpoint_scores_and_compares(api: str, tmp_path: Path, runtime: Runtime, capsys: Any) -> None:
    (tmp_path / "rubric.txt").write_text("The longer, the better.")
    options = RewardOptions(judge_rubric=tmp_path / "rubric.txt", judge_cache=tmp_path / "cache.jsonl")
    reward = load_reward([f"judge:{api}:wise:8b=2", "ends"], runtime, options=options)
    assert reward([PROMPT], ["abc"], ended=[True]) == [7.0] and reward.judge is None
    alone = load_reward(f"judge:{api}:wise:8b", runtime, options=options)
    assert alone.judge is not None and alone.judge.rubric == "The longer, the better."
    row = Candidates("a", PROMPT, ("a", "ccc", "bb"), (True,) * 3)
    (ranking,) = rank_by_reward("train", [row], alone, Log(tmp_path, "annotate"))
    assert ranking.ranks == (3.0, 1.0, 2.0)
    line = " ".join(capsys.readouterr().err.split())
    assert "train: 6 questions, 0 repeated, 0 unclear; the answer shown first wins 50%, 100% of pairs" in line
    answers = {"x": [{"text": "a", "ended": True}], "y": [{"text": "bb", "ended": True}]}
    models = {name: {"sampled": rows, "greedy": None} for name, rows in answers.items()}
    (row_of_pair,) = preferences(models, ["a"], None, False, 0, lambda a, b: alone.judge.preferences([PROMPT], a, b))
    assert (row_of_pair["judges"], row_of_pair["wins"]) == ("judge", 0.0)


def test_annotate_ranks_by_its_comparisons(api: str, tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "prompt": f"{i}?", "completions": ["a", "b" * (i + 2)], "ended": [True] * 2} for i in range(8)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rubric.txt").write_text("Longer is better.")
    words = [
        "--data",
        str(tmp_path / "samples.jsonl"),
        "--judge",
        f"judge:{api}:wise:8b",
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main(["annotate", *words, "--judge-rubric", str(tmp_path / "rubric.txt"), "--device", "cpu"]) == 0
    rankings = [json.loads(line) for line in (tmp_path / "out/train.jsonl").read_text().splitlines()]
    assert rankings and all(row["ranking"] == [2.0, 1.0] for row in rankings)
    lineage = json.loads((tmp_path / "out/lineage.json").read_text())
    assert lineage["inputs"]["judge_rubric"]["path"].endswith("rubric.txt")


def test_a_judge_that_cannot_be_used_is_a_line(api: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="answered 404"):
        ModelJudge(endpoint(api, "unwise", pauses=()), "unwise").rank(PROMPT, ["a", "bb"])
    with pytest.raises(InputError, match="no such file"):
        load_judge(f"judge:{api}:m", tmp_path / "none.txt", None, 1, 5.0)
    with pytest.raises(InputError, match="cannot be reached"):
        load_judge("judge:http://127.0.0.1:9/v1:m", None, None, 1, 5.0)
    for wrong in ("judge:file:///etc/passwd:m", "judge:http://127.0.0.1:9/v1", "judge:gpt"):
        with pytest.raises(InputError, match="names no model of an API; write judge:http"):
            load_judge(wrong, None, None, 1, 5.0)
