"""vLLM servers: what is compared before anything is loaded, weights by a folder, completions as ours samples them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.generation.requests import Completion
from amenable.generation.sampler import generate_by
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_server import VllmServers
from amenable.models import lora, pretrained
from amenable.models.decoder import Decoder
from amenable.models.lora import LoraOptions
from amenable.text.tokenizer import Tokenizer
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
    assert (path, second) == ("/collective_rpc", "/reset_prefix_cache") and body["method"] == "reload_weights"


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
        ({"processed": False}, "gives log-probabilities before temperature and filters; start it with VLLM_SERVER"),
        ({"words": None}, "has another tokenizer than the policy"),
    ],
)
def test_a_server_that_does_not_fit_is_refused_before_anything_is_loaded(
    change: dict[str, Any], problem: str, vllm_api: Any, words: Tokenizer, tmp_path: Path
) -> None:
    for name, value in change.items():
        setattr(vllm_api, name, value or Tokenizer.train(["other words than theirs"], 280))
    if "processed" in change:
        vllm_api.processed = False
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


def test_requests_are_shared_among_servers(vllm_api: Any, words: Tokenizer, assistant: Path, tmp_path: Path) -> None:
    servers = VllmServers([vllm_api.url, f"{vllm_api.url}/v1"], tmp_path / "weights")
    servers.connect(words)
    assert len(sampled(servers, words)) == 3


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
