"""A run's folder: what was asked, with what, on what machine, and what came out.

Layout::

    config.json       the resolved configuration
    run.json          name, status, command, seed, versions, hardware, times of start and end
    metrics.jsonl     training records, one JSON object a line (written by `fit(folder=run.folder)`, or by `log`)
    model/            weights.safetensors and model.json (written by the model's `save(run.path("model"))`)
    tables/NAME.csv   tables
    plots/NAME.png    pictures
    report.html       everything on one page (neurodyn.report)
    model_card.md     the same in short, for who gets the model (neurodyn.model_card)

No file can run code when it is read, and every one is written whole or not at all, except the lines of a log, of which
a killed run may leave the last one cut short: it is left out when read.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from neurodyn import style
from neurodyn.checkpoints import package_version, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_PACKAGES = ("torch", "numpy", "scipy", "pandas", "torchsde", "torchdiffeq", "matplotlib", "safetensors")


@dataclass(frozen=True)
class Run:
    """An open run. Make one with :meth:`Run.open`; use it as a context manager, so that its end is recorded.

    Attributes:
        folder: where everything of the run is.
        resumed: whether the folder was there already.
    """

    folder: Path
    resumed: bool = False

    @staticmethod
    def open(
        config: Any,
        *,
        name: str = "run",
        folder: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        overwrite: bool = False,
    ) -> Run:
        """Make the folder of a new run, or go on with that of an earlier one with the same configuration.

        The folder appears at once with its configuration in it: a kill leaves no half-made run behind.

        Args:
            config: a dataclass or mapping of what JSON can hold, paths, enums, tuples and nested dataclasses included.
                It should hold all that the results depend on, and nothing else.
            name: of the run, in its record and in the default folder.
            folder: where; ``runs/NAME-TIMESTAMP`` below the working directory when omitted.
            seed: recorded.
            overwrite: replace an earlier run in this folder.

        Raises:
            ValueError: the folder holds a run with another configuration (the message names what differs), or files
                that are no run; a configuration that JSON cannot hold.
        """
        wanted = resolved(config)
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        target = Path("runs") / f"{name}-{stamp}" if folder is None else Path(folder)
        if target.is_file():
            raise ValueError(f"folder: {target} is a file, a folder wanted")
        if target.exists() and any(target.iterdir()):
            if not (target / "run.json").is_file() or not (target / "config.json").is_file():
                raise ValueError(f"folder: {target} holds files that are no run; name a new or an empty folder")
            if not overwrite:
                _check_same(read_json(target / "config.json"), wanted, target)
                run = Run(target, resumed=True)
                run._note(status="running", ended=None, resumed=[*run.info.get("resumed", []), _now()])
                return run
        record = {
            "name": name,
            "status": "running",
            "started": _now(),
            "ended": None,
            "command": shlex.join(sys.argv) if sys.argv and sys.argv[0] else None,
            "seed": seed,
            "versions": versions(),
            "hardware": hardware(),
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            fresh.chmod(0o755)  # mkdtemp makes a private folder
            write_json(fresh / "config.json", wanted)
            write_json(fresh / "run.json", record)
            old = None
            if target.exists() and any(target.iterdir()):
                old = fresh.with_name(fresh.name + "-old")
                os.rename(target, old)
            os.replace(fresh, target)  # takes the place of an empty folder; fails if another run was faster
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        if old is not None:
            shutil.rmtree(old)
        return Run(target)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return read_json(self.folder / "config.json")

    @property
    def info(self) -> dict[str, Any]:
        """The record of name, status, command, seed, versions and hardware."""
        return read_json(self.folder / "run.json")

    def path(self, *parts: str) -> Path:
        """A path inside the folder, whose parent folders are made."""
        target = self.folder.joinpath(*parts)
        if ".." in Path(*parts).parts or target == self.folder or Path(*parts).is_absolute():
            raise ValueError(f"parts: want a path inside the run's folder, got {'/'.join(parts)!r}")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def log(self, record: Mapping[str, Any], log: str = "metrics") -> None:
        """Append one record to ``LOG.jsonl``. Numbers that are not finite become None, for JSON has no word for them.

        :func:`neurodyn.training.fit` writes ``metrics.jsonl`` itself when it is given this folder; use another log
        then.
        """
        target = self.path(f"{log}.jsonl")
        line = json.dumps(_plain(record, "record", finite=True), allow_nan=False)
        # A line that a kill cut short must not swallow this one.
        cut = target.is_file() and not target.read_bytes().endswith(b"\n") and target.stat().st_size > 0
        with target.open("a", encoding="utf-8") as file:
            file.write(("\n" if cut else "") + line + "\n")

    def read_log(self, log: str = "metrics") -> list[dict[str, Any]]:
        """The records of ``LOG.jsonl``, without a line that was cut short; none if there is no such file."""
        target = self.folder / f"{log}.jsonl"
        if not target.is_file():
            return []
        records = []
        for line in target.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records

    def save_figure(self, name: str, figure: Figure, dpi: int = 144) -> Path:
        """Write ``plots/NAME.png``."""
        return self._write(("plots", f"{name}.png"), style.png(figure, dpi))

    def save_table(self, name: str, table: pd.DataFrame) -> Path:
        """Write ``tables/NAME.csv``, with the index if it has a name."""
        text = table.to_csv(index=table.index.name is not None)
        return self._write(("tables", f"{name}.csv"), text.encode())

    def finish(self, status: str = "finished") -> None:
        """Record the end of the run."""
        self._note(status=status, ended=_now())

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self.info["status"] == "running":
                self.finish()
        else:
            self.finish("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def _note(self, **changes: Any) -> None:
        write_json(self.folder / "run.json", {**self.info, **changes})

    def _write(self, parts: tuple[str, ...], content: bytes) -> Path:
        target = self.path(*parts)
        partial = target.with_name(target.name + ".part")
        partial.write_bytes(content)
        os.replace(partial, target)
        return target


def open_run(folder: str | os.PathLike[str]) -> Run:
    """The run in a folder, to be read.

    Raises:
        ValueError: there is none.
    """
    place = Path(folder)
    if not (place / "run.json").is_file() or not (place / "config.json").is_file():
        raise ValueError(f"run: {place} given, the folder of a run (with run.json and config.json) wanted")
    return Run(place)


def resolved(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON: dataclasses and mappings to objects, paths to text, enums to their values.

    Raises:
        ValueError: something in it that JSON cannot hold, named by its place.
    """
    plain = _plain(config, "config")
    if not isinstance(plain, dict):
        raise ValueError(f"config: want a dataclass or a mapping, got {type(config).__name__}")
    return plain


