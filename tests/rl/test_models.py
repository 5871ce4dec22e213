"""The models of an online algorithm as they start."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amenable.data.types import Prompt
from amenable.errors import InputError
from amenable.generation.rollout import Rollout, length_mask
from amenable.models.decoder import Decoder
from amenable.models.presets import preset
from amenable.rewards.on_rollout import total_score
from amenable.rl.models import Models, base_of, critic_traits, inputs, load_critic, load_models
from amenable.rl.options import OnlineOptions
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, forward, loading
from amenable.train.runtime import Runtime

OPTIONS = OnlineOptions()
"""without adapters"""


@pytest.fixture
def options(assistant: Path, judge: Path) -> OnlineOptions:
    return OnlineOptions(model=assistant, reward=judge)


@pytest.fixture
def models(options: OnlineOptions, runtime: Runtime) -> Models:
    return load_models(options, runtime)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_each_pair_starts_equal_and_is_not_the_same(models: Models, judge: Path) -> None:
    critic, scorer = load_critic(models, OPTIONS), models.frozen[1]
    assert torch.equal(weights(models.policy), weights(models.reference))
    assert torch.equal(weights(critic), weights(scorer))
    with torch.no_grad():
        for model in (models.policy, critic):
            for p in model.parameters():
                p += 1
    assert not torch.equal(weights(models.policy), weights(models.reference))
    assert not torch.equal(weights(critic), weights(scorer))


def test_only_policy_and_critic_train_and_dropout_is_off(models: Models, judge: Path, runtime: Runtime) -> None:
    for model, trains in (
        (models.policy, True),
        (load_critic(models, OPTIONS), True),
        *((m, False) for m in models.frozen),
    ):
        assert {p.requires_grad for p in model.parameters()} == {trains}
        assert not model.training
    assert models.reference is models.frozen[0]
    assert models.tokenizer.chat_template is not None and models.runtime is runtime


def test_frozen_layers_are_the_policys_alone(assistant: Path, judge: Path, runtime: Runtime) -> None:
    models = load_models(OnlineOptions(model=assistant, reward=judge, frozen_layers=1), runtime)
    frozen = {name for name, p in models.policy.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in models.policy.named_parameters() if "embedding" in n or "layers.0." in n}
    assert all(p.requires_grad for p in load_critic(models, OPTIONS).parameters())


def test_a_reward_model_scores_the_sampled_ids(models: Models, runtime: Runtime) -> None:
    responses = [[7, 8, 9], [10, 11]]
    mask = length_mask([3, 2])
    rollout = Rollout([[5, 6]] * 2, responses, torch.ones(2, dtype=torch.bool), mask, torch.zeros(2, 3))
    prompts = [Prompt((), "1"), Prompt((), "2")]
    scores = total_score(models.reward, rollout, prompts, models.tokenizer)
    assert torch.equal(scores, forward.compute_rewards(models.frozen[1], rollout.rows(), runtime, 8192))


def test_a_reward_model_of_another_tokenizer_scores_texts_and_is_no_critic(
    assistant: Path, other_judge: Path, runtime: Runtime
) -> None:
    models = load_models(OnlineOptions(model=assistant, reward=other_judge), runtime)
    assert models.reward.reads_texts(models.tokenizer)
    assert torch.equal(weights(load_critic(models, OPTIONS).decoder), weights(models.policy))


def test_without_a_reward_model_the_critic_is_the_policys_body_with_a_head_of_zeros(
    assistant: Path, runtime: Runtime
) -> None:
    options = OnlineOptions(model=assistant, reward=("length:1-3", "ends=0.5"), frozen_layers=1)
    models = load_models(options, runtime)
    critic = load_critic(models, OPTIONS)
    assert torch.equal(weights(critic.decoder), weights(models.policy)) and not weights(critic.score).any()
    assert all(p.requires_grad for p in critic.parameters()) and len(models.frozen) == 1
    policy = defaults.traits(assistant)
    assert critic_traits(options, policy) == policy and inputs(options)["model"] == assistant


def test_the_context_is_the_least_of_the_models_that_read_the_ids(
    models: Models, assistant: Path, judge: Path, other_judge: Path, runtime: Runtime
) -> None:
    own = models.policy.config.context_length
    assert models.context_length == min(own, models.reward.models[0].context_length)
    shorter = replace(models.reward.models[0].model.decoder.config, context_length=own // 2)
    models.reward.models[0].model.decoder.config = shorter
    assert models.context_length == own // 2
    assert load_models(OnlineOptions(model=assistant, reward=other_judge), runtime).context_length == own


def test_the_reference_may_be_another_model_of_the_same_tokenizer(
    assistant: Path, other_judge: Path, runtime: Runtime, tmp_path: Path
) -> None:
    own, tokenizer = loading.load_policy(assistant, runtime)
    with torch.no_grad():
        for p in own.parameters():
            p += 0.01
    loading.save_model(tmp_path / "trained", own, tokenizer)
    options = OnlineOptions(model=tmp_path / "trained", reference_model=assistant, reward="ends")
    models = load_models(options, runtime)
    assert torch.equal(weights(models.policy), weights(own)) and not models.starts_at_reference
    assert torch.equal(weights(models.reference), weights(loading.load_policy(assistant, runtime)[0]))
    assert not any(p.requires_grad for p in models.reference.parameters()) and models.reference in models.frozen
    assert base_of(options, models.reference).folder == assistant == inputs(options)["reference_model"]
    foreign = Tokenizer.load(other_judge)
    loading.save_model(tmp_path / "foreign", Decoder(preset("nano", foreign.vocab_size)), foreign)
    with pytest.raises(InputError, match="another tokenizer than the policy"):
        load_models(replace(options, reference_model=tmp_path / "foreign"), runtime)
