"""Honest spreads for point forecasts: residuals of the training set at the nearest horizons."""

from __future__ import annotations

import torch
from torch import Tensor


class ResidualBank:
    """Draws forecast errors from the training pairs whose horizon is nearest to the one asked for.

    One draw is a whole visit's residuals, so errors keep their correlation over variables; an entry that the drawn visit
    did not observe is filled by a draw for that variable alone. Draws at different forecast times are independent. Beyond
    the longest horizon of the training set, the window stays at the longest ones.

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
        self._single = [(self.horizon[known], self.residual[known, v]) for v, known in enumerate(self.mask.unbind(1))]

    def _draw(self, bank: Tensor, horizon: Tensor, num_samples: int, generator: torch.Generator | None) -> Tensor:
        """Indices (S, *horizon.shape) into a bank sorted by horizon."""
        width = min(self.neighbours, len(bank))
        middle = torch.searchsorted(bank, horizon.contiguous())
        start = (middle - width // 2).clamp(0, len(bank) - width)
        return start + torch.randint(width, (num_samples, *horizon.shape), generator=generator, device=horizon.device)

    def sample(self, horizon: Tensor, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Residuals (S, *horizon.shape, D) at the given horizons (any shape)."""
        horizon = horizon.to(self.horizon)
        index = self._draw(self.horizon, horizon, num_samples, generator)
        residual, known = self.residual[index], self.mask[index]
        if self.mask.all():
            return residual
        alone = [values[self._draw(bank, horizon, num_samples, generator)] for bank, values in self._single]
        return torch.where(known, residual, torch.stack(alone, -1))
