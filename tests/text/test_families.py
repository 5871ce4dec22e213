"""The families of published chat models: small tokenizers and templates in the manner of each, against transformers.

A conversation has the ids that transformers' apply_chat_template gives for the same folder, but for what the template
writes after the last turn's end. A folder comes back as it was, bos is written as often as the template does, and
trained are the assistant's words and the ends of its turns.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from amenable.data.types import Message, Ranking
from amenable.text.chat import decode_completion, render, render_completion, render_prompt
from amenable.text.tokenizer import SPLIT_PATTERN, Tokenizer
from amenable.train import first_batch
from amenable.train.examples import ranking_rows
from amenable.train.first_batch import Example

FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CORPUS = [
    "The baker of Velm sells bread and honey cakes to the miller, who lives by the river.",
    "user assistant system You are a helpful assistant. [INST] [/INST] <<SYS>> <</SYS>> <|user|> <|assistant|>",
    "Thirteen geese, 24 hens; naïve café — 你好, 世界 🙂\n\n\tEnd.",
]
LEGACY = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


@dataclass(frozen=True)
class Family:
    """Content of a model folder of the family."""

    template: str
    special_tokens_map: dict[str, str | None]
    added: tuple[AddedToken, ...]
    backend: Callable[[], Backend]
    end: str
    generation: dict[str, Any] = field(default_factory=dict)
    system: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    """options with which transformers writes the same"""


def special(*names: str, **flags: bool) -> tuple[AddedToken, ...]:
    return tuple(AddedToken(name, special=True, normalized=False, **flags) for name in names)


def plain(*names: str) -> tuple[AddedToken, ...]:
    return tuple(AddedToken(name, special=False, normalized=False) for name in names)


def byte_level() -> Backend:
    backend = Backend(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.decoder = decoders.ByteLevel()
    return backend


def sentence_piece(legacy: bool) -> Backend:
    """A byte-fallback BPE whose spaces are a sign; a text, or each piece of one, begins with a space."""
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *fallback], show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["content"].startswith("<0x")]
    spec["pre_tokenizer"] = None
    backend = Backend.from_str(json.dumps(spec))
    if legacy:
        backend.normalizer = LEGACY
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    spaces = decoders.Replace("▁", " ")
    backend.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    bos = [("<s>", backend.token_to_id("<s>"))]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=bos)
    return backend


TURN = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CHATML = "{% for m in messages %}" + TURN + "{% endfor %}" + ASK
LLAMA2 = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns = '<<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n' %}{% endif %}"
    "{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.index0 == 1 and messages[0].role == 'system' %}"
    "{{ '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' }}{% endif %}"
    "{{ m.content | trim }} [/INST]{% endif %}"
    "{% if m.role == 'assistant' %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}"
    "{% endfor %}"
)
QWEN = "{% if messages[0].role != 'system' %}<|im_start|>system\\nYou help.<|im_end|>\\n{% endif %}" + CHATML
QWEN3 = (
    "{% set ns = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' and loop.index0 > ns.last %}"
    "{% set thought, words = '', m.content %}"
    "{% if '</think>' in m.content %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{% set words = m.content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "{{ '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>\\n\\n' + words + '<|im_end|>\\n' }}"
    "{% else %}" + TURN + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
THINKING = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|Assistant|>' + m.content + eos_token }}"
    "{% else %}{{ ('<|User|>' if m.role == 'user' else '') + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)
HEADLESS = "{% for m in messages %}" + TURN + "{% endfor %}"

IM = special("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NO_BOS = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
SP = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
BYTES = {"bos_token": "<s>", "eos_token": "</s>"}
THINK = plain("<think>", "</think>", "<tool_call>")
FAMILIES = {
    "Llama 2": Family(LLAMA2, SP | {"pad_token": None}, (), lambda: sentence_piece(True), "</s>"),
    "Llama 3": Family(
        LLAMA3,
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        byte_level,
        "<|eot_id|>",
        {"eos_token_id": [401, 404]},
    ),
    "Qwen 2.5": Family(QWEN, NO_BOS, IM + plain("<tool_call>"), byte_level, "<|im_end|>", {"eos_token_id": [402, 400]}),
    "Qwen 3": Family(QWEN3, NO_BOS, IM + THINK, byte_level, "<|im_end|>", options={"enable_thinking": False}),
    "ChatML": Family(
        CHATML,
        NO_BOS | {"bos_token": "<|im_start|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
        IM,
        byte_level,
        "<|im_end|>",
        {"bos_token_id": 401, "eos_token_id": 402, "pad_token_id": 402},
    ),
    "ChatML on a base model": Family(
        CHATML, {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}, IM + THINK, byte_level, "<|im_end|>"
    ),
    "Phi 3": Family(
        PHI3,
        SP | {"pad_token": "<|endoftext|>"},
        special("<|endoftext|>") + special("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", rstrip=True),
        lambda: sentence_piece(True),
        "<|end|>",
        {"eos_token_id": [424, 420, 2], "do_sample": True},
    ),
    "Zephyr": Family(ZEPHYR, SP | {"pad_token": "</s>"}, (), lambda: sentence_piece(True), "</s>"),
    "Mistral": Family(MISTRAL, SP, (), lambda: sentence_piece(False), "</s>", system=False),
    "Mistral on bytes": Family(MISTRAL, BYTES, special("<s>", "</s>"), byte_level, "</s>", system=False),
    "Llama 2 on bytes": Family(LLAMA2, BYTES, special("<s>", "</s>"), byte_level, "</s>"),
    "thinking": Family(
        THINKING,
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"},
        special("<s>", "</s>", "<|User|>", "<|Assistant|>") + THINK,
        byte_level,
        "</s>",
    ),
    "prompts without a header": Family(HEADLESS, NO_BOS, IM, byte_level, "<|im_end|>"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    folders = {}
    for name, family in FAMILIES.items():
        folder = tmp_path_factory.mktemp("family")
        backend = family.backend()
        backend.add_tokens(list(family.added))
        backend.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **family.special_tokens_map,
            "model_max_length": 2048,
            "mine": {"a": 1},
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "chat_template.jinja").write_text(family.template)
        (folder / "generation_config.json").write_text(json.dumps(family.generation))
        folders[name] = folder
    return folders


@pytest.fixture(scope="module")
def theirs(folders) -> dict[str, Any]:
    transformers = pytest.importorskip("transformers")
    return {name: transformers.AutoTokenizer.from_pretrained(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def tokenizers(folders) -> dict[str, Tokenizer]:
    return {name: Tokenizer.load(folder) for name, folder in folders.items()}


letters = st.text("abcdefghij tuv.,!?'\n0123äß世界🙂", max_size=20).map(lambda text: f"a{text}b")


@st.composite
def conversations(draw, system: bool = True, content=letters):
    messages = [Message("system", draw(content))] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        messages += [Message("user", draw(content)), Message("assistant", draw(content))]
    return [*messages, Message("user", draw(content)), Message("assistant", draw(content))]


def ids_of_transformers(them: Any, messages: list[Message], add_generation_prompt: bool, **options: Any) -> list[int]:
    dicts = [{"role": message.role, "content": message.content} for message in messages]
    return them.apply_chat_template(dicts, add_generation_prompt=add_generation_prompt, return_dict=True, **options)[
        "input_ids"
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_transformers(name, tokenizers, theirs):
    family, tokenizer, them = FAMILIES[name], tokenizers[name], theirs[name]

    @FEW
    @given(messages=conversations(family.system))
    def check(messages):
        mine = render(tokenizer, messages)
        ids = ids_of_transformers(them, messages, False, **family.options)
        assert mine.ids == ids[: len(mine.ids)]
        assert not tokenizer.decode(ids[len(mine.ids) :]).strip(), "only white space and ends come after the last turn"
        if name != "prompts without a header":
            prompt = ids_of_transformers(them, messages[:-1], True, **family.options)
            assert render_prompt(tokenizer, messages[:-1]) == prompt

    check()


@pytest.mark.parametrize("name", FAMILIES)
def test_trained_are_the_assistants_words_and_the_ends_of_its_turns(name, tokenizers):
    family, tokenizer = FAMILIES[name], tokenizers[name]
    assert tokenizer.end_of_turn == family.end

    @FEW
    @given(messages=conversations(family.system))
    def check(messages):
        rendered = render(tokenizer, messages)
        thoughts = [message.content for message in messages if message.role == "assistant"]
        trained = [i if mark else None for i, mark in zip(rendered.ids, rendered.loss_mask)]
        turns, turn = [], []
        for i in trained:
            turn += [] if i is None else [i]
            if i == tokenizer.end_of_turn_id:
                turns, turn = [*turns, turn], []
        assert not turn and len(turns) == len(thoughts)
        assert [tokenizer.decode(turn).strip() for turn in turns] == [text.strip() for text in thoughts]
        assert rendered.ids[-1] == tokenizer.end_of_turn_id and rendered.loss_mask[-1]
        prompt = render_prompt(tokenizer, messages[:-1], messages[-1].content)
        assert rendered.ids == prompt + render_completion(tokenizer, messages[-1].content)
        row = Example(rendered.ids, rendered.loss_mask, rendered.roles, True, *first_batch.template_bos(tokenizer))
        assert first_batch.problem(row, tokenizer) is None

    check()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_folder_comes_back_and_no_token_is_added(name, folders, tokenizers, tmp_path):
    tokenizer = tokenizers[name]
    tokenizer.save(tmp_path)
    files = [file for file in folders[name].iterdir() if file.name != "generation_config.json"]
    assert {file.name: file.read_bytes() for file in files} == {
        file.name: file.read_bytes() for file in tmp_path.iterdir()
    }
    assert tokenizer.vocab_size == Backend.from_file(str(folders[name] / "tokenizer.json")).get_vocab_size()
    stops = FAMILIES[name].generation.get("eos_token_id", tokenizer.stop_ids)
    if tokenizer.end_of_turn_id in (stops if isinstance(stops, list) else [stops]):
        assert tokenizer.generation_config == FAMILIES[name].generation
    assert tokenizer.end_of_turn_id in tokenizer.stop_ids and tokenizer.eos_id in tokenizer.stop_ids


@pytest.mark.parametrize("name", FAMILIES)
def test_the_words_of_a_sampled_completion_become_its_ids_again(name, tokenizers):
    tokenizer = tokenizers[name]

    @FEW
    @given(text=letters)
    def check(text):
        ids = render_completion(tokenizer, text)
        assert decode_completion(tokenizer, ids) == text
        assert render_completion(tokenizer, decode_completion(tokenizer, ids)) == ids
        cut = render_completion(tokenizer, text + " ", ended=False)
        assert decode_completion(tokenizer, cut) == text + " ", "what the length limit cut had no end to say"

    check()


THOUGHTS = ("<think>\nthe hen\n</think>\n\n", "the hen\n</think>\n\n", "")
"""an answer's own block, one that goes on from a prompt, and none"""


