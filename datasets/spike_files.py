"""HDF5 files of binned spikes: LFADS's layout and the tensors of the Neural Latents Benchmark (extra `neural`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurodyn.datasets.sources import unreadable
from neurodyn.datasets.spikes import spike_batch
from neurodyn.series import SeriesBatch

Array = NDArray[Any]
LFADS_COUNTS = (("train_data", "valid_data"), ("train_encod_data", "valid_encod_data"))
"""Names of counts in the layouts of LFADS: all neurons, or those that its encoder reads."""


def h5_tables(path: Path | str, group: str | None = None) -> dict[str, Array]:
    """All numeric tables of an HDF5 file, or of one of its groups, by name.

    Raises:
        ValueError: a file that cannot be read, a group that is not there. ImportError: without h5py.
    """
    h5py = _h5py()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise unreadable(path, error, "a whole HDF5 file wanted") from error
    with file:
        place = file
        if group is not None:
            if group not in file:
                raise ValueError(f"group: {group!r} given, one of {list(file)} of {path.name} wanted")
            place = file[group]
        return {name: table[()] for name, table in place.items() if isinstance(table, h5py.Dataset)}


class SpikeParts(NamedTuple):
    """Training and evaluation trials of one file, with positions of the neurons to hold out.

    `observed` is how many bins a model may read: later ones are to be predicted. `truth` holds expected counts per bin,
    by part, where the file has them.
    """

    train: SeriesBatch
    evaluation: SeriesBatch
    held_out: tuple[int, ...]
    observed: int
    truth: dict[str, Array]


def read_lfads(path: Path | str, bin_width: float) -> SpikeParts:
    """A file as LFADS reads it: `train_data` and `valid_data` counts (trials, bins, neurons), `*_truth` rates in Hz.

    In the other layout, `train_encod_data` has the neurons and bins that the encoder reads and `train_recon_data` all
    of them, the encoder's first; what only the second has is held out, or to be predicted.

    Args:
        bin_width: in s.

    Raises:
        ValueError: neither layout; tables that do not fit; and what `spike_batch` raises.
    """
    tables = h5_tables(path)
    names = next((pair for pair in LFADS_COUNTS if all(name in tables for name in pair)), None)
    if names is None:
        raise ValueError(f"{path}: tables {sorted(tables)} given, train_data and valid_data wanted, or *_encod_data")
    recon = [tables.get(name.replace("encod", "recon"), tables[name]) for name in names]
    _, bins, neurons = tables[names[0]].shape
    for name, whole in zip(names, recon, strict=True):
        part = tables[name]
        if whole.shape[1] < bins or whole.shape[2] < neurons or not np.array_equal(whole[:, :bins, :neurons], part):
            raise ValueError(f"{path}: {name.replace('encod', 'recon')} does not begin with {name}, as it should")
    batches = [
        spike_batch(whole, bin_width, ids=[f"{part}-{k}" for k in range(len(whole))], complete=part == "train")
        for part, whole in zip(("train", "valid"), recon, strict=True)
    ]
    truth = {part: tables[f"{part}_truth"] * bin_width for part in ("train", "valid") if f"{part}_truth" in tables}
    return SpikeParts(batches[0], batches[1], tuple(range(neurons, recon[0].shape[2])), bins, truth)


def read_nlb(path: Path | str, bin_width: float, group: str | None = None) -> SpikeParts:
    """Tensors of the Neural Latents Benchmark: `{train,eval}_spikes_{heldin,heldout}[_forward]`.

    Variables are the held-in neurons, then the held-out ones; bins are the observed ones, then the forward ones. What
    the file leaves out of the evaluation trials (held-out neurons, forward bins) is unobserved there.

    Args:
        bin_width: in s, 0.005 or 0.02 in the benchmark. group: of the file, where it holds several sets.

    Raises:
        ValueError: tables that are missing or do not fit; and what `spike_batch` raises.
    """
    tables = h5_tables(path, group)
    for name in ("train_spikes_heldin", "train_spikes_heldout", "eval_spikes_heldin"):
        if name not in tables:
            raise ValueError(f"{path}: no table {name}, which the benchmark's layout has; found {sorted(tables)}")
    train = _joined(tables, "train", None)
    neurons, bins = tables["train_spikes_heldin"].shape[2], tables["train_spikes_heldin"].shape[1]
    evaluation = _joined(tables, "eval", train.shape[1:])
    names = tuple(f"n{k + 1}" for k in range(train.shape[2]))
    batch = spike_batch(train, bin_width, variables=names, ids=[f"train-{k}" for k in range(len(train))])
    rows = [f"eval-{k}" for k in range(len(evaluation))]
    later = spike_batch(evaluation, bin_width, variables=names, ids=rows, complete=False)
    return SpikeParts(batch, later, tuple(range(neurons, train.shape[2])), bins, {})


def _joined(tables: Mapping[str, Array], part: str, shape: tuple[int, ...] | None) -> Array:
    """Counts (trials, bins, neurons) of all tables of a part, NaN where there is none."""
    held_in = tables[f"{part}_spikes_heldin"].astype(float)
    trials, bins, neurons = held_in.shape
    if shape is None:
        forward = tables.get(f"{part}_spikes_heldin_forward")
        later = 0 if forward is None else forward.shape[1]
        shape = (bins + later, neurons + tables[f"{part}_spikes_heldout"].shape[2])
    found = np.full((trials, *shape), np.nan)
    for name, rows, columns in (
        ("heldin", slice(0, bins), slice(0, neurons)),
        ("heldout", slice(0, bins), slice(neurons, None)),
        ("heldin_forward", slice(bins, None), slice(0, neurons)),
        ("heldout_forward", slice(bins, None), slice(neurons, None)),
    ):
        table = tables.get(f"{part}_spikes_{name}")
        if table is None:
            continue
        if found[:, rows, columns].shape != table.shape:
            wanted = found[:, rows, columns].shape
            raise ValueError(f"{part}_spikes_{name}: shape {table.shape} given, {wanted} wanted to fit the others")
        found[:, rows, columns] = table
    return found


def write_submission(
    path: Path | str, name: str, rates: Mapping[str, Array], held_out: tuple[int, ...], observed: int
) -> Path:
    """Expected counts per bin as the benchmark takes them: `name/{part}_rates_{heldin,heldout}[_forward]`.

    Args:
        rates: by part ("train", "eval"): (trials, bins, neurons). observed: bins before the forward ones.
    """
    h5py = _h5py()
    with h5py.File(path, "w") as file:
        group = file.create_group(name)
        for part, table in rates.items():
            array = np.asarray(table, dtype=np.float32)
            outside = np.isin(np.arange(array.shape[2]), held_out)
            for side, chosen in (("heldin", ~outside), ("heldout", outside)):
                kept = {"compression": "gzip"}
                group.create_dataset(f"{part}_rates_{side}", data=array[:, :observed][..., chosen], **kept)
                if array.shape[1] > observed:
                    group.create_dataset(f"{part}_rates_{side}_forward", data=array[:, observed:][..., chosen], **kept)
    return Path(path)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("h5py is needed for HDF5 files: pip install 'neurodyn[neural]'") from error
    return h5py
