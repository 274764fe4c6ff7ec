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
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.jobs import run_jobs
from benchmarks.records import RESULTS, ROOT, Record, measured, merge_records
from neurodyn import style
from neurodyn.datasets import lorenz
from neurodyn.likelihoods import make_likelihood
from neurodyn.loss import Loss
from neurodyn.metrics import neighbour_kl
from neurodyn.nets.encoders import make_encoder
from neurodyn.noise import RowNoise
from neurodyn.posteriors.base import Posterior
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch
from neurodyn.solvers.rollout import rollout
from neurodyn.training import FitConfig, fit

COMMAND = "python -m benchmarks.lorenz"
PICTURE = ROOT / "docs" / "images" / "lorenz-phase-space.png"
SEEDS = (0, 1, 2)
DRAWS, ROLLOUT_STEPS = 16384, 1000
QUARTERS = (0.25, 0.5, 0.75, 1.0)
HIDDEN, CONTEXT = 100, 64


@dataclass(frozen=True)
class Way:
    """A model and its training. Without inner knots, full covariance and slopes it is the paper's choice of parts."""

    posterior: Literal["matched", "simulated"] = "matched"
    family: str = "full"
    latent_size: int = 3
    inner_knots: int = 1
    num_times: int = 24
    steps: int = 1500
    batch_size: int = 64


WAYS = {
    "SDE Matching, ours": Way(),
    "SDE Matching, 4 latents, diagonal": Way(latent_size=4, family="diagonal"),
    "simulated": Way(posterior="simulated", steps=800),
}
NSF_PAGE = "nkiyohara/nsf-neurips2025, site/index.html (project page of Latent NSF, NeurIPS 2025)"
PUBLISHED = {
    "SDE Matching (dt = 1e-4)": (4.3, 5.3, 3.4, 3.8),
    "latent SDE": (2.1, 1.8, 0.9, 1.5),
    "Neural Stochastic Flows": (0.8, 1.3, 0.6, 0.2),
}


class Model(nn.Module):
    """Prior, encoder, posterior and a linear read-out with the data's noise; its loss is the negative ELBO."""

    def __init__(self, way: Way, noise_sd: float, longest_step: float) -> None:
        super().__init__()
        size = way.latent_size
        law = MLPSDE(size, HIDDEN, 1, linear=True, diffusion_bounds=(0.01, 1.5), activation="silu")
        self.prior = Prior(law, GaussianInitial(size))
        self.encoder = make_encoder("window", 3, CONTEXT, hidden_size=HIDDEN, before=2, after=2, slopes=True)
        self.likelihood = make_likelihood("gaussian", size, 3, decoder="linear", noise=noise_sd)
        posterior: Posterior
        if way.posterior == "matched":
            posterior = MatchedPosterior(
                size,
                CONTEXT,
                family=way.family,
                inner_knots=way.inner_knots,
                num_times=way.num_times,
                hidden_size=HIDDEN,
                scale=0.1,
            )
        else:
            posterior = SimulatedPosterior(size, size, CONTEXT, longest_step=longest_step, hidden_size=HIDDEN)
        self.posterior = posterior

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Parts (B,), nats per series."""
        noise = RowNoise.of(batch, generator)
        paths = self.posterior(self.encoder(batch), self.prior, noise)
        log_prob = self.likelihood.log_prob(batch.values, paths.z, batch.mask).sum(-1).mean(0)
        return Loss(log_prob, paths.initial_kl, paths.path_kl, torch.zeros_like(log_prob))

    @torch.no_grad()
    def paths(self, times: Tensor, draws: int, longest_step: float, seed: int) -> Tensor:
        """Latents (S, T, d) of the prior at times (T,), from its start at 0 on."""
        start = self.prior.initial.sample((draws, 1), generator=torch.Generator().manual_seed(seed))
        begin = torch.zeros(1, dtype=torch.float64)
        return rollout(self.prior.sde, start, begin, times[None], RowNoise(seed, ["prior"]), longest_step)[:, 0]


def true_states(setting: str, times: Tensor, draws: int, seed: int) -> Tensor:
    """(S, T, 3) of the Lorenz system at times (T,), in its own units."""
    noise, end, _, _, additive, _ = lorenz.SETTINGS[setting]
    grid = torch.cat((torch.zeros(1, dtype=torch.float64), times))
    steps = round(4000 * end / len(times))
    generator = torch.Generator().manual_seed(seed)
    return lorenz.simulate(draws, grid, noise, steps, generator, additive=additive)[:, 1:]


def measure(way: str, setting: str, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Train one model and compare its marginals and its diffusion with the truth's."""
    settings, end = WAYS[way], lorenz.SETTINGS[setting].end
    data = lorenz.load(setting, seed=seed)
    torch.manual_seed(seed)
    model = Model(settings, data.info["noise_sd"], end / 80)
    config = FitConfig(
        steps=steps or settings.steps,
        batch_size=settings.batch_size,
        ema=0.995,
        clip_norm=1000.0,
        validate_every=500,
        seed=seed,
        device="cpu",
        progress=False,
    )
    result = fit(model, data.train, data.validation, config)
    times = end * torch.tensor(QUARTERS, dtype=torch.float64)
    mean, sd = data.info["mean"], data.info["sd"]
    truth, other = ((true_states(setting, times, DRAWS, 10**6 + k) - mean) / sd for k in (seed, seed + 10**3))
    latent = model.paths(times, DRAWS, end / ROLLOUT_STEPS, seed)
    with torch.no_grad():
        found = model.likelihood.mean(latent).double()
    return {
        "kl": [neighbour_kl(found[:, k], truth[:, k]) for k in range(4)],
        "truth": [neighbour_kl(other[:, k], truth[:, k]) for k in range(4)],
        "variation": variation(model, setting, sd, seed),
        "elbo": -float(result.best_value or 0.0),
        "seconds": result.seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "paths": thin(model, setting, mean, sd) if seed == SEEDS[0] else None,
    }


