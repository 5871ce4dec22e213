"""Tensors in parts: what several processes write, another number reads, in checkpoints and as a model; frozen models in
parts are what they were."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from amenable import launcher
from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.models.sharded_files import ShardedFiles
from amenable.train import checkpoint, reference_logits
from amenable.train.best import BestWeights
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.trained_weights import TrainedWeights

GROUP = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from amenable import processes
from amenable.errors import InputError
from amenable.models import heads, inference, sharding
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.layout import Layout
from amenable.ranks import end_at_once, is_first, rank
from amenable.text.tokenizer import Tokenizer
from amenable.train import checkpoint, loading
from amenable.train.best import BestWeights
from amenable.train.checkpoint_writer import CheckpointWriter
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.trained_weights import TrainedWeights

out, shape = Path(sys.argv[1]), DecoderConfig(**json.loads(sys.argv[2]))
processes.join()
decoder = Decoder(shape)
optimizer = Optimizer([decoder], OptimizerConfig(learning_rate=1e-2, fsdp=True))
holders = {"model": TrainedWeights(decoder), "optimizer": optimizer, "best": BestWeights(decoder, "loss")}
for step in (0, 1):
    layout = Layout.of((5, 3), torch.device("cpu"))
    ids = torch.arange(8) + 8 * step + rank()
    decoder(ids, layout).square().mean().backward()
    optimizer.step()
    holders["best"].update({"loss": step}, step + 1)
optimizer.zero_grad()


def state():
    return {"state": {name: holder.state_dict() for name, holder in holders.items()}}


def weights(model):
    return {name: value.detach().clone() for name, value in sharding.whole(model).state_dict().items()}


wanted = weights(decoder)
if is_first():
    save_file(wanted, out / "wanted.safetensors")
if len(sys.argv) > 3:  # resume what another number of processes has saved
    for parameter in decoder.parameters():
        processes.local_part(parameter).detach().zero_()
    checkpoint.load(holders, checkpoint.read(Path(sys.argv[3]), 1)["state"], out)
    if is_first():
        (out / "held.json").write_text(json.dumps(holders["best"].step))
    save_best = {name: sharding.gathered(value) for name, value in holders["best"].weights.items()}
    read = weights(decoder)
    own = optimizer.state_dict()["0"]["state"]
    moments = {f"{n}/{k}": sharding.gathered(v) for n, m in own.items() for k, v in m.items()}
    if is_first():
        save_file({k: v.contiguous() for k, v in read.items()}, out / "read.safetensors")
        save_file({k: v.contiguous() for k, v in save_best.items()}, out / "best.safetensors")
        save_file({k: v.contiguous() for k, v in moments.items()}, out / "moments.safetensors")
    end_at_once(0)
checkpoint.save(out, 1, state())
writer = CheckpointWriter(out, 2, in_thread=True)
writer.save(2, state())
with torch.no_grad():  # the copy is of before
    for parameter in decoder.parameters():
        processes.local_part(parameter).mul_(2)
writer.wait()
with torch.no_grad():
    for parameter in decoder.parameters():
        processes.local_part(parameter).mul_(0.5)
write = checkpoint.size_and_hash
if rank() == 1:
    def full(file):
        raise OSError(28, "No space left on device")

    checkpoint.size_and_hash = full
try:
    writer.save(3, state())
    while writer.pending:
        writer.poll()
except InputError as error:
    (out / f"refused-{rank()}.txt").write_text(str(error))
checkpoint.size_and_hash = write
words = Tokenizer.train(["some words to read"], 290, chat=True)
loading.save_model(out / "model", decoder, words, "bfloat16", max_shard_bytes=20_000)
scalar = heads.ScalarModel.from_decoder(Decoder(shape), torch.Generator().manual_seed(1))
before, size = weights(scalar), sum(p.nbytes for p in scalar.parameters())
sharding.shard_frozen(scalar)
after = weights(scalar)
assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
assert sum(processes.local_part(p).untyped_storage().nbytes() for p in scalar.parameters()) < 0.6 * size
packed = inference.cast_for_inference(Decoder(shape), torch.bfloat16, in_place=True)
dense = inference.cast_for_inference(Decoder(shape), torch.bfloat16, in_place=True)
sharding.shard_frozen(packed)
with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
    ids, layout = torch.arange(9), Layout.of((5, 4), torch.device("cpu"))
    first, second = sharding.whole(packed)(ids, layout), dense(ids, layout)
assert float((first - second).abs().max()) < 0.02 * float(second.abs().max())
end_at_once(0)
"""


def together(count: int, *arguments: str) -> None:
    """Run GROUP in `count` processes."""
    assert launcher.launch([sys.executable, "-c", GROUP, *arguments], count) == 0


def shape_of(decoder: Decoder) -> str:
    """Return a decoder's configuration as JSON."""
    return json.dumps(asdict(decoder.config))


