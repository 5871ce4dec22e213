"""`amenable reward`: it learns what people like, and its zero is the demonstrations'."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.mixture import Mixed
from amenable.data.orders import EpochBatches
from amenable.errors import InputError
from amenable.models.heads import ScalarModel
from amenable.models.lora import LoraOptions
from amenable.stages import reward
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.objective import accumulate
from amenable.train.optimizer import OptimizerConfig
from amenable.train.rankings import TokenizedRanking, batch_elements
from amenable.train.row_cache import read_rows
from amenable.train.runtime import DeviceOptions, Runtime, start_runtime


@pytest.fixture
def short(reward_config: reward.Config, tmp_path: Path) -> reward.Config:
    """One epoch of six steps."""
    return replace(reward_config, out=tmp_path / "short", epochs=1, prompts_per_step=12)


@pytest.fixture(scope="module")
def usual(reward_config: reward.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `short`."""
    return reward.run(
        replace(reward_config, out=tmp_path_factory.mktemp("short") / "run", epochs=1, prompts_per_step=12)
    )


@pytest.fixture
def items(short: reward.Config, words: Tokenizer) -> list[TokenizedRanking]:
    return reward.read(short, words, 64)[0][:5]


def gradient(model: ScalarModel) -> torch.Tensor:
    parts = [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    return torch.cat(parts)


def test_it_learns_what_people_like(judge: Path, rows_of: Callable[[Path], list[dict[str, Any]]]) -> None:
    done = json.loads((judge / "finished.json").read_text())
    for name, pairs in (("validation", 48), ("heldout", 96)):
        assert done[name]["accuracy"] > 0.9 and done[name]["pairs"] == pairs
        assert done[name]["longer_wins"] < 0.7, "length alone was not to tell"
    assert set(done["validation"]["by_annotator"]) == {"a", "b"}
    rows = rows_of(judge)
    last = sum(row["loss"] for row in rows[-5:]) / 5
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6), "all scores are 0"
    assert last < 0.2 and rows[-1]["margin"] > rows[0]["margin"] == 0.0


@pytest.mark.parametrize(("rank", "warned"), [(4, False), (0.5, True)])
def test_where_an_empty_answer_stands_is_measured_and_told(
    short: reward.Config, files: Any, rows_of: Callable, tmp_path: Path, rank: float, warned: bool
) -> None:
    """Rankings in which saying nothing is the worst, or the best."""
    rows = [json.loads(line) for line in files.rankings.read_text("utf-8").splitlines()]
    data = tmp_path / "silent.jsonl"
    report = [{**row, "completions": [*row["completions"], ""], "ranking": [*row["ranking"], rank]} for row in rows]
    data.write_text("".join(json.dumps(row) + "\n" for row in report), "utf-8")
    out = reward.run(replace(short, data=data, epochs=3))
    below = rows_of(out)[-1]["eval/empty_below"]
    health = json.loads((out / "finished.json").read_text())["health"]
    assert below < 0.1 if warned else below > 0.9
    assert ("empty answers" in [warning["check"] for warning in health["warnings"]]) == warned
    assert ("an empty answer scores low" in health["fine"]) != warned


