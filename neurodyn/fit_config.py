"""The settings of `fit`, as a dataclass that a command line can be made from."""

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from neurodyn.training_log import LogKind


@dataclass
class FitConfig:
    """How to train.

    Raises:
        ValueError: on construction, for a setting outside its range.
    """

    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 64
    """Series in a minibatch; 0 takes all of them."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam (Kingma & Ba 2015), or with decoupled weight decay (Loshchilov & Hutter 2019)."""
    weight_decay: float = 0.0
    """Weight decay; needs optimizer adamw."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """The learning rate after the warm-up: down to 0 along a cosine, or constant."""
    clip_norm: float = 10.0
    """Largest norm of the gradient, in nats per series; 0 does not clip."""
    kl_weight: float = 1.0
    """Weight of the KL terms; 1 maximises the ELBO."""
    kl_warmup_steps: int = 0
    """Steps over which the KL weight rises linearly from 0."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is validated and kept; 0 keeps the weights themselves."""
    validate_every: int = 50
    """Steps between validations."""
    patience: int = 0
    """Validations without improvement after which to stop; 0 never stops early."""
    select_after: float = 0.0
    """Fraction of the steps before which no weights are selected and patience does not count."""
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    """bfloat16 keeps the weights in float32 and computes the loss under autocast: of a `LatentSDE` the encoder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA where there is one."""
    seed: int = 0
    """Seed of the order of rows and of the noise."""
    checkpoint_every: int = 100
    """Steps between checkpoints, where a folder is given."""
    logs: tuple[LogKind, ...] = ()
    """Besides metrics.jsonl, where a folder is given: metrics.csv, events for TensorBoard."""
    progress: bool = True
    """A progress bar with the time left, on a terminal; otherwise a line in the log now and then."""

    def __post_init__(self) -> None:
        for name, low in (
            ("steps", 1),
            ("validate_every", 1),
            ("checkpoint_every", 1),
            ("batch_size", 0),
            ("warmup_steps", 0),
            ("kl_warmup_steps", 0),
            ("patience", 0),
            ("seed", 0),
            ("weight_decay", 0),
            ("clip_norm", 0),
            ("kl_weight", 0),
        ):
            if not getattr(self, name) >= low:
                raise ValueError(f"{name}: {getattr(self, name)} was given, and at least {low} is wanted")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: {self.learning_rate} was given, and a positive number is wanted")
        if not 0 <= self.ema < 1 or not 0 <= self.select_after < 1:
            raise ValueError(
                f"ema and select_after: {self.ema} and {self.select_after} were given, and numbers "
                "from 0 to below 1 are wanted"
            )
        for name, hint in get_type_hints(type(self)).items():
            several = get_origin(hint) is tuple
            choices = get_args(get_args(hint)[0] if several else hint)
            for given in getattr(self, name) if several else (getattr(self, name),):
                if choices and given not in choices:
                    raise ValueError(f"{name}: {given!r} was given, and one of {', '.join(choices)} is wanted")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(
                f"weight_decay: {self.weight_decay} was given for optimizer adam, which has none; use adamw"
            )

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def kl_weight_at(self, step: int) -> float:
        """The weight of the KL terms at a step, counted from 0."""
        return self.kl_weight * min(1.0, (step + 1) / max(1, self.kl_warmup_steps))
