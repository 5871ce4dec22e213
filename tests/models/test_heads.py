import math
from dataclasses import replace

import pytest
import torch

from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import Classifier, ScalarModel, critic_from_policy
from amenable.models.layout import Layout

CONFIG = DecoderConfig(31, context_length=32, num_layers=1, hidden_size=16, num_heads=2)


def tokens(count):
    return torch.randint(0, 31, (count,), generator=torch.Generator().manual_seed(0))


def test_a_number_at_every_token_and_the_score_at_the_last():
    model = ScalarModel.from_decoder(Decoder(CONFIG), torch.Generator().manual_seed(1)).eval()
    torch.nn.init.constant_(model.score.bias, 0.25)
    layout, ids = Layout.of([3, 5]), tokens(8)
    values = model(ids, layout)
    hidden = model.decoder(ids, layout)
    assert values.shape == (8,)
    torch.testing.assert_close(values, hidden @ model.score.weight[0] + 0.25)
    alone = model(ids[3:], Layout.of([5]))
    torch.testing.assert_close(values[layout.last_tokens][1], alone[-1])  # neighbours do not matter


def test_numbers_are_fp32_under_autocast():
    model = ScalarModel.from_decoder(Decoder(CONFIG), torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(tokens(4), Layout.of([4])).dtype == torch.float32


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_a_new_head_scores_zero_whatever_the_size_of_the_hidden_states(size):
    decoder = Decoder(CONFIG)
    torch.nn.init.constant_(decoder.final_norm.weight, size)
    for model in (ScalarModel.from_decoder(decoder), ScalarModel(decoder)):
        assert model.decoder(tokens(8), Layout.of([8])).std() > 0.3 * size
        assert model(tokens(8), Layout.of([8])).tolist() == [0.0] * 8


def test_a_new_head_learns_first_and_the_body_after_it():
    model = ScalarModel.from_decoder(Decoder(CONFIG))
    layout, optimizer = Layout.of([3, 5]), torch.optim.SGD(model.parameters(), lr=0.1)
    sizes = []
    for _ in range(2):
        better, worse = model(tokens(8), layout, at=layout.last_tokens)
        (worse - better).backward()
        sizes.append([float(p.grad.abs().max()) for p in (model.score.weight, model.decoder.layers[0].mlp.up.weight)])
        optimizer.step()
        optimizer.zero_grad()
    assert sizes[0][0] > 0 and sizes[0][1] == 0 and min(sizes[1]) > 0


def test_a_random_head_has_the_papers_deviation():
    config = DecoderConfig(31, context_length=8, num_layers=1, hidden_size=4096, num_heads=1, mlp_width=1)
    model = ScalarModel.from_decoder(Decoder(config), torch.Generator().manual_seed(0))
    std = 1 / math.sqrt(4097)
    assert float(model.score.weight.detach().std()) == pytest.approx(std, rel=5 / math.sqrt(2 * 4096))
    assert model.score.bias.tolist() == [0.0]


def test_an_unembedding_of_its_own_is_dropped():
    decoder = Decoder(
        DecoderConfig(31, context_length=32, num_layers=1, hidden_size=16, num_heads=2, tie_embeddings=False)
    )
    model = ScalarModel(decoder)
    assert model.decoder is decoder
    assert not any(name.startswith("decoder.output") for name, _ in model.named_parameters())
    model(tokens(4), Layout.of([4])).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_critic_from_a_policy_values_everything_at_nought_and_shares_nothing() -> None:
    policy = Decoder(CONFIG)
    policy.init_weights(torch.Generator().manual_seed(0))
    policy.token_embedding.requires_grad_(False)
    critic = critic_from_policy(policy)
    assert torch.equal(critic(torch.arange(9), Layout.of([4, 5])), torch.zeros(9))
    assert all(parameter.requires_grad for parameter in critic.parameters())
    body = dict(critic.decoder.named_parameters())
    assert all(torch.equal(p, body[name]) for name, p in policy.named_parameters() if name in body)
    with torch.no_grad():
        critic.decoder.token_embedding.weight.add_(1.0)
    assert policy.unembedding is not None and not policy.token_embedding.weight.equal(
        critic.decoder.token_embedding.weight
    )


def test_a_centred_model_has_mean_reward_zero() -> None:
    model = ScalarModel.from_decoder(Decoder(CONFIG), torch.Generator().manual_seed(0))
    with torch.no_grad():
        rewards = model(tokens(8), Layout.of([3, 5]))
        model.center(rewards)
        assert rewards.mean().abs() > 1e-3 and model(tokens(8), Layout.of([3, 5])).mean().abs() < 1e-6


@pytest.mark.parametrize("tied", [True, False])
def test_a_classifier_has_logits_and_keeps_the_unembedding_while_it_predicts(tied):
    decoder = Decoder(replace(CONFIG, tie_embeddings=tied))
    before = decoder.padded_unembedding
    model = Classifier(decoder, ("no", "yes", "maybe"), predicts_tokens=True).eval()
    layout = Layout.of([3, 5])
    assert not model(tokens(8), layout).any() and model(tokens(8), layout, at=layout.last_tokens).shape == (2, 3)
    assert decoder.padded_unembedding is before and not model.score.bias.requires_grad
    model.drop_unembedding()
    assert decoder.output is None and decoder.config.tie_embeddings
    assert Classifier(Decoder(CONFIG), ("score",))(tokens(8), layout).shape == (8,), "one label is a number"


def test_outputs_are_rescaled_in_place():
    model = Classifier(Decoder(CONFIG), ("score",)).eval()
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    before = model(tokens(3), Layout.of([3]))
    model.rescale(2.0, -1.0)
    torch.testing.assert_close(model(tokens(3), Layout.of([3])), 2 * before - 1)
