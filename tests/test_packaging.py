"""The wheel and the source distribution: they have every file of the package and no other, and work where installed."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import tokenizers

from amenable import __version__

ROOT = Path(__file__).parent.parent
BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
SOURCE = {"pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "setup.cfg", "PKG-INFO"}
"""files of the source distribution beside the package"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both distributions, built from a copy of the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    skipped = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "runs", "site", "build", "dist", "results")
    shutil.copytree(ROOT, copy, ignore=skipped, dirs_exist_ok=True)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return copy / "dist"


def package_files() -> set[str]:
    """The files of the package in the checkout."""
    paths = (path for path in (ROOT / "amenable").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in paths}


def test_the_wheel_has_the_package_alone(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        info = f"amenable-{__version__}.dist-info"
        assert {name for name in names if not name.startswith(info)} == package_files()
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        assert metadata["Version"] == __version__
        assert metadata["License-Expression"] == "Apache-2.0"
        assert metadata["Description-Content-Type"] == "text/markdown"
        assert str(metadata.get_payload()).startswith("# amenable")
        assert f"{info}/licenses/LICENSE" in names
        assert "amenable = amenable.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


def test_the_source_distribution_has_what_the_wheel_is_built_from(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in (member.name for member in archive if member.isfile())}
    assert {name for name in names if "egg-info" not in name} == package_files() | SOURCE


@pytest.mark.slow
def test_it_works_where_it_is_installed(dist: Path, tmp_path: Path) -> None:
    """In a new environment, outside the checkout; its dependencies are those of this one."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    binaries = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: object, folder: Path = tmp_path) -> str:
        line = [str(part) for part in command]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
        return done.stdout

    def python(code: str) -> str:
        return run(binaries / "python", "-c", code).strip()

    site = Path(python("import sysconfig; print(sysconfig.get_path('purelib'))"))
    (site / "dependencies.pth").write_text(f"{Path(tokenizers.__file__).parent.parent}\n")
    run(binaries / "pip", "uninstall", "--quiet", "--yes", "setuptools")  # that of the dependencies builds
    for file in (next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))):
        run(binaries / "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--force-reinstall", file)
        assert Path(python("import amenable; print(amenable.__file__)")).is_relative_to(site)
        assert "Stages:" in run(binaries / "amenable", "--help")
    assert run(binaries / "amenable", "--version").strip() == f"amenable {__version__}"
    run(binaries / "amenable", "doctor")
    run(binaries / "amenable", "world", "--sizes.documents", 50)
    run(binaries / "amenable", "tokenizer", "--vocab-size", 300)
    run(binaries / "amenable", "pretrain", "--max-steps", 1, "--tokens-per-step", 256)
    assert (tmp_path / "runs/pretrain/first_batch.html").exists()
    code = "from amenable.serve import web_pages as w; print(len(list(w.FOLDER.glob('*.*'))))"
    assert int(python(code)) == len(list((ROOT / "amenable/serve/pages").glob("*.*")))
