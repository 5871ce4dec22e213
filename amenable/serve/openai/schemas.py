"""Request bodies of the API's routes, each field with its bounds.

OpenAI's fields that ask for nothing are accepted, those that ask for what is not supported are refused with advice, and
unknown fields are refused unless they are empty (serve/openai/fields.py).

(Annotations are evaluated here, not kept as text: pydantic reads them.)
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from amenable.data.record import InvalidRow
from amenable.data.turns import tool_calls, tool_schemas
from amenable.data.types import Message, ToolCall
from amenable.generation.sampling import Sampling
from amenable.serve.openai.fields import Body, ClientBody, Ignored, field_error, limit_fields, unsupported

MAX_COMPLETIONS = 16
MAX_PROMPTS = 1024

Text = Annotated[str, Field(max_length=200_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]
ROLES = ("system", "developer", "user", "assistant", "tool")

NO_TOOLS = "tools are named in `tools`, and called in `tool_calls`: leave it out"
NO_CHOICE = (
    "a call cannot be forced here: leave it out; a model that calls a tool writes the call into its answer's text, as "
    "its chat template has it"
)
NO_ROLE = f"roles are {', '.join(ROLES)}"
NO_SOUND = "answers are text alone: leave it out"
NO_IMAGES = "messages are text alone: send parts of type text, and describe images, sounds and files in words"
NO_FORMAT = (
    "answers are not held to JSON or to a schema: leave it out, ask for JSON in a message, and check what comes "
    "(where it does not parse, ask again with another seed)"
)
NO_PENALTY = (
    "tokens are not penalised here: leave it out; temperature, top_p, top_k and min_p decide how tokens are drawn"
)
NO_BIAS = "no token is favoured or banned here: leave it out"
NO_SEARCH = "nothing is searched for here: leave it out, and write into a message what the model should know"
NO_MODERATION = "nothing is moderated here: leave it out, and judge answers yourself"
NO_REASONING = "models do not reason before they answer here: leave it out"
NO_VERBOSITY = "leave it out, and say in a message how long an answer should be"
NO_SUFFIX = "texts are continued, not filled in: leave it out"


def read_calls(value: Any) -> tuple[ToolCall, ...]:
    """Return a message's calls of tools. Raises PydanticCustomError for any other value."""
    try:
        return tool_calls(value, "the message")
    except InvalidRow as error:
        raise refused(error) from None


def read_tools(value: Any) -> str:
    """Return the schemas of tools as JSON text. Raises PydanticCustomError for any other value."""
    try:
        return tool_schemas(value, "tools")
    except InvalidRow as error:
        raise refused(error) from None


def refused(error: InvalidRow) -> PydanticCustomError:
    return PydanticCustomError("refused_field", "{advice}", {"advice": str(error), "code": "invalid_value"})


class Part(ClientBody):
    """A part of a message: a text, or an assistant's refusal."""

    type: Annotated[Literal["text", "refusal"], unsupported(NO_IMAGES, "text", "refusal")]
    text: Text | None = None
    refusal: Text | None = None
    image_url: Annotated[Any, unsupported(NO_IMAGES)] = None
    input_audio: Annotated[Any, unsupported(NO_IMAGES)] = None
    file: Annotated[Any, unsupported(NO_IMAGES)] = None
    annotations: Ignored = None
    cache_control: Ignored = None
    prompt_cache_breakpoint: Ignored = None

    @model_validator(mode="after")
    def has_text(self) -> "Part":
        if getattr(self, self.type) is None:
            raise field_error(self.type, f"a part of type {self.type} needs one", "missing_required_parameter")
        return self

    @property
    def content_text(self) -> str:
        return getattr(self, self.type)


