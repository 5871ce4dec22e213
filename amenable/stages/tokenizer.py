"""Train a byte-level BPE tokenizer on text files.

Any bytes go in and come out unchanged. The special tokens that structure a conversation have ids that no text can
produce. Sennrich et al. (2016); byte level as in Radford et al. (2019, section 2.2).

Reads text (and, if given, demonstrations, so that their words are tokens too); writes tokenizer.json and its company.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amenable.data import sources
from amenable.errors import InputError
from amenable.files import disk_errors
from amenable.text.tokenizer import Tokenizer
from amenable.train import plan
from amenable.train.examples import RejectedRows, keep_usable
from amenable.train.run import Run
from amenable.train.run_options import DataOptions
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "Tokenizer",
    "Byte-level BPE on the raw text.",
    facts=(("tokens", "vocab_size"), ("bytes a token", "bytes_per_token")),
)


@dataclass(frozen=True)
class Config(DataOptions):
    """Train a byte-level BPE tokenizer."""

    data: Path = Path("runs/world/text/train.jsonl")
    """text: a file, or a folder of files"""
    demonstrations: Path | None = None
    """conversations whose contents count as text as well"""
    out: Path = Path("runs/tokenizer")
    vocab_size: int = 1536
    """tokens, the 256 bytes and 6 special tokens included"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocab_size < 262:
            raise InputError(f"vocab_size is {self.vocab_size}", how="256 bytes and 6 special tokens need 262 or more")
        plan.require_at_least(262, self, "vocab_size")


def run(config: Config) -> Path:
    """Train the tokenizer and return the run directory."""
    run = Run(config.out, "tokenizer", config, {"data": config.data, "demonstrations": config.demonstrations})
    if run.skip_finished():
        return run.out
    texts = list(read(config, run.rejected))
    run.begin()
    tokenizer = Tokenizer.train(texts, config.vocab_size)
    with disk_errors(run.out):
        tokenizer.save(run.out)
    sizes = [(len(ids), len(text.encode())) for text, ids in zip(texts, tokenizer.encode_batch(texts))]
    tokens, size = sum(n for n, _ in sizes), sum(n for _, n in sizes)
    run.log.info(f"{tokenizer.vocab_size} tokens; {size:,} bytes are {tokens:,} tokens, {size / tokens:.2f} bytes each")
    return run.finish(vocab_size=tokenizer.vocab_size, bytes_per_token=size / tokens, tokens=tokens)


def read(config: Config, rejected: RejectedRows) -> Iterator[str]:
    """Every text to learn from."""
    for text in keep_usable(sources.read_texts(config.data, columns=config.columns), rejected):
        yield text.text
    if config.demonstrations is not None:
        for demonstration in keep_usable(sources.read_demonstrations(config.demonstrations), rejected):
            for message in demonstration.messages:
                yield message.content
