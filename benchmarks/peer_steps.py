"""Parts that every peer's side of benchmarks/peers.py shares: steps on request, peak memory, the shape."""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

from transformers import GPT2Config


def wait() -> None:
    """Print `ready` and wait for `go`; end the process at the end of stdin."""
    print("ready", flush=True)
    if sys.stdin.readline().strip() != "go":
        sys.stdout.flush()
        raise SystemExit


def report_step(seconds: float, before: int) -> None:
    """Print the seconds of a step, and the peak memory beyond `before`."""
    print(json.dumps({"seconds": seconds, "peak": peak_bytes() - before}), flush=True)


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def shape(work: dict[str, Any], dropout: float, **others: Any) -> GPT2Config:
    """Return the shape as transformers names it."""
    shape = work["shape"]
    return GPT2Config(
        vocab_size=shape["vocab_size"],
        n_positions=shape["context_length"],
        n_embd=shape["hidden_size"],
        n_layer=shape["num_layers"],
        n_head=shape["num_heads"],
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=0.0,  # as ours: with dropout inside it, the peer's attention would be slower still
        bos_token_id=work["eos"],
        eos_token_id=work["eos"],
        use_cache=work["row"] == "decode",
        **others,
    )
