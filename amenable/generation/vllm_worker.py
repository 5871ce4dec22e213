"""Method that vLLM's workers have for rollouts: load_policy, which takes a policy's weights while they serve.

    vllm serve runs/sft --worker-extension-cls amenable.generation.vllm_worker.PolicyWorker

On a processor vLLM multiplies by packed copies of its matrices. Its own reload_weights packs all of them anew but an
unembedding that is the embedding, which has no tensor of its own among the weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WORKER = "amenable.generation.vllm_worker.PolicyWorker"
"""name of the extension, as vLLM's options take it"""


class PolicyWorker:
    """Extension of vLLM's worker classes."""

    def load_policy(
        self, weights_iterator: Iterable[tuple[str, Any]] | None = None, weights_path: str | None = None
    ) -> None:
        """Load all weights from memory, as (published name, tensor), or from a folder."""
        worker: Any = self
        worker.reload_weights(weights_iterator=weights_iterator, weights_path=weights_path)
        pack_unembedding(worker.model_runner.get_model())


def pack_unembedding(model: Any) -> None:
    """Have vLLM pack the unembedding of a model anew, where it is packed."""
    head: Any = getattr(model, "lm_head", None)
    if hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)
