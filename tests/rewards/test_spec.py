"""Every spelling of a reward, weights, and every mistake before any work."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from amenable.data.types import Message
from amenable.errors import InputError, RewardError
from amenable.rewards.model import ModelReward
from amenable.rewards.rules import parse_rule
from amenable.rewards.spec import Part, Reward, load_reward, path_of, reads_column, reward_inputs, split_weight
from amenable.text.tokenizer import Tokenizer
from amenable.train.runtime import Runtime

PROMPTS = [(Message("user", "Ann asks: name a red thing."),)] * 2
COMPLETIONS = ["Gladly: a rose, it is red.", "Grimly: a brick"]
ENDED = [True, False]


@pytest.fixture(scope="module")
def classifier(judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The judge with a head of three labels: the negative of its own, its own, and twice its own."""
    folder = tmp_path_factory.mktemp("classifier") / "model"
    folder.mkdir()
    for file in judge.glob("*"):
        if file.is_file() and file.name not in ("config.yaml", "model.safetensors"):
            (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(judge / "model.safetensors")
    own = tensors["score.weight"]
    save_file({**tensors, "score.weight": torch.cat([-own, own, 2 * own])}, folder / "model.safetensors")
    fields = json.loads((judge / "config.json").read_text())
    names = {"id2label": {"0": "bad", "1": "good", "2": "great"}, "label2id": {"bad": 0, "good": 1, "great": 2}}
    (folder / "config.json").write_text(json.dumps({**fields, **names, "score_bias": 0.0}))
    return folder


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text("def words(prompt, completion):\n    return len(completion.split())\n")
    return file


def scores_of(specs: Any, runtime: Runtime) -> list[float]:
    return load_reward(specs, runtime)(PROMPTS, COMPLETIONS, ended=ENDED)


def test_a_folder_a_file_a_rule_and_callables(judge: Path, functions: Path, runtime: Runtime) -> None:
    model = ModelReward.load(judge, runtime)
    own = model(PROMPTS, COMPLETIONS, ended=ENDED)
    assert scores_of(judge, runtime) == scores_of([str(judge)], runtime) == scores_of(model, runtime) == own
    assert scores_of(f"{functions}:words", runtime) == [6.0, 3.0]
    assert scores_of("length:4-30", runtime) == scores_of(["ends"], runtime) == [1.0, 0.0]
    assert scores_of(lambda completions: [7, 8], runtime) == [7.0, 8.0]
    assert scores_of(load_reward("ends=2", runtime), runtime) == [2.0, 0.0]


def test_one_label_of_a_classifier(judge: Path, classifier: Path, runtime: Runtime) -> None:
    bad, good, great = (torch.tensor(scores_of(f"{classifier}:{label}", runtime)) for label in ("bad", "good", "great"))
    assert torch.equal(bad, -good) and torch.equal(great, 2 * good) and good.std() > 0
    bias = json.loads((judge / "config.json").read_text())["score_bias"]
    assert torch.allclose(good + bias, torch.tensor(scores_of(judge, runtime)), atol=1e-6)
    assert scores_of(f"{judge}:score", runtime) == scores_of(judge, runtime)


def test_weights_are_summed(judge: Path, functions: Path, runtime: Runtime) -> None:
    own = scores_of(judge, runtime)
    specs = [f"{judge}=2", "length:4-30=0.5", f"{functions}:words=-0.25", "not:ends"]
    reward = load_reward(specs, runtime)
    assert [part.weight for part in reward.parts] == [2.0, 0.5, -0.25, 1.0]
    assert [part.name for part in reward.parts] == [str(judge), "length:4-30", f"{functions}:words", "not:ends"]
    assert reward.name == " ".join(specs)
    assert reward(PROMPTS, COMPLETIONS, ended=ENDED) == pytest.approx([2 * own[0] + 0.5 - 1.5, 2 * own[1] - 0.75 + 1])


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("runs/reward", ("runs/reward", 1.0)),
        ("runs/reward=0.5", ("runs/reward", 0.5)),
        ("runs/reward=-1e-2", ("runs/reward", -0.01)),
        ("regex:x=y", ("regex:x=y", 1.0)),
        ("regex:x=5=1", ("regex:x=5", 1.0)),
        ("http://host/?a=b", ("http://host/?a=b", 1.0)),
        ("0.5", ("0.5", 1.0)),
    ],
)
def test_what_is_a_weight(spec: str, parts: tuple[str, float]) -> None:
    assert split_weight(spec) == parts


