import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.evaluation.answering import LoadedModel
from amenable.evaluation.prompting import Prompting
from amenable.generation.engine import generate
from amenable.models import pretrained
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.rewards.best_of import BestOf
from amenable.rewards.spec import load_reward
from amenable.seeds import mix
from amenable.serve import chat
from amenable.serve.chat import Chat, Config, TerminalFrontend, interleave, run, strip_control
from amenable.serve.conversation import load_model
from amenable.text.chat import PLAIN_STOP, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.runtime import DeviceOptions, Runtime

TEXTS = ["hello there, how are you today?", "the answer is blue.\n\nUser: and then", "tell me a story of two cats"]
CONTEXT = 96


def make_model(folder: Path, seed: int, with_template: bool = True) -> Path:
    tokenizer = Tokenizer.train(TEXTS, 290, chat=with_template)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, context_length=CONTEXT, num_layers=1, hidden_size=32, num_heads=2,
        positions="rope", norm="rms", activation="swiglu", bias=False, tie_embeddings=False,
    )  # fmt: skip
    decoder = Decoder(config)
    decoder.init_weights(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        decoder.unembedding.mul_(20)
        decoder.unembedding[list(tokenizer.special_ids)] = 0  # so that it has something to say
    pretrained.save(folder, decoder, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id)
    tokenizer.save(folder)
    return folder


def config_of(model: Path, **settings: Any) -> Config:
    """In full precision, so that answers can be compared with those of `answer_to`."""
    return Config(model=model, device=DeviceOptions(precision="fp32"), **settings)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("chat"), seed=1)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("other"), seed=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("base"), seed=3, with_template=False)


