"""What may not change a model's loss, gradient or forecast: the order of rows, padding, unobserved visits, splits."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neurodyn.forecast import Forecast
from neurodyn.likelihoods import LIKELIHOODS
from neurodyn.models.baselines import DirectGRU, LastValue, LatentODE, RegressedLastValue
from neurodyn.models.forecasters import FORECASTERS, STABLE
from neurodyn.models.latent_sde import LatentSDE
from neurodyn.models.linear_sde import LinearSDE
from neurodyn.models.path_model import PathModel
from neurodyn.series import SeriesBatch

DTYPES = [torch.float32, torch.float64]
VARIABLES, COVARIATES, STATIC = 2, 1, 2
SIZES: dict[str, Any] = {"hidden_size": 8, "context_size": 6, "longest_step": 0.3, "num_times": 5}
EXTRA = {"num_covariates": COVARIATES, "num_static": STATIC}
MATCHED = {"posterior": "matched", "latent_size": 2}
SIMULATED = {"posterior": "simulated", "latent_size": 2}
POSTERIORS: dict[str, dict[str, Any]] = {
    "matched-diagonal": MATCHED,
    "matched-full": MATCHED | {"family": "full"},
    "matched-flow": MATCHED | {"family": "flow", "inner_knots": 0},
    "matched-corrected": MATCHED | {"family": "full", "correction": True},
    "matched-state-dependent": MATCHED | {"diffusion": "network", "num_samples": 3},
    "simulated-backprop": SIMULATED | {"diffusion": "network", "num_samples": 2},
    "simulated-checkpoint": SIMULATED | {"gradient": "checkpoint"},
    "simulated-milstein": SIMULATED | {"method": "milstein", "diffusion": "network"},
    "simulated-reversible": SIMULATED | {"method": "reversible_heun", "gradient": "reversible"},
    "simulated-on-core": {"posterior": "simulated", "core": True},
    "smoother": {"posterior": "smoother", "core": True},
    "smoother-trained-core": {"posterior": "smoother", "core": True, "train_core": True},
}
COUNTS = ("poisson", "negative_binomial")


class Change(NamedTuple):
    """What is done to a batch that should not matter."""

    order: list[int]
    split: int
    padding: int
    place: float
    unobserved: int


changes = st.builds(
    Change,
    order=st.permutations(range(4)),
    split=st.integers(0, 4),
    padding=st.integers(0, 2),
    place=st.floats(0, 1),
    unobserved=st.integers(0, 2),
)
seeds = st.integers(0, 10_000)


def random_batch(seed: int, dtype: torch.dtype, likelihood: str = "gaussian") -> SeriesBatch:
    """Four rows with their own times and lengths, some of a single visit, a third of the entries missing."""
    g = torch.Generator().manual_seed(seed)
    rows, visits = 4, 4
    times = torch.cumsum(torch.rand(rows, visits, generator=g, dtype=torch.float64) * 0.6 + 0.02, 1)
    times = times + 5 * torch.rand(rows, 1, generator=g, dtype=torch.float64)
    mask = torch.rand(rows, visits, VARIABLES, generator=g) > 0.3
    mask &= (torch.arange(visits) < torch.randint(1, visits + 1, (rows, 1), generator=g))[..., None]
    mask[:, 0, 0] = True
    values = torch.randn(rows, visits, VARIABLES, generator=g, dtype=torch.float64)
    if likelihood in COUNTS:
        values = values.exp().round()
    elif likelihood == "bernoulli":
        values = (values > 0).double()
    covariates = torch.randn(rows, visits, COVARIATES, generator=g, dtype=torch.float64)
    static = torch.randn(rows, STATIC, generator=g, dtype=torch.float64)
    ids = tuple(f"row {k}" for k in range(rows))
    return SeriesBatch(times, values.to(dtype), mask, covariates.to(dtype), static.to(dtype), ids=ids)


def changed(batch: SeriesBatch, change: Change, seed: int) -> list[SeriesBatch]:
    """The batch's rows in another order, with unobserved visits put in and padding at the end, in one or two parts."""
    turned, g = batch.rows(change.order), torch.Generator().manual_seed(seed)
    at, count, (rows, visits) = round(change.place * batch.num_times), change.unobserved, batch.times.shape
    low = turned.times[:, at - 1 : at] if at else turned.times[:, :1] - 3.0
    high = turned.times[:, at : at + 1] if at < visits else turned.times[:, -1:] + 3.0
    between = low + torch.rand(rows, count, generator=g, dtype=torch.float64).sort(1).values * (high - low)

    def put(table: Tensor, new: Tensor) -> Tensor:
        return torch.cat((table[:, :at], new.to(table.dtype), table[:, at:]), 1)

    rubbish = 100 * torch.randn(rows, count, VARIABLES + COVARIATES, generator=g)
    wider = SeriesBatch(
        put(turned.times, between),
        put(torch.where(turned.mask, turned.values, torch.nan), rubbish[..., :VARIABLES]),
        put(turned.mask, torch.zeros(rows, count, VARIABLES)),
        put(turned.covariates, rubbish[..., VARIABLES:]),  # type: ignore[arg-type]
        turned.static,
        ids=turned.ids,
    )
    wider = wider.padded(wider.num_times + change.padding)
    places = [range(change.split), range(change.split, rows)]
    return [wider.rows(list(some)) for some in places if len(some)]