def versions() -> dict[str, str]:
    """Versions of Python, neurodyn and the packages that its numbers come from."""
    found = {"python": platform.python_version(), "neurodyn": package_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, operating system, and GPUs by name."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    return {
        "processor": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: Any, place: str, finite: bool = False) -> Any:
    """JSON's own types, or ValueError naming the place. ``finite``: numbers that are not become None, not an error."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{place}.{k}", finite) for k, v in value.items()}
    if isinstance(value, Enum):
        return _plain(value.value, place, finite)
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{place}[{k}]", finite) for k, v in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if hasattr(value, "item") and getattr(value, "size", 1) != 0:  # numpy's and torch's scalars
        try:
            value = value.item()
        except (RuntimeError, ValueError):
            raise ValueError(f"{place}: want something that fits in JSON, got a {type(value).__name__}") from None
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        if finite:
            return None
        raise ValueError(f"{place}: want a finite number, got {value}")
    raise ValueError(f"{place}: want something that fits in JSON, got a {type(value).__name__}")


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    before, now = flat(old), flat(new)
    differing = sorted(k for k in before.keys() | now.keys() if before.get(k, ...) != now.get(k, ...))
    if differing:
        shown = [f"{k} was {_shown(before, k)}, is {_shown(now, k)}" for k in differing[:4]]
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ValueError(
            f"folder: {folder} holds a run with another configuration ({'; '.join(shown)}{more}); name another folder, "
            "or overwrite"
        )


def _shown(flat: dict[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "not there"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration with one entry a setting, named "part.setting"."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
