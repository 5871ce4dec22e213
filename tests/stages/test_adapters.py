"""Adapters in every stage that trains a model: the base stays, the result is merged and saved apart, runs resume."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from amenable.data.batches import collate
from amenable.errors import InputError
from amenable.library.model import Model
from amenable.models.lora import LoraOptions, adapters, without_adapters
from amenable.rl import memory
from amenable.rl.models import load_critic, load_models
from amenable.stages import dpo, ppo, pretrain, reward, rloo, sft
from amenable.train import defaults, forward, loading
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime

LORA = LoraOptions(rank=4, alpha=16.0)
COMMON: dict[str, Any] = {"lora": LORA, "device": DeviceOptions("cpu", "fp32", 1), "save_steps": 0}
RATE: dict[str, Any] = {"optimizer": OptimizerConfig(learning_rate=1e-2), "warmup_steps": 1}
ONLINE: dict[str, Any] = {"max_steps": 3, "prompts_per_step": 4, "max_new_tokens": 8, "num_mini_batches": 1}


@pytest.fixture
def configs(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> dict[str, tuple[Any, Any]]:
    online = {"model": assistant, "data": files.prompts, "reward": judge, **ONLINE, **RATE, **COMMON}
    offline = {"model": assistant, **RATE, **COMMON}
    return {
        "pretrain": (
            pretrain,
            pretrain.Config(
                data=files.text,
                model=str(assistant),
                out=tmp_path / "pretrain",
                max_steps=3,
                context=64,
                **RATE,
                **COMMON,
            ),
        ),
        "sft": (
            sft,
            sft.Config(data=files.demonstrations, epochs=1, out=tmp_path / "sft", max_new_tokens=8, **offline),
        ),
        "reward": (reward, reward.Config(data=files.rankings, out=tmp_path / "reward", **offline)),
        "dpo": (dpo, dpo.Config(data=files.pairs, out=tmp_path / "dpo", max_new_tokens=8, **offline)),
        "ppo": (ppo, ppo.Config(out=tmp_path / "ppo", critic_learning_rate=1e-2, **online)),
        "rloo": (rloo, rloo.Config(out=tmp_path / "rloo", num_generations=2, **online)),
    }


@pytest.mark.parametrize("name", ["pretrain", "sft", "reward", "dpo", "ppo", "rloo"])
def test_it_trains_resumes_and_saves_merged_and_apart(
    configs: dict[str, tuple[Any, Any]],
    name: str,
    assistant: Path,
    run_in_two: Callable[[Any, Any, int], Path],
    outcome: Callable[[Path], dict[str, Any]],
) -> None:
    stage, config = configs[name]
    whole = stage.run(config)
    parted = run_in_two(stage, replace(config, out=config.out.with_name("parted")), 2)
    assert outcome(whole) == outcome(parted)
    fields = json.loads((whole / "adapter" / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == str(assistant) and fields["r"] == 4
    assert fields["task_type"] == ("SEQ_CLS" if name == "reward" else "CAUSAL_LM")
    tensors = load_file(whole / "adapter" / "adapter_model.safetensors")
    assert max(float(t.abs().max()) for key, t in tensors.items() if "lora_B" in key) > 0
    # the saved model is the base with s B A added, and nothing else
    base, ours = load_file(assistant / "model.safetensors"), load_file(whole / "model.safetensors")
    changed = {key for key in ours if key in base and not torch.equal(ours[key], base[key])}
    adapted = {key.removeprefix("base_model.model.").replace("lora_A.", "") for key in tensors if "lora_A" in key}
    assert changed == adapted
    key = "model.layers.1.self_attn.q_proj.weight"
    a, b = (tensors[f"base_model.model.{key[:-6]}lora_{x}.weight"] for x in "AB")
    torch.testing.assert_close(ours[key], base[key] + 4.0 * (b @ a), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_dora_trains_resumes_and_its_adapter_is_the_merged_model(
    configs: dict[str, tuple[Any, Any]],
    name: str,
    run_in_two: Callable[[Any, Any, int], Path],
    outcome: Callable[[Path], dict[str, Any]],
) -> None:
    stage, config = configs[name]
    config = replace(config, lora=replace(LORA, dora=True))
    whole = stage.run(config)
    parted = run_in_two(stage, replace(config, out=config.out.with_name("parted")), 2)
    assert outcome(whole) == outcome(parted)
    tensors = load_file(whole / "adapter" / "adapter_model.safetensors")
    assert json.loads((whole / "adapter" / "adapter_config.json").read_text())["use_dora"]
    assert len([key for key in tensors if key.endswith("lora_magnitude_vector")]) == len(tensors) / 3
    ours, merged = (Model(folder, "cpu", "fp32").decoder for folder in (whole / "adapter", whole))
    for a, b in zip(ours.parameters(), merged.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "bits"), [("sft", 4), ("ppo", 8)])
def test_adapters_on_few_bits_train_resume_and_merge_into_what_these_mean(
    configs: dict[str, tuple[Any, Any]],
    name: str,
    bits: int,
    assistant: Path,
    run_in_two: Callable[[Any, Any, int], Path],
    outcome: Callable[[Path], dict[str, Any]],
) -> None:
    stage, config = configs[name]
    config = replace(config, lora=replace(LORA, bits=bits))
    whole = stage.run(config)
    parted = run_in_two(stage, replace(config, out=config.out.with_name("parted")), 2)
    assert outcome(whole) == outcome(parted)
    ours, merged, base = (Model(folder, "cpu", "fp32").decoder for folder in (whole / "adapter", whole, assistant))
    for a, b in zip(ours.parameters(), merged.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(merged.layers[0].mlp.down.weight, base.layers[0].mlp.down.weight, atol=1e-5)


def test_a_reward_of_a_whole_base_is_not_on_the_policys_few_bits(
    configs: dict[str, tuple[Any, Any]], adapted_judge: Path, runtime: Runtime
) -> None:
    config = replace(configs["ppo"][1], reward=(str(adapted_judge),), lora=replace(LORA, bits=4))
    models = load_models(config, runtime)
    shared = {p.data_ptr() for p in without_adapters(models.policy).layers.parameters()}
    assert {p.data_ptr() for p in models.reference.layers.parameters()} == shared
    merged = loading.load_reward_model(adapted_judge, runtime, models.tokenizer, frozen=True)
    ours, theirs = (
        forward.compute_rewards(model, ROWS, runtime, 100) for model in (models.reward.models[0].model, merged)
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"torn"), "not a whole safetensors file"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (lambda folder: edit(folder, base_model_name_or_path="nowhere"), "its base model 'nowhere' is no folder here"),
        (lambda folder: edit(folder, r=8), "where the base needs"),
        (lambda folder: edit(folder, peft_type="IA3"), "is IA3; LoRA, DoRA, prompt and prefix tuning are read"),
    ],
)
def test_a_bad_adapter_is_one_line_and_nothing_is_made(
    configs: dict[str, tuple[Any, Any]], adapted_judge: Path, damage: Any, message: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(adapted_judge, tmp_path / "damaged") / "adapter"
    damage(folder)
    stage, config = configs["ppo"]
    with pytest.raises(InputError, match=message):
        stage.run(replace(config, reward=(str(folder),)))
    assert not config.out.exists() or not [path for path in config.out.iterdir() if not path.name.startswith(".")]


def edit(folder: Path, **changes: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("name", ["pretrain", "sft", "reward", "dpo", "ppo", "rloo"])
def test_frozen_layers_do_not_move_and_get_no_adapters(
    configs: dict[str, tuple[Any, Any]], name: str, rank: int, assistant: Path
) -> None:
    stage, config = configs[name]
    changes = {"epochs": 1} if hasattr(config, "epochs") else {"max_steps": 2}
    out = stage.run(replace(config, lora=replace(LORA, rank=rank), frozen_layers=1, **changes))
    base, ours = load_file(assistant / "model.safetensors"), load_file(out / "model.safetensors")
    moved = {key for key in ours if key in base and not torch.equal(ours[key], base[key])}
    assert any(".layers.1." in key for key in moved)
    assert not [key for key in moved if ".layers.0." in key or "embed" in key]
    if rank:
        assert all(".layers.1." in key for key in moved)
        fields = json.loads((out / "adapter" / "adapter_config.json").read_text())
        tensors = load_file(out / "adapter" / "adapter_model.safetensors")
        assert fields["layers_to_transform"] == [1]
        assert all(".layers.1." in key for key in tensors if "lora" in key)


def test_frozen_layers_take_no_moments(configs: dict[str, tuple[Any, Any]], stop_at: Callable[[int], None]) -> None:
    stage, config = configs["sft"]
    stop_at(1)
    with pytest.raises(Exception, match="saved at step 1"):
        stage.run(replace(config, lora=LoraOptions(), frozen_layers=1))
    tensors = load_file(config.out / "checkpoint-1" / "state.safetensors")
    weights = {name: value for name, value in tensors.items() if "/model/" in name}
    moments = [value for name, value in tensors.items() if "exp_avg" in name]
    assert weights and not [name for name in weights if "layers.0." in name or "embedding" in name]
    assert sum(value.numel() for value in moments) == 2 * sum(value.numel() for value in weights.values())


def test_tokens_and_models_that_freezing_would_leave_untrained_are_refused(
    assistant: Path, runtime: Runtime, configs: dict[str, tuple[Any, Any]]
) -> None:
    decoder, _ = loading.load_policy(assistant, runtime)
    with pytest.raises(InputError, match="adds 4 tokens, whose embeddings are frozen"):
        loading.add_adapters(decoder, LoraOptions(), 0, assistant, runtime, frozen_layers=1, new_tokens=4)
    config = replace(configs["pretrain"][1], model="nano", lora=LoraOptions(), frozen_layers=1)
    with pytest.raises(InputError, match="a new model has no weights to freeze"):
        pretrain.run(config)
    assert not config.out.exists()
    stage, config = configs["dpo"]
    with pytest.raises(InputError, match="nothing is left to train; freeze fewer layers"):
        stage.run(replace(config, frozen_layers=2))


def test_checkpoints_hold_the_adapters_alone(
    configs: dict[str, tuple[Any, Any]], stop_at: Callable[[int], None]
) -> None:
    stage, config = configs["sft"]
    stop_at(2)
    with pytest.raises(Exception, match="saved at step 2"):
        stage.run(config)
    names = load_file(config.out / "checkpoint-2" / "state.safetensors").keys()
    weights = {name for name in names if "/model/" in name}
    assert weights and not [name for name in weights if "base" in name or "embedding" in name]


def test_policy_reference_and_critic_share_one_base(
    configs: dict[str, tuple[Any, Any]], runtime: Runtime, files: Any
) -> None:
    config = replace(configs["ppo"][1], reward=("ends",))
    models = load_models(config, runtime)
    critic = load_critic(models, config)
    shared = {p.data_ptr() for p in without_adapters(models.policy).parameters()}
    assert {p.data_ptr() for p in models.reference.parameters()} == shared
    assert {p.data_ptr() for p in without_adapters(critic.decoder).parameters()} <= shared
    own = [p for p in critic.parameters() if p.requires_grad]
    assert own and not shared & {p.data_ptr() for p in own}
    theirs = {p.data_ptr() for p in models.policy.parameters() if p.requires_grad}
    assert not theirs & {p.data_ptr() for p in own} and len(adapters(critic)) == len(adapters(models.policy))


ROWS = [([1, 40, 41, 50, 51], [False, False, True, True, True]), ([1, 40, 60], [False, True, True])]


def of_two_precisions(runtime: Runtime) -> list[tuple[Runtime, float]]:
    return [(runtime, 1e-5), (replace(runtime, bf16=True), 0.02)]


@pytest.fixture(scope="module")
def adapted_judge(assistant: Path, files: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that is adapters on the policy's base."""
    out = tmp_path_factory.mktemp("adapted") / "reward"
    return reward.run(reward.Config(model=assistant, data=files.rankings, out=out, **RATE, **COMMON))


