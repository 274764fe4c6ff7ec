"""Solvers of stochastic and ordinary differential equations."""

from neurodyn.solvers.adapt import as_law, convert
from neurodyn.solvers.brownian import Brownian, brownian_increments, coarsen, refine
from neurodyn.solvers.cuda_graphs import GraphedStep, length_bucket
from neurodyn.solvers.grid import Grid, step_grid
from neurodyn.solvers.native import Path, Visits, integrate, integrate_visits
from neurodyn.solvers.ode import odeint
from neurodyn.solvers.path_kl import path_kl, path_kl_rate
from neurodyn.solvers.solve import sdeint
from neurodyn.solvers.torchsde_engine import Adaptive

__all__ = [
    "Adaptive",
    "Brownian",
    "GraphedStep",
    "Grid",
    "Path",
    "Visits",
    "as_law",
    "brownian_increments",
    "coarsen",
    "convert",
    "integrate",
    "integrate_visits",
    "length_bucket",
    "odeint",
    "path_kl",
    "path_kl_rate",
    "refine",
    "sdeint",
    "step_grid",
]
