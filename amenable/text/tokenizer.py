"""Byte-level BPE tokenizer: text to ids and back, with special tokens that no text can spell.

Sennrich et al. (2016, section 3.2) on bytes (Radford et al., 2019, section 2.2), so that any text survives encoding and
decoding. Published tokenizers (GPT-2, Llama 3, Qwen: `tokenizer.json`) are read too, and transformers opens the files
that are saved.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from amenable.errors import InputError
from amenable.model_folder import base_folder
from amenable.text.folder import TOKENIZER, TokenizerFiles
from amenable.text.spec import After, continuation_spec, special_tokens, turn_tokens, without_special_tokens
from amenable.text.template import CHAT_TEMPLATE, Slot, template_with_slots

PAD, BOS, EOS, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, BOS, EOS, SYSTEM, USER, ASSISTANT)
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""merges stay inside these pieces: a word with the space before it, one digit, a run of signs (the split of Qwen 2)"""

MAX_PIECE = 1000
"""maximal characters of a piece in which merges are learned: the library's time grows with the square of a piece"""
LONG_RUN = re.compile(rf"(?<!\S)\S{{{MAX_PIECE},}}|(?<!\s)\s{{{MAX_PIECE},}}")

EOS_CANDIDATES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", EOS)
"""eos tokens to try where a published folder does not name its eos"""


