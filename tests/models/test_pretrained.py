import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from amenable.errors import InputError
from amenable.models import pretrained, tensor_files
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.family import family
from amenable.models.heads import ScalarModel
from amenable.models.hf_config import model_type_of
from amenable.models.layout import Layout
from amenable.models.rope import RopeScaling

GPT = DecoderConfig(61, context_length=32, num_layers=2, hidden_size=32, num_heads=4)
MODERN = replace(GPT, positions="rope", norm="rms", activation="swiglu", bias=False, norm_eps=1e-6)
CONFIGS = {
    "OpenAIGPT": replace(GPT, norm_placement="post"),
    "GPT2": GPT,
    "Llama": replace(MODERN, num_kv_heads=2, tie_embeddings=False, rope_theta=5000.0),
    "Qwen2": replace(MODERN, num_kv_heads=1, qkv_bias=True),
    "Qwen3": replace(MODERN, num_kv_heads=2, head_width=16, qk_norm=True),
}
VARIANTS = CONFIGS | {
    "GPT2 relu": replace(GPT, activation="relu", mlp_width=80, tie_embeddings=False),
    "OpenAIGPT relu": replace(GPT, norm_placement="post", activation="relu"),
    "Llama biased": replace(MODERN, bias=True, head_width=12),
    "Llama 3": replace(MODERN, head_width=16, rope_scaling=RopeScaling("llama3", 4.0, 8, 1.0, 4.0)),
    "Llama linear": replace(MODERN, rope_scaling=RopeScaling("linear", 3.0)),
    "Qwen2 yarn": replace(MODERN, qkv_bias=True, head_width=8, rope_scaling=RopeScaling("yarn", 4.0, 8)),
    "Qwen3 yarn": replace(
        CONFIGS["Qwen3"], rope_scaling=RopeScaling("yarn", 2.0, 16, beta_fast=8.0, attention_factor=1.3, truncate=False)
    ),
}
everything = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
LENGTHS = [5, 1, 20, 20]


def lively(config, seed=0):
    """A decoder with every parameter away from its first value, so that no gain or bias can be forgotten."""
    decoder = Decoder(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return decoder.eval()


def scalar(config):
    model = ScalarModel.from_decoder(lively(config), torch.Generator().manual_seed(1)).eval()
    torch.nn.init.constant_(model.score.bias, 0.5)
    return model


def tokens():
    """Ids that are never 0, the padding of these tests."""
    return torch.randint(1, 61, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))


def padded():
    return torch.nn.utils.rnn.pad_sequence(tokens().split(LENGTHS), batch_first=True)


@torch.inference_mode()
def our_logits(decoder):
    return decoder.logits(decoder(tokens(), Layout.of(LENGTHS)))


def edit(folder, **changes):
    facts = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(facts))


@everything
@torch.inference_mode()
def test_transformers_opens_a_language_model_with_the_same_logits(config, tmp_path):
    transformers = pytest.importorskip("transformers")
    decoder = lively(config)
    pretrained.save(tmp_path, decoder, eos_id=2, pad_id=0, bos_id=1)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(theirs).__name__ == family(model_type_of(config)).LANGUAGE_MODEL
    assert theirs.dtype == torch.float32
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in decoder.parameters())
    tokens_of = (theirs.generation_config.bos_token_id, theirs.generation_config.eos_token_id)
    assert (*tokens_of, theirs.generation_config.pad_token_id) == (1, 2, 0)
    logits = theirs.eval()(padded()).logits
    expected = torch.cat([logits[row, :length] for row, length in enumerate(LENGTHS)])
    torch.testing.assert_close(our_logits(decoder), expected, rtol=1e-4, atol=1e-4)


