"""Options that follow from the model: the tables of learning rates, and how open options are filled."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.errors import InputError
from amenable.models import hub
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.presets import preset
from amenable.text.tokenizer import Tokenizer
from amenable.train import artifacts, defaults
from amenable.train.defaults import FROM_MODEL, FromModel, Traits, learning_rate, traits, traits_of
from amenable.train.optimizer import Optimizer, OptimizerConfig

TABLES = {name: getattr(defaults, name) for name in ("PRETRAIN", "SFT", "REWARD", "DPO", "PPO", "CRITIC")}
SMALL = {"PRETRAIN": 4e-3, "SFT": 5e-4, "REWARD": 5e-4, "DPO": 2e-4, "PPO": 2e-4, "CRITIC": 4e-4}
"""what the closed world's models of two million parameters are trained with"""
CHAT = {"SFT": 2e-5, "REWARD": 2e-5, "DPO": 1e-5, "PPO": 1e-5, "CRITIC": 2e-5}
"""what a chat model of 135 million parameters was trained with"""


@pytest.mark.parametrize("name", TABLES)
def test_the_closed_world_keeps_its_learning_rates(name: str) -> None:
    nano = traits_of(preset("nano", 1536)).parameters
    assert 2e6 < nano < 2.1e6
    assert learning_rate(TABLES[name], nano) == learning_rate(TABLES[name], 1) == SMALL[name]


@pytest.mark.parametrize("name", CHAT)
def test_a_published_chat_model_gets_what_it_was_tried_with(name: str) -> None:
    assert learning_rate(TABLES[name], 135_000_000) == CHAT[name]
    assert learning_rate(TABLES[name], 134_515_008) == pytest.approx(CHAT[name], rel=0.02)  # SmolLM2-135M


def test_billions_get_what_the_papers_used() -> None:
    assert learning_rate(defaults.PRETRAIN, 125_000_000) == 6e-4
    assert learning_rate(defaults.SFT, 6_000_000_000) == 9.65e-6
    assert learning_rate(defaults.DPO, 8_000_000_000) == 5e-7
    assert learning_rate(defaults.PPO, 6_900_000_000) == 3e-6
    assert learning_rate(defaults.CRITIC, 10**12) == 5e-6


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@given(st.floats(3, 13), st.floats(3, 13))
def test_larger_models_never_get_a_higher_rate(table: defaults.Table, a: float, b: float) -> None:
    small, large = sorted((round(10**a), round(10**b)))
    high, low = learning_rate(table, small), learning_rate(table, large)
    assert table[0][1] >= high >= low >= table[-1][1]


def test_between_two_anchors_it_is_a_line_in_the_logarithms() -> None:
    table = ((1e6, 1e-3), (1e8, 1e-5))
    assert learning_rate(table, 10**7) == 1e-4
    assert learning_rate(table, 2 * 10**7) == float(f"{1e-4 / 2:.1e}")
    assert learning_rate(table, 3_000_000) == pytest.approx(math.exp(math.log(1e-3) - math.log(3)), rel=0.05)


def test_the_rate_of_a_new_head_falls_with_the_width_it_reads() -> None:
    assert [defaults.head_learning_rate(width) for width in (192, 576, 4096)] == [5.2e-3, 1.7e-3, 2.4e-4]
    assert traits_of(preset("nano", 1536)).width == preset("nano", 1536).width


def model_folder(folder: Path, shape: DecoderConfig, words: Tokenizer) -> Path:
    """A saved model of this shape."""
    decoder = Decoder(replace(shape, vocab_size=words.vocab_size))
    artifacts.save_model(folder, decoder, words)
    return folder


SHAPE = DecoderConfig(61, context=48, layers=2, width=32, heads=4)
MODERN = replace(SHAPE, positions="rope", norm="rms", activation="swiglu", bias=False)


def test_traits_of_a_folder_are_those_of_its_model(tmp_path: Path, words: Tokenizer) -> None:
    folder = model_folder(tmp_path / "m", MODERN, words)
    decoder = hub.load_decoder(folder)
    assert traits(folder).parameters == sum(p.numel() for p in decoder.parameters())
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")  # weights are not looked at
    assert traits(folder).parameters == sum(p.numel() for p in decoder.parameters())
    with pytest.raises(InputError, match=r"no such model folder; make it with 'amenable reward'"):
        traits(tmp_path / "none", "amenable reward")


@pytest.mark.parametrize(
    ("shape", "stated", "dropout"),
    [
        (SHAPE, {"resid_pdrop": 0.1}, 0.1),
        (SHAPE, {"resid_pdrop": 0.0}, 0.0),
        (SHAPE, {"resid_pdrop": None}, None),
        (SHAPE, {}, 0.1),  # as transformers reads a GPT-2 that states none
        (MODERN, {}, 0.0),
        (MODERN, {"attention_dropout": 0.1}, 0.0),  # ours has none in attention
    ],
)
def test_dropout_is_what_the_models_configuration_states(
    shape: DecoderConfig, stated: dict[str, float | None], dropout: float | None, tmp_path: Path, words: Tokenizer
) -> None:
    folder = model_folder(tmp_path / "m", shape, words)
    facts = json.loads((folder / "config.json").read_text())
    facts.pop("resid_pdrop", None)
    (folder / "config.json").write_text(json.dumps(facts | stated))
    if dropout is None:
        with pytest.raises(InputError, match="resid_pdrop is None"):
            traits(folder)
        return
    assert traits(folder).dropout == dropout


@dataclass(frozen=True)
class Options:
    rate: FromModel[float] = FROM_MODEL
    steps: int = 3
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(eps=1e-5))


def test_open_options_are_filled_and_named() -> None:
    model = Traits(135_000_000)
    config, line = defaults.fill(Options(), model, {"optimizer.learning_rate": 1.2e-5, "rate": 0.1})
    assert config == Options(0.1, 3, OptimizerConfig(learning_rate=1.2e-5, eps=1e-5))
    assert line == (
        "by default for 135M parameters: learning rate 1.2e-05 (--optimizer.learning-rate), rate 0.1 (--rate)"
    )


def test_what_is_given_stays_zero_included() -> None:
    given = Options(0.0, 3, OptimizerConfig(learning_rate=0.5))
    assert defaults.fill(given, Traits(1), {"optimizer.learning_rate": 1.2e-5, "rate": 0.1}) == (given, "")


def test_an_optimizer_without_a_rate_is_refused() -> None:
    with pytest.raises(InputError, match="no learning rate is given"):
        Optimizer([Decoder(SHAPE)], OptimizerConfig())
