"""Layers to import into one's own model: encoders of irregular series, curves in time, perceptrons."""

from neurodyn.nets.attention import AttentionEncoder
from neurodyn.nets.context import Context
from neurodyn.nets.encoders import ENCODERS, make_encoder
from neurodyn.nets.gru_d import GRUD
from neurodyn.nets.gru_decay import GRUDecayEncoder
from neurodyn.nets.mlp import mlp
from neurodyn.nets.spline import hermite, refine_knots
from neurodyn.nets.window import WindowEncoder

__all__ = [
    "ENCODERS",
    "GRUD",
    "AttentionEncoder",
    "Context",
    "GRUDecayEncoder",
    "WindowEncoder",
    "hermite",
    "make_encoder",
    "mlp",
    "refine_knots",
]
