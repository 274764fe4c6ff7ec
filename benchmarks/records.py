"""What a benchmark writes: a record per cell of a table, in `benchmarks/results/NAME.json`; docs are made from it."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Record:
    """One number of one table.

    value: the number, the mean over `seeds` if there are several. low, high: its lowest and highest value over seeds,
    or another range that the table's text names. unit: what it is counted in, "" for a pure number. better: which way
    is good, "" where neither is. source: "" for a number measured by `command`; a citation for a published one. date:
    ISO day. hardware: processor, cores, accelerator. versions: of the packages that the number depends on.
    """

    table: str
    row: str
    column: str
    value: float
    unit: str = ""
    better: Literal["lower", "higher", ""] = ""
    seeds: tuple[int, ...] = ()
    low: float | None = None
    high: float | None = None
    source: str = ""
    command: str = ""
    date: str = ""
    hardware: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("table", "row", "column"):
            if not getattr(self, name):
                raise ValueError(f"{name}: an empty name given, the place of the number in its table is wanted")
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{name}: {number} given for {self.row}, {self.column}, a finite number is wanted")
        if not (self.source or self.command):
            raise ValueError(f"source, command: neither given for {self.row}, {self.column}, one of them is wanted")
        object.__setattr__(self, "seeds", tuple(self.seeds))

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Two records with the same key are the same cell: the later one replaces the earlier."""
        return self.table, self.row, self.column, self.source


def measured(
    table: str,
    row: str,
    column: str,
    values: Sequence[float],
    *,
    seeds: Sequence[int],
    command: str,
    unit: str = "",
    better: Literal["lower", "higher", ""] = "",
) -> Record:
    """The mean of `values`, one per seed, and their range, stamped with today, this machine and its packages.

    Raises ValueError if there are not as many values as seeds, or none.
    """
    if not values or len(values) != len(seeds):
        raise ValueError(f"values: {len(values)} given for {len(seeds)} seeds, one per seed is wanted")
    several = len(values) > 1
    return Record(
        table=table,
        row=row,
        column=column,
        value=sum(values) / len(values),
        unit=unit,
        better=better,
        seeds=tuple(seeds),
        low=min(values) if several else None,
        high=max(values) if several else None,
        command=command,
        date=datetime.date.today().isoformat(),
        hardware=hardware(),
        versions=versions(),
    )


def read_records(path: Path) -> list[Record]:
    """The records of one file.

    Raises ValueError if the file is not a list of records with known fields.
    """
    known = {part.name for part in fields(Record)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not JSON, or was cut short: {error}") from None
    if not isinstance(content, list):
        raise ValueError(f"{path.name} holds a {type(content).__name__}, and a list of records is wanted")
    for entry in content:
        if not isinstance(entry, dict) or not entry.keys() <= known:
            raise ValueError(f"{path.name} holds something that is not a record: {str(entry)[:80]}")
    return [Record(**entry) for entry in content]


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Replace the file by these records, in one move: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")  # other processes may be writing too
    content = [asdict(record) for record in records]
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def merge_records(path: Path, records: Iterable[Record]) -> list[Record]:
    """Write records into a file: those of a known key replace the old ones in their place, others are appended."""
    merged: dict[tuple[str, str, str, str], Record] = {}
    for record in [*(read_records(path) if path.exists() else []), *records]:
        merged[record.key] = record
    write_records(path, merged.values())
    return list(merged.values())


def publish(path: Path, records: Iterable[Record]) -> None:
    """`merge_records`, and a line that says where they are."""
    merge_records(path, records)
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    print(f"written to {shown}; python -m benchmarks.render puts it into the docs")


def hardware() -> str:
    """Processor, number of usable cores, and accelerator. Nothing that names the machine."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass  # not Linux: the platform's own word for the processor has to do
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [name, f"{cores} core{'s' if cores > 1 else ''}"]
    import torch

    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def versions(packages: Sequence[str] = ("neurodyn", "torch", "numpy")) -> dict[str, str]:
    """Versions of Python and of the installed ones among `packages`."""
    found: dict[str, str] = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def summarise(
    table: str,
    results: Mapping[int, Mapping[str, Mapping[str, float]]],
    columns: Mapping[str, tuple[str, Literal["lower", "higher", ""]]],
    *,
    command: str,
) -> list[Record]:
    """Records of a whole table from each seed's {row: {column: value}}.

    Args:
        results: by seed. A row that some seed lacks is the mean over the seeds that have it, and says which.
        columns: unit and direction of each column, in the table's order.
    """
    rows: dict[str, None] = {}
    for table_of_seed in results.values():
        rows |= dict.fromkeys(table_of_seed)
    records = []
    for row in rows:
        for column, (unit, better) in columns.items():
            seeds = [seed for seed, cells in results.items() if column in cells.get(row, {})]
            if seeds:
                values = [float(results[seed][row][column]) for seed in seeds]
                records.append(
                    measured(table, row, column, values, seeds=seeds, command=command, unit=unit, better=better)
                )
    return records


def jsonable(value: Any) -> Any:
    """Plain Python numbers, strings, lists and dicts from tensors, arrays and their scalars."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]
    return value
