"""Forecasters to compare with: persistence with honest spreads, a direct network, a Latent ODE."""

from neurodyn.models.baselines.direct_gru import DirectGRU
from neurodyn.models.baselines.latent_ode import LatentODE
from neurodyn.models.baselines.persistence import LastValue, RegressedLastValue, TrainingValues

__all__ = ["DirectGRU", "LastValue", "LatentODE", "RegressedLastValue", "TrainingValues"]
