"""Byte-level BPE: text to ids and back, with control tokens that no text can produce.

Sennrich et al. (2016, section 3.2) on bytes (Radford et al., 2019, section 2.2), so that any text goes in and comes out
unchanged. Published tokenizers (GPT-2, Llama 3, Qwen: `tokenizer.json`) are read too, and what is saved is opened by
transformers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from amenable.errors import InputError
from amenable.text.template import CHAT_TEMPLATE, Slot, outline

PAD, BOS, EOS, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"
CONTROL = (PAD, BOS, EOS, SYSTEM, USER, ASSISTANT)
SMALLEST = 256 + len(CONTROL)

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""merges stay inside these pieces: a word with the space before it, one digit, a run of signs (the split of Qwen 2)"""

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", EOS)
"""names of an end token where a published folder does not say which it is"""


class Tokenizer:
    """Text to ids and back. It does not change: what would change it makes another one."""

    def __init__(self, backend: Backend, *, bos: str, eos: str, pad: str, chat_template: str | None = None):
        """A `tokenizers` BPE, the names of its bos, eos and pad (added at the end if missing), its chat template."""
        backend.no_padding()
        backend.no_truncation()
        if pad == eos:
            raise InputError(f"pad and eos are both {eos}", how="padding would hide where an answer ends")
        backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (pad, bos, eos)])
        spec = json.loads(backend.to_str())
        self._backend = backend
        self._content = Backend.from_str(json.dumps(_without_control(spec)))
        self._control = {token["content"]: token for token in _control_tokens(spec)}
        self.bos, self.eos, self.pad, self.chat_template = bos, eos, pad, chat_template
        self.bos_id, self.eos_id, self.pad_id = (self._control[name]["id"] for name in (bos, eos, pad))
        self.control_ids = frozenset(token["id"] for token in self._control.values())
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, chat: bool = False) -> Tokenizer:
        """Learn merges from texts until there are `vocab_size` tokens (fewer if the texts have no more to merge).

        The control tokens have the ids 0 to 5, then come the 256 bytes, then the merges.
        """
        if vocab_size < SMALLEST:
            how = f"256 bytes and {len(CONTROL)} control tokens need {SMALLEST} or more"
            raise InputError(f"a vocabulary of {vocab_size}", how=how)
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(CONTROL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(map(_valid, texts), trainer)
        # others who encode plain text with the saved files begin it as the model was trained
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
        )
        return cls(backend, bos=BOS, eos=EOS, pad=PAD, chat_template=CHAT_TEMPLATE if chat else None)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read a folder in the published format: tokenizer.json, and tokenizer_config.json where there is one.

        bos, eos or pad that the folder lacks are added at the end of the vocabulary; a pad that is the eos is replaced.
        With a chat template, eos is the token that ends the assistant's turns.
        """
        folder = Path(folder)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise InputError("no tokenizer.json", folder, "name a model folder, or train one with 'amenable tokenizer'")
        try:
            backend = Backend.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"not a tokenizer: {error}", file) from None
        if not isinstance(backend.model, models.BPE):
            raise InputError(f"a {type(backend.model).__name__} tokenizer", file, "only BPE tokenizers are read")
        settings = _settings(folder)
        known = backend.get_vocab(with_added_tokens=True)
        eos = settings.get("eos_token") or next((name for name in ENDS if name in known), EOS)
        # GPT-2's folder names neither: there one token both ends a document and begins the next
        unstated = eos if "bos_token" not in settings and eos == "<|endoftext|>" else BOS
        bos = settings.get("bos_token") or unstated
        template = settings.get("chat_template")
        if template is not None:
            eos = _turn_end(template, {"bos_token": bos, "eos_token": eos}, backend) or eos
        pad = settings.get("pad_token") or PAD
        return cls(backend, bos=bos, eos=eos, pad=PAD if pad == eos else pad, chat_template=template)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json, as transformers reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = self.names
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **names,
            "clean_up_tokenization_spaces": False,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        (folder / "tokenizer.json").write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        _write_json(folder / "tokenizer_config.json", config)
        _write_json(folder / "special_tokens_map.json", names)

    @property
    def names(self) -> dict[str, str]:
        """The control tokens that templates may call by name."""
        return {"bos_token": self.bos, "eos_token": self.eos, "pad_token": self.pad}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides which ids a text becomes: vocabulary, merges, splitting, control tokens."""
        spec = _without_control(json.loads(self._backend.to_str()))
        parts = {name: spec[name] for name in ("model", "normalizer", "pre_tokenizer")}
        parts["control"] = {name: token["id"] for name, token in self._control.items()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def with_chat_template(self) -> Tokenizer:
        """This tokenizer with our chat template and its three role tokens; itself if it has a template already."""
        if self.chat_template is not None:
            return self
        backend = Backend.from_str(self._backend.to_str())
        roles = [AddedToken(name, special=True, normalized=False) for name in (SYSTEM, USER, ASSISTANT)]
        backend.add_special_tokens(roles)
        return Tokenizer(backend, bos=self.bos, eos=self.eos, pad=self.pad, chat_template=CHAT_TEMPLATE)

    def encode(self, text: str) -> list[int]:
        """Ids of a content. Whatever the text, no control id is among them."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, in parallel."""
        encodings = self._content.encode_batch_fast([_valid(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """`encode`, and for each token the place of its first character in the text."""
        encoding = self._content.encode(_valid(text), add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def encode_control(self, text: str) -> list[int]:
        """Ids of a template's text, in which control tokens are recognised. Never for what a person wrote."""
        return self._backend.encode(_valid(text), add_special_tokens=False).ids

    def split_control(self, text: str) -> list[int | str]:
        """A template's text as control ids and the plain text between them."""
        pieces: list[int | str] = []
        strip_next = False
        for part in self._control_pattern.split(text):
            token = self._control.get(part)
            if token is None:
                plain = part.lstrip() if strip_next else part
                pieces += [plain] if plain else []
                strip_next = False
                continue
            if token["lstrip"] and pieces and isinstance(pieces[-1], str):
                pieces[-1] = pieces[-1].rstrip()
            pieces.append(token["id"])
            strip_next = token["rstrip"]
        return [piece for piece in pieces if piece != ""]

    def decode(self, ids: Sequence[int], keep_control: bool = False) -> str:
        """The text of ids, without control tokens unless asked for. Bytes that are no UTF-8 become U+FFFD."""
        return self._backend.decode(list(ids), skip_special_tokens=not keep_control)

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that a token adds to a decoded text, perhaps part of a character; b"" for a control token."""
        piece = self._backend.id_to_token(token)
        if piece is None or not self.decode([token]):
            return b""
        if self._is_byte_level:
            known = all(sign in BYTE_OF_SIGN for sign in piece)
            return bytes(BYTE_OF_SIGN[sign] for sign in piece) if known else piece.encode()
        fallback = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
        # after another one: the first token of a text may lose the space before it
        after = self.decode([token, token])[len(self.decode([token])) :]
        return bytes.fromhex(fallback[1]) if fallback else after.encode()

    @cached_property
    def _is_byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self._backend.to_str())["decoder"])

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._control, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


def _signs_of_bytes() -> dict[str, int]:
    """The characters that stand for bytes in a byte-level vocabulary (GPT-2's bytes_to_unicode), each with its byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


BYTE_OF_SIGN = _signs_of_bytes()


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"character {error.start}"
        raise InputError("half of a surrogate pair is no text", where, "repair or drop the row") from None
    return text


def _control_tokens(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The added tokens that only a template may write. Runs of white space and the unknown token are ordinary text."""
    unknown = spec["model"].get("unk_token")
    return [token for token in spec["added_tokens"] if token["content"].strip() and token["content"] != unknown]


def _without_control(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The same BPE for contents: it has no control tokens to recognise, and no merges that lead to one."""
    control = {token["content"] for token in _control_tokens(spec)}
    model = dict(spec["model"])
    model["vocab"] = {piece: i for piece, i in model["vocab"].items() if piece not in control}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    model["merges"] = [list(pair) for pair in merges if not control & {*pair, "".join(pair)}]
    kept = [token for token in spec["added_tokens"] if token["content"] not in control]
    # an added token that the vocabulary lacks would be given the next free id, which may be another one
    model["vocab"] |= {token["content"]: token["id"] for token in kept}
    return {**spec, "model": model, "added_tokens": kept, "post_processor": None}


def _turn_end(template: str, names: Mapping[str, str], backend: Backend) -> str | None:
    """The control token that the template puts after an assistant's words, if there is one."""
    try:
        last = outline(template, ("user", "assistant"), names, add_generation_prompt=False)[-1]
    except InputError:  # said when a conversation is rendered; as a base model the folder is of use without it
        return None
    if isinstance(last, Slot):
        return None
    known = {token.content for token in backend.get_added_tokens_decoder().values()} | set(names.values())
    found = [(last.index(name), -len(name), name) for name in known if name.strip() and name in last]
    return min(found)[2] if found else None


def _settings(folder: Path) -> dict[str, Any]:
    """Names of bos, eos and pad (a null is left as None) and the chat template, as far as the folder tells."""
    stated = {**_read_json(folder / "special_tokens_map.json"), **_read_json(folder / "tokenizer_config.json")}
    settings: dict[str, Any] = {}
    for name in ("bos_token", "eos_token", "pad_token"):
        if name in stated:
            value = stated[name]
            settings[name] = value["content"] if isinstance(value, dict) else value
    template = stated.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    file = folder / "chat_template.jinja"
    settings["chat_template"] = file.read_text(encoding="utf-8") if file.is_file() else template
    return settings


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON: {error}", file) from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", file)
    return value


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