class Turn(ClientBody):
    """A message of a conversation, as clients write it or as this API returned it."""

    role: Annotated[Literal["system", "developer", "user", "assistant", "tool"], unsupported(NO_ROLE, *ROLES)]
    content: Text | Annotated[list[Part], Field(max_length=100, fail_fast=True)] | None = None
    refusal: Text | None = None
    """an assistant's text in place of `content`"""
    prefix: bool = False
    """continue this last message of the assistant (Mistral's and DeepSeek's switch)"""
    tool_calls: Annotated[Any, AfterValidator(read_calls)] = ()
    tool_call_id: Name | None = None
    """of a tool's message: the call that it answers"""
    function_call: Annotated[Any, unsupported(NO_TOOLS)] = None
    audio: Annotated[Any, unsupported(NO_SOUND)] = None
    name: Ignored = None
    """used of a tool's message alone"""
    annotations: Ignored = None
    reasoning_content: Text | None = None
    """an assistant's thinking, for chat templates that show it"""
    thinking_blocks: Ignored = None
    provider_specific_fields: Ignored = None

    @model_validator(mode="after")
    def has_text(self) -> "Turn":
        if self.content is None and self.role != "assistant":
            raise field_error("content", f"a message of the {self.role} needs one", "missing_required_parameter")
        if self.content and self.refusal:
            raise field_error("refusal", "a message has a content or a refusal: put all words into the content")
        return self

    @property
    def message(self) -> Message:
        if isinstance(self.content, list):
            text = "".join(part.content_text for part in self.content)
        else:
            text = self.content or self.refusal or ""
        if self.role == "assistant":
            return Message(self.role, text, reasoning=self.reasoning_content or "", tool_calls=self.tool_calls)
        if self.role == "tool":
            return Message(self.role, text, tool_call_id=self.tool_call_id or "", name=str(self.name or ""))
        return Message(self.role, text)

    @property
    def ignored(self) -> list[str]:
        """Names of the fields that were set and have no effect."""
        return [name for name in super().ignored if self.role != "tool" or name != "name"]


Turns = Annotated[list[Turn], Field(min_length=1, max_length=1000, fail_fast=True)]


class StreamOptions(ClientBody):
    include_usage: bool = False
    include_obfuscation: Ignored = None


class SamplingRequest(ClientBody):
    """Sampling settings, the fields that chat and completions share."""

    model: Name
    max_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10**6)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    n: Annotated[int, Field(ge=1, le=MAX_COMPLETIONS)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[Any, unsupported(NO_PENALTY, 0)] = None
    frequency_penalty: Annotated[Any, unsupported(NO_PENALTY, 0)] = None
    repetition_penalty: Annotated[Any, unsupported(NO_PENALTY, 1)] = None
    logit_bias: Annotated[Any, unsupported(NO_BIAS, {})] = None
    response_format: Annotated[Any, unsupported(NO_FORMAT, {"type": "text"})] = None
    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None

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


class ChatRequest(SamplingRequest):
    messages: Turns
    max_completion_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    continue_final_message: bool = False
    """continue the assistant's last message instead of beginning a new one (vLLM's switch)"""
    add_generation_prompt: bool | None = None
    """begin a turn of the assistant: always, unless its last message is continued (vLLM's name)"""
    truncation: Literal["auto", "disabled"] = "disabled"
    """auto: the oldest turns are dropped where all do not fit; the header x-dropped-messages counts them"""
    tools: Annotated[Any, AfterValidator(read_tools)] = ""
    """JSON schemas for the chat template; calls are not taken out of the answer's text"""
    tool_choice: Annotated[Any, unsupported(NO_CHOICE, "none", "auto")] = None
    parallel_tool_calls: Annotated[Any, unsupported(NO_CHOICE, True, False)] = None
    functions: Annotated[Any, unsupported(NO_TOOLS, [])] = None
    function_call: Annotated[Any, unsupported(NO_TOOLS, "none", "auto")] = None
    modalities: Annotated[Any, unsupported(NO_SOUND, [], ["text"])] = None
    audio: Annotated[Any, unsupported(NO_SOUND)] = None
    web_search_options: Annotated[Any, unsupported(NO_SEARCH)] = None
    moderation: Annotated[Any, unsupported(NO_MODERATION)] = None
    reasoning_effort: Annotated[Any, unsupported(NO_REASONING, "none")] = None
    verbosity: Annotated[Any, unsupported(NO_VERBOSITY, "medium")] = None
    prediction: Ignored = None

    @model_validator(mode="after")
    def fits_together(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise field_error("top_logprobs", "set logprobs to true as well")
        return self

    @property
    def ignored(self) -> list[str]:
        """Names of the fields, of messages too, that were set and have no effect."""
        of_messages = {f"messages.{name}" for turn in self.messages for name in turn.ignored}
        return [*super().ignored, *sorted(of_messages)]


Ids = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, max_length=10**6, fail_fast=True)]


