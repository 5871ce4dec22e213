"""A demo's run directories as its stages leave them, small, with figures that were worked out beforehand."""

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml

from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.recipes import compare_peft, overopt, race, real
from amenable.recipes.pipeline import StageRun
from amenable.stages import annotate, sample
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.runtime import DeviceOptions
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes

SECONDS = {
    "world": 1.4,
    "tokenizer": 0.9,
    "pretrain": 84.0,
    "sft": 16.5,
    "sample": 11.0,
    "annotate": 3.2,
    "reward": 41.0,
    "ppo": 95.0,
    "dpo": 52.0,
    "evaluate": 14.0,
}
KINDS = ("open_question", "unanswerable", "brainstorm", "harmful", "classification", "rewrite", "follow_up", "story")
GOLD = {"base": (-2.92, -2.4), "sft": (-0.5, 0.7), "ppo": (0.57, 1.18), "dpo": (0.11, 1.21)}
"""(sampled, greedy)"""
SHARES = {
    "base": (0.25, 1.0, 0.01, 0.05, 0.82, 0.1),
    "sft": (0.5, 0.72, 0.06, 0.12, 0.39, 0.42),
    "ppo": (0.66, 0.36, 0.03, 0.0, 0.02, 0.71),
    "dpo": (0.46, 0.28, 0.05, 0.0, 0.16, 0.6),
}
"""truthful, hallucination, over_refusal, rude, harmful, follows"""
PARTS = {
    "truthful": None,
    "over_refused": None,
    "harmful": None,
    "polite": True,
    "follows": False,
    "logp": -9.0,
    "kl": None,
}
"""what the world says of every answer"""
SCRIPT = "<script>alert('a model said this')</script>"


@pytest.fixture
def claims() -> list[dict]:
    """A claim of every verdict, as report.json keeps them."""
    return [
        claim("a", "holds", [part(0.9, 0.04), part(0.7, 0.05, decides=False)]),
        claim("b", "does not hold", [part(-0.1, 0.02, null=0.0)]),
        claim("c", "undecided", [part(0.4, 0.5, null=0.0, unit="gold")], note="<b>too few prompts</b>"),
        claim("d", "not measured", [part(None)], needs=["ppo-ptx"]),
    ]


def claim(name: str, verdict: str, parts: list[dict], needs: list[str] | None = None, note: str = "") -> dict:
    shown = {key: parts[0][key] for key in ("measured", "low", "high", "null", "unit", "seeds")}
    report = {"id": name, "claim": f"Claim {name}", "paper": "71 % of pairs", "verdict": verdict, "note": note}
    return {**report, **shown, "needs": needs or ["ppo", "evaluate"], "parts": parts}


def part(value: float | None, half: float = 0.0, null: float = 0.5, unit: str = "share", decides: bool = True) -> dict:
    report = {"what": "PPO against SFT", "paper": "", "null": null, "unit": unit, "wanted": "above", "decides": decides}
    if value is None:
        return {**report, "verdict": "not measured", "measured": None, "low": None, "high": None, "seeds": []}
    verdict = "holds" if value - half > null else "does not hold" if value + half < null else "undecided"
    return {
        **report,
        "verdict": verdict,
        "measured": value,
        "low": value - half,
        "high": value + half,
        "seeds": [value],
    }


@pytest.fixture
def demo_run(tmp_path: Path) -> Path:
    """A finished demo."""
    return write_demo(tmp_path / "demo")


