"""Held-out ELBO against seconds of training, by way of training: `python -m benchmarks.time_to_elbo`.

Stochastic Lorenz (`datasets.lorenz`, 41 visits in [0, 1]): 1024 series to train on, 256 held out. Prior, encoder and
likelihood are the same for all: 4 latents, drift and diffusion networks with one hidden layer of 100, a GRU, a linear
decoder with learned noise. The posterior is SDE Matching's, neurodyn's simulated one by either engine, or torchsde's as
in its example, trained through its adjoint. Adam at one learning rate and batch size for all; ELBOs in nats per series,
averaged over the held-out series and over draws; those of simulated ways belong to the model in steps of 1/80, SDE
Matching's to the one in continuous time. Every way trains for the same seconds, in which ELBOs are not computed; a
target is the best that another way has reached in these, and a way that does not reach it has no entry.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.jobs import run_jobs
from benchmarks.plots import line_plot
from benchmarks.records import RESULTS, ROOT, Record, measured, publish
from benchmarks.rivals.torchsde_posterior import TorchsdePosterior
from benchmarks.timing import cores, say
from neurodyn import datasets
from neurodyn.likelihoods import make_likelihood
from neurodyn.nets.encoders import make_encoder
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import Posterior
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch

COMMAND = "python -m benchmarks.time_to_elbo"
PICTURE = ROOT / "docs" / "images" / "time-to-elbo.svg"
LATENT, CONTEXT, HIDDEN, STEP = 4, 64, 100, 1 / 80
BATCH, LEARNING_RATE, CLIP = 256, 3e-3, 100.0
MATCHED, SIMULATED, ADJOINT = "neurodyn, SDE Matching", "neurodyn, simulated", "torchsde, adjoint"
FUSED = "neurodyn, simulated, fused"
WAYS = (MATCHED, FUSED, SIMULATED, ADJOINT)
TARGETS = {SIMULATED: "the simulated one's best", ADJOINT: "the adjoint's best"}


class Model(nn.Module):
    """Prior, encoder and likelihood, with one way's posterior."""

    def __init__(self, way: str) -> None:
        super().__init__()
        law = MLPSDE(LATENT, HIDDEN, 1, diffusion_bounds=(0.05, 1.0))
        self.prior = Prior(law, GaussianInitial(LATENT))
        self.encoder = make_encoder("gru", 3, CONTEXT, hidden_size=HIDDEN)
        self.likelihood = make_likelihood("gaussian", LATENT, 3, decoder="linear")
        posterior: Posterior
        if way == MATCHED:
            posterior = MatchedPosterior(LATENT, CONTEXT, hidden_size=HIDDEN)
        elif way in (SIMULATED, FUSED):
            engine: Any = "fused" if way == FUSED else "native"
            posterior = SimulatedPosterior(
                LATENT, LATENT, CONTEXT, longest_step=STEP, hidden_size=HIDDEN, engine=engine
            )
        else:
            posterior = TorchsdePosterior(LATENT, CONTEXT, STEP, hidden_size=HIDDEN)
        self.posterior = posterior

    def elbo(self, batch: SeriesBatch, seed: int, samples: int = 1) -> Tensor:
        """(B,) nats per series."""
        noise = RowNoise(seed, batch.ids or ())
        paths = self.posterior(self.encoder(batch), self.prior, noise, samples)
        log_prob = self.likelihood.log_prob(batch.values, paths.z, batch.mask).sum(-1).mean(0)
        return log_prob - paths.initial_kl - paths.path_kl


def marks(budget: float) -> list[float]:
    """Seconds of training at which the ELBO is looked at: half-octaves from 1 s, and the end."""
    return [second for k in range(40) if (second := 2.0 ** (k / 2)) < 0.95 * budget] + [budget]


