"""From names to parts: what a `LatentSDE` is made of, chosen by one dataclass that JSON and a command line can hold."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from neurodyn.likelihoods import GaussianLikelihood, Likelihood, check_likelihood, make_likelihood
from neurodyn.nets.encoders import encoder_options, make_encoder
from neurodyn.posteriors.base import Posterior
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.posteriors.smoother import SmootherPosterior
from neurodyn.posteriors.start import EncodedStart, FilterStart, Start
from neurodyn.sde.base import SDE
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.linear_gaussian import LinearGaussian, TrendOU
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.paced import PacedLaw
from neurodyn.sde.prior import CoreInitial, Prior
from neurodyn.sde.residual import ResidualLaw
from neurodyn.spelling import check_options


@dataclass
class LatentSDEConfig:
    """The parts of a `LatentSDE`, by name.

    Raises:
        ValueError: on construction, for choices that do not go together.
    """

    num_variables: int
    """D."""
    core: dict[str, Any] | None = None
    """Arguments of a `TrendOU` core (components, joint): the prior's linear part. None: the prior is an MLP law."""
    posterior: Literal["matched", "simulated", "smoother"] = "matched"
    """SDE Matching; simulation on a grid; or the exact smoother of the core."""
    latent_size: int = 8
    """d, without a core (with one it is the core's)."""
    static_latents: int = 0
    """Latents, beyond latent_size, that never move: constants of a series that its drift depends on. Without a core."""
    pace: float = 0.0
    """If positive, exp(pace c) is a series' speed, with c the last static latent: see `PacedLaw`."""
    likelihood: str = "gaussian"
    """gaussian, student_t, laplace, poisson, negative_binomial, bernoulli, categorical."""
    likelihood_options: dict[str, Any] | None = None
    """Further arguments of the likelihood, as numbers, names and lists: noise, exposure, link, num_classes."""
    decoder: Literal["linear", "mlp"] = "mlp"
    """Without a core; with one the decoder is the core's own read-out."""
    encoder: Literal["gru", "attention", "window"] = "gru"
    """Reads the whole row for the posterior, and, causal, the history for the start."""
    encoder_options: dict[str, Any] | None = None
    """Further arguments of the posterior's encoder: num_layers, num_heads, before, after, stride, slopes, every."""
    start_options: dict[str, Any] | None = None
    """Further arguments of the start's encoder, which is causal: num_layers, num_heads, before, stride, slopes."""
    start_cuts: int = 0
    """Random visits per row and step that the start is trained at. 0: all of them, or 4 with a core."""
    family: Literal["diagonal", "full", "flow"] = "diagonal"
    """Marginals of a matched posterior."""
    correction: bool = False
    """The divergence-free correction of a matched posterior; needs a constant diffusion."""
    diffusion: Literal["network", "constant"] = "constant"
    """Of an MLP law: per coordinate, depending on the state, or constant."""
    train_core: bool = False
    """Whether training moves a fitted core too; if not, residual, posterior and start are trained around it."""
    residual_bound: float = 0.3
    """Largest push of the neural residual on a core, in noise standard deviations per square root of time."""
    method: Literal["euler", "milstein", "heun", "reversible_heun"] = "euler"
    """Of a simulated posterior."""
    gradient: Literal["backprop", "checkpoint", "reversible", "adjoint"] = "backprop"
    """Of a simulated posterior."""
    longest_step: float = 0.05
    """Longest solver step, in (scaled) time: of a simulated posterior and of all rollouts."""
    num_times: int = 16
    """Stratified times per row and step for the path KL of a matched or smoother posterior."""
    inner_knots: int = 1
    """Spline knots between two visits, of a matched posterior."""
    num_samples: int = 1
    """Posterior samples per row and step."""
    hide_visits: float = 0.0
    """Largest share of a row's visits hidden from the posterior's encoder in training, for `LatentSDE.interpolate`."""
    context_size: int = 32
    """Of the encoders' features."""
    hidden_size: int = 64
    """Of all networks."""
    num_covariates: int = 0
    """Known inputs that the encoders read."""
    num_static: int = 0
    """Static columns that the encoders read."""

    def __post_init__(self) -> None:
        if self.posterior == "smoother" and self.core is None:
            raise ValueError("posterior: 'smoother' given without a core, whose exact smoother it is; give core={}")
        if self.posterior == "matched" and self.core is not None:
            raise ValueError(
                "posterior: 'matched' given with a core, whose levels and slopes carry no noise; "
                "'smoother' or 'simulated' wanted"
            )
        if self.static_latents and self.core is not None:
            raise ValueError(f"static_latents: {self.static_latents} given with a core, 0 wanted")
        if self.pace and not (self.pace > 0 and self.static_latents > 0):
            raise ValueError(f"pace: {self.pace} given, 0, or a positive one and static_latents, wanted")
        if not 0 <= self.hide_visits < 1:
            raise ValueError(f"hide_visits: {self.hide_visits} given, a share from 0 to below 1 wanted")
        if self.correction and (self.posterior != "matched" or self.diffusion != "constant"):
            raise ValueError("correction: given, but it is for a matched posterior and diffusion='constant'")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                choices = ", ".join(get_args(hint))
                raise ValueError(f"{name}: {getattr(self, name)!r} given, one of {choices} wanted")
        check_likelihood(self.likelihood, self.likelihood_options or {})
        for name in ("encoder_options", "start_options"):
            check_options(f"{name} for {self.encoder}", getattr(self, name) or {}, encoder_options(self.encoder))
        if self.core is not None:
            options = [name for name in inspect.signature(TrendOU).parameters if name != "num_variables"]
            check_options("core", self.core, options)

    @classmethod
    def of(cls, **settings: Any) -> LatentSDEConfig:
        """The same as the constructor, but a name that does not exist, or a missing one, is a one-line ValueError."""
        check_options("LatentSDE", settings, [field.name for field in fields(cls)], needed=["num_variables"])
        return cls(**settings)


