"""Fields of OpenAI's API: accepted where they ask for nothing, refused by name with advice where they ask for more.

A client sends back what it was sent (`refusal: null`), and names options at their defaults (`tools: []`). So a null is
as good as an absent field, in every body; an unknown field may be null or empty; a field that OpenAI's API has and this
one cannot serve is declared with the values that ask for nothing, and the advice for all others.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

MAX_FIELDS = 50
EMPTY: tuple[Any, ...] = (None, "", [], {})
EMPTY_SCHEMA = {"enum": list(EMPTY)}


def limit_fields(value: Any) -> Any:
    """Return a JSON value. Raises ValueError for an object of too many fields: pydantic reports each invalid one."""
    if isinstance(value, dict) and len(value) > MAX_FIELDS:
        raise ValueError(f"{len(value)} fields, of at most {MAX_FIELDS}")
    return value


class Body(BaseModel):
    """A request body: unknown fields, nan and infinity are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def has_few_fields(cls, value: Any) -> Any:
        return limit_fields(value)


def allow_empty(schema: dict[str, Any]) -> None:
    """Write into a body's JSON schema that optional fields may be null, and unknown ones empty."""
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        if name not in required:
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}]}
    schema["additionalProperties"] = EMPTY_SCHEMA


class ClientBody(Body):
    """A body from clients of OpenAI's API: null counts as absent, and an unknown field may be null or empty."""

    model_config = ConfigDict(json_schema_extra=allow_empty)

    @model_validator(mode="before")
    @classmethod
    def drop_empty(cls, fields: Any) -> Any:
        """Remove null fields and empty unknown ones. Raises PydanticCustomError for any other unknown field."""
        if not isinstance(fields, dict) or len(fields) > MAX_FIELDS:
            return fields
        for name, value in fields.items():
            if name not in cls.model_fields and value not in EMPTY:
                raise field_error(name, f"there is no such field{advice_for(str(name), cls)}", "unknown_parameter")
        return {name: value for name, value in fields.items() if name in cls.model_fields and value is not None}

    @property
    def ignored(self) -> list[str]:
        """Names of the fields that were set and have no effect."""
        marked = [name for name, field in type(self).model_fields.items() if IGNORED in field.metadata]
        return [name for name in marked if getattr(self, name) not in (*EMPTY, False)]


def advice_for(name: str, body: type[BaseModel]) -> str:
    """Return advice on an unknown field: the known one of a similar name, or to leave it out."""
    near = difflib.get_close_matches(name[:50], body.model_fields, n=1)
    return f" (did you mean {near[0]}?)" if near else "; leave it out"


def field_error(field: str, advice: str, code: str = "invalid_value") -> PydanticCustomError:
    """Return an error of one field, for a validator of the whole body; `code` is that of OpenAI's error object."""
    name = str(field)[:200].encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be sent back
    return PydanticCustomError("refused_field", "{advice}", {"advice": advice, "field": name, "code": code})


def unsupported(advice: str, *neutral: Any) -> BeforeValidator:
    """Return a validator that refuses a field with advice, unless its value is one of `neutral`."""

    def check(value: Any) -> Any:
        if value in neutral:
            return value
        raise PydanticCustomError("refused_field", "{advice}", {"advice": advice, "code": "unsupported_parameter"})

    return BeforeValidator(check)


IGNORED = "accepted, without effect"
Ignored = Annotated[Any, IGNORED]
"""a field that only OpenAI's own service uses: labels, caches, service tiers"""
