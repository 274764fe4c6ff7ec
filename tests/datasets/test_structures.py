"""Systems with a known graph: the graph is the Jacobian's pattern, the paths follow the equations, real files fit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from neurodyn.datasets import (
    coupled_sdes,
    dream3,
    glycolysis,
    load_structure,
    lorenz96,
    netsim,
    sources,
    structure_names,
)


def pattern(drift, points: np.ndarray) -> np.ndarray:
    """Where the Jacobian d drift_j / d x_i is not zero at some point, [i, j], by central differences."""
    size, step = points.shape[-1], 1e-5
    found = np.zeros((size, size), dtype=bool)
    for i in range(size):
        move = step * np.eye(size)[i]
        found[i] = (np.abs(drift(points + move) - drift(points - move)) / (2 * step) > 1e-4).any(0)
    return found.astype(int)


def test_the_graphs_are_the_patterns_of_the_jacobians() -> None:
    random = np.random.default_rng(0)
    found = pattern(lambda x: lorenz96.drift(x, 10.0), random.normal(size=(20, 7)))
    assert np.array_equal(found, lorenz96.graph(7).numpy())
    found = pattern(glycolysis.drift, random.uniform(glycolysis.LOW, glycolysis.HIGH, (20, 7)))
    assert np.array_equal(found, glycolysis.graph().numpy())


def test_lorenz96_without_noise_is_the_equation() -> None:
    """Against scipy's integrator, over a time in which chaos has not grown the step's error."""
    from scipy.integrate import solve_ivp

    random = np.random.default_rng(0)
    paths = lorenz96.simulate(1, 6, 6, 0.1, 10.0, 0.0, random)[0]
    exact = solve_ivp(lambda t, x: lorenz96.drift(x, 10.0), (0, 0.5), paths[0], t_eval=np.arange(6) * 0.1, rtol=1e-9)
    assert np.abs(paths - exact.y.T).max() < 0.15 and np.abs(paths[1] - exact.y.T[1]).max() < 0.05


def test_noise_of_lorenz96_has_its_size() -> None:
    random = np.random.default_rng(0)
    paths = lorenz96.simulate(4000, 4, 2, lorenz96.STEP, 10.0, 0.5, random)
    moved = paths[:, 1] - paths[:, 0] - lorenz96.drift(paths[:, 0], 10.0) * lorenz96.STEP
    assert moved.std() == pytest.approx(0.5 * lorenz96.STEP**0.5, rel=0.03)


def test_glycolysis_without_noise_is_the_equation(monkeypatch) -> None:
    """Against scipy's stiff integrator, to what Euler steps of the published length miss; and it oscillates."""
    from scipy.integrate import solve_ivp

    monkeypatch.setattr(glycolysis, "NOISE", 0.0)
    path = glycolysis.simulate(1, 100, 0.1, np.random.default_rng(0))[0]
    times = np.arange(100) * 0.1
    exact = solve_ivp(
        lambda t, x: glycolysis.drift(x), (0, times[-1]), path[0], t_eval=times, method="LSODA", rtol=1e-8, atol=1e-10
    ).y.T
    assert np.abs(path - exact).max() < 0.3 and np.abs(path - exact)[-1].max() < 0.02
    assert exact[50:, 5].max() > 2 and exact[50:, 5].min() < 1


def test_noisy_glycolysis_is_finite() -> None:
    values = load_structure("glycolysis", rows=2, points=100, spacing=1.0).series.values
    assert values.isfinite().all() and values.abs().max() < 5


def test_a_chain_moves_as_its_equation_says() -> None:
    """Without noise and lag a leaf follows its parent: dx = -x + w tanh(2 parent)."""
    weights = np.array([[0.0, 1.5], [0.0, 0.0]])
    random = np.random.default_rng(0)
    path = coupled_sdes.simulate(weights, 1, 3000, coupled_sdes.STEP, 0.0, 0.4, random)[0]
    step = coupled_sdes.STEP
    moved = (path[1:] - path[:-1]) / step
    own, drive = path[:-1], np.tanh(2 * path[:-1])
    columns = np.stack([own[:, 0], own[:, 1], drive[:, 0], drive[:, 1]], 1)
    for k, wanted in ((0, (-1, 0, 0, 0)), (1, (0, -1, 1.5, 0))):
        # the standard error of least squares, four of them
        inverse = np.linalg.inv(columns.T @ columns)
        found = inverse @ columns.T @ moved[:, k]
        error = 4 * np.sqrt(np.diag(inverse)) * 0.4 / step**0.5
        assert (np.abs(found - wanted) < error).all()


def test_a_lag_delays_the_effect() -> None:
    weights = np.array([[0.0, 2.0], [0.0, 0.0]])
    path = coupled_sdes.simulate(weights, 1, 20000, 0.05, 1.0, 0.5, np.random.default_rng(0))[0]
    drive, moved = np.tanh(2 * path[:-1, 0]), path[1:, 1] - 0.95 * path[:-1, 1]
    with_lag = [np.corrcoef(drive[: len(drive) - k], moved[k:])[0, 1] for k in range(0, 41, 5)]
    assert int(np.argmax(with_lag)) == 4  # 20 steps of .05


