"""`Scotch`: which variable drives which, from series, by a law of motion masked by an unknown graph.

After SCOTCH (Wang, Jennings and Gong, ICLR 2024, arXiv 2311.03309): the prior is dz = f(z, G) dt + g(z, G) dW with the
graph G unknown, and q(G) is learned with everything else. SCOTCH simulates its posterior over paths, one graph per
series and step. Here that is `posterior="simulated"`; with "bridge", the default, paths are bridges through the values
(SDE Matching, `neurodyn.posteriors.bridge`), nothing is simulated, and a step sees a graph per series and time. The
simulated posterior begins as those bridges (`neurodyn.posteriors.guided`).

The price of an edge, in nats, rises geometrically during training, from `sparsity_start` to `sparsity`; an edge's score
is its mean probability on the way, so it is high for those that give way last. At any single price most probabilities
are near 0 or 1 and rank edges poorly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import load_model, save_model
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.likelihoods import make_likelihood
from neurodyn.loss import Loss
from neurodyn.models.home import at_home
from neurodyn.nets.encoders import make_encoder
from neurodyn.noise import RowNoise
from neurodyn.posteriors.bridge import BridgePosterior, PerBatch, bridge_cost, smoothness
from neurodyn.posteriors.graphs import EdgePosterior
from neurodyn.posteriors.guided import GuidedPosterior
from neurodyn.sde.base import SDE
from neurodyn.sde.graph import GraphLaw, Intervened
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch
from neurodyn.solvers.rollout import rollout
from neurodyn.spelling import check_options

CONTEXT = 32  # of the encoder of a simulated posterior
ENTRIES = 2**19  # of all graphs that a step of `Scotch.on` draws, roughly: a hundred variables get fewer times


@dataclass
class ScotchConfig:
    """The settings of a `Scotch`.

    Raises:
        ValueError: on construction, for settings outside their range or that do not go together.
    """

    num_variables: int
    """D."""
    num_series: int
    """How many series the training set has: each carries its share of the graph's price."""
    posterior: Literal["bridge", "step", "simulated"] = "bridge"
    """Bridges through the values, nothing simulated; Euler's law of one step; or through the solver, as published."""
    network: Literal["embedding", "targets"] = "targets"
    """One network for each variable; or one that all share, told apart by embeddings, as published."""
    hidden_size: int | None = None
    """Of the networks; their default if not given."""
    diffusion: Literal["constant", "network"] = "constant"
    """Learned constants; or networks masked by the graph, for a simulated posterior."""
    noise: float | Literal["learned"] | None = None
    """Standard deviation of the observation noise, fixed or learned; None: values are exact. A simulated posterior
    needs a number or "learned"."""
    fixed: list[list[float | None]] | None = None
    """(D, D), row i column j: 1 where i is known to drive j, 0 where it is known not to, None where it is asked."""
    start_probability: float = 0.95
    """Of every edge at first: a law that sees everything learns, and then lets go of what it can do without."""
    sparsity_start: float = 1.0
    """What an edge costs at first, in nats."""
    sparsity: float = 10000.0
    """What an edge costs after the ramp, in nats."""
    warmup_steps: int = 300
    """Training steps before the price rises, in which law and paths find each other."""
    ramp_steps: int = 1200
    """Training steps over which it rises."""
    gradient: Literal["straight_through", "score"] = "straight_through"
    """Of the expectation over graphs: little noise and some bias; or none, for a bridge posterior."""
    temperature: float = 1.0
    """Of straight-through gradients."""
    graph_pace: float = 10.0
    """How many times faster the graph learns than the networks."""
    num_times: int = 16
    """Stratified times per series and step of a bridge posterior."""
    num_graphs: int = 2
    """Graphs per series and time with gradient="score"; paths per series and step of a simulated posterior."""
    longest_step: float = 0.1
    """Of rollouts and of a simulated posterior; intervals up to a quarter longer are "step"s. In units of time."""

    def __post_init__(self) -> None:
        low = {"num_variables": 1, "num_series": 1, "warmup_steps": 0, "ramp_steps": 0, "num_times": 1, "num_graphs": 1}
        for name, least in low.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} given, {least} or more wanted")
        if not 0 < self.start_probability < 1:
            raise ValueError(f"start_probability: {self.start_probability} given, a number between 0 and 1 wanted")
        for name in ("sparsity_start", "sparsity", "longest_step"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} given, a positive number wanted")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name}: {getattr(self, name)!r} given, one of {', '.join(get_args(hint))} wanted")
        simulated = self.posterior == "simulated"
        if simulated and self.noise is None:
            raise ValueError("noise: None given with a simulated posterior, a positive number or 'learned' wanted")
        if not simulated and self.diffusion == "network":
            raise ValueError(f"diffusion: 'network' given with posterior {self.posterior!r}, 'constant' wanted")
        if self.gradient == "score" and (simulated or self.num_graphs < 2):
            raise ValueError(
                f"gradient: 'score' given with posterior {self.posterior!r} and num_graphs {self.num_graphs}; 'bridge' "
                "and 2 or more wanted"
            )

    @classmethod
    def of(cls, **settings: Any) -> ScotchConfig:
        """The same as the constructor, but a name that does not exist, or a missing one, is a one-line ValueError."""
        known = [field.name for field in fields(cls)]
        check_options("Scotch", settings, known, needed=["num_variables", "num_series"])
        return cls(**settings)


