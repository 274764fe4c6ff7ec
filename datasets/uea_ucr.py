"""`uea_ucr`: the UEA and UCR archives of labelled time series, any of their sets by name, with observations dropped.

Source: timeseriesclassification.com, a pair of .ts files for each set.
Licence: the archives state none for their sets; the loader says so.
Citation: A. Bagnall et al., The UEA multivariate time series classification archive, 2018, arXiv 1811.00075; H. A. Dau
    et al., The UCR time series archive, IEEE/CAA Journal of Automatica Sinica 6 (2019).

Protocol, as in Oh, Lim and Kim (2024), arXiv 2402.14989: the published training and test series are pooled and split
70/15/15 by a seed, class by class; a fraction of the values is dropped at random, each variable for itself, in all
three parts. Time is the place in the series, from 0 to 1 for the longest. `longest` is this loader's own.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from neurodyn.datasets.sources import cache_folder, fetch, local, tell_no_licence, unreadable
from neurodyn.datasets.splits import Splits, stratified
from neurodyn.series import SeriesBatch

FOLDER = "uea_ucr"
URL = "https://timeseriesclassification.com/aeon-toolkit/"
PARTS = (0.7, 0.15, 0.15)


def load(subset: str = "BasicMotions", split: int = 0, missing: float = 0.0, longest: int | None = None) -> Splits:
    """Splits with class codes as labels; `info["classes"]` has their names.

    Args:
        subset: name of a set, as the archives spell it.
        split: seed of the split and of what is dropped.
        missing: fraction of the values to drop, from 0 to below 1; every series keeps one at least.
        longest: a set with longer series is thinned first: means over the shortest blocks of equal length that leave no
            more than so many values of any series.

    Raises:
        ValueError: a fraction out of range, a length below one, a class with fewer than three series, an altered file.
        FileNotFoundError: no file and no network.
    """
    if not 0 <= missing < 1:
        raise ValueError(f"missing: {missing} given, a fraction from 0 to below 1 wanted")
    if longest is not None and longest < 1:
        raise ValueError(f"longest: {longest} given, 1 or more values wanted")
    tell_no_licence(f"uea_ucr {subset}", "timeseriesclassification.com")
    values, labels, classes = pooled(subset)
    if longest is not None:
        values = block_means(values, -(-values.shape[1] // longest))
    length = int((~np.isnan(values)).any(2).sum(1).max())
    times = np.arange(values.shape[1]) / max(length - 1, 1)
    known = torch.as_tensor(~np.isnan(values))
    whole = SeriesBatch(
        torch.as_tensor(times).expand(len(values), -1),
        torch.as_tensor(values),
        known,
        labels=torch.as_tensor(labels),
        ids=tuple(f"{subset}-{k}" for k in range(len(values))),
    )
    if missing:
        whole, _ = whole.drop_observed(missing, torch.Generator().manual_seed(split))
    train, validation, test = (whole.rows(index).trim() for index in stratified(whole.labels, PARTS, split))
    return Splits(
        train,
        validation,
        test,
        {
            "name": f"uea_ucr {subset}",
            "source": "timeseriesclassification.com",
            "licence": "none stated",
            "citation": "Bagnall et al. 2018, arXiv 1811.00075; Dau et al. 2019",
            "time_unit": "length of the longest series",
            "log": (),
            "static_names": (),
            "protocols": {},
            "classes": classes,
        },
    )


def pooled(subset: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Values (n, T, D) float32, NaN where a series has ended, class codes (n,), and names of the classes."""
    path = local(FOLDER, f"{subset}.npz")
    if path is None:
        path = _from_archive(subset)
    try:
        with np.load(path, allow_pickle=False) as content:
            parts = [content["X_train"], content["X_test"]]
            names = np.concatenate([content["y_train"], content["y_test"]])
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise unreadable(path, error) from error
    length = max(part.shape[1] for part in parts)
    wide = [np.pad(p, ((0, 0), (0, length - p.shape[1]), (0, 0)), constant_values=np.nan) for p in parts]
    classes, labels = np.unique(names, return_inverse=True)
    return np.concatenate(wide).astype(np.float32), labels.astype(np.int64), tuple(str(name) for name in classes)


def block_means(values: np.ndarray, size: int) -> np.ndarray:
    """Means over blocks of `size` times of values (n, T, D), of what is not NaN: (n, T / size rounded up, D)."""
    if size == 1:
        return values
    rest = -values.shape[1] % size
    wide = np.pad(values, ((0, 0), (0, rest), (0, 0)), constant_values=np.nan)
    blocks = wide.reshape(len(values), -1, size, values.shape[2])
    count = (~np.isnan(blocks)).sum(2)
    total = np.nansum(blocks, 2)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _from_archive(subset: str) -> Path:
    """The canonical file in the cache, made from the official archive's two .ts files."""
    archive = fetch(FOLDER, f"{subset}.zip", f"{URL}{subset}.zip", None)
    try:
        with zipfile.ZipFile(archive) as content:
            texts = [content.read(f"{subset}_{part}.ts").decode("utf-8", "replace") for part in ("TRAIN", "TEST")]
        tables = [read_ts(text) for text in texts]
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise unreadable(archive, error) from error
    target = cache_folder() / FOLDER / f"{subset}.npz"
    (x_train, y_train), (x_test, y_test) = tables
    np.savez_compressed(target, X_train=x_train, y_train=y_train, X_test=x_test, y_test=y_test)
    return target


def read_ts(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, T, D) float32, NaN where missing or ended, and labels (n,) as text, of a .ts file without timestamps.

    Raises:
        ValueError: no line of data, timestamps, lines with different numbers of variables.
    """
    series, names = [], []
    for line in _data_lines(text):
        *channels, name = line.split(":")
        series.append([np.array([float(x.replace("?", "nan")) for x in c.split(",")]) for c in channels])
        names.append(name.strip())
    if not series:
        raise ValueError("no series after @data")
    size = len(series[0])
    if any(len(one) != size for one in series):
        raise ValueError(f"series with other than {size} variables")
    length = max(len(channel) for one in series for channel in one)
    values = np.full((len(series), length, size), np.nan, np.float32)
    for row, one in enumerate(series):
        for d, channel in enumerate(one):
            values[row, : len(channel), d] = channel
    return values, np.array(names)


def _data_lines(text: str) -> Iterator[str]:
    lines = iter(text.splitlines())
    for line in lines:
        word = line.strip().lower()
        if word.startswith("@timestamps") and "true" in word:
            raise ValueError("a .ts file with timestamps, which none of the archives' sets has")
        if word.startswith("@data"):
            break
    yield from (line for line in lines if line.strip() and not line.startswith("#"))
