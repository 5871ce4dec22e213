"""Virtual tokens, of prompt and prefix tuning, in every stage that trains a model and every command that reads one."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from starlette.testclient import TestClient

from amenable.data.types import Message, Prompt
from amenable.errors import InputError
from amenable.evaluation.answering import GenerationConfig, LoadedModel, generate_answers
from amenable.evaluation.entries import ModelEntry
from amenable.feedback.store import Store
from amenable.files import hash_of
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.library.model import Model
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, decoder_of, without_adapters
from amenable.models.prompt_tuning import VirtualTokens
from amenable.recipes import compare, export, inspect, lineage, verify
from amenable.rewards.model import ModelReward
from amenable.rl.models import load_critic, load_models
from amenable.serve import arena, serve
from amenable.serve.chat import Chat
from amenable.serve.conversation import load_model
from amenable.serve.conversation import load_models as load_served
from amenable.stages import annotate, dpo, evaluate, ppo, pretrain, reward, rloo, sample, sft
from amenable.text.chat import clean_completion, render_prompt
from amenable.train import defaults, forward, loading, plan
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime

COUNT = 6
CPU = DeviceOptions("cpu", "fp32", 1)
PROMPTS = [
    Prompt((Message("user", text),), str(i))
    for i, text in enumerate(["Ann asks: name a red thing.", "And a blue one?"])
]
ANSWERS = ["Gladly: a rose, it is red.", "Grimly: a sea, it is blue."]
IDS, LAYOUT = torch.arange(1, 13), Layout.of([5, 7])
ROWS = [([1, 40, 41, 50, 51], [False, False, True, True, True]), ([1, 40, 60], [False, True, True])]
COMMON: dict[str, Any] = {"prompt_tuning": COUNT, "device": CPU, "save_steps": 0}
RATE: dict[str, Any] = {"optimizer": OptimizerConfig(learning_rate=1e-2), "warmup_steps": 1}
ONLINE: dict[str, Any] = {"max_steps": 3, "prompts_per_step": 4, "max_new_tokens": 8, "num_mini_batches": 1}


@dataclass(frozen=True)
class Prompted:
    """A model with virtual tokens far from their first values, its folder, and the model below."""

    model: Any
    folder: Path
    base: Path


def save(
    model: Decoder | ScalarModel, folder: Path, base: Path, runtime: Runtime, seed: int, every_layer: bool = False
) -> Prompted:
    tokens = VirtualTokens(COUNT, every_layer=every_layer)
    loading.add_adapters(model, LoraOptions(), seed, base, runtime, virtual_tokens=tokens)
    with torch.no_grad():
        prompt = decoder_of(model).virtual_tokens
        prompt.add_(torch.randn(prompt.shape, generator=torch.Generator().manual_seed(seed)))
    loading.save_model(folder, model, Model(base).tokenizer)
    return Prompted(model, folder, base)


@pytest.fixture(scope="module")
def policy(assistant: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Prompted:
    decoder, _ = loading.load_policy(assistant, runtime)
    return save(decoder, tmp_path_factory.mktemp("policy") / "run", assistant, runtime, 1)


@pytest.fixture(scope="module")
def second(assistant: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Prompted:
    decoder, _ = loading.load_policy(assistant, runtime)
    return save(decoder, tmp_path_factory.mktemp("second") / "run", assistant, runtime, 2, every_layer=True)


@pytest.fixture(scope="module")
def scorer(assistant: Path, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Prompted:
    model = ScalarModel.from_decoder(loading.load_policy(assistant, runtime)[0], torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.score.bias.fill_(0.7)
    return save(model, tmp_path_factory.mktemp("scorer") / "run", assistant, runtime, 3)


@torch.inference_mode()
def logits(decoder: Decoder) -> torch.Tensor:
    return decoder.logits(decoder(IDS, LAYOUT))


def greedy(decoder: Decoder, base: Path, length: int) -> list[str]:
    """The answers to PROMPTS of a decoder in memory."""
    tokenizer = Model(base).tokenizer
    ids = [render_prompt(tokenizer, prompt.messages) for prompt in PROMPTS]
    sampling = Sampling(temperature=0.0, max_new_tokens=length)
    groups = generate(decoder, ids, sampling, eos_id=tokenizer.stop_ids, decode=tokenizer.decode)
    return [clean_completion(tokenizer, group[0].text or "") for group in groups]


@pytest.mark.parametrize("kind", ["policy", "second"])
@pytest.mark.parametrize("loader", ["policy", "evaluation", "serving", "library"])
def test_every_loader_of_language_models(
    loader: str, kind: str, request: pytest.FixtureRequest, runtime: Runtime
) -> None:
    policy: Prompted = request.getfixturevalue(kind)
    decoders: dict[str, Callable[[Path], Decoder]] = {
        "policy": lambda folder: loading.load_policy(folder, runtime)[0],
        "evaluation": lambda folder: LoadedModel.load(ModelEntry("x", folder), runtime).decoder,
        "serving": lambda folder: load_model(folder, runtime).decoder,
        "library": lambda folder: Model(folder, "cpu", "fp32").decoder,
    }
    loaded, base = (decoders[loader](folder) for folder in (policy.folder, policy.base))
    assert torch.equal(logits(loaded), logits(policy.model))
    assert not torch.allclose(logits(loaded), logits(base), atol=0.05)
    assert loaded.config.context_length == base.config.context_length - COUNT


def test_the_reward_of_a_folder(scorer: Prompted, policy: Prompted, runtime: Runtime) -> None:
    loaded = ModelReward.load(scorer.folder, runtime)
    expected = forward.compute_rewards(scorer.model.eval(), ROWS, runtime, 100)
    assert torch.equal(forward.compute_rewards(loaded.model, ROWS, runtime, 100), expected)
    bare = ScalarModel.from_decoder(without_adapters(scorer.model.decoder))
    bare.score.load_state_dict(scorer.model.score.state_dict())
    assert not torch.allclose(forward.compute_rewards(bare, ROWS, runtime, 100), expected, atol=0.05)
    with pytest.raises(InputError, match="holds a language model, not a reward model"):
        ModelReward.load(policy.folder, runtime)
    with pytest.raises(InputError, match="holds a reward model, not a language model"):
        loading.load_policy(scorer.folder, runtime)


def test_answers_and_a_run_of_evaluate(policy: Prompted, files: Any, tmp_path: Path, runtime: Runtime) -> None:
    settings = GenerationConfig(temperature=0.0, max_new_tokens=12)
    model = LoadedModel.load(ModelEntry("x", policy.folder), runtime)
    answers = [answer.text for group in generate_answers(model, PROMPTS, settings) for answer in group]
    assert answers == greedy(policy.model, policy.base, 12) != greedy(without_adapters(policy.model), policy.base, 12)
    config = evaluate.Config(
        models=(f"ours={policy.folder}", f"base={policy.base}"), data=files.prompts, world=None, lm_data=files.text,
        reference="base", out=tmp_path / "evaluate", max_prompts=4, max_new_tokens=8, device=CPU,
    )  # fmt: skip
    out = evaluate.run(config)
    figures = json.loads((out / "evaluation.json").read_text())["models"]
    rows = [json.loads(line)["answers"] for line in (out / "samples.jsonl").open()]
    assert any(row["ours"]["greedy"]["text"] != row["base"]["greedy"]["text"] for row in rows)
    assert figures["ours"]["bpb"] != pytest.approx(figures["base"]["bpb"], rel=1e-2)
    assert figures["ours"]["kl"] > 0.1 and figures["base"]["kl"] == pytest.approx(0, abs=1e-4)


def test_samples_and_rankings(policy: Prompted, scorer: Prompted, judge: Path, files: Any, tmp_path: Path) -> None:
    def completions(folder: Path) -> list[Any]:
        config = sample.Config(model=folder, data=files.prompts, num_generations=1, device=CPU)
        config = replace(config, sampling=replace(config.sampling, temperature=0.0, max_new_tokens=8))
        out = sample.run(replace(config, out=tmp_path / f"samples-of-{folder.parent.name}"))
        return [json.loads(line)["completions"] for line in (out / "samples.jsonl").open()]

    assert completions(policy.folder) != completions(policy.base)
    rows = [json.loads(line) for line in files.rankings.open()][:24]
    data = tmp_path / "samples.jsonl"
    data.write_text("".join(json.dumps({**row, "ended": [True] * 3}) + "\n" for row in rows))
    config = annotate.Config(data=data, judge=(str(scorer.folder),), out=tmp_path / "annotate", device=CPU)
    ranks = [json.loads(line)["ranking"] for line in (annotate.run(config) / "train.jsonl").open()]
    other = annotate.run(replace(config, judge=(str(judge),), out=tmp_path / "other"))
    assert ranks != [json.loads(line)["ranking"] for line in (other / "train.jsonl").open()]


def test_serve_and_arena_hold_the_base_once(policy: Prompted, second: Prompted, tmp_path: Path) -> None:
    from amenable.serve.openai import api

    models = [("base", policy.base), ("a", policy.folder), ("b", second.folder)]
    with Store(tmp_path / "labels.db") as store:
        config = serve.Config(models=("x=y",), device=CPU)
        with serve.load_state(config, models, [], store, None, 12) as state:
            client = TestClient(api.make_app(state), base_url="http://127.0.0.1")

            def complete(name: str) -> str:
                message = [{"role": "user", "content": PROMPTS[0].messages[0].content}]
                body = {"model": name, "messages": message, "temperature": 0, "max_tokens": 12}
                return client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]

            answers = {name: complete(name) for name, _ in models}
            assert answers["a"].strip() == greedy(policy.model, policy.base, 12)[0]
            assert len(set(answers.values())) == 3
            decoders = {name: served.model.decoder for name, served in state.models.items()}
            opened = arena.open_arena(arena.Config(models=("a=x", "b=y"), device=CPU), state, models, store)
            assert len({origin["sha256"] for origin in opened.origins.values()}) == 3
    base = {id(p) for p in decoders["base"].parameters()}
    for name, tokens in (("a", "prompt_embeddings"), ("b", "prefix_keys_values")):
        assert [name for name, p in decoders[name].named_parameters() if id(p) not in base] == [tokens]


def test_chat_and_its_context(policy: Prompted, second: Prompted, runtime: Runtime) -> None:
    class Frontend:
        def note(self, text: str) -> None: ...

        def answer(self, names: Any, streams: Any) -> list[str]:
            answers.extend("".join(stream) for stream in streams)
            return answers

    answers: list[str] = []
    models = load_served([(None, policy.folder), (None, second.folder)], runtime)
    Chat(models, Sampling(temperature=0, max_new_tokens=12)).send(PROMPTS[0].messages[0].content, Frontend())  # type: ignore
    expected = [greedy(each.model, each.base, 12)[0].strip() for each in (policy, second)]
    assert [answer.strip() for answer in answers] == expected


def test_a_copy_and_changed_weights_of_the_library(policy: Prompted, tmp_path: Path) -> None:
    model = Model(policy.folder, "cpu", "fp32")
    assert model.decoder is not None
    for folder in (Model(policy.folder).save(tmp_path / "copied"), model.save(tmp_path / "saved")):
        assert torch.equal(logits(Model(folder, "cpu", "fp32").decoder), logits(policy.model))
    with torch.no_grad():
        model.decoder.layers[0].mlp.down.weight.add_(1.0)
    with pytest.raises(InputError, match="other weights than its virtual tokens have changed"):
        model.save(tmp_path / "changed")


def test_compare_tells_it_from_its_base(policy: Prompted, scorer: Prompted, files: Any, tmp_path: Path) -> None:
    config = compare.Config((policy.folder, policy.base), out=tmp_path / "out", max_prompts=4, device=CPU)
    out = compare.run(replace(config, data=files.prompts, reward=(str(scorer.folder),), max_new_tokens=8))
    assert json.loads((out / "compare.json").read_text())["answers"]["greedy"]["same"] < 1.0
    assert compare.read_side(scorer.folder, "x").kind == "reward model"


@pytest.fixture
def configs(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> dict[str, tuple[Any, Any]]:
    online = {"model": assistant, "data": files.prompts, "reward": judge, **ONLINE, **RATE, **COMMON}
    offline = {"model": assistant, **RATE, **COMMON}
    text = {"data": files.text, "model": str(assistant), "max_steps": 3, "tokens_per_step": 512, **RATE, **COMMON}
    return {
        "pretrain": (pretrain, pretrain.Config(out=tmp_path / "pretrain", **text)),
        "sft": (sft, sft.Config(data=files.demonstrations, epochs=1, out=tmp_path / "sft", **offline)),
        "reward": (reward, reward.Config(data=files.rankings, out=tmp_path / "reward", **offline)),
        "dpo": (dpo, dpo.Config(data=files.pairs, out=tmp_path / "dpo", max_new_tokens=8, **offline)),
        "ppo": (ppo, ppo.Config(out=tmp_path / "ppo", critic_learning_rate=1e-2, **online)),
        "rloo": (rloo, rloo.Config(out=tmp_path / "rloo", num_generations=2, **online)),
    }


RUNS = [(name, False) for name in ("pretrain", "sft", "dpo", "ppo")] + [(name, True) for name in ("reward", "rloo")]


@pytest.mark.parametrize(("name", "every_layer"), RUNS)
def test_it_trains_them_alone_resumes_and_is_verified(
    configs: dict[str, tuple[Any, Any]],
    name: str,
    every_layer: bool,
    assistant: Path,
    run_in_two: Callable[[Any, Any, int], Path],
    outcome: Callable[[Path], dict[str, Any]],
    runtime: Runtime,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stage, config = configs[name]
    config = replace(config, prompt_tuning=0, prefix_tuning=COUNT) if every_layer else config
    before = hash_of(assistant)
    whole = stage.run(config)
    shape = Model(assistant, "cpu", "fp32").decoder.config
    width = 2 * shape.num_layers * shape.hidden_size if every_layer else shape.hidden_size
    assert f"{COUNT} virtual tokens before every row" in " ".join(capfd.readouterr().err.split())
    parted = run_in_two(stage, replace(config, out=config.out.with_name("parted")), 2)
    ours, theirs = (load_file(out / "adapter_model.safetensors") for out in (whole, parted))
    assert outcome(whole) == outcome(parted) and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert hash_of(assistant) == before and not (whole / "config.json").exists()
    assert ours.keys() == {"prompt_embeddings", *(["base_model.score.weight"] if name == "reward" else [])}
    assert ours["prompt_embeddings"].shape == (COUNT, width)
    # the model of the folder is the base with these embeddings before its rows, which are no longer those of any token
    load = loading.load_policy if name != "reward" else None
    decoder = load(whole, runtime)[0] if load else ModelReward.load(whole, runtime).model.decoder
    vocabulary = decoder.token_embedding.weight
    assert torch.equal(decoder.virtual_tokens, ours["prompt_embeddings"])
    assert every_layer or torch.cdist(decoder.prompt_embeddings, vocabulary).min() > 1e-3
    verify.run(verify.Config(whole))
    lines = capfd.readouterr().out
    assert "bad" not in lines and "good      probe" in lines and "good      manifest" in lines
    sources = {source.name: source.path for source in lineage.trace(whole).sources}
    assert sources["model"] == str(assistant)
    kind = "prefix" if every_layer else "prompt"
    assert inspect.describe_adapter(whole).startswith(f"{kind} tuning: {COUNT} virtual tokens before every row of")
    assert "PeftModel.from_pretrained" in (whole / "README.md").read_text()


def test_a_checkpoint_holds_them_alone(configs: dict[str, tuple[Any, Any]], stop_at: Callable[[int], None]) -> None:
    stage, config = configs["sft"]
    stop_at(2)
    with pytest.raises(Exception, match="saved at step 2"):
        stage.run(config)
    names = load_file(config.out / "checkpoint-2" / "state.safetensors").keys()
    assert [name.rsplit("/", 1)[-1] for name in names if "/model/" in name] == ["prompt_embeddings"]


@pytest.mark.parametrize("tokens", [{}, {"prompt_tuning": 0, "prefix_tuning": COUNT}], ids=["prompt", "prefix"])
@pytest.mark.parametrize("name", ["sft", "reward"])
def test_peft_opens_a_run_with_its_outputs(
    configs: dict[str, tuple[Any, Any]], name: str, tokens: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    stage, config = configs[name]
    config = replace(config, **tokens)
    verify.run(verify.Config(stage.run(config), transformers=True))
    assert "good      transformers" in capsys.readouterr().out


def test_a_bf16_run_saves_what_its_folder_computes(configs: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    stage, config = configs["dpo"]
    config = replace(config, device=DeviceOptions("cpu", "bf16", 1))
    verify.run(verify.Config(stage.run(config)))
    out = stage.run(replace(config, prompt_tuning=0, prefix_tuning=COUNT, out=tmp_path / "prefix"))
    verify.run(verify.Config(out))


def test_a_run_goes_on_with_the_virtual_tokens_of_its_model(
    configs: dict[str, tuple[Any, Any]], assistant: Path, runtime: Runtime, tmp_path: Path
) -> None:
    first = sft.run(configs["sft"][1])
    stage, config = configs["dpo"]
    out = stage.run(replace(config, model=first, optimizer=OptimizerConfig(learning_rate=1e-9), out=tmp_path / "on"))
    before, after = (load_file(each / "adapter_model.safetensors")["prompt_embeddings"] for each in (first, out))
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "the reference is the model with its virtual tokens"
    fields = json.loads((out / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == str(assistant)
    verify.run(verify.Config(out))
    models = load_models(replace(configs["ppo"][1], model=first, reward=("ends",)), runtime)
    assert models.starts_at_reference
    with torch.no_grad():
        models.policy.prompt_embeddings.add_(1.0)
    assert torch.equal(models.reference.prompt_embeddings, before)


def test_a_text_is_what_they_start_as(configs: dict[str, tuple[Any, Any]], assistant: Path, tmp_path: Path) -> None:
    stage, config = configs["sft"]
    slow = replace(config, optimizer=OptimizerConfig(learning_rate=1e-9), prompt_tuning_text="Answer in one line.")
    out = stage.run(replace(slow, out=tmp_path / "text"))
    tokenizer, decoder = Model(assistant).tokenizer, Model(assistant, "cpu", "fp32").decoder
    ids = [*tokenizer.opening_ids, *tokenizer.encode("Answer in one line.")]
    expected = decoder.token_embedding.weight[torch.tensor((ids * COUNT)[:COUNT])]
    ours = load_file(out / "adapter_model.safetensors")["prompt_embeddings"]
    torch.testing.assert_close(ours, expected.detach(), rtol=1e-4, atol=1e-5)


def test_policy_reference_critic_and_reward_share_one_base(
    configs: dict[str, tuple[Any, Any]], runtime: Runtime
) -> None:
    scorer, first = (configs[name][0].run(configs[name][1]) for name in ("reward", "sft"))
    for model in (configs["ppo"][1].model, first):
        for each in (runtime, replace(runtime, bf16=True)):
            config = replace(configs["ppo"][1], model=model, reward=(str(scorer),))
            models = load_models(config, each)
            critic, rewarding = load_critic(models, config), models.reward.models[0].model
            shared = {id(p) for p in without_adapters(models.policy).layers.parameters()}
            for decoder in (models.reference, rewarding.decoder, critic.decoder):
                assert {id(p) for p in decoder.layers.parameters()} == shared
            trained = {name for name, p in critic.named_parameters() if p.requires_grad}
            assert trained == {"decoder.prompt_embeddings", "score.weight", "score.bias"}
            ours, theirs = (forward.compute_rewards(each_model, ROWS, each, 100) for each_model in (critic, rewarding))
            assert torch.equal(ours, theirs)
            with torch.no_grad():
                critic.decoder.prompt_embeddings.add_(1.0)
            assert torch.equal(forward.compute_rewards(rewarding, ROWS, each, 100), theirs)
            assert not torch.allclose(forward.compute_rewards(critic, ROWS, each, 100), theirs)
            assert models.starts_at_reference == (model == first)


@pytest.mark.parametrize("every_layer", [False, True], ids=["prompt", "prefix"])
def test_a_critic_without_a_reward_model_starts_as_the_policy(
    configs: dict[str, tuple[Any, Any]], every_layer: bool, runtime: Runtime
) -> None:
    config = replace(configs["ppo"][1], reward=("ends",))
    config = replace(config, prompt_tuning=0, prefix_tuning=COUNT) if every_layer else config
    models = load_models(config, runtime)
    critic = load_critic(models, config)
    assert torch.equal(critic.decoder.virtual_tokens, models.policy.virtual_tokens)
    assert critic.decoder.virtual_tokens is not models.policy.virtual_tokens
    assert critic.decoder.virtual_tokens.requires_grad and models.reference.num_virtual_tokens == 0
    assert (critic.decoder.prefix_keys_values is not None) == every_layer


@pytest.mark.parametrize("name", ["sft", "reward", "dpo", "ppo", "rloo", "pretrain"])
def test_other_weights_are_not_trained_with_virtual_tokens(
    configs: dict[str, tuple[Any, Any]], name: str, policy: Prompted
) -> None:
    stage, config = configs[name]
    model = str(policy.folder) if name == "pretrain" else policy.folder
    for options in ({"lora": LoraOptions(rank=2)}, {}):
        with pytest.raises(
            InputError, match=rf"has {COUNT} virtual tokens, .*; train them alone, with --prompt-tuning 6"
        ):
            stage.run(replace(config, model=model, prompt_tuning=0, **options))
    assert not (config.out / "config.yaml").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": LoraOptions(rank=2)}, "lora.rank is 2 with prompt_tuning; virtual tokens are trained alone"),
        ({"frozen_layers": 1}, "frozen_layers is 1 with prompt_tuning"),
        ({"prompt_tuning": -1}, "prompt_tuning is -1; it must be 0 or more"),
        ({"save_dtype": "bfloat16"}, "save_dtype is bfloat16; virtual tokens are saved in float32"),
        ({"prefix_tuning": 2}, "prefix_tuning is 2 with prompt_tuning; virtual tokens are trained alone"),
        ({"prompt_tuning": 0, "prefix_tuning": 2, "frozen_layers": 1}, "frozen_layers is 1 with prefix_tuning"),
        (
            {"prompt_tuning": 0, "prompt_tuning_text": "Be brief."},
            "prompt_tuning and prefix_tuning are 0; give the number of virtual tokens too",
        ),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sft.Config(**{"prompt_tuning": COUNT, **options})


def test_more_of_them_than_the_context_and_a_new_model_are_refused(configs: dict[str, tuple[Any, Any]]) -> None:
    for name in configs:
        stage, config = configs[name]
        with pytest.raises(InputError, match=r"10000 virtual tokens leave nothing of a context of 64; take fewer"):
            stage.run(replace(config, prompt_tuning=10_000))
    stage, config = configs["pretrain"]
    with pytest.raises(InputError, match="a new model has no weights for adapters"):
        stage.run(replace(config, model="nano"))


def test_they_are_not_exported(policy: Prompted, tmp_path: Path) -> None:
    for kind in ("q8_0", None):
        out = tmp_path / ("model.gguf" if kind else "folder")
        with pytest.raises(
            InputError, match="has 6 virtual tokens, which neither a GGUF file nor a model's own folder"
        ):
            export.run(export.Config(policy.folder, gguf=kind, out=out))  # type: ignore[arg-type]
        assert not out.exists()


def test_a_folder_that_moved_with_its_base_is_read_from_anywhere(
    policy: Prompted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    shutil.copytree(policy.base, home / "runs" / "sft")
    folder = shutil.copytree(policy.folder, home / "runs" / "prompt")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "runs/sft"}))
    monkeypatch.chdir(tmp_path)
    assert torch.equal(logits(Model(folder, "cpu", "fp32").decoder), logits(policy.model))


def test_the_plan_and_the_learning_rate(assistant: Path, policy: Prompted) -> None:
    traits = defaults.traits(assistant)
    for options, rate in (
        ({"prompt_tuning": COUNT}, defaults.PROMPT_RATE),
        ({"prefix_tuning": COUNT}, defaults.PREFIX_RATE),
    ):
        filled = [
            defaults.dpo(dpo.Config(**options), traits)[0],
            defaults.continue_pretraining(pretrain.Config(**options), traits)[0],
        ]
        assert [each.optimizer.learning_rate for each in filled] == [rate] * 2
    width = policy.model.config.hidden_size
    expected = f"{plan.human_count(COUNT * width)} training: {COUNT} virtual tokens before every row"
    assert plan.parameters(policy.model).endswith(expected)
