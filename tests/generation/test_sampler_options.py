"""Options of the engine that samples: what is refused before anything is loaded, and what is opened."""

from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.generation import vllm_engine
from amenable.generation.sampler_options import FOLDER, SamplerOptions
from amenable.generation.vllm_server import VllmServers
from amenable.models import pretrained
from amenable.text.tokenizer import Tokenizer


def test_our_engine_needs_nothing() -> None:
    SamplerOptions().require_engine()


def test_an_address_without_vllm_is_refused() -> None:
    with pytest.raises(InputError, match=r"sampler_url is http://127\.0\.0\.1:9; add --sampler vllm"):
        SamplerOptions(sampler_url=("http://127.0.0.1:9",)).require_engine()


def test_vllm_has_to_be_installed_or_at_its_addresses(vllm_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs vLLM"):
        SamplerOptions(sampler="vllm").require_engine()
    SamplerOptions(sampler="vllm", sampler_url=(vllm_api.url,)).require_engine()
    with pytest.raises(InputError, match="cannot be reached"):
        SamplerOptions(sampler="vllm", sampler_url=(vllm_api.url, "http://127.0.0.1:9")).require_engine()


def test_servers_read_weights_in_the_runs_folder(
    vllm_api: Any, assistant: Path, words: Tokenizer, tmp_path: Path
) -> None:
    options = SamplerOptions(sampler="vllm", sampler_url=(vllm_api.url,))
    policy = pretrained.load_decoder(assistant).eval()
    servers = options.open_vllm(assistant, policy, words, torch.float32, tmp_path)
    assert isinstance(servers, VllmServers) and not list(tmp_path.iterdir())
    servers.load(policy)
    assert (tmp_path / FOLDER).is_dir()