class Parts(NamedTuple):
    """What `LatentSDE` takes."""

    prior: Prior
    encoder: nn.Module
    posterior: Posterior
    likelihood: Likelihood
    start: Start


class CoreReadout(nn.Module):
    """A core's own observation, H z + bias, as a decoder."""

    def __init__(self, core: LinearGaussian) -> None:
        super().__init__()
        self.core = core

    def forward(self, z: Tensor) -> Tensor:
        """(..., D) for states (..., d)."""
        loading, bias, _ = self.core.observation()
        return z @ loading.mT.to(z.dtype) + bias.to(z.dtype)


def assemble(config: LatentSDEConfig, core: LinearGaussian | None = None) -> Parts:
    """Build the parts; `core` is a ready one to share, of the kind that the configuration names."""
    variables, context = config.num_variables, config.context_size
    if core is None and config.core is not None:
        core = TrendOU(variables, **config.core)
    if core is not None:
        core.requires_grad_(config.train_core)

    def encoder(causal: bool) -> nn.Module:
        extra = {"num_covariates": config.num_covariates, "num_static": config.num_static}
        extra |= (config.start_options if causal else config.encoder_options) or {}
        return make_encoder(config.encoder, variables, context, hidden_size=config.hidden_size, causal=causal, **extra)

    start: Start
    if core is None:
        size = noise_size = config.latent_size + config.static_latents
        law: SDE = MLPSDE(
            size,
            config.hidden_size,
            2,
            linear=True,
            bounded=4.0,
            diffusion=config.diffusion,
            static_size=config.static_latents,
            activation="silu",
        )
        if config.pace:
            law = PacedLaw(law, config.pace)
        prior = Prior(law, GaussianInitial(size))
        likelihood = make_likelihood(
            config.likelihood,
            size,
            variables,
            hidden_size=config.hidden_size,
            decoder=config.decoder,
            **config.likelihood_options or {},
        )
        start = EncodedStart(encoder(causal=True), context, size, config.hidden_size, config.start_cuts)
    else:
        size, noise_size = core.law.state_size, core.law.noise_size
        prior = Prior(ResidualLaw(core.law, config.hidden_size, config.residual_bound), CoreInitial(core))
        likelihood = make_likelihood(
            config.likelihood, size, variables, decoder=CoreReadout(core), **config.likelihood_options or {}
        )
        if likelihood.parameters_per_variable != 1:
            raise ValueError(
                f"likelihood: {config.likelihood!r} with {config.likelihood_options} given, which reads "
                f"{likelihood.parameters_per_variable} numbers per variable; a core's read-out gives one"
            )
        _match_noise(likelihood, core)
        start = FilterStart(encoder(causal=True), context, core, config.hidden_size, config.start_cuts or 4)
    posterior = _posterior(config, core, size, noise_size)
    return Parts(prior, encoder(causal=False), posterior, likelihood, start)


def _posterior(config: LatentSDEConfig, core: LinearGaussian | None, size: int, noise_size: int) -> Posterior:
    if config.posterior == "smoother":
        assert core is not None
        return SmootherPosterior(core, config.context_size, num_times=config.num_times, hidden_size=config.hidden_size)
    if config.posterior == "matched":
        return MatchedPosterior(
            size,
            config.context_size,
            family=config.family,
            inner_knots=config.inner_knots,
            num_times=config.num_times,
            correction=config.correction,
            static_size=config.static_latents,
            hidden_size=config.hidden_size,
        )
    return SimulatedPosterior(
        size,
        noise_size,
        config.context_size,
        longest_step=config.longest_step,
        method=config.method,
        gradient=config.gradient,
        coupling="full" if size <= 32 or size != noise_size else "diagonal",
        hidden_size=config.hidden_size,
    )


def _match_noise(likelihood: Likelihood, core: LinearGaussian) -> None:
    """Start the likelihood's learned noise at the core's, so that a fresh model on a core scores as the core does."""
    noise = getattr(likelihood, "log_noise_sd" if isinstance(likelihood, GaussianLikelihood) else "log_scale", None)
    if isinstance(noise, nn.Parameter):
        with torch.no_grad():
            log_sd = 0.5 * core.observation().variance.log()
            noise.copy_(log_sd if noise.shape == log_sd.shape else log_sd.mean())
