"""The direct network against the best possible forecast of a known process, and against leaks of the future."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.metrics.scores import crps, interval_coverage
from neurodyn.models.baselines.direct_gru import DirectGRU, Predicted
from neurodyn.models.baselines.pairs import last_seen
from neurodyn.models.baselines.persistence import LastValue
from neurodyn.models.baselines.validation import forecast_crps
from neurodyn.nets.gru_d import GRUD
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig

QUICK = {"num_networks": 1, "context_size": 8, "hidden_size": 32, "dropout": 0.0}


def made(seed, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DirectGRU(**sizes)


def ramps(rows, visits, seed, missing=0.2):
    """y1 = level + slope t + noise: a last value alone cannot know the slope, a network that reads the history can."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(rows, visits, generator=generator, dtype=torch.float64).sort(1).values * 2
    level = torch.randn(rows, 1, generator=generator)
    slope = torch.randn(rows, 1, generator=generator)
    values = (level + slope * times.float())[..., None] + 0.1 * torch.randn(rows, visits, 1, generator=generator)
    mask = torch.rand(values.shape, generator=generator) >= missing
    mask[:, 0] = True
    return SeriesBatch(times, values, mask)


def noise(rows, visits, seed):
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(rows, visits, generator=generator, dtype=torch.float64).sort(1).values * 2
    return SeriesBatch(times, torch.randn(rows, visits, 2, generator=generator))


@pytest.fixture(scope="module")
def trained():
    model = made(0, num_variables=1, **QUICK)
    config = FitConfig(steps=300, batch_size=0, learning_rate=5e-3, validate_every=20, progress=False)
    return model.fit(ramps(256, 10, 1), ramps(64, 10, 2), config)


def test_it_extrapolates_slopes_far_better_than_persistence(trained):
    test = ramps(200, 10, 3)
    history, after = test.history(fraction=0.5), test.after(fraction=0.5)
    forecast = trained.forecast(history, after.times, generator=torch.Generator().manual_seed(0))
    persistence = LastValue().fit(ramps(256, 10, 1)).forecast(history, after.times)
    own, other = (float(crps(f.samples, after.values, after.mask).nanmean()) for f in (forecast, persistence))
    assert own < 0.6 * other
    assert 0.84 < float(interval_coverage(forecast.samples, after.values, 0.9, after.mask).nanmean()) < 0.96


def test_it_cannot_beat_the_entropy_of_noise():
    # any leak of later visits into the context would show as a log-likelihood above minus the entropy
    model = made(1, num_variables=2, **QUICK)
    model.fit(noise(300, 6, 1), None, FitConfig(steps=150, batch_size=0, learning_rate=5e-3, progress=False))
    test = noise(500, 2, 2)  # two visits: the cut is the first, so the loss is the density of the second
    per_value = float(model.loss(test).log_likelihood.detach().mean()) / 2
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert -entropy - 0.12 < per_value < -entropy + 0.04


def test_student_t_density_is_scipys():
    predicted = Predicted(torch.tensor([0.3, -1.0]), torch.tensor([0.5, 2.0]), torch.tensor([3.0, 30.0]))
    values = torch.tensor([[0.0, 0.0], [4.0, -9.0]], dtype=torch.float64)
    expected = scipy.stats.t.logpdf(values, [3.0, 30.0], [0.3, -1.0], [0.5, 2.0])
    assert predicted.log_prob(values).numpy() == pytest.approx(expected, abs=1e-5)


def test_samples_follow_the_predicted_law(trained):
    history = ramps(1, 4, 7, missing=0.0)
    times = history.last_time[:, None] + torch.tensor([0.2])
    samples = trained.forecast(history, times, 4000, generator=torch.Generator().manual_seed(0)).samples[:, 0, 0, 0]
    network = trained.networks[0]
    with torch.no_grad():
        state = network.encoder(history).features[:, -1]
        seen = torch.ones(1, 1, dtype=torch.bool)
        law = network(state, history.values[:, -1], seen, torch.tensor([0.2]), torch.tensor([[0.2]]))
    exact = scipy.stats.t(float(law.df), float(law.location), float(law.scale))
    assert scipy.stats.kstest(samples.numpy(), exact.cdf).pvalue > 1e-3


