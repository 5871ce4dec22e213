"""Does llama.cpp compute the same of a file that `amenable export` wrote? Ids, greedy continuations, KL of the logits.

    make bench-llamacpp                                             # sets .venv-peers-llamacpp up, then runs this
    python -m benchmarks.llamacpp_agreement --model models/smollm2
    python -m benchmarks.llamacpp_agreement --architectures         # small random models of each, in fp32

The model is exported as f16 and as q8_0. Of twenty conversations ours continues each greedily, in fp32 with the weights
of the f16 file; llama.cpp, with keys and values in fp32, has to give the same ids from that file. On our ids its logits
are compared at every position: KL(ours || llama.cpp), ours with the model's own weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amenable.data.types import Message
from amenable.functional.kl import exact_kl
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import gguf, pretrained
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.gguf_file import GGUFFile, Kind
from amenable.models.layout import Layout
from amenable.models.rope import RopeScaling
from amenable.text import chat
from amenable.text.gguf import tokenizer_metadata
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.gguf_folders import export_gguf

SMALL = DecoderConfig(
    304,
    context_length=64,
    num_layers=2,
    hidden_size=48,
    num_heads=6,
    num_kv_heads=2,
    mlp_width=80,
    positions="rope",
    norm="rms",
    activation="swiglu",
    bias=False,
)
ARCHITECTURES = {
    "gpt2": DecoderConfig(304, context_length=64, num_layers=2, hidden_size=32, num_heads=4, mlp_width=96),
    "llama, grouped heads": SMALL,
    "llama, untied, biased": replace(SMALL, tie_embeddings=False, bias=True),
    "llama, wide heads": replace(SMALL, head_width=16, num_kv_heads=3),
    "llama, window": replace(SMALL, window=40),
    "llama, linear positions": replace(SMALL, rope_scaling=RopeScaling("linear", 4.0)),
    "llama, yarn": replace(SMALL, rope_scaling=RopeScaling("yarn", 4.0, 16)),
    "llama, Llama 3's positions": replace(
        SMALL, rope_theta=5e5, head_width=64, rope_scaling=RopeScaling("llama3", 32.0, 8192, 1.0, 4.0)
    ),
    "qwen2": replace(SMALL, qkv_bias=True, num_kv_heads=3),
    "qwen3": replace(SMALL, qk_norm=True, head_width=32, tie_embeddings=False),
}
PEER = Path(".venv-peers-llamacpp/bin/python")
TOKENS = 32
KINDS: tuple[Kind, ...] = ("f16", "q8_0")
MAX_KL = {"f16": 1e-4, "q8_0": 1e-2}
"""mean nats a token"""
MAX_DIFFERENCE = 5e-3
"""of logits in fp32; llama.cpp reads GELU off a table of fp16 numbers"""
QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "How many days are there in a leap year?",
    "Explain what a prime number is.",
    "Name three colours of the rainbow.",
    "Translate 'good morning' into Spanish.",
    "What does a baker do?",
    "Write a Python function that adds two numbers.",
    "Why is the sky blue?",
    "Who wrote Hamlet?",
    "Give me a recipe for pancakes.",
    "What is 17 + 25?",
    "Summarise: the cat sat on the mat and slept.",
    "Tell me a fact about whales.",
    "How do I tie a knot?",
    "List the planets of the solar system.",
    "What is photosynthesis?",
    "Write a polite email that declines an invitation.",
    "Is a tomato a fruit?",
    "Continue: once upon a time there was",
)
TEXTS = (
    "   5 = 4;  x\t y\n\n\n  z 12345 1,234.5",
    "na\u00efve caf\u00e9 \u732b\u304c\u597d\u304d \U0001f642 \u00b2\u00bd \u2167 3 e\u0301",
    "It's SHE'LL they've; def f(x):\r\n    return x ** 2  # <|im_start|> \u00a0",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a check; the exit code, 1 where one is worse than it has to be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"))
    parser.add_argument("--peer", type=Path, default=PEER, help="the interpreter of an environment with llama_cpp")
    parser.add_argument("--architectures", action="store_true", help="small random models in place of a folder's")
    options = parser.parse_args(arguments)
    checks = check_architectures(options.peer) if options.architectures else check_model(options.model, options.peer)
    for line, good in checks:
        print(f"{'good' if good else 'BAD':<5}{line}")
    return 0 if all(good for _, good in checks) else 1


def check_model(folder: Path, peer: Path) -> list[tuple[str, bool]]:
    """Export a folder's model, and return a line and a verdict for each check."""
    tokenizer = Tokenizer.load(folder)
    prompts = [chat.render_prompt(tokenizer, [Message("user", question)]) for question in QUESTIONS]
    with tempfile.TemporaryDirectory() as name:
        files = {kind: Path(name) / f"{kind}.gguf" for kind in KINDS}
        for kind, file in files.items():
            export_gguf(folder, file, kind)
        rounded = gguf.load_decoder(GGUFFile.read(files["f16"])).eval()
        rounded.num_tokens = tokenizer.vocab_size
        ours = continue_greedily(rounded, prompts, tokenizer)
        logits = logits_before(load(folder, tokenizer), prompts, ours)
        del rounded
        return [
            check
            for kind, file in files.items()
            for check in compare(kind, run_llamacpp(peer, file, prompts, ours), ours, logits, tokenizer)
        ]


