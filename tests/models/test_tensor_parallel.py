"""Products divided among processes: each has its own heads, and everything is what it is in a whole decoder."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from amenable import launcher
from amenable.errors import InputError
from amenable.models import tensor_parallel
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.quantized_linear import QuantizedLinear
from amenable.models.tensor_parallel import by_matrix, by_process, require_divisible, share_of

GROUP = """
import json, sys
from pathlib import Path
import torch
from torch.distributed.tensor import DTensor
from amenable import processes
from amenable.models import sharding
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.layout import Layout
from amenable.processes import local_part
from amenable.ranks import end_at_once, is_first, rank
from amenable.train import checkpoint, members
from amenable.train.best import BestWeights
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.trained_weights import TrainedWeights

out, shapes, fsdp = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "fsdp"
processes.join(2)
copies = processes.size() // 2
with processes.data_parallel():
    assert (processes.size(), processes.number()) == (copies, rank() // 2)
    firsts = processes.summed_numbers({"number": float(rank())})["number"]
assert processes.gather(firsts) == [sum(range(0, 2 * copies, 2))] * 2 * copies


def holders(decoder):
    config = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, eps=1e-3, max_grad_norm=0.5, fsdp=fsdp)
    best, optimizer = BestWeights(decoder, "loss"), Optimizer([decoder], config)
    return {"model": TrainedWeights(decoder), "optimizer": optimizer, "best": best}


def loss_of(decoder, number):
    layout, ids = Layout.of((5, 3), torch.device("cpu")), torch.arange(8) + 8 * number
    states = decoder(ids, layout, at=torch.tensor([1, 3, 7]))
    return decoder.logprobs(states, ids[:3])[0].mean() / copies


def state(held):
    return {name: holder.state_dict() for name, holder in held.items()}


def numbers(held):
    decoder, optimizer = held["model"].module, held["optimizer"]
    moments = {p: optimizer.parts[0].state[p] for p in decoder.parameters()}
    tensors = {name: sharding.gathered(p).detach().clone() for name, p in decoder.named_parameters()}
    for name, p in decoder.named_parameters():
        tensors |= {f"{name}/{k}": sharding.gathered(moments[p][k], p).clone() for k in ("exp_avg", "exp_avg_sq")}
        if held["best"].weights:
            tensors[f"{name}/best"] = sharding.gathered(held["best"].weights[name], p).clone()
    return tensors


def difference(first, second):
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def clear(held):
    for parameter in held["model"].module.parameters():
        local_part(parameter).detach().zero_()
        for value in held["optimizer"].parts[0].state[parameter].values():
            local_part(value).zero_()
    for value in held["best"].weights.values():
        local_part(value).zero_()


facts = {}
for name, shape in shapes.items():
    with processes.alone():
        plain = holders(Decoder(DecoderConfig(**shape)))
    ours = holders(Decoder(DecoderConfig(**shape)))
    whole, divided = plain["model"].module, ours["model"].module
    norms = []
    for step in (0, 1):
        with processes.alone():
            sum(loss_of(whole, copies * step + i) for i in range(copies)).backward()
            wanted = plain["optimizer"].step()
        loss_of(divided, copies * step + members.data_rank()).backward()
        if step == 0:  # as a device that adds up in another order would have it
            local_part(divided.final_norm.weight.grad).mul_(1 + processes.MESH.get()["tensor"].get_local_rank())
        norms += [processes.gradient_norm(list(divided.parameters())) - wanted, ours["optimizer"].step() - wanted]
        for held in (plain, ours):
            held["best"].update({"loss": 1 - step}, step + 1)
    trained = numbers(ours)
    weights = {n: value for n, value in trained.items() if "/" not in n}
    linear = [p for p in divided.layers.parameters() if p.ndim == 2]
    full = sum(p.nbytes for p in linear)
    facts[name] = {
        "norms": max(map(abs, norms)),
        "weights": max(processes.gather(difference(trained, numbers(plain)))),
        "held": sum(local_part(p).untyped_storage().nbytes() for p in linear) / full,
        "inference": difference(dict(sharding.whole(divided).state_dict()), weights),
    }
    checkpoint.save(out / name / "divided", 1, {"state": state(ours)})
    processes.from_first(lambda: str(checkpoint.save(out / name / "plain", 1, {"state": state(plain)})))
    for source, wanted in (("divided", trained), ("plain", numbers(plain))):
        clear(ours)
        with processes.first_then_others():
            checkpoint.load(ours, checkpoint.read(out / name / source, 1)["state"], out)
        facts[name][source] = difference(numbers(ours), wanted)
    with processes.alone():
        clear(plain)
        checkpoint.load(plain, checkpoint.read(out / name / "divided", 1)["state"], out)
        facts[name]["one process"] = difference(numbers(plain), trained)
