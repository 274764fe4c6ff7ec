"""Data sets: one file per set with its source, licence, citation, protocol and `load()`.

`load("pbcseq", split=0)` is `neurodyn.datasets.pbcseq.load(split=0)`; `names()` lists what there is.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from neurodyn.datasets.splits import Splits, histories, stratified
from neurodyn.spelling import nearest

__all__ = ["Splits", "histories", "load", "names", "stratified"]

_NAMES = (
    "pbcseq",
    "ornstein_uhlenbeck",
    "linear_gaussian",
    "lorenz",
    "mocap35",
    "physionet2012",
    "time_imm",
    "lorenz_spikes",
    "population_dynamics",
    "recordings",
    "uea_ucr",
)


def names() -> tuple[str, ...]:
    """The names that `load` knows."""
    return _NAMES


def load(name: str, /, **options: Any) -> Splits:
    """Load a data set by name; `options` are those of its own `load`.

    Raises:
        ValueError: for an unknown name or option, with the nearest known one; and whatever the loader raises.
    """
    if name not in _NAMES:
        raise ValueError(f"name: {name!r} given{nearest(name, _NAMES)}, one of {list(_NAMES)} wanted")
    loader = importlib.import_module(f"neurodyn.datasets.{name}").load
    known = list(inspect.signature(loader).parameters)
    for option in options:
        if option not in known:
            raise ValueError(f"options: {option!r} given for {name}{nearest(option, known)}, some of {known} wanted")
    return loader(**options)
