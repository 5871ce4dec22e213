"""Options under the names they had before: whoever uses an old one is shown the new one."""

from __future__ import annotations

from collections.abc import Iterable

NEW_NAMES: dict[str, tuple[str, ...]] = {
    "kl_target": ("adaptive_kl_target",),
    "heldout": ("heldout_annotators",),
    "held_out": ("validation_split",),
    "final_learning_rate": ("final_lr_frac",),
    "machine": ("device",),
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

    Both sides may be dotted (`machine.device`) and may have dashes; the first part is what was renamed.
    """
    first, dot, rest = old.replace("-", "_").partition(".")
    names = {name.replace("-", "_") for name in known}
    return next((name + dot + rest for name in NEW_NAMES.get(first, ()) if name in names), None)
