"""The one door to encoders: by name, or an instance of one's own.

An encoder is any module with ``forward(batch: SeriesBatch) -> Context`` and an attribute ``context_size``.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from neurodyn.nets.attention import AttentionEncoder
from neurodyn.nets.context import Context
from neurodyn.nets.gru_decay import GRUDecayEncoder
from neurodyn.nets.logsignature_encoder import LogSignatureEncoder
from neurodyn.nets.window import WindowEncoder

__all__ = [
    "ENCODERS",
    "AttentionEncoder",
    "Context",
    "GRUDecayEncoder",
    "LogSignatureEncoder",
    "WindowEncoder",
    "make_encoder",
]

ENCODERS = ("gru", "attention", "window", "logsignature")
"""The names that `make_encoder` knows."""

_CLASSES = {
    "gru": GRUDecayEncoder,
    "attention": AttentionEncoder,
    "window": WindowEncoder,
    "logsignature": LogSignatureEncoder,
}
_COMMON = ("num_variables", "context_size", "hidden_size", "num_covariates", "num_static", "causal", "direction")


def encoder_options(encoder: str) -> list[str]:
    """Arguments of an encoder's class beyond those that all share and those that say whether it is causal."""
    return [name for name in inspect.signature(_CLASSES[encoder]).parameters if name not in _COMMON]


def make_encoder(
    encoder: str | nn.Module,
    num_variables: int,
    context_size: int,
    *,
    hidden_size: int = 64,
    causal: bool = False,
    num_covariates: int = 0,
    num_static: int = 0,
    **options: Any,
) -> nn.Module:
    """An encoder from its name, or the given instance if it fits.

    Args:
        encoder: "gru" (`GRUDecayEncoder`), "attention" (`AttentionEncoder`), "window" (`WindowEncoder`), "logsignature"
            (`LogSignatureEncoder`), or a module, which is handed back.
        num_variables, context_size, hidden_size, num_covariates, num_static: see the classes.
        causal: features at a visit depend on that visit and on earlier ones only (for "gru": direction "forward",
            otherwise "both"; for "window": nothing after the visit).
        options: further arguments of the class, such as ``num_layers`` of "attention".

    Raises:
        ValueError: an unknown name, or an instance whose ``context_size`` differs from the one wanted.
    """
    if isinstance(encoder, nn.Module):
        given = getattr(encoder, "context_size", None)
        if given != context_size:
            raise ValueError(f"encoder: got an instance with context_size {given}, want {context_size}")
        return encoder
    shared: dict[str, Any] = {"hidden_size": hidden_size, "num_covariates": num_covariates, "num_static": num_static}
    if encoder == "gru":
        options.setdefault("direction", "forward" if causal else "both")
        return GRUDecayEncoder(num_variables, context_size, **shared, **options)
    if encoder == "attention":
        return AttentionEncoder(num_variables, context_size, causal=causal, **shared, **options)
    if encoder == "logsignature":
        return LogSignatureEncoder(num_variables, context_size, causal=causal, **shared, **options)
    if encoder == "window":
        if causal and options.setdefault("after", 0) != 0:
            raise ValueError(f"after: got {options['after']} for a causal encoder, want 0")
        return WindowEncoder(num_variables, context_size, **shared, **options)
    raise ValueError(f"encoder: got {encoder!r}, want one of {', '.join(ENCODERS)} or a module")