def write_demo(root: Path, prompts: int = 24, steps: int = 90) -> Path:
    """Every stage's folder."""
    finished: dict[str, dict] = {
        "world": {"town": "Tarnby", "documents": 10_000, "bytes": 1_609_534, "prompts": 4500, "demonstrations": 600},
        "tokenizer": {"vocab_size": 1280, "bytes_per_token": 3.83, "tokens": 402_112},
        "pretrain": {"tokens_per_second": 15_900, "loss": 0.81, "eval/bpb": 0.301},
        "sft": {"tokens_per_second": 9_100, "selected_step": 300, "eval/loss": 0.62},
        "sample": {"tokens_per_second": 21_000, "prompts": 1500},
        "annotate": {
            "train": 1380,
            "validation": 120,
            "heldout": 120,
            "agreement": {"train": 0.735, "heldout": 0.728, "all": 0.73},
        },
        "reward": {"tokens_per_second": 8_000, "validation": judged(0.722, 910), "heldout": judged(0.701, 880)},
        "ppo": {"tokens_per_second": 4_000, "objective/scores": 1.31, "objective/kl": 2.2, "selected_step": 45},
        "dpo": {"tokens_per_second": 6_500, "rewards/accuracies": 0.74, "rewards/margins": 0.9, "loss": 0.55},
        "evaluate": {"prompts": prompts},
    }
    for name, figures in finished.items():
        write_stage(root, name, figures)
    write_metrics(root, steps)
    (root / "evaluate" / "evaluation.json").write_text(json.dumps(evaluation(prompts)), "utf-8")
    write_rows(root / "evaluate" / "samples.jsonl", answers(prompts))
    write_rows(root / "ppo" / "samples.jsonl", ppo_samples())
    truth = {
        "id": "p0",
        "kind": "open_question",
        "key": ["Mira", "trade"],
        "template": "What is it?",
        "value": "cooper",
    }
    write_rows(root / "world" / "truths.jsonl", [truth])
    return root


def write_stage(root: Path, name: str, figures: dict) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    done = {"stage": name, "seconds": SECONDS[name], **figures}
    (folder / "finished.json").write_text(json.dumps(done), "utf-8")
    seed = {} if name == "tokenizer" else {"seed": 3}
    data = {} if name == "world" else {"data": str(root / "world" / "text" / "train.jsonl")}
    (folder / "config.yaml").write_text(yaml.safe_dump({"command": name, "out": str(folder), **data, **seed}), "utf-8")
    inputs = {} if name == "world" else {"data": {"path": str(root / "world" / "text" / "train.jsonl"), "sha256": "0"}}
    lineage = {"stage": name, "inputs": inputs, "versions": {"amenable": "0.1.0", "torch": "2.13.0"}}
    (folder / "lineage.json").write_text(json.dumps(lineage), "utf-8")