class CompletionRequest(SamplingRequest):
    prompt: (
        Text
        | Ids
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    ) = ""
    """without one a new text begins, as at OpenAI"""
    max_tokens: Annotated[int, Field(ge=0, le=10**6)] | None = None
    """0 with echo: the prompt's log-probabilities alone"""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool = False
    """give the prompt back before its continuation, with its log-probabilities if those are wanted"""
    best_of: Annotated[int, Field(ge=1, le=MAX_COMPLETIONS)] | None = None
    suffix: Annotated[Any, unsupported(NO_SUFFIX, "")] = None

    @model_validator(mode="after")
    def fits_together(self) -> "CompletionRequest":
        if self.best_of not in (None, self.n or 1):
            raise field_error("best_of", "all answers that are drawn are returned: leave it out, and ask for n")
        if self.max_tokens == 0 and not self.echo:
            raise field_error("max_tokens", "0 tokens are no answer: use 1 or more, or echo to have the prompt alone")
        return self


class ScoreRequest(ClientBody):
    model: Name
    messages: Turns
    completions: Annotated[list[Text], Field(min_length=1, max_length=64)]
    ended: Annotated[list[bool], Field(max_length=64)] | None = None
    """true for each completion that ended by itself; all did where this is absent"""


class LogprobsRequest(Body):
    """Rows of ids whose log-probabilities are wanted, from the id `first` of each row to its last."""

    rows: Annotated[list[Ids], Field(min_length=1, max_length=4096, fail_fast=True)]
    first: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=4096, fail_fast=True)]
    temperature: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """divides the logits"""

    @model_validator(mode="after")
    def fits_together(self) -> "LogprobsRequest":
        if len(self.first) != len(self.rows):
            raise field_error("first", f"{len(self.first)} for {len(self.rows)} rows")
        if any(first >= len(ids) for first, ids in zip(self.first, self.rows)):
            raise field_error("first", "a row has no id there")
        return self


class RewardBatch(Body):
    """A batch of completions, each with its prompt. Further fields, columns of the prompts' rows, are ignored."""

    model_config = ConfigDict(extra="ignore")

    prompts: Annotated[list[Turns], Field(min_length=1, max_length=256)]
    completions: Annotated[list[Text], Field(min_length=1, max_length=256)]
    ended: Annotated[list[bool], Field(max_length=256)] | None = None
    """true for each completion that ended by itself; all did where this is absent"""


Settings = Annotated[dict[Annotated[str, Field(max_length=50)], float | int | None], BeforeValidator(limit_fields)]
"""sampling settings of the answers, as the page says"""
Key = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


class ThumbRequest(Body):
    id: Key
    """made by the page; feedback of one id is stored once"""
    model: Name
    messages: Turns
    """the conversation, ending with the answer"""
    up: bool
    sampling: Settings = Field(default_factory=dict)


class RankingRequest(Body):
    id: Key
    messages: Turns
    completions: Annotated[list[Text], Field(min_length=2, max_length=9)]
    """in the order shown"""
    ranking: Annotated[list[Annotated[int, Field(ge=1, le=9)]], Field(min_length=2, max_length=9)]
    """1 the best, ties share a rank"""
    models: Annotated[list[Name], Field(max_length=9)] = Field(default_factory=list)
    sampling: Settings = Field(default_factory=dict)
    seconds: Annotated[float, Field(ge=0, le=1e6)] = 0.0
