"""Chat templates as published: ids are those of transformers' `apply_chat_template`, for conversations with a system
prompt, tools and thinking; trained is what the assistant generates. A template that cannot show a conversation says so.

`templates/README.md` names the packages that the templates are from.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from amenable.data.columns import demonstration
from amenable.data.types import Conversation, Message, ToolCall
from amenable.errors import InputError
from amenable.text.chat import Rendered, render, render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.first_batch import check_conversations

FOLDER = Path(__file__).parent / "templates"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Return the weather of a <place>.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Its name"}}},
    },
}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, reasoning: str = "", **arguments: Any) -> dict[str, Any]:
    call = {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    parts = {"reasoning_content": reasoning} if reasoning else {}
    return {"role": "assistant", "content": text} | parts | ({"tool_calls": [call]} if arguments else {})


RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": '{"sky": "clear"}'}
CITY = {"city": 'Velm "<x>" é', "days": 2, "near": ["Tol", {"a": None}]}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "plain": [user("Who bakes?"), assistant("Velm does."), user("And?"), assistant("Nobody.")],
    "system": [system("Be brief."), user("Who bakes?"), assistant("Velm does.")],
    "opened": [assistant("Welcome!"), user("Who bakes?"), assistant("Velm does.")],
    "call": [user("Is it clear?"), assistant("", **CITY)],
    "tools": [user("Is it clear?"), assistant("", **CITY), RESULT, assistant("It is."), user("Oh"), assistant("Yes.")],
    "words and call": [user("Is it clear?"), assistant("I look.", **CITY), RESULT, assistant("It is.")],
    "thinking": [user("Who?"), assistant("Velm.", "They ask."), user("And?"), assistant("Nobody.", "They insist.")],
    "block": [user("Who?"), assistant("<think>\nThey ask.\n</think>\n\nVelm.")],
    "thinking and call": [user("Clear?"), assistant("", "I look.", **CITY), RESULT, assistant("Yes.", "It is.")],
}
WITH_TOOLS = ("call", "tools", "words and call", "thinking and call")
PLAIN = ("plain", "system", "block")
SHOWN = {
    "chatml": (*PLAIN, "opened"),
    "deepseek_r1_distill": ("plain", "system", "opened", "thinking", "block"),
    "gemma": ("plain", "block"),
    "gemma3": PLAIN,
    "lfm2_v2": (*PLAIN, "opened", "call", "tools", "words and call"),
    "llama2": PLAIN,
    "llama3": (*PLAIN, "opened"),
    "llama3_1": (*PLAIN, "opened", "call", "tools"),
    "llama3_2": (*PLAIN, "opened", "call", "tools"),
    "mistral_v1": PLAIN,
    "mistral_v3": ("plain", "system", "call", "tools", "block"),
    "olmo2": (*PLAIN, "opened"),
    "phi3": (*PLAIN, "opened"),
    "phi3_5": (*PLAIN, "opened"),
    "qwen2_5": (*PLAIN, "opened", "call", "tools", "words and call"),
    "qwen3": tuple(CONVERSATIONS),
    "smollm2": (*PLAIN, "opened"),
    "zephyr": (*PLAIN, "opened"),
}
"""conversations that each template shows; the others have to be refused"""
OWN_WAY = {
    ("deepseek_r1_distill", "thinking"): "the template leaves out all thinking, also that of the last turn",
    ("deepseek_r1_distill", "block"): "the template leaves out all thinking, also that of the last turn",
    ("mistral_v3", "system"): "the template shows the system prompt only before a user's message that comes last",
}
"""conversations that are more than transformers renders, and why"""


@pytest.fixture(scope="module")
def tokenizers(published_tokenizers) -> dict[str, Tokenizer]:
    return published_tokenizers


@pytest.fixture(scope="module")
def theirs(tokenizers, tmp_path_factory) -> dict[str, Any]:
    transformers = pytest.importorskip("transformers")
    loaded = {}
    for name, tokenizer in tokenizers.items():
        folder = tmp_path_factory.mktemp("published")
        tokenizer.save(folder)
        loaded[name] = transformers.AutoTokenizer.from_pretrained(folder)
    return loaded


def messages_of(conversation: str) -> Conversation:
    tools = {"tools": [WEATHER]} if conversation in WITH_TOOLS else {}
    return demonstration({"messages": CONVERSATIONS[conversation], **tools}, "row").messages


def published(them: Any, conversation: str, **options: Any) -> Any:
    """Render by transformers, which leaves nulls of the arguments as they are: the rows' reader does not."""
    messages = json.loads(json.dumps(CONVERSATIONS[conversation]).replace('{"a": null}', "null"))
    return them.apply_chat_template(
        messages,
        tools=[WEATHER] if conversation in WITH_TOOLS else None,
        enable_thinking="think" in json.dumps(messages) or conversation.startswith("thinking"),
        **options,
    )


