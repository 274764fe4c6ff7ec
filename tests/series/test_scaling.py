"""Scaling: moments of the training rows, undone exactly."""

from __future__ import annotations

import json

import pytest
import torch

from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch


def positive(rows: int = 40, dtype: torch.dtype = torch.float64) -> SeriesBatch:
    g = torch.Generator().manual_seed(0)
    mask = torch.rand(rows, 5, 2, generator=g) < 0.7
    mask[:, 0] = True
    return SeriesBatch(
        torch.rand(rows, 5, generator=g, dtype=torch.float64).add(0.01).cumsum(1) * 7 + 100,
        torch.randn(rows, 5, 2, generator=g, dtype=dtype).exp() * 30,
        mask,
        covariates=torch.randn(rows, 5, 1, generator=g) * 4 + 3,
        static=torch.stack([torch.randn(rows, generator=g) * 9 + 50, torch.full((rows,), 2.0)], 1),
        variables=("a", "b"),
    )


def test_training_moments_become_zero_and_one_after_the_logarithm() -> None:
    train = positive()
    scaled = Scaling.fit(train, log=["b"]).apply(train)
    for k in range(2):
        x = scaled.values[..., k][scaled.mask[..., k]]
        assert x.mean().item() == pytest.approx(0, abs=1e-12)
        assert x.std(correction=0).item() == pytest.approx(1, abs=1e-12)
    raw = train.values[..., 1][train.mask[..., 1]].log()
    assert torch.allclose(scaled.values[..., 1][train.mask[..., 1]], (raw - raw.mean()) / raw.std(correction=0))
    assert scaled.values[~scaled.mask].abs().max() == 0
    assert scaled.static.mean(0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert scaled.static[:, 0].std(correction=0).item() == pytest.approx(1)
    assert scaled.covariates[scaled.present].mean().item() == pytest.approx(0, abs=1e-6)
    assert scaled.times.min() == 0
    spans = (scaled.last_time - scaled.first_time).sort().values
    assert spans[(spans > 0).nonzero()[:, 0]].median().item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_undo_gives_the_data_back(dtype) -> None:
    train = positive(dtype=dtype)
    scaling = Scaling.fit(train, log=["a"])
    scaled = scaling.apply(train)
    assert scaled.dtype == dtype
    back = scaling.undo_values(scaled.values)
    assert back.dtype == dtype
    assert torch.allclose(back[train.mask], train.values[train.mask], rtol=1e-4 if dtype == torch.float32 else 1e-12)
    assert torch.allclose(scaling.undo_times(scaled.times), train.times, rtol=1e-14)
    assert torch.equal(scaling.apply_times(train.times), scaled.times)
    samples = scaling.undo_values(scaled.values.expand(3, -1, -1, -1))
    assert torch.equal(samples[2], back)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_undo_of_a_batch_is_the_inverse_of_apply(dtype) -> None:
    whole = positive(dtype=dtype)
    ragged = SeriesBatch.concat([whole.rows([0, 1]).history(count=1), whole.rows([2, 3]), whole.rows([4]).padded(7)])
    ragged = ragged._with(labels=torch.arange(5), ids=tuple("abcde"))
    scaling = Scaling.fit(whole, log=["b"])
    back = scaling.undo(scaling.apply(ragged))
    close = {"rtol": 1e-13, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-6, "atol": 1e-5}
    assert back.dtype == dtype and torch.equal(back.mask, ragged.mask)
    assert (back.ids, back.variables) == (ragged.ids, ragged.variables) and torch.equal(back.labels, ragged.labels)
    torch.testing.assert_close(back.values, ragged.values, **close)
    assert (back.values[~back.mask] == 0).all(), "what was not observed stays zero, not the mean"
    torch.testing.assert_close(back.times, ragged.times, rtol=1e-14, atol=0)
    torch.testing.assert_close(back.static, ragged.static, rtol=2e-6, atol=1e-5, check_dtype=False)
    seen = ragged.present
    torch.testing.assert_close(back.covariates[seen], ragged.covariates[seen], rtol=2e-6, atol=1e-5, check_dtype=False)
    with pytest.raises(ValueError, match="^batch: variables"):
        scaling.undo(one([1.0]))
    with pytest.raises(ValueError, match="^batch: 0 columns of covariates given, 1 wanted"):
        scaling.undo(SeriesBatch(whole.times, whole.values, whole.mask, variables=("a", "b")))


def test_statistics_see_training_rows_only() -> None:
    batch = positive()
    train, test = batch.rows(slice(0, 20)), batch.rows(slice(20, 40))
    scaling = Scaling.fit(train)
    direct = train.values[..., 0][train.mask[..., 0]]
    assert scaling.mean[0].item() == pytest.approx(direct.mean().item(), rel=1e-12)
    x = scaling.apply(test).values[..., 0][test.mask[..., 0]]
    assert abs(x.mean().item()) > 1e-3


def test_json_round_trip_is_exact() -> None:
    batch = positive()
    for data in (batch, SeriesBatch(batch.times, batch.values, batch.mask)):
        scaling = Scaling.fit(data, log=data.variables[:1])
        again = Scaling.from_dict(json.loads(json.dumps(scaling.to_dict())))
        assert again.to_dict() == scaling.to_dict()
        assert torch.equal(again.apply(data).values, scaling.apply(data).values)


def test_rows_of_one_visit_leave_time_unscaled() -> None:
    batch = SeriesBatch(torch.tensor([[4.0], [6.0]]), torch.tensor([[[1.0]], [[3.0]]]))
    scaling = Scaling.fit(batch)
    assert (scaling.time_origin, scaling.time_scale) == (4.0, 1.0)


def one(values: list[float], **options) -> SeriesBatch:
    x = torch.tensor(values)[None, :, None]
    return SeriesBatch(torch.arange(len(values)).float()[None], x, variables=("bili",), **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Scaling.fit(one([2.0, 2.0, 2.0])), ["train", "'bili'", "constant in 1 rows"]),
        (lambda: Scaling.fit(one([2.0])), ["train", "'bili'", "constant"]),
        (lambda: Scaling.fit(one([1e9, 1e9 + 64, 1e9]).to(dtype=torch.float32)), None),
        (lambda: Scaling.fit(one([2.0, 0.0]), log=["bili"]), ["log", "'bili' is 0", "row 0", "positive"]),
        (lambda: Scaling.fit(one([1.0, 2.0]), log=["bilii"]), ["log", "bilii", "bili"]),
        (lambda: Scaling.fit(one([1.0, 2.0]), log="bili"), ["log", "list"]),
        (lambda: Scaling.fit(one([1.0, 2.0]), log=["bili"]).apply(one([-1.0, 2.0])), ["log", "-1", "time 0"]),
        (lambda: Scaling.fit(one([1.0, 2.0])).apply(positive()), ["batch", "'a'", "'bili'"]),
        (
            lambda: Scaling.fit(one([1.0, 2.0])).apply(one([1.0], static=torch.ones(1, 2))),
            ["batch", "2", "static", "0"],
        ),
    ],
)
def test_bad_input_is_named_in_one_line(call, words) -> None:
    if words is None:  # little variation around a large level is variation
        assert call().sd.item() > 1
        return
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_variable_never_observed_in_training_is_named() -> None:
    mask = torch.tensor([[[True, False], [True, False]]])
    with pytest.raises(ValueError, match=r"\['y2'\] never observed"):
        Scaling.fit(SeriesBatch(torch.tensor([[0.0, 1.0]]), torch.rand(1, 2, 2), mask))
