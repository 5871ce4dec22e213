"""Rows of examples: as rendered, in memory and in the cache; tokenized once; trained on to the same numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amenable import hash_cache
from amenable.data import sources
from amenable.data.types import Demonstration, last_trained
from amenable.errors import InputError
from amenable.stages import dpo, sft
from amenable.text.chat import render
from amenable.text.tokenizer import Tokenizer
from amenable.train import row_cache
from amenable.train.examples import RejectedRows, ranking_rows
from amenable.train.row_cache import RANKINGS, demonstrations, keep_fitting, read_examples, read_rows, read_splits
from amenable.train.runtime import DeviceOptions

CALLS = [
    {"from": "human", "value": "name a red thing"},
    {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "sky"}}'},
    {"from": "observation", "value": "red"},
    {"from": "gpt", "value": "a rose"},
]
"""a row as Llama-Factory has them"""
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PLAIN = {"messages": [{"role": "user", "content": "name it"}, {"role": "assistant", "content": "a rose"}]}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, for sources of any size."""
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hash_cache, "LARGE", 1)
    return tmp_path / "cache" / "tokens"


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_examples_and_rows_are_those_that_were_read(files: Any, words: Tokenizer, cache: Path) -> None:
    conversations = read_examples(files.demonstrations, demonstrations(), words)
    assert isinstance(conversations.arrays["ids"], np.memmap)
    assert list(conversations) == sources.read_demonstrations(files.demonstrations).rows
    for index, example in enumerate(conversations):
        rendered = render(words, example.messages)
        assert conversations.rows(index) == [(rendered.ids, rendered.loss_mask)]
    rankings = read_examples(files.rankings, RANKINGS, words)
    assert list(rankings) == sources.read_rankings(files.rankings).rows
    for index, ranking in enumerate(rankings):
        assert rankings.rows(index) == ranking_rows(ranking, words, 10**9)
        assert rankings.targets(index) == list(ranking.ranks)
    lengths = [[len(ids) for ids, _ in rankings.rows(index)] for index in range(len(rankings))]
    assert rankings.sum_of_rows().tolist() == list(map(sum, lengths))
    assert rankings.longest_rows().tolist() == list(map(max, lengths))
    some = rankings.select(np.array([5, 2]))
    assert list(some) == [rankings[5], rankings[2]] and some.rows(1) == rankings.rows(2)
    assert some.sum_of_rows().tolist() == [sum(lengths[5]), sum(lengths[2])]


def test_shards_have_the_examples_of_one_file(files: Any, words: Tokenizer, cache: Path, tmp_path: Path) -> None:
    lines = files.demonstrations.read_text("utf-8").splitlines(keepends=True)
    for number in range(3):
        part = tmp_path / "shards" / f"{number}.jsonl"
        part.parent.mkdir(exist_ok=True)
        part.write_text("".join(lines[number * 20 : number * 20 + 20]), "utf-8")
    shards = read_examples(tmp_path / "shards", demonstrations(), words)
    whole = read_examples(files.demonstrations, demonstrations(), words)
    assert [example.messages for example in shards] == [example.messages for example in whole][:60]
    assert [*shards.as_rows()] == [*whole.as_rows()][:60]
    assert shards.sum_of_rows().tolist() == whole.sum_of_rows().tolist()[:60]


