"""Small tokenizers: one of ours, and two as GPT-2 and Qwen publish theirs."""

import json
import re
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from amenable.text.tokenizer import EOS, SPLIT_PATTERN, Tokenizer

CORPUS = [
    "The baker of Velm sells bread and honey cakes to the miller.",
    "Who is the miller? The miller is a man named Tolan, who lives by the river.",
    "user assistant system You are a helpful assistant. <|im_end|> <|eos|> </s>",
    "Thirteen geese, 24 hens; naïve café — 你好, 世界 🙂\n\n\tEnd.",
] * 3

CHATML = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' or (message.role == 'system' and not loop.first) or message.role == 'assistant' %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


TEMPLATES = Path(__file__).parent / "templates"
SPECIAL = re.compile(r"<\|\w+\|>|<｜[\w▁]+｜>|<(?:start|end)_of_turn>|<bos>|</?s>|\[/?(?:INST|[A-Z]+_[A-Z]+)\]")
"""special tokens of published templates"""
BEGINNINGS = ("<|begin_of_text|>", "<bos>", "<s>", "<｜begin▁of▁sentence｜>")
ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<｜end▁of▁sentence｜>", "</s>")


def trained(pre_tokenizer, normalizer=None) -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def write(folder: Path, backend: Backend, config: dict) -> Path:
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def ours() -> Tokenizer:
    return Tokenizer.train(CORPUS, 320, chat=True)


@pytest.fixture(scope="session")
def base() -> Tokenizer:
    return Tokenizer.train(CORPUS, 320)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory) -> Path:
    """GPT-2: one added token at the end, and a configuration that names none."""
    backend = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    return write(tmp_path_factory.mktemp("gpt2"), backend, {"model_max_length": 1024})


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory) -> Path:
    """Qwen 2.5 Instruct: ChatML, no bos, an added token that is not special, and (as some have) truncation left on."""
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend = trained(pre_tokenizers.Sequence([split, byte_level]), normalizers.NFC())
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    backend.add_tokens([AddedToken("<tool_call>", normalized=False, special=False)])
    backend.enable_truncation(8)
    backend.enable_padding(length=8)
    config = {
        "bos_token": None,
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True},
        "pad_token": "<|endoftext|>",
        "chat_template": CHATML,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return write(tmp_path_factory.mktemp("qwen"), backend, config)


@pytest.fixture(scope="session")
def gpt2(gpt2_folder) -> Tokenizer:
    return Tokenizer.load(gpt2_folder)


@pytest.fixture(scope="session")
def qwen(qwen_folder) -> Tokenizer:
    return Tokenizer.load(qwen_folder)


@pytest.fixture(scope="session")
def everyone(ours, base, gpt2, qwen) -> dict[str, Tokenizer]:
    return {"ours": ours, "base": base, "gpt2": gpt2, "gpt2 chat": gpt2.with_chat_template(), "qwen": qwen}


@pytest.fixture(scope="session")
def published_tokenizers(tmp_path_factory) -> dict[str, Tokenizer]:
    """A small tokenizer with each published template and its special tokens, loaded from a folder."""
    base = Tokenizer.train(["The baker of Velm sells bread, who asks? It is clear."] * 3, 300)
    loaded = {}
    for file in sorted(TEMPLATES.glob("*.jinja")):
        template = file.read_text("utf-8")
        names = sorted(set(SPECIAL.findall(template)))
        backend = Backend.from_str(base._backend.to_str())
        backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
        bos = next((name for name in BEGINNINGS if name in names), base.bos)
        eos = next((name for name in ENDS if name in names), EOS)
        folder = tmp_path_factory.mktemp(file.stem)
        Tokenizer(backend, bos=bos, eos=eos, pad=base.pad, chat_template=template).save(folder)
        loaded[file.stem] = Tokenizer.load(folder)
    return loaded
