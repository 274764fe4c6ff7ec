"""`PathModel`: values that were not observed, from a state along the path of those that were: between them or after."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import load_model, save_model
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.loss import Loss
from neurodyn.models.classifier import StableReader, stable_law
from neurodyn.models.home import at_home
from neurodyn.nets.context import last_observed_index
from neurodyn.nets.controlled import ControlledSDE, NeuralCDE
from neurodyn.nets.mlp import mlp
from neurodyn.nets.paths import PathKind
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch
from neurodyn.spelling import check_options

Task = Literal["interpolate", "forecast"]
CHUNK = 4_000_000
"""Numbers of a state's path that are held at once while values are drawn."""


class Neighbours(NamedTuple):
    """What is known of each variable around the times asked for: (B, Q, D) each.

    line: on the straight line between the observations before (or at) and after a time, that one where there is one
    only, 0 where there is none. last: the observation before, or else the one after. fresh: exp(-age) of the one
    before, 0 if none. soon: the same of the one after.
    """

    line: Tensor
    last: Tensor
    fresh: Tensor
    soon: Tensor


def neighbours(known: SeriesBatch, at: Tensor) -> Neighbours:
    """Of a compacted batch, at times (B, Q)."""
    steps, times = known.num_times, known.times.contiguous()
    before = last_observed_index(known.mask)
    after = steps - 1 - last_observed_index(known.mask.flip(1)).flip(1)  # `steps` where there is none
    place = torch.searchsorted(times, at.contiguous(), right=True)  # visits up to the time
    none = torch.full_like(before[:, :1], -1)
    before = torch.cat((none, before), 1).gather(1, _wide(place, before))
    after = torch.cat((after, torch.full_like(none, steps)), 1).gather(1, _wide(place, after))
    clock = times.unsqueeze(-1).expand(known.mask.shape)

    def side(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        there = (index >= 0) & (index < steps)
        inside = index.clamp(0, steps - 1)
        age = (at.unsqueeze(-1) - clock.gather(1, inside)).abs()
        return there, known.values.gather(1, inside), age

    (had, left, since), (has, right, until) = side(before), side(after)
    gap = torch.where(had & has, since + until, torch.ones_like(since))
    share = (since / torch.where(gap > 0, gap, 1.0)).to(left.dtype)
    last = torch.where(had, left, right * has)
    line = torch.where(had & has, torch.lerp(left, right, share), last)
    fresh, soon = (torch.exp(-age).to(left.dtype) * there for age, there in ((since, had), (until, has)))
    return Neighbours(line, last, fresh, soon)


def _wide(place: Tensor, like: Tensor) -> Tensor:
    return place.unsqueeze(-1).expand(*place.shape, like.shape[-1])


@dataclass
class PathModelConfig:
    """Of a `PathModel`.

    Raises:
        ValueError: on construction, for a setting out of its range.
    """

    num_variables: int
    """D."""
    task: Task = "interpolate"
    """What training hides: values and visits at random, or all after a random visit."""
    reader: StableReader | Literal["neural_cde"] = "lnsde"
    """What runs along the path, as in `ClassifierConfig`."""
    hidden_size: int = 32
    """Of the state, and of the networks."""
    form: Literal["theory", "released"] = "theory"
    """Of the stable SDEs."""
    path: PathKind = "hermite"
    """Of the data."""
    longest_step: float = 0.1
    """Of the SDEs, in units of time."""

    def __post_init__(self) -> None:
        readers = (*get_args(StableReader), "neural_cde")
        for name, choices in (("task", get_args(Task)), ("reader", readers), ("form", ("theory", "released"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, want one of {', '.join(choices)}")
        if self.num_variables < 1 or self.hidden_size < 1:
            raise ValueError(
                f"num_variables, hidden_size: got {self.num_variables} and {self.hidden_size}, want 1 or more"
            )


class PathModel(nn.Module):
    """Student-t laws of unobserved values, around the line between a variable's own neighbours.

    A state z runs along the control path of what is known, and on after its end. A network reads z, that line and how
    near the neighbours are; it says how much the line counts, what is added to it, and the spread. A fresh model is the
    line (after the end: the last value), drawn a little to the mean.

    Expects standardised values and times (`Scaling`). A row's results depend on its observed entries and its id alone.

    Args:
        config: see `PathModelConfig`; `build` takes its fields.
    """

    def __init__(self, config: PathModelConfig) -> None:
        super().__init__()
        self.settings, self.config = config, asdict(config)
        size, hidden = config.num_variables, config.hidden_size
        self.reader: Any
        if config.reader == "neural_cde":
            self.reader = NeuralCDE(size, hidden, hidden, width=hidden, path=config.path)
        else:
            law = stable_law(config.reader, config.form, hidden, size)
            self.reader = ControlledSDE(law, path=config.path, longest_step=config.longest_step)
        self.decoder = nn.Sequential(
            nn.Linear(hidden + 3 * size, hidden), nn.SiLU(), mlp([hidden, hidden, 3 * size], zero_last=True)
        )
        self.norm = nn.LayerNorm(hidden)
        self.raw_df = nn.Parameter(torch.full((size,), 1.5))

    @classmethod
    def build(cls, **config: Any) -> Self:
        """From the fields of `PathModelConfig`.

        Raises:
            ValueError: an unknown field, one that is missing, or one out of its range.
        """
        check_options(cls.__name__, config, [field.name for field in fields(PathModelConfig)], needed=["num_variables"])
        return cls(PathModelConfig(**config))

    def laws(self, known: SeriesBatch, at: Tensor, num_samples: int, noise: RowNoise) -> tuple[Tensor, Tensor, Tensor]:
        """Location and scale, (S, B, Q, D), and degrees of freedom (D,), at times (B, Q) given a compacted batch."""
        if isinstance(self.reader, NeuralCDE):
            state = self.reader(known, at).features[None]
        else:
            state = self.reader(known, num_samples, at=at, noise=noise)
        line, _, fresh, soon = (part.expand(len(state), *part.shape) for part in neighbours(known, at))
        shift, gate, scale = self.decoder(torch.cat((self.norm(state), line, fresh, soon), -1)).chunk(3, -1)
        location = line * torch.sigmoid(gate + 2.0) + shift
        df = 2.0 + nn.functional.softplus(self.raw_df)
        return location, nn.functional.softplus(scale - 0.5) + 1e-3, df

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Log-likelihood of what was hidden from the model, (B,), nats, by one path.

        "interpolate": a random share, from 0.2 to 0.8, of a row's values, or, in half of the rows, of its visits.
        "forecast": all after a random visit.
        """
        batch = at_home(batch, self).compact()
        noise = RowNoise.of(batch, generator)
        hidden = self._hidden(batch, noise)
        keep = batch.mask & ~hidden
        known = batch._with(mask=keep, values=torch.where(keep, batch.values, 0)).compact()
        location, scale, df = self.laws(known, batch.times, 1, noise)
        spread = ((batch.values - location[0]) / scale[0]).square() / df
        constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * math.pi).log()
        density = constant - scale[0].log() - (df + 1) / 2 * spread.log1p()
        total = torch.where(hidden, density, 0.0).sum((1, 2))
        zero = torch.zeros_like(total)
        return Loss(total, zero, zero, zero)

    def _hidden(self, batch: SeriesBatch, noise: RowNoise) -> Tensor:
        """(B, T, D) bool: what a training step asks for; something stays known in every row."""
        if self.settings.task == "forecast":
            last = (batch.present.sum(1) - 1).clamp_min(1)
            cut = (noise.uniform("cut") * last).long()
            later = torch.arange(batch.num_times, device=batch.device) > cut[:, None]
            return batch.mask & later.unsqueeze(-1)
        share = 0.2 + 0.6 * noise.uniform("share")
        single = noise.uniform("hide", *batch.mask.shape[1:])
        visit = noise.uniform("hide visits", batch.num_times).unsqueeze(-1)
        draw = torch.where((noise.uniform("which") < 0.5)[:, None, None], single, visit)
        draw = torch.where(batch.mask, draw, -1.0)
        best = draw.flatten(1).amax(1)[:, None, None]
        return batch.mask & (draw < share[:, None, None]) & (draw < best)

    @torch.no_grad()
    def interpolate(
        self, batch: SeriesBatch, times: Tensor, num_samples: int = 100, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Locations (S, B, Q, D) of the values at `times` (B, Q) given the whole row, one for each path of the state.

        Their mean over S is the interpolation; `sample` draws values.

        Args:
            times: not decreasing along a row; before, between or after what is known.

        Raises:
            ValueError: times that fall, or of another shape.
        """
        asked_from, known = batch.device, at_home(batch, self).compact()
        return self.laws(known, _asked(known, times), num_samples, RowNoise.of(batch, generator))[0].to(asked_from)

    @torch.no_grad()
    def sample(
        self, batch: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Sample values at `times`, as `interpolate` takes them."""
        asked_from, known = batch.device, at_home(batch, self)
        at, noise = _asked(known, times), RowNoise.of(batch, generator)
        compact, size = known.compact(), self.settings.hidden_size
        # rows are their own, so as many at a time as fit into memory
        count = max(1, CHUNK // (num_samples * (compact.num_times + at.shape[1]) * size))
        drawn = []
        for first in range(0, len(known), count):
            rows = slice(first, first + count)
            drawn.append(self._draw(compact.rows(rows), at[rows], num_samples, RowNoise.keyed(noise.keys[rows])))
        return Forecast.of(known, at, torch.cat(drawn, 1)).to(asked_from)

    def _draw(self, known: SeriesBatch, at: Tensor, num_samples: int, noise: RowNoise) -> Tensor:
        """Values (S, B, Q, D)."""
        location, scale, df = self.laws(known, at, num_samples, noise)
        # Bailey (1994), "Polar generation of random variates with the t-distribution": exact for any df
        radius, angle = (
            noise.uniform(purpose, num_samples, *location.shape[2:]).transpose(0, 1).to(location.device)
            for purpose in ("radius", "angle")
        )
        draw = (df * torch.expm1(-2 / df * radius.log())).sqrt() * torch.cos(2 * math.pi * angle)
        return location + scale * draw.to(location.dtype)

    def forecast(
        self, history: SeriesBatch, times: Tensor, num_samples: int = 200, *, generator: torch.Generator | None = None
    ) -> Forecast:
        """Sample values at `times`, (B, H) or (H,), not before a row's last observed visit."""
        return self.sample(history, check_forecast_times(history, times), num_samples, generator=generator)

    def save(self, path: Path | str) -> Path:
        """Write a folder with the weights and the configuration; returns it."""
        return save_model(self, path)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """What `save` wrote."""
        return load_model(cls, path)


def _asked(batch: SeriesBatch, times: Tensor) -> Tensor:
    at = torch.as_tensor(times, dtype=torch.float64, device=batch.device)
    if at.ndim != 2 or at.shape[0] != len(batch) or bool((at.diff(dim=1) < 0).any()):
        raise ValueError(f"times: shape {tuple(at.shape)} given, sorted ({len(batch)}, Q) wanted")
    return at
