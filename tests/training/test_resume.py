"""A run that is killed, interrupted or diverges, and what is left of it."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from neurodyn.training import DivergedError, FitConfig, fit


class Killed(BaseException):
    """Stands for a power cut: nothing in the package may catch it."""


def settings(**changes) -> FitConfig:
    plain = {
        "steps": 40,
        "batch_size": 3,
        "learning_rate": 0.05,
        "warmup_steps": 30,
        "clip_norm": 1.0,
        "ema": 0.9,
        "validate_every": 8,
        "patience": 50,
        "kl_warmup_steps": 30,
        "checkpoint_every": 20,
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "device": "cpu",
        "progress": False,
    }
    return FitConfig(**(plain | changes))


def stop_at(model, step: int, how) -> None:
    """Make a model's loss call `how` at a training step, counted from 1."""
    loss, calls = model.loss, []

    def stopping(batch, *, generator=None):
        calls.append(model.training)
        if sum(calls) == step:
            how()
        return loss(batch, generator=generator)

    model.loss = stopping


def kill() -> None:
    raise Killed


def same(model, other) -> bool:
    mine, theirs = model.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine if name != "calls")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.0, "optimizer": "adam", "weight_decay": 0.0},
        {"precision": "float64", "batch_size": 0},
    ],
    ids=["all", "plain", "float64"],
)
def test_a_killed_run_resumes_to_the_same_bits(mean_model, series, tmp_path, changes):
    config, rows, held = settings(**changes), series.rows(slice(0, 7)), series.rows(slice(7, 10))
    straight = mean_model(noisy=True)
    expected = fit(straight, rows, held, config, folder=tmp_path / "straight")
    victim = mean_model(noisy=True)
    stop_at(victim, 22, kill)
    with pytest.raises(Killed):
        fit(victim, rows, held, config, folder=tmp_path / "killed")
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 20
    again = mean_model(noisy=True)
    torch.nn.init.normal_(again.mean)
    found = fit(again, rows, held, config, folder=tmp_path / "killed")
    assert same(again, straight)
    assert replace(found, seconds=0) == replace(expected, seconds=0)
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected.history


def test_a_kill_after_more_steps_than_the_checkpoint_loses_only_those(mean_model, series, tmp_path):
    straight, victim, again = (mean_model(noisy=True) for _ in range(3))
    fit(straight, series, config=settings(), folder=tmp_path / "a")
    stop_at(victim, 37, kill)
    with pytest.raises(Killed):
        fit(victim, series, config=settings(), folder=tmp_path / "b")
    result = fit(again, series, config=settings(), folder=tmp_path / "b")
    assert same(again, straight) and [r["step"] for r in result.history if "objective" in r] == [10, 20, 30, 40]
    assert sum(len(ids) > 0 for ids in again.seen) == 20


def test_patience_is_counted_through_a_kill(mean_model, series, tmp_path):
    config = settings(patience=4, validate_every=4, checkpoint_every=10, steps=400)
    values = [5.0, 4.0, 6.0, 6.0, 6.0, 6.0, 1.0]

    def scripted(done: int):
        left = iter(values[done:])
        return lambda model, rows: next(left)

    victim, again = mean_model(), mean_model()
    stop_at(victim, 15, kill)  # 3 validations made, 2 of them (4, 8) before the checkpoint of step 10
    with pytest.raises(Killed):
        fit(victim, series, series, config, folder=tmp_path, validate=scripted(0))
    result = fit(again, series, series, config, folder=tmp_path, validate=scripted(2))
    assert (result.stopped, result.best_step, result.best_value) == ("patience", 8, 4.0)
    assert result.history[-1]["step"] == 24


def test_a_finished_run_returns_at_once(mean_model, series, tmp_path):
    first, second = mean_model(noisy=True), mean_model(noisy=True)
    expected = fit(first, series, series, settings(), folder=tmp_path)
    found = fit(second, series, series, settings(), folder=tmp_path)
    assert second.seen == [] and same(first, second) and found.history == expected.history


def test_resume_false_starts_again(mean_model, series, tmp_path):
    fit(mean_model(), series, config=settings(steps=10), folder=tmp_path)
    again = mean_model()
    fit(again, series, config=settings(steps=12), folder=tmp_path, resume=False)
    assert len(again.seen) == 12


