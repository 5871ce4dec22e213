"""The comparison with llama.cpp, which is not here: our own reader of GGUF files stands for it, exact or nearly."""

import re
import stat
import sys
from pathlib import Path

import pytest

from benchmarks import llamacpp_agreement as agreement

pytestmark = pytest.mark.slow

STAND_IN = """#!{python}
import json, pathlib, sys, tempfile; sys.path.insert(0, {root!r})
import numpy as np, torch
from amenable.models import gguf
from amenable.models.gguf_file import GGUFFile
from amenable.text.gguf import tokenizer_files
from amenable.text.tokenizer import Tokenizer
from benchmarks import llamacpp_agreement as agreement

task = json.load(sys.stdin)
file = GGUFFile.read(pathlib.Path(task["file"]))
with tempfile.TemporaryDirectory() as folder:
    for name, content in tokenizer_files(file.metadata, file.path).items():
        pathlib.Path(folder, name).write_bytes(content)
    tokenizer = Tokenizer.load(folder)
decoder = gguf.load_decoder(file).eval()
decoder.num_tokens = tokenizer.vocab_size
greedy = agreement.continue_greedily(decoder, task["prompts"], tokenizer)
logits = agreement.logits_before(decoder, task["prompts"], task["continuations"])
padding = torch.full((len(logits), 3), -5.0)
off = {off}
if off:
    greedy[0] = greedy[0][:-1] + [0]
    logits[:, 0] += off
np.save(task["logits"], torch.cat([logits, padding], 1).numpy())
json.dump({{"texts": [tokenizer.encode(text) for text in task["texts"]], "greedy": greedy}}, sys.stdout)
"""


def stand_in(folder: Path, off: str = "0.0") -> Path:
    peer, root = folder / "peer", str(Path(agreement.__file__).parent.parent)
    peer.write_text(STAND_IN.format(root=root, python=sys.executable, off=off), "utf-8")
    peer.chmod(peer.stat().st_mode | stat.S_IXUSR)
    return peer


def test_the_same_model_agrees(assistant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert agreement.main(["--model", str(assistant), "--peer", str(stand_in(tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(line.startswith("good") for line in lines)
    assert "f16: 20 of 20 greedy continuations are the same" in lines[1]


def test_another_model_does_not(assistant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert agreement.main(["--model", str(assistant), "--peer", str(stand_in(tmp_path, "9.0"))]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines] == ["good", "BAD ", "BAD ", "good", "good", "BAD "]
    assert "f16: 19 of 20 greedy continuations are the same" in lines[1]


@pytest.mark.parametrize(("off", "code"), [("0.0", 0), ("0.01", 1)])
def test_each_architecture_is_a_line(
    off: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {name: agreement.ARCHITECTURES[name] for name in ("gpt2", "llama, window")}
    monkeypatch.setattr(agreement, "ARCHITECTURES", few)
    assert agreement.main(["--architectures", "--peer", str(stand_in(tmp_path, off))]) == code
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines] == ["BAD " if code else "good"] * 2
    assert re.fullmatch(r".{5}gpt2: logits differ by \S+ at most; ids are the same", lines[0])


def test_a_peer_that_fails_is_told(assistant: Path, tmp_path: Path) -> None:
    peer = stand_in(tmp_path, "1 / 0")
    with pytest.raises(SystemExit, match=r"llama.cpp failed"):
        agreement.main(["--model", str(assistant), "--peer", str(peer)])
