"""Options that follow from the model: the tables of learning rates, and how open options are filled."""

import importlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.presets import preset
from amenable.recipes import demo
from amenable.stages import evaluate, ppo
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, loading
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
    assert traits_of(preset("nano", 1536)).width == preset("nano", 1536).hidden_size


def model_folder(folder: Path, shape: DecoderConfig, words: Tokenizer) -> Path:
    """A saved model of this shape."""
    decoder = Decoder(replace(shape, vocab_size=words.vocab_size))
    loading.save_model(folder, decoder, words)
    return folder


SHAPE = DecoderConfig(61, context_length=48, num_layers=2, hidden_size=32, num_heads=4)
MODERN = replace(SHAPE, positions="rope", norm="rms", activation="swiglu", bias=False)


def test_traits_of_a_folder_are_those_of_its_model(tmp_path: Path, words: Tokenizer) -> None:
    folder = model_folder(tmp_path / "m", MODERN, words)
    decoder = pretrained.load_decoder(folder)
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
    model = Traits(135_000_000, 8192)
    config, line = defaults.fill(Options(), model, {"optimizer.learning_rate": 1.2e-5, "rate": 0.1})
    assert config == Options(0.1, 3, OptimizerConfig(learning_rate=1.2e-5, eps=1e-5))
    named = "learning rate 1.2e-05 (--optimizer.learning-rate), rate 0.1 (--rate)"
    assert line == f"by default for 135M parameters and a context of 8,192: {named}"


def test_what_is_given_stays_zero_included() -> None:
    given = Options(0.0, 3, OptimizerConfig(learning_rate=0.5))
    assert defaults.fill(given, Traits(1, 1), {"optimizer.learning_rate": 1.2e-5, "rate": 0.1}) == (given, "")


def test_an_optimizer_without_a_rate_is_refused() -> None:
    with pytest.raises(InputError, match="no learning rate is given"):
        Optimizer([Decoder(SHAPE)], OptimizerConfig())


FOLLOWING = {
    "pretrain": {"optimizer.learning_rate", "optimizer.muon_learning_rate", "context"},
    "sft": {"optimizer.learning_rate", "dropout", "max_new_tokens"},
    "reward": {"optimizer.learning_rate", "head_learning_rate"},
    "dpo": {"optimizer.learning_rate", "max_new_tokens"},
    "ppo": {
        *("optimizer.learning_rate", "critic_learning_rate"),
        *("temperature", "max_new_tokens", "kl_coef", "adaptive_kl_target"),
    },
    "sample": {"sampling.temperature", "sampling.max_new_tokens"},
    "evaluate": {"max_new_tokens"},
    "annotate": set(),
    "tokenizer": set(),
    "ngram": set(),
}
"""the options that depend on the model"""
ALIKE = {
    "how long one wants to train, and on how much": """
        epochs max_steps batch_size prompts_per_step tokens_per_step num_generations num_mini_batches num_ppo_epochs
        pairs_per_prompt max_prompts validation_split ptx_tokens""",
    "how much is computed at once: of the machine": """
        max_tokens_per_pass max_batch_size device.threads scoring.code_workers scoring.code_memory
        scoring.judge_workers api_workers""",
    "how long is waited": "scoring.reward_timeout scoring.code_timeout api_timeout",
    "how often is looked and saved, and on how much": """
        eval_steps eval_tokens eval_prompts sample_steps num_traced_prompts save_steps reward_prompts best_of_prompts
        attack_queries tasking.task_rows text_tokens keep_checkpoints max_bad_rows max_kl processes tensor_parallel""",
    "one rule for runs of every length": "warmup_steps final_lr_frac",
    "the papers' numbers at every size": """
        cliprange_high dual_clip penalty_coef penalty_target overlong_penalty sampler_correction_cap
        f_alpha_divergence_coef beta gamma lam cliprange cliprange_value vf_coef kl_horizon missing_eos_penalty
        optimizer.weight_decay optimizer.beta1 optimizer.beta2 optimizer.eps optimizer.max_grad_norm
        evaluate.temperature kl_temperature pretrain.dropout lora.alpha""",
    "off unless it is asked for": """
        optimizer.muon_learning_rate
        prompting.num_shots tasking.self_consistency
        kl_budget overlong_buffer dynamic_sampling max_staleness margin rpo_alpha best_of ld_alpha
        members member combination_coefficient center_rewards_coefficient score_penalty
        label_smoothing entropy_coef score_clip target_kl ptx_coef frozen_layers prompt_tuning prefix_tuning empty_share
        lora.rank lora.bits lora.dropout sampling.top_k sampling.top_p sampling.min_p sampling.repetition_penalty""",
    "before there is a model": "vocab_size agreement order k min_count num_samples ngram.max_new_tokens",
    "a name": "seed",
}
"""options whose default is the same for every model, by the reason"""


