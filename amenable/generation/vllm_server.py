"""vLLM servers on this machine or others that read its files: token ids in and out, weights from a folder.

    POST /v1/completions        a request for each completion, with a seed of its own
    POST /collective_rpc        load_policy (vllm_worker.py) from the folder that the trainer has written (all weights)
    POST /v1/load_lora_adapter  the same of adapters

    VLLM_SERVER_DEV_MODE=1 vllm serve runs/sft --port 8100 --dtype bfloat16 --logprobs-mode processed_logprobs \\
        --worker-extension-cls amenable.generation.vllm_worker.PolicyWorker
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from amenable import processes
from amenable.errors import InputError
from amenable.generation.addresses import are_rewritten, is_lost, read_addresses, wait_for_others
from amenable.generation.engine import Progress
from amenable.generation.remote_model import api_headers
from amenable.generation.requests import Completion, SampleRequest
from amenable.generation.sampler import completion_of, vllm_parameters
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_worker import WORKER
from amenable.http_client import PAUSES, get, post, require_listener
from amenable.models import adapter_files, lora, pretrained
from amenable.models.decoder import Decoder
from amenable.ranks import is_first
from amenable.text.tokenizer import Tokenizer

ADAPTER = "policy"
"""name of the adapters at a server"""
PROBE = "An answer, 12 or 3 words long; naïve? Yes: \n\tдa 好."
"""text whose ids are compared between tokenizers"""
SERVE = "serve the model that --model names, where it can read the run's folder"
START = f"start it with VLLM_SERVER_DEV_MODE=1 and --logprobs-mode processed_logprobs --worker-extension-cls {WORKER}"
START_LORA = f"{START} --enable-lora, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
WORKERS = 64
"""requests at once at each server"""
SAMPLING_TIMEOUT = 600.0
"""seconds in which a completion has to come: a request waits for those before it"""
MAX_GAP = 0.1
"""nats a token between log-probabilities of one text by the policy and by a server that has its weights: above
what precisions make, below that of another model"""


@dataclass
class VllmServers:
    """Servers that sample completions, each a share of every batch. entries: their addresses, or files of these
    (addresses.py). folder: where weights are handed over, which the servers must be able to read. dtype: of the weights
    in it.

    A server that is lost is replaced by the new one of its file, which gets the weights that were loaded last.
    """

    entries: Sequence[str]
    folder: Path
    dtype: torch.dtype = torch.float32
    timeout: float = SAMPLING_TIMEOUT
    pauses: Sequence[float] = PAUSES
    models: dict[str, str] = field(default_factory=dict)
    """name of the model at each server"""
    lengths: dict[str, int] = field(default_factory=dict)
    """tokens of the longest row at each server, where it says so"""
    never: list[int] = field(default_factory=list)
    loads: int = 0
    adapted: bool = False
    """whether adapters were loaded last, not all weights"""
    tokenizer: Tokenizer | None = None
    replacing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.urls = read_addresses(self.entries)

    def connect(self, tokenizer: Tokenizer) -> None:
        """Require that each server is there, has this tokenizer, computes in this precision, and gives the
        log-probabilities of the distribution that it draws from. InputError in other cases, with nothing loaded."""
        self.tokenizer = tokenizer
        models = processes.from_first(lambda: {url: self.require_server(url, tokenizer) for url in self.urls})
        self.models = {url: str(model["id"]) for url, model in models.items()}
        self.lengths = {url: model["max_model_len"] for url, model in models.items() if model.get("max_model_len")}

    def require_length(self, tokens: int) -> None:
        """Require that each server takes rows of so many tokens. InputError for others."""
        for url, longest in self.lengths.items():
            if longest < tokens:
                hint = f"start it with --max-model-len {tokens}, or leave long prompts out"
                raise InputError(f"takes {longest} tokens, and a prompt with its answer may have {tokens}", url, hint)

    def require_server(self, url: str, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return what a server says of its model if the server is as `connect` requires."""
        require_listener(url)
        model = first_model(self.get(url, "/v1/models"), url)
        body = {"model": str(model["id"]), "prompt": PROBE, "add_special_tokens": False}
        if self.post(url, "/tokenize", body).get("tokens") != tokenizer.encode(PROBE):
            raise InputError("has another tokenizer than the policy", url, SERVE)
        try:
            config = dict(self.get(url, "/server_info?config_format=json")["vllm_config"])
            settings, extension = dict(config["model_config"]), config["parallel_config"]["worker_extension_cls"]
            mode, kind = settings["logprobs_mode"], settings["dtype"]
        except (InputError, KeyError, TypeError, ValueError):
            raise InputError("does not say what it computes in", url, START) from None
        if mode != "processed_logprobs":
            raise InputError("gives log-probabilities before temperature and filters", url, START)
        if extension != WORKER:
            raise InputError("cannot load a policy", url, START)
        if kind != str(self.dtype):
            theirs, ours = (str(each).removeprefix("torch.") for each in (kind, self.dtype))
            raise InputError(f"computes in {theirs}, and this run in {ours}", url, f"start it with --dtype {ours}")
        return {"id": str(model["id"]), "max_model_len": model.get("max_model_len")}

    def load(self, policy: Decoder) -> None:
        """Write the policy's weights, or its adapters, to the folder, and have every server read them."""
        self.never = list(range(policy.num_tokens, policy.config.vocab_size))
        self.loads += 1
        self.adapted = lora.has_adapters(policy)
        processes.from_first(lambda: self.hand_over(policy))
        if self.adapted:
            self.models = dict.fromkeys(self.urls, ADAPTER)

    @property
    def target(self) -> Path:
        """Folder of the weights, or adapters, that were loaded last."""
        return self.folder / str(self.loads)

    def hand_over(self, policy: Decoder) -> None:
        """Do what `load` does, in the first of several processes."""
        if self.adapted:
            adapter_files.save_adapters(self.target, policy)
        else:
            pretrained.save(self.target, policy, dtype=self.dtype)
        for url in list(self.urls):
            try:
                emptied = self.load_into(url)
            except InputError as error:
                self.replace(url, error)
                continue
            if not emptied:
                raise InputError("has keys and values of earlier weights in use", url, "let no others use this server")
        shutil.rmtree(self.folder / str(self.loads - 1), ignore_errors=True)

    def load_into(self, url: str) -> bool:
        """Have a server read the weights that wait in the folder; return True if no keys and values of others are left.
        InputError where it cannot."""
        path, body = request_to_load(self.target.resolve(), self.adapted)
        try:
            self.post(url, path, body, pauses=())
            return bool(self.post(url, "/reset_prefix_cache", {}, pauses=()).get("success", True))
        except InputError as error:
            problem = f"cannot take the policy's weights from {self.target} ({error.what})"
            raise InputError(problem, url, f"{SERVE}: {START_LORA if self.adapted else START}") from None

    def replace(self, lost: str, error: InputError) -> None:
        """Wait for the server that takes the place of a lost one, and load the weights into it. Raises `error`, that of
        a request, where the server still listens or no file of addresses can name another.

        Processes of a group each do so, and load the same weights: keys and values in use are of these.
        """
        with self.replacing:
            if lost not in self.urls:
                return
            if not are_rewritten(self.entries) or not is_lost(lost) or self.tokenizer is None:
                raise error
            urls = wait_for_others(self.entries, lost, self.timeout)
            for url in set(urls) - set(self.urls):
                name = self.require_server(url, self.tokenizer)["id"]
                self.load_into(url)
                self.models[url] = ADAPTER if self.adapted else name
            self.urls = urls

    def require_weights(self, ids: Sequence[int], logps: Sequence[float]) -> None:
        """Require that every server gives a text [N] the policy's log-probabilities [N - 1] of all ids but the first.
        InputError for a server with another model."""
        for url in self.urls:
            settings = {"prompt_logprobs": 0, "max_tokens": 1, "logprobs": 0}
            steps = self.choice(url, self.models[url], ids, settings).get("prompt_logprobs") or []
            theirs = [step[str(token)]["logprob"] for step, token in zip(steps[1:], ids[1:])]
            gap = sum(abs(a - b) for a, b in zip(theirs, logps, strict=True)) / len(logps)
            if not gap <= MAX_GAP:
                problem = f"its log-probabilities of a text differ from the policy's by {gap:.3g} nats a token"
                raise InputError(problem, url, SERVE)

    def complete(
        self,
        requests: Sequence[SampleRequest],
        sampling: Sampling,
        eos_ids: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Completion]:
        """Return the completion of each request, by the weights that were loaded last. InputError where a server does
        not answer."""
        pool = ThreadPoolExecutor(WORKERS * len(self.urls))

        def complete_one(number: int) -> Completion:
            request = requests[number]
            settings = vllm_parameters(request, sampling, eos_ids, self.never)
            while True:
                url = self.urls[number % len(self.urls)]
                try:
                    choice = self.choice(url, self.models[url], request.ids, settings)
                except InputError as error:
                    self.replace(url, error)
                    continue
                return completion_of(choice["token_ids"], choice["logprobs"]["token_logprobs"], eos_ids, url)

        try:
            completions: list[Completion] = []
            for completion in pool.map(complete_one, range(len(requests))):
                completions.append(completion)
                if progress is not None:
                    progress(len(completions), len(requests))
            return completions
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Remove the folder of weights."""
        if is_first():
            shutil.rmtree(self.folder, ignore_errors=True)

    def choice(self, url: str, model: str, ids: Sequence[int], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return a completion of ids by a server's model: its token_ids, and their log-probabilities. InputError for a
        reply without them."""
        body = {"model": model, "prompt": list(ids), "return_token_ids": True, **settings}
        reply = self.post(url, "/v1/completions", body)
        try:
            choice = dict(reply["choices"][0])
            choice["token_ids"][0], choice["logprobs"]["token_logprobs"][0]
        except (KeyError, IndexError, TypeError, ValueError):
            shown = json.dumps(reply)[:80]
            raise InputError(f"answered {shown}, without token_ids and their log-probabilities", url, START) from None
        return choice

    def post(
        self, url: str, path: str, body: Mapping[str, Any], pauses: Sequence[float] | None = None
    ) -> dict[str, Any]:
        """Return the JSON of a reply; {} of one without, such as that of a command."""
        data, pauses = json.dumps(body).encode(), self.pauses if pauses is None else pauses
        return json_of(post(f"{url}{path}", data, self.timeout, pauses, api_headers()))

    def get(self, url: str, path: str) -> dict[str, Any]:
        """Return the JSON of a reply to a GET."""
        return json_of(get(f"{url}{path}", self.timeout, self.pauses, api_headers()))


def json_of(reply: bytes) -> dict[str, Any]:
    """Return a JSON object; {} for anything else."""
    try:
        value = json.loads(reply)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def first_model(reply: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return the first model of a server's list. InputError for a reply without."""
    try:
        model = dict(reply["data"][0])
        model["id"]
    except (KeyError, IndexError, TypeError, ValueError):
        raise InputError("lists no model at /v1/models", url, START) from None
    return model


def request_to_load(folder: Path, adapted: bool) -> tuple[str, dict[str, Any]]:
    """Return path and body of the request that has a server read weights, or adapters, from a folder."""
    if adapted:
        return "/v1/load_lora_adapter", {"lora_name": ADAPTER, "lora_path": str(folder), "load_inplace": True}
    return "/collective_rpc", {"method": "load_policy", "kwargs": {"weights_path": str(folder)}}
