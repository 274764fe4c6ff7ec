"""Where `fit` writes its records: `metrics.jsonl`, and besides it a CSV or events for TensorBoard, as asked."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

LogKind = Literal["csv", "tensorboard"]

COLUMNS = (
    "step",
    "objective",
    "log_likelihood",
    "initial_kl",
    "path_kl",
    "filter_loss",
    "gradient_norm",
    "kl_weight",
    "learning_rate",
    "validation",
)
"""Of metrics.csv: all that a record of `fit` may have."""


class TrainingLog:
    """The logs of one training in its folder, made anew with the records that a resumed run already has.

    Args:
        folder: made if it is not there.
        kinds: "csv" for metrics.csv, with an empty cell where a record has no such entry; "tensorboard" for an event
            file, from which `tensorboard --logdir` draws curves.
        history: records so far.

    Raises:
        ImportError: TensorBoard is asked for and not installed; the message names the extra.
    """

    def __init__(self, folder: Path, kinds: Iterable[LogKind] = (), history: Iterable[Mapping[str, Any]] = ()) -> None:
        self.folder, self.kinds = folder, tuple(kinds)
        folder.mkdir(parents=True, exist_ok=True)
        self.board = _board(folder) if "tensorboard" in self.kinds else None
        (folder / "metrics.jsonl").write_text("", encoding="utf-8")
        if "csv" in self.kinds:
            (folder / "metrics.csv").write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
        for record in history:
            self.write(record)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record, a mapping with a "step"; None stands for a number that is not finite."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if "csv" in self.kinds:
            with (self.folder / "metrics.csv").open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(dict(record))
        if self.board is not None:
            for name, value in record.items():
                if name != "step" and value is not None:
                    self.board.add_scalar(name, value, record["step"])
            self.board.flush()  # a kill loses none


def _board(folder: Path) -> Any:
    """A writer of events into an empty folder: a resumed run writes its records once more."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard is needed for its logs: pip install 'neurodyn[tensorboard]'") from error
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return SummaryWriter(str(folder))
