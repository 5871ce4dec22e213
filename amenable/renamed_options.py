"""Options under the names they had before: whoever uses an old one is shown the new one."""

from __future__ import annotations

from collections.abc import Iterable

NEW_NAMES: dict[str, tuple[str, ...]] = {
    "kl_target": ("adaptive_kl_target",),
    "heldout": ("heldout_annotators",),
    "held_out": ("validation_split",),
    "final_learning_rate": ("final_lr_frac",),
    "machine": ("device",),
    "machine.device": ("device",),
    "machine.precision": ("precision",),
    "machine.threads": ("threads",),
    "watch_reward_model": ("eval_reward_model",),
    "watched": ("num_traced_prompts",),
    "select": ("keep_weights",),
    "batch": ("batch_unit",),
    "limit": ("max_prompts",),
    "rows": ("max_batch_size",),
    "also": ("extra_data",),
    "terms": ("rating",),
    "reward_model": ("judge", "reward"),
    "ensemble": ("reward",),
    "queue": ("max_queue",),
    "per_minute": ("rate_limit_per_minute",),
    "a": ("run_a",),
    "b": ("run_b",),
    "home": ("base_run",),
    "labels": ("prompts_per_round",),
    "answers": ("num_generations",),
    "earlier": ("include_base_comparisons",),
    "repeat": ("new_label_weight",),
    "once": ("one_shot_baseline",),
    "store": ("labels_db",),
    "order": ("query_strategy",),
    "screening": ("qualification",),
    "screening_pass": ("qualification_threshold",),
    "calibration": ("gold_items",),
    "calibration_every": ("gold_every",),
    "lease_minutes": ("assignment_timeout_minutes",),
    "few_shot": ("shots",),
    "num_fewshot": ("num_shots",),
    "fewshot_data": ("shots",),
}
"""by old name, the new names it has in the commands that had it"""
STILL_ACCEPTED = {"reward_model", "ensemble"}
"""old names that still work on the command line: what they were given means the same under the new name"""


def new_name(old: str, known: Iterable[str]) -> str | None:
    """Return the new name of option `old` among the names a command knows, None where the option was never renamed.

    `old` may be dotted (`machine.device`, or `terms.k` of the renamed group `terms`) and may have dashes.
    """
    known, old = {name.replace("-", "_") for name in known}, old.replace("-", "_")
    group, dot, field = old.partition(".")
    names = (*NEW_NAMES.get(old, ()), *(f"{name}.{field}" for name in NEW_NAMES.get(group, ()) if dot))
    return next((name for name in names if name in known), None)


def accept_old_name(argument: str, known: Iterable[str]) -> str:
    """Return a command-line argument, under its new name where it is an option whose old name still works."""
    name, equals, value = argument.removeprefix("--").partition("=")
    known = {option.replace("-", "_") for option in known}
    old = name.replace("-", "_")
    if not argument.startswith("--") or old not in STILL_ACCEPTED - known:
        return argument
    new = new_name(old, known)
    return f"--{new.replace('_', '-')}{equals}{value}" if new else argument
