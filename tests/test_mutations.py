"""Each of these mistakes would train a worse model and say nothing. Every one of them is caught: here they are made.

A row of the table says what goes wrong, which function is replaced by what, and which check notices: a test of the
suite, or a run-time check in a tiny run. The check passes as the code stands, and fails with the mistake in it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from amenable.data.mixture import Mixed
from amenable.data.types import Message
from amenable.errors import InputError
from amenable.functional import kl, losses
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.rl import experience
from amenable.rl import models as roles
from amenable.rl.critic import loss_of_values
from amenable.rl.models import Models
from amenable.stages import dpo, ppo
from amenable.text import chat
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.rankings import Pair, add_reference_logps
from amenable.train.runtime import DeviceOptions, Runtime

TESTS = Path(__file__).parent
NAMES = ("Ann", "Bo", "Cy", "Dee", "Eva", "Flo", "Gus", "Ida")
COLOURS = ("red", "green", "blue", "white")
CAUGHT = (AssertionError, InputError, RuntimeError)
STOPPED = "before any update"
"""what a run says that ends itself; any other RuntimeError is a mistake in this file"""


@dataclass(frozen=True)
class Parts:
    """What checks are made with: random models of two layers, trained ones, a tokenizer, a folder."""

    runtime: Runtime
    words: Tokenizer
    make_decoder: Callable[..., Decoder]
    make_scalar_model: Callable[..., ScalarModel]
    folder: Path
    assistant: Path
    judge: Path


@pytest.fixture
def parts(
    runtime: Runtime,
    words: Tokenizer,
    make_decoder: Callable[..., Decoder],
    make_scalar_model: Callable[..., ScalarModel],
    tmp_path: Path,
    assistant: Path,
    judge: Path,
) -> Parts:
    return Parts(runtime, words, make_decoder, make_scalar_model, tmp_path, assistant, judge)


def file_of(path: str) -> ModuleType:
    """A file of tests, read anew: what it imports is what stands there now."""
    spec = importlib.util.spec_from_file_location(f"again_{path.replace('/', '_')[:-3]}", TESTS / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ppo_config(**changes: Any) -> ppo.Config:
    small = ppo.Config(prompts_per_step=8, num_mini_batches=2, max_new_tokens=8, device=DeviceOptions("cpu", "fp32", 1))
    filled = {
        "temperature": 0.7,
        "kl_coef": 0.3,
        "adaptive_kl_target": 1.5,
        "critic_learning_rate": 2e-4,
        "optimizer": OptimizerConfig(2e-4, eps=1e-5),
    }
    return replace(small, **filled | changes)


def ppo_loaded(parts: Parts) -> Any:
    """Policy, reference, critic and reward model, read from folders as a run does."""
    if not (parts.folder / "sft").exists():
        loading.save_model(parts.folder / "sft", parts.make_decoder(), parts.words)
        loading.save_model(parts.folder / "reward", parts.make_scalar_model(), parts.words)
    return load_ppo(parts.folder / "sft", parts.folder / "reward", parts.runtime)


def load_ppo(sft: Path, reward: Path, runtime: Runtime) -> Any:
    config = ppo_config(model=sft, reward=reward)
    models = roles.load_models(config, runtime)
    return file_of("stages/test_ppo.py").Loaded(models, roles.load_critic(models, config))


def ppo_iteration(parts: Parts, loaded: Any = None) -> None:
    """Sample, score, estimate, learn: the run stops where the sampler is not the trainer."""
    tests, loaded, config = file_of("stages/test_ppo.py"), loaded or ppo_loaded(parts), ppo_config()
    prompts = [chat.render_prompt(parts.words, [Message("user", f"{name} asks.")]) for name in "ABCDEFGH"]
    tests.learn(loaded, tests.gather(loaded, prompts, 1, config), config)


def bf16_iteration(temperature: float) -> Callable[[Parts], None]:
    """The same in bf16, with trained models: what is gathered is the reference's too, as a run's first step asks."""

    def check(parts: Parts) -> None:
        runtime = replace(parts.runtime, bf16=True)
        tests, loaded = file_of("stages/test_ppo.py"), load_ppo(parts.assistant, parts.judge, runtime)
        config = ppo_config(prompts_per_step=32, num_generations=2, num_mini_batches=1, temperature=temperature)
        config = replace(config, max_new_tokens=20, critic_learning_rate=1e-3)
        request = [f"{name} asks: name a {colour} thing." for name in NAMES for colour in COLOURS]
        prompts = [chat.render_prompt(parts.words, [Message("user", text)]) for text in request]
        tests.learn(loaded, tests.gather(loaded, prompts, 2, config), config)

    return check


def starts_at_the_reference(parts: Parts) -> None:
    runtime = replace(parts.runtime, bf16=True)
    loaded = load_ppo(parts.assistant, parts.judge, runtime)
    prompts = [chat.render_prompt(parts.words, [Message("user", f"{name} asks: name a red thing.")]) for name in NAMES]
    config = ppo_config(temperature=0.7, max_new_tokens=20)
    sampled = file_of("stages/test_ppo.py").gather(loaded, prompts, 4, config)
    experience.require_at_reference(sampled, runtime.tolerance)


def frozen_models_stay(parts: Parts) -> None:
    loaded = ppo_loaded(parts)
    frozen = [p for model in loaded.models.frozen for p in model.parameters()]
    before = [p.clone() for p in frozen]
    ppo_iteration(parts, loaded)
    assert all(torch.equal(*pair) for pair in zip(frozen, before))


def conversation_by_hand(parts: Parts) -> None:
    file_of("text/test_chat.py").test_a_conversation_by_hand(parts.words)


def cut_answers_have_not_ended(parts: Parts) -> None:
    tests = file_of("generation/test_rollout.py")
    decoder = parts.make_decoder(seed=1, vocab_size=40)
    with torch.no_grad():
        decoder.token_embedding.weight *= 4
    sampling = Sampling(max_new_tokens=12)
    result = tests.collect(decoder, tests.PROMPTS, sampling, eos_id=2, seeds=[4, 5, 6], samples=4)
    tests.test_mask_lengths_and_ended_describe_the_completions(result)


def dpo_loss_by_hand(parts: Parts) -> None:
    tests, rows = file_of("stages/test_dpo.py"), file_of("train/test_forward.py").ROWS
    config = dpo.Config(device=DeviceOptions("cpu", "fp32", 1))
    pairs = [Pair(rows[i % 4], rows[(i + 1) % 4]) for i in range(6)]
    pairs = add_reference_logps(
        parts.make_decoder(seed=7), Mixed([""], [pairs]), parts.runtime, config.max_tokens_per_pass
    )
    tests.test_the_loss_by_hand(config, pairs, parts.make_decoder, parts.runtime, 0.0, 0.5)


def pair_by_hand(name: str) -> Callable[[Parts], None]:
    """The numbers worked by hand of one loss on pairs."""

    def check(parts: Parts) -> None:
        tests = file_of("functional/test_preference_losses.py")
        if name == "aot_losses":
            tests.test_aot_by_hand()
        for row in tests.BY_HAND:
            if row[0] == name:
                tests.test_a_pair_by_hand(*row)

    return check


def kto_by_hand(parts: Parts) -> None:
    tests = file_of("functional/test_preference_losses.py")
    for row in tests.KTO:
        tests.test_kto_by_hand(*row)


def kto_step_by_hand(parts: Parts) -> None:
    tests = file_of("stages/test_kto.py")
    tests.test_the_loss_by_hand(tests.kto.Config())


def task_by_hand(task: str) -> Callable[[Parts], None]:
    """The loss of a classifier's task, each row alone through the decoder."""

    def check(parts: Parts) -> None:
        tests = file_of("train/test_classification.py")
        tokenizer = parts.words.with_tokens(tests.TASK_TOKENS)
        make = tests.classifiers(parts.make_decoder, tokenizer)
        tests.test_the_loss_by_hand(make, tokenizer, parts.runtime, task, 0.5)

    return check