def numbers_of(options: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    """Every number among a stage's options by its dotted name, and whether it follows from the model."""
    hints = get_type_hints(type(options))
    for option in fields(options):
        name, value = path + option.name, getattr(options, option.name)
        if is_dataclass(value):
            yield from numbers_of(value, f"{name}.")
        elif hints[option.name] in (int, float, int | None, float | None):
            yield name, "FromModel" in str(option.type) and value is None


@pytest.mark.parametrize("stage", FOLLOWING)
def test_every_number_is_known_to_follow_from_the_model_or_to_be_alike_for_all(stage: str) -> None:
    """A new option whose default is a number belongs into one of the two tables."""
    config = importlib.import_module(f"amenable.stages.{stage}").Config()
    numbers = dict(numbers_of(config))
    assert {name for name, follows in numbers.items() if follows} == FOLLOWING[stage]
    alike = {name for names in ALIKE.values() for name in names.split()}
    unknown = [name for name in numbers if name not in FOLLOWING[stage] and not {name, f"{stage}.{name}"} & alike]
    assert not unknown, "does its default depend on the model?"


def test_the_tables_name_options_that_exist() -> None:
    stages = {
        stage: dict(numbers_of(importlib.import_module(f"amenable.stages.{stage}").Config())) for stage in FOLLOWING
    }
    known = {name for numbers in stages.values() for name in numbers}
    known |= {f"{stage}.{name}" for stage, numbers in stages.items() for name in numbers}
    listed = [name for names in ALIKE.values() for name in names.split()]
    assert set(listed) <= known and len(listed) == len(set(listed))


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "dpo", "ppo", "sample"])
def test_a_bare_stage_trains_the_closed_worlds_model_as_the_demo_does(stage: str) -> None:
    """But for dropout, which the model's configuration does not state, and pairs, of which the demo takes a few."""
    config = importlib.import_module(f"amenable.stages.{stage}").Config()
    nano = traits_of(preset("nano", 1536))
    (given,) = [call.config for call in demo.plan(Path("x"), 0) if call.out == Path("x") / stage]
    models = [nano] * (2 if stage == "ppo" else 1)
    bare, demos = (
        getattr(defaults, "online" if stage == "ppo" else stage)(config, *models)[0] for config in (config, given)
    )
    left = {"seed", "warmup_steps", *{"sft": ("dropout",), "dpo": ("pairs_per_prompt",)}.get(stage, ())}
    for name in {name for name, _ in numbers_of(config)} - left:
        assert attrgetter(name)(bare) == attrgetter(name)(demos), name


def test_a_published_chat_model_may_answer_at_length() -> None:
    """And is held less tightly, as each token adds to the KL of an answer."""
    config, line = defaults.online(ppo.Config(), Traits(135_000_000, 8192), Traits(135_000_000, 8192))
    assert (config.max_new_tokens, config.kl_coef, config.adaptive_kl_target, config.temperature) == (
        256,
        0.075,
        6.0,
        0.7,
    )
    assert (
        "max new tokens 256 (--max-new-tokens), kl coef 0.075 (--kl-coef), adaptive kl target 6 (--adaptive-kl-target)"
        in line
    )
    short, _ = defaults.online(ppo.Config(max_new_tokens=16), Traits(135_000_000, 8192), Traits(135_000_000, 8192))
    assert (short.kl_coef, short.adaptive_kl_target) == (0.3, 1.5)
    assert [defaults.answer_length(context) for context in (3, 64, 256, 1024, 131072)] == [1, 16, 64, 256, 256]
    least, _ = defaults.evaluate(evaluate.Config(), [Traits(1, 8192), Traits(1, 256)])
    assert least.max_new_tokens == 64


@pytest.mark.parametrize(
    ("stated", "temperature"),
    [
        ({}, 0.7),
        ({"temperature": 0.2}, 0.2),
        ({"temperature": 0.2, "do_sample": False}, 0.7),
        ({"temperature": 0}, 0.7),
        ({"temperature": "hot"}, None),
    ],
)
def test_the_temperature_is_what_the_model_is_sampled_at(
    stated: dict[str, float], temperature: float | None, tmp_path: Path, words: Tokenizer
) -> None:
    folder = model_folder(tmp_path / "m", MODERN, words)
    (folder / "generation_config.json").write_text(json.dumps(stated))
    if temperature is None:
        with pytest.raises(InputError, match="temperature is 'hot'"):
            traits(folder)
        return
    assert traits(folder).temperature == temperature
    (folder / "generation_config.json").unlink()
    assert traits(folder).temperature == 0.7
