"""`import neurodyn`: what a program needs first is there, works together, and is imported when it is asked for."""

import ast
import importlib
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import neurodyn


class FromTorchsde(nn.Module):
    """A module as torchsde wants it, which knows nothing of this package: dz = -z dt + 0.5 dW."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return -y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.full_like(y, 0.5)


def test_sdeint_and_odeint_solve_from_the_face(generator) -> None:
    paths = neurodyn.sdeint(FromTorchsde(), torch.ones(2000, 1), [0.0, 1.0], dt=0.02, generator=generator)
    end = paths[:, -1]
    sd = 0.5 * math.sqrt((1 - math.exp(-2)) / 2)
    assert end.mean().item() == pytest.approx(math.exp(-1), abs=4 * sd / math.sqrt(2000) + 0.005)
    assert end.std().item() == pytest.approx(sd, rel=0.07)
    decay = neurodyn.odeint(lambda t, z: -z, torch.ones(1, 1), [0.0, 1.0], dt=0.05)
    assert decay[0, -1].item() == pytest.approx(math.exp(-1), abs=1e-6)


def test_a_frame_becomes_a_forecast_with_names_of_the_face_alone() -> None:
    frame = pd.DataFrame({"unique_id": list("aaabbb"), "ds": [0.0, 1, 2, 0, 2, 3], "y": [1.0, 2, 3, 5, 3, 2]})
    series = neurodyn.from_frame(frame)
    scaling = neurodyn.Scaling.fit(series)
    train = scaling.apply(series)
    model = neurodyn.LatentSDE.on(neurodyn.LinearSDE(num_variables=1), hidden_size=8, context_size=4)
    result = neurodyn.fit(model, train, None, neurodyn.FitConfig(steps=2, device="cpu", progress=False))
    forecast = model.forecast(train, train.last_time[:, None] + 0.5, num_samples=5).undo(scaling)
    assert isinstance(series, neurodyn.SeriesBatch) and isinstance(result, neurodyn.FitResult)
    assert isinstance(forecast, neurodyn.Forecast) and forecast.to_frame()["unique_id"].tolist() == ["a", "b"]


def test_names_are_imported_from_where_type_checkers_find_them() -> None:
    tree = ast.parse(Path(neurodyn.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert neurodyn._HOMES == seen
    assert sorted(neurodyn._HOMES) == sorted(neurodyn.__all__)
    for name, home in seen.items():
        assert getattr(neurodyn, name) is getattr(importlib.import_module(home), name)


def test_rooms_are_there_without_an_import_of_their_own() -> None:
    code = "import neurodyn; print(neurodyn.nets.mlp.__name__, neurodyn.plots.__name__, 'solvers' in dir(neurodyn))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["mlp", "neurodyn.plots", "True"]
    with pytest.raises(AttributeError, match="'neurodyn' has no attribute 'sdient'"):
        neurodyn.sdient  # noqa: B018


def test_importing_it_brings_nothing_and_a_model_no_pictures_command_lines_or_downloads() -> None:
    heavy = ("matplotlib", "tyro", "pooch", "scipy.integrate", "scipy.stats", "torchdiffeq")
    code = f"""
import sys, neurodyn
print("torch" in sys.modules)
neurodyn.LatentSDE, neurodyn.sdeint, neurodyn.odeint, neurodyn.fit, neurodyn.read_series, neurodyn.evaluate
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False", "[]"]
