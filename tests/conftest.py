"""A small world of files, and models of two layers made from them once a session, for whoever needs a real run.

Things have colours; an assistant names a thing of a colour, and people like it when it does so gladly.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from amenable import http_client
from amenable.data.types import Message
from amenable.errors import Interrupted
from amenable.generation.continuous_batch import ContinuousBatch
from amenable.generation.requests import Completion, SampleRequest
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_worker import WORKER
from amenable.models import presets, pretrained
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.stages import pretrain, reward, sft, tokenizer
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.optimizer import OptimizerConfig
from amenable.train.run import Run
from amenable.train.runtime import DeviceOptions, Runtime, start_runtime

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

THINGS = {
    "red": ("rose", "brick", "cherry", "ruby"),
    "green": ("leaf", "frog", "lime", "pine"),
    "blue": ("sea", "sky", "plum", "jay"),
    "white": ("snow", "milk", "swan", "salt"),
}
MANNERS = ("Gladly", "Grimly")
NAMES = ("Ann", "Bo", "Cy", "Dee", "Eva", "Flo", "Gus", "Ida")
ONE_THREAD = DeviceOptions(device="cpu", precision="fp32", threads=1)
TINY = DecoderConfig(
    320,
    64,
    num_layers=2,
    hidden_size=32,
    num_heads=2,
    positions="rope",
    norm="rms",
    activation="swiglu",
    bias=False,
    qk_norm=True,
)


@dataclass(frozen=True)
class Files:
    """Data files in the published formats."""

    text: Path
    demonstrations: Path
    prompts: Path
    rankings: Path
    pairs: Path


def say(colour: str, thing: str, manner: str) -> str:
    return f"{manner}: a {thing}, it is {colour}."


def ask(colour: str, name: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{name} asks: name a {colour} thing."}]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, and no more of the machine than one test should take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder, draw = tmp_path_factory.mktemp("files"), random.Random(5)
    pairs = [(colour, thing) for colour, things in THINGS.items() for thing in things]
    documents, demonstrations, rankings, comparisons = [], [], [], []
    for _ in range(240):
        (colour, thing), (other, second) = draw.sample(pairs, 2)
        documents.append({"text": f"The {thing} is {colour}. A {second} is {other}; {draw.choice(MANNERS)} it is."})
    for i in range(96):
        colour, thing = draw.choice(pairs)
        answer = {"role": "assistant", "content": say(colour, thing, MANNERS[i % 2])}
        demonstrations.append({"messages": [*ask(colour, draw.choice(NAMES)), answer]})
    for i in range(96):
        colour = draw.choice(list(THINGS))
        requested = ask(colour, draw.choice(NAMES))
        first, second, third = draw.sample(THINGS[colour], 3)
        answers = [say(colour, first, "Grimly"), say(colour, second, "Gladly"), say(colour, third, "Grimly")]
        row = {"prompt": requested, "completions": answers, "ranking": [2, 1, 2], "annotator": "ab"[i % 2]}
        rankings.append({**row, "id": f"r{i}"})
        comparisons.append({"prompt": requested, "chosen": answers[1], "rejected": answers[0], "id": f"p{i}"})
    return Files(
        text=write_rows(folder / "text.jsonl", documents),
        demonstrations=write_rows(folder / "demonstrations.jsonl", demonstrations),
        prompts=write_rows(
            folder / "prompts.jsonl", [{"prompt": ask(colour, name)} for name in NAMES for colour in THINGS]
        ),
        rankings=write_rows(folder / "rankings.jsonl", rankings),
        pairs=write_rows(folder / "pairs.jsonl", comparisons),
    )


@pytest.fixture(scope="session")
def tokenizer_folder(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `tokenizer`."""
    out = tmp_path_factory.mktemp("tokenizer") / "run"
    return tokenizer.run(tokenizer.Config(files.text, files.demonstrations, out, vocab_size=320))


