"""Laws of motion and nothing else."""

from neurodyn.sde.base import SDE
from neurodyn.sde.contextual import ContextDrift, ContextSDE
from neurodyn.sde.graph import GraphLaw
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE, CoordinatewiseNet

__all__ = ["MLPSDE", "SDE", "ContextDrift", "ContextSDE", "CoordinatewiseNet", "GaussianInitial", "GraphLaw"]
