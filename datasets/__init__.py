"""Data sets: one file per set with its source, licence, citation, protocol and `load()`.

`load("pbcseq", split=0)` is `neurodyn.datasets.pbcseq.load(split=0)`; `names()` lists what there is. Systems whose
graph is known come from `load_structure("lorenz96")`; `structure_names()` lists those. A set of one's own goes by its
module and function, `load("tides:load")`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from neurodyn.datasets.splits import Splits, histories, stratified
from neurodyn.datasets.structures import Structure
from neurodyn.spelling import nearest

__all__ = ["Splits", "Structure", "histories", "load", "load_structure", "names", "stratified", "structure_names"]

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
    "hopper",
)
_STRUCTURES = ("lorenz96", "glycolysis", "coupled_sdes", "dream3", "netsim")


def names() -> tuple[str, ...]:
    """The names that `load` knows."""
    return _NAMES


def load(name: str, /, **options: Any) -> Splits:
    """Load a data set by name, or by MODULE:FUNCTION of one's own; `options` are those of its own `load`.

    Raises:
        ValueError: for an unknown name or option, with the nearest known one; and whatever the loader raises.
    """
    return _loaded(name, _NAMES, options)


def structure_names() -> tuple[str, ...]:
    """The names that `load_structure` knows."""
    return _STRUCTURES


def load_structure(name: str, /, **options: Any) -> Structure:
    """Load series whose graph is known; `options` are those of the set's own `load`.

    Raises:
        ValueError: for an unknown name or option, with the nearest known one; and whatever the loader raises.
    """
    return _loaded(name, _STRUCTURES, options)


def _loaded(name: str, names: tuple[str, ...], options: dict[str, Any]) -> Any:
    if ":" in name:
        loader = _own(name)
    elif name in names:
        loader = importlib.import_module(f"neurodyn.datasets.{name}").load
    else:
        wanted = f"one of {list(names)}, or MODULE:FUNCTION of your own,"
        raise ValueError(f"name: {name!r} given{nearest(name, names)}, {wanted} wanted")
    known = list(inspect.signature(loader).parameters)
    for option in options:
        if option not in known:
            raise ValueError(f"options: {option!r} given for {name}{nearest(option, known)}, some of {known} wanted")
    return loader(**options)


def _own(name: str) -> Callable[..., Any]:
    """The function of a module that is not ours."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except (ImportError, ValueError) as error:
        raise ValueError(f"name: {name!r} given, but {module!r} cannot be imported ({error})") from None
    if not callable(found):
        raise ValueError(f"name: {name!r} given, but module {module!r} has no function {function!r}")
    return found
