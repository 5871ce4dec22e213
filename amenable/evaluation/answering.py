"""What contestants answer: prompts rendered, shots before them, answers drawn, temperatures matched.

Every answer's random numbers are a function of the seed and the prompt's id, so all models meet the same luck.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from amenable.data import sources
from amenable.data.types import Conversation, Prompt
from amenable.evaluation.base_prompts import Transcript
from amenable.evaluation.entries import Contestant
from amenable.generation.engine import generate
from amenable.generation.requests import Completion
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.seeds import derive_seed
from amenable.text.chat import PLAIN_STOP, clean_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.examples import Sieve, usable
from amenable.train.log import Bars, no_bars
from amenable.train.runtime import Runtime

COLDEST, HOTTEST = 0.05, 2.0
"""temperatures between which one is sought, as multiples of the usual one"""
HALVINGS = 4
"""of the interval in which it lies, after which the rest is interpolated"""


@dataclass(frozen=True)
class Asking:
    """How everybody is asked."""

    temperature: float = 1.0
    """of sampled answers"""
    max_new_tokens: int = 64
    shots: tuple[Conversation, ...] = ()
    """what a few-shot contestant sees before the prompt"""
    transcripts: Mapping[str, Transcript] = field(default_factory=dict)
    """how base models are asked, "zero-shot" and "few-shot"; else as user and assistant"""
    rows: int = 128
    """answers decoded at once"""
    seed: int = 0
    bars: Bars = no_bars
    """what shows how many answers are made"""

    def transcript_for(self, speaker: Speaker) -> Transcript | None:
        """How a base model is asked; None for user and assistant, and for models that know turns."""
        name = "few-shot" if speaker.contestant.few_shot else "zero-shot"
        return None if speaker.converses else self.transcripts.get(name)

    def at(self, temperature: float) -> Asking:
        """The same at another temperature; at 0 the likeliest token is taken at every place."""
        return replace(self, temperature=temperature)


@dataclass(frozen=True)
class Speaker:
    """A contestant's model, ready to answer."""

    contestant: Contestant
    decoder: Decoder
    tokenizer: Tokenizer
    runtime: Runtime

    @classmethod
    def load(cls, contestant: Contestant, runtime: Runtime) -> Speaker:
        decoder, tokenizer = loading.load_policy(contestant.folder, runtime, "a training stage")
        return cls(contestant, runtime.only_asked(decoder), tokenizer, runtime)

    @property
    def converses(self) -> bool:
        """Whether it knows turns. A base model does not: it continues a transcript."""
        return self.tokenizer.chat_template is not None


@dataclass(frozen=True)
class Answer:
    """One answer as it was drawn."""

    before: list[int]
    """the prompt's ids as the model saw them"""
    ids: list[int]
    text: str
    ended: bool
    """by itself: by its end token, or, in a transcript, where the turn ends"""
    logp: float
    """of all its tokens under the distribution it was drawn from; of a greedy answer at temperature 1"""


def read_shots(path: Path, sieve: Sieve | None = None) -> tuple[Conversation, ...]:
    """The demonstrations that a few-shot contestant is shown."""
    return tuple(row.messages for row in usable(sources.read_demonstrations(path), sieve))


def ask(speaker: Speaker, prompts: Sequence[Prompt], asking: Asking, samples: int = 1) -> list[list[Answer]]:
    """`samples` answers to each prompt. A base model stops where its turn in the transcript ends."""
    asked = [shown(speaker, prompt, asking)[0] for prompt in prompts]
    transcript = asking.transcript_for(speaker)
    stop = PLAIN_STOP if transcript is None else (transcript.end,)
    with speaker.runtime.autocast():
        groups = generate(
            speaker.decoder,
            asked,
            Sampling(temperature=asking.temperature, max_new_tokens=asking.max_new_tokens),
            eos_id=speaker.tokenizer.stop_ids,
            seeds=[derive_seed(asking.seed, "evaluate", prompt.id) for prompt in prompts],
            samples=samples,
            stop=() if speaker.converses else stop,
            decode=speaker.tokenizer.decode,
            max_batch_size=asking.rows,
            progress=asking.bars(f"{speaker.contestant.name}: answers"),
        )
    return [[answer_of(speaker.tokenizer, ids, one, transcript) for one in group] for ids, group in zip(asked, groups)]


