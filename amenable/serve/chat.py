"""Chat with a model in the terminal, or with two side by side.

Answers stream as they are sampled; with --best-of N the one of N that a reward prefers comes whole. When a conversation
no longer fits the model's context, its oldest turns are dropped, with a note. With input or output piped, every input
line is a message and only the answers are printed; notes go to stderr.

A model without a chat template (pretrained only) continues a plain transcript, up to where the next turn begins. The
prefix and examples of --prefix and --shots stay before the conversation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.evaluation.answering import LoadedModel
from amenable.evaluation.prompting import Prompting, PromptingField, PromptingOptions
from amenable.generation.engine import Stream
from amenable.generation.sampling import Sampling
from amenable.rewards.best_of import BestOf, BestOfOptions, load_best_of
from amenable.seeds import mix
from amenable.serve.conversation import best_answer, fit_prompt, load_models, stream_answer
from amenable.train.runtime import Device, DeviceOptions, start_runtime

COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HELP = """\
/reset            forget the conversation
/system TEXT      set the system message; without TEXT, remove it
/temperature X    0 is greedy, 1 the model's own distribution
/help             this list
/quit             leave (or Ctrl-D)
Ctrl-C stops an answer; its text so far stays in the conversation."""


@dataclass(frozen=True)
class Config(BestOfOptions):
    """The model, and its sampling settings."""

    model: Path = Path("runs/sft")
    """folder of a model: a run directory or a published checkpoint"""
    compare: Path | None = None
    """a second model, for answers side by side"""
    system: str | None = None
    """system message"""
    prompting: PromptingField = field(default_factory=PromptingOptions)
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    """limit of an answer"""
    seed: int = 0
    """the same seed and messages give the same answers"""
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
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
    """Chat until the input ends."""
    prompting, runtime = Prompting.read(config.prompting, config.seed), start_runtime(config.device)
    folders = [config.model] if config.compare is None else [config.model, config.compare]
    models = load_models([(None, folder) for folder in folders], runtime)
    best_of = load_best_of(config, runtime, own_columns=False)
    chat = Chat(models, config.sampling, config.system, config.seed, best_of, prompting)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    frontend: Frontend = TerminalFrontend(models) if is_terminal else PipeFrontend()
    with runtime.autocast():
        repl(chat, frontend)


def repl(chat: Chat, frontend: Frontend) -> None:
    """Read messages and commands, and answer them, until the input ends. An InputError becomes a note."""
    for line in frontend.lines():
        command = COMMAND.fullmatch(line)
        try:
            if command is None:
                chat.send(line, frontend)
            elif command[1] in ("quit", "exit"):
                return
            else:
                frontend.note(chat.run_command(command[1], (command[2] or "").strip()))
        except InputError as error:
            frontend.note(str(error))


class Chat:
    """A conversation with one or more models; each remembers its own answers."""

    def __init__(
        self,
        models: Sequence[LoadedModel],
        sampling: Sampling,
        system: str | None = None,
        seed: int = 0,
        best_of: BestOf | None = None,
        prompting: Prompting | None = None,
    ):
        self.models, self.sampling, self.system, self.seed = list(models), sampling, system, seed
        self.best_of, self.prompting = best_of, prompting or Prompting()
        self.turns: list[list[Message]] = [[] for _ in models]
        """of each model, without the system message"""
        self.num_messages = 0

    def send(self, text: str, frontend: Frontend) -> None:
        """Answer a message and remember both. Raises InputError, without effect, where the prompt does not fit."""
        system = [Message("system", self.system)] if self.system else []
        message, limit = Message("user", text), self.sampling.max_new_tokens
        before = self.prompting.apply((*system, message))[:-1]
        prompts = [fit_prompt(model, before, turns, message, limit) for model, turns in zip(self.models, self.turns)]
        seed = mix(self.seed, self.num_messages)
        self.num_messages += 1
        streams = []
        for model, turns, (ids, dropped) in zip(self.models, self.turns, prompts):
            if dropped:
                del turns[:dropped]
                frontend.note(f"the context of {model.entry.name} is full: its {dropped} oldest messages are dropped")
            if self.best_of is None:
                stream: Iterator[str] | Stream = stream_answer(model, ids, self.sampling, seed)
            else:
                messages = (*system, *turns, message)
                stream = best_answer(self.best_of, model, messages, ids, self.sampling, seed)
            streams.append(strip_control(stream))
        names = [model.entry.name for model in self.models]
        for name, turns, answer in zip(names, self.turns, frontend.answer(names, streams)):
            if answer.strip():
                turns += [message, Message("assistant", answer.strip())]
            else:
                frontend.note(f"{name} said nothing; the message is not kept")

    def run_command(self, command: str, argument: str) -> str:
        """Run a command and return a note on its effect. Raises InputError for an unknown one."""
        if command == "help":
            return HELP
        if command == "reset":
            for turns in self.turns:
                turns.clear()
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


def strip_control(chunks: Iterator[str] | Stream) -> Iterator[str]:
    """Yield an answer's text without leading space and without control characters, which a terminal would obey."""
    has_text = False
    for chunk in chunks:
        chunk = UNPRINTABLE.sub("", chunk)
        if not has_text:
            chunk = chunk.lstrip()
        if chunk:
            has_text = True
            yield chunk