def distillation_by_hand(parts: Parts) -> None:
    tests = file_of("train/test_distillation.py")
    tests.test_the_loss_is_the_mean_kl_over_completion_tokens(parts.make_decoder, parts.runtime, 1000)


def without_rest(f: Callable) -> Callable:
    def broken(logps: torch.Tensor, ref_logps: torch.Tensor, k: int) -> torch.Tensor:
        top = logps.topk(k, dim=-1)
        return (top.values.exp() * (top.values - ref_logps.gather(-1, top.indices))).sum(-1)

    return broken


def top_k_by_hand(parts: Parts) -> None:
    file_of("functional/test_kl.py").test_top_k_kl_by_hand()


def pair_options_by_hand(parts: Parts) -> None:
    tests = file_of("train/test_pair_loss.py")
    tests.test_another_divergence_by_hand()
    tests.test_tokens_beyond_the_shorter_completion_by_hand()
    tests.test_pairs_weigh_what_the_policy_makes_of_them_by_hand()
    tests.test_a_mixture_is_the_weighted_sum()


def bco_by_hand(parts: Parts) -> None:
    file_of("functional/test_preference_losses.py").test_unpaired_bco_by_hand()


def ranking_types_by_hand(parts: Parts) -> None:
    tests = file_of("functional/test_losses.py")
    tests.test_the_best_of_k_by_hand()
    tests.test_the_binary_loss_by_hand()
    tests.test_smoothing_and_centering_of_rankings_by_hand()


def step_by_hand(loss: str) -> Callable[[Parts], None]:
    """The mean over two pairs of one loss, from log-probabilities and lengths."""

    def check(parts: Parts) -> None:
        tests = file_of("train/test_pair_loss.py")
        for chosen, expected in tests.BY_HAND:
            if chosen.loss == loss and chosen.reference == "model":
                tests.test_the_mean_of_two_pairs_by_hand(chosen, expected)

    return check


def kl_of_two_is_above_zero(parts: Parts) -> None:
    tests = file_of("evaluation/test_divergence.py")
    policy, reference = (parts.make_decoder(seed=seed, vocab_size=10) for seed in (1, 2))
    tests.test_of_a_policy_from_itself_it_is_zero_and_else_above(policy, reference, parts.runtime)


def prompts_count_alike(parts: Parts) -> None:
    """One prompt of three pairs and one of a single pair: the mean of two means."""
    scores, ranks = torch.tensor([3.0, 1.0, -2.0, 0.5, 2.0]), torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0])
    alone = [losses.ranking_loss(scores[part], ranks[part])[0] for part in (slice(0, 3), slice(3, 5))]
    both, _ = losses.ranking_loss(scores, ranks, torch.tensor([0, 0, 0, 1, 1]))
    assert both.item() == pytest.approx(sum(float(loss) for loss in alone) / 2)


def passes_test(name: str, *arguments: Any) -> Callable[[Parts], None]:
    """A test of `train/test_forward.py` that takes a decoder or a scorer first."""

    def check(parts: Parts) -> None:
        model = parts.make_decoder(seed=3) if "logprobs" in name else parts.make_scalar_model(seed=4)
        getattr(file_of("train/test_forward.py"), name)(model, *arguments_of(parts))

    def arguments_of(parts: Parts) -> list[Any]:
        return [getattr(parts, argument) if isinstance(argument, str) else argument for argument in arguments]

    return check


def engine_test(name: str, *arguments: Any) -> Callable[[Parts], None]:
    """A test of `generation/test_engine.py` that takes its decoder first."""

    def check(parts: Parts) -> None:
        tests = file_of("generation/test_engine.py")
        getattr(tests, name)(tests.make_decoder(), *arguments)

    return check


def suite_test(path: str, name: str, *arguments: Any) -> Callable[[Parts], None]:
    """A test of the suite that takes these arguments and no fixture."""
    return lambda parts: getattr(file_of(path), name)(*arguments)


def shifted_mask(render: Any) -> Any:
    def broken(*arguments: Any) -> chat.Rendered:
        rendered = render(*arguments)
        return replace(rendered, loss_mask=[False, *rendered.loss_mask[:-1]])

    return broken


def eos_untrained(render: Any) -> Any:
    def broken(tokenizer: Tokenizer, messages: Any) -> chat.Rendered:
        result = render(tokenizer, messages)
        marks = [mark and token != tokenizer.eos_id for token, mark in zip(result.ids, result.loss_mask)]
        return replace(result, loss_mask=marks)

    return broken


def two_bos(fill: Any) -> Any:
    def broken(tokenizer: Tokenizer, *arguments: Any, **options: Any) -> chat.Rendered:
        result = fill(tokenizer, *arguments, **options)
        return chat.Rendered([tokenizer.bos_id, *result.ids], [False, *result.loss_mask], ["template", *result.roles])

    return broken


def prediction_of_itself(targets: Any) -> Any:
    def broken(batch: Any) -> Any:
        index, tokens = targets(batch)
        return index + 1, tokens

    return broken


def dropout_left_on(load_policy: Any) -> Any:
    def broken(folder: Path, runtime: Runtime, made_by: str = "", dropout: float = 0.0) -> Any:
        decoder, tokenizer = load_policy(folder, runtime, made_by, 0.2)
        return decoder.train(), tokenizer

    return broken


def early_reward(rewards: Any) -> Any:
    def broken(model: ScalarModel, batch: Any) -> torch.Tensor:
        layout = Layout.of(batch.lengths)
        return model(batch.ids, layout).index_select(0, layout.last_tokens - 1)

    return broken


def late_value(values: Any) -> Any:
    def broken(critic: ScalarModel, batch: Any) -> torch.Tensor:
        return critic(batch.ids, Layout.of(batch.lengths))[batch.loss_mask]

    return broken


def one_long_row(attend: Any) -> Any:
    return lambda layout, *rest: attend(Layout.of([layout.tokens]), *rest)


def whole_cache(row_blocks: Any) -> Any:
    return lambda cache, rows, lengths, window=None: row_blocks(cache, rows, lengths)


def late_positions(run: Any) -> Any:
    def broken(self: Decoder, ids: torch.Tensor, positions: torch.Tensor, attend: Any, *rest: Any) -> torch.Tensor:
        stepping = "step_rows" in getattr(attend, "__qualname__", "")
        return run(self, ids, positions + 1 if stepping else positions, attend, *rest)

    return broken