@pytest.mark.parametrize("thought", THOUGHTS)
@pytest.mark.parametrize("name", ["Qwen 3", "thinking", "ChatML on a base model"])
def test_there_is_one_block_of_thought_at_the_most(name, thought, tokenizers, theirs):
    tokenizer = tokenizers[name]
    messages = [Message("user", "Who bakes?"), Message("assistant", thought + "Velm does.")]
    rendered = render(tokenizer, messages)
    shown = tokenizer.decode(rendered.ids, skip_special_tokens=False)
    opened = 0 if name == "ChatML on a base model" and not thought.startswith("<think>") else 1
    opened = 0 if name == "thinking" and not thought else opened
    assert shown.count("<think>") == opened, shown
    assert shown.count("</think>") == max(opened, thought.count("</think>")) or name == "Qwen 3"
    assert shown.endswith(f"{thought}Velm does.{tokenizer.end_of_turn}")
    assert (
        render_prompt(tokenizer, messages[:-1], messages[1].content) == rendered.ids[: rendered.loss_mask.index(True)]
    )
    if name == "Qwen 3" and thought != THOUGHTS[1]:
        ids = ids_of_transformers(theirs[name], messages, False)
        assert rendered.ids == ids[: len(rendered.ids)], "as transformers writes the whole"


