"""`serve --best-of N`: each choice is the answer that a reward prefers, streamed or whole."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from amenable.errors import InputError
from amenable.serve import serve

QUESTION = [{"role": "user", "content": "Ann asks: name a red thing."}]
BY_LENGTH = "def longest(completions, **_):\n    return [float(len(text)) for text in completions]\n"
BROKEN = "def broken(completions, **_):\n    raise ValueError('no scores today')\n"


@pytest.fixture(scope="module")
def client(
    serve_config: serve.Config, run_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], contextlib.AbstractContextManager[openai.OpenAI]]]:
    file = tmp_path_factory.mktemp("rewards") / "rewards.py"
    file.write_text(BY_LENGTH + BROKEN)

    @contextlib.contextmanager
    def connect(reward: str | None) -> Iterator[openai.OpenAI]:
        chosen = {"best_of": 4, "reward": (f"{file}:{reward}",)} if reward else {}
        config = replace(serve_config, labels_db=file.parent / f"{reward}.db", **chosen)
        with run_server(config) as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as api:
            yield api

    yield connect


def ask(api: openai.OpenAI, n: int, **more: Any) -> Any:
    return api.chat.completions.create(
        model="tiny", messages=QUESTION, n=n, seed=3, temperature=1.5, max_tokens=12, **more
    )


def test_each_choice_is_the_longest_of_four_and_all_tokens_are_counted(client: Callable) -> None:
    with client(None) as api:
        every = ask(api, 8)
    texts = [choice.message.content for choice in every.choices]
    longest = [max(texts[k : k + 4], key=len) for k in (0, 4)]
    with client("longest") as api:
        best = ask(api, 2)
        assert [choice.message.content for choice in best.choices] == longest
        assert best.usage.completion_tokens == every.usage.completion_tokens
        assert best.usage.prompt_tokens == every.usage.prompt_tokens
        streamed: dict[int, list[str]] = {0: [], 1: []}
        usage = None
        for chunk in ask(api, 2, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                streamed[choice.index] += [choice.delta.content] if choice.delta.content else []
        assert streamed == {0: [longest[0]], 1: [longest[1]]}  # a piece each, once it is chosen
        assert usage.completion_tokens == every.usage.completion_tokens
        with pytest.raises(openai.BadRequestError, match="12 answers to one prompt"):
            ask(api, 3)
        answer = {"role": "assistant", "content": "Gladly"}
        with pytest.raises(openai.BadRequestError, match="none continues a message"):
            api.chat.completions.create(
                model="tiny", messages=[*QUESTION, answer], extra_body={"continue_final_message": True}
            )


def test_a_reward_that_fails_is_told_to_the_client(client: Callable) -> None:
    with client("broken") as api:
        with pytest.raises(
            openai.InternalServerError, match=r"the reward that chooses an answer failed: .*scores today"
        ):
            ask(api.with_options(max_retries=0), 1)
        with pytest.raises(openai.APIError, match="the reward that chooses"):
            list(ask(api, 1, stream=True))


def test_a_choice_among_more_than_the_batch_is_refused(serve_config: serve.Config, assistant: Path) -> None:
    with pytest.raises(InputError, match="best_of is 9; it must lie between 1 and 8"):
        replace(serve_config, best_of=9, reward=("ends",))
