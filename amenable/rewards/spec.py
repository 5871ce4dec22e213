"""The grammar of `--reward` and `--judge`: one or more SPEC or SPEC=WEIGHT, whose weighted scores are summed.

    runs/reward              a folder of a reward model, or of an ensemble (runs/reward:min: another combination)
    classifier:positive      a folder of a sequence classifier: the logit of one of its labels
    runs/classify:positive   a folder of amenable classify: the log-odds of a label, of the completion (classifier.py)
    my_rewards.py:polite     a function of a Python file (functions.py)
    match:answer             a rule, such as number, format, json, length, tokens, ends, regex, not (rules.py)
    code:tests               code by its tests, in a sandbox (code.py)
    judge:http://h/v1:MODEL  a model behind an OpenAI-compatible API, with a rubric (model_judge.py)
    http://127.0.0.1:9000/   an HTTP endpoint (remote.py)

    --reward runs/reward length:4-30=0.5

What follows the last `=` is the weight if it is a number, unless the whole names a file that is there. A regular
expression or address that ends so takes `=1` behind it. In Python a function, or a ModelReward, is a SPEC as well.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from amenable import processes
from amenable.data import mixture
from amenable.data.types import Conversation
from amenable.errors import InputError, RewardError
from amenable.rewards.classifier import ClassifierReward
from amenable.rewards.code import code_reward
from amenable.rewards.functions import RewardFunction, checked, load_function, named_columns, required_columns
from amenable.rewards.model import ModelReward
from amenable.rewards.model_judge import ModelJudge, load_judge
from amenable.rewards.options import RewardOptions
from amenable.rewards.remote import SERVED_PAUSES, remote_reward, served_at
from amenable.rewards.rules import TOKENIZER_HINT, Rule, is_rule, nearest_rule, parse_rule
from amenable.rewards.sandbox import Limits
from amenable.text.tokenizer import Tokenizer
from amenable.train.classification import task_of
from amenable.train.forward import Row
from amenable.train.loading import Base
from amenable.train.log import Progress, silent
from amenable.train.runtime import Runtime

Spec = str | Path | Callable[..., Any]
if TYPE_CHECKING:
    Specs = Spec | Sequence[Spec]
else:
    Specs = tuple[str, ...]
"""type of an option that takes SPECs: words on the command line, and in Python functions and models too"""
SPELLINGS = (
    "a reward is a folder, FOLDER:LABEL, FILE.py:FUNCTION, a rule (match:COLUMN, number:COLUMN, format:TEMPLATE, json, "
    "length:4-30, characters:1-500, tokens:1-64, ends, regex:PATTERN), code:COLUMN, "
    "judge:URL:MODEL, or an http address"
)


DEFAULTS = RewardOptions()


@runtime_checkable
class Counts(Protocol):
    """Reward function that counts what it does."""

    def take_counts(self) -> dict[str, float]:
        """Return the counts since the last call, by name."""
        ...


@dataclass(frozen=True)
class Part:
    """One term of a reward."""

    name: str
    function: RewardFunction
    weight: float = 1.0
    columns: frozenset[str] = frozenset()
    """columns of the prompts' rows that it needs"""
    every_row: bool = False
    """whether each row must have a value in them"""
    reads: frozenset[str] | None = frozenset()
    """columns that it reads where there are any, beside those that it needs; None for all"""
    note: str = ""
    """line for the log of a run"""


