"""Count an n-gram language model of words, bytes or tokens: the baseline before neural models.

    p(w | h) = (c(h w) - D) / c(h) + b(h) p(w | h')        h' is h without its first token: modified Kneser-Ney

and other smoothings (amenable/models/ngram/smoothing.py). Chen and Goodman (1998); discounts as KenLM's. Counting
streams: a text may be larger than memory, and sorted runs of counts lie in temporary files (TMPDIR). Held-out documents
are those of `amenable pretrain` with the same seed and share, so that bits per byte compare.

Reads text, and a tokenizer unless units are words or bytes; or an ARPA file. Writes a model folder that sample,
evaluate, chat and serve take like a transformer's.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from amenable.data.mixture import Sources, data_inputs, parse_sources
from amenable.files import disk_errors, write_file
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models.ngram import tables as table_files
from amenable.models.ngram.arpa import read_arpa, read_words, write_arpa
from amenable.models.ngram.counting import BLOCK, Scratch, count_ngrams
from amenable.models.ngram.estimate import estimate
from amenable.models.ngram.model import NGramModel
from amenable.models.ngram.smoothing import SmoothingName
from amenable.models.ngram.tables import CONTEXT, NGramTables
from amenable.text.tokenizer import Tokenizer
from amenable.text.words import BEGIN, END, uncovered_bytes, word_tokenizer
from amenable.train import forward, plan
from amenable.train.ngram_text import NGramText, Unit, read_text
from amenable.train.run import Run
from amenable.train.run_options import RunOptions
from amenable.train.runtime import Runtime, start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "N-grams",
    "A smoothed n-gram model is counted: the baseline of the pretrained model.",
    facts=(("bits per byte", "eval/bpb"), ("perplexity", "eval/perplexity"), ("n-grams", "num_ngrams")),
)
ARPA = "model.arpa"
MAX_ORDER = 32


@dataclass(frozen=True)
class Config(RunOptions):
    """Count an n-gram language model."""

    data: Sources = (Path("runs/world/text/train.jsonl"),)
    """text: files, or folders of files"""
    validation: Path | None = None
    """held-out text; without it a share of the documents is held out"""
    validation_split: float = 0.02
    """share of the documents held out where no validation file is given"""
    out: Path = Path("runs/ngram")
    unit: Unit = "tokens"
    """tokens of a tokenizer, words between white space, or bytes"""
    tokenizer: Path | None = None
    """of tokens, by default runs/tokenizer; the folder of a tokenizer or of a model"""
    order: int = 5
    """n: a token is predicted from the n - 1 before it"""
    smoothing: SmoothingName = "modified-kneser-ney"
    k: float = 1.0
    """what add-k adds to every count (Lidstone; 1 is Laplace's)"""
    min_count: int = 1
    """words that are rarer are unknown, <unk>"""
    vocab_size: int = 0
    """the most words, the frequent ones; 0 takes all"""
    arpa: Path | None = None
    """read this ARPA file instead of counting; of words, or of the tokens of --tokenizer; --data is then text to
    measure it on"""
    write_arpa: bool = False
    """write model.arpa too, which KenLM and SRILM read"""
    eval_tokens: int = 50_000
    """maximum tokens of held-out text"""
    num_samples: int = 3
    """texts to sample, in samples.jsonl"""
    max_new_tokens: int = 64
    """tokens of a sampled text"""
    max_tokens_per_pass: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "order", "min_count", "eval_tokens", "max_new_tokens", "max_tokens_per_pass")
        plan.require_at_least(0, self, "vocab_size", "num_samples")
        plan.require_above_zero(self, "k")
        plan.forbid(self.order > MAX_ORDER, f"order is {self.order}", f"it is at most {MAX_ORDER}")
        weighted = any(source.weight is not None for source in parse_sources(self.data))
        plan.forbid(weighted, "data has weights, and every text is counted once", "name the sources alone")
        outside = self.validation is None and not 0 < self.validation_split < 1
        hint = "it must lie between 0 and 1, or give --validation"
        plan.forbid(outside, f"validation_split is {self.validation_split}", hint)
        odd = self.tokenizer is not None and self.unit != "tokens"
        plan.forbid(odd, f"a tokenizer for units of {self.unit}", "leave one of --tokenizer and --unit out")
        no_arpa = self.write_arpa and self.smoothing == "add-k" and self.arpa is None
        plan.forbid(no_arpa, "add-k in an ARPA file, whose models back off", "take another --smoothing")


