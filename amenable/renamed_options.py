"""Options under the names they had before: whoever uses an old one is shown the new one."""

from __future__ import annotations

from collections.abc import Iterable

NEW_NAMES: dict[str, tuple[str, ...]] = {
    "kl_target": ("adaptive_kl_target",),
    "heldout": ("heldout_annotators",),
    "held_out": ("validation_split",),
    "final_learning_rate": ("final_lr_frac",),
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
}
"""by old name, the new names it has in the commands that had it"""


def new_name(old: str, known: Iterable[str]) -> str | None:
    """Return the new name of option `old` among the names a command knows, None where the option was never renamed.

    `old` may be dotted (`machine.device`) and may have dashes.
    """
    known = {name.replace("-", "_") for name in known}
    return next((name for name in NEW_NAMES.get(old.replace("-", "_"), ()) if name in known), None)