def answer_of(
    tokenizer: Tokenizer, before: list[int], completion: Completion, transcript: Transcript | None = None
) -> Answer:
    """What was drawn, with the text that a reader would see."""
    said = completion.text or ""
    text = clean_completion(tokenizer, said) if transcript is None else transcript.answer(said)
    return Answer(before, completion.ids, text, completion.finish_reason != "length", math.fsum(completion.logps))


def shown(speaker: Speaker, prompt: Prompt, asking: Asking) -> tuple[list[int], int]:
    """A prompt as its model is shown it, and how many shots were left away to leave room for an answer."""
    room = speaker.decoder.config.context_length - asking.max_new_tokens
    shots = asking.shots if speaker.contestant.few_shot else ()
    return preceded(speaker.tokenizer, prompt.messages, shots, room, asking.transcript_for(speaker))


def preceded(
    tokenizer: Tokenizer,
    messages: Conversation,
    shots: Sequence[Conversation],
    room: int,
    transcript: Transcript | None = None,
) -> tuple[list[int], int]:
    """Ids of a prompt after the shots, and how many of these, the first ones, were left away to fit `room` tokens."""
    system = messages[:1] if messages[0].role == "system" else ()
    for left_away in range(len(shots) + 1):
        earlier = tuple(message for shot in shots[left_away:] for message in shot)
        ids = prompt_ids(tokenizer, (*system, *earlier, *messages[len(system) :]), transcript)
        if len(ids) <= room:
            break
    return ids, left_away


def prompt_ids(tokenizer: Tokenizer, messages: Conversation, transcript: Transcript | None) -> list[int]:
    """A conversation as its model is shown it, ending where the answer begins."""
    if transcript is None:
        return render_prompt(tokenizer, messages)
    return [*tokenizer.opening_ids, *tokenizer.encode(transcript.render(messages))]


def shortened(speaker: Speaker, prompts: Sequence[Prompt], asking: Asking) -> int:
    """How many of the prompts leave no room for all the shots."""
    return sum(shown(speaker, prompt, asking)[1] > 0 for prompt in prompts)


def entropy(answers: Sequence[Answer]) -> float:
    """H = E[-log p(y)], nats an answer: the mean over answers y drawn from p."""
    return -math.fsum(answer.logp for answer in answers) / len(answers)


def alike(speaker: Speaker, model: Speaker, prompts: Sequence[Prompt], asking: Asking) -> float:
    """The temperature at which the speaker's entropy on these prompts is that of the model."""

    def entropy_at(one: Speaker, temperature: float) -> float:
        return entropy([group[0] for group in ask(one, prompts, asking.at(temperature))])

    target = entropy_at(model, model.contestant.temperature or asking.temperature)
    return where_it_is(lambda temperature: entropy_at(speaker, temperature), target, asking.temperature)


def where_it_is(entropy_at: Callable[[float], float], target: float, usual: float) -> float:
    """The temperature at which an entropy that rises with it reaches the target; the last one tried where it does not.

    The interval from the usual temperature down, or up, is halved a few times and then interpolated: entropies are
    means over answers, and finer than their noise there is nothing to find.
    """
    here = entropy_at(usual)
    if here == target:
        return usual
    other = usual * (COLDEST if here > target else HOTTEST)
    (low, at_low), (high, at_high) = sorted([(usual, here), (other, entropy_at(other))])
    if not at_low < target < at_high:
        return other
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        at_middle = entropy_at(middle)
        if at_middle > target:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    return low + (high - low) * (target - at_low) / (at_high - at_low)
