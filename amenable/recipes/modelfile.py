"""Ollama's Modelfile for a GGUF file: its chat template in Go's language, where probes tell what the template writes.

A chat template is taken for begin, and a text before and after each role's words (ChatML, Llama 3, Zephyr, ours). These
texts are read off a few renderings, and have to give every probe conversation as the template itself renders it.
"""

from __future__ import annotations

from dataclasses import dataclass

from amenable.errors import InputError
from amenable.text.template import Slot, template_with_slots
from amenable.text.tokenizer import Tokenizer

PROBES = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
)
FIRST_LINE = "# Modelfile for Ollama, written by 'amenable export'"
MAX_CONTEXT = 8192
"""largest num_ctx that is written: Ollama reserves memory for all of it"""


@dataclass(frozen=True)
class TurnTexts:
    """Text that a chat template writes around contents."""

    begin: str
    """before the first turn"""
    default_system: str | None
    """system's words where a conversation has none; None where nothing is written then"""
    before: dict[str, str]
    after: dict[str, str]
    """by role"""

    def render(self, roles: tuple[str, ...]) -> str:
        """Return a conversation whose contents are the letters A, B, C ..., up to the assistant's next words."""
        turns = [(role, chr(ord("A") + i)) for i, role in enumerate(roles)]
        if roles[0] != "system" and self.default_system is not None:
            turns = [("system", self.default_system), *turns]
        text = "".join(self.before[role] + content + self.after[role] for role, content in turns)
        return self.begin + text + self.before["assistant"]


def modelfile(tokenizer: Tokenizer, file_name: str, context: int, temperature: float) -> str:
    """Return the Modelfile for a GGUF file of that name, beside it."""
    lines = [FIRST_LINE, "#   ollama create NAME -f Modelfile && ollama run NAME", f"FROM ./{file_name}", ""]
    turns = turn_texts(tokenizer)
    if tokenizer.chat_template is None:
        lines += ['TEMPLATE """{{ .Prompt }}"""']
    elif turns is None:
        lines += ["# no TEMPLATE: Ollama reads the chat template in the GGUF file itself"]
    else:
        lines += [f'TEMPLATE """{go_template(turns, tokenizer)}"""']
        if turns.default_system is not None:
            lines += [f'SYSTEM """{turns.default_system}"""']
    stops = [tokenizer.decode([i], skip_special_tokens=False) for i in tokenizer.stop_ids]
    lines += ["", *(f"PARAMETER stop {quoted(stop)}" for stop in stops)]
    lines += [f"PARAMETER temperature {temperature:g}", f"PARAMETER num_ctx {min(context, MAX_CONTEXT)}"]
    return "\n".join(lines) + "\n"


def turn_texts(tokenizer: Tokenizer) -> TurnTexts | None:
    """Return the texts that a chat template writes; None for a template of another form, or without one."""
    template = tokenizer.chat_template
    if template is None or "strftime_now" in template or "date_string" in template:
        return None
    for begin in ("", tokenizer.bos or ""):
        try:
            texts = read_turn_texts(tokenizer, begin)
            written = (texts.begin, texts.default_system or "", *texts.before.values(), *texts.after.values())
            if not any(mark in text for text in written for mark in ("{{", '"""')) and all(
                texts.render(roles) == rendered(tokenizer, roles) for roles in PROBES
            ):
                return texts
        except (InputError, ValueError):
            continue
    return None


def read_turn_texts(tokenizer: Tokenizer, begin: str) -> TurnTexts:
    """Read the texts off renderings that start with `begin`. ValueError where a text is not where it has to be."""
    first, after_user = pieces(tokenizer, ("user",), False)
    _, between, after_assistant = pieces(tokenizer, ("user", "assistant"), False)
    _, _, before_last, _ = pieces(tokenizer, ("user", "assistant", "user"), False)
    before_system, after_system, _ = pieces(tokenizer, ("system", "user"), False)
    user = without_prefix(before_last, after_assistant)
    system, after_system = without_prefix(before_system, begin), without_suffix(after_system, user)
    default = without_prefix(without_suffix(first, user), begin) or None
    if default is not None:
        default = without_suffix(without_prefix(default, system), after_system)
    return TurnTexts(
        begin,
        default,
        {"system": system, "user": user, "assistant": without_prefix(between, after_user)},
        {"system": after_system, "user": after_user, "assistant": after_assistant},
    )


def pieces(tokenizer: Tokenizer, roles: tuple[str, ...], generate: bool) -> list[str]:
    """Return a template's own texts around the contents: one more than there are roles. ValueError for another form."""
    parts = template_with_slots(tokenizer.chat_template or "", roles, tokenizer.special_tokens_map, generate)
    texts = [""]
    for part in parts:
        if isinstance(part, Slot):
            texts.append("")
        else:
            texts[-1] += part
    order = [part.message for part in parts if isinstance(part, Slot)]
    if order != list(range(len(roles))):
        raise ValueError("contents in another order")
    return texts


def rendered(tokenizer: Tokenizer, roles: tuple[str, ...]) -> str:
    """Return a conversation as the template renders it, with `TurnTexts.render`'s contents."""
    texts = pieces(tokenizer, roles, True)
    return "".join(text + chr(ord("A") + i) * (i < len(roles)) for i, text in enumerate(texts))


def without_prefix(text: str, prefix: str) -> str:
    if not text.startswith(prefix):
        raise ValueError(f"{text!r} does not begin with {prefix!r}")
    return text[len(prefix) :]


def without_suffix(text: str, suffix: str) -> str:
    if not text.endswith(suffix):
        raise ValueError(f"{text!r} does not end with {suffix!r}")
    return text[: len(text) - len(suffix)]


def go_template(turns: TurnTexts, tokenizer: Tokenizer) -> str:
    """Return the template for Ollama. It leaves out a BOS that llama.cpp begins each text with by itself."""
    bos_is_added = bool(tokenizer.opening_ids) and turns.begin == tokenizer.bos
    before, content = turns.before, "{{ .Content }}"
    texts = {role: before[role] + content + turns.after[role] for role in ("system", "user")}
    # the last words of an assistant are continued
    texts["assistant"] = f"{before['assistant']}{content}{{{{ if not $last }}}}{turns.after['assistant']}{{{{ end }}}}"
    roles = "{{ else ".join(f'if eq .Role "{role}" }}}}{text}' for role, text in texts.items())
    ahead = f'{{{{ if and $last (ne .Role "assistant") }}}}{turns.before["assistant"]}{{{{ end }}}}'
    last = "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
    begin = "" if bos_is_added else turns.begin
    return f"{begin}{{{{ range $i, $_ := .Messages }}}}{last}{{{{ {roles}{{{{ end }}}}{ahead}{{{{ end }}}}"


def quoted(text: str) -> str:
    """Return a parameter's value in quotes."""
    return '"' + text.replace('"', '\\"').replace("\n", "\\n") + '"'
