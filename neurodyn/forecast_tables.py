"""Forecasts as tables: frames in the layouts of neuralforecast, and xarray datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurodyn.forecast import Forecast
from neurodyn.frames import timestamps
from neurodyn.quantiles import sample_quantiles

if TYPE_CHECKING:
    import xarray as xr

DIMENSIONS = ("sample", "unique_id", "step")
RESERVED = (*DIMENSIONS, "ds", "origin")


def wide_frame(forecast: Forecast, levels: Sequence[int | float], time_unit: str | None = None) -> pd.DataFrame:
    """One line per row and time, columns by variable: see `Forecast.to_frame`."""
    lines = forecast.present.cpu()
    columns = _head(forecast, time_unit)
    tables = _tables(forecast, levels)
    for d, variable in enumerate(forecast.variables):
        for suffix, table in tables.items():
            columns[variable + suffix] = table[..., d][lines].numpy()
    return pd.DataFrame(columns)


def long_frame(forecast: Forecast, levels: Sequence[int | float]) -> pd.DataFrame:
    """One line per row, time and variable: see `Forecast.to_long_frame`."""
    lines, size = forecast.present.cpu(), len(forecast.variables)
    columns = {name: np.repeat(column, size) for name, column in _head(forecast, None).items()}
    columns["variable"] = np.tile(np.asarray(forecast.variables, dtype=object), int(lines.sum()))
    for suffix, table in _tables(forecast, levels).items():
        columns["y" + suffix] = table[lines].reshape(-1).numpy()
    return pd.DataFrame(columns)


def model_frame(
    forecast: Forecast, levels: Sequence[int | float], model: str, time_unit: str | None = None
) -> pd.DataFrame:
    """One line per series and time, columns by model, every variable a series: see `Forecast.to_frame`."""
    lines, several = forecast.present.cpu(), len(forecast.variables) > 1
    parts = []
    tables = _tables(forecast, levels)
    for d, variable in enumerate(forecast.variables):
        columns = _head(forecast, time_unit)
        if several:
            columns["unique_id"] = np.asarray([f"{row}/{variable}" for row in columns["unique_id"]], dtype=object)
        columns |= {model + suffix: table[..., d][lines].numpy() for suffix, table in tables.items()}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def to_dataset(forecast: Forecast) -> xr.Dataset:
    """An xarray dataset of the samples: see `Forecast.to_xarray`."""
    xarray = _xarray()
    taken = [name for name in forecast.variables if name in RESERVED]
    if taken:
        raise ValueError(f"variables: {taken[0]!r} given, a name other than {', '.join(RESERVED)} wanted")
    forecast = forecast.to("cpu")
    samples = torch.where(forecast.present[..., None], forecast.samples, torch.nan)
    values = {name: (DIMENSIONS, samples[..., d].numpy()) for d, name in enumerate(forecast.variables)}
    coordinates: dict[str, Any] = {
        "unique_id": np.asarray(forecast.ids, dtype=object),
        "ds": (DIMENSIONS[1:], forecast.times.numpy()),
    }
    if forecast.origin is not None:
        coordinates["origin"] = ("unique_id", forecast.origin.numpy())
    found: xr.Dataset = xarray.Dataset(values, coordinates)
    return found


def from_dataset(dataset: xr.Dataset) -> Forecast:
    """The forecast in a dataset of `to_dataset`."""
    lacking = [name for name in ("unique_id", "ds") if name not in dataset.coords]
    odd = [str(name) for name, array in dataset.data_vars.items() if set(array.dims) != set(DIMENSIONS)]
    if lacking or odd or not dataset.data_vars:
        raise ValueError(
            f"dataset: coordinates {sorted(map(str, dataset.coords))} and variables of other dimensions {odd} given, "
            f"unique_id, ds and variables ({', '.join(DIMENSIONS)}) wanted"
        )
    arrays = [array.transpose(*DIMENSIONS).values for array in dataset.data_vars.values()]
    samples = torch.as_tensor(np.stack(arrays, -1))
    times = torch.as_tensor(dataset["ds"].transpose(*DIMENSIONS[1:]).values.copy())
    known = "origin" in dataset.coords
    return Forecast(
        samples,
        times,
        tuple(str(name) for name in dataset["unique_id"].values),
        tuple(str(name) for name in dataset.data_vars),
        present=~samples.isnan().all(-1).all(0),
        origin=torch.as_tensor(dataset["origin"].values.copy()) if known else None,
    )


def _xarray() -> Any:
    try:
        import xarray
    except ImportError as error:
        raise ImportError("to_xarray needs xarray: pip install 'neurodyn[xarray]'") from error
    return xarray


def _head(forecast: Forecast, time_unit: str | None) -> dict[str, Any]:
    """Ids and times of the lines."""
    lines = forecast.present.cpu()
    ids = np.repeat(np.asarray(forecast.ids, dtype=object), lines.sum(1).numpy())
    times: Any = forecast.times.cpu()[lines].numpy()
    return {"unique_id": ids, "ds": times if time_unit is None else timestamps(times, time_unit)}


def _tables(forecast: Forecast, levels: Sequence[int | float]) -> dict[str, Tensor]:
    """Tables (B, H, D) on the CPU by the suffix of their columns, the mean first."""
    names, probabilities = ["-median"], [0.5]
    for level in levels:
        if not 1 <= level < 100:
            raise ValueError(f"levels: want per cent, at least 1 and below 100, such as 90; got {level}")
        names += [f"-lo-{level:g}", f"-hi-{level:g}"]
        probabilities += [(1 - level / 100) / 2, (1 + level / 100) / 2]
    found = sample_quantiles(forecast.samples, probabilities).cpu()
    return {"": forecast.mean.cpu(), **dict(zip(names, found, strict=True))}
