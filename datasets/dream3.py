"""`dream3`: DREAM3 in-silico gene networks of 100 genes: five networks, 46 perturbation series of 21 times each.

Source: the DREAM3 in-silico network challenge (synapse.org, syn2853594, after registration); the series as preprocessed
    in github.com/sakhanna/SRU_for_GCI at commit 7fe4b24, folder data/dream3. They are pickles there, which this package
    does not read, so it does not download them. It reads `dream3_size100.npz`, which holds for each network, with NAME
    one of Ecoli1, Ecoli2, Yeast1, Yeast2, Yeast3: size100_NAME_X (966, 100), the 46 series one after the other, and
    size100_NAME_A (100, 100), +1 or -1 where gene i activates or represses gene j.
Licence: MIT for that repository; the challenge's data are free for research.
Citation: R. J. Prill et al., Towards a rigorous assessment of systems biology models: the DREAM3 challenges, PLoS ONE 5
    (2010) e9202; S. Khanna and V. Y. F. Tan, Economy statistical recurrent units for inferring nonlinear Granger
    causality, ICLR 2020.

Protocol: all series train, the graph has no self-loops, and the score is the AUROC without the diagonal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from neurodyn.datasets.sources import cache_folder, check, local, unreadable
from neurodyn.datasets.structures import Structure
from neurodyn.series import SeriesBatch

FOLDER, FILE = "dream3", "dream3_size100.npz"
SHA256 = "88a200252231f2b109a6895dab625225038f6245f73e6296ed6d7cbf99c10760"
NETWORKS = ("Ecoli1", "Ecoli2", "Yeast1", "Yeast2", "Yeast3")
GENES, SERIES, TIMES, SPACING = 100, 46, 21, 0.05
"""The time unit is a twentieth of the challenge's: its series run from 0 to 1000."""


def load(network: str = "Ecoli1") -> Structure:
    """46 series of 100 genes at times 0, 0.05, ... 1.

    `info["signs"]` is (100, 100): +1 where a gene activates, -1 where it represses.

    Raises:
        ValueError: unknown network, altered file. FileNotFoundError: the file is not there.
    """
    if network not in NETWORKS:
        raise ValueError(f"network: {network!r} given, one of {', '.join(NETWORKS)} wanted")
    path = local(FOLDER, FILE)
    if path is None:
        raise FileNotFoundError(
            f"{FILE}: not here, and its source keeps pickles, which are not read; make it as the docstring of "
            f"neurodyn.datasets.dream3 says and put it at {cache_folder() / FOLDER / FILE} or at {FOLDER}/{FILE} in a "
            "folder that NEURODYN_DATA names"
        )
    check(path, SHA256)
    values, signs = read(path, network)
    times = torch.arange(TIMES, dtype=torch.float64) * SPACING
    series = SeriesBatch(
        times.expand(SERIES, -1).clone(),
        torch.as_tensor(values, dtype=torch.get_default_dtype()),
        ids=tuple(f"{network}-{k}" for k in range(SERIES)),
        variables=tuple(f"G{k + 1}" for k in range(GENES)),
    )
    info = {
        "name": "dream3",
        "source": f"DREAM3 in-silico challenge, {network}, 100 genes",
        "licence": "free for research; preprocessed copy MIT",
        "citation": "Prill et al., PLoS ONE 5 (2010) e9202",
        "time_unit": "1000 units of the challenge",
        "signs": torch.as_tensor(signs),
    }
    return Structure(series, torch.as_tensor(signs != 0).long(), info)


def read(path: Path, network: str) -> tuple[np.ndarray, np.ndarray]:
    """Values (46, 21, 100) and signs (100, 100) of one network."""
    try:
        with np.load(path, allow_pickle=False) as content:
            values, signs = content[f"size100_{network}_X"], content[f"size100_{network}_A"]
    except Exception as error:  # a broken archive fails in many ways
        raise unreadable(path, error) from error
    if values.shape != (SERIES * TIMES, GENES) or signs.shape != (GENES, GENES):
        raise ValueError(f"{path}: shapes {values.shape} and {signs.shape} given, (966, 100) and (100, 100) wanted")
    return values.reshape(SERIES, TIMES, GENES).astype(np.float64), signs.astype(np.int64)
