"""Encoders of irregular series: what may change their output and what may not, and the GRU's step against torch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.nets.encoders import AttentionEncoder, Context, GRUDecayEncoder, WindowEncoder, make_encoder
from neurodyn.series import SeriesBatch

KINDS = ["gru-forward", "gru-backward", "gru-both", "attention", "attention-causal"]
KINDS += ["window", "window-causal", "window-slopes"]
CAUSAL = ["gru-forward", "attention-causal", "window-causal"]
DTYPES = [torch.float32, torch.float64]
NUM_COVARIATES, NUM_STATIC = 2, 3


def encoder_of(kind, num_variables, dtype=torch.float64, covariates=True):
    torch.manual_seed(1)
    sizes = {"num_covariates": NUM_COVARIATES, "num_static": NUM_STATIC} if covariates else {}
    name, _, variant = kind.partition("-")
    if name == "gru":
        net = GRUDecayEncoder(num_variables, 5, hidden_size=12, direction=variant, **sizes)
    elif name == "window":
        after = 0 if variant == "causal" else 2
        slopes = variant == "slopes"
        net = WindowEncoder(num_variables, 5, hidden_size=12, before=2, after=after, slopes=slopes, **sizes)
    else:
        net = AttentionEncoder(num_variables, 5, hidden_size=12, causal=variant == "causal", num_heads=2, **sizes)
    return net.to(dtype)


def random_batch(rows, visits, num_variables, seed, dtype=torch.float64, missing=0.4, gaps=0.3):
    """Rows with their own times, missing entries, wholly unobserved visits, and at least one observation each."""
    g = torch.Generator().manual_seed(seed)
    times = torch.cumsum(torch.rand(rows, visits, generator=g, dtype=torch.float64) + 0.05, 1)
    times = times + 20 * torch.rand(rows, 1, generator=g, dtype=torch.float64)
    mask = torch.rand(rows, visits, num_variables, generator=g) > missing
    mask &= torch.rand(rows, visits, 1, generator=g) > gaps
    mask[:, visits // 2, 0] = True
    values = torch.randn(rows, visits, num_variables, generator=g, dtype=torch.float64).to(dtype)
    covariates = torch.randn(rows, visits, NUM_COVARIATES, generator=g, dtype=torch.float64).to(dtype)
    static = torch.randn(rows, NUM_STATIC, generator=g, dtype=torch.float64).to(dtype)
    return SeriesBatch(times, values, mask, covariates, static)


def insert_unobserved(batch, before, count, seed):
    """The same rows with `count` unobserved visits put in before visit `before`, holding rubbish."""
    g = torch.Generator().manual_seed(seed)
    rows, visits = batch.times.shape
    low = batch.times[:, before - 1 : before] if before > 0 else batch.times[:, :1] - 3.0
    high = batch.times[:, before : before + 1] if before < visits else batch.times[:, -1:] + 3.0
    u = torch.rand(rows, count, generator=g, dtype=torch.float64).sort(1).values

    def put(table, new):
        return torch.cat([table[:, :before], new.to(table.dtype), table[:, before:]], 1)

    def rubbish(size):
        return 100 * torch.randn(rows, count, size, generator=g)

    wider = SeriesBatch(
        put(batch.times, low + u * (high - low)),
        put(batch.values, rubbish(batch.num_variables)),
        put(batch.mask, torch.zeros(rows, count, batch.num_variables)),
        put(batch.covariates, rubbish(NUM_COVARIATES)),
        batch.static,
    )
    old = [i for i in range(visits + count) if not before <= i < before + count]
    return wider, old


def assert_same(a, b, dtype):
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(a, b, rtol=10 * tolerance, atol=tolerance)


def assert_same_context(a: Context, b: Context, present, dtype):
    assert_same(a.features[present], b.features[present], dtype)
    assert_same(a.summary, b.summary, dtype)


shapes = st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 3), st.integers(0, 10_000))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(shape=shapes)
def test_rows_are_encoded_one_by_one(kind, dtype, shape):
    rows, visits, num_variables, seed = shape
    batch, net = random_batch(*shape, dtype=dtype), encoder_of(kind, num_variables, dtype)
    whole = net(batch)
    assert whole.features.shape == (rows, visits, 5) and whole.summary.shape == (rows, 5)
    assert whole.features.dtype == whole.summary.dtype == dtype
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    permuted = net(batch.rows(order))
    assert_same(permuted.features, whole.features[order], dtype)
    assert_same(permuted.summary, whole.summary[order], dtype)
    alone = net(batch.rows([0]))
    assert_same(alone.features, whole.features[:1], dtype)
    assert_same(alone.summary, whole.summary[:1], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(shape=shapes, place=st.floats(0, 1), count=st.integers(1, 3))
def test_unobserved_visits_and_padding_change_nothing(kind, dtype, shape, place, count):
    batch, net = random_batch(*shape, dtype=dtype), encoder_of(kind, shape[2], dtype)
    before = round(place * batch.num_times)
    wider, old = insert_unobserved(batch, before, count, shape[3])
    plain, inserted = net(batch), net(wider)
    kept = inserted._replace(features=inserted.features[:, old])
    assert_same_context(plain, kept, batch.present, dtype)
    padded = net(batch.padded(batch.num_times + count))
    assert_same_context(plain, padded._replace(features=padded.features[:, : batch.num_times]), batch.present, dtype)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(shape=shapes)
def test_what_stands_under_a_false_mask_is_not_read(kind, shape):
    batch, net = random_batch(*shape), encoder_of(kind, shape[2])
    plain = net(batch)
    # The container writes zeros there itself, so write behind its back.
    rubbish = torch.where(batch.mask, batch.values, torch.nan)
    object.__setattr__(batch, "values", rubbish)
    spoiled = net(batch)
    assert torch.equal(plain.features, spoiled.features) and torch.equal(plain.summary, spoiled.summary)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(shape=shapes, shift=st.sampled_from([-1000.0, 0.5, 4096.0]))
def test_shifting_a_rows_times_changes_nothing(kind, dtype, shape, shift):
    batch, net = random_batch(*shape, dtype=dtype), encoder_of(kind, shape[2], dtype)
    shifted = SeriesBatch(batch.times + shift, batch.values, batch.mask, batch.covariates, batch.static)
    # The shifted times themselves are rounded to 5e-13, so float64 is held to 1e-11 here, and slopes, which are divided
    # by times between visits, to 1e-10.
    a, b = net(batch), net(shifted)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-10 if kind == "window-slopes" else 1e-11
    torch.testing.assert_close(a.features, b.features, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.summary, b.summary, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(shape=st.tuples(st.integers(1, 3), st.integers(3, 8), st.integers(1, 3), st.integers(0, 10_000)))
def test_causal_encoders_do_not_see_the_future_and_the_others_do(kind, shape):
    rows, visits, num_variables, seed = shape
    batch, net = random_batch(*shape, gaps=0.0), encoder_of(kind, num_variables)
    cut = visits // 2 + 1
    future = random_batch(rows, visits, num_variables, seed + 1, missing=0.0, gaps=0.0)
    offset = batch.times[:, cut - 1 : cut] + 0.3 - future.times[:, cut : cut + 1]
    other = SeriesBatch(
        torch.cat([batch.times[:, :cut], future.times[:, cut:] + offset], 1),
        torch.cat([batch.values[:, :cut], future.values[:, cut:]], 1),
        torch.cat([batch.mask[:, :cut], future.mask[:, cut:]], 1),
        torch.cat([batch.covariates[:, :cut], future.covariates[:, cut:]], 1),
        batch.static,
    )
    present = batch.present[:, :cut]
    a, b = net(batch).features[:, :cut][present], net(other).features[:, :cut][present]
    if kind in CAUSAL:
        assert_same(a, b, torch.float64)
    else:
        assert (a - b).abs().amax() > 1e-6


@pytest.mark.parametrize("kind", CAUSAL)
def test_before_the_first_observation_a_causal_encoder_does_not_know_when_it_comes(kind):
    mask = torch.tensor([False, False, True, True]).view(1, 4, 1)
    values, net = torch.ones(1, 4, 1, dtype=torch.float64), encoder_of(kind, 1, covariates=False)
    early, late = (
        net(SeriesBatch(torch.tensor([[0.0, 1.0, first, 9.0]], dtype=torch.float64), values, mask)).features
        for first in (2.0, 5.0)
    )
    assert torch.equal(early[:, :2], late[:, :2])
    assert not torch.equal(early[:, 3], late[:, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_every_observed_value_time_covariate_and_static_feature_is_read(kind):
    batch, net = random_batch(2, 5, 2, seed=3), encoder_of(kind, 2)
    context = net(batch)

    def moved(**changes):
        parts = {n: getattr(batch, n) for n in ("times", "values", "mask", "covariates", "static")} | changes
        return (net(SeriesBatch(**parts)).summary - context.summary).abs().amax(1)

    index = torch.arange(5) * 0.1
    assert (moved(values=batch.values + 1.0) > 1e-6).all()
    assert (moved(times=batch.times + index) > 1e-8).all()
    assert (moved(covariates=batch.covariates + 1.0) > 1e-6).all()
    assert (moved(static=batch.static + 1.0) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None)
@given(shape=shapes)
def test_gradients_are_finite_and_reach_every_parameter(kind, shape):
    batch, net = random_batch(*shape, dtype=torch.float32).padded(9), encoder_of(kind, shape[2], torch.float32)
    context = net(batch)
    (context.features.square().sum() + context.summary.square().sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_gradients_reach_every_parameter_on_a_full_batch():
    for kind in KINDS:
        net = encoder_of(kind, 2)
        context = net(random_batch(4, 8, 2, seed=5))
        (context.features.square().sum() + context.summary.square().sum()).backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad.abs().sum() > 0, f"{kind}: {name}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_with_nothing_observed_is_finite_and_touches_no_other(kind):
    batch, net = random_batch(3, 6, 2, seed=6), encoder_of(kind, 2)
    plain = net(batch)
    object.__setattr__(batch, "mask", batch.mask.clone())
    batch.mask[1] = False
    context = net(batch)
    assert torch.isfinite(context.features).all() and torch.isfinite(context.summary).all()
    assert_same(context.summary[[0, 2]], plain.summary[[0, 2]], torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_in_mixed_precision(kind):
    batch, net = random_batch(3, 6, 2, seed=7, dtype=torch.float32), encoder_of(kind, 2, torch.float32)
    exact = net(batch)
    with torch.autocast("cpu", torch.bfloat16):
        context = net(batch)
    context.summary.float().square().sum().backward()
    torch.testing.assert_close(context.features.float(), exact.features, rtol=0.1, atol=0.05)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_gru_steps_equal_torchs_cell_with_the_state_decayed_by_hand():
    batch, net = random_batch(2, 6, 2, seed=8), encoder_of("gru-forward", 2)
    cell = torch.nn.GRUCell(net.input_weight.shape[1], 12).double()
    with torch.no_grad():
        cell.weight_ih.copy_(net.input_weight[0].T)
        cell.weight_hh.copy_(net.state_weight[0].T)
        cell.bias_ih.copy_(net.input_bias[0, 0])
        cell.bias_hh.copy_(net.state_bias[0, 0])
    rate, value_rate, mean = net.log_decay[0].exp(), net.log_value_decay[0].exp(), net.value_mean[0]
    one = torch.ones(1, dtype=torch.float64)
    for b in range(2):
        h = torch.zeros(12, dtype=torch.float64)
        last_value = mean.clone()
        last_seen: list[float | None] = [None, None]
        previous, first = float(batch.times[b, 0]), None
        features = net(batch).features[b]
        for i in range(6):
            t = float(batch.times[b, i])
            h, previous = h * torch.exp(-rate * (t - previous)), t
            if not bool(batch.present[b, i]):
                torch.testing.assert_close(features[i], net.feature_head(h))
                continue
            first = t if first is None else first
            filled, fresh = mean.clone(), torch.zeros(2, dtype=torch.float64)
            for j in range(2):
                if batch.mask[b, i, j]:
                    last_value = torch.where(torch.arange(2) == j, batch.values[b, i, j], last_value)
                    last_seen[j] = t
                if last_seen[j] is not None:
                    fresh[j] = torch.exp(-value_rate[j] * (t - last_seen[j]))
                    filled[j] = mean[j] + fresh[j] * (last_value[j] - mean[j])
            seen = [s for k, s in enumerate(batch.times[b, :i]) if batch.present[b, k]]
            gap = t - float(seen[-1]) if seen else 0.0
            clock = torch.stack([one * gap, one * (t - first)]).log1p().flatten()
            x = torch.cat([filled, batch.mask[b, i], fresh, clock, batch.covariates[b, i], batch.static[b]])
            h = cell(x[None], h[None])[0]
            torch.testing.assert_close(features[i], net.feature_head(h))


def test_gru_state_decays_between_observations():
    times = torch.tensor([[0.0, 0.5, 2.0, 5.0]], dtype=torch.float64)
    mask = torch.tensor([True, False, False, True]).view(1, 4, 1)
    net = encoder_of("gru-forward", 1, covariates=False)
    net.feature_head = torch.nn.Identity()
    states = net(SeriesBatch(times, torch.ones(1, 4, 1, dtype=torch.float64), mask)).features[0]
    for i in (1, 2):
        torch.testing.assert_close(states[i], states[0] * torch.exp(-net.log_decay[0].exp() * times[0, i]))


def test_make_encoder_knows_names_and_instances():
    assert make_encoder("gru", 2, 4).direction == "both"
    assert make_encoder("gru", 2, 4, causal=True).direction == "forward"
    attention = make_encoder("attention", 2, 4, hidden_size=16, causal=True, num_layers=3)
    assert attention.causal and len(attention.blocks) == 3
    assert make_encoder(attention, 2, 4) is attention
    with pytest.raises(ValueError, match="context_size"):
        make_encoder(attention, 2, 5)
    with pytest.raises(ValueError, match="encoder: got 'lstm'"):
        make_encoder("lstm", 2, 4)


def test_errors_name_the_argument():
    batch = random_batch(2, 4, 2, seed=0)
    with pytest.raises(ValueError, match="direction"):
        GRUDecayEncoder(2, 4, direction="sideways")
    with pytest.raises(ValueError, match="hidden_size"):
        AttentionEncoder(2, 4, hidden_size=10, num_heads=4)
    for kind in ("gru", "attention", "window"):
        with pytest.raises(ValueError, match="got 2 variables, want 3"):
            make_encoder(kind, 3, 4).double()(batch)
        with pytest.raises(ValueError, match=r"batch.covariates: got 2 columns, want 1"):
            make_encoder(kind, 2, 4, num_covariates=1).double()(batch)
        bare = SeriesBatch(batch.times, batch.values, batch.mask)
        with pytest.raises(ValueError, match=r"batch.static: got 0 columns, want 3"):
            make_encoder(kind, 2, 4, num_static=3).double()(bare)
