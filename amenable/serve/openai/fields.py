"""Fields as official clients send them: accepted where they ask for nothing, refused by name where they ask for more.

A client sends back what it was sent (`refusal: null`), and names options at their defaults (`tools: []`). So a null is
as good as an absent field, in every body; an unknown field may be null or empty; a field that OpenAI's API has and this
one cannot serve is declared with the values that ask for nothing, and the advice for all others.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

MOST_FIELDS = 50
EMPTY: tuple[Any, ...] = (None, "", [], {})
EMPTY_SCHEMA = {"enum": list(EMPTY)}


def few(said: Any) -> Any:
    """What is said, unless it has too many fields: each that is wrong is written out, and there is room for 100,000."""
    if isinstance(said, dict) and len(said) > MOST_FIELDS:
        raise ValueError(f"{len(said)} fields, of at most {MOST_FIELDS}")
    return said


class Body(BaseModel):
    """What a request says: nothing beyond its fields, no number that is not one."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def has_few_fields(cls, said: Any) -> Any:
        return few(said)


def allow_empty(schema: dict[str, Any]) -> None:
    """Write into a body's JSON schema that optional fields may be null, and unknown ones empty."""
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        if name not in required:
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}]}
    schema["additionalProperties"] = EMPTY_SCHEMA


class ClientBody(Body):
    """A body that clients of OpenAI's API fill: null is as absent, and an unknown field may be null or empty."""

    model_config = ConfigDict(json_schema_extra=allow_empty)

    @model_validator(mode="before")
    @classmethod
    def drop_empty(cls, fields: Any) -> Any:
        """Remove what is null, and unknown fields that are empty; PydanticCustomError for any other unknown one."""
        if not isinstance(fields, dict) or len(fields) > MOST_FIELDS:
            return fields
        for name, value in fields.items():
            if name not in cls.model_fields and value not in EMPTY:
                raise error_at(name, f"there is no such field{nearest(str(name), cls)}", "unknown_parameter")
        return {name: value for name, value in fields.items() if name in cls.model_fields and value is not None}

    @property
    def ignored(self) -> list[str]:
        """Names of the fields that say something and have no part in the answer."""
        marked = [name for name, field in type(self).model_fields.items() if IGNORED in field.metadata]
        return [name for name in marked if getattr(self, name) not in (*EMPTY, False)]


def nearest(name: str, body: type[BaseModel]) -> str:
    """The known field that an unknown one may be meant for, as a question."""
    near = difflib.get_close_matches(name[:50], body.model_fields, n=1)
    return f" (did you mean {near[0]}?)" if near else "; leave it out"


def error_at(field: str, advice: str, code: str = "invalid_value") -> PydanticCustomError:
    """An error of a body's field, raised by a validator of the whole body; `code` is that of OpenAI's error object."""
    name = str(field)[:200].encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be sent back
    return PydanticCustomError("refused_field", "{advice}", {"advice": advice, "field": name, "code": code})


def unsupported(advice: str, *neutral: Any) -> BeforeValidator:
    """A field that is refused with advice, unless it has one of the values that ask for nothing."""

    def check(value: Any) -> Any:
        if value in neutral:
            return value
        raise PydanticCustomError("refused_field", "{advice}", {"advice": advice, "code": "unsupported_parameter"})

    return BeforeValidator(check)


IGNORED = "accepted, with no part in the answer"
Ignored = Annotated[Any, IGNORED]
"""what only OpenAI's own service has a use for: labels, places to keep things, prices"""