def trained_texts(tokenizer: Tokenizer, rendered: Rendered) -> list[str]:
    """Return the trained stretches of a conversation."""
    texts, stretch = [], list[int]()
    for token, trained in zip([*rendered.ids, 0], [*rendered.loss_mask, False], strict=True):
        if trained:
            stretch.append(token)
        elif stretch:
            texts.append(tokenizer.decode(stretch, skip_special_tokens=False))
            stretch = []
    return texts


@pytest.mark.parametrize(("name", "conversation"), [(name, each) for name in SHOWN for each in SHOWN[name]])
def test_ids_are_those_of_transformers(name, conversation, tokenizers, theirs):
    tokenizer, messages = tokenizers[name], messages_of(conversation)
    rendered = render(tokenizer, messages)
    ids = published(theirs[name], conversation, return_dict=True)["input_ids"]
    same = rendered.ids == ids[: len(rendered.ids)]
    assert same is ((name, conversation) not in OWN_WAY)
    if same:
        rest = tokenizer.decode(ids[len(rendered.ids) :], skip_special_tokens=False).strip()
        assert rest in ("", tokenizer.eos), "only white space and an end come after the last turn"
    prompt = render_prompt(tokenizer, messages[:-1], messages[-1].content)
    if not messages[-1].reasoning:
        assert rendered.ids[: len(prompt)] == prompt
    if not messages[-1].tool_calls and not messages[-1].reasoning:
        assert rendered.ids[len(prompt) :] == render_completion(tokenizer, messages[-1].content)


@pytest.mark.parametrize(
    ("name", "conversation"), [(name, each) for name in SHOWN for each in CONVERSATIONS if each not in SHOWN[name]]
)
def test_a_conversation_that_a_template_cannot_show_is_refused(name, conversation, tokenizers):
    with pytest.raises(InputError, match=r"the chat template (refuses|leaves out|does not|fails|shows)"):
        render(tokenizers[name], messages_of(conversation))


CALL = {
    "lfm2_v2": "<|tool_call_start|>[get_weather(city=",
    "llama3_1": '{"name": "get_weather", "parameters": {"city": "Velm \\"<x>\\" é", "days": 2, "near": ["Tol", null]}}',
    "mistral_v3": '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Velm \\"<x>\\" é", "days": 2, "near": ',
    "qwen2_5": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Velm \\"<x>\\" é", "days": 2, "near": ',
}


@pytest.mark.parametrize("name", SHOWN)
def test_trained_are_words_and_ends_of_turns(name, tokenizers):
    tokenizer = tokenizers[name]
    for conversation in {"plain", "system", "opened", "block"} & set(SHOWN[name]):
        messages = messages_of(conversation)
        words = [message.content for message in messages if message.role == "assistant"]
        texts = trained_texts(tokenizer, render(tokenizer, messages))
        assert [text.removesuffix(tokenizer.end_of_turn).strip() for text in texts] == words
        assert all(text.endswith(tokenizer.end_of_turn) for text in texts)


@pytest.mark.parametrize("name", CALL)
def test_rows_with_calls_pass_the_checks_of_the_first_batch(name, tokenizers):
    tokenizer, row = tokenizers[name], demonstration({"messages": CONVERSATIONS["tools"], "tools": [WEATHER]}, "row")
    rendered = render(tokenizer, row.messages)
    check = check_conversations([(rendered.ids, rendered.loss_mask)], [row], tokenizer)
    assert len(check.rows) == 1 and {"tool", "tools", "user", "assistant"} <= set(check.rows[0].roles)


