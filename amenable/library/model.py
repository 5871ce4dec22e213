"""Models and results of the library: a folder, its weights once they are used, and what can be done with them."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amenable.errors import InputError
from amenable.train.known_models import hint_for

if TYPE_CHECKING:
    from amenable.models.decoder import Decoder
    from amenable.models.heads import ScalarModel
    from amenable.models.language_model import LanguageModel
    from amenable.rewards.model import ModelReward
    from amenable.text.tokenizer import Tokenizer
    from amenable.train.runtime import Runtime

Messages = str | Sequence[Mapping[str, str]]
"""one message of the user, or a conversation of {"role": ..., "content": ...}"""


class Model:
    """A language model, reward model or tokenizer in a folder. Weights are read when they are first used."""

    def __init__(self, folder: Path, device: str = "auto", precision: str = "auto"):
        if not folder.is_dir():
            hint = hint_for(folder) or "name the folder of a run, or of a published model"
            raise InputError("no such model folder", folder, hint)
        self.folder, self._device, self._precision = folder, device, precision

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def runtime(self) -> Runtime:
        """Device and precision of what is computed here."""
        from amenable.train.runtime import DeviceOptions, start_runtime

        return start_runtime(DeviceOptions(self._device, self._precision))  # type: ignore[arg-type]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer with its chat template."""
        from amenable.text.tokenizer import Tokenizer

        return Tokenizer.load(self.folder)

    @cached_property
    def decoder(self) -> Decoder:
        """The language model, in evaluation mode: a torch module. Stages that get it use changed weights."""
        from amenable.train import loading

        return loading.load_policy(self.folder, self.runtime, "a training stage")[0]

    @cached_property
    def _generator(self) -> LanguageModel:
        """The language model, a decoder or an n-gram model, as an inference copy."""
        from amenable.models.ngram.tables import is_ngram
        from amenable.train import loading

        if is_ngram(self.folder):
            return loading.load_language_model(self.folder, self.runtime)[0]
        return self.runtime.inference_copy(self.decoder)

    @cached_property
    def _reward(self) -> ModelReward:
        from amenable.rewards.model import ModelReward

        return ModelReward.load(self.folder, self.runtime)

    @property
    def reward_model(self) -> ScalarModel:
        """The reward model: a torch module."""
        return self._reward.model

    def path(self) -> Path:
        """Return the folder; where the decoder was taken out, a temporary one with its weights as they are now."""
        if "decoder" not in self.__dict__:
            return self.folder
        scratch = Path(tempfile.mkdtemp(prefix="amenable-"))
        weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        return self._save_weights(scratch / self.name)

    def _save_weights(self, folder: Path) -> Path:
        from amenable.train import loading

        loading.require_base(self.decoder)
        loading.save_model(folder, self.decoder, self.tokenizer)
        return folder

    def generate(
        self, prompts: Sequence[Messages], *, num_generations: int = 1, seed: int = 0, **sampling: Any
    ) -> list[list[str]]:
        """Return `num_generations` answers to each prompt.

        sampling: temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens; by default as `amenable sample`.
        Answers are a function of the seed and of the prompts' places.
        """
        from amenable.generation.engine import generate
        from amenable.seeds import derive_seed
        from amenable.text.chat import PLAIN_STOP, clean_completion, render_prompt

        tokenizer, settings = self.tokenizer, self._sampling(sampling)
        ids = [render_prompt(tokenizer, conversation(prompt)) for prompt in prompts]
        room = self._generator.config.context_length - settings.max_new_tokens
        if too_long := [len(row) for row in ids if len(row) > room]:
            problem = f"a prompt has {too_long[0]} tokens, and {settings.max_new_tokens} new ones leave room for {room}"
            raise InputError(problem, how="shorten the prompt, or lower max_new_tokens")
        with self.runtime.autocast():
            groups = generate(
                self._generator,
                ids,
                settings,
                eos_id=tokenizer.stop_ids,
                seeds=[derive_seed(seed, "generate", i) for i in range(len(ids))],
                samples=num_generations,
                stop=() if tokenizer.chat_template is not None else PLAIN_STOP,
                decode=tokenizer.decode,
            )
        return [[clean_completion(tokenizer, answer.text or "") for answer in group] for group in groups]

    def _sampling(self, given: Mapping[str, Any]) -> Any:
        """Return sampling settings, those that are not given as `amenable sample` has them for this model."""
        from amenable.stages.sample import SamplingOptions
        from amenable.train import defaults

        known = [field.name for field in fields(SamplingOptions)]
        if unknown := [name for name in given if name not in known]:
            raise InputError(f"unknown option '{unknown[0]}'", how=f"known are: {', '.join(known)}")
        traits = defaults.sampling_traits(self.folder)
        usual = {"temperature": traits.temperature, "max_new_tokens": defaults.answer_length(traits.context)}
        return SamplingOptions(**{**usual, **given})

    def chat(self, message: Messages, *, seed: int = 0, **sampling: Any) -> str:
        """Return the answer to a message, or to a conversation of {"role": ..., "content": ...} that ends with the
        user; sampling: see `generate`."""
        return self.generate([message], seed=seed, **sampling)[0][0]

    def score(self, prompts: Sequence[Messages], completions: Sequence[str]) -> list[float]:
        """Return a reward model's score of each completion of the prompt in the same place."""
        if len(prompts) != len(completions):
            raise InputError(f"{len(completions)} completions to {len(prompts)} prompts", how="give one to each")
        return self._reward([conversation(prompt) for prompt in prompts], list(completions))

    def save(self, folder: str | Path) -> Path:
        """Copy the folder, with the decoder's weights as they are now if it was taken out. InputError where something
        is there already."""
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError("is there already", folder, "name a new folder")
        changed = "decoder" in self.__dict__
        stale = ("adapter", "adapter_config.json", "adapter_model.safetensors") if changed else ()
        shutil.copytree(self.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock", *stale))
        return self._save_weights(folder) if changed else folder


class Result(Model):
    """A finished run: its model, the metrics of its steps, its samples."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one a step; the run's health is in `facts`."""
        return [row for row in self._read("metrics") if "health" not in row]

    @property
    def metrics(self) -> dict[str, list[Any]]:
        """The values of each metric, of the steps that have it, by name; `step` has all steps."""
        lists: defaultdict[str, list[Any]] = defaultdict(list)
        for row in self.rows:
            for name, value in row.items():
                lists[name].append(value)
        return dict(lists)

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The rows of samples.jsonl: prompts with what was sampled, as far as the stage samples."""
        return self._read("samples")

    @property
    def facts(self) -> dict[str, Any]:
        """The closing figures: finished.json."""
        return json.loads((self.folder / "finished.json").read_text("utf-8"))

    def _read(self, name: str) -> list[dict[str, Any]]:
        from amenable.data.files import read_json_lines

        return read_json_lines(self.folder / f"{name}.jsonl")


def conversation(prompt: Messages) -> Any:
    """Return messages of a prompt. InputError for what is neither a text nor a conversation."""
    from amenable.data.record import InvalidRow
    from amenable.data.turns import turns
    from amenable.data.types import Message

    if isinstance(prompt, str):
        return (Message("user", prompt),)
    try:
        return turns(list(prompt), "the prompt")
    except (TypeError, InvalidRow) as error:
        hint = "give a text, or a list of {'role': ..., 'content': ...}"
        raise InputError(f"{prompt!r:.80} is no conversation: {error}", how=hint) from None