def livened(model: nn.Module, seed: int) -> nn.Module:
    """Every trained parameter moved from its start: a fresh model's zero layers would hide what they read."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=g, dtype=torch.float64).to(parameter))
    return model


def latent_sde(dtype: torch.dtype, **config: Any) -> LatentSDE:
    settings = SIZES | EXTRA | config
    if settings.pop("core", False):
        linear = livened(LinearSDE(VARIABLES), 1)
        model = LatentSDE.on(linear, **settings)  # type: ignore[arg-type]
    else:
        model = LatentSDE.build(num_variables=VARIABLES, **settings)
    return livened(model, 2).to(dtype)  # type: ignore[return-value]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_close(found: Tensor, wanted: Tensor, dtype: torch.dtype, slack: float = 1.0) -> None:
    tolerance = slack * (2e-4 if dtype == torch.float32 else 1e-8)
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def assert_same_loss(model: Any, batch: SeriesBatch, change: Change, seed: int, dtype: torch.dtype) -> None:
    """Parts of the loss row by row, and the gradient of their sum."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def read(parts: list[SeriesBatch]) -> tuple[Tensor, list[Tensor]]:
        losses = [model.loss(part, generator=seeded(seed)) for part in parts]
        table = torch.cat([torch.stack(loss, -1).double() for loss in losses])
        total = sum(loss.objective() * part.num_rows for loss, part in zip(losses, parts, strict=True))
        gradient = torch.autograd.grad(total, parameters, allow_unused=True)  # type: ignore[arg-type]
        return table.detach(), [
            torch.zeros_like(p) if g is None else g for g, p in zip(gradient, parameters, strict=True)
        ]

    wanted, pull = read([batch])
    found, other_pull = read(changed(batch, change, seed))
    assert bool(wanted.isfinite().all())
    assert_close(found, wanted[change.order], dtype)
    for one, two in zip(other_pull, pull, strict=True):
        scale = 1 + float(two.norm())
        assert bool(one.isfinite().all())
        assert_close(one / scale, two / scale, dtype)


