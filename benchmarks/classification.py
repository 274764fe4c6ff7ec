"""Classes of UEA and UCR series with fewer and fewer observations: `python -m benchmarks.classification`.

Each set is pooled, thinned to 50 time points at most (means over blocks), and split 70/15/15 class by class; a share of
the observations is dropped at random, each variable for itself, and every model is trained and scored on what is left,
with one and the same schedule and width for all networks: nothing is tuned per set. In training up to 30 % of the
observations are left out of each step anew. Probabilities are means over 16 sample paths.
MiniRocket has a row where it is installed (the extra minirocket).

Tables, accuracies where nothing else is said. classification/missing: mean over the sets by share dropped.
classification/shift: the same for models that were trained with nothing dropped. classification/0, /30, /50, /70: by
set. classification/scores: accuracy, log score, calibration error and seconds, means over sets and shares.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, Record, publish, summarise
from neurodyn.datasets import uea_ucr
from neurodyn.datasets.sources import NoLicenceStated
from neurodyn.metrics.classes import ClassScores, score_classes
from neurodyn.models.classifiers import CLASSIFIERS, SCHEDULE, fit_classifier
from neurodyn.models.forecasters import Training
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch

COMMAND = "python -m benchmarks.classification"
SUBSETS = (
    "ItalyPowerDemand",
    "ERing",
    "JapaneseVowels",
    "BasicMotions",
    "AtrialFibrillation",
    "Epilepsy",
    "ArrowHead",
    "OSULeaf",
    "PLAID",
)
MISSING = (0, 30, 50, 70)
LONGEST, SAMPLES, HIDE = 50, 16, 0.3
LOST = "lost from 0 to 70 %"
FORMS = ("theory", "released")
MODELS = tuple(name for name in CLASSIFIERS if name not in ("controlled_sde", "gru_decay", "ode_rnn", "gru_ode"))
NEEDS = {"minirocket": ("sktime", "numba")}
RELEASED = {name: f"{CLASSIFIERS[name].label}, as released" for name in ("lsde", "lnsde", "gsde")}


def measure(name: str, form: str, subset: str, missing: int, seed: int, steps: int) -> dict[str, Any]:
    """Scores of one model on the test rows of one split of one set; `shift`, its accuracy where more is dropped."""
    warnings.simplefilter("ignore", NoLicenceStated)
    splits = uea_ucr.load(subset, seed, missing / 100, LONGEST)
    scaling = Scaling.fit(splits.train)
    train, validation, test = (scaling.apply(part) for part in splits[:3])
    training = Training(seed, "cpu", progress=False, schedules={name: {"steps": steps}})
    settings: dict[str, Any] = {"form": form} if name in RELEASED else {}
    count = len(splits.info["classes"])
    fitted = fit_classifier(name, train, validation, count, training, hide=HIDE, **settings)

    def scores_of(rows: SeriesBatch) -> ClassScores:
        assert rows.labels is not None
        return score_classes(fitted.probabilities(rows, SAMPLES, seed=seed), rows.labels)

    found = {**scores_of(test)._asdict(), "seconds": fitted.seconds}
    if not missing:
        fewer = {share: uea_ucr.load(subset, seed, share / 100, LONGEST).test for share in MISSING[1:]}
        shift = {str(share): scores_of(scaling.apply(rows)).accuracy for share, rows in fewer.items()}
        found["shift"] = {"0": found["accuracy"], **shift}
    return found


def installed(models: Sequence[str]) -> list[str]:
    """Those models whose packages are there; a line says which are left out."""
    found = []
    for name in models:
        lacking = [package for package in NEEDS.get(name, ()) if find_spec(package) is None]
        if lacking:
            print(f"{CLASSIFIERS[name].label} is left out: {' and '.join(lacking)} not installed, see the extra {name}")
        else:
            found.append(name)
    return found


def rows(models: Sequence[str], forms: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Label of each row to its model's name and form."""
    found = {CLASSIFIERS[name].label: (name, "theory") for name in models if name not in RELEASED or "theory" in forms}
    released = [name for name in models if name in RELEASED and "released" in forms]
    return found | {RELEASED[name]: (name, "released") for name in released}


