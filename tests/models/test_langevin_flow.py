"""LangevinFlow: its ELBO meets the exact evidence, it reads what it may, and it finds rates that are known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from neurodyn.datasets.spikes import counts_of, spike_batch
from neurodyn.metrics.neural import bits_per_spike
from neurodyn.models.langevin_flow import BIN_TIME, LangevinFlow
from neurodyn.models.populations import fit_population
from neurodyn.models.released_flow import ReleasedFlow
from neurodyn.noise import RowNoise
from neurodyn.sde.kalman import smooth_at
from neurodyn.sde.linear_gaussian import FreeLinearGaussian
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, fit

DOUBLE = torch.float64
ON = {"num_neurons": 3, "bin_width": 0.02, "likelihood": "gaussian", "latent_size": 1, "drift": "quadratic"}


def real_values(rows: int = 48, bins: int = 8, neurons: int = 3) -> SeriesBatch:
    """Values of an oscillator seen with noise."""
    generator = torch.Generator().manual_seed(0)
    phase = 6 * torch.rand(rows, 1, 1, generator=generator) + 0.2 * torch.arange(bins)[:, None]
    weights = torch.tensor([1.0, -0.6, 0.4])[:neurons]
    values = torch.sin(phase) * weights + 0.3 * torch.randn(rows, bins, neurons, generator=generator)
    times = 0.02 * torch.arange(bins, dtype=DOUBLE)
    return SeriesBatch(times.expand(rows, -1).clone(), values, ids=tuple(f"t{k}" for k in range(rows)))


def joint_evidence(
    matrix: Tensor,
    covariance: Tensor,
    start: tuple[Tensor, Tensor],
    loading: Tensor,
    bias: Tensor,
    variance: Tensor,
    values: Tensor,
) -> Tensor:
    """Log-density (B,) of values (B, T, N) of z' = matrix z + N(0, covariance), from the joint Gaussian itself."""
    bins, (mean, cov) = values.shape[1], start
    size = len(mean)
    means, blocks = [], torch.zeros(bins, size, bins, size, dtype=DOUBLE)
    for i in range(bins):
        means.append(mean)
        block = cov
        for j in range(i, bins):
            blocks[j, :, i], blocks[i, :, j] = block, block.mT
            block = matrix @ block
        mean, cov = matrix @ mean, matrix @ cov @ matrix.mT + covariance
    big = torch.block_diag(*[loading] * bins)
    centre = torch.cat(means) @ big.mT + bias.repeat(bins)
    total = big @ blocks.reshape(bins * size, -1) @ big.mT + torch.diag(variance.repeat(bins))
    return torch.distributions.MultivariateNormal(centre, total).log_prob(values.flatten(1).double())


def observation(model: LangevinFlow | ReleasedFlow) -> tuple[Tensor, Tensor, Tensor]:
    last = model.likelihood.decoder.last  # type: ignore[union-attr]
    return (
        last.weight.detach().double(),
        last.bias.detach().double(),
        model.likelihood.noise_sd().detach().double() ** 2,
    )


def with_known_prior(mode: str, steps: int = 1) -> LangevinFlow:
    torch.manual_seed(1)
    options = {"family": "full", "hidden_size": 24, "num_samples": 4, "coordinated_dropout": 0.0}
    model = LangevinFlow.build(**ON, **options, mode=mode, bins_per_knot=1, steps_per_bin=steps)
    with torch.no_grad():
        model.likelihood.decoder.last.bias.zero_()
        model.likelihood.decoder.last.weight.copy_(torch.tensor([[1.0, 0.0], [-0.6, 0.1], [0.4, 0.0]]))
        model.likelihood.log_noise_sd.fill_(math.log(0.4))  # type: ignore[union-attr]
    for part in (model.prior, model.likelihood):
        part.requires_grad_(False)
    return model


