"""Matched posteriors with latents that never move: constant marginals, and a KL that counts them once, at the start."""

import pytest
import torch
from torch import nn

from neurodyn.models.latent_sde import LatentSDE
from neurodyn.nets.context import Context
from neurodyn.noise import RowNoise
from neurodyn.posteriors.matched import Curve, MatchedPosterior
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.paced import PacedLaw
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch
from neurodyn.solvers.solve import sdeint

DOUBLE = torch.float64


def context_of(rows: int, visits: int, features: int) -> Context:
    generator = torch.Generator().manual_seed(0)
    times = 0.2 + torch.rand(rows, visits, generator=generator, dtype=DOUBLE).cumsum(1) * 0.5
    batch = SeriesBatch(times, torch.zeros(rows, visits, 1, dtype=DOUBLE), ids=tuple(str(k) for k in range(rows)))
    table = torch.randn(rows, visits, features, generator=generator, dtype=DOUBLE)
    return Context(batch, table, table.mean(1))


def lively(module: nn.Module, std: float = 0.25) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module.double()


@pytest.mark.parametrize("pace", [0.0, 0.4])
def test_the_posterior_sde_keeps_constants_and_has_the_curves_marginals(pace: float) -> None:
    context = context_of(1, 3, 4)
    posterior = lively(MatchedPosterior(3, 4, static_size=1), 0.15)
    plain = lively(MLPSDE(3, 8, static_size=1, diffusion_bounds=(0.3, 0.6)))
    law = PacedLaw(plain, pace) if pace else plain
    moving = posterior.law(context, law)
    curve: Curve = posterior.curve(context)
    times = context.batch.times[0]
    torch.manual_seed(1)
    zero = torch.zeros_like(curve.values[:, :1])
    start = posterior.family.sample(curve.values[:, :1], zero, torch.randn(4000, 1, 1, 3, dtype=DOUBLE)).z[:, :, 0]
    with torch.no_grad():
        paths = sdeint(moving, start, times[None], dt=0.004, seeds=RowNoise(0, ["0"]))[:, 0]
    assert torch.equal(paths[..., 2], start[..., 2].expand(-1, 3))
    mean, log_sd = curve.at(times[None])[0][0].chunk(2, -1)
    torch.testing.assert_close(paths.mean(0), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(paths.std(0), log_sd.exp(), atol=0.0, rtol=0.06)


def test_constants_that_the_drift_ignores_cost_their_own_kl_and_nothing_more() -> None:
    context = context_of(2, 4, 5)
    wide, narrow = lively(MatchedPosterior(3, 5, static_size=1)).eval(), MatchedPosterior(2, 5).double().eval()
    narrow.head.load_state_dict(wide.head.state_dict())
    law = lively(MLPSDE(3, 8, static_size=1, diffusion="constant"))
    small = MLPSDE(2, 8, diffusion="constant").double()
    with torch.no_grad():
        law.residual[0].weight[:, 2] = 0.0
        small.residual.load_state_dict(
            {
                name: tensor[:, :2] if tensor.shape == (8, 3) else tensor
                for name, tensor in law.residual.state_dict().items()
            }
        )
        small.base.copy_(law.base)
    first = wide(context, Prior(law, GaussianInitial(3)).double(), RowNoise(0, ("0", "1")), 64)
    second = narrow(context, Prior(small, GaussianInitial(2)).double(), RowNoise(0, ("0", "1")), 64)
    # other samples, since the noise has another shape: the same expectation
    torch.testing.assert_close(first.path_kl, second.path_kl, rtol=0.05, atol=0.0)
    mean, log_sd = wide.static_net(context.summary).unbind(-1)
    own = 0.5 * (mean.square() + (2 * log_sd).exp() - 1) - log_sd
    torch.testing.assert_close(first.initial_kl, second.initial_kl + own, rtol=1e-9, atol=1e-9)


def test_models_with_a_pace_are_built_by_name_trained_and_saved(tmp_path) -> None:
    torch.manual_seed(0)
    batch = SeriesBatch(torch.arange(9.0).expand(2, 9), torch.randn(2, 9, 2), ids=("a", "b"))
    options = {"encoder": "window", "encoder_options": {"every": 4, "slopes": True}, "inner_knots": 0}
    for posterior in ("matched", "simulated"):
        given = options if posterior == "matched" else {}
        model = LatentSDE.build(
            num_variables=2, latent_size=2, static_latents=1, pace=0.3, posterior=posterior, hidden_size=8, **given
        )
        model.loss(batch).objective().backward()
        law = model.prior.sde
        assert isinstance(law, PacedLaw) and (law.state_size, law.static_size) == (3, 1)
        again = LatentSDE.load(model.save(tmp_path / posterior)).prior.sde
        assert torch.equal(again.drift(0.0, torch.ones(3)), law.drift(0.0, torch.ones(3)))
        assert model.forecast(batch, torch.tensor([9.0, 10.0]), 5).samples.shape == (5, 2, 2, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MatchedPosterior(3, 4, static_size=1, family="full"), "static_size: 1 of 3 given with family 'full'"),
        (lambda: MatchedPosterior(3, 4, static_size=3), "static_size: 3 of 3 given"),
        (lambda: LatentSDE.build(num_variables=2, pace=0.1), "pace: 0.1 given"),
        (
            lambda: LatentSDE.build(num_variables=2, core={}, posterior="smoother", static_latents=1),
            "static_latents: 1",
        ),
        (
            lambda: MatchedPosterior(3, 5).double()(
                context_of(2, 3, 5), Prior(MLPSDE(3, 8, static_size=1), GaussianInitial(3)).double(), RowNoise(0, "ab")
            ),
            "prior: a law with 1 static coordinates given, 0 wanted",
        ),
    ],
)
def test_bad_input(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
