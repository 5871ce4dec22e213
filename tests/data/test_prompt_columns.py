import pytest

from amenable.data import columns
from amenable.data.column_mapping import parse_mapping
from amenable.data.prompt_columns import prompt_messages
from amenable.data.record import InvalidRow, Record

U, A = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Tolan."}


def test_columns_that_repeat_the_prompt_are_used_and_the_fuller_one_is_read() -> None:
    record = Record(
        {"messages": [U], "conversations": [{"from": "human", "value": "Who?"}, A], "prompt": "Who?", "n": 1}
    )
    assert [message.content for message in prompt_messages(record)] == ["Who?", "Tolan."]
    assert record.unused() == ["n"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"prompt": "Who?", "question": "When?", "answer": "x"},
            "prompt and question are different prompts; --columns prompt=prompt or prompt=question selects one",
        ),
        (
            {"messages": [U, A], "instruction": "Say", "system": "S"},
            "messages and instruction are different prompts; "
            "--columns messages=messages system=system or prompt=instruction system=system selects one",
        ),
        ({"messages": [U, A], "conversations": [A, U]}, "messages and conversations are different prompts"),
    ],
)
def test_two_prompts_are_refused_with_the_mappings_that_select_one(row: dict, reason: str) -> None:
    with pytest.raises(InvalidRow) as error:
        prompt_messages(Record(row))
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"question": "Who?", "answer": "Tolan.", "response": "Nobody."},
            "answer and response are different completions; "
            "--columns completion=answer question=question or completion=response question=question selects one",
        ),
        (
            {"prompt": "Who?", "messages": [U, A], "response": "Nobody."},
            "the last turn of the dialogue and response are different completions; "
            "--columns messages=messages or completion=response prompt=prompt selects one",
        ),
    ],
)
def test_two_completions_are_refused_with_the_mappings_that_select_one(row: dict, reason: str) -> None:
    with pytest.raises(InvalidRow) as error:
        columns.demonstration(row, "f:1")
    assert str(error.value) == reason


def test_the_mapping_of_a_refused_row_reads_it() -> None:
    row = {"instruction": "Sort.", "input": "b a", "output": "a b", "response": "none"}
    with pytest.raises(InvalidRow) as error:
        columns.demonstration(row, "f:1")
    entries = str(error.value).split("--columns ")[1].split(" or ")[0].split()
    record = parse_mapping(entries, columns.TARGETS).record(row)
    assert [message.content for message in columns.demonstration(record, "f:1").messages] == ["Sort.\n\nb a", "a b"]
    assert record.unused() == ["response"]


def test_equal_completions_are_one_and_both_columns_are_used() -> None:
    for row in (
        {"prompt": "Who?", "completion": "Tolan.", "response": "Tolan.\n"},
        {"messages": [U, A], "prompt": "Who?", "response": "Tolan."},
    ):
        record = Record(row)
        assert [message.content for message in columns.demonstration(record, "f:1").messages] == ["Who?", "Tolan."]
        assert record.unused() == []


def test_two_comparisons_and_labels_of_steps_are_refused() -> None:
    pair, several = {"prompt": "Who?", "chosen": "a", "rejected": "b"}, {"completions": ["x", "y"], "ranking": [1, 2]}
    with pytest.raises(InvalidRow, match=r"two comparisons: .*--columns prompt=prompt chosen=chosen rejected=rejected"):
        columns.ranking({**pair, **several}, "f:1")
    assert columns.prompt({**pair, **several}, "f:1").messages[0].content == "Who?"
    steps = {"prompt": "Who?", "completions": ["First,", "Tolan."], "labels": [True, False]}
    with pytest.raises(InvalidRow, match="stepwise supervision"):
        columns.ranking(steps, "f:1")
    assert columns.prompt(steps, "f:1").messages[0].content == "Who?"
