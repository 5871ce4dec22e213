"""Linear heads on a decoder: reward models, critics and classifiers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amenable.models.decoder import Decoder, is_plain, normal
from amenable.models.layout import Layout


class ScalarModel(nn.Module):
    """Decoder with a linear layer to one scalar (`score`) in place of the unembedding.

    A critic reads the scalar at every token, a reward model at the last token of each row,
    `model(ids, layout, at=layout.last_tokens)`. The decoder is not copied; an untied unembedding is removed from it.
    """

    def __init__(self, decoder: Decoder, outputs: int = 1):
        super().__init__()
        decoder.output, decoder.config = None, replace(decoder.config, tie_embeddings=True)
        self.decoder = decoder
        self.pad_id: int | None = None
        """id of padding that a published classifier also writes as a token: it is scored at the last other token"""
        device = decoder.token_embedding.weight.device
        self.score = nn.utils.skip_init(nn.Linear, decoder.config.hidden_size, outputs, device=device)
        if device.type != "meta":
            nn.init.zeros_(self.score.weight)
            nn.init.zeros_(self.score.bias)

    @classmethod
    def from_decoder(cls, decoder: Decoder, generator: torch.Generator | None = None) -> ScalarModel:
        """Put a new head on a trained decoder, which becomes part of the model.

        The head starts at zero, so first scores are 0 for hidden states of any size. With a generator its weight has
        standard deviation 1 / sqrt(D + 1) instead (Stiennon et al., 2020, by their code), for hidden states of size 1.
        """
        model = cls(decoder)
        if generator is not None:
            weight = model.score.weight
            with torch.no_grad():
                weight.copy_(normal(weight.shape, 1 / math.sqrt(weight.shape[1] + 1), generator))
        return model

    @torch.no_grad()
    def center(self, rewards: Tensor) -> None:
        """Shift the bias so that `rewards` [N], computed by this model, would have mean 0."""
        self.score.bias -= rewards.mean().to(self.score.bias.device)

    def forward(self, ids: Tensor, layout: Layout, at: Tensor | None = None) -> Tensor:
        """Return a scalar per token, ids [N] -> [N] in fp32, or [M] at the flat indices `at` [M]; of K > 1 outputs
        [N, K], or [M, K]."""
        return scalars(self.score, self.decoder(ids, layout, at=at))


class Classifier(ScalarModel):
    """Decoder with a linear layer to a logit for each of K labels (`score`, without bias), read at the last token of a
    row (Radford et al., 2018, section 3.2). One label is a number: a regression's, or the score of a choice.

    predicts_tokens: keep the unembedding, for an auxiliary language-model loss.
    """

    def __init__(self, decoder: Decoder, labels: Sequence[str], predicts_tokens: bool = False):
        output, config = decoder.output, decoder.config
        super().__init__(decoder, len(labels))
        self.labels, self.predicts_tokens = tuple(labels), predicts_tokens
        if predicts_tokens:
            decoder.output, decoder.config = output, config
        self.score.bias.requires_grad_(False)

    def drop_unembedding(self) -> None:
        """Remove an untied unembedding, which a saved classifier does not have."""
        self.decoder.output, self.decoder.config = None, replace(self.decoder.config, tie_embeddings=True)
        self.predicts_tokens = False

    @torch.no_grad()
    def rescale(self, scale: float, shift: float) -> None:
        """Change outputs s, in place, to scale * s + shift."""
        self.score.weight *= scale
        self.score.bias.mul_(scale).add_(shift)


class ValueHead(nn.Module):
    """Linear layer to one scalar on the hidden states of a decoder, which is no part of it; it starts at zero."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.score = nn.Linear(decoder.config.hidden_size, 1, device=decoder.token_embedding.weight.device)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return a scalar per hidden state, [M, D] -> [M] in fp32."""
        return scalars(self.score, hidden)


def scalars(score: nn.Linear, hidden: Tensor) -> Tensor:
    """Return a linear layer's scalar per hidden state, [M, D] -> [M], or [M, K] of K outputs; fp32 under autocast."""
    with torch.autocast(hidden.device.type, enabled=False):
        if not is_plain(score):
            return score(hidden.float()).squeeze(-1)
        return F.linear(hidden.float(), score.weight.float(), score.bias.float()).squeeze(-1)


def critic_from_policy(policy: Decoder) -> ScalarModel:
    """Copy a policy's body under a zero head: a critic whose first values are 0, for rewards that are no model. All of
    its parameters are trained, whatever the policy's are."""
    return ScalarModel.from_decoder(copy.deepcopy(policy)).requires_grad_(True)