def measure(way: str, seed: int, budget: float) -> dict[str, Any]:
    """Train for `budget` seconds.

    Returns the number of steps, and a curve of (seconds, held-out ELBO): where it was looked at, at the end of the
    first step after each of `marks`.
    """
    torch.manual_seed(seed)
    data = datasets.load("lorenz", seed=seed)
    held_out = data.validation
    (-Model(way).elbo(held_out, 0).mean()).backward()  # loads what loads at the first step
    model = Model(way)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(seed)
    spent, steps = 0.0, 0
    curve: list[tuple[float, float]] = []
    left = marks(budget)
    batches = iter(())
    while left:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            batches = iter(data.train.batches(BATCH, generator=order))
            batch = next(batches)
        optimiser.zero_grad()
        (-model.elbo(batch, steps).mean()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        spent, steps = spent + time.perf_counter() - started, steps + 1
        if spent >= left[0]:
            curve.append((spent, evaluate(model, held_out)))
            say(f"  {way}, seed {seed}: {spent:7.1f} s, {steps} steps, ELBO {curve[-1][1]:.1f}")
            left = [mark for mark in left if mark > spent]
    return {"curve": curve, "steps": steps, "budget": budget}


@torch.no_grad()
def evaluate(model: Model, batch: SeriesBatch, draws: int = 4) -> float:
    """Mean ELBO of a batch, nats per series."""
    model.eval()
    found = sum(float(model.elbo(batch, 10**6 + k).mean()) for k in range(draws)) / draws
    model.train()
    return found


def best(curve: Sequence[Sequence[float]]) -> float:
    """The highest finite ELBO of a curve."""
    return max((elbo for _, elbo in curve if math.isfinite(elbo)), default=-math.inf)


def reached(curve: Sequence[Sequence[float]], target: float) -> float | None:
    """Seconds of the first look at which the ELBO was at the target or above; None if there is none."""
    return next((seconds for seconds, elbo in curve if elbo >= target), None)


def times_matched(
    results: Mapping[tuple[str, int], Mapping[str, Any]], hits: Mapping[int, float], targets: Mapping[int, float]
) -> dict[int, float]:
    """How many times the seconds of SDE Matching to the same target, of seeds where both reach it."""
    known = {seed: results[MATCHED, seed]["curve"] for seed in hits if (MATCHED, seed) in results}
    first = {seed: reached(curve, targets[seed]) for seed, curve in known.items()}
    return {seed: hits[seed] / seconds for seed, seconds in first.items() if seconds is not None}


def records(results: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[Record]:
    """Tables time_to_elbo and time_to_elbo/curve from each way's and seed's result."""
    made: list[Record] = []

    def add(table: str, row: str, column: str, cells: Mapping[int, float], unit: str = "") -> None:
        finite = {seed: value for seed, value in cells.items() if math.isfinite(value)}
        if finite:
            where = (table, row, column)
            made.append(measured(*where, list(finite.values()), seeds=list(finite), command=COMMAND, unit=unit))

    for way in dict.fromkeys(way for way, _ in results):
        own = {seed: result for (name, seed), result in results.items() if name == way}
        curves = {seed: result["curve"] for seed, result in own.items()}
        add("time_to_elbo", way, "trained", {seed: result["budget"] for seed, result in own.items()}, "s")
        add("time_to_elbo", way, "steps", {seed: result["steps"] for seed, result in own.items()})
        add("time_to_elbo", way, "best ELBO", {seed: best(curve) for seed, curve in curves.items()}, "nats per series")
        for slow, label in TARGETS.items():
            targets = {seed: best(results[slow, seed]["curve"]) for seed in own if (slow, seed) in results}
            seconds = {seed: reached(curves[seed], target) for seed, target in targets.items()}
            hits = {seed: value for seed, value in seconds.items() if value is not None}
            add("time_to_elbo", way, f"to {label}", hits, "s")
            add("time_to_elbo", way, f"to {label}, times SDE Matching's", times_matched(results, hits, targets))
            if targets:
                where = ("time_to_elbo", way, f"seeds that reach {label}")
                share = len(hits) / len(targets)
                made.append(measured(*where, [share], seeds=[min(targets)], command=COMMAND, unit="share"))
        whole = marks(min(result["budget"] for result in own.values()))
        for mark in [*whole[:-1:2], whole[-1]]:
            looks = {seed: next((elbo for at, elbo in curve if at >= mark), math.nan) for seed, curve in curves.items()}
            add("time_to_elbo/curve", way, f"{mark:g} s", looks)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, write benchmarks/results/time_to_elbo.json and docs/images/time-to-elbo.svg."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of training of each way and seed")
    parser.add_argument("--quick", action="store_true", help="a few seconds each, one seed, nothing is written")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of the same code")
    options = parser.parse_args(arguments)
    torch.set_num_threads(cores())
    seeds, budget = ([0], 4.0) if options.quick else (options.seeds, options.budget)
    jobs = {
        f"{way}, seed {seed}": {"way": way, "seed": seed, "budget": budget} for seed in seeds for way in options.ways
    }
    name = "time_to_elbo_quick" if options.quick else "time_to_elbo"
    # one at a time, with all cores
    found = run_jobs(name, measure, jobs, processes=1, fresh=options.fresh or options.quick)
    results = {(job["way"], job["seed"]): found[key] for key, job in jobs.items()}
    made = records(results)
    for record in made:
        print(f"{record.table:20s} {record.row:24s} {record.column:40s} {record.value:.4g} {record.unit}")
    if options.quick:
        return
    lines = {f"{way}, seed {seed}": result["curve"] for (way, seed), result in results.items()}
    line_plot(lines, PICTURE, x="seconds of training", y="held-out ELBO (nats per series)", log_x=True)
    publish(RESULTS / "time_to_elbo.json", made)


if __name__ == "__main__":
    main()
