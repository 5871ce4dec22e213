from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.llama_like import llama_parameters, read_llama, write_llama

CONFIG = DecoderConfig(
    61, 32, 2, 32, 4, 2, 12, 48, positions="rope", norm="rms", activation="swiglu", bias=False, tie_embeddings=False
)


def test_fields_come_back_but_for_what_differs():
    fields = write_llama(CONFIG) | {"vocab_size": 61, "head_dim": 12}
    assert read_llama(fields, Path()) == CONFIG
    assert read_llama(fields, Path(), qkv_bias=True).has_qkv_bias
    with pytest.raises(InputError, match="hidden_act is 'gelu'; supported: 'silu'"):
        read_llama(fields | {"hidden_act": "gelu"}, Path())


def test_tensors_have_llamas_names():
    theirs = [name for entry in llama_parameters(CONFIG, {"mlp_norm": "ffn_norm"}) for name in entry.theirs]
    assert "model.layers.1.mlp.gate_proj.weight" in theirs and "model.layers.0.ffn_norm.weight" in theirs
    assert len(theirs) == len(set(theirs)) == 3 + 2 * (7 + 1)
