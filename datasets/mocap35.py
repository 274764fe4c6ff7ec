"""`mocap35`: CMU motion capture, subject 35 walking, 23 sequences of 300 frames in 50 dimensions.

Source: the Carnegie Mellon motion capture database, mocap.cs.cmu.edu, as preprocessed by ODE2VAE (C. Yildiz); the
    same file in github.com/uncbiag/neuro_shooting at commit ebf80a9.
Licence: the data are free for use in research projects and in products, but not to be resold, even converted
    (mocap.cs.cmu.edu). Its owners ask for this text in publications: "The data used in this project was obtained from
    mocap.cs.cmu.edu. The database was created with funding from NSF EIA-0196217."
Citation: C. Yildiz, M. Heinonen, H. Lahdesmaki, ODE2VAE: Deep generative second order ODEs with Bayesian neural
    networks, NeurIPS 2019.

Protocol: 16 sequences train, 3 validate, 4 test; frames are 0.1 apart by convention. Setup 1: train on all 300
frames; of a test sequence the first 3 frames are known and 297 are predicted. Setup 2: train on the first 200 frames;
of a test sequence the first 100 frames are known and the next 200 predicted. The score is the mean squared error of
the predictive mean over all 50 dimensions in the units of the file; four of them never change (`info["constant"]`),
so `Scaling.fit` refuses them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
import torch

from neurodyn.datasets.sources import fetch, unreadable
from neurodyn.datasets.splits import Splits
from neurodyn.series import SeriesBatch

FOLDER, FILE = "mocap35", "mocap35.mat"
URL = (
    "https://raw.githubusercontent.com/uncbiag/neuro_shooting/"
    "ebf80a9c0a4515fdfffaa0c5418dc866e2776495/data/mocap/mocap35.mat"
)
SHA256 = "105484f138487f10209cce883d26e2e030d10a6df6f10159f4e6e253f9b03b8d"
FRAME = 0.1
CONSTANT = ("x25", "x26", "x32", "x33")
PROTOCOLS: dict[int, dict[str, int]] = {1: {"count": 3}, 2: {"count": 100}}
_TRAINED_FRAMES = {1: 300, 2: 200}


def load(setup: int = 1) -> Splits:
    """Splits of (16, 3, 4) fully observed rows; with setup 2 the training and validation rows end after 200 frames.

    Raises:
        ValueError: unknown setup; an altered file. FileNotFoundError: no file and no network.
    """
    if setup not in PROTOCOLS:
        raise ValueError(f"setup: {setup!r} given, 1 or 2 wanted")
    train, validation, test = read(fetch(FOLDER, FILE, URL, SHA256))
    frames = _TRAINED_FRAMES[setup]
    return Splits(
        _batch(train[:, :frames], "train"),
        _batch(validation[:, :frames], "validation"),
        _batch(test, "test"),
        {
            "name": "mocap35",
            "source": "mocap.cs.cmu.edu, subject 35, preprocessed by ODE2VAE",
            "licence": "free for use, not to be resold (mocap.cs.cmu.edu)",
            "citation": "Yildiz, Heinonen and Lahdesmaki, ODE2VAE, NeurIPS 2019",
            "time_unit": "0.1 per frame, by convention",
            "log": (),
            "static_names": (),
            "protocols": {f"setup{setup}": PROTOCOLS[setup]},
            "constant": CONSTANT,
        },
    )


def change_speed(batch: SeriesBatch, log_sd: float, generator: torch.Generator) -> SeriesBatch:
    """Augmentation: each walk at a speed of its own, exp(w) with w ~ N(0, log_sd²), within 3 sd.

    Frame k becomes the walk at frame s + exp(w) k, between frames on the line between them. A faster walk ends earlier;
    a slower one would end later, and keeps a stretch as long as the batch's, from a random frame s on.

    Args:
        batch: fully observed rows of evenly spaced frames, two or more.
        log_sd: of the speed; 0 changes nothing.
        generator: on the CPU.
    """
    rows, frames, size = batch.values.shape
    speed = torch.exp(log_sd * torch.randn(rows, 1, generator=generator, dtype=torch.float64).clamp(-3, 3))
    last = ((frames - 1) / speed + 1e-9).floor().clamp(max=frames - 1)
    start = torch.rand(rows, 1, generator=generator, dtype=torch.float64) * (frames - 1 - last * speed).clamp(min=0)
    place = torch.arange(frames, dtype=torch.float64)
    there = (place <= last).to(batch.device)
    position = (start + speed * torch.minimum(place, last)).clamp(max=frames - 1).to(batch.device)
    left = position.long().clamp(max=frames - 2)
    share = (position - left).to(batch.dtype)[..., None]
    index = left[..., None].expand(-1, -1, size)
    values = torch.lerp(batch.values.gather(1, index), batch.values.gather(1, index + 1), share)
    mask = there[..., None].expand(values.shape).clone()
    return SeriesBatch(batch.times, values, mask, ids=batch.ids, variables=batch.variables)


def stretches(batch: SeriesBatch, frames: int, generator: torch.Generator) -> SeriesBatch:
    """Augmentation: of each walk a stretch of `frames` observed frames from a random one on, its times from 0 on.

    Args:
        batch: rows without gaps; one with fewer frames is kept whole.
        generator: on the CPU.
    """
    count = batch.present.sum(1)
    room = (count.cpu() - frames).clamp(min=0) + 1
    first = (torch.rand(len(room), generator=generator, dtype=torch.float64) * room).long().to(batch.device)
    place = torch.arange(min(frames, batch.num_times), device=batch.device)
    index = (first[:, None] + place).clamp(max=batch.num_times - 1)
    wide = index[..., None].expand(-1, -1, batch.num_variables)
    times = batch.times.gather(1, index)
    mask = batch.mask.gather(1, wide) & (place < count[:, None])[..., None]
    return SeriesBatch(
        times - times[:, :1], batch.values.gather(1, wide), mask, ids=batch.ids, variables=batch.variables
    )


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrays (16, 300, 50), (3, 300, 50) and (4, 300, 50) of a .mat file."""
    try:
        content = scipy.io.loadmat(path, variable_names=["Xtr", "Xval", "Xtest"])
        parts = tuple(np.asarray(content[name], dtype=np.float64) for name in ("Xtr", "Xval", "Xtest"))
    except Exception as error:  # a broken .mat fails in many ways: zlib's, scipy's, a missing key
        raise unreadable(path, error) from error
    shapes = [part.shape for part in parts]
    if shapes != [(16, 300, 50), (3, 300, 50), (4, 300, 50)]:
        raise ValueError(
            f"{path}: shapes {shapes} given, (16, 300, 50), (3, 300, 50) and (4, 300, 50) wanted; delete it"
        )
    return parts  # type: ignore[return-value]


def _batch(values: np.ndarray, part: str) -> SeriesBatch:
    rows, frames, size = values.shape
    return SeriesBatch(
        (torch.arange(frames, dtype=torch.float64) * FRAME).expand(rows, -1).clone(),
        torch.as_tensor(values, dtype=torch.get_default_dtype()),
        ids=tuple(f"{part}-{k}" for k in range(rows)),
        variables=tuple(f"x{k + 1}" for k in range(size)),
    )
