"""`LinearSDE`: levels, slopes and Ornstein-Uhlenbeck parts, jointly over variables, fitted by exact evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import load_model, save_model
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.loss import Loss
from neurodyn.models.home import beside
from neurodyn.noise import RowNoise
from neurodyn.sde.kalman import smooth_at
from neurodyn.sde.linear import square_root
from neurodyn.sde.linear_gaussian import COMPONENTS, LinearGaussian, TrendOU
from neurodyn.series import SeriesBatch


class LinearSDE(nn.Module):
    """A linear-Gaussian SDE for irregular, partly observed series, with exact evidence, filter, smoother and forecasts.

    By default levels, slopes and Ornstein-Uhlenbeck parts, jointly over variables (`TrendOU`): on short clinical series
    the strongest cheap forecaster. With components ("level", "slope") and joint=False it is the linear mixed model,
    with ("ou",) and joint=False one Ornstein-Uhlenbeck Gaussian process per variable.

    Args:
        num_variables: D.
        components: some of "level", "slope", "ou".
        joint: correlated over variables or one model per variable.
        core: any other linear-Gaussian model, instead of the three.

    Works in float64, on its own device, and expects standardised values (`Scaling`). Evidence is in float64; forecasts
    come back in the dtype, and on the device, of the history.
    """

    def __init__(
        self,
        num_variables: int,
        components: Sequence[str] = COMPONENTS,
        joint: bool = True,
        *,
        core: LinearGaussian | None = None,
    ) -> None:
        super().__init__()
        named = {"num_variables": num_variables, "components": list(components), "joint": joint}
        self.config = named if core is None else None
        self.num_variables = num_variables
        self.core = TrendOU(num_variables, components, joint) if core is None else core

    def evidence(self, batch: SeriesBatch) -> Tensor:
        """Exact log-density of each row's observed values, (B,), nats."""
        return self.core.evidence(beside(batch, self))

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """The exact evidence as a `Loss` with no KL: for a linear-Gaussian model the bound is tight."""
        evidence = self.evidence(batch)
        zero = torch.zeros_like(evidence)
        return Loss(evidence, zero, zero, zero)

    def fit(
        self,
        train: SeriesBatch,
        validation: SeriesBatch | None = None,
        *,
        max_iterations: int = 150,
        tolerance: float = 1e-6,
    ) -> LinearSDE:
        """Maximise the exact evidence of `train` by L-BFGS with strong Wolfe line search; `validation` is not used.

        Where a search runs into a covariance that is not positive definite in float64, it begins anew at the best
        parameters so far, twice at most.

        Raises:
            ValueError: `train` has other variables than the model, or its evidence cannot be computed at all.
        """
        if train.num_variables != self.num_variables:
            raise ValueError(f"train: {train.num_variables} variables given, {self.num_variables} wanted")
        train = beside(train, self)
        parameters = [part for part in self.parameters() if part.requires_grad]
        observed, best, kept = train.mask.sum(), math.inf, [part.detach().clone() for part in parameters]

        def closure() -> Tensor:
            nonlocal best, kept
            for part in parameters:
                part.grad = None
            loss = -self.evidence(train).sum() / observed
            loss.backward()
            if loss.item() < best:
                best, kept = loss.item(), [part.detach().clone() for part in parameters]
            return loss

        for _ in range(3):
            optimiser = torch.optim.LBFGS(
                parameters,
                max_iter=max_iterations,
                history_size=20,
                tolerance_change=tolerance,
                line_search_fn="strong_wolfe",
            )
            try:
                optimiser.step(closure)
                break
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                with torch.no_grad():
                    for part, value in zip(parameters, kept, strict=True):
                        part.copy_(value)
        if not math.isfinite(best):
            raise ValueError(
                f"train: the exact evidence of {train.num_rows} rows cannot be computed (values up to "
                f"{float(train.values.abs().max()):.3g}, times up to {float(train.times.abs().max()):.3g}); values and "
                "times scaled by `Scaling` wanted"
            )
        return self

    def save(self, path: Path | str) -> Path:
        """Write a folder of weights (safetensors) and configuration (JSON); not for one with a core of your own."""
        return save_model(self, path)

    @classmethod
    def load(cls, path: Path | str) -> LinearSDE:
        """Read what `save` wrote. Nothing in the folder is executed. Raises as `load_model`."""
        return load_model(cls, path)

    @torch.no_grad()
    def sample_forecast(self, history: SeriesBatch, times: Tensor, num_samples: int, noise: RowNoise) -> Tensor:
        """Future values of a compact history from the exact predictive law, joint over times and variables.

        (S, B, H, D), at checked times (B, H).
        """
        filtered = self.core.filter(history)
        mean, covariance = filtered.mean[:, -1], filtered.covariance[:, -1]
        steps = torch.diff(times.to(history.times), dim=1, prepend=history.last_time[:, None])
        transition = self.core.law.transition(steps)
        observation, dtype, size = self.core.observation(), mean.dtype, self.core.law.state_size
        start = noise.samples("start", num_samples, size, dtype=dtype)
        state = mean + _apply(square_root(covariance), start)
        draws = noise.samples("path", num_samples, times.shape[1], size, dtype=dtype)
        moves = _apply(square_root(transition.covariance), draws)
        latent = []
        for k, move in enumerate(moves.unbind(2)):
            state = _apply(transition.matrix[:, k], state) + transition.offset[:, k] + move
            latent.append(state)
        values = torch.stack(latent, 2) @ observation.loading.mT + observation.bias
        errors = noise.samples("values", num_samples, *values.shape[2:], dtype=dtype)
        return (values + observation.variance.sqrt() * errors).to(history.dtype)

    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Forecast `history` at `times` (B, H), each row's not before its last observed time and not decreasing.

        Raises ValueError for times before the history.
        """
        asked_from, history = history.device, beside(history, self)
        times = check_forecast_times(history, times)
        noise = RowNoise.of(history, generator)
        samples = self.sample_forecast(history.compact(), times, num_samples, noise)
        return Forecast.of(history, times, samples).to(asked_from)

    @torch.no_grad()
    def smooth(self, batch: SeriesBatch, times: Tensor) -> tuple[Tensor, Tensor]:
        """The exact law of each value without its noise, given all of its row: mean and variance, both (B, H, D).

        Args:
            batch: B rows; covariates are not read.
            times: (B, H) or (H,), in any order; before a row's first observed time the law is that of this time.

        Raises:
            ValueError: times that are not finite or of another shape.
        """
        asked_from, known = batch.device, beside(batch, self).compact()
        given = torch.as_tensor(times).to(known.times)
        if given.ndim not in (1, 2) or (given.ndim == 2 and len(given) != known.num_rows):
            raise ValueError(f"times: shape {tuple(given.shape)} given, ({known.num_rows}, H) or (H,) wanted")
        if not bool(given.isfinite().all()):
            raise ValueError("times: some that are not finite given, finite ones wanted")
        asked = given.expand(known.num_rows, -1).maximum(known.first_time[:, None])
        inside = asked.minimum(known.last_time[:, None])
        filtered, information = self.core.filter(known), self.core.information(known)
        smoothed = smooth_at(self.core.law, filtered, information, known.times, inside)
        later, reading = self.core.law.transition(asked - inside), self.core.observation()
        state = _apply(later.matrix, smoothed.mean) + later.offset
        covariance = later.matrix @ smoothed.covariance @ later.matrix.mT + later.covariance
        mean = state @ reading.loading.mT + reading.bias
        variance = torch.einsum("vi,btij,vj->btv", reading.loading, covariance, reading.loading)
        return mean.to(asked_from), variance.to(asked_from)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
