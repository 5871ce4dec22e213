"""Options that stages have in common: each stands here once, and a stage's Config inherits it.

`DataOptions` are those of every stage that reads data, `RunOptions` of those that run a model, `TrainingOptions` of
those that train one. A stage repeats an option only to give it another default.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from amenable.errors import InputError
from amenable.train import plan
from amenable.train.loading import SaveDtype
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Device, DeviceOptions

MAY_CHANGE_ON_RESUME = (
    *("device", "save_steps", "keep_checkpoints", "max_bad_rows", "save_dtype", "inspect_batch", "max_kl"),
)
"""options that say where and how a run computes, not what: they may differ when it goes on after a stop"""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options of every stage that reads data."""

    max_bad_rows: float = 0.01
    """share of a file's rows that may be unusable; they are listed in rejected.jsonl"""

    def __post_init__(self) -> None:
        plan.require_share(self, "max_bad_rows")


@dataclass(frozen=True, kw_only=True)
class RunOptions(DataOptions):
    """Options of every stage that runs a model."""

    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RunOptions):
    """Options of every stage that trains a model."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    warmup_steps: int | None = None
    """by default 10 (pretrain 20, online algorithms 5), and at most an eighth of the steps"""
    final_lr_frac: float = 0.1
    """share of the peak learning rate at which the cosine ends"""
    max_tokens_per_pass: int = 8192
    """tokens computed at once; a step of more is accumulated, with the same result"""
    save_steps: int = 100
    """steps between two checkpoints; 0 saves only when the run is stopped"""
    keep_checkpoints: int = 2
    """newest checkpoints that are kept while a run goes on"""
    save_dtype: SaveDtype = "float32"
    """of the finished model's weights; bfloat16 rounds them to its 8 bits, in half the space. Training is fp32"""
    inspect_batch: bool = False
    """show the first batch as it would be trained, and stop"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "max_tokens_per_pass")
        least = self.keep_checkpoints < 1
        plan.forbid(least, f"keep_checkpoints is {self.keep_checkpoints}", "it must be 1 or more")
        plan.require_at_least(0, self, "warmup_steps", "save_steps")
        plan.require_share(self, "final_lr_frac")


def require_held_out(validation: object, split: float) -> None:
    """Raise InputError for a validation split outside (0, 1), where no validation file is given."""
    if validation is None and not 0 < split < 1:
        how = "it must lie between 0 and 1, or give --validation"
        raise InputError(f"validation_split is {split}", how=how)
