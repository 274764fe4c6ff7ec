"""The Lorenz benchmark on the true law itself: divergences near zero and a ratio of quadratic variations of one."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks import lorenz as benchmark
from neurodyn.datasets import lorenz
from neurodyn.metrics import neighbour_kl
from neurodyn.recipes import lorenz as recipe
from neurodyn.sde.base import SDE


class Truth(SDE):
    """The Lorenz system in standardised coordinates y = (x - mean) / sd."""

    noise_type, sde_type, state_size, noise_size = "diagonal", "ito", 3, 3

    def __init__(self, setting: str, mean: Tensor, sd: Tensor, louder: float) -> None:
        super().__init__()
        self.noise, self.additive = torch.tensor(lorenz.SETTINGS[setting].noise) * louder, setting == "noisy"
        self.mean, self.sd = mean.float(), sd.float()

    def drift(self, t: float | Tensor, z: Tensor) -> Tensor:
        x1, x2, x3 = (z * self.sd + self.mean).unbind(-1)
        return torch.stack((10 * (x2 - x1), x1 * (28 - x3) - x2, x1 * x2 - 8 / 3 * x3), -1) / self.sd

    def diffusion(self, t: float | Tensor, z: Tensor) -> Tensor:
        x = z * self.sd + self.mean
        return self.noise / self.sd * (torch.ones_like(x) if self.additive else x)


def true_model(setting: str, louder: float = 1.0) -> tuple[recipe.Model, Tensor, Tensor]:
    info = lorenz.load(setting, rows=200, held_out=1).info
    model = recipe.Model(recipe.Config(), 0.01)
    mean, sd = info["mean"], info["sd"]
    model.prior.sde = Truth(setting, mean, sd, louder)
    with torch.no_grad():
        model.prior.initial.mean.copy_(-mean / sd)
        model.prior.initial.log_scale.copy_(-sd.log())
        model.decoder.weight.copy_(torch.eye(3))
        nn.init.zeros_(model.decoder.bias)
    return model, mean, sd


@pytest.mark.parametrize("setting", ["matching", "noisy"])
def test_the_true_law_has_the_true_marginals_and_variation(setting: str) -> None:
    model, mean, sd = true_model(setting)
    end = lorenz.SETTINGS[setting].end
    times = end * torch.tensor([0.25, 1.0], dtype=torch.float64)
    truth = (recipe.true_states(setting, times, 3000, 1) - mean) / sd
    found = model.likelihood.mean(model.paths(times, 3000, end / 2000, 2)).detach().double()
    for k in range(2):
        assert abs(neighbour_kl(found[:, k], truth[:, k])) < 0.12
    assert model.paths(times, 4, end / 100, 2).shape == (4, 2, 3)
    assert recipe.variation(model, recipe.Config(setting=setting), sd, draws=500) == pytest.approx([1.0] * 3, abs=0.06)


def test_louder_noise_is_seen() -> None:
    model, _, sd = true_model("noisy", louder=2.0)
    assert recipe.variation(model, recipe.Config(setting="noisy"), sd, draws=100) == pytest.approx([4.0] * 3, rel=1e-4)


def test_tables_hold_each_quarter_and_published_numbers() -> None:
    result = {
        "kl": [0.1, 0.2, 0.3, 0.4],
        "truth": [0.0] * 4,
        "variation": [1.1, 1.0, 0.9],
        "elbo": 5.0,
        "seconds": 2.0,
        "memory": 900.0,
    }
    jobs = {f"{seed}": {"way": "simulated", "setting": "matching", "seed": seed, "result": result} for seed in (0, 1)}
    made = {(r.row, r.column): r for r in benchmark.records(jobs)}
    assert made["simulated", "KL at 0.75 T"].value == 0.3 and made["simulated", "KL at 0.75 T"].seeds == (0, 1)
    assert made["simulated", "variation of x1"].value == 1.1
    assert made["latent SDE", "KL at 1 T"].value == 1.5 and made["latent SDE", "KL at 1 T"].source