def check_architectures(peer: Path) -> list[tuple[str, bool]]:
    """Export random models in fp32, with a tokenizer of ours, and return a line and a verdict for each."""
    words, checks = Tokenizer.train(["It's a text of words, 12 345 and such; it is a text again."] * 3, 300), []
    prompts, ids = [words.encode("It's a text of 12 words")], [words.encode("a text again and words, It's such")]
    for name, config in ARCHITECTURES.items():
        decoder, generator = Decoder(config).eval(), torch.Generator().manual_seed(0)
        decoder.num_tokens = words.vocab_size
        with torch.no_grad():
            for weight in decoder.parameters():  # in norms and biases too
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator) + (weight.dim() == 1))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "a.gguf"
            metadata = tokenizer_metadata(words, config.vocab_size)
            gguf.save_decoder(file, decoder, "f32", metadata, {"general.name": name})
            theirs = run_llamacpp(peer, file, prompts, ids)
        logits = logits_before(decoder, prompts, ids)
        largest = float((logits - theirs["logits"][:, : words.vocab_size]).abs().max())
        same = [words.encode(text) for text in TEXTS] == theirs["texts"]
        line = f"{name}: logits differ by {largest:.1e} at most; ids are {'the same' if same else 'others'}"
        checks.append((line, same and largest < MAX_DIFFERENCE))
    return checks


def load(folder: Path, tokenizer: Tokenizer) -> Decoder:
    """Return a folder's model with its own weights, as `export_gguf` reads it."""
    return loading.fit_vocabulary(pretrained.load_decoder(folder), tokenizer, folder).eval()


@torch.no_grad()
def continue_greedily(decoder: Decoder, prompts: list[list[int]], tokenizer: Tokenizer) -> list[list[int]]:
    """Return our greedy continuations."""
    sampling = Sampling(temperature=0, max_new_tokens=TOKENS)
    groups = generate(decoder, prompts, sampling, eos_id=tokenizer.stop_ids)
    return [list(group[0].ids) for group in groups]


@torch.no_grad()
def logits_before(decoder: Decoder, prompts: list[list[int]], continuations: list[list[int]]) -> Tensor:
    """Return our logits that predict each id of the continuations, [N, V]."""
    rows = []
    for prompt, ids in zip(prompts, continuations):
        layout = Layout.of([len(prompt) + len(ids)])
        states = decoder(torch.tensor(prompt + ids), layout)
        rows.append(decoder.logits(states[len(prompt) - 1 : -1]))
    return torch.cat(rows)


def run_llamacpp(peer: Path, file: Path, prompts: list[list[int]], continuations: list[list[int]]) -> dict[str, Any]:
    """Run llama.cpp on a file; return its texts, greedy continuations and logits [N, V]."""
    task: dict[str, Any] = {"file": str(file), "texts": TEXTS, "prompts": prompts, "tokens": TOKENS}
    task |= {"continuations": continuations, "logits": str(file.with_suffix(".npy"))}
    script = Path(__file__).with_name("peer_llamacpp.py")
    done = subprocess.run([str(peer), str(script)], input=json.dumps(task), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"llama.cpp failed:\n{done.stderr[-2000:]}")
    return {**json.loads(done.stdout), "logits": torch.from_numpy(np.load(task["logits"]))}


def compare(
    kind: Kind, theirs: dict[str, Any], ours: list[list[int]], logits: Tensor, tokenizer: Tokenizer
) -> list[tuple[str, bool]]:
    """Return a line and a verdict for each check of a file."""
    same_texts = sum(tokenizer.encode(text) == ids for text, ids in zip(TEXTS, theirs["texts"]))
    same = sum(a == b for a, b in zip(ours, theirs["greedy"]))
    values = theirs["logits"][:, : logits.shape[1]]  # without those of padding rows
    kl = exact_kl(logits, values)
    top = (logits.argmax(-1) == values.argmax(-1)).float().mean()
    return [
        (f"{kind}: {same_texts} of {len(TEXTS)} texts have the same ids", same_texts == len(TEXTS)),
        (f"{kind}: {same} of {len(ours)} greedy continuations are the same", kind != "f16" or same == len(ours)),
        (
            f"{kind}: KL {kl.mean():.2e} nats a token, largest {kl.max():.2e}; the same first id at {top:.1%}",
            bool(kl.mean() < MAX_KL[kind]),
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
