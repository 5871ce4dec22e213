"""Requests a second and time to the first token, with 1, 8 and 32 clients; ours beside transformers' `generate`.

    python -m benchmarks.serving --model runs/demo/ppo --prompts runs/demo/world/prompts/test.jsonl

Both are behind the same HTTP server and routes, on the same machine, greedy, with the same prompts and limit of tokens.
The other one is the plain way to serve a model: one request after the other, `generate` with a streamer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import torch

from amenable.data import sources
from amenable.generation.requests import Completion
from amenable.serve import security, serve
from amenable.serve.conversation import load_model
from amenable.serve.openai import api, app_state, errors
from amenable.serve.openai.scheduler import Chunk, Counts, Finished, GenerationRequest, StreamEvent
from amenable.train.runtime import DeviceOptions, start_runtime

CLIENTS = (1, 8, 32)


class Plain:
    """transformers' `generate`, one request after the other; it has of a Scheduler what the routes use."""

    def __init__(self, folder: Path, device: torch.device):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.lock, self.counts, self.max_batch_size, self.max_queue, self.pending = (
            threading.Lock(),
            Counts(),
            1,
            1000,
            0,
        )
        self.thread = threading.current_thread()

    def submit(self, request: GenerationRequest, on_event: Callable[[StreamEvent], None]) -> None:
        threading.Thread(target=self.answer, args=(request, on_event), daemon=True).start()

    def answer(self, request: GenerationRequest, on_event: Callable[[StreamEvent], None]) -> None:
        from transformers import TextStreamer

        class Pieces(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                if text:
                    on_event(Chunk(0, text))

        with self.lock, torch.inference_mode():
            prompt = torch.tensor([list(request.ids)], device=self.model.device)
            output = self.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=request.sampling.max_new_tokens,
                streamer=Pieces(self.tokenizer, skip_prompt=True, skip_special_tokens=True),
            )
        ids = output[0, len(request.ids) :].tolist()
        on_event(Finished(0, "", Completion(ids, [0.0] * len(ids), "eos", None)))

    def cancel(self, request: Any) -> None:
        """It can't."""

    def close(self) -> None:
        """Nothing runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/demo/ppo"))
    parser.add_argument("--prompts", type=Path, default=Path("runs/demo/world/prompts/test.jsonl"))
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    runtime = start_runtime(DeviceOptions(precision="fp32", threads=options.threads))
    prompts = [
        [{"role": message.role, "content": message.content} for message in prompt.messages]
        for prompt in sources.read_prompts(options.prompts).rows[: options.requests]
    ]
    model = load_model(options.model, runtime, "m")
    ours = serve.make_scheduler(model, max_batch_size=32, max_queue=64)
    print(f"{len(prompts)} requests, at most {options.max_tokens} tokens, {runtime.describe()}")
    print("| server | clients | requests/s | tokens/s | first token, median | 95 % |\n|---|---|---|---|---|---|")
    for name, scheduler in (("amenable", ours), ("transformers", Plain(options.model, runtime.device))):
        with serving(app_state.ServedModel(model, scheduler)) as url:  # type: ignore[arg-type]
            measured(url, prompts[:4], 2, options.max_tokens)
            for clients in CLIENTS:
                rate, tokens, firsts = measured(url, prompts, clients, options.max_tokens)
                middle, late = (firsts[int(share * (len(firsts) - 1))] * 1000 for share in (0.5, 0.95))
                print(
                    f"| {name} | {clients} | {rate:.1f} | {tokens:.0f} | {middle:.0f} ms | {late:.0f} ms |", flush=True
                )
    ours.close()


@contextmanager
def serving(served: app_state.ServedModel) -> Iterator[str]:
    """One model behind the routes, on a free port."""
    state = app_state.AppState({"m": served}, {}, None, lambda _: "owner")
    app = security.SecurityMiddleware(
        api.make_app(state), limits=security.Limits(per_minute=10**9), error_body=errors.error_body
    )
    door = security.listen("127.0.0.1", 0)
    server = security.make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield security.address_of(door, "127.0.0.1")
    server.should_exit = True
    thread.join()


def measured(*about: Any) -> tuple[float, float, list[float]]:
    """`measure` in a process of its own: clients are not to wait for the server's interpreter."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure_here, *about).result()


def measure_here(*about: Any) -> tuple[float, float, list[float]]:
    return asyncio.run(measure(*about))


async def measure(url: str, prompts: list[Any], clients: int, max_tokens: int) -> tuple[float, float, list[float]]:
    """Requests a second, tokens a second, and the sorted times to the first text in seconds."""
    waiting, firsts, tokens = list(reversed(prompts)), [], 0
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:

        async def client() -> None:
            nonlocal tokens
            while waiting:
                body = {"model": "m", "messages": waiting.pop(), "temperature": 0, "max_tokens": max_tokens}
                body |= {"stream": True, "stream_options": {"include_usage": True}}
                began, first = time.perf_counter(), None
                async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
                    reply.raise_for_status()
                    async for line in reply.aiter_lines():
                        if not line.startswith("data: {"):
                            continue
                        event = json.loads(line[6:])
                        tokens += (event.get("usage") or {}).get("completion_tokens", 0)
                        if first is None and any(choice["delta"].get("content") for choice in event["choices"]):
                            first = time.perf_counter() - began
                firsts.append(time.perf_counter() - began if first is None else first)

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - began
    return len(prompts) / seconds, tokens / seconds, sorted(firsts)


if __name__ == "__main__":
    main()
