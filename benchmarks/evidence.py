"""ELBO of every way of training against the exact evidence: `python -m benchmarks.evidence`.

Data of a known linear-Gaussian SDE of 1 to 4 dimensions (`datasets.linear_gaussian`), 128 series at irregular times,
30 % of the values missing. The prior has the true form with every matrix free (only H, the identity, is fixed), and
starts away from the truth. Each way trains prior and posterior together by its own gradient. Contexts are free numbers,
one vector per visit of each series, not an encoder's: the gap then belongs to the posterior and its training. The gap
is the exact evidence of the learned prior (Kalman) less its ELBO, per observed value; simulated ways discretise, so
their ELBO is that of a discretised model. Recovery: relative error of A and of L L^T, beside the errors of the same
prior fitted to the same series by the exact evidence itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.jobs import add_job_options, run_jobs
from benchmarks.records import RESULTS, Record, measured, merge_records, write_records
from neurodyn import datasets
from neurodyn.datasets.linear_gaussian import LinearSystem
from neurodyn.likelihoods import GaussianLikelihood
from neurodyn.nets.context import Context
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import Posterior
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.linear import FreeLinearLaw
from neurodyn.sde.linear_gaussian import FreeLinearGaussian
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch

COMMAND = "python -m benchmarks.evidence"
ROWS, VISITS, CONTEXT = 128, 8, 24
SAMPLES = 2
ALONE = 0.2  # of the steps in which the posterior alone is trained, so that the prior does not adapt to a bad one
# Solver steps: before a visit the posterior pulls at a rate of about 25 here, and what a step costs too much falls with
# its length. The adjoint's rows wait for each other at the visits, which makes many rows slow: it takes 32 at a time.
WAYS: dict[str, dict[str, Any]] = {
    "matched, diagonal": {"kind": "matched", "family": "diagonal", "steps": 2000},
    "matched, full": {"kind": "matched", "family": "full", "steps": 2000},
    "matched, full, corrected": {"kind": "matched", "family": "full", "correction": True, "steps": 2000},
    "simulated, backprop": {"kind": "simulated", "longest_step": 0.02, "steps": 1500},
    "simulated, reversible Heun": {
        "kind": "simulated",
        "longest_step": 0.02,
        "method": "reversible_heun",
        "gradient": "reversible",
        "steps": 800,
    },
    "simulated, adjoint": {
        "kind": "simulated",
        "longest_step": 0.04,
        "method": "heun",
        "gradient": "adjoint",
        "steps": 450,
        "rows": 32,
    },
}
COLUMNS: dict[str, tuple[str, Literal["lower", "higher", ""]]] = {
    "evidence": ("nats per value", ""),
    "gap": ("nats per value", "lower"),
    "error of A": ("", "lower"),
    "of L L^T": ("", "lower"),
}


class Model(nn.Module):
    """A linear-Gaussian prior with free matrices, a free context per visit, and one posterior."""

    def __init__(self, system: LinearSystem, batch: SeriesBatch, way: dict[str, Any], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size, variables = len(system.A), len(system.R)

        def near(x: Tensor, by: float) -> Tensor:
            return x + by * torch.randn(x.shape, generator=generator, dtype=x.dtype)

        law = FreeLinearLaw(near(system.A, 0.2), 1.3 * system.L, near(system.b, 0.2))
        self.prior = Prior(law, GaussianInitial(size, "full").double())
        decoder = nn.Linear(size, variables, bias=False)
        decoder.weight = nn.Parameter(system.H.clone(), requires_grad=False)
        self.likelihood = GaussianLikelihood(decoder, variables).double()
        shape = (*batch.times.shape, CONTEXT)
        self.features = nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator))
        options = {key: value for key, value in way.items() if key not in ("kind", "steps", "rows")}
        torch.manual_seed(seed)
        posterior: Posterior
        if way["kind"] == "matched":
            posterior = MatchedPosterior(size, CONTEXT, inner_knots=2, num_times=128, **options)
        else:
            posterior = SimulatedPosterior(size, size, CONTEXT, network=False, **options)
        self.posterior = posterior.double()

    def elbo(self, batch: SeriesBatch, seed: int, samples: int, rows: Tensor) -> Tensor:
        """Of these rows of the batch, nats per series."""
        batch, features = batch.rows(rows), self.features[rows]
        context = Context(batch, features, features[:, -1])
        paths = self.posterior(context, self.prior, RowNoise(seed, batch.ids or ()), samples)
        log_prob = self.likelihood.log_prob(batch.values, paths.z, batch.mask).sum(-1).mean(0)
        return log_prob - paths.initial_kl - paths.path_kl

    def exact(self) -> FreeLinearGaussian:
        """The same prior and likelihood, scored by the Kalman filter."""
        law, initial, likelihood = self.prior.sde, self.prior.initial, self.likelihood
        assert isinstance(law, FreeLinearLaw) and isinstance(initial, GaussianInitial)
        root = initial.scale_tril()
        matrices = (law.matrix(), law.noise(), initial.mean, root @ root.mT, likelihood.decoder.weight)
        parts = [part.detach().double() for part in (*matrices, likelihood.noise_sd() ** 2, law.offset())]
        return FreeLinearGaussian(*parts)


def errors(law: Any, system: LinearSystem) -> dict[str, float]:
    """Relative errors of the drift's matrix and of the noise's covariance, in the Frobenius norm."""
    noise, true = law.noise_covariance().detach(), system.L @ system.L.mT
    return {
        "error of A": float((law.matrix().detach() - system.A).norm() / system.A.norm()),
        "of L L^T": float((noise - true).norm() / true.norm()),
    }


def measure(way: str, dimension: int) -> dict[str, float]:
    """Train one way on data of one dimension."""
    data = datasets.load("linear_gaussian", dimension=dimension, rows=ROWS, held_out=1, visits=VISITS, seed=dimension)
    system, batch = data.info["system"], data.train.compact().to(dtype=torch.float64)
    values = float(batch.mask.sum()) / batch.num_rows
    if way == "exact evidence":
        exact = Model(system, batch, WAYS["matched, full"], 0).exact()
        exact.loading.requires_grad_(False)
        trained = [part for part in exact.parameters() if part.requires_grad]
        optimiser = torch.optim.LBFGS(trained, max_iter=300, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = -exact.evidence(batch).mean()
            loss.backward()
            return loss

        optimiser.step(closure)
        found = {"evidence": float(exact.evidence(batch).mean().detach()) / values, "gap": 0.0}
        return found | errors(exact.law, system)
    settings = WAYS[way]
    model = Model(system, batch, settings, 0)
    slow = list(model.prior.parameters()) + [p for p in model.likelihood.parameters() if p.requires_grad]
    fast = [model.features, *model.posterior.parameters()]
    optimiser_ = torch.optim.Adam([{"params": fast}, {"params": slow}], betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser_, [1e-2, 3e-2], total_steps=settings["steps"])
    for step in range(settings["steps"]):
        optimiser_.zero_grad()
        chosen = torch.randperm(ROWS, generator=torch.Generator().manual_seed(step))[: settings.get("rows", ROWS)]
        (-model.elbo(batch, step, SAMPLES, chosen).mean()).backward()
        if step < ALONE * settings["steps"]:
            for parameter in slow:
                parameter.grad = None
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser_.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        elbo = sum(float(model.elbo(batch, 10**6 + k, 8, torch.arange(ROWS)).mean()) for k in range(16)) / 16
        evidence = float(model.exact().evidence(batch).mean())
    found = {"evidence": evidence / values, "gap": (evidence - elbo) / values}
    return found | errors(model.prior.sde, system)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and write benchmarks/results/evidence.json."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--dimensions", nargs="+", type=int, default=[1, 2, 3, 4])
    add_job_options(parser)
    chosen = parser.parse_args(arguments)
    jobs = {}
    for dimension in chosen.dimensions:
        for way in (*chosen.ways, "exact evidence"):
            # without correlations in truth a diagonal posterior can be exact; in more dimensions it cannot
            if way != "matched, diagonal" or dimension == 1:
                jobs[f"{way}, d = {dimension}"] = {"way": way, "dimension": dimension}
    results = run_jobs("evidence", measure, jobs, processes=chosen.processes, fresh=chosen.fresh)
    made: list[Record] = []
    for name, cells in results.items():
        for column, (unit, better) in COLUMNS.items():
            made.append(
                measured(
                    "evidence", name, column, [cells[column]], seeds=[0], command=COMMAND, unit=unit, better=better
                )
            )
        print(f"{name:36s} " + "  ".join(f"{column} {cells[column]:.4f}" for column in COLUMNS))
    path = RESULTS / "evidence.json"
    order = [*WAYS, "exact evidence"]

    def place(record: Record) -> tuple[int, int]:
        way, _, dimension = record.row.rpartition(", d = ")
        return int(dimension), order.index(way)

    write_records(path, sorted(merge_records(path, made), key=place))  # runs of some leave the others in their place
    print(f"written to {path.relative_to(RESULTS.parent.parent)}; python -m benchmarks.render puts it into the docs")


if __name__ == "__main__":
    main()
