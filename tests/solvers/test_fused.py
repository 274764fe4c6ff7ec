"""The fused engine. Its checks (fused_checks.py) run in a process of their own: Triton decides when it is first read
whether its kernels are interpreted."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.sde.base import SDE
from neurodyn.sde.neural import MLPSDE
from neurodyn.solvers import sdeint
from neurodyn.solvers.fused import integrate_fused
from neurodyn.solvers.fused_laws import fused_law, plain_diffusion
from neurodyn.solvers.grid import step_grid

CHECKS = Path(__file__).with_name("fused_checks.py")
TIMES = [0.0, 0.5, 1.0]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_kernels_agree_with_the_eager_engine():
    extra = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CHECKS)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **extra}, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_states_elsewhere_are_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    law, z0 = MLPSDE(2).to("meta"), torch.zeros(3, 2, device="meta")
    grid = step_grid(torch.tensor(TIMES), 0.1)
    with pytest.raises(ValueError, match="^engine: got 'fused' on meta, want states on a CPU or a CUDA device$"):
        integrate_fused(fused_law(law), z0, grid, torch.zeros(grid.num_steps, 3, 2, device="meta"))


class Foreign(SDE):
    noise_type, state_size, noise_size = "diagonal", 2, 2


@pytest.mark.parametrize(
    ("law", "told"),
    [
        (Foreign(), "for a Foreign, want an MLPSDE"),
        (MLPSDE(2, hidden_layers=2), "another drift, want one hidden layer"),
        (MLPSDE(2, linear=True), "another drift"),
        (MLPSDE(2, bounded=1.0), "another drift"),
        (MLPSDE(2, time_dependent=True), "another drift"),
        (MLPSDE(2, activation="tanh"), "another drift"),
        (MLPSDE(2, diffusion="constant"), "another diffusion"),
        (MLPSDE(2, noise_type="general"), "another diffusion"),
        (MLPSDE(2, sde_type="stratonovich"), "another diffusion"),
    ],
)
def test_other_laws_are_refused(law, told):
    with pytest.raises(ValueError, match=f"^engine: got 'fused' .*{told}"):
        fused_law(law)


def test_other_diffusion_networks_are_refused():
    with pytest.raises(ValueError, match="^engine: got 'fused' for a diffusion with other networks"):
        plain_diffusion(MLPSDE(2, hidden_layers=2))


@pytest.mark.parametrize(
    "options", [{"method": "milstein"}, {"gradient": "checkpoint"}, {"gradient": "reversible"}, {"gradient": "adjoint"}]
)
def test_other_methods_and_gradients_are_refused(options):
    with pytest.raises(ValueError, match="^engine: got 'fused' with another method"):
        sdeint(MLPSDE(2), torch.zeros(3, 2), TIMES, dt=0.1, engine="fused", **options)


@pytest.mark.parametrize("options", [{"method": "milstein"}, {"gradient": "checkpoint"}, {"network": False}])
def test_the_simulated_posterior_refuses_what_the_kernels_lack(options):
    with pytest.raises(ValueError, match="^engine: 'fused' given with another"):
        SimulatedPosterior(2, 2, 4, longest_step=0.1, engine="fused", **options)
    with pytest.raises(ValueError, match="^engine: 'quick' given"):
        SimulatedPosterior(2, 2, 4, longest_step=0.1, engine="quick", **options)


def test_networks_that_do_not_fit_and_wrong_keys_are_refused(monkeypatch):
    monkeypatch.setattr("neurodyn.solvers.fused._kernels", lambda z0: None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # as on a GPU: the CPU's kernels take any size
    grid = step_grid(TIMES, 0.1)
    keys = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="^engine: got 'fused' for 100 coordinates and 64 hidden units"):
        integrate_fused(fused_law(MLPSDE(100)), torch.zeros(3, 100), grid, keys)
    with pytest.raises(ValueError, match=r"^noise: got keys of shape \(3,\) for rows \(4,\)"):
        integrate_fused(fused_law(MLPSDE(2)), torch.zeros(4, 2), grid, keys)
    with pytest.raises(ValueError, match="^noise: got shape"):
        integrate_fused(fused_law(MLPSDE(2)), torch.zeros(4, 2), grid, torch.zeros(9, 4, 2))
