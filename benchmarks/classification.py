"""Classes of UEA and UCR series with fewer and fewer observations: `python -m benchmarks.classification`.

Each set is pooled and split 70/15/15 class by class, a share of the observations is dropped at random (each variable
for itself), and every model is trained and scored on what is left, with one and the same schedule and width for all
networks: nothing is tuned per set. Probabilities are means over 32 sample paths. Table classification/missing:
accuracy, mean over the sets, by share dropped. Tables classification/0, /30, /50, /70: accuracy by set. Table
classification/scores: accuracy, log score, calibration error and seconds, means over sets and shares.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import Any

from benchmarks.jobs import run_jobs
from benchmarks.records import RESULTS, Record, merge_records, summarise
from neurodyn.datasets import uea_ucr
from neurodyn.datasets.sources import NoLicenceStated
from neurodyn.metrics.classes import score_classes
from neurodyn.models.classifiers import CLASSIFIERS, SCHEDULE, fit_classifier
from neurodyn.models.forecasters import Training
from neurodyn.scaling import Scaling

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
FORMS = ("theory", "released")
MODELS = tuple(name for name in CLASSIFIERS if name not in ("gru_decay", "ode_rnn", "gru_ode"))
RELEASED = {name: f"{CLASSIFIERS[name].label}, as released" for name in ("lsde", "lnsde", "gsde")}


def measure(name: str, form: str, subset: str, missing: int, seed: int, steps: int) -> dict[str, float]:
    """Scores of one model on the test rows of one split of one set."""
    warnings.simplefilter("ignore", NoLicenceStated)
    splits = uea_ucr.load(subset, seed, missing / 100)
    scaling = Scaling.fit(splits.train)
    train, validation, test = (scaling.apply(part) for part in splits[:3])
    training = Training(seed, "cpu", progress=False, schedules={name: {"steps": steps}})
    settings: dict[str, Any] = {"form": form} if name in RELEASED else {}
    fitted = fit_classifier(name, train, validation, len(splits.info["classes"]), training, **settings)
    assert test.labels is not None
    scores = score_classes(fitted.probabilities(test, seed=seed), test.labels)
    return {**scores._asdict(), "seconds": fitted.seconds}


def rows(models: Sequence[str], forms: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Label of each row to its model's name and form."""
    found = {CLASSIFIERS[name].label: (name, "theory") for name in models if name not in RELEASED or "theory" in forms}
    released = [name for name in models if name in RELEASED and "released" in forms]
    return found | {RELEASED[name]: (name, "released") for name in released}


def records(
    results: dict[str, dict[str, float]], labels: Sequence[str], subsets: Sequence[str], seeds: Sequence[int]
) -> list[Record]:
    """The tables, from the results of all jobs."""
    made: list[Record] = []

    def cell(label: str, subset: str, missing: int, seed: int) -> dict[str, float]:
        return results[f"{label}, {subset}, {missing} %, seed {seed}"]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    overall: dict[int, dict[str, dict[str, float]]] = {seed: {} for seed in seeds}
    robust: dict[int, dict[str, dict[str, float]]] = {seed: {} for seed in seeds}
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
            robust[seed][label] = by_share | {"lost from 0 to 70 %": by_share["0 %"] - by_share["70 %"]}
    columns: dict[str, Any] = {f"{share} %": ("", "higher") for share in MISSING}
    made += summarise(
        "classification/missing", robust, columns | {"lost from 0 to 70 %": ("", "lower")}, command=COMMAND
    )
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
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="of the stable SDEs")
    parser.add_argument("--subsets", nargs="+", default=list(SUBSETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--steps", type=int, default=SCHEDULE["steps"], help="training steps of every network")
    parser.add_argument("--processes", type=int, help="at a time, one thread each; all cores if not given")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of the same code")
    chosen = parser.parse_args(arguments)
    wanted = rows(chosen.models, chosen.forms)
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
    merge_records(path, made)
    for record in made:
        if record.table == "classification/missing":
            print(f"  {record.row:28s} {record.column:20s} {record.value:.3f}")
    print(f"written to {path.relative_to(RESULTS.parent.parent)}; python -m benchmarks.render puts it into the docs")


if __name__ == "__main__":
    main()
