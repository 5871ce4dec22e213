"""The doctor: what it calls good, missing and bad, and the exit code that follows."""

import json
import socket
from importlib import metadata
from pathlib import Path

import pytest
import torch

from amenable import cli
from amenable.recipes import doctor
from amenable.train.runtime import Runtime

VERSIONS = {"torch": "2.13.0+cpu", "numpy": "1.25.2", "tyro": "1.0.17"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Packages that are installed, by name; a test may change them."""
    versions = dict(VERSIONS)

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    return versions


def test_this_installation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cli.main(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["torch"]["text"] == metadata.version("torch")
    assert {"python", "disk", "serve", "products", "cache", "label"} <= set(checks)
    assert str(tmp_path) in checks["here"]["text"]
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("torch>=2.11,<2.14", ""),
        ("torch>=2.11,<2.13", "is 2.13.0+cpu, needed is <2.13"),
        ("numpy>=1.26", "is 1.25.2, needed is >=1.26"),
        ("tyro", ""),
        ("gguf>=0.17", "is not installed"),
    ],
)
def test_versions_are_compared(installed: dict[str, str], requirement: str, problem: str) -> None:
    assert doctor.fault(requirement) == problem


def test_an_extra_names_what_is_missing_and_the_line_that_mends_it(installed: dict[str, str]) -> None:
    check = doctor.check_extra("gguf", ["gguf>=0.17"])
    assert (check.state, check.fix) == ("missing", "pip install 'amenable[gguf]'")
    assert "gguf is not installed" in check.text
    installed["gguf"] = "0.19.0"
    assert doctor.check_extra("gguf", ["gguf>=0.17"]).state == "good"


def test_a_package_that_cannot_be_imported_is_bad(installed: dict[str, str]) -> None:
    installed["no-such-module"] = "1.0"
    check = doctor.check_needed("no-such-module>=1")
    assert check.state == "bad" and "cannot be imported (ModuleNotFoundError" in check.text


def test_what_is_bad_gives_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    bad = doctor.Diagnosis("Folders", "cache", "bad", "cannot be written", "set XDG_CACHE_HOME")
    monkeypatch.setattr(doctor, "checks", lambda folder: iter([bad]))
    assert cli.main(["doctor"]) == 2
    output = capsys.readouterr()
    assert "bad" in output.out and "set XDG_CACHE_HOME" in output.out
    assert output.err == "amenable: does not work here: cache; the lines marked bad say what mends it\n"


def test_a_folder_is_checked_by_its_nearest_parent(tmp_path: Path) -> None:
    assert doctor.check_writable("cache", tmp_path / "a" / "b", "").state == "good"
    assert not (tmp_path / "a").exists()
    check = doctor.check_writable("cache", Path("/proc/amenable"), "set XDG_CACHE_HOME")
    assert (check.state, check.fix) == ("bad", "set XDG_CACHE_HOME")


def test_a_port_in_use_is_a_note() -> None:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", 8019))
        except OSError:
            pass  # another program has it: as good
        else:
            sock.listen()
        checks = {check.name: check for check in doctor.check_ports()}
    assert checks["arena"].state == "note" and "--port" in checks["arena"].fix


def test_a_wrong_product_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(torch.device("cpu"), bf16=False, threads=1)
    assert doctor.check_product(runtime).state == "good"
    multiply = torch.Tensor.__matmul__

    def wrong(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product = multiply(left, right)
        return product * 1.01 if product.dtype == torch.float32 else product

    monkeypatch.setattr(torch.Tensor, "__matmul__", wrong)
    assert doctor.check_product(runtime).state == "bad"


def test_a_checkout_that_is_not_installed_says_so() -> None:
    assert [check.state for check in doctor.check_packages("no-such-distribution")] == ["note"]
