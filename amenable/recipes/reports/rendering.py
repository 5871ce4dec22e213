"""Pages from the templates of this folder: values are escaped, style and script stand inside the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

FOLDER = Path(__file__).parent


def render(template: str, css: str, js: str | None = None, **values: Any) -> str:
    """Render a template with its values; css and js name files that are inserted. A missing value is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["answer"], environment.filters["stacked"] = shown_answer, stacked
    texts = {"css": (FOLDER / css).read_text("utf-8")}
    if js is not None:
        texts["js"] = (FOLDER / js).read_text("utf-8")
    return environment.get_template(template).render(**texts, **values)


def shown_answer(text: str) -> str:
    """Return an answer without surrounding blanks, or a remark where it is empty."""
    return text.strip() or Markup('<span class="empty">(says nothing)</span>')


def stacked(cell: str) -> Markup:
    """Return a cell of a table with what stands behind its value in parentheses, such as an interval, below it.

    >>> str(stacked("0.5 (0.4 to 0.6)"))
    '0.5<small>0.4 to 0.6</small>'
    """
    value, _, rest = re.sub(r" \((.*)\)$", r"\n\1", cell).partition("\n")
    return Markup("{}<small>{}</small>").format(value, rest) if rest else escape(value)