@pytest.fixture(scope="session")
def pretrain_config(files: Files, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pretrain.Config:
    """What the session's base model is pretrained with; the preset 'two-layers' is known while tests run."""
    presets.PRESETS["two-layers"] = TINY
    return pretrain.Config(
        data=files.text,
        tokenizer=tokenizer_folder,
        out=tmp_path_factory.mktemp("base") / "run",
        model="two-layers",
        context=64,
        tokens_per_step=512,
        max_steps=100,
        optimizer=OptimizerConfig(learning_rate=1e-2, muon_learning_rate=0.03),
        warmup_steps=5,
        validation_split=0.1,
        eval_steps=50,
        save_steps=0,
        device=ONE_THREAD,
    )


@pytest.fixture(scope="session")
def base(pretrain_config: pretrain.Config) -> Path:
    """A finished run of `pretrain`."""
    return pretrain.run(pretrain_config)


@pytest.fixture(scope="session")
def sft_config(files: Files, base: Path, tmp_path_factory: pytest.TempPathFactory) -> sft.Config:
    """What the session's assistant is fine-tuned with."""
    return sft.Config(
        model=base,
        data=files.demonstrations,
        out=tmp_path_factory.mktemp("sft") / "run",
        epochs=4,
        batch_size=8,
        dropout=0.1,
        optimizer=OptimizerConfig(learning_rate=1e-2),
        warmup_steps=2,
        validation_split=0.25,
        save_steps=0,
        max_new_tokens=24,
        device=ONE_THREAD,
    )


@pytest.fixture(scope="session")
def assistant(sft_config: sft.Config) -> Path:
    """A finished run of `sft`."""
    return sft.run(sft_config)


@pytest.fixture(scope="session")
def reward_config(files: Files, assistant: Path, tmp_path_factory: pytest.TempPathFactory) -> reward.Config:
    """What the session's reward model is trained with."""
    return reward.Config(
        model=assistant,
        data=files.rankings,
        heldout_annotators=files.pairs,
        demonstrations=files.demonstrations,
        out=tmp_path_factory.mktemp("reward") / "run",
        epochs=4,
        prompts_per_step=6,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        warmup_steps=2,
        validation_split=0.25,
        save_steps=0,
        device=ONE_THREAD,
    )


@pytest.fixture(scope="session")
def judge(reward_config: reward.Config) -> Path:
    """A finished run of `reward`."""
    return reward.run(reward_config)


@pytest.fixture(scope="session")
def other_judge(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that reads the ids of another tokenizer."""
    words = Tokenizer.train(["quite other words than theirs, and quite so"], 290, chat=True)
    folder = tmp_path_factory.mktemp("other") / "run"
    save_model(folder, a_scalar_model(vocab_size=words.vocab_size), words)
    return folder


@pytest.fixture(scope="session")
def words(tokenizer_folder: Path) -> Tokenizer:
    """The session's tokenizer, with the chat template."""
    return Tokenizer.load(tokenizer_folder).with_chat_template()


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    return start_runtime(ONE_THREAD)


def a_decoder(seed: int = 0, **changes: Any) -> Decoder:
    decoder = Decoder(replace(TINY, **changes))
    decoder.init_weights(torch.Generator().manual_seed(seed))
    return decoder.eval()


def a_scalar_model(seed: int = 0, **changes: Any) -> ScalarModel:
    return ScalarModel.from_decoder(a_decoder(seed, **changes), torch.Generator().manual_seed(seed + 1)).eval()


@pytest.fixture(scope="session")
def make_decoder() -> Callable[..., Decoder]:
    """A decoder with random weights: make_decoder(seed, **changes of its configuration)."""
    return a_decoder


@pytest.fixture(scope="session")
def make_scalar_model() -> Callable[..., ScalarModel]:
    """A reward model with random weights, as `make_decoder`."""
    return a_scalar_model


def question(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """stop_at(n): the next run gets a Ctrl-C in the middle of step n, once."""

    def arm(step: int) -> None:
        record = Run.record

        def recording(run: Run, number: int, *rest: Any, **values: Any) -> None:
            if number == step:
                monkeypatch.setattr(Run, "record", record)
                os.kill(os.getpid(), signal.SIGINT)
            record(run, number, *rest, **values)

        monkeypatch.setattr(Run, "record", recording)

    return arm


@pytest.fixture
def run_in_two(stop_at: Callable[[int], None]) -> Callable[[Any, Any, int], Path]:
    """run_in_two(stage, config, n): the stage, stopped in step n and taken up again by the same call."""

    def two(stage: Any, config: Any, step: int) -> Path:
        stop_at(step)
        with pytest.raises(Interrupted, match=f"saved at step {step}"):
            stage.run(config)
        assert not (config.out / "finished.json").exists()
        return stage.run(config)

    return two


def of_run(folder: Path) -> dict[str, Any]:
    """What must be equal, bit for bit, of two runs that did the same."""
    rows = ("metrics.jsonl", "samples.jsonl", "answers.jsonl")
    names = ("model.safetensors", "policy.safetensors", *rows, "config.json", "tokenizer.json")
    done = json.loads((folder / "finished.json").read_text("utf-8"))
    facts = {
        name: fact for name, fact in done.items() if name not in ("seconds", "tokens_per_second", "steps_per_second")
    }
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()} | {"facts": facts}


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], dict[str, Any]]:
    """Everything that two runs of the same seed share."""
    return of_run


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, Any]]]:
    """The rows of a run's metrics.jsonl, without the summary that ends them."""

    def rows(folder: Path) -> list[dict[str, Any]]:
        result = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        return [row for row in result if "health" not in row]

    return rows


