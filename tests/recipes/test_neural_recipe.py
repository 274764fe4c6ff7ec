"""The recipe for populations from data to a report, on files too, and what bad input gets."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from neurodyn import datasets
from neurodyn.datasets.spikes import counts_of
from neurodyn.models.langevin_flow import LangevinFlow
from neurodyn.recipes import population_task
from neurodyn.recipes.neural_population import run
from neurodyn.recipes.population_task import Config, load


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller population in place of the default one."""
    original = datasets.load

    def load_small(name: str, /, **options: object) -> object:
        sizes = {"conditions": 3, "trials": 10, "neurons": 10, "bins": 20}
        return original(name, **(sizes | options if name == "population_dynamics" else options))

    monkeypatch.setattr(population_task.datasets, "load", load_small)


def test_the_default_run_has_a_table_pictures_rates_and_a_model(monkeypatch, tmp_path: Path, capsys) -> None:
    small(monkeypatch)
    config = Config(quick=True, baselines=("smoothing", "factors"), device="cpu", folder=tmp_path / "run")
    folder = run(config)
    table = pd.read_csv(folder / "tables" / "comparison.csv", index_col=0)
    assert (
        list(table.columns) == ["co-bps", "fp-bps", "decoding R2", "PSTH R2", "rate R2", "fit seconds"]
        and len(table) == 3
    )
    assert table["co-bps"].is_monotonic_decreasing
    task = load(config)
    with h5py.File(folder / "rates.h5") as file:
        held_out = file["population_dynamics/eval_rates_heldout"][()]
        assert held_out.shape == (len(task.test), 16, 2) and (held_out >= 0).all()
        assert file["population_dynamics/train_rates_heldin_forward"].shape == (len(task.train), 4, 8)
    model = LangevinFlow.load(folder / "model").eval()
    again = model.rates(task.test.history(count=16), 20)[:, :16, list(task.held_out)]
    np.testing.assert_allclose(held_out, again.numpy(), rtol=1e-5)
    latents = np.load(folder / "latents.npz")
    wanted = model.latents(task.test.history(count=16), 20, num_samples=16)[:, :, :16].mean(0).numpy()
    np.testing.assert_allclose(latents["eval"], wanted, rtol=1e-4, atol=1e-5)
    assert latents["train"].shape == (len(task.train), 16, wanted.shape[-1]) and latents["times"].shape == (16,)
    assert latents["eval_trials"].tolist() == list(task.test.ids)
    page = (folder / "report.html").read_text()
    for heading in ("Spikes and rates", "Latents", "Law of motion", "Behaviour", "Comparison"):
        assert f">{heading}<" in page
    assert "co-bps" in capsys.readouterr().out


def test_tensors_of_lfads_are_fitted_with_a_potential(tmp_path: Path) -> None:
    parts = datasets.load("population_dynamics", conditions=2, trials=10, neurons=10, bins=20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train_data"], file["valid_data"] = counts_of(parts.train), counts_of(parts.test)
        file["valid_truth"] = parts.info["rates"]["test"].numpy() / 0.02
    config = Config(
        data=tmp_path / "a.h5",
        drift="potential",
        latent_size=2,
        quick=True,
        baselines=(),
        device="cpu",
        folder=tmp_path / "run",
    )
    task = load(config)
    assert task.held_out == (0, 5) and task.observed == 16 and task.truth is not None
    table = pd.read_csv(run(config) / "tables" / "comparison.csv", index_col=0)
    assert list(table.columns) == ["co-bps", "fp-bps", "rate R2", "fit seconds"]


def test_trials_whose_spikes_are_kept_back_get_rates_and_no_ranking(tmp_path: Path, capsys) -> None:
    """The benchmark's test phase: held-in spikes of the evaluation trials are all there is."""
    parts = datasets.load("population_dynamics", conditions=2, trials=10, neurons=10, bins=20)
    train, test = counts_of(parts.train), counts_of(parts.test)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for side, chosen in (("heldin", slice(0, 8)), ("heldout", slice(8, 10))):
            file[f"train_spikes_{side}"] = train[:, :16, chosen]
            file[f"train_spikes_{side}_forward"] = train[:, 16:, chosen]
        file["eval_spikes_heldin"] = test[:, :16, :8]
    config = Config(
        data=tmp_path / "a.h5", bin_width=0.02, quick=True, baselines=("smoothing",), folder=tmp_path / "run"
    )
    folder = run(config)
    table = pd.read_csv(folder / "tables" / "comparison.csv", index_col=0)
    assert list(table.columns) == ["fit seconds"] and len(table) == 2
    with h5py.File(folder / "rates.h5") as file:
        (group,) = file.values()
        rates = group["eval_rates_heldout_forward"][()]
        assert rates.shape == (len(test), 4, 2) and (rates > 0).all()
    assert "no counts to score" in capsys.readouterr().out
    page = (folder / "report.html").read_text()
    assert "no counts to score" in page and ">Spikes and rates<" in page and ">Comparison<" not in page


def test_bad_options_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset: 'lorentz' given"):
        load(Config(dataset="lorentz"))
    with pytest.raises(ValueError, match="steps: 0 given"):
        load(Config(steps=0))
    with pytest.raises(ValueError, match="latent_size: 0 given"):
        load(Config(latent_size=0))
    with pytest.raises(ValueError, match="set: given for a file that is no NWB file"):
        load(Config(data=tmp_path / "a.h5", set="mc_maze"))
    with pytest.raises(ValueError, match=r"data: .*a.csv given, a file ending in .nwb, .h5 or .hdf5 wanted"):
        load(Config(data=tmp_path / "a.csv"))
    with pytest.raises(FileNotFoundError, match="a.h5"):
        load(Config(data=tmp_path / "a.h5"))