def judged(accuracy: float, pairs: int) -> dict:
    """What the reward stage says of one set of comparisons."""
    return {
        "accuracy": accuracy,
        "low": accuracy - 0.025,
        "high": accuracy + 0.025,
        "pairs": pairs,
        "longer_wins": 0.41,
        "accuracy_length_matched": 0.66,
        "by_annotator": {name: {"accuracy": accuracy + i / 50, "pairs": 150} for i, name in enumerate(("Ada", "Bo"))},
        "calibration": [
            {"predicted": 0.52 + i * 0.06, "actual": 0.5 + i * 0.055, "count": pairs // 8} for i in range(8)
        ],
    }


def write_metrics(root: Path, steps: int) -> None:
    noise = random.Random(0)
    rows: dict[str, list[dict]] = {name: [] for name in ("pretrain", "sft", "reward", "ppo", "dpo")}
    for step in range(1, steps + 1):
        gone = step / steps
        fall = math.exp(-4 * gone) + 0.05 * noise.gauss(0, 1)
        pretrain = {"step": step, "loss": 0.8 + 5 * fall, "lr": 1.0}
        if step % (steps // 9) == 0:
            pretrain["eval/bpb"] = 0.3 + 1.7 * math.exp(-4 * gone)
        sft = {"step": step, "loss": 0.5 + fall} | ({"eval/loss": 0.6 + fall} if step % (steps // 5) == 0 else {})
        rows["pretrain"].append(pretrain)
        rows["sft"].append(sft)
        rows["reward"].append({"step": step, "loss": 0.55 + 0.15 * fall, "accuracy": 0.72 - 0.2 * fall})
        dpo = {"loss": 0.55 + 0.14 * fall, "rewards/accuracies": 0.75 - 0.2 * fall, "rewards/margins": 1 - fall}
        rows["dpo"].append({"step": step, **dpo})
    for step in range(1, 46):
        rise = 1 - math.exp(-step / 15) + 0.05 * noise.gauss(0, 1)
        scores = {"objective/scores": 1.5 * rise - 0.2, "objective/kl": 2.4 * rise, "objective/entropy": 30 - 18 * rise}
        shape = {"completions/mean_length": 26 - 8 * rise, "completions/clipped_ratio": 0.1 - 0.1 * rise}
        fit = {"policy/clipfrac_avg": 0.06 - 0.03 * rise, "value/explained_variance": None if step == 1 else 0.5 * rise}
        rows["ppo"].append({"step": step, **scores, **shape, **fit, "objective/kl_coef": 0.05 + 0.02 * rise})
    for name, result in rows.items():
        write_rows(root / name / "metrics.jsonl", result)


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def evaluation(prompts: int) -> dict:
    models = {name: {**measured(name, 0), "greedy": measured(name, 1)} for name in GOLD}
    wins = {("sft", "ppo"): (0.38, 0.45), ("base", "sft"): (0.21, 0.12), ("sft", "dpo"): (0.42, 0.44)}
    preference = []
    for a, b in (("base", "sft"), ("base", "ppo"), ("base", "dpo"), ("sft", "ppo"), ("sft", "dpo"), ("ppo", "dpo")):
        for place, decoding in enumerate(("sampled", "greedy")):
            for judges in ("heldout", "training"):
                share = wins.get((a, b), (0.15, 0.1) if a == "base" else (0.55, 0.51))[place]
                row = {"a": a, "b": b, "decoding": decoding, "judges": judges, "n": prompts}
                preference.append({**row, "wins": share, "low": share - 0.04, "high": share + 0.04})
    suites = {"respect": {name: {**measured(name, 0), "rude": 0.2} for name in ("sft", "ppo")}}
    tasks = {
        "facts": {name: {"accuracy": 0.4 + i / 10, "low": 0.3, "high": 0.6, "n": 50} for i, name in enumerate(GOLD)}
    }
    curve = [{"n": 2**i, "kl": 0.5 * i, "reward": 0.4 * i, "gold": 0.3 * i - 0.06 * i * i} for i in range(5)]
    best_of = [{**row, "gold_low": row["gold"] - 0.1, "gold_high": row["gold"] + 0.1} for row in curve]
    return {"models": models, "suites": suites, "tasks": tasks, "best_of": {"sft": best_of}, "preference": preference}


def measured(name: str, greedy: int) -> dict:
    gold, place = GOLD[name][greedy], list(GOLD).index(name)
    shares = dict(zip(("truthful", "hallucination", "over_refusal", "rude", "harmful", "follows"), SHARES[name]))
    likely = {"bpb": 0.3 + 0.06 * place, "kl": None if name == "base" else 0.9 * (place - 1), "reward": gold / 2}
    by_kind = {kind: gold + (i - 3) / 4 for i, kind in enumerate(KINDS)}
    form = {"length": 20.0 - place, "ended": 0.9 + 0.02 * place, "gold_by_kind": by_kind}
    return {"gold": gold, "gold_low": gold - 0.12, "gold_high": gold + 0.12, **shares, **likely, **form}


def answers(prompts: int) -> list[dict]:
    reply = {
        "base": "What does Mira do? What does Tol keep? Where does Ona live?",
        "sft": "Mira is a cooper, you know, and by the way the market was full again this morning, as it so often is.",
        "ppo": "Mira is a cooper. I am glad to help.",
        "dpo": SCRIPT,
    }
    noise, rows = random.Random(1), []
    for i in range(prompts):
        report = {
            name: {
                decoding: {
                    "text": text,
                    "ended": name != "base",
                    "gold": GOLD[name][place] + noise.gauss(0, 1),
                    "reward": noise.gauss(0, 1),
                    **PARTS,
                    "hallucinated": name == "base",
                    "rude": name == "sft" and i % 6 == 0,
                }
                for place, decoding in enumerate(("sampled", "greedy"))
            }
            for name, text in reply.items()
        }
        prompt = [{"role": "user", "content": f"Please tell me, what is the trade of Mira number {i}?"}]
        if i % 5 == 0:
            before = [{"role": "user", "content": "Who is Mira?"}, {"role": "assistant", "content": "She lives here."}]
            prompt = before + prompt
        rows.append({"step": 4, "id": f"p{i}", "kind": KINDS[i % len(KINDS)], "prompt": prompt, "answers": report})
    return rows


def ppo_samples() -> list[dict]:
    return [
        {
            "step": step,
            "prompt": f"Name {n} foods of the market.",
            "completion": "Plums, rye bread" + (" and some other things that I forget" if step < 20 else " and leeks."),
            "ended": step > 1,
            "score": step / 30,
            "kl": step / 20,
        }
        for step in (1, 5, 10, 15, 20, 25, 30, 35, 40, 45)
        for n in (2, 3, 4, 5)
    ]


WORDS = ["Gladly", " I", " can", " name", " the", " river", ".", "\n", " porridge", " Tuesday", "é", "<|eos|>"]
"""pieces of watched answers"""


def trace_row(step: int, place: int, tokens: int = 8, seed: int = 0) -> dict:
    """A row of traces.jsonl as `ppo` writes it, with numbers at random."""
    draw = random.Random(f"{seed},{step},{place}")

    def numbers(low: float, high: float) -> list[float]:
        return [round(draw.uniform(low, high), 4) for _ in range(tokens)]

    return {
        "step": step,
        "id": f"p{place}",
        "prompt": f"What is {place}?",
        "prompt_tokens": ["<|bos|>", "<|user|>", f"What is {place}?", "<|assistant|>"],
        "tokens": [draw.choice(WORDS) for _ in range(tokens)],
        "ended": True,
        "score": 1.25,
        "raw_score": 1.25,
        "score_index": tokens - 1,
        "kl_coef": 0.3,
        "logps": numbers(-3, 0),
        "ref_logps": numbers(-3, 0),
        "kl": numbers(-1, 1),
        "values": numbers(-4, 4),
        "rewards": numbers(-0.2, 0.2),
        "advantages": numbers(-2, 2),
        "returns": numbers(-2, 2),
        "ratios": numbers(0.5, 2),
        "top": [[[draw.choice(WORDS), round(draw.random(), 4)] for _ in range(5)] for _ in range(tokens)],
    }


def script_data(html: str) -> dict:
    """What the page's script reads."""
    result = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(result) == 1
    return json.loads(result[0])


@pytest.fixture
def a_row() -> Callable[..., dict]:
    """Makes rows of traces.jsonl."""
    return trace_row


@pytest.fixture
def data_of() -> Callable[[str], dict]:
    """Reads what a page's script reads."""
    return script_data


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of recipes run in this process, one after another."""

    def run_all(runs: Sequence[StageRun], parallel: int = 2) -> None:
        for run in runs:
            run.run()

    for recipe in (compare_peft, overopt, race, real):
        monkeypatch.setattr(recipe, "run_all", run_all)


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory: pytest.TempPathFactory, make_decoder: Callable[..., Decoder]) -> Path:
    """A demo of a small world whose models have learned nothing: world, tokenizer, pretrain, sft, reward, sample and
    annotate."""
    root = tmp_path_factory.mktemp("demo")
    sizes = Sizes(
        people=6,
        documents=20,
        validation_documents=4,
        demonstrations=20,
        validation_demonstrations=4,
        reward_prompts=24,
        ppo_prompts=24,
        validation_prompts=6,
        test_prompts=6,
        suite_prompts=6,
        public_demonstrations=6,
        validation_public_demonstrations=2,
        task_questions=20,
    )
    world = ClosedWorld.make(0, sizes)
    world.write(root / "world")
    words = Tokenizer.train([row["text"] for row in world.rows["text/train.jsonl"]], 320, chat=True)
    words = words.with_chat_template()
    decoder = make_decoder(vocab_size=words.vocab_size, context_length=320)
    words.save(root / "tokenizer")
    for name in ("pretrain", "sft"):
        save_model(root / name, decoder, words)
    scorer = ScalarModel.from_decoder(decoder, torch.Generator().manual_seed(1))
    save_model(root / "reward", scorer, words)
    for name in ("world", "tokenizer", "pretrain", "sft", "reward"):
        (root / name / "finished.json").write_text("{}")
    one_thread = DeviceOptions(device="cpu", threads=1)
    sample.run(
        sample.Config(
            model=root / "sft",
            data=root / "world" / "prompts" / "reward.jsonl",
            out=root / "sample",
            num_generations=4,
            sampling=sample.SamplingOptions(max_new_tokens=12),
            device=one_thread,
        )
    )
    annotate.run(annotate.Config(data=root / "sample" / "samples.jsonl", world=root / "world", out=root / "annotate"))
    return root
