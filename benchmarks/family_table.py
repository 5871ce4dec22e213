"""The table of families: what of a published model comes in, is used and goes out as transformers has it.

    python -m benchmarks.family_table                       # random models of transformers, templates of tests/text
    python -m benchmarks.family_table --templates FOLDER    # the chat templates (*.jinja) of another folder

FOLDER may be the `chat_templates` of an unpacked trl wheel. Numbers are the largest difference over all shapes of a
family (benchmarks/family_models.py), in fp32.

logits in, out  of a folder of transformers, and of ours opened by transformers
text            of 20 greedy tokens after prompts of several lengths, all are the same
reward          scores of a sequence classifier
adapter         logits with LoRA on every linear layer, beside its products added to transformers' own weights
template        ids of a conversation, with and without a system prompt, equal `apply_chat_template`
tools, thinking the same of a conversation with calls of tools, and of one with a thinking block; empty where no
                template of the family shows them, and such rows are refused
mask            what is trained is the assistant's words, calls and thinking, and the token that ends each turn
GGUF            llama.cpp's architecture that it is exported as
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import tyro

from amenable.data.columns import demonstration
from amenable.errors import InputError
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import gguf, pretrained
from amenable.models.adapter_files import save_adapters
from amenable.models.family import model_types
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, adapters, add_adapters
from amenable.text.chat import render
from amenable.text.tokenizer import EOS, Tokenizer
from benchmarks import family_models
from benchmarks.family_models import LENGTHS, SHAPES, flat, our_logits, padded, random_model, tokens
from benchmarks.machine import print_lines

COLUMNS = (
    *("family", "logits in", "logits out", "text", "reward", "adapter"),
    *("template", "tools", "thinking", "mask", "GGUF"),
)
FOLDER = Path(__file__).parents[1] / "tests" / "text" / "templates"
TEMPLATES = {
    "gemma": ("gemma",),
    "gemma3_text": ("gemma3",),
    "llama": ("llama2", "llama3", "llama3_1", "llama3_2", "smollm2", "zephyr"),
    "mistral": ("mistral_v1", "mistral_v3"),
    "olmo2": ("olmo2",),
    "phi3": ("phi3", "phi3_5"),
    "qwen2": ("chatml", "qwen2_5"),
    "qwen3": ("qwen3",),
}
"""names of the families' templates, of which a folder may lack some"""
SPECIAL = re.compile(r"<\|\w+\|>|<(?:start|end)_of_turn>|<bos>|<eos>|</?s>|\[/?(?:INST|[A-Z]+_[A-Z]+)\]")
"""special tokens of published templates"""
BEGINNINGS, ENDS = ("<|begin_of_text|>", "<bos>", "<s>"), ("</s>", EOS)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call00001", "type": "function", "function": {"name": "look", "arguments": {"at": 'the "world"', "n": 2}}}
PLAIN: list[dict[str, Any]] = [
    {"role": "user", "content": "hello fox"},
    {"role": "assistant", "content": "the world says 12"},
    {"role": "user", "content": "more"},
    {"role": "assistant", "content": "brown words"},
]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "template": PLAIN,
    "system": [{"role": "system", "content": "be brown"}, *PLAIN[:2]],
    "tools": [
        PLAIN[0],
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "name": "look", "tool_call_id": "call00001", "content": "12"},
        PLAIN[1],
    ],
    "thinking": [PLAIN[0], {**PLAIN[1], "reasoning_content": "brown words"}],
}
GREEDY = 20


@dataclass(frozen=True)
class Config:
    """Measure every family beside transformers."""

    templates: Path = FOLDER
    """folder of chat templates, as in trl's wheel"""
    out: Path | None = None
    """also write the table to this file"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table. Returns 2 for a mistake, else 0."""
    try:
        config = tyro.cli(Config, args=arguments, prog="benchmarks.family_table", description=__doc__)
        if not any(config.templates.glob("*.jinja")):
            raise InputError("has no templates (*.jinja)", config.templates, "name the chat_templates of a trl wheel")
    except InputError as error:
        print(f"benchmarks.family_table: {error}", file=sys.stderr)
        return 2
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return print_lines(table(config), config.out, "benchmarks.family_table")


def table(config: Config) -> Iterator[str]:
    """Yield the lines of the table, family by family."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|" + "---|" * len(COLUMNS)
    for model_type in model_types():
        yield f"| {' | '.join(measure(model_type, config.templates))} |"


def measure(model_type: str, templates: Path) -> list[str]:
    """Return a family's cells."""
    with tempfile.TemporaryDirectory() as name:
        shapes = range(len(SHAPES[model_type]))
        folders = [Path(name, str(index)) for index in shapes]
        pairs = [language_model(model_type, index, folder) for index, folder in zip(shapes, folders)]
        scores = [classifier(model_type, index, folder / "classifier") for index, folder in zip(shapes, folders)]
        adapted = adapter(model_type, folders[0] / "adapted")
        exported = gguf_architecture(folders[0] / "theirs")
        files = [templates / f"{each}.jinja" for each in TEMPLATES.get(model_type, ())]
        chats = [template(file, Path(name)) for file in files if file.is_file()]
    same = all(text for _, _, text in pairs)
    return [
        f"`{model_type}`",
        f"{max(first for first, _, _ in pairs):.0e}",
        f"{max(second for _, second, _ in pairs):.0e}",
        "equal" if same else "other",
        f"{max(scores):.0e}",
        f"{adapted:.0e}",
        *(verdict([chat[column] for chat in chats if column in chat]) for column in COLUMNS[6:10]),
        exported,
    ]


