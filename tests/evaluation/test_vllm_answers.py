"""vLLM in place of our engine: the same ends and texts, log-probabilities that are ours, one model after another."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.data.types import Message, Prompt
from amenable.errors import InputError
from amenable.evaluation.answering import GenerationConfig, LoadedModel, generate_answers
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.vllm_answers import VllmAnswers, answers_by, close
from amenable.generation.sampler_options import FOLDER, SamplerOptions
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.models.ngram.tables import MODEL_TYPE
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.runtime import Runtime

PROMPTS = [Prompt((Message("user", f"name a {colour} thing."),), id=colour) for colour in ("red", "blue", "green")]
GENERATION = GenerationConfig(max_new_tokens=20, seed=3)


@pytest.fixture
def vllm(vllm_api: Any, runtime: Runtime, tmp_path: Path) -> VllmAnswers:
    options = SamplerOptions(sampler="vllm", sampler_url=(vllm_api.url,))
    answers = answers_by(options, [], tmp_path, runtime)
    assert answers is not None
    return answers


def load(folder: Path, runtime: Runtime, vllm: VllmAnswers | None = None) -> LoadedModel:
    return LoadedModel.load(ModelEntry(folder.name, folder), runtime, vllm)


def test_answers_of_one_model_after_another_are_those_of_our_engine(
    vllm: VllmAnswers, vllm_api: Any, base: Path, assistant: Path, runtime: Runtime, tmp_path: Path
) -> None:
    """The server draws as ours does. The base model has stop strings, which the server knows nothing of."""
    for folder in (base, base, assistant):
        ours, served = load(folder, runtime), load(folder, runtime, vllm)
        for temperature in (0.0, 0.8):
            generation = GENERATION.at(temperature)
            first, second = (generate_answers(model, PROMPTS, generation, samples=2) for model in (ours, served))
            for mine, theirs in zip((each for group in first for each in group), (e for g in second for e in g)):
                assert (mine.ids, mine.text, mine.ended) == (theirs.ids, theirs.text, theirs.ended)
                assert mine.logp == pytest.approx(theirs.logp, abs=1e-3)
    assert [path for path, _ in vllm_api.commands if path != "/reset_prefix_cache"] == ["/collective_rpc"] * 2
    assert (tmp_path / FOLDER).is_dir()
    close(vllm)
    assert not list(tmp_path.iterdir()), "the files that the server has read"
    (tmp_path / FOLDER / "1").mkdir(parents=True)
    close(vllm)
    assert not list(tmp_path.iterdir()), "those of a run that was killed"


def test_a_stop_string_within_a_line_cuts_ids_and_text(
    vllm: VllmAnswers, assistant: Path, runtime: Runtime, words: Tokenizer
) -> None:
    ours, served = load(assistant, runtime), load(assistant, runtime, vllm)
    prompts, sampling = [[*words.opening_ids, *words.encode("The rose")]], Sampling(0.9, max_new_tokens=24)
    (whole,) = ours.complete(prompts, sampling, seeds=[1])[0]
    stop = (whole.text or "")[4:7]
    for model in (ours, served):
        (cut,) = model.complete(prompts, sampling, seeds=[1], stop=(stop,))[0]
        assert cut.finish_reason == "stop" and cut.text == (whole.text or "").partition(stop)[0]
        assert cut.ids == whole.ids[: len(cut.ids)] and len(cut.logps) == len(cut.ids) < len(whole.ids)


def test_log_probabilities_are_the_decoders_whatever_the_server_gives(
    vllm: VllmAnswers, vllm_api: Any, assistant: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = vllm_api.complete

    def off(body: Any) -> Any:
        choice = complete(body)
        choice["logprobs"]["token_logprobs"] = [logp - 0.05 for logp in choice["logprobs"]["token_logprobs"]]
        return choice

    monkeypatch.setattr(vllm_api, "complete", off)
    ours, served = (generate_answers(load(assistant, runtime, each), PROMPTS, GENERATION) for each in (None, vllm))
    assert [group[0].logp for group in served] == pytest.approx([group[0].logp for group in ours], abs=1e-3)


def test_a_server_that_keeps_another_models_weights_is_refused(
    vllm: VllmAnswers, vllm_api: Any, base: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        vllm_api, "answer", lambda path, body, answer=vllm_api.answer: answer(path, body) if "rpc" not in path else {}
    )
    with pytest.raises(InputError, match=r"log-probabilities of its answer differ from the model's by .* nats a token"):
        generate_answers(load(base, runtime, vllm), PROMPTS, GENERATION)


def test_what_vllm_does_not_take_is_refused_before_anything_is_loaded(
    vllm_api: Any, assistant: Path, runtime: Runtime, tmp_path: Path
) -> None:
    options = SamplerOptions(sampler="vllm", sampler_url=(vllm_api.url,))
    counted, virtual = tmp_path / "counted", tmp_path / "virtual"
    counted.mkdir()
    (counted / "config.json").write_text(json.dumps({"model_type": MODEL_TYPE}))
    virtual.mkdir()
    fields = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "base_model_name_or_path": str(assistant)}
    (virtual / "adapter_config.json").write_text(json.dumps(fields))
    for folder, problem in ((counted, "vLLM takes no n-gram model"), (virtual, "vLLM takes no virtual tokens")):
        with pytest.raises(InputError, match=f"{problem}, as in {folder}; use --sampler amenable"):
            answers_by(options, [assistant, folder], tmp_path, runtime)
    assert answers_by(SamplerOptions(), [counted], tmp_path, runtime) is None


@pytest.mark.slow
def test_greedy_answers_of_vllm_itself_are_those_of_our_engine(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    """In this process; of two models of one shape, for which the engine stays, and of one of another shape."""
    pytest.importorskip("vllm")
    vllm = answers_by(SamplerOptions(sampler="vllm"), [], tmp_path, runtime)
    engines = []
    for name, seed, heads in (("a", 1, 2), ("b", 2, 2), ("c", 3, 1)):
        decoder = make_decoder(seed=seed, vocab_size=words.vocab_size, hidden_size=64 * heads, num_heads=heads)
        save_model(tmp_path / name, decoder, words)
        ours, theirs = (load(tmp_path / name, runtime, each) for each in (None, vllm))
        first, second = (generate_answers(model, PROMPTS, GENERATION.at(0.0)) for model in (ours, theirs))
        assert [group[0].ids for group in first] == [group[0].ids for group in second]
        assert [group[0].text for group in first] == [group[0].text for group in second]
        sampled = [generate_answers(theirs, PROMPTS, replace(GENERATION, seed=4), samples=2) for _ in range(2)]
        assert sampled[0] == sampled[1] and sampled[0] != second
        engines.append(vllm.sampler if vllm is not None else None)
    assert engines[0] is engines[1] is not engines[2]