def as_linear(model: LangevinFlow) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Matrix and noise of the continuous law of a model with a known prior, and its start."""
    law, initial = model.prior.sde, model.prior.initial
    stiffness = law.potential.stiffness().detach().double()  # type: ignore[union-attr]
    matrix = torch.zeros(2, 2, dtype=DOUBLE)
    matrix[0, 1], matrix[1, 0], matrix[1, 1] = 1.0, -stiffness[0, 0], -1.0
    noise = torch.tensor([[0.0], [math.sqrt(8.0)]], dtype=DOUBLE)
    start = (initial.mean.detach().double(), torch.diag((2 * initial.log_scale).exp()).detach().double())
    return matrix, noise, start


def in_latent_time(batch: SeriesBatch) -> SeriesBatch:
    clock = BIN_TIME * torch.arange(batch.num_times, dtype=DOUBLE)
    return batch.to(dtype=DOUBLE)._with(times=clock.expand(batch.num_rows, -1))


def exact_evidence(model: LangevinFlow, batch: SeriesBatch) -> Tensor:
    matrix, noise, start = as_linear(model)
    loading, bias, variance = observation(model)
    if model.settings.mode == "simulated":  # the evidence of the law in its steps: v' first, then q by v'
        step = BIN_TIME / model.settings.steps_per_bin
        drift = torch.tensor([[1.0, step], [0.0, 1.0]], dtype=DOUBLE)
        kick = torch.eye(2, dtype=DOUBLE)
        kick[1] += step * matrix[1]
        once = step * drift @ noise @ noise.mT @ drift.mT
        power, covariance = torch.eye(2, dtype=DOUBLE), torch.zeros(2, 2, dtype=DOUBLE)
        for _ in range(model.settings.steps_per_bin):
            power, covariance = drift @ kick @ power, drift @ kick @ covariance @ (drift @ kick).mT + once
        return joint_evidence(power, covariance, start, loading, bias, variance, batch.values)
    return FreeLinearGaussian(matrix, noise, *start, loading, variance).evidence(in_latent_time(batch))


@pytest.mark.parametrize(("mode", "steps"), [("simulation_free", 1), ("simulated", 1), ("simulated", 4)])
def test_elbo_meets_the_evidence_of_a_quadratic_potential(mode: str, steps: int) -> None:
    batch, model = real_values(rows=24, bins=5), with_known_prior(mode, steps)
    exact = exact_evidence(model, batch)

    def gap() -> float:
        with torch.no_grad():
            elbo = torch.stack([model.loss(batch).elbo.double() for _ in range(40)]).mean(0)
        return float((exact - elbo).detach().mean())

    before = gap()
    fit(model, batch, None, FitConfig(steps=500, batch_size=0, learning_rate=1e-2, progress=False))
    model.eval()
    after = gap()
    assert before > 2.0
    assert -0.05 < after < 0.25, (before, after)


def test_refinement_finds_the_exact_smoother_where_the_encoder_does_not() -> None:
    model = with_known_prior("simulation_free")
    fit(model, real_values(), None, FitConfig(steps=150, batch_size=0, learning_rate=1e-2, progress=False))
    model.eval()
    seen = real_values(rows=6)
    new = seen._with(values=-2.5 * seen.values)
    (matrix, noise, start), (loading, _, variance) = as_linear(model), observation(model)
    linear = FreeLinearGaussian(matrix, noise, *start, loading, variance)
    rows = in_latent_time(new)
    exact = smooth_at(linear.law, linear.filter(rows), linear.information(rows), rows.times, rows.times).mean

    def error() -> float:
        return float((model.latents(new, num_samples=64).mean(0).double() - exact).detach().square().mean().sqrt())

    before = error()
    model.settings.refinement = 400
    after = error()
    assert before > 0.5
    assert after < 0.25 * before, (before, after)
    alone = model.latents(new.rows([3]))
    torch.testing.assert_close(alone, model.latents(new)[:, 3:4], rtol=1e-3, atol=1e-3)


def test_refinement_reads_what_the_encoder_may_read() -> None:
    batch, _ = oscillating(rows=6, bins=20)
    model = fitted("simulation_free", batch, 3, num_observed=14, refinement=3)
    hidden = batch._with(values=batch.values.clone())
    hidden.values[..., list(OUT)] = 5.0
    hidden.values[:, 14:] = 5.0
    torch.testing.assert_close(model.rates(hidden), model.rates(batch))
    plain = fitted("simulation_free", batch, 3, num_observed=14)
    assert not torch.allclose(plain.rates(batch), model.rates(batch), rtol=1e-3)


def test_released_recurrences_without_quirks_are_bounded_by_the_evidence() -> None:
    """Its posterior is the prior but for the start, so the bound is exact where nothing but the start is seen."""
    torch.manual_seed(2)
    off = dict.fromkeys(
        (
            "lagged_input",
            "unit_friction",
            "fixed_prior",
            "variance_as_log",
            "mean_likelihood",
            "zero_kernel",
            "unbounded_potential",
            "decoder_reads_state",
            "mean_of_log_rates",
            "dropout_at_prediction",
        ),
        False,
    )
    model = ReleasedFlow.build(
        num_neurons=3,
        bin_width=0.02,
        likelihood="gaussian",
        readout="linear",
        hidden_size=4,
        dropout=0.0,
        coordinated_dropout=0.0,
        quirks=off,
    )
    with torch.no_grad():  # every value reads a coordinate of its own: the posterior of one bin is then diagonal
        model.likelihood.decoder.last.weight.copy_(torch.eye(3, 8))
    model.likelihood.requires_grad_(False)
    size, decay = 4, math.exp(-0.55)
    hessian = model.potential.gradient(torch.eye(size)).detach().double()
    kick, push = torch.eye(2 * size, dtype=DOUBLE), torch.eye(2 * size, dtype=DOUBLE)
    kick[:size, size:], kick[size:, :size] = 0.01 * torch.eye(size), -0.01 * hessian
    push[size:, size:] = decay * torch.eye(size)
    covariance = torch.zeros(2 * size, 2 * size, dtype=DOUBLE)
    covariance[size:, size:] = (1 - decay**2) * torch.eye(size)
    start = (torch.zeros(2 * size, dtype=DOUBLE), torch.eye(2 * size, dtype=DOUBLE))
    gaps = {}
    for bins in (1, 6):
        batch = real_values(rows=24, bins=bins)
        model.potential.requires_grad_(False)
        fit(model, batch, None, FitConfig(steps=300, batch_size=0, learning_rate=3e-2, progress=False))
        exact = joint_evidence(push @ kick, covariance, start, *observation(model), batch.values)
        with torch.no_grad():
            elbo = torch.stack([model.loss(batch).elbo.double() for _ in range(200)]).mean(0)
        gaps[bins] = float((exact - elbo).mean())
    assert -0.05 < gaps[1] < 0.2, gaps
    assert gaps[6] > gaps[1]


def test_the_price_of_released_velocities_is_a_kl_but_for_its_quirk() -> None:
    batch, normal = real_values(rows=5, bins=3), torch.distributions.Normal
    for right, unit in ((True, True), (True, False), (False, True)):
        torch.manual_seed(0)
        quirks = {"variance_as_log": not right, "unit_friction": unit, "zero_kernel": False, "mean_of_log_rates": False}
        model = ReleasedFlow.build(
            num_neurons=3, bin_width=0.02, likelihood="gaussian", hidden_size=4, dropout=0.0, quirks=quirks
        )
        latent, _, found = model._run(batch.values, 3, RowNoise(0, batch.ids or ()), 1)
        z, v = latent[0, ..., :4], latent[0, ..., 4:8]
        decay, variance = (0.45, 1.1) if unit else (math.exp(-0.55), -math.expm1(-1.1))
        still = decay * (v[:, :-1] - 0.01 * model.potential.gradient(z[:, :-1]))
        mean, sd = (still, math.sqrt(variance)) if right else (v[:, 1:], math.exp(0.55))
        wanted = torch.distributions.kl_divergence(normal(mean, sd), normal(0.0, math.sqrt(0.1)))
        torch.testing.assert_close(found, wanted.sum((1, 2)))


def oscillating(rows: int = 60, bins: int = 40, neurons: int = 20) -> tuple[SeriesBatch, np.ndarray]:
    """Counts whose rates follow one phase per trial, and the expected counts."""
    random = np.random.default_rng(0)
    phase = random.uniform(0, 6, (rows, 1, 1)) + 0.25 * np.arange(bins)[:, None]
    own = random.uniform(0, 6, neurons)
    rates = 0.4 * np.exp(1.2 * np.sin(phase + own))
    return spike_batch(random.poisson(rates), 0.02), rates


OUT = (1, 5, 9, 13)


def fitted(mode: str, batch: SeriesBatch, steps: int, **config: object) -> LangevinFlow:
    torch.manual_seed(0)
    config = {"bin_width": 0.02, "held_out": OUT, "mode": mode, "latent_size": 2, "hidden_size": 24} | config
    model = LangevinFlow.build(batch, **config)
    fit(model, batch, None, FitConfig(steps=steps, batch_size=30, learning_rate=1e-2, kl_weight=0.5, progress=False))
    return model.eval()


@pytest.mark.parametrize("mode", ["simulation_free", "simulated"])
def test_held_out_neurons_and_later_bins_are_predicted_and_never_read(mode: str) -> None:
    batch, rates = oscillating()
    train, test = batch.rows(slice(0, 40)), batch.rows(slice(40, 60))
    model = fitted(mode, train, 150, num_observed=32)
    counts, truth = counts_of(test), rates[40:]
    history = test.history(count=32)
    found = model.rates(history, 40)
    hidden = history._with(values=history.values.clone())
    hidden.values[..., list(OUT)] = 7.0
    torch.testing.assert_close(model.rates(hidden, 40), found)
    outside = list(OUT)
    seen = found.double().numpy()
    oracle = bits_per_spike(truth[:, :32, outside], counts[:, :32, outside])
    assert bits_per_spike(seen[:, :32, outside], counts[:, :32, outside]) > 0.6 * oracle
    assert bits_per_spike(seen[:, 32:], counts[:, 32:]) > 0.3 * bits_per_spike(truth[:, 32:], counts[:, 32:])
    # a whole row tells no more than its first bins: later ones are not read
    torch.testing.assert_close(model.rates(test, 40), found)


def test_loss_does_not_depend_on_company_order_or_padding() -> None:
    batch, _ = oscillating(rows=6, bins=20)
    torch.manual_seed(0)
    model = LangevinFlow.build(batch, bin_width=0.02, held_out=OUT, latent_size=2, hidden_size=16)
    short = batch._with(mask=batch.mask.clone())
    short.mask[2, 13:] = False
    short = SeriesBatch(short.times, short.values, short.mask, ids=short.ids)
    for mode in (True, False):
        model.train(mode)
        whole = model.loss(short, generator=torch.Generator().manual_seed(3))
        order = [4, 2, 0]
        part = model.loss(short.rows(order), generator=torch.Generator().manual_seed(3))
        for name in ("log_likelihood", "initial_kl"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name)[order], rtol=1e-4, atol=1e-4)
        if not mode:  # random times of the path KL depend on how many bins the batch has
            torch.testing.assert_close(part.path_kl, whole.path_kl[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bins", [13, 14])
@pytest.mark.parametrize("encoder", ["gru", "attention"])
@pytest.mark.parametrize("mode", ["simulation_free", "simulated"])
def test_a_short_trial_is_read_alone_as_beside_longer_ones(mode: str, encoder: str, bins: int) -> None:
    batch, _ = oscillating(rows=5, bins=20)
    torch.manual_seed(0)
    options = {"bin_width": 0.02, "held_out": OUT, "latent_size": 2, "hidden_size": 16, "bins_per_knot": 3}
    model = LangevinFlow.build(batch, mode=mode, encoder=encoder, **options)
    with torch.no_grad():  # a fresh posterior hardly looks at its context
        for parameter in model.posterior.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.eval()
    mask = batch.mask.clone()
    mask[2, bins:] = False
    ragged = SeriesBatch(batch.times, batch.values, mask, ids=batch.ids)
    alone = ragged.rows([2]).trim()
    assert alone.num_times == bins

    def parts(rows: SeriesBatch) -> tuple[Tensor, ...]:
        many = [model.loss(rows, generator=torch.Generator().manual_seed(k)) for k in range(3)]
        names = ("log_likelihood", "initial_kl", "path_kl")
        return tuple(torch.stack([getattr(one, name) for one in many]) for name in names)

    for found, wanted in zip(parts(alone), parts(ragged), strict=True):
        torch.testing.assert_close(found[:, 0], wanted[:, 2], rtol=1e-4, atol=1e-4)
    times = batch.times[:, -1:] + torch.tensor([0.02, 0.04])
    options = {"num_samples": 3}
    futures = [
        model.forecast(rows, times[: len(rows)], generator=torch.Generator().manual_seed(0), **options).samples
        for rows in (alone, ragged)
    ]
    torch.testing.assert_close(futures[0][:, 0], futures[1][:, 2])
    reading = model.read(ragged)
    features = model.encoder(reading.counts, reading.seen, reading.end)
    reading = model.read(alone)
    torch.testing.assert_close(
        features[2, : -(-(bins - 1) // 3) + 1], model.encoder(reading.counts, reading.seen, reading.end)[0]
    )
    assert not torch.allclose(features[2], features[1])
    assert torch.equal(features[2, -1], features[2, -(-(bins - 1) // 3)])


def test_trials_of_one_bin_have_latents_with_and_without_padding() -> None:
    batch, _ = oscillating(rows=3, bins=6)
    for mode in ("simulated", "simulation_free"):
        model = fitted(mode, batch, 1)
        one = batch.history(count=1)
        losses = [model.loss(rows, generator=torch.Generator().manual_seed(0)) for rows in (one, one.padded(4))]
        torch.testing.assert_close(losses[0].elbo, losses[1].elbo)
        times = one.last_time[:, None] + 0.02
        assert model.forecast(one.padded(4), times, 3).samples.shape == (3, 3, 1, 20)
    assert fitted("simulated", batch, 1).inferred_inputs(one, 2).control.shape == (2, 3, 0, 2)


def test_forecasts_count_from_the_last_observed_bin() -> None:
    """Bins that are nearly as wide as they should be do not add up."""
    model, history = seen_through("simulated", "quadratic"), real_values(rows=2, bins=60)

    def now(rows: SeriesBatch) -> Tensor:
        noise = torch.Generator().manual_seed(0)
        return model.forecast(rows, rows.last_time[:, None], num_samples=50, generator=noise).samples[..., :2]

    for width in (0.0201, 0.0199):
        torch.testing.assert_close(now(history._with(times=history.times * (width / 0.02))), now(history))


def seen_through(mode: str, drift: str) -> LangevinFlow:
    """A model whose first two values are its position and its velocity, nearly without noise."""
    torch.manual_seed(0)
    model = LangevinFlow.build(**ON | {"drift": drift}, mode=mode)
    with torch.no_grad():
        model.likelihood.decoder.last.bias.zero_()
        model.likelihood.decoder.last.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        model.likelihood.log_noise_sd.fill_(-8.0)  # type: ignore[union-attr]
    return model


@pytest.mark.parametrize("drift", ["quadratic", "mlp"])
@pytest.mark.parametrize("mode", ["simulated", "simulation_free"])
def test_a_forecast_for_a_time_does_not_depend_on_the_others(mode: str, drift: str) -> None:
    model = seen_through(mode, drift)
    history = real_values(rows=4, bins=20).history(count=torch.tensor([10, 12, 12, 11]))

    def samples(*ahead: float) -> Tensor:
        times = history.last_time[:, None] + 0.02 * torch.tensor(ahead, dtype=DOUBLE)
        return model.forecast(history, times, 40, generator=torch.Generator().manual_seed(1)).samples[..., :2]

    many = samples(0.25, 1.0, 1.5, 2.0, 2.5, 4.0, 7.0)
    torch.testing.assert_close(samples(4.0)[:, :, 0], many[:, :, 5], rtol=0, atol=0.01)
    torch.testing.assert_close(samples(1.5, 9.0)[:, :, 0], 0.5 * (many[:, :, 1] + many[:, :, 3]), rtol=0, atol=0.01)


@pytest.mark.parametrize("drift", ["quadratic", "mlp"])
def test_forecasts_keep_the_stationary_law_of_motion(drift: str) -> None:
    """Variances of an oscillator: T / k of the position, T of the velocity."""
    model, history = seen_through("simulation_free", drift), real_values(rows=1, bins=4)
    times = history.last_time[:, None] + 0.02 * torch.arange(150, 200)
    seen = model.forecast(history, times, 4000, generator=torch.Generator().manual_seed(0)).samples
    # symplectic steps of an eighth of a bin keep 4.03 of the velocity's 4
    assert float(seen[..., 0].var()) == pytest.approx(1.0, rel=0.05)
    assert float(seen[..., 1].var()) == pytest.approx(4.0, rel=0.05)


def test_a_transformer_over_whole_trials_says_what_it_does_not_do() -> None:
    batch, _ = oscillating(rows=4, bins=12)
    model = fitted("simulation_free", batch, 2, readout="transformer")
    with pytest.raises(ValueError, match="readout: 'transformer' given, which reads whole trials"):
        model.forecast(batch, batch.times[:, -1:] + 0.02)
    short = batch._with(mask=batch.mask.clone())
    short.mask[1, 9:] = False
    message = "row trial-1 of 9 bins given beside rows of up to 12"
    released = ReleasedFlow.build(batch, bin_width=0.02, hidden_size=4).eval()
    for ask in (model.loss, released.loss, released.rates):
        with pytest.raises(ValueError, match=message):
            ask(short)
    for build, options in ((ReleasedFlow.build, {}), (LangevinFlow.build, {"readout": "transformer"})):
        with pytest.raises(ValueError, match=message):
            build(short, bin_width=0.02, **options)
    same = [released.loss(rows, generator=torch.Generator().manual_seed(0)).elbo for rows in (batch, batch.padded(15))]
    torch.testing.assert_close(same[0], same[1])


@pytest.mark.parametrize("name", ["simulation_free", "gru", "released", "smoothing"])
def test_bins_of_another_width_are_refused(name: str) -> None:
    batch, _ = oscillating(rows=8, bins=12)
    options = {"steps": 1, "device": "cpu", "progress": False}
    with pytest.raises(ValueError, match=r"bins 0 and 1 of row trial-0 are 0\.02 s apart, 0\.01 s wanted"):
        fit_population(name, batch, bin_width=0.01, **options)
    model = fit_population(name, batch, bin_width=0.02, **options).model
    wide = batch._with(times=2 * batch.times)
    with pytest.raises(ValueError, match=r"0\.04 s apart, 0\.02 s wanted"):
        model.rates(wide)
    if isinstance(model, LangevinFlow):
        with pytest.raises(ValueError, match=r"0\.04 s apart"):
            model.forecast(wide, wide.times[:, -1:] + 0.04)
    if name == "released":  # has no padding
        return
    shorter = batch.rows([0, 1])._with(mask=batch.mask[:2].clone())
    shorter.mask[1, 7:] = False  # padding may repeat a time
    shorter.times[1, 7:] = shorter.times[1, 6]
    assert model.rates(shorter).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"likelihood": "gaussian"}, "quirks: mean_of_log_rates given"),
        ({"held_out": (100,)}, "held_out"),
        ({"held_out": (1, 1)}, "held_out"),
        ({"coordinated_dropout": -0.7}, "coordinated_dropout: -0.7 given"),
        ({"coordinated_dropout": 1.0}, "coordinated_dropout: 1.0 given"),
        ({"num_observed": 0}, "num_observed: 0 given"),
        ({"hidden_size": 6}, "hidden_size: 6 given"),
        ({"dropout": 1.5}, "dropout: 1.5 given"),
        ({"bin_width": 0.0}, "bin_width: 0.0 given"),
        ({"likelihood": "gauss"}, "likelihood: 'gauss' given"),
        ({"quirks": {"zero_kernel": "no"}}, "quirks: zero_kernel='no' given"),
    ],
)
def test_released_settings_that_make_no_sense_name_themselves(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReleasedFlow.build(**{"num_neurons": 20, "bin_width": 0.02} | settings)
    batch, _ = oscillating(rows=2, bins=6, neurons=5)
    model = ReleasedFlow.build(num_neurons=20, bin_width=0.02)
    for ask in (model.loss, model.rates):
        with pytest.raises(ValueError, match="batch: 5 variables given, 20 wanted"):
            ask(batch)


@pytest.mark.parametrize(
    "config",
    [
        {"drift": "oscillators", "latent_size": 4},
        {"drift": "potential", "readout": "mlp"},
        {"drift": "convex", "readout": "mlp"},
        {"drift": "double_well", "likelihood": "negative_binomial"},
        {"encoder": "attention", "family": "full"},
        {"bins_per_knot": 3, "mode": "simulated"},
    ],
)
def test_every_part_fits_saves_and_forecasts(config: dict[str, object], tmp_path: Path) -> None:
    config = dict(config)
    batch, _ = oscillating(rows=8, bins=20)
    model = fitted(str(config.pop("mode", "simulation_free")), batch, 3, **config)
    model.save(tmp_path / "model")
    again = LangevinFlow.load(tmp_path / "model").eval()
    torch.testing.assert_close(again.rates(batch), model.rates(batch))
    history = batch.history(count=12)
    forecast = again.forecast(history, batch.times[:, 12:], 8, generator=torch.Generator().manual_seed(0))
    assert forecast.samples.shape == (8, 8, 8, 20) and (forecast.samples >= 0).all()
    inputs = again.inferred_inputs(batch, 4)
    assert inputs.control.shape[:2] == (4, 8) and inputs.control.isfinite().all()


def test_a_simulated_model_begins_from_a_simulation_free_one() -> None:
    batch, _ = oscillating(rows=20, bins=20)
    free = fitted("simulation_free", batch, 20)
    torch.manual_seed(5)
    options = {"bin_width": 0.02, "held_out": OUT, "latent_size": 2, "hidden_size": 24}
    model = LangevinFlow.build(batch, mode="simulated", **options)
    posterior = {name: tensor.clone() for name, tensor in model.posterior.state_dict().items()}
    model.begin_from(free)
    q = torch.randn(5, 2)
    torch.testing.assert_close(model.prior.sde.acceleration(0.0, q, q), free.prior.sde.acceleration(0.0, q, q))
    z = torch.randn(5, 20, 4)
    torch.testing.assert_close(model.likelihood.mean(z), free.likelihood.mean(z))
    assert all(torch.equal(tensor, posterior[name]) for name, tensor in model.posterior.state_dict().items())
    with pytest.raises(ValueError, match="other: its prior does not fit"):
        LangevinFlow.build(batch, mode="simulated", **options | {"latent_size": 3}).begin_from(free)


def test_bad_settings_name_themselves() -> None:
    batch, _ = oscillating(rows=4, bins=10)
    with pytest.raises(ValueError, match="held_out"):
        LangevinFlow.build(batch, bin_width=0.02, held_out=(3, 20))
    with pytest.raises(ValueError, match="mode: 'sim'"):
        LangevinFlow.build(batch, bin_width=0.02, mode="sim")
    with pytest.raises(ValueError, match="refinement: -1 given"):
        LangevinFlow.build(batch, bin_width=0.02, refinement=-1)
    with pytest.raises(ValueError, match="num_samples: 0 given, a whole number from 1 wanted"):
        LangevinFlow.build(batch, bin_width=0.02, num_samples=0)
    for name, value in {"steps_per_bin": 1.5, "bins_per_knot": 0, "scale": -1.0, "num_observed": 2.5}.items():
        with pytest.raises(ValueError, match=f"{name}: {value} given"):
            LangevinFlow.build(batch, bin_width=0.02, **{name: value})
    with pytest.raises(ValueError, match="hidden_size: 15 given, an even number"):
        LangevinFlow.build(batch, bin_width=0.02, readout="transformer", hidden_size=15)
    with pytest.raises(ValueError, match="latent_sizes"):
        LangevinFlow.build(batch, bin_width=0.02, latent_sizes=2)
    with pytest.raises(ValueError, match="bins: 5 given, 10 or more"):
        LangevinFlow.build(batch, bin_width=0.02).rates(batch, 5)
    with pytest.raises(ValueError, match="quirks"):
        ReleasedFlow.build(batch, bin_width=0.02, quirks={"lagged": False})
    with pytest.raises(ValueError, match="whole numbers"):
        LangevinFlow.build(batch._with(values=batch.values + 0.5), bin_width=0.02)