class Tokenizer:
    """Immutable BPE tokenizer: text to ids and back.

    bos, eos and pad are those of the model folder; eos ends a document. end_of_turn is the token that the chat template
    writes after the assistant's words, or eos where there is none. Generation stops at stop_ids. special_ids are those
    of the special tokens: tokens that only a template may write.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        bos: str | None,
        eos: str,
        pad: str | None,
        chat_template: str | None = None,
        files: TokenizerFiles | None = None,
    ):
        """Wrap a `tokenizers` BPE; bos, eos and pad are added at the end of its vocabulary if missing.

        files: those of the model folder, written back unchanged if no token was added.
        """
        if pad == eos and files is None:
            raise InputError(
                f"pad and eos are both {eos}", how="give another pad: this one hides where completions end"
            )
        backend.no_padding()
        backend.no_truncation()
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        missing = [name for name in (pad, bos, eos) if name is not None and name not in known]
        if missing:
            backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in missing])
        named = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
        files = files or TokenizerFiles()
        self.bos, self.eos, self.pad, self.chat_template = bos, eos, pad, chat_template
        special = {name: text for name, text in {**files.special_tokens_map, **named}.items() if text is not None}
        self.special_tokens_map = special
        """special tokens by their name in templates: bos_token, eos_token ..."""
        if missing or TOKENIZER not in files.contents:
            self._files = files.with_special_tokens(special, chat_template).without_vocabulary()
        else:
            self._files = files
        self._backend = backend
        spec = json.loads(backend.to_str())
        ids = {token["content"]: int(token["id"]) for token in spec["added_tokens"]}
        end, self._turn_tokens = _find_turn_tokens(chat_template, special, list(ids))
        self.end_of_turn = end or eos
        padding = set[str]() if pad is None or pad == spec["model"].get("unk_token") else {pad}
        self._special = special_tokens(spec, {bos, eos, self.end_of_turn} | self._turn_tokens | padding)
        self._strips = {token["id"]: (token["lstrip"], token["rstrip"]) for token in self._special.values()}
        self._prefix_spec = {part: spec[part] for part in ("normalizer", "pre_tokenizer")}
        self._encoders: dict[After, Backend] = {
            "nothing": Backend.from_str(json.dumps(without_special_tokens(spec, self._special)))
        }
        self.bos_id, self.pad_id = (None if name is None else ids[name] for name in (bos, pad))
        self.eos_id, self.end_of_turn_id = ids[eos], ids[self.end_of_turn]
        self.stop_ids = tuple(dict.fromkeys([self.end_of_turn_id, *files.stop_ids, self.eos_id]))
        self.special_ids = frozenset(token["id"] for token in self._special.values())
        self.vocab_size = max(*spec["model"]["vocab"].values(), *ids.values()) + 1

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, chat: bool = False) -> Tokenizer:
        """Learn merges from texts until there are `vocab_size` tokens (fewer if the texts have no more to merge).

        A word of more than MAX_PIECE characters counts as several. Ids 0 to 5 are special tokens, then come the
        256 bytes, then the merges.
        """
        if vocab_size < MIN_VOCAB_SIZE:
            hint = f"give {MIN_VOCAB_SIZE} or more, for 256 bytes and {len(SPECIAL_TOKENS)} special tokens"
            raise InputError(f"vocab_size is {vocab_size}", how=hint)
        backend = Backend(models.BPE())
        words = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        parts = (part for text in texts for part in _split_long_pieces(_require_unicode(text), words))
        backend.train_from_iterator(parts, trainer)
        # transformers begins plain text with bos too, as in training
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
        )
        return cls(backend, bos=BOS, eos=EOS, pad=PAD, chat_template=CHAT_TEMPLATE if chat else None)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read a folder in the published format: tokenizer.json, and tokenizer_config.json where there is one.

        A bos, eos or pad that the folder names and its vocabulary lacks is added at the end, and no other token: a
        folder without a bos or a pad stays without, and its pad may be its eos.
        """
        folder = Path(folder)
        folder = folder if (folder / "tokenizer.json").is_file() else base_folder(folder)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise InputError("no tokenizer.json", folder, "name a model folder, or train one with 'amenable tokenizer'")
        try:
            backend = Backend.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"not a tokenizer: {error}", file) from None
        if not isinstance(backend.model, (models.BPE, models.WordLevel)):
            hint = "only BPE and word-level tokenizers are read"
            raise InputError(f"a {type(backend.model).__name__} tokenizer", file, hint)
        files = TokenizerFiles.read(folder)
        names = files.special_tokens_map
        known = {name for name in (*EOS_CANDIDATES, BOS) if backend.token_to_id(name) is not None}
        eos = names.get("eos_token") or next((name for name in EOS_CANDIDATES if name in known), EOS)
        bos, pad = names.get("bos_token") or None, names.get("pad_token") or None
        if "bos_token" not in names:
            # GPT-2's folder names neither bos nor eos: one token both ends a document and begins the next
            bos = eos if eos == "<|endoftext|>" else BOS if BOS in known else None
        return cls(backend, bos=bos, eos=eos, pad=pad, chat_template=files.chat_template, files=files)

    def save(self, folder: str | Path) -> None:
        """Write the files that transformers reads; those of the folder it was loaded from stay unchanged."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.contents.items():
            (folder / name).write_bytes(content)
        if TOKENIZER not in self._files.contents:
            (folder / TOKENIZER).write_text(self._backend.to_str(pretty=True), encoding="utf-8")

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """Return generation_config.json: the folder's own, with the end of a turn among the ids of `eos_token_id`."""
        config = dict(self._files.generation)
        if not config:
            config = {"bos_token_id": self.bos_id, "eos_token_id": None, "pad_token_id": self.pad_id}
        if self.end_of_turn_id not in self._files.stop_ids or not self._files.generation:
            config["eos_token_id"] = self.stop_ids[0] if len(self.stop_ids) == 1 else list(self.stop_ids)
        return config

    @property
    def spec(self) -> dict[str, Any]:
        """Return tokenizer.json, parsed."""
        return json.loads(self._backend.to_str())

    @cached_property
    def added_ids(self) -> list[int]:
        """Return the ids that transformers puts before a text of the same folder: [bos], or [] where it adds none."""
        add_bos = self._files.config.get("add_bos_token")
        if self.bos_id is None or add_bos is False:
            return []
        return [self.bos_id] if add_bos or self._backend.encode("").ids[:1] == [self.bos_id] else []

    @cached_property
    def opening_ids(self) -> list[int]:
        """Return the ids before plain text: [bos], or [] where transformers adds no bos for the same folder.

        A token that both ends a document and begins the next (GPT-2) begins the first document too.
        """
        if self.bos_id is None or self.bos_id != self.eos_id or self._files.config.get("add_bos_token") is False:
            return self.added_ids
        return [self.bos_id]

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of everything that decides the ids of a text: vocabulary, merges, splitting, special tokens."""
        spec = without_special_tokens(json.loads(self._backend.to_str()), self._special)
        parts = {name: spec[name] for name in ("model", "normalizer", "pre_tokenizer")}
        parts["control"] = {name: token["id"] for name, token in self._special.items()}
        if spec["added_tokens"]:
            parts["added"] = spec["added_tokens"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def with_chat_template(self) -> Tokenizer:
        """Return a tokenizer with our chat template, role tokens and a pad other than eos; self if it has one."""
        if self.chat_template is not None:
            return self
        return self.with_tokens((SYSTEM, USER, ASSISTANT), CHAT_TEMPLATE)

    def with_tokens(self, names: Sequence[str], chat_template: str | None = None) -> Tokenizer:
        """Return a tokenizer with further special tokens and a pad other than eos, as far as they are missing, at the
        end of its vocabulary, and with another chat template if one is given."""
        backend = Backend.from_str(self._backend.to_str())
        pad = PAD if self.pad in (None, self.eos) else self.pad
        new = [AddedToken(name, special=True, normalized=False) for name in (pad, *names)]
        backend.add_special_tokens([token for token in new if backend.token_to_id(token.content) is None])
        template = chat_template or self.chat_template
        files = self._files.with_special_tokens({**self.special_tokens_map, "pad_token": pad}, template)
        files = files.without_vocabulary()
        return Tokenizer(backend, bos=self.bos, eos=self.eos, pad=pad, chat_template=template, files=files)

    def with_padding(self) -> Tokenizer:
        """Return a tokenizer whose pad, chosen among its tokens, ends no conversation; self if its pad is such already.

        transformers reads a reward at the last token that is not padding.
        """
        if self.pad_id not in (None, self.end_of_turn_id):
            return self
        used = (*self._turn_tokens, self.bos, self.eos, self.end_of_turn)
        unused = sorted((name for name in self._special if name not in used), key=lambda name: "pad" not in name)
        likely = [PAD, self.special_tokens_map.get("unk_token"), *unused, self.bos]
        known = {token.content for token in self._backend.get_added_tokens_decoder().values()} - {self.end_of_turn}
        pad = next((name for name in likely if name in known), None)
        files = self._files if pad is None else self._files.with_special_tokens({"pad_token": pad}, self.chat_template)
        backend = Backend.from_str(self._backend.to_str())
        return Tokenizer(backend, bos=self.bos, eos=self.eos, pad=pad, chat_template=self.chat_template, files=files)

    @property
    def content_backend(self) -> Backend:
        """The library's tokenizer of contents that come after nothing, without special tokens."""
        return self._encoders["nothing"]

    def encode(self, text: str, after: After = "nothing") -> list[int]:
        """Return the ids of a content that comes after nothing, a special token or text; none of them is special."""
        return self._encoder(after).encode(_require_unicode(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of many texts (see `encode`), computed in parallel."""
        texts = [_require_unicode(text) for text in texts]
        encodings = self._encoder("nothing").encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_with_starts(self, text: str, after: After = "nothing") -> tuple[list[int], list[int]]:
        """Return the ids of a content, and for each token the index of its first character in the text."""
        encoding = self._encoder(after).encode(_require_unicode(text), add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def encode_with_special_tokens(self, text: str) -> list[int]:
        """Return the ids of a template's text, in which special tokens are recognised. Never for contents."""
        return self._backend.encode(_require_unicode(text), add_special_tokens=False).ids

    def strips_whitespace(self, token: int) -> tuple[bool, bool]:
        """Return (left, right): True if a special token takes the white space on that side."""
        return self._strips.get(token, (False, False))

    def split_special_tokens(self, text: str) -> list[int | str]:
        """Split a template's text into special ids and the plain text between them."""
        pieces: list[int | str] = []
        strip_next = False
        for part in self._special_pattern.split(text):
            token = self._special.get(part)
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

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of ids, without special tokens by default. Bytes that are no UTF-8 become U+FFFD."""
        ids = [i for i in ids if not skip_special_tokens or i not in self.special_ids]
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def _encoder(self, after: After) -> Backend:
        """Return the backend that encodes contents after `after`; for most tokenizers it is always the same."""
        if after not in self._encoders:
            parts, plain = continuation_spec(self._prefix_spec, after), self._encoders["nothing"]
            same = parts == self._prefix_spec
            self._encoders[after] = plain if same else Backend.from_str(json.dumps(json.loads(plain.to_str()) | parts))
        return self._encoders[after]

    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes that a token adds to a text (maybe part of a character); b"" for a special token."""
        piece = self._backend.id_to_token(token)
        if piece is None or not self.decode([token]):
            return b""
        if self._is_byte_level:
            known = all(character in BYTE_OF_CHARACTER for character in piece)
            return bytes(BYTE_OF_CHARACTER[character] for character in piece) if known else piece.encode()
        fallback = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
        # decoded after another token: the first token of a text may lose its leading space
        after = self.decode([token, token])[len(self.decode([token])) :]
        return bytes.fromhex(fallback[1]) if fallback else after.encode()

    @cached_property
    def _is_byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self._backend.to_str())["decoder"])

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._special, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