def records(
    results: dict[str, dict[str, Any]], labels: Sequence[str], subsets: Sequence[str], seeds: Sequence[int]
) -> list[Record]:
    """The tables, from the results of all jobs."""
    made: list[Record] = []

    def cell(label: str, subset: str, missing: int, seed: int) -> dict[str, Any]:
        return results[f"{label}, {subset}, {missing} %, seed {seed}"]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    overall: dict[int, dict[str, dict[str, float]]] = {seed: {} for seed in seeds}
    robust: dict[int, dict[str, dict[str, float]]] = {seed: {} for seed in seeds}
    shifted: dict[int, dict[str, dict[str, float]]] = {seed: {} for seed in seeds}
    for seed in seeds:
        for label in labels:
            every = [cell(label, subset, share, seed) for subset in subsets for share in MISSING]
            names = {"accuracy": "accuracy", "log_score": "log score", "calibration_error": "calibration error"}
            overall[seed][label] = {text: mean([c[key] for c in every]) for key, text in names.items()}
            overall[seed][label]["fit"] = mean([c["seconds"] for c in every])
            by_share = {
                f"{share} %": mean([cell(label, subset, share, seed)["accuracy"] for subset in subsets])
                for share in MISSING
            }
            robust[seed][label] = by_share | {LOST: by_share["0 %"] - by_share["70 %"]}
            by_share = {
                f"{share} %": mean([cell(label, subset, 0, seed)["shift"][str(share)] for subset in subsets])
                for share in MISSING
            }
            shifted[seed][label] = by_share | {LOST: by_share["0 %"] - by_share["70 %"]}
    columns: dict[str, Any] = {f"{share} %": ("", "higher") for share in MISSING} | {LOST: ("", "lower")}
    made += summarise("classification/missing", robust, columns, command=COMMAND)
    made += summarise("classification/shift", shifted, columns, command=COMMAND)
    for share in MISSING:
        table = {
            seed: {label: {s: cell(label, s, share, seed)["accuracy"] for s in subsets} for label in labels}
            for seed in seeds
        }
        made += summarise(
            f"classification/{share}", table, {subset: ("", "higher") for subset in subsets}, command=COMMAND
        )
    scores: dict[str, Any] = {
        "accuracy": ("", "higher"),
        "log score": ("nats", "lower"),
        "calibration error": ("", "lower"),
        "fit": ("s", ""),
    }
    return made + summarise("classification/scores", overall, scores, command=COMMAND)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/classification.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["theory"], help="of the stable SDEs")
    parser.add_argument("--subsets", nargs="+", default=list(SUBSETS))
    parser.add_argument("--steps", type=int, default=SCHEDULE["steps"], help="training steps of every network")
    add_job_options(parser, range(3))
    chosen = parser.parse_args(arguments)
    models = installed(chosen.models)
    if not models:
        parser.error(f"models: {', '.join(chosen.models)} given, one that is installed wanted")
    wanted = rows(models, chosen.forms)
    jobs = {
        f"{label}, {subset}, {missing} %, seed {seed}": {
            "name": name,
            "form": form,
            "subset": subset,
            "missing": missing,
            "seed": seed,
            "steps": chosen.steps,
        }
        for seed in chosen.seeds
        for subset in chosen.subsets
        for missing in MISSING
        for label, (name, form) in wanted.items()
    }
    results = run_jobs("classification", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made = records(results, list(wanted), chosen.subsets, chosen.seeds)
    path = RESULTS / "classification.json"
    for record in made:
        if record.table == "classification/missing":
            print(f"  {record.row:28s} {record.column:20s} {record.value:.3f}")
    publish(path, made)


if __name__ == "__main__":
    main()
