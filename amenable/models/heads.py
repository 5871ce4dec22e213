"""One number instead of a vocabulary: reward models and critics."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amenable.models.decoder import Decoder, normal
from amenable.models.layout import Layout


class ScalarModel(nn.Module):
    """A decoder whose unembedding is a linear layer to one number.

    A critic reads the number at every token; a reward model reads it at the last token of a row,
    `model(ids, layout, at=layout.ends)`, which has seen the whole row. The decoder becomes part of the model (it is not
    copied) and loses an unembedding of its own, which nothing would use.
    """

    def __init__(self, decoder: Decoder):
        super().__init__()
        decoder.output, decoder.config = None, replace(decoder.config, tied=True)
        self.decoder = decoder
        device = decoder.token_embedding.weight.device
        self.score = nn.utils.skip_init(nn.Linear, decoder.config.width, 1, device=device)
        if device.type != "meta":
            nn.init.zeros_(self.score.weight)
            nn.init.zeros_(self.score.bias)

    @classmethod
    def from_decoder(cls, decoder: Decoder, generator: torch.Generator | None = None) -> ScalarModel:
        """Put a new head on a trained decoder, which becomes part of the model.

        The head starts at zero: every score is 0, and no size of the hidden states can make the first scores large.
        With a generator its weight has standard deviation 1 / sqrt(D + 1) instead (Stiennon et al., 2020, by their
        code), which suits hidden states of size 1.
        """
        model = cls(decoder)
        if generator is not None:
            weight = model.score.weight
            with torch.no_grad():
                weight.copy_(normal(weight.shape, 1 / math.sqrt(weight.shape[1] + 1), generator))
        return model

    def forward(self, ids: Tensor, layout: Layout, at: Tensor | None = None) -> Tensor:
        """A scalar at every token, ids [N] -> [N] in fp32, or [M] at the places `at` [M]."""
        hidden = self.decoder(ids, layout, at=at)
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), self.score.weight.float(), self.score.bias.float()).squeeze(-1)
