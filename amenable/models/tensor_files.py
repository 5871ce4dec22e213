"""Safetensors files, read and written a tensor at a time: a model is in memory once while it is loaded or saved.

Above a limit the weights of a folder are several files with an index, as transformers writes them:
model-00001-of-00003.safetensors ... and model.safetensors.index.json. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from amenable.errors import InputError
from amenable.files import write_file, write_text
from amenable.ranks import is_first

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD, SHARDS = "model-{:05d}-of-{:05d}.safetensors", "model-*-of-*.safetensors"
MAX_SHARD_BYTES = 5 * 10**9
"""of one file, as transformers has it"""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""by their names in a header"""
WHOLE = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
NAMES = {dtype: name for name, dtype in {**DTYPES, **WHOLE, "BOOL": torch.bool}.items()}
CHUNK = 1 << 22
"""numbers read or written at once"""
Read = Callable[[str], Tensor]
"""function of a tensor's name that returns the tensor"""


class TensorFile:
    """A whole safetensors file: the names, shapes and dtypes of its tensors, and their numbers."""

    def __init__(self, path: Path):
        """Read the header. InputError for a file that is torn or missing."""
        try:
            with safe_open(path, framework="pt"):  # checks that the header describes the whole file
                pass
            self.file: FileIO = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise InputError("no such file of weights", path) from None
        except (SafetensorError, OSError) as error:
            raise InputError(f"not a whole safetensors file ({error})", path, "copy or save it again") from None
        size = int.from_bytes(self.file.read(8), "little")
        header = json.loads(self.file.read(size))
        header.pop("__metadata__", None)
        self.path, self.start = path, 8 + size
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(entry["shape"]) for name, entry in header.items()}
        self.dtypes: dict[str, str] = {name: entry["dtype"] for name, entry in header.items()}
        self.offsets: dict[str, int] = {name: entry["data_offsets"][0] for name, entry in header.items()}

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def read(self, name: str, out: Tensor) -> None:
        """Fill `out`, contiguous and of the tensor's size, with its numbers; those of out's own dtype are not copied.

        InputError for a dtype that is no float.
        """
        if self.dtypes[name] not in DTYPES:
            problem = f"{name} is {self.dtypes[name]}, and weights are read from {', '.join(DTYPES)}"
            raise InputError(problem, self.path, "take the model's unquantized weights")
        dtype = DTYPES[self.dtypes[name]]
        direct = out.dtype == dtype and out.device.type == "cpu"
        flat = out.detach().view(-1)
        buffer = flat if direct else torch.empty(min(CHUNK, len(flat)), dtype=dtype)
        self.file.seek(self.start + self.offsets[name])
        for part in flat.split(CHUNK):
            numbers = part if direct else buffer[: len(part)]
            self.fill(numbers)
            if not direct:
                part.copy_(numbers)

    def fill(self, numbers: Tensor) -> None:
        """Fill a tensor on the CPU with the next bytes of the file."""
        rest = numbers.view(torch.uint8).numpy().data
        while rest:
            count = self.file.readinto(rest)
            if not count:
                raise InputError("was cut while it was read", self.path, "copy or save it again")
            rest = rest[count:]


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    read: Read | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file, its tensors converted to `dtype` or in their own, as safetensors' writer does. read:
    function that returns a tensor by name, for those that are without numbers, on the meta device. metadata: further
    text of the header."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    names = in_file_order(tensors, dtype)
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * (dtype or tensor.dtype).itemsize
        header[name] = {
            "dtype": NAMES[dtype or tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            tensor = read(name) if read is not None and tensors[name].is_meta else tensors[name]
            numbers = tensor.detach().contiguous().view(-1)
            for part in numbers.split(CHUNK) if numbers.numel() else ():
                file.write(part.to("cpu", dtype or part.dtype).view(torch.uint8).numpy().data)


def in_file_order(tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> list[str]:
    """Return the names of tensors as they follow one another in a file."""
    return sorted(tensors, key=lambda name: (-(dtype or tensors[name].dtype).itemsize, name))


def write_weights(
    folder: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    read: Read | None = None,
) -> None:
    """Write a folder's weights: one file, or several with an index where one would exceed `max_shard_bytes`. Each is
    written atomically; files of other weights are removed. read: as in `write_tensors`; it gathers a tensor from all
    processes, which call this together, and the first writes."""
    sizes = {name: tensor.numel() * dtype.itemsize for name, tensor in tensors.items()}
    parts = shards(sizes, max_shard_bytes)
    if read is not None and not is_first():
        for names in parts:
            for name in in_file_order({name: tensors[name] for name in names if tensors[name].is_meta}, dtype):
                read(name)
        return
    files = [WEIGHTS] if len(parts) == 1 else [SHARD.format(i + 1, len(parts)) for i in range(len(parts))]
    for file, names in zip(files, parts):
        part = {name: tensors[name] for name in names}
        write_file(folder / file, lambda path, part=part: write_tensors(path, part, dtype, read))  # type: ignore[misc]
    if len(files) > 1:
        weight_map = {name: file for file, names in zip(files, parts) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(weight_map.items()))}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
        files.append(INDEX)
    for path in (folder / WEIGHTS, folder / INDEX, *folder.glob(SHARDS)):
        if path.name not in files:
            path.unlink(missing_ok=True)


def shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Divide tensors of some sizes, in their order, into parts of at most `limit` bytes; a larger one is a part."""
    parts: list[list[str]] = [[]]
    room = limit
    for name, size in sizes.items():
        if size > room and parts[-1]:
            parts.append([])
            room = limit
        parts[-1].append(name)
        room -= size
    return parts
