"""Shapes of published models: their counts are those that the models' pages state."""

import json
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.models.hf_config import explicit, published_config
from amenable.models.presets import PRESETS
from amenable.models.published_shapes import PUBLISHED, shape_of

COUNTS = {
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen2.5-32B": 32_763_876_352,
    "Qwen2.5-72B": 72_706_203_648,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Llama-2-7B": 6_738_415_616,
    "Llama-2-13B": 13_015_864_320,
    "Llama-2-70B": 68_976_648_192,
    "Llama-3-8B": 8_030_261_248,
    "Llama-3-70B": 70_553_706_496,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.1-405B": 405_853_388_800,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Mistral-7B-v0.1": 7_241_732_096,
    "Mistral-7B-v0.3": 7_248_023_552,
    "Mistral-Nemo": 12_247_782_400,
    "Mistral-Small-24B": 23_572_403_200,
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-360M": 361_821_120,
    "SmolLM2-1.7B": 1_711_376_384,
    "SmolLM3-3B": 3_075_098_624,
    "OLMo-2-1124-7B": 7_298_617_344,
    "Phi-3-mini": 3_821_079_552,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "pythia-160m": 162_322_944,
    "pythia-1b": 1_011_781_632,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
}
"""of the published weights; tied embeddings count once"""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_has_the_published_count(name: str) -> None:
    assert sum(p.numel() for p in Decoder(PUBLISHED[name], "meta").parameters()) == COUNTS[name]


@pytest.mark.parametrize(
    "name", ["Qwen3-8B", "qwen3-8b", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base", "unsloth/Qwen3-8B-GGUF"]
)
def test_names_are_read_with_owners_and_endings(name: str) -> None:
    assert shape_of(name) == PUBLISHED["Qwen3-8B"]


def test_the_longest_name_counts() -> None:
    assert shape_of("meta-llama/Meta-Llama-3-8B-Instruct") == PUBLISHED["Llama-3-8B"]
    assert shape_of("Llama-3.1-8B-Instruct") == PUBLISHED["Llama-3.1-8B"]
    assert shape_of("mistralai/Mistral-7B-Instruct-v0.3") == PUBLISHED["Mistral-7B-v0.3"]
    assert shape_of("mistralai/Mistral-Nemo-Instruct-2407") == PUBLISHED["Mistral-Nemo"]
    assert shape_of("google/gemma-3-1b-it") == PUBLISHED["gemma-3-1b"]


def test_a_mixture_of_experts_is_not_taken_for_a_dense_model() -> None:
    with pytest.raises(InputError, match="'Qwen3-30B-A3B'; did you mean"):
        shape_of("Qwen3-30B-A3B")


def test_presets_and_folders_are_read(tmp_path: Path) -> None:
    assert shape_of("nano") == PRESETS["nano"]
    fields = published_config(PUBLISHED["SmolLM2-135M"], "llama")
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert explicit(shape_of(str(tmp_path))) == explicit(PUBLISHED["SmolLM2-135M"])


def test_an_unknown_model_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'Qwen3-9B'; did you mean .*Qwen3-8B"):
        shape_of("Qwen3-9B")
    with pytest.raises(InputError, match=r"known are Qwen2\.5-0\.5B"):
        shape_of("zzz")
    with pytest.raises(InputError, match="no such file"):
        shape_of(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mixtral", "num_local_experts": 8}))
    with pytest.raises(InputError, match="a mixture of experts"):
        shape_of(str(tmp_path))
