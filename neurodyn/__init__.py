"""neurodyn: neural SDEs and latent dynamics.

What most programs need first is here; the rooms (`neurodyn.nets`, `neurodyn.likelihoods`, `neurodyn.posteriors`,
`neurodyn.metrics`, `neurodyn.plots`, `neurodyn.datasets`...) hold the rest.
"""

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
