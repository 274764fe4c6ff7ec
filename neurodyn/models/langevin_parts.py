"""The parts of a `LangevinFlow`: its settings, and its prior's law of motion by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from neurodyn.models.population import PopulationConfig, check_whole
from neurodyn.sde.langevin import UnderdampedLangevin
from neurodyn.sde.potentials import make_potential
from neurodyn.sde.second_order import SecondOrderLaw, SecondOrderMLP
from neurodyn.spelling import check_options

STIFFNESS, TEMPERATURE = 4.0, 4.0
"""Of fresh laws: positions then have a standard deviation of 1."""


@dataclass
class LangevinFlowConfig(PopulationConfig):
    """The parts of a `LangevinFlow`, by name.

    Raises:
        ValueError: on construction, for choices that do not go together.
    """

    mode: Literal["simulation_free", "simulated"] = "simulation_free"
    """How the posterior is priced: by its marginals, or along simulated paths."""
    latent_size: int = 6
    """n, positions; the latent (q, v) has twice as many."""
    drift: Literal["mlp", "oscillators", "quadratic", "double_well", "potential", "convex"] = "mlp"
    """Any acceleration, or that of a potential with friction ("potential" is a network's)."""
    encoder: Literal["gru", "attention"] = "gru"
    """Recurrent, or parallel."""
    bins_per_knot: int = 2
    """One feature vector, and one spline knot, every so many bins."""
    readout: Literal["linear", "mlp", "transformer"] = "linear"
    """From (q, v) to log-rates: bin by bin, or one Transformer layer over all bins of trials of one length."""
    likelihood: Literal["poisson", "negative_binomial", "gaussian"] = "poisson"
    """Law of the counts; "gaussian" is for real values, such as calcium traces."""
    family: Literal["diagonal", "full"] = "diagonal"
    """Marginals of the simulation-free posterior."""
    num_samples: int = 2
    """Posterior samples per trial and step."""
    steps_per_bin: int = 1
    """Of simulated paths; the law of a simulated posterior is that of its steps."""
    hidden_size: int = 64
    """Of all networks."""
    scale: float = 0.3
    """Standard deviation of the positions of a fresh simulation-free posterior."""
    refinement: int = 0
    """Steps that fit the posterior to the trials at hand when rates, latents or forecasts are asked for; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latent_size", "bins_per_knot", "num_samples", "hidden_size", "steps_per_bin"):
            check_whole(name, getattr(self, name))
        check_whole("refinement", self.refinement, 0)
        if not self.scale > 0:
            raise ValueError(f"scale: {self.scale} given, a positive number wanted")
        if self.readout == "transformer" and self.hidden_size % 2:
            raise ValueError(f"hidden_size: {self.hidden_size} given, an even number wanted for readout 'transformer'")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name}: {getattr(self, name)!r} given, one of {', '.join(get_args(hint))} wanted")

    @classmethod
    def of(cls, **settings: Any) -> LangevinFlowConfig:
        """The same as the constructor, but a name that does not exist, or a missing one, is a one-line ValueError."""
        needed = ["num_neurons", "bin_width"]
        check_options("LangevinFlow", settings, [field.name for field in fields(cls)], needed=needed)
        return cls(**settings)


def make_law(drift: str, size: int, hidden_size: int) -> SecondOrderLaw:
    """The prior's law of motion by the name in `LangevinFlowConfig.drift`."""
    if drift == "mlp":
        noise = math.sqrt(2 * TEMPERATURE)
        return SecondOrderMLP(size, hidden_size, stiffness=STIFFNESS, friction=1.0, noise=noise)
    name = "mlp" if drift == "potential" else drift
    options: dict[str, Any] = {} if name == "double_well" else {"stiffness": STIFFNESS}
    if name == "oscillators":
        options["groups"] = next(k for k in (4, 3, 2, 1) if size % k == 0)
    friction = torch.ones(size)
    return UnderdampedLangevin(make_potential(name, size, **options), friction=friction, temperature=TEMPERATURE)