@pytest.fixture
def say(monkeypatch, capsys):
    """Run a whole session on piped lines; what it wrote to stdout and stderr."""

    def session(config: Config, *lines: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        run(config)
        written = capsys.readouterr()
        return written.out, written.err

    return session


def answer_to(folder: Path, config: Config, turn: int, *messages: Message) -> str:
    """The answer to expect, from the library's other way to it."""
    decoder, tokenizer = pretrained.load_decoder(folder), Tokenizer.load(folder)
    stop = () if tokenizer.chat_template else PLAIN_STOP
    completion = generate(
        decoder,
        [render_prompt(tokenizer, messages)],
        config.sampling,
        eos_id=tokenizer.eos_id,
        seeds=[mix(config.seed, turn)],
        stop=stop,
        decode=tokenizer.decode,
    )[0][0]
    return "".join(strip_control(iter([completion.text or ""])))


def test_piped_messages_are_answered_in_turn_and_remembered(model, say):
    config = config_of(model, max_new_tokens=10)
    out, err = say(config, "hello there", "", "  two cats  ")
    hello = Message("user", "hello there")
    first = answer_to(model, config, 0, hello)
    report = Message("assistant", first.strip())
    second = answer_to(model, config, 1, hello, report, Message("user", "two cats"))
    assert first.strip() and second.strip()
    assert out == f"{first}\n{second}\n"
    assert err == ""


def test_the_seed_decides_the_answers(model, say):
    outs = [say(config_of(model, max_new_tokens=10, seed=seed), "hello")[0] for seed in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2]


def test_the_system_message_and_reset_change_what_the_model_reads(model, say):
    config = config_of(model, max_new_tokens=8, temperature=0)
    user = Message("user", "hello")
    plain = answer_to(model, config, 0, user)
    brief = answer_to(model, config, 0, Message("system", "be blue"), user)
    assert plain != brief
    assert say(config, "/system be blue", "hello") == (f"{brief}\n", "system message set\n")
    assert say(config_of(model, max_new_tokens=8, temperature=0, system="be blue"), "hello")[0] == f"{brief}\n"
    out, err = say(config, "/system be blue", "/system", "hello", "/reset", "hello")
    assert out == f"{plain}\n{plain}\n"
    assert err.splitlines() == ["system message set", "system message removed", "the conversation is forgotten"]


def test_a_wrong_command_is_told_and_the_session_goes_on(model, say):
    config = config_of(model, max_new_tokens=8)
    out, err = say(config, "/temperature hot", "/temperature -1", "/dance", "/temperature 0", "hello", "/quit", "hello")
    greedy = config_of(model, max_new_tokens=8, temperature=0)
    assert out == answer_to(model, greedy, 0, Message("user", "hello")) + "\n"
    report = err.splitlines()
    assert len(report) == 4
    assert "'hot' is not a number" in report[0]
    assert "temperature is -1" in report[1]
    assert "there is no command /dance" in report[2]
    assert report[3] == "temperature 0"


def test_a_path_is_no_command(model, say):
    out, err = say(config_of(model, max_new_tokens=4), "/usr/bin is what?")
    assert out.strip() and err == ""


def test_help_names_every_command(model, say):
    _, err = say(config_of(model), "/help")
    for command in ("/reset", "/system", "/temperature", "/help", "/quit"):
        assert command in err


def test_two_models_answer_side_by_side_each_with_its_own_memory(model, other, say):
    config = config_of(model, compare=other, max_new_tokens=8)
    out, _ = say(config, "hello", "two cats")
    expected = ""
    hello, cats = Message("user", "hello"), Message("user", "two cats")
    firsts = [answer_to(folder, config, 0, hello) for folder in (model, other)]
    assert firsts[0] != firsts[1]
    expected += "".join(f"{folder}: {first}\n" for folder, first in zip((model, other), firsts))
    for folder, first in zip((model, other), firsts):
        second = answer_to(folder, config, 1, hello, Message("assistant", first.strip()), cats)
        expected += f"{folder}: {second}\n"
    assert out == expected


def test_the_oldest_turns_are_dropped_when_the_context_is_full_and_that_is_said(model, say):
    config = config_of(model, max_new_tokens=12)
    lines = [f"{i} tell me a story of two cats today" for i in range(8)]
    out, err = say(config, *lines)
    assert "is full: its 2 oldest messages are dropped" in err
    assert out.count("\n") >= 8


def test_a_message_longer_than_the_context_is_refused_and_forgotten(model, say):
    out, err = say(config_of(model, max_new_tokens=6, temperature=0), "hello", "zq" * CONTEXT, "/reset", "hello")
    answers = out.splitlines()
    assert len(err.splitlines()) == 2
    assert "the message is too long" in err.splitlines()[0]
    assert answers[: len(answers) // 2] == answers[len(answers) // 2 :]


def test_a_base_model_continues_a_transcript(base, say):
    config = config_of(base, max_new_tokens=16, temperature=0)
    out, _ = say(config, "hello")
    assert out == answer_to(base, config, 0, Message("user", "hello")) + "\n"
    assert not any(stop in out for stop in PLAIN_STOP)


def test_an_answer_of_nothing_is_said_and_not_kept(model, runtime):
    class Silent(chat.PipeFrontend):
        def answer(self, names, streams):
            return ["  " for _ in names]

    session = Chat([load_model(model, runtime)], Config().sampling)
    session.send("hello", Silent())
    assert session.turns == [[]]


def test_folders_that_hold_no_model_are_refused_in_a_line(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such model folder"):
        run(Config(model=tmp_path / "nowhere"))
    with pytest.raises(InputError, match=str(tmp_path)):
        run(Config(model=tmp_path))


def test_a_tokenizer_of_another_model_is_refused(model, tmp_path):
    config = DecoderConfig(vocab_size=20, context_length=16, num_layers=1, hidden_size=8, num_heads=1)
    pretrained.save(tmp_path, Decoder(config), eos_id=2)
    Tokenizer.load(model).save(tmp_path)
    with pytest.raises(InputError, match="do not belong together"):
        run(Config(model=tmp_path))


def test_impossible_settings_are_refused_before_a_model_is_loaded():
    with pytest.raises(InputError, match="temperature"):
        Config(temperature=-1)


def test_control_characters_never_reach_the_terminal():
    assert list(strip_control(iter([" \n", "  a\x1b[31m", "b\x07\tc\n", "\x9bd"]))) == ["a[31m", "b\tc\n", "d"]


def test_streams_are_drawn_in_turn():
    shown: list[tuple[int, str]] = []
    answers = interleave([iter("abc"), iter("x")], lambda i, piece: shown.append((i, piece)))
    assert answers == ["abc", "x"]
    assert shown == [(0, "a"), (1, "x"), (0, "b"), (0, "c")]


def interrupted():
    yield "so "
    yield "far"
    raise KeyboardInterrupt


def make_terminal(*models: LoadedModel) -> tuple[TerminalFrontend, io.StringIO]:
    screen = io.StringIO()
    return TerminalFrontend(models, Console(file=screen, force_terminal=True, width=80, highlight=False)), screen


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said():
    terminal, screen = make_terminal()
    assert terminal.answer(["a"], [interrupted()]) == ["so far"]
    assert "so far ..." in screen.getvalue()


def test_answers_of_two_models_stand_side_by_side():
    terminal, screen = make_terminal()
    assert terminal.answer(["left", "right"], [iter(["[red]one"]), iter(["two"])]) == ["[red]one", "two"]
    line = next(line for line in reversed(screen.getvalue().splitlines()) if "one" in line)
    assert line.index("[red]one") < line.index("two")


def test_a_terminal_session_reads_until_the_end_of_input(model, runtime, monkeypatch):
    typed: Iterator[str | BaseException] = iter(["  hello ", "", KeyboardInterrupt(), "/help"])

    def read(prompt: str = "") -> str:
        line = next(typed, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    terminal, screen = make_terminal(load_model(model, runtime))
    assert list(terminal.lines()) == ["hello", "/help"]
    assert "parameters" in screen.getvalue() and "Ctrl-D or /quit leaves" in screen.getvalue()


def test_an_answer_is_the_best_of_several(model: Path, runtime: Runtime) -> None:
    """Of four, by their length, whatever the first is; and the second turn goes on from it."""
    sampling = replace(Config().sampling, temperature=1.5, max_new_tokens=16)
    longest = BestOf(load_reward(lambda completions, **_: [float(len(text)) for text in completions], runtime), 4)
    loaded, frontend = load_model(model, runtime), Recorded()
    session = Chat([loaded], sampling, best_of=longest)
    session.send("Ann asks: name a red thing.", frontend)
    ids = render_prompt(loaded.tokenizer, [Message("user", "Ann asks: name a red thing.")])
    (group,) = generate(
        loaded.decoder, [ids], sampling, eos_id=loaded.tokenizer.stop_ids, seeds=[mix(0, 0)], samples=4,
        decode=loaded.tokenizer.decode,
    )  # fmt: skip
    longest_text = max((each.text or "" for each in group), key=len)
    assert frontend.answers == ["".join(strip_control(iter([longest_text]))).strip()]
    assert [turn.content for turn in session.turns[0]] == ["Ann asks: name a red thing.", frontend.answers[0]]


def test_examples_stay_before_the_conversation(model: Path, runtime: Runtime) -> None:
    sampling = replace(Config().sampling, temperature=0.0, max_new_tokens=8)
    shot = (Message("user", "a?"), Message("assistant", "b."))
    loaded, frontend = load_model(model, runtime), Recorded()
    session = Chat([loaded], sampling, "Be.", prompting=Prompting.of([shot], "Hi."))
    turns: list[Message] = []
    for text in ("blue?", "you?"):
        session.send(text, frontend)
        turns.append(Message("user", text))
        ids = render_prompt(loaded.tokenizer, [Message("system", "Hi.\n\nBe."), *shot, *turns])
        (group,) = generate(
            loaded.decoder, [ids], sampling, eos_id=loaded.tokenizer.stop_ids, decode=loaded.tokenizer.decode
        )
        assert frontend.answers == ["".join(strip_control(iter([group[0].text or ""]))).strip()]
        turns.append(Message("assistant", frontend.answers[0]))
    assert session.turns == [turns]


class Recorded:
    """A frontend that keeps the answers."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def lines(self) -> Any:
        return iter(())

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def answer(self, names: Any, streams: Any) -> list[str]:
        self.answers = ["".join(stream).strip() for stream in streams]
        return self.answers
