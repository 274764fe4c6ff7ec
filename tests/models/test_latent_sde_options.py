"""`LatentSDE.build` and `on`: options reach the likelihood, and one that does not exist is named in one line."""

from typing import Any

import pytest
import torch

from neurodyn.likelihoods import CategoricalLikelihood, GaussianLikelihood, PoissonLikelihood
from neurodyn.models.latent_sde import LatentSDE, LatentSDEConfig
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.posteriors import EncodedStart, MatchedPosterior, Posterior, SimulatedPosterior, UnderdampedPosterior
from neurodyn.posteriors.smoother import SmootherPosterior
from neurodyn.posteriors.start import FilterStart
from neurodyn.sde.linear_gaussian import TrendOU
from neurodyn.series import SeriesBatch

SIZES: dict[str, Any] = {"hidden_size": 8, "context_size": 6, "longest_step": 0.5, "num_times": 4}


def build(likelihood: str, **options: Any) -> LatentSDE:
    return LatentSDE.build(
        num_variables=2, latent_size=2, likelihood=likelihood, likelihood_options=options or None, **SIZES
    )


def test_options_reach_the_likelihood_and_survive_saving(tmp_path) -> None:
    counts = LatentSDE.load(build("poisson", exposure=0.02, link="softplus").save(tmp_path / "poisson")).likelihood
    assert isinstance(counts, PoissonLikelihood)
    assert (counts.exposure, counts.link) == (0.02, "softplus")
    real = LatentSDE.load(build("gaussian", noise=[0.1, 0.2]).save(tmp_path / "gaussian")).likelihood
    assert isinstance(real, GaussianLikelihood)
    torch.testing.assert_close(real.noise_sd(), torch.tensor([0.1, 0.2]))


def test_options_reach_the_encoders_and_survive_saving(tmp_path) -> None:
    options = {"encoder_options": {"before": 3, "every": 2}, "start_options": {"before": 1}}
    model = LatentSDE.build(num_variables=2, latent_size=2, encoder="window", inner_knots=0, **options, **SIZES)
    again = LatentSDE.load(model.save(tmp_path / "window"))
    batch = SeriesBatch(torch.arange(5.0).expand(2, 5), torch.randn(2, 5, 2), ids=("a", "b"))
    assert again.encoder(batch).places.tolist() == [[0, 2, 4]] * 2
    assert again.start.encoder.offsets.tolist() == [-1, 0]
    one, two = (m.loss(batch, generator=torch.Generator().manual_seed(0)).elbo for m in (model.eval(), again.eval()))
    assert torch.equal(one, two)


def test_the_mean_forecast_is_the_mean_of_the_same_paths() -> None:
    torch.manual_seed(0)
    model = build("gaussian", noise=1e-4)
    history = SeriesBatch(torch.tensor([[0.0, 0.5], [0.0, 1.0]]), torch.randn(2, 2, 2), ids=("a", "b"))
    times = torch.tensor([[1.0, 2.0, 2.5], [1.5, 2.0, 4.0]])
    mean = model.forecast_mean(history, times, 40, generator=torch.Generator().manual_seed(3))
    samples = model.forecast(history, times, 40, generator=torch.Generator().manual_seed(3)).samples
    torch.testing.assert_close(mean, samples.mean(0), atol=1e-4, rtol=1e-4)
    assert (samples.std(0) > 1e-2).all()  # the paths differ, their noise about the decoder's answer does not show


def test_a_categorical_model_is_built_and_forecasts_codes() -> None:
    model = build("categorical", num_classes=3)
    assert isinstance(model.likelihood, CategoricalLikelihood)
    batch = SeriesBatch(torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[[0.0, 1], [2, 1], [0, 0]]]))
    model.loss(batch).objective().backward()
    samples = model.forecast(batch, torch.tensor([[1.5, 2.0]]), 50).samples
    assert set(samples.unique().tolist()) == {0.0, 1.0, 2.0}