@pytest.fixture(scope="module")
def saved(make_decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what two processes have saved."""
    out = tmp_path_factory.mktemp("saved")
    together(2, str(out), shape_of(make_decoder()))
    return out


def resumed(saved: Path, decoder: Decoder, step: int) -> dict[str, Any]:
    """Load a checkpoint into a decoder and its optimizer, in this process."""
    optimizer = Optimizer([decoder], OptimizerConfig(learning_rate=1e-2))
    holders = {"model": TrainedWeights(decoder), "optimizer": optimizer, "best": BestWeights(decoder, "loss")}
    checkpoint.load(holders, checkpoint.read(saved, step)["state"], saved)
    return holders


@pytest.mark.parametrize("step", [1, 2])
def test_a_checkpoint_in_parts_is_read_by_one_process(
    saved: Path, make_decoder: Callable[..., Decoder], step: int
) -> None:
    decoder, wanted = make_decoder(3), load_file(saved / "wanted.safetensors")
    holders = resumed(saved, decoder, step)
    assert all(torch.equal(value, wanted[name]) for name, value in decoder.state_dict().items())
    assert holders["best"].step == 2 and torch.equal(
        holders["best"].weights["final_norm.weight"], wanted["final_norm.weight"]
    )
    moments = holders["optimizer"].parts[0].state[decoder.token_embedding.weight]
    assert moments["exp_avg"].shape == decoder.token_embedding.weight.shape and float(moments["step"]) == 2
    assert float(moments["exp_avg_sq"].sum()) > 0


def test_each_process_writes_its_part(saved: Path) -> None:
    names = {path.name for path in (saved / "checkpoint-1").iterdir()}
    parts = {f"shard-0000{number}-of-00002.safetensors" for number in (1, 2)}
    assert names == {"manifest.json", "state.json", "state.safetensors", *parts}
    first, second = (load_file(saved / "checkpoint-1" / part) for part in sorted(parts))
    name = "/state/model/token_embedding.weight"
    assert first[name].shape == second[name].shape == (160, 32)
    assert torch.equal(torch.cat([first[name], second[name]]), load_file(saved / "wanted.safetensors")[name[13:]])


def test_a_part_that_is_missing_makes_a_checkpoint_torn(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", str(saved), str(copy)], check=True)
    assert checkpoint.newest_step(copy) == (2, [])
    next((copy / "checkpoint-2").glob("shard-00002-*")).unlink()
    assert checkpoint.newest_step(copy) == (1, ["checkpoint-2"])


def test_a_disk_that_is_full_under_one_process_is_an_error_of_all(saved: Path) -> None:
    texts = [(saved / f"refused-{number}.txt").read_text("utf-8") for number in (0, 1)]
    assert texts[0] == texts[1] and "checkpoint-3: cannot be written (No space left on device); earlier" in texts[0]
    assert sorted(checkpoint.steps(saved)) == [1, 2] and not list(saved.glob(".*"))


def test_a_model_is_saved_a_tensor_at_a_time(saved: Path, make_decoder: Callable[..., Decoder], tmp_path: Path) -> None:
    model, decoder = saved / "model", make_decoder(0)
    decoder.load_state_dict(load_file(saved / "wanted.safetensors"))
    pretrained.save(tmp_path, decoder, dtype=torch.bfloat16, max_shard_bytes=20_000)
    files = sorted(path.name for path in tmp_path.glob("model*"))
    assert len(files) > 3 and files[-1] == "model.safetensors.index.json"
    assert files == sorted(path.name for path in model.glob("model*"))
    assert all((model / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)
    probe = reference_logits.read(model)
    assert probe is not None
    again = reference_logits.replay(probe, pretrained.load_decoder(model))
    assert torch.equal(again.values, probe.values)


@pytest.mark.slow
def test_transformers_reads_a_model_that_was_saved_in_parts(saved: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved / "model", torch_dtype=torch.float32).eval()
    ids = torch.arange(5, 12)
    ours = pretrained.load_decoder(saved / "model")
    from amenable.models.layout import Layout

    logits = ours.padded_logits(ours(ids, Layout.of((7,), torch.device("cpu"))))
    assert torch.allclose(theirs(ids[None]).logits[0], logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "later"), [(4, 2), (3, 2), (2, 3)])
def test_another_number_of_processes_reads_its_parts(
    make_decoder: Callable[..., Decoder], tmp_path: Path, count: int, later: int
) -> None:
    folders = [tmp_path / name for name in ("saved", "read")]
    for folder in folders:
        folder.mkdir()
    together(count, str(folders[0]), shape_of(make_decoder()))
    together(later, str(folders[1]), shape_of(make_decoder()), str(folders[0]))
    wanted, read = load_file(folders[0] / "wanted.safetensors"), load_file(folders[1] / "read.safetensors")
    assert all(torch.equal(read[name], wanted[name]) for name in wanted)
    decoder = make_decoder(3)
    holders = resumed(folders[0], decoder, 1)
    best, moments = (load_file(folders[1] / f"{name}.safetensors") for name in ("best", "moments"))
    assert all(torch.equal(best[name], value) for name, value in holders["best"].weights.items())
    ours = holders["optimizer"].state_dict()["0"]["state"]
    assert all(torch.equal(moments[f"{n}/{k}"], v) for n, own in ours.items() for k, v in own.items())


def test_whole_files_are_read_too(tmp_path: Path) -> None:
    save_file({"a": torch.arange(6.0).view(3, 2)}, tmp_path / "a.safetensors")
    tensor = ShardedFiles(tmp_path).tensors()["a"]
    assert tensor.shape == (3, 2)
    assert tensor.read_like(torch.zeros(3, 2)).tolist() == [[0, 1], [2, 3], [4, 5]]
