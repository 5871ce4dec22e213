"""GGUF files: what is written is read again, and nothing torn or foreign is read at all."""

import struct
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from amenable.errors import InputError
from amenable.models.gguf_file import GGUFFile, ggml_type, write_gguf

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Ö and 猫",
    "llama.block_count": 3,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.tokens": ["a", "Ġb", ""],
    "tokenizer.ggml.token_type": [1, 3, 6],
}


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def write(path: Path, kind: Any = "f32", columns: int = 64) -> dict[str, torch.Tensor]:
    tensors = {"token_embd.weight": matrix(5, columns), "output_norm.weight": matrix(1, 7, 1)[0]}
    write_gguf(path, METADATA, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors.items(), kind)
    return tensors


def test_metadata_and_tensors_come_back(tmp_path: Path) -> None:
    tensors = write(tmp_path / "a.gguf")
    file = GGUFFile.read(tmp_path / "a.gguf")
    assert dict(file.metadata) == METADATA
    assert {name: info.shape for name, info in file.tensors.items()} == {
        "token_embd.weight": (5, 64),
        "output_norm.weight": (7,),
    }
    for name, tensor in tensors.items():
        assert torch.equal(file.tensor(name), tensor)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.gguf"]


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "f32"])
def test_the_packages_own_reader_agrees(tmp_path: Path, kind: str) -> None:
    tensors = write(tmp_path / "a.gguf", kind)
    file, theirs = GGUFFile.read(tmp_path / "a.gguf"), gguf.GGUFReader(tmp_path / "a.gguf")
    assert file.type_names() == [kind.upper()] + ["F32"] * (kind != "f32")
    for tensor in theirs.tensors:
        ours = file.tensor(tensor.name)
        assert np.array_equal(gguf.quants.dequantize(tensor.data, tensor.tensor_type), ours.numpy())
    rounded = {"f16": tensors["token_embd.weight"].half(), "bf16": tensors["token_embd.weight"].bfloat16()}
    stored = file.tensor("token_embd.weight")
    if kind in rounded:
        assert torch.equal(stored, rounded[kind].float())
    if kind == "q8_0":
        expected = gguf.quants.quantize(tensors["token_embd.weight"].numpy(), gguf.GGMLQuantizationType.Q8_0)
        assert np.array_equal(next(t.data for t in theirs.tensors if t.name == "token_embd.weight"), expected)
        assert 0 < (stored - tensors["token_embd.weight"]).abs().max() < 0.02
    for name, value in METADATA.items():
        assert theirs.fields[name].contents() == value


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q6_K"])
def test_blocks_are_read_as_the_package_reads_them(tmp_path: Path, kind: str) -> None:
    """Bytes drawn at random are as good a block as any; scales are small."""
    quantisation = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[quantisation]
    data = np.random.default_rng(0).integers(0, 56, (3, 512 // block * size), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("a", data, raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = GGUFFile.read(tmp_path / "a.gguf").tensor("a")
    assert tensor.shape == (3, 512) and tensor.abs().max() > 0
    assert np.array_equal(tensor.numpy(), gguf.quants.dequantize(data, quantisation))


def test_a_row_that_blocks_do_not_fill_is_f16(tmp_path: Path) -> None:
    shapes, tensors = (
        {"a.weight": (4, 33), "b.weight": (4, 32)},
        [("a.weight", matrix(4, 33)), ("b.weight", matrix(4, 32))],
    )
    assert write_gguf(tmp_path / "a.gguf", METADATA, shapes, tensors, "q8_0") == ["a.weight"]
    file = GGUFFile.read(tmp_path / "a.gguf")
    assert torch.equal(file.tensor("a.weight"), matrix(4, 33).half().float())
    assert ggml_type("position_embd.weight", (4, 32), "q8_0") == "F32"


def test_every_torn_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    whole = (tmp_path / "a.gguf").read_bytes()
    torn = tmp_path / "torn.gguf"
    for size in (*range(5, len(whole) - 40, 7), len(whole) - 40):
        torn.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"torn.gguf: is not a whole GGUF file \(.*\); copy or download it again"):
            GGUFFile.read(torn)


def test_every_altered_header_is_read_or_refused(tmp_path: Path) -> None:
    """No byte of a header, changed, makes anything but an InputError or a file with other values."""
    write(tmp_path / "a.gguf")
    whole = (tmp_path / "a.gguf").read_bytes()
    altered = tmp_path / "altered.gguf"
    for position in range(300):
        for value in (0, 9, 0xFF):
            altered.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            try:
                assert GGUFFile.read(altered).tensors is not None
            except InputError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"{}", "is not a GGUF file; name a .gguf file, or a model folder"),
        (b"PK\x03\x04" + bytes(100), "is not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "its version is 1, and 2 and 3 are read"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "its version is 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**62), "is not a whole GGUF file"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**60), "and its header goes on"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "a list is of the unknown type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77), "a value is of the unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 32, 777, 0), "t is of the unknown type 777"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 31, 8, 0), "which blocks of 32 do not fill"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 9), "t has 9 dimensions"),
    ],
)
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InputError) as error:
        GGUFFile.read(tmp_path / "x.gguf")
    assert message in str(error.value) and "x.gguf" in str(error.value) and "\n" not in str(error.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        GGUFFile.read(tmp_path / "none.gguf")
    with pytest.raises(InputError, match="cannot be read"):
        GGUFFile.read(tmp_path)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"GGUF files need the package gguf; pip install 'amenable\[gguf\]'"):
        GGUFFile.read(tmp_path / "a.gguf")


def test_values_beyond_fp16_are_refused(tmp_path: Path) -> None:
    large = matrix(2, 32) + 1e5
    for value in (large, large * float("nan")):
        with pytest.raises(InputError, match=r"a.weight holds values beyond fp16's largest, 65504; export it as bf16"):
            write_gguf(tmp_path / "a.gguf", METADATA, {"a.weight": (2, 32)}, [("a.weight", value)], "f16")
    assert not list(tmp_path.iterdir())
    write_gguf(tmp_path / "a.gguf", METADATA, {"a.weight": (2, 32)}, [("a.weight", large)], "bf16")
