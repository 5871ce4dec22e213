"""Options of the engine that samples answers, the same for every command that lets vLLM do it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from amenable.errors import InputError
from amenable.generation.addresses import read_addresses
from amenable.generation.sampler import Sampler
from amenable.generation.vllm_engine import MAX_ROWS, VllmEngine, require_vllm
from amenable.generation.vllm_server import VllmServers
from amenable.http_client import require_listener
from amenable.model_folder import base_folder
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer

FOLDER = "sampler"
"""in a run's folder: weights on their way to servers"""


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Options of commands whose answers our engine or vLLM samples."""

    sampler: Literal["amenable", "vllm"] = "amenable"
    """engine that samples the answers: ours, or vLLM's, in this process or, with sampler_url, as servers"""
    sampler_url: tuple[str, ...] = ()
    """addresses of vLLM servers of the model, which read the run's folder: http://127.0.0.1:8100; or a file of them,
    which is read again where a server is lost"""

    def require_engine(self) -> None:
        """Raise InputError, before anything is loaded, where vLLM is chosen and not installed, or not at an address,
        and for addresses without it."""
        if self.sampler_url and self.sampler != "vllm":
            raise InputError(f"sampler_url is {' '.join(self.sampler_url)}", how="add --sampler vllm")
        if self.sampler == "vllm" and not self.sampler_url:
            require_vllm()
        for url in read_addresses(self.sampler_url):
            require_listener(url)

    def open_vllm(
        self,
        model: Path,
        policy: Decoder,
        tokenizer: Tokenizer,
        dtype: torch.dtype,
        out: Path,
        lora_rank: int = 0,
        rows: int = MAX_ROWS,
    ) -> Sampler:
        """Return vLLM for a decoder that was loaded from the folder `model`, without its weights.

        out: the run's folder. lora_rank: of adapters that are handed over in place of the weights. rows: decoded at
        once by an engine in this process. InputError where vLLM does not take the model, or a server does not fit.
        """
        if self.sampler_url:
            servers = VllmServers(self.sampler_url, out / FOLDER, dtype)
            servers.connect(tokenizer)
            return servers
        return VllmEngine(base_folder(model), policy, dtype, lora_rank, rows)
