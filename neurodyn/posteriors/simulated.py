"""The simulated posterior: the prior steered by a control, priced along its paths.

    dz = (h(z, t) + g(z, t) u(z, t)) dt + g(z, t) dW,    KL(q || p) = E_q of the integral of |u|^2 / 2   (Girsanov),

with u = a + B z + network(z, context). Within a gap, a and B are curves of the time v left to the next visit, sums of
1 and s / (s + v) for a few learned scales s: the shape that the exact smoother's gains have (they are largest just
before a visit). Their coefficients come from the context, once per gap, and the curves are evaluated for all steps at
once, before the loop. Nothing is inverted, so G may be singular. A fresh posterior is the prior. After Li et al.
(2020), arXiv 2001.01328, whose posterior drift is a free network.

Euler steps may also be narrower or wider than the prior's, by a factor that tends to one with the step: a step of
length dt from the exact posterior of the discretised model has the noise G (1 + G' Lambda G dt)^(-1/2), where Lambda is
what later data say. Without it a step of 1/20 before a precise visit costs a tenth of a nat too much, and the learned
noise comes out small. The KL is that of the two discretised laws, Gaussian step by step, without bias.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from neurodyn.nets.context import Context
from neurodyn.nets.mlp import mlp
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import PathDetail, Posterior, PosteriorPaths
from neurodyn.sde.base import SDE, Time
from neurodyn.sde.prior import Prior
from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.fused import FusedLaw, Net, Steering, integrate_fused
from neurodyn.solvers.fused_cpu import NoKernel, warn_of_fallback
from neurodyn.solvers.fused_laws import plain_diffusion, plain_drift
from neurodyn.solvers.grid import Grid, packed_grid, step_grid
from neurodyn.solvers.native import integrate, integrate_visits
from neurodyn.solvers.own_backward import Params
from neurodyn.solvers.schemes import Left
from neurodyn.solvers.solve import sdeint

SCALES = 5  # of the gains' curves within a gap, each four times the one before, from half a step on
NARROWEST = 5.0  # bound on the logarithm of the factor of a step's variance
GRADIENTS = ("backprop", "checkpoint", "reversible", "adjoint")


class SimulatedPosterior(Posterior):
    """A posterior that is simulated on a fixed grid, for any prior in the Ito sense.

    Args:
        latent_size: d. noise_size: m of the prior's noise. context_size: of the encoder's features.
        longest_step: of the grid, in units of time.
        method: "euler", "milstein", "heun" or "reversible_heun"; the last two need noise that does not depend on the
            state.
        gradient: "backprop"; "checkpoint" (memory O(sqrt N)); "reversible" (reversible_heun only, memory O(1));
            "adjoint" (torchsde's stochastic adjoint, memory O(1)), whose Brownian path and steps the batch shares: rows
            then depend on their order and company.
        network: whether u has a network of z on top of its affine part.
        coupling: B full (m, d); diagonal for large latents (then m = d); or none, where visits say little and come
            at every step, so that gains have nothing to learn but paths that explode.
        hidden_size: of the networks.
        engine: "native", or "fused": all steps in one kernel (Euler, backprop, with the network), for a prior that is
            an `MLPSDE` with one hidden layer and diagonal noise, see `sdeint`. Its steps have the prior's width, and on
            CUDA its noise is another stream of the same law.
    """

    def __init__(
        self,
        latent_size: int,
        noise_size: int,
        context_size: int,
        *,
        longest_step: float,
        method: str = "euler",
        gradient: str = "backprop",
        network: bool = True,
        coupling: Literal["full", "diagonal", "none"] = "full",
        hidden_size: int = 64,
        engine: Literal["native", "fused"] = "native",
    ) -> None:
        if engine not in ("native", "fused"):
            raise ValueError(f"engine: {engine!r} given, 'native' or 'fused' wanted")
        if engine == "fused" and ((method, gradient, network) != ("euler", "backprop", True) or coupling == "none"):
            raise ValueError(
                "engine: 'fused' given with another method, gradient or coupling; euler, backprop, network=True and "
                "gains wanted"
            )
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient: {gradient!r} given, one of {', '.join(GRADIENTS)} wanted")
        if (gradient == "reversible") != (method == "reversible_heun") and gradient in ("reversible", "adjoint"):
            raise ValueError(
                f"gradient: {gradient!r} given with method {method!r}; 'reversible' goes with 'reversible_heun'"
            )
        if coupling not in ("full", "diagonal", "none") or (coupling == "diagonal" and latent_size != noise_size):
            raise ValueError(
                f"coupling: {coupling!r} given for d = {latent_size}, m = {noise_size}; "
                "'full', 'none', or 'diagonal' with m = d, wanted"
            )
        if not longest_step > 0:
            raise ValueError(f"longest_step: {longest_step} given, a positive step wanted")
        super().__init__()
        self.context_size = context_size
        self.latent_size, self.noise_size = latent_size, noise_size
        self.longest_step, self.method, self.gradient, self.coupling = longest_step, method, gradient, coupling
        self.engine = engine
        self.log_scale = nn.Parameter(math.log(longest_step / 2) + math.log(4) * torch.arange(SCALES))
        self.start_net = mlp([context_size, hidden_size, latent_size + latent_size * (latent_size + 1)], zero_last=True)
        self.num_gains = {"full": noise_size * latent_size, "diagonal": latent_size, "none": 0}[coupling]
        curves = (1 + SCALES) * (
            noise_size + self.num_gains + (noise_size if method == "euler" and engine == "native" else 0)
        )
        self.affine_net = mlp([context_size, hidden_size, hidden_size, curves], zero_last=True)
        self.context_layer = nn.Linear(context_size, hidden_size) if network else None
        self.state_layer = nn.Linear(latent_size, hidden_size, bias=False) if network else None
        self.network = mlp([hidden_size, noise_size], zero_last=True) if network else None

    def start(self, context: Context, prior: Prior) -> tuple[Tensor, Tensor]:
        """q(z at the first visit): mean (B, d) and lower triangular root (B, d, d)."""
        size = self.latent_size
        mean, log_diagonal, below = self.start_net(context.at_visits()[:, 0]).split((size, size, size * size), -1)
        return mean, below.unflatten(-1, (size, size)).tril(-1) + torch.diag_embed(log_diagonal.exp())

    def forward(self, context: Context, prior: Prior, noise: RowNoise, num_samples: int = 1) -> PosteriorPaths:
        """See `Posterior`. With Euler steps the KL is that of the two discretised laws, without bias."""
        z0, initial_kl = self._begin(context, prior, noise, num_samples)
        times = context.batch.times
        if _stand_still(times):
            states = z0[:, :, None].expand(-1, -1, times.shape[1], -1)
            return PosteriorPaths(states, torch.zeros_like(initial_kl), initial_kl)
        if self.gradient == "adjoint":
            return self._by_adjoint(context, prior, noise, z0, initial_kl)
        if self.engine == "fused":
            try:
                return self._by_kernel(context, prior, noise, z0, initial_kl)
            except NoKernel as reason:
                warn_of_fallback(str(reason))
        if self.gradient == "backprop" and self.method != "reversible_heun":
            return self._by_backprop(context, prior, noise, z0, initial_kl)
        grid, control = self._control(context)
        driven = _Driven(self, prior, control)
        brownian = Brownian(grid, z0.shape[:-1], self.noise_size, seeds=noise, dtype=z0.dtype, device=z0.device)
        visits = integrate_visits(
            driven.drift,
            driven.diffusion,
            z0,
            grid,
            brownian,
            method=self.method,
            noise_type=prior.sde.noise_type,
            state_independent=prior.sde.state_independent,
            cost=driven.cost,
            gradient=self.gradient,  # type: ignore[arg-type]
            params=driven.parameters(),
        )
        assert visits.cost is not None
        return PosteriorPaths(visits.states, visits.cost.sum(-1).mean(0) + control.price_of_spread, initial_kl)

    def _by_backprop(
        self, context: Context, prior: Prior, noise: RowNoise, z0: Tensor, initial_kl: Tensor
    ) -> PosteriorPaths:
        """The whole path is priced at once."""
        grid, control = self._control(context)
        driven = _Driven(self, prior, control)
        brownian = Brownian(grid, z0.shape[:-1], self.noise_size, seeds=noise, dtype=z0.dtype, device=z0.device)
        kinds = {"noise_type": prior.sde.noise_type, "state_independent": prior.sde.state_independent}
        path = integrate(driven.drift, driven.diffusion, z0, grid, brownian, method=self.method, **kinds)  # type: ignore[arg-type]
        assert grid.places is not None
        index = grid.places[..., None].expand(*z0.shape[:-1], grid.places.shape[1], z0.shape[-1])
        paid = (0.5 * control.along(path.points).square().sum(-1) * grid.steps.to(z0)).sum(-1)
        return PosteriorPaths(path.states.gather(-2, index), paid.mean(0) + control.price_of_spread, initial_kl)

    def _by_kernel(
        self, context: Context, prior: Prior, noise: RowNoise, z0: Tensor, initial_kl: Tensor
    ) -> PosteriorPaths:
        """By the fused engine."""
        grid = step_grid(context.batch.times, self.longest_step)
        gaps = grid.gaps.expand(z0.shape[-2], -1)
        control = self.control_at(context, grid.times[:, :-1], gaps)
        states, cost = integrate_fused(self._fused(prior.sde, context, control), z0, grid, noise.keys)
        assert cost is not None
        return PosteriorPaths(states, cost.sum(-1).mean(0), initial_kl)

    def _by_adjoint(
        self, context: Context, prior: Prior, noise: RowNoise, z0: Tensor, initial_kl: Tensor
    ) -> PosteriorPaths:
        """The same law through torchsde's stochastic adjoint, whose Brownian path is its own."""
        law = _SteeredLaw(self, prior, context)
        seed = int(noise.uniform("adjoint")[0] * 2**31)
        states, paid = sdeint(
            law,
            z0,
            context.batch.times,
            dt=self.longest_step,
            method=self.method,
            generator=torch.Generator().manual_seed(seed),
            gradient="adjoint",
            params=law.params(),
            logqp=True,
            engine="torchsde",
        )
        return PosteriorPaths(states, paid.sum(-1).mean(0), initial_kl)

    def _fused(self, law: SDE, context: Context, control: _Control) -> FusedLaw:
        """The steered prior as the fused engine asks for it."""
        assert self.context_layer is not None and self.state_layer is not None and self.network is not None
        shift = self.context_layer(context.at_visits()[:, 1:]).transpose(0, 1)
        last = self.network[0]
        assert isinstance(last, nn.Linear)
        net = Net(self.state_layer.weight, shift, last.weight, last.bias)
        offset, gain, _ = control.whole
        assert gain is not None
        return FusedLaw(net, plain_diffusion(law), plain_drift(law), Steering(offset, gain), activation="silu")

    def _begin(self, context: Context, prior: Prior, noise: RowNoise, num_samples: int) -> tuple[Tensor, Tensor]:
        mean, root = self.start(context, prior)
        eps = noise.samples("start", num_samples, self.latent_size, dtype=mean.dtype)
        return mean + (root @ eps[..., None])[..., 0], prior.initial.kl_from(mean, root)

    def _control(self, context: Context) -> tuple[Grid, _Control]:
        """Every row takes its own steps one after the other."""
        # the control jumps at the visits, and reversible Heun looks at steps' ends
        grid = packed_grid(context.batch.times, self.longest_step, rests=self.method == "reversible_heun")
        return grid, self.control_at(context, grid.times[:, :-1], grid.gaps).with_steps(grid.steps)

    def control_at(self, context: Context, t: Tensor, gaps: Tensor) -> _Control:
        """What the control needs at times t (B, N) in the gaps (B, N) between visits."""
        return self._control_of(self._tables(context), context.batch.times, t, gaps)

    def _tables(self, context: Context) -> _Tables:
        """What the control needs of the context, once per gap."""
        features = context.at_visits()[:, 1:]
        coefficients = self.affine_net(features).unflatten(-1, (1 + SCALES, -1))
        return _Tables(coefficients, None if self.context_layer is None else self.context_layer(features))

    def _control_of(self, tables: _Tables, times: Tensor, t: Tensor, gaps: Tensor) -> _Control:
        left = (times.gather(1, gaps + 1) - t).to(tables.coefficients.dtype)[..., None]
        scale = self.log_scale.exp()
        curves = torch.cat((torch.ones_like(left), scale / (scale + left)), -1)
        affine = (curves[..., None, :] @ _at(tables.coefficients, gaps))[..., 0, :]
        m, d = self.noise_size, self.latent_size
        offset, flat, pull = affine.tensor_split((m, m + self.num_gains), -1)
        gain = None if not self.num_gains else flat.unflatten(-1, (m, d)) if self.coupling == "full" else flat
        shift = None if tables.shift is None else _at(tables.shift, gaps)
        return _Control(self, offset, gain, shift, pull if pull.shape[-1] else None)

    @torch.no_grad()
    def detail(
        self, context: Context, prior: Prior, noise: RowNoise, num_times: int = 64, num_samples: int = 16
    ) -> PathDetail:
        """See `Posterior`: real paths, on the posterior's own grid."""
        z0, _ = self._begin(context, prior, noise, num_samples)
        times = context.batch.times
        if _stand_still(times):
            empty = z0[:, :, None][:, :, :0]
            return PathDetail(times[:, :0], empty, empty[..., : self.noise_size])
        grid, control = self._control(context)
        driven = _Driven(self, prior, control)
        brownian = Brownian(grid, z0.shape[:-1], self.noise_size, seeds=noise, dtype=z0.dtype, device=z0.device)
        kinds = {"noise_type": prior.sde.noise_type, "state_independent": prior.sde.state_independent}
        path = integrate(driven.drift, driven.diffusion, z0, grid, brownian, method=self.method, **kinds)  # type: ignore[arg-type]
        points = path.states[..., :-1, :]
        return PathDetail(grid.times[:, :-1], points, control.along(points))


def _stand_still(times: Tensor) -> bool:
    """Whether no row has two visits at different times: nothing is to be simulated then."""
    return times.shape[1] == 1 or not bool((times[:, -1] > times[:, 0]).any())


class _Tables(NamedTuple):
    """Per gap: curves' coefficients (B, gaps, 1 + SCALES, m + gains) and the network's shift (B, gaps, hidden)."""

    coefficients: Tensor
    shift: Tensor | None


def _at(table: Tensor, gaps: Tensor) -> Tensor:
    """Rows of a table (B, gaps, ...) for the gaps (B, N): (B, N, ...)."""
    return table[torch.arange(len(table), device=table.device)[:, None], gaps]


class _Control:
    """u(k, z) = a_k + B_k z + network(z, context_k), with everything that does not depend on z unbound over steps.

    Attributes:
        spread: for each step the factor (B, m) of its noise, or nothing.
        price_of_spread: (B,) nats, the KL that it costs.
    """

    def __init__(
        self,
        posterior: SimulatedPosterior,
        offset: Tensor,
        gain: Tensor | None,
        shift: Tensor | None,
        pull: Tensor | None = None,
    ) -> None:
        self.posterior, self.whole, self.pull = posterior, (offset, gain, shift), pull
        self.offset = offset.unbind(1)
        self.gain = None if gain is None else gain.unbind(1)
        self.shift = None if shift is None else shift.unbind(1)
        self.spread: tuple[Tensor, ...] = ()
        self.price_of_spread = offset.new_zeros(len(offset))
        # step by step: a backward pass of its own then adds up one step's gradient at a time, not the whole stack's
        self.of_steps = [part for part in (self.offset, self.gain, self.shift) if part is not None]

    def with_steps(self, steps: Tensor) -> _Control:
        """The same, with the spread that its pull (per unit of time) makes in steps of these lengths (B, N)."""
        if self.pull is not None:
            log_variance = -NARROWEST * torch.tanh(steps.to(self.pull)[..., None] * self.pull / NARROWEST)
            self.spread = (0.5 * log_variance).exp().unbind(1)
            self.price_of_spread = 0.5 * (torch.expm1(log_variance) - log_variance).sum((1, 2))
            self.of_steps.append(self.spread)
        return self

    def __call__(self, k: int, z: Tensor) -> Tensor:
        """In step k, at z (..., B, d): (..., B, m)."""
        gain, shift = (None if part is None else part[k] for part in (self.gain, self.shift))
        return self._value(self.offset[k], gain, shift, z)

    def along(self, points: Tensor) -> Tensor:
        """In all steps, at points (..., B, N, d): (..., B, N, m)."""
        return self._value(*self.whole, points)

    def _value(self, offset: Tensor, gain: Tensor | None, shift: Tensor | None, z: Tensor) -> Tensor:
        posterior, control = self.posterior, offset
        if gain is not None:
            control = control + (gain * z if posterior.coupling == "diagonal" else (gain @ z[..., None])[..., 0])
        if shift is not None:
            assert posterior.state_layer is not None and posterior.network is not None
            control = control + posterior.network(nn.functional.silu(posterior.state_layer(z) + shift))
        return control


class _SteeredLaw(SDE):
    """The posterior as an SDE with h, for solvers that ask for any time: the control is evaluated anew at each.

    The posterior's networks stand apart (in a tuple, which hides them from `parameters`), since most are evaluated
    before the solve; `params` are what needs gradients through it besides the prior.
    """

    def __init__(self, posterior: SimulatedPosterior, prior: Prior, context: Context) -> None:
        super().__init__()
        self.posterior, self.prior, self.times = (posterior,), prior.sde, context.batch.times
        self.tables = posterior._tables(context)
        self.noise_type, self.sde_type = prior.sde.noise_type, prior.sde.sde_type
        if prior.sde.state_independent and "heun" in posterior.method:
            self.sde_type = "stratonovich"  # the same law: its diffusion does not depend on the state
        self.state_size, self.noise_size = prior.sde.state_size, prior.sde.noise_size

    def drift(self, t: Time, z: Tensor) -> Tensor:
        (posterior,), times = self.posterior, self.times
        now = torch.as_tensor(t, dtype=times.dtype, device=times.device).expand(len(times))[:, None]
        # rounded as the solver rounds, so that the time of a visit is found in the gap that it begins
        visits = times.to(z.dtype).contiguous()
        gaps = (torch.searchsorted(visits, now.to(z.dtype).contiguous(), right=True) - 1).clamp(0, times.shape[1] - 2)
        control = posterior._control_of(self.tables, times, now, gaps)(0, z)
        diffusion = self.diffusion(t, z)
        push = diffusion * control if self.noise_type == "diagonal" else (diffusion @ control[..., None])[..., 0]
        return self.h(t, z) + push

    def params(self) -> list[Tensor]:
        (posterior,) = self.posterior
        tables = [table for table in self.tables if table is not None]
        layers = [layer for layer in (posterior.state_layer, posterior.network) if layer is not None]
        return [*tables, posterior.log_scale, *(p for layer in layers for p in layer.parameters())]

    def h(self, t: Time, z: Tensor) -> Tensor:
        return self.prior.drift(t, z)

    def diffusion(self, t: Time, z: Tensor) -> Tensor:
        return self.prior.diffusion(t, z)


class _Driven:
    """Drift, diffusion and cost rate of the steered prior, as the native engine asks for them."""

    def __init__(self, posterior: SimulatedPosterior, prior: Prior, control: _Control) -> None:
        self.posterior, self.sde, self.control = posterior, prior.sde, control

    def drift(self, k: int, t: Time, z: Tensor) -> Tensor:
        control, diffusion = self.control(k, z), self.sde.diffusion(t, z)
        push = diffusion * control if self.sde.noise_type == "diagonal" else (diffusion @ control[..., None])[..., 0]
        return self.sde.drift(t, z) + push

    def diffusion(self, k: int, t: Time, z: Tensor) -> Tensor:
        diffusion = self.sde.diffusion(t, z)
        if not self.control.spread:
            return diffusion
        spread = self.control.spread[k]
        return diffusion * (spread if self.sde.noise_type == "diagonal" else spread[..., None, :])

    def cost(self, k: int, t: Time, left: Left) -> Tensor:
        return 0.5 * self.control(k, left.point).square().sum(-1)

    def parameters(self) -> Params:
        return [*self.posterior.parameters(), *self.sde.parameters(), *self.control.of_steps]