@everything
@torch.inference_mode()
def test_transformers_opens_a_reward_model_with_the_same_scores_but_for_the_bias(config, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = scalar(config)
    pretrained.save(tmp_path, model, eos_id=2, pad_id=0)
    theirs, info = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.num_labels == 1
    layout = Layout.of(LENGTHS)
    scores = model(tokens(), layout)[layout.last_tokens]
    torch.testing.assert_close(theirs.eval()(padded()).logits[:, 0] + 0.5, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_what_transformers_saves_is_read(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    pretrained.save(tmp_path / "ours", lively(CONFIGS[name]), eos_id=2, pad_id=0)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    torch.manual_seed(3)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    decoder = pretrained.load_decoder(tmp_path / "theirs").eval()
    assert decoder.config == replace(CONFIGS[name], mlp_width=decoder.config.mlp_width, **sizes(decoder.config))
    logits = theirs(padded()).logits
    expected = torch.cat([logits[row, :length] for row, length in enumerate(LENGTHS)])
    torch.testing.assert_close(our_logits(decoder), expected, rtol=1e-4, atol=1e-4)


def sizes(config):
    """Fields that files give outright where ours may be derived."""
    return {name: getattr(config, name) for name in ("num_kv_heads", "head_width", "qkv_bias")}


@everything
def test_round_trip_is_exact(config, tmp_path):
    decoder = lively(replace(config, dropout=0.1))
    pretrained.save(tmp_path, decoder)
    again = pretrained.load_decoder(tmp_path)
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in decoder.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), decoder.parameters()))
    assert all(p.requires_grad and p.is_contiguous() for p in again.parameters())
    assert again.config.dropout == 0.0 == pretrained.read_config(tmp_path).dropout
    assert pretrained.load_decoder(tmp_path, dropout=0.2).config.dropout == 0.2
    for name in ("kv_head_count", "head_size", "mlp_size", "has_qkv_bias", "rope_theta", "norm_eps", "tie_embeddings"):
        assert getattr(again.config, name) == getattr(config, name)


@everything
def test_round_trip_of_a_reward_model_is_exact(config, tmp_path):
    model = scalar(config)
    pretrained.save(tmp_path, model, pad_id=0)
    again = pretrained.load_scalar(tmp_path).eval()
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters()))
    with torch.inference_mode():
        layout = Layout.of(LENGTHS)
        assert torch.equal(again(tokens(), layout), model(tokens(), layout))


def test_files_and_no_leftovers(tmp_path):
    pretrained.save(tmp_path, lively(GPT), eos_id=2, pad_id=0, bos_id=1)
    pretrained.save(tmp_path, lively(GPT, seed=1), eos_id=2, pad_id=0, bos_id=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "generation_config.json", "model.safetensors"]
    names = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in names and names["transformer.h.0.attn.c_attn.weight"].shape == (32, 96)
    facts = json.loads((tmp_path / "config.json").read_text())
    assert (facts["bos_token_id"], facts["eos_token_id"], facts["pad_token_id"]) == (1, 2, 0)


def test_an_interrupted_save_leaves_the_old_model(tmp_path, monkeypatch):
    decoder = lively(GPT)
    pretrained.save(tmp_path, decoder)

    def fail(path, tensors, dtype, read):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tensor_files, "write_tensors", fail)
    with pytest.raises(InputError, match=r"model.safetensors: cannot be written \(disk full"):
        pretrained.save(tmp_path, lively(GPT, seed=1))
    assert torch.equal(pretrained.load_decoder(tmp_path).unembedding, decoder.unembedding)


def test_half_precision_files_are_computed_in_fp32(tmp_path):
    pretrained.save(tmp_path, lively(GPT).bfloat16())
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert {p.dtype for p in pretrained.load_decoder(tmp_path).parameters()} == {torch.float32}


def test_old_rope_settings_are_read(tmp_path):
    pretrained.save(tmp_path, lively(CONFIGS["Llama"]))
    edit(tmp_path, rope_parameters=None, rope_scaling=None, rope_theta=777.0)
    assert pretrained.read_config(tmp_path).rope_theta == 777.0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "Llama",
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
            "rope_type llama3 lacks high_freq_factor",
        ),
        (
            "Llama",
            {"rope_parameters": {"rope_type": "longrope", "factor": 8.0}},
            "rope_type longrope lacks long_factor",
        ),
        ("Llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("Llama", {"attention_bias": True}, "attention_bias is True"),
        ("GPT2", {"activation_function": "gelu"}, "activation is 'gelu'"),
        ("GPT2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("GPT2", {"model_type": "bert"}, "model_type is 'bert'; supported are gemma, gemma3_text, gpt2"),
        ("GPT2", {"n_embd": "wide"}, "config.json: has a value of the wrong type"),
        ("GPT2", {"n_embd": 48}, r"wte.weight is \[61, 32\] where config.json says \[61, 48\]"),
        ("GPT2", {"n_layer": 3}, "lacks transformer.h.2.attn.c_attn.weight, .* and 9 more"),
        ("GPT2", {"n_layer": 1}, "holds transformer.h.1.* and 9 more, which config.json does not describe"),
        ("GPT2", {"tie_word_embeddings": False}, "lacks lm_head.weight"),
        ("GPT2", {"architectures": ["GPT2ForSequenceClassification"]}, "holds a reward model, not a language model"),
    ],
)
def test_inconsistent_files_are_named(name, changes, message, tmp_path):
    pretrained.save(tmp_path, lively(CONFIGS[name]))
    edit(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        pretrained.load_decoder(tmp_path)


def test_a_missing_key_of_the_configuration_is_named(tmp_path):
    pretrained.save(tmp_path, lively(GPT))
    facts = json.loads((tmp_path / "config.json").read_text())
    del facts["n_head"]
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"config.json: lacks 'n_head'"):
        pretrained.load_decoder(tmp_path)


