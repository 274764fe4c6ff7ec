"""`SeriesBatch`: the one container of irregular, partly observed, multivariate series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neurodyn.series_checks import check_content, check_names, check_shapes, row_name

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class SeriesBatch:
    """B series with their own times, lengths and gaps.

    Construction checks everything and brings padding to one form. Every method returns a new batch.

    Args:
        times: (B, T), kept as float64, in the data's own unit. A visit is observed if any variable is; the times of
            a row's observed visits are strictly increasing. Unobserved visits between them are legal and never go back
            in time. Trailing unobserved visits are padding: the row's last observed time replaces theirs (NaN too).
        values: (B, T, D). Zeros are written wherever `mask` is False, whatever stood there (NaN too).
        mask: (B, T, D) bool, True where observed. Left out: everything is observed, and NaN is an error.
        covariates: (B, T, C), known inputs, finite at observed visits; zeros replace what is not finite elsewhere.
        static: (B, K), finite.
        labels: (B,), any dtype, for instance classes; never touched.
        ids: B names of rows. variables: D names, `y1`, `y2`, ... where left out.

    Raises:
        ValueError: one line naming the argument, what was given and what is wanted.
    """

    times: Tensor
    values: Tensor
    mask: Tensor = None  # type: ignore[assignment]  # always filled by construction
    covariates: Tensor | None = None
    static: Tensor | None = None
    labels: Tensor | None = None
    ids: tuple[str, ...] | None = None
    variables: tuple[str, ...] = None  # type: ignore[assignment]  # always filled by construction

    def __post_init__(self) -> None:
        for name, value in _checked(self).items():
            object.__setattr__(self, name, value)

    @classmethod
    def _unchecked(cls, times: Tensor, values: Tensor, mask: Tensor, variables: tuple[str, ...]) -> SeriesBatch:
        """A batch of what another one held, for exported programs, which cannot look at the data to check it."""
        new = object.__new__(cls)
        given = {"times": times, "values": values, "mask": mask, "variables": variables}
        for field in fields(cls):
            object.__setattr__(new, field.name, given.get(field.name))
        return new

    def _with(self, **changes: Any) -> SeriesBatch:
        """A copy with changes, not checked again: it would wait for the device in every training step."""
        new = object.__new__(SeriesBatch)
        for field in fields(self):
            object.__setattr__(new, field.name, changes.get(field.name, getattr(self, field.name)))
        return new

    def __repr__(self) -> str:
        return (
            f"SeriesBatch({self.num_rows} rows, up to {self.num_times} visits, {int(self.mask.sum())} observed values "
            f"of {', '.join(self.variables)}; {self.dtype}, {self.device})"
        )

    def __len__(self) -> int:
        return self.num_rows

    @property
    def num_rows(self) -> int:
        """B."""
        return self.times.shape[0]

    @property
    def num_times(self) -> int:
        """T, padding counted."""
        return self.times.shape[1]

    @property
    def num_variables(self) -> int:
        """D."""
        return self.values.shape[2]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.values.device

    @property
    def dtype(self) -> torch.dtype:
        """Of values, covariates and static; times are float64 always."""
        return self.values.dtype

    @property
    def present(self) -> Tensor:
        """(B, T) bool: the visits where any variable is observed."""
        return self.mask.any(-1)

    @property
    def first_time(self) -> Tensor:
        """(B,): time of the first observed visit (of the first visit, where a derived batch has an empty row)."""
        present = self.present
        first = torch.where(present, self.times, torch.inf).amin(1)
        return torch.where(present.any(1), first, self.times[:, 0])

    @property
    def last_time(self) -> Tensor:
        """(B,): time of the last observed visit (of the first visit, where a derived batch has an empty row)."""
        present = self.present
        last = torch.where(present, self.times, -torch.inf).amax(1)
        return torch.where(present.any(1), last, self.times[:, 0])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> SeriesBatch:
        """Move, and give values, covariates and static another floating dtype."""
        tables = {
            name: _maybe(lambda x: x.to(device, dtype), getattr(self, name))
            for name in ("values", "covariates", "static")
        }
        others = {name: _maybe(lambda x: x.to(device), getattr(self, name)) for name in ("times", "mask", "labels")}
        return self._with(**tables, **others)

    def rows(self, index: int | slice | Sequence[int] | Tensor) -> SeriesBatch:
        """Chosen rows, in the order asked for: an integer (a batch of one), a slice, integers or a bool mask (B,)."""
        count = self.num_rows
        if isinstance(index, int):
            index = [index]
        if isinstance(index, slice):
            chosen = torch.tensor(range(count)[index], dtype=torch.long)
        else:
            chosen = torch.as_tensor(index, device="cpu")
            if chosen.numel() == 0:
                chosen = chosen.long()
            if chosen.dtype == torch.bool and chosen.shape == (count,):
                chosen = chosen.nonzero()[:, 0]
            elif chosen.dtype == torch.bool or chosen.is_floating_point() or chosen.ndim != 1:
                raise ValueError(
                    f"index: {chosen.dtype} {tuple(chosen.shape)} given, integers or a bool mask ({count},) wanted"
                )
        chosen = chosen.long()
        if chosen.numel() == 0:
            raise ValueError(f"index: no row chosen, at least one of {count} wanted")
        if int(chosen.min()) < -count or int(chosen.max()) >= count:
            raise ValueError(
                f"index: rows {int(chosen.min())} to {int(chosen.max())} given, {-count} to {count - 1} wanted"
            )
        return self._take(chosen % count)

    def select(self, variables: Sequence[str]) -> SeriesBatch:
        """Chosen variables, in this order.

        Raises:
            ValueError: for unknown names, or if a row has none of these variables observed, naming it.
        """
        unknown = [name for name in variables if name not in self.variables]
        if isinstance(variables, str) or unknown or not variables:
            raise ValueError(
                f"variables: {unknown or variables!r} given, a list with some of {list(self.variables)} wanted"
            )
        which = torch.tensor([self.variables.index(name) for name in variables], device=self.device)
        new = self._with(values=self.values[..., which], mask=self.mask[..., which], variables=tuple(variables))
        empty = (~new.present.any(1)).nonzero()[:, 0].tolist()
        if empty:
            raise ValueError(f"variables: {row_name(self.ids, empty[0])} has none of {list(variables)} observed")
        return _settled(new)

    def _take(self, index: Tensor) -> SeriesBatch:
        """Rows by an index on the CPU, so that ids need no transfer from the device."""
        where = index.to(self.device, non_blocking=True)
        names = ("times", "values", "mask", "covariates", "static", "labels")
        tensors = {name: _maybe(lambda x: x.index_select(0, where), getattr(self, name)) for name in names}
        ids = None if self.ids is None else tuple(self.ids[i] for i in index.tolist())
        return self._with(**tensors, ids=ids)

    def _columns(self, num_times: int) -> SeriesBatch:
        """The first columns of every table that has visits."""
        names = ("times", "values", "mask", "covariates")
        return self._with(**{name: _maybe(lambda x: x[:, :num_times], getattr(self, name)) for name in names})

    def _used(self) -> Tensor:
        """(B,): one more than the index of the last observed visit."""
        position = torch.arange(1, self.num_times + 1, device=self.device)
        return torch.where(self.present, position, 0).amax(1)

    def trim(self) -> SeriesBatch:
        """Drop trailing columns that no row uses (one column stays at least)."""
        return self._columns(max(1, int(self._used().max())))

    def padded(self, num_times: int) -> SeriesBatch:
        """The same rows with padding up to `num_times` columns."""
        extra = num_times - self.num_times
        if extra < 0:
            raise ValueError(f"num_times: {num_times} given, at least {self.num_times} wanted")
        pad = torch.nn.functional.pad
        return self._with(
            times=torch.cat([self.times, self.times[:, -1:].expand(-1, extra)], 1),
            values=pad(self.values, (0, 0, 0, extra)),
            mask=pad(self.mask, (0, 0, 0, extra)),
            covariates=_maybe(lambda x: pad(x, (0, 0, 0, extra)), self.covariates),
        )

    def compact(self) -> SeriesBatch:
        """Drop unobserved visits: each row's observed visits come first, then padding."""
        return self._compact(self.last_time)

    def _compact(self, end: Tensor) -> SeriesBatch:
        present = self.present
        order = torch.sort(~present, dim=1, stable=True).indices
        kept = present.gather(1, order)
        table = order[..., None]
        return self._with(
            times=torch.where(kept, self.times.gather(1, order), end[:, None]),
            values=self.values.gather(1, table.expand_as(self.values)),
            mask=self.mask.gather(1, table.expand_as(self.mask)),
            covariates=_maybe(lambda x: x.gather(1, table.expand_as(x)), self.covariates),
        ).trim()

    @staticmethod
    def concat(batches: Sequence[SeriesBatch]) -> SeriesBatch:
        """Rows of all batches, padded to the longest; all have the same variables and the same optional fields."""
        if not batches:
            raise ValueError("batches: none given, at least one wanted")
        first, longest = batches[0], max(batch.num_times for batch in batches)
        optional = ("covariates", "static", "labels", "ids")
        for k, batch in enumerate(batches):
            if batch.variables != first.variables:
                raise ValueError(
                    f"batches: variables {batch.variables} given in batch {k}, {first.variables} wanted as in batch 0"
                )
            for name in optional:
                if (getattr(batch, name) is None) != (getattr(first, name) is None):
                    raise ValueError(
                        f"batches: {name} given in some batches only (batch 0 and batch {k} differ), all or none wanted"
                    )
        wide = [batch.padded(longest) for batch in batches]
        names = ("times", "values", "mask", "covariates", "static", "labels")
        tensors = {
            name: None if getattr(first, name) is None else torch.cat([getattr(b, name) for b in wide])
            for name in names
        }
        ids = None if first.ids is None else tuple(name for batch in batches for name in batch.ids or ())
        return first._with(**tensors, ids=ids)

    def _before_cut(self, until: float | Tensor | None, fraction: float | None, count: int | Tensor | None) -> Tensor:
        """(B, T) bool: the visits up to the cut."""
        given = [
            name for name, value in (("until", until), ("fraction", fraction), ("count", count)) if value is not None
        ]
        if len(given) != 1:
            raise ValueError(f"until, fraction, count: {given or 'none of them'} given, exactly one wanted")
        for name, cut in (("until", until), ("count", count)):
            if isinstance(cut, Tensor) and cut.shape not in ((), (self.num_rows,)):
                raise ValueError(f"{name}: shape {tuple(cut.shape)} given, a number or ({self.num_rows},) wanted")
        if until is not None:
            limit = torch.as_tensor(until, dtype=torch.float64, device=self.device)
            return self.times <= limit.expand(self.num_rows)[:, None]
        rank = self.present.cumsum(1)
        if fraction is not None:
            if not 0 < fraction < 1:
                raise ValueError(f"fraction: {fraction} given, a number between 0 and 1 wanted")
            visits = self.present.sum(1)
            # the small addition keeps .29 * 100 visits from becoming 28
            first = (visits * fraction + 1e-9).floor().clamp(min=1)
        else:
            first = torch.as_tensor(count, device=self.device).expand(self.num_rows)
        return rank <= first[:, None]

    def history(
        self, until: float | Tensor | None = None, *, fraction: float | None = None, count: int | Tensor | None = None
    ) -> SeriesBatch:
        """The same rows up to a cut; what comes later is masked and trimmed. Exactly one argument is given.

        Args:
            until: a time or a time per row (B,): visits at times <= until stay.
            fraction: of each row's n observed visits the first max(1, floor(fraction n)) stay.
            count: the first `count` observed visits stay; a number or (B,).

        Raises:
            ValueError: if a row has nothing observed up to the cut, naming it.
        """
        keep = self._before_cut(until, fraction, count)
        new = self._with(mask=self.mask & keep[..., None])
        empty = (~new.present.any(1)).nonzero()[:, 0].tolist()
        if empty:
            name = "until" if until is not None else "count"
            raise ValueError(
                f"{name}: {row_name(self.ids, empty[0])} has nothing observed up to the cut ({len(empty)} such rows); "
                "leave these rows out or cut later"
            )
        return _settled(new).trim()

    def after(
        self, until: float | Tensor | None = None, *, fraction: float | None = None, count: int | Tensor | None = None
    ) -> SeriesBatch:
        """What `history` with the same arguments leaves out, each row's visits moved to the front.

        Rows keep their place and may be empty; the times of an empty row repeat the row's last observed time.
        """
        keep = ~self._before_cut(until, fraction, count)
        mask = self.mask & keep[..., None]
        return self._with(values=torch.where(mask, self.values, 0), mask=mask)._compact(self.last_time)

    def split_rows(self, fractions: Sequence[float], seed: int) -> tuple[SeriesBatch, ...]:
        """A random split of rows into parts of the given fractions (their sum at most 1), for instance (.6, .2, .2)."""
        if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
            raise ValueError(f"fractions: {list(fractions)} given, positive numbers with a sum of at most 1 wanted")
        order = torch.randperm(self.num_rows, generator=torch.Generator().manual_seed(seed))
        edges = [round(sum(fractions[:k]) * self.num_rows) for k in range(len(fractions) + 1)]
        if min(b - a for a, b in zip(edges, edges[1:], strict=False)) < 1:
            raise ValueError(f"fractions: {list(fractions)} of {self.num_rows} rows leave a part without a row")
        return tuple(self._take(order[a:b].sort().values).trim() for a, b in zip(edges, edges[1:], strict=False))

    def drop_observed(
        self, fraction: float, generator: torch.Generator | None = None
    ) -> tuple[SeriesBatch, SeriesBatch]:
        """(kept, held out): each observed value is held out with probability `fraction`; each row keeps at least one.

        Both have the shape of this batch; rows of the held-out batch may be empty.
        """
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction: {fraction} given, a number from 0 up to 1 wanted")
        where = self.device if generator is None else generator.device
        draw = torch.rand(self.mask.shape, generator=generator, device=where).to(self.device)
        draw = torch.where(self.mask, draw, -1.0)
        best = draw.flatten(1).amax(1)[:, None, None]
        keep = self.mask & ((draw >= fraction) | (draw == best))
        left = self.mask & ~keep
        kept = self._with(mask=keep, values=torch.where(keep, self.values, 0))
        return _settled(kept), self._with(mask=left, values=torch.where(left, self.values, 0))

    def batches(
        self, batch_size: int, *, generator: torch.Generator | None = None, shuffle: bool = True
    ) -> Iterator[SeriesBatch]:
        """One pass over the rows in batches, each trimmed to its longest row; with size 0, all rows at once."""
        if batch_size < 0:
            raise ValueError(f"batch_size: {batch_size} given, 0 (all rows) or more wanted")
        size, count = batch_size or self.num_rows, self.num_rows
        order = torch.arange(count)
        if shuffle:
            where = "cpu" if generator is None else generator.device
            order = torch.randperm(count, generator=generator, device=where).cpu()
        used = self._used().cpu()  # read once, so that the loop does not wait for the device
        for start in range(0, count, size):
            index = order[start : start + size]
            yield self._columns(max(1, int(used[index].max())))._take(index)

    def to_frame(self, layout: str = "wide", *, time_unit: str | None = None) -> pd.DataFrame:
        """A pandas frame, see `neurodyn.frames.to_frame`."""
        from neurodyn.frames import to_frame

        return to_frame(self, layout, time_unit=time_unit)


