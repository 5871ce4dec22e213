"""Whatever takes a while is shown: every pass of a stage over rows or prompts says how far it has come, to its end."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from amenable.generation.sampling import Sampling
from amenable.stages import annotate, dpo, evaluate, ppo, pretrain, reward, sample, sft
from amenable.train.log import Log
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions

CPU = DeviceOptions("cpu", "fp32", 1)
QUICK = OptimizerConfig(learning_rate=1e-3)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, int]]]:
    """What every bar of a run was told, by its name."""
    report: dict[str, list[tuple[int, int]]] = {}

    def bar(log: Log, name: str) -> Callable[[int, int], None]:
        heard = report.setdefault(name, [])
        return lambda done, total: heard.append((done, total))

    monkeypatch.setattr(Log, "bar", bar)
    return report


def whole(heard: list[tuple[int, int]]) -> bool:
    """Whether passes were told from nothing to everything, one after another."""
    rising = all(now[0] >= was[0] or was[0] == was[1] for was, now in pairwise(heard))
    return rising and heard[0][0] == 0 and heard[-1][0] == heard[-1][1] > 0


def test_pretrain_and_sft_show_their_validation(
    base: Path, judge: Path, files: Any, tmp_path: Path, calls: dict[str, Any]
) -> None:
    quick = {"warmup_steps": 1, "optimizer": QUICK, "device": CPU, "save_steps": 0}
    pretrain.run(
        pretrain.Config(
            data=files.text, tokenizer=base, out=tmp_path / "a", model="nano", context=64, tokens_per_step=256,
            max_steps=2, eval_steps=1, eval_tokens=500, validation_split=0.2, **quick,
        )
    )  # fmt: skip
    assert set(calls) == {"tokenizing", "validation"} and whole(calls["validation"])
    calls.clear()
    sft.run(
        sft.Config(
            model=base, data=files.demonstrations, out=tmp_path / "b", epochs=1, batch_size=64, validation_split=0.2,
            reward=judge, keep_weights="score", max_new_tokens=8, **quick,
        )
    )  # fmt: skip
    assert calls.pop("tokenizing")
    assert set(calls) == {"validation", "answers", "rewards"} and all(map(whole, calls.values()))


def test_sample_and_annotate_show_every_answer(
    assistant: Path, judge: Path, files: Any, tmp_path: Path, calls: dict[str, Any]
) -> None:
    drawn = sample.run(
        sample.Config(
            model=assistant, data=files.prompts, out=tmp_path / "a", num_generations=3, max_prompts=8,
            sampling=Sampling(max_new_tokens=12), prompts_per_step=5, max_batch_size=4, device=CPU,
        )
    )  # fmt: skip
    heard = calls.pop("answers")
    assert not calls and whole(heard) and {total for _, total in heard} == {15, 9} and len(heard) > 6
    annotate.run(annotate.Config(data=drawn / "samples.jsonl", judge=(str(judge),), out=tmp_path / "b", device=CPU))
    assert set(calls) == {"train", "validation"} and all(map(whole, calls.values()))


def test_reward_shows_what_it_measures_at_its_end(
    assistant: Path, files: Any, tmp_path: Path, calls: dict[str, Any]
) -> None:
    config = reward.Config(
        model=assistant, data=files.rankings, demonstrations=files.demonstrations, out=tmp_path / "a", max_prompts=12,
        prompts_per_step=12, warmup_steps=0, optimizer=QUICK, max_tokens_per_pass=256, device=CPU,
    )  # fmt: skip
    reward.run(config)
    assert calls.pop("tokenizing")
    assert set(calls) == {"attack", "centring", "train", "validation"} and all(map(whole, calls.values()))
    assert all(len(heard) > 2 for heard in calls.values()), "a call a pass"


def test_dpo_shows_its_reference_and_its_validation(
    assistant: Path, files: Any, tmp_path: Path, calls: dict[str, Any]
) -> None:
    config = dpo.Config(
        model=assistant, data=files.rankings, out=tmp_path / "a", batch_size=48, warmup_steps=0, optimizer=QUICK,
        max_tokens_per_pass=256, device=CPU,
    )  # fmt: skip
    dpo.run(config)
    assert calls.pop("tokenizing")
    assert set(calls) == {"reference", "validation", "answers", "KL"} and all(map(whole, calls.values()))
    assert len(calls["reference"]) > 4


def test_ppo_shows_every_part_of_a_step_and_of_an_evaluation(
    assistant: Path, judge: Path, files: Any, tmp_path: Path, calls: dict[str, Any]
) -> None:
    config = ppo.Config(
        model=assistant, reward=judge, data=files.prompts, validation=files.prompts, out=tmp_path / "a",
        max_steps=1, prompts_per_step=8, num_mini_batches=4, max_new_tokens=12, eval_prompts=11, num_traced_prompts=0,
        warmup_steps=0, adaptive_kl_target=0.0, optimizer=QUICK, device=CPU,
    )  # fmt: skip
    ppo.run(config)
    assert set(calls) == {"answers", "reference", "scores", "values", "updates"} and all(map(whole, calls.values()))
    assert {total for _, total in calls["answers"]} == {8, 11} and calls["updates"][-1] == (4, 4)


def test_evaluate_shows_all_its_work_and_ends_with_a_table(
    base: Path, assistant: Path, judge: Path, files: Any, tmp_path: Path, calls: dict[str, Any], capsys: Any
) -> None:
    config = evaluate.Config(
        models=(f"base={base}", f"sft={assistant}", f"best={assistant}@best-of-2", f"like={assistant}@entropy-of-sft"),
        data=files.prompts, world=None, reward=judge, lm_data=files.text, demonstrations=files.demonstrations,
        out=tmp_path / "a", max_prompts=6, best_of_prompts=3, max_new_tokens=8, text_tokens=300, device=CPU,
    )  # fmt: skip
    evaluate.run(config)
    assert all(map(whole, calls.values()))
    parts = {
        name: {key.split(": ")[1] for key in calls if key.startswith(f"{name}: ")} for name in ("base", "sft", "best")
    }
    assert parts == {
        "base": {"answers", "rewards", "text", "demonstrations"},  # no KL: it has no template
        "sft": {"answers", "rewards", "KL", "text", "demonstrations"},
        "best": {"answers", "rewards", "KL"},
    }
    report = capsys.readouterr().err
    assert report.index("bits/byte") < report.index("done in")
    assert "base preferred to sft, greedy:" in report and "best preferred to sft, sampled:" in report