@pytest.mark.parametrize("inner", ["", "adapter"])
def test_a_reward_model_of_adapters_is_on_the_policys_base(
    configs: dict[str, tuple[Any, Any]], adapted_judge: Path, inner: str, runtime: Runtime
) -> None:
    folder = adapted_judge / inner
    for each, tolerance in of_two_precisions(runtime):
        config = replace(configs["ppo"][1], reward=(str(folder),))
        models = load_models(config, each)
        critic, reward = load_critic(models, config), models.reward.models[0].model
        base = {id(p) for layer in models.reference.layers for p in layer.parameters()}
        for decoder in (models.policy, critic.decoder, reward.decoder):
            own = {id(p) for layer in without_adapters(decoder).layers for p in layer.parameters()}
            assert own == base
        kind = torch.bfloat16 if each.bf16 else torch.float32
        assert {p.dtype for p in models.policy.layers.parameters() if p.ndim == 2 and not p.requires_grad} == {kind}
        merged = loading.load_reward_model(folder, each, models.tokenizer, frozen=True)
        ours, theirs = (forward.compute_rewards(model, ROWS, each, 100) for model in (reward, merged))
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
        assert not torch.allclose(theirs, torch.zeros(2), atol=0.05)
        # the critic starts as the reward model, and leaves it as it is when it trains
        values, before = (forward.compute_values(critic, ROWS, each, 100)[0][-1], ours.clone())
        whole = forward.compute_values(merged, ROWS, each, 100)[0][-1]
        torch.testing.assert_close(values, whole, rtol=tolerance, atol=tolerance)
        with torch.no_grad():
            for weight in critic.parameters():
                if weight.requires_grad:
                    weight.add_(1.0)
        assert torch.equal(forward.compute_rewards(reward, ROWS, each, 100), before)
        assert {"score.weight", "score.bias"} < {name for name, p in critic.named_parameters() if p.requires_grad}


