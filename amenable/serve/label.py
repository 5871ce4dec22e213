"""Labelling page: people rank answers, compare two, write demonstrations, and write both sides of conversations.

Answers come from `amenable sample`. Labels are appended to a database, on disk before the page acknowledges them. On
this machine alone (127.0.0.1) whoever opens the page is its owner; with --host for others everybody needs a token:
`amenable annotators add NAME` makes it. The owner's page shows progress and agreement; `amenable export-labels` writes
files for training.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from amenable.data.files import read_text
from amenable.data.types import Message
from amenable.errors import InputError
from amenable.feedback import annotators, quality
from amenable.feedback.queries import SCORED, Rule
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.samples import score_samples
from amenable.rewards.spec import Specs, load_reward, spec_list
from amenable.seeds import derive_seed, mix
from amenable.serve import security
from amenable.serve.conversation import fit_prompt, load_model, stream_answer
from amenable.serve.labelling.task_order import order_tasks, require_ensemble, sample_of
from amenable.serve.labelling.task_queue import AssignmentPolicy, TaskQueue
from amenable.serve.labelling.tasks import Kind, Task, read_gold_tasks, read_tasks, with_repeats
from amenable.serve.options import PageOptions, require_bounds
from amenable.serve.tokens import require_token_holder
from amenable.train.runtime import start_runtime

if TYPE_CHECKING:
    from amenable.serve.labelling.routes import LabelApp, SuggestFn

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
class Config(PageOptions):
    """The tasks, their assignment, the models, and the address."""

    data: tuple[Path, ...] = (Path("runs/demo/sample/samples.jsonl"),)
    """samples.jsonl files; completions to one prompt are pooled over all files"""
    tasks: tuple[Kind, ...] = ("rank", "compare", "demonstrate", "converse")
    """kinds of tasks"""
    query_strategy: Literal["file", Rule] = "file"
    """order of the tasks: as in the files, or by a rule of feedback/queries.py"""
    reward: Specs = ()
    """members of the ensemble for the rules disagreement, information_gain, uncertainty and disagreement_coreset, each
    a SPEC: a reward model's folder, FOLDER:LABEL of a classifier, FILE.py:FUNCTION, a rule or an http address;
    SPEC=WEIGHT scales its scores"""
    one_key: bool = False
    """answer comparisons by one key or tap, left, right or equal, without strength, ratings and flags"""
    repeats: int = 0
    """comparisons shown a second time, later, to see how far a person agrees with themselves"""
    answers: int = 6
    """K, the most answers in a ranking"""
    model: Path | None = None
    """model for suggestions to those who write; by default runs/demo/ppo, if it exists"""
    judge: Specs = ()
    """reward whose agreement with the annotators the owner's page shows, in the same grammar; several are added"""
    scoring: Scoring = field(default_factory=RewardOptions)
    instructions: Path | None = None
    """Markdown file of instructions; without it the owner may edit them on the page"""
    gold_items: Path | None = None
    """rankings known to be right; one ranking in --gold-every is of these"""
    qualification: Path | None = None
    """rankings known to be right; a new annotator ranks these first"""
    overlap: float = 0.1
    """share of the tasks that --raters annotators get, to measure their agreement"""
    raters: int = 2
    gold_every: int = 10
    qualification_threshold: float = 0.75
    """share of the known pairs that a new annotator must order rightly to go on"""
    assignment_timeout_minutes: float = 30.0
    """time after which an unanswered task goes to somebody else"""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, max_new_tokens=256))
    """sampling settings of suggestions"""
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks or not self.data:
            raise InputError(f"no {'tasks' if self.data else 'data'}", how="name one or more")
        require_bounds(
            self,
            answers=(2, 9),
            repeats=(0, 10**4),
            raters=(2, 100),
            overlap=(0, 1),
            gold_every=(2, 10**6),
            qualification_threshold=(0, 1),
            assignment_timeout_minutes=(0.1, 10**5),
        )
        if self.query_strategy != "file":
            require_ensemble(self.query_strategy, spec_list(self.reward))

    @property
    def policy(self) -> AssignmentPolicy:
        return AssignmentPolicy(
            timeout=60 * self.assignment_timeout_minutes,
            raters=self.raters,
            gold_every=self.gold_every,
            qualification_threshold=self.qualification_threshold,
            seed=self.seed,
        )


def run(config: Config) -> None:
    """Serve until Ctrl-C."""
    security.require_server()
    tasks, instructions = load_tasks(config), read_instructions(config)
    suggest, score = load_suggester(config), load_scorer(config, tasks)
    sock = security.listen(config.host, config.port)
    with sock, Store(config.labels_db) as store:
        if config.needs_tokens:
            require_token_holder(annotators.people(store), store, " --role owner")
        label_app = make_label_app(config, store, tasks, instructions, suggest, score)
        print_summary(config, tasks, security.address_of(sock, config.host), suggest is not None)
        security.make_server(protect(config, label_app)).run(sockets=[sock])


