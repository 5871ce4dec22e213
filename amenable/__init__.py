"""amenable: from raw text to an assistant that people prefer.

As a library, `import amenable as am`: a function for every stage (`am.sft`, `am.reward`, `am.ppo` ...), `am.load` and
`am.chat`; see library/functions.py and docs/library.md. Nothing is imported before it is used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return import_module("amenable.library.functions").attribute(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *import_module("amenable.library.functions").names()])
