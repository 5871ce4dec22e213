"""Rows of the comparison with a peer: the data that both sides get, and our side's step.

Ours calls the functions that the stages call. The peer is handed token ids and settings, never text to encode or a
model to load; both sides are credited with the tokens that are in what the peer was handed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

from amenable.data.mixture import Mixed
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.models.lora import LoraOptions
from amenable.rl.algorithm import Algorithm
from amenable.rl.models import Models
from amenable.stages import dpo, grpo, online_dpo, ppo, reward, rloo, sft
from amenable.train import defaults, loading
from amenable.train.defaults import traits_of
from amenable.train.forward import Row
from amenable.train.objective import NextToken, accumulate
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.rankings import Pair, TokenizedRanking, add_reference_logps
from amenable.train.runtime import Runtime
from benchmarks import workloads
from benchmarks.workloads import (
    Size,
    SizeName,
    make_policy,
    make_ppo,
    online_iteration,
    prompt_lengths,
    scalar_model,
    sequences,
)

SIZES: dict[SizeName, Size] = {**workloads.SIZES, "124M": replace(workloads.SIZES["124M"], rows=4, prompts=16)}
"""as benchmarks/workloads.py has them, but GPT-2 small with a quarter of the rows: three processes are there at once"""
EOS, PAD = 0, 1
NEW_TOKENS = 64
RANKED = 9
"""answers of the ranking"""
ROLLOUT_ROWS = 128
"""answers that the PPO peer generates at once: its best of 32, 64 and 128"""
ALL_WEIGHTS, ADAPTERS = LoraOptions(), LoraOptions(rank=16)

Step = Callable[[], None]
"""one step of ours"""


@dataclass(frozen=True)
class Work:
    """One row: data for the peer, our side's step, and the tokens that both are credited with."""

    handed: dict[str, Any]
    ours: Callable[[Runtime], Step]
    tokens: int


def handed(row: str, size: Size, rows: list[dict[str, list[int]]], **others: Any) -> dict[str, Any]:
    """Return a row's work as the peer reads it."""
    return {"row": row, "shape": asdict(size.shape), "rows": rows, "eos": EOS, "pad": PAD, **others}


def learner(size: Size, rows: list[Row], dropout: float, runtime: Runtime, options: LoraOptions) -> Step:
    """Return an update by the next-token loss, as `sft` makes it."""
    decoder = Decoder(replace(size.shape, dropout=dropout)).train()
    loading.add_adapters(decoder, options, 0, Path("base"), runtime)
    optimizer = Optimizer([decoder], OptimizerConfig(learning_rate=1e-5))

    def make() -> None:
        accumulate(NextToken(decoder), rows, runtime, sft.Config().max_tokens_per_pass)
        optimizer.step()

    return make


def sft_work(size: Size, packing: bool = False, options: LoraOptions = ALL_WEIGHTS) -> Work:
    """Prompts and answers of natural lengths, answers trained."""
    data = prompts_with_answers(size, 2 * size.rows, 1)
    rows = [{"prompt": prompt, "answer": answers[0]} for prompt, answers in data]
    ours = [(prompt + answers[0], [False] * len(prompt) + [True] * len(answers[0])) for prompt, answers in data]
    dropout = 0.0 if options.rank else 0.1  # as in GPT-2, and in the demo
    return Work(
        handed("sft", size, rows, packing=packing, dropout=dropout, lora_rank=options.rank),
        lambda runtime: learner(size, ours, dropout, runtime, options),
        sum(len(ids) for ids, _ in ours),
    )


def prompts_with_answers(size: Size, prompts: int, answers: int) -> list[tuple[list[int], list[list[int]]]]:
    """Return prompts of mixed lengths with `answers` answers each, all ending in EOS; no id is EOS or PAD by chance."""
    questions = sequences(size, prompt_lengths(size, prompts))
    completions = sequences(size, prompt_lengths(size, prompts * answers, "answers"))
    return [
        (question, [[*answer[:-1], EOS] for answer in completions[answers * i : answers * (i + 1)]])
        for i, question in enumerate(questions)
    ]


def ranking_items(data: list[tuple[list[int], list[list[int]]]]) -> list[TokenizedRanking]:
    """Return rankings in the order of the answers, the best first."""
    return [
        TokenizedRanking(
            [(prompt + answer, [False] * len(prompt) + [True] * len(answer)) for answer in answers],
            [float(rank) for rank in range(len(answers))],
            [len(answer) for answer in answers],
            "",
        )
        for prompt, answers in data
    ]


def pairs_handed(data: list[tuple[list[int], list[list[int]]]]) -> list[dict[str, list[int]]]:
    """Return all pairs of every prompt's answers."""
    return [
        {"prompt": prompt, "chosen": better, "rejected": worse}
        for prompt, answers in data
        for better, worse in combinations(answers, 2)
    ]


def reward_work(size: Size, prompts: int, answers: int) -> Work:
    """Rankings: ours computes each answer once, the peer each pair's two."""
    data = prompts_with_answers(size, prompts, answers)
    items = ranking_items(data)

    def build(runtime: Runtime) -> Step:
        model = scalar_model(size.shape)
        optimizer = Optimizer([model], OptimizerConfig(learning_rate=1e-5))

        def make() -> None:
            accumulate(reward.RankingObjective(model), items, runtime, reward.Config().max_tokens_per_pass)
            optimizer.step()

        return make

    pairs = pairs_handed(data)
    at_once = max(n for n in range(1, size.rows + 1) if len(pairs) % n == 0)
    tokens = sum(2 * len(p["prompt"]) + len(p["chosen"]) + len(p["rejected"]) for p in pairs)
    return Work(handed("reward", size, pairs, at_once=at_once), build, tokens)


