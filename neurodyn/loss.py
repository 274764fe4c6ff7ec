"""The parts of a latent model's loss, kept apart so that each can be logged and weighted."""

from typing import NamedTuple

from torch import Tensor


class Loss(NamedTuple):
    """What a model's `loss(batch)` returns: parts of shape (B,), in nats per series."""

    log_likelihood: Tensor
    initial_kl: Tensor
    path_kl: Tensor
    filter_loss: Tensor
    """An auxiliary term that trains a filter for forecasting; not part of the ELBO."""

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound (B,) of each series, in nats."""
        return self.log_likelihood - self.initial_kl - self.path_kl

    def objective(self, kl_weight: float = 1.0) -> Tensor:
        """The scalar to minimise: the mean over series of -log-likelihood + kl_weight KL + filter loss."""
        kl = self.initial_kl + self.path_kl
        return (kl_weight * kl - self.log_likelihood + self.filter_loss).mean()
