"""Recovering targets that are seen five times, from paths that drive them: `python -m benchmarks.siglasso`.

Fifty training, validation and test series of each of four simulated systems. Every model sees the path at 102 random
times and the target at five, and predicts the target at these times of new series; lines join its predictions. The
score is the mean over time and series of half the squared error. Networks have 100 epochs in batches of 32, and keep
the weights that did best on the validation series. Regressions weigh levels as the theory does; depth, up to 400 words,
and penalty are chosen by cross-validation among the training series, and whether the path's start counts by the
validation series. Settings were looked at with seeds 0 and 1; the table has others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, Record, publish, summarise
from benchmarks.siglasso_systems import STEPS, SYSTEMS, Array, Simulated, simulate
from neurodyn.nets.controlled import NeuralCDE
from neurodyn.nets.signatures import signature_size
from neurodyn.series import SeriesBatch

COMMAND = "python -m benchmarks.siglasso"
MODELS = ("SigLasso", "signature ridge", "GRU", "neural CDE", "training mean")
GRID = np.linspace(0, 1, STEPS + 1)
WORDS = 400
EPOCHS, SERIES = 100, 50
SEEDS = tuple(range(2, 12))


class GRUNetwork(nn.Module):
    """A GRU of width 128 over (time, path), read off linearly at every visit."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels + 1, 128, batch_first=True)
        self.head = nn.Linear(128, 1)

    def forward(self, batch: SeriesBatch) -> Tensor:
        """(B, T)."""
        states, _ = self.gru(torch.cat((batch.times.to(batch.dtype).unsqueeze(-1), batch.values), -1))
        found: Tensor = self.head(states)[..., 0]
        return found


class CDENetwork(nn.Module):
    """A neural CDE on the linear path, state 32, field of one hidden layer of 128, read off linearly."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = NeuralCDE(channels, 1, 32, width=128, path="linear")

    def forward(self, batch: SeriesBatch) -> Tensor:
        """(B, T)."""
        return self.encoder(batch).features[..., 0]


def measure(name: str, system: str, seed: int, epochs: int) -> dict[str, float]:
    """Error over whole trajectories and at the end, in the target's units; seconds of a core, prediction included."""
    train, validation, test = (simulate(system, SERIES, seed, part) for part in range(3))
    if name in ("SigLasso", "signature ridge"):
        _warm_up()
    started = time.process_time()
    if name == "training mean":
        found = np.full_like(test.truth, train.y.mean())
    elif name in ("SigLasso", "signature ridge"):
        found = _signatures("lasso" if name == "SigLasso" else "ridge", train, validation, test)
    else:
        found = _network(name, train, validation, test, seed, epochs)
    seconds = time.process_time() - started
    error = (found - test.truth) ** 2
    return {
        "trajectory": float(error.mean() / 2),
        "end": float(error[:, -1].mean()),
        "share": float(error.mean() / test.truth.var()),
        "seconds": seconds,
    }


def _warm_up() -> None:
    """Import what a first regression would import while it is timed."""
    from neurodyn.models.signature_regression import SignatureRegression

    ramp = np.linspace(0, 1, 6)
    for penalty in ("lasso", "ridge"):
        SignatureRegression(1, penalty=penalty).fit(np.outer(ramp, ramp), ramp)


def _signatures(penalty: str, train: Simulated, validation: Simulated, test: Simulated) -> Array:
    from neurodyn.models.signature_regression import SignatureRegression

    channels = 1 + train.x.shape[2]
    deepest = max(depth for depth in range(1, 9) if signature_size(channels, depth) <= WORDS)
    best: Any = None
    for start in (False, True):
        model = SignatureRegression(max_depth=deepest, penalty=penalty, level_weights=True, start=start)
        model.fit(train.x, train.y, times=train.times, target_times=train.target_times)
        guess = model.predict(validation.x, times=validation.times, target_times=validation.target_times)
        error = float(((guess - validation.y) ** 2).mean())
        best = (error, model) if best is None or error < best[0] else best
    return _joined(test, best[1].predict(test.x, times=test.times, target_times=test.times))


def _joined(test: Simulated, at_visits: Array) -> Array:
    """Predictions (n, 102) at the visits, joined by lines, on the grid of the truth."""
    return np.stack([np.interp(GRID, t, y) for t, y in zip(test.times, at_visits, strict=True)])


def _network(name: str, train: Simulated, validation: Simulated, test: Simulated, seed: int, epochs: int) -> Array:
    torch.manual_seed(seed)
    channels = train.x.shape[2]
    network: nn.Module = GRUNetwork(channels) if name == "GRU" else CDENetwork(channels)
    mean, sd = train.x.mean((0, 1)), train.x.std((0, 1))
    centre, spread = float(train.y.mean()), float(train.y.std())

    def batch_of(part: Simulated) -> tuple[SeriesBatch, Tensor, Tensor]:
        values = torch.as_tensor((part.x - mean) / sd, dtype=torch.float32)
        place = (
            (torch.as_tensor(part.times)[:, None] == torch.as_tensor(part.target_times)[:, :, None]).long().argmax(2)
        )
        goal = torch.as_tensor((part.y - centre) / spread, dtype=torch.float32)
        return SeriesBatch(torch.as_tensor(part.times), values), place, goal

    fitted, held_out, new = (batch_of(part) for part in (train, validation, test))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    best: Any = None
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(fitted[0]), generator=order).split(32):
            guess = network(fitted[0].rows(rows)).gather(1, fitted[1][rows])
            loss = (guess - fitted[2][rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            error = float((network(held_out[0]).gather(1, held_out[1]) - held_out[2]).square().mean())
        if best is None or error < best[0]:
            best = (error, {k: v.clone() for k, v in network.state_dict().items()})
    network.load_state_dict(best[1])
    with torch.no_grad():
        at_visits = network(new[0]).numpy() * spread + centre
    return _joined(test, at_visits)


def records(results: dict[str, dict[str, float]], seeds: Sequence[int], models: Sequence[str] = MODELS) -> list[Record]:
    """Tables siglasso/trajectory, siglasso/end, siglasso/seconds: a model by a system."""
    made: list[Record] = []
    for key, unit in (("trajectory", ""), ("share", ""), ("end", ""), ("seconds", "s")):
        cells = {
            seed: {name: {s: results[f"{name}, {s}, seed {seed}"][key] for s in SYSTEMS} for name in models}
            for seed in seeds
        }
        columns: Any = {system: (unit, "lower") for system in SYSTEMS}
        made += summarise(f"siglasso/{key}", cells, columns, command=COMMAND)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/siglasso.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the networks")
    add_job_options(parser, SEEDS)
    chosen = parser.parse_args(arguments)
    jobs = {
        f"{name}, {system}, seed {seed}": {"name": name, "system": system, "seed": seed, "epochs": chosen.epochs}
        for seed in chosen.seeds
        for system in SYSTEMS
        for name in chosen.models
    }
    results = run_jobs("siglasso", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made = records(results, chosen.seeds, chosen.models)
    path = RESULTS / "siglasso.json"
    for record in made:
        if record.table in ("siglasso/share", "siglasso/seconds"):
            print(f"  {record.table:18s} {record.row:16s} {record.column:14s} {record.value:.4f}")
    publish(path, made)


if __name__ == "__main__":
    main()