class Scotch(nn.Module):
    """A graph-masked law of motion with a distribution over its graph. Make one with `Scotch.on(train)`.

    It expects standardised values (`Scaling`). Train it with `fit` on all rows at once (`batch_size=0`) for
    `ramp_steps` steps or more; then `edge_scores()` ranks edges, [i, j] for i drives j. The law of a known graph is one
    with all of `fixed` given.

    `loss` and `forecast` depend on what is observed and on the rows' ids, not on padding, row order or batch splits.
    """

    def __init__(
        self,
        config: ScotchConfig,
        speed: Tensor | None = None,
        scale: Tensor | None = None,
        bend: Tensor | None = None,
    ) -> None:
        super().__init__()
        size = config.num_variables
        self.settings, self.config = config, asdict(config)
        network = {"network": config.network, "hidden_size": config.hidden_size, "diffusion": config.diffusion}
        self.law = GraphLaw(size, **network, speed=speed, scale=scale)  # type: ignore[arg-type]
        table = None
        if config.fixed is not None:
            table = torch.tensor([[torch.nan if e is None else e for e in row] for row in config.fixed])
        self.graph = EdgePosterior(
            size, table, start=config.start_probability, temperature=config.temperature, pace=config.graph_pace
        )
        if config.posterior != "simulated":
            step = config.posterior == "step"
            self.posterior: nn.Module = BridgePosterior(
                size,
                config.noise,
                num_times=config.num_times,
                steps=step,
                longest=1.25 * config.longest_step,
                bend=bend,
            )
        else:
            assert config.noise is not None
            width = torch.full((size,), 0.1 if isinstance(config.noise, str) else config.noise)
            self.posterior = GuidedPosterior(
                size,
                CONTEXT,
                longest_step=config.longest_step,
                noise=width,
                scale=self.law.log_scale.detach().exp(),
                bend=bend,
            )
            self.encoder = make_encoder("gru", size, CONTEXT)
            self.initial = GaussianInitial(size)
            self.likelihood = make_likelihood("gaussian", size, size, decoder=nn.Identity(), noise=config.noise)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("passed", torch.zeros(size, size))
        self.step: Tensor
        self.passed: Tensor
        self._homes: PerBatch[SeriesBatch] = PerBatch()

    @classmethod
    def build(cls, **config: Any) -> Scotch:
        """A model from settings, see `ScotchConfig`, with units of 1 for velocities and noise.

        Raises:
            ValueError: a setting that does not exist (naming the nearest), or outside its range.
        """
        return cls(ScotchConfig.of(**config))

    @classmethod
    def on(cls, train: SeriesBatch, **config: Any) -> Scotch:
        """A model for these series: its sizes, units, curves and steps are the data's.

        Args:
            train: the series that it will be trained on, standardised.
            config: see `ScotchConfig`.

        Raises:
            ValueError: as `build`; a variable without two values in any series, or that never changes.
        """
        velocity, variation, spacing = motion(train)
        fine = config.get("posterior", "bridge") == "bridge"
        own: dict[str, Any] = {"num_variables": train.num_variables, "num_series": train.num_rows}
        own["longest_step"] = spacing / 10 if fine else spacing
        own["num_times"] = min(16, max(1, ENTRIES // (train.num_rows * train.num_variables**2)))
        settings = ScotchConfig.of(**own | config)
        return cls(settings, velocity, variation, smoothness(train))

    def save(self, path: Path | str) -> Path:
        """Write a folder of weights (safetensors) and configuration (JSON)."""
        return save_model(self, path)

    @classmethod
    def load(cls, path: Path | str) -> Scotch:
        """Read what `save` wrote. Nothing in the folder is executed. Raises as `load_model`."""
        return load_model(cls, path)

    @property
    def price(self) -> Tensor:
        """What an edge costs at this step of the ramp, in nats."""
        config = self.settings
        share = ((self.step - config.warmup_steps).to(self.passed) / max(1, config.ramp_steps)).clamp(0, 1)
        return config.sparsity_start * (config.sparsity / config.sparsity_start) ** share

    def edge_probabilities(self) -> Tensor:
        """q(G) as it is now, (D, D), on the CPU: at the ramp's end most are near 0, see `edge_scores`."""
        return self.graph.probabilities().detach().cpu()

    def edge_scores(self) -> Tensor:
        """The mean probability of each edge over the ramp so far, (D, D) in [0, 1], on the CPU."""
        steps = (self.step - self.settings.warmup_steps).clamp(0, self.settings.ramp_steps)
        average = torch.where(steps > 0, self.passed / steps.clamp(min=1), self.graph.probabilities())
        return average.detach().cpu()

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Parts of the negative evidence bound, (B,) each, nats per series; `initial_kl` holds the graph's share.

        With a bridge posterior the bound is of the values given each variable's first one, and `path_kl` is what the
        drift costs; it can be negative. In training mode a call moves the edges' price one step on.
        """
        batch = self._at_home(batch)
        noise = RowNoise.of(batch, generator)
        graph_kl = self.graph.kl(self.price) / self.settings.num_series
        parts = (self._simulated if self.settings.posterior == "simulated" else self._bridged)(batch, noise)
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                place = self.step - self.settings.warmup_steps
                within = (place >= 0) & (place < self.settings.ramp_steps)
                self.passed += torch.where(within, self.graph.probabilities(), 0.0)
                self.step += 1
        return parts._replace(initial_kl=parts.initial_kl + graph_kl)

    def _bridged(self, batch: SeriesBatch, noise: RowNoise) -> Loss:
        assert isinstance(self.posterior, BridgePosterior)
        size, score = self.settings.num_variables, self.settings.gradient == "score"
        points = self.posterior(batch, self.law.log_scale.exp(), noise)
        copies = self.settings.num_graphs if score else 1
        draws = noise.uniform("graphs", copies, points.z.shape[2], size, size, dtype=batch.dtype).transpose(0, 1)
        graphs = self.graph.sample(draws)  # (copies, B, M, D, D): antithetic paths share one
        rest = graphs.new_zeros(batch.num_rows)
        if score:
            graphs = graphs.detach()
            costs = torch.stack([bridge_cost(points, self.law, one) for one in graphs])
            surrogate = self.graph.score_surrogate(costs, graphs) / batch.num_rows
            rest = rest + (surrogate - surrogate.detach())  # no number, a gradient only
            cost = costs.mean(0)
        else:
            cost = bridge_cost(points, self.law, graphs[0])
        return Loss(points.constant.sum(-1), torch.zeros_like(rest), cost.sum((1, 2)), rest)

    def _simulated(self, batch: SeriesBatch, noise: RowNoise) -> Loss:
        size, samples = self.settings.num_variables, self.settings.num_graphs
        context = self.encoder(batch)
        draws = noise.uniform("graphs", samples, size, size, dtype=batch.dtype).transpose(0, 1)
        law = self.law.under(self.graph.sample(draws))
        paths = self.posterior(context, Prior(law, self.initial), noise, samples)
        log_prob = self.likelihood.log_prob(batch.values, paths.z, batch.mask).sum(-1).mean(0)
        return Loss(log_prob, paths.initial_kl, paths.path_kl, torch.zeros_like(log_prob))

    def _at_home(self, batch: SeriesBatch) -> SeriesBatch:
        """The batch compact on the model's own device; kept, so that its curves are worked out once."""
        known = self._homes.get(batch)
        where = self.passed
        if known is None or known.device != where.device or known.dtype != where.dtype:
            if batch.num_variables != self.settings.num_variables:
                wanted = self.settings.num_variables
                raise ValueError(f"batch: {batch.num_variables} variables given, {wanted} wanted as the model has")
            known = self._homes[batch] = at_home(batch, self.law).compact()
        return known

    @torch.no_grad()
    def forecast(
        self,
        history: SeriesBatch,
        times: Tensor,
        num_samples: int = 200,
        *,
        generator: torch.Generator | None = None,
        interventions: Mapping[str, float] | None = None,
    ) -> Forecast:
        """Roll the law forward from each variable's last value, a graph of q(G) per path: (S, B, H, D) samples.

        Args:
            history: B rows. times: (B, H), each row's not before its last observed time and not decreasing.
            interventions: variables that are held at a value from the end of the history on, whatever drives them.

        Raises:
            ValueError: times before the history, unknown variables.
        """
        held = dict(interventions or {})
        check_options("interventions", held, history.variables)
        asked_from, home = history.device, self._at_home(history)
        noise = RowNoise.of(home, generator)
        times = check_forecast_times(home, times)
        size = self.settings.num_variables
        place = torch.arange(home.num_times, device=home.device)[:, None]
        last = torch.where(home.mask, place, 0).amax(1, keepdim=True)
        z = home.values.gather(1, last)[:, 0].expand(num_samples, -1, -1).clone()
        draws = noise.uniform("forecast graphs", num_samples, size, size, dtype=z.dtype).transpose(0, 1)
        law: SDE = self.law.under(self.graph.sample(draws))
        if held:
            mask = torch.tensor([name in held for name in history.variables], device=z.device)
            value = torch.tensor([held.get(name, 0.0) for name in history.variables]).to(z)
            z, law = torch.where(mask, value, z), Intervened(law, mask)
        samples = rollout(law, z, home.last_time, times, noise, self.settings.longest_step)
        return Forecast.of(home, times, samples + self._observation_noise(noise, samples)).to(asked_from)

    def _observation_noise(self, noise: RowNoise, like: Tensor) -> Tensor:
        if isinstance(self.posterior, BridgePosterior):
            if not self.posterior.noisy:
                return torch.zeros_like(like)
            sd = self.posterior.log_noise.exp()
        else:
            sd = self.likelihood.noise_sd()  # type: ignore[operator]
        return sd * noise.samples("observation", len(like), *like.shape[2:], dtype=like.dtype)


def motion(train: SeriesBatch) -> tuple[Tensor, Tensor, float]:
    """Typical velocity (D,), root of the quadratic variation per unit of time (D,), and the median spacing of visits.

    Raises:
        ValueError: a variable without two values in any series, or one that never changes.
    """
    train = train.to("cpu", torch.float64).compact()
    speed, rough = [], []
    for k, name in enumerate(train.variables):
        moved, took = [], []
        for row in range(train.num_rows):
            seen = train.mask[row, :, k]
            moved.append(train.values[row, seen, k].diff())
            took.append(train.times[row, seen].diff())
        change, length = torch.cat(moved), torch.cat(took)
        if not len(change) or not bool(change.any()):
            what = "without two values in any series" if not len(change) else "that never changes"
            raise ValueError(f"train: variable {name!r} {what} given; leave it out")
        speed.append((change / length).square().mean().sqrt())
        rough.append((change.square() / length).mean().sqrt())
    gaps = train.times.diff(dim=1)
    dtype = torch.get_default_dtype()
    return torch.stack(speed).to(dtype), torch.stack(rough).to(dtype), float(gaps[gaps > 0].median())
