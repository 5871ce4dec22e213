"""Every family against transformers' own random models: in, out, and by any other way that a model is used."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import pretrained
from amenable.models.adapter_files import save_adapters
from amenable.models.decoder import Decoder
from amenable.models.family import model_types
from amenable.models.inference import cast_for_inference
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, adapters, add_adapters, merge_adapters, published_layers

transformers = pytest.importorskip("transformers")

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 7}
NEOX = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
PARTIAL = {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
FACTORS = {"short_factor": [1.0, 1.1, 1.5, 2.0], "long_factor": [1.0, 2.0, 4.0, 9.0]}
LONG = {
    "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, **FACTORS},
    "max_position_embeddings": 256,
    "original_max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
SLIDING, FULL = "sliding_attention", "full_attention"
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
SHAPES: dict[str, list[dict[str, Any]]] = {
    "gpt2": [GPT | {"n_inner": 80}, GPT | {"activation_function": "relu", "tie_word_embeddings": False}],
    "openai_gpt": [GPT],
    "llama": [LLAMA | {"head_dim": 12}, LLAMA | {"attention_bias": True, "mlp_bias": True}],
    "mistral": [LLAMA | {"head_dim": 12, "sliding_window": None}, LLAMA | {"sliding_window": 7}],
    "qwen2": [LLAMA | {"tie_word_embeddings": True}, LLAMA | WINDOW | {"max_window_layers": 1}],
    "qwen3": [
        LLAMA | {"head_dim": 12},
        LLAMA | WINDOW | {"head_dim": 16, "tie_word_embeddings": True, "layer_types": [SLIDING, FULL, SLIDING]},
    ],
    "gpt_neox": [
        NEOX | {"rotary_pct": 0.5, "hidden_act": "gelu"},
        NEOX
        | {"use_parallel_residual": False, "hidden_act": "gelu_new", "rotary_pct": 1.0, "tie_word_embeddings": True},
    ],
    "olmo2": [LLAMA, LLAMA | {"num_key_value_heads": 4, "tie_word_embeddings": True}],
    "olmo3": [LLAMA | {"sliding_window": 7, "layer_types": [SLIDING, FULL, SLIDING], "rope_scaling": YARN}],
    "smollm3": [
        LLAMA | {"no_rope_layer_interval": 2},
        LLAMA | WINDOW | {"no_rope_layers": [1, 0, 1], "attention_bias": True, "mlp_bias": True},
    ],
    "phi3": [LLAMA | {"sliding_window": 7, "rope_parameters": PARTIAL}, LLAMA | LONG],
    "gemma": [LLAMA | {"head_dim": 12}],
    "gemma3_text": [
        LLAMA
        | {"head_dim": 12, "query_pre_attn_scalar": 20, "sliding_window": 7, "layer_types": [SLIDING, FULL, SLIDING]},
        LLAMA | {"head_dim": 8, "sliding_window": 64, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ],
}
"""shapes of each family, as its config.json has them; vocabulary and ids are those of `theirs`"""
CASES = [(model_type, index) for model_type, shapes in SHAPES.items() for index in range(len(shapes))]
every_shape = pytest.mark.parametrize(("model_type", "index"), CASES)
every_family = pytest.mark.parametrize("model_type", SHAPES)
LENGTHS = [5, 1, 40, 23]


def theirs(folder, model_type: str, index: int, classifier: bool = False):
    """A random model of transformers, every parameter away from its first value, saved to a folder."""
    ids = {"vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    labels = {"num_labels": 1} if classifier else {}
    published = model_type.replace("openai_gpt", "openai-gpt")
    config = transformers.AutoConfig.for_model(published, **ids, **SHAPES[model_type][index], **labels)
    torch.manual_seed(3)
    kind = transformers.AutoModelForSequenceClassification if classifier else transformers.AutoModelForCausalLM
    model = kind.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    model.save_pretrained(folder)
    return model


def tokens() -> torch.Tensor:
    """Ids that are never 0, the padding of these tests."""
    return torch.randint(1, 61, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))


def padded() -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(tokens().split(LENGTHS), batch_first=True)


def flat(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows[row, :length] for row, length in enumerate(LENGTHS)])


@torch.inference_mode()
def our_logits(decoder: Decoder) -> torch.Tensor:
    return decoder.logits(decoder(tokens(), Layout.of(LENGTHS)))


def close(ours: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


def test_every_family_is_tested():
    assert sorted(SHAPES) == list(model_types())


@every_shape
@torch.inference_mode()
def test_a_language_model_in_and_out(model_type, index, tmp_path):
    model = theirs(tmp_path / "theirs", model_type, index)
    expected = model(padded()).logits
    decoder = pretrained.load_decoder(tmp_path / "theirs").eval()
    close(our_logits(decoder), flat(expected))
    pretrained.save(tmp_path / "ours", decoder, bos_id=1, eos_id=2, pad_id=0)
    again, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is type(model)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(again.eval()(padded()).logits, expected)


@every_shape
@torch.inference_mode()
def test_generation_continues_as_transformers_does(model_type, index, tmp_path):
    """20 greedy tokens after prompts of several lengths, past the window where there is one."""
    model = theirs(tmp_path, model_type, index)
    prompts, count = [prompt.tolist() for prompt in tokens().split(LENGTHS)], 20
    sampling = Sampling(temperature=0.0, max_new_tokens=count)
    ours = generate(pretrained.load_decoder(tmp_path), prompts, sampling, eos_id=61, max_batch_size=3)
    settings = {"do_sample": False, "min_new_tokens": count, "max_new_tokens": count, "eos_token_id": None}
    for prompt, (completion,) in zip(prompts, ours):
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        assert out[0, len(prompt) :].tolist() == completion.ids


@every_family
def test_every_linear_layer_has_its_published_name_and_takes_an_adapter(model_type, tmp_path):
    """Files are read as peft reads them: a product of two matrices is added to the weight of the layer's name."""
    model = theirs(tmp_path / "theirs", model_type, 0)
    decoder = pretrained.load_decoder(tmp_path / "theirs").eval()
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, transformers.pytorch_utils.Conv1D)) and name != "lm_head"
    }
    assert {name for parts in published_layers(decoder).values() for name, _ in parts} == set(linear)
    add_adapters(decoder, LoraOptions(rank=2, alpha=4.0), seed=0)
    for layer in adapters(decoder).values():
        for b in layer.b:
            torch.nn.init.normal_(b, std=0.2, generator=torch.Generator().manual_seed(len(b)))
    save_adapters(tmp_path / "adapter", decoder)
    transposed = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["fan_in_fan_out"]
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    before = our_logits(decoder)
    with torch.no_grad():
        for name, module in linear.items():
            a, b = (tensors[f"base_model.model.{name}.lora_{kind}.weight"] for kind in "AB")
            module.weight += 2 * (b @ a).T if transposed else 2 * b @ a
        close(before, flat(model(padded()).logits))
    merge_adapters(decoder)
    close(our_logits(decoder), before)


