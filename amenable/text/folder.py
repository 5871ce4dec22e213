"""Tokenizer files of a published model folder. Files that were read are written back byte for byte.

tokenizer.json holds the tokenizer itself; tokenizer_config.json and special_tokens_map.json name its bos, eos and pad;
the chat template is in tokenizer_config.json or chat_template.jinja; generation_config.json (without it, config.json)
lists the ids at which generation stops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.model_folder import base_folder

TOKENIZER, CONFIG, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
ADDED, TEMPLATE = "added_tokens.json", "chat_template.jinja"
GENERATION, MODEL_CONFIG = "generation_config.json", "config.json"
COPIED_FILES = (TOKENIZER, CONFIG, SPECIAL, ADDED, TEMPLATE, "vocab.json", "merges.txt", "tokenizer.model")
"""files that are copied from folder to folder, the last three for programs that do not read tokenizer.json"""


@dataclass(frozen=True)
class TokenizerFiles:
    """Contents of a folder's tokenizer files; empty for a tokenizer that was just trained."""

    contents: Mapping[str, bytes] = field(default_factory=dict)
    """bytes of the COPIED_FILES that exist, by name"""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """generation_config.json, parsed"""
    model_eos: Any = None
    """eos_token_id of config.json: an id, a list of ids, or None"""

    @classmethod
    def read(cls, folder: Path) -> TokenizerFiles:
        """Read the files of a folder; InputError for a file that is no JSON object or not UTF-8."""
        contents = {name: (folder / name).read_bytes() for name in COPIED_FILES if (folder / name).is_file()}
        for name in (CONFIG, SPECIAL):
            parse_json(contents.get(name), folder / name)
        try:
            contents.get(TEMPLATE, b"").decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8 at byte {error.start}", folder / TEMPLATE) from None
        generation, model = (
            parse_json(path.read_bytes() if path.is_file() else None, path)
            for path in (base_folder(folder) / GENERATION, base_folder(folder) / MODEL_CONFIG)
        )
        return cls(contents, generation, model.get("eos_token_id"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return tokenizer_config.json, parsed."""
        return parse_json(self.contents.get(CONFIG), Path(CONFIG))

    @cached_property
    def special(self) -> dict[str, Any]:
        """Return special_tokens_map.json, parsed."""
        return parse_json(self.contents.get(SPECIAL), Path(SPECIAL))

    @property
    def special_tokens_map(self) -> dict[str, str | None]:
        """Return the special tokens by their name in templates (bos_token ...), None where the folder has null."""
        entries = {**self.special, **self.config}
        tokens = {name: value for name, value in entries.items() if name.endswith("_token")}
        contents = {name: value.get("content") if isinstance(value, dict) else value for name, value in tokens.items()}
        return {name: value for name, value in contents.items() if value is None or isinstance(value, str)}

    @property
    def chat_template(self) -> str | None:
        """Return the folder's chat template, of several the template called default."""
        if TEMPLATE in self.contents:
            return self.contents[TEMPLATE].decode("utf-8-sig")
        template = self.config.get("chat_template")
        if isinstance(template, list):
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        return template

    @property
    def stop_ids(self) -> list[int]:
        """Return the ids at which generation stops, as far as the folder lists them."""
        listed = self.generation.get("eos_token_id") if self.generation else self.model_eos
        return [i for i in (listed if isinstance(listed, list) else [listed]) if isinstance(i, int)]

    def with_special_tokens(self, tokens: Mapping[str, str], chat_template: str | None) -> TokenizerFiles:
        """Return the files with these special tokens (by name, as bos_token) and this chat template."""
        config = dict(self.config)
        if "tokenizer_class" not in config:
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | config
        changes = {name: text for name, text in tokens.items() if self.special_tokens_map.get(name) != text}
        if chat_template is not None and chat_template != self.chat_template:
            config["chat_template"] = chat_template
        contents = dict(self.contents)
        contents[CONFIG] = to_json(config | changes)
        if SPECIAL in contents or not self.contents:
            contents[SPECIAL] = to_json(self.special | changes)
        return replace(self, contents=contents)

    def without_vocabulary(self) -> TokenizerFiles:
        """Return the files without those that list the tokens, which are written anew for a grown vocabulary."""
        return replace(
            self, contents={name: self.contents[name] for name in self.contents if name not in (TOKENIZER, ADDED)}
        )


def parse_json(content: bytes | None, file: Path) -> dict[str, Any]:
    """Parse a file's JSON object; None, a missing file, gives an empty object."""
    if content is None:
        return {}
    try:
        value = json.loads(content)
    except ValueError as error:
        raise InputError(f"not JSON: {error}", file) from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", file)
    return value


def to_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
