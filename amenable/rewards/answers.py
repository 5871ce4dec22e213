r"""Answers of completions compared with a column's, as evaluations of GSM8K and MATH compare them.

The answer of a text is the last \boxed{...}, else what follows the last ####, else the last <answer>...</answer>, else
what follows the last "the answer is" or "answer:" in its line, else the whole text. `match:` compares answers after

- GSM8K (Cobbe et al., 2021; lm-evaluation-harness): no $, no commas in numbers, no full stop at the end, lower case
- MATH (Hendrycks et al., 2021; `is_equiv`): \dfrac and a/b as \frac, \frac12 as \frac{1}{2}, no \left, \right, \!,
  degrees, per cent signs, units in \text{...} at the end, white space; .5 as 0.5; of `x = 3` the 3

`number:` reads the last number of the answer: 1,234.5, -3e-2, 3/4, \frac{3}{4}.
"""

from __future__ import annotations

import math
import re
from typing import Any

MARKS = (re.compile(r"####(.*)"), re.compile(r"<answer>(.*?)</answer>", re.S))
PHRASE = re.compile(r"(?:\banswer\s+is|\banswer\s*:|\banswer\s*=)[:\s*]*([^\n]*)", re.IGNORECASE)
FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*([^{}]+?)\s*\}|(\d))\s*(?:\{\s*([^{}]+?)\s*\}|(\d))")
REMOVED = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[!,;: ]|\^\{?\\circ\}?|\\?%|\\?\$|\\(?:mathrm|mbox)(?=\{)")
UNIT = re.compile(r"(?<=[\d}])\s*\\text\{[^{}]*\}\s*$")
NUMBER = re.compile(
    r"(?:(?<![\w)])[-+\u2212])?(?<![\w.])(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?"
    r"(?:\s*/\s*\d+(?:\.\d+)?)?"
)


def extract_answer(text: str) -> str:
    """Return the answer that a text gives; the whole text where it marks none."""
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    for mark in (*MARKS, PHRASE):
        answers = mark.findall(text)
        if answers and answers[-1].strip():
            return answers[-1].strip(" \t\n*`")
    return text.strip()


def last_boxed(text: str) -> str | None:
    """Return the content of the last \\boxed{...} (or \\fbox{...}) whose braces close, None without one."""
    for match in reversed(list(re.finditer(r"\\f?boxed\s*\{|\\fbox\s*\{", text))):
        depth = 1
        for position in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[match.end() : position].strip()
    return None


def normalize(answer: str) -> str:
    """Return an answer in the one form in which equal answers are equal texts."""
    text = UNIT.sub("", answer.strip())
    text = REMOVED.sub("", text)
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    text = FRACTION.sub(lambda match: rf"\frac{{{match[1] or match[2]}}}{{{match[3] or match[4]}}}", text)
    text = re.sub(r"^(-?)(\d+)\s*/\s*(\d+)$", r"\1\\frac{\2}{\3}", text.strip())
    text = re.sub(r"^[a-zA-Z]\s*=\s*", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<!\d)\.(?=\d)", "0.", text)
    return re.sub(r"\s+", "", text).rstrip(".").lower()


def matches(completion: str, answer: Any) -> bool:
    """Return True if the answer of a completion is that of a column's value, both normalized."""
    if answer is None:
        return False
    wanted = normalize(extract_answer(str(answer)))
    return bool(wanted) and normalize(extract_answer(completion)) == wanted


def last_number(text: str) -> float | None:
    """Return the last number of a text, None where it has none."""
    plain = FRACTION.sub(lambda match: f"{match[1] or match[2]}/{match[3] or match[4]}", text)
    numbers = [match[0] for match in NUMBER.finditer(plain) if match[0].strip("+-\u2212")]
    if not numbers:
        return None
    above, _, below = numbers[-1].replace(",", "").replace("\u2212", "-").partition("/")
    divisor = float(below) if below else 1.0
    return float(above) / divisor if divisor else None


def same_number(completion: str, answer: Any, tolerance: float) -> bool:
    """Return True if the number of a completion is that of a column's value, within a relative tolerance.

    Where a marked answer has no number, the last number of the whole completion counts.
    """
    if answer is None or isinstance(answer, bool):
        return False
    wanted = last_number(extract_answer(str(answer)))
    given = last_number(extract_answer(completion))
    given = last_number(completion) if given is None else given
    return wanted is not None and given is not None and math.isclose(given, wanted, rel_tol=tolerance, abs_tol=1e-12)
