"""neurodyn: neural SDEs and latent dynamics.

What most programs need first is here; the rooms (`neurodyn.nets`, `neurodyn.likelihoods`, `neurodyn.posteriors`,
`neurodyn.metrics`, `neurodyn.plots`, `neurodyn.datasets`...) hold the rest. All of it is imported when it is first
asked for, so that commands which need no torch (`neurodyn --help`) do not wait for it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurodyn.forecast import Forecast
    from neurodyn.frames import from_frame, read_series
    from neurodyn.loss import Loss
    from neurodyn.metrics import evaluate
    from neurodyn.models import LatentSDE, LatentSDEConfig, LinearSDE
    from neurodyn.nets import AttentionEncoder, Context, GRUDecayEncoder
    from neurodyn.scaling import Scaling
    from neurodyn.sde import MLPSDE, SDE, GaussianInitial
    from neurodyn.sde.prior import Prior
    from neurodyn.series import SeriesBatch
    from neurodyn.solvers import odeint, sdeint
    from neurodyn.training import FitConfig, FitResult, fit

__version__ = "0.1.0"

__all__ = [
    "MLPSDE",
    "SDE",
    "AttentionEncoder",
    "Context",
    "FitConfig",
    "FitResult",
    "Forecast",
    "GRUDecayEncoder",
    "GaussianInitial",
    "LatentSDE",
    "LatentSDEConfig",
    "LinearSDE",
    "Loss",
    "Prior",
    "Scaling",
    "SeriesBatch",
    "evaluate",
    "fit",
    "from_frame",
    "odeint",
    "read_series",
    "sdeint",
]

# The same as the imports above, for when they are made; a test compares the two.
_NAMES = {
    "forecast": ["Forecast"],
    "frames": ["from_frame", "read_series"],
    "loss": ["Loss"],
    "metrics": ["evaluate"],
    "models": ["LatentSDE", "LatentSDEConfig", "LinearSDE"],
    "nets": ["AttentionEncoder", "Context", "GRUDecayEncoder"],
    "scaling": ["Scaling"],
    "sde": ["MLPSDE", "SDE", "GaussianInitial"],
    "sde.prior": ["Prior"],
    "series": ["SeriesBatch"],
    "solvers": ["odeint", "sdeint"],
    "training": ["FitConfig", "FitResult", "fit"],
}
_HOMES = {name: f"neurodyn.{home}" for home, names in _NAMES.items() for name in names}
_ROOMS = ("datasets", "estimators", "likelihoods", "metrics", "models", "nets", "plots", "posteriors", "sde", "solvers")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"neurodyn.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'neurodyn' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