class Frontend(Protocol):
    """Source of messages and display of answers."""

    def lines(self) -> Iterator[str]:
        """Yield messages and commands, stripped and not empty."""
        ...

    def note(self, text: str) -> None:
        """Show a text that is no answer."""
        ...

    def answer(self, names: Sequence[str], streams: Sequence[Iterator[str]]) -> list[str]:
        """Show the models' answers as they stream, and return them."""
        ...


class PipeFrontend:
    """Plain lines: messages from stdin, answers to stdout, notes to stderr."""

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
            chunks = []
            for chunk in stream:
                print(chunk, end="", flush=True)
                chunks.append(chunk)
            print(flush=True)
            answers.append("".join(chunks))
        return answers


class TerminalFrontend:
    """An interactive terminal; two models' answers stream in columns."""

    def __init__(self, models: Sequence[LoadedModel], console: Console | None = None):
        self.console = console or Console(highlight=False)
        for model in models:
            size = sum(parameter.numel() for parameter in model.decoder.parameters()) / 1e6
            kind = "" if model.is_chat_model else ", a base model: it continues a transcript"
            self.note(f"{model.entry.name}: {size:.1f}M parameters{kind}")
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
            answers = interleave(streams, lambda _, chunk: self.console.print(Text(chunk), end="", soft_wrap=True))
            self.console.print("\n")
            return answers
        shown = [""] * len(streams)
        with Live(
            columns(names, shown), console=self.console, refresh_per_second=12, vertical_overflow="visible"
        ) as live:

            def show(i: int, chunk: str) -> None:
                shown[i] += chunk
                live.update(columns(names, shown))

            return interleave(streams, show)


def interleave(streams: Sequence[Iterator[str]], show: Callable[[int, str], None]) -> list[str]:
    """Read the streams in turn, a chunk each, until all end or Ctrl-C. Returns the text of each so far."""
    answers = [""] * len(streams)
    running = dict(enumerate(streams))
    try:
        while running:
            for i, stream in list(running.items()):
                chunk = next(stream, None)
                if chunk is None:
                    del running[i]
                else:
                    answers[i] += chunk
                    show(i, chunk)
    except KeyboardInterrupt:
        show(next(iter(running)), " ...")
    return answers


def columns(names: Sequence[str], answers: Sequence[str]) -> Table:
    """Return a table of the answers, side by side."""
    table = Table.grid(expand=True)
    for _ in names:
        table.add_column(ratio=1)
    table.add_row(*(Panel(Text(answer), title=Text(name), title_align="left") for name, answer in zip(names, answers)))
    return table