def test_a_folder_of_that_name_has_no_weight(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    assert split_weight(str(folder)) == (str(folder), 1.0)
    assert split_weight(f"{folder}=2") == (str(folder), 2.0)


def mistakes() -> Iterator[tuple[Any, str]]:
    yield [], "no reward is given; a reward is a folder, FOLDER:LABEL"
    yield "{tmp}/none", r"none: no such model folder; make it with 'amenable reward'; a reward is a folder"
    yield "{tmp}/none.py:f", r"none\.py: no such file"
    yield "{tmp}/none:label", "none:label' is no reward; a reward is a folder"
    yield "{file}", r"mine\.py' is no reward; .* FILE\.py:FUNCTION"
    yield "{file}:word", r"mine\.py: has no function 'word'; did you mean 'words'\?"
    yield "lenght:4-30", "'lenght:4-30' is no reward; did you mean 'length:4-30'"
    yield "length:30-4", "no text has 30 to 4 words"
    yield "http://127.0.0.1:1/score", "127.0.0.1:1/score: cannot be reached"
    yield "file:///etc/passwd", "is no address of HTTP"
    yield "{classifier}", r"has 3 labels; name one as .*:LABEL; its labels are bad, good, great"
    yield "{classifier}:fine", "has no label 'fine'; .* bad, good, great"
    yield "{judge}:fine", "has no label 'fine'; .* its labels are score"
    yield "{assistant}", "holds a language model, not a reward model"
    yield "ends=0", "'ends=0' has the weight 0"
    yield "ends=nan", "'ends=nan' has the weight nan"
    yield "=0.5", "'=0.5' has the weight"
    yield ["ends", "ends=2"], "the reward 'ends' is given twice; give it once, with a weight"
    yield [lambda x: x], r"<lambda>: takes \(x\); give it the parameters"


@pytest.mark.parametrize(("spec", "message"), mistakes())
def test_mistakes_before_any_work(
    spec: Any,
    message: str,
    judge: Path,
    assistant: Path,
    classifier: Path,
    functions: Path,
    tmp_path: Path,
    runtime: Runtime,
) -> None:
    places = {"tmp": tmp_path, "file": functions, "classifier": classifier, "judge": judge, "assistant": assistant}
    spec = spec.format(**places) if isinstance(spec, str) else spec
    with pytest.raises(InputError, match=message):
        load_reward(spec, runtime)


def test_ids_for_models_of_the_same_tokenizer_and_texts_for_others(
    judge: Path, other_judge: Path, runtime: Runtime
) -> None:
    reward, tokenizer = load_reward([judge, other_judge], runtime), Tokenizer.load(judge)
    rows = [([5, 6, 7], [False, True, True]), ([8, 9], [False, True])]
    scores = reward.scores(PROMPTS, COMPLETIONS, {"ended": ENDED}, rows, tokenizer)
    ours, other = reward.models
    assert torch.equal(scores[str(judge)], ours.score_rows(rows))
    assert scores[str(other_judge)].tolist() == other(PROMPTS, COMPLETIONS, ended=ENDED)
    assert reward.scores(PROMPTS, COMPLETIONS, {"ended": ENDED})[str(judge)].tolist() == ours(
        PROMPTS, COMPLETIONS, ended=ENDED
    )


def test_room_is_that_of_every_model(judge: Path, make_scalar_model: Callable[..., Any], runtime: Runtime) -> None:
    tokenizer = Tokenizer.load(judge)
    short = ModelReward(make_scalar_model(context_length=16, vocab_size=tokenizer.vocab_size), tokenizer, runtime)
    assert load_reward([judge, "ends"], runtime).fits(PROMPTS[0], COMPLETIONS)
    assert not load_reward([judge, short], runtime).fits(PROMPTS[0], COMPLETIONS)
    assert load_reward("ends", runtime).fits(PROMPTS[0], ["word " * 10_000])
    assert load_reward([judge, short, "ends"], runtime).context_length == 16
    assert load_reward("ends", runtime).context_length > 10**9


def test_inputs_for_the_lineage(judge: Path, functions: Path) -> None:
    assert path_of("not:tokens:1-2:models/a") == Path("models/a") and path_of("tokens:1-2") is None
    assert path_of("json:schema.json") == Path("schema.json") and path_of("json") is path_of("match:x") is None
    specs = [f"{judge}=2", "ends", f"{functions}:words", "http://h/x=1", lambda completions: completions]
    assert reward_inputs(specs) == {"reward 1": judge, "reward 2": functions}
    assert reward_inputs([str(judge)], "judge") == {"judge": judge}
    assert reward_inputs(str(judge)) == reward_inputs(judge) == {"reward": judge}
    assert reward_inputs(["ends"]) == {}
    assert path_of(f"{judge}:score") == judge and path_of("runs/none") == Path("runs/none")


@pytest.mark.parametrize(
    ("spec", "read", "unread"),
    [
        ("match:answer", {"answer"}, {"ended", "source"}),
        (lambda completions, answer, level=1: [0.0] * len(completions), {"answer", "level"}, {"source"}),
        (lambda completions, **columns: [0.0] * len(completions), {"answer", "source"}, set()),
        ("ends", set(), {"answer", "ended"}),
    ],
)
def test_the_columns_that_a_reward_reads(spec: Any, read: set[str], unread: set[str], runtime: Runtime) -> None:
    reward = load_reward([spec, "length:1-"], runtime)
    nested = load_reward([reward], runtime)  # type: ignore[list-item]
    for reads in (reads_column(reward), reads_column(None, nested)):
        assert all(map(reads, read)) and not any(map(reads, unread))
    assert not reads_column(None)("answer")


def test_a_reward_of_rewards_needs_their_columns(runtime: Runtime) -> None:
    with pytest.raises(InputError, match="needs the column 'answer'"):
        load_reward([load_reward("match:answer", runtime)], runtime).require_columns([{}])


def test_tokens_are_counted_by_the_tokenizer_that_is_handed_over(words: Tokenizer, runtime: Runtime) -> None:
    reward = load_reward([f"tokens:{len(words.encode(COMPLETIONS[0]))}-", "length:1-"], runtime)
    with pytest.raises(InputError, match="counts tokens, and no model answers here; name a folder"):
        reward.require_tokenizers()
    assert reward.total(reward.scores(PROMPTS, COMPLETIONS, {}, tokenizer=words)).tolist() == [2.0, 1.0]
    load_reward("length:1-", runtime).require_tokenizers()


def test_columns_that_the_data_lacks_are_missed_before_any_work(functions: Path, runtime: Runtime) -> None:
    functions.write_text("def near(completions, target):\n    return [0.0] * len(completions)\n")
    rows: list[dict[str, Any]] = [{"answer": 1, "target": 2}, {"answer": None}, {}]
    load_reward(f"{functions}:near", runtime).require_columns(rows)  # a function has None where a row lacks it
    with pytest.raises(InputError, match=r"p.jsonl: .*near' needs the column 'target'; further columns are: none"):
        load_reward(f"{functions}:near", runtime).require_columns([{}], "p.jsonl")
    with pytest.raises(InputError, match=r"'match:answer' needs the column 'answer', and 2 of 3 rows lack it.* row 2"):
        load_reward(["ends", "match:answer"], runtime).require_columns(rows)
    with pytest.raises(InputError, match=r"'number:anwser:0.1' needs the column 'anwser'; did you mean 'answer'"):
        load_reward("number:anwser:0.1", runtime).require_columns(rows)
    load_reward(["ends", "match:answer"], runtime).require_columns(rows[:1])


def test_a_part_that_fails_hands_on_what_it_was_to_score(functions: Path, runtime: Runtime) -> None:
    functions.write_text("def bad(completion):\n    return float('nan')\n")
    with pytest.raises(RewardError, match="scored completion 1 of 2 with nan") as failed:
        load_reward(["ends", f"{functions}:bad"], runtime)(PROMPTS, COMPLETIONS, ended=ENDED, target=[3, 4])
    assert failed.value.name == f"{functions}:bad" and failed.value.rows[1] == {
        "prompt": [{"role": "user", "content": PROMPTS[1][0].content}],
        "completion": COMPLETIONS[1],
        "ended": False,
        "target": 4,
        "rewards": {"ends": 0.0},
    }


def test_metrics_are_each_parts_and_what_it_counts(runtime: Runtime) -> None:
    class Counting:
        calls = 0

        def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
            self.calls += 1
            return [1.0, 3.0]

        def take_counts(self) -> dict[str, float]:
            count, self.calls = self.calls, 0
            return {"calls": float(count)}

    reward = Reward((Part("ends", parse_rule("ends")), Part("own", Counting())))
    scores = reward.scores(PROMPTS, COMPLETIONS, {"ended": ENDED})
    expected = {"rewards/ends/mean": 0.5, "rewards/ends/std": 0.5, "rewards/own/mean": 2.0, "rewards/own/std": 1.0}
    assert reward.metrics(scores) == {**expected, "rewards/own/calls": 1.0}
    assert reward.metrics(scores) == {**expected, "rewards/own/calls": 0.0}
