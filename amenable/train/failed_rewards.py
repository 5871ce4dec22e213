"""Rewards that fail during a run: their completions are kept for inspection, and the run stops until they are mended.

failed_rollout.jsonl   the completions that the reward was to score, with prompts, columns, and the scores before it

The run goes on from the step before. Where the reward failed after the updates of a step, on held-out prompts, these
updates are kept, and that step goes on with its evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from amenable.errors import RewardError
from amenable.files import write_text
from amenable.ranks import is_first
from amenable.train import checkpoint
from amenable.train.log import Log, as_lines

if TYPE_CHECKING:
    from amenable.train.run import Run

FAILED_ROLLOUT = "failed_rollout.jsonl"


@dataclass
class PendingStep:
    """Measurements of a step until it is recorded: metrics, and rows of the log as (file, step, rows). With metrics,
    its updates are done and its evaluation is not."""

    metrics: dict[str, float] = field(default_factory=dict)
    rows: list[tuple[str, int, list[dict[str, Any]]]] = field(default_factory=list)
    optional: ClassVar[bool] = True
    """whether a checkpoint may lack it: earlier versions wrote none"""

    def state_dict(self) -> dict[str, Any]:
        return {"metrics": self.metrics, "rows": json.dumps(self.rows if self.metrics else [])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.metrics, self.rows = dict(state["metrics"]), json.loads(state["rows"])

    def write(self, log: Log) -> None:
        """Write the rows to the log, and forget them and the metrics."""
        for name, step, rows in self.rows:
            if name == "samples":
                log.samples(step, rows)
            else:
                log.rows(name, step, rows)
        self.metrics, self.rows = {}, []


@contextmanager
def scoring(
    run: Run, state: Mapping[str, checkpoint.Stateful] | None = None, pending: PendingStep | None = None
) -> Iterator[None]:
    """Stop the run where a reward fails in this context: write its completions to failed_rollout.jsonl, and save
    `state`, if there is one, as a checkpoint of the step before. With the metrics of a `pending` step among it, the
    run goes on with the evaluation of that step."""
    try:
        yield
    except RewardError as error:
        if is_first():
            write_text(run.out / FAILED_ROLLOUT, as_lines(error.rows))
        before, updated = run.step - 1, pending is not None and bool(pending.metrics)
        is_missing = before > 0 and before not in checkpoint.steps(run.out)
        is_kept = before > 0 and before == run.kept_step  # a longer run begins there, without these updates
        if state is not None and (is_missing or (updated and not is_kept)):
            run.save(before, state, updated=updated)
        where = f"{error.where}: " if error.where is not None else ""
        hint = f"{error.how}; " if error.how else ""
        run.stop(f"{where}{error.what}", f"{hint}its {len(error.rows)} completions are in {FAILED_ROLLOUT}")


def is_mended(out: Path, file: Path) -> bool:
    """Return True for an input that may differ from the run's record: a Python file of a reward that has failed."""
    return file.suffix == ".py" and (out / FAILED_ROLLOUT).exists()


def clear(out: Path, step: int, inputs: Mapping[str, Any]) -> list[str]:
    """Remove failed_rollout.jsonl of a run that goes on after `step`, and record the reward files that were mended in
    lineage.json, with the hash that each had up to that step. Returns warnings."""
    if not (out / FAILED_ROLLOUT).exists():
        return []
    lineage = json.loads((out / "lineage.json").read_text("utf-8"))
    old = lineage["inputs"]
    mended = [name for name, fact in inputs.items() if name in old and old[name] != fact]
    lineage["mended"] = [*lineage.get("mended", []), *({"name": name, "step": step, **old[name]} for name in mended)]
    if mended:
        lineage["inputs"] |= {name: inputs[name] for name in mended}
        write_text(out / "lineage.json", json.dumps(lineage, indent=1))
    (out / FAILED_ROLLOUT).unlink()
    scored = f"steps up to {step} were scored as it was" if step else "everything is scored anew"
    return [f"{inputs[name]['path']} has changed: {scored}" for name in mended]
