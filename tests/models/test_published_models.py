"""Configurations as published models have them in config.json (but for the tables of a longrope), and their sizes."""

from pathlib import Path
from typing import Any

import pytest

from amenable.models.decoder import count_parameters
from amenable.models.hf_config import decoder_config, describes


def llama(
    vocab: int, width: int, layers: int, heads: int, kv: int, mlp: int, context: int, **more: Any
) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": mlp,
        "max_position_embeddings": context,
        **more,
    }


# fmt: off
PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "Pythia 160M": (162_322_944, {"model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 768,
        "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
        "rotary_pct": 0.25, "rotary_emb_base": 10000, "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
        "tie_word_embeddings": False, "use_parallel_residual": True}),
    "OLMo 2 1B": (1_484_916_736, llama(100352, 2048, 16, 16, 16, 8192, 4096, model_type="olmo2", rope_theta=500000,
        rms_norm_eps=1e-6, tie_word_embeddings=False, attention_bias=False, rope_scaling=None)),
    "SmolLM3 3B": (3_075_098_624, llama(128256, 2048, 36, 16, 4, 11008, 65536, model_type="smollm3", rope_theta=5e6,
        no_rope_layer_interval=4, use_sliding_window=False, sliding_window=None, max_window_layers=28,
        tie_word_embeddings=True, mlp_bias=False, attention_bias=False)),
    "Phi-3 mini 4k": (3_821_079_552, llama(32064, 3072, 32, 32, 32, 8192, 4096, model_type="phi3",
        sliding_window=2047, rope_scaling=None, rope_theta=10000.0, original_max_position_embeddings=4096,
        rms_norm_eps=1e-5, tie_word_embeddings=False)),
    "Phi-3 mini 128k": (3_821_079_552, llama(32064, 3072, 32, 32, 32, 8192, 131072, model_type="phi3",
        sliding_window=262144, rope_scaling={"type": "longrope", "short_factor": [1.0]*48, "long_factor": [2.0]*48},
        rope_theta=10000.0, original_max_position_embeddings=4096, rms_norm_eps=1e-5, tie_word_embeddings=False)),
    "Phi-4": (14_659_507_200, llama(100352, 5120, 40, 40, 10, 17920, 16384, model_type="phi3", rope_theta=250000,
        rope_scaling=None, sliding_window=None, original_max_position_embeddings=16384, tie_word_embeddings=False)),
    "Phi-4 mini": (3_836_021_760, llama(200064, 3072, 32, 24, 8, 8192, 131072, model_type="phi3",
        partial_rotary_factor=0.75, rope_scaling={"type": "longrope", "short_factor": [1.0]*48, "long_factor":
        [2.0]*48}, rope_theta=10000.0, original_max_position_embeddings=4096, sliding_window=262144,
        tie_word_embeddings=True, rms_norm_eps=1e-5)),
    "Gemma 2B": (2_506_172_416, llama(256000, 2048, 18, 8, 1, 16384, 8192, model_type="gemma", head_dim=256,
        hidden_act="gelu", hidden_activation=None, rms_norm_eps=1e-6, rope_theta=10000.0)),
    "Gemma 3 1B": (999_885_952, llama(262144, 1152, 26, 4, 1, 6912, 32768, model_type="gemma3_text", head_dim=256,
        hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=256, rope_local_base_freq=10000,
        rope_theta=1000000, rope_scaling=None, sliding_window=512, sliding_window_pattern=6,
        attn_logit_softcapping=None, final_logit_softcapping=None, rms_norm_eps=1e-6)),
    "Mistral 7B": (7_241_732_096, llama(32000, 4096, 32, 32, 8, 14336, 32768, model_type="mistral",
        sliding_window=4096, rope_theta=10000.0, rms_norm_eps=1e-5, tie_word_embeddings=False)),
    "Qwen2.5 0.5B": (494_032_768, llama(151936, 896, 24, 14, 2, 4864, 32768, model_type="qwen2",
        use_sliding_window=False, sliding_window=32768, max_window_layers=24, rope_theta=1e6, rms_norm_eps=1e-6,
        tie_word_embeddings=True)),
    "Qwen3 0.6B": (596_049_920, llama(151936, 1024, 28, 16, 8, 3072, 40960, model_type="qwen3", head_dim=128,
        attention_bias=False, use_sliding_window=False, sliding_window=None, max_window_layers=28, rope_theta=1e6,
        rms_norm_eps=1e-6, tie_word_embeddings=True)),
    "Olmo 3 7B": (7_298_011_136, llama(100278, 4096, 32, 32, 32, 11008, 65536, model_type="olmo3",
        sliding_window=4096, rope_theta=500000, rope_scaling={"attention_factor": 1.2079441541679836, "beta_fast":
        32.0, "beta_slow": 1.0, "factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "yarn"},
        rms_norm_eps=1e-6, tie_word_embeddings=False)),
    "Llama 3.2 1B": (1_235_814_400, llama(128256, 2048, 16, 32, 8, 8192, 131072, model_type="llama", head_dim=64,
        rope_theta=5e5, rope_scaling={"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}, tie_word_embeddings=True)),
}
# fmt: on


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_has_its_parameters_and_is_written_again(name: str) -> None:
    parameters, fields = PUBLISHED[name]
    config = decoder_config(fields, Path("config.json"))
    assert count_parameters(config) == parameters
    assert describes(fields["model_type"], config)


def test_what_differs_by_layer() -> None:
    gemma, smol, olmo = (
        decoder_config(PUBLISHED[name][1], Path("config.json")) for name in ("Gemma 3 1B", "SmolLM3 3B", "Olmo 3 7B")
    )
    assert [gemma.window_of(layer) for layer in range(7)] == [512] * 5 + [None, 512] and gemma.local_rope_theta == 1e4
    assert smol.nope_layers == tuple(range(3, 36, 4)) and smol.window is None
    assert [olmo.window_of(layer) for layer in range(5)] == [4096] * 3 + [None, 4096]
    phi = decoder_config(PUBLISHED["Phi-4 mini"][1], Path("config.json"))
    assert (phi.rotary_size, phi.context_length) == (96, 4096)