def run(config: Config) -> Path:
    """Count, measure and sample; return the run directory."""
    inputs = {"validation": config.validation, "tokenizer": config.tokenizer, "arpa": config.arpa}
    run = Run(config.out, "ngram", config, data_inputs(config.data) | inputs)
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    text = read(config, run)
    with ExitStack() as stack:
        scratch = Scratch()
        if text.tokens > BLOCK:
            stack.enter_context(disk_errors(Path(gettempdir()), "make room there, or set TMPDIR"))
            scratch = Scratch(Path(stack.enter_context(TemporaryDirectory(prefix="amenable-"))))
        tables = load_arpa(config, text.tokenizer) if config.arpa else count(config, text, scratch, run)
        run.begin(runtime=runtime)
        with disk_errors(run.out):
            text.tokenizer.save(run.out)
            if config.write_arpa:
                write_file(run.out / ARPA, lambda path: write_arpa(path, tables, arpa_names(text.tokenizer)))
            smoothing = "arpa" if config.arpa else config.smoothing
            table_files.save(run.out, tables, {"smoothing": smoothing, "unit": config.unit})
    model = NGramModel.load(run.out, runtime.device)
    sizes = ", ".join(f"{size:,}" for size in tables.sizes)
    run.log.info(f"{text.tokens:,} {config.unit} of text; n-grams of order 1 to {tables.order}: {sizes}")
    for step in run.steps(1, {}):
        run.record(step, text.tokens, ("eval/bpb", "eval/perplexity"), **measure(model, text, config, runtime))
        sample(model, text, config, run, step)
    return run.finish(**run.metrics, num_ngrams=sum(tables.sizes), vocab_size=tables.vocab_size)


def read(config: Config, run: Run) -> NGramText:
    """Read the texts. With an ARPA file of words, its words are the vocabulary."""
    tokenizer = None
    missing = config.arpa is not None and not config.arpa.is_file()
    plan.forbid(missing, f"there is no file {config.arpa}", "name an ARPA file as --arpa")
    if config.arpa is not None and config.tokenizer is None:
        tokenizer = word_tokenizer(read_words(config.arpa))
    unit = "words" if tokenizer is not None else config.unit
    sizes = config.min_count, config.vocab_size
    return read_text(config, unit, config.tokenizer, *sizes, run.rejected, run.log.bar, tokenizer)


def load_arpa(config: Config, tokenizer: Tokenizer) -> NGramTables:
    """Read the ARPA file, in the tokenizer's ids."""
    assert config.arpa is not None
    ids = {name: token for token, name in enumerate(arpa_names(tokenizer))}
    return read_arpa(config.arpa, ids, tokenizer.vocab_size)


def arpa_names(tokenizer: Tokenizer) -> list[str]:
    """Return the names of tokens in an ARPA file: as in tokenizer.json, <s> for bos and </s> for eos."""
    spec = tokenizer.spec
    vocabulary = {**spec["model"]["vocab"], **{token["content"]: token["id"] for token in spec["added_tokens"]}}
    names = {token: name for name, token in vocabulary.items()} | {tokenizer.eos_id: END}
    names |= {} if tokenizer.bos_id in (None, tokenizer.eos_id) else {tokenizer.bos_id: BEGIN}
    return [names.get(token, f"<{token}>") for token in range(tokenizer.vocab_size)]


def count(config: Config, text: NGramText, scratch: Scratch, run: Run) -> NGramTables:
    """Count the n-grams of the text and smooth them."""
    counts = count_ngrams(text.blocks, config.order, text.tokenizer.vocab_size, text.begin, scratch)
    tables, notes = estimate(counts, config.smoothing, config.k, scratch=scratch)
    for note in notes:
        run.log.info(note)
    return tables


def measure(model: NGramModel, text: NGramText, config: Config, runtime: Runtime) -> dict[str, float]:
    """Return bits per byte, perplexity and unknown words of held-out text; a byte of an unknown word costs 8 bits."""
    rows, byte_count = text.held_out_rows(CONTEXT, config.eval_tokens)
    logps = forward.compute_logprobs(model, rows, runtime, config.max_tokens_per_pass)
    nats = -sum(float(part.double().sum()) for part in logps)
    tokens = sum(len(part) for part in logps)
    spelled = 8 * uncovered_bytes(text.tokenizer, chain.from_iterable(ids for ids, _ in rows), byte_count)
    impossible = sum(int((part == -math.inf).sum()) for part in logps)
    figures = {"eval/bpb": (nats / math.log(2) + spelled) / byte_count, "eval/perplexity": math.exp(nats / tokens)}
    return {**figures, "eval/tokens": tokens, "eval/impossible_tokens": impossible}


def sample(model: NGramModel, text: NGramText, config: Config, run: Run, step: int) -> None:
    """Sample texts from their beginning into samples.jsonl."""
    if not config.num_samples:
        return
    tokenizer = text.tokenizer
    (completions,) = generate(
        model,
        [[text.begin]],
        Sampling(max_new_tokens=config.max_new_tokens),
        eos_id=tokenizer.stop_ids,
        seeds=[config.seed],
        samples=config.num_samples,
        decode=tokenizer.decode,
    )
    run.log.samples(step, [{"text": completion.text, "ended": completion.ended} for completion in completions])
    run.log.info(f"sampled: {(completions[0].text or '')[:200]!r}")