if is_first():
    (out / "facts.json").write_text(json.dumps(facts))
end_at_once(0)
"""
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"num_heads": 4},
    "llama": {
        **{
            "num_heads": 4,
            "num_kv_heads": 2,
            "positions": "rope",
            "norm": "rms",
            "activation": "swiglu",
            "bias": False,
        },
        **{"qk_norm": True, "tie_embeddings": False},
    },
    "neox": {"num_heads": 2, "interleave_qkv": True, "parallel_residual": True, "activation": "exact_gelu"},
}


def facts_of(folder: Path, count: int, kind: str) -> dict[str, dict[str, float]]:
    """Train decoders of some shapes in `count` processes, two of which hold one, and beside them whole ones; return
    differences."""
    size: dict[str, Any] = {"vocab_size": 96, "context_length": 16, "num_layers": 2, "hidden_size": 32}
    chosen = {name: shape for name, shape in SHAPES.items() if count > 2 or name != "neox"}
    shapes = json.dumps({name: asdict(DecoderConfig(**size, **shape)) for name, shape in chosen.items()})
    assert launcher.launch([sys.executable, "-c", GROUP, str(folder), shapes, kind], count) == 0
    facts: dict[str, dict[str, float]] = json.loads((folder / "facts.json").read_text("utf-8"))
    return facts


@pytest.mark.parametrize(
    ("count", "kind"),
    [
        (2, "tensor"),
        pytest.param(4, "tensor", marks=pytest.mark.slow),
        pytest.param(4, "fsdp", marks=pytest.mark.slow),
    ],
)
def test_divided_products_train_as_whole_ones(tmp_path: Path, count: int, kind: str) -> None:
    for name, facts in facts_of(tmp_path, count, kind).items():
        assert facts["weights"] < 2e-5 and facts["norms"] < 1e-5, name
        assert facts["held"] == pytest.approx(0.5 if kind == "tensor" else 0.25, abs=0.01), name
        exact = ("inference", "divided", "plain", "one process")
        assert [facts[each] for each in exact] == [0, 0, 0, 0], name


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 4))
def test_rows_are_ordered_by_process_and_back(sizes: list[int], count: int) -> None:
    rows = [size * count for size in sizes]
    whole = torch.arange(2 * sum(rows)).view(-1, 2)
    divided = by_process(whole, rows, count)
    first = divided.chunk(count)[0]
    assert torch.equal(first, torch.cat([matrix[: len(matrix) // count] for matrix in whole.split(rows)]))
    assert torch.equal(by_matrix(divided, rows, count), whole)


@pytest.mark.parametrize(
    ("changes", "count", "problem"),
    [
        ({"num_heads": 4}, 3, "4 heads cannot be divided among 3 processes"),
        ({"num_heads": 4, "num_kv_heads": 2}, 4, "4 heads, 2 of keys and values, cannot be divided among 4 processes"),
        ({"num_heads": 2, "mlp_width": 33}, 2, "an MLP of 33 numbers cannot be divided among 2 processes"),
        ({"num_heads": 2, "qk_norm": True, "qk_norm_over": "heads"}, 2, "a norm over all heads of a token"),
    ],
)
def test_what_does_not_divide_is_named(changes: dict[str, Any], count: int, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        require_divisible(DecoderConfig(96, hidden_size=32, **changes), count)


def test_one_process_divides_nothing(make_decoder: Callable[..., Decoder]) -> None:
    config = make_decoder().config
    require_divisible(DecoderConfig(96, qk_norm=True, qk_norm_over="heads"), 1)
    assert share_of(config, 1) is config and tensor_parallel.processes_of_products(make_decoder()) == 1


def test_a_share_of_a_decoder_has_its_heads_and_numbers() -> None:
    config = DecoderConfig(96, hidden_size=64, num_heads=8, num_kv_heads=4, activation="swiglu")
    share = share_of(config, 2)
    assert (share.num_heads, share.kv_head_count, share.head_size, share.hidden_size) == (4, 2, 8, 64)
    assert 2 * share.mlp_size == config.mlp_size


def test_other_layers_than_plain_ones_are_refused(make_decoder: Callable[..., Decoder]) -> None:
    decoder, mesh = make_decoder(), SimpleNamespace(size=lambda: 2)
    linear = decoder.get_submodule("layers.0.mlp.up")
    assert isinstance(linear, nn.Linear)
    decoder.set_submodule("layers.0.mlp.up", QuantizedLinear(linear, 8))
    with pytest.raises(InputError, match="divides plain weights"):
        tensor_parallel.divide_products(decoder, mesh)  # type: ignore[arg-type]