def test_with_gru_d_it_is_another_network_that_learns_too_and_comes_back(tmp_path):
    options = {"num_variables": 1, **QUICK, "encoder": "gru_d"}
    model = made(0, **options)
    assert isinstance(model.networks[0].encoder, GRUD)
    config = FitConfig(steps=150, batch_size=64, learning_rate=1e-2, validate_every=50, progress=False)
    model.fit(ramps(200, 6, 1), ramps(40, 6, 2), config)
    test = ramps(100, 6, 3)
    history, after = test.history(fraction=0.5), test.after(fraction=0.5)

    def forecast(one):
        return one.forecast(history, after.times, 100, generator=torch.Generator().manual_seed(0))

    error = (forecast(model).mean - after.values)[after.mask].square().mean()
    last = (last_seen(history).value[:, -1, None] - after.values)[after.mask]
    assert error < 0.9 * last.square().mean()
    assert torch.equal(forecast(DirectGRU.load(model.save(tmp_path / "m"))).samples, forecast(model).samples)
    with pytest.raises(ValueError, match="encoder: 'lstm' given"):
        made(0, num_variables=1, encoder="lstm")


def test_an_ensemble_draws_from_each_network_in_turn():
    model = made(2, num_variables=1, **{**QUICK, "num_networks": 3}).eval()
    for k, network in enumerate(model.networks):
        torch.nn.init.constant_(network.decoder[-1].bias, 0.0)
        with torch.no_grad():
            network.decoder[-1].bias[:] = torch.tensor([100.0 * k, 0.0, 0.0])
    history = ramps(1, 3, 0)
    samples = model.forecast(history, history.last_time[:, None] + 1, 8).samples[:, 0, 0, 0]
    assert (samples / 100).round().tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), extra=st.integers(0, 3))
def test_rows_padding_and_unobserved_visits_change_nothing(seed, extra):
    model = made(3, num_variables=1, **QUICK).eval()
    with torch.no_grad():
        model.networks[0].decoder[-1].weight.normal_(generator=torch.Generator().manual_seed(seed), std=0.3)
    plain = ramps(5, 6, seed, missing=0.5)
    batch = SeriesBatch(plain.times, plain.values, plain.mask, ids=tuple("abcde"))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    other = batch.compact().padded(6 + extra).rows(order)

    def seeded():
        return torch.Generator().manual_seed(seed)

    loss = model.loss(batch, generator=seeded()).log_likelihood
    assert torch.allclose(loss[order], model.loss(other, generator=seeded()).log_likelihood, atol=1e-4)
    times = batch.last_time[:, None] + torch.tensor([0.0, 0.5])
    one = model.forecast(batch, times, 5, generator=seeded()).samples
    two = model.forecast(other, times[order], 5, generator=seeded()).samples
    assert torch.allclose(one[:, order], two, atol=1e-4)
    alone = model.forecast(batch.rows([2]), times[2:3], 5, generator=seeded()).samples
    assert torch.allclose(one[:, 2:3], alone, atol=1e-4)


def test_a_row_with_a_single_visit_adds_nothing_to_the_loss():
    model = made(4, num_variables=1, **QUICK)
    batch = ramps(4, 5, 0, missing=0.0)
    mask = batch.mask.clone()
    mask[1, 1:] = False
    loss = model.loss(SeriesBatch(batch.times, batch.values, mask)).log_likelihood
    loss.sum().backward()
    assert loss[1] == 0
    assert bool((loss[[0, 2, 3]] != 0).all())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_saved_and_loaded_it_forecasts_the_same(trained, tmp_path):
    loaded = DirectGRU.load(trained.save(tmp_path / "model")).eval()
    history = ramps(3, 4, 9)
    times = history.last_time[:, None] + 0.3
    one, two = (m.forecast(history, times, 4, generator=torch.Generator().manual_seed(0)) for m in (trained, loaded))
    assert torch.equal(one.samples, two.samples)


def test_bad_arguments_are_refused(trained):
    with pytest.raises(ValueError, match="num_networks"):
        DirectGRU(1, num_networks=0)
    history = ramps(2, 4, 0)
    with pytest.raises(ValueError, match="times"):
        trained.forecast(history, history.last_time[:, None] - 0.1)
    with pytest.raises(ValueError, match="validation: no row with two"):
        forecast_crps(trained, history.history(count=1))
