"""`LatentSDE.interpolate` against exact conditioning, hidden visits in training, and the Latent ODE's."""

import pytest
import torch
from toy_models import lively_trend, ragged, visit_states

from neurodyn.models.baselines import LatentODE
from neurodyn.models.hiding import ask_at, hide_visits
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64


def test_a_fresh_model_on_a_core_interpolates_as_the_explicit_gaussian_does() -> None:
    linear = LinearSDE(2)
    linear.core = lively_trend(2)
    batch = ragged(2, rows=2, visits=5)
    model = LatentSDE.on(linear, hidden_size=8, context_size=6).double().eval()
    inside = batch.first_time[:, None] + torch.tensor([0.15, 0.5, 0.95]) * (batch.last_time - batch.first_time)[:, None]
    asked = inside[:, [2, 0, 1]]  # in any order
    means = model.interpolate(batch, asked, 4000, generator=torch.Generator().manual_seed(0))
    loading, bias, variance = (part.detach() for part in linear.core.observation())
    for row in range(2):
        count = int(batch.present[row].sum())
        times = torch.cat((batch.times[row, :count], asked[row]))
        order = times.argsort()
        mean, cov = (part.detach() for part in visit_states(linear.core, times[order]))
        size = len(mean) // len(times)
        wide = torch.block_diag(*[loading] * len(times))
        mean, cov = wide @ mean + bias.repeat(len(times)), wide @ cov @ wide.mT
        seen = torch.zeros(len(times), 2, dtype=torch.bool)
        known = order < count
        seen[known] = batch.mask[row, order[known]]
        seen = seen.flatten()
        values = batch.values[row, order[known]][batch.mask[row, order[known]]]
        noisy = cov[seen][:, seen] + torch.diag(variance.repeat(len(times))[seen])
        wanted = mean + cov[:, seen] @ torch.linalg.solve(noisy, values - mean[seen])
        spread = (cov - cov[:, seen] @ torch.linalg.solve(noisy, cov[seen])).diagonal().sqrt()
        assert size == linear.core.law.state_size
        for k in range(3):
            place = int((order == count + k).nonzero())
            exact, sd = wanted.view(-1, 2)[place], spread.view(-1, 2)[place]
            assert ((means[:, row, k].mean(0) - exact).abs() < 5 * sd / 4000**0.5 + 1e-6).all()
            torch.testing.assert_close(means[:, row, k].std(0), sd, rtol=0.08, atol=1e-6)


@pytest.mark.parametrize("posterior", ["matched", "simulated"])
def test_rows_and_padding_do_not_matter(posterior: str) -> None:
    torch.manual_seed(0)
    model = LatentSDE.build(num_variables=2, latent_size=2, posterior=posterior, hidden_size=8, context_size=6)
    model = model.double().eval()
    batch = ragged(2, rows=3, visits=5)
    times = batch.first_time[:, None] + torch.tensor([0.1, 0.6]) * (batch.last_time - batch.first_time)[:, None]

    def filled(rows: list[int], padding: int) -> torch.Tensor:
        some = batch.rows(rows).padded(5 + padding)
        return model.interpolate(some, times[rows], 3, generator=torch.Generator().manual_seed(1))

    whole = filled([0, 1, 2], 0)
    assert whole.shape == (3, 3, 2, 2) and whole.isfinite().all()
    torch.testing.assert_close(filled([2, 0], 3), whole[:, [2, 0]])


def test_asked_times_stand_between_the_visits_and_hold_nothing() -> None:
    mask = torch.tensor([[[True]] * 3, [[True], [True], [False]]])
    batch = SeriesBatch(torch.tensor([[0.0, 1.0, 2.0]] * 2), torch.ones(2, 3, 1), mask, ids=("a", "b"))
    asked, places = ask_at(batch, torch.tensor([[1.5, 0.5], [3.0, 0.25]]))
    assert asked.times.tolist() == [[0, 0.5, 1, 1.5, 2], [0, 0.25, 1, 3, 3]]
    assert asked.times.gather(1, places).tolist() == [[1.5, 0.5], [3.0, 0.25]]
    assert not asked.mask.gather(1, places[..., None]).any()
    assert int(asked.mask.sum()) == int(batch.mask.sum())
    for times, words in ((torch.zeros(3, 2), "times: shape"), (torch.tensor([torch.nan]), "times: some that are not")):
        with pytest.raises(ValueError, match=words):
            ask_at(batch, times)
    with pytest.raises(ValueError, match="batch: covariates given"):
        ask_at(batch._with(covariates=torch.zeros(2, 3, 1)), torch.zeros(1))


def test_up_to_the_largest_share_of_visits_is_hidden_and_one_stays() -> None:
    batch = ragged(2, rows=3, visits=5)
    count = batch.present.sum(1)
    left = torch.stack(
        [hide_visits(batch, RowNoise(k, batch.ids or ()), 0.6).present.sum(1) / count for k in range(400)]
    )
    assert (left.amin(0) * count >= 1).all() and (left.amax(0) == 1).all()
    assert (left.mean(0) - 0.7).abs().max() < 0.06  # a uniform share between 0 and .6 is hidden
    one = hide_visits(batch.rows(1), RowNoise(3, ["row-1"]), 0.6)
    assert torch.equal(one.mask[0], hide_visits(batch, RowNoise(3, batch.ids or ()), 0.6).mask[1])


def test_hidden_visits_are_explained_but_not_read() -> None:
    torch.manual_seed(0)
    model = LatentSDE.build(num_variables=2, latent_size=2, hidden_size=8, context_size=6, hide_visits=0.9).double()
    read: list[SeriesBatch] = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    batch = ragged(2, rows=3, visits=5)
    loss = model.loss(batch, generator=torch.Generator().manual_seed(4))
    shown = read[-1]
    hidden = batch.mask & ~shown.mask
    assert hidden.any() and (shown.values[~shown.mask] == 0).all() and torch.equal(shown.times, batch.times)
    row = int(hidden.flatten(1).any(1).nonzero()[0])
    moved = batch._with(values=torch.where(hidden, batch.values + 1, batch.values))
    other = model.loss(moved, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(other.path_kl, loss.path_kl)  # what is hidden does not move the posterior
    assert (other.log_likelihood[row] - loss.log_likelihood[row]).abs() > 1e-3
    model.eval().loss(batch, generator=torch.Generator().manual_seed(4))
    assert torch.equal(read[-1].mask, batch.mask)
    with pytest.raises(ValueError, match="hide_visits: 1.0 given"):
        LatentSDE.build(num_variables=2, hide_visits=1.0)


def test_a_latent_ode_fills_in_from_the_visits_it_is_shown() -> None:
    torch.manual_seed(0)
    model = LatentODE(2, latent_size=3, hidden_size=8, context_size=6, hide_visits=0.5).double()
    batch = ragged(2, rows=3, visits=5)
    read: list[SeriesBatch] = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    model.loss(batch, generator=torch.Generator().manual_seed(2))
    assert int(read[-1].mask.sum()) < int(batch.mask.sum())
    model.eval().loss(batch, generator=torch.Generator().manual_seed(2))
    assert torch.equal(read[-1].mask, batch.mask)
    asked = batch.first_time[:, None] + torch.tensor([-0.5, 0.0, 0.3], dtype=DOUBLE)
    filled = model.interpolate(batch, asked, 5, generator=torch.Generator().manual_seed(0))
    assert filled.shape == (5, 3, 3, 2)
    torch.testing.assert_close(filled[:, :, 0], filled[:, :, 1])  # before the first visit: as there
