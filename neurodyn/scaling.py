"""`Scaling`: standardisation fitted on training rows, applied to any batch, undone in forecasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neurodyn.series import SeriesBatch
from neurodyn.series_checks import row_name


@dataclass(frozen=True, eq=False)
class Scaling:
    """scaled value = (x - mean) / sd, x the value or its natural logarithm; scaled time = (t - origin) / scale.

    Statistics are kept in float64 on the CPU.

    Args:
        mean, sd: (D,), of observed training values, after the logarithm where `log` is True.
        log: (D,) bool.
        time_origin, time_scale: in the data's time unit.
        variables: D names, checked when applied.
        covariate_mean, covariate_sd: (C,), over observed visits; static_mean, static_sd: (K,). A covariate or static
            column that is constant in training gets sd 1. None where training had no such table.
    """

    mean: Tensor
    sd: Tensor
    log: Tensor
    time_origin: float
    time_scale: float
    variables: tuple[str, ...]
    covariate_mean: Tensor | None = None
    covariate_sd: Tensor | None = None
    static_mean: Tensor | None = None
    static_sd: Tensor | None = None

    @staticmethod
    def fit(train: SeriesBatch, log: Sequence[str] = ()) -> Scaling:
        """Statistics of training rows. Time starts at the earliest visit; its unit is the median span of rows.

        Args:
            train: training rows.
            log: names of variables to take logarithms of.

        Raises:
            ValueError: for an unknown name in `log`, a logarithm of a value that is not positive, a variable that is
                constant or never observed.
        """
        unknown = [log] if isinstance(log, str) else [name for name in log if name not in train.variables]
        if unknown:
            raise ValueError(f"log: {unknown} given, a list with some of {list(train.variables)} wanted")
        train = train.to("cpu")
        which = torch.tensor([name in log for name in train.variables])
        x = _log(train, which)
        mean, sd, count = _moments(x, train.mask)
        never = [name for name, n in zip(train.variables, count.tolist(), strict=True) if n == 0]
        if never:
            raise ValueError(f"train: {never} never observed in {train.num_rows} rows; leave these variables out")
        constant = ~(sd > 1e-10 * (1 + mean.abs()))
        if constant.any():
            names = [name for name, dull in zip(train.variables, constant.tolist(), strict=True) if dull]
            raise ValueError(f"train: {names} constant in {train.num_rows} rows; leave these variables out")
        span = train.last_time - train.first_time
        moving = span[span > 0]
        extra: dict[str, Tensor] = {}
        for name, table, where in (
            ("covariate", train.covariates, train.present),
            ("static", train.static, torch.ones(train.num_rows, dtype=torch.bool)),
        ):
            if table is not None:
                table_mean, table_sd, _ = _moments(table.double(), where[..., None].expand(table.shape))
                extra |= {f"{name}_mean": table_mean, f"{name}_sd": torch.where(table_sd > 0, table_sd, 1.0)}
        return Scaling(
            mean,
            sd,
            which,
            float(train.first_time.min()),
            float(moving.median()) if len(moving) else 1.0,
            train.variables,
            **extra,
        )

    def apply(self, batch: SeriesBatch) -> SeriesBatch:
        """The batch in scaled units, same dtype and device.

        Raises:
            ValueError: if the variables (or the numbers of covariates or static columns) are not those of training, or
                a value whose logarithm is wanted is not positive.
        """
        self._check_variables(batch)
        x = (_log(batch, self.log.to(batch.device)) - self.mean.to(batch.device)) / self.sd.to(batch.device)
        tables = {
            field: ((table.double() - mean) / sd).to(batch.dtype) for field, table, mean, sd in self._tables(batch)
        }
        return batch._with(
            times=self.apply_times(batch.times), values=torch.where(batch.mask, x, 0).to(batch.dtype), **tables
        )

    def undo(self, batch: SeriesBatch) -> SeriesBatch:
        """A scaled batch in the data's units, same dtype and device: what `apply` had been given, to rounding.

        Raises:
            ValueError: if the variables (or the numbers of covariates or static columns) are not those of training.
        """
        self._check_variables(batch)
        x = torch.where(batch.mask, self.undo_values(batch.values.double()), 0)
        tables = {field: (table.double() * sd + mean).to(batch.dtype) for field, table, mean, sd in self._tables(batch)}
        return batch._with(times=self.undo_times(batch.times), values=x.to(batch.dtype), **tables)

    def _check_variables(self, batch: SeriesBatch) -> None:
        if batch.variables != self.variables:
            raise ValueError(
                f"batch: variables {list(batch.variables)} given, {list(self.variables)} wanted as in training"
            )

    def _tables(self, batch: SeriesBatch) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """Covariates and static columns that there are, each with its mean and sd on the batch's device."""
        for field, mean, sd in (
            ("covariates", self.covariate_mean, self.covariate_sd),
            ("static", self.static_mean, self.static_sd),
        ):
            table = getattr(batch, field)
            given, wanted = (0 if t is None else t.shape[-1] for t in (table, mean))
            if given != wanted:
                raise ValueError(f"batch: {given} columns of {field} given, {wanted} wanted as in training")
            if table is not None and mean is not None and sd is not None:
                yield field, table, mean.to(batch.device), sd.to(batch.device)

    def apply_times(self, times: Tensor) -> Tensor:
        """Times of the data in scaled units, float64."""
        return (times.double() - self.time_origin) / self.time_scale

    def undo_times(self, times: Tensor) -> Tensor:
        """Scaled times in the data's unit, float64."""
        return times.double() * self.time_scale + self.time_origin

    def undo_values(self, values: Tensor) -> Tensor:
        """Scaled values (..., D) in the data's units, same dtype; right for samples and quantiles, not for means."""
        x = values * self.sd.to(values) + self.mean.to(values)
        return torch.where(self.log.to(values.device), x.exp(), x)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {
            k: v.tolist() if isinstance(v, Tensor) else list(v) if isinstance(v, tuple) else v
            for k, v in vars(self).items()
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Scaling:
        """What `to_dict` wrote."""
        tensors = {
            k: torch.tensor(v, dtype=torch.bool if k == "log" else torch.float64)
            for k, v in content.items()
            if isinstance(v, list) and k != "variables"
        }
        return Scaling(**{**content, **tensors, "variables": tuple(content["variables"])})


def _moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, sd (of the population) and count over all but the last axis, where mask is True."""
    axes = tuple(range(x.ndim - 1))
    count = mask.sum(axes)
    mean = torch.where(mask, x, 0).sum(axes) / count
    sd = (torch.where(mask, x - mean, 0) ** 2).sum(axes).div(count).sqrt()
    return mean, sd, count


def _log(batch: SeriesBatch, which: Tensor) -> Tensor:
    """Values (B, T, D) in float64, logarithms of the chosen variables."""
    x = batch.values.double()
    bad = (batch.mask & which & (x <= 0)).nonzero()
    if len(bad):
        row, visit, k = bad[0].tolist()
        raise ValueError(
            f"log: {batch.variables[k]!r} is {x[row, visit, k]:g} in {row_name(batch.ids, row)} at time "
            f"{batch.times[row, visit]:.12g}, positive values wanted"
        )
    return torch.where(which, torch.where(batch.mask, x, 1.0).log(), x)