@pytest.mark.parametrize("name", CALL)
def test_calls_of_tools_are_trained_and_their_results_are_context(name, tokenizers):
    tokenizer = tokenizers[name]
    call, answer, last = trained_texts(tokenizer, render(tokenizer, messages_of("tools")))
    assert call.startswith(CALL[name]) and call.endswith(tokenizer.end_of_turn)
    assert (answer.strip(), last.strip()) == (f"It is.{tokenizer.end_of_turn}", f"Yes.{tokenizer.end_of_turn}")


def test_earlier_turns_without_their_thinking_are_context_and_the_last_ones_is_trained(tokenizers):
    tokenizer = tokenizers["qwen3"]
    (text,) = trained_texts(tokenizer, render(tokenizer, messages_of("thinking")))
    assert text == "<think>\nThey insist.\n</think>\n\nNobody.<|im_end|>"
    call, answer = trained_texts(tokenizer, render(tokenizer, messages_of("thinking and call")))
    assert call.startswith('<think>\nI look.\n</think>\n\n<tool_call>\n{"name": "get_weather"')
    assert answer == "<think>\nIt is.\n</think>\n\nYes.<|im_end|>"
    tokenizer = tokenizers["deepseek_r1_distill"]
    (text,) = trained_texts(tokenizer, render(tokenizer, messages_of("thinking")))
    assert text == "<think>\nThey insist.\n</think>\n\nNobody.<｜end▁of▁sentence｜>"


MARKED = {name: name.removesuffix("_training") for name in sorted(p.stem for p in FOLDER.glob("*_training.jinja"))}


@pytest.mark.parametrize("name", MARKED)
def test_masks_are_those_of_the_same_template_with_generation_marks(name, tokenizers, theirs):
    """TRL's training templates mark what the assistant generates; masks agree up to what no model generates: white
    space after the end of a turn, and an empty thinking block that the prompt writes."""
    original, marked, them = tokenizers[MARKED[name]], tokenizers[name], theirs[name]
    for conversation in SHOWN[MARKED[name]]:
        out = published(them, conversation, return_dict=True, return_assistant_tokens_mask=True)
        reference = Rendered(out["input_ids"], [bool(mark) for mark in out["assistant_masks"]], [])
        texts = trained_texts(marked, reference)
        expected = [text.partition(marked.end_of_turn)[0].strip() + marked.end_of_turn for text in texts]
        ours = trained_texts(marked, render(marked, messages_of(conversation)))
        assert [text.strip() for text in ours] == expected, "the marks decide"
        if conversation != "thinking":
            unmarked = trained_texts(original, render(original, messages_of(conversation)))
            plain = [text.removeprefix("<think>\n\n</think>\n\n") for text in expected]
            assert [text.strip() for text in unmarked] == plain


ATTACKS = (
    "<|im_end|>",
    "<|eot_id|>",
    "</s>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<|tool_call_end|>",
    "[TOOL_CALLS]",
)


@pytest.mark.parametrize("name", SHOWN)
def test_no_content_argument_or_schema_becomes_a_special_token(name, tokenizers):
    tokenizer, conversation = tokenizers[name], "tools" if "tools" in SHOWN[name] else "plain"
    messages = messages_of(conversation)

    def special(messages: Conversation) -> list[int]:
        return [i for i in render(tokenizer, messages).ids if i in tokenizer.special_ids]

    expected = special(messages)
    for attack in ATTACKS:
        hostile = [
            Message(
                message.role,
                f"{message.content}{attack}" if message.content else "",
                tool_calls=tuple(
                    ToolCall(attack, json.dumps({attack: [attack], "b": {"c": attack}}), call.id)
                    for call in message.tool_calls
                ),
                tool_call_id=message.tool_call_id,
                name=message.name and attack,
                tools=message.tools and message.tools.replace("Its name", attack),
            )
            for message in messages
        ]
        assert special(tuple(hostile)) == expected, attack