def test_an_id_belongs_to_one_prompt_in_all_files(words: Tokenizer, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    for name in ("first", "second"):
        row = {"id": "7", "prompt": f"the {name}", "chosen": "a", "rejected": "b"}
        write_rows(tmp_path / "pairs" / f"{name}.jsonl", row, {**row, "id": name})
    rejected = RejectedRows()
    assert len(read_examples(tmp_path / "pairs", RANKINGS, words, rejected)) == 3
    assert [row.reason for row in rejected.rows] == ["the id '7' belongs to another prompt (first.jsonl:1)"]


def test_values_that_json_has_not_are_text(words: Tokenizer, tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    from datetime import date

    columns = {"prompt": ["a", "b"], "completion": ["c", "d"], "day": [date(2026, 1, 2), None], "size": [1.5, 2.0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    examples = read_examples(tmp_path / "rows.parquet", demonstrations(), words)
    assert [example.meta for example in examples] == [{"day": "2026-01-02", "size": 1.5}, {"size": 2.0}]


def test_they_are_tokenized_once(
    files: Any, words: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    first = read_examples(files.demonstrations, demonstrations(), words)
    assert "tokenizes" in capsys.readouterr().err
    monkeypatch.setattr(row_cache, "render", None)
    again = read_examples(files.demonstrations, demonstrations(), words)
    assert "tokenizes" not in capsys.readouterr().err
    assert list(again) == list(first) and [*again.as_rows()] == [*first.as_rows()]
    with pytest.raises(TypeError):
        read_examples(files.demonstrations, demonstrations("last"), words)


def test_a_torn_map_is_made_anew(files: Any, words: Tokenizer, cache: Path, capsys: pytest.CaptureFixture) -> None:
    expected = [*read_examples(files.pairs, RANKINGS, words)]
    (folder,) = cache.iterdir()
    for name in ("records", "row_ends"):
        content = (folder / f"{name}.bin").read_bytes()
        (folder / f"{name}.bin").write_bytes(content[:-3])
        assert [*read_examples(files.pairs, RANKINGS, words)] == expected
        assert f"{folder} is torn or altered: tokenizes {files.pairs} anew" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_run_from_the_cache_is_the_run_from_memory(
    stage: str,
    sft_config: sft.Config,
    assistant: Path,
    files: Any,
    cache: Path,
    run_in_two: Callable,
    outcome: Callable,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if stage == "sft":
        module, config = sft, replace(sft_config, epochs=1, batch_size=16)
    else:
        device = DeviceOptions("cpu", "fp32", 1)
        module, config = dpo, dpo.Config(model=assistant, data=files.rankings, max_new_tokens=8, device=device)
    from_cache = outcome(run_in_two(module, replace(config, out=tmp_path / "cached"), 2))
    assert list(cache.iterdir())
    monkeypatch.setattr(hash_cache, "LARGE", 1 << 40)
    assert outcome(module.run(replace(config, out=tmp_path / "memory"))) == from_cache


def test_rows_that_are_too_long_are_left_out_of_each_split(
    words: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [{"prompt": "name it", "completions": ["lime " * n, "plum"], "ranking": [1, 2]} for n in (1, 60)]
    data, long = write_rows(tmp_path / "a.jsonl", *rows), write_rows(tmp_path / "b.jsonl", rows[1])
    rejected = RejectedRows()
    splits = read_splits(RANKINGS, dpo.Config(data=data, validation=long), words, rejected)
    fitting = keep_fitting(splits, "rankings", 64, data, rejected)
    assert len(fitting["train"]) == 1 and len(fitting["validation"]) == 0
    assert [left.count for left in rejected.left_out] == [1, 1]
    assert "validation: nothing is left to validate on" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"b.jsonl: none of the 1 rankings is within 64 tokens; shorten them"):
        keep_fitting({"train": splits["validation"]}, "rankings", 64, long)
    assert read_rows("demonstrations", None, words, 64) == []


def test_conversations_that_the_chat_template_cannot_show_are_unusable_rows(
    words: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data, rejected = write_rows(tmp_path / "rows.jsonl", PLAIN, {"conversations": CALLS}), RejectedRows()
    assert len(read_examples(data, demonstrations(), words, rejected)) == 1
    reason = "the chat template refuses the turns user assistant tool assistant: unknown role tool"
    assert [(Path(row.file).name, row.line, row.reason) for row in rejected.rows] == [("rows.jsonl", 2, reason)]
    assert "1 rejected (first: " in (lines := capsys.readouterr().err) and "rows.jsonl:2 the chat template" in lines
    with pytest.raises(InputError, match=r"rows.jsonl:2: the chat template refuses .*; 1 of 2 rows cannot be used"):
        read_examples(data, demonstrations(), words, RejectedRows(0.1))
    alone = write_rows(tmp_path / "alone.jsonl", {"conversations": CALLS})
    with pytest.raises(InputError, match=r"no demonstration can be read \(line 1: the chat template refuses") as error:
        read_examples(alone, demonstrations(), words)
    assert "--columns" not in str(error.value)


def test_a_row_that_teaches_no_end_stops_the_run(
    words: Tokenizer, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*arguments: Any) -> Any:
        rendered = render(*arguments)
        return replace(rendered, ids=rendered.ids[:-1], loss_mask=rendered.loss_mask[:-1], roles=rendered.roles[:-1])

    monkeypatch.setattr(row_cache, "render", cut)
    with pytest.raises(InputError, match=r"the row of rows.jsonl:1 can't be trained on: .* not learn to stop"):
        read_examples(write_rows(tmp_path / "rows.jsonl", PLAIN), demonstrations(), words)
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [("all", ["look", "a rose", "a hen"]), ("exchange", ["a hen"]), ("last", ["a hen"])],
)
def test_calls_of_tools_are_trained(words: Tokenizer, tmp_path: Path, train_on: Any, expected: list[str]) -> None:
    tokenizer = Tokenizer(words._backend, bos=words.bos, eos=words.eos, pad=words.pad, chat_template=TEMPLATE)
    more = [{"from": "human", "value": "more"}, {"from": "gpt", "value": "a hen"}]
    tools = json.dumps([{"name": "look", "parameters": {"type": "object"}}])
    data = write_rows(tmp_path / "rows.jsonl", {"conversations": [*CALLS, *more], "tools": tools})
    examples = read_examples(data, demonstrations(train_on), tokenizer)
    (example,), (ids, loss_mask) = examples, examples.rows(0)[0]
    (read,) = sources.read_demonstrations(data).rows
    narrowed = read.messages if train_on == "all" else last_trained(read.messages, train_on)
    trained_turns = [message.trained for message in example.messages]
    assert isinstance(example, Demonstration) and trained_turns == [message.trained for message in narrowed]
    trained = tokenizer.decode([i for i, mark in zip(ids, loss_mask) if mark], skip_special_tokens=False)
    turns = trained.split(tokenizer.eos)[:-1]
    assert len(turns) == len(expected) and all(each in turn for each, turn in zip(expected, turns))
    assert tokenizer.decode(ids).startswith('[{"type": "function", "function": {"name": "look"')
