"""Training steps, PPO iterations and decoding on seeded data, by the functions that the stages call.

A workload builds its models and data from a seed; its `step(n)` does the n-th step and returns the tokens that it
computed and the operations that it needed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from amenable.data.mixture import Mixed
from amenable.data.types import Conversation, Message, Prompt
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import lora
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.lora import copy_to_train
from amenable.models.presets import preset
from amenable.recipes.planning.workload import forward_flops
from amenable.rewards.model import ModelReward
from amenable.rewards.spec import load_reward
from amenable.rl.algorithm import Algorithm
from amenable.rl.experience import Experience, TokenizedPrompt, objective_metrics
from amenable.rl.improve import collect_experience, measure_rounding, update
from amenable.rl.models import Models
from amenable.rl.options import OnlineOptions
from amenable.seeds import seeded_generator
from amenable.stages import dpo, ppo, pretrain, reward, sft
from amenable.text.tokenizer import MIN_VOCAB_SIZE, SPECIAL_TOKENS, Tokenizer
from amenable.train import defaults, loading
from amenable.train.defaults import traits_of
from amenable.train.examples import text_row
from amenable.train.forward import Row
from amenable.train.objective import NextToken, accumulate
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.rankings import Pair, TokenizedRanking, add_reference_logps
from amenable.train.runtime import Runtime
from benchmarks.machine import seconds_of

SizeName = Literal["5M", "124M", "135M", "smoke"]
LLAMA_135M = DecoderConfig(
    49152,
    context_length=2048,
    num_layers=30,
    hidden_size=576,
    num_heads=9,
    num_kv_heads=3,
    mlp_width=1536,
    positions="rope",
    norm="rms",
    activation="swiglu",
    bias=False,
)
"""the shape of SmolLM2-135M"""

ANSWERS = 6  # answers to a prompt in the reward model's rankings


@dataclass(frozen=True)
class Size:
    """Model, and batch sizes of its steps."""

    shape: DecoderConfig
    rows: int = 16
    """rows in a pretraining step; SFT has twice as many, of about half the length"""
    length: int = 256
    """tokens of a full row; prompts and answers have 1/16 to 1/2 of it"""
    prompts: int = 128
    """prompts in a PPO iteration"""


SIZES: dict[SizeName, Size] = {
    "5M": Size(preset("tiny-gpt2")),
    "124M": Size(preset("gpt2"), prompts=32),
    "135M": Size(LLAMA_135M, rows=4, prompts=16),
    "smoke": Size(
        DecoderConfig(320, context_length=64, num_layers=2, hidden_size=32, num_heads=2), rows=2, length=32, prompts=4
    ),
}


@dataclass(frozen=True)
class Work:
    """Tokens and operations of one step."""

    tokens: dict[str, int]
    """tokens by the line of the table that they count for"""
    flops: float = 0.0
    """operations that the step needs; 0 where no share of the ceiling is printed"""
    note: str = ""


@dataclass(frozen=True)
class Workload:
    """Work to be timed: `step(n)` does the n-th step, from 0."""

    description: str
    step: Callable[[int], Work]


def pretrain_row(size: Size, runtime: Runtime, muon: bool = True) -> Workload:
    """Rows of one length, the optimizer as `amenable pretrain` has it, or AdamW for everything."""
    config, _ = defaults.pretrain(pretrain.Config(), traits_of(size.shape))
    optimizer = config.optimizer if muon else replace(config.optimizer, muon_learning_rate=0.0)
    rows = [text_row(ids) for ids in sequences(size, [size.length] * size.rows)]
    name = "Muon" if muon else "AdamW"
    workload = next_token(f"pretrain-{name.lower()}", size.shape, rows, optimizer, config.max_tokens_per_pass, runtime)
    return replace(workload, description=f"{size.rows} x {size.length} tokens, {name}")


def sft_row(size: Size, runtime: Runtime) -> Workload:
    """Prompts and answers of mixed lengths, answers trained, dropout as the demo has it."""
    config, _ = defaults.sft(sft.Config(dropout=0.1), traits_of(size.shape))
    rows = dialogues(size, 2 * size.rows)
    shape = replace(size.shape, dropout=config.dropout)
    workload = next_token("sft", shape, rows, config.optimizer, config.max_tokens_per_pass, runtime)
    return replace(workload, description=f"{described(rows)}, dropout {config.dropout}")


def next_token(
    label: str, shape: DecoderConfig, rows: list[Row], config: OptimizerConfig, limit: int, runtime: Runtime
) -> Workload:
    """Updates by the next-token loss on the same rows."""
    decoder = Decoder(shape, runtime.device).train()
    optimizer = Optimizer([decoder], config)

    def step(number: int) -> Work:
        accumulate(NextToken(decoder), rows, runtime, limit)
        optimizer.step()
        return training_work(label, shape, rows)

    return Workload("", step)


def reward_row(size: Size, runtime: Runtime) -> Workload:
    """Rankings of six answers, all pairs of a prompt in one element of the batch."""
    config, _ = defaults.reward(reward.Config(), traits_of(size.shape))
    model = scalar_model(size.shape, runtime.device)
    optimizer = Optimizer([model], config.optimizer)
    prompts = max(1, config.prompts_per_step * size.rows // 16)
    items = rankings(size, prompts)
    rows = [row for item in items for row in item.rows]

    def step(number: int) -> Work:
        accumulate(reward.RankingObjective(model), items, runtime, config.max_tokens_per_pass)
        optimizer.step()
        return training_work("reward", size.shape, rows, unembedded=False)

    return Workload(f"{prompts} prompts x {ANSWERS} answers, {described(rows)}", step)


def dpo_row(size: Size, runtime: Runtime) -> Workload:
    """Pairs; the reference's log-probabilities are computed once, before the clock starts, as the stage does."""
    config, _ = defaults.dpo(dpo.Config(), traits_of(size.shape))
    policy = Decoder(size.shape, runtime.device).eval()
    items = rankings(size, max(1, config.batch_size * size.rows // 16))
    pairs = [Pair(item.rows[0], item.rows[1]) for item in items]
    pairs = add_reference_logps(policy, Mixed([""], [pairs]), runtime, config.max_tokens_per_pass)
    optimizer = Optimizer([policy], config.optimizer)
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]

    def step(number: int) -> Work:
        accumulate(dpo.DPO(policy, config), pairs, runtime, config.max_tokens_per_pass)
        optimizer.step()
        return training_work("dpo", size.shape, rows)

    return Workload(f"{len(pairs)} pairs, {described(rows)}", step)


def ppo_row(size: Size, runtime: Runtime) -> Workload:
    """Whole iterations: sample, score, learn. EOS is as unlikely as any token: nearly all answers have full length."""
    config = ppo.Config(prompts_per_step=size.prompts, max_new_tokens=3 * size.length // 8)
    config, _ = defaults.online(config, traits_of(size.shape), traits_of(size.shape))
    algorithm, models = make_ppo(size.shape, runtime, config)
    prompts = sequences(size, prompt_lengths(size, size.prompts))
    by_function, texts = load_reward(near_twenty_words, runtime), ["word " * config.max_new_tokens] * 1000
    messages = [(Message("user", "word " * size.length),)] * 1000

    def step(number: int) -> Work:
        gathering, experience = seconds_of(lambda: sample_and_score(algorithm, models, config, prompts, number))
        learning, _ = seconds_of(lambda: learn(algorithm, models, config, experience, number))
        rollout = experience.rollout
        lengths = [len(ids) for ids, _ in rollout.rows()]
        generated = int(rollout.lengths.sum())
        flops = ppo_flops(size.shape, lengths, generated, config.num_ppo_epochs)
        scoring, _ = seconds_of(lambda: by_function(messages, texts, ended=[True] * 1000))
        whole = gathering + learning
        note = f"learning {learning / whole:.0%} of the time, 1,000 rewards by a function {scoring / whole:.2%}"
        return Work({"ppo, generated": generated, "ppo, all": sum(lengths)}, flops, note)

    return Workload(f"{config.samples} answers of {config.max_new_tokens}", step)


def near_twenty_words(prompt: Conversation, completion: str, ended: bool) -> float:
    """Return a reward as a user writes one: of one completion."""
    return ended - abs(len(completion.split()) - 20) / 20


def decode_row(size: Size, runtime: Runtime, answers: int) -> Workload:
    """Prompts of mixed lengths, read and continued at once to a fixed length."""
    decoder = Decoder(size.shape, runtime.device).eval()
    prompts = sequences(size, prompt_lengths(size, answers))
    sampling = Sampling(max_new_tokens=size.length // 2)

    def step(number: int) -> Work:
        with runtime.autocast():
            groups = generate(decoder, prompts, sampling, eos_id=None, seeds=number, max_batch_size=answers)
        return Work({f"decode-{answers}": sum(len(answer.ids) for group in groups for answer in group)})

    return Workload(f"{answers} answers of {sampling.max_new_tokens}", step)


ROWS: dict[str, Callable[[Size, Runtime], Workload]] = {
    "pretrain-muon": pretrain_row,
    "pretrain-adamw": partial(pretrain_row, muon=False),
    "sft": sft_row,
    "reward": reward_row,
    "dpo": dpo_row,
    "ppo": ppo_row,
    "decode-32": partial(decode_row, answers=32),
    "decode-128": partial(decode_row, answers=128),
}


def sequences(size: Size, lengths: Sequence[int]) -> list[list[int]]:
    """Random ids of these lengths, no special tokens among them."""
    generator = seeded_generator(0, "ids", len(lengths))
    return [
        torch.randint(len(SPECIAL_TOKENS), size.shape.vocab_size, (length,), generator=generator).tolist()
        for length in lengths
    ]


def prompt_lengths(size: Size, count: int, purpose: str = "prompts") -> list[int]:
    """Even odds for every length from 1/16 to 1/2 of a full row."""
    generator = seeded_generator(0, purpose, count)
    return torch.randint(size.length // 16, size.length // 2 + 1, (count,), generator=generator).tolist()


def dialogues(size: Size, count: int) -> list[Row]:
    """A prompt and an answer a row, both of mixed lengths; the answer is trained."""
    prompts, answers = prompt_lengths(size, count), prompt_lengths(size, count, "answers")
    ids = sequences(size, [sum(pair) for pair in zip(prompts, answers)])
    marks = [[False] * prompt + [True] * answer for prompt, answer in zip(prompts, answers)]
    return list(zip(ids, marks))


def rankings(size: Size, count: int) -> list[TokenizedRanking]:
    """Prompts with six answers each, all ranks different."""
    prompts = sequences(size, prompt_lengths(size, count))
    answers = sequences(size, prompt_lengths(size, ANSWERS * count, "answers"))
    items = []
    for i, prompt in enumerate(prompts):
        group = answers[ANSWERS * i : ANSWERS * (i + 1)]
        rows = [(prompt + answer, [False] * len(prompt) + [True] * len(answer)) for answer in group]
        items.append(
            TokenizedRanking(rows, [float(rank) for rank in range(1, ANSWERS + 1)], [len(a) for a in group], "")
        )
    return items


def scalar_model(shape: DecoderConfig, device: torch.device | str = "cpu") -> ScalarModel:
    """Return a reward model with random weights."""
    return ScalarModel.from_decoder(Decoder(shape, device), seeded_generator(0, "head")).eval()


def make_ppo(shape: DecoderConfig, runtime: Runtime, config: ppo.Config) -> tuple[ppo.PPO, Models]:
    """Return PPO and its models with random weights: policy and reference alike, reward model and critic alike. With
    adapters all four have one base."""
    device = runtime.device
    policy = Decoder(shape, device).eval()
    if config.lora.rank:
        loading.add_adapters(policy, config.lora, 0, Path("policy"), runtime)
        reference = runtime.inference_copy(lora.without_adapters(policy))
        scorer = ScalarModel.from_decoder(lora.without_adapters(policy)).eval()
        loading.add_adapters(scorer, config.lora, 1, Path("policy"), runtime)
        critic, scorer = copy_to_train(scorer), runtime.to_inference(scorer).requires_grad_(False)
    else:
        frozen = Decoder(shape, device).eval(), scalar_model(shape, device)
        reference, scorer = (runtime.to_inference(model).requires_grad_(False) for model in frozen)
        critic = scalar_model(shape, device)
    words = Tokenizer.train(["of which EOS alone is read"], MIN_VOCAB_SIZE, chat=True)
    reward = load_reward(ModelReward(scorer, words, runtime, config.max_tokens_per_pass), runtime)
    models = Models(policy, reference, words, reward, runtime, (reference, scorer))
    return ppo.PPO(models, critic, config), models


class DistinctTokens:
    """Reward that costs nothing: the number of different ids of an answer."""

    models: tuple[ModelReward, ...] = ()

    def reads_texts(self, tokenizer: Any) -> bool:
        return False

    def scores(self, messages: Any, texts: Any, columns: Any, rows: Sequence[Row], *rest: Any) -> dict[str, Tensor]:
        answers = [{token for token, counts in zip(*row) if counts} for row in rows]
        return {"distinct": torch.tensor([float(len(answer)) for answer in answers])}

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        return parts["distinct"]

    def metrics(self, parts: dict[str, Tensor]) -> dict[str, float]:
        return {}


def make_policy(shape: DecoderConfig, runtime: Runtime) -> Models:
    """Return a policy and a reference with random weights, for an algorithm without a critic, and a reward."""
    policy = Decoder(shape, runtime.device).eval()
    reference = runtime.to_inference(copy.deepcopy(policy)).requires_grad_(False)
    words: Any = SimpleNamespace(stop_ids=())
    reward: Any = DistinctTokens()
    return Models(policy, reference, words, reward, runtime, (reference,))


def sample_and_score(
    algorithm: Algorithm, models: Models, config: OnlineOptions, prompts: list[list[int]], number: int
) -> Experience:
    """Return the experience of iteration `number` on prompts of these ids."""
    tokenized = [TokenizedPrompt(Prompt((), str(i)), ids) for i, ids in enumerate(prompts)]
    return collect_experience(algorithm, models, config, tokenized, ("rollout", number), config.num_generations)


def learn(
    algorithm: Algorithm,
    models: Models,
    config: OnlineOptions,
    experience: Experience,
    number: int,
    multiplier: float = 1.0,
) -> None:
    """Take the updates of an iteration on its experience, and compute its metrics. multiplier: of the learning rate."""
    algorithm.compute_advantages(experience, config.kl_coef)
    objective_metrics(experience, config.kl_coef)
    rounding = partial(measure_rounding, models, experience, config)
    update(algorithm, models, experience, [], number, multiplier, config, rounding)


def online_iteration(
    algorithm: Algorithm, models: Models, config: OnlineOptions, prompts: list[list[int]], number: int
) -> Experience:
    """Sample, score and learn; return the experience."""
    experience = sample_and_score(algorithm, models, config, prompts, number)
    learn(algorithm, models, config, experience, number)
    return experience


def described(rows: list[Row]) -> str:
    lengths = [len(ids) for ids, _ in rows]
    return f"{len(rows)} rows of {min(lengths)} to {max(lengths)} tokens"


def training_work(label: str, shape: DecoderConfig, rows: list[Row], unembedded: bool = True) -> Work:
    """Forward and backward: three times the operations of a forward pass. A reward model is read once a row."""
    lengths = [len(ids) for ids, _ in rows]
    predicted = sum(sum(trained) for _, trained in rows)
    needed = (
        forward_flops(shape, lengths, predicted, predicted)
        if unembedded
        else forward_flops(shape, lengths, 0, len(rows))
    )
    return Work({label: sum(lengths)}, 3 * needed)


def ppo_flops(shape: DecoderConfig, lengths: Sequence[int], generated: int, epochs: int) -> float:
    """Policy and reference predict the answers, scorer and critic read them; policy and critic train each epoch."""
    predicting, valuing, scoring = (
        forward_flops(shape, lengths, *counts) for counts in ((generated, generated), (0, generated), (0, len(lengths)))
    )
    return (2 + 3 * epochs) * predicting + (1 + 3 * epochs) * valuing + scoring
