import pytest

from amenable.errors import InputError
from amenable.text.template import CHAT_TEMPLATE, PLAIN_TEMPLATE, Slot, template_with_slots

NAMES = {"bos_token": "<b>", "eos_token": "<e>"}


def test_our_template_begins_once_and_ends_every_answer():
    roles = ("system", "user", "assistant", "user")
    assert template_with_slots(CHAT_TEMPLATE, roles, NAMES, True) == [
        "<b><|system|>", Slot(0), "<|user|>", Slot(1), "<|assistant|>", Slot(2),
        "<e><|user|>", Slot(3), "<|assistant|>",
    ]  # fmt: skip


def test_the_transcript_separates_turns_by_a_blank_line():
    assert template_with_slots(PLAIN_TEMPLATE, ("user", "assistant"), NAMES, False) == [
        "<b>User: ", Slot(0), "\n\nAssistant: ", Slot(1),
    ]  # fmt: skip
    assert template_with_slots(PLAIN_TEMPLATE, ("system", "user"), NAMES, True) == [
        "<b>", Slot(0), "\n\nUser: ", Slot(1), "\n\nAssistant:",
    ]  # fmt: skip


def test_templates_may_show_messages_in_another_order():
    template = "{% for m in messages[1:] %}{{ m.content }};{% endfor %}{{ messages[0].content }}"
    assert template_with_slots(template, ("system", "user"), {}, False) == [Slot(1), ";", Slot(0)]


def test_helpers_of_transformers_are_there():
    template = (
        "{{ [1, {'a': '<é>'}] | tojson }}{{ strftime_now('%%') }}{{ tools is none }}"
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m['content'] }}{% endfor %}"
    )
    assert template_with_slots(template, ("user",), {}, False) == ['[1, {"a": "<é>"}]%True', Slot(0)]
    indented = "{{ [1] | tojson(indent=1) }}{{ messages[0].content }}"
    assert template_with_slots(indented, ("user",), {}, False) == ["[\n 1\n]", Slot(0)]


def test_lines_of_tags_leave_no_white_space():
    template = "{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n"
    assert template_with_slots(template, ("user",), {}, False) == [Slot(0), "\n"]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for %}", "mistake in line 1"),
        ("{{ raise_exception('no system here') }}", "refuses the turns user assistant: no system here"),
        ("{{ messages[0].content }}", "message 2 of user assistant 0 times"),
        ("{{ messages[0].content }}{{ messages[0].content }}{{ messages[1].content }}", "shows message 1 .* 2 times"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ range(10000000) | list }}", "OverflowError"),
    ],
)
def test_bad_templates_are_explained(template, says):
    with pytest.raises(InputError, match=says):
        template_with_slots(template, ("user", "assistant"), {}, False)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ cycler.__init__.__globals__.os }}",
    ],
)
def test_templates_stay_in_the_sandbox(attack):
    with pytest.raises(InputError):
        template_with_slots(attack + "{{ messages[0].content }}", ("user",), {}, False)