def dpo_work(size: Size, options: LoraOptions = ALL_WEIGHTS) -> Work:
    """Pairs, the reference's log-probabilities computed before the clock starts on both sides."""
    data = prompts_with_answers(size, size.rows, 2)

    def build(runtime: Runtime) -> Step:
        policy = Decoder(size.shape).eval()
        loading.add_adapters(policy, options, 0, Path("base"), runtime)
        pairs = [Pair(item.rows[0], item.rows[1]) for item in ranking_items(data)]
        limit = dpo.Config().max_tokens_per_pass
        pairs = add_reference_logps(policy, Mixed([""], [pairs]), runtime, limit)
        optimizer = Optimizer([policy], OptimizerConfig(learning_rate=1e-5))

        def make() -> None:
            accumulate(dpo.DPO(policy, dpo.Config()), pairs, runtime, limit)
            optimizer.step()

        return make

    tokens = sum(2 * len(prompt) + sum(map(len, answers)) for prompt, answers in data)
    return Work(handed("dpo", size, pairs_handed(data), lora_rank=options.rank), build, tokens)


def ppo_work(size: Size, options: LoraOptions = ALL_WEIGHTS) -> Work:
    """Whole iterations with the stage's own settings, no EOS; the tokens are those generated."""
    new = min(NEW_TOKENS, size.length // 2)
    config = ppo.Config(prompts_per_step=size.prompts, max_new_tokens=new, lora=options)
    config, _ = defaults.online(config, traits_of(size.shape), traits_of(size.shape))
    prompts = sequences(size, prompt_lengths(size, size.prompts))

    def build(runtime: Runtime) -> Step:
        algorithm, models = make_ppo(size.shape, runtime, config)
        models.tokenizer.stop_ids = ()  # never drawn: no answer ends early
        numbers = count()

        def make() -> None:
            online_iteration(algorithm, models, config, prompts, next(numbers))

        return make

    rows = [{"prompt": prompt} for prompt in prompts]
    settings = {
        "new_tokens": new,
        "temperature": config.temperature,
        "epochs": config.num_ppo_epochs,
        "minibatches": config.num_mini_batches,
        "rollout_rows": ROLLOUT_ROWS,
        "lora_rank": options.rank,
    }
    return Work(handed("ppo", size, rows, **settings), build, size.prompts * new)


def grouped_work(size: Size, stage: Any, algorithm: Callable[[Models, Any], Algorithm], samples: int) -> Work:
    """Whole iterations of an algorithm without a critic, `samples` answers to a prompt, no EOS, one update."""
    new, prompts = min(NEW_TOKENS, size.length // 2), max(1, size.prompts // samples)
    config = stage.Config(prompts_per_step=prompts, num_generations=samples, max_new_tokens=new)
    config, _ = defaults.online(config, traits_of(size.shape))
    ids = sequences(size, prompt_lengths(size, prompts))

    def build(runtime: Runtime) -> Step:
        models, numbers = make_policy(size.shape, runtime), count()
        learning = algorithm(models, config)

        def make() -> None:
            online_iteration(learning, models, config, ids, next(numbers))

        return make

    name = stage.__name__.rpartition(".")[2].replace("_", "-")
    settings = {"new_tokens": new, "temperature": config.temperature, "samples": samples, "beta": 0.04}
    return Work(handed(name, size, [{"prompt": prompt} for prompt in ids], **settings), build, prompts * samples * new)


def decode_work(size: Size, rows: int) -> Work:
    """Prompts of mixed lengths, continued by a fixed number of tokens."""
    prompts = sequences(size, prompt_lengths(size, rows))
    new = min(NEW_TOKENS, size.length // 2)

    def build(runtime: Runtime) -> Step:
        decoder = runtime.to_inference(Decoder(size.shape).eval())

        def make() -> None:
            with runtime.autocast():
                generate(decoder, prompts, Sampling(max_new_tokens=new), eos_id=None, max_batch_size=rows)

        return make

    rows_handed = [{"prompt": prompt} for prompt in prompts]
    return Work(handed("decode", size, rows_handed, new_tokens=new), build, rows * new)


WORK: dict[str, Callable[[Size], Work]] = {
    "sft": sft_work,
    "sft-packed": lambda size: sft_work(size, packing=True),
    "reward-pairs": lambda size: reward_work(size, size.rows, 2),
    "reward-k9": lambda size: reward_work(size, 1, RANKED),
    "dpo": dpo_work,
    "ppo": ppo_work,
    "grpo": lambda size: grouped_work(size, grpo, grpo.GRPO, min(8, size.prompts)),
    "rloo": lambda size: grouped_work(size, rloo, rloo.RLOO, 4),
    "online-dpo": lambda size: grouped_work(size, online_dpo, online_dpo.OnlineDPO, 2),
    "sft-lora": lambda size: sft_work(size, options=ADAPTERS),
    "dpo-lora": lambda size: dpo_work(size, ADAPTERS),
    "ppo-lora": lambda size: ppo_work(size, ADAPTERS),
    "decode-1": lambda size: decode_work(size, 1),
    "decode-32": lambda size: decode_work(size, 32),
    "decode-128": lambda size: decode_work(size, 128),
    "vllm-32": lambda size: decode_work(size, 32),
}
"""The rows that have a peer; tokens count as the peer's data has them."""
