"""Answers of models: prompts encoded, shots before them, answers sampled, temperatures matched.

The random numbers of an answer are a function of the seed and the prompt's id, so they are the same for all models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from amenable.data.types import Conversation, Prompt
from amenable.evaluation.base_prompts import Transcript
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.prompting import Prompting, add_prefix, prepend
from amenable.evaluation.vllm_answers import VllmAnswers
from amenable.generation.engine import Progress, generate
from amenable.generation.requests import Completion
from amenable.generation.sampling import Sampling
from amenable.models.language_model import LanguageModel
from amenable.seeds import derive_seed
from amenable.text.chat import PLAIN_STOP, clean_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.log import Bars, no_bars
from amenable.train.runtime import Runtime

COLDEST, HOTTEST = 0.05, 2.0
"""range of the bisection for a temperature, as multiples of the usual temperature"""
BISECTIONS = 4
"""halvings of that range before the rest is interpolated"""

ENTROPY_PROMPTS = 150
"""prompts on which the temperature of `@entropy-of` is sought"""


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of generation that are the same for all models."""

    temperature: float = 1.0
    """of sampled answers"""
    max_new_tokens: int = 64
    prompting: Prompting = field(default_factory=Prompting)
    """prefix and examples before the prompt of a few-shot model"""
    instruction: str = ""
    """follows the user's last words, in the prompts of an instructed model"""
    transcripts: Mapping[str, Transcript] = field(default_factory=dict)
    """raw-text formats of prompts to base models, by "zero-shot" and "few-shot"; by default user and assistant"""
    max_batch_size: int = 128
    """answers decoded at once"""
    seed: int = 0
    bars: Bars = no_bars
    """progress bars over the answers"""

    def transcript_for(self, model: LoadedModel) -> Transcript | None:
        """Return the transcript format of a base model's prompts; None for the default one, and for chat models."""
        name = "few-shot" if model.entry.few_shot else "zero-shot"
        return None if model.is_chat_model else self.transcripts.get(name)

    def at(self, temperature: float) -> GenerationConfig:
        """Return these settings at another temperature; 0 is greedy decoding."""
        return replace(self, temperature=temperature)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate: its entry, decoder (an inference copy), tokenizer and device."""

    entry: ModelEntry
    decoder: LanguageModel
    tokenizer: Tokenizer
    runtime: Runtime
    vllm: VllmAnswers | None = None
    """samples its answers; None for our engine"""

    @classmethod
    def load(cls, entry: ModelEntry, runtime: Runtime, vllm: VllmAnswers | None = None) -> LoadedModel:
        """Load the model in the entry's folder; InputError where there is none."""
        decoder, tokenizer = loading.load_language_model(entry.folder, runtime, "a training stage")
        return cls(entry, runtime.to_inference(decoder), tokenizer, runtime, vllm)

    @property
    def folder(self) -> Path:
        """The folder that it was loaded from."""
        return self.entry.folder

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        samples: int = 1,
        stop: Sequence[str] = (),
        max_batch_size: int = 128,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """Return `samples` completions of each prompt, with their text, by our engine or by vLLM (see
        `engine.generate`); max_batch_size: decoded at once by ours."""
        given: Any = {"seeds": seeds, "samples": samples, "stop": stop, "progress": progress}
        if self.vllm is not None:
            return self.vllm.complete(self, prompts, sampling, **given)
        words = self.tokenizer
        given |= {"eos_id": words.stop_ids, "decode": words.decode, "max_batch_size": max_batch_size}
        with self.runtime.autocast():
            return generate(self.decoder, prompts, sampling, **given)

    @property
    def is_chat_model(self) -> bool:
        """True for a model with a chat template. A base model has none and continues a transcript."""
        return self.tokenizer.chat_template is not None


@dataclass(frozen=True)
class Answer:
    """One generated answer."""

    prompt_ids: list[int]
    """ids of the prompt, shots included"""
    ids: list[int]
    text: str
    ended: bool
    """True where the model produced an end token, or, in a transcript, the end of its turn"""
    logp: float
    """sum over the answer's tokens under the distribution they were drawn from; of a greedy answer at temperature 1"""


def generate_answers(
    model: LoadedModel, prompts: Sequence[Prompt], generation: GenerationConfig, samples: int = 1
) -> list[list[Answer]]:
    """Return `samples` answers to each prompt. A base model stops where its turn in the transcript ends."""
    encoded = [prompt_ids(model, prompt, generation)[0] for prompt in prompts]
    transcript = generation.transcript_for(model)
    stop = PLAIN_STOP if transcript is None else (transcript.end,)
    groups = model.complete(
        encoded,
        Sampling(temperature=generation.temperature, max_new_tokens=generation.max_new_tokens),
        seeds=[derive_seed(generation.seed, "evaluate", prompt.id) for prompt in prompts],
        samples=samples,
        stop=() if model.is_chat_model else stop,
        max_batch_size=generation.max_batch_size,
        progress=generation.bars(f"{model.entry.name}: answers"),
    )
    if model.vllm is not None:
        groups = model.vllm.with_own_logprobs(model, encoded, groups, generation.temperature)
    return [
        [to_answer(model.tokenizer, ids, completion, transcript) for completion in group]
        for ids, group in zip(encoded, groups)
    ]


