"""vLLM servers: what is compared before anything is loaded, weights by a folder, completions as ours samples them."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.functional.logprobs import token_logprobs
from amenable.generation.requests import Completion, make_requests
from amenable.generation.sampler import generate_by
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_server import VllmServers
from amenable.generation.vllm_worker import WORKER
from amenable.http_client import require_listener
from amenable.models import lora, pretrained
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from tests.conftest import RequestByRequest

SAMPLING = Sampling(temperature=0.7, max_new_tokens=10)


@pytest.fixture
def policy(assistant: Path) -> Decoder:
    """The assistant, with a change that a trainer might make."""
    decoder = pretrained.load_decoder(assistant).eval()
    with torch.no_grad():
        decoder.token_embedding.weight[:40] *= 1.5
    return decoder


@pytest.fixture
def servers(vllm_api: Any, words: Tokenizer, policy: Decoder, tmp_path: Path) -> VllmServers:
    connected = VllmServers([f"{vllm_api.url}/v1/"], tmp_path / "weights")
    connected.connect(words)
    return connected


def prompts_of(words: Tokenizer) -> list[list[int]]:
    return [[*words.opening_ids, *words.encode(text)] for text in ("The rose is", "A", "Ann asks: name a thing")]


def sampled(sampler: Any, words: Tokenizer) -> list[list[Completion]]:
    """Two completions of each prompt, from seeds 4, 5 and 6."""
    return generate_by(
        sampler, prompts_of(words), SAMPLING, eos_id=words.stop_ids, seeds=[4, 5, 6], samples=2, context_length=64
    )


def test_completions_are_those_of_the_weights_that_were_loaded_last(
    servers: VllmServers, vllm_api: Any, words: Tokenizer, policy: Decoder
) -> None:
    before = sampled(servers, words)
    servers.load(policy)
    assert sampled(servers, words) == sampled(RequestByRequest(policy), words) != before
    (path, body), (second, _) = vllm_api.commands
    assert (path, second) == ("/collective_rpc", "/reset_prefix_cache") and body["method"] == "load_policy"


def test_weights_wait_in_a_folder_of_which_the_last_is_kept(
    servers: VllmServers, policy: Decoder, tmp_path: Path
) -> None:
    for _ in range(2):
        servers.load(policy)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["2"]


def test_adapters_are_handed_over_as_adapters(
    servers: VllmServers,
    vllm_api: Any,
    words: Tokenizer,
    assistant: Path,
    tmp_path: Path,
) -> None:
    policy = pretrained.load_decoder(assistant).eval()
    before = sampled(servers, words)
    lora.add_adapters(policy, LoraOptions(rank=2), 0, str(assistant))
    with torch.no_grad():
        for layer in lora.adapters(policy).values():
            for b in layer.b:
                b.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    servers.load(policy)
    ((path, body), _) = vllm_api.commands
    assert path == "/v1/load_lora_adapter" and body["load_inplace"]
    assert not list((tmp_path / "weights").rglob("model.safetensors"))
    after = sampled(servers, words)
    assert [[each.ids for each in group] for group in after] == [
        [each.ids for each in group] for group in sampled(RequestByRequest(policy), words)
    ]
    assert after != before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"settings": {"logprobs_mode": "raw_logprobs", "dtype": "torch.float32"}},
            "gives log-probabilities before temperature .*VLLM_SERVER",
        ),
        (
            {"settings": {"logprobs_mode": "processed_logprobs", "dtype": "torch.bfloat16"}},
            "computes in bfloat16, and this run in float32; start it with --dtype float32",
        ),
        ({"worker": ""}, "cannot load a policy; .*PolicyWorker"),
        ({"settings": None}, "does not say what it computes in; .*DEV_MODE=1"),
        ({"words": None}, "has another tokenizer than the policy"),
    ],
)
def test_a_server_that_does_not_fit_is_refused_before_anything_is_loaded(
    change: dict[str, Any], problem: str, vllm_api: Any, words: Tokenizer, tmp_path: Path
) -> None:
    for name, value in change.items():
        setattr(vllm_api, name, Tokenizer.train(["other words than theirs"], 280) if name == "words" else value)
    servers = VllmServers([vllm_api.url], tmp_path / "weights")
    with pytest.raises(InputError, match=f"^{vllm_api.url}: {problem}"):
        servers.connect(words)
    assert not vllm_api.commands and not (tmp_path / "weights").exists()


def test_a_server_with_another_model_is_refused(
    servers: VllmServers, vllm_api: Any, words: Tokenizer, make_decoder: Callable[..., Decoder]
) -> None:
    other = make_decoder(seed=3, vocab_size=words.vocab_size, num_layers=1)
    with pytest.raises(
        InputError, match=r"cannot take the policy's weights .*answered 500.*serve the model that --model"
    ):
        servers.load(other)
    ids = prompts_of(words)[0]
    vllm_api.decoder = make_decoder(seed=3, vocab_size=words.vocab_size)
    with pytest.raises(InputError, match="log-probabilities of a text differ from the policy's by"):
        servers.require_weights(ids, [-1.0] * (len(ids) - 1))


def test_the_weights_of_a_server_are_known_by_its_log_probabilities(
    servers: VllmServers, vllm_api: Any, words: Tokenizer, policy: Decoder
) -> None:
    servers.load(policy)
    ids = prompts_of(words)[0]
    steps = vllm_api.complete({"model": "base", "prompt": ids, "max_tokens": 1, "return_token_ids": True})
    logps = [next(iter(step.values()))["logprob"] for step in steps["prompt_logprobs"][1:]]
    servers.require_weights(ids, logps)
    with pytest.raises(InputError, match=r"by 0\.5 nats a token"):
        servers.require_weights(ids, [logp - 0.5 for logp in logps])


def test_requests_are_shared_among_servers_and_counted(servers: VllmServers, words: Tokenizer, vllm_api: Any) -> None:
    """A second address of the same server, by its other name."""
    other, urls, counts = vllm_api.url.replace("127.0.0.1", "localhost"), list[str](), list[int]()
    servers.urls = [vllm_api.url, other]
    servers.connect(words)
    post = servers.post

    def counting(url: str, path: str, *rest: Any) -> Any:
        urls.append(url)
        return post(url, path, *rest)

    servers.post = counting  # type: ignore[method-assign]
    requests = make_requests(prompts_of(words), SAMPLING, [4, 5, 6], 2, 64)
    servers.complete(requests, SAMPLING, words.stop_ids, lambda done, total: counts.append(done))
    assert sorted(urls) == sorted([vllm_api.url, other] * 3) and counts == [1, 2, 3, 4, 5, 6]


def test_a_server_that_ends_or_answers_something_else_is_named(
    servers: VllmServers, vllm_api: Any, words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm_api.fails = True
    with pytest.raises(InputError, match=r"answered 500.*\(4 tries\)"):
        sampled(servers, words)
    vllm_api.fails = False
    monkeypatch.setattr(vllm_api, "complete", lambda body: {"text": "a text alone"})
    with pytest.raises(InputError, match=r"a text alone.*without token_ids"):
        sampled(servers, words)


def test_nothing_at_the_address_is_said_at_once(words: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be reached"):
        VllmServers(["http://127.0.0.1:9"], tmp_path).connect(words)
    assert not list(tmp_path.iterdir())


def test_a_row_that_a_server_does_not_take_is_refused(servers: VllmServers) -> None:
    servers.require_length(64)
    with pytest.raises(InputError, match=r"takes 64 tokens, and a prompt with its answer may have 65; .*-len 65"):
        servers.require_length(65)


@pytest.fixture(scope="module")
def served(
    words: Tokenizer, make_decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """A model's folder, and the address of a server of vLLM's own that has it."""
    pytest.importorskip("vllm")
    folder, port = tmp_path_factory.mktemp("served") / "model", free_port()
    save_model(folder, make_decoder(seed=1, vocab_size=words.vocab_size, hidden_size=128, num_heads=2), words)
    switches = f"--dtype float32 --enforce-eager --logprobs-mode processed_logprobs --worker-extension-cls {WORKER}"
    switches += " --enable-lora --max-lora-rank 8"
    environment = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    address = ["--host", "127.0.0.1", "--port", str(port)]
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        *address,
        *switches.split(),
    ]
    with (folder.parent / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
        try:
            for _ in range(900):
                time.sleep(1)
                assert server.poll() is None, (folder.parent / "log").read_text()[-2000:]
                with contextlib.suppress(InputError):
                    require_listener(f"http://127.0.0.1:{port}")
                    break
            yield folder, f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 4])
def test_a_server_of_vllm_gives_the_trainers_log_probabilities(
    rank: int, served: tuple[Path, str], words: Tokenizer, tmp_path: Path
) -> None:
    """Log-probabilities after loads of weights, then of adapters on the first; equal seeds give equal completions."""
    folder, url = served
    servers = VllmServers([url], tmp_path / "weights", pauses=())
    servers.connect(words)
    policy, generator = pretrained.load_decoder(folder).eval(), torch.Generator().manual_seed(rank)
    if rank:
        servers.load(policy)
        lora.add_adapters(policy, LoraOptions(rank=rank), 0, str(folder))
    earlier: Any = None
    for _ in range(2):
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    parameter += torch.empty_like(parameter).normal_(0, 0.05, generator=generator)
        servers.load(policy)
        ids = prompts_of(words)[2]
        servers.require_weights(ids, logps_of(policy, ids, 1.0)[0 : len(ids) - 1])
        groups = sampled(servers, words)
        assert [[each.ids for each in group] for group in sampled(servers, words)] == [
            [each.ids for each in group] for group in groups
        ]
        assert groups != earlier
        for prompt, group in zip(prompts_of(words), groups):
            assert group[0].ids != group[1].ids
            for done in group:
                trainers = logps_of(policy, [*prompt, *done.ids], 0.7)[len(prompt) - 1 :]
                assert done.logps == pytest.approx(trainers, abs=2e-3)
        earlier = groups


def logps_of(policy: Decoder, ids: list[int], temperature: float) -> list[float]:
    """Log-probabilities of all ids but the first."""
    row = torch.tensor(ids)
    with torch.no_grad():
        logits = policy.logits(policy(row, Layout.of([len(ids)])))
    return token_logprobs(logits[:-1], row[1:], temperature).tolist()
