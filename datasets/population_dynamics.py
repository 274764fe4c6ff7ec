"""Simulated populations with known rates: Poisson neurons driven by a Lorenz system or by a chaotic network.

`lorenz`: the states of dx = 10 (y - x), dy = x (28 - z) - y, dz = x y - 8/3 z, standardised, through random loadings
and an exponential; a trial starts from one of `conditions` points of the attractor (Sussillo et al. 2016, "LFADS",
arXiv 1608.06315, section 4.1).

`chaotic_rnn`: tau dh = -h + gain J tanh(h), J of N(0, 1 / units); a random subset of units is seen, with rates
proportional to (1 + tanh h) / 2 (the same paper, section 4.2).

Licence: that of this software.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from neurodyn.datasets.spikes import spike_batch
from neurodyn.datasets.splits import Splits

Array = NDArray[np.float64]
STEP = 0.001
"""Of the simulations, in s."""


def load(
    system: Literal["lorenz", "chaotic_rnn"] = "lorenz",
    conditions: int = 12,
    trials: int = 10,
    neurons: int = 30,
    bins: int = 50,
    bin_width: float = 0.02,
    mean_rate: float = 8.0,
    seed: int = 0,
) -> Splits:
    """`trials` of each condition, split 60/20/20 within conditions; `labels` are conditions.

    Args:
        mean_rate: in Hz, over neurons. bin_width: in s.

    `info` holds `bin_width`, `held_out` (a fifth of the neurons), and by part `rates` and `latents`, as in
    `lorenz_spikes`.

    Raises:
        ValueError: unknown system; sizes too small to split.
    """
    if system not in ("lorenz", "chaotic_rnn"):
        raise ValueError(f"system: {system!r} given, 'lorenz' or 'chaotic_rnn' wanted")
    for name, given, least in (("trials", trials, 5), ("neurons", neurons, 5), ("conditions", conditions, 1)):
        if given < least:
            raise ValueError(f"{name}: {given} given, {least} or more wanted")
    random = np.random.default_rng(seed)
    latents, levels = (_lorenz if system == "lorenz" else _chaotic)(random, conditions, neurons, bins, bin_width)
    expected = levels * (mean_rate * bin_width / levels.mean())
    condition = np.repeat(np.arange(conditions), trials)
    counts = random.poisson(expected[condition]).astype(float)
    batch = spike_batch(
        counts, bin_width, labels=torch.as_tensor(condition), ids=[f"trial-{k}" for k in range(len(counts))]
    )
    place = np.tile(np.arange(trials) / trials, conditions)
    parts = {"train": place < 0.6, "validation": (place >= 0.6) & (place < 0.8), "test": place >= 0.8}
    rows = {name: np.flatnonzero(chosen) for name, chosen in parts.items()}
    info: dict[str, Any] = {
        "name": "population_dynamics",
        "source": f"simulated, {system}, seed {seed}",
        "licence": "that of this software",
        "citation": "Sussillo et al., arXiv 1608.06315",
        "time_unit": "s",
        "log": (),
        "static_names": (),
        "protocols": {"half": {"fraction": 0.5}},
        "bin_width": bin_width,
        "held_out": tuple(sorted(random.permutation(neurons)[: neurons // 5].tolist())),
        "rates": {name: torch.as_tensor(expected[condition[index]]) for name, index in rows.items()},
        "latents": {name: torch.as_tensor(latents[condition[index]]) for name, index in rows.items()},
    }
    train, validation, test = (batch.rows(torch.as_tensor(index)) for index in rows.values())
    return Splits(train, validation, test, info)


def _lorenz(
    random: np.random.Generator, conditions: int, neurons: int, bins: int, bin_width: float
) -> tuple[Array, Array]:
    """States (conditions, bins, 3) and levels (conditions, bins, neurons)."""
    x = random.normal(size=(conditions, 3)) + np.array([0.0, 0.0, 25.0])
    pace = 1.5 * STEP  # a second of a trial is 1.5 units of the system's time
    every = max(1, round(bin_width / STEP))

    def slope(x: Array) -> Array:
        a, b, c = x.T
        return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], 1)

    def move(x: Array) -> Array:
        middle = x + 0.5 * pace * slope(x)
        return x + pace * slope(middle)

    for _ in range(5000):  # onto the attractor
        x = move(x)
    path = np.empty((conditions, bins, 3))
    for k in range(bins):
        path[:, k] = x
        for _ in range(every):
            x = move(x)
    path = (path - path.mean((0, 1))) / path.std((0, 1))
    loading = random.normal(size=(3, neurons)) * 0.5
    return path, np.exp(path @ loading + 0.3 * random.normal(size=neurons))


def _chaotic(
    random: np.random.Generator, conditions: int, neurons: int, bins: int, bin_width: float
) -> tuple[Array, Array]:
    """The first 20 principal components of the states, and the levels of the neurons that are seen."""
    units, gain, tau = max(50, neurons), 1.5, 0.05
    weights = random.normal(size=(units, units)) / np.sqrt(units)
    h = random.normal(size=(conditions, units))
    every = max(1, round(bin_width / STEP))
    path = np.empty((conditions, bins, units))
    for k in range(bins):
        path[:, k] = h
        for _ in range(every):
            h = h + STEP / tau * (-h + gain * np.tanh(h) @ weights.T)
    flat = path.reshape(-1, units)
    flat = flat - flat.mean(0)
    axes = np.linalg.svd(flat, full_matrices=False)[2][: min(20, units)]
    chosen = random.permutation(units)[:neurons]
    return (flat @ axes.T).reshape(conditions, bins, -1), (1 + np.tanh(path[..., chosen])) / 2 + 1e-3
