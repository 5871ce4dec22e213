"""Ask people: a web page to rank answers, compare two, write demonstrations, and hold both sides of a conversation.

What is asked comes of `sample`; what is said goes into a store, append-only, and is on disk when the page says so. On
this machine alone (127.0.0.1) who opens the page is its owner; with --host for others everybody needs a token, which
`amenable annotators add NAME` makes. The owner's page shows how the work goes; `amenable export-labels` writes files
that training reads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from amenable.data.files import read_text
from amenable.data.types import Message
from amenable.errors import InputError
from amenable.feedback import annotators, quality
from amenable.feedback.queries import Rule
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.rewards.model import ModelReward
from amenable.seeds import derive_seed, mix
from amenable.serve import security
from amenable.serve.conversation import fit_prompt, load_model, stream_answer
from amenable.serve.labelling.task_order import in_order, require_ensemble
from amenable.serve.labelling.task_queue import Desk, Kind, Rules, Task, known_tasks, read_tasks
from amenable.serve.security import LOCAL, SecurityMiddleware
from amenable.serve.tokens import require_token_holder
from amenable.train.runtime import Device, DeviceOptions, start_runtime

if TYPE_CHECKING:
    from amenable.serve.labelling.routes import Office, Suggest

DEFAULT_MODEL = Path("runs/demo/ppo")
"""suggests answers without --model, if it exists"""
INSTRUCTIONS = """\
# What to do

You see what somebody asked an assistant, and what was answered. Say which answers are better.

- **Helpful**: it does what was asked, follows every constraint, and is no longer than it need be.
- **Truthful**: it makes nothing up. Where the answer cannot be known, saying so is better than inventing one.
- **Harmless**: it does not insult, and does not help to hurt anybody.

Where these pull apart, truthful and harmless come first. Answers that are equally good may share a place. Where you
cannot tell what was meant, skip the task and say why.
"""


@dataclass(frozen=True)
class Config:
    """Open a page on which people label."""

    data: tuple[Path, ...] = (Path("runs/demo/sample/samples.jsonl"),)
    """files of samples; the answers of several to the same prompt come together"""
    store: Path = Path("runs/labels.db")
    """where everything that is said is kept"""
    kinds: tuple[Kind, ...] = ("rank", "compare", "demonstrate", "converse")
    """what people may do"""
    order: Literal["file", Rule] = "file"
    """what is asked first: as in the files, or by a rule of feedback/queries.py"""
    ensemble: tuple[Path, ...] = ()
    """reward models that an order by disagreement, uncertainty or disagreement_coreset goes by"""
    answers: int = 6
    """K, the most answers to rank at once"""
    model: Path | None = None
    """a model that suggests answers to those who write; runs/demo/ppo where that is there"""
    reward_model: Path | None = None
    """a reward model that people are compared with on the owner's page"""
    instructions: Path | None = None
    """a Markdown file of what people are told; without it the owner may edit the text on their page"""
    calibration: Path | None = None
    """rankings that are known to be right; one task in --calibration-every is one of them"""
    screening: Path | None = None
    """rankings that are known to be right; a newcomer ranks these first"""
    overlap: float = 0.1
    """share of the tasks that --raters people get, so that their agreement can be measured"""
    raters: int = 2
    calibration_every: int = 10
    screening_pass: float = 0.75
    """share of the known pairs that a newcomer must order rightly to go on"""
    lease_minutes: float = 30.0
    """a task left open for so long goes to somebody else"""
    host: str = "127.0.0.1"
    """0.0.0.0 lets others in, with tokens"""
    port: int = 8017
    require_tokens: bool = False
    """demand tokens on 127.0.0.1 too, as behind a proxy"""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, max_new_tokens=256))
    """how suggestions are drawn"""
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        if not self.kinds or not self.data:
            raise InputError(f"no {'kinds' if self.data else 'data'}", how="name one or more")
        for name, least, most in (
            ("answers", 2, 9),
            ("raters", 2, 100),
            ("overlap", 0, 1),
            ("calibration_every", 2, 10**6),
            ("screening_pass", 0, 1),
            ("lease_minutes", 0.1, 10**5),
            ("port", 0, 65535),
        ):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}", how=f"it must lie between {least} and {most}")
        if self.order != "file":
            require_ensemble(self.order, self.ensemble)

    @property
    def rules(self) -> Rules:
        return Rules(
            lease=60 * self.lease_minutes,
            overlap=self.overlap,
            raters=self.raters,
            calibration_every=self.calibration_every,
            screening_pass=self.screening_pass,
            seed=self.seed,
        )

    @property
    def needs_tokens(self) -> bool:
        return self.require_tokens or self.host not in LOCAL