def test_a_policy_that_trains_all_weights_shares_its_reference_with_the_reward(
    configs: dict[str, tuple[Any, Any]], adapted_judge: Path, runtime: Runtime
) -> None:
    config = replace(configs["ppo"][1], reward=(str(adapted_judge),), lora=LoraOptions())
    for each, tolerance in of_two_precisions(runtime):
        models = load_models(config, each)
        reward = models.reward.models[0].model
        ids = {id(p) for p in models.reference.layers.parameters()}
        assert {id(p) for p in without_adapters(reward.decoder).layers.parameters()} == ids
        assert not ids & {id(p) for p in models.policy.parameters()}
        critic = load_critic(models, config)
        assert not adapters(critic) and all(p.requires_grad for p in critic.parameters())
        merged = loading.load_reward_model(adapted_judge, each, models.tokenizer, frozen=True)
        ours, theirs = (forward.compute_rewards(model, ROWS, each, 100) for model in (reward, merged))
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_a_critic_of_adapters_trains_on_a_reward_model_that_has_none(
    configs: dict[str, tuple[Any, Any]], judge: Path, runtime: Runtime
) -> None:
    config = configs["ppo"][1]
    for each, _ in of_two_precisions(runtime):
        models = load_models(config, each)
        critic = load_critic(models, config)
        batch = collate([ROWS[0]])
        with each.autocast():
            forward.masked_values(critic, batch).sum().backward()
        gradients = {name for name, p in critic.named_parameters() if p.grad is not None}
        assert gradients == {name for name, p in critic.named_parameters() if p.requires_grad}
        assert adapters(critic) and not adapters(models.reward.models[0].model)


