"""`netsim`: NetSim simulation 3, blood-oxygen signals of 15 brain regions with a known network, 50 subjects.

Source: FMRIB NetSim (fmrib.ox.ac.uk/datasets/netsim); the file sim3.mat as in github.com/i6092467/GVAR.
Licence: the source states none; the loader says so.
Citation: S. M. Smith et al., Network modelling methods for FMRI, NeuroImage 54 (2011) 875-891.

Protocol of Wang, Jennings and Gong (SCOTCH, arXiv 2311.03309): subjects 2 to 6, 200 times from 0 to 10, all to train;
10 or 20 % of the values missing. Self-loops are in the graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
import torch

from neurodyn.datasets.sources import fetch, tell_no_licence, unreadable
from neurodyn.datasets.structures import Structure
from neurodyn.series import SeriesBatch

FOLDER, FILE = "netsim", "sim3.mat"
URL = (
    "https://raw.githubusercontent.com/i6092467/GVAR/"
    "96ec99a603702841bdb0582371328aa2a98be6a1/datasets/fMRI/raw_data/sim3.mat"
)
SHA256 = "50e42e322d0c22994d5293ce30235967b3ee5bd2e1826e65c319f6bf268bed34"
SUBJECTS, TIMES, REGIONS = 50, 200, 15


def load(subjects: tuple[int, int] = (1, 6), missing: float = 0.0, seed: int = 0) -> Structure:
    """One series per subject, 15 regions at 200 times from 0 to 10.

    Args:
        subjects: from the first of these (counted from 0) to before the second.
        missing: probability that a value is missing, at all times but the first.
        seed: of the missing values.

    Raises:
        ValueError: no such subjects, `missing` outside [0, 1), an altered file.
        FileNotFoundError: no file and no network.
    """
    first, last = subjects
    if not 0 <= first < last <= SUBJECTS:
        raise ValueError(f"subjects: {subjects} given, a range within (0, {SUBJECTS}) wanted")
    if not 0 <= missing < 1:
        raise ValueError(f"missing: {missing} given, a number from 0 up to 1 wanted")
    tell_no_licence("netsim", "FMRIB")
    values, network = read(fetch(FOLDER, FILE, URL, SHA256))
    values = values[first:last]
    mask = np.random.default_rng(seed).random(values.shape) >= missing
    mask[:, 0] = True
    times = torch.linspace(0, 10, TIMES, dtype=torch.float64)
    series = SeriesBatch(
        times.expand(len(values), -1).clone(),
        torch.as_tensor(values, dtype=torch.get_default_dtype()),
        torch.as_tensor(mask),
        ids=tuple(f"subject-{k}" for k in range(first, last)),
        variables=tuple(f"R{k + 1}" for k in range(REGIONS)),
    )
    info = {
        "name": "netsim",
        "source": "FMRIB NetSim, simulation 3",
        "licence": "none stated",
        "citation": "Smith et al., NeuroImage 54 (2011) 875-891",
        "time_unit": "20 scans",
    }
    return Structure(series, torch.as_tensor(network != 0).long(), info)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values (50, 200, 15) and the first subject's network (15, 15), which all have but for its weights."""
    try:
        content = scipy.io.loadmat(path, variable_names=["ts", "net"])
        values = np.asarray(content["ts"], dtype=np.float64).reshape(SUBJECTS, TIMES, REGIONS)
        network = np.asarray(content["net"], dtype=np.float64)[0]
    except Exception as error:  # a broken .mat fails in many ways: zlib's, scipy's, a missing key, another shape
        raise unreadable(path, error) from error
    if network.shape != (REGIONS, REGIONS):
        raise ValueError(f"{path}: a network of shape {network.shape} given, (15, 15) wanted")
    return values, network