def own_next_value(gae: Any) -> Any:
    def broken(rewards: Any, values: Any, discounts: Any, lam: float, last: Any) -> Any:
        return gae(rewards, values.roll(1, dims=1), discounts, lam, last)

    return broken


def cuts_as_ends(rollout: Any) -> Any:
    nothing = rollout.truncated & False
    return replace(rollout, terminated=rollout.ended, truncated=nothing, cut_observations=rollout.cut_observations[:0])


def padding_counted(standardize: Any) -> Any:
    return lambda x, mask: standardize(x, torch.ones_like(mask))


def score_at_the_start(token_rewards: Any) -> Any:
    def broken(logp: Any, ref: Any, score: Any, mask: Any, kl_coef: float) -> Any:
        rewards = token_rewards(logp, ref, torch.zeros_like(score), mask, kl_coef)
        rewards[:, 0] += score
        return rewards

    return broken


def trains_along(load: Any) -> Any:
    def broken(*arguments: Any) -> Models:
        models = load(*arguments)
        models.policy.requires_grad_(True)
        return replace(models, reference=models.policy, frozen=(models.policy, *models.frozen[1:]))

    return broken


def mean_over_all_pairs(loss: Any) -> Any:
    def broken(scores: torch.Tensor, ranks: torch.Tensor, prompts: Any = None, margins: Any = None) -> Any:
        prompts = torch.zeros(len(ranks)) if prompts is None else prompts
        better, worse = ((prompts[:, None] == prompts) & (ranks[:, None] < ranks)).nonzero(as_tuple=True)
        return losses.preference_losses(scores[better], scores[worse]).mean(), {}

    return broken


def worse_is_better(loss: Any) -> Any:
    return lambda scores, ranks, *rest: loss(scores, -ranks, *rest)


def own_reference(loss: Any) -> Any:
    def broken(self: dpo.DPO, pairs: Any, sums: torch.Tensor) -> Any:
        own = sums.detach().view(-1, 2).tolist()
        return loss(self, [replace(pair, ref_chosen=a, ref_rejected=b) for pair, (a, b) in zip(pairs, own)], sums)

    return broken


def swapped(loss: Any) -> Any:
    return lambda chosen, rejected, *rest: loss(rejected, chosen, *rest)


def turned(loss: Any) -> Any:
    return lambda gap, *rest: loss(-gap, *rest)


def beta_divides(loss: Any) -> Any:
    return lambda chosen, rejected, beta, *rest: loss(chosen, rejected, 1 / beta, *rest)


def beta_twice(loss: Any) -> Any:
    return lambda chosen, rejected: loss(0.1 * chosen, 0.1 * rejected)


def no_reference(loss: Any) -> Any:
    return lambda options, pairs, sums: loss(
        options, [replace(pair, ref_chosen=0.0, ref_rejected=0.0) for pair in pairs], sums
    )


def trunk_moves(loss: Any) -> Any:
    def broken(critic: Any, models: Any, batch: Any, old: Any, vf_coef: float, clip: float = math.inf) -> Any:
        return loss_of_values(critic(forward.masked_hidden(models.policy, batch)), old, vf_coef, clip)

    return broken


def head_on_the_trunk(parts: Parts) -> None:
    tests = file_of("rl/test_critic.py")
    tests.test_a_head_on_the_trunk_learns_with_the_policy_or_alone(parts.make_decoder, parts.runtime)


def terms_of_the_loss(parts: Parts) -> None:
    tests = file_of("rl/test_algorithm.py")
    tests.test_kl_and_entropy_in_the_loss(parts.make_decoder, parts.runtime, "k2")


def fisher_product_by_hand(parts: Parts) -> None:
    tests = file_of("rl/test_trust_region.py")
    tests.test_the_product_is_that_of_the_explicit_fisher_matrix(parts.make_decoder, parts.runtime, "top")


def step_within_the_constraint(parts: Parts) -> None:
    tests = file_of("rl/test_trust_region.py")
    tests.test_a_step_lowers_the_loss_within_the_constraint(parts.make_decoder, parts.runtime, "all", 0.3)


def prompts_counted(loss: Any) -> Any:
    def whole(row: forward.Row) -> forward.Row:
        return row[0], [True] * len(row[0])

    return lambda options, pairs, sums: loss(
        options, [replace(pair, chosen=whole(pair.chosen), rejected=whole(pair.rejected)) for pair in pairs], sums
    )


def mean_of_means(accumulate: Any) -> Any:
    def broken(objective: Any, rows: Any, runtime: Any, max_tokens: int) -> dict[str, float]:
        cut = forward.microbatches(rows, max_tokens)
        parts = [[rows[i] for i in part.rows] for part in cut]
        stats = [accumulate(objective, part, runtime, 10**6, scale=1 / len(cut)) for part in parts]
        return {name: sum(each[name] for each in stats) / len(stats) for name in stats[0]}

    return broken


def clipped_at_the_targets(value_loss: Any) -> Any:
    return lambda values, old, targets, mask, clip: value_loss(values, targets, targets, mask, clip)


def nothing_clipped(loss: Any) -> Any:
    return lambda logp, old, advantages, mask, *clips: loss(logp, logp.detach(), advantages, mask, *clips)


def clipped_at_itself(value_loss: Any) -> Any:
    return lambda values, old, targets, mask, clip: value_loss(values, values.detach(), targets, mask, clip)


def gradients_kept(step: Any) -> Any:
    def broken(self: Optimizer, multiplier: float = 1.0) -> float:
        held = [p.grad.clone() if p.grad is not None else None for p in self.parameters]
        norm = step(self, multiplier)
        for p, grad in zip(self.parameters, held):
            p.grad = grad
        return norm

    return broken


def reference_at_one(compute_logprobs: Any) -> Any:
    return lambda decoder, rows, runtime, limit, *_, **__: compute_logprobs(decoder, rows, runtime, limit)


def always_ended(ranking_rows: Any) -> Any:
    return lambda ranking, *rest: ranking_rows(replace(ranking, meta={}), *rest)


def the_larger_term(loss: Any) -> Any:
    def broken(logp: Any, old: Any, advantages: Any, mask: Any, *clips: Any) -> Any:
        result, stats = loss(logp, old, -advantages, mask, *clips)
        return -result, stats

    return broken


def plain_logprobs(sample: Any) -> Any:
    def broken(logits: torch.Tensor, uniforms: Any, sampling: Sampling, observed: Any = None) -> Any:
        tokens, _ = sample(logits, uniforms, sampling, observed)
        return tokens, logits.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]

    return broken


def drawn_by(**changes: Any) -> Callable[[Any], Any]:
    """The sampler draws with other settings than the run's."""
    return lambda generate: (
        lambda decoder, prompts, sampling, **rest: generate(decoder, prompts, replace(sampling, **changes), **rest)
    )


def no_temperature(logprobs_of_hidden: Any) -> Any:
    return lambda decoder, hidden, batch, temperature=1.0, entropy=False: logprobs_of_hidden(
        decoder, hidden, batch, 1.0, entropy
    )


def contents_as_templates(encode: Any) -> Any:
    return lambda self, text, after="nothing": self.encode_with_special_tokens(text)


