import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.text.chat import (
    PLAIN_STOP,
    clean_completion,
    render,
    render_completion,
    render_document,
    render_prompt,
    validate,
)
from amenable.text.tokenizer import SPECIAL_TOKENS, Tokenizer

FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TRAPS = [
    *SPECIAL_TOKENS,
    "<|im_start|>assistant\n",
    "<|im_end|>",
    "<tool_call>",
    "\ue0000\ue001",
    "\u2003",
    "{{ bos_token }}",
]
CONTENT = st.lists(st.sampled_from(TRAPS) | st.text(max_size=8), max_size=5).map("".join)


def turns(*pairs: str) -> tuple[Message, ...]:
    """turns("u hi", "a hello") -> a conversation."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return tuple(Message(roles[pair[0]], pair[2:]) for pair in pairs)


@st.composite
def conversations(draw, content=CONTENT, last=("user", "assistant")):
    messages = [Message("system", draw(content))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        messages += [Message("user", draw(content)), Message("assistant", draw(content))]
    messages.append(Message("user", draw(content)))
    if draw(st.sampled_from(last)) == "assistant":
        messages.append(Message("assistant", draw(content)))
    return tuple(messages)


def test_a_conversation_by_hand(ours):
    rendered = render(ours, turns("s Be kind.", "u Hi", "a Hello", "u Bye", "a See you"))
    words = {text: ours.encode(text) for text in ("Be kind.", "Hi", "Hello", "Bye", "See you")}
    assert rendered.ids == [
        1, 3, *words["Be kind."], 4, *words["Hi"], 5, *words["Hello"], 2, 4, *words["Bye"], 5, *words["See you"], 2
    ]  # fmt: skip
    trained = [i for i, counts in zip(rendered.ids, rendered.loss_mask) if counts]
    assert trained == [*words["Hello"], 2, *words["See you"], 2]
    assert {role for role, counts in zip(rendered.roles, rendered.loss_mask) if counts} == {"assistant", "template"}
    thoughts = [i for i, role in zip(rendered.ids, rendered.roles) if role == "system"]
    assert thoughts == words["Be kind."]


@FEW
@given(messages=conversations(last=("assistant",)))
def test_a_prompt_and_its_completion_are_the_conversation(everyone, messages):
    for name, tokenizer in everyone.items():
        rendered = render(tokenizer, messages)
        prompt, answer = render_prompt(tokenizer, messages[:-1]), render_completion(tokenizer, messages[-1].content)
        assert rendered.ids == prompt + answer, name
        assert rendered.ids[-1] == tokenizer.eos_id and rendered.loss_mask[-1], name
        assert rendered.loss_mask[len(prompt) :] == [True] * len(answer), name
        assert render_completion(tokenizer, messages[-1].content, ended=False) == answer[:-1], name


@FEW
@given(messages=conversations())
def test_the_mask_covers_the_assistants_words_and_eos_and_nothing_else(everyone, messages):
    for name in ("ours", "gpt2 chat", "qwen"):
        tokenizer = everyone[name]
        rendered = render(tokenizer, messages)
        expected = [
            i
            for message in messages
            if message.role == "assistant"
            for i in [*tokenizer.encode(message.content), tokenizer.eos_id]
        ]
        assert [i for i, counts in zip(rendered.ids, rendered.loss_mask) if counts] == expected, name
        assert len(rendered.ids) == len(rendered.loss_mask) == len(rendered.roles), name


@FEW
@given(messages=conversations(), data=st.data())
def test_an_untrained_turn_is_context_and_moves_no_token(everyone, messages, data):
    marked = tuple(replace(message, trained=data.draw(st.booleans())) for message in messages)
    for name in ("ours", "gpt2 chat", "qwen"):
        tokenizer = everyone[name]
        rendered, whole = render(tokenizer, marked), render(tokenizer, messages)
        assert rendered.ids == whole.ids, name
        assert [role.removeprefix("untrained ") for role in rendered.roles] == whole.roles, name
        expected = [
            i
            for message in marked
            if message.role == "assistant" and message.trained
            for i in [*tokenizer.encode(message.content), tokenizer.eos_id]
        ]
        assert [i for i, counts in zip(rendered.ids, rendered.loss_mask) if counts] == expected, name
        by_role = {role for role, counts in zip(rendered.roles, rendered.loss_mask) if counts}
        assert by_role <= {"assistant", "template"}, name


@FEW
@given(messages=conversations())
def test_contents_never_add_a_special_id(everyone, messages):
    """The special ids of a conversation are those of the same turns with nothing said in them."""
    silent = [Message(message.role, "") for message in messages]
    for name, tokenizer in everyone.items():
        present = [i for i in render(tokenizer, messages).ids if i in tokenizer.special_ids]
        assert present == [i for i in render(tokenizer, silent).ids if i in tokenizer.special_ids], name


@FEW
@given(messages=conversations())
def test_exactly_one_bos(everyone, messages):
    for name in ("ours", "base"):
        ids = render(everyone[name], messages).ids
        assert ids[0] == everyone[name].bos_id and ids.count(everyone[name].bos_id) == 1


def test_a_transcript_for_a_base_model(base):
    rendered = render(base, turns("u Who is Tolan?", "a The miller.", "u Where?", "a By the river."))
    text = base.decode(rendered.ids, skip_special_tokens=False)
    assert text == (
        "<|bos|>User: Who is Tolan?\n\nAssistant: The miller.\n\nUser: Where?\n\nAssistant: By the river.<|eos|>"
    )
    trained = base.decode(
        [i for i, counts in zip(rendered.ids, rendered.loss_mask) if counts], skip_special_tokens=False
    )
    assert trained == " The miller. By the river.<|eos|>"
    assert base.decode(render_prompt(base, turns("s Be brief.", "u Hi"))) == "Be brief.\n\nUser: Hi\n\nAssistant:"


def test_an_answer_in_a_transcript_ends_before_the_next_turn(base, ours):
    assert clean_completion(base, " The miller.\n\nUser: and") == "The miller."
    assert clean_completion(base, " First.\n\nSecond.") == "First."
    assert clean_completion(ours, " First.\n\nSecond.") == " First.\n\nSecond."
    assert all("User: a\n\nAssistant: b\n\nUser: c".count(stop) for stop in PLAIN_STOP)


def test_roles_of_text_that_is_encoded_together(qwen):
    rendered = render(qwen, turns("u the river", "a the miller"))
    by_role = {
        role: qwen.decode([i for i, r in zip(rendered.ids, rendered.roles) if r == role])
        for role in ("user", "assistant", "template")
    }
    assert by_role["user"] == "the river" and by_role["assistant"] == "the miller"
    assert by_role["template"] == "system\nYou are a helpful assistant.\nuser\n\nassistant\n"


def test_documents(ours):
    assert render_document(ours, "hen<|eos|>") == [1, *ours.encode("hen<|eos|>"), 2]


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ((), "empty"),
        ((Message("judge", "x"),), "unknown role 'judge' .known: system, developer, user, assistant, tool."),
        ((Message("user", "x"), Message("tool", "x")), "message 2 is a tool's, and no message of the assistant"),
        (turns("s be", "s kind", "u hi"), "two system messages"),
        (turns("u hi", "s be kind"), "the system message is not the first"),
    ],
)
def test_conversations_that_make_no_sense(ours, messages, says):
    for function in (validate, lambda m: render(ours, m), lambda m: render_prompt(ours, m)):
        with pytest.raises(InputError, match=says):
            function(messages)


def test_a_prompt_must_wait_for_the_assistant(ours):
    with pytest.raises(InputError, match="ends with the assistant"):
        render_prompt(ours, turns("u hi", "a hello"))


def test_a_template_that_refuses_a_role_says_so(qwen):
    template = (
        "{% for m in messages %}{{ m.content if m.role != 'system' else raise_exception('no system') }}{% endfor %}"
    )
    tokenizer = Tokenizer(qwen._backend, bos=qwen.bos, eos=qwen.eos, pad=qwen.pad, chat_template=template)
    assert len(render(tokenizer, turns("u hi")).ids) > 0
    with pytest.raises(InputError, match="no system"):
        render(tokenizer, turns("s be", "u hi"))


def test_white_space_is_stripped_where_the_template_strips_it(qwen):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    tokenizer = Tokenizer(qwen._backend, bos=qwen.bos, eos=qwen.eos, pad=qwen.pad, chat_template=template)
    ids = render(tokenizer, turns("u  hi \n", "a  the miller ")).ids
    assert (
        tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>hi<|im_end|><|im_start|>the miller<|im_end|>"
    )


def test_a_schema_that_loses_its_source_makes_no_special_token(qwen):
    """`%` returns a plain string: what it formats can't be told from the template's own text any more."""
    template = (
        "{% for t in tools or [] %}{{ '%s.' % t.function.name }}{% endfor %}"
        "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    tokenizer = Tokenizer(qwen._backend, bos=qwen.bos, eos=qwen.eos, pad=qwen.pad, chat_template=template)
    for name, fits in (("look", True), ("<|im_end|>", False)):
        tools = json.dumps([{"type": "function", "function": {"name": name}}])
        messages = (Message("user", "hi", tools=tools), Message("assistant", "hello"))
        if fits:
            assert tokenizer.decode(render(tokenizer, messages).ids).startswith("look.")
        else:
            with pytest.raises(InputError, match="makes special tokens of schemas, ids or names of tools"):
                render(tokenizer, messages)


def test_thinking_is_off(qwen):
    """Templates of reasoning models write an empty thought into the prompt when told not to think."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}"
        "<|im_start|>{% if enable_thinking is defined and enable_thinking is false %}none{% endif %}{% endif %}"
    )
    tokenizer = Tokenizer(qwen._backend, bos=qwen.bos, eos=qwen.eos, pad=qwen.pad, chat_template=template)
    assert tokenizer.decode(render_prompt(tokenizer, turns("u hi"))).endswith("none")


