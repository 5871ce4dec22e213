"""Doctor: a check of the machine, torch, the installed packages, the folders and the ports that commands use.

    amenable doctor            a line for each check, and for what is missing the command that mends it
    amenable doctor --json     the same as data

A line is good, missing (an extra that some command needs), note (worth knowing), or bad. Exit code 2 if any is bad.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.text import Text

from amenable import __version__
from amenable.errors import InputError

if TYPE_CHECKING:
    from amenable.train.runtime import Runtime

State = Literal["good", "missing", "note", "bad"]
COLOURS: dict[State, str] = {"good": "green", "missing": "yellow", "note": "yellow", "bad": "bold red"}
PYTHONS = ((3, 11), (3, 14))
"""first version that works, and first that is not tested"""
FREE_DISK = 2 << 30
"""bytes of free disk below which a note is printed: the demo's folder takes about one GiB"""
PURPOSES = {
    "hub": "models and data sets of the Hub",
    "gguf": "GGUF files: get, export",
    "parquet": "data in .parquet and .arrow files",
    "zstd": "data in files with .zst",
    "urls": "data behind https://, s3:// and gs://",
    "serve": "pages and API: serve, label, arena",
    "control": "agents in environments: control",
    "track": "trackers: --track",
    "vllm": "rollouts by vLLM: --sampler vllm",
    "ray": "trainers and servers on a cluster: --cluster ray",
    "docs": "these documents as pages: make docs",
    "dev": "tests and checks: make test",
}
"""what each extra is for"""
MODULES = {"pyyaml": "yaml"}
"""packages whose module has another name"""


@dataclass(frozen=True)
class Config:
    """Check this installation."""

    json: bool = False
    """print JSON instead of lines"""


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check: `fix` is what mends it, or empty."""

    group: str
    name: str
    state: State
    text: str
    fix: str = ""


def run(config: Config) -> list[Diagnosis]:
    """Print the checks and return them. InputError names those that are bad."""
    results = list(checks(Path.cwd()))
    if config.json:
        print(json.dumps({"amenable": __version__, "checks": [asdict(check) for check in results]}, indent=1))
    else:
        print_checks(results)
    if bad := [check.name for check in results if check.state == "bad"]:
        raise InputError(f"does not work here: {', '.join(bad)}", how="the lines marked bad say what mends it")
    return results


def print_checks(results: list[Diagnosis]) -> None:
    """Print a line a check, by groups."""
    console = Console(highlight=False)
    for number, check in enumerate(results):
        if number == 0 or check.group != results[number - 1].group:
            console.print(check.group, style="bold", markup=False)
        text = f"{check.name:<16} {check.text}" + (f"; {check.fix}" if check.fix else "")
        console.print(Text.assemble((f"  {check.state:<8}", COLOURS[check.state]), text), soft_wrap=True)


def checks(folder: Path) -> Iterator[Diagnosis]:
    """Yield every check; `folder` is where commands write."""
    yield from check_machine(folder)
    packages = list(check_packages("amenable"))
    yield from packages
    if not any(check.name == "torch" and check.state == "bad" for check in packages):
        yield from check_torch()
        yield from check_ports()
    yield from check_folders(folder)


def check_machine(folder: Path) -> Iterator[Diagnosis]:
    """Check Python; describe cores, memory and disk."""
    version, (first, untested) = sys.version_info[:2], PYTHONS
    text = f"{platform.python_version()} at {sys.executable}, amenable {__version__}"
    if version < first:
        yield Diagnosis("Machine", "python", "bad", text, "use Python 3.11 to 3.13")
    else:
        fix = "tested are 3.11 to 3.13" if version >= untested else ""
        yield Diagnosis("Machine", "python", "note" if fix else "good", text, fix)
    yield Diagnosis("Machine", "cores", "good", f"{len(usable_cores())} of {os.cpu_count()}, {platform.platform()}")
    free = shutil.disk_usage(folder).free
    state: State = "good" if free >= FREE_DISK else "note"
    fix = "" if state == "good" else "the demo takes about 1 GiB, checkpoints of a larger model more"
    yield Diagnosis("Machine", "disk", state, f"{free / 2**30:.1f} GiB free in {folder}", fix)


def usable_cores() -> set[int]:
    """Return the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def check_packages(distribution: str) -> Iterator[Diagnosis]:
    """Check the packages that are needed, by importing them, and the extras, by their versions."""
    try:
        requirements = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        fix = "pip install -e . in the checkout"
        yield Diagnosis("Packages", distribution, "note", "is not installed, so its packages are not known", fix)
        return
    extras = dict[str, list[str]]()
    for requirement in requirements:
        needed, _, marker = requirement.partition(";")
        if extra := re.search(r"extra == ['\"](\w+)['\"]", marker):
            extras.setdefault(extra[1], []).append(needed.strip())
        elif f"!= '{sys.platform}'" not in marker.replace('"', "'"):
            yield check_needed(needed.strip())
    for extra_name, names in extras.items():
        yield check_extra(extra_name, names)


def check_needed(requirement: str) -> Diagnosis:
    """Check a package that every command needs: its version, and that it can be imported."""
    name, problem = name_of(requirement), fault(requirement)
    if not problem:
        try:
            importlib.import_module(MODULES.get(name.lower(), name.lower().replace("-", "_")))
        except Exception as error:
            problem = f"cannot be imported ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    if problem:
        return Diagnosis("Packages", name, "bad", problem, f"pip install --force-reinstall '{requirement}'")
    return Diagnosis("Packages", name, "good", metadata.version(name))


