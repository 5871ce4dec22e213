"""The method that takes a policy's weights: of vLLM's reload, and of the unembedding that it leaves as it was."""

import importlib
from types import SimpleNamespace
from typing import Any

from amenable.generation.vllm_worker import WORKER, PolicyWorker


class Worker(PolicyWorker):
    """vLLM's worker on a processor, of a model whose unembedding is a packed copy of its embedding."""

    def __init__(self, packs: bool) -> None:
        self.weight, self.packed = 1.0, 1.0
        head = SimpleNamespace(quant_method=SimpleNamespace(process_weights_after_loading=self.pack))
        if packs:
            head.cpu_linear = None
        self.model_runner = SimpleNamespace(get_model=lambda: SimpleNamespace(lm_head=head))

    def pack(self, head: Any) -> None:
        self.packed = self.weight

    def reload_weights(self, weights_iterator: Any, weights_path: str | None) -> None:
        self.weight = dict(weights_iterator)["embed"] if weights_iterator else 3.0


def test_the_unembedding_is_packed_after_the_weights_are_there() -> None:
    worker = Worker(packs=True)
    worker.load_policy(weights_iterator=iter([("embed", 2.0)]))
    assert (worker.weight, worker.packed) == (2.0, 2.0)
    worker.load_policy(weights_path="a folder")
    assert (worker.weight, worker.packed) == (3.0, 3.0)


def test_where_nothing_is_packed_nothing_is_done() -> None:
    worker = Worker(packs=False)
    worker.load_policy(weights_path="a folder")
    assert (worker.weight, worker.packed) == (3.0, 1.0)


def test_vllm_finds_the_extension_by_its_name() -> None:
    module, _, name = WORKER.rpartition(".")
    assert getattr(importlib.import_module(module), name) is PolicyWorker
