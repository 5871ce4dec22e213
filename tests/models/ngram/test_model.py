"""An n-gram model as a language model: rows, caches, shared prefixes and temperatures."""

import pytest
import torch

from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models.layout import Layout
from amenable.models.ngram import tables as table_files
from amenable.models.ngram.estimate import estimate
from amenable.models.ngram.model import OUTSIDE, UNKNOWN, NGramModel
from tests.models.ngram.conftest import flat


@pytest.fixture(scope="module", params=["modified-kneser-ney", "add-k"])
def model(request, counted):
    return NGramModel(estimate(counted[3], request.param)[0])


def test_states_name_the_contexts_of_a_row(model):
    states = model(torch.tensor([0, 2, 13, 2]), Layout.of([4]))
    assert states[:, 0].tolist() == [0, 2, 13, 2]
    assert states[0, 1] == OUTSIDE and states[1, 1] >= 0 and states[2, 1] == states[3, 1] == UNKNOWN


def test_steps_are_the_row_at_once(model):
    rows = [[0, 2, 3, 3, 1], [4, 13, 2, 2, 5], [7, 0, 2, 3, 4]]
    cache = model.new_cache(3, 5)
    first = torch.tensor([row[0] for row in rows])
    steps = [model(first, Layout.of([1, 1, 1]), cache)]
    steps += [model.step(torch.tensor(ids), cache) for ids in list(zip(*rows))[1:]]
    whole = model(torch.tensor(flat(rows)), Layout.of([5, 5, 5])).view(3, 5, -1)
    assert torch.equal(torch.stack(steps, 1), whole)
    assert cache.lengths.tolist() == [5, 5, 5]


def test_a_shared_prefix_is_that_of_rows_apart(model):
    rows = [[0, 2, 3, 4], [0, 2, 5], [7, 7]]
    apart = model(torch.tensor(flat(rows)), Layout.of([4, 3, 2]))
    shared = model(torch.tensor([0, 2, 3, 4, 5, 7, 7]), Layout.of([4, 3, 2], prefix_lengths=[0, 2, 0]))
    assert torch.equal(shared, apart[[0, 1, 2, 3, 6, 7, 8]])


def test_log_probabilities_are_those_of_the_logits(model):
    ids = torch.tensor([0, 2, 3, 13, 2, 2, 1, 5, 5, 5])
    states = model(ids, Layout.of([7, 3]))
    for token in range(14):
        tokens = torch.full((10,), token)
        for temperature in (1.0, 0.7):
            expected = (model.logits(states) / temperature).log_softmax(-1)
            logps, entropies = model.logprobs(states, tokens, temperature, entropy=temperature != 1)
            torch.testing.assert_close(logps, expected[:, token], rtol=1e-5, atol=1e-5)
    assert entropies is not None
    torch.testing.assert_close(entropies, torch.special.entr(expected.exp()).sum(-1))


def test_generation_does_not_depend_on_the_batch(model):
    prompts = [[0], [0, 2], [0, 2, 3], [5, 5]]
    sampling = Sampling(max_new_tokens=12)
    alone = [generate(model, [ids], sampling, eos_id=1, seeds=[i], samples=2)[0] for i, ids in enumerate(prompts)]
    assert alone == generate(model, prompts, sampling, eos_id=1, seeds=[0, 1, 2, 3], samples=2, max_batch_size=3)
    assert all(0 not in completion.ids for group in alone for completion in group)


def test_greedy_text_is_the_likeliest_token_each_time(model):
    (completion,) = generate(model, [[0]], Sampling(temperature=0, max_new_tokens=5), eos_id=None)[0]
    row = [0]
    for token in completion.ids:
        assert token == int(model.logits(model(torch.tensor(row), Layout.of([len(row)])))[-1].argmax())
        row.append(token)


def test_a_saved_model_is_the_same(model, counted, tmp_path):
    tables, _ = estimate(counted[3], "katz")
    table_files.save(tmp_path, tables, {"unit": "words"})
    states = torch.tensor([[2, OUTSIDE], [13, UNKNOWN]])
    assert torch.equal(NGramModel.load(tmp_path).logits(states), NGramModel(tables).logits(states))