@every_family
def test_an_inference_copy_in_bf16_is_near_and_the_pass_has_gradients(model_type, tmp_path):
    theirs(tmp_path, model_type, 0)
    decoder = pretrained.load_decoder(tmp_path).eval()
    twin, exact = cast_for_inference(decoder, torch.bfloat16), our_logits(decoder)
    with torch.autocast("cpu", torch.bfloat16):
        first, second = our_logits(decoder).float(), our_logits(twin).float()
        torch.testing.assert_close(first, second, rtol=0.02, atol=0.02 * float(first.abs().max()))
        torch.testing.assert_close(first, exact, rtol=0.05, atol=0.05 * float(first.abs().max()))
        decoder.logits(decoder(tokens(), Layout.of(LENGTHS))).float().square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in decoder.parameters())


@every_shape
def test_rows_apart_packed_and_behind_a_prefix_they_share(model_type, index, tmp_path):
    theirs(tmp_path, model_type, index)
    decoder = pretrained.load_decoder(tmp_path).eval()
    prefix, *answers = tokens().split([12, 20, 9, 28])
    rows = [torch.cat([prefix, answer]) for answer in answers]
    lengths = [len(row) for row in rows]
    apart = torch.cat([decoder(row, Layout.of([len(row)]))[12:] for row in rows])
    packed = decoder(torch.cat(rows), Layout.of(lengths)).split(lengths)
    close(torch.cat([row[12:] for row in packed]), apart)
    shared = Layout.of(lengths, prefix_lengths=[0, 12, 12])
    close(decoder(torch.cat([prefix, *answers]), shared)[12:], apart)


@every_shape
@torch.inference_mode()
def test_a_classifier_in_and_out(model_type, index, tmp_path):
    model = theirs(tmp_path / "theirs", model_type, index, classifier=True)
    expected = model(padded()).logits[:, 0]
    scalar, layout = pretrained.load_scalar(tmp_path / "theirs").eval(), Layout.of(LENGTHS)
    close(scalar(tokens(), layout, at=layout.last_tokens), expected)
    pretrained.save(tmp_path / "ours", scalar, bos_id=1, eos_id=2, pad_id=0)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert type(again) is type(model)
    close(again(padded()).logits[:, 0], expected)
