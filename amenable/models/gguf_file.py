"""GGUF files, llama.cpp's format: one file of metadata, by dotted keys, and of named tensors.

    header    "GGUF", version, number of tensors, number of keys; then keys with their values; then names, shapes, types
              and offsets of tensors; then, aligned, their data                (github.com/ggml-org/ggml, docs/gguf.md)

Every length in a file is checked against the file's size, so that a torn or foreign file is one error. Blocks of
quantised numbers are read and written by the package `gguf`. A shape is written innermost dimension first, and is
turned around here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from amenable.errors import InputError
from amenable.files import disk_errors, write_file

Kind = Literal["f32", "f16", "bf16", "q8_0"]
FILE_TYPES: dict[Kind, int] = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
"""general.file_type of a file whose matrices are mostly of a kind"""
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letters of the types of values that are one number"""
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
COPY_IT = "copy or download it again"


def gguf_package() -> ModuleType:
    """Return the package gguf. InputError with the command that installs it."""
    try:
        import gguf
    except ImportError:
        raise InputError("GGUF files need the package gguf", how="pip install 'amenable[gguf]'") from None
    return gguf


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a GGUF file: its shape, ggml type, and the bytes that hold it."""

    shape: tuple[int, ...]
    ggml_type: int
    start: int
    size: int


@dataclass(frozen=True)
class GGUFFile:
    """Metadata of a GGUF file, and where its tensors are."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @classmethod
    def read(cls, path: Path) -> GGUFFile:
        """Read a file's header. InputError for a file that is not GGUF, or not whole."""
        gguf_package()
        try:
            data = np.memmap(path, np.uint8, "r")
        except FileNotFoundError:
            raise InputError("no such file", path, "check the path") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read ({error})", path) from None
        if bytes(data[:4]) != b"GGUF":
            raise InputError("is not a GGUF file", path, "name a .gguf file, or a model folder")
        try:
            return cls(path, *Header(data).read())
        except (struct.error, ValueError) as error:
            raise InputError(f"is not a whole GGUF file ({error})", path, COPY_IT) from None

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in fp32, dequantised. InputError for a type that the package gguf does not read."""
        quants, info = gguf_package().quants, self.tensors[name]
        kind = gguf_package().GGMLQuantizationType(info.ggml_type)
        data = np.memmap(self.path, np.uint8, "r", info.start, (info.size,))
        try:
            if kind.name in ("F32", "F16"):
                numbers = data.view(np.float32 if kind.name == "F32" else np.float16)
            else:
                numbers = data.reshape(*info.shape[:-1], -1)
            return torch.tensor(quants.dequantize(numbers, kind).reshape(info.shape).astype(np.float32, copy=False))
        except NotImplementedError:
            raise InputError(f"{name} is of type {kind.name}, which is not read", self.path) from None

    def type_names(self) -> list[str]:
        """Return the types of the file's tensors, that of the most numbers first."""
        counts: dict[int, int] = {}
        for info in self.tensors.values():
            counts[info.ggml_type] = counts.get(info.ggml_type, 0) + math.prod(info.shape)
        kinds = gguf_package().GGMLQuantizationType
        return [kinds(kind).name for kind in sorted(counts, key=lambda kind: -counts[kind])]

    def same_bytes(self, first: str, second: str) -> bool:
        """Return True for two tensors of one type, shape and content."""
        a, b = self.tensors[first], self.tensors[second]
        if (a.shape, a.ggml_type) != (b.shape, b.ggml_type):
            return False
        data = np.memmap(self.path, np.uint8, "r")
        return bool(np.array_equal(data[a.start : a.start + a.size], data[b.start : b.start + b.size]))


