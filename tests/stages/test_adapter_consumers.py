"""An adapter is ignored by no command: each gives what the merged model gives, and what its base does not give."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from amenable.data.types import Message, Prompt
from amenable.errors import InputError
from amenable.evaluation.answering import GenerationConfig, LoadedModel, generate_answers
from amenable.evaluation.entries import ModelEntry
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.hash_cache import model_hash
from amenable.library.model import Model
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, adapters, without_adapters
from amenable.recipes import compare, inspect, lineage, rounds, verify
from amenable.rewards.model import ModelReward
from amenable.rewards.spec import load_reward
from amenable.serve import arena, serve
from amenable.serve.chat import Chat
from amenable.serve.conversation import load_model, load_models, load_with_rewards
from amenable.stages import annotate, dpo, evaluate, sample, sft
from amenable.train import forward, loading
from amenable.train.optimizer import OptimizerConfig
from amenable.train.run_options import AdapterOptions
from amenable.train.runtime import DeviceOptions, Runtime

CPU = DeviceOptions("cpu", "fp32", 1)
MESSAGES = (Message("user", "Ann asks: name a red thing."),)
PROMPTS = [Prompt(MESSAGES, "1"), Prompt((Message("user", "Bo asks: name a blue thing."),), "2")]
ANSWERS = ["Gladly: a rose, it is red.", "Grimly: a sea, it is blue."]
IDS, LAYOUT = torch.arange(1, 13), Layout.of([5, 7])


@dataclass(frozen=True)
class Folders:
    """One model in two forms, and the model below."""

    adapter: Path
    merged: Path
    base: Path


def save(model: Decoder | ScalarModel, folder: Path, base: Path, runtime: Runtime, seed: int) -> Folders:
    """Save a model with adapters far from their first values."""
    tokenizer = Model(base).tokenizer
    loading.add_adapters(model, LoraOptions(rank=4, alpha=8.0), seed, base, runtime)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in adapters(model).values():
            for b in layer.b:
                b.copy_(0.2 * torch.randn(b.shape, generator=generator))
    loading.save_model(folder, model, tokenizer)
    return Folders(folder / "adapter", folder, base)


@pytest.fixture(scope="module")
def policy(assistant: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    decoder, _ = loading.load_policy(assistant, runtime)
    return save(decoder, tmp_path_factory.mktemp("policy") / "run", assistant, runtime, 1)


@pytest.fixture(scope="module")
def second(assistant: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    decoder, _ = loading.load_policy(assistant, runtime)
    return save(decoder, tmp_path_factory.mktemp("second") / "run", assistant, runtime, 2)


@pytest.fixture(scope="module")
def scorer(assistant: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    model = ScalarModel.from_decoder(loading.load_policy(assistant, runtime)[0], torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.score.bias.fill_(0.7)
    return save(model, tmp_path_factory.mktemp("scorer") / "run", assistant, runtime, 3)


@torch.inference_mode()
def logits(decoder: Decoder) -> torch.Tensor:
    return decoder.logits(decoder(IDS, LAYOUT))


def agree(of: Callable[[Path], Any], folders: Folders) -> None:
    """Check that something of the adapter is that of the merged model, and not that of the base."""
    ours, merged, base = (of(folder) for folder in (folders.adapter, folders.merged, folders.base))
    if isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours, merged, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(ours, base, atol=0.05)
    else:
        assert ours == merged and ours != base


@pytest.mark.parametrize("loader", ["policy", "evaluation", "serving", "library"])
def test_every_loader_of_language_models(loader: str, policy: Folders, runtime: Runtime) -> None:
    decoders: dict[str, Callable[[Path], Decoder]] = {
        "policy": lambda folder: loading.load_policy(folder, runtime)[0],
        "evaluation": lambda folder: LoadedModel.load(ModelEntry("x", folder), runtime).decoder,
        "serving": lambda folder: load_model(folder, runtime).decoder,
        "library": lambda folder: Model(folder, "cpu", "fp32").decoder,
    }
    agree(lambda folder: logits(decoders[loader](folder)), policy)


def test_the_reward_of_a_folder(scorer: Folders, runtime: Runtime, assistant: Path) -> None:
    spec = [load_reward(str(folder), runtime) for folder in (scorer.adapter, scorer.merged)]
    ours, merged = (torch.tensor(reward([prompt.messages for prompt in PROMPTS], ANSWERS)) for reward in spec)
    torch.testing.assert_close(ours, merged, rtol=1e-4, atol=1e-4)
    model = ModelReward.load(scorer.adapter, runtime).model
    assert float(model.score.bias) == pytest.approx(0.7)
    ids = Model(assistant).tokenizer.encode(ANSWERS[0])
    rows = [(ids, [True] * len(ids))]
    assert not torch.allclose(
        forward.compute_rewards(model, rows, runtime, 100),
        forward.compute_rewards(replace_body(model, assistant, runtime), rows, runtime, 100),
        atol=0.05,
    )


def replace_body(model: ScalarModel, folder: Path, runtime: Runtime) -> ScalarModel:
    """Return the same head on the base."""
    base = ScalarModel.from_decoder(loading.load_policy(folder, runtime)[0])
    base.score.load_state_dict(model.score.state_dict())
    return base


def test_a_kind_of_adapter_is_no_model_of_the_other_kind(policy: Folders, scorer: Folders, runtime: Runtime) -> None:
    with pytest.raises(InputError, match="holds a language model, not a reward model"):
        ModelReward.load(policy.adapter, runtime)
    with pytest.raises(InputError, match="holds a reward model, not a language model"):
        loading.load_policy(scorer.adapter, runtime)


def test_answers_of_an_evaluation(policy: Folders, runtime: Runtime) -> None:
    settings = GenerationConfig(temperature=0.0, max_new_tokens=12)

    def answers(folder: Path) -> list[str]:
        model = LoadedModel.load(ModelEntry("x", folder), runtime)
        return [answer.text for group in generate_answers(model, PROMPTS, settings) for answer in group]

    agree(answers, policy)


def test_a_run_of_evaluate(policy: Folders, files: Any, tmp_path: Path) -> None:
    models = tuple(f"{name}={getattr(policy, name)}" for name in ("adapter", "merged", "base"))
    config = evaluate.Config(
        models=models, data=files.prompts, world=None, lm_data=files.text, reference="base",
        out=tmp_path / "evaluate", max_prompts=4, max_new_tokens=8, device=CPU,
    )  # fmt: skip
    out = evaluate.run(config)
    rows = [json.loads(line)["answers"] for line in (out / "samples.jsonl").open()]
    figures = json.loads((out / "evaluation.json").read_text())["models"]
    assert all(row["adapter"]["greedy"]["text"] == row["merged"]["greedy"]["text"] for row in rows)
    assert any(row["adapter"]["greedy"]["text"] != row["base"]["greedy"]["text"] for row in rows)
    assert figures["adapter"]["bpb"] == pytest.approx(figures["merged"]["bpb"], rel=1e-4)
    assert figures["adapter"]["bpb"] != pytest.approx(figures["base"]["bpb"], rel=1e-2)
    assert figures["adapter"]["kl"] > 0.1 and figures["base"]["kl"] == pytest.approx(0, abs=1e-4)


def test_samples(policy: Folders, files: Any, tmp_path: Path) -> None:
    def completions(folder: Path) -> list[Any]:
        out = tmp_path / f"{folder.parent.name}-{folder.name}"
        config = sample.Config(model=folder, data=files.prompts, out=out, num_generations=1, device=CPU)
        config = replace(config, sampling=replace(config.sampling, temperature=0.5, max_new_tokens=8))
        return [json.loads(line)["completions"] for line in (sample.run(config) / "samples.jsonl").open()]

    agree(completions, policy)


def test_rankings_of_a_judge(scorer: Folders, judge: Path, files: Any, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in files.rankings.open()][:24]
    data = tmp_path / "samples.jsonl"
    data.write_text("".join(json.dumps({**row, "ended": [True] * 3}) + "\n" for row in rows))

    def ranks(folder: Path) -> list[Any]:
        out = tmp_path / f"{folder.parent.name}-{folder.name}"
        config = annotate.Config(data=data, judge=(str(folder),), out=out, device=CPU)
        return [json.loads(line)["ranking"] for line in (annotate.run(config) / "train.jsonl").open()]

    agree(ranks, replace(scorer, base=judge))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "labels.db") as store:
        yield store


def test_serve_lists_every_name_and_holds_the_base_once(
    policy: Folders, second: Folders, store: Store, runtime: Runtime
) -> None:
    from amenable.serve.openai import api

    models = [("base", policy.base), ("a", policy.adapter), ("b", second.adapter), ("merged", policy.merged)]
    config = serve.Config(models=("x=y",), device=CPU)
    with serve.load_state(config, models, [], store, None, 12) as state:
        client = TestClient(api.make_app(state), base_url="http://127.0.0.1")
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["base", "a", "b", "merged"]

        def complete(name: str) -> str:
            message = [{"role": "user", "content": MESSAGES[0].content}]
            body = {"model": name, "messages": message, "temperature": 0, "max_tokens": 12}
            reply = client.post("/v1/chat/completions", json=body)
            return reply.json()["choices"][0]["message"]["content"]

        answers = {name: complete(name) for name, _ in models}
        assert answers["a"] == answers["merged"] and len({answers[name] for name in ("base", "a", "b")}) == 3
        decoders = {name: served.model.decoder for name, served in state.models.items()}
    base = {id(p) for p in decoders["base"].parameters()}
    for name in ("a", "b"):
        own = [p for p in decoders[name].parameters() if id(p) not in base]
        assert adapters(decoders[name]) and sum(p.nbytes for p in own) < 0.2 * sum(
            p.nbytes for p in decoders["base"].parameters()
        )
    assert not base & {id(p) for p in decoders["merged"].parameters()}


@pytest.mark.parametrize("bf16", [False, True])
def test_reward_models_of_adapters_share_the_base_of_the_policies(
    policy: Folders, scorer: Folders, runtime: Runtime, bf16: bool
) -> None:
    each, close = replace(runtime, bf16=bf16), {"rtol": 0.02, "atol": 0.05} if bf16 else {"rtol": 1e-4, "atol": 1e-4}
    models = [("base", policy.base), ("a", policy.adapter)]
    (base, _), rewards = load_with_rewards(models, [scorer.adapter, scorer.merged], each)
    shared = {id(p) for p in base.decoder.layers.parameters()}
    alone = [ModelReward.load(folder, each) for folder in (scorer.adapter, scorer.merged)]
    for ours, theirs in zip(rewards, alone):
        assert {id(p) for p in without_adapters(ours.model.decoder).layers.parameters()} == shared
        scores = [torch.tensor(reward([p.messages for p in PROMPTS], ANSWERS)) for reward in (ours, theirs)]
        torch.testing.assert_close(*scores, **close)
    # without its base the merged model is read as it is
    fields = json.loads((scorer.merged / "adapter" / "adapter_config.json").read_text())
    moved = shutil.copytree(scorer.merged, policy.merged.with_name(f"moved-{bf16}"))
    (moved / "adapter" / "adapter_config.json").write_text(json.dumps(fields | {"base_model_name_or_path": "gone"}))
    _, (reward,) = load_with_rewards(models, [moved], each)
    assert not adapters(reward.model)


def test_two_adapters_share_a_base_that_is_not_served(policy: Folders, second: Folders, runtime: Runtime) -> None:
    for each in (runtime, replace(runtime, bf16=True)):
        a, b = load_models([("a", policy.adapter), ("b", second.adapter)], each)
        sizes, other = ({id(p): p.nbytes for p in model.decoder.parameters()} for model in (a, b))
        assert sum(size for key, size in sizes.items() if key not in other) < 0.3 * sum(sizes.values())
        assert sizes.keys() != other.keys()
        with each.autocast():
            for model, folders in ((a, policy), (b, second)):
                theirs = load_model(folders.merged, each).decoder
                close = {"rtol": 1e-4, "atol": 1e-4} if not each.bf16 else {"rtol": 0.1, "atol": 0.15}
                torch.testing.assert_close(logits(model.decoder), logits(theirs), **close)
    (alone,) = load_models([(None, policy.adapter)], runtime)
    assert not adapters(alone.decoder)


def test_the_arena_tells_adapters_from_their_base(policy: Folders, second: Folders, store: Store) -> None:
    models = [("base", policy.base), ("a", policy.adapter), ("b", second.adapter)]
    config = arena.Config(models=("a=x", "b=y"), device=CPU)
    with serve.load_state(config, models, [], store, None, 8) as state:
        opened = arena.open_arena(config, state, models, store)
        assert set(opened.origins) == set(state.models) == {"base", "a", "b"}
    hashes = {origin["sha256"] for origin in opened.origins.values()}
    assert len(hashes) == 3


def test_the_hash_of_an_adapter_is_of_its_scale_and_base_too(policy: Folders, tmp_path: Path) -> None:
    base = shutil.copytree(policy.base, tmp_path / "base")
    folder = shutil.copytree(policy.adapter, tmp_path / "adapter")
    fields = json.loads((folder / "adapter_config.json").read_text())

    def changed(**changes: Any) -> str:
        (folder / "adapter_config.json").write_text(json.dumps(fields | changes))
        return model_hash(folder)

    first = changed()
    assert changed(lora_alpha=9.0) != first and changed() == first
    here = changed(base_model_name_or_path=str(base))
    (base / "generation_config.json").write_text("{}")
    assert model_hash(folder) != here


def test_chat(policy: Folders, second: Folders, runtime: Runtime) -> None:
    class Frontend:
        def __init__(self) -> None:
            self.answers: list[str] = []

        def note(self, text: str) -> None: ...

        def answer(self, names: Any, streams: Any) -> list[str]:
            self.answers += (answers := ["".join(stream) for stream in streams])
            return answers

    def answer(folder: Path) -> str:
        frontend = Frontend()
        models = load_models([(None, folder), (None, second.adapter)], runtime)
        Chat(models, Sampling(temperature=0, max_new_tokens=12)).send(MESSAGES[0].content, frontend)  # type: ignore
        return frontend.answers[0]

    agree(answer, policy)


def test_a_copy_and_an_export_of_the_library(policy: Folders, tmp_path: Path) -> None:
    copied = Model(policy.adapter).save(tmp_path / "copied")
    model = Model(policy.adapter, "cpu", "fp32")
    assert model.decoder is not None
    exported = model.save(tmp_path / "exported")
    assert not list(exported.rglob("adapter*"))
    for folder in (copied, exported):
        agree(lambda name: logits(Model(name, "cpu", "fp32").decoder), replace(policy, adapter=folder))


def test_a_run_on_an_adapter_starts_there_resumes_and_has_it_in_its_lineage(
    policy: Folders, files: Any, tmp_path: Path, run_in_two: Callable[[Any, Any, int], Path], outcome: Any
) -> None:
    config = dpo.Config(
        model=policy.adapter, data=files.pairs, out=tmp_path / "whole", lora=LoraOptions(rank=2, alpha=4.0),
        optimizer=OptimizerConfig(learning_rate=1e-9), save_steps=0, max_new_tokens=8, device=CPU,
    )  # fmt: skip
    whole = dpo.run(config)
    assert outcome(whole) == outcome(run_in_two(dpo, replace(config, out=tmp_path / "parted"), 2))
    agree(lambda name: logits(Model(name, "cpu", "fp32").decoder), replace(policy, adapter=whole))
    # an adapter on an adapter is a model as well
    agree(lambda name: logits(Model(name, "cpu", "fp32").decoder), replace(policy, adapter=whole / "adapter"))
    sources = {source.name: source.path for source in lineage.trace(whole).sources}
    assert sources["model"] == str(policy.adapter) and sources["model's base"] == str(policy.base)
    again = replace(config, model=whole / "adapter", out=tmp_path / "again")
    sources = {source.name: source.path for source in lineage.trace(dpo.run(again)).sources}
    assert sources["model's base's base"] == str(policy.base)


def test_a_template_that_sft_writes_is_in_its_adapter(base: Path, files: Any, tmp_path: Path, runtime: Runtime) -> None:
    out = tmp_path / "sft"
    decoder, tokenizer = loading.load_policy(base, runtime)
    loading.add_adapters(decoder, LoraOptions(rank=2), 0, base, runtime)
    loading.save_model(out, decoder, tokenizer.with_chat_template())
    assert Model(out / "adapter").tokenizer.chat_template == Model(out).tokenizer.chat_template is not None


def test_verify_runs_the_adapter_on_its_base(
    policy: Folders, scorer: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folders in (policy, scorer):
        verify.run(verify.Config(folders.merged))
        assert "good      adapter: on its base" in capsys.readouterr().out
    broken = shutil.copytree(policy.merged, tmp_path / "broken")
    file = broken / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 9.0}))
    with pytest.raises(InputError, match="is not what it was: adapter"):
        verify.run(verify.Config(broken))


def test_inspect_names_rank_layers_and_base(policy: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.run(inspect.Config(policy.adapter)) == policy.adapter
    lines = capsys.readouterr().out
    assert (
        f"LoRA of rank 4, alpha 8, on down_proj gate_proj k_proj o_proj q_proj up_proj v_proj of {policy.base}" in lines
    )


def test_compare_of_adapters(policy: Folders, scorer: Folders, judge: Path, files: Any, tmp_path: Path) -> None:
    config = compare.Config((policy.adapter, policy.merged), out=tmp_path / "same", max_prompts=4, device=CPU)
    config = replace(config, data=files.prompts, reward=(str(scorer.adapter),), max_new_tokens=8)

    def same(a: Path, b: Path) -> float:
        out = compare.run(replace(config, runs=(a, b), out=tmp_path / b.parent.name / b.name))
        return json.loads((out / "compare.json").read_text())["answers"]["greedy"]["same"]

    assert same(policy.adapter, policy.merged) == 1.0 and same(policy.adapter, policy.base) < 1.0
    assert compare.read_side(scorer.adapter, "x").kind == "reward model"


def test_rounds_sample_the_adapter_of_their_base_run(policy: Folders, files: Any, tmp_path: Path) -> None:
    root = tmp_path / "home"
    shutil.copytree(policy.adapter, root / "sft")
    (root / "sft" / "finished.json").write_text("{}")
    config = rounds.Config(
        base_run=root, out=tmp_path / "out", judge=("ends",), prompts=files.prompts, test=files.prompts,
        num_generations=2,
    )  # fmt: skip
    turn = config.adaptive_rounds[0]
    (run,) = rounds.sample_runs(turn, rounds.find(config), config)
    agree(lambda name: logits(Model(name, "cpu", "fp32").decoder), replace(policy, adapter=run.config.model))


def test_sft_keeps_weights_by_the_reward_of_an_adapter(scorer: Folders, files: Any, tmp_path: Path) -> None:
    def score(folder: Path) -> float:
        config = sft.Config(
            model=scorer.base, data=files.demonstrations, epochs=1, keep_weights="score", reward=(str(folder),),
            out=tmp_path / f"to-{folder.name}", max_new_tokens=8, reward_prompts=4, save_steps=0, device=CPU,
            optimizer=OptimizerConfig(learning_rate=1e-9),
        )  # fmt: skip
        return json.loads((sft.run(config) / "finished.json").read_text())["eval/score"]

    assert score(scorer.adapter) == pytest.approx(score(scorer.merged), abs=1e-4)


def test_every_stage_that_trains_a_model_has_the_option() -> None:
    from amenable.stages import ppo, reward, rloo

    for stage in (sft, reward, dpo, ppo, rloo):
        assert issubclass(stage.Config, AdapterOptions)
