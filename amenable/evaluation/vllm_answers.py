"""vLLM in the place of our engine for models that do not train: it takes the weights of one after another.

    folder -> weights -> vLLM -> ids -> text, cut at the same stops

Its completions end as those of `engine.generate` do: at the ids that end a turn, at a stop string, at the same length.
Log-probabilities of answers are the decoder's own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from amenable.errors import InputError
from amenable.generation.detokenizer import Decode, IncrementalDetokenizer
from amenable.generation.engine import Progress
from amenable.generation.requests import Completion
from amenable.generation.sampler import Sampler, generate_by
from amenable.generation.sampler_options import FOLDER, SamplerOptions
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_engine import MAX_ROWS
from amenable.generation.vllm_server import MAX_GAP, PROBE
from amenable.model_folder import count_virtual_tokens
from amenable.models.config import DecoderConfig
from amenable.models.hf_config import model_type_of
from amenable.models.language_model import LanguageModel
from amenable.models.ngram.tables import is_ngram
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading, plan
from amenable.train.examples import to_row
from amenable.train.runtime import Runtime

PROBE_TOKENS = 16
"""tokens that vLLM adds to PROBE, whose log-probabilities are compared with the decoder's"""


class Model(Protocol):
    """Loaded language model: its folder, and its decoder for inference."""

    @property
    def folder(self) -> Path: ...
    @property
    def decoder(self) -> LanguageModel: ...
    @property
    def tokenizer(self) -> Tokenizer: ...


class VllmAnswers:
    """Completions by vLLM, in this process or by servers, of models that are loaded from folders."""

    def __init__(
        self, options: SamplerOptions, out: Path, runtime: Runtime, max_tokens: int = 8192, rows: int = MAX_ROWS
    ):
        """out: the run's folder. max_tokens: of a pass of a decoder. rows: decoded at once by an engine in this
        process."""
        self.options, self.runtime, self.out, self.max_tokens, self.rows = options, runtime, out, max_tokens, rows
        self.sampler: Sampler | None = None
        self.shape: tuple[DecoderConfig, str] | None = None
        """config and model_type of the decoder that the engine was made for"""
        self.folder: Path | None = None
        """of the model whose weights it has"""

    def complete(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        samples: int = 1,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """Return `samples` completions of each prompt by a model, as `engine.generate` does. InputError where vLLM does
        not take the model, and where its log-probabilities are of another."""
        if not prompts:
            return []
        sampler, ends, decode = self.load(model), model.tokenizer.stop_ids, model.tokenizer.decode
        length = model.decoder.config.context_length
        groups = generate_by(
            sampler,
            prompts,
            sampling,
            eos_id=ends,
            seeds=seeds,
            samples=samples,
            context_length=length,
            progress=progress,
        )
        return [[with_text(each, decode, stop, ends) for each in group] for group in groups]

    def load(self, model: Model) -> Sampler:
        """Return vLLM with the weights of a model, read from its folder where it has those of another."""
        if self.sampler is not None and self.folder == model.folder:
            return self.sampler
        policy, tokenizer = loading.load_policy(model.folder, self.runtime)
        self.folder, shape = None, (policy.config, model_type_of(policy.config, policy.origin))
        if self.sampler is None or self.shape != shape or self.options.sampler_url:
            close(self)
            dtype = torch.bfloat16 if self.runtime.bf16 else torch.float32
            self.sampler = self.options.open_vllm(model.folder, policy, tokenizer, dtype, self.out, rows=self.rows)
            self.shape = shape
        self.sampler.load(policy)
        self.require_same(model, self.sampler)
        self.folder = model.folder
        return self.sampler

    def require_same(self, model: Model, sampler: Sampler) -> None:
        """Require that vLLM's log-probabilities of a text are the decoder's. InputError for those of another model."""
        words, length = model.tokenizer, model.decoder.config.context_length
        prompts = [[*words.opening_ids, *words.encode(PROBE)][: length // 2]]
        greedy = Sampling(temperature=0.0, max_new_tokens=PROBE_TOKENS)
        groups = generate_by(sampler, prompts, greedy, eos_id=(), seeds=[0], samples=1, context_length=length)
        ((own,),) = self.with_own_logprobs(model, prompts, groups, greedy.temperature)
        gap = sum(abs(a - b) for a, b in zip(groups[0][0].logps, own.logps, strict=True)) / len(own.logps)
        if not gap <= MAX_GAP:
            problem = f"vLLM's log-probabilities of its answer differ from the model's by {gap:.3g} nats a token"
            raise InputError(problem, model.folder, "use --sampler amenable")

    def with_own_logprobs(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        groups: Sequence[Sequence[Completion]],
        temperature: float,
    ) -> list[list[Completion]]:
        """Return the completions of prompts with log-probabilities by the decoder, of greedy ones at temperature 1."""
        rows = [to_row(ids, each.ids) for ids, group in zip(prompts, groups, strict=True) for each in group]
        logps = iter(forward.compute_logprobs(model.decoder, rows, self.runtime, self.max_tokens, temperature or 1.0))
        return [[replace(each, logps=next(logps).tolist()) for each in group] for group in groups]


def answers_by(
    options: SamplerOptions,
    folders: Iterable[Path],
    out: Path,
    runtime: Runtime,
    max_tokens: int = 8192,
    rows: int = MAX_ROWS,
) -> VllmAnswers | None:
    """Return the vLLM that options name, for the models of some folders; None for our engine. InputError, before
    anything is loaded, where it is not to be had, or does not take one of them."""
    options.require_engine()
    if options.sampler == "amenable":
        return None
    for folder in folders:
        other = "n-gram model" if is_ngram(folder) else "virtual tokens" if count_virtual_tokens(folder) else None
        plan.forbid(other, f"vLLM takes no {other}, as in {folder}", "use --sampler amenable")
    return VllmAnswers(options, out, runtime, max_tokens, rows)


def close(vllm: VllmAnswers | None) -> None:
    """Let an engine of vLLM go, and remove the weights that servers have read."""
    if vllm is not None:
        if vllm.sampler is not None:
            vllm.sampler.close()
            vllm.sampler = None
        shutil.rmtree(vllm.out / FOLDER, ignore_errors=True)  # that of a run that was stopped, too


def with_text(completion: Completion, decode: Decode, stop: Sequence[str], ends: Sequence[int]) -> Completion:
    """Return a completion with its text, both up to the first stop string, as `engine.generate` leaves them."""
    ids = completion.ids
    detokenizer = IncrementalDetokenizer(decode)
    for count, token in enumerate(ids if stop else (), 1):
        if token not in ends and detokenizer.push(token, stop):
            logps, text = completion.logps[:count], detokenizer.text
            return replace(completion, ids=ids[:count], logps=logps, finish_reason="stop", text=text)
    return replace(completion, text=decode(ids[:-1] if completion.ended else ids))