def encoded_by_hand(parts: Parts) -> None:
    file_of("text/test_tokenizer.py").test_special_tokens_are_recognised_in_template_text_only(parts.words)


def stopped_and_resumed(parts: Parts) -> None:
    folder = parts.folder / str(len(list(parts.folder.iterdir())))
    folder.mkdir()
    file_of("train/test_run.py").test_a_stop_saves_and_the_same_command_goes_on_exactly(folder, signal.SIGINT)


def ratio_of_itself(group_policy_losses: Any) -> Any:
    return lambda logp, old, *rest, **options: group_policy_losses(logp, logp.detach(), *rest, **options)


def learning_weights(group_policy_losses: Any) -> Any:
    """CISPO without its stop-gradient: the weight learns, and not the log-probability alone."""

    def broken(logp: Any, old: Any, advantages: Any, *rest: Any, form: str = "clip", **options: Any) -> Any:
        if form == "clip":
            return group_policy_losses(logp, old, advantages, *rest, **options)
        return -(logp - old).exp().clamp(max=1.2) * advantages * logp, {"clip_fraction": torch.tensor(0.25)}

    return broken


def accumulated(parts: Parts) -> None:
    file_of("train/test_objective.py").test_many_passes_are_one(parts.make_decoder, parts.runtime, 5)


def cached(parts: Parts) -> None:
    tests = file_of("models/test_decoder.py")
    tests.test_cached_equals_uncached_for_prompts_of_many_lengths(tests.LLAMA)


def cached_with_window(parts: Parts) -> None:
    tests = file_of("models/test_decoder.py")
    tests.test_cached_equals_uncached_for_prompts_of_many_lengths(tests.GEMMA3)


def packed(parts: Parts) -> None:
    tests = file_of("models/test_decoder.py")
    tests.test_a_packed_batch_is_its_rows_apart_in_values_and_gradients(tests.LLAMA)


def rollout_without_dropout(parts: Parts) -> None:
    file_of("generation/test_engine.py").test_dropout_is_off_while_generating()


def estimated_by_hand(parts: Parts) -> None:
    file_of("stages/test_ppo.py").test_estimates_by_hand(ppo_config())


def ppo_losses_by_hand(parts: Parts) -> None:
    tests, loaded, config = file_of("stages/test_ppo.py"), ppo_loaded(parts), ppo_config()
    prompts = [chat.render_prompt(parts.words, [Message("user", f"{name} asks.")]) for name in "ABCDEFGH"]
    tests.test_both_losses_by_hand(loaded, tests.gather(loaded, prompts, 1, config), config)


def gradients_cleared(parts: Parts) -> None:
    file_of("train/test_optimizer.py").test_a_step_leaves_no_gradient_to_the_next(parts.make_decoder)


def cut_rows_have_no_end(parts: Parts) -> None:
    file_of("train/test_examples.py").test_an_answer_that_was_cut_has_no_end(parts.words)


def torn_checkpoint_passed_over(parts: Parts) -> None:
    folder = parts.folder / str(len(list(parts.folder.iterdir())))
    file_of("train/test_checkpoint.py").test_a_torn_checkpoint_is_named_and_the_one_before_is_taken(folder, "flip")


def trained_tokenizer(parts: Parts) -> None:
    Tokenizer.train(["a rose is a rose"], 290)


GAE_BY_HAND = suite_test("functional/test_advantages.py", "test_gae_by_hand", 1.0, 0.95, [0.3921, 0.518, 0.44, 0.2])
CLIP_BY_HAND = suite_test("functional/test_losses.py", "test_ppo_clip_by_hand", 1, 1.5, -1.2, 0.0)
VALUE_BY_HAND = suite_test("functional/test_losses.py", "test_value_loss_by_hand")
RANKING_BY_HAND = suite_test("functional/test_losses.py", "test_ranking_loss_by_hand")
PRICE_STAYS = suite_test(
    "functional/test_kl.py", "test_the_adaptive_coefficient_stays_positive_and_moves_towards_the_target"
)
REWARDS_BY_HAND = suite_test("functional/test_rewards.py", "test_token_rewards_by_hand")
NAN_OUTSIDE = suite_test(
    "functional/test_losses.py",
    "test_what_is_masked_changes_no_loss_and_no_gradient",
    losses.ppo_policy_loss,
    0.2,
    float("nan"),
)
WILSON_BY_HAND = suite_test("functional/test_statistics.py", "test_wilson_by_hand", 55, 100, 0.452446, 0.643855)
ORDERS = suite_test("data/test_batches.py", "test_epochs_and_seeds_are_unrelated")
DIALOGUES = suite_test("data/test_splits.py", "test_dialogues_that_open_alike_have_one_key")
SEEDS = suite_test("test_seeds.py", "test_seeds_are_stable_and_differ_by_purpose")
LOGPROBS = passes_test("test_row_logprobs_are_each_rows_own", "runtime", 8, 1.0)
REWARD_PLACE = passes_test("test_a_reward_is_read_at_the_last_token_even_if_it_is_no_end", "words", "runtime")
VALUE_PLACE = passes_test("test_values_are_read_before_each_trained_token", "runtime")
COOL, WARM = bf16_iteration(0.7), bf16_iteration(1.0)
NEIGHBOURS = engine_test("test_answers_do_not_depend_on_the_number_of_rows_nor_on_the_neighbours")
SAMPLED = engine_test(
    "test_log_probabilities_are_those_of_a_full_forward_under_the_same_sampling",
    Sampling(temperature=0.6, max_new_tokens=20),
)

BASELINES = suite_test("stages/test_reinforce.py", "test_no_baseline_has_the_answers_own_return_in_it")
N_STEPS = suite_test("functional/test_advantages.py", "test_n_step_advantages_by_hand", 2, -0.104)
PASS_AT_K = suite_test("functional/test_advantages.py", "test_pass_at_k_by_hand")
GROUP_SCALES = suite_test("functional/test_advantages.py", "test_the_scale_and_the_baseline_are_arguments")
RLOO_BY_HAND = suite_test("functional/test_advantages.py", "test_rloo_by_hand")
GROUP_LOSSES = suite_test("functional/test_losses.py", "test_group_losses_by_hand")
CONJUGATE_GRADIENT = suite_test("functional/test_natural_gradient.py", "test_conjugate_gradient_by_hand")
TRUST_REGION = suite_test("functional/test_natural_gradient.py", "test_the_step_by_hand")
BEST_OF_GROUP = suite_test(
    "functional/test_advantages.py", "test_the_best_of_a_group_are_marked_and_of_equal_scores_the_first"
)
ONLINE_PAIRS = suite_test("stages/test_online_dpo.py", "test_pairs_and_their_loss_by_hand")
IMPORTANCE_WEIGHTS = suite_test(
    "functional/test_importance_sampling.py", "test_weights_by_hand", "truncate", "sequence",
    [2.0, 2.0, math.exp(-0.9), math.exp(-0.9)], [1, 1, 0, 0],
)  # fmt: skip
DUAL_CLIP = suite_test("functional/test_losses.py", "test_clip_higher_and_dual_clip_by_hand", -1, 4.0, -3.0, 0)
CLIP_HIGHER = suite_test("functional/test_losses.py", "test_clip_higher_and_dual_clip_by_hand", 1, 1.5, 1.28, 0)
TOKEN_MEANS = suite_test("functional/test_losses.py", "test_means_of_tokens_by_hand")
KL_LOSSES = suite_test(
    "functional/test_kl.py", "test_which_gradient_each_estimate_has_as_a_loss", "k2", [0.263080, -0.175387, -0.087693]
)

