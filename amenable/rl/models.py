"""The models of an online algorithm as they start, and the reward that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from amenable.data.mixture import data_inputs
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel, critic_from_policy
from amenable.models.lora import copy_to_train, has_adapters, without_adapters
from amenable.models.sharding import is_sharded, shard_frozen
from amenable.rewards.model import ModelReward
from amenable.rewards.spec import Reward, load_reward, reward_inputs
from amenable.rl.options import OnlineOptions
from amenable.rl.remote_reference import RemoteReference, connect_reference
from amenable.seeds import derive_seed
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, forward, loading
from amenable.train.defaults import Traits
from amenable.train.forward import Row
from amenable.train.loading import Base
from amenable.train.log import Progress, silent
from amenable.train.runtime import Runtime


@dataclass(frozen=True)
class Models:
    """Policy, frozen reference, tokenizer, reward, and the runtime they are on."""

    policy: Decoder
    reference: Decoder | RemoteReference
    tokenizer: Tokenizer
    reward: Reward
    runtime: Runtime
    frozen: tuple[nn.Module, ...] = ()
    """every model that is held and only read, the reference among them unless it is on servers"""
    other_reference: bool = False
    """the reference is another model than the policy as it starts"""

    @property
    def starts_at_reference(self) -> bool:
        """True unless the reference is another model, or lacks virtual tokens that the policy starts with."""
        return not self.other_reference and self.policy.num_virtual_tokens == self.reference.num_virtual_tokens

    def reference_logprobs(
        self, rows: Sequence[Row], max_tokens: int, temperature: float, progress: Progress = silent
    ) -> list[Tensor]:
        """Return the reference's log-probabilities of each row's loss mask, as `forward.compute_logprobs` does."""
        if isinstance(self.reference, RemoteReference):
            return self.reference.logprobs(rows, max_tokens, temperature, progress)
        return forward.compute_logprobs(self.reference, rows, self.runtime, max_tokens, temperature, progress)

    @property
    def context_length(self) -> int:
        """The least context of the policy and of the reward models that score its ids."""
        same = [model for model in self.reward.models if model.reads(self.tokenizer)]
        return min([self.policy.config.context_length, *(model.context_length for model in same)])


def load_models(options: OnlineOptions, runtime: Runtime) -> Models:
    """Load policy, reference and reward; dropout off in all.

    Reference, and reward models that are adapters on it, share its weights; so does a policy of adapters. A reference
    on servers is not loaded.
    """
    urls, folder = options.reference_url, options.reference_folder
    served = connect_reference(urls, folder, runtime, options.scoring.reward_timeout)
    policy, tokenizer = loading.load_policy(options.model, runtime)
    options.adapt(policy, options.model, tokenizer, runtime)
    if served is not None:
        loading.require_same_tokenizer(tokenizer, Tokenizer.load(folder), folder)
    reference = served or load_reference(options, policy, tokenizer, runtime)
    base = base_of(options, reference)
    reward = load_reward(options.reward, runtime, options.max_tokens_per_pass, base, options.scoring)
    held = [] if isinstance(reference, RemoteReference) else [reference]
    frozen = (*held, *(each.model for model in reward.models for each in model.members))
    return Models(policy, reference, tokenizer, reward, runtime, frozen, options.reference_model is not None)


def load_reference(options: OnlineOptions, policy: Decoder, tokenizer: Tokenizer, runtime: Runtime) -> Decoder:
    """Load the frozen model that KL is measured from."""
    if options.reference_model is None:
        return loading.load_reference(policy, options.model, runtime)
    return loading.load_frozen(options.reference_model, tokenizer, runtime)


def base_of(options: OnlineOptions, reference: Decoder | RemoteReference) -> Base | None:
    """Return the reference as a model whose weights reward models that are adapters on it may share; None for one on
    servers."""
    if isinstance(reference, RemoteReference):
        return None
    if options.reference_model is not None:
        return Base.of(options.reference_model, reference)
    return Base.of(options.model, reference, options.lora.bits)


def load_critic(models: Models, options: OnlineOptions) -> ScalarModel:
    """Load a critic that starts as the reward model (Stiennon et al., 2020), the first of the policy's tokenizer; where
    the reward has none, as the policy's body with a head of zeros.

    With adapters the critic's other weights are the reward model's, or the policy's, in memory; a reward model's own
    adapters are trained on, and so are the policy's virtual tokens. In bf16 a frozen reward model may be in a form that
    has no gradients.
    """
    starts = [model for model in models.reward.models if model.folder is not None and model.reads(models.tokenizer)]
    if not options.trains_adapters:
        return critic_of(starts[0], models) if starts else critic_from_policy(models.policy)
    if starts:
        shares = has_adapters(starts[0].model) or not models.runtime.bf16
        critic = copy_to_train(starts[0].model) if shares else critic_of(starts[0], models)
    else:
        critic = ScalarModel.from_decoder(without_adapters(models.policy))
        if (tokens := models.policy.virtual_tokens) is not None:
            every_layer = models.policy.prefix_keys_values is not None
            critic.decoder.set_virtual_tokens(nn.Parameter(tokens.detach().clone()), every_layer)
    if not has_adapters(critic):
        own = replace(options, seed=derive_seed(options.seed, "critic"), frozen_layers=0)
        own.adapt(critic, options.model, models.tokenizer, models.runtime)
    return critic


def divide_frozen(models: Models, eval_reward: Reward | None) -> None:
    """Divide the weights of the frozen models, and of a reward that is not trained on, among the processes."""
    others = [each.model for model in eval_reward.models for each in model.members] if eval_reward else []
    for module in (*models.frozen, *others):
        if not is_sharded(module):
            shard_frozen(module)


def critic_of(reward: ModelReward, models: Models) -> ScalarModel:
    """Load a reward model's weights anew, to be trained."""
    assert reward.folder is not None
    return loading.load_reward_model(reward.folder, models.runtime, models.tokenizer, label=reward.label)


def inputs(options: OnlineOptions) -> dict[str, Path | None]:
    """Return the files and folders that a run reads, for its lineage."""
    return (
        {"model": options.model, "reference_model": options.reference_model, **data_inputs(options.data)}
        | {"validation": options.validation, "ptx_data": options.ptx_data}
        | reward_inputs(options.reward, rubric=options.scoring.judge_rubric)
        | reward_inputs(options.eval_reward_model, "eval_reward_model")
    )


def critic_traits(options: OnlineOptions, policy: Traits) -> Traits:
    """Return the traits of the model that the critic starts from, before anything is loaded."""
    folders = [path for path in reward_inputs(options.reward).values() if path is not None and path.is_dir()]
    return defaults.traits(folders[0], "amenable reward") if folders else policy
