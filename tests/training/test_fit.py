"""The loop against the same steps written out by hand, and against answers known in closed form."""

import json
import math

import pytest
import torch

from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, Loss, fit


def settings(**changes) -> FitConfig:
    plain = {
        "steps": 40,
        "batch_size": 0,
        "learning_rate": 0.1,
        "warmup_steps": 0,
        "schedule": "constant",
        "clip_norm": 0.0,
        "precision": "float64",
        "device": "cpu",
        "progress": False,
    }
    return FitConfig(**(plain | changes))


def test_loss_weights_its_parts():
    loss = Loss(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.5]), torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))
    assert torch.equal(loss.elbo, torch.tensor([-0.5, 0.5]))
    assert loss.objective().item() == pytest.approx((0.5 - 0.5 + 4) / 2)
    assert loss.objective(0.0).item() == pytest.approx((-1 - 3 + 4) / 2)


def test_fit_finds_the_mean_of_what_is_observed(mean_model, series, mean_of_observed):
    model = mean_model()
    result = fit(model, series, config=settings(steps=400, schedule="cosine", warmup_steps=10))
    assert torch.allclose(model.mean, mean_of_observed(series), atol=1e-6)
    assert result.stopped == "steps" and result.best_step == 400 and result.best_value is None
    assert not model.training


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_fit_makes_the_same_steps_as_a_loop_written_by_hand(mean_model, series, ema):
    config = settings(
        steps=30,
        warmup_steps=10,
        schedule="cosine",
        clip_norm=2.0,
        optimizer="adamw",
        weight_decay=0.1,
        kl_warmup_steps=5,
        ema=ema,
    )
    fitted, by_hand = mean_model(), mean_model().double()
    fit(fitted, series, config=config)
    optimizer = torch.optim.AdamW([by_hand.mean], lr=1.0, weight_decay=0.1)
    average = by_hand.mean.detach().clone()
    for step in range(30):
        rate = 0.1 * (step + 1) / 10 if step < 10 else 0.1 * (1 + math.cos(math.pi * (step - 10) / 20)) / 2
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        by_hand.loss(series).objective(min(1.0, (step + 1) / 5)).backward()
        by_hand.mean.grad *= min(1.0, 2.0 / (by_hand.mean.grad.norm() + 1e-6))
        optimizer.step()
        decay = min(ema, (2 + step) / (11 + step))
        average = decay * average + (1 - decay) * by_hand.mean.detach()
    assert torch.allclose(fitted.mean, average, rtol=1e-12, atol=0)


def test_a_kl_weight_of_zero_at_first_rises_to_its_value():
    config = settings(kl_weight=2.0, kl_warmup_steps=4)
    assert [config.kl_weight_at(step) for step in (0, 1, 3, 9)] == [0.5, 1.0, 2.0, 2.0]


def test_every_epoch_takes_each_row_once_in_chunks_of_nearly_one_size(mean_model, series):
    model = mean_model()
    fit(model, series, config=settings(steps=6, batch_size=4))
    assert [len(ids) for ids in model.seen] == [4, 3, 3, 4, 3, 3]
    epochs = [sum(model.seen[:3], ()), sum(model.seen[3:], ())]
    assert all(sorted(epoch) == sorted(series.ids) for epoch in epochs)
    assert epochs[0] != epochs[1] != series.ids


def test_seeds_decide_and_the_callers_random_state_is_left_alone(mean_model, series):
    models = [mean_model(noisy=True) for _ in range(3)]
    before = torch.get_rng_state()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        fit(model, series, config=settings(batch_size=3, seed=seed))
    weights = [model.mean for model in models]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_weights_of_the_best_validation_are_kept_and_patience_counts(mean_model, series):
    model, values, weights = mean_model(), iter([5.0, 4.0, 6.0, math.nan, 3.0]), []

    def validate(model, rows):
        assert not torch.is_grad_enabled() and not model.training and rows.num_rows == series.num_rows
        weights.append(model.mean.clone())
        return next(values)

    result = fit(model, series, series, settings(validate_every=5, patience=2), validate=validate)
    assert (result.stopped, result.best_step, result.best_value) == ("patience", 10, 4.0)
    assert torch.equal(model.mean, weights[1]) and len(weights) == 4
    assert [r["validation"] for r in result.history if "validation" in r] == [5.0, 4.0, 6.0, None]


def test_nothing_is_selected_before_its_time(mean_model, series):
    values = iter([0.0, 0.0, 7.0, 6.0, 8.0, 9.0, 9.0, 9.0])
    config = settings(validate_every=5, select_after=0.25, patience=5)
    result = fit(mean_model(), series, series, config, validate=lambda model, rows: next(values))
    assert (result.best_step, result.best_value, result.stopped) == (20, 6.0, "steps")


