"""Models of the library: answers, scores, weights taken out, and folders."""

from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.library.model import Model, Result
from amenable.models import pretrained as folders
from amenable.rewards.model import ModelReward
from amenable.train.runtime import Runtime

PROMPTS = ["Ann asks: name a red thing.", [{"role": "user", "content": "Bo asks: name a blue thing."}]]


@pytest.fixture
def model(assistant: Path) -> Model:
    return Model(assistant, device="cpu", precision="fp32")


def test_answers_depend_on_the_seed_alone(model: Model) -> None:
    first, again = (model.generate(PROMPTS, num_generations=3, max_new_tokens=8, temperature=1.0) for _ in range(2))
    assert first == again and [len(group) for group in first] == [3, 3]
    assert first != model.generate(PROMPTS, num_generations=3, max_new_tokens=8, temperature=1.0, seed=1)
    assert model.generate(PROMPTS[:1], num_generations=3, max_new_tokens=8, temperature=1.0) == first[:1]


def test_an_answer_has_no_special_tokens(model: Model) -> None:
    answer = model.chat("Ann asks: name a red thing.", temperature=0)
    assert answer and "<|" not in answer
    assert answer == model.chat([{"role": "user", "content": "Ann asks: name a red thing."}], temperature=0)


def test_a_base_model_continues_a_transcript(base: Path) -> None:
    answer = Model(base, device="cpu", precision="fp32").chat("The rose is", max_new_tokens=8, temperature=0)
    assert "\n\n" not in answer


def test_scores_are_the_reward_models(judge: Path, runtime: Runtime) -> None:
    texts = ["Gladly: a rose, it is red.", "Grimly: a brick, it is red."]
    outcome = Model(judge, device="cpu", precision="fp32").score([PROMPTS[0]] * 2, texts)
    from amenable.data.types import Message

    prompt = (Message("user", "Ann asks: name a red thing."),)
    assert outcome == ModelReward.load(judge, runtime)([prompt] * 2, texts) and outcome[0] > outcome[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.chat("x", warmth=1), "unknown option 'warmth'; known are: temperature"),
        (lambda model: model.chat("x", temperature=-1.0), "temperature is -1.0"),
        (lambda model: model.chat("word " * 200), "a prompt has .* tokens.*shorten the prompt"),
        (lambda model: model.chat([{"text": "x"}]), "is no conversation: .*; give a text"),
        (lambda model: model.score(["x"], ["a", "b"]), "2 completions to 1 prompts"),
        (lambda model: model.score(["x"], ["a"]), "a language model, not a reward model"),
    ],
)
def test_bad_calls_say_what_is_wrong(model: Model, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(model)


def test_a_saved_copy_has_every_file(model: Model, assistant: Path, tmp_path: Path) -> None:
    copy = model.save(tmp_path / "copy")
    assert (copy / "model.safetensors").read_bytes() == (assistant / "model.safetensors").read_bytes()
    assert (copy / "config.yaml").exists()
    with pytest.raises(InputError, match="is there already; name a new folder"):
        model.save(copy)


def test_changed_weights_are_saved_and_handed_on(model: Model, assistant: Path, tmp_path: Path) -> None:
    assert model.path() == assistant
    with torch.no_grad():
        model.decoder.final_norm.weight.mul_(2)
    taken, copy = model.path(), model.save(tmp_path / "copy")
    before = folders.load_decoder(assistant).final_norm.weight
    for folder in (taken, copy):
        assert torch.equal(folders.load_decoder(folder).final_norm.weight, 2 * before)
    assert taken != assistant


def test_a_result_reads_what_its_run_wrote(assistant: Path) -> None:
    result = Result(assistant)
    assert result.facts["stage"] == "sft" and result.metrics["loss"] == [row["loss"] for row in result.rows]
    assert set(result.metrics) >= {"step", "loss", "lr", "eval/loss"} and repr(result) == f"Result('{assistant}')"
    assert len(result.metrics["eval/loss"]) < len(result.metrics["step"])


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        Model(tmp_path / "nowhere")
