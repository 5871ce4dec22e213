"""The peer's side of the rows "vllm-…" in benchmarks/peers.py: vLLM's generate on a processor.

Run by the interpreter of an environment of its own, as benchmarks/peer_trl.py is of another:

    .venv-peers-vllm/bin/python benchmarks/peer_vllm.py work.json

The engine runs in this process, keeps no text and shares no prefixes: prompts of mixed lengths, sampling, no EOS.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

CACHE_GIB = 2
"""what its cache may take: more than any row needs"""


def main() -> None:
    """Read the work, build the engine, make steps until the input ends."""
    work = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(CACHE_GIB)
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{work['threads'] - 1}"
    os.environ["OMP_NUM_THREADS"] = str(work["threads"])
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    import torch
    from peer_steps import peak_bytes, report_step, shape, wait
    from transformers import GPT2LMHeadModel
    from vllm import LLM, SamplingParams

    before = peak_bytes()
    kind = torch.bfloat16 if work["bf16"] else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(shape(work, 0.0)).to(kind).save_pretrained(folder)
        engine = LLM(
            model=folder,
            skip_tokenizer_init=True,
            dtype=str(kind).removeprefix("torch."),
            max_model_len=work["shape"]["context_length"],
            max_num_seqs=len(work["rows"]),
            enable_prefix_caching=False,
        )
    prompts: list[Any] = [{"prompt_token_ids": row["prompt"]} for row in work["rows"]]
    sampling = SamplingParams(max_tokens=work["new_tokens"], ignore_eos=True, temperature=1.0, detokenize=False)
    while True:
        wait()
        begun = perf_counter()
        answers = engine.generate(prompts, sampling, use_tqdm=False)
        seconds = perf_counter() - begun
        assert all(len(answer.outputs[0].token_ids) == work["new_tokens"] for answer in answers)
        report_step(seconds, before)


if __name__ == "__main__":
    main()