def test_a_head_that_does_not_start_at_zero_stops_the_run(
    short: reward.Config, make_scalar_model: Callable[..., ScalarModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head of another model, as a mistake in loading would leave it."""
    other = make_scalar_model()
    monkeypatch.setattr(ScalarModel, "from_decoder", lambda decoder: other)
    with pytest.raises(RuntimeError, match=r"the first loss is .* must be 0.693147.*likely causes: a head"):
        reward.run(short)
    assert not (short.out / "metrics.jsonl").exists(), "no step was taken"


def test_a_model_pretrained_on_votes_goes_on_as_it_is(
    short: reward.Config, files: Any, rows_of: Callable, tmp_path: Path
) -> None:
    """By the binary loss on completions with a score each, in rows; then on rankings, from what it has learned."""
    rankings = [json.loads(line) for line in files.rankings.read_text("utf-8").splitlines()]
    votes = tmp_path / "votes.jsonl"
    rows = [
        {"prompt": row["prompt"], "completion": text, "votes": 10 - 4 * rank}
        for row in rankings
        for text, rank in zip(row["completions"], row["ranking"])
    ]
    votes.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    columns = ("prompt=prompt", "completion=completion", "score=votes")
    pretraining = replace(short, data=(votes,), columns=columns, loss_type="binary", epochs=6, heldout_annotators=None)
    pretraining = replace(pretraining, prompts_per_step=6)
    pretrained = reward.run(replace(pretraining, out=tmp_path / "pmp"))
    first = rows_of(pretrained)[0]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5) and rows_of(pretrained)[-1]["accuracy"] > 0.9
    second = rows_of(reward.run(replace(short, model=pretrained, out=tmp_path / "second")))
    assert second[0]["loss"] < 0.4 and second[0]["accuracy"] > 0.8


def test_the_head_has_a_learning_rate_of_its_own(
    short: reward.Config, usual: Path, words: Tokenizer, runtime: Runtime, rows_of: Callable
) -> None:
    """By default 1 / D. At 0 it stays at zero, and the body, which learns through it, stays as well."""
    rows = rows_of(usual)
    assert max(row["head_lr"] for row in rows) == 0.031 and max(row["lr"] for row in rows) < 0.02  # D = 32
    still = loading.load_reward_model(reward.run(replace(short, head_learning_rate=0.0)), runtime, words)
    base, _ = loading.load_policy(short.model, runtime)
    assert not still.score.weight.any()
    assert all(map(torch.equal, base.parameters(), still.decoder.parameters()))


def test_demonstrations_have_mean_reward_zero(
    judge: Path, short: reward.Config, words: Tokenizer, runtime: Runtime
) -> None:
    model = loading.load_reward_model(judge, runtime, words)
    scores = forward.compute_rewards(model, read_rows("demonstrations", short.demonstrations, words, 64), runtime, 1000)
    assert len(scores) == 96
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-4) and scores.std() > 0.5


def test_without_demonstrations_the_zero_is_that_of_the_answers(
    short: reward.Config, words: Tokenizer, runtime: Runtime
) -> None:
    config = replace(short, demonstrations=None)
    model = loading.load_reward_model(reward.run(config), runtime, words)
    training, _ = reward.read(config, words, 64)
    scores = forward.compute_rewards(model, [row for item in training for row in item.rows], runtime, 1000)
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-4)


def test_a_stopped_run_goes_on_to_the_bit(
    short: reward.Config, usual: Path, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    for stop in (2, 6):
        parted = run_in_two(reward, replace(short, out=tmp_path / f"stopped-{stop}"), stop)
        assert outcome(parted) == outcome(usual), f"stopped at {stop}"


def test_the_loss_by_hand(
    short: reward.Config, items: list[TokenizedRanking], judge: Path, words: Tokenizer, runtime: Runtime
) -> None:
    """Each prompt's mean over its pairs (two: the third is a tie), then the mean over prompts."""
    model = loading.load_reward_model(judge, runtime, words)
    scores = [forward.compute_rewards(model, item.rows, runtime, 1000) for item in items]
    terms, right = [], []
    for item, score in zip(items, scores):
        assert item.ranks == [2.0, 1.0, 2.0]
        gaps = [score[1] - score[0], score[1] - score[2]]
        terms.append(sum(-torch.sigmoid(gap).log() for gap in gaps) / 2)
        right.append(sum(float(gap > 0) for gap in gaps) / 2)
    stats = accumulate(reward.RankingObjective(model), items, runtime, short.max_tokens_per_pass)
    assert stats["loss"] == pytest.approx(float(sum(terms)) / len(terms), rel=1e-3, abs=1e-6)
    assert stats["accuracy"] == pytest.approx(sum(right) / len(right))
    assert stats["mean_reward"] == pytest.approx(float(torch.cat(scores).mean()), abs=1e-4)


@pytest.fixture
def graded(files: Any, tmp_path: Path) -> Path:
    """The pairs, each with a margin of its own."""
    rows = [json.loads(line) for line in files.pairs.read_text("utf-8").splitlines()]
    path = tmp_path / "graded.jsonl"
    path.write_text("".join(json.dumps({**row, "margin": 1.0 + i % 3}) + "\n" for i, row in enumerate(rows)), "utf-8")
    return path


def test_a_margin_counts_in_units_of_reward(
    short: reward.Config,
    graded: Path,
    make_scalar_model: Callable[..., ScalarModel],
    words: Tokenizer,
    runtime: Runtime,
) -> None:
    model, items = make_scalar_model(), reward.read(replace(short, data=graded), words, 64)[0][:5]
    assert {item.margin for item in items} == {1.0, 2.0, 3.0}
    scores = [forward.compute_rewards(model, item.rows, runtime, 1000) for item in items]
    terms = [-torch.sigmoid(better - worse - item.margin).log() for item, (better, worse) in zip(items, scores)]
    stats = accumulate(reward.RankingObjective(model), items, runtime, short.max_tokens_per_pass)
    assert stats["loss"] == pytest.approx(float(sum(terms)) / 5, rel=1e-4)
    assert stats["margin"] == pytest.approx(sum(float(better - worse) for better, worse in scores) / 5, abs=1e-4)
    apart = batch_elements(Mixed(["graded"], [items]), "pairs", short.prompts_per_step)[0]
    assert accumulate(reward.RankingObjective(model), apart, runtime, short.max_tokens_per_pass)[
        "loss"
    ] == pytest.approx(stats["loss"], rel=1e-5)


def test_margins_are_learned_and_logged_beside_what_was_reached(
    short: reward.Config, files: Any, graded: Path, rows_of: Callable, tmp_path: Path
) -> None:
    """The first loss is that of scores 0 under the margins."""
    plain = rows_of(reward.run(replace(short, data=files.pairs, out=tmp_path / "plain")))
    wide = rows_of(reward.run(replace(short, data=graded, out=tmp_path / "wide")))
    assert not any("margin/given" in row for row in plain)
    assert all(1 < row["margin/given"] < 3 for row in wide)
    assert wide[0]["loss"] > math.log1p(math.e) - 0.5 > plain[0]["loss"]
    assert wide[-1]["margin"] != plain[-1]["margin"]


@pytest.mark.parametrize("max_tokens", [1, 100, 170])
def test_many_passes_are_one(
    short: reward.Config,
    items: list[TokenizedRanking],
    make_scalar_model: Callable[..., ScalarModel],
    runtime: Runtime,
    max_tokens: int,
) -> None:
    model = make_scalar_model()
    pair = TokenizedRanking(
        items[0].rows[:2], [2.0, 1.0], items[0].lengths[:2], "a"
    )  # a prompt of one pair counts as much
    report = accumulate(reward.RankingObjective(model), [*items, pair], runtime, short.max_tokens_per_pass)
    whole = gradient(model)
    again = accumulate(reward.RankingObjective(model), [*items, pair], runtime, max_tokens)
    assert {key: again[key] for key in ("loss", "accuracy", "margin")} == pytest.approx(
        {key: report[key] for key in ("loss", "accuracy", "margin")}, rel=1e-4
    )
    assert torch.allclose(gradient(model), whole, atol=1e-5) and whole.norm() > 0.01


def test_order_and_company_of_answers_change_nothing(
    short: reward.Config, items: list[TokenizedRanking], make_scalar_model: Callable[..., ScalarModel], runtime: Runtime
) -> None:
    model = make_scalar_model()
    forth = accumulate(reward.RankingObjective(model), items, runtime, short.max_tokens_per_pass)
    whole = gradient(model)
    turned = [TokenizedRanking(item.rows[::-1], item.ranks[::-1], item.lengths[::-1], "a") for item in items[::-1]]
    back = accumulate(reward.RankingObjective(model), turned, runtime, short.max_tokens_per_pass)
    assert back["loss"] == pytest.approx(forth["loss"], rel=1e-5)
    assert torch.allclose(gradient(model), whole, atol=1e-5)


def test_pairs_of_two_answers_are_their_prompts(
    short: reward.Config,
    files: Any,
    make_scalar_model: Callable[..., ScalarModel],
    words: Tokenizer,
    runtime: Runtime,
) -> None:
    """With K = 2 both batchings are the same computation, but for the order of a pair's two answers."""
    config = replace(short, data=files.pairs)
    training, _ = reward.read(config, words, 64)
    prompts, per_step = batch_elements(training, config.batch_unit, config.prompts_per_step)
    pairs, pairs_per_step = batch_elements(training, "pairs", config.prompts_per_step)
    assert prompts is training and pairs_per_step == per_step == 12 and len(pairs) == len(prompts)
    model = make_scalar_model()
    for start in (0, 12):
        one = accumulate(
            reward.RankingObjective(model), prompts[start : start + 12], runtime, config.max_tokens_per_pass
        )
        whole = gradient(model)
        other = accumulate(
            reward.RankingObjective(model), pairs[start : start + 12], runtime, config.max_tokens_per_pass
        )
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
        assert torch.allclose(gradient(model), whole, atol=1e-6) and whole.norm() > 0.01


def test_pairs_make_as_many_updates_and_see_answers_more_than_once(
    short: reward.Config, usual: Path, run_in_two: Callable, outcome: Callable, rows_of: Callable, tmp_path: Path
) -> None:
    """72 prompts of two pairs each: the tied answers are in one pair, the best one is in two."""
    by_prompt = rows_of(usual)
    whole = reward.run(replace(short, out=tmp_path / "whole", batch_unit="pairs"))
    assert len(rows_of(whole)) == len(by_prompt) == 6
    log = [row["loss"] for row in rows_of(whole)]
    assert log != [row["loss"] for row in by_prompt], "the pairs were shuffled, not the prompts"
    assert outcome(run_in_two(reward, replace(short, batch_unit="pairs"), 2)) == outcome(whole)


def test_pairs_of_a_prompt_are_scattered(short: reward.Config, words: Tokenizer) -> None:
    config = replace(short, batch_unit="pairs")
    training, _ = reward.read(config, words, 64)
    pairs, per_step = batch_elements(training, config.batch_unit, config.prompts_per_step)
    assert (len(training), len(pairs), per_step) == (72, 144, 24)
    step = EpochBatches(len(pairs), per_step, 1, config.seed)[0]
    prompts = {str(row[0][: row[1].index(True)]) for i in step for row in pairs[i].rows}
    assert len(prompts) > 12, "prompts of their own would be twelve"


def test_a_whole_order_is_learned_by_plackett_luce(short: reward.Config, rows_of: Callable) -> None:
    """The best of three, two of them tied: the first loss is that of one choice among three, ln 3, not ln 2."""
    config = replace(short, loss_type="plackett-luce", epochs=6)
    steps = rows_of(reward.run(config))
    assert steps[0]["loss"] == pytest.approx(math.log(3), abs=1e-5) and steps[0]["accuracy"] == 0.5
    assert json.loads((config.out / "finished.json").read_text())["heldout"]["accuracy"] > 0.9
    with pytest.raises(InputError, match="needs whole rankings"):
        replace(config, batch_unit="pairs")


def test_fewer_prompts_are_the_first_ones_with_all_their_rankings(short: reward.Config, words: Tokenizer) -> None:
    whole, sets = reward.read(short, words, 64)
    few, same = reward.read(replace(short, max_prompts=5), words, 64)
    request = [str(item.rows[0][0][: item.rows[0][1].index(True)]) for item in whole]
    first = list(dict.fromkeys(request))[:5]
    assert list(few) == [item for item, prompt in zip(whole, request) if prompt in first] and len(few) >= 5
    assert list(same["validation"]) == list(sets["validation"]), "what is held out stays, so that runs can be compared"
    assert sorted(map(str, same["train"])) == sorted(map(str, few)), "all of so few are measured again"


def test_overfitting_can_be_read_off(short: reward.Config, files: Any, tmp_path: Path) -> None:
    """Rankings at random can only be known by heart."""
    draw, data = random.Random(0), tmp_path / "random.jsonl"
    rows = [json.loads(line) for line in files.rankings.read_text("utf-8").splitlines()]
    ranked = [{**row, "ranking": draw.sample([1, 2, 3], 3)} for row in rows]
    data.write_text("".join(json.dumps(row) + "\n" for row in ranked), "utf-8")
    rates = {"optimizer": OptimizerConfig(learning_rate=1e-2), "head_learning_rate": 1e-2}
    config = replace(short, data=data, max_prompts=4, epochs=30, **rates)
    done = json.loads((reward.run(config) / "finished.json").read_text())
    assert done["train"]["loss"] < 0.4 and done["train"]["accuracy"] > 0.8
    assert done["validation"]["loss"] > 0.8 and done["validation"]["accuracy"] < 0.75  # no idea: 0.69
    assert done["validation"]["loss_low"] < done["validation"]["loss"] < done["validation"]["loss_high"]


def test_frozen_layers_do_not_move(short: reward.Config, words: Tokenizer, runtime: Runtime) -> None:
    base, _ = loading.load_policy(short.model, runtime)
    model = loading.load_reward_model(reward.run(replace(short, frozen_layers=1)), runtime, words)
    before, after = dict(base.named_parameters()), dict(model.decoder.named_parameters())
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved and not [name for name in moved if "embedding" in name or "layers.0." in name]
    assert [name for name in moved if "layers.1." in name]


def test_held_out_prompts_are_not_trained_on(short: reward.Config, words: Tokenizer) -> None:
    training, sets = reward.read(short, words, 64)
    prompts = [
        {str(row[0][: row[1].index(True)]) for item in part for row in item.rows}
        for part in (training, sets["validation"])
    ]
    assert prompts[0] and prompts[1] and not prompts[0] & prompts[1]


def test_options_that_mean_nothing_are_refused() -> None:
    for wrong in ({"frozen_layers": -1}, {"max_prompts": -1}, {"epochs": 0}, {"prompts_per_step": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            reward.Config(**wrong)  # type: ignore[arg-type]


def test_adapters_on_a_reward_model_in_bf16(short: reward.Config, usual: Path, words: Tokenizer) -> None:
    """The matrices that such a run has rounded are read again from a reward model's folder."""
    device = DeviceOptions(precision="bf16")
    config = replace(short, model=usual, lora=LoraOptions(rank=2), max_prompts=12, attack_queries=0, device=device)
    out = reward.run(config)
    before, after = (loading.load_reward_model(folder, start_runtime(device), words) for folder in (usual, out))
    frozen, trained = (model.decoder.layers[0].attention.out.weight for model in (before, after))
    change = (trained - frozen).detach()
    assert 0 < int(torch.linalg.matrix_rank(change, rtol=1e-3)) <= 2
