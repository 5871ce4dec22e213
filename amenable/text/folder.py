"""The files in which a published folder describes its tokenizer. What is read is written back as it was.

tokenizer.json holds the tokenizer itself; tokenizer_config.json and special_tokens_map.json name its bos, eos and pad;
the chat template stands in tokenizer_config.json or in chat_template.jinja; generation_config.json (without
it, config.json) says at which ids an answer ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from amenable.errors import InputError

TOKENIZER, CONFIG, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
ADDED, TEMPLATE = "added_tokens.json", "chat_template.jinja"
GENERATION, MODEL_CONFIG = "generation_config.json", "config.json"
KEPT = (TOKENIZER, CONFIG, SPECIAL, ADDED, TEMPLATE, "vocab.json", "merges.txt", "tokenizer.model")
"""files that are copied from a folder to the next, the last three for those who read no tokenizer.json"""


@dataclass(frozen=True)
class Files:
    """What a folder says about its tokenizer; nothing yet, of a tokenizer that was just made."""

    contents: Mapping[str, bytes] = field(default_factory=dict)
    """of the KEPT files that are there"""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """generation_config.json"""
    model_eos: Any = None
    """eos_token_id of config.json: an id, several, or None"""

    @classmethod
    def read(cls, folder: Path) -> Files:
        """The files of a folder. InputError where one is torn."""
        contents = {name: (folder / name).read_bytes() for name in KEPT if (folder / name).is_file()}
        for name in (CONFIG, SPECIAL):
            parsed(contents.get(name), folder / name)
        try:
            contents.get(TEMPLATE, b"").decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8 at byte {error.start}", folder / TEMPLATE) from None
        generation, model = (
            parsed((folder / name).read_bytes() if (folder / name).is_file() else None, folder / name)
            for name in (GENERATION, MODEL_CONFIG)
        )
        return cls(contents, generation, model.get("eos_token_id"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """tokenizer_config.json."""
        return parsed(self.contents.get(CONFIG), Path(CONFIG))

    @cached_property
    def special(self) -> dict[str, Any]:
        """special_tokens_map.json."""
        return parsed(self.contents.get(SPECIAL), Path(SPECIAL))

    @property
    def names(self) -> dict[str, str | None]:
        """Special tokens by the name that templates call them, as bos_token; None where the folder has it as null."""
        stated = {**self.special, **self.config}
        tokens = {name: value for name, value in stated.items() if name.endswith("_token")}
        contents = {name: value.get("content") if isinstance(value, dict) else value for name, value in tokens.items()}
        return {name: value for name, value in contents.items() if value is None or isinstance(value, str)}

    @property
    def chat_template(self) -> str | None:
        """The template itself, or of several the one called default."""
        if TEMPLATE in self.contents:
            return self.contents[TEMPLATE].decode("utf-8-sig")
        template = self.config.get("chat_template")
        if isinstance(template, list):
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        return template

    @property
    def stops(self) -> list[int]:
        """The ids that end an answer, as far as the folder lists them."""
        listed = self.generation.get("eos_token_id") if self.generation else self.model_eos
        return [i for i in (listed if isinstance(listed, list) else [listed]) if isinstance(i, int)]

    def stating(self, names: Mapping[str, str], chat_template: str | None) -> Files:
        """The files of the same tokenizer with these names and this template."""
        config = dict(self.config)
        if "tokenizer_class" not in config:
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | config
        states = {name: text for name, text in names.items() if self.names.get(name) != text}
        if chat_template is not None and chat_template != self.chat_template:
            config["chat_template"] = chat_template
        contents = dict(self.contents)
        contents[CONFIG] = as_json(config | states)
        if SPECIAL in contents or not self.contents:
            contents[SPECIAL] = as_json(self.special | states)
        return replace(self, contents=contents)

    def without_vocabulary(self) -> Files:
        """The files of a tokenizer that has got more tokens: the list of its tokens is to be written anew."""
        return replace(
            self, contents={name: self.contents[name] for name in self.contents if name not in (TOKENIZER, ADDED)}
        )


def parsed(content: bytes | None, file: Path) -> dict[str, Any]:
    """A file's JSON object; an empty one where there is no file."""
    if content is None:
        return {}
    try:
        value = json.loads(content)
    except ValueError as error:
        raise InputError(f"not JSON: {error}", file) from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", file)
    return value


def as_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
