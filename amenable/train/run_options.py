"""How a run looks after itself and its user's time: the same few options for every stage.

None of them changes what a run computes: they may differ when it goes on after a stop. `save_dtype` rounds what it has
computed: training and checkpoints are fp32 throughout, the model that is written at the end has half the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from amenable.errors import InputError

SaveDtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Options:
    """What is kept, and how much bad input is borne."""

    keep_checkpoints: int = 2
    """the newest so many are kept while a run goes on"""
    max_bad_rows: float = 0.01
    """share of a file's rows that may be unusable; they are listed in rejected.jsonl"""
    save_dtype: SaveDtype = "float32"
    """of the finished model's weights; bfloat16 rounds them to its 8 bits, in half the space"""

    def __post_init__(self) -> None:
        if self.keep_checkpoints < 1:
            raise InputError(f"keep_checkpoints is {self.keep_checkpoints}", how="it must be 1 or more")
        if not 0 <= self.max_bad_rows <= 1:
            raise InputError(f"max_bad_rows is {self.max_bad_rows}", how="it is a share, from 0 to 1")


Care = Annotated[Options, arg(name="")]
"""the field of a stage's Config: its options stand among the stage's own, as --keep-checkpoints"""