@dataclass(frozen=True)
class Reward:
    """The weighted sum of reward functions; itself one."""

    parts: tuple[Part, ...]

    def __call__(
        self, prompts: Sequence[Conversation], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float]:
        """Return the summed score of each completion."""
        return self.total(self.scores(prompts, completions, columns)).tolist()

    def scores(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[str],
        columns: Mapping[str, Sequence[Any]],
        rows: Sequence[Row] | None = None,
        tokenizer: Tokenizer | None = None,
        progress: Progress = silent,
        cut: bool = False,
    ) -> dict[str, Tensor]:
        """Return each part's unweighted scores [B], by name. With `rows` of ids that `tokenizer` wrote, models of the
        same tokenizer score these; all other parts read the texts. InputError for a row that is longer than a model's
        context, unless it may be cut; RewardError where another part fails."""
        scores: dict[str, Tensor] = {}
        for part in self.parts:
            model = part.function
            if not isinstance(model, ModelReward):
                if isinstance(model, Rule) and model.counts_tokens:
                    model = replace(model, tokenizer=tokenizer)
                try:
                    values = processes.from_first(partial(model, prompts, completions, **columns))
                except InputError as error:
                    raise RewardError(error, part.name, rows_of(prompts, completions, columns, scores)) from error
                scores[part.name] = torch.tensor(values, dtype=torch.float32)
                continue
            own = rows if tokenizer is not None and model.reads(tokenizer) else None
            texts = own if own is not None else model.rows(prompts, completions, columns.get("ended"))
            scores[part.name] = model.score_rows([model.cut(row) for row in texts] if cut else texts, progress)
        return scores

    def total(self, scores: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum [B] of the parts' scores, added in double precision."""
        terms = [part.weight * scores[part.name].double() for part in self.parts]
        return torch.stack(terms).sum(0).float()

    def metrics(self, scores: Mapping[str, Tensor]) -> dict[str, float]:
        """Return mean and standard deviation of each part's scores [B], and what its function has counted since the
        last call, such as programs that were killed; all under the name of the part."""
        metrics: dict[str, float] = {}
        for part in self.parts:
            own = {"mean": float(scores[part.name].mean()), "std": float(scores[part.name].std(unbiased=False))}
            if isinstance(part.function, Counts):
                own |= part.function.take_counts()
            metrics |= {f"rewards/{part.name}/{key}": value for key, value in own.items()}
        return metrics

    @property
    def judge(self) -> ModelJudge | None:
        """The judge, where it is the only part: it can compare answers, not only score them."""
        function = self.parts[0].function
        return function if len(self.parts) == 1 and isinstance(function, ModelJudge) else None

    @property
    def notes(self) -> list[str]:
        """Lines for the log of a run."""
        return [part.note for part in self.parts if part.note]

    def require_columns(self, rows: Sequence[Mapping[str, Any]], data: str | Path | None = None) -> None:
        """Require the columns that the parts need in rows of further columns. InputError for one that is missing."""
        for part in self.all_parts:
            for name in sorted(part.columns):
                lacking = [number for number, row in enumerate(rows, start=1) if row.get(name) is None]
                if len(lacking) < len(rows) and not (lacking and part.every_row):
                    continue
                problem = f"the reward '{part.name}' needs the column '{name}'"
                if len(lacking) < len(rows):
                    problem += f", and {len(lacking)} of {len(rows)} rows lack it, the first of them row {lacking[0]}"
                known = dict.fromkeys(key for row in rows for key in row if key != name)
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"further columns are: {', '.join(known) or 'none'}"
                raise InputError(problem, data, hint)

    @property
    def all_parts(self) -> list[Part]:
        """The parts, and those of rewards among them."""
        inner = [part.function.all_parts if isinstance(part.function, Reward) else [part] for part in self.parts]
        return [part for parts in inner for part in parts]

    def require_tokenizers(self) -> None:
        """Require that no part counts the tokens of a model that answers, for commands that read finished answers."""
        for part in self.all_parts:
            if isinstance(part.function, Rule) and part.function.counts_tokens:
                raise InputError(
                    f"the reward '{part.name}' counts tokens, and no model answers here", how=TOKENIZER_HINT
                )

    def fits(self, prompt: Conversation, completions: Sequence[str], ended: Sequence[bool] | None = None) -> bool:
        """Return True if these completions are within the context of every reward model among the parts."""
        return all(model.fits(prompt, completions, ended) for model in self.models)

    def reads_texts(self, tokenizer: Tokenizer) -> bool:
        """Return True if any part reads texts where ids of `tokenizer` are given."""
        return len(self.models) < len(self.parts) or not all(model.reads(tokenizer) for model in self.models)

    @property
    def models(self) -> list[ModelReward]:
        """The reward models among the parts."""
        return [part.function for part in self.parts if isinstance(part.function, ModelReward)]

    @property
    def context_length(self) -> int:
        """The least context of the reward models; without any there is no limit."""
        return min((model.context_length for model in self.models), default=sys.maxsize)

    @property
    def name(self) -> str:
        """The specs of the parts, as they are written."""
        weighted = [part.name if part.weight == 1 else f"{part.name}={part.weight:g}" for part in self.parts]
        return " ".join(weighted)


def rows_of(
    prompts: Sequence[Conversation],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    scores: Mapping[str, Tensor],
) -> list[dict[str, Any]]:
    """Return completions as rows of JSON, with their prompts, columns and scores by name."""
    return [
        {
            "prompt": [{"role": turn.role, "content": turn.content} for turn in prompt],
            "completion": completion,
            **{name: values[i] for name, values in columns.items()},
            "rewards": {name: round(float(values[i]), 4) for name, values in scores.items()},
        }
        for i, (prompt, completion) in enumerate(zip(prompts, completions))
    ]


def spec_list(specs: Specs) -> list[Spec]:
    """Return specs as a list; a single SPEC is a list of one."""
    return [specs] if isinstance(specs, (str, Path)) or callable(specs) else list(specs)


def load_reward(
    specs: Specs,
    runtime: Runtime,
    max_tokens: int = 8192,
    base: Base | None = None,
    options: RewardOptions = DEFAULTS,
) -> Reward:
    """Load everything that the specs name; reward models that are adapters on the model `base` share its weights.
    InputError for a missing file, function, label or server."""
    several = spec_list(specs)
    if not several:
        raise InputError("no reward is given", how=SPELLINGS)
    parts = [load_part(spec, runtime, max_tokens, base, options) for spec in several]
    names = [part.name for part in parts]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"the reward '{repeated}' is given twice", how="give it once, with a weight: SPEC=WEIGHT")
    return Reward(tuple(parts))


