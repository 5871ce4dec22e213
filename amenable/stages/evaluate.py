"""Put models side by side on the same prompts, sampled at temperature 1 and greedily.

For each model: gold and its parts where a world knows the truth, reward, KL to a reference, length, whether answers
end, bits per byte of raw text. For each pair of models: how often a judge prefers one, shown in both orders, ties half,
with Wilson intervals. Much of a gain at temperature 1 can be mere sharpening, so both decodings are always shown.

Reads model directories and prompts; writes evaluation.json and samples.jsonl (every prompt with every model's answer).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from amenable.data import sources
from amenable.data.types import Prompt
from amenable.errors import InputError
from amenable.functional.statistics import wilson
from amenable.generation.engine import Completion, generate
from amenable.generation.sampling import Sampling
from amenable.models import hub
from amenable.models.decoder import Decoder
from amenable.text.chat import PLAIN_STOP, render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import artifacts, passes, plan, runtime
from amenable.train.feed import fitting_prompts, measured_text, usable
from amenable.train.run import Run, write_text
from amenable.world.closed import ClosedWorld
from amenable.world.scores import gold_figures

DECODINGS = ("sampled", "greedy")


@dataclass(frozen=True)
class Config:
    """Compare models on the same prompts."""

    models: tuple[str, ...] = ("base=runs/pretrain", "sft=runs/sft", "ppo=runs/ppo", "dpo=runs/dpo")
    """name=folder of each model"""
    data: Path = Path("runs/world/prompts/test.jsonl")
    """prompts: a file, or a folder of files"""
    world: Path | None = Path("runs/world")
    """the closed world that knows the truth about these prompts; leave it out (None) for other data"""
    reward_model: Path | None = Path("runs/reward")
    """scores the answers, and judges them where there is no world"""
    text: Path | None = Path("runs/world/text/validation.jsonl")
    """raw text for bits per byte"""
    reference: str = "sft"
    """KL is measured to this one of the models; where it is none of them, no KL is measured, and that is said"""
    out: Path = Path("runs/evaluate")
    limit: int = 0
    """take only so many prompts; 0 takes all"""
    temperature: float = 1.0
    """of the sampled answers; greedy ones are always made as well"""
    max_new_tokens: int = 64
    text_tokens: int = 30_000
    """at most so many tokens of raw text for bits per byte"""
    max_tokens_per_pass: int = 8192
    rows: int = 128
    """answers decoded at once"""
    seed: int = 0
    machine: runtime.Machine = field(default_factory=runtime.Machine)

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "rows", "max_tokens_per_pass", "text_tokens")
        if not Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens).temperature:
            raise InputError("temperature is 0", how="greedy answers are made anyway; give one for the sampled ones")
        for entry in self.models:
            if "=" not in entry:
                raise InputError(
                    f"'{entry}' is no model", how="write name=folder, as in --models sft=runs/sft ppo=runs/ppo"
                )

    @property
    def folders(self) -> dict[str, Path]:
        return {name: Path(folder) for name, folder in (entry.split("=", 1) for entry in self.models)}


class Results:
    """What has been measured so far; part of the checkpoint."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, dict[str, list[dict[str, Any]]]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"models": self.models, "answers": self.answers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.models, self.answers = state["models"], state["answers"]


def run(config: Config) -> Path:
    """Evaluate and return the run directory."""
    inputs: dict[str, Path | None] = {f"model {name}": folder for name, folder in config.folders.items()}
    others = {"data": config.data, "reward_model": config.reward_model, "text": config.text, "world": config.world}
    run = Run(config.out, "evaluate", config, {**inputs, **others})
    if run.done():
        return run.out
    machine = runtime.start(config.machine)
    for folder in config.folders.values():
        artifacts.require_model(folder, "a training stage")
        if config.reward_model is not None:
            ours, theirs = Tokenizer.load(folder).with_chat_template(), Tokenizer.load(config.reward_model)
            artifacts.require_same_tokenizer(ours, theirs, config.reward_model)
    world = ClosedWorld.load(config.world) if config.world is not None else None
    prompts = read(config, run)
    run.claim()
    results = Results()
    names = list(config.folders)
    if config.reference not in names:
        run.log.say(f"no KL: the reference '{config.reference}' is none of the models")
    run.log.say(f"{len(names)} models x {len(prompts)} prompts x {len(DECODINGS)} decodings; {machine.describe()}")

    for step in run.steps(len(names), {"results": results}, save_steps=1):
        name = names[step - 1]
        figures, answers = examine(config.folders[name], prompts, world, config, machine)
        results.models[name], results.answers[name] = figures, answers
        run.record(step, 0, ("model", "gold"), model=name, **{k: v for k, v in figures.items() if k != "greedy"})

    preference = compare(results, prompts, world, config)
    write_text(run.out / "evaluation.json", json.dumps({"models": results.models, "preference": preference}, indent=1))
    run.log.samples(len(names), side_by_side(results, prompts))
    return run.finish(prompts=len(prompts))