Mutation = tuple[str, str, Callable[[Any], Any], Callable[[Parts], None]]
MUTATIONS: list[Mutation] = [
    # what would go wrong silently, what is replaced, by what, and the check that notices
    ("a word of the user is trained, the answer's end is not", "text.chat:render", shifted_mask, conversation_by_hand),
    ("an answer learns to go on for ever", "text.chat:render", eos_untrained, conversation_by_hand),
    ("conversations begin as no text ever did", "text.chat:_ids", two_bos, conversation_by_hand),
    ("masking the padding masks EOS", "text.tokenizer:PAD", lambda pad: "<|eos|>", trained_tokenizer),
    ("a user writes the assistant's turn", "text.tokenizer:Tokenizer.encode", contents_as_templates, encoded_by_hand),
    ("a token is predicted from itself", "data.batches:targets", prediction_of_itself, LOGPROBS),
    ("every epoch has the same order", "data.batches:shuffled", lambda f: lambda n, seed, epoch: f(n, seed, 0), ORDERS),
    ("prompts of the training are in the held-out part", "data.splits:opening_key", lambda f: lambda turns, name: name,
     DIALOGUES),
    ("a row reads the rows before it", "models.attention:attend_rows", one_long_row, packed),
    ("a cached step forgets the window", "models.attention:row_blocks", whole_cache, cached_with_window),
    ("with a cache, tokens stand one place late", "models.decoder:Decoder.apply_layers", late_positions, cached),
    ("the reward is of the answer without its end", "train.forward:rewards", early_reward, REWARD_PLACE),
    ("the critic sees the action it is to judge", "train.forward:masked_values", late_value, VALUE_PLACE),
    ("the ratio compares two temperatures", "train.forward:logprobs_of_hidden", no_temperature, ppo_iteration),
    ("the updates are of another policy than the samples", "train.loading:load_policy", dropout_left_on,
     ppo_iteration),
    ("in bf16 the ratio compares two temperatures", "train.forward:logprobs_of_hidden", no_temperature, COOL),
    ("in bf16 the updates are of another policy", "train.loading:load_policy", dropout_left_on, COOL),
    ("in bf16 samples have the probabilities of others", "generation.sampling:sample", plain_logprobs, COOL),
    ("in bf16 the samples are of a temperature near by", "generation.rollout:generate", drawn_by(temperature=0.75),
     COOL),
    ("in bf16 the samples are of another temperature", "generation.rollout:generate", drawn_by(temperature=0.9), WARM),
    ("in bf16 the samples leave out what is unlikely", "generation.rollout:generate", drawn_by(top_p=0.9), COOL),
    ("in bf16 the samples leave out a little", "generation.rollout:generate", drawn_by(top_p=0.98), WARM),
    ("in bf16 the samples are among few tokens", "generation.rollout:generate", drawn_by(top_k=20), WARM),
    ("in bf16 the samples shun what was said", "generation.rollout:generate", drawn_by(repetition_penalty=1.1), COOL),
    ("the reference sees another temperature", "train.forward:compute_logprobs", reference_at_one,
     starts_at_the_reference),
    ("the reference gives what is never drawn", "generation.rollout:generate", drawn_by(top_p=0.9),
     starts_at_the_reference),
    ("samples come from a policy with holes", "generation.engine:evaluating", lambda f: nullcontext,
     rollout_without_dropout),
    ("samples have the probabilities of other samples", "generation.sampling:sample", plain_logprobs, SAMPLED),
    ("an answer depends on what is sampled beside it", "seeds:uniforms",
     lambda f: lambda seed, count: torch.rand(count), NEIGHBOURS),
    ("an answer that was cut is not punished", "generation.requests:Completion.ended", lambda f: True,
     cut_answers_have_not_ended),
    ("every step draws the same numbers", "seeds:derive_seed", lambda f: lambda seed, *purpose: f(seed), SEEDS),
    ("the policy is paid for leaving its reference", "functional.kl:k1", lambda f: lambda logp, ref: f(ref, logp),
     REWARDS_BY_HAND),
    ("the price on KL goes below zero", "functional.kl:clip", lambda f: lambda value, limit: value, PRICE_STAYS),
    ("the score is of a token that did not earn it", "functional.rewards:token_rewards", score_at_the_start,
     REWARDS_BY_HAND),
    ("KL is measured to the policy itself", "rl.models:load_models", trains_along, frozen_models_stay),
    ("advantages look one step back", "functional.advantages:gae", own_next_value, GAE_BY_HAND),
    ("padding pulls the advantages to zero", "functional.masked:standardize", padding_counted,
     suite_test("functional/test_masked.py", "test_standardize_by_hand")),
    ("NaN in the padding reaches the gradient", "functional.masked:zero_outside", lambda f: lambda x, mask: x * mask,
     NAN_OUTSIDE),
    ("what should be clipped is what is learned", "functional.losses:ppo_policy_loss", the_larger_term, CLIP_BY_HAND),
    ("the critic is held to nothing", "functional.losses:value_loss", clipped_at_the_targets, VALUE_BY_HAND),
    ("the policy is never held back", "functional.losses:ppo_policy_loss", nothing_clipped, ppo_losses_by_hand),
    ("the critic is never held back", "functional.losses:value_loss", clipped_at_itself, ppo_losses_by_hand),
    ("an answer is compared with itself", "functional.advantages:rloo_advantages",
     lambda f: lambda scores: scores - scores.mean(1, keepdim=True), RLOO_BY_HAND),
    ("REINFORCE's baseline has the answer's own return in it", "stages.reinforce:Reinforce.baselines",
     lambda f: lambda self, totals: totals.mean().expand_as(totals), BASELINES),
    ("n-step returns have one step more", "functional.advantages:n_step_advantages",
     lambda f: lambda rewards, values, mask, gamma, n: f(rewards, values, mask, gamma, n + 1), N_STEPS),
    ("the group's deviation is of one answer more", "functional.advantages:grpo_advantages",
     lambda f: lambda scores, *rest, **more: f(scores, *rest, **more) * 1.1547, GROUP_SCALES),
    ("the best of k is among one more", "functional.advantages:pass_at_k_advantages",
     lambda f: lambda scores, k: f(scores, k + 1), PASS_AT_K),
    ("the group's ratio is never above 1", "functional.losses:group_policy_losses", ratio_of_itself, GROUP_LOSSES),
    ("the sampler's correction is upside down", "functional.importance_sampling:importance_weights",
     lambda f: lambda logp, sampler_logp, *rest: f(sampler_logp, logp, *rest), IMPORTANCE_WEIGHTS),
    ("the sampler's correction is not bounded", "functional.importance_sampling:importance_weights",
     lambda f: lambda logp, sampled, answers, count, cap=2.0, *rest: f(logp, sampled, answers, count, 1e9, *rest),
     IMPORTANCE_WEIGHTS),
    ("the sampler's correction is of another answer", "functional.masked:segment_sums",
     lambda f: lambda x, segments, count: f(x, segments.roll(1), count), IMPORTANCE_WEIGHTS),
    ("the natural gradient's step raises the loss", "functional.natural_gradient:trust_region_step",
     lambda f: lambda *arguments, **more: -f(*arguments, **more), TRUST_REGION),
    ("the trust region is four times as wide", "functional.natural_gradient:trust_region_step",
     lambda f: lambda product, gradient, delta, *rest, **more: f(product, gradient, 4 * delta, *rest, **more),
     TRUST_REGION),
    ("the damping is left out", "functional.natural_gradient:trust_region_step",
     lambda f: lambda product, gradient, delta, damping=0.1, *rest: f(product, gradient, delta, 0.0, *rest),
     TRUST_REGION),
    ("conjugate gradient ends a product early", "functional.natural_gradient:conjugate_gradient",
     lambda f: lambda product, b, iterations=10, *rest, **more: f(product, b, min(iterations, 2) - 1, *rest, **more),
     CONJUGATE_GRADIENT),
    ("the Fisher matrix is of another temperature", "rl.trust_region:fisher_product",
     lambda f: lambda policy, rows, vector, runtime, limit, temperature=1.0: f(policy, rows, vector, runtime, limit),
     fisher_product_by_hand),
    ("the Fisher matrix is a mean over all tokens", "rl.trust_region:fisher_product",
     lambda f: lambda policy, rows, *rest: f(policy, [(i, [False, *[True] * (len(i) - 1)]) for i, _ in rows], *rest),
     fisher_product_by_hand),
    ("the constraint is not checked", "rl.trust_region:TrustRegion.divergence", lambda f: lambda self, old: 0.0,
     step_within_the_constraint),
    ("the worst answers are imitated", "functional.advantages:best_of_group",
     lambda f: lambda scores, *count: f(-scores, *count), BEST_OF_GROUP),
    ("an answer more is imitated", "functional.advantages:best_of_group",
     lambda f: lambda scores, count=1: f(scores, count + 1), BEST_OF_GROUP),
    ("online-dpo prefers the worse answer", "stages.online_dpo:OnlineDPO.select",
     lambda f: lambda *a: [pair[::-1] for pair in f(*a)], ONLINE_PAIRS),
    ("online-dpo has no reference", "train.pair_loss:pair_loss", no_reference, ONLINE_PAIRS),
    ("the value head on the trunk learns nothing", "rl.critic:add_value_loss",
     lambda f: lambda loss, stats, *rest: (loss, stats), head_on_the_trunk),
    ("a value head beside trpo moves the policy", "rl.critic:critic_loss", trunk_moves, head_on_the_trunk),
    ("CISPO's weights learn", "functional.losses:group_policy_losses", learning_weights, GROUP_LOSSES),
    ("advantages have the wrong sign", "functional.losses:clipped_surrogate",
     lambda f: lambda ratio, advantages, *rest: f(ratio, -advantages, *rest), GROUP_LOSSES),
    ("large ratios of bad answers are not held", "functional.losses:clipped_surrogate",
     lambda f: lambda ratio, advantages, clip, high=None, dual=0.0: f(ratio, advantages, clip, high), DUAL_CLIP),
    ("the higher clip is the lower one", "functional.losses:clipped_surrogate",
     lambda f: lambda ratio, advantages, clip, high=None, dual=0.0: f(ratio, advantages, clip, clip), CLIP_HIGHER),
    ("long answers count more than short ones", "functional.losses:mean_of_tokens",
     lambda f: lambda numbers, answers, count, mean_over, constant=1: f(numbers, answers, count, "tokens"),
     TOKEN_MEANS),
    ("the mean of an answer is of the tokens before it", "functional.masked:segment_means",
     lambda f: lambda x, segments, count: f(x.roll(1), segments, count), GROUP_LOSSES),
    ("KL in the loss has the gradient of the other KL", "functional.kl:k2", lambda f: kl.k3, KL_LOSSES),
    ("KL is between two temperatures", "train.forward:compute_logprobs", reference_at_one,
     passes_test("test_row_logprobs_are_each_rows_own", "runtime", 8, 0.7)),
    ("an answer that never ended is rewarded for it", "functional.rewards:penalize_missing_eos",
     lambda f: lambda score, ended, penalty: f(score, ended, -penalty),
     suite_test("functional/test_rewards.py", "test_missing_eos_is_subtracted")),
    ("a cut answer is compared as if it had ended", "train.examples:ranking_rows", always_ended, cut_rows_have_no_end),
    ("gradients of the last step are stepped along again", "train.optimizer:Optimizer.step", gradients_kept,
     gradients_cleared),
    ("the worst weights are kept", "train.best:BestWeights.update",
     lambda f: lambda self, metrics, step: f(self, {name: -value for name, value in metrics.items()}, step),
     suite_test("train/test_best.py", "test_the_highest_score_wins_and_comes_back")),
    ("a run goes on from altered weights", "train.checkpoint:is_whole", lambda f: lambda folder: True,
     torn_checkpoint_passed_over),
    ("people's dislikes are learned", "functional.losses:ranking_loss", worse_is_better, RANKING_BY_HAND),
    ("long rankings outweigh short ones", "functional.losses:ranking_loss", mean_over_all_pairs,
     prompts_count_alike),
    ("a margin is not looked at", "functional.losses:ranking_loss",
     lambda f: lambda scores, ranks, prompts=None, margins=None: f(scores, ranks, prompts),
     suite_test("functional/test_losses.py", "test_a_margin_is_in_the_units_of_the_scores")),
    ("DPO's KL is measured from the policy itself", "train.forward:compute_kls",
     lambda f: lambda policy, reference, *rest, **more: f(policy, policy, *rest, **more), kl_of_two_is_above_zero),
    ("DPO's reference moves with the policy", "stages.dpo:DPO.loss", own_reference, dpo_loss_by_hand),
    ("small passes weigh as much as large ones", "train.objective:accumulate", mean_of_means, accumulated),
    ("a resumed run trains a step twice", "train.run:Run.restore", lambda f: lambda *a: max(f(*a) - 1, 0),
     stopped_and_resumed),
    ("a resumed run leaves a step out", "train.run:Run.restore", lambda f: lambda *a: (n := f(*a)) + (n > 0),
     stopped_and_resumed),
    ("an interval ends before it begins", "functional.statistics:wilson", lambda f: lambda *a: f(*a)[::-1],
     WILSON_BY_HAND),
]  # fmt: skip

