"""Likelihoods of classes: Bernoulli and categorical."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodyn.likelihoods.base import Likelihood, Source, open_uniform


class BernoulliLikelihood(Likelihood):
    """Binary values; the decoder gives the log-odds of a one."""

    wanted_values = "0 or 1"

    def _log_density(self, values: Tensor, raw: Tensor) -> Tensor:
        logit = raw[..., 0, :]
        return values * logit - F.softplus(logit)

    def _mean(self, raw: Tensor) -> Tensor:
        return torch.sigmoid(raw[..., 0, :])

    def _sample(self, raw: Tensor, generator: Source) -> Tensor:
        chance = self._mean(raw)
        return (open_uniform(chance, generator) < chance).to(chance.dtype)

    def _acceptable(self, values: Tensor) -> Tensor:
        return (values == 0) | (values == 1)


class CategoricalLikelihood(Likelihood):
    """Values are class codes 0 ... num_classes - 1; the decoder gives each variable's class scores.

    ``mean`` is the expected code, which means something for ordered classes only: see `probabilities` for the rest.
    """

    def __init__(
        self,
        decoder: str | nn.Module,
        num_variables: int,
        num_classes: int,
        *,
        latent_size: int | None = None,
        hidden_size: int = 64,
    ):
        if num_classes < 2:
            raise ValueError(f"num_classes: got {num_classes}, want 2 or more")
        self.parameters_per_variable = num_classes
        super().__init__(decoder, num_variables, latent_size=latent_size, hidden_size=hidden_size)
        self.num_classes = num_classes
        self.wanted_values = f"whole numbers from 0 to {num_classes - 1}"

    def probabilities(self, latent: Tensor) -> Tensor:
        """(..., D, num_classes) given latents (..., d)."""
        return self._decode(latent).transpose(-1, -2).softmax(-1)

    def _log_density(self, values: Tensor, raw: Tensor) -> Tensor:
        scores = raw.log_softmax(-2)
        code = values.long().clamp(0, self.num_classes - 1).unsqueeze(-2)
        return scores.gather(-2, code.expand(*scores.shape[:-2], 1, scores.shape[-1])).squeeze(-2)

    def _mean(self, raw: Tensor) -> Tensor:
        codes = torch.arange(self.num_classes, device=raw.device, dtype=raw.dtype)
        return (raw.softmax(-2) * codes.unsqueeze(-1)).sum(-2)

    def _sample(self, raw: Tensor, generator: Source) -> Tensor:
        # The largest score plus Gumbel noise is a draw from the softmax.
        return (raw - (-open_uniform(raw, generator).log()).log()).argmax(-2).to(raw.dtype)

    def _acceptable(self, values: Tensor) -> Tensor:
        return (values >= 0) & (values < self.num_classes) & (values == values.round())