def read(config: Config, run: Run) -> list[Prompt]:
    """The prompts that leave every model room to answer; how many don't is said."""
    kept = prompts = usable(sources.read_prompts(config.data))
    for folder in config.folders.values():
        room = hub.read_config(folder).context - config.max_new_tokens
        fitting = {prompt.id for prompt in fitting_prompts(config.data, Tokenizer.load(folder), room)[0]}
        kept = [prompt for prompt in kept if prompt.id in fitting]
    if not kept:
        raise InputError("no prompt leaves every model room to answer", config.data, "lower --max-new-tokens")
    if len(kept) < len(prompts):
        run.log.say(f"{len(prompts) - len(kept)} of {len(prompts)} prompts are too long for a model: left out")
    return kept[: config.limit or None]


def examine(
    folder: Path, prompts: list[Prompt], world: ClosedWorld | None, config: Config, machine: runtime.Runtime
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Everything measured of one model alone, and its answers by decoding."""
    decoder, tokenizer = artifacts.load_policy(folder, machine)
    figures: dict[str, dict[str, Any]] = {}
    answers: dict[str, list[dict[str, Any]]] = {}
    for decoding in DECODINGS:
        completions = respond(decoder, tokenizer, prompts, decoding, config, machine)
        answers[decoding] = [{"text": answer.text, "ended": answer.ended} for answer in completions]
        figures[decoding] = {
            **truth_figures(answers[decoding], prompts, world),
            **likelihood_figures(decoder, tokenizer, prompts, completions, answers[decoding], config, machine),
        }
    bpb = None
    if config.text is not None:
        texts = usable(sources.read_texts(config.text))
        rows, byte_count = measured_text(texts, tokenizer, decoder.config.context, config.text_tokens)
        bpb = passes.bits_per_byte(decoder, rows, byte_count, machine, config.max_tokens_per_pass)
    return {**figures["sampled"], "bpb": bpb, "greedy": {**figures["greedy"], "bpb": bpb}}, answers


def respond(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    decoding: str,
    config: Config,
    machine: runtime.Runtime,
) -> list[Completion]:
    """One answer to each prompt. A base model knows no turns: it sees a transcript and stops where its turn ends."""
    sampling = Sampling(
        temperature=0.0 if decoding == "greedy" else config.temperature, max_new_tokens=config.max_new_tokens
    )
    with machine.autocast():
        groups = generate(
            decoder,
            [render_prompt(tokenizer, prompt.messages) for prompt in prompts],
            sampling,
            eos_id=tokenizer.eos_id,
            seeds=[runtime.number(config.seed, "evaluate", prompt.id) for prompt in prompts],
            stop=() if tokenizer.chat_template else PLAIN_STOP,
            decode=tokenizer.decode,
            rows=config.rows,
        )
    return [group[0] for group in groups]


def truth_figures(answers: list[dict[str, Any]], prompts: list[Prompt], world: ClosedWorld | None) -> dict[str, Any]:
    """Length in words, share that ended, and, where a world knows the truth, gold and the rates of its parts."""
    figures: dict[str, Any] = {
        "length": sum(len(answer["text"].split()) for answer in answers) / len(answers),
        "ended": sum(answer["ended"] for answer in answers) / len(answers),
    }
    if world is None:
        return figures
    parts = [world.gold(prompt.id, answer["text"], answer["ended"]) for prompt, answer in zip(prompts, answers)]
    for part, answer in zip(parts, answers):
        answer["gold"] = part.gold
    return {**figures, **gold_figures(parts, [prompt.meta.get("kind", "") for prompt in prompts])}


def likelihood_figures(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    completions: list[Completion],
    answers: list[dict[str, Any]],
    config: Config,
    machine: runtime.Runtime,
) -> dict[str, Any]:
    """Mean reward, and KL to the reference in nats an answer (the k1 estimate, at the sampling temperature)."""
    figures: dict[str, Any] = {"reward": None, "kl": None}
    limit = config.max_tokens_per_pass
    chat = tokenizer if tokenizer.chat_template else tokenizer.with_chat_template()
    told = zip(prompts, completions, answers)
    rows = [answer_row(chat, p, c, a, bool(tokenizer.chat_template), decoder.config.context) for p, c, a in told]
    if config.reward_model is not None:
        scores = passes.row_rewards(
            artifacts.load_reward_model(config.reward_model, machine, chat), rows, machine, limit
        )
        figures["reward"] = float(scores.mean())
        for answer, score in zip(answers, scores.tolist()):
            answer["reward"] = score
    if config.reference in config.folders and tokenizer.chat_template:
        reference, _ = artifacts.load_policy(config.folders[config.reference], machine)
        ours = passes.row_logprobs(decoder, rows, machine, limit, config.temperature)
        theirs = passes.row_logprobs(reference, rows, machine, limit, config.temperature)
        figures["kl"] = sum(float((a - b).sum()) for a, b in zip(ours, theirs)) / len(rows)
    return figures


def answer_row(
    chat: Tokenizer, prompt: Prompt, completion: Completion, answer: dict[str, Any], own_ids: bool, context: int
) -> passes.Row:
    """Prompt and answer as a conversation: the very ids that were drawn, or a base model's text put into a turn."""
    before = render_prompt(chat, prompt.messages)
    ids = completion.ids if own_ids else render_completion(chat, answer["text"], answer["ended"])
    ids = ids or [chat.eos_id]
    return (before + ids)[:context], ([False] * len(before) + [True] * len(ids))[:context]


def compare(results: Results, prompts: list[Prompt], world: ClosedWorld | None, config: Config) -> list[dict[str, Any]]:
    """How often the first of two models is preferred, by pair and decoding; judges see both orders, ties count half."""
    table = []
    for decoding in DECODINGS:
        for a, b in combinations(results.models, 2):
            pairs = list(zip(prompts, results.answers[a][decoding], results.answers[b][decoding]))
            for judges in ("heldout", "training") if world is not None else ("reward",):
                wins = sum(preferred(prompt, x, y, judges, world, config) for prompt, x, y in pairs)
                low, high = wilson(wins, len(pairs))
                row = {"a": a, "b": b, "decoding": decoding, "judges": judges}
                table.append({**row, "wins": wins / len(pairs), "low": low, "high": high, "n": len(pairs)})
    return table


def preferred(
    prompt: Prompt,
    a: dict[str, Any],
    b: dict[str, Any],
    judges: str,
    world: ClosedWorld | None,
    config: Config,
) -> float:
    """1 where a is preferred, 0 where b is, one half where the two orders disagree or the judge sees a tie."""
    if a["text"] == b["text"] and a["ended"] == b["ended"]:
        return 0.5
    if world is None:
        gap = a.get("reward", 0.0) - b.get("reward", 0.0)
        return 0.5 if gap == 0 else float(gap > 0)
    generator = runtime.generator(config.seed, "prefer", prompt.id, judges)
    first, second, held_out = (a["text"], a["ended"]), (b["text"], b["ended"]), judges == "heldout"
    forth = world.prefer(prompt.id, first, second, generator, held_out)
    back = world.prefer(prompt.id, second, first, generator, held_out)
    return (forth + 1 - back) / 2


def side_by_side(results: Results, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """One row a prompt: every model's answer, both decodings."""
    return [
        {
            "id": prompt.id,
            "kind": prompt.meta.get("kind"),
            "prompt": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "answers": {
                name: {decoding: by_decoding[decoding][i] for decoding in DECODINGS}
                for name, by_decoding in results.answers.items()
            },
        }
        for i, prompt in enumerate(prompts)
    ]
