"""Where the path KL of LangevinFlow's posteriors differs: `python -m benchmarks.langevin_gap`.

A simulated population (`population_dynamics`, 30 neurons, 6 of them held out). A model of one mode is trained by its
ELBO; then its law, start and read-out are fixed, and posteriors of several families are fitted to them with an encoder
of their own, for as many steps again. What they reach on the training trials is theirs alone. A simulated posterior
prices the law of its steps, the others the law in continuous time, which 8 steps per bin are near. Tables
langevin_gap/simulation_free and langevin_gap/simulated, by the mode that the law was learned with (simulated: a step
per bin); in nats per trial.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch

from benchmarks.jobs import add_job_options, finished, run_jobs
from benchmarks.records import RESULTS, Record, publish, summarise
from neurodyn import datasets
from neurodyn.models.langevin_flow import LangevinFlow
from neurodyn.models.populations import POPULATION_MODELS
from neurodyn.posteriors.underdamped import UnderdampedPosterior
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, fit

COMMAND = "python -m benchmarks.langevin_gap"
LAWS = ("simulation_free", "simulated")
SEEDS = (0,)
STEPS, ROWS, SAMPLES = 300, 32, 16


class Way(NamedTuple):
    """A family of posteriors: its row, its settings, and whether it turns."""

    label: str
    settings: dict[str, Any]
    turns: bool = False


WAYS = (
    Way("diagonal, a knot per 2 bins", {"mode": "simulation_free"}),
    Way("diagonal, a knot per bin", {"mode": "simulation_free", "bins_per_knot": 1}),
    Way("full covariance", {"mode": "simulation_free", "family": "full"}),
    Way("full covariance with the skew turn", {"mode": "simulation_free", "family": "full"}, turns=True),
    Way("simulated, a step per bin", {"mode": "simulated"}),
    Way("simulated, 8 steps per bin", {"mode": "simulated", "steps_per_bin": 8}),
)
COLUMNS: dict[str, tuple[str, Literal["lower", "higher", ""]]] = {
    "ELBO": ("nats", "higher"),
    "log-likelihood": ("nats", ""),
    "KL of the start": ("nats", ""),
    "KL of the path": ("nats", ""),
}


def train(model: LangevinFlow, batch: SeriesBatch, seed: int) -> None:
    """By the ELBO, with the schedule of the model's mode."""
    entry = POPULATION_MODELS[model.settings.mode].schedule
    config = FitConfig(
        steps=STEPS,
        batch_size=ROWS,
        learning_rate=entry["learning_rate"],
        warmup_steps=min(20, STEPS // 2),
        kl_warmup_steps=entry.get("kl_warmup_steps", int(0.3 * STEPS)),
        seed=seed,
        device="cpu",
        progress=False,
    )
    fit(model.train(), batch, None, config)


def measure(law: str, seed: int) -> dict[str, dict[str, float]]:
    """The parts of the bound, by family, under the law that one mode has learned."""
    torch.set_num_threads(1)
    parts = datasets.load("population_dynamics", seed=seed)
    batch = SeriesBatch.concat([parts.train, parts.validation])
    shared: dict[str, Any] = {"bin_width": parts.info["bin_width"], "held_out": parts.info["held_out"]}
    shared |= {"num_samples": 1, "coordinated_dropout": 0.0}
    torch.manual_seed(seed)
    teacher = LangevinFlow.build(batch, mode=law, **shared)
    train(teacher, batch, seed)
    found = {}
    for way in WAYS:
        torch.manual_seed(seed)
        model = LangevinFlow.build(batch, **shared, **way.settings)
        for name in ("prior", "likelihood"):
            getattr(model, name).load_state_dict(getattr(teacher, name).state_dict())
            getattr(model, name).requires_grad_(False)
        if way.turns:
            assert isinstance(model.posterior, UnderdampedPosterior)
            model.posterior.correction = True
        train(model, batch, seed)
        found[way.label] = bound(model.eval(), batch)
    return found


@torch.no_grad()
def bound(model: LangevinFlow, batch: SeriesBatch) -> dict[str, float]:
    """Parts of the ELBO, means over trials and some samples."""
    noise = torch.Generator().manual_seed(0)
    losses = [model.loss(batch, generator=noise) for _ in range(SAMPLES)]
    fit_, start, path = (
        float(torch.stack([getattr(loss, part) for loss in losses]).mean())
        for part in ("log_likelihood", "initial_kl", "path_kl")
    )
    return {"ELBO": fit_ - start - path, "log-likelihood": fit_, "KL of the start": start, "KL of the path": path}


def grid(laws: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Jobs by name."""
    return {f"under the law of {law}, seed {seed}": {"law": law, "seed": seed} for seed in seeds for law in laws}


def records(results: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> list[Record]:
    """A table per law, from the results of those jobs that have one."""
    made: list[Record] = []
    for law in LAWS:
        cells = {given["seed"]: results[job] for job, given in jobs.items() if job in results and given["law"] == law}
        made += summarise(f"langevin_gap/{law}", cells, COLUMNS, command=COMMAND)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing of what is chosen, and write all that is there to benchmarks/results/langevin_gap.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=list(LAWS))
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    run_jobs("langevin_gap", measure, grid(chosen.laws, chosen.seeds), processes=chosen.processes, fresh=chosen.fresh)
    jobs = grid(LAWS, sorted({*SEEDS, *chosen.seeds}))
    path = RESULTS / "langevin_gap.json"
    made = records(finished("langevin_gap", jobs), jobs)
    for record in made:
        print(f"{record.table:30s} {record.row:36s} {record.column:16s} {record.value:.3f}")
    publish(path, made)


if __name__ == "__main__":
    main()