def _maybe(function: Any, value: Tensor | None) -> Tensor | None:
    return None if value is None else function(value)


def _settled(batch: SeriesBatch) -> SeriesBatch:
    """Zeros at masked values, and trailing unobserved visits at the row's last observed time."""
    position = torch.arange(1, batch.num_times + 1, device=batch.device)
    trailing = position > batch._used()[:, None]
    return batch._with(
        times=torch.where(trailing, batch.last_time[:, None], batch.times),
        values=torch.where(batch.mask, batch.values, 0),
    )


def _checked(batch: SeriesBatch) -> dict[str, Any]:
    """The fields in their final form, or ValueError."""
    values = torch.as_tensor(batch.values)
    if not values.is_floating_point():
        values = values.to(torch.get_default_dtype())
    tables: dict[str, Tensor | None] = {
        "times": torch.as_tensor(batch.times).to(torch.float64),
        "values": values,
        "mask": torch.ones_like(values, dtype=torch.bool) if batch.mask is None else torch.as_tensor(batch.mask),
        "covariates": None if batch.covariates is None else torch.as_tensor(batch.covariates).to(values.dtype),
        "static": None if batch.static is None else torch.as_tensor(batch.static).to(values.dtype),
        "labels": None if batch.labels is None else torch.as_tensor(batch.labels),
    }
    check_shapes(tables)
    rows, _, size = values.shape
    ids = check_names("ids", batch.ids, rows)
    variables = check_names("variables", batch.variables, size) or tuple(f"y{k + 1}" for k in range(size))
    if len(set(variables)) < size:
        raise ValueError(f"variables: {variables} given, distinct names wanted")
    check_content(tables, ids, variables)
    tables["covariates"] = _maybe(lambda x: torch.where(x.isfinite(), x, 0), tables["covariates"])
    return vars(_settled(batch._with(**tables, ids=ids, variables=variables)))
