import math
from collections.abc import Callable

import pytest
import torch

from amenable.generation import top_logprobs as module
from amenable.generation.top_logprobs import prompt_logprobs, top_logprobs
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout


def test_the_most_probable_come_first_and_the_impossible_never() -> None:
    logps = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.0, 0.1, 0.9, 0.0]]).log()
    first, second = top_logprobs(logps, 3)
    assert first[0] == (0, pytest.approx(math.log(0.5))) and {token for token, _ in first[1:]} == {1, 2}
    assert [token for token, _ in second] == [2, 1]
    assert [len(top) for top in top_logprobs(logps, 99)] == [3, 2]
    assert top_logprobs(logps, 0) == [[], []]


@pytest.mark.parametrize("chunk", [1, 3, 2**24])
def test_a_prompts_tokens_are_scored_by_what_comes_before_them(
    make_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    decoder, ids = make_decoder(2), [5, 9, 200, 7, 7, 31]
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk * decoder.config.vocab_size)
    with torch.no_grad():
        hidden = decoder(torch.tensor(ids), Layout.of([len(ids)], torch.device("cpu")))
        scored = prompt_logprobs(decoder, hidden, ids, 2)
        whole = decoder.logits(hidden).log_softmax(-1)
    assert scored.logps == pytest.approx([float(whole[i, token]) for i, token in enumerate(ids[1:])], abs=1e-5)
    assert [near[0][0] for near in scored.top_logprobs] == whole[:-1].argmax(-1).tolist()
    assert [len(near) for near in scored.top_logprobs] == [2] * 5


def test_a_prompt_of_a_single_token_has_no_log_probabilities(make_decoder: Callable[..., Decoder]) -> None:
    scored = prompt_logprobs(make_decoder(), torch.zeros(1, 32), [5], 3)
    assert (scored.logps, scored.top_logprobs) == ([], [])
