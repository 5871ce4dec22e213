"""`amenable sample`: K answers a prompt, whatever they are computed with."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.data import sources
from amenable.data.types import Message
from amenable.errors import InputError
from amenable.evaluation.prompting import PromptingOptions
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.recipes import lineage
from amenable.serve.conversation import load_model
from amenable.stages import sample, sft
from amenable.text.chat import decode_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.runtime import DeviceOptions, start_runtime
from tests.conftest import ChatAPI


@pytest.fixture
def config(assistant: Path, files: Any, tmp_path: Path) -> sample.Config:
    return sample.Config(
        model=assistant,
        data=files.prompts,
        out=tmp_path / "run",
        num_generations=3,
        max_prompts=10,
        sampling=Sampling(max_new_tokens=24),
        prompts_per_step=4,
        device=DeviceOptions("cpu", "fp32", 1),
    )


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]


def test_every_prompt_gets_its_answers(config: sample.Config, rows_of: Callable) -> None:
    out = sample.run(config)
    rows = samples(out)
    request = sources.read_prompts(config.data, limit=10).rows
    assert [row["id"] for row in rows] == [prompt.id for prompt in request]
    assert [row["prompt"][0]["content"] for row in rows] == [prompt.messages[0].content for prompt in request]
    assert all(len(row["completions"]) == len(row["ended"]) == 3 for row in rows)
    assert [row["step"] for row in rows] == [1] * 4 + [2] * 4 + [3] * 2
    assert len({text for row in rows for text in row["completions"]}) > 15
    assert not [text for row in rows for text in row["completions"] if "<|" in text]
    ended = [flag for row in rows for flag in row["ended"]]
    report = rows_of(out)
    assert sum(row["ended"] * n for row, n in zip(report, (12, 12, 6))) == pytest.approx(sum(ended))
    assert json.loads((out / "finished.json").read_text())["prompts"] == 10


def test_answers_do_not_depend_on_what_is_sampled_with_them(config: sample.Config, tmp_path: Path) -> None:
    together = samples(sample.run(config))
    apart = samples(sample.run(replace(config, out=tmp_path / "apart", prompts_per_step=1, max_batch_size=2)))
    assert [row["completions"] for row in together] == [row["completions"] for row in apart]
    first = samples(sample.run(replace(config, out=tmp_path / "few", max_prompts=2, num_generations=2)))
    assert [row["completions"] for row in first] == [row["completions"][:2] for row in together[:2]]
    other = samples(sample.run(replace(config, out=tmp_path / "other", seed=1)))
    assert [row["completions"] for row in other] != [row["completions"] for row in together]


def test_a_stopped_run_goes_on_to_the_bit(
    config: sample.Config, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    whole = outcome(sample.run(replace(config, out=tmp_path / "whole")))
    assert outcome(run_in_two(sample, config, 2)) == whole


def test_annotators_can_read_what_was_sampled(config: sample.Config) -> None:
    rows = samples(sample.run(config))
    prompts = sources.read_prompts(config.data, limit=10).rows
    assert [tuple(m.values()) for row in rows for m in row["prompt"]] == [
        (message.role, message.content) for prompt in prompts for message in prompt.messages
    ]


def test_prompts_of_several_sources_are_completed_each_as_alone(config: sample.Config, tmp_path: Path) -> None:
    rows = config.data.read_text("utf-8").splitlines(keepends=True)
    paths = [tmp_path / name for name in ("easy.jsonl", "hard.jsonl")]
    for path, part in zip(paths, (rows[:5], rows[5:])):
        path.write_text("".join(part), "utf-8")
    out = sample.run(replace(config, data=paths, max_prompts=3))
    ids = [f"{path.name}:{line}" for path in paths for line in (1, 2, 3)]
    assert [row["id"] for row in samples(out)] == ids, "the first of each source"
    alone = samples(sample.run(replace(config, data=paths[1], max_prompts=3, out=tmp_path / "alone")))
    assert [row["completions"] for row in samples(out)[3:]] == [row["completions"] for row in alone]
    assert {"data 1", "data 2"} <= set(json.loads((out / "lineage.json").read_text())["inputs"])
    with pytest.raises(InputError, match="data has weights, and sample completes every prompt"):
        replace(config, data=[f"{paths[0]}=2", paths[1]])


def test_no_room_for_an_answer_is_an_error(config: sample.Config) -> None:
    with pytest.raises(InputError, match="none of the 10 prompts is within 0 tokens"):
        sample.run(replace(config, sampling=Sampling(max_new_tokens=64)))
    assert not config.out.exists()


@pytest.fixture
def prompting(tmp_path: Path) -> PromptingOptions:
    """Two examples, of which one is drawn, and a prefix."""
    rows = [{"prompt": f"name a {colour} thing.", "completion": f"Gladly: {colour}."} for colour in ("red", "blue")]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PromptingOptions((tmp_path / "shots.jsonl",), 1, "similar", "Hi.")


def test_examples_come_before_every_prompt_and_not_into_its_row(
    config: sample.Config, prompting: PromptingOptions, chat_api: ChatAPI, tmp_path: Path
) -> None:
    """As turns, of a model in a folder and of one behind an API."""
    out = sample.run(replace(config, prompting=prompting, max_prompts=3, sampling=Sampling(0.0, max_new_tokens=8)))
    rows = samples(out)
    words, loaded = Tokenizer.load(config.model), load_model(Path(config.model), start_runtime(config.device))
    for row in rows:
        prompt = row["prompt"][0]["content"]
        colour = "red" if "red" in prompt else "blue"
        assert len(row["prompt"]) == 1
        if "red" in prompt or "blue" in prompt:
            shot = (Message("user", f"name a {colour} thing."), Message("assistant", f"Gladly: {colour}."))
            ids = render_prompt(words, (Message("system", "Hi."), *shot, Message("user", prompt)))
            (group,) = generate(loaded.decoder, [ids], Sampling(0.0, max_new_tokens=8), eos_id=words.stop_ids)
            assert row["completions"] == [decode_completion(words, group[0].ids)] * 3
    assert {*json.loads((out / "lineage.json").read_text())["inputs"]} >= {f"shots {prompting.shots[0]}"}
    teacher = replace(config, model=f"{chat_api.url}:wise", out=tmp_path / "api", max_prompts=1, prompting=prompting)
    sample.run(teacher)
    assert [each["content"] for each in chat_api.requests[0][1]["messages"]][:3] == [
        *("Hi.", "name a red thing.", "Gladly: red.")
    ]
    assert len(samples(tmp_path / "api")[0]["prompt"]) == 1


def test_an_example_among_the_prompts_is_refused(config: sample.Config, files: Any) -> None:
    leaking = replace(config, prompting=PromptingOptions((files.demonstrations,)), sampling=Sampling(max_new_tokens=4))
    with pytest.raises(InputError, match=r"demonstrations\.jsonl: example \d+ is a row of the test 'data'"):
        sample.run(replace(leaking, prompting=PromptingOptions((files.demonstrations,), 1)))
    assert not config.out.exists()


def test_a_model_behind_an_api_writes_demonstrations_that_sft_reads(
    config: sample.Config, chat_api: ChatAPI, assistant: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    def reply(body: Any) -> tuple[int, dict[str, str], Any]:
        status, headers, answer = chat_api.answer(body)
        answer["choices"][0]["finish_reason"] = "length" if body["seed"] % 3 == 0 else "stop"
        return status, headers, answer

    chat_api.reply = reply
    teacher = replace(config, model=f"{chat_api.url}:wise", sampling=sample.SamplingOptions(temperature=0.3))
    out = sample.run(teacher)
    rows = samples(out)
    assert [row["step"] for row in rows] == [1] * 4 + [2] * 4 + [3] * 2 and rows[0]["model"] == f"{chat_api.url}:wise"
    assert len(chat_api.requests) == 30 and all(body["temperature"] == 0.3 for _, body in chat_api.requests)
    loaded = sources.read_demonstrations(out / "demonstrations.jsonl").rows
    pairs = [(row["id"], text) for row in rows for text, end in zip(row["completions"], row["ended"]) if end]
    assert [(row.id, row.messages[-1].content) for row in loaded] == pairs and 0 < len(pairs) < 30
    report = json.loads((out / "lineage.json").read_text())["inputs"]["model"]
    assert report == {"path": f"{chat_api.url}:wise", "sha256": None}
    (source,) = [each for each in lineage.trace(out).sources if each.name == "model"]
    assert source.state == "not hashed"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]
    assert sample.run(teacher) == out
    again = sample.run(replace(teacher, out=tmp_path / "again", prompts_per_step=7))
    assert [row["completions"] for row in samples(again)] == [row["completions"] for row in rows]
    assert len(chat_api.requests) == 30, "nothing is asked for twice"
    student = sft.Config(model=assistant, data=out / "demonstrations.jsonl", out=tmp_path / "student", epochs=1)
    assert (sft.run(replace(student, device=config.device)) / "finished.json").exists()


def test_a_teacher_that_stops_answering_goes_on_where_it_stopped(
    config: sample.Config, chat_api: ChatAPI, tmp_path: Path
) -> None:
    teacher = replace(config, model=f"{chat_api.url}:wise", api_workers=1)
    chat_api.reply = lambda body: chat_api.answer(body) if len(chat_api.requests) < 18 else (429, {}, b"slow down")
    with pytest.raises(InputError, match=r"answered 429: slow down \(4 tries\); wait"):
        sample.run(teacher)
    assert len(samples(teacher.out)) == 4
    chat_api.reply = chat_api.answer
    before = len(chat_api.requests)
    sample.run(teacher)
    assert 13 <= len(chat_api.requests) - before <= 14, "at most the request that was under way is sent again"
    whole = sample.run(replace(teacher, out=tmp_path / "whole"))
    for name in ("samples.jsonl", "demonstrations.jsonl", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (teacher.out / name).read_bytes()


def test_a_teacher_that_is_none_is_refused_before_any_work(
    config: sample.Config, chat_api: ChatAPI, tmp_path: Path
) -> None:
    tools = tmp_path / "tools.jsonl"
    schema = {"type": "function", "function": {"name": "f", "parameters": {}}}
    tools.write_text(json.dumps({"prompt": "Hi", "tools": [schema]}) + "\n")
    for options, problem in (
        ({"model": f"{chat_api.url}:unwise"}, "has no model 'unwise'; its models are: wise"),
        ({"model": "http://127.0.0.1:9/v1:wise"}, "cannot be reached"),
        ({"model": "http://127.0.0.1:9"}, "names no model of an API"),
        ({"model": f"{chat_api.url}:wise", "data": tools}, "prompts have tools"),
    ):
        with pytest.raises(InputError, match=problem):
            sample.run(replace(config, **options))
    assert not config.out.exists()
    with pytest.raises(InputError, match="api_workers"):
        replace(config, api_workers=0)


def test_the_best_of_several_by_a_reward(config: sample.Config, tmp_path: Path, rows_of: Callable) -> None:
    """Groups of four neighbours among twelve completions, each with its longest kept."""
    every = samples(sample.run(replace(config, num_generations=12, out=tmp_path / "every")))
    best = replace(
        config,
        best_of=4,
        out=tmp_path / "best",
        reward=(lambda completions, **_: [float(len(text)) for text in completions],),
    )
    out = sample.run(best)
    for row, whole in zip(samples(out), every, strict=True):
        groups = [whole["completions"][k : k + 4] for k in (0, 4, 8)]
        assert row["completions"] == [max(group, key=len) for group in groups]
        assert row["rewards"] == [len(text) for text in row["completions"]]
    assert rows_of(out)[0]["reward"] == pytest.approx(sum(sum(row["rewards"]) for row in samples(out)[:4]) / 12)
    with pytest.raises(InputError, match="best_of is 4 without a reward"):
        replace(config, best_of=4)
    with pytest.raises(InputError, match="a reward chooses among one completion"):
        replace(config, reward=("ends",))
    for given in ({"best_of": 4, "reward": ("ends",)}, {"sampler": "vllm"}):
        with pytest.raises(InputError, match="best_of or sampler with a model behind an API"):
            replace(config, model="http://127.0.0.1:9/v1:wise", **given)
    with pytest.raises(InputError, match="needs the column 'answer'"):
        sample.run(replace(config, best_of=4, reward=("match:answer",), out=tmp_path / "lacking"))
    assert not (tmp_path / "lacking").exists()


def test_a_server_of_vllm_completes_the_same_prompts(config: sample.Config, vllm_api: Any, tmp_path: Path) -> None:
    """It draws as ours does; the lineage says who has drawn."""
    small = replace(config, max_prompts=3, num_generations=2)
    ours = sample.run(small)
    theirs = sample.run(replace(small, out=tmp_path / "served", sampler="vllm", sampler_url=(vllm_api.url,)))
    assert samples(ours) == samples(theirs) and not (theirs / "sampler").exists()
    versions = [json.loads((out / "lineage.json").read_text())["versions"] for out in (ours, theirs)]
    assert "vllm" not in versions[0] and versions[1]["vllm"] == vllm_api.url
    with pytest.raises(InputError, match="cannot be reached"):
        sample.run(replace(small, out=tmp_path / "none", sampler="vllm", sampler_url=("http://127.0.0.1:9",)))