def test_ctrl_c_leaves_a_checkpoint_and_the_best_weights(mean_model, series, tmp_path):
    straight, stopped, again = (mean_model(noisy=True) for _ in range(3))
    fit(straight, series, series, settings(), folder=tmp_path / "straight")
    stop_at(stopped, 27, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    result = fit(stopped, series, series, settings(), folder=tmp_path / "stopped")
    assert result.stopped == "interrupted" and signal.getsignal(signal.SIGINT) is before
    card = json.loads((tmp_path / "stopped" / "checkpoint" / "checkpoint.json").read_text())
    assert card["step"] == 27 and result.history[-1]["step"] == 24 and result.best_step in (8, 16, 24)
    fit(again, series, series, settings(), folder=tmp_path / "stopped")
    assert same(again, straight)
    # the steps between the last record and the interrupt are in the record of those that follow them
    records = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("straight", "stopped")]
    assert records[0] == records[1]


def test_an_interrupt_inside_the_loss_is_an_interrupt_too(mean_model, series, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    straight, stopped, again = (mean_model(noisy=True) for _ in range(3))
    fit(straight, series, config=settings(), folder=tmp_path / "straight")
    stop_at(stopped, 27, interrupt)
    assert fit(stopped, series, config=settings(), folder=tmp_path / "stopped").stopped == "interrupted"
    fit(again, series, config=settings(), folder=tmp_path / "stopped")
    assert same(again, straight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e20])
def test_a_diverging_loss_stops_and_gives_back_good_weights(mean_model, series, tmp_path, bad):
    model, good = mean_model(), mean_model()
    fit(good, series, config=settings(steps=40, schedule="constant", ema=0.0))
    loss, calls = model.loss, []

    def breaking(batch, *, generator=None):
        calls.append(1)
        found = loss(batch, generator=generator)
        return found._replace(filter_loss=found.filter_loss + bad * (model.mean**2).sum()) if len(calls) > 43 else found

    model.loss = breaking
    config = settings(steps=100, schedule="constant", ema=0.0)
    with pytest.raises(DivergedError, match="the weights of step 40 are back; try a lower learning_rate") as caught:
        fit(model, series, config=config, folder=tmp_path)
    assert same(model, good) and len(str(caught.value).splitlines()) == 1
    assert bad == 1e20 or "at step 44" in str(caught.value)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_weights_that_no_factorisation_takes_are_a_divergence_too(mean_model, series, tmp_path):
    model, loss = mean_model(), mean_model.loss

    def breaking(self, batch, *, generator=None):
        if not bool(self.mean.isfinite().all()):
            torch.linalg.cholesky(self.mean.diag())
        found = loss(self, batch, generator=generator)
        return found._replace(filter_loss=found.filter_loss + self.mean.sum() * torch.nan)

    model.loss = breaking.__get__(model)
    with pytest.raises(DivergedError, match="not finite, at step 1; the weights of step 0 are back"):
        fit(model, series, config=settings(steps=30), folder=tmp_path)
    assert bool(model.mean.isfinite().all())

    def singular(batch, *, generator=None):
        torch.linalg.cholesky(torch.zeros(2, 2))

    model.loss = singular
    with pytest.raises(DivergedError, match=r"a loss that cannot be computed, at step 1 \(.*cholesky") as caught:
        fit(model, series, config=settings(steps=30), folder=tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_checkpoints_of_another_run_are_refused_by_name(mean_model, series, tmp_path):
    class OtherModel(mean_model):
        pass

    fit(mean_model(), series, config=settings(steps=10), folder=tmp_path)
    with pytest.raises(ValueError, match="checkpoint of a MeanModel, and a OtherModel is to be trained"):
        fit(OtherModel(), series, config=settings(steps=10), folder=tmp_path)
    with pytest.raises(ValueError, match="another configuration .learning_rate 0.05 there and 0.1 here"):
        fit(mean_model(), series, config=settings(steps=10, learning_rate=0.1), folder=tmp_path)
    with pytest.raises(ValueError, match="other data .10 rows of 2 variables.* there and 9 rows"):
        fit(mean_model(), series.rows(slice(0, 9)), config=settings(steps=10), folder=tmp_path)
    with pytest.raises(ValueError, match=r"has mean of shape \(2,\) for \(3,\)"):
        model = mean_model()
        model.mean = torch.nn.Parameter(torch.zeros(3))
        fit(model, series, config=settings(steps=10), folder=tmp_path)


def test_a_damaged_checkpoint_is_one_clear_line(mean_model, series, tmp_path):
    fit(mean_model(), series, config=settings(steps=10), folder=tmp_path)
    tensors = next((tmp_path / "checkpoint").glob("*.safetensors"))
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a safetensors file, or was cut short"):
        fit(mean_model(), series, config=settings(steps=10), folder=tmp_path)
    (tmp_path / "checkpoint" / "checkpoint.json").write_text('{"format": 1, ')
    with pytest.raises(ValueError, match="is not JSON, or was cut short"):
        fit(mean_model(), series, config=settings(steps=10), folder=tmp_path)
