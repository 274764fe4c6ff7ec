"""What makes a `SeriesBatch` valid: each failed check is one line with the argument, the row and what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def check_shapes(tables: Mapping[str, Tensor | None]) -> None:
    """Shapes, devices and dtypes of times, values, mask, covariates, static and labels against those of values."""
    values, mask = tables["values"], tables["mask"]
    assert values is not None and mask is not None
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"values: shape {tuple(values.shape)} given, (rows, times, variables), none of them 0, wanted")
    rows, visits, size = values.shape
    wanted = {"times": (rows, visits), "mask": (rows, visits, size), "labels": (rows,)}
    wanted |= {"covariates": (rows, visits, -1), "static": (rows, -1)}
    for name, table in tables.items():
        if table is None or name == "values":
            continue
        shape = tuple(table.shape)
        if len(shape) != len(wanted[name]) or any(w not in (-1, s) for s, w in zip(shape, wanted[name], strict=True)):
            text = str(wanted[name]).replace("-1", "any")
            raise ValueError(f"{name}: shape {shape} given, {text} wanted to go with values {tuple(values.shape)}")
        if table.device != values.device:
            raise ValueError(f"{name}: on {table.device}, but values are on {values.device}; one device wanted")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask: dtype {mask.dtype} given, torch.bool wanted")


def check_names(argument: str, given: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    """Names as a tuple of strings."""
    if given is None:
        return None
    if isinstance(given, str) or len(given) != count:
        raise ValueError(f"{argument}: {given!r:.80} given, {count} names wanted")
    return tuple(str(name) for name in given)


def check_content(tables: Mapping[str, Tensor | None], ids: Sequence[str] | None, variables: Sequence[str]) -> None:
    """Numbers in tables whose shapes are right: observations, times, covariates and static."""
    times, values, mask = tables["times"], tables["values"], tables["mask"]
    covariates, static = tables["covariates"], tables["static"]
    assert times is not None and values is not None and mask is not None
    present = mask.any(-1)
    if where := _first(~present.any(1)):
        raise ValueError(f"mask: {row_name(ids, where[0])} has no observation, at least one in every row wanted")
    if where := _first(mask & ~values.isfinite()):
        row, visit, k = where
        hint = "; mark missing values in mask" if bool(mask.all()) else ""
        raise ValueError(
            f"values: {row_name(ids, row)} has {values[row, visit, k]} for {variables[k]} at visit {visit} where "
            f"mask is True, a finite number wanted{hint}"
        )
    position = torch.arange(1, times.shape[1] + 1, device=times.device)
    inside = position <= torch.where(present, position, 0).amax(1, keepdim=True)
    if where := _first(inside & ~times.isfinite()):
        row, visit = where
        raise ValueError(
            f"times: {row_name(ids, row)} has {times[row, visit]} at visit {visit}, a finite number wanted"
        )
    if where := _first((times[:, 1:] < times[:, :-1]) & inside[:, 1:]):
        row, visit = where
        pair = f"{times[row, visit]:.12g} and then {times[row, visit + 1]:.12g} (visits {visit} and {visit + 1})"
        raise ValueError(f"times: {row_name(ids, row)} has {pair}, increasing times wanted")
    seen = torch.where(present, times, -torch.inf).cummax(1).values
    if where := _first(present[:, 1:] & (times[:, 1:] == seen[:, :-1])):
        row, visit = where
        raise ValueError(
            f"times: {row_name(ids, row)} has {times[row, visit + 1]:.12g} twice (again at visit {visit + 1}), "
            "one visit per time wanted"
        )
    if covariates is not None and (where := _first(present[..., None] & ~covariates.isfinite())):
        row, visit, k = where
        raise ValueError(
            f"covariates: {row_name(ids, row)} has {covariates[row, visit, k]} in column {k} at visit {visit}, "
            "a finite number at every observed visit wanted"
        )
    if static is not None and (where := _first(~static.isfinite())):
        row, k = where
        raise ValueError(f"static: {row_name(ids, row)} has {static[row, k]} in column {k}, a finite number wanted")


def row_name(ids: Sequence[str] | None, row: int) -> str:
    """How messages call a row: by its id where it has one."""
    return f"row {row}" if ids is None else f"row {row} (id {ids[row]!r})"


def _first(bad: Tensor) -> list[int]:
    found = bad.nonzero()
    return found[0].tolist() if len(found) else []