def load_tasks(config: Config) -> list[Task]:
    """Return the tasks of the samples, ordered, and the gold items."""
    rule = config.query_strategy
    rewards = []
    if rule in SCORED:
        runtime = start_runtime(config.device)
        rewards = [load_reward(spec, runtime, options=config.scoring) for spec in spec_list(config.reward)]
    tasks = read_tasks(config.data, config.tasks, config.answers, config.overlap, config.seed)
    for reward in rewards:
        reward.require_tokenizers()
        reward.require_columns([task.columns for task in tasks], config.data[0])
    if rule != "file":
        tasks = order_tasks(tasks, rule, rewards, config.seed)
    gold = read_gold_tasks(config.gold_items, "calibration")
    return [*with_repeats(tasks, config.repeats), *gold, *read_gold_tasks(config.qualification, "screening")]


def read_instructions(config: Config) -> str | None:
    """Return the text of the instructions file, None without one."""
    if config.instructions is None:
        return None
    if not config.instructions.is_file():
        raise InputError("no such file", config.instructions, "give a Markdown file")
    return read_text(config.instructions)


def load_suggester(config: Config) -> SuggestFn | None:
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


def load_scorer(config: Config, tasks: Sequence[Task]) -> quality.Score | None:
    """Return the judge's scores as a cached function; None without a judge. It reads the columns of the tasks' prompts,
    and gives no scores to answers that are longer than its context, and to other prompts where it needs columns."""
    if not config.judge:
        return None
    reward = load_reward(config.judge, start_runtime(config.device), options=config.scoring)
    columns = {task.prompt: task.columns for task in tasks if task.columns}
    reward.require_tokenizers()
    reward.require_columns(list(columns.values()), config.data[0])
    needed = {name for part in reward.all_parts for name in part.columns}
    cache: dict[tuple[str, ...], list[float] | None] = {}

    def score(
        prompt: Sequence[dict[str, str]], completions: Sequence[str], ended: Sequence[bool]
    ) -> list[float] | None:
        key = (str(prompt), *completions)
        if key not in cache:
            messages = tuple(Message(turn["role"], turn["content"]) for turn in prompt)
            known = columns.get(messages, {})
            sample = sample_of(messages, completions, ended, known)
            cache[key] = score_samples(reward, [sample])[0] if needed <= known.keys() else None
        return cache[key]

    return score


def make_label_app(
    config: Config,
    store: Store,
    tasks: Sequence[Task],
    instructions: str | None,
    suggest: SuggestFn | None,
    score: quality.Score | None,
) -> LabelApp:
    """Return everything that the routes use."""
    from amenable.serve.labelling.routes import LabelApp

    def current_instructions() -> str:
        edited = store.events("instructions")
        return instructions or (edited[-1].payload["text"] if edited else INSTRUCTIONS)

    return LabelApp(
        queue=TaskQueue(store, tasks, config.policy, time.time),
        kinds=config.tasks,
        instructions=current_instructions,
        figures=lambda: quality.figures(store, config.seed, score),
        suggest=suggest,
        one_key=config.one_key,
        local_owner=not config.needs_tokens,
    )


@contextmanager
def background_page(config: Config, label_app: LabelApp) -> Iterator[str]:
    """Serve a page from a thread while the block lasts, and give its address."""
    with security.listen(config.host, config.port) as sock:
        server = security.make_server(protect(config, label_app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        try:
            yield security.address_of(sock, config.host)
        finally:
            server.should_exit = True
            thread.join()


def print_summary(config: Config, tasks: Sequence[Task], address: str, suggests: bool) -> None:
    """Print the numbers of tasks and the page's address."""
    kinds = [task.kind for task in tasks if task.purpose in ("label", "overlap")]
    counts = ", ".join(f"{kinds.count(kind)} to {kind}" for kind in config.tasks if kind in kinds)
    print(f"{counts or 'conversations'}; answers go into {config.labels_db}{'; a model suggests' if suggests else ''}")
    print(f"label at {address}   the owner's page: {address}/owner   Ctrl-C ends", flush=True)


def protect(config: PageOptions, label_app: LabelApp) -> security.SecurityMiddleware:
    """Return the application behind its security checks; without a token only the page and the login are served."""
    from amenable.serve.labelling.routes import FILES, make_app

    return security.SecurityMiddleware(
        make_app(label_app),
        hosts=security.LOCAL if config.host in security.LOCAL else None,
        authenticate=None if label_app.local_owner else label_app.knows_token,
        open_paths=frozenset((*FILES, "/api/enter")),
    )
