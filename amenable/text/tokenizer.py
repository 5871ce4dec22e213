"""Byte-level BPE: text to ids and back, with control tokens that no text can produce.

Sennrich et al. (2016, section 3.2) on bytes (Radford et al., 2019, section 2.2), so that any text goes in and comes out
unchanged. Published tokenizers (GPT-2, Llama 3, Qwen: `tokenizer.json`) are read too, and what is saved is opened by
transformers.
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
from amenable.text.folder import TOKENIZER, Files
from amenable.text.spec import After, control_tokens, following, for_contents, turn_tokens
from amenable.text.template import CHAT_TEMPLATE, Slot, outline

PAD, BOS, EOS, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"
CONTROL = (PAD, BOS, EOS, SYSTEM, USER, ASSISTANT)
SMALLEST = 256 + len(CONTROL)

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""merges stay inside these pieces: a word with the space before it, one digit, a run of signs (the split of Qwen 2)"""

LONGEST = 1000
"""characters of a piece that merges are learned inside: the library's time grows with the square of a piece"""
UNBROKEN = re.compile(rf"(?<!\S)\S{{{LONGEST},}}|(?<!\s)\s{{{LONGEST},}}")

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", EOS)
"""names of an end token where a published folder does not say which it is"""


class Tokenizer:
    """Text to ids and back. It does not change: what would change it makes another one.

    bos, eos and pad are those of its folder: eos ends a document. end_of_turn ends what an assistant says, as its chat
    template writes it; without a template, or with one that writes none, it is the eos. Generation stops at stop_ids.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        bos: str | None,
        eos: str,
        pad: str | None,
        chat_template: str | None = None,
        files: Files | None = None,
    ):
        """A `tokenizers` BPE, the names of its bos, eos and pad (added at the end if missing), its chat template.

        files: those of the folder it comes from. They are written back as they are, if nothing is added.
        """
        if pad == eos and files is None:
            raise InputError(f"pad and eos are both {eos}", how="padding would hide where an answer ends")
        backend.no_padding()
        backend.no_truncation()
        named = [name for name in (pad, bos, eos) if name is not None]
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        missing = [name for name in named if name not in known]
        if missing:
            backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in missing])
        own = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
        files = files or Files()
        self.bos, self.eos, self.pad, self.chat_template = bos, eos, pad, chat_template
        self.names = {name: text for name, text in {**files.names, **own}.items() if text is not None}
        """the special tokens that templates may call by name"""
        whole = TOKENIZER in files.contents and not missing
        self._files = files if whole else files.stating(self.names, chat_template).without_vocabulary()
        self._backend = backend
        spec = json.loads(backend.to_str())
        ids = {token["content"]: int(token["id"]) for token in spec["added_tokens"]}
        end, self._marks = (None, set[str]()) if chat_template is None else _turns(chat_template, self.names, list(ids))
        self.end_of_turn = end or eos
        padding = set[str]() if pad is None or pad == spec["model"].get("unk_token") else {pad}
        self._control = control_tokens(spec, {bos, eos, self.end_of_turn} | self._marks | padding)
        self._strips = {token["id"]: (token["lstrip"], token["rstrip"]) for token in self._control.values()}
        self._prefixing = {part: spec[part] for part in ("normalizer", "pre_tokenizer")}
        self._contents: dict[After, Backend] = {
            "nothing": Backend.from_str(json.dumps(for_contents(spec, self._control)))
        }
        self.bos_id, self.pad_id = (None if name is None else ids[name] for name in (bos, pad))
        self.eos_id, self.end_of_turn_id = ids[eos], ids[self.end_of_turn]
        self.stop_ids = tuple(dict.fromkeys([self.end_of_turn_id, *files.stops, self.eos_id]))
        self.control_ids = frozenset(token["id"] for token in self._control.values())
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, chat: bool = False) -> Tokenizer:
        """Learn merges from texts until there are `vocab_size` tokens (fewer if the texts have no more to merge).

        A word of more than LONGEST characters counts as several. The control tokens have the ids 0 to 5, then come
        the 256 bytes, then the merges.
        """
        if vocab_size < SMALLEST:
            how = f"256 bytes and {len(CONTROL)} control tokens need {SMALLEST} or more"
            raise InputError(f"a vocabulary of {vocab_size}", how=how)
        backend = Backend(models.BPE())
        words = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(CONTROL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        parts = (part for text in texts for part in _divided(_valid(text), words))
        backend.train_from_iterator(parts, trainer)
        # others who encode plain text with the saved files begin it as the model was trained
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
        )
        return cls(backend, bos=BOS, eos=EOS, pad=PAD, chat_template=CHAT_TEMPLATE if chat else None)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read a folder in the published format: tokenizer.json, and tokenizer_config.json where there is one.

        A bos, eos or pad that the folder names and its vocabulary lacks is added at the end. Nothing else is: a folder
        without a bos or a pad has none, and a pad may be its eos.
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
        files = Files.read(folder)
        names, known = files.names, backend.get_vocab(with_added_tokens=True)
        eos = names.get("eos_token") or next((name for name in ENDS if name in known), EOS)
        bos, pad = names.get("bos_token") or None, names.get("pad_token") or None
        if "bos_token" not in names:
            # GPT-2's folder names neither: there one token both ends a document and begins the next
            bos = eos if eos == "<|endoftext|>" else BOS if BOS in known else None
        return cls(backend, bos=bos, eos=eos, pad=pad, chat_template=files.chat_template, files=files)

    def save(self, folder: str | Path) -> None:
        """Write the files that transformers reads: those of the folder it was loaded from as they were."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.contents.items():
            (folder / name).write_bytes(content)
        if TOKENIZER not in self._files.contents:
            (folder / TOKENIZER).write_text(self._backend.to_str(pretty=True), encoding="utf-8")

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """generation_config.json, which tells others where to stop: the folder's own, with the end of a turn."""
        own = dict(self._files.generation)
        if not own:
            own = {"bos_token_id": self.bos_id, "eos_token_id": None, "pad_token_id": self.pad_id}
        if self.end_of_turn_id not in self._files.stops or not self._files.generation:
            own["eos_token_id"] = self.stop_ids[0] if len(self.stop_ids) == 1 else list(self.stop_ids)
        return own

    @cached_property
    def opening_ids(self) -> list[int]:
        """What plain text begins with: bos, or nothing where its folder writes none, as transformers does.

        A token that both ends a document and begins the next (GPT-2) begins the first one too.
        """
        written = self._files.config.get("add_bos_token")
        if self.bos_id is None or written is False:
            return []
        written = written or self.bos_id == self.eos_id or self._backend.encode("").ids[:1] == [self.bos_id]
        return [self.bos_id] if written else []

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides which ids a text becomes: vocabulary, merges, splitting, control tokens."""
        spec = for_contents(json.loads(self._backend.to_str()), self._control)
        parts = {name: spec[name] for name in ("model", "normalizer", "pre_tokenizer")}
        parts["control"] = {name: token["id"] for name, token in self._control.items()}
        if spec["added_tokens"]:
            parts["added"] = spec["added_tokens"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def with_chat_template(self) -> Tokenizer:
        """This tokenizer with our chat template and its role tokens (and a pad, if it has none that is no end); itself
        if it has a template already."""
        if self.chat_template is not None:
            return self
        backend = Backend.from_str(self._backend.to_str())
        pad = PAD if self.pad in (None, self.eos) else self.pad
        new = [AddedToken(name, special=True, normalized=False) for name in (pad, SYSTEM, USER, ASSISTANT)]
        backend.add_special_tokens([token for token in new if backend.token_to_id(token.content) is None])
        names = {**self.names, "pad_token": pad}
        files = self._files.stating(names, CHAT_TEMPLATE).without_vocabulary()
        return Tokenizer(backend, bos=self.bos, eos=self.eos, pad=pad, chat_template=CHAT_TEMPLATE, files=files)

    def with_padding(self) -> Tokenizer:
        """This tokenizer with a pad that no conversation ends with, chosen among the tokens it has; itself if it has
        one. transformers reads a reward at the last token that is not padding."""
        if self.pad_id not in (None, self.end_of_turn_id):
            return self
        unused = [name for name in self._control if name not in (*self._marks, self.bos, self.eos, self.end_of_turn)]
        likely = [PAD, self.names.get("unk_token"), *sorted(unused, key=lambda name: "pad" not in name), self.bos]
        known = {token.content for token in self._backend.get_added_tokens_decoder().values()} - {self.end_of_turn}
        pad = next((name for name in likely if name in known), None)
        files = self._files if pad is None else self._files.stating({"pad_token": pad}, self.chat_template)
        return Tokenizer(
            Backend.from_str(self._backend.to_str()),
            bos=self.bos,
            eos=self.eos,
            pad=pad,
            chat_template=self.chat_template,
            files=files,
        )

    def encode(self, text: str, after: After = "nothing") -> list[int]:
        """Ids of a content that stands after nothing, a control token, or text. No control id is among them."""
        return self._encoder(after).encode(_valid(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, in parallel."""
        encodings = self._encoder("nothing").encode_batch_fast([_valid(t) for t in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_with_starts(self, text: str, after: After = "nothing") -> tuple[list[int], list[int]]:
        """`encode`, and for each token the place of its first character in the text."""
        encoding = self._encoder(after).encode(_valid(text), add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def encode_control(self, text: str) -> list[int]:
        """Ids of a template's text, in which control tokens are recognised. Never for what a person wrote."""
        return self._backend.encode(_valid(text), add_special_tokens=False).ids

    def strips(self, token: int) -> tuple[bool, bool]:
        """Whether a control token takes the white space before it, and after it."""
        return self._strips.get(token, (False, False))

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
        shown = list(ids) if keep_control else [i for i in ids if i not in self.control_ids]
        return self._backend.decode(shown, skip_special_tokens=not keep_control)

    def _encoder(self, after: After) -> Backend:
        """The tokenizer of contents in one place; mostly the same in all."""
        if after not in self._contents:
            there, plain = following(self._prefixing, after), self._contents["nothing"]
            same = there == self._prefixing
            self._contents[after] = plain if same else Backend.from_str(json.dumps(json.loads(plain.to_str()) | there))
        return self._contents[after]

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


def _divided(text: str, words: pre_tokenizers.PreTokenizer) -> Iterator[str]:
    """A text in parts, cut inside its words of more than LONGEST characters and nowhere else."""
    begin = 0
    for unbroken in UNBROKEN.finditer(text):
        for _, (start, end) in words.pre_tokenize_str(unbroken[0]):
            for cut in range(start + LONGEST, end, LONGEST):
                yield text[begin : unbroken.start() + cut]
                begin = unbroken.start() + cut
    yield text[begin:]


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"character {error.start}"
        raise InputError("half of a surrogate pair is no text", where, "repair or drop the row") from None
    return text


def _turns(template: str, names: Mapping[str, str], added: Sequence[str]) -> tuple[str | None, set[str]]:
    """The token that the template puts after an assistant's words, and the tokens with which it marks turns."""
    end, texts = None, list[str]()
    known = sorted(filter(str.strip, added), key=len, reverse=True)
    for roles in (("user", "assistant"), ("system", "user"), ("user", "assistant", "user")):
        try:
            pieces = outline(template, roles, names, add_generation_prompt=roles[-1] == "user")
        except InputError:  # told when a conversation is rendered; as a base model the folder is of use without it
            continue
        texts += [piece for piece in pieces if isinstance(piece, str)]
        if roles[-1] == "assistant" and not isinstance(pieces[-1], Slot):
            places = [(pieces[-1].index(name), place) for place, name in enumerate(known) if name in pieces[-1]]
            end = known[min(places)[1]] if places else None
    return end, turn_tokens(texts, added)