def run(config: Config) -> None:
    """Serve until it is stopped."""
    security.require_server()
    tasks, instructions = all_tasks(config), read_instructions(config)
    suggest, score = load_suggester(config), load_scorer(config)
    door = security.listen(config.host, config.port)
    with door, Store(config.store) as store:
        if config.needs_tokens:
            require_token_holder(annotators.people(store), store, " --role owner")
        office = open_office(config, store, tasks, instructions, suggest, score)
        say(config, tasks, security.address_of(door, config.host), suggest is not None)
        security.make_server(guarded(config, office)).run(sockets=[door])


def all_tasks(config: Config) -> list[Task]:
    """The pool, and the items of known order."""
    pool = read_tasks(config.data, config.kinds, config.answers, config.rules)
    if config.order != "file":
        pool = in_order(pool, config.order, config.ensemble, config.seed, start_runtime(config.device))
    calibration = known_tasks(config.calibration, "calibration")
    return [*pool, *calibration, *known_tasks(config.screening, "screening")]


def read_instructions(config: Config) -> str | None:
    """The owner's file, or None."""
    if config.instructions is None:
        return None
    if not config.instructions.is_file():
        raise InputError("no such file", config.instructions, "give a Markdown file")
    return read_text(config.instructions)


def load_suggester(config: Config) -> Suggest | None:
    """Return a function that samples a new suggestion at every call; None without a model."""
    folder = config.model or (DEFAULT_MODEL if (DEFAULT_MODEL / "finished.json").exists() else None)
    if folder is None:
        return None
    runtime = start_runtime(config.device)
    model, lock = load_model(folder, runtime), threading.Lock()

    def suggest(conversation: Sequence[dict[str, str]], number: int) -> dict[str, Any]:
        messages = [Message(turn["role"], turn["content"]) for turn in conversation]
        system = [message for message in messages[:-1] if message.role == "system"]
        turns = [message for message in messages[:-1] if message.role != "system"]
        seed = mix(config.seed, derive_seed(config.seed, "suggest", *map(str, conversation), number))
        with lock, runtime.autocast():
            ids, _ = fit_prompt(model, system, turns, messages[-1], config.sampling.max_new_tokens)
            text = "".join(stream_answer(model, ids, config.sampling, seed)).strip()
        return {"text": text, "model": str(folder), "sampling": asdict(config.sampling), "seed": seed}

    return suggest


def load_scorer(config: Config) -> quality.Score | None:
    """Return the reward model's scores as a cached function; None without a reward model."""
    if config.reward_model is None:
        return None
    reward = ModelReward.load(config.reward_model, start_runtime(config.device))
    cache: dict[tuple[str, ...], list[float]] = {}

    def score(prompt: Sequence[dict[str, str]], completions: Sequence[str], ended: Sequence[bool]) -> list[float]:
        key = (str(prompt), *completions)
        if key not in cache:
            messages = tuple(Message(turn["role"], turn["content"]) for turn in prompt)
            # answers beyond the model's context all score 0
            fits = reward.fits(messages, completions, ended)
            prompts = [messages] * len(completions)
            cache[key] = reward(prompts, completions, ended=ended) if fits else [0.0] * len(completions)
        return cache[key]

    return score


def open_office(
    config: Config,
    store: Store,
    tasks: Sequence[Task],
    instructions: str | None,
    suggest: Suggest | None,
    score: quality.Score | None,
) -> Office:
    """Everything that the routes need."""
    from amenable.serve.labelling.routes import Office

    def told() -> str:
        edited = store.events("instructions")
        return instructions or (edited[-1].payload["text"] if edited else INSTRUCTIONS)

    return Office(
        desk=Desk(store, tasks, config.rules, time.time),
        kinds=config.kinds,
        instructions=told,
        figures=lambda: quality.figures(store, config.seed, score),
        suggest=suggest,
        local_owner=not config.needs_tokens,
    )


def say(config: Config, tasks: Sequence[Task], address: str, suggests: bool) -> None:
    """What is asked, and where."""
    pool = [task.kind for task in tasks if task.purpose in ("label", "overlap")]
    counts = ", ".join(f"{pool.count(kind)} to {kind}" for kind in config.kinds if kind in pool)
    print(f"{counts or 'conversations'}; answers go into {config.store}{'; a model suggests' if suggests else ''}")
    print(f"label at {address}   the owner's page: {address}/owner   Ctrl-C ends", flush=True)


def guarded(config: Config, office: Office) -> SecurityMiddleware:
    """The application behind its guard. Names are checked where no token is; else tokens, but for the way in."""
    from amenable.serve.labelling.routes import FILES, make_app

    if office.local_owner:
        return SecurityMiddleware(make_app(office))
    hosts = LOCAL if config.host in LOCAL else None
    return SecurityMiddleware(
        make_app(office), hosts, authenticate=office.authenticate, open_paths=frozenset((*FILES, "/api/enter"))
    )