def load_part(spec: Spec, runtime: Runtime, max_tokens: int, base: Base | None, options: RewardOptions) -> Part:
    """Load one SPEC or SPEC=WEIGHT."""
    if not isinstance(spec, (str, Path)):
        name = getattr(spec, "__name__", type(spec).__name__)
        if isinstance(spec, (ModelReward, Reward)):
            return Part(name, spec)
        return function_part(spec, name, 1.0, options)
    name, weight = split_weight(str(spec))
    before, _, last = name.rpartition(":")
    if is_rule(name):
        rule = parse_rule(name)
        return Part(name, rule, weight, frozenset({rule.column} if rule.column else ()), every_row=True)
    if name.startswith("code:"):
        column, limits = name.removeprefix("code:"), Limits(options.code_timeout, options.code_memory)
        reward, note = code_reward(column, options.allow_code_execution, limits, options.code_workers)
        return Part(name, reward, weight, frozenset({column}), every_row=True, note=note)
    if name.startswith("judge:"):
        files = options.judge_rubric, options.judge_cache
        return Part(name, load_judge(name, *files, options.judge_workers, options.reward_timeout), weight)
    if "://" in name:
        return Part(name, remote_reward(name, options.reward_timeout), weight, reads=None)
    if before.endswith(".py"):
        return function_part(load_function(Path(before), last), name, weight, options)
    if address := served_at(name):
        served = remote_reward(address, options.reward_timeout, SERVED_PAUSES)
        return Part(name, served, weight, note=f"{name} is scored at {address}")
    model = load_model(name, runtime, max_tokens, base)
    return Part(name, model, weight, note=model.note if isinstance(model, ClassifierReward) else "")


def function_part(function: Callable[..., Any], name: str, weight: float, options: RewardOptions) -> Part:
    """Return a user's function as a part, with the columns that it has parameters for."""
    reward = checked(function, name, options.reward_timeout)
    named = named_columns(function)
    reads = frozenset(named) if named is not None else None
    return Part(name, reward, weight, frozenset(required_columns(function)), reads=reads)


def reads_column(*rewards: Reward | None) -> Callable[[str], bool]:
    """Return a function that is True for a column that one of the rewards reads, for the plan's lines about data."""
    parts = [part for reward in rewards if reward is not None for part in reward.all_parts]
    return lambda name: any(name in part.columns or part.reads is None or name in part.reads for part in parts)


def load_model(name: str, runtime: Runtime, max_tokens: int, base: Base | None) -> ModelReward | ClassifierReward:
    """Load the reward model or classifier of a SPEC FOLDER or FOLDER:LABEL. InputError for anything else."""
    before, _, last = name.rpartition(":")
    labelled = before and not Path(name).exists() and Path(before).is_dir()
    folder, label = (Path(before), last) if labelled else (Path(name), None)
    if task_of(folder) is not None:
        return ClassifierReward.load(folder, runtime, label, max_tokens)
    if labelled:
        return ModelReward.load(folder, runtime, label, max_tokens)
    if not Path(name).is_dir() and (before or name.endswith(".py")):
        near = nearest_rule(name)
        raise InputError(f"'{name}' is no reward", how=f"did you mean '{near}'? {SPELLINGS}" if near else SPELLINGS)
    if not Path(name).exists():
        raise InputError("no such model folder", name, f"make it with 'amenable reward'; {SPELLINGS}")
    return ModelReward.load(Path(name), runtime, max_tokens=max_tokens, base=base)


def split_weight(spec: str) -> tuple[str, float]:
    """Split SPEC=WEIGHT; the weight is 1 where none is written. InputError for a weight of 0, nan or inf."""
    name, weight = mixture.split_weight(spec)
    if weight is None:
        return spec, 1.0
    if not math.isfinite(weight) or weight == 0 or not name:
        raise InputError(f"'{spec}' has the weight {weight:g}", how="write SPEC=WEIGHT with a number other than 0")
    return name, weight


def reward_inputs(specs: Specs, name: str = "reward", rubric: Path | None = None) -> dict[str, Path | None]:
    """List the folders and files that specs name, for a run's lineage: `reward`, or `reward 1`, `reward 2` ...; and the
    rubric of a judge."""
    texts = [split_weight(str(spec))[0] for spec in spec_list(specs) if isinstance(spec, (str, Path))]
    paths = [path for path in map(path_of, texts) if path is not None]
    numbered = enumerate(paths, start=1)
    named: dict[str, Path | None] = {name if len(paths) == 1 else f"{name} {number}": path for number, path in numbered}
    return named | ({"judge_rubric": rubric} if rubric is not None else {})


def path_of(name: str) -> Path | None:
    """Return the folder, Python file or schema that a SPEC without its weight names, None for other rules and
    addresses."""
    while name.startswith(("not:", "ended:")):
        name = name.partition(":")[2]
    if name.startswith("json:"):
        return Path(name.removeprefix("json:"))
    if name.startswith("tokens:") and name.count(":") > 1:
        return Path(name.split(":", 2)[2])
    if is_rule(name) or "://" in name or name.startswith("code:"):
        return None
    before = name.rpartition(":")[0]
    return Path(before) if before and not Path(name).exists() else Path(name)
