"""Forecasts of the walks of `mocap35` over seeds: `python -m benchmarks.mocap35`.

Set-up 2: 100 frames known, the next 200 forecast, trained on the first 200 frames (tables mocap35/setup2...). Set-up 1:
3 frames known, 297 forecast, trained on all 300 (mocap35/setup1...). The error is the squared error of the predictive
mean (500 rollouts) over time, all 50 dimensions and the four test walks. CRPS and coverage are those of 200 sample
paths: CRPS over all 50 dimensions, in the data's units, coverage over those that change. Weights are chosen by
forecasts of the validation walks (recipes/mocap35.py), whose score is the column "on validation"; what other choices
would have given, with 64 rollouts, is in the tables ...-choices. The seeds were not used while configurations were
tried; those that were (`--seeds 0 1`) have the table mocap35/tried. Published numbers have a column of their own.
"""

from __future__ import annotations

import argparse
import math
import resource
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import scipy.stats
import torch
from torch import Tensor

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, Record, measured, merge_records, write_records
from neurodyn.metrics.scores import crps, interval_coverage
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.recipes.mocap35 import HORIZON, KNOWN, Config, Look, errors, prepare, split, train

COMMAND = "python -m benchmarks.mocap35"
SEEDS = tuple(range(10, 18))
TRIED = (0, 1)  # seeds that configurations were tried with: a table of their own
SETUPS = (2, 1)
PLAIN = Config(progress=False, warp=0.0)
ROWS: dict[str, Config] = {
    "SDE Matching, ELBO": PLAIN,
    "SDE Matching, ELBO, warp": replace(PLAIN, warp=0.08),
    "SDE Matching, beta = 10": replace(PLAIN, kl_weight=10.0, noise="shared"),
    "SDE Matching, beta = 10, warp": replace(PLAIN, kl_weight=10.0, noise="shared", warp=0.08),
    "SDE Matching, ELBO, warp, pace": replace(PLAIN, warp=0.08, pace=0.1),
    "SDE Matching, beta = 10, warp, pace": replace(PLAIN, kl_weight=10.0, noise="shared", warp=0.08, pace=0.1),
    "simulated, ELBO, warp": replace(PLAIN, posterior="simulated", warp=0.08, stretch=100, steps=600),
    # one thing changed in the row with the ELBO and warp
    "learned noise": replace(PLAIN, warp=0.08, noise="shared"),
    "noise 0.5": replace(PLAIN, warp=0.08, noise=0.5),
    "values, no slopes": replace(PLAIN, warp=0.08, slopes=False),
}
ABLATIONS = ("learned noise", "noise 0.5", "values, no slopes")
NSF_PAGE = "nkiyohara/nsf-neurips2025, site/index.html (project page of Latent NSF, NeurIPS 2025)"
NCDSSM = "Ansari et al., NCDSSM, 2023, as quoted by " + NSF_PAGE
FIM = "as quoted in the FIM repository (secondary source)"
# row: (error, its 95 % interval, source); the intervals are the sources' own
PUBLISHED: dict[int, list[tuple[str, float, float, str]]] = {
    2: [
        ("Latent NSF", 3.41, 0.27, NSF_PAGE),
        ("SDE Matching, reproduced by others", 4.26, 0.35, NSF_PAGE),
        ("NCDSSM-NL", 4.74, 0.01, NCDSSM),
        ("Latent SDE (Li et al.)", 9.52, 0.21, NCDSSM),
        ("ARCTA, reproduced by others", 9.92, 1.82, NSF_PAGE),
        ("Latent Approx SDE", 10.50, 0.86, NCDSSM),
        ("Latent ODE (Rubanova et al.)", 31.62, 0.05, NSF_PAGE),
    ],
    1: [
        ("Latent SDE (Li et al.)", 4.03, 0.20, "Li et al., AISTATS 2020, " + FIM),
        ("SDE Matching", 4.50, 0.32, "Bartosh et al., ICML 2025, " + FIM),
        ("SDE Matching, reproduced by others", 5.20, 0.43, NSF_PAGE),
        ("NCDSSM-NL", 5.69, 0.01, NCDSSM),
        ("Latent ODE (Rubanova et al.)", 5.98, 0.28, NSF_PAGE),
        ("Latent Approx SDE", 7.55, 0.05, NCDSSM),
        ("ARCTA", 7.62, 0.93, NSF_PAGE),
        ("ODE2VAE-KL", 8.09, 1.95, NSF_PAGE),
        ("Latent NSF", 8.62, 0.32, NSF_PAGE),
        ("Latent SDE, reproduced by others", 12.91, 2.90, NSF_PAGE),
    ],
}
COLUMNS: dict[str, tuple[str, Literal["lower", "higher", ""]]] = {
    "error": ("", "lower"),
    "95 % over walks": ("+-", ""),
    "95 % over seeds": ("+-", ""),
    "on validation": ("", "lower"),
    "CRPS": ("", "lower"),
    "90 % coverage": ("", ""),
    "training": ("s", ""),
    "memory": ("MB", ""),
}