class ChatAPI:
    """OpenAI-compatible API that keeps its requests; `reply(body)` returns (status, headers, body)."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], Any]] = []
        self.models: list[str] | None = ["wise"]
        self.reply: Callable[[Any], tuple[int, dict[str, str], Any]] = self.answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listed = outer.models is not None
                self.send(200 if listed else 404, {}, {"data": [{"id": name} for name in outer.models or ()]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send(*outer.reply(body))

            def send(self, status: int, headers: dict[str, str], body: Any) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def answer(self, body: Any) -> tuple[int, dict[str, str], Any]:
        """Answer with the last words of the question and the seed."""
        text = f"{body['messages'][-1]['content'].split()[-1]} {body['seed']}"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return 200, {}, {"choices": [choice], "usage": {"completion_tokens": 2}}


@pytest.fixture
def chat_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatAPI]:
    """A model `wise` behind an API; replies are kept in a cache folder of the test's own, and tries follow at once."""
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(http_client.time, "sleep", lambda seconds: None)
    api = ChatAPI()
    threading.Thread(target=api.http.serve_forever, args=(0.01,), daemon=True).start()
    yield api
    api.http.shutdown()
    api.http.server_close()


class RequestByRequest:
    """Sampler that has a decoder of ours complete one request after another, each from its own seed."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder

    def load(self, policy: Decoder) -> None:
        self.decoder = policy

    def complete(
        self, requests: Sequence[SampleRequest], sampling: Sampling, eos_ids: Sequence[int], progress: Any = None
    ) -> list[Completion]:
        return [self.complete_one(request, sampling, eos_ids) for request in requests]

    def close(self) -> None:
        """Nothing was written."""

    def complete_one(self, request: SampleRequest, sampling: Sampling, eos_ids: Sequence[int]) -> Completion:
        with torch.inference_mode():
            batch = ContinuousBatch(self.decoder, [request], sampling, eos_ids, max_batch_size=1)
            while not (finished := batch.step()):
                pass
        return finished[0][1]


class VllmAPI:
    """Server with the routes of vLLM that rollouts use, on a decoder of ours; `commands` are those that it was sent."""

    def __init__(self, folder: Path, port: int = 0):
        self.words = Tokenizer.load(folder)
        self.decoder = pretrained.load_decoder(folder).eval()
        self.adapted: Decoder | None = None
        self.context = self.decoder.config.context_length
        self.fails = False
        self.settings = {"logprobs_mode": "processed_logprobs", "dtype": "torch.float32"}
        self.worker = WORKER
        self.commands: list[tuple[str, Any]] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                model = {"id": "base", "max_model_len": outer.context}
                config = {"model_config": outer.settings, "parallel_config": {"worker_extension_cls": outer.worker}}
                self.send({"data": [model]} if self.path == "/v1/models" else {"vllm_config": config})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.lock:
                    answer = None if outer.fails else outer.answer(self.path, body)
                self.send(answer, 200 if answer is not None else 500)

            def send(self, answer: Any, status: int = 200) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, path: str, body: Any) -> Any:
        if path == "/tokenize":
            return {"tokens": self.words.encode(body["prompt"])}
        if path == "/v1/completions":
            return {"choices": [self.complete(body)]}
        self.commands.append((path, body))
        if path == "/collective_rpc":
            assert body["method"] == "load_policy"
            shape = self.decoder.config
            self.decoder = pretrained.load_decoder(body["kwargs"]["weights_path"]).eval()
            return {"results": [None]} if self.decoder.config == shape else None
        if path == "/v1/load_lora_adapter":
            self.adapted = pretrained.decoder_on(self.decoder, Path(body["lora_path"]))
        return {}

    def complete(self, body: Any) -> dict[str, Any]:
        """Sample as ours does, from the request's seed alone."""
        decoder = self.decoder if body["model"] == "base" else self.adapted
        assert decoder is not None and body["return_token_ids"]
        sampling = Sampling(body.get("temperature", 1.0), top_k=body.get("top_k", 0))
        request = SampleRequest(0, 0, body["prompt"], body["max_tokens"], body.get("seed", 0))
        done = RequestByRequest(decoder).complete_one(request, sampling, body.get("stop_token_ids", []))
        rows = torch.tensor([*body["prompt"], *done.ids])
        with torch.no_grad():
            logits = decoder.logits(decoder(rows, Layout.of([len(rows)])))
        raw = logits[:-1].log_softmax(-1).gather(1, rows[1:, None])[:, 0].tolist()
        start = len(body["prompt"]) - 1
        prompt = [None, *({str(int(i)): {"logprob": logp}} for i, logp in zip(rows[1 : start + 1], raw))]
        return {"token_ids": done.ids, "logprobs": {"token_logprobs": done.logps}, "prompt_logprobs": prompt}


@contextlib.contextmanager
def running_api(folder: Path) -> Iterator[VllmAPI]:
    """A server of the model of a folder, in a thread."""
    api = VllmAPI(folder)
    threading.Thread(target=api.http.serve_forever, args=(0.01,), daemon=True).start()
    yield api
    api.http.shutdown()
    api.http.server_close()


@pytest.fixture
def vllm_api(assistant: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VllmAPI]:
    """A server of the session's assistant; tries follow at once."""
    monkeypatch.setattr(http_client.time, "sleep", lambda seconds: None)
    with running_api(assistant) as api:
        yield api
