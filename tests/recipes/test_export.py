"""`amenable export`: the file gives back the same model, what stands beside it, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from amenable import cli
from amenable.errors import InputError
from amenable.models import adapter_files, lora, pretrained
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.gguf_file import GGUFFile
from amenable.recipes import export, get
from amenable.text.tokenizer import Tokenizer
from amenable.train.origin import Origin


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def weights(folder: Path) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in pretrained.load_decoder(folder).parameters()]


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_a_run_goes_out_and_comes_back(
    kind: str, assistant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(assistant), "--gguf", kind]) == 0
    path = Path("exports/run") / f"run-{kind}.gguf"
    assert f"{path}: " in capsys.readouterr().out
    assert {file.name for file in path.parent.iterdir()} >= {path.name, "Modelfile"}
    back = get.run(get.Config(str(path), Path("back")))
    for ours, theirs in zip(weights(back), weights(assistant)):
        assert torch.equal(ours, theirs.half().float() if kind == "f16" and theirs.dim() > 1 else theirs)
    assert Tokenizer.load(back).fingerprint == Tokenizer.load(assistant).fingerprint
    assert f"FROM ./run-{kind}.gguf" in (path.parent / "Modelfile").read_text()


def test_a_models_origin_and_temperature_go_with_it(assistant: Path, tmp_path: Path) -> None:
    folder = get.run(get.Config(str(assistant), Path("mine")))
    Origin("owner/base", "mit", "a.gguf", "", "Q4_1").write(folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"temperature": 0.2}))
    path = export.run(export.Config(folder, "f16", Path("x/y.gguf")))
    metadata = GGUFFile.read(path).metadata
    assert metadata["general.name"] == "mine" and metadata["general.license"] == "mit"
    assert metadata["general.base_model.0.name"] == "base"
    assert metadata["general.base_model.0.repo_url"] == "https://huggingface.co/owner/base"
    assert "PARAMETER temperature 0.2" in Path("x/Modelfile").read_text()


def test_a_modelfile_of_ones_own_stays(assistant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("Modelfile").write_text("FROM mine")
    export.run(export.Config(assistant, "f16", Path("a.gguf")))
    assert Path("Modelfile").read_text() == "FROM mine"
    assert "Modelfile is your own, and stays as it is" in capsys.readouterr().out
    Path("Modelfile").unlink()
    for name in ("a.gguf", "b.gguf"):
        export.run(export.Config(assistant, "f16", Path(name)))
    assert "FROM ./b.gguf" in Path("Modelfile").read_text()


def test_a_folder_in_another_dtype(assistant: Path, judge: Path) -> None:
    out = export.run(export.Config(assistant, out=Path("half"), dtype="bfloat16"))
    for ours, theirs in zip(weights(out), weights(assistant)):
        assert torch.equal(ours, theirs.bfloat16().float())
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert Tokenizer.load(out).fingerprint == Tokenizer.load(assistant).fingerprint
    scored = export.run(export.Config(judge))
    assert scored == Path("exports/run") and pretrained.load_scalar(scored).score.weight.shape == (1, 32)


def test_an_adapter_is_merged_into_its_base(assistant: Path, tmp_path: Path) -> None:
    decoder = pretrained.load_decoder(assistant)
    lora.add_adapters(decoder, lora.LoraOptions(rank=2), 0, str(assistant))
    for layer in lora.adapters(decoder).values():
        for b in layer.b:
            torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(1))
    adapter_files.save_adapters(tmp_path / "tuned" / "adapter", decoder)
    lora.merge_adapters(decoder)
    merged = [parameter.detach() for parameter in decoder.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(merged, weights(assistant)))
    folder = export.run(export.Config(Path("tuned/adapter")))
    path = export.run(export.Config(Path("tuned/adapter"), "f32"))
    assert (folder, path) == (Path("exports/tuned"), Path("exports/tuned/tuned-f32.gguf"))
    for back in (folder, get.run(get.Config(str(path), Path("back")))):
        assert all(torch.allclose(ours, theirs) for ours, theirs in zip(weights(back), merged))
        assert Tokenizer.load(back).fingerprint == Tokenizer.load(assistant).fingerprint


def test_what_is_refused(assistant: Path, judge: Path, tmp_path: Path) -> None:
    Path("full").mkdir()
    Path("full/a").write_text("mine")
    cases = {
        export.Config(judge, "f16"): "is a reward model, and llama.cpp has no such heads",
        export.Config(assistant, "f16", dtype="bfloat16"): "--dtype is for folders",
        export.Config(assistant, "f16", Path("folder")): "folder: is not a name of a GGUF file; give --out FILE.gguf",
        export.Config(assistant, None, Path("full")): "full: holds something already",
        export.Config(Path("none"), "f16"): "none: no such model folder",
    }
    for config, message in cases.items():
        with pytest.raises(InputError, match=message):
            export.run(config)
    assert not Path("exports").exists()


def test_an_architecture_that_llama_cpp_lacks(assistant: Path) -> None:
    folder = get.run(get.Config(str(assistant), Path("gpt1")))
    decoder = pretrained.load_decoder(assistant)
    config = DecoderConfig(
        decoder.config.vocab_size, 64, num_layers=1, hidden_size=16, num_heads=2, norm_placement="post"
    )
    gpt1 = Decoder(config)
    gpt1.init_weights(torch.Generator().manual_seed(0))
    pretrained.save(folder, gpt1)
    with pytest.raises(InputError, match=r"gpt1: llama.cpp's architecture of openai_gpt is not written; these can be"):
        export.run(export.Config(folder, "f16"))
