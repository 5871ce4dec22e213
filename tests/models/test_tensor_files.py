"""Safetensors files: as the library writes and reads them, in parts, torn, and without a second copy in memory."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.tensor_files import TensorFile, shards, write_tensors

GPT = DecoderConfig(61, context_length=32, num_layers=2, hidden_size=32, num_heads=4)
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_a_file_is_that_of_the_library_to_the_byte(dtype, tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {f"t{i}.é": torch.randn(3, 4 + i, generator=generator).to(kind) for i, kind in enumerate(FLOATS)}
    tensors |= {
        "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 2),
        "turned": torch.randn(3, 5, generator=generator).t(),
    }
    write_tensors(tmp_path / "ours", tensors, dtype)
    cast = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in tensors.items()}
    save_file(cast, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_are_read_into_any_place(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr("amenable.models.tensor_files.CHUNK", 7)
    tensor = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    save_file({"a": torch.ones(3), "b": tensor}, tmp_path / "file")
    file, whole = TensorFile(tmp_path / "file"), torch.full((9, 6), -1.0)
    file.read("b", whole[2:7])
    file.close()
    assert torch.equal(whole[2:7], tensor.float())
    assert (whole[:2] == -1).all() and (whole[7:] == -1).all()


def test_weights_that_are_no_floats_are_refused(tmp_path):
    pretrained.save(tmp_path, Decoder(GPT))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["transformer.h.0.attn.c_attn.weight"] = torch.zeros(32, 96, dtype=torch.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"h\.0\.attn\.c_attn\.weight is I8, and weights are read from F64, F32"):
        pretrained.load_decoder(tmp_path)


def test_parts_are_filled_in_order_and_a_larger_tensor_is_alone():
    assert shards({"a": 3, "b": 3, "c": 4, "d": 11, "e": 1}, 7) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert shards({"a": 3}, 1) == [["a"]]


def test_large_weights_are_several_files_that_transformers_opens(tmp_path):
    transformers = pytest.importorskip("transformers")
    decoder = Decoder(GPT)
    pretrained.save(tmp_path, decoder)
    whole = load_file(tmp_path / "model.safetensors")
    pretrained.save(tmp_path, decoder, max_shard_bytes=20_000)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))] and len(files) > 3
    assert all((tmp_path / file).stat().st_size < 22_000 for file in files)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    parts = {file: load_file(tmp_path / file) for file in files}
    assert {name: file for file, part in parts.items() for name in part} == index["weight_map"]
    assert all(torch.equal(parts[file][name], whole[name]) for name, file in index["weight_map"].items())
    again = pretrained.load_decoder(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), decoder.parameters()))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(theirs.transformer.wte.weight, decoder.token_embedding.weight)
    pretrained.save(tmp_path, decoder)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


def test_a_shard_that_is_missing_torn_or_another_is_named(tmp_path):
    pretrained.save(tmp_path, Decoder(GPT), max_shard_bytes=20_000)
    second, third = sorted(tmp_path.glob("*.safetensors"))[1:3]
    whole = second.read_bytes()
    second.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=f"{second.name}: not a whole safetensors file"):
        pretrained.load_decoder(tmp_path)
    second.write_bytes(third.read_bytes())
    with pytest.raises(InputError, match=rf"{second.name}: lacks transformer\.h\..*, which model.*index.json says it"):
        pretrained.load_decoder(tmp_path)
    second.unlink()
    with pytest.raises(InputError, match=f"{second.name}: no such file of weights"):
        pretrained.load_decoder(tmp_path)


def peak_and_weights(folder, small):
    """Bytes that a process of its own needs to load a folder after a small one, at most; and those of the weights."""
    script = """
import sys
from amenable.models import pretrained
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
def load(folder):
    model = pretrained.load_decoder(folder)
    pretrained.resize_vocabulary(model, model.config.vocab_size + 64, __import__("torch").Generator())
    return model
load(sys.argv[2])
open("/proc/self/clear_refs", "w").write("5")  # the peak is that of now
before = status("VmRSS")
model = load(sys.argv[1])
print(status("VmHWM") - before, sum(p.nbytes for p in model.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", script, folder, small], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 10**9), (torch.bfloat16, 10_000_000)])
def test_loading_takes_the_weights_memory_once(dtype, limit, tmp_path):
    """64 MB in a shape whose embedding is a third, and whose layers' queries, keys and values are stacked."""
    shape = DecoderConfig(10_000, 128, 4, 512, 8, mlp_width=1024, positions="rope", norm="rms", activation="swiglu")
    pretrained.save(tmp_path, Decoder(shape), dtype=dtype, max_shard_bytes=limit)
    assert len(list(tmp_path.glob("*.safetensors"))) == (1 if limit == 10**9 else 4)
    pretrained.save(tmp_path / "small", Decoder(replace(shape, vocab_size=100, num_layers=1)), dtype=dtype)
    peak, weights = peak_and_weights(tmp_path, tmp_path / "small")
    assert weights > 50_000_000
    assert peak < 1.28 * weights, "a copy of the embedding alone would make it 1.33"
