"""Small models with known answers, and data for them."""

import pytest
import torch
from torch import Tensor, nn

from neurodyn.series import SeriesBatch
from neurodyn.training import Loss


class MeanModel(nn.Module):
    """Unit-variance Gaussian observations around one mean per variable; nothing random unless asked for.

    The best mean is the mean of the observed values. `noisy` adds noise from the generator and dropout, both of which
    must be the same after a resume. `ragged` rows count by their observed values.
    """

    def __init__(self, num_variables: int = 2, noisy: bool = False) -> None:
        super().__init__()
        self.config = {"num_variables": num_variables, "noisy": noisy}
        self.mean = nn.Parameter(torch.zeros(num_variables))
        self.scale = nn.Linear(num_variables, num_variables, bias=False)
        self.scale.weight.data = torch.eye(num_variables)
        self.scale.requires_grad_(noisy)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.dropout = nn.Dropout(0.2 if noisy else 0.0)
        self.seen: list[tuple[str, ...]] = []

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        self.calls += 1
        self.seen.append(batch.ids or ())
        mean = self.scale(self.mean.expand_as(batch.values))
        if self.config["noisy"]:
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
            mean = self.dropout(mean + 0.1 * noise)
        squares = ((batch.values - mean) ** 2 * batch.mask).sum((1, 2)) / 2
        zero = torch.zeros_like(squares)
        return Loss(-squares, zero, zero + (self.mean**2).sum() * 0.01 * self.config["noisy"], zero)


def make_series(rows: int = 10, times: int = 6, seed: int = 3) -> SeriesBatch:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, times, 2, generator=generator, dtype=torch.float64) + torch.tensor([1.0, -2.0])
    mask = torch.rand(rows, times, 2, generator=generator) < 0.8
    mask[:, 0] = True
    when = torch.arange(times, dtype=torch.float64).expand(rows, times)
    return SeriesBatch(when, values, mask, ids=tuple(f"r{i}" for i in range(rows)))


def observed_mean(batch: SeriesBatch) -> Tensor:
    return (batch.values * batch.mask).sum((0, 1)) / batch.mask.sum((0, 1))


@pytest.fixture
def series() -> SeriesBatch:
    return make_series()


@pytest.fixture
def mean_model() -> type[MeanModel]:
    return MeanModel


@pytest.fixture
def mean_of_observed():
    return observed_mean
