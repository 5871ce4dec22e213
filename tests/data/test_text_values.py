import pytest

from amenable.data.record import InvalidRow
from amenable.data.text_values import from_text


def test_values_are_converted_only_where_a_column_is_no_text():
    row = {
        "messages": '[{"role": "user", "content": "Who?", "name": null}]',
        "ranking": "[1, 2]",
        "prompt": "[1, 2]",
        "chosen": '[{"role": "assistant", "content": "T."}]',
        "completion": "7",
        "margin": "0.5",
        "label": "False",
        "id": "007",
        "system": "",
        "score": "3",
    }
    assert from_text(row) == {
        "messages": [{"role": "user", "content": "Who?"}],
        "ranking": [1, 2],
        "prompt": "[1, 2]",
        "chosen": [{"role": "assistant", "content": "T."}],
        "completion": "7",
        "margin": 0.5,
        "label": False,
        "id": "007",
        "score": "3",
    }
    assert from_text({"margin": "wide", "n": [1]}) == {"margin": "wide", "n": [1]}


@pytest.mark.parametrize(("name", "value"), [("messages", "[hello"), ("ranking", "[1, 2")])
def test_lists_that_are_no_json_say_why(name, value):
    with pytest.raises(InvalidRow, match=f"{name} is no JSON"):
        from_text({name: value})
