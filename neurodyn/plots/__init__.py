"""Pictures of data, training, latents, forecasts and their calibration; each function returns a matplotlib Figure.

Figures are made without pyplot, so they need no display, no global state and no closing. Save one with
``figure.savefig(path)``, or take its bytes with :func:`neurodyn.style.png`. Values are drawn in the units they come in:
undo the scaling first, and name the units.
"""

from neurodyn.plots.data import missingness
from neurodyn.plots.forecasts import by_horizon, calibration, forecast_fan
from neurodyn.plots.models import curves_of_runs, diagnostic_bars, latents, loss_curves

__all__ = [
    "by_horizon",
    "calibration",
    "curves_of_runs",
    "diagnostic_bars",
    "forecast_fan",
    "latents",
    "loss_curves",
    "missingness",
]
