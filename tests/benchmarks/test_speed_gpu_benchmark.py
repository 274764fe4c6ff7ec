"""The GPU benchmark: its ways take the same step, and a run makes records. Its kernels: tests/solvers/test_fused.py."""

import json

import numpy as np
import pytest
import torch

from benchmarks import speed_gpu
from benchmarks.rivals.gpu_steps import WAYS, EagerStep, TorchsdeOnDevice
from benchmarks.rivals.native_steps import NativeStep
from benchmarks.rivals.problem import GAPS, Sizes, make_problem
from benchmarks.rivals.step import Unavailable


def test_the_ways_take_the_step_of_the_speed_benchmark():
    problem = make_problem(Sizes(batch=3, steps=GAPS, latent=2), np.float64)
    increments = problem.increments(1)
    wanted = NativeStep(problem, "backprop").answer(increments)
    for step in (EagerStep(problem, "cpu"), TorchsdeOnDevice(problem, "cpu", "backprop")):
        found = step.answer(increments)
        assert found.loss == pytest.approx(wanted.loss, rel=1e-10)
        for name, value in wanted.gradients.items():
            assert np.abs(found.gradients[name] - value).max() < 1e-9 * np.abs(value).max(), name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_what_cannot_be_taken_here_says_so(capsys):
    problem = make_problem(Sizes(batch=2, steps=GAPS, latent=2))
    with pytest.raises(Unavailable, match="no CUDA graphs"):
        EagerStep(problem, "cpu").record()
    speed_gpu.main([])
    assert "there is no GPU here" in capsys.readouterr().err


def test_a_run_writes_records_of_what_works(monkeypatch, tmp_path):
    ways = [way for way in WAYS if way.name in ("neurodyn, eager", "neurodyn, SDE Matching", "neurodyn, fused")]
    monkeypatch.setattr(speed_gpu, "WAYS", ways)
    monkeypatch.setattr(speed_gpu, "AXES", {"steps": (25, 50), "batch": (2,), "latent": (2, 3)})
    monkeypatch.setattr(speed_gpu, "Sizes", lambda: Sizes(batch=2, steps=GAPS, latent=2))
    out = tmp_path / "speed_gpu.json"
    speed_gpu.main(["--device", "cpu", "--rounds", "3", "--seconds", "0", "--out", str(out)])
    records = json.loads(out.read_text())
    cells = {(r["table"], r["row"], r["column"]) for r in records}
    assert ("speed_gpu/steps", "neurodyn, eager", "50") in cells
    assert ("speed_gpu/latent", "neurodyn, SDE Matching", "3") in cells
    exact = [r["value"] for r in records if r["table"] == "speed_gpu/exact"]
    assert len(exact) == 2 and all(0 < error < 1e-4 for error in exact)  # float32 against float64
    assert all(r["value"] > 0 for r in records)


def test_a_way_that_fails_costs_the_others_nothing(capsys):
    def broken():
        raise RuntimeError("no such kernel\nand more")

    assert list(speed_gpu.working({"broken": broken, "fine": lambda: None})) == ["fine"]
    assert "broken: failed, RuntimeError: no such kernel" in capsys.readouterr().err


def test_the_floor_counts_by_hand():
    operations, moved = speed_gpu.needed(Sizes(batch=1, steps=25, latent=1))
    assert operations == 2 * (7 * 64) * 25 * 4 + 2 * 32 * 64 * 25 * 3
    assert moved == 4 * (2 * 448 + 2 * 25 + 3 * 25 * 32 + 5 * 25 * 64 + 4)
