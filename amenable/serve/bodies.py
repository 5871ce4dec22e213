"""What a request says: the bodies of the API's routes, each field with its bounds. What is not named here is refused.

(Annotations are evaluated here, not kept as text: pydantic reads them.)
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from amenable.data.types import Message
from amenable.generation.sampling import Sampling

MOST_ANSWERS = 16
MOST_FIELDS = 50


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


Text = Annotated[str, Field(max_length=200_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]


class Part(Body):
    type: Literal["text"]
    text: Text


class Turn(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(min_length=1, max_length=100, fail_fast=True)]

    @property
    def message(self) -> Message:
        said = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, said)


Turns = Annotated[list[Turn], Field(min_length=1, max_length=1000, fail_fast=True)]


class StreamOptions(Body):
    include_usage: bool = False


class Drawn(Body):
    """How answers are drawn: what chat and completions have in common."""

    model: Name
    max_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10**6)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    user: Annotated[str, Field(max_length=200)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def sampling(self, max_tokens: int) -> Sampling:
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k,
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p,
            max_new_tokens=max_tokens,
        )


class ChatBody(Drawn):
    messages: Turns
    max_completion_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    """auto: the oldest turns are dropped where all do not fit; how many is said in x-dropped-messages"""


Ids = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, max_length=10**6, fail_fast=True)]


class CompletionBody(Drawn):
    prompt: Text | Ids | Annotated[list[Text], Field(min_length=1, max_length=MOST_ANSWERS)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


class ScoreBody(Body):
    model: Name
    messages: Turns
    completions: Annotated[list[Text], Field(min_length=1, max_length=64)]
    ended: Annotated[list[bool], Field(max_length=64)] | None = None
    """whether each answer ended by itself; all did where this is absent"""


Settings = Annotated[dict[Annotated[str, Field(max_length=50)], float | int | None], BeforeValidator(few)]
"""how answers were drawn, as the page says"""
Token = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


class LoginBody(Body):
    token: Token


class ThumbBody(Body):
    id: Token
    """made by the page; the same one twice is kept once"""
    model: Name
    messages: Turns
    """the conversation, ending with the answer"""
    up: bool
    sampling: Settings = {}


class RankingBody(Body):
    id: Token
    messages: Turns
    completions: Annotated[list[Text], Field(min_length=2, max_length=9)]
    """in the order in which they were shown"""
    ranking: Annotated[list[Annotated[int, Field(ge=1, le=9)]], Field(min_length=2, max_length=9)]
    """1 the best, ties share a rank"""
    models: Annotated[list[Name], Field(max_length=9)] = []
    sampling: Settings = {}
    seconds: Annotated[float, Field(ge=0, le=1e6)] = 0.0
