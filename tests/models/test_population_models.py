"""Baselines of populations: they read what they may, find known rates, and fit by name; encoders and read-outs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neurodyn.datasets.spikes import counts_of, spike_batch
from neurodyn.metrics.neural import bits_per_spike, rate_r2
from neurodyn.models.baselines.population_linear import FactorModel, SmoothingGLM
from neurodyn.models.langevin_flow import LangevinFlow
from neurodyn.models.population import random_windows
from neurodyn.models.populations import POPULATION_MODELS, fit_population
from neurodyn.nets.binned import BinnedEncoder
from neurodyn.nets.readout import Readout
from neurodyn.series import SeriesBatch

OUT = (1, 5, 9)
READ, BINS = 24, 30


@pytest.fixture(scope="module")
def population() -> tuple[SeriesBatch, SeriesBatch, np.ndarray]:
    """Training and test trials with rates that follow one phase per trial, and the true counts per bin of the test."""
    random = np.random.default_rng(0)
    phase = random.uniform(0, 6, (80, 1, 1)) + 0.25 * np.arange(BINS)[:, None]
    rates = 0.5 * np.exp(1.2 * np.sin(phase + random.uniform(0, 6, 15)))
    batch = spike_batch(random.poisson(rates), 0.02)
    return batch.rows(slice(0, 60)), batch.rows(slice(60, 80)), rates[60:]


# Steps are few: a network only has to be well on its way.
@pytest.mark.parametrize(
    ("name", "share", "later"),
    [
        ("smoothing", 0.5, 0.1),
        ("factors", 0.5, 0.1),
        ("gru", 0.3, 0.2),
        ("transformer", 0.3, 0.1),
        ("released", 0.1, -1),
    ],
)
def test_rates_of_what_was_not_read(name: str, share: float, later: float, population) -> None:
    train, test, truth = population
    fitted = fit_population(
        name, train, bin_width=0.02, held_out=OUT, num_observed=READ, steps=120, device="cpu", progress=False
    )
    history = test.history(count=READ)
    rates = fitted.rates(history, BINS)
    assert rates.shape == truth.shape and (rates > 0).all()
    hidden = history._with(values=history.values.clone())
    hidden.values[..., list(OUT)] = 9.0
    torch.testing.assert_close(fitted.rates(hidden, BINS), rates)
    torch.testing.assert_close(fitted.rates(test, BINS), rates)
    counts, outside, found = counts_of(test), list(OUT), rates.numpy()
    oracle = bits_per_spike(truth[:, :READ, outside], counts[:, :READ, outside])
    assert bits_per_spike(found[:, :READ, outside], counts[:, :READ, outside]) > share * oracle
    assert bits_per_spike(found[:, READ:], counts[:, READ:]) > later * bits_per_spike(truth[:, READ:], counts[:, READ:])


@pytest.mark.parametrize("name", ["smoothing", "factors", "gru", "released", "simulation_free"])
def test_what_was_not_observed_does_not_count_as_silence(name: str, population) -> None:
    train, test, truth = population
    gappy = train._with(mask=train.mask.clone(), values=train.values.clone())
    gappy.mask[:, ::2, OUT[0]] = False  # a neuron seen in every other bin
    gappy.values[~gappy.mask] = 0.0
    options = {"bin_width": 0.02, "held_out": OUT, "steps": 1, "device": "cpu", "progress": False}
    means = [float(fit_population(name, part, **options).rates(test)[..., OUT[0]].mean()) for part in (train, gappy)]
    assert means[1] == pytest.approx(means[0], rel=0.15)  # half of it, if it did
    assert means[0] == pytest.approx(truth[..., OUT[0]].mean(), rel=0.4)


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_networks_read_a_short_trial_alone_as_beside_longer_ones(name: str, population) -> None:
    train = population[0].rows(slice(0, 8))
    model = fit_population(name, train, bin_width=0.02, steps=3, device="cpu", progress=False).model
    ragged = train._with(mask=train.mask.clone())
    ragged.mask[2, 13:] = False
    rows = (ragged, ragged.rows([2]).trim())
    many, alone = (model.loss(part, generator=torch.Generator().manual_seed(0)) for part in rows)  # type: ignore[attr-defined]
    for part in ("log_likelihood", "initial_kl"):
        torch.testing.assert_close(getattr(alone, part)[0], getattr(many, part)[2], rtol=1e-4, atol=1e-4)


def _with_a_neuron(batch: SeriesBatch, value: float) -> SeriesBatch:
    more = torch.full_like(batch.values[..., :1], value)
    names = (*batch.variables, "more")
    return SeriesBatch(batch.times, torch.cat((batch.values, more), -1), ids=batch.ids, variables=names)


def test_linear_models_read_a_short_trial_alone_as_beside_longer_ones(population) -> None:
    train, test, _ = population
    ragged = test._with(mask=test.mask.clone())
    ragged.mask[2, 13:] = False
    for model in (SmoothingGLM(0.02, held_out=OUT), FactorModel(0.02, held_out=OUT)):
        model.fit(train)
        torch.testing.assert_close(model.rates(ragged.rows([2]).trim())[0], model.rates(ragged)[2, :13])


@pytest.mark.parametrize("make", [SmoothingGLM, FactorModel])
def test_linear_models_never_read_a_neuron_to_predict_it(make, population) -> None:
    train, test, _ = population
    model = make(0.02, held_out=OUT).fit(train)
    other = test._with(values=test.values.clone())
    other.values[..., 2] = 9 - other.values[..., 2].clamp(max=9)
    before, after = model.rates(test), model.rates(other)
    assert torch.equal(before[..., 2], after[..., 2]) and not torch.allclose(before[..., 3], after[..., 3], rtol=0.01)


@pytest.mark.parametrize("make", [SmoothingGLM, FactorModel])
@pytest.mark.parametrize(("speed", "held_out"), [("slow", ()), ("slow", (1, 4)), ("fast", (1, 4))])
def test_linear_models_smooth_as_much_as_the_population_asks_for(make, speed: str, held_out: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    change = {"slow": 0.02, "fast": 0.9}[speed]
    phase = random.uniform(0, 6, (60, 1, 1)) + change * np.arange(40)[:, None]
    rates = 1.5 * np.exp(0.9 * np.sin(phase + random.uniform(0, 6, 12)))
    train = spike_batch(random.poisson(rates), 0.02)
    model = make(0.02, held_out=held_out).fit(train)
    assert (model.kernel >= 4.0) == (speed == "slow")


def test_a_neuron_that_is_silent_in_training_does_not_disturb_the_others(population) -> None:
    train, test, _ = population
    model = SmoothingGLM(0.02, smooth=(2.0,), held_out=OUT).fit(_with_a_neuron(train, 0.0))
    quiet, loud = (model.rates(_with_a_neuron(test, value)) for value in (0.0, 1.0))
    torch.testing.assert_close(quiet[..., :15], loud[..., :15])


def test_later_bins_that_are_seen_in_part_or_never() -> None:
    random = np.random.default_rng(0)
    train = spike_batch(random.poisson(2.0, (300, 20, 6)), 0.02)
    for never in (False, True):
        seen = train._with(mask=train.mask.clone())
        seen.mask[:, 15:, 2] = False if never else seen.mask[:, 15:, 2]
        seen.mask[::2, 16:] = False
        for make in (SmoothingGLM, FactorModel):
            rates = make(0.02, held_out=(1,), num_observed=15).fit(seen).rates(train, 24)[:, 15:]
            assert rates.shape == (300, 9, 6)
            np.testing.assert_allclose(rates.mean((0, 1)), np.full(6, 2.0), rtol=0.1)


@pytest.mark.parametrize("make", [SmoothingGLM, FactorModel])
@pytest.mark.parametrize("held_out", [(), (1, 4)])
def test_linear_models_find_rates_in_the_noise(make, held_out: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    phase = random.uniform(0, 6, (100, 1, 1)) + 0.05 * np.arange(40)[:, None]
    rates = np.exp(0.5 * np.sin(phase + random.uniform(0, 6, 12)))
    batch = spike_batch(random.poisson(rates), 0.02)
    found = make(0.02, held_out=held_out).fit(batch.rows(slice(0, 70))).rates(batch.rows(slice(70, 100))).numpy()
    missed = 1 - rate_r2(found, rates[70:])
    assert missed.max() < 0.35, missed


@pytest.mark.parametrize("make", [SmoothingGLM, FactorModel])
@pytest.mark.parametrize("neurons", [1, 2])
def test_a_neuron_without_others_to_read_has_its_mean(make, neurons: int) -> None:
    train = spike_batch(np.random.default_rng(0).poisson(2.0, (20, 10, neurons)), 0.02)
    rates = make(0.02, held_out=(1,) if neurons == 2 else ()).fit(train).rates(train)
    np.testing.assert_allclose(rates[..., 0], float(train.values[..., 0].mean()))


def test_random_windows_are_stretches_of_their_trials(population) -> None:
    train = population[0]
    generator, lengths, begins = torch.Generator().manual_seed(0), set(), set()
    for _ in range(60):
        found = random_windows(train, generator, shortest=0.4)
        begin = ((found.times[:, 0] - train.times[:, 0]) / 0.02).round().long()
        lengths.add(found.num_times)
        begins |= set(begin.tolist())
        for row in (0, 7, 59):
            same = slice(int(begin[row]), int(begin[row]) + found.num_times)
            assert torch.equal(found.values[row], train.values[row, same])
            assert torch.equal(found.times[row], train.times[row, same])
    assert min(lengths) >= 12 and max(lengths) <= BINS and len(lengths) > 10
    assert min(begins) == 0 and max(begins) > 12


def test_networks_are_of_about_one_size(population) -> None:
    train = population[0]
    sizes = {
        name: sum(
            p.numel() for p in entry.make.build(train, bin_width=0.02, held_out=OUT, **entry.settings).parameters()
        )
        for name, entry in POPULATION_MODELS.items()
        if entry.schedule
    }
    assert max(sizes.values()) < 2 * min(sizes.values()), sizes


def test_a_fit_is_the_same_twice_and_goes_on_from_its_folder(population, tmp_path: Path, monkeypatch) -> None:
    train, test, _ = population
    options = {"bin_width": 0.02, "held_out": OUT, "steps": 6, "device": "cpu", "progress": False, "seed": 3}
    once = fit_population("simulation_free", train, folder=tmp_path, **options)
    again = fit_population("simulation_free", train, **options)
    torch.testing.assert_close(once.rates(test), again.rates(test), rtol=0, atol=0)
    monkeypatch.delattr(LangevinFlow, "loss")  # nothing can be trained any more
    read = fit_population("simulation_free", train, folder=tmp_path, **options)
    torch.testing.assert_close(read.rates(test), once.rates(test), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["gru", "attention"])
@pytest.mark.parametrize(("steps", "stride", "knots"), [(30, 2, 16), (31, 2, 16), (7, 3, 3), (1, 2, 1), (5, 1, 5)])
def test_encoders_have_a_knot_every_few_bins(kind: str, steps: int, stride: int, knots: int) -> None:
    encoder = BinnedEncoder(4, 6, 8, kind=kind, stride=stride)
    counts = torch.randn(2, steps, 4, requires_grad=True)
    features = encoder(counts, torch.ones(2, steps, dtype=torch.bool), torch.full((2,), steps - 1))
    assert features.shape == (2, knots, 6)
    (slope,) = torch.autograd.grad(features.square().sum(), counts)
    assert (slope.abs().sum((0, 2)) > 0).all()  # no bin falls between


def test_a_transformer_reads_out_all_bins_and_a_linear_layer_its_own() -> None:
    for kind, alone in (("linear", True), ("mlp", True), ("transformer", False)):
        torch.manual_seed(0)
        readout, z = Readout(kind, 4, 3, 8).eval(), torch.randn(2, 5, 7, 4)
        before = readout(z)
        changed = z.clone()
        changed[:, :, 0] += 1.0
        same = torch.isclose(readout(changed), before, atol=1e-6).all(-1)[:, :, 1:]
        assert before.shape == (2, 5, 7, 3) and bool(same.all()) == alone


def test_bad_input_names_itself(population) -> None:
    train = population[0]
    with pytest.raises(ValueError, match="name: 'lfads' given"):
        fit_population("lfads", train, bin_width=0.02)
    for smooth in ((1, 0), 4.0, ()):
        with pytest.raises(ValueError, match=r"smooth: .* given, a sequence of positive numbers wanted"):
            SmoothingGLM(0.02, smooth=smooth)  # type: ignore[arg-type]
    fitted = SmoothingGLM(0.02, smooth=(2.0,)).fit(train)
    with pytest.raises(ValueError, match="bins: 5 given, 30 or more"):
        fitted.rates(train, 5)
    with pytest.raises(ValueError, match="batch: 15 variables given, 16 wanted"):
        SmoothingGLM(0.02, smooth=(2.0,)).fit(_with_a_neuron(train, 0.0)).rates(train)
    never = train._with(mask=train.mask.clone())
    never.mask[..., 3] = False
    with pytest.raises(ValueError, match="neuron n4 is never observed"):
        SmoothingGLM(0.02).fit(never)
    with pytest.raises(ValueError, match="held_out"):
        SmoothingGLM(0.02, held_out=(15,)).fit(train)
    with pytest.raises(ValueError, match="not fitted"):
        SmoothingGLM(0.02).rates(train)
    with pytest.raises(ValueError, match="kind: 'rnn' given"):
        BinnedEncoder(3, 4, kind="rnn")
    with pytest.raises(ValueError, match="readout: 'deep' given"):
        Readout("deep", 2, 3)  # type: ignore[arg-type]
