"""Assemblies with a name: latent SDEs, the exactly fitted linear SDE, SCOTCH, and what to compare them with."""

from neurodyn.models.assembly import LatentSDEConfig
from neurodyn.models.baselines import DirectGRU, LastValue, LatentODE, RegressedLastValue
from neurodyn.models.classifier import ClassifierConfig, SeriesClassifier
from neurodyn.models.classifiers import CLASSIFIERS, FittedClassifier, fit_classifier
from neurodyn.models.forecasters import BASELINES, FORECASTERS, Fitted, Training, fit_forecaster
from neurodyn.models.interpolators import INTERPOLATORS, FittedInterpolator, fit_interpolator
from neurodyn.models.langevin_flow import LangevinFlow
from neurodyn.models.langevin_parts import LangevinFlowConfig
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.models.path_model import PathModel, PathModelConfig
from neurodyn.models.readings import read_latent_sde
from neurodyn.models.scotch import Scotch, ScotchConfig
from neurodyn.models.structure import STRUCTURE_LEARNERS, LearnedStructure, learn_structure

__all__ = [
    "BASELINES",
    "CLASSIFIERS",
    "FORECASTERS",
    "INTERPOLATORS",
    "ClassifierConfig",
    "STRUCTURE_LEARNERS",
    "DirectGRU",
    "Fitted",
    "FittedClassifier",
    "FittedInterpolator",
    "LangevinFlow",
    "LangevinFlowConfig",
    "LastValue",
    "LatentODE",
    "LatentSDE",
    "LatentSDEConfig",
    "LearnedStructure",
    "LinearSDE",
    "PathModel",
    "PathModelConfig",
    "Scotch",
    "ScotchConfig",
    "RegressedLastValue",
    "SeriesClassifier",
    "Training",
    "fit_classifier",
    "fit_forecaster",
    "fit_interpolator",
    "learn_structure",
    "read_latent_sde",
]