class Header:
    """Cursor over a GGUF file's header. ValueError or struct.error where the file ends too early."""

    def __init__(self, data: Any):
        """data: the file's bytes, as a buffer."""
        self.data, self.position = data, 4

    def read(self) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        """Return the metadata, and the tensors' infos."""
        version = self.number("I")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, and 2 and 3 are read")
        num_tensors, num_keys = self.number("Q"), self.number("Q")
        metadata = dict[str, Any]()
        for _ in range(num_keys):
            key = self.string()
            metadata[key] = self.value(self.number("I"))
        infos = [self.tensor_info() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"its alignment is {alignment!r}")
        start = -(-self.position // alignment) * alignment
        tensors = {name: self.locate(name, shape, kind, start + offset) for name, shape, kind, offset in infos}
        if len(tensors) < len(infos):
            raise ValueError("two tensors have one name")
        return metadata, tensors

    def number(self, letter: str) -> Any:
        """Read one number of a struct type."""
        value = struct.unpack_from("<" + letter, self.data, self.position)[0]
        self.position += struct.calcsize("<" + letter)
        return value

    def string(self) -> str:
        """Read a string: its length, and its UTF-8 bytes."""
        size = self.number("Q")
        self.require(size)
        text = bytes(self.data[self.position : self.position + size]).decode("utf-8")
        self.position += size
        return text

    def value(self, kind: int) -> Any:
        """Read a value: a number, a string, or a list of either."""
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise ValueError(f"a value is of the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner == STRING:
            self.require(8 * count)
            return [self.string() for _ in range(count)]
        if inner not in NUMBERS:
            raise ValueError(f"a list is of the unknown type {inner}")
        size = struct.calcsize("<" + NUMBERS[inner])
        self.require(size * count)
        values = list(struct.unpack_from(f"<{count}{NUMBERS[inner]}", self.data, self.position))
        self.position += size * count
        return values

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read a tensor's name, shape, type and offset."""
        name, dimensions = self.string(), self.number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        return name, shape[::-1], self.number("I"), self.number("Q")

    def locate(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> TensorInfo:
        """Return where a tensor is in the file. ValueError unless all of it is there."""
        package = gguf_package()
        try:
            block, bytes_of_block = package.GGML_QUANT_SIZES[package.GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise ValueError(f"{name} is of the unknown type {kind}") from None
        if 0 in shape or shape[-1] % block:
            raise ValueError(f"{name} is {list(shape)}, which blocks of {block} do not fill")
        size = math.prod(shape) // block * bytes_of_block
        if start + size > len(self.data):
            raise ValueError(f"it has {len(self.data):,} bytes, and {name} ends at {start + size:,}")
        return TensorInfo(shape, kind, start, size)

    def require(self, size: int) -> None:
        """Raise ValueError unless so many bytes are left."""
        if self.position + size > len(self.data):
            raise ValueError(f"it has {len(self.data):,} bytes, and its header goes on")


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    tensors: Iterable[tuple[str, Tensor]],
    kind: Kind,
) -> list[str]:
    """Write a GGUF file atomically, matrices as `kind`, and return the names of those that are f16 in place of q8_0.

    Tensors come one by one, in the order of `shapes`. Vectors are fp32, as llama.cpp needs them, and so are positions.
    A row that blocks of 32 do not fill has no q8_0. Metadata: numbers, strings and lists, by key; an int is uint32.
    """
    gguf = gguf_package()
    types = {name: ggml_type(name, shape, kind) for name, shape in shapes.items()}

    def write(temporary: Path) -> None:
        writer = gguf.GGUFWriter(temporary, metadata["general.architecture"])
        for key, value in metadata.items():
            if key != "general.architecture":
                add_value(writer, key, value)
        for name, shape in shapes.items():
            kind_of = gguf.GGMLQuantizationType[types[name]]
            block, bytes_of_block = gguf.GGML_QUANT_SIZES[kind_of]
            stored = (*shape[:-1], shape[-1] // block * bytes_of_block)
            if types[name] in ("F32", "F16"):
                dtype: Any = np.float32 if types[name] == "F32" else np.float16
                writer.add_tensor_info(name, shape, np.dtype(dtype), math.prod(stored))
            else:
                writer.add_tensor_info(name, stored, np.dtype(np.uint8), math.prod(stored), kind_of)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors:
            writer.write_tensor_data(quantised(name, tensor, types[name]))
        writer.close()

    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, write)
    return [name for name, written in types.items() if kind == "q8_0" and written == "F16"]


def ggml_type(name: str, shape: Sequence[int], kind: Kind) -> str:
    """Return the type that a tensor is written in."""
    if len(shape) == 1 or name.startswith("position_embd"):
        return "F32"
    return "F16" if kind == "q8_0" and shape[-1] % 32 else kind.upper()


def quantised(name: str, tensor: Tensor, kind: str) -> np.ndarray:
    """Return a tensor's numbers in a ggml type. InputError for values that fp16 does not reach."""
    gguf = gguf_package()
    numbers = np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())
    if kind in ("F16", "Q8_0") and not np.abs(numbers).max() <= 65504:
        raise InputError(f"{name} holds values beyond fp16's largest, 65504", how="export it as bf16 or f32")
    return gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[kind])


def add_value(writer: Any, key: str, value: Any) -> None:
    """Add a value to a writer's metadata, by its type."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
