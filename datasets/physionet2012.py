"""`physionet2012`: PhysioNet/CinC Challenge 2012, 48 hours of intensive care, 35 irregular variables, deaths.

Source: physionet.org/content/challenge-2012/1.0.0, sets a and b of 4000 stays each (a text file per stay in one
    archive).
Licence: Open Data Commons Attribution License v1.0 (ODC-BY 1.0).
Citation: I. Silva, G. Moody, D. J. Scott, L. A. Celi, R. G. Mark, Predicting in-hospital mortality of ICU patients:
    the PhysioNet/Computing in Cardiology Challenge 2012, Computing in Cardiology 39 (2012) 245-248; and A. Goldberger
    et al., PhysioBank, PhysioToolkit, and PhysioNet, Circulation 101 (2000) e215-e220.

What is done to the records: -1 stands for a missing descriptor, and negative values of a variable (a few
temperatures) are taken as missing too. Several values of a variable in the same minute are averaged. Weight is used
as a descriptor only, and MechVent, which is recorded as 1 or not at all, is left out. So are stays without any value
of the other 35 variables (three in set a). Times are hours since admission.

The archive is parsed once into a long table (RecordID, minute, param, value), kept in the cache as set_a.parquet.

Protocol: stays split at random 60/20/20 by a seed; forecasts from the first 24 hours (`day`).

The interpolation benchmark (`interpolation`) is that of mTAN (Shukla and Marlin, ICLR 2021), which Stable Neural SDEs
(Oh, Lim and Kim, ICLR 2024) took over: both sets, 41 variables with the descriptors among them as values of minute 0,
80 % of the stays for training (here 64 % and 16 % for validation). Of a stay's visits a share is shown, and the squared
error is taken in units of each variable's largest value (over all stays). As run by its authors, the error is that over
all entries, the shown ones included (mTAN, src/utils.py, `evaluate`); here `hidden` says which visits are held out.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurodyn.datasets.sources import cache_folder, check, fetch, local, unreadable
from neurodyn.datasets.splits import Splits
from neurodyn.frames import from_frame
from neurodyn.series import SeriesBatch

FOLDER = "physionet2012"
URL = "https://physionet.org/files/challenge-2012/1.0.0/"
STAYS = 4000
# Outcomes: computed from the files. Archives: not downloaded for this project; these digests are the ones that several
# independent projects pin, together with the same digests of the outcomes; the parser counts stays as well.
SHA256 = {
    "set-a.tar.gz": "8cb250f179cd0952b4b9ebcf8954b63d70383131670fac1cfee13deaa13ca920",
    "set-b.tar.gz": "b1637a2a423a8e76f8f087896cfc5fdf28f88519e1f4e874fbda69b2a64dac30",
    "Outcomes-a.txt": "2613ea60ccda29f87571a7d6b09ad130858a8ccd66325bd073365925026883c2",
    "Outcomes-b.txt": "1305f29734da374a809483229a99f33a9230aa8d4fa74b1a2d6ad788136423d5",
}
DESCRIPTORS = ("Age", "Gender", "Height", "Weight")
VARIABLES = (
    *(
        "ALP",
        "ALT",
        "AST",
        "Albumin",
        "BUN",
        "Bilirubin",
        "Cholesterol",
        "Creatinine",
        "DiasABP",
        "FiO2",
        "GCS",
        "Glucose",
    ),
    *("HCO3", "HCT", "HR", "K", "Lactate", "MAP", "Mg", "NIDiasABP", "NIMAP", "NISysABP", "Na", "PaCO2", "PaO2"),
    *("Platelets", "RespRate", "SaO2", "SysABP", "Temp", "TroponinI", "TroponinT", "Urine", "WBC", "pH"),
)
BENCHMARK = (*VARIABLES, *DESCRIPTORS, "ICUType", "MechVent")
"""The 41 variables of the interpolation benchmark."""
_FRACTIONS = (0.6, 0.2, 0.2)
_COLUMNS = ["RecordID", "minute", "param", "value"]


def load(sets: str = "a", split: int = 0, max_rows: int | None = None) -> Splits:
    """Splits with one row per stay, times in hours, label 1 for death in hospital.

    Static: Age, Gender (1: male), Height (cm), Weight (kg), each with the mean of training rows where missing and a
    column that says so, and four columns that are 1 for the type of unit; names in `info["static_names"]`.

    Args:
        sets: "a", "b" or "ab".
        split: seed of the random split of stays.
        max_rows: only the first stays by RecordID, for trials.

    Raises:
        ValueError: unknown set; altered files. FileNotFoundError: no file and no network.
    """
    if sets not in ("a", "b", "ab"):
        raise ValueError(f"sets: {sets!r} given, 'a', 'b' or 'ab' wanted")
    if max_rows is not None and max_rows < 5:
        raise ValueError(f"max_rows: {max_rows} given, at least 5 (to split 60/20/20) wanted")
    frame = pd.concat([table(name) for name in sets], ignore_index=True)
    death = pd.concat([outcomes(name) for name in sets])
    stays = np.unique(frame["RecordID"])[:max_rows]
    frame = frame[frame["RecordID"].isin(stays)]
    bare = _series(frame)
    ids = [int(name) for name in bare.ids or ()]
    trained = [int(name) for name in bare.split_rows(_FRACTIONS, split)[0].ids or ()]
    static, names = _static(frame, ids, trained)
    whole = SeriesBatch(
        bare.times,
        bare.values,
        bare.mask,
        static=static,
        labels=torch.tensor(death.loc[ids].to_numpy(dtype=np.int64)),
        ids=bare.ids,
        variables=bare.variables,
    )
    train, validation, test = whole.split_rows(_FRACTIONS, split)
    return Splits(
        train,
        validation,
        test,
        {
            "name": "physionet2012",
            "source": "physionet.org/content/challenge-2012/1.0.0",
            "licence": "ODC-BY 1.0",
            "citation": "Silva et al., Computing in Cardiology 39 (2012) 245-248",
            "time_unit": "hours since admission",
            "log": (),
            "static_names": names,
            "protocols": {"day": {"until": 24.0}},
            "left_out": len(stays) - len(ids),
        },
    )


def interpolation(sets: str = "ab", split: int = 0, max_rows: int | None = None) -> Splits:
    """Splits 64/16/20 of the interpolation benchmark: 41 variables, times in hours.

    `info["unit"]` is the largest value of each variable over all stays, (41,): the unit of the benchmark's errors.
    Negative values (-1 for a missing descriptor, a few temperatures) are missing here, and values there.

    Args and raises as `load`.
    """
    if sets not in ("a", "b", "ab"):
        raise ValueError(f"sets: {sets!r} given, 'a', 'b' or 'ab' wanted")
    frame = pd.concat([table(name) for name in sets], ignore_index=True)
    stays = np.unique(frame["RecordID"])[:max_rows]
    whole = _series(frame[frame["RecordID"].isin(stays)], BENCHMARK)
    train, validation, test = whole.split_rows((0.64, 0.16, 0.2), split)
    largest = torch.where(whole.mask, whole.values, 0.0).amax((0, 1)).double()
    return Splits(
        train,
        validation,
        test,
        {
            "name": "physionet2012, interpolation",
            "source": "physionet.org/content/challenge-2012/1.0.0",
            "licence": "ODC-BY 1.0",
            "citation": "Silva et al., Computing in Cardiology 39 (2012) 245-248",
            "time_unit": "hours since admission",
            "log": (),
            "static_names": (),
            "protocols": {},
            "unit": torch.where(largest > 0, largest, 1.0),
        },
    )


def hidden(batch: SeriesBatch, shown: float, seed: int) -> Tensor:
    """Visits held out, (B, T) bool: of each row's n visits floor(shown n), one at least, are shown, drawn at random."""
    present = batch.present
    draw = torch.rand(present.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rank = torch.where(present, draw, 2.0).argsort(1).argsort(1)
    count = (present.sum(1, keepdim=True) * shown + 1e-9).floor().clamp(min=1)
    return present & (rank >= count)


def table(name: str) -> pd.DataFrame:
    """The long table of set "a" or "b": RecordID, minute, param, value, as recorded. Parsed from the archive once."""
    path = local(FOLDER, f"set_{name}.parquet")
    if path is None:
        archive = f"set-{name}.tar.gz"
        frame = parse(fetch(FOLDER, archive, URL + archive, SHA256[archive]), STAYS)
        path = cache_folder() / FOLDER / f"set_{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        frame.to_parquet(part)
        os.replace(part, path)  # so that an interrupted write leaves no half table behind
    try:
        frame = pd.read_parquet(path, columns=_COLUMNS)
    except Exception as error:  # pyarrow's errors for broken files have no common base
        raise unreadable(path, error) from error
    found = frame["RecordID"].nunique()
    if found != STAYS:
        raise ValueError(f"{path}: {found} stays given, {STAYS} wanted; delete it and load again")
    return frame


def outcomes(name: str) -> pd.Series:
    """1 for death in hospital, by RecordID, of set "a" or "b"."""
    file = f"Outcomes-{name}.txt"
    path = local(FOLDER, f"outcomes_{name}.csv")
    if path is None:
        path = fetch(FOLDER, file, URL + file, SHA256[file])
    check(path, SHA256[file])
    return pd.read_csv(path).set_index("RecordID")["In-hospital_death"]


def parse(archive: Path, stays: int) -> pd.DataFrame:
    """The long table of an official archive (.tar.gz with one `<RecordID>.txt` per stay), read without unpacking it.

    A file has the header `Time,Parameter,Value` and lines such as `07:37,HR,88`; lines without a parameter's name, of
    which the archives have a few, are left out.

    Raises:
        ValueError: a broken archive, a line that can't be read, or another number of stays than wanted.
    """
    records: list[np.ndarray] = []
    minutes: list[int] = []
    names: list[str] = []
    values: list[float] = []
    try:
        with tarfile.open(archive, "r:gz") as files:
            for member in files:
                if not (member.isfile() and member.name.endswith(".txt")):
                    continue
                file = files.extractfile(member)
                lines = file.read().decode("ascii").split() if file is not None else []
                if not lines or lines[0] != "Time,Parameter,Value":
                    raise ValueError(f"{member.name} does not begin with Time,Parameter,Value")
                before = len(values)
                for line in lines[1:]:
                    clock, parameter, value = line.split(",")
                    if parameter:
                        hour, minute = clock.split(":")
                        minutes.append(60 * int(hour) + int(minute))
                        names.append(parameter)
                        values.append(float(value))
                records.append(np.full(len(values) - before, int(Path(member.name).stem), dtype=np.int32))
    except (
        Exception
    ) as error:  # gzip, tarfile, text and number errors all mean that the archive is not what it should be
        raise unreadable(archive, error) from error
    if len(records) != stays:
        raise ValueError(f"{archive}: {len(records)} stays given, {stays} wanted; delete it and load again")
    minute_column = np.asarray(minutes, dtype=np.int16)
    columns = [np.concatenate(records), minute_column, pd.Categorical(names), np.asarray(values)]
    frame = pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))
    return frame.sort_values(["RecordID", "minute"], kind="stable", ignore_index=True)


