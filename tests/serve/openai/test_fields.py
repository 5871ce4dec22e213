from typing import Annotated, Any

import pytest
from pydantic import ValidationError

from amenable.serve.openai.fields import MAX_FIELDS, ClientBody, Ignored, field_error, unsupported


class Asked(ClientBody):
    count: int
    size: int = 3
    tools: Annotated[Any, unsupported("no tools here", [], "none")] = None
    label: Ignored = None


def wrong(**fields: Any) -> dict[str, Any]:
    """The first thing that is wrong."""
    with pytest.raises(ValidationError) as refused:
        Asked(**fields)
    return dict(refused.value.errors()[0])


@pytest.mark.parametrize("empty", [None, "", [], {}])
def test_null_is_as_absent_and_an_unknown_field_may_be_empty(empty: Any) -> None:
    assert Asked(count=1, tomorrow=empty, size=None) == Asked(count=1)  # type: ignore[call-arg, arg-type]
    assert wrong(count=None)["type"] == "missing"
    assert wrong(count=1, size=[])["type"] == "int_type"


def test_a_field_without_support_has_its_neutral_values() -> None:
    for neutral in (None, [], "none"):
        assert Asked(count=1, tools=neutral).ignored == []
    for asking in ("auto", [1], {}, False, 0):
        error = wrong(count=1, tools=asking)
        assert (error["loc"], error["msg"]) == (("tools",), "no tools here")
        assert error["ctx"]["code"] == "unsupported_parameter"


def test_an_unknown_field_that_says_something_is_named_with_the_nearest() -> None:
    error = wrong(count=1, sise=4)
    assert error["ctx"]["field"] == "sise" and error["msg"] == "there is no such field (did you mean size?)"
    assert wrong(count=1, xyz=False)["msg"] == "there is no such field; leave it out"
    long = wrong(count=1, **{"x" * 10**5: 1})
    assert len(str(long["ctx"]["field"])) <= 200


def test_what_has_no_part_in_an_answer_is_named_if_it_says_something() -> None:
    assert Asked(count=1, label="a").ignored == ["label"]
    for empty in (None, "", False, {}):
        assert Asked(count=1, label=empty).ignored == []


def test_very_many_fields_are_not_looked_at() -> None:
    error = wrong(count=1, **{f"x{i}": None for i in range(MAX_FIELDS)})
    assert f"{MAX_FIELDS + 1} fields, of at most {MAX_FIELDS}" in error["msg"]


def test_the_schema_says_what_is_accepted() -> None:
    schema = Asked.model_json_schema()
    assert schema["additionalProperties"] == {"enum": [None, "", [], {}]}
    assert {"type": "null"} in schema["properties"]["size"]["anyOf"]
    assert schema["properties"]["count"]["type"] == "integer"


def test_signs_of_a_template_in_an_advice_are_left_as_they_are() -> None:
    assert field_error("a", "send {advice} or {x}").message() == "send {advice} or {x}"
