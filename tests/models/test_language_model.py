"""The protocol: a transformer and an n-gram model are used through the same methods."""

import inspect

import numpy as np
import pytest
import torch

from amenable.models.decoder import Decoder
from amenable.models.language_model import LanguageModel
from amenable.models.layout import Layout
from amenable.models.ngram.counting import count_ngrams
from amenable.models.ngram.estimate import estimate
from amenable.models.ngram.model import NGramModel
from tests.conftest import TINY


def ngram_model() -> NGramModel:
    ids, positions = np.array([0, 5, 6, 7, 5, 6, 1]), np.arange(7)
    return NGramModel(estimate(count_ngrams(lambda: [(ids, positions)], 3, 320, 0), "modified-kneser-ney")[0])


@pytest.fixture(params=["decoder", "ngram"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return Decoder(TINY).eval() if request.param == "decoder" else ngram_model()


def test_steps_from_a_copied_cache_are_the_whole_row(model: LanguageModel) -> None:
    row = [0, 5, 6, 7, 5]
    with torch.no_grad():
        whole = model.logits(model(torch.tensor(row), Layout.of([5]))).log_softmax(-1)
        cache = model.new_cache(2, 8)
        model(torch.tensor(row[:3]), Layout.of([3]), cache)
        cache.copy(torch.tensor([0]), torch.tensor([1]))
        steps = [model.logits(model.step(torch.tensor([token] * 2), cache)).log_softmax(-1) for token in row[3:]]
    for i, logps in enumerate(steps):
        torch.testing.assert_close(logps, whole[[3 + i] * 2], rtol=1e-4, atol=1e-4)
    assert cache.lengths.tolist() == [5, 5]


def test_log_probabilities_are_those_of_the_logits(model: LanguageModel) -> None:
    ids = torch.tensor([0, 5, 6, 7])
    with torch.no_grad():
        states = model(ids, Layout.of([4]))
        logps, _ = model.logprobs(states, torch.tensor([5, 6, 9, 5]))
        expected = model.logits(states).log_softmax(-1)[torch.arange(4), [5, 6, 9, 5]]
    torch.testing.assert_close(logps, expected, rtol=1e-4, atol=1e-4)


def test_a_model_says_where_it_is_and_how_long_its_rows_are(model: LanguageModel) -> None:
    assert model.device.type == "cpu" and model.num_tokens == 320 and model.config.context_length >= 64


def test_no_model_lacks_a_method() -> None:
    names = {name for name, value in vars(LanguageModel).items() if getattr(value, "__isabstractmethod__", False)}
    assert names == {"device", "forward", "step", "logits", "logprobs", "new_cache"}
    for kind in (Decoder, NGramModel):
        for name in names:
            assert inspect.getattr_static(kind, name) is not inspect.getattr_static(LanguageModel, name)
