"""Laws learned from stochastic Lorenz series against the true one: `python -m benchmarks.lorenz`.

1024 series (`datasets.lorenz`) in three settings: that of SDE Matching (matching), of torchsde (torchsde) and of
Helmholtz-SDE (noisy). A model learns a prior; its marginals at a quarter, half, three quarters and the end of the time
are compared with the truth's: KL(model || truth) in nats of the noise-free states, standardised as the data are, by
distances to nearest neighbours (`neurodyn.metrics.neighbour_kl`) among 16384 draws each; "truth" is the truth against
other draws of itself. Quadratic variation is the integral of the learned squared diffusion, read out, over the learned
paths, divided by the truth's; 1 is right. Rollouts take steps of 1/1000 of the time. Published numbers are for the
first setting.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, ROOT, Record, measured, publish
from neurodyn import style
from neurodyn.datasets import lorenz
from neurodyn.recipes.lorenz import QUARTERS, Config, Model, divergences, train, true_states, variation

COMMAND = "python -m benchmarks.lorenz"
IMAGES = ROOT / "docs" / "images"
PICTURES = {"matching": "lorenz-matching.png", "torchsde": "lorenz-torchsde.png", "noisy": "lorenz-noisy.png"}
SEEDS = (0, 1, 2)
OURS = Config(steps=6000, progress=False)
WAYS = {
    "SDE Matching, ours": OURS,
    "SDE Matching, 4 latents, diagonal": replace(OURS, latent_size=4, family="diagonal"),
    "simulated": replace(OURS, posterior="simulated", steps=2000),
}
NSF_PAGE = "nkiyohara/nsf-neurips2025, site/index.html (project page of Latent NSF, NeurIPS 2025)"
PUBLISHED = {
    "SDE Matching (dt = 1e-4)": (4.3, 5.3, 3.4, 3.8),
    "latent SDE": (2.1, 1.8, 0.9, 1.5),
    "Neural Stochastic Flows": (0.8, 1.3, 0.6, 0.2),
}


def measure(way: str, setting: str, seed: int, steps: int | None = None, device: str = "cpu") -> dict[str, Any]:
    """Train one model and compare its marginals and its diffusion with the truth's."""
    own = WAYS[way]
    config = replace(own, setting=setting, seed=seed, steps=steps or own.steps, device=device)  # type: ignore[arg-type]
    data = lorenz.load(setting, seed=seed)
    model, result = train(config, data)
    found, floor = divergences(model, config, data)
    mean, sd = data.info["mean"], data.info["sd"]
    return {
        "kl": found,
        "truth": floor,
        "variation": variation(model, config, sd),
        "elbo": -float(result.best_value or 0.0),
        "seconds": result.seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "paths": thin(model, setting, mean, sd) if seed == SEEDS[0] else None,
    }


def thin(model: Model, setting: str, mean: Tensor, sd: Tensor, draws: int = 60) -> dict[str, list[Any]]:
    """A few paths of the model and of the truth, in the system's units, for the picture."""
    times = lorenz.SETTINGS[setting].end * torch.arange(1, 101, dtype=torch.float64) / 100
    with torch.no_grad():
        own = model.likelihood.mean(model.paths(times, draws, float(times[0]) / 10, 7)).double().cpu() * sd + mean
    real = true_states(setting, times, draws, 3 * 10**6)
    return {
        name: [[round(x, 2) for x in point] for point in table.flatten(0, 1).tolist()]
        for name, table in (("model", own), ("truth", real))
    }


def picture(setting: str, tables: dict[str, list[Any]]) -> None:
    """Paths of the truth and of the learned law in the plane of x1 and x3."""
    figure, axes = style.grid_of_axes(1, 2, width=7.0, height=2.6)
    for panel, (name, title) in zip(axes[0], (("truth", "truth"), ("model", "learned law")), strict=True):
        for path in torch.tensor(tables[name]).unflatten(0, (-1, 100)):
            panel.plot(path[:, 0], path[:, 2], color=style.BLUE, alpha=0.35, linewidth=0.6)
        panel.set_title(title)
        panel.set_xlabel("x1")
        panel.set_ylabel("x3")
    axes[0, 1].set_xlim(axes[0, 0].get_xlim())
    axes[0, 1].set_ylim(axes[0, 0].get_ylim())
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / PICTURES[setting], dpi=110)


def records(results: dict[str, Any]) -> list[Record]:
    """The tables, from the results of all jobs with their arguments."""
    made: list[Record] = []
    for setting in dict.fromkeys(job["setting"] for job in results.values()):
        table = f"lorenz/{setting}"
        for way in WAYS:
            of = {
                job["seed"]: job["result"] for job in results.values() if (job["way"], job["setting"]) == (way, setting)
            }
            if not of:
                continue
            columns = {f"KL at {q:g} T": [one["kl"][k] for one in of.values()] for k, q in enumerate(QUARTERS)}
            columns |= {f"variation of x{k + 1}": [one["variation"][k] for one in of.values()] for k in range(3)}
            columns |= {
                "ELBO": [one["elbo"] for one in of.values()],
                "training": [one["seconds"] for one in of.values()],
                "memory": [one["memory"] for one in of.values()],
            }
            for column, values in columns.items():
                unit = {"ELBO": "nats per series", "training": "s", "memory": "MB"}.get(column, "")
                better: Any = "lower" if column.startswith("KL") else ""
                made.append(
                    measured(table, way, column, values, seeds=list(of), command=COMMAND, unit=unit, better=better)
                )
            first = next(iter(of.values()))
        for k, q in enumerate(QUARTERS):
            made.append(measured(table, "truth", f"KL at {q:g} T", [first["truth"][k]], seeds=[0], command=COMMAND))
        if setting == "matching":
            for row, numbers in PUBLISHED.items():
                made += [
                    Record(table, row, f"KL at {q:g} T", value, source=NSF_PAGE)
                    for q, value in zip(QUARTERS, numbers, strict=True)
                ]
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/lorenz.json and the pictures."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--settings", nargs="+", choices=tuple(lorenz.SETTINGS), default=tuple(lorenz.SETTINGS))
    parser.add_argument("--steps", type=int, help="of training, fewer for a smoke run, whose numbers mean nothing")
    parser.add_argument("--device", default="cpu", help="where models are trained: cpu or cuda")
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    names = {
        f"{way}, {setting}, seed {seed}": {
            "way": way,
            "setting": setting,
            "seed": seed,
            "steps": chosen.steps,
            "device": chosen.device,
        }
        for setting in chosen.settings
        for way in chosen.ways
        for seed in chosen.seeds
    }
    results = run_jobs("lorenz", measure, names, processes=chosen.processes, fresh=chosen.fresh)
    jobs = {name: names[name] | {"result": result} for name, result in results.items()}
    made = records(jobs)
    for record in made:
        print(f"{record.table:18s} {record.row:36s} {record.column:18s} {record.value:8.3f}")
    if chosen.steps:
        return
    for job in jobs.values():
        if job["way"] == next(iter(WAYS)) and job["result"]["paths"]:
            picture(job["setting"], job["result"]["paths"])
    publish(RESULTS / "lorenz.json", made)


if __name__ == "__main__":
    main()
