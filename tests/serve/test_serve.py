import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.feedback import annotators
from amenable.feedback.store import Store
from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.rewards.model_judge import load_judge
from amenable.serve import serve
from amenable.serve.serve import Config, chosen_models, chosen_reward_models
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.runtime import DeviceOptions


def test_a_model_and_a_reward_model_have_two_names() -> None:
    with pytest.raises(InputError, match="two models have one name"):
        Config(models=("a=runs/x",), reward_models=("a=runs/y",))


@pytest.mark.parametrize(
    "wrong",
    [{"max_batch_size": 0}, {"max_queue": -1}, {"port": 70_000}, {"max_new_tokens": 0}, {"rate_limit_per_minute": 0}],
)
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must lie between"):
        Config(**wrong)  # type: ignore[arg-type]


def test_without_a_name_the_demos_models_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no model to serve"):
        chosen_models(Config())
    for name in ("demo/sft", "sft", "demo/reward"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "finished.json").write_text("{}")
    assert chosen_models(Config()) == [("sft", Path("runs/demo/sft"))]
    assert chosen_reward_models(Config()) == [("reward", Path("runs/demo/reward"))]
    assert chosen_reward_models(Config(models=("runs/sft",))) == []
    assert chosen_models(Config(reward_models=("runs/demo/reward",))) == []


def test_others_are_let_in_only_where_somebody_holds_a_token(assistant: Path, tmp_path: Path) -> None:
    config = Config(models=(str(assistant),), host="0.0.0.0", port=0, labels_db=tmp_path / "labels.db")
    assert config.needs_tokens and not Config().needs_tokens
    with pytest.raises(InputError, match="nobody holds a token"):
        serve.run(config)
    with Store(config.labels_db) as store:
        annotators.add(store, "Ann", "annotator", 0.0)
        annotators.revoke(store, "Ann", 1.0)
    with pytest.raises(InputError, match="nobody holds a token"):
        serve.run(config)


def test_vllm_is_required_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_server: Any
) -> None:
    monkeypatch.setattr("amenable.generation.vllm_engine.importlib.util.find_spec", lambda name: None)
    config = Config(models=(f"a={tmp_path / 'none'}",), sampler="vllm", port=0, labels_db=tmp_path / "labels.db")
    with (
        pytest.raises(InputError, match=r"^--sampler vllm needs vLLM; pip install 'amenable\[vllm\]'"),
        run_server(config),
    ):
        pass


def test_the_command_serves_until_it_is_stopped(assistant: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "amenable", "serve", "--models", f"tiny={assistant}", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--labels-db", str(tmp_path / "labels.db"), "--threads", "1"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("tiny; feedback goes into")
        url = process.stdout.readline().split()[2]
        assert "Talk" not in url and httpx.get(url).status_code == 200
        assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "tiny"
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(20) in (0, 130)


def test_a_served_model_is_a_judge_whose_unclear_replies_are_counted(
    run_server: Callable[..., Any], serve_config: Config, assistant: Path, tmp_path: Path
) -> None:
    """The tiny model writes no score; its own context is too short for the question, which is an error."""
    decoder = pretrained.load_decoder(assistant)
    wide = Decoder(replace(decoder.config, context_length=1024))
    wide.load_state_dict(decoder.state_dict())
    save_model(tmp_path / "wide", wide.eval(), Tokenizer.load(assistant))
    models = (f"wide={tmp_path / 'wide'}", f"tiny={assistant}")
    with run_server(replace(serve_config, models=models, labels_db=tmp_path / "labels.db")) as server:
        judge = load_judge(f"judge:{server.url}/v1:wide", None, None, 2, 30.0)
        prompt = (Message("user", "Ann asks: name a red thing."),)
        assert judge.grade([prompt] * 2, ["A rose.", "The sea."], [""] * 2) == [None, None]
        assert judge.take_counts() == {"questions": 2.0, "repeated": 2.0, "unclear": 2.0} and judge.calls == 6
        with pytest.raises(InputError, match="tokens"):
            load_judge(f"judge:{server.url}/v1:tiny", None, None, 1, 30.0).grade([prompt], ["A rose."], [""])


@pytest.mark.slow
def test_answers_by_vllm_are_those_of_our_engine(
    words: Tokenizer, make_decoder: Callable[..., Decoder], tmp_path: Path, run_server: Any
) -> None:
    """Greedy ones, with their log-probabilities, whole, streamed and up to a stop string."""
    pytest.importorskip("vllm")
    folder = tmp_path / "model"
    save_model(folder, make_decoder(1, vocab_size=words.vocab_size, hidden_size=128, num_heads=2), words)
    config = Config(
        models=(f"tiny={folder}",), labels_db=tmp_path / "labels.db", device=DeviceOptions("cpu", "fp32", 1)
    )
    body = {"model": "tiny", "prompt": [[1, 5, 9], [1, 7]], "temperature": 0, "max_tokens": 12, "logprobs": 2}
    replies: list[Any] = []
    for sampler in ("amenable", "vllm"):
        with run_server(replace(config, sampler=sampler)) as server, httpx.Client(base_url=server.url) as client:
            choices = client.post("/v1/completions", json=body, timeout=300).json()["choices"]
            stop = choices[0]["text"][3:5]
            cut = client.post("/v1/completions", json=body | {"stop": stop}, timeout=300).json()["choices"]
            echo = client.post("/v1/completions", json=body | {"echo": True, "max_tokens": 0}, timeout=300).json()
            streamed = client.post("/v1/completions", json=body | {"stream": True}, timeout=300).text
            parts = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
            text = "".join(part["choices"][0]["text"] for part in parts if part["choices"][0]["index"] == 0)
            assert text == choices[0]["text"] and stop not in cut[0]["text"]
            replies.append([*choices, *cut, *echo["choices"]])
    for ours, theirs in zip(*replies, strict=True):
        assert (ours["text"], ours["finish_reason"]) == (theirs["text"], theirs["finish_reason"])
        first, second = (
            [logp for logp in reply["logprobs"]["token_logprobs"] if logp is not None] for reply in (ours, theirs)
        )
        assert first == pytest.approx(second, abs=2e-3)