def to_answer(
    tokenizer: Tokenizer, prompt_ids: list[int], completion: Completion, transcript: Transcript | None = None
) -> Answer:
    """Return a completion as an answer; its text has no special tokens, and nothing after the end of the turn."""
    raw = completion.text or ""
    text = clean_completion(tokenizer, raw) if transcript is None else transcript.answer(raw)
    return Answer(prompt_ids, completion.ids, text, completion.finish_reason != "length", math.fsum(completion.logps))


def prompt_ids(model: LoadedModel, prompt: Prompt, generation: GenerationConfig) -> tuple[list[int], int]:
    """Return a prompt's ids for a model, and the number of shots dropped to leave room for an answer."""
    room = model.decoder.config.context_length - generation.max_new_tokens
    prompting = generation.prompting if model.entry.few_shot else Prompting()
    messages = append_instruction(prompt.messages, generation.instruction if model.entry.instructed else "")
    messages, shots = add_prefix(messages, prompting.prefix), prompting.shots(prompt.messages)
    return prepend_shots(model.tokenizer, messages, shots, room, generation.transcript_for(model))


def append_instruction(messages: Conversation, instruction: str) -> Conversation:
    """Return a prompt with an instruction after the words of its last message, a space between; "" changes nothing."""
    if not instruction:
        return messages
    return (*messages[:-1], replace(messages[-1], content=f"{messages[-1].content} {instruction}"))


def prepend_shots(
    tokenizer: Tokenizer,
    messages: Conversation,
    shots: Sequence[Conversation],
    room: int,
    transcript: Transcript | None = None,
) -> tuple[list[int], int]:
    """Return the ids of shots and prompt, and the number of shots dropped, the first ones, to fit `room` tokens."""
    for dropped in range(len(shots) + 1):
        ids = encode_prompt(tokenizer, prepend(shots[dropped:], messages), transcript)
        if len(ids) <= room:
            break
    return ids, dropped


def encode_prompt(tokenizer: Tokenizer, messages: Conversation, transcript: Transcript | None) -> list[int]:
    """Return the ids of a conversation, by chat template or as a transcript, ending where the answer begins."""
    if transcript is None:
        return render_prompt(tokenizer, messages)
    return [*tokenizer.opening_ids, *tokenizer.encode(transcript.render(messages))]


def count_dropped_shots(model: LoadedModel, prompts: Sequence[Prompt], generation: GenerationConfig) -> int:
    """Return the number of prompts that leave no room for all the shots."""
    return sum(prompt_ids(model, prompt, generation)[1] > 0 for prompt in prompts)


def entropy(answers: Sequence[Answer]) -> float:
    """H = E[-log p(y)], nats an answer: the mean over answers y drawn from p."""
    return -math.fsum(answer.logp for answer in answers) / len(answers)


def sampling_temperature(
    model: LoadedModel, entries: Sequence[ModelEntry], prompts: Sequence[Prompt], generation: GenerationConfig
) -> float:
    """Return the temperature of a model's sampled answers; for `@entropy-of` it is sought on the first prompts."""
    entry = model.entry
    if entry.entropy_of is None:
        return entry.temperature or generation.temperature
    target = next(other for other in entries if other.name == entry.entropy_of)
    return match_entropy(
        model, LoadedModel.load(target, model.runtime, model.vllm), prompts[:ENTROPY_PROMPTS], generation
    )


def match_entropy(
    model: LoadedModel, target: LoadedModel, prompts: Sequence[Prompt], generation: GenerationConfig
) -> float:
    """Return the temperature at which the entropy of `model` on these prompts is that of `target`."""

    def entropy_at(sampled: LoadedModel, temperature: float) -> float:
        return entropy([group[0] for group in generate_answers(sampled, prompts, generation.at(temperature))])

    goal = entropy_at(target, target.entry.temperature or generation.temperature)
    return bisect_temperature(lambda temperature: entropy_at(model, temperature), goal, generation.temperature)


def bisect_temperature(entropy_at: Callable[[float], float], target: float, usual: float) -> float:
    """Bisect for the temperature whose entropy, which rises with the temperature, is `target`.

    Returns the end of the range if the target is not reached. The range below, or above, the usual temperature is
    halved a few times and then interpolated: entropies are means over answers, and their noise allows nothing finer.
    """
    here = entropy_at(usual)
    if here == target:
        return usual
    other = usual * (COLDEST if here > target else HOTTEST)
    (low, at_low), (high, at_high) = sorted([(usual, here), (other, entropy_at(other))])
    if not at_low < target < at_high:
        return other
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        at_middle = entropy_at(middle)
        if at_middle > target:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    return low + (high - low) * (target - at_low) / (at_high - at_low)
