"""Every family against transformers' own random models: in, out, and by any other way that a model is used."""

from typing import Any

import pytest
import torch

from amenable.models import pretrained
from amenable.models.cache import Cache
from amenable.models.family import model_types
from amenable.models.layout import Layout

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
    "smollm3": [
        LLAMA | {"no_rope_layer_interval": 2},
        LLAMA | WINDOW | {"no_rope_layers": [1, 0, 1], "attention_bias": True, "mlp_bias": True},
    ],
    "phi3": [LLAMA | {"sliding_window": 7, "rope_parameters": PARTIAL}, LLAMA | {"tie_word_embeddings": True}],
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
    close(decoder.logits(decoder(tokens(), Layout.of(LENGTHS))), flat(expected))
    pretrained.save(tmp_path / "ours", decoder, bos_id=1, eos_id=2, pad_id=0)
    again, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is type(model)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(again.eval()(padded()).logits, expected)


@every_shape
@torch.inference_mode()
def test_cached_steps_continue_as_transformers_does(model_type, index, tmp_path):
    """20 greedy tokens after prompts of several lengths, past the window where there is one."""
    model = theirs(tmp_path, model_type, index)
    decoder, prompts, count = pretrained.load_decoder(tmp_path).eval(), tokens().split(LENGTHS), 20
    cache = Cache(decoder.config, len(prompts), 64)
    last = Layout.of(LENGTHS)
    hidden = decoder(tokens(), last, cache, at=last.last_tokens)
    chosen = [decoder.logits(hidden).argmax(-1)]
    while len(chosen) < count:
        chosen.append(decoder.logits(decoder.step(chosen[-1], cache)).argmax(-1))
    for row, prompt in enumerate(prompts):
        out = model.generate(
            prompt[None], attention_mask=torch.ones_like(prompt)[None], do_sample=False, max_new_tokens=count,
            min_new_tokens=count, eos_token_id=None,
        )  # fmt: skip
        assert out[0, len(prompt) :].tolist() == torch.stack(chosen, 1)[row].tolist()


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