def measure(row: str, setup: Literal[1, 2], seed: int, device: str = "cpu") -> dict[str, Any]:
    """Train one model and forecast the test walks."""
    walks, peeks = prepare(setup), []

    def peek(model: LatentSDE) -> None:
        peeks.append(errors(model, walks.test, setup, walks, num_samples=64).tolist())

    config = replace(ROWS[row], setup=setup, seed=seed, device=device)  # type: ignore[arg-type]
    model, result, looks = train(config, walks, peek)
    known, future = split(walks.test, setup)
    samples = model.forecast(known, future.times, 200, generator=torch.Generator().manual_seed(0)).samples
    half = len(looks) // 2  # weights of the first half are not chosen from
    return {
        "errors": errors(model, walks.test, setup, walks).tolist(),
        "on validation": result.best_value,
        "CRPS": float(crps(samples, future.values).mean()) * walks.scale * walks.share,
        "90 % coverage": float(interval_coverage(samples, future.values, 0.9).mean()),
        "training": result.seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "step": result.best_step,
        "choices": choices(looks[half:], [sum(peek) / len(peek) for peek in peeks[half:]]),
    }


def choices(looks: Sequence[Look], peeks: Sequence[float]) -> dict[str, float]:
    """The test error that each way of choosing weights would have given."""
    places = range(len(looks))
    return {
        "selected": peeks[min(places, key=lambda k: looks[k].score)],
        "last weights": peeks[-1],
        "by the ELBO": peeks[max(places, key=lambda k: looks[k].elbo)],
        "by the first start": peeks[min(places, key=lambda k: looks[k].by_start[0])],
        "best on test": min(peeks),
    }


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % t-interval of the mean."""
    spread = float(torch.tensor(values, dtype=torch.float64).std()) / math.sqrt(len(values))
    return float(scipy.stats.t.ppf(0.975, len(values) - 1)) * spread


def analogues(history: Tensor, library: Tensor, horizon: int, window: int) -> Tensor:
    """Forecasts (B, H, D) by nearest neighbours: what followed the stretch that is closest to the last frames known.

    Where the library's walk ends, the search begins again from the frames forecast so far (and known).

    Args:
        history: (B, K, D), K at least `window`. library: (R, T, D) of walks.
    """
    stretches = library.unfold(1, window, 1)[:, :-1].movedim(-1, 2)  # each is followed by a frame at least
    starts = stretches.shape[1]
    forecasts = []
    for row in history:
        frames = list(row)
        while len(frames) < len(row) + horizon:
            gap = (stretches - torch.stack(frames[-window:])).square().sum((2, 3)).flatten()
            walk, start = divmod(int(gap.argmin()), starts)
            frames += list(library[walk, start + window :])
        forecasts.append(torch.stack(frames[len(row) : len(row) + horizon]))
    return torch.stack(forecasts)


def baselines(setup: Literal[1, 2]) -> dict[str, list[float]]:
    """Errors of each test walk by forecasts without a model; the PCA floor sees what it is to forecast.

    Nearest neighbours are those of the last 90 known frames, or of as many as are known.
    """
    walks = prepare(setup)
    known, future = split(walks.test, setup)
    values = walks.train.values
    mean = values.mean((0, 1))
    _, _, directions = torch.linalg.svd((values - mean).flatten(0, 1), full_matrices=False)
    axes = directions[:3]
    found = {
        "training mean": mean.expand_as(future.values),
        "nearest neighbour": analogues(known.values, values, HORIZON[setup], min(KNOWN[setup], 90)),
        "floor of 3 principal components": mean + (future.values - mean) @ axes.mT @ axes,
    }
    size = walks.scale**2 * walks.share
    return {name: ((table - future.values).square().mean((1, 2)) * size).tolist() for name, table in found.items()}


def records(results: dict[str, Any], plain: dict[int, dict[str, list[float]]]) -> list[Record]:
    """All tables, from the results of the jobs and of the baselines."""
    made: list[Record] = []

    def put(table: str, row: str, column: str, values: Sequence[float], seeds: Sequence[int], better: Any = "") -> None:
        unit = COLUMNS[column][0] if column in COLUMNS else ""
        record = measured(
            table, row, column, list(values), seeds=seeds or [0], command=COMMAND, unit=unit, better=better
        )
        made.append(replace(record, seeds=tuple(seeds)))  # none where chance has no part

    for setup in plain:
        table = f"mocap35/setup{setup}"
        for row in ROWS:
            of = {job["seed"]: job["result"] for job in results.values() if (job["row"], job["setup"]) == (row, setup)}
            tried = {seed: of.pop(seed) for seed in TRIED if seed in of}
            if tried:
                scores = {
                    "on validation": [one["on validation"] for one in tried.values()],
                    "error": [sum(one["errors"]) / len(one["errors"]) for one in tried.values()],
                }
                for column, values in scores.items():
                    put("mocap35/tried", row, f"set-up {setup}, {column}", values, list(tried), "lower")
            if not of:
                continue
            seeds, found = list(of), list(of.values())
            totals = [sum(one["errors"]) / len(one["errors"]) for one in found]
            own = table + "-ablations" if row in ABLATIONS else table
            put(own, row, "error", totals, seeds, "lower")
            put(own, row, "95 % over walks", [half_width(one["errors"]) for one in found], seeds)
            if len(totals) > 1:
                put(own, row, "95 % over seeds", [half_width(totals)], [])
            for column in ("on validation", "CRPS", "90 % coverage", "training", "memory"):
                put(own, row, column, [one[column] for one in found], seeds, COLUMNS[column][1])
            for k in range(len(found[0]["errors"])):
                put(f"{table}-walks", row, f"walk {k}", [one["errors"][k] for one in found], seeds, "lower")
            for choice in found[0]["choices"]:
                put(f"{table}-choices", row, choice, [one["choices"][choice] for one in found], seeds)
        for row, values in plain[setup].items():
            better = "" if "floor" in row else "lower"
            put(table, row, "error", [sum(values) / len(values)], [], better)
            put(table, row, "95 % over walks", [half_width(values)], [])
            for k, value in enumerate(values):
                put(f"{table}-walks", row, f"walk {k}", [value], [], better)
        for row, value, half, source in PUBLISHED[setup]:
            made.append(Record(table, row, "published", value, low=value - half, high=value + half, source=source))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/mocap35.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="*", choices=tuple(ROWS), default=tuple(ROWS))
    parser.add_argument("--setups", nargs="+", type=int, choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--device", default="cpu", help="where models are trained: cpu or cuda")
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    names = {
        f"{row}, set-up {setup}, seed {seed}": {"row": row, "setup": setup, "seed": seed, "device": chosen.device}
        for row in sorted(chosen.rows, key=lambda row: not row.startswith("simulated"))  # the slow ones first
        for setup in chosen.setups
        for seed in chosen.seeds
    }
    results = run_jobs("mocap35", measure, names, processes=chosen.processes, fresh=chosen.fresh)
    jobs = {name: names[name] | {"result": result} for name, result in results.items()}
    path = RESULTS / "mocap35.json"
    made = records(jobs, {setup: baselines(setup) for setup in chosen.setups})
    # runs of some rows leave the others in their place
    rank = {row: k for k, row in enumerate(ROWS)}
    write_records(path, sorted(merge_records(path, made), key=lambda record: rank.get(record.row, len(rank))))
    for record in made:
        if record.column in ("error", "published"):
            print(f"{record.table:32s} {record.row:36s} {record.column:10s} {record.value:8.3f}")
    print(f"written to {path.relative_to(RESULTS.parent.parent)}; python -m benchmarks.render puts it into the docs")


if __name__ == "__main__":
    main()
