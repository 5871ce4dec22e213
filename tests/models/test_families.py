"""Every family against transformers' own random models: in, out, and by any other way that a model is used."""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import pretrained
from amenable.models.adapter_files import save_adapters
from amenable.models.family import model_types
from amenable.models.inference import cast_for_inference
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, adapters, add_adapters, merge_adapters, published_layers
from benchmarks.family_models import (
    LENGTHS,
    SHAPES,
    flat,
    greedy,
    linear_layers,
    merge_published,
    our_logits,
    padded,
    random_model,
    tokens,
)

CASES = [(model_type, index) for model_type, shapes in SHAPES.items() for index in range(len(shapes))]
every_shape = pytest.mark.parametrize(("model_type", "index"), CASES)
every_family = pytest.mark.parametrize("model_type", SHAPES)


def close(ours: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


def test_every_family_is_tested():
    assert sorted(SHAPES) == list(model_types())


@every_shape
@torch.inference_mode()
def test_a_language_model_in_and_out(model_type, index, tmp_path):
    model = random_model(tmp_path / "theirs", model_type, index)
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
    model = random_model(tmp_path, model_type, index)
    prompts, count = [prompt.tolist() for prompt in tokens().split(LENGTHS)], 20
    sampling = Sampling(temperature=0.0, max_new_tokens=count)
    ours = generate(pretrained.load_decoder(tmp_path), prompts, sampling, eos_id=61, max_batch_size=3)
    for prompt, (completion,) in zip(prompts, ours):
        assert greedy(model, prompt, count) == completion.ids


@every_family
def test_every_linear_layer_has_its_published_name_and_takes_an_adapter(model_type, tmp_path):
    """Files are read as peft reads them: a product of two matrices is added to the weight of the layer's name."""
    model = random_model(tmp_path / "theirs", model_type, 0)
    decoder = pretrained.load_decoder(tmp_path / "theirs").eval()
    assert {name for parts in published_layers(decoder).values() for name, _ in parts} == set(linear_layers(model))
    add_adapters(decoder, LoraOptions(rank=2, alpha=4.0), seed=0)
    for layer in adapters(decoder).values():
        for b in layer.b:
            torch.nn.init.normal_(b, std=0.2, generator=torch.Generator().manual_seed(len(b)))
    save_adapters(tmp_path / "adapter", decoder)
    before = our_logits(decoder)
    merge_published(model, tmp_path / "adapter")
    with torch.no_grad():
        close(before, flat(model(padded()).logits))
    merge_adapters(decoder)
    close(our_logits(decoder), before)


@every_family
def test_an_inference_copy_in_bf16_is_near_and_the_pass_has_gradients(model_type, tmp_path):
    random_model(tmp_path, model_type, 0)
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
    random_model(tmp_path, model_type, index)
    decoder = pretrained.load_decoder(tmp_path).eval()
    prefix, *answers = tokens().split([12, 20, 9, 28])
    rows = [torch.cat([prefix, answer]) for answer in answers]
    lengths = [len(row) for row in rows]
    apart = torch.cat([decoder(row, Layout.of([len(row)]))[12:] for row in rows])
    packed = decoder(torch.cat(rows), Layout.of(lengths)).split(lengths)
    close(torch.cat([row[12:] for row in packed]), apart)
    shared = Layout.of(lengths, prefix_lengths=[0, 12, 12])
    close(decoder(torch.cat([prefix, *answers]), shared)[12:], apart)


@torch.inference_mode()
def test_old_files_of_gpt_neox_have_constants_and_no_prefix(tmp_path):
    model = random_model(tmp_path, "gpt_neox", 0)
    old = {name.removeprefix("gpt_neox."): value for name, value in load_file(tmp_path / "model.safetensors").items()}
    for layer in range(2):
        old[f"layers.{layer}.attention.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
        old[f"layers.{layer}.attention.masked_bias"] = torch.tensor(-1e9)
        old[f"layers.{layer}.attention.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(old, tmp_path / "model.safetensors")
    close(our_logits(pretrained.load_decoder(tmp_path).eval()), flat(model(padded()).logits))


@every_shape
@torch.inference_mode()
def test_a_classifier_in_and_out(model_type, index, tmp_path):
    model = random_model(tmp_path / "theirs", model_type, index, classifier=True)
    expected = model(padded()).logits[:, 0]
    scalar, layout = pretrained.load_scalar(tmp_path / "theirs").eval(), Layout.of(LENGTHS)
    close(scalar(tokens(), layout, at=layout.last_tokens), expected)
    pretrained.save(tmp_path / "ours", scalar, bos_id=1, eos_id=2, pad_id=0)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert type(again) is type(model)
    close(again(padded()).logits[:, 0], expected)
