from pathlib import Path

import pytest

from amenable import cli
from amenable.data import columns
from amenable.data.column_mapping import parse_mapping, value_at
from amenable.data.sources import read_demonstrations, read_prompts, read_rankings
from amenable.data.types import Message
from amenable.errors import InputError
from amenable.stages import dpo, pretrain, reward, sft
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import fitting_prompts
from amenable.train.text_chunks import read_chunks


def test_a_mapping_reads_the_columns_that_it_names_and_no_others(tmp_path: Path, jsonl) -> None:
    row = {"prompt": "old", "question": "Who?", "sys": "Be brief.", "a": "Tolan.", "b": "Nobody.", "margin": 9}
    file = jsonl(tmp_path / "pairs.jsonl", row)
    loaded = read_rankings(file, columns=("prompt=question", "system=sys", "chosen=a", "rejected=b"))
    (ranking,) = loaded.rows
    assert ranking.prompt == (Message("system", "Be brief."), Message("user", "Who?"))
    assert ranking.completions == ("Tolan.", "Nobody.") and ranking.margin is None
    assert ranking.meta == {"prompt": "old", "margin": 9}, "what is not read stays with the row"
    assert loaded.plan() == ["pairs.jsonl: 1 ranking; columns question, sys, a, b used; not used: prompt, margin"]
    with_margin = ("prompt=question", "chosen=b", "rejected=a", "margin=margin", "id=sys")
    assert (ranking := read_rankings(file, columns=with_margin).rows[0]).margin == 9 and ranking.id == "Be brief."


def test_paths_go_into_objects_lists_and_text_that_is_json(tmp_path: Path, jsonl) -> None:
    talk = [{"text": "Who?", "by": 1}, {"text": "Tolan.", "by": 2}, {"text": "Sure?", "by": 1}]
    row = {"conversation": talk, "extra.note": "x", "code": '{"gold": {"text": "Tolan."}}'}
    file = jsonl(tmp_path / "a.jsonl", row)
    loaded = read_demonstrations(file, columns=("prompt=conversation.0.text", "completion=code.gold.text"))
    assert [message.content for message in loaded.rows[0].messages] == ["Who?", "Tolan."]
    assert loaded.plan() == [
        "a.jsonl: 1 demonstration; columns conversation.0.text, code.gold.text used; "
        "not used: extra.note, conversation.0.by, conversation (other entries)"
    ]
    assert value_at(row, "conversation.-1.text") == "Sure?" and value_at(row, "extra.note") == "x"
    for path in ("conversation.3.text", "conversation.text", "code.bronze", "nothing", "extra.note.x"):
        assert value_at(row, path) is None


def test_a_column_may_be_absent_in_some_rows_and_not_in_all(tmp_path: Path, jsonl) -> None:
    mapping = ("prompt=question", "chosen=better", "rejected=worse", "margin=gap")
    rows = [{"question": f"{i}?", "better": "a", "worse": "b", **({"gap": 2} if i else {"gap": None})} for i in (0, 1)]
    loaded = read_rankings(jsonl(tmp_path / "a.jsonl", *rows), columns=mapping)
    assert [row.margin for row in loaded.rows] == [None, 2]
    with pytest.raises(InputError) as error:
        read_rankings(jsonl(tmp_path / "b.jsonl", *rows), columns=("prompt=quesiton", *mapping[1:]))
    line = str(error.value)
    assert line.startswith(str(tmp_path / "b.jsonl")) and "\n" not in line
    assert "no column 'quesiton', which --columns reads as prompt; the nearest is 'question'" in line


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (["prompt"], "'prompt' is no mapping"),
        (["prompt="], "'prompt=' is no mapping"),
        (["promt=a"], "unknown target 'promt'; did you mean 'prompt'?"),
        (["prompt=a", "prompt=b"], "two columns for prompt: 'a' and 'b'"),
        (["chosen=a", "rejected=a"], "'a' is mapped to chosen and to rejected"),
    ],
)
def test_mappings_that_are_none(entries, problem):
    with pytest.raises(InputError, match=problem.replace("?", r"\?")):
        parse_mapping(entries, columns.TARGETS)


def test_columns_of_a_published_format_may_have_other_names(tmp_path: Path, jsonl) -> None:
    row = {"post": "Where?", "x": "Here.", "y": "There.", "better": 0, "history": "another"}
    file = jsonl(tmp_path / "a.jsonl", row)
    mapping = ("history=post", "human_ref_A=x", "human_ref_B=y", "labels=better")
    loaded = read_rankings(file, columns=mapping)
    assert loaded.rows[0].completions == ("Here.", "There.") and loaded.rows[0].ranks == (2.0, 1.0)
    assert loaded.plan() == ["a.jsonl: 1 ranking; columns post, x, y, better used; not used: history"]
    assert read_prompts(file, columns=mapping[:1] + ("prompt=history",)).rows[0].messages[0].content == "another"


def test_every_stage_maps_the_columns_of_its_data(tmp_path: Path, jsonl, tokenizer_folder: Path) -> None:
    words = Tokenizer.load(tokenizer_folder).with_chat_template()
    rows = [{"q": f"{i}?", "x": "a rose", "y": "a frog", "body": f"rose {i}", "text": "no"} for i in range(4)]
    data = jsonl(tmp_path / "a.jsonl", *rows)
    pair = ("prompt=q", "chosen=x", "rejected=y")
    training, held_out = sft.read(sft.Config(data=data, columns=("prompt=q", "completion=y")), words, 200)
    assert {row.messages[1].content for row in (*training, *held_out)} == {"a frog"} and len(training) == 3
    for stage in (dpo, reward):
        config = stage.Config(data=data, validation=data, columns=pair)
        assert len(stage.read(config, words, 200)[0]) == 4
    config = pretrain.Config(data=data, validation=data, context=64, columns=("text=body",))
    assert "rose 2" in words.decode(read_chunks(config, words, 64, 1000).training[2][0])
    prompts, _ = fitting_prompts(data, words, 100, columns=("prompt=q",))
    assert [prompt.messages[0].content for prompt in prompts] == ["0?", "1?", "2?", "3?"]


def test_a_mapping_is_part_of_a_runs_identity(tmp_path: Path, jsonl, capsys) -> None:
    data = jsonl(tmp_path / "a.jsonl", *[{"body": "The rose is red.", "title": "Rose"}] * 9)
    command = ["tokenizer", "--data", str(data), "--out", str(tmp_path / "run"), "--vocab-size", "262"]
    assert cli.main([*command, "--columns", "text=body"]) == 0
    assert "a.jsonl: 9 texts; column body used; not used: title" in capsys.readouterr().err
    assert "columns:\n- text=body\n" in (tmp_path / "run" / "config.yaml").read_text()
    assert cli.main([*command, "--columns", "text=body"]) == 0, "finished"
    capsys.readouterr()
    assert cli.main([*command, "--columns", "text=title"]) == 2
    assert "columns" in capsys.readouterr().err
