"""Honest spreads for point forecasts: residuals of the training set at the nearest horizons."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.noise import RowNoise


class ResidualBank:
    """Draws forecast errors from the training pairs whose horizon is nearest to the one asked for.

    One draw is a whole visit's residuals, so errors keep their correlation over variables; an entry that the drawn
    visit did not observe is filled by a draw for that variable alone. Draws at different forecast times are
    independent. Beyond the longest horizon of the training set, the window stays at the longest ones.

    Args:
        horizon: (N,) of the training pairs, N >= 1.
        residual: (N, D) truth minus point forecast.
        mask: (N, D) bool, where the residual is known. Each variable needs at least one.
        neighbours: how many pairs, nearest in rank of horizon, a draw chooses from; fewer if there are not as many.
    """

    def __init__(self, horizon: Tensor, residual: Tensor, mask: Tensor, neighbours: int = 400) -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours: {neighbours} given, 1 or more wanted")
        bare = (~mask.any(0)).nonzero()[:, 0].tolist()
        if bare:
            raise ValueError(f"residual: no known residual of variable {bare[0]} given, one or more wanted")
        order = torch.argsort(horizon, stable=True)
        self.horizon, self.residual, self.mask = horizon[order], residual[order], mask[order]
        self.neighbours = neighbours
        self._complete = bool(mask.all())
        self._single = [(self.horizon[known], self.residual[known, v]) for v, known in enumerate(self.mask.unbind(1))]

    def _draw(self, bank: Tensor, horizon: Tensor, num_samples: int, noise: RowNoise, purpose: str) -> Tensor:
        """Indices (S, B, H) into a bank sorted by horizon."""
        width = min(self.neighbours, len(bank))
        middle = torch.searchsorted(bank, horizon.contiguous())
        start = (middle - width // 2).clamp(0, len(bank) - width)
        uniform = noise.uniform(purpose, num_samples, horizon.shape[1]).transpose(0, 1)
        return start + (uniform * width).long().clamp(max=width - 1)

    def sample(self, horizon: Tensor, num_samples: int, noise: RowNoise) -> Tensor:
        """Residuals (S, B, H, D) at the horizons (B, H) of the noise's B rows."""
        horizon = horizon.to(self.horizon)
        index = self._draw(self.horizon, horizon, num_samples, noise, "visit")
        residual = self.residual[index]
        if self._complete:
            return residual
        alone = [
            values[self._draw(bank, horizon, num_samples, noise, f"variable {v}")]
            for v, (bank, values) in enumerate(self._single)
        ]
        return torch.where(self.mask[index], residual, torch.stack(alone, -1))
