"""vLLM in this process: its calls on an engine of ours with its names, and, where it is installed, on its own."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.functional.logprobs import token_logprobs
from amenable.generation import vllm_engine
from amenable.generation.requests import SampleRequest
from amenable.generation.sampler import generate_by
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_engine import VllmEngine, require_vllm
from amenable.generation.vllm_worker import WORKER
from amenable.models import lora, pretrained
from amenable.models.decoder import Decoder
from amenable.models.hf_config import model_type_of
from amenable.models.hf_weights import parameter_map
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions
from amenable.text.tokenizer import Tokenizer
from tests.conftest import RequestByRequest

SAMPLING = Sampling(temperature=0.7, max_new_tokens=10)


class Engine:
    """`vllm.LLM` by a decoder of ours: the calls that rollouts make, with vLLM's names and defaults."""

    def __init__(self, model: str, load_format: str = "auto", **options: Any):
        self.decoder = pretrained.load_decoder(model).eval()
        assert options["logprobs_mode"] == "processed_logprobs" and options["dtype"] == "float32"
        assert options["max_model_len"] == self.decoder.config.context_length and options["skip_tokenizer_init"]
        self.options = options | {"load_format": load_format}
        if load_format == "dummy":
            with torch.no_grad():
                for parameter in self.decoder.parameters():
                    parameter.zero_()
        self.stale = False
        self.adapters: list[tuple[str, int, str]] = []

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> list[None]:
        assert method == "load_policy" and self.options["worker_extension_cls"] == WORKER
        tensors = dict(kwargs["weights_iterator"])
        decoder, state = self.decoder, {}
        for entry in parameter_map(decoder.config, model_type_of(decoder.config, decoder.origin)):
            parts = [tensors.pop(name).clone() for name in entry.theirs]
            state[entry.ours] = torch.cat(parts) if entry.sizes else parts[0].t() if entry.transposed else parts[0]
        assert not tensors
        decoder.load_state_dict(state)
        self.stale = True
        return [None]

    def reset_prefix_cache(self) -> None:
        self.stale = False

    def generate(self, prompts: Any, parameters: Any, use_tqdm: bool, lora_request: Any = None) -> list[Any]:
        assert not self.stale, "keys and values of other weights are in the cache"
        decoder = self.decoder
        if lora_request is not None:
            self.adapters.append(lora_request)
            decoder = pretrained.decoder_on(decoder, Path(lora_request[2]))
        return [self.complete(decoder, *each) for each in zip(prompts, parameters, strict=True)]

    def complete(self, decoder: Decoder, prompt: Any, settings: dict[str, Any]) -> Any:
        assert settings["ignore_eos"] and settings["logprobs"] == 0 and not settings["detokenize"]
        sampling = Sampling(settings["temperature"])
        request = SampleRequest(0, 0, prompt["prompt_token_ids"], settings["max_tokens"], settings["seed"])
        (done,) = RequestByRequest(decoder).complete([request], sampling, settings["stop_token_ids"])
        steps = [{token: SimpleNamespace(logprob=logp)} for token, logp in zip(done.ids, done.logps)]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(done.ids), logprobs=steps)])