TWO_SIDED = ("dpo", "ipo", "nca", "sppo", "aot", "apo_zero", "apo_down", "bco", "odds_ratio")
OF_REWARDS = ("nca", "apo_zero", "apo_down", "bco")
ON_PAIRS: list[tuple[str, Callable[[Any], Any], tuple[str, ...]]] = [
    ("the rejected is preferred", swapped, TWO_SIDED),
    ("the rejected is preferred", turned, ("robust", "hinge", "exo")),
    ("beta divides", beta_divides, ("dpo", "ipo", "sppo", "aot")),
    ("beta is in twice", beta_twice, OF_REWARDS),
]
MUTATIONS += [
    (f"{what} in {name}", f"functional.preference_losses:{name}_losses", broken, pair_by_hand(f"{name}_losses"))
    for what, broken, names in ON_PAIRS
    for name in names
]
MUTATIONS += [
    ("the undesirable is preferred by kto", "functional.preference_losses:kto_losses",
     lambda f: lambda r, kl, desirable, *rest: f(r, kl, ~desirable, *rest), kto_by_hand),
    ("beta divides in kto", "functional.preference_losses:kto_losses",
     lambda f: lambda r, kl, desirable, beta, *rest: f(r, kl, desirable, 1 / beta, *rest), kto_by_hand),
    ("kto's estimate of the KL is left out", "functional.preference_losses:kto_losses",
     lambda f: lambda r, kl, *rest: f(r, 0 * kl, *rest), kto_by_hand),
    ("kto's weights are exchanged", "functional.preference_losses:kto_losses",
     lambda f: lambda r, kl, desirable, beta, ours, theirs: f(r, kl, desirable, beta, theirs, ours), kto_by_hand),
    ("no reference in kto", "stages.kto:KTO.loss",
     lambda f: lambda self, rows, sums: f(self, [replace(row, ref_logp=0.0, ref_mismatched=0.0) for row in rows], sums),
     kto_step_by_hand),
]  # fmt: skip
MUTATIONS += [
    ("one order of two texts is read", "train.classification:example_logits",
     lambda f: lambda task, outputs, counts: 2 * outputs[0::2] if task == "similarity" else f(task, outputs, counts),
     task_by_hand("similarity")),
    ("the auxiliary loss is that of the tokens themselves", "train.classification:targets",
     lambda f: lambda batch: (f(batch)[0] + 1, f(batch)[1]), task_by_hand("entailment")),
    ("the label is read at the token before the last", "train.forward:layout_of",
     lambda f: lambda batch: replace(f(batch), last_tokens=f(batch).last_tokens - 1), task_by_hand("classification")),
]  # fmt: skip
MUTATIONS += [
    ("the student's KL from the teacher, in place of the teacher's", "train.distillation:linear_kl",
     lambda f: lambda a, b, c, d, **rest: f(c, d, a, b, **rest), distillation_by_hand),
    ("the teacher reads no context", "train.distillation:DistilledRow.teacher_row",
     lambda f: property(lambda self: self.row), distillation_by_hand),
    ("the rest is left out of the top k", "functional.kl:top_k_kl", without_rest, top_k_by_hand),
]  # fmt: skip
MUTATIONS += [
    ("forward KL is held as reverse", "functional.preference_losses:f_divergence_scores",
     lambda f: lambda r, divergence, alpha: f(r, "reverse_kl", alpha), pair_options_by_hand),
    ("the shorter completion's tokens count less", "functional.preference_losses:desensitized_logps",
     lambda f: lambda logps, longer, alpha: f(logps, ~longer, alpha), pair_options_by_hand),
    ("pairs are weighted by sums", "functional.preference_losses:on_policy_weights",
     lambda f: lambda logps, collisions, lengths: f(logps, collisions, 0 * lengths + 1), pair_options_by_hand),
    ("weights of losses are not read", "train.pair_loss:parse_losses",
     lambda f: lambda specs: dict.fromkeys(f(specs), 1.0), pair_options_by_hand),
    ("bco without its shift", "functional.preference_losses:bco_unpaired_losses",
     lambda f: lambda reward, shift, *rest: f(reward, 0 * shift, *rest), bco_by_hand),
    ("bco's labels are exchanged", "functional.preference_losses:bco_unpaired_losses",
     lambda f: lambda reward, shift, labels, *rest: f(reward, shift, ~labels, *rest), bco_by_hand),
]  # fmt: skip
MUTATIONS += [
    ("good and bad are exchanged in the binary loss", "functional.losses:binary_ranking_loss",
     lambda f: lambda scores, ranks, *rest: f(scores, -ranks, *rest), ranking_types_by_hand),
    ("the best of k is the whole order", "functional.losses:plackett_luce_loss",
     lambda f: lambda *arguments, best_only: f(*arguments), ranking_types_by_hand),
    ("centring takes the difference", "functional.losses:centering_penalty",
     lambda f: lambda scores, ranks, prompts: f(scores * torch.tensor([1.0, -1.0, -1.0, 1.0, -1.0]), ranks, prompts),
     ranking_types_by_hand),
]  # fmt: skip
MUTATIONS += [
    (f"no reference in {loss}", "train.pair_loss:pair_loss", no_reference, step_by_hand(loss))
    for loss in ("sigmoid", "hinge", "ipo", "sppo", "aot", "apo_zero")
]
MUTATIONS += [
    (f"prompts are counted in {loss}", "train.pair_loss:pair_loss", prompts_counted, step_by_hand(loss))
    for loss in ("ipo", "apo_zero")
]
MUTATIONS += [
    ("kto's estimate of the KL learns", "functional.preference_losses:kto_losses",
     lambda f: lambda r, kl, *rest: f(r - kl + kl.detach(), kl, *rest), kto_by_hand),
    ("bco's shift learns", "functional.preference_losses:bco_unpaired_losses",
     lambda f: lambda reward, shift, *rest: f(reward - shift + shift.detach(), shift, *rest), bco_by_hand),
    ("weights of pairs learn", "functional.preference_losses:on_policy_weights",
     lambda f: lambda logps, collisions, lengths: ((logps - collisions) / lengths).sum(-1).exp(),
     pair_options_by_hand),
    ("the sampler's correction learns", "functional.importance_sampling:importance_weights",
     lambda f: lambda logp, *rest: ((logp - logp.detach()).exp() * f(logp, *rest)[0], f(logp, *rest)[1]),
     IMPORTANCE_WEIGHTS),
    ("a margin is taken the other way round", "functional.preference_losses:dpo_losses",
     lambda f: lambda chosen, rejected, beta, smoothing=0.0, margin=0.0: f(chosen, rejected, beta, smoothing, -margin),
     suite_test("functional/test_preference_losses.py", "test_dpo_with_a_margin_by_hand")),
    ("dpo's labels are smoothed beyond one half", "functional.preference_losses:dpo_losses",
     lambda f: lambda chosen, rejected, beta, smoothing=0.0: f(chosen, rejected, beta, smoothing and 1 - smoothing),
     pair_by_hand("dpo_losses")),
    *((f"{name}'s labels are smoothed beyond one half", f"functional.preference_losses:{name}_losses",
       lambda f: lambda gap, smoothing: f(gap, 1 - smoothing), pair_by_hand(f"{name}_losses"))
      for name in ("robust", "exo")),
    ("Plackett-Luce ranks the worst first", "functional.losses:plackett_luce_loss",
     lambda f: lambda scores, ranks, *rest, **more: f(scores, -ranks, *rest, **more),
     suite_test("functional/test_losses.py", "test_plackett_luce_by_hand")),
    ("labels of rankings are not smoothed", "functional.losses:ranking_loss",
     lambda f: lambda *arguments, label_smoothing=0.0: f(*arguments), ranking_types_by_hand),
    ("PPO's KL penalty is a bonus", "functional.losses:ppo_kl_penalty_loss",
     lambda f: lambda *arguments, kl_coef: f(*arguments, -kl_coef),
     suite_test("functional/test_losses.py", "test_ppo_kl_penalty_by_hand")),
    ("PPO's KL penalty falls where the KL is large", "functional.kl:adapt_kl_penalty",
     lambda f: lambda coef, kl, target: f(coef, target, kl),
     suite_test("functional/test_kl.py", "test_coefficient_halves_and_doubles_outside_its_band", 0.0151, 2.0)),
    ("the entropy is punished", "rl.algorithm:regularizers",
     lambda f: lambda models, options, coef, batch, logps, entropies, old: f(
         models, options, coef, batch, logps, -entropies, old
     ), terms_of_the_loss),
    ("KL in the loss is a bonus", "rl.algorithm:regularizers",
     lambda f: lambda models, options, coef, *rest: f(models, options, -coef, *rest), terms_of_the_loss),
    ("a token is rewarded for what came before it", "functional.advantages:discounted_returns",
     lambda f: lambda rewards, mask, gamma: f(rewards.flip(1), mask.flip(1), gamma).flip(1),
     suite_test("functional/test_advantages.py", "test_discounted_returns_by_hand")),
    ("the greedy answer is no baseline", "functional.advantages:grpo_advantages",
     lambda f: lambda scores, scale="group", baselines=None, **more: f(scores, scale, **more), GROUP_SCALES),
    ("long answers are punished too late", "functional.rewards:overlong_penalty",
     lambda f: lambda lengths, limit, buffer: f(lengths, limit + buffer, buffer),
     suite_test("functional/test_rewards.py", "test_the_overlong_penalty_falls_on_a_line")),
    ("groups that teach are drawn anew", "rl.dynamic_sampling:equal_groups",
     lambda f: lambda scores, samples: sorted({*range(len(scores) // samples)} - {*f(scores, samples)}),
     suite_test("rl/test_dynamic_sampling.py", "test_groups_of_equal_scores_are_replaced_with_all_their_numbers")),
    ("the worst of an ensemble is its best", "functional.rewards:combine_scores",
     lambda f: lambda scores, combination, *k: -f(-scores, combination, *k),
     suite_test("functional/test_rewards.py", "test_combinations_of_scores_by_hand", "min", [1.0, 1.0])),
    ("an ensemble likes what its members differ on", "functional.rewards:combine_scores",
     lambda f: lambda scores, combination, k=1.0: f(scores, combination, -k),
     suite_test("functional/test_rewards.py", "test_combinations_of_scores_by_hand", "var", [2 - 0.5 * 0.666667, 1.0])),
    ("the best of n is among one more", "evaluation.best_of:selection_probabilities",
     lambda f: lambda n, count: f(min(n + 1, count), count),
     suite_test("evaluation/test_best_of.py", "test_the_curve_is_the_mean_over_all_ways_to_pick")),
    ("the law of gold rises in the end", "functional.overoptimization:fit_law",
     lambda f: lambda distances, gains, law: (f(distances, gains, law)[0], -f(distances, gains, law)[1]),
     suite_test("functional/test_overoptimization.py", "test_a_fit_gives_back_the_law_of_its_points", "rl", 0.8, 0.5)),
]  # fmt: skip
CUTS_BY_HAND = suite_test("control/test_experience.py", "test_by_hand")
MUTATIONS += [
    ("a time limit is taken for an end", "control.experience:prepare",
     lambda f: lambda rollout, *rest: f(cuts_as_ends(rollout), *rest), CUTS_BY_HAND),
    ("the next episode's first value stands for the cut one", "control.experience:prepare",
     lambda f: lambda rollout, *rest: f(
         replace(rollout, cut_observations=rollout.last_observations[: len(rollout.cut_observations)]), *rest
     ), CUTS_BY_HAND),
    ("an end is valued as if more came", "control.experience:prepare",
     lambda f: lambda rollout, *rest: f(replace(rollout, terminated=rollout.truncated), *rest), CUTS_BY_HAND),
    ("steps that were not scale the rewards", "control.normalization:RewardScaler.scale",
     lambda f: lambda self, rewards, ended, mask: f(self, rewards, ended, mask | True),
     suite_test("control/test_normalization.py", "test_steps_that_were_not_are_not_counted")),
    ("the line search does not look at the KL", "functional.natural_gradient:line_search",
     lambda f: lambda parameters, step, loss, measure, limit, halvings: f(
         parameters, step, loss, measure, math.inf, halvings
     ), suite_test(
         "functional/test_natural_gradient.py",
         "test_the_line_search_takes_the_longest_step_that_is_better_and_allowed", 1.5, 2, 1.0,
     )),
    ("clips go over the end of an episode", "control.clips:ClipCutter.add",
     lambda f: lambda self, rollout, pictures: f(
         self, replace(rollout, truncated=rollout.truncated & False), pictures
     ), suite_test("control/test_clips.py", "test_clips_go_on_in_the_next_rollout_and_never_over_an_end")),
    ("comparisons that are held out are learned from", "control.comparisons:Comparisons.draw_samples",
     lambda f: lambda self: (f(self), setattr(self, "weights", self.weights + self.held_out)),
     suite_test("control/test_comparisons.py", "test_samples_and_held_out_do_not_depend_on_what_comes_later")),
    ("no answer is taken for a coin's", "functional.losses:preference_losses",
     lambda f: lambda *scores, noise=0.0, **more: f(*scores, **more),
     suite_test("control/test_reward_learning.py", "test_the_loss_is_that_of_each_member_on_its_own_sample")),
    ("the better clip is taken for the worse", "control.comparisons:Comparisons.answer",
     lambda f: lambda self, answers: f(self, {number: 1 - value for number, value in answers.items()}),
     suite_test("control/test_reward_learning.py", "test_what_is_learned_orders_comparisons_that_are_held_out")),
]  # fmt: skip


@pytest.mark.parametrize(("what", "target", "broken", "check"), MUTATIONS, ids=[row[0] for row in MUTATIONS])
def test_the_mistake_is_caught(
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    target: str,
    broken: Callable[[Any], Any],
    check: Callable[[Parts], None],
) -> None:
    check(parts)
    mutate(monkeypatch, target, broken)
    with pytest.raises(CAUGHT) as caught:
        check(parts)
    assert caught.type is not RuntimeError or STOPPED in str(caught.value)


def mutate(monkeypatch: pytest.MonkeyPatch, target: str, broken: Callable[[Any], Any]) -> None:
    """Replace `module:name` wherever the package has imported it, or `module:Class.method` in its class."""
    module_name, name = target.split(":")
    holder: Any = importlib.import_module(f"amenable.{module_name}")
    if "." in name:
        owner, method = name.split(".")
        holder = getattr(holder, owner)
        monkeypatch.setattr(holder, method, broken(getattr(holder, method)))
        return
    original = getattr(holder, name)
    replacement = broken(original)
    for module in [module for key, module in sys.modules.items() if key.startswith("amenable.")]:
        if vars(module).get(name) is original:
            monkeypatch.setattr(module, name, replacement)
