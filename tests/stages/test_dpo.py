"""`amenable dpo`: the chosen answers gain on the rejected ones, against a reference that stays."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data import sources
from amenable.data.mixture import Mixed
from amenable.errors import InputError
from amenable.evaluation.divergence import KLMonitor, first_prompts
from amenable.files import hash_of
from amenable.models.decoder import Decoder
from amenable.stages import dpo
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.objective import accumulate, mean_stats
from amenable.train.optimizer import OptimizerConfig
from amenable.train.rankings import Pair, add_reference_logps
from amenable.train.runtime import DeviceOptions, Runtime


@pytest.fixture(scope="module")
def config(assistant: Path, files: Any, tmp_path_factory: pytest.TempPathFactory) -> dpo.Config:
    return dpo.Config(
        model=assistant,
        data=files.rankings,
        out=tmp_path_factory.mktemp("dpo") / "run",
        beta=0.1,
        epochs=2,
        pairs_per_prompt=4,
        batch_size=12,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        warmup_steps=2,
        validation_split=0.25,
        eval_steps=5,
        max_new_tokens=20,
        save_steps=0,
        device=DeviceOptions("cpu", "fp32", 1),
    )


@pytest.fixture(scope="module")
def trained(config: dpo.Config) -> Path:
    return dpo.run(config)


@pytest.fixture
def pairs(config: dpo.Config, words: Tokenizer, runtime: Runtime, make_decoder: Callable[..., Decoder]) -> list[Pair]:
    """Six pairs, with another model's log-probabilities as the reference's."""
    training, _ = dpo.read(config, words, 64)
    return add_reference_logps(make_decoder(seed=7), Mixed([""], [training[:6]]), runtime, config.max_tokens_per_pass)


def gradient(model: Decoder) -> torch.Tensor:
    result = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return result


def test_it_learns_what_people_like(trained: Path, rows_of: Callable) -> None:
    rows = rows_of(trained)
    first, last = rows[0], rows[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)  # it starts as its reference
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-4)
    assert last["rewards/margins"] > 0.3 and last["rewards/accuracies"] > 0.9
    report = [row for row in rows if "eval/loss" in row]
    assert [row["step"] for row in report] == [5, 10, 15, 20, 24]
    assert report[-1]["eval/accuracy"] > 0.9 and report[-1]["eval/loss"] < math.log(2) - 0.05
    assert json.loads((trained / "finished.json").read_text())["eval/accuracy"] == report[-1]["eval/accuracy"]


def test_the_reference_reads_the_same_tokens_where_longer_completions_count_less(
    config: dpo.Config, tmp_path: Path, rows_of: Callable
) -> None:
    mixed = replace(config, loss=("sigmoid=2", "hinge"), ld_alpha=0.3, epochs=1, out=tmp_path / "run")
    rows = rows_of(dpo.run(mixed))
    assert rows[0]["loss"] == pytest.approx(2 * math.log(2) + 1, abs=1e-4)  # it starts as its reference
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["rewards/accuracies"] > 0.8


def test_the_distance_from_the_reference_is_measured_on_answers_to_held_out_prompts(
    trained: Path, config: dpo.Config, words: Tokenizer, runtime: Runtime, rows_of: Callable
) -> None:
    report = {row["step"]: row for row in rows_of(trained) if "objective/kl" in row}
    kls = [row["objective/kl"] for row in report.values()]
    assert list(report) == [5, 10, 15, 20, 24] and 0 < kls[0] < kls[-1] < 20
    assert json.loads((trained / "finished.json").read_text())["objective/kl"] == kls[-1]
    training, held_out = dpo.read(config, words, 64)
    prompts = first_prompts([pair.chosen for pair in held_out], config.eval_prompts, 64 - config.max_new_tokens)
    request = [words.decode(ids) for ids in prompts]
    samples = [json.loads(line) for line in (trained / "samples.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in samples] == 5 * request[:8]
    assert not set(request) & {
        words.decode(prompt) for prompt in first_prompts([pair.chosen for pair in training], 10**6, 64)
    }
    policy, _ = loading.load_policy(trained, runtime)
    reference, _ = loading.load_policy(config.model, runtime)
    sizes = config.max_new_tokens, config.max_tokens_per_pass, config.seed
    samples = math.ceil(config.eval_prompts / len(prompts))
    assert samples > 1, "fewer prompts than answers"
    result, _ = KLMonitor(policy, reference, prompts, words, runtime, *sizes, samples).measure()
    assert result["objective/kl"] == pytest.approx(kls[-1], rel=1e-3) and result["completions/mean_length"] > 3
    assert KLMonitor(reference, reference, prompts, words, runtime, *sizes).measure()[0]["objective/kl"] < 1e-3


def test_the_prompts_on_which_kl_is_measured_may_be_named(
    config: dpo.Config, files: Any, words: Tokenizer, tmp_path: Path
) -> None:
    named = replace(config, kl_prompts=files.prompts, eval_prompts=3, epochs=1, out=tmp_path / "run")
    run = dpo.run(named)
    (first,) = {json.loads(line)["prompt"] for line in (run / "samples.jsonl").read_text().splitlines()[:1]}
    prompt = sources.read_prompts(files.prompts).rows[0]
    assert first == words.decode(render_prompt(words, prompt.messages))
    assert str(files.prompts) in (run / "lineage.json").read_text()
    with pytest.raises(InputError, match=r"none\.jsonl"):
        dpo.run(replace(named, kl_prompts=tmp_path / "none.jsonl", out=tmp_path / "other"))


def test_held_out_prompts_are_few_distinct_and_leave_room(config: dpo.Config, words: Tokenizer) -> None:
    rows = [pair.chosen for pair in dpo.read(config, words, 64)[1]]
    every = first_prompts(rows, 100, 63)
    assert len({str(ids) for ids in every}) == len(every) < len(rows)
    assert first_prompts(rows, 2, 63) == every[:2] and first_prompts(rows, 0, 63) == []
    longest = max(map(len, every))
    assert first_prompts(rows, 100, longest - 1) == [ids for ids in every if len(ids) < longest]


def test_that_kl_is_not_measured_is_told(config: dpo.Config, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = dpo.run(replace(config, out=tmp_path / "no room", epochs=1, max_new_tokens=64))
    assert "no held-out prompt leaves room for --max-new-tokens 64: the KL" in capsys.readouterr().err
    assert "objective/kl" not in (out / "metrics.jsonl").read_text()


def test_a_policy_that_leaves_its_reference_is_stopped(config: dpo.Config, tmp_path: Path) -> None:
    short = replace(config, out=tmp_path / "far", epochs=1, eval_steps=3, max_kl=1e-6)
    with pytest.raises(InputError, match=r"stopped in step 3: objective/kl was above --max-kl 1e-06 up to step 3"):
        dpo.run(short)
    assert not (short.out / "model.safetensors").exists()
    unmeasured = dpo.run(replace(short, out=tmp_path / "unmeasured", eval_prompts=0))
    assert "objective/kl" not in (unmeasured / "metrics.jsonl").read_text()


def test_a_run_ends_at_its_kl_budget_with_the_best_weights_within_it(
    config: dpo.Config,
    words: Tokenizer,
    runtime: Runtime,
    rows_of: Callable,
    tmp_path: Path,
    run_in_two: Callable[[Any, Any, int], Path],
) -> None:
    free = replace(config, eval_steps=1, epochs=1, beta=0.01)
    kls = [row["objective/kl"] for row in rows_of(dpo.run(replace(free, out=tmp_path / "free")))]
    budget = (kls[3] + kls[4]) / 2
    assert kls[:5] == sorted(kls[:5]) and len(kls) > 6
    limited = replace(free, out=tmp_path / "limited", kl_budget=budget)
    out = dpo.run(limited)
    rows = rows_of(out)
    assert [row["objective/kl"] for row in rows] == kls[:5] and (out / "finished.json").exists()
    policy, _ = loading.load_policy(out, runtime)
    reference, _ = loading.load_policy(config.model, runtime)
    held_out = add_reference_logps(reference, dpo.read(config, words, 64)[1], runtime, config.max_tokens_per_pass)
    loss = mean_stats(dpo.DPO(policy, limited), held_out, runtime, config.max_tokens_per_pass)["loss"]
    assert loss == pytest.approx(min(row["eval/loss"] for row in rows[:4]), abs=1e-5)
    parted = run_in_two(dpo, replace(limited, out=tmp_path / "parted"), 3)
    assert (out / "model.safetensors").read_bytes() == (parted / "model.safetensors").read_bytes()


def test_a_kl_budget_that_cannot_be_measured_is_refused(config: dpo.Config, tmp_path: Path) -> None:
    for options in ({"eval_prompts": 0}, {"max_new_tokens": 64}):
        with pytest.raises(InputError, match="--kl-budget has no held-out prompts to measure on"):
            dpo.run(replace(config, out=tmp_path / "unmeasured", kl_budget=1.0, **options))


def test_chosen_answers_that_become_unlikely_are_told_of(config: dpo.Config, rows_of: Callable, tmp_path: Path) -> None:
    wild = replace(config, out=tmp_path / "wild", epochs=3, beta=0.01, optimizer=OptimizerConfig(learning_rate=2e-2))
    done = json.loads((dpo.run(wild) / "finished.json").read_text())
    assert rows_of(wild.out)[-1]["logratios/chosen"] < -12
    assert {"chosen answers", "KL"} <= {warning["check"] for warning in done["health"]["warnings"]}


def test_frozen_layers_do_not_move(config: dpo.Config, runtime: Runtime, tmp_path: Path) -> None:
    short = replace(config, out=tmp_path / "frozen", epochs=1, frozen_layers=1, eval_prompts=0)
    before = dict(loading.load_policy(config.model, runtime)[0].named_parameters())
    after = dict(loading.load_policy(dpo.run(short), runtime)[0].named_parameters())
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved and not [name for name in moved if "embedding" in name or "layers.0." in name]


@pytest.mark.parametrize(("pairs", "count"), [("all", 144), ("best-worst", 72), ("random", 72)])
def test_which_pairs_of_a_ranking_are_trained_on(config: dpo.Config, words: Tokenizer, pairs: Any, count: int) -> None:
    """Rankings of three answers, one of them the best and two that tie."""
    training, _ = dpo.read(replace(config, pairs=pairs, pairs_per_prompt=1), words, 64)
    assert len(training) == count


def test_the_saved_policy_prefers_the_chosen(trained: Path, config: dpo.Config, runtime: Runtime) -> None:
    """Worked out again from the saved files: log(policy / reference) of chosen less rejected."""
    policy, words = loading.load_policy(trained, runtime)
    reference, _ = loading.load_policy(config.model, runtime)
    _, held_out = dpo.read(config, words, 64)
    gains = []
    for pair in held_out:
        ours, theirs = (
            forward.compute_logprobs(model, [pair.chosen, pair.rejected], runtime, 500) for model in (policy, reference)
        )
        ratios = [float((a - b).sum()) for a, b in zip(ours, theirs)]
        gains.append(ratios[0] - ratios[1])
    assert sum(gain > 0 for gain in gains) / len(gains) > 0.9
    assert words.chat_template is not None


def test_the_reference_is_left_as_it_was(trained: Path, config: dpo.Config, assistant: Path) -> None:
    lineage = json.loads((trained / "lineage.json").read_text())
    assert lineage["inputs"]["model"]["sha256"] == hash_of(assistant)
    assert (trained / "model.safetensors").read_bytes() != (assistant / "model.safetensors").read_bytes()


def test_a_stopped_run_goes_on_to_the_bit(
    config: dpo.Config, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    """The reference's log-probabilities are computed again from the model, not from the policy of the checkpoint."""
    short = replace(config, epochs=1, pairs_per_prompt=1)
    whole = outcome(dpo.run(replace(short, out=tmp_path / "whole")))
    for stop in (2, 6):
        parted = run_in_two(dpo, replace(short, out=tmp_path / f"stopped-{stop}"), stop)
        assert outcome(parted) == whole, f"stopped at {stop}"


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "ipo", "rpo_alpha": 0.1},
        {"loss": "aot"},
        {"loss": "orpo", "reference": "none", "beta": 1.0},
        {"reference": "none", "length_normalization": True, "beta": 2.0, "margin": 1.0},
    ],
    ids=lambda options: options.get("loss", "simpo"),
)
def test_relatives_of_dpo_learn_the_same_preferences(
    config: dpo.Config,
    rows_of: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    """Without a reference none is loaded."""
    if "reference" in options:
        monkeypatch.setattr(loading, "load_reference", None)
    rows = rows_of(dpo.run(replace(config, out=tmp_path / "run", eval_steps=4, **options)))
    assert rows[-1]["rewards/margins"] > rows[0]["rewards/margins"] + 0.01
    assert rows[-1]["eval/loss"] < rows[3]["eval/loss"] and rows[-1]["eval/accuracy"] > 0.85
    measured = "reference" not in options
    assert ("objective/kl" in rows[-1], "logratios/chosen" in rows[-1]) == (measured, measured)
    assert ("no reference model (--reference none)" in " ".join(capsys.readouterr().err.split())) != measured


@pytest.mark.parametrize("given", [0.0, 0.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_by_hand(
    config: dpo.Config,
    pairs: list[Pair],
    make_decoder: Callable[..., Decoder],
    runtime: Runtime,
    smoothing: float,
    given: float,
) -> None:
    policy, terms, margins = make_decoder(), [], []
    pairs = [replace(pair, margin=given * i) for i, pair in enumerate(pairs)]
    for pair in pairs:
        chosen, rejected = (
            float(part.sum()) for part in forward.compute_logprobs(policy, [pair.chosen, pair.rejected], runtime, 500)
        )
        margin = 0.3 * ((chosen - pair.ref_chosen) - (rejected - pair.ref_rejected))
        right, wrong = (-math.log(1 / (1 + math.exp(-sign * (margin - pair.margin)))) for sign in (1, -1))
        terms.append((1 - smoothing) * right + smoothing * wrong)
        margins.append(margin)
    stats = accumulate(
        dpo.DPO(policy, replace(config, beta=0.3, label_smoothing=smoothing)),
        pairs,
        runtime,
        (replace(config, beta=0.3, label_smoothing=smoothing)).max_tokens_per_pass,
    )
    assert stats["loss"] == pytest.approx(sum(terms) / 6, rel=1e-4)
    assert stats["rewards/margins"] == pytest.approx(sum(margins) / 6, rel=1e-3, abs=1e-5)
    assert stats["rewards/accuracies"] == pytest.approx(sum(margin > 0 for margin in margins) / 6)


def test_a_pairs_margin_is_read_and_logged_beside_what_was_reached(
    config: dpo.Config, files: Any, words: Tokenizer, rows_of: Callable, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in files.pairs.read_text("utf-8").splitlines()]
    data = tmp_path / "graded.jsonl"
    data.write_text("".join(json.dumps({**row, "margin": 0.5 + i % 2}) + "\n" for i, row in enumerate(rows)), "utf-8")
    short = replace(config, epochs=1, data=data, out=tmp_path / "wide")
    assert {pair.margin for pair in dpo.read(short, words, 64)[0]} == {0.5, 1.5}
    wide, plain = (rows_of(dpo.run(each)) for each in (short, replace(short, data=files.pairs, out=tmp_path / "plain")))
    assert all(0.5 < row["margin/given"] < 1.5 for row in wide) and not any("margin/given" in row for row in plain)
    assert wide[0]["loss"] > 0.95 and plain[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert wide[0]["rewards/margins"] == pytest.approx(0.0, abs=1e-4)
    assert wide[-1]["rewards/margins"] != plain[-1]["rewards/margins"]


@pytest.mark.parametrize("max_tokens", [1, 120, 200])
def test_many_passes_are_one(
    config: dpo.Config, pairs: list[Pair], make_decoder: Callable[..., Decoder], runtime: Runtime, max_tokens: int
) -> None:
    policy = make_decoder()
    report = accumulate(dpo.DPO(policy, config), pairs, runtime, config.max_tokens_per_pass)
    whole = gradient(policy)
    again = accumulate(dpo.DPO(policy, replace(config, max_tokens_per_pass=max_tokens)), pairs, runtime, max_tokens)
    assert again == pytest.approx(report, rel=1e-4, abs=1e-5)
    assert torch.allclose(gradient(policy), whole, atol=1e-5) and whole.norm() > 0.01


def test_without_gradients_nothing_is_left_behind(
    config: dpo.Config, pairs: list[Pair], make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    policy = make_decoder()
    with torch.no_grad():
        stats = accumulate(dpo.DPO(policy, config), pairs, runtime, config.max_tokens_per_pass)
    assert stats["loss"] > 0 and all(p.grad is None for p in policy.parameters())


def pairs_of_ranking(row: dict[str, Any], words: Tokenizer, config: dpo.Config, folder: Path) -> Sequence[Pair]:
    """Return the pairs of a file with one ranking."""
    file = folder / "one.jsonl"
    file.write_text(json.dumps({"prompt": "name a rose", "id": "x", **row}) + "\n", "utf-8")
    return dpo.read(replace(config, data=file, validation=file), words, 64)[0]


def test_every_pair_of_a_ranking_is_trained_on_by_default(words: Tokenizer, tmp_path: Path) -> None:
    """Nine answers have 36 pairs."""
    row = {"completions": [f"lime {i}" for i in range(9)], "ranking": list(range(1, 10))}
    assert len(pairs_of_ranking(row, words, dpo.Config(), tmp_path)) == 36


def test_pairs_are_those_that_are_not_tied_and_at_most_so_many(
    config: dpo.Config, words: Tokenizer, tmp_path: Path
) -> None:
    ranking = {"completions": ["a rose", "lime", "plum", "sea"], "ranking": [2, 1, 2, 3]}

    def result(limit: int, seed: int = 0) -> list[tuple[str, str]]:
        some = pairs_of_ranking(ranking, words, replace(config, pairs_per_prompt=limit, seed=seed), tmp_path)
        return [tuple(words.decode([t for t, on in zip(*row) if on]) for row in (p.chosen, p.rejected)) for p in some]  # type: ignore[misc]

    every = {("lime", "a rose"), ("lime", "plum"), ("lime", "sea"), ("a rose", "sea"), ("plum", "sea")}
    assert set(result(0)) == every and len(result(0)) == 5
    assert len(result(2)) == 2 and set(result(2)) < every
    assert result(2) == result(2) and len({str(result(2, seed)) for seed in range(6)}) > 1
    with pytest.raises(InputError, match="none of the 1 rankings is within 64 tokens"):
        pairs_of_ranking({**ranking, "completions": ["a rose " * 40, "lime", "plum", "sea"]}, words, config, tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"beta": 0}, {"beta": math.nan}, {"label_smoothing": 0.5}, {"pairs_per_prompt": -1}, {"max_kl": -1}]
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        dpo.Config(**wrong)  # type: ignore[arg-type]


def test_a_kl_budget_needs_a_reference() -> None:
    with pytest.raises(InputError, match="kl_budget without a reference model"):
        dpo.Config(reference="none", kl_budget=1.0)