def _byte_level_alphabet() -> dict[str, int]:
    """Return the byte of each character of a byte-level vocabulary (the inverse of GPT-2's bytes_to_unicode)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + index): byte for index, byte in enumerate(hidden)}


BYTE_OF_CHARACTER = _byte_level_alphabet()


def _split_long_pieces(text: str, words: pre_tokenizers.PreTokenizer) -> Iterator[str]:
    """Yield a text in parts, cut only inside words of more than MAX_PIECE characters."""
    begin = 0
    for run in LONG_RUN.finditer(text):
        for _, (start, end) in words.pre_tokenize_str(run[0]):
            for cut in range(start + MAX_PIECE, end, MAX_PIECE):
                yield text[begin : run.start() + cut]
                begin = run.start() + cut
    yield text[begin:]


def _require_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"character {error.start}"
        raise InputError("half of a surrogate pair is no text", where, "repair or drop the row") from None
    return text


def _find_turn_tokens(
    template: str | None, special: Mapping[str, str], added: Sequence[str]
) -> tuple[str | None, set[str]]:
    """Return the token that a template puts after the assistant's words (or None), and the tokens that mark turns."""
    if template is None:
        return None, set()
    end, texts = None, list[str]()
    known = sorted(filter(str.strip, added), key=len, reverse=True)
    for roles in (("user", "assistant"), ("system", "user"), ("user", "assistant", "user")):
        try:
            pieces = template_with_slots(template, roles, special, add_generation_prompt=roles[-1] == "user")
        except InputError:  # raised again when a conversation is rendered; as a base model the folder needs no template
            continue
        texts += [piece for piece in pieces if isinstance(piece, str)]
        if roles[-1] == "assistant" and not isinstance(pieces[-1], Slot):
            ends = [(pieces[-1].index(name), rank) for rank, name in enumerate(known) if name in pieces[-1]]
            end = known[min(ends)[1]] if ends else None
    return end, turn_tokens(texts, added)