def test_a_head_of_another_run_beside_the_adapter_is_a_model_of_its_own(
    configs: dict[str, tuple[Any, Any]], adapted_judge: Path, judge: Path, runtime: Runtime, tmp_path: Path
) -> None:
    mixed = shutil.copytree(judge, tmp_path / "mixed")
    shutil.copytree(adapted_judge / "adapter", mixed / "adapter", dirs_exist_ok=True)
    models = load_models(replace(configs["ppo"][1], reward=(str(mixed),)), runtime)
    reward = models.reward.models[0].model
    assert not adapters(reward)
    theirs = loading.load_reward_model(judge, runtime, models.tokenizer, frozen=True)
    ours, theirs = (forward.compute_rewards(model, ROWS, runtime, 100) for model in (reward, theirs))
    assert torch.equal(ours, theirs)


def test_ppo_on_one_base_is_ppo_on_merged_models_and_says_what_is_shared(
    configs: dict[str, tuple[Any, Any]], adapted_judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = shutil.copytree(adapted_judge, tmp_path / "merged", ignore=shutil.ignore_patterns("adapter"))
    config = replace(configs["ppo"][1], max_steps=2)
    one = ppo.run(replace(config, reward=(str(adapted_judge),), out=tmp_path / "one"))
    assert "policy, critic, reference, reward" in " ".join(capsys.readouterr().err.split())
    two = ppo.run(replace(config, reward=(str(copied),), out=tmp_path / "two"))
    ours, theirs = (json.loads((out / "metrics.jsonl").read_text().splitlines()[0]) for out in (one, two))
    assert ours["objective/scores"] == pytest.approx(theirs["objective/scores"], abs=1e-4)
    assert ours["loss/value_avg"] == pytest.approx(theirs["loss/value_avg"], rel=1e-3)


def test_a_bf16_run_merges_into_the_weights_as_they_are_in_the_folder(
    configs: dict[str, tuple[Any, Any]], assistant: Path
) -> None:
    stage, config = configs["sft"]
    out = stage.run(replace(config, device=DeviceOptions("cpu", "bf16", 1), epochs=1))
    base, ours = load_file(assistant / "model.safetensors"), load_file(out / "model.safetensors")
    tensors = load_file(out / "adapter" / "adapter_model.safetensors")
    for key in ("model.layers.0.self_attn.v_proj.weight", "model.layers.1.mlp.down_proj.weight"):
        a, b = (tensors[f"base_model.model.{key[:-6]}lora_{x}.weight"] for x in "AB")
        torch.testing.assert_close(ours[key], base[key] + 4.0 * (b @ a), rtol=1e-6, atol=1e-6)


def test_a_folder_of_adapters_goes_wherever_a_model_goes(
    configs: dict[str, tuple[Any, Any]], assistant: Path, files: Any, tmp_path: Path
) -> None:
    stage, config = configs["sft"]
    adapter = stage.run(config) / "adapter"
    result = Model(adapter, device="cpu", precision="fp32").chat("Ann asks: name a red thing.", temperature=0)
    assert result == Model(config.out, device="cpu", precision="fp32").chat(
        "Ann asks: name a red thing.", temperature=0
    )
    out = dpo.run(replace(configs["dpo"][1], model=adapter, lora=LoraOptions(), out=tmp_path / "on-adapter"))
    inputs = json.loads((out / "lineage.json").read_text())["inputs"]
    assert inputs["model"]["path"] == str(adapter) and inputs["model's base"]["path"] == str(assistant)


def test_the_learning_rate_is_ten_times_that_of_all_weights(assistant: Path) -> None:
    traits = defaults.traits(assistant)
    rates = [defaults.dpo(dpo.Config(lora=each), traits)[0].optimizer.learning_rate for each in (LORA, LoraOptions())]
    assert rates[0] == pytest.approx(10 * rates[1])


def test_new_tokens_are_refused_where_nothing_would_train_their_embeddings(assistant: Path, runtime: Runtime) -> None:
    decoder, _ = loading.load_policy(assistant, runtime)
    with pytest.raises(InputError, match="adds 4 tokens, whose embeddings adapters do not train; train all weights"):
        loading.add_adapters(decoder, LORA, 0, assistant, runtime, new_tokens=4)
    assert not adapters(decoder)
    loading.add_adapters(decoder, LoraOptions(), 0, assistant, runtime, new_tokens=4)
    assert not adapters(decoder)


def test_the_plan_of_memory_counts_a_shared_base_once(configs: dict[str, tuple[Any, Any]], runtime: Runtime) -> None:
    config = replace(configs["ppo"][1], reward=("ends",), temperature=0.7)
    prompts = [[1, 40, 41]] * config.prompts_per_step

    def plan(options: ppo.Config) -> int:
        models = load_models(options, runtime)
        algorithm = ppo.PPO(models, load_critic(models, options), options)
        return memory.peak_bytes(algorithm, models, options, prompts)

    base = sum(p.nbytes for p in load_models(config, runtime).reference.parameters())
    # all weights: two more copies, for reference and critic, and two moments of policy and critic
    assert plan(replace(config, lora=LoraOptions())) - plan(config) > 4 * base