def test_the_moving_average_is_what_is_validated_and_kept(mean_model, series):
    model, seen = mean_model(), []

    def validate(model, rows):
        seen.append(model.mean.clone())
        return -float(len(seen))

    fit(model, series, series, settings(steps=20, validate_every=10, ema=0.9), validate=validate)
    plain = mean_model()
    fit(plain, series, config=settings(steps=20))
    assert torch.equal(model.mean, seen[-1]) and not torch.allclose(plain.mean, seen[-1], atol=1e-3)


def test_validation_is_the_mean_negative_elbo_whatever_the_chunks(mean_model, series):
    found = []
    for size in (0, 3):
        model = mean_model()
        result = fit(model, series, series, settings(steps=1, batch_size=size, learning_rate=1e-300))
        found.append(result.best_value)
    expected = ((series.values**2) * series.mask).sum().item() / 2 / series.num_rows
    assert found == pytest.approx([expected, expected], rel=1e-12)


def test_validations_share_their_random_numbers(mean_model, series):
    config = settings(steps=30, validate_every=10, learning_rate=1e-300)
    values = [r["validation"] for r in fit(mean_model(noisy=True), series, series, config).history if "validation" in r]
    assert len(values) == 3 and len(set(values)) == 1


def test_every_part_of_the_loss_is_recorded(mean_model, series, tmp_path):
    result = fit(mean_model(noisy=True), series, series, settings(kl_warmup_steps=100), folder=tmp_path)
    losses = [r for r in result.history if "objective" in r]
    assert [r["step"] for r in losses] == [10, 20, 30, 40]
    for r in losses:  # the KL weight changes within a window of 10 steps, so the parts bracket the objective
        assert r["path_kl"] > 0 and r["initial_kl"] == r["filter_loss"] == 0
        assert -r["log_likelihood"] < r["objective"] < -r["log_likelihood"] + r["path_kl"]
    assert losses[-1]["kl_weight"] == pytest.approx(0.4) and losses[-1]["learning_rate"] == 0.1
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_precisions(mean_model, series, mean_of_observed, precision):
    dtype = torch.float64 if precision == "float64" else torch.float32
    model = mean_model()
    fit(model, series, config=settings(steps=300, schedule="cosine", precision=precision))
    assert model.mean.dtype == dtype
    assert torch.allclose(model.mean.double(), mean_of_observed(series), atol=3e-2 if precision == "bfloat16" else 1e-4)


def test_one_row_and_batches_larger_than_the_data(mean_model, series, mean_of_observed):
    model, one = mean_model(), series.rows([4])
    fit(model, one, config=settings(steps=400, batch_size=64, schedule="cosine"))
    assert torch.allclose(model.mean, mean_of_observed(one), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: 0"),
        ({"learning_rate": float("nan")}, "learning_rate: nan"),
        ({"ema": 1.0}, "ema"),
        ({"optimizer": "sgd"}, "optimizer: 'sgd'.*adam, adamw"),
        ({"precision": "float16"}, "precision: 'float16'"),
        ({"weight_decay": 0.1}, "weight_decay.*adamw"),
        ({"clip_norm": float("nan")}, "clip_norm: nan"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_requests_that_cannot_be_met_are_named(mean_model, series):
    with pytest.raises(ValueError, match="validation: rows are wanted"):
        fit(mean_model(), series, config=settings(), validate=lambda model, rows: 0.0)
    frozen = mean_model()
    frozen.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameters to train"):
        fit(frozen, series, config=settings())
    wrong = mean_model()
    wrong.loss = lambda batch, generator: Loss(*torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"log_likelihood has shape \(3,\), and \(10,\)"):
        fit(wrong, series, config=settings())
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: 'cuda'"):
            fit(mean_model(), series, config=settings(device="cuda"))


def test_augment_changes_what_is_trained_on_and_not_what_is_validated(mean_model, series, mean_of_observed):
    draws = []

    def shift(batch, generator):
        draws.append(torch.randn((), generator=generator).item())
        return SeriesBatch(batch.times, batch.values + 3.0 * batch.mask, batch.mask, ids=batch.ids)

    model = mean_model()
    config = settings(steps=400, schedule="cosine", warmup_steps=10, validate_every=400)
    result = fit(model, series, series, config, augment=shift)
    assert torch.allclose(model.mean, mean_of_observed(series) + 3.0, atol=1e-6)
    assert result.best_value == pytest.approx(-model.loss(series).elbo.mean().item())
    first, draws[:] = draws[:], []
    fit(mean_model(), series, config=settings(steps=5), augment=shift)
    assert draws == first[:5] and len(set(first)) == 400  # a step's draws are the seed's, and no two steps share them