def check_extra(extra: str, requirements: list[str]) -> Diagnosis:
    """Check an extra: versions of its packages, or those that are missing."""
    purpose = PURPOSES.get(extra, "")
    problems = [f"{name_of(requirement)} {problem}" for requirement in requirements if (problem := fault(requirement))]
    if problems:
        fix = f"pip install 'amenable[{extra}]'"
        return Diagnosis("Extras", extra, "missing", f"{purpose}: {', '.join(problems)}", fix)
    versions = ", ".join(
        f"{name_of(requirement)} {metadata.version(name_of(requirement))}" for requirement in requirements
    )
    return Diagnosis("Extras", extra, "good", f"{purpose}: {versions}")


def name_of(requirement: str) -> str:
    """Return the package's name in a requirement such as "torch>=2.11,<2.14"."""
    match = re.match(r"[\w.-]+", requirement)
    return match[0] if match else requirement


def fault(requirement: str) -> str:
    """Return why a requirement is not met, or ""."""
    try:
        installed = metadata.version(name_of(requirement))
    except metadata.PackageNotFoundError:
        return "is not installed"
    for operator, bound in re.findall(r"(>=|==|<)\s*([\w.]+)", requirement):
        have, want = numbers(installed), numbers(bound)
        met = {">=": have >= want, "<": have < want, "==": have == want}[operator]
        if not met:
            return f"is {installed}, needed is {operator}{bound}"
    return ""


def numbers(version: str) -> list[int]:
    """Return the leading numbers of a version: [2, 13, 0] of "2.13.0+cpu"."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return [int(part) for part in match[0].split(".")] if match else []


def check_torch() -> Iterator[Diagnosis]:
    """Describe torch's build, the device and precision that `--device auto` takes, and memory; check a product."""
    import torch

    from amenable.train.memory_limit import available_bytes, gibibytes
    from amenable.train.runtime import DeviceOptions, processor_instructions, processor_name, start_runtime

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "for processors alone"
    yield Diagnosis(
        "Compute", "build", "good", f"torch {torch.__version__}, {cuda}, {processor_name()}, {processor_instructions()}"
    )
    yield check_accelerators()
    runtime = start_runtime(DeviceOptions())
    memory = available_bytes(runtime.device)
    free = "unknown" if memory is None else f"{gibibytes(memory)} free"
    yield Diagnosis("Compute", "memory", "good", f"{free} on {runtime.device.type}")
    threads = os.environ.get("OMP_NUM_THREADS")
    yield Diagnosis(
        "Compute", "runs", "good", runtime.describe() + (f" (OMP_NUM_THREADS is {threads})" if threads else "")
    )
    yield check_product(runtime)


def check_product(runtime: Runtime) -> Diagnosis:
    """Check a matrix product on the device, in the precision that --precision auto takes, against one in float64."""
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    dtype, limit = (torch.bfloat16, 1e-2) if runtime.bf16 else (torch.float32, 1e-4)
    fix = "use another build of torch, or --device cpu and --precision fp32"
    try:
        product = left.to(runtime.device, dtype) @ right.to(runtime.device, dtype)
    except RuntimeError as error:
        return Diagnosis("Compute", "products", "bad", f"a matrix product fails: {str(error).splitlines()[0]}", fix)
    difference = float((product.cpu().double() - exact).norm() / exact.norm())
    text = f"a matrix product in {str(dtype).removeprefix('torch.')} is {difference:.0e} off"
    return Diagnosis("Compute", "products", *(("good", text) if difference < limit else ("bad", text, fix)))


def check_accelerators() -> Diagnosis:
    """Describe the GPUs that torch can use; note a GPU that this build of torch cannot."""
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        text = ", ".join(f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in devices)
        return Diagnosis("Compute", "gpu", "good", f"{text}: --device auto uses it")
    if torch.backends.mps.is_available():
        return Diagnosis("Compute", "gpu", "good", "MPS: --device mps uses it, auto does not")
    if Path("/proc/driver/nvidia/version").exists():
        fix = "install a build of torch for CUDA" if torch.version.cuda is None else "check the driver with nvidia-smi"
        return Diagnosis("Compute", "gpu", "note", "there is one, but this torch does not use it", fix)
    return Diagnosis("Compute", "gpu", "good", "none; every command runs without")


def check_ports() -> Iterator[Diagnosis]:
    """Check that the ports of label, serve and arena are free on 127.0.0.1."""
    from amenable.serve import arena, label, serve

    for name, config in (("label", label.Config), ("serve", serve.Config), ("arena", arena.Config)):
        port = config.port
        with contextlib.closing(socket.socket()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError as error:
                text = f"port {port} of amenable {name}: {(error.strerror or str(error)).lower()}"
                yield Diagnosis("Ports", name, "note", text, "give --port another number, or 0")
            else:
                yield Diagnosis("Ports", name, "good", f"port {port} is free")


def check_folders(folder: Path) -> Iterator[Diagnosis]:
    """Check that files can be written here, in the cache, and in the folder for temporary files."""
    from amenable.recipes.downloads import cache_folder

    cache = cache_folder()
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.is_dir() else 0
    yield check_writable("here", folder, "begin in a folder that you may write to")
    yield check_writable("cache", cache, "set XDG_CACHE_HOME to a folder that you may write to", f", {size >> 20} MiB")
    yield check_writable("temporary files", Path(tempfile.gettempdir()), "set TMPDIR to a folder that you may write to")


def check_writable(name: str, folder: Path, fix: str, more: str = "") -> Diagnosis:
    """Check a folder by writing a file to it; one that is not there yet, by its nearest parent."""
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    try:
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".amenable-doctor-"):
            return Diagnosis("Folders", name, "good", f"{folder} can be written{more}")
    except OSError as error:
        return Diagnosis("Folders", name, "bad", f"{folder} cannot be written ({error.strerror})", fix)