def test_a_language_model_is_not_a_reward_model(tmp_path):
    pretrained.save(tmp_path, lively(GPT))
    with pytest.raises(InputError, match="holds a language model"):
        pretrained.load_scalar(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_larger_vocabulary_preserves_old_logits_and_adds_average_tokens(tied):
    decoder = lively(replace(GPT, tie_embeddings=tied))
    before, mean = our_logits(decoder), decoder.unembedding.detach().mean(0)
    assert pretrained.resize_vocabulary(decoder, 64, torch.Generator().manual_seed(0)) is decoder
    assert decoder.config.vocab_size == 64
    after = our_logits(decoder)
    torch.testing.assert_close(after[:, :61], before)
    assert after.shape[1] == 64
    noise = decoder.unembedding.detach()[61:] - mean
    assert 0.01 < float(noise.std()) < 0.03
    decoder(torch.tensor([63]), Layout.of([1])).sum().backward()


def test_a_smaller_vocabulary_drops_the_last_rows():
    decoder = lively(GPT)
    first_rows = decoder.unembedding.detach()[:50].clone()
    pretrained.resize_vocabulary(decoder, 50, torch.Generator().manual_seed(0))
    assert torch.equal(decoder.unembedding, first_rows) and decoder.config.vocab_size == 50


@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_a_value_head_beside_a_language_model_is_a_reward_model(tied, tmp_path):
    """As TRL's AutoModelForCausalLMWithValueHead saves it."""
    decoder = lively(replace(CONFIGS["Llama"], tie_embeddings=tied))
    pretrained.save(tmp_path, decoder)
    head = {"v_head.summary.weight": torch.randn(1, 32), "v_head.summary.bias": torch.tensor([0.5])}
    save_file(load_file(tmp_path / "model.safetensors") | head, tmp_path / "model.safetensors")
    layout = Layout.of(LENGTHS)
    values = decoder(tokens(), layout) @ head["v_head.summary.weight"][0] + 0.5
    model = pretrained.load_scalar(tmp_path).eval()
    torch.testing.assert_close(model(tokens(), layout), values, rtol=1e-4, atol=1e-5)
    assert torch.equal(our_logits(pretrained.load_decoder(tmp_path).eval()), our_logits(decoder))
    pretrained.save(tmp_path / "reward", model, pad_id=0)
    again = pretrained.load_scalar(tmp_path / "reward").eval()
    assert torch.equal(again(tokens(), layout), model(tokens(), layout))
    with pytest.raises(InputError, match="has a value head, and no labels"):
        pretrained.load_scalar(tmp_path, label="good")


@torch.inference_mode()
def test_dynamic_scaling_is_none_within_the_original_context(tmp_path):
    transformers = pytest.importorskip("transformers")
    plain = replace(MODERN, rope_scaling=RopeScaling("dynamic", 2.0))
    pretrained.save(tmp_path, lively(plain), eos_id=2, pad_id=0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    decoder = pretrained.load_decoder(tmp_path).eval()
    assert decoder.config.rope_scaling == plain.rope_scaling
    logits = theirs(padded()).logits
    expected = torch.cat([logits[row, :length] for row, length in enumerate(LENGTHS)])
    torch.testing.assert_close(our_logits(decoder), expected, rtol=1e-4, atol=1e-4)
