"""Linear-Gaussian state-space models in continuous time: linear law, Gaussian start, linear-Gaussian observations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neurodyn.sde.kalman import (
    Filtered,
    Gaussian,
    Information,
    Observation,
    kalman_filter,
    kalman_information,
)
from neurodyn.sde.linear import MIN_VARIANCE, Double, FreeLinearLaw, LinearLaw, TrendOULaw
from neurodyn.series import SeriesBatch

COMPONENTS = ("level", "slope", "ou")


class LinearGaussian(Double):
    """A model that is filtered, smoothed and scored exactly. Subclasses give the law, the start and the observation.

    Attributes:
        law: the linear law of motion, d states.
    """

    law: LinearLaw

    def initial(self) -> Gaussian:
        """The law of the state at a row's first observed time: mean (d,), covariance (d, d)."""
        raise NotImplementedError

    def observation(self) -> Observation:
        """How D variables are read from the state."""
        raise NotImplementedError

    def filter(self, batch: SeriesBatch, observation: Observation | None = None) -> Filtered:
        """Exact filter: moments of the state at every visit, and the evidence of every visit in nats, (B, T).

        The start is the law of the state at the first visit, so rows must begin with an observed one (`compact`).
        `observation` replaces the model's own, for instance with one variance per value.
        """
        observation = self._for(batch, observation)
        return kalman_filter(self.law, self.initial(), observation, batch.times, batch.values, batch.mask)

    def information(self, batch: SeriesBatch, observation: Observation | None = None) -> Information:
        """What the data at and after every visit say about the state there."""
        observation = self._for(batch, observation)
        return kalman_information(self.law, observation, batch.times, batch.values, batch.mask)

    def evidence(self, batch: SeriesBatch) -> Tensor:
        """Exact log-density of each row's observed values, (B,), nats."""
        return self.filter(batch.compact()).evidence.sum(-1)

    def _for(self, batch: SeriesBatch, observation: Observation | None) -> Observation:
        observation = self.observation() if observation is None else observation
        if batch.num_variables != len(observation.bias):
            raise ValueError(f"batch: {batch.num_variables} variables given, {len(observation.bias)} wanted")
        return observation


class FreeLinearGaussian(LinearGaussian):
    """Every matrix a parameter of any value: dz = (A z + b) dt + G dW, z(t0) ~ N(m0, P0), y = H z + N(0, R).

    Args:
        matrix: A (d, d). noise: G (d, m). mean: m0 (d,). covariance: P0 (d, d), positive definite.
        loading: H (D, d). variance: R (D,), positive. offset: b (d,), zero if not given.
    """

    def __init__(
        self,
        matrix: Tensor,
        noise: Tensor,
        mean: Tensor,
        covariance: Tensor,
        loading: Tensor,
        variance: Tensor,
        offset: Tensor | None = None,
    ) -> None:
        super().__init__()
        size = len(matrix)
        shapes = {
            "mean": (mean, (size,)),
            "covariance": (covariance, (size, size)),
            "loading": (loading, (len(variance), size)),
        }
        for name, (given, wanted) in shapes.items():
            if tuple(given.shape) != wanted:
                raise ValueError(f"{name}: shape {tuple(given.shape)} given, {wanted} wanted")
        self.law = FreeLinearLaw(matrix, noise, offset)
        self.mean = nn.Parameter(mean.clone())
        root = torch.linalg.cholesky(covariance)
        self.log_diagonal = nn.Parameter(root.diagonal().log())
        self.below = nn.Parameter(root.tril(-1))
        self.loading = nn.Parameter(loading.clone())
        self.log_variance = nn.Parameter(variance.log())

    def initial(self) -> Gaussian:
        """m0 and P0."""
        root = torch.diag(self.log_diagonal.exp()) + self.below.tril(-1)
        return Gaussian(self.mean, root @ root.mT)

    def observation(self) -> Observation:
        """H and R."""
        return Observation(self.loading, torch.zeros_like(self.log_variance), self.log_variance.exp())


class TrendOU(LinearGaussian):
    """y = level + slope (t - t0) + ou + noise per variable, t0 the row's first observed time.

    A random level and slope per series, an Ornstein-Uhlenbeck process and white noise. With `joint`, levels and slopes
    have one covariance over all variables and the OU noises are correlated; without, a variable's own level and slope
    still are.

    Args:
        num_variables: D.
        components: some of "level", "slope", "ou"; a slope needs a level. Without a level, a constant mean is learned.
        joint: correlated over variables, or one model per variable.
    """

    law: TrendOULaw

    def __init__(self, num_variables: int, components: Sequence[str] = COMPONENTS, joint: bool = True) -> None:
        unknown = [name for name in components if name not in COMPONENTS]
        if unknown or not components:
            raise ValueError(f"components: {list(components)} given, some of {list(COMPONENTS)} wanted")
        super().__init__()
        self.num_variables, self.components, self.joint = num_variables, tuple(components), joint
        has = {name: name in components for name in COMPONENTS}
        self.law = TrendOULaw(num_variables, **has, joint=joint)
        trend = self.law.trend_size
        double = torch.float64
        self.mean = nn.Parameter(torch.zeros(max(trend, num_variables), dtype=double))
        spread = torch.tensor(([0.7] * num_variables + [0.1] * num_variables)[:trend], dtype=double)
        self.trend_log_scale = nn.Parameter(spread.log())
        self.trend_mixing = nn.Parameter(torch.zeros(trend, trend, dtype=double))
        self.log_noise = nn.Parameter(torch.full((num_variables,), math.log(0.4), dtype=double))
        mixed = torch.ones(trend, trend, dtype=torch.bool).tril(-1)
        if not joint:
            variable = torch.arange(trend) % num_variables
            mixed = mixed & (variable[:, None] == variable[None, :])
        self.register_buffer("_mixed", mixed, persistent=False)
        self._mixed: Tensor

    def initial(self) -> Gaussian:
        """Levels and slopes from their learned joint law, the OU part from its stationary one."""
        trend, size = self.law.trend_size, self.law.state_size
        eye = torch.eye(trend, dtype=self.mean.dtype, device=self.mean.device)
        root = self.trend_log_scale.exp()[:, None] * (eye + self.trend_mixing * self._mixed)
        covariance = nn.functional.pad(root @ root.mT + MIN_VARIANCE * eye, (0, size - trend, 0, size - trend))
        mean = nn.functional.pad(self.mean[:trend], (0, size - trend))
        if self.law.has_ou:
            covariance = covariance + nn.functional.pad(self.law.stationary_covariance(), (trend, 0, trend, 0))
        return Gaussian(mean, covariance)

    def observation(self) -> Observation:
        """Each variable is its level plus its OU part, plus noise."""
        eye = torch.eye(self.num_variables, dtype=self.mean.dtype, device=self.mean.device)
        none = torch.zeros_like(eye)
        parts = {"level": eye, "slope": none, "ou": eye}
        loading = torch.cat([parts[name] for name in COMPONENTS if name in self.components], 1)
        mean = self.mean[: self.num_variables]
        variance = (2 * self.log_noise).exp() + MIN_VARIANCE
        return Observation(loading, torch.zeros_like(mean) if self.law.has_level else mean, variance)