def test_fixed_noise_on_a_core_stays_fixed_and_learned_noise_starts_at_the_cores() -> None:
    linear = LinearSDE(2)
    fixed = LatentSDE.on(linear, likelihood_options={"noise": 0.3}, **SIZES)
    assert "likelihood.log_noise_sd" not in dict(fixed.named_parameters())
    torch.testing.assert_close(fixed.likelihood.noise_sd(), torch.tensor([0.3, 0.3]))
    learned = LatentSDE.on(linear, **SIZES).likelihood.noise_sd()
    torch.testing.assert_close(learned, linear.core.observation().variance.sqrt().float())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LatentSDE.build(num_variables=2, latent_sise=3), ["'latent_sise'", "did you mean 'latent_size'?"]),
        (lambda: LatentSDE.build(latent_size=3), ["'num_variables' not given"]),
        (lambda: LatentSDE.build(num_variables=2, core={"componets": ["ou"]}, posterior="smoother"), ["'components'?"]),
        (lambda: LatentSDE.on(LinearSDE(2), hiden_size=3), ["'hiden_size'", "did you mean 'hidden_size'?"]),
        (lambda: LatentSDE.on(LinearSDE(2), num_variables=3), ["num_variables: 3 given", "linear model's"]),
        (lambda: build("poisson", exposur=0.1), ["options of poisson: 'exposur'", "did you mean 'exposure'?"]),
        (lambda: build("bernoulli", noise=0.1), ["options of bernoulli: 'noise' given, none wanted"]),
        (
            lambda: LatentSDE.build(num_variables=2, encoder="window", encoder_options={"ever": 5}),
            ["encoder_options for window: 'ever'", "did you mean 'every'?"],
        ),
        (
            lambda: LatentSDE.build(num_variables=2, encoder="window", start_options={"after": 1}),
            ["after: got 1 for a causal encoder"],
        ),
        (lambda: build("categorical"), ["options of categorical: 'num_classes' not given"]),
        (lambda: LatentSDEConfig(2, likelihood="poison"), ["likelihood: 'poison'", "poisson"]),
        (
            lambda: LatentSDE.on(LinearSDE(2), likelihood_options={"noise": "network"}),
            ["likelihood: 'gaussian'", "reads 2 numbers per variable", "core"],
        ),
    ],
)
def test_a_wrong_option_is_named_in_one_line(call, words) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_folder_with_settings_of_a_later_version_is_named(tmp_path) -> None:
    folder = build("gaussian").save(tmp_path / "model")
    card = folder / "model.json"
    card.write_text(card.read_text().replace('"latent_size"', '"latent_manifold"'))
    with pytest.raises(ValueError, match="does not describe a LatentSDE: LatentSDE: 'latent_manifold' given"):
        LatentSDE.load(folder)


def test_a_head_of_another_size_than_the_encoders_features_is_named() -> None:
    class Own(Posterior):
        def __init__(self, context_size: int) -> None:
            super().__init__()
            self.context_size = context_size

    model = build("gaussian")
    size = model.encoder.context_size
    parts = {name: getattr(model, name) for name in ("prior", "encoder", "likelihood", "start")}
    said = rf"^encoder: \w+ with context_size {size} given, {size + 1} wanted as "
    for posterior in (
        Own(size + 1),
        MatchedPosterior(2, size + 1),
        SimulatedPosterior(2, 2, size + 1, longest_step=0.1),
        SmootherPosterior(TrendOU(2), size + 1),
        UnderdampedPosterior(2, size + 1),
    ):
        with pytest.raises(ValueError, match=said + f"{type(posterior).__name__} reads$"):
            LatentSDE(posterior=posterior, **parts)
    for start in (
        lambda: EncodedStart(model.encoder, size + 1, 2),
        lambda: FilterStart(model.encoder, size + 1, TrendOU(2)),
    ):
        with pytest.raises(ValueError, match=said + r"\w+Start reads$"):
            start()
    assert isinstance(LatentSDE(posterior=Own(size), **parts).posterior, Own)
    parts["encoder"] = torch.nn.Identity()  # says no size
    assert LatentSDE(posterior=Own(size + 1), **parts).posterior.context_size == size + 1


def test_a_posterior_of_ones_own_that_answers_in_another_shape_is_named() -> None:
    batch = SeriesBatch(torch.arange(5.0).expand(2, 5), torch.randn(2, 5, 2), ids=("a", "b"))

    class Odd(Posterior):
        def __init__(self, inner: Posterior, change: Any) -> None:
            super().__init__()
            self.inner, self.change = inner, change

        def forward(self, *given: Any) -> Any:
            return self.change(self.inner(*given))

    model = build("gaussian")
    whole = model.posterior
    model.posterior = Odd(whole, lambda paths: paths)
    assert model.loss(batch).elbo.shape == (2,)
    model.posterior = Odd(whole, lambda paths: paths.z)
    with pytest.raises(ValueError, match=r"^posterior: Odd gave Tensor; PosteriorPaths with z \(S, 2, 5, d\)"):
        model.loss(batch)
    model.posterior = Odd(whole, lambda paths: paths._replace(path_kl=paths.path_kl.expand(3, 2)))
    with pytest.raises(ValueError, match=r"^posterior: Odd gave z \(.*\), path_kl \(3, 2\), .* path_kl \(2,\)"):
        model.loss(batch)
