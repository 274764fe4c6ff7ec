"""Laws of motion and nothing else."""

from neurodyn.sde.base import SDE
from neurodyn.sde.contextual import ContextDrift, ContextSDE
from neurodyn.sde.controlled import ControlledLaw
from neurodyn.sde.graph import GraphLaw
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE, CoordinatewiseNet
from neurodyn.sde.stable import NeuralGSDE, NeuralLNSDE, NeuralLSDE
from neurodyn.sde.stable_released import ReleasedNeuralSDE

__all__ = [
    "MLPSDE",
    "SDE",
    "ContextDrift",
    "ContextSDE",
    "ControlledLaw",
    "CoordinatewiseNet",
    "GaussianInitial",
    "GraphLaw",
    "NeuralGSDE",
    "NeuralLNSDE",
    "NeuralLSDE",
    "ReleasedNeuralSDE",
]
