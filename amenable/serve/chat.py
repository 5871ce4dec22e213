"""Talk to a model in the terminal, or to two side by side.

Answers stream as they are drawn; the conversation goes on over several turns, and its oldest turns are dropped (and
that is said) when they no longer fit the model's context. With its input or output piped it reads a message a line and
prints nothing but the answers; everything else goes to stderr.

A model without a chat template (pretrained only) continues a plain transcript, up to where the next speaker begins.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.generation.engine import Stream
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.models.pretrained import load_decoder
from amenable.seeds import mix
from amenable.text.chat import PLAIN_STOP, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.runtime import Device, DeviceOptions, Runtime, start_runtime

COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HELP = """\
/reset            forget the conversation
/system TEXT      set the system message; without TEXT, remove it
/temperature X    0 is greedy, 1 the model's own distribution
/help             this list
/quit             leave (or Ctrl-D)
Ctrl-C stops an answer; what it said so far stays in the conversation."""


@dataclass(frozen=True)
class Config:
    """Whom to talk to, and how it draws its answers."""

    model: Path = Path("runs/sft")
    """folder of a model: a run directory or a published checkpoint"""
    compare: Path | None = None
    """a second model that answers beside the first"""
    system: str | None = None
    """system message"""
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    """the longest answer, in tokens"""
    seed: int = 0
    """the same seed and messages give the same answers"""
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        self.sampling  # noqa: B018 - refuses impossible settings before a model is loaded

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            max_new_tokens=self.max_new_tokens,
        )


def run(config: Config) -> None:
    """Talk until the input ends."""
    runtime = start_runtime(config.device)
    folders = [config.model] if config.compare is None else [config.model, config.compare]
    speakers = [Speaker.ready(folder, runtime) for folder in folders]
    chat = Chat(speakers, config.sampling, config.system, config.seed)
    view: View = Terminal(speakers) if sys.stdin.isatty() and sys.stdout.isatty() else Pipe()
    with runtime.autocast():
        converse(chat, view)


def converse(chat: Chat, view: View) -> None:
    """Read, do, answer, until there is nothing to read. A mistake is told and the session goes on."""
    for line in view.lines():
        command = COMMAND.fullmatch(line)
        try:
            if command is None:
                chat.ask(line, view)
            elif command[1] in ("quit", "exit"):
                return
            else:
                view.note(chat.do(command[1], (command[2] or "").strip()))
        except InputError as error:
            view.note(str(error))


@dataclass
class Speaker:
    """A model, and its side of the conversation (system message apart)."""

    name: str
    decoder: Decoder
    tokenizer: Tokenizer
    turns: list[Message] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Speaker:
        if not folder.is_dir():
            raise InputError("no such folder", folder, "train a model with 'amenable sft', or give --model")
        decoder, tokenizer = load_decoder(folder, device), Tokenizer.load(folder)
        # a tokenizer may have been given special tokens that its model never saw; words it must all know
        words = tokenizer.vocab_size - len(tokenizer.special_ids)
        if words > decoder.config.vocab_size:
            counts = f"{words} tokens, and the model knows {decoder.config.vocab_size}"
            raise InputError(f"tokenizer and model do not belong together: it has {counts}", folder)
        decoder.num_tokens = min(tokenizer.vocab_size, decoder.config.vocab_size)
        return cls(str(folder), decoder, tokenizer)

    @classmethod
    def ready(cls, folder: Path, runtime: Runtime) -> Speaker:
        """A model that answers under the machine's autocast, in the precision of its products."""
        speaker = cls.load(folder, runtime.device)
        speaker.decoder = runtime.to_inference(speaker.decoder)
        return speaker

    @property
    def is_plain(self) -> bool:
        """Whether it continues a transcript, having no chat template."""
        return self.tokenizer.chat_template is None

    def fit(
        self, system: list[Message], message: Message, max_new_tokens: int, prefix: Sequence[int] = ()
    ) -> tuple[list[int], int]:
        """The prompt's ids with those of a prefix of its answer, and how many messages were dropped to leave room."""
        context = self.decoder.config.context_length
        room = min(max_new_tokens, context // 2)
        dropped = 0
        while True:
            ids = [*render_prompt(self.tokenizer, (*system, *self.turns[dropped:], message)), *prefix]
            if max(ids) >= self.decoder.num_tokens:
                raise InputError(f"token {max(ids)} of the message is unknown to the model", self.name)
            if len(ids) + room <= context:
                return ids, dropped
            if dropped >= len(self.turns):
                break
            dropped += 2
        if len(ids) < context:
            return ids, dropped
        size = f"{len(ids)} tokens with what belongs to it, and {self.name} reads {context}"
        raise InputError(f"the message is too long: {size}", how="shorten it")

    def stream(self, ids: list[int], sampling: Sampling, seed: int) -> Stream:
        return Stream(
            self.decoder,
            ids,
            sampling,
            eos_id=self.tokenizer.stop_ids,
            decode=self.tokenizer.decode,
            seed=seed,
            stop=PLAIN_STOP if self.is_plain else (),
        )


class Chat:
    """A conversation with one or more models; each remembers its own answers."""

    def __init__(self, speakers: Sequence[Speaker], sampling: Sampling, system: str | None = None, seed: int = 0):
        self.speakers, self.sampling, self.system, self.seed = list(speakers), sampling, system, seed
        self.asked = 0

    def ask(self, text: str, view: View) -> None:
        """Answer a message and remember both. A message that can't be rendered changes nothing."""
        system = [Message("system", self.system)] if self.system else []
        message = Message("user", text)
        prompts = [speaker.fit(system, message, self.sampling.max_new_tokens) for speaker in self.speakers]
        seed = mix(self.seed, self.asked)
        self.asked += 1
        streams = []
        for speaker, (ids, dropped) in zip(self.speakers, prompts):
            if dropped:
                del speaker.turns[:dropped]
                view.note(f"the context of {speaker.name} is full: its {dropped} oldest messages are dropped")
            streams.append(tidy(speaker.stream(ids, self.sampling, seed)))
        for speaker, answer in zip(self.speakers, view.answer([speaker.name for speaker in self.speakers], streams)):
            if answer.strip():
                speaker.turns += [message, Message("assistant", answer.strip())]
            else:
                view.note(f"{speaker.name} said nothing; the message is not kept")

    def do(self, command: str, argument: str) -> str:
        """Carry out a command and say what was done."""
        if command == "help":
            return HELP
        if command == "reset":
            for speaker in self.speakers:
                speaker.turns.clear()
            return "the conversation is forgotten"
        if command == "system":
            self.system = argument or None
            return "system message set" if argument else "system message removed"
        if command == "temperature":
            self.sampling = replace(self.sampling, temperature=to_number(argument))
            return f"temperature {self.sampling.temperature:g}"
        raise InputError(f"there is no command /{command}", how="/help lists them")


def to_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"'{text}' is not a number", how="as in /temperature 0.7") from None


