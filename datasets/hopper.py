"""`hopper`: a simulated one-legged robot that falls, the data of the Latent ODE, with whole time points dropped.

Positions (7) and velocities (7) of MuJoCo's hopper (DeepMind control suite) from random starts, 200 steps of 5 ms.

Source: simulated by the recipe of the Latent ODE (YuliaRubanova/latent_ode, mujoco_physics.py): the control suite's
    hopper, positions and velocities uniform at random at the start, no control. 1000 series, NumPy seed 123; the file
    `hopper_1000x200.npz` was made with dm_control 1.0.50 and mujoco 3.17. Where it is not at hand, it is made anew,
    with the extra "hopper". The Latent ODE's own 10 000 series come as a pickle, which this package does not open.
Licence: of simulated numbers none is needed; the simulators are Apache-2.0.
Citation: Y. Rubanova, R. T. Q. Chen, D. Duvenaud, Latent ODEs for irregularly-sampled time series, NeurIPS 2019, arXiv
    1907.03907; E. Todorov, T. Erez, Y. Tassa, MuJoCo, IROS 2012.

Protocol: series are split 70/15/15 in their order, so that no two parts share one. Of each series one window of 60
steps is taken (`windows` of them, evenly spaced from its start), 50 to read and 10 to forecast, as Oh, Lim and Kim
(2024), arXiv 2402.14989, have it. Of the 50 a fraction of the time points is dropped, all variables together.
"""

from __future__ import annotations

import zipfile

import numpy as np
import torch

from neurodyn.datasets.sources import cache_folder, check, local, unreadable
from neurodyn.datasets.splits import Splits
from neurodyn.series import SeriesBatch

FOLDER, FILE = "hopper", "hopper_1000x200.npz"
SHA256 = "d9e320523e716fe8b094e18b01f6f14b23713aca25bdce2bff29acfce058d1c7"
SERIES, STEPS, SIZE = 1000, 200, 14
READ, AHEAD = 50, 10
PARTS = (0.7, 0.85)
VARIABLES = tuple(f"{kind} {joint}" for kind in ("position", "velocity") for joint in range(1, SIZE // 2 + 1))


def load(missing: float = 0.0, split: int = 0, windows: int = 1) -> Splits:
    """Splits of windows; time is in steps of 5 ms, 0 to 59, and a history ends at 49.

    Args:
        missing: fraction of the time points to read that is dropped, from 0 to below 1; a window keeps one at least.
        split: seed of what is dropped.
        windows: of each series, from 1 to 140.

    Raises:
        ValueError: a fraction or a number out of range, an altered file.
        FileNotFoundError: no file, and no simulator to make it.
    """
    if not 0 <= missing < 1:
        raise ValueError(f"missing: {missing} given, a fraction from 0 to below 1 wanted")
    length = READ + AHEAD
    if not 1 <= windows <= STEPS - length:
        raise ValueError(f"windows: {windows} given, 1 to {STEPS - length} wanted")
    series = read()
    starts = [round(k * (STEPS - length) / windows) for k in range(windows)]
    values = np.stack([series[:, start : start + length] for start in starts], 1).reshape(-1, length, SIZE)
    rng = np.random.default_rng(split)
    draw = rng.random((len(values), READ))
    keep = np.ones((len(values), length), dtype=bool)
    # so many of each window's own time points, and never all
    dropped = min(round(missing * READ), READ - 1)
    keep[:, :READ] = draw.argsort(1).argsort(1) >= dropped
    whole = SeriesBatch(
        torch.arange(length, dtype=torch.float64).expand(len(values), -1),
        torch.as_tensor(values, dtype=torch.float32),
        torch.as_tensor(keep)[..., None].expand(-1, -1, SIZE),
        ids=tuple(f"hopper-{k}@{start}" for k in range(len(series)) for start in starts),
        variables=VARIABLES,
    )
    edges = [0, *(round(part * len(series)) * windows for part in PARTS), len(values)]
    train, validation, test = (whole.rows(slice(low, high)) for low, high in zip(edges[:-1], edges[1:], strict=True))
    return Splits(
        train,
        validation,
        test,
        {
            "name": "hopper",
            "source": "simulated by the recipe of the Latent ODE",
            "licence": "none needed",
            "citation": "Rubanova et al. 2019, arXiv 1907.03907",
            "time_unit": "steps of 5 ms",
            "log": (),
            "static_names": (),
            "protocols": {"window": {"until": READ - 1.0}},
        },
    )


def read() -> np.ndarray:
    """The series, (1000, 200, 14) float32; simulated, and kept in the cache, where no file is at hand.

    Raises:
        FileNotFoundError: no file, and no simulator.
    """
    path = local(FOLDER, FILE)
    if path is not None:
        check(path, SHA256)
    else:
        path = cache_folder() / FOLDER / "simulated.npz"
        if not path.is_file():
            series = simulate(SERIES)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, x=series)
    try:
        with np.load(path, allow_pickle=False) as content:
            return _checked(content["x"])
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise unreadable(path, error) from error


def simulate(rows: int, seed: int = 123) -> np.ndarray:
    """So many series by the recipe, (rows, 200, 14) float32.

    Raises:
        FileNotFoundError: without dm_control, naming the extra that brings it.
    """
    try:
        from dm_control import suite
    except ImportError as error:
        raise FileNotFoundError(
            f"{FILE}: not here, and dm_control, to simulate it, is not installed: pip install 'neurodyn[hopper]', or "
            f"put the file at {cache_folder() / FOLDER / FILE} or at {FOLDER}/{FILE} in a folder that NEURODYN_DATA "
            "names"
        ) from error
    physics = suite.load("hopper", "stand").physics
    rng = np.random.RandomState(seed)
    series = np.empty((rows, STEPS, SIZE), np.float32)
    half = SIZE // 2
    for one in series:
        with physics.reset_context():
            # the robot starts above the ground, with its joints anywhere
            physics.data.qpos[:2] = rng.uniform(0, 0.5, 2)
            physics.data.qpos[2:] = rng.uniform(-2, 2, half - 2)
            physics.data.qvel[:] = rng.uniform(-5, 5, half)
        for state in one:
            state[:half], state[half:] = physics.data.qpos, physics.data.qvel
            physics.step()
    return series


def _checked(series: np.ndarray) -> np.ndarray:
    if series.shape != (SERIES, STEPS, SIZE) or not np.isfinite(series).all():
        raise ValueError(f"an array of shape {series.shape}, {(SERIES, STEPS, SIZE)} of finite numbers wanted")
    return series.astype(np.float32)
