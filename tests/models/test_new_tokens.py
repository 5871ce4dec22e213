"""Embeddings of new tokens: drawn like the others, and trained alone where the matrix is frozen."""

import torch

from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, add_adapters
from amenable.models.new_tokens import init_new_tokens, merge_new_tokens, train_new_tokens


def test_they_are_drawn_among_the_others(make_decoder):
    decoder = make_decoder()
    before = decoder.token_embedding.weight.detach().clone()
    init_new_tokens(decoder, 3, torch.Generator().manual_seed(1))
    weight = decoder.token_embedding.weight.detach()
    assert torch.equal(weight[:-3], before[:-3]) and not torch.equal(weight[-3:], before[-3:])
    assert 0.5 < float(weight[-3:].std() / before.std()) < 2
    init_new_tokens(decoder, 0, torch.Generator().manual_seed(2))
    assert torch.equal(decoder.token_embedding.weight.detach(), weight)


def test_their_rows_alone_train_beside_adapters(make_decoder):
    decoder = make_decoder()
    add_adapters(decoder, LoraOptions(rank=2), 0)
    ids, layout = torch.tensor([5, 319, 7, 318]), Layout.of([4])
    before = decoder(ids, layout)
    train_new_tokens(decoder, 2)
    assert torch.equal(decoder(ids, layout), before), "nothing has changed yet"
    assert not decoder.token_embedding.weight.requires_grad
    decoder(ids, layout).sum().backward()
    assert decoder.new_embeddings is not None and decoder.new_embeddings.grad is not None
    assert (decoder.new_embeddings.grad.abs().sum(1) > 0).tolist() == [True, True]
    with torch.no_grad():
        decoder.new_embeddings += 1
    changed, frozen = decoder(ids, layout), decoder.token_embedding.weight[:-2].clone()
    merge_new_tokens(decoder)
    assert decoder.new_embeddings is None and torch.equal(decoder(ids, layout), changed)
    assert torch.equal(decoder.token_embedding.weight[:-2], frozen) and not torch.equal(changed, before)


def test_a_matrix_that_trains_needs_no_rows_of_its_own(make_decoder):
    decoder = make_decoder()
    train_new_tokens(decoder, 2)
    assert decoder.new_embeddings is None
    merge_new_tokens(decoder)
