"""The weights that a checkpoint holds."""

from collections.abc import Callable

import pytest
import torch

from amenable.models.decoder import Decoder
from amenable.train.trained_weights import TrainedWeights, trained_state


def test_all_weights_where_all_train(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder()
    assert trained_state(decoder).keys() == decoder.state_dict().keys()


def test_frozen_weights_are_left_out_and_stay(make_decoder: Callable[..., Decoder]) -> None:
    ours, other = make_decoder(1), make_decoder(2)
    for decoder in (ours, other):
        decoder.token_embedding.weight.requires_grad_(False)
    before = ours.token_embedding.weight.clone()
    state = TrainedWeights(other).state_dict()
    assert "token_embedding.weight" not in state and len(state) == len(other.state_dict()) - 1
    TrainedWeights(ours).load_state_dict(state)
    assert torch.equal(ours.token_embedding.weight, before)
    assert torch.equal(ours.layers[0].mlp.up.weight, other.layers[0].mlp.up.weight)


def test_a_checkpoint_of_other_weights_is_refused(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder()
    state = TrainedWeights(decoder).state_dict()
    decoder.final_norm.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"a checkpoint of other weights: final_norm\.weight"):
        TrainedWeights(decoder).load_state_dict(state)