@pytest.fixture
def engine_of_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package vllm, with an engine of ours in it."""
    package, request = ModuleType("vllm"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams = Engine, dict  # type: ignore[attr-defined]
    request.LoRARequest = lambda *fields: fields  # type: ignore[attr-defined]
    package.__spec__ = importlib.util.spec_from_loader("vllm", None)
    for module in (package, ModuleType("vllm.lora"), request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    yield


@pytest.fixture
def policy(assistant: Path) -> Decoder:
    """The assistant, with a change that a trainer might make."""
    decoder = pretrained.load_decoder(assistant).eval()
    with torch.no_grad():
        decoder.token_embedding.weight[:40] *= 1.5
    return decoder


def prompts_of(words: Tokenizer) -> list[list[int]]:
    return [[*words.opening_ids, *words.encode(text)] for text in ("The rose is", "A", "Ann asks: name a thing")]


def sampled(sampler: Any, words: Tokenizer) -> list[list[int]]:
    groups = generate_by(
        sampler, prompts_of(words), SAMPLING, eos_id=words.stop_ids, seeds=[4, 5, 6], samples=2, context_length=64
    )
    return [each.ids for group in groups for each in group]


def test_weights_come_from_memory(engine_of_ours: None, assistant: Path, policy: Decoder, words: Tokenizer) -> None:
    engine = VllmEngine(assistant, policy, torch.float32)
    assert engine.engine.options["load_format"] == "dummy"  # type: ignore[attr-defined]
    engine.load(policy)
    first = sampled(engine, words)
    assert first == sampled(RequestByRequest(policy), words)
    with torch.no_grad():
        policy.token_embedding.weight *= 1.3
    engine.load(policy)
    assert sampled(engine, words) == sampled(RequestByRequest(policy), words) != first


def test_adapters_are_a_lora_request_on_the_folders_weights(
    engine_of_ours: None, assistant: Path, words: Tokenizer
) -> None:
    policy = pretrained.load_decoder(assistant).eval()
    lora.add_adapters(policy, LoraOptions(rank=2), 0, str(assistant))
    generator = torch.Generator().manual_seed(1)
    engine = VllmEngine(assistant, policy, torch.float32, lora_rank=2)
    options = engine.engine.options  # type: ignore[attr-defined]
    assert (options["enable_lora"], options["max_lora_rank"], options["load_format"]) == (True, 8, "auto")
    before = sampled(RequestByRequest(policy), words)
    for number in (1, 2):
        with torch.no_grad():
            for layer in lora.adapters(policy).values():
                for b in layer.b:
                    b.normal_(0, 0.3, generator=generator)
        engine.load(policy)
        assert sampled(engine, words) == sampled(RequestByRequest(policy), words) != before
        assert engine.engine.adapters[-1][1] == number  # type: ignore[attr-defined]
    assert len(list(Path(engine.folder.name).iterdir())) == 1


def test_a_model_that_vllm_does_not_take_is_one_line(
    engine_of_ours: None, assistant: Path, policy: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: Any) -> None:
        raise ValueError("Model architectures ['Strange'] are not supported\nfor now")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", refuse)
    with pytest.raises(InputError, match=r"does not take this model .*not supported for now.*--sampler amenable"):
        VllmEngine(assistant, policy, torch.float32)


def test_without_vllm_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs vLLM; pip install 'amenable\[vllm\]'"):
        require_vllm()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 4])
def test_vllm_itself_gives_the_trainers_log_probabilities(
    rank: int, make_decoder: Callable[..., Decoder], tmp_path: Path
) -> None:
    """Log-probabilities after two loads of weights and of adapters; equal seeds give equal completions."""
    pytest.importorskip("vllm")
    policy = make_decoder(seed=1, hidden_size=128, num_heads=2)
    pretrained.save(tmp_path / "base", policy)
    policy = pretrained.load_decoder(tmp_path / "base").eval()
    lora.add_adapters(policy, LoraOptions(rank=rank), 0, str(tmp_path / "base"))
    engine, generator = VllmEngine(tmp_path / "base", policy, torch.float32, rank), torch.Generator().manual_seed(1)
    prompts, sampling = [[1, 5, 9], [1, 7], [1, 5, 9, 20, 33]], Sampling(temperature=0.7, max_new_tokens=20)
    earlier: Any = None
    for _ in range(2):
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    parameter += torch.empty_like(parameter).normal_(0, 0.05, generator=generator)
        engine.load(policy)
        groups = generate_by(engine, prompts, sampling, eos_id=[2], seeds=[4, 5, 6], samples=2, context_length=64)
        again = generate_by(engine, prompts, sampling, eos_id=[2], seeds=[4, 5, 6], samples=2, context_length=64)
        assert [[each.ids for each in group] for group in groups] == [[each.ids for each in group] for group in again]
        assert groups != earlier
        for prompt, group in zip(prompts, groups):
            assert group[0].ids != group[1].ids
            for done in group:
                ids = torch.tensor([*prompt, *done.ids])
                with torch.no_grad():
                    logits = policy.logits(policy(ids, Layout.of([len(ids)])))
                logps = token_logprobs(logits[:-1], ids[1:], 0.7)[len(prompt) - 1 :]
                assert torch.allclose(torch.tensor(done.logps), logps, atol=2e-3)
                assert done.ended == (done.ids[-1] == 2) and len(done.ids) <= 20
        earlier = groups
