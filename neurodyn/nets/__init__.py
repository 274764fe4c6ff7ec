"""Layers to import into one's own model: encoders of irregular series, curves, equations along them, signatures."""

from neurodyn.nets.attention import AttentionEncoder
from neurodyn.nets.cells import CfCCell, LTCCell, ODECell
from neurodyn.nets.context import Context
from neurodyn.nets.controlled import ControlledSDE, NeuralCDE, num_channels
from neurodyn.nets.encoders import ENCODERS, make_encoder
from neurodyn.nets.gru_d import GRUD
from neurodyn.nets.gru_decay import GRUDecayEncoder
from neurodyn.nets.logsignature_encoder import LogSignatureEncoder
from neurodyn.nets.mlp import mlp
from neurodyn.nets.paths import PATH_KINDS, ControlPath, control_path, interpolate
from neurodyn.nets.recurrent import CELLS, RecurrentEncoder
from neurodyn.nets.signatures import (
    lead_lag,
    log_ode_path,
    logsignature,
    logsignature_size,
    logsignature_words,
    signature,
    signature_size,
    time_augment,
    window_logsignatures,
)
from neurodyn.nets.spline import hermite, refine_knots
from neurodyn.nets.window import WindowEncoder

__all__ = [
    "CELLS",
    "ENCODERS",
    "GRUD",
    "PATH_KINDS",
    "AttentionEncoder",
    "CfCCell",
    "Context",
    "ControlPath",
    "ControlledSDE",
    "GRUDecayEncoder",
    "LTCCell",
    "LogSignatureEncoder",
    "NeuralCDE",
    "ODECell",
    "RecurrentEncoder",
    "WindowEncoder",
    "control_path",
    "hermite",
    "interpolate",
    "lead_lag",
    "log_ode_path",
    "logsignature",
    "logsignature_size",
    "logsignature_words",
    "make_encoder",
    "mlp",
    "num_channels",
    "refine_knots",
    "signature",
    "signature_size",
    "time_augment",
    "window_logsignatures",
]
