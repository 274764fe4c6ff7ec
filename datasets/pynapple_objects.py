"""Objects of pynapple as trials of counts: a `TsGroup` of units, an `IntervalSet` of trials, a `Tsd` of behaviour.

They are known by what they have, so pynapple itself is not imported: units are a mapping to objects with times `t`,
trials have `start` and `end`, behaviour has `t` and `values`; all times in s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from neurodyn.datasets.spikes import Window, bin_spikes, sample_behaviour, spike_batch
from neurodyn.series import SeriesBatch


def read_pynapple(
    units: Any,
    trials: Any,
    window: Window,
    *,
    align: Any = None,
    behaviour: Any = None,
    lag: float = 0.0,
    inside: bool = True,
    label: str | None = None,
) -> SeriesBatch:
    """A batch of all trials; covariates are behaviour in the same bins.

    Args:
        units: a `TsGroup`. trials: an `IntervalSet`.
        window: around `align`, a `Ts` with one time per trial; the trials' starts if not given.
        behaviour: a `Tsd` or `TsdFrame`. lag: s by which it follows the spikes it goes with.
        inside: the window has to lie inside the trial's interval.
        label: a column of the trials' metadata, which becomes `labels`, as codes of its sorted values.

    Raises:
        ValueError: an object without what is read of it, another number of times than trials, and what `bin_spikes` and
            `spike_batch` raise.
    """
    for name, given, wanted in (("units", units, ("keys",)), ("trials", trials, ("start", "end"))):
        if missing := [part for part in wanted if not hasattr(given, part)]:
            kind = "a TsGroup" if name == "units" else "an IntervalSet"
            raise ValueError(f"{name}: a {type(given).__name__} without {missing[0]!r} given, {kind} wanted")
    names = list(units.keys())
    spikes = [_times(f"units[{name}]", units[name]) for name in names]
    spans = np.stack([np.asarray(trials.start, float), np.asarray(trials.end, float)], 1)
    zero = spans[:, 0] if align is None else _times("align", align)
    if len(zero) != len(spans):
        raise ValueError(f"align: {len(zero)} times given, {len(spans)} wanted, one per trial")
    owner = np.repeat(np.arange(len(names)), [len(times) for times in spikes])
    times = np.concatenate([np.zeros(0), *spikes])
    counts = bin_spikes(times, owner, zero, window, num_units=len(names), spans=spans if inside else None)
    moves = None
    if behaviour is not None:
        if not hasattr(behaviour, "values"):
            raise ValueError(
                f"behaviour: a {type(behaviour).__name__} without 'values' given, a Tsd or TsdFrame wanted"
            )
        moves = sample_behaviour(_times("behaviour", behaviour), behaviour.values, zero, window, lag)
    labels = None if label is None else torch.as_tensor(np.unique(np.asarray(trials[label]), return_inverse=True)[1])
    return spike_batch(
        counts,
        window.bin_width,
        start=window.start,
        behaviour=moves,
        variables=[f"unit{name}" for name in names],
        labels=labels,
    )


def _times(name: str, given: Any) -> np.ndarray:
    if not hasattr(given, "t"):
        raise ValueError(f"{name}: a {type(given).__name__} without times 't' given, a pynapple object wanted")
    return np.asarray(given.t, float)
