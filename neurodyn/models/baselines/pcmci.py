"""PCMCI+ on a grid of steps, by tigramite: the extra `pcmci` (GPL-3).

Source: Runge (2020), *Discovering contemporaneous and lagged causal relations in autocorrelated nonlinear time series
datasets*, UAI; partial correlations, effects one step later and in the same step.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodyn.models.baselines.one_step import one_step
from neurodyn.series import SeriesBatch

Array = NDArray[np.float64]
LEVEL = 0.01
MISSING = 1e9


def pcmci_plus(batch: SeriesBatch, seed: int = 0) -> Array:
    """|partial correlation| of a variable with another one step later, given the parents of both, (D, D).

    Times are rounded to whole steps (`one_step`); what was not seen is missing, and so are samples that need it.

    Raises:
        ImportError: without tigramite.
    """
    try:
        from tigramite.data_processing import DataFrame
        from tigramite.independence_tests.parcorr import ParCorr
        from tigramite.pcmci import PCMCI
    except ImportError as error:
        raise ImportError("tigramite is needed for this: pip install 'neurodyn[pcmci]'") from error
    grids = on_grid(batch)
    data: dict[int, Any] = dict(enumerate(grids))
    with contextlib.redirect_stdout(io.StringIO()):
        frame = DataFrame(data, analysis_mode="multiple", missing_flag=MISSING)
        found = PCMCI(dataframe=frame, cond_ind_test=ParCorr()).run_pcmciplus(tau_min=0, tau_max=1, pc_alpha=LEVEL)
    scores: Array = np.abs(found["val_matrix"][:, :, 1])
    return np.nan_to_num(scores)


def on_grid(batch: SeriesBatch) -> list[Array]:
    """The rows' values on whole steps since their first visit, (T_row, D) each, `MISSING` where not seen."""
    batch = batch.to("cpu", batch.values.dtype).compact()
    counts = batch.present.sum(1).tolist()
    times = [batch.times[row, :count].numpy() for row, count in enumerate(counts)]
    step = one_step(np.concatenate([np.diff(t) for t in times]))
    grids = []
    for row, own in enumerate(times):
        place = np.round((own - own[0]) / step).astype(int)
        grid = np.full((place[-1] + 1, batch.num_variables), MISSING)
        values, mask = batch.values[row, : len(own)].numpy(), batch.mask[row, : len(own)].numpy()
        for index, value, seen in zip(place, values, mask, strict=True):  # of two in one step the later
            grid[index, seen] = value[seen]
        grids.append(grid)
    return grids
