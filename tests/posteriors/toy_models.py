"""Small linear-Gaussian models, batches and contexts, and the explicit Gaussian of a row's states, for these tests."""

import torch
from torch import Tensor

from neurodyn.nets.context import Context
from neurodyn.sde.kalman import Observation
from neurodyn.sde.linear_gaussian import FreeLinearGaussian, LinearGaussian, TrendOU
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64


def free_core(offset: Tensor | None = None) -> FreeLinearGaussian:
    """Two states that turn around each other, two variables; b = 0.3, -0.2 unless given."""
    return FreeLinearGaussian(
        matrix=torch.tensor([[-0.8, 1.0], [-1.2, -0.5]], dtype=DOUBLE),
        noise=torch.tensor([[0.7, 0.0], [0.3, 0.5]], dtype=DOUBLE),
        mean=torch.tensor([0.4, -0.1], dtype=DOUBLE),
        covariance=torch.tensor([[0.8, 0.2], [0.2, 0.5]], dtype=DOUBLE),
        loading=torch.tensor([[1.0, 0.0], [0.4, 1.0]], dtype=DOUBLE),
        variance=torch.tensor([0.2, 0.1], dtype=DOUBLE),
        offset=torch.tensor([0.3, -0.2], dtype=DOUBLE) if offset is None else offset,
    )


def lively_trend(variables: int, seed: int = 0) -> TrendOU:
    """A `TrendOU` with all parameters away from their start."""
    generator = torch.Generator().manual_seed(seed)
    core = TrendOU(variables)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=DOUBLE))
    return core


def ragged(variables: int, rows: int = 3, visits: int = 5, seed: int = 0, missing: float = 0.3) -> SeriesBatch:
    """Irregular rows of unlike lengths with missing entries, float64, with ids."""
    generator = torch.Generator().manual_seed(seed)
    times = 0.1 + torch.rand(rows, visits, generator=generator, dtype=DOUBLE).cumsum(1) * 0.8
    values = torch.randn(rows, visits, variables, generator=generator, dtype=DOUBLE)
    mask = torch.rand(rows, visits, variables, generator=generator) >= missing
    mask[:, 0, 0] = True
    if rows > 1:
        mask[0, visits - visits // 3 :] = False
    return SeriesBatch(times, values, mask, ids=tuple(f"row-{k}" for k in range(rows))).compact()


def context_for(batch: SeriesBatch, features: int, seed: int = 0) -> Context:
    """Random features, in place of an encoder's."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(batch.num_rows, batch.num_times, features, generator=generator, dtype=DOUBLE)
    return Context(batch, table, table[:, -1])


def visit_states(model: LinearGaussian, times: Tensor) -> tuple[Tensor, Tensor]:
    """Prior mean (T d,) and covariance (T d, T d) of the states at sorted `times` (T,), from the transitions."""
    mean0, cov0 = model.initial()
    size, count = len(mean0), len(times)
    means, cov = [], torch.zeros(count, size, count, size, dtype=DOUBLE)
    for i in range(count):
        start = model.law.transition(times[i] - times[0])
        means.append(start.matrix @ mean0 + start.offset)
        at_i = start.matrix @ cov0 @ start.matrix.mT + start.covariance
        for j in range(i, count):
            later = model.law.transition(times[j] - times[i]).matrix @ at_i
            cov[j, :, i], cov[i, :, j] = later, later.mT
    return torch.cat(means), cov.reshape(count * size, count * size)


@torch.no_grad()
def drawn_from(model: LinearGaussian, batch: SeriesBatch, seed: int = 0) -> SeriesBatch:
    """The batch with values that the model made."""
    generator = torch.Generator().manual_seed(seed)
    loading, bias, variance = model.observation()
    values = torch.zeros_like(batch.values)
    for row in range(batch.num_rows):
        times = batch.times[row, : int(batch.present[row].sum())]
        mean, cov = visit_states(model, times)
        root = torch.linalg.cholesky(cov + 1e-10 * torch.eye(len(cov), dtype=DOUBLE))
        z = (mean + root @ torch.randn(len(mean), generator=generator, dtype=DOUBLE)).view(len(times), -1)
        noise = torch.randn(len(times), len(bias), generator=generator, dtype=DOUBLE)
        values[row, : len(times)] = z @ loading.mT + bias + variance.sqrt() * noise
    return batch._with(values=torch.where(batch.mask, values, 0.0))


def conditioned_states(
    model: LinearGaussian, times: Tensor, values: Tensor, mask: Tensor, observation: Observation
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-density of a row's values (T, D), and mean and covariance of its states at `times` given them."""
    mean, cov = visit_states(model, times)
    seen = mask.flatten()
    big = torch.block_diag(*[observation.loading] * len(times))[seen]
    variance = observation.variance.expand(values.shape).flatten()[seen]
    gap = (values - observation.bias).flatten()[seen] - big @ mean
    total = big @ cov @ big.mT + torch.diag(variance)
    gain = torch.linalg.solve(total, big @ cov).mT
    density = torch.distributions.MultivariateNormal(torch.zeros_like(gap), total).log_prob(gap)
    return density, mean + gain @ gap, cov - gain @ big @ cov


def gaussian_kl(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> Tensor:
    """KL( N(mean, cov) || N(other) ), one pair."""
    normal = torch.distributions.MultivariateNormal
    return torch.distributions.kl_divergence(normal(mean, cov), normal(other_mean, other_cov))