def test_answers_to_one_prompt_with_and_without_thoughts(tokenizers):
    tokenizer, prompt = tokenizers["Qwen 3"], (Message("user", "Who bakes?"),)
    answers = (THOUGHTS[0] + "Velm.", "Velm.", "Nobody.", "")
    rows = ranking_rows(Ranking(prompt, answers, (1.0, 2.0, 3.0, 4.0)), tokenizer, 200)
    for (ids, trained), answer in zip(rows, answers, strict=True):
        rendered = render(tokenizer, [*prompt, Message("assistant", answer)])
        assert ids == rendered.ids and trained == rendered.loss_mask
    assert len({tuple(ids[: trained.index(True)]) for ids, trained in rows}) == 2
    assert render_prompt(tokenizer, prompt) == rows[1][0][: rows[1][1].index(True)], "as it is sampled from"


def test_thoughts_of_earlier_turns_have_one_block_where_the_template_writes_one_for_each_turn(tokenizers):
    """GLM writes an empty block before every answer without a thought."""
    base = tokenizers["Qwen 3"]
    template = CHATML.replace(
        "m.role + '\\n' + m.content",
        "m.role + '\\n' + ('<think></think>\\n' if m.role == 'assistant' else '') + m.content",
    )
    tokenizer = Tokenizer(
        base._backend, bos=None, eos=base.eos, pad=base.pad, chat_template=template, files=base._files
    )
    first = [Message("user", "Who?"), Message("assistant", THOUGHTS[0] + "Velm.")]
    for messages in (first, [*first, Message("user", "And?")], [*first, *first]):
        shown = tokenizer.decode(render(tokenizer, messages).ids)
        assert shown.count("<think>") == shown.count("</think>") == sum(m.role == "assistant" for m in messages)
    plain = tokenizer.decode(render(tokenizer, [first[0], Message("assistant", "Velm."), first[0]]).ids)
    assert plain.count("<think></think>\nVelm.") == 1
