"""`lorenz_spikes`: 60 neurons driven by a Lorenz system, Poisson counts with the rates that made them.

800 trials of 1 s in bins of 10 ms: 20 initial conditions with 40 trials each.

Source: felixp8/lfads-nlb-tutorials, data/lfads_lorenz.h5, simulated as in Pandarinath et al. (2018), "Inferring
    single-trial neural population dynamics using sequential auto-encoders", Nature Methods 15.
Licence: none is stated; `load` says so.

Protocol. Fifteen neurons, the same ones always, are held out: a model reads the other 45. `split="file"` tests on the
file's own validation trials, whose initial conditions are those of the training trials, so memory is enough for them;
`split="conditions"` tests on four initial conditions that no training trial has: some that are like those of training,
and one that is far from all; with a fold, on a fifth of all conditions in turn. Rates inferred from the very spikes
that are scored can beat the true rates, so only held-out neurons and bins count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from neurodyn.datasets.sources import fetch, tell_no_licence
from neurodyn.datasets.spike_files import h5_tables
from neurodyn.datasets.spikes import spike_batch
from neurodyn.datasets.splits import Splits

FOLDER, FILE = "lorenz_spikes", "lfads_lorenz.h5"
URL = "https://raw.githubusercontent.com/felixp8/lfads-nlb-tutorials/main/data/lfads_lorenz.h5"
SHA256 = "c55b9b38d38054c2f43909a195058d1d242dc291f607a2d45fab4d85977ab54d"
BIN = 0.01
TRIALS_PER_CONDITION = 40
HELD_OUT = (3, 7, 8, 14, 17, 21, 25, 28, 33, 36, 41, 46, 50, 53, 58)
CONDITIONS = 20
FOLDS = 5
TEST_CONDITIONS: tuple[int, ...] = (2, 7, 11, 18)
VALIDATION_CONDITIONS: tuple[int, ...] = (1, 4, 5, 9)
"""Those whose states are furthest from the states of all other conditions but the test's: near ones are too easy."""


def load(split: Literal["file", "conditions"] = "file", fold: int | None = None) -> Splits:
    """Counts of all 60 neurons, training, validation and test trials; `labels` are initial conditions.

    Training and validation trials are 512 and 128 with split "file" (a fifth of the file's training trials at random),
    480 and 160 with split "conditions" (four whole conditions). `info` holds `bin_width` in s, `held_out` (positions
    of neurons), and by part `rates` and `latents`: expected counts per bin (trials, 100, 60) and the Lorenz states
    (trials, 100, 3).

    Args:
        split: "file" or "conditions".
        fold: k, 0 to 4, for "conditions": tests on conditions k, k + 5, k + 10 and k + 15, and validates on the next
            fold's. Without it both are the same four always.

    Raises:
        ValueError: unknown split or fold; an altered file. FileNotFoundError: no file and no network.
    """
    if split not in ("file", "conditions"):
        raise ValueError(f"split: {split!r} given, 'file' or 'conditions' wanted")
    if fold is not None and (split == "file" or fold not in range(FOLDS)):
        raise ValueError(f"fold: {fold!r} given for split {split!r}, 0 to {FOLDS - 1} for 'conditions' wanted")
    tell_no_licence("lorenz_spikes", "felixp8/lfads-nlb-tutorials")
    counts, rates, latents, trial = read(fetch(FOLDER, FILE, URL, SHA256))
    condition = trial // TRIALS_PER_CONDITION
    if split == "file":
        part = np.where(np.arange(CONDITIONS * TRIALS_PER_CONDITION) < 640, "train", "test").astype("<U10")
        part[np.random.default_rng(0).permutation(640)[:128]] = "validation"
    else:
        part = np.full(len(condition), "train", dtype="<U10")
        tests, validations = TEST_CONDITIONS, VALIDATION_CONDITIONS
        if fold is not None:
            tests, validations = (tuple(range(k % FOLDS, CONDITIONS, FOLDS)) for k in (fold, fold + 1))
        part[np.isin(condition, tests)] = "test"
        part[np.isin(condition, validations)] = "validation"
    names = tuple(f"n{k + 1}" for k in range(counts.shape[-1]))
    batch = spike_batch(
        counts, BIN, variables=names, labels=torch.as_tensor(condition), ids=[f"trial-{k}" for k in trial.tolist()]
    )
    rows = {name: np.flatnonzero(part == name) for name in ("train", "validation", "test")}
    info: dict[str, Any] = {
        "name": "lorenz_spikes",
        "source": "felixp8/lfads-nlb-tutorials, lfads_lorenz.h5",
        "licence": "none stated",
        "citation": "Pandarinath et al., Nature Methods 2018",
        "time_unit": "s",
        "log": (),
        "static_names": (),
        "protocols": {"half": {"fraction": 0.5}},
        "bin_width": BIN,
        "held_out": HELD_OUT,
        "rates": {name: torch.as_tensor(rates[index]) for name, index in rows.items()},
        "latents": {name: torch.as_tensor(latents[index]) for name, index in rows.items()},
    }
    train, validation, test = (batch.rows(torch.as_tensor(index)) for index in rows.values())
    return Splits(train, validation, test, info)


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts, expected counts per bin, latents and trial numbers of all 800 trials, the file's training ones first."""
    tables = h5_tables(path)
    found: list[np.ndarray] = []
    for kind, size in (("data", 60), ("truth", 60), ("lowd", 3)):
        parts = [tables.get(f"{part}_{kind}") for part in ("train", "valid")]
        shapes = [None if part is None else part.shape for part in parts]
        if shapes != [(640, 100, size), (160, 100, size)]:
            raise ValueError(f"{path}: *_{kind} of shapes {shapes}, (640, 100, {size}) and (160, 100, {size}) wanted")
        found.append(np.concatenate(parts))  # type: ignore[arg-type]
    trial = np.concatenate([tables["train_inds"], tables["valid_inds"]]).astype(int)
    return found[0], found[1] * BIN, found[2], trial
