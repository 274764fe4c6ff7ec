"""Assemblies with a name: latent SDEs, the exactly fitted linear SDE, SCOTCH, and what to compare them with."""

from neurodyn.models.assembly import LatentSDEConfig
from neurodyn.models.baselines import DirectGRU, LastValue, LatentODE, RegressedLastValue
from neurodyn.models.forecasters import BASELINES, FORECASTERS, Fitted, Training, fit_forecaster
from neurodyn.models.langevin_flow import LangevinFlow, LangevinFlowConfig
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.models.readings import read_latent_sde
from neurodyn.models.scotch import Scotch, ScotchConfig
from neurodyn.models.structure import STRUCTURE_LEARNERS, LearnedStructure, learn_structure

__all__ = [
    "BASELINES",
    "FORECASTERS",
    "STRUCTURE_LEARNERS",
    "DirectGRU",
    "Fitted",
    "LangevinFlow",
    "LangevinFlowConfig",
    "LastValue",
    "LatentODE",
    "LatentSDE",
    "LatentSDEConfig",
    "LearnedStructure",
    "LinearSDE",
    "Scotch",
    "ScotchConfig",
    "RegressedLastValue",
    "Training",
    "fit_forecaster",
    "learn_structure",
    "read_latent_sde",
]
