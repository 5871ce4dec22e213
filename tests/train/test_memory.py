"""The arithmetic of memory: by hand, against what torch keeps, and against what a process really used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from amenable.data.batches import collate, targets
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.models.presets import preset
from amenable.train import memory
from amenable.train.forward import Row
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.runtime import Runtime
from benchmarks import scaling, speed

PLAIN = DecoderConfig(100, context_length=64, num_layers=2, hidden_size=32, num_heads=2)
MODERN = replace(preset("nano", 100), context_length=64, num_layers=2, hidden_size=48, num_heads=3)
FP32 = Runtime(torch.device("cpu"), bf16=False, threads=1)
BF16 = replace(FP32, bf16=True)


def whole(*lengths: int) -> list[Row]:
    return [([7] * length, [False] + [True] * (length - 1)) for length in lengths]


def answers(*lengths: int) -> list[Row]:
    """Rows of which the second half is trained."""
    return [([7] * length, [place >= length // 2 for place in range(length)]) for length in lengths]


def kept_by_torch(shape: DecoderConfig, rows: list[Row], runtime: Runtime) -> int:
    """Bytes that a forward pass keeps for the backward pass, the weights themselves left out."""
    decoder = Decoder(shape).train()
    own = {p.untyped_storage().data_ptr() for p in decoder.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    batch = collate(rows)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), runtime.autocast():
        hidden = decoder(batch.ids, Layout.of(batch.lengths), at=targets(batch)[0])
    return sum(storage.nbytes() for storage in kept.values()) + hidden.nbytes


@pytest.mark.parametrize("runtime", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "rows", [whole(64, 64, 64), whole(64, 30, 45, 51), answers(64, 30, 45, 51)], ids=["even", "ragged", "answers"]
)
@pytest.mark.parametrize(
    "shape",
    [
        PLAIN,
        MODERN,
        replace(PLAIN, dropout=0.1),
        replace(PLAIN, positions="rope", activation="relu"),
        replace(MODERN, num_kv_heads=1, qk_norm=False),
        replace(PLAIN, qk_norm=True),
    ],
    ids=["plain", "modern", "dropout", "rope", "grouped", "normed"],
)
def test_what_is_kept_for_the_backward_pass_is_what_torch_keeps(
    shape: DecoderConfig, rows: list[Row], runtime: Runtime
) -> None:
    model = memory.model_of(Decoder(shape), OptimizerConfig())
    expected = kept_by_torch(shape, rows, runtime)
    assert memory.kept(model, memory.pass_of(rows), runtime) == pytest.approx(expected, rel=0.08)


def test_a_layer_by_hand() -> None:
    """Width 32, two heads of 16, MLP of 128, rows of one length, numbers of 4 bytes. Two norms keep what they read and
    give, 4 x 32; queries, keys, values and their result 4 x 32; before and after gelu 2 x 128; a sum for each head.
    """
    assert memory.layer_keeps(PLAIN, FP32, even=True) == (4 * (4 * 32 + 3 * 32 + 2 * 128), 4 * (32 + 2))


def test_weights_and_moments() -> None:
    """AdamW keeps two numbers of each parameter, Muon one; a model that is only read, and frozen layers, none."""
    decoder = Decoder(PLAIN)
    count = sum(p.numel() for p in decoder.parameters())
    matrices = 2 * 12 * 32 * 32
    adam = memory.model_of(decoder, OptimizerConfig())
    assert (adam.parameters, adam.matrices, adam.training, adam.moments) == (count, matrices, count, 2 * count)
    muon = memory.model_of(decoder, OptimizerConfig(muon_learning_rate=0.02))
    assert muon.moments == 2 * count - matrices
    judge = memory.model_of(ScalarModel(decoder))
    assert (judge.parameters, judge.training, judge.moments, judge.predicts) == (count + 33, 0, 0, False)
    decoder.layers[0].requires_grad_(False)
    assert memory.model_of(decoder, OptimizerConfig()).training == count - 12 * 32 * 32 - 13 * 32


def test_moments_are_those_that_the_optimizer_makes() -> None:
    decoder, config = Decoder(PLAIN), OptimizerConfig(1e-3, muon_learning_rate=0.02)
    optimizer = stepped(decoder, config)
    state = [part.state_dict()["state"] for part in optimizer.parts]
    numbers = sum(t.numel() for part in state for one in part.values() for t in one.values() if t.ndim)
    assert memory.model_of(decoder, config).moments == numbers


def stepped(decoder: Decoder, config: OptimizerConfig) -> Optimizer:
    """An optimizer that has taken one step."""
    optimizer = Optimizer([decoder], config)
    for parameter in decoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_the_heaviest_pass_of_the_heaviest_step() -> None:
    """Steps of 8, 30 and 20 tokens; 30 are passes of 14 and 16, for at most 20 tokens at once."""
    rows = [[row] for row in whole(3, 5, 4, 10, 16, 20)]
    steps = [[0, 1], [2, 3, 4], [5]]
    works = memory.heaviest(rows, steps, limit=20)
    assert [(work.tokens, work.trained, work.further) for work in works] == [(20, 19, False), (16, 15, True)]
    assert [(work.tokens, work.further) for work in memory.heaviest(rows, steps, limit=100)] == [(30, False)]


def test_a_shared_context_is_computed_once_and_attended_by_each() -> None:
    prompt = list(range(10, 30))
    pair = [(prompt + [answer] * 4, [False] * 20 + [True] * 4) for answer in (1, 2)]
    (work,) = memory.heaviest([pair], [[0]], limit=100, share=True)
    assert (work.tokens, work.slots, work.trained) == (28, 48, 8)
    assert memory.heaviest([pair], [[0]], limit=100)[0].tokens == 48


def test_gradients_are_there_from_the_second_pass_on() -> None:
    model = memory.model_of(Decoder(PLAIN), OptimizerConfig())
    work = memory.pass_of(whole(*[64] * 50))
    more = memory.learning([model], replace(work, further=True), FP32) - memory.learning([model], work, FP32)
    assert more == 4 * model.parameters


def test_bf16_products_take_less_and_longer_rows_more() -> None:
    model = memory.model_of(Decoder(PLAIN), OptimizerConfig())
    short, long = memory.pass_of(whole(*[32] * 50)), memory.pass_of(whole(*[64] * 50))
    assert memory.learning([model], short, BF16) < memory.learning([model], short, FP32)
    assert memory.learning([model], short, FP32) < memory.learning([model], long, FP32)
    assert memory.reading(model, long, FP32) < memory.learning([model], long, FP32)


def test_kernels_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many for each pass, up to a limit that can be set; fp32 has none."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        monkeypatch.delenv(name, raising=False)
    assert memory.kernels(1, BF16) == memory.KERNEL * memory.KERNELS_OF_A_PASS
    assert memory.kernels(10**6, BF16) == 2 * memory.KERNEL * memory.KERNELS
    assert memory.kernels(10**6, FP32) == 0
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "32")
    assert memory.kernels(10**6, BF16) == memory.KERNEL * 96


def test_told() -> None:
    assert memory.told(300 << 20, FP32) == "about 300 MiB; cpu, fp32, 1 thread"
    assert memory.told(3 << 29, FP32).startswith("about 1.5 GiB; ")
    rows = [[row] for row in whole(30, 70, 30)]
    fitting, over = (memory.heaviest(rows, [[0, 1, 2]], limit) for limit in (70, 60))
    assert "passes of" not in memory.told(1, FP32, fitting)
    assert memory.told(1, FP32, over).endswith("; passes of up to 70 tokens, as the longest row has, not 60")


def test_what_a_process_used_is_near_what_was_said() -> None:
    """A model of 5M parameters in a process of its own, two steps and a checkpoint; and answers to prompts after one
    system prompt, where the model is of a published family."""
    cases = {
        scaling.Case("pretrain", "5M", "fp32", rows=4, steps=2): 0.35,
        scaling.Case("reward", "12M Llama", "bf16", rows=4, steps=4, system=64): 0.15,
    }
    for case, within in cases.items():
        found = speed.alone(scaling.use, case, 1)
        assert found is not None
        predicted, used = found
        assert predicted == pytest.approx(used, rel=within)