def assert_same_forecast(
    model: Any, batch: SeriesBatch, change: Change, seed: int, dtype: torch.dtype, *, counts: bool = False
) -> None:
    """Sample by sample; the request is padded too. Counts may fall to either side of a rounded mean, rarely."""
    step = torch.rand(batch.num_rows, 3, generator=seeded(seed + 1), dtype=torch.float64) * 0.5
    step[0, 0] = 0.0  # asked for at the very end of the history
    step[1, 2] = 0.0  # a padded request
    times = batch.last_time[:, None] + step.cumsum(1)

    def read(part: SeriesBatch, when: Tensor) -> Forecast:
        return model.forecast(part, when, 4, generator=seeded(seed))

    wanted = read(batch, times)
    wider = torch.cat((times, times[:, -1:].expand(-1, change.padding)), 1)[change.order]
    parts = changed(batch, change, seed)
    lots = wider.split([part.num_rows for part in parts])
    found = [read(part, when) for part, when in zip(parts, lots, strict=True)]
    samples = torch.cat([one.samples for one in found], 1)[:, :, :3]
    assert [name for one in found for name in one.ids] == [wanted.ids[k] for k in change.order]
    expected = wanted.samples[:, change.order]
    assert bool(expected.isfinite().all())
    if counts:
        apart = (samples - expected).abs()
        assert float(apart.max()) <= 1 and float((apart > 0).double().mean()) < 0.03
    else:
        assert_close(samples, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("encoder", ["gru", "attention"])
@pytest.mark.parametrize("posterior", POSTERIORS)
@settings(max_examples=8, deadline=None)
@given(change=changes, seed=seeds, training=st.booleans())
def test_a_latent_sde_sees_neither_order_nor_padding_nor_company(
    posterior: str, encoder: str, dtype: torch.dtype, change: Change, seed: int, training: bool
) -> None:
    model = latent_sde(dtype, encoder=encoder, **POSTERIORS[posterior]).train(training)
    batch = random_batch(seed, dtype)
    assert_same_loss(model, batch, change, seed, dtype)
    assert_same_forecast(model, batch, change, seed, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("likelihood", [name for name in LIKELIHOODS if name not in ("gaussian", "categorical")])
@settings(max_examples=6, deadline=None)
@given(change=changes, seed=seeds)
def test_every_likelihood_keeps_rows_apart(likelihood: str, dtype: torch.dtype, change: Change, seed: int) -> None:
    model = latent_sde(dtype, likelihood=likelihood, **MATCHED)
    batch = random_batch(seed, dtype, likelihood)
    assert_same_loss(model, batch, change, seed, dtype)
    assert_same_forecast(model, batch, change, seed, dtype, counts=likelihood in (*COUNTS, "bernoulli"))


@settings(max_examples=15, deadline=None)
@given(padding=st.integers(0, 2), place=st.floats(0, 1), unobserved=st.integers(0, 2), seed=seeds)
def test_the_adjoint_sees_neither_padding_nor_unobserved_visits(
    padding: int, place: float, unobserved: int, seed: int
) -> None:
    """Order and company it does see: its Brownian path and its steps are torchsde's, one for the whole batch."""
    model = latent_sde(torch.float64, **SIMULATED, gradient="adjoint")
    batch, same = random_batch(seed, torch.float64), Change([0, 1, 2, 3], 4, padding, place, unobserved)
    assert_same_loss(model, batch, same, seed, torch.float64)
    assert_same_forecast(model, batch, Change([2, 0, 3, 1], 1, padding, place, unobserved), seed, torch.float64)


CORES: dict[str, dict[str, Any]] = {
    "linear_sde": {},
    "mixed_model": {"components": ("level", "slope")},
    "ou_process": {"components": ("ou",), "joint": False},
    "level": {"components": ("level",)},
}


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "moved"])
@pytest.mark.parametrize("core", CORES)
@settings(max_examples=10, deadline=None)
@given(change=changes, seed=seeds, dtype=st.sampled_from(DTYPES))
def test_a_linear_sde_sees_neither_order_nor_padding_nor_company(
    core: str, fresh: bool, change: Change, seed: int, dtype: torch.dtype
) -> None:
    model = LinearSDE(VARIABLES, **CORES[core])
    if not fresh:
        livened(model, seed)
    batch = random_batch(seed, dtype)
    assert_same_loss(model, batch, change, seed, torch.float64)
    assert_same_forecast(model, batch, change, seed, dtype)


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "moved"])
@pytest.mark.parametrize("joint", [True, False])
def test_equal_eigenvalues_of_many_variables_leave_forecasts_alone(joint: bool, fresh: bool) -> None:
    """With seven variables alike, rounding alone would choose the eigenvectors of their covariances."""
    g = seeded(0)
    rows, size = 24, 7
    times = (torch.rand(rows, 6, generator=g, dtype=torch.float64) + 0.01).cumsum(1)
    mask = torch.rand(rows, 6, size, generator=g) > 0.3
    mask[:, 0, 0] = True
    values = torch.randn(rows, 6, size, generator=g, dtype=torch.float64)
    batch = SeriesBatch(times, values, mask, ids=tuple(f"row {k}" for k in range(rows)))
    when = batch.last_time[:, None] + torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    linear = LinearSDE(size, joint=joint)
    if not fresh:
        livened(linear, 5)
    for model in (linear, LatentSDE.on(linear, **SIZES)):
        whole = model.forecast(batch, when, 5, generator=seeded(1)).samples
        for some in ([7], [20, 3, 4], list(range(rows))[::-1]):
            found = model.forecast(batch.rows(some), when[some], 5, generator=seeded(1)).samples
            assert_close(found, whole[:, some], torch.float64, slack=10)


def baseline(name: str, dtype: torch.dtype) -> Any:
    """A forecaster of the registry, fitted or with lively weights."""
    if name in ("last_value", "regressed_last_value"):
        model = LastValue() if name == "last_value" else RegressedLastValue()
        parts = [random_batch(seed, dtype) for seed in range(12)]
        return model.fit(SeriesBatch.concat([part._with(ids=None) for part in parts]))
    torch.manual_seed(0)
    if name in STABLE:
        reader = name.removeprefix("stable_")
        model = PathModel.build(num_variables=VARIABLES, task="forecast", reader=reader, hidden_size=6)
        return livened(model, 3).to(dtype).eval()
    if name == "direct_gru":
        return livened(DirectGRU(VARIABLES, 6, 8), 3).to(dtype).eval()
    return livened(LatentODE(VARIABLES, 3, 6, 8), 3).to(dtype).eval()


NETWORKS = ("direct_gru", "latent_ode", *STABLE)
OTHERS = ("last_value", "regressed_last_value", *NETWORKS)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("name", OTHERS)
@settings(max_examples=10, deadline=None)
@given(change=changes, seed=seeds)
def test_baselines_see_neither_order_nor_padding_nor_company(
    name: str, dtype: torch.dtype, change: Change, seed: int
) -> None:
    model, batch = baseline(name, dtype), random_batch(seed, dtype)
    if name in NETWORKS:
        assert_same_loss(model, batch, change, seed, dtype)
    assert_same_forecast(model, batch, change, seed, dtype)


def test_every_forecaster_of_the_registry_is_looked_at() -> None:
    assert {"latent_sde", *CORES, *OTHERS} - {"level"} == set(FORECASTERS)