@torch.no_grad()
def variation(model: Model, setting: str, sd: Tensor, seed: int, draws: int = 2048) -> list[float]:
    """Quadratic variation of each coordinate over the whole time, the model's divided by the truth's."""
    end, noise, additive = (getattr(lorenz.SETTINGS[setting], name) for name in ("end", "noise", "additive"))
    times = end * (torch.arange(40, dtype=torch.float64) + 0.5) / 40
    latent = model.paths(times, draws, end / ROLLOUT_STEPS, seed)
    weight = model.likelihood.decoder.weight
    own = (model.prior.sde.diffusion(0.0, latent).square() @ weight.square().mT).double().mean((0, 1))
    states = true_states(setting, times, draws, 2 * 10**6 + seed) / sd
    scale = torch.tensor(noise, dtype=torch.float64)
    real = (scale / sd).square() if additive else (scale * states).square().mean((0, 1))
    return (own / real).tolist()


def thin(model: Model, setting: str, mean: Tensor, sd: Tensor, draws: int = 60) -> dict[str, list[Any]]:
    """A few paths of the model and of the truth, in the system's units, for the picture."""
    times = lorenz.SETTINGS[setting].end * torch.arange(1, 101, dtype=torch.float64) / 100
    with torch.no_grad():
        own = model.likelihood.mean(model.paths(times, draws, float(times[0]) / 10, 7)).double() * sd + mean
    real = true_states(setting, times, draws, 3 * 10**6)
    return {
        name: [[round(x, 2) for x in point] for point in table.flatten(0, 1).tolist()]
        for name, table in (("model", own), ("truth", real))
    }


def picture(shown: dict[str, dict[str, list[Any]]]) -> None:
    """Paths of the truth and of the learned law in the plane of x1 and x3, one row per setting."""
    figure, axes = style.grid_of_axes(len(shown), 2, width=7.0, height=2.6 * len(shown))
    for row, (setting, tables) in enumerate(shown.items()):
        for column, name in enumerate(("truth", "model")):
            points = torch.tensor(tables[name]).unflatten(0, (-1, 100))
            for path in points:
                axes[row, column].plot(path[:, 0], path[:, 2], color=style.BLUE, alpha=0.35, linewidth=0.6)
            axes[row, column].set_title(f"{setting}: {'learned law' if name == 'model' else 'truth'}")
            axes[row, column].set_xlabel("x1")
            axes[row, column].set_ylabel("x3")
        axes[row, 1].set_xlim(axes[row, 0].get_xlim())
        axes[row, 1].set_ylim(axes[row, 0].get_ylim())
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


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
            }
            for column, values in columns.items():
                unit = {"ELBO": "nats per series", "training": "s"}.get(column, "")
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
    """Run what is missing and write benchmarks/results/lorenz.json and the picture."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--settings", nargs="+", choices=tuple(lorenz.SETTINGS), default=tuple(lorenz.SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int, help="of training, fewer for a smoke run, whose numbers mean nothing")
    parser.add_argument("--processes", type=int, help="at a time, one thread each; all cores if not given")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of the same code")
    chosen = parser.parse_args(arguments)
    names = {
        f"{way}, {setting}, seed {seed}": {"way": way, "setting": setting, "seed": seed, "steps": chosen.steps}
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
    merge_records(RESULTS / "lorenz.json", made)
    shown = {
        job["setting"]: job["result"]["paths"]
        for job in jobs.values()
        if job["way"] == next(iter(WAYS)) and job["result"]["paths"]
    }
    if shown:
        picture(shown)
    print("written to benchmarks/results/lorenz.json; python -m benchmarks.render puts it into the docs")


if __name__ == "__main__":
    main()
