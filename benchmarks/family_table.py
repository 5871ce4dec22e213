"""The table of families: what of a published model comes in, is used and goes out as transformers has it.

    python -m benchmarks.family_table                                 # measured on random models of transformers
    python -m benchmarks.family_table --templates FOLDER              # also the chat templates (*.jinja) of this folder

FOLDER may be the `chat_templates` of an unpacked trl wheel. Numbers are the largest difference over all shapes of a
family (benchmarks/family_models.py), in fp32.

logits in, out  of a folder of transformers, and of ours opened by transformers
text            of 20 greedy tokens after prompts of several lengths, all are the same
reward          scores of a sequence classifier
adapter         logits with LoRA on every linear layer, beside its products added to transformers' own weights
template        ids of a conversation, with and without a system prompt, equal `apply_chat_template`
mask            what is trained is the assistant's words and the token that ends each turn, and nothing else
GGUF            llama.cpp's architecture that it is exported as
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
import tyro

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import gguf, pretrained
from amenable.models.adapter_files import save_adapters
from amenable.models.family import model_types
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, adapters, add_adapters
from amenable.text.chat import render
from amenable.text.tokenizer import Tokenizer
from benchmarks import family_models
from benchmarks.family_models import LENGTHS, SHAPES, flat, our_logits, padded, random_model, tokens
from benchmarks.machine import print_lines

COLUMNS = ("family", "logits in", "logits out", "text", "reward", "adapter", "template", "mask", "GGUF")
TEMPLATES = {
    "gemma": ("gemma",),
    "gemma3_text": ("gemma3",),
    "llama": ("llama3", "llama3_1", "llama3_2"),
    "phi3": ("phi3", "phi3_5"),
    "qwen2": ("qwen2_5",),
    "qwen3": ("qwen3", "qwen3_instruct_2507"),
}
"""names of the families' templates in trl's folder"""
SPECIAL = re.compile(r"<\|[A-Za-z0-9_]+\|>|<(?:start|end)_of_turn>|<bos>|<eos>|</?s>")
"""special tokens of published templates"""
BEGINNINGS, END = ("<|begin_of_text|>", "<bos>", "<s>"), "<|endoftext|>"
TURNS = (("user", "hello fox"), ("assistant", "the world says 12"), ("user", "more"), ("assistant", "brown words"))
GREEDY = 20


@dataclass(frozen=True)
class Config:
    """Measure every family beside transformers."""

    templates: Path | None = None
    """folder of chat templates, as in trl's wheel; without it their columns are empty"""
    out: Path | None = None
    """also write the table to this file"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table. Returns 2 for a mistake, else 0."""
    try:
        config = tyro.cli(Config, args=arguments, prog="benchmarks.family_table", description=__doc__)
        if config.templates is not None and not any(config.templates.glob("*.jinja")):
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


def measure(model_type: str, templates: Path | None) -> list[str]:
    """Return a family's cells."""
    with tempfile.TemporaryDirectory() as name:
        shapes = range(len(SHAPES[model_type]))
        folders = [Path(name, str(index)) for index in shapes]
        pairs = [language_model(model_type, index, folder) for index, folder in zip(shapes, folders)]
        scores = [classifier(model_type, index, folder / "classifier") for index, folder in zip(shapes, folders)]
        adapted = adapter(model_type, folders[0] / "adapted")
        exported = gguf_architecture(folders[0] / "theirs")
        files = [templates / f"{each}.jinja" for each in TEMPLATES.get(model_type, ())] if templates else []
        chats = [template(file, Path(name)) for file in files]
    same = all(text for _, _, text in pairs)
    return [
        f"`{model_type}`",
        f"{max(first for first, _, _ in pairs):.0e}",
        f"{max(second for _, second, _ in pairs):.0e}",
        "equal" if same else "other",
        f"{max(scores):.0e}",
        f"{adapted:.0e}",
        verdict([ids for ids, _ in chats]),
        verdict([mask for _, mask in chats]),
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


def template(file: Path, folder: Path) -> tuple[bool, bool]:
    """Return True if our ids of a conversation are those of `apply_chat_template`, and True if what is trained is the
    assistant's words with the end of each turn."""
    source = file.read_text("utf-8")
    names = sorted(set(SPECIAL.findall(source)))
    Tokenizer.train([" ".join(content for _, content in TURNS)] * 3, 300).save(folder / file.stem)
    theirs = transformers.AutoTokenizer.from_pretrained(folder / file.stem)
    theirs.add_special_tokens({"additional_special_tokens": names})
    theirs.eos_token, theirs.chat_template = END, source
    if first := [name for name in BEGINNINGS if name in names]:
        theirs.bos_token = first[0]
    theirs.save_pretrained(folder / file.stem)
    ours = Tokenizer.load(folder / file.stem)
    equal, masked = [], []
    for turns in (TURNS, (("system", "be brown"), *TURNS)):
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            text = theirs.apply_chat_template(messages, tokenize=False, enable_thinking=False)
        except Exception:  # Jinja's: this template has no system prompt
            continue
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        rendered = render(ours, [Message(role, content) for role, content in turns])
        after = str(theirs.decode(ids[len(rendered.ids) :])).strip()  # a template may write more after the last turn
        equal.append(rendered.ids == ids[: len(rendered.ids)] and after in ("", END))
        trained = theirs.decode([i for i, trained in zip(rendered.ids, rendered.loss_mask) if trained])
        masked.append(trained == "".join(content + ours.end_of_turn for role, content in turns if role == "assistant"))
    return bool(equal) and all(equal), bool(masked) and all(masked)


def verdict(results: Sequence[bool]) -> str:
    """Return a cell: that all of some templates hold, how many do, or nothing."""
    if not results:
        return ""
    return "equal" if all(results) else f"{sum(results)} of {len(results)}"


if __name__ == "__main__":
    sys.exit(main())
