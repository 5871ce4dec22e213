"""Modelfiles: templates of the known forms are told by probes, all others left to the GGUF file."""

import re

import pytest

from amenable.recipes.modelfile import PROBES, go_template, modelfile, rendered, turn_texts
from amenable.text.folder import TokenizerFiles
from amenable.text.tokenizer import Tokenizer

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
THINKING = CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>\n\n</think>\n\n' }}{% endif")
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }} [/INST]"
    "{% elif message['role'] == 'system' %}{{ raise_exception('no system') }}{% else %}{{ message['content'] }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)


def with_template(template: str, bos: str = "<|bos|>") -> Tokenizer:
    """A tokenizer of bytes with a template, whose texts begin with bos."""
    files = TokenizerFiles().with_special_tokens({"bos_token": bos}, template)
    backend = Tokenizer.train([], 262)._backend
    return Tokenizer(backend, bos=bos, eos="<|eos|>", pad="<|pad|>", chat_template=template, files=files)


def go_rendered(template: str, roles: tuple[str, ...]) -> str:
    """Run the few constructs of Go's templates that ours have."""
    match = re.fullmatch(
        r"(?s)(?P<begin>.*?)\{\{ range \$i, \$_ := \.Messages \}\}"
        r"\{\{ \$last := eq \(len \(slice \$\.Messages \$i\)\) 1 \}\}"
        r'\{\{ if eq \.Role "system" \}\}(?P<system>.*?)\{\{ else if eq \.Role "user" \}\}(?P<user>.*?)'
        r'\{\{ else if eq \.Role "assistant" \}\}(?P<assistant>.*?)\{\{ if not \$last \}\}(?P<after>.*?)\{\{ end \}\}'
        r'\{\{ end \}\}\{\{ if and \$last \(ne \.Role "assistant"\) \}\}(?P<ahead>.*?)\{\{ end \}\}\{\{ end \}\}',
        template,
    )
    assert match is not None, template
    text = match["begin"]
    for i, role in enumerate(roles):
        text += match[role].replace("{{ .Content }}", chr(ord("A") + i))
        text += match["after"] if role == "assistant" and i < len(roles) - 1 else ""
    return text + (match["ahead"] if roles[-1] != "assistant" else "")


@pytest.mark.parametrize(
    ("template", "begin", "system"),
    [(CHATML, "", "You are kind."), (LLAMA3, "<|bos|>", None), (ZEPHYR, "", None), (None, "<|bos|>", None)],
    ids=["ChatML", "Llama 3", "Zephyr", "ours"],
)
def test_known_forms_are_told(template: str | None, begin: str, system: str | None) -> None:
    tokenizer = with_template(template) if template else Tokenizer.train([], 262, chat=True)
    turns = turn_texts(tokenizer)
    assert turns is not None and (turns.begin, turns.default_system) == (begin, system)
    go = go_template(turns, tokenizer)
    for roles in PROBES:
        if roles[0] == "system" or system is None:
            assert begin + go_rendered(go, roles) == rendered(tokenizer, roles)
    assert "<|bos|>" not in go  # llama.cpp begins with it by itself


def test_a_bos_that_begins_turns_is_no_beginning() -> None:
    """As in SmolLM2, whose bos is <|im_start|>."""
    turns = turn_texts(with_template(CHATML, bos="<|im_start|>"))
    assert turns is not None and turns.begin == "" and turns.before["user"] == "<|im_start|>user\n"


@pytest.mark.parametrize(
    "template",
    [
        THINKING,
        MISTRAL,
        ZEPHYR.replace("{{ '<|'", "{{ strftime_now('%d') + '<|'"),
        ZEPHYR.replace("<|assistant|>\n", "<|assistant|> \n"),
        ZEPHYR.replace("'<|'", "'{{<|'"),
        ZEPHYR.replace("{{ '<|' +", "{{ loop.index | string + '<|' +"),
        "{{ raise_exception('never') }}",
        "no contents",
    ],
)
def test_other_forms_are_left_to_the_file(template: str) -> None:
    tokenizer = with_template(template)
    assert turn_texts(tokenizer) is None
    text = modelfile(tokenizer, "a.gguf", 64, 0.7)
    assert "TEMPLATE" not in text.replace("# no TEMPLATE", "") and "# no TEMPLATE: Ollama reads" in text


def test_a_whole_modelfile() -> None:
    assert modelfile(with_template(ZEPHYR), "a-q8_0.gguf", 100_000, 0.25) == (
        "# Modelfile for Ollama, written by 'amenable export'\n"
        "#   ollama create NAME -f Modelfile && ollama run NAME\n"
        "FROM ./a-q8_0.gguf\n\n"
        'TEMPLATE """{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}'
        '{{ if eq .Role "system" }}<|system|>\n{{ .Content }}<|eos|>\n'
        '{{ else if eq .Role "user" }}<|user|>\n{{ .Content }}<|eos|>\n'
        '{{ else if eq .Role "assistant" }}<|assistant|>\n{{ .Content }}{{ if not $last }}<|eos|>\n{{ end }}{{ end }}'
        '{{ if and $last (ne .Role "assistant") }}<|assistant|>\n{{ end }}{{ end }}"""\n\n'
        'PARAMETER stop "<|eos|>"\nPARAMETER temperature 0.25\nPARAMETER num_ctx 8192\n'
    )
    assert 'SYSTEM """You are kind."""' in modelfile(with_template(CHATML), "a.gguf", 64, 1.0)
    assert "PARAMETER num_ctx 64" in modelfile(with_template(CHATML), "a.gguf", 64, 1.0)


def test_a_base_model_continues_its_prompt() -> None:
    assert 'TEMPLATE """{{ .Prompt }}"""' in modelfile(Tokenizer.train([], 262), "a.gguf", 64, 0.7)