def _series(frame: pd.DataFrame, variables: tuple[str, ...] = VARIABLES) -> SeriesBatch:
    """These variables, one row per stay that has any of them."""
    chosen = frame[frame["param"].isin(variables) & (frame["value"] >= 0)]
    mean = chosen.groupby(["RecordID", "minute", "param"], observed=True)["value"].mean().reset_index()
    # a categorical column names variables that these stays never have, too
    kinds = pd.Categorical(mean["param"].astype(str), categories=variables)
    mean = mean.assign(hours=mean["minute"] / 60, param=kinds)
    return from_frame(mean, id="RecordID", time="hours", variable="param", value="value", values=variables)


def _static(frame: pd.DataFrame, ids: list[int], trained: list[int]) -> tuple[Tensor, tuple[str, ...]]:
    """Descriptors (B, 12), missing ones at the mean of the training stays, and the names of the columns."""
    entry = frame[(frame["minute"] == 0) & frame["param"].isin((*DESCRIPTORS, "ICUType"))]
    entry = entry.drop_duplicates(["RecordID", "param"])  # the first of several weights is the descriptor
    wide = entry.assign(param=entry["param"].astype(str)).pivot(index="RecordID", columns="param", values="value")
    known = wide.reindex(index=ids, columns=list(DESCRIPTORS))
    known = known.where(known >= 0)
    filled = known.fillna(known.loc[trained].mean()).fillna(0.0)
    missing = known.isna().astype(float).add_suffix("_missing")
    unit = wide["ICUType"].reindex(ids)
    units = pd.DataFrame({f"ICUType_{k}": (unit == k).astype(float) for k in (1, 2, 3, 4)})
    joined = pd.concat([filled, missing, units], axis=1)
    return torch.tensor(joined.to_numpy(), dtype=torch.get_default_dtype()), tuple(joined.columns)
