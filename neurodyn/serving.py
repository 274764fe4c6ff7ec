"""A forecaster as one graph of torch operators (`torch.export`), for servers and for runtimes without this package.

The graph has fixed numbers of visits, of times asked for, of sample paths and of solver steps; the number of rows is
free. It draws its noise from one integer key per row, as every forecast here does, so it gives the numbers that the
model gives under the same seed: on a CPU to the bit, given the same padded history. A history with fewer visits than
the graph has is padded for it, over which attention sums in another order than the model does over the shorter one;
that rounds differently, and nothing else does (measured in tests/test_serving.py).

A graph is a program: torch reads it back with pickle, and whoever writes one decides what it does. So nothing here
loads one. What travels is the folder of `model.save`, weights and JSON, which cannot run code; export it where it is
served.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import FORMAT, package_version
from neurodyn.forecast import Forecast, check_forecast_times
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch

INPUTS = ("times", "values", "mask", "asked", "keys")
"""What a program takes, in this order; see `ExportedForecaster`."""

SLACK = 1 + 1e-6  # of a reach: times that were made in float32 are rounded

COUNTS = ("poisson", "negative_binomial")  # their draws take as many rounds as the largest mean asks for


@dataclass(frozen=True, eq=False)
class ExportedForecaster:
    """An exported forecaster with what its inputs mean; make one with `export_forecaster`.

    The program maps B rows to samples (S, B, H, D):

    - times (B, T) float64: of the visits, increasing, then the last one repeated.
    - values (B, T, D): zero where nothing was observed. mask (B, T, D) bool: True where something was.
    - asked (B, H) float64: times to forecast, not before the last visit, not decreasing.
    - keys (B,) int64: the noise of a row, from `row_keys`, or any numbers.

    Values and times are in the model's units, standardised as a rule (`Scaling`). A row whose last time asked for lies
    further from its last visit than `reach` gives NaN where it runs out of steps.

    Attributes:
        program: the graph.
        variables: D names. num_visits, horizon, num_samples: T, H, S.
        reach: in the model's unit of time; infinite for a model that takes no steps.
        dtype: of values and samples.
    """

    program: torch.export.ExportedProgram
    variables: tuple[str, ...]
    num_visits: int
    horizon: int
    num_samples: int
    reach: float
    dtype: torch.dtype

    @cached_property
    def _call(self) -> nn.Module:
        module: nn.Module = self.program.module()
        return module

    @torch.no_grad()
    def forecast(self, history: SeriesBatch, times: Tensor, *, generator: torch.Generator | None = None) -> Forecast:
        """What the model's own `forecast` gives with `num_samples` and the same generator.

        On a CPU to the bit; with attention, and fewer visits than `num_visits`, up to rounding.

        Args:
            history: B rows with at most `num_visits` observed visits each.
            times: (B, H') or (H',), as there, H' up to `horizon` and not further than `reach` from the history.

        Raises:
            ValueError: more visits, times, or time than the program was exported for, other variables, times before
                the history.
        """
        if history.variables != self.variables:
            raise ValueError(f"history: variables {list(history.variables)} given, {list(self.variables)} wanted")
        known = history.to(self.device, self.dtype).compact()
        if known.num_times > self.num_visits:
            raise ValueError(f"history: {known.num_times} visits given, {self.num_visits} or fewer wanted")
        asked = check_forecast_times(known, times)
        if asked.shape[1] > self.horizon:
            raise ValueError(f"times: {asked.shape[1]} per row given, {self.horizon} or fewer wanted")
        furthest = float((asked[:, -1] - known.last_time).max())
        if furthest > self.reach * SLACK:
            raise ValueError(f"times: {furthest:g} beyond the last visit given, at most {self.reach:g} wanted")
        noise = RowNoise.of(known, generator)
        padded = known.padded(self.num_visits)
        rest = asked[:, -1:].expand(-1, self.horizon - asked.shape[1])
        tensors = (padded.times, padded.values, padded.mask, torch.cat((asked, rest), 1), noise.keys)
        samples = self._call(*tensors)[:, :, : asked.shape[1]]
        return Forecast.of(known, asked, samples).to(history.device)

    @property
    def device(self) -> torch.device:
        """Where the program computes."""
        return next(iter(self.program.state_dict.values())).device

    def save(self, path: Path | str) -> Path:
        """Write the program to a .pt2 file, whole or not at all, for runtimes that read such files.

        It holds the graph, the weights, and, as the extra file neurodyn.json, the sizes and the meaning of the inputs;
        no data and no path of this machine. torch.export.load reads it with pickle, so a server should take such files
        only from where it takes its code.

        Raises:
            ValueError: another ending than .pt2.
        """
        path = Path(path)
        if path.suffix != ".pt2":
            raise ValueError(f"path: {path} given, a file ending in .pt2 wanted")
        about = {
            "format": FORMAT,
            "neurodyn": package_version(),
            "inputs": list(INPUTS),
            "variables": list(self.variables),
            "num_visits": self.num_visits,
            "horizon": self.horizon,
            "num_samples": self.num_samples,
            "reach": self.reach if math.isfinite(self.reach) else None,
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.stem + ".part.pt2")
        torch.export.save(self.program, partial, extra_files={"neurodyn.json": json.dumps(about)})
        os.replace(partial, path)
        return path


def export_forecaster(
    model: LatentSDE | LinearSDE,
    variables: Sequence[str],
    *,
    num_visits: int,
    horizon: int,
    num_samples: int = 200,
    reach: float | None = None,
) -> ExportedForecaster:
    """Export a fitted model's `forecast` on the device that it is on.

    Args:
        model: a `LatentSDE` from `build` or `on`, with a likelihood of real values or classes; or a `LinearSDE`.
        variables: D names, for `ExportedForecaster.forecast` to check.
        num_visits: T, the most observed visits of a history.
        horizon: H, the most times asked for at once.
        num_samples: S.
        reach: longest time from a row's last visit to the last time asked for, in the model's unit. A `LatentSDE` needs
            it: it settles the number of solver steps, which a forecast takes in full whatever is asked.

    Raises:
        ValueError: another model, likelihood or core, covariates or static columns; sizes below one.
    """
    sizes = {"num_visits": num_visits, "horizon": horizon, "num_samples": num_samples}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: {size} given, 1 or more wanted")
    config = _exportable(model)
    size = config["num_variables"]
    if len(variables) != size:
        raise ValueError(f"variables: {len(variables)} names given, {size} wanted as the model has")
    num_steps = None
    if isinstance(model, LatentSDE):
        if reach is None or not 0 < reach < math.inf:
            raise ValueError(f"reach: {reach} given, a positive time wanted, as this model takes steps")
        # every gap between times asked for is cut by itself, and may end with one short step
        num_steps = math.ceil(reach * SLACK / model.longest_step) + horizon
    else:
        reach = math.inf
    parameter = next(model.start.encoder.parameters() if isinstance(model, LatentSDE) else model.parameters())
    dtype = parameter.dtype if isinstance(model, LatentSDE) else torch.get_default_dtype()
    program = _Program(model, tuple(variables), num_samples, num_steps).eval()
    rows = torch.export.Dim("rows", min=1)
    example = _example(2, num_visits, horizon, size, dtype, parameter.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            exported = torch.export.export(program, example, dynamic_shapes=tuple({0: rows} for _ in INPUTS))
    finally:
        model.train(training)
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return ExportedForecaster(exported, tuple(variables), num_visits, horizon, num_samples, reach, dtype)


def row_keys(seed: int, ids: Sequence[str]) -> Tensor:
    """Keys (B,) int64 of rows by their ids: rows draw the same noise in any batch; another seed, another forecast."""
    return RowNoise(seed, ids).keys


class _Program(nn.Module):
    """The computation that is exported: tensors in, samples out."""

    def __init__(
        self, model: LatentSDE | LinearSDE, variables: tuple[str, ...], num_samples: int, num_steps: int | None
    ) -> None:
        super().__init__()
        self.model, self.variables, self.num_samples, self.num_steps = model, variables, num_samples, num_steps

    def forward(self, times: Tensor, values: Tensor, mask: Tensor, asked: Tensor, keys: Tensor) -> Tensor:
        """(S, B, H, D)."""
        history = SeriesBatch._unchecked(times, values, mask, self.variables)
        steps: dict[str, Any] = {} if self.num_steps is None else {"num_steps": self.num_steps}
        found: Tensor = self.model.sample_forecast(history, asked, self.num_samples, RowNoise.keyed(keys), **steps)
        return found


def _exportable(model: LatentSDE | LinearSDE) -> dict[str, Any]:
    """The model's configuration, if it can be exported."""
    if not isinstance(model, LatentSDE | LinearSDE):
        raise ValueError(f"model: a {type(model).__name__} given, a LatentSDE or a LinearSDE wanted")
    config: dict[str, Any] | None = model.config
    if config is None:
        raise ValueError(f"model: a {type(model).__name__} of your own parts given, one made from names wanted")
    if isinstance(model, LatentSDE):
        if config["likelihood"] in COUNTS:
            raise ValueError(
                f"model: likelihood {config['likelihood']!r} given, whose draws take as many rounds as their means ask "
                "for; another likelihood wanted"
            )
        if config["num_covariates"] or config["num_static"]:
            raise ValueError("model: one with covariates or static columns given, one without wanted")
    return config


def _example(
    rows: int, visits: int, horizon: int, size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """Inputs of the right shapes, made up: a program keeps those that it was exported with."""
    times = torch.arange(visits, dtype=torch.float64, device=device).expand(rows, -1).contiguous()
    asked = visits + torch.arange(horizon, dtype=torch.float64, device=device).expand(rows, -1).contiguous()
    values = torch.zeros(rows, visits, size, dtype=dtype, device=device)
    keys = torch.arange(rows, dtype=torch.int64, device=device)
    return times, values, torch.ones_like(values, dtype=torch.bool), asked, keys