@torch.inference_mode()
def language_model(model_type: str, index: int, folder: Path) -> tuple[float, float, bool]:
    """Return the differences of logits in and out, and True if greedy text is the same."""
    model = random_model(folder / "theirs", model_type, index)
    expected = flat(model(padded()).logits)
    decoder = pretrained.load_decoder(folder / "theirs").eval()
    pretrained.save(folder / "ours", decoder, bos_id=1, eos_id=2, pad_id=0)
    again = transformers.AutoModelForCausalLM.from_pretrained(folder / "ours").eval()
    differences = (our_logits(decoder) - expected, flat(again(padded()).logits) - expected)
    prompts = [prompt.tolist() for prompt in tokens().split(LENGTHS)]
    sampling = Sampling(temperature=0.0, max_new_tokens=GREEDY)
    ours = [completion.ids for (completion,) in generate(decoder, prompts, sampling, eos_id=None)]
    theirs = [family_models.greedy(model, prompt, GREEDY) for prompt in prompts]
    return float(differences[0].abs().max()), float(differences[1].abs().max()), ours == theirs


@torch.inference_mode()
def classifier(model_type: str, index: int, folder: Path) -> float:
    """Return the difference of a sequence classifier's scores."""
    model = random_model(folder, model_type, index, classifier=True)
    scalar, layout = pretrained.load_scalar(folder).eval(), Layout.of(LENGTHS)
    return float((scalar(tokens(), layout, at=layout.last_tokens) - model(padded()).logits[:, 0]).abs().max())


def adapter(model_type: str, folder: Path) -> float:
    """Return the difference of logits under adapters."""
    model = random_model(folder / "theirs", model_type, 0)
    decoder = pretrained.load_decoder(folder / "theirs").eval()
    add_adapters(decoder, LoraOptions(rank=2, alpha=4.0), seed=0)
    for layer in adapters(decoder).values():
        for b in layer.b:
            torch.nn.init.normal_(b, std=0.2, generator=torch.Generator().manual_seed(len(b)))
    save_adapters(folder / "adapter", decoder)
    family_models.merge_published(model, folder / "adapter")
    with torch.no_grad():
        return float((our_logits(decoder) - flat(model(padded()).logits)).abs().max())


def gguf_architecture(folder: Path) -> str:
    """Return llama.cpp's name of a model's architecture, or why it is not exported."""
    try:
        return gguf.architecture_of(pretrained.read_config(folder))
    except InputError:
        return "no"


def template(file: Path, folder: Path) -> dict[str, bool]:
    """Return by column whether our ids are those of `apply_chat_template`, for the conversations that the template
    shows, and whether what is trained is what the assistant generates."""
    ours, theirs = tokenizers(file, folder / file.stem)
    equal, masked = dict[str, bool](), list[bool]()
    for name, turns in CONVERSATIONS.items():
        tools = [TOOL] if name == "tools" else None
        try:
            rendered = render(ours, demonstration({"messages": turns, "tools": tools}, name).messages)
        except InputError:  # this template has no system prompt, no tools, or no thinking
            continue
        thinking = name == "thinking"
        text = theirs.apply_chat_template(turns, tools=tools, tokenize=False, enable_thinking=thinking)
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        after = str(theirs.decode(ids[len(rendered.ids) :])).strip()  # a template may write more after the last turn
        same = rendered.ids == ids[: len(rendered.ids)] and after in ("", theirs.eos_token)
        column = name if name in COLUMNS else "template"
        # Mistral's template shows a system prompt only before a last message of the user, and so never in a whole text
        if name != "system" or "be brown" in text:
            equal[column] = equal.get(column, True) and same
        trained = theirs.decode([i for i, trained in zip(rendered.ids, rendered.loss_mask) if trained])
        masked.append(is_generated(trained.split(ours.end_of_turn), turns))
    return equal | {"mask": bool(masked) and all(masked)}


def tokenizers(file: Path, folder: Path) -> tuple[Tokenizer, Any]:
    """Return our tokenizer and transformers' of a folder with a template and its special tokens."""
    source = file.read_text("utf-8")
    names = sorted(set(SPECIAL.findall(source)))
    Tokenizer.train([" ".join(turn["content"] for turn in PLAIN)] * 3, 300).save(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.add_special_tokens({"additional_special_tokens": names})
    theirs.eos_token, theirs.chat_template = next(end for end in ENDS if end in (*names, EOS)), source
    if first := [name for name in BEGINNINGS if name in names]:
        theirs.bos_token = first[0]
    theirs.save_pretrained(folder)
    return Tokenizer.load(folder), theirs


def is_generated(trained: Sequence[str], turns: Sequence[dict[str, Any]]) -> bool:
    """Return True if trained texts, split at the ends of turns, are the assistant's words, calls and thinking."""
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if len(trained) != len(answers) + 1 or trained[-1]:
        return False
    for text, answer in zip(trained, answers):
        if calls := answer.get("tool_calls"):
            written = json.dumps(calls[0]["function"]["arguments"])
            if not (calls[0]["function"]["name"] in text and written in text and text.strip()[0] in "<[{"):
                return False
        elif "reasoning_content" in answer:
            whole = re.fullmatch(r"<think>\s*(.*?)\s*</think>\s*(.*)", text.strip())
            if whole is None or whole.groups() != (answer["reasoning_content"], answer["content"]):
                return False
        elif text.strip() != answer["content"]:
            return False
    return True


def verdict(results: Sequence[bool]) -> str:
    """Return a cell: that all of some templates hold, how many do, or nothing."""
    if not results:
        return ""
    return "equal" if all(results) else f"{sum(results)} of {len(results)}"


if __name__ == "__main__":
    sys.exit(main())
