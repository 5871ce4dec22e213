"""config.json: there and back for every architecture, and a mixture that none has."""

from dataclasses import replace
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.family import family, model_types
from amenable.models.hf_config import (
    decoder_config,
    explicit,
    is_classifier,
    model_type_of,
    published_config,
    read_json_object,
)

GPT = DecoderConfig(61, context_length=32, num_layers=2, hidden_size=32, num_heads=4)
MODERN = replace(GPT, positions="rope", norm="rms", activation="swiglu", bias=False, norm_eps=1e-6)
LONGROPE = {
    "rope_type": "longrope",
    "factor": 2.0,
    "original_max_position_embeddings": 16,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
}
FAMILIES = {
    "openai_gpt": [replace(GPT, norm_placement="post"), replace(GPT, norm_placement="post", activation="relu")],
    "gpt2": [GPT, replace(GPT, activation="relu", mlp_width=80, tie_embeddings=False, norm_eps=1e-6)],
    "llama": [
        replace(MODERN, num_kv_heads=2, tie_embeddings=False, rope_theta=5000.0),
        replace(MODERN, bias=True, head_width=12),
    ],
    "qwen2": [replace(MODERN, num_kv_heads=1, qkv_bias=True)],
    "qwen3": [replace(MODERN, num_kv_heads=2, head_width=16, qk_norm=True)],
}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_configuration_comes_back_but_for_dropout(model_type):
    for config in FAMILIES[model_type]:
        assert model_type_of(config) == model_type
        facts = published_config(replace(config, dropout=0.2), model_type)
        assert facts["architectures"] == [family(model_type).LANGUAGE_MODEL] and not is_classifier(facts)
        again = decoder_config(facts, Path("config.json"))
        derived = ("kv_head_count", "head_size", "mlp_size", "has_qkv_bias")
        assert [getattr(again, name) for name in derived] == [getattr(config, name) for name in derived]
        optional = {"num_kv_heads": None, "head_width": None, "mlp_width": None, "qkv_bias": None}
        assert replace(again, **optional) == replace(config, **optional)


def test_a_configuration_may_be_written_in_several_ways():
    every, none = replace(MODERN, window=9, local_layers=(1, 0)), replace(MODERN, window=9, local_layers=())
    assert explicit(every) == explicit(replace(MODERN, window=9)) and explicit(none) == explicit(MODERN)
    assert [model_type_of(config) for config in (replace(MODERN, window=9), every, none)] == ["mistral"] * 2 + ["llama"]
    assert model_type_of(replace(MODERN, nope_layers=(1, 0, 1))) == "smollm3"
    assert model_type_of(MODERN, {"model_type": "mistral"}) == "mistral"
    assert model_type_of(replace(MODERN, qk_norm=True), {"model_type": "mistral"}) == "qwen3"


def test_a_classifier_is_known_by_its_architecture():
    assert all(
        is_classifier({"architectures": [name]})
        for name in (family(model_type).CLASSIFIER for model_type in model_types())
    )
    assert not is_classifier({}) and not is_classifier({"architectures": None})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
            "'gemma3' .more than text around a gemma3_text model.; the nearest is gemma3_text",
        ),
        ({"model_type": "mixtral", "num_local_experts": 8}, "'mixtral' .a mixture of experts.; the nearest is mistral"),
        (
            {"model_type": "gemma2", "final_logit_softcapping": 30.0},
            "'gemma2' .soft caps on logits.; the nearest is gemma",
        ),
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}, "'own' .code of its own, which is never run"),
        ({"model_type": "llava", "text_config": {}}, "'llava' .more than text around a text model"),
        ({}, "model_type is 'None'; supported are gemma, gemma3_text, gpt2"),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"model_type": "phi3", "rope_scaling": {"type": "longrope"}}, "lacks 'original_max_position_embeddings'"),
        (
            {"model_type": "llama", "rope_scaling": LONGROPE},
            "rows of 32 leave the original context of 16 of a longrope",
        ),
        ({"model_type": "llama", "rope_scaling": {"type": "su"}}, "rope_type is 'su'"),
    ],
)
def test_what_is_not_supported_is_refused_with_what_is_near(fields, message):
    sizes = {"vocab_size": 61, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    others = {"intermediate_size": 48, "max_position_embeddings": 32}
    with pytest.raises(InputError, match=message):
        decoder_config(sizes | others | fields, Path("config.json"))


def test_a_file_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="is not a JSON object"):
        read_json_object(tmp_path / "config.json")


@pytest.mark.parametrize(
    "mixture",
    [
        replace(GPT, norm="rms"),
        replace(GPT, bias=False),
        replace(GPT, num_kv_heads=2),
        replace(GPT, norm_placement="post", mlp_width=64),
        replace(MODERN, norm_placement="post"),
        replace(MODERN, qk_norm=True, bias=True),
        replace(MODERN, bias=True, qkv_bias=False),
        replace(MODERN, qkv_bias=True, head_width=12),
    ],
)
def test_an_unpublished_mixture_is_refused(mixture, tmp_path):
    with pytest.raises(InputError, match="no published architecture is positions="):
        pretrained.save(tmp_path, Decoder(mixture, device="meta"))
    assert list(tmp_path.iterdir()) == []