def test_confounders_are_hidden_and_standardised_variances_equal() -> None:
    data = load_structure("coupled_sdes", layout="random", variables=6, confounders=2, standardised=True, seed=3)
    assert data.graph.shape == (6, 6) and data.series.num_variables == 6
    assert torch.equal(data.graph.diagonal(), torch.ones(6, dtype=torch.long))
    assert (data.graph.sum() - 6) == 5  # a tree has one edge less than nodes
    assert data.series.values.std((0, 1)).numpy() == pytest.approx(np.ones(6), abs=0.01)
    chain = load_structure("coupled_sdes", variables=3).graph
    assert chain.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
    alone = load_structure("coupled_sdes", layout="none", variables=3, confounders=1)
    assert alone.graph.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]] and not alone.info["weights"].any()


def test_what_is_dropped_is_shared_or_not() -> None:
    shared = load_structure("lorenz96", rows=6, points=400, spacing=0.05, dropped=0.4)
    assert (shared.series.present == shared.series.present[:1]).all()
    assert shared.series.num_times == pytest.approx(240, abs=40)
    own = load_structure("lorenz96", rows=6, points=400, spacing=0.05, dropped=0.4, shared=False, missing=0.2).series
    assert not (own.present == own.present[:1]).all()
    assert float(own.mask.float().sum()) / (6 * 400 * 10) == pytest.approx(0.6 * 0.8, abs=0.02)
    assert torch.allclose(shared.series.times[0] / 0.05, (shared.series.times[0] / 0.05).round())


def test_seeds_reproduce() -> None:
    one, same, other = (load_structure("lorenz96", points=5, seed=seed).series.values for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one[:, :2], other[:, :2])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lorenz69", {}, "name: 'lorenz69' given .did you mean 'lorenz96'"),
        ("lorenz96", {"variables": 3}, "variables: 3 given, 4 or more"),
        ("lorenz96", {"dropped": 1.0}, r"dropped: 1.0 given, a number from 0 up to 1"),
        ("glycolysis", {"points": 2}, "points: 2 given, 3 or more"),
        ("coupled_sdes", {"layout": "ring"}, "layout: 'ring' given"),
        ("coupled_sdes", {"lag": -1.0}, "lag: 5, 0, -1.0 given"),
        ("dream3", {"network": "Ecoli3"}, "network: 'Ecoli3' given"),
        ("netsim", {"subjects": (3, 3)}, r"subjects: \(3, 3\) given"),
    ],
)
def test_bad_options_are_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_structure(name, **options)


@pytest.mark.filterwarnings("ignore::neurodyn.datasets.sources.NoLicenceStated")
def test_files_that_are_not_there_or_broken_are_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("NEURODYN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"dream3_size100\.npz: not here"):
        dream3.load()
    for module, folder in ((dream3, "dream3"), (netsim, "netsim")):
        place = tmp_path / folder / module.FILE
        place.parent.mkdir()
        place.write_bytes(b"no archive")
        with pytest.raises(ValueError, match=r"altered or cut short \(sha256"):
            module.load()
        monkeypatch.setattr(module, "SHA256", sources.digest(place))
        with pytest.raises(ValueError, match=r"altered or cut short \(.*delete it and load again$"):
            module.load()


def real(folder: str, file: str) -> pytest.MarkDecorator:
    root = os.environ.get("NEURODYN_DATA")
    there = bool(root) and (Path(root or "") / folder / file).is_file()
    return pytest.mark.skipif(not there, reason="NEURODYN_DATA does not hold it")


@real("dream3", dream3.FILE)
def test_the_real_dream3_networks() -> None:
    edges = {}
    for network in dream3.NETWORKS:
        data = load_structure("dream3", network=network)
        assert data.series.values.shape == (46, 21, 100) and data.series.mask.all()
        assert (data.graph.diagonal() == 0).all()
        edges[network] = int(data.graph.sum())
    # of the challenge's networks of 100 genes (Prill et al. 2010, table 1)
    assert edges == {"Ecoli1": 125, "Ecoli2": 119, "Yeast1": 166, "Yeast2": 389, "Yeast3": 551}


@real("netsim", netsim.FILE)
def test_the_real_netsim_file(monkeypatch) -> None:
    monkeypatch.setattr(sources, "_told", set())
    with pytest.warns(sources.NoLicenceStated):
        data = load_structure("netsim", missing=0.2)
    assert data.series.values.shape == (5, 200, 15)
    assert float(data.series.mask.float().mean()) == pytest.approx(0.8, abs=0.02)
    # three rings of five regions, joined: 18 edges and 15 self-loops
    assert int(data.graph.sum()) == 33 and (data.graph.diagonal() == 1).all()


def test_all_have_a_name() -> None:
    assert set(structure_names()) == {"lorenz96", "glycolysis", "coupled_sdes", "dream3", "netsim"}