def tidy(pieces: Iterator[str] | Stream) -> Iterator[str]:
    """Pieces of an answer without the space before it and without control characters, which a terminal would obey."""
    begun = False
    for piece in pieces:
        piece = UNPRINTABLE.sub("", piece)
        if not begun:
            piece = piece.lstrip()
        if piece:
            begun = True
            yield piece


class View(Protocol):
    """Where messages come from and answers go."""

    def lines(self) -> Iterator[str]:
        """Messages and commands, stripped and not empty."""
        ...

    def note(self, text: str) -> None:
        """Tell something that is no answer."""
        ...

    def answer(self, names: Sequence[str], streams: Sequence[Iterator[str]]) -> list[str]:
        """Show answers while they come, and return them."""
        ...


class Pipe:
    """Plain lines: messages from stdin, answers to stdout, the rest to stderr."""

    def lines(self) -> Iterator[str]:
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")
        for line in sys.stdin:
            if line.strip():
                yield line.strip()

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def answer(self, names: Sequence[str], streams: Sequence[Iterator[str]]) -> list[str]:
        answers = []
        for name, stream in zip(names, streams):
            if len(names) > 1:
                print(f"{name}: ", end="")
            pieces = []
            for piece in stream:
                print(piece, end="", flush=True)
                pieces.append(piece)
            print(flush=True)
            answers.append("".join(pieces))
        return answers


class Terminal:
    """A person at a terminal."""

    def __init__(self, speakers: Sequence[Speaker], console: Console | None = None):
        self.console = console or Console(highlight=False)
        for speaker in speakers:
            size = sum(parameter.numel() for parameter in speaker.decoder.parameters()) / 1e6
            manner = ", a base model: it continues a transcript" if speaker.is_plain else ""
            self.note(f"{speaker.name}: {size:.1f}M parameters{manner}")
        self.note("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves")

    def lines(self) -> Iterator[str]:
        while True:
            try:
                line = self.console.input("[bold cyan]you >[/] ")
            except EOFError:
                self.console.print()
                return
            except KeyboardInterrupt:
                self.note("\nCtrl-D or /quit leaves")
                continue
            # a terminal in another encoding hands over halves of characters
            line = line.encode("utf-8", "replace").decode("utf-8").strip()
            if line:
                yield line

    def note(self, text: str) -> None:
        self.console.print(Text(text, style="dim"))

    def answer(self, names: Sequence[str], streams: Sequence[Iterator[str]]) -> list[str]:
        if len(streams) == 1:
            answers = alternate(streams, lambda _, piece: self.console.print(Text(piece), end="", soft_wrap=True))
            self.console.print("\n")
            return answers
        shown = [""] * len(streams)
        with Live(
            columns(names, shown), console=self.console, refresh_per_second=12, vertical_overflow="visible"
        ) as live:

            def show(i: int, piece: str) -> None:
                shown[i] += piece
                live.update(columns(names, shown))

            return alternate(streams, show)


def alternate(streams: Sequence[Iterator[str]], show: Callable[[int, str], None]) -> list[str]:
    """Draw from the streams in turn until all have ended or Ctrl-C; what each of them said."""
    answers = [""] * len(streams)
    running = dict(enumerate(streams))
    try:
        while running:
            for i, stream in list(running.items()):
                piece = next(stream, None)
                if piece is None:
                    del running[i]
                else:
                    answers[i] += piece
                    show(i, piece)
    except KeyboardInterrupt:
        show(next(iter(running)), " ...")
    return answers


def columns(names: Sequence[str], answers: Sequence[str]) -> Table:
    """Answers side by side."""
    table = Table.grid(expand=True)
    for _ in names:
        table.add_column(ratio=1)
    table.add_row(*(Panel(Text(answer), title=Text(name), title_align="left") for name, answer in zip(names, answers)))
    return table
