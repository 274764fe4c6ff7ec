"""`lorenz`: the stochastic Lorenz system, as torchsde, SDE Matching and Helmholtz-SDE use it.

    dx1 = 10 (x2 - x1) dt + b1 x1 dW1
    dx2 = (x1 (28 - x3) - x2) dt + b2 x2 dW2
    dx3 = (x1 x2 - 8/3 x3) dt + b3 x3 dW3

in the sense of Ito, x(0) ~ N(0, I), observed on a grid. Every dimension is standardised by the mean and sd of the
training rows, over rows and times, and Gaussian noise is added.

Setting `matching` (Bartosh, Vetrov, Naesseth, SDE Matching, ICML 2025): b = (.15, .15, .15), 41 times in [0, 1], 100
Euler-Maruyama steps per interval, observed with noise of sd 0.01.
Setting `torchsde` (Li, Wong, Chen, Duvenaud, Scalable gradients for SDEs, AISTATS 2020, the library's example): b =
(.1, .28, .3), 100 times in [0, 2]; here 80 steps per interval, about the same step; noise of sd 0.01.
Setting `noisy` (Smith, Trippe, Linderman, Helmholtz-SDE, arXiv 2606.16138): additive noise, b_i dW_i with b = (5, 5,
5), 21 times in [0, 5], 250 steps per interval, observed with noise of sd 0.3.
Source: simulated here. Licence: that of this software.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neurodyn.datasets.splits import Splits
from neurodyn.series import SeriesBatch


class Setting(NamedTuple):
    """Noise b of each coordinate, end of time, number of observation times, steps between two of them.

    additive: the noise is b dW instead of b x dW. noise_sd: of the standardised observations.
    """

    noise: tuple[float, float, float]
    end: float
    times: int
    steps: int
    additive: bool = False
    noise_sd: float = 0.01


SETTINGS = {
    "matching": Setting((0.15, 0.15, 0.15), 1.0, 41, 100),
    "torchsde": Setting((0.1, 0.28, 0.3), 2.0, 100, 80),
    "noisy": Setting((5.0, 5.0, 5.0), 5.0, 21, 250, additive=True, noise_sd=0.3),
}
_PAPERS = {
    "matching": "Bartosh, Vetrov and Naesseth, ICML 2025",
    "torchsde": "Li et al., AISTATS 2020",
    "noisy": "Smith, Trippe and Linderman, arXiv 2606.16138",
}


def load(setting: str = "matching", rows: int = 1024, held_out: int = 256, seed: int = 0) -> Splits:
    """`rows` training rows and `held_out` each for validation and test, standardised, variables x1, x2, x3.

    `info` gives the true law: `noise`, `mean` and `sd` of the standardisation (3,), `noise_sd` of the observations.

    Raises:
        ValueError: unknown setting; fewer than one row.
    """
    if setting not in SETTINGS:
        raise ValueError(f"setting: {setting!r} given, one of {list(SETTINGS)} wanted")
    if min(rows, held_out) < 1:
        raise ValueError(f"rows, held_out: {rows}, {held_out} given, at least 1 wanted")
    noise, end, count, steps, additive, noise_sd = SETTINGS[setting]
    generator = torch.Generator().manual_seed(seed)
    times = torch.linspace(0, end, count, dtype=torch.float64)
    paths = simulate(rows + 2 * held_out, times, noise, steps, generator, additive=additive)
    mean, sd = paths[:rows].mean((0, 1)), paths[:rows].std((0, 1))
    values = (paths - mean) / sd
    values = values + noise_sd * torch.randn(values.shape, dtype=values.dtype, generator=generator)
    whole = SeriesBatch(
        times.expand(len(values), -1).clone(),
        values.to(torch.get_default_dtype()),
        ids=tuple(f"path-{k}" for k in range(len(values))),
        variables=("x1", "x2", "x3"),
    )
    return Splits(
        whole.rows(slice(0, rows)),
        whole.rows(slice(rows, rows + held_out)),
        whole.rows(slice(rows + held_out, None)),
        {
            "name": "lorenz",
            "source": f"simulated, setting {setting}, seed {seed}",
            "licence": "that of this software",
            "citation": _PAPERS[setting],
            "time_unit": "time of the Lorenz system",
            "log": (),
            "static_names": (),
            "protocols": {"half": {"fraction": 0.5}},
            "noise": noise,
            "mean": mean,
            "sd": sd,
            "noise_sd": noise_sd,
        },
    )


def simulate(
    rows: int,
    times: Tensor,
    noise: tuple[float, float, float],
    steps: int,
    generator: torch.Generator,
    *,
    additive: bool = False,
) -> Tensor:
    """Euler-Maruyama paths (rows, T, 3), float64, at `times` (T,); `steps` per interval, x(times[0]) ~ N(0, I)."""
    x = torch.randn(rows, 3, dtype=torch.float64, generator=generator)
    scale = torch.tensor(noise, dtype=torch.float64)
    path = [x]
    for gap in times.diff().tolist():
        dt = gap / steps
        for _ in range(steps):
            x1, x2, x3 = x.unbind(1)
            drift = torch.stack([10 * (x2 - x1), x1 * (28 - x3) - x2, x1 * x2 - 8 / 3 * x3], 1)
            dw = torch.randn(rows, 3, dtype=torch.float64, generator=generator) * dt**0.5
            x = x + drift * dt + (scale if additive else scale * x) * dw
        path.append(x)
    return torch.stack(path, 1)