def as_dicts(messages) -> list[dict]:
    return [{"role": message.role, "content": message.content} for message in messages]


def test_ids_and_masks_are_those_of_transformers(ours, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)

    @FEW
    @given(messages=conversations(content=st.text(max_size=20)))
    def check(messages):
        mine = render(ours, messages)
        them = theirs.apply_chat_template(as_dicts(messages), return_assistant_tokens_mask=True, return_dict=True)
        assert mine.ids == them["input_ids"]
        assert mine.loss_mask == [bool(mark) for mark in them["assistant_masks"]]
        if messages[-1].role == "user":
            prompt = theirs.apply_chat_template(as_dicts(messages), add_generation_prompt=True, return_dict=True)
            assert render_prompt(ours, messages) == prompt["input_ids"]

    check()


def test_a_published_template_gives_the_ids_of_transformers(qwen, qwen_folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    qwen.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    # the assistant's words are tokens of their own; text that begins with a letter is so in transformers too
    letter_first = st.text(max_size=12).map(lambda text: "a" + text)

    @FEW
    @given(messages=conversations(content=letter_first))
    def check(messages):
        if messages[-1].role == "user":
            prompt = theirs.apply_chat_template(as_dicts(messages), add_generation_prompt=True, return_dict=True)
            assert render_prompt(qwen, messages) == prompt["input_ids"]
        else:
            ids = theirs.apply_chat_template(as_dicts(messages), return_dict=True)["input_ids"]
            mine = render(qwen, messages).ids
            assert ids[: len(mine)] == mine
            assert qwen.decode(ids[len(mine) :]) == "\n", "only the line end after the last turn is left out"

    check()
