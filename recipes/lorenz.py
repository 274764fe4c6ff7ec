"""Learn the law of stochastic Lorenz series with one latent SDE, and compare it with the true law.

    python recipes/lorenz.py                         the setting of SDE Matching: noise in proportion to the state
    python recipes/lorenz.py --setting torchsde      that of torchsde's example
    python recipes/lorenz.py --setting noisy         that of Helmholtz-SDE: additive noise, few observations
    python recipes/lorenz.py --posterior simulated   through the solver

Printed are KL(learned law || truth) of the states at four times, in nats, by distances to nearest neighbours
(`neurodyn.metrics.neighbour_kl`), and the learned quadratic variation divided by the true one; 1 is right. `python -m
benchmarks.lorenz` makes the tables over seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from neurodyn.datasets import lorenz
from neurodyn.datasets.splits import Splits
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
from neurodyn.training import FitConfig, FitResult, fit

ROLLOUT_STEPS = 1000
QUARTERS = (0.25, 0.5, 0.75, 1.0)
HIDDEN, CONTEXT = 100, 64


@dataclass(frozen=True)
class Config:
    """Learn the law of stochastic Lorenz series, and compare it with the true one."""

    setting: Literal["matching", "torchsde", "noisy"] = "matching"
    """Noise, times and observations after SDE Matching, torchsde or Helmholtz-SDE."""
    posterior: Literal["matched", "simulated"] = "matched"
    """SDE Matching, or through the solver."""
    family: Literal["diagonal", "full", "flow"] = "full"
    """Marginals of a matched posterior."""
    latent_size: int = 3
    """Latents."""
    inner_knots: int = 1
    """Spline knots between two observations, of a matched posterior."""
    num_times: int = 24
    """Random times per series and step for the path KL, of a matched posterior."""
    steps: int = 4000
    """Training steps."""
    batch_size: int = 64
    """Series per step."""
    seed: int = 0
    """Of data, weights, order of series and noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    draws: int = 16384
    """Paths of each law that are compared."""
    progress: bool = True
    """Show training's progress."""


class Model(nn.Module):
    """Prior, encoder, posterior and a linear read-out with the data's noise; its loss is the negative ELBO."""

    def __init__(self, config: Config, noise_sd: float) -> None:
        super().__init__()
        size = config.latent_size
        law = MLPSDE(size, HIDDEN, 1, linear=True, diffusion_bounds=(0.01, 1.5), activation="silu")
        self.prior = Prior(law, GaussianInitial(size))
        self.encoder = make_encoder("window", 3, CONTEXT, hidden_size=HIDDEN, before=2, after=2, slopes=True)
        self.decoder = nn.Linear(size, 3)
        # the noise of each coordinate is its own: latents begin, and as a rule stay, along the coordinates
        nn.init.eye_(self.decoder.weight)
        nn.init.zeros_(self.decoder.bias)
        self.likelihood = make_likelihood("gaussian", size, 3, decoder=self.decoder, noise=noise_sd)
        posterior: Posterior
        if config.posterior == "matched":
            posterior = MatchedPosterior(
                size,
                CONTEXT,
                family=config.family,
                inner_knots=config.inner_knots,
                num_times=config.num_times,
                hidden_size=HIDDEN,
                scale=0.1,
            )
        else:
            longest_step = lorenz.SETTINGS[config.setting].end / 80
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
        device = next(self.parameters()).device
        start = self.prior.initial.sample((draws, 1), generator=torch.Generator(device).manual_seed(seed))
        begin, noise = torch.zeros(1, dtype=torch.float64, device=device), RowNoise(seed, ["prior"], device)
        return rollout(self.prior.sde, start, begin, times[None].to(device), noise, longest_step)[:, 0]


def train(config: Config, data: Splits) -> tuple[Model, FitResult]:
    """Train one model; the weights with the best ELBO of the validation series stay."""
    torch.manual_seed(config.seed)
    model = Model(config, data.info["noise_sd"])
    settings = FitConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        ema=0.995,
        clip_norm=1000.0,
        validate_every=min(500, config.steps),
        seed=config.seed,
        device=config.device,
        progress=config.progress,
    )
    return model, fit(model, data.train, data.validation, settings)


def true_states(setting: str, times: Tensor, draws: int, seed: int) -> Tensor:
    """(S, T, 3) of the Lorenz system at times (T,), in its own units."""
    noise, end, _, _, additive, _ = lorenz.SETTINGS[setting]
    grid = torch.cat((torch.zeros(1, dtype=torch.float64), times))
    steps = round(4000 * end / len(times))
    generator = torch.Generator().manual_seed(seed)
    return lorenz.simulate(draws, grid, noise, steps, generator, additive=additive)[:, 1:]


def divergences(model: Model, config: Config, data: Splits) -> tuple[list[float], list[float]]:
    """KL(learned law || truth) of the standardised states at the four times; and of other draws of the truth."""
    end, mean, sd = lorenz.SETTINGS[config.setting].end, data.info["mean"], data.info["sd"]
    times = end * torch.tensor(QUARTERS, dtype=torch.float64)
    truth, other = (
        (true_states(config.setting, times, config.draws, 10**6 + k) - mean) / sd
        for k in (config.seed, config.seed + 10**3)
    )
    latent = model.paths(times, config.draws, end / ROLLOUT_STEPS, config.seed)
    with torch.no_grad():
        found = model.likelihood.mean(latent).double().cpu()
    own = [neighbour_kl(found[:, k], truth[:, k]) for k in range(len(QUARTERS))]
    return own, [neighbour_kl(other[:, k], truth[:, k]) for k in range(len(QUARTERS))]


@torch.no_grad()
def variation(model: Model, config: Config, sd: Tensor, draws: int = 2048) -> list[float]:
    """Quadratic variation of each coordinate over the whole time, the model's divided by the truth's."""
    end, noise, additive = (getattr(lorenz.SETTINGS[config.setting], name) for name in ("end", "noise", "additive"))
    times = end * (torch.arange(40, dtype=torch.float64) + 0.5) / 40
    latent = model.paths(times, draws, end / ROLLOUT_STEPS, config.seed)
    scales = model.prior.sde.diffusion(0.0, latent).square()
    own = (scales @ model.decoder.weight.square().mT).double().mean((0, 1)).cpu()
    states = true_states(config.setting, times, draws, 2 * 10**6 + config.seed) / sd
    scale = torch.tensor(noise, dtype=torch.float64)
    real = (scale / sd).square() if additive else (scale * states).square().mean((0, 1))
    return (own / real).tolist()


def run(config: Config) -> dict[str, Any]:
    """Train, and print how far the learned law is from the true one."""
    data = lorenz.load(config.setting, seed=config.seed)
    model, result = train(config, data)
    own, floor = divergences(model, config, data)
    found = {"kl": own, "truth": floor, "variation": variation(model, config, data.info["sd"])}
    print(f"ELBO {-float(result.best_value or 0.0):.1f} nats per series, {result.seconds:.0f} s of training")
    for share, value, least in zip(QUARTERS, own, floor, strict=True):
        print(f"KL at {share:4g} T   {value:8.3f}   (of the truth to itself {least:.3f})")
    print("quadratic variation  " + "  ".join(f"{ratio:.3f}" for ratio in found["variation"]))
    return found | {"model": model, "result": result}


if __name__ == "__main__":
    run(tyro.cli(Config))
