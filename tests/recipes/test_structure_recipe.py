"""The recipe for structure from a file to a report, and what bad input gets."""

from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pandas as pd
import pytest

from neurodyn.datasets import load_structure
from neurodyn.models.scotch import Scotch
from neurodyn.models.structure import edge_table
from neurodyn.recipes import structure as recipe
from neurodyn.recipes.structure import Config, load, main, run


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A chain of three as a wide CSV, with gaps."""
    series = load_structure("coupled_sdes", variables=3, rows=4, points=30, missing=0.1).series
    path = tmp_path / "chain.csv"
    series.to_frame().to_csv(path, index=False)
    return path


def quick(path: Path, folder: Path, **options: Any) -> Config:
    chosen: dict[str, Any] = {"seeds": 2, "quick": True, "device": "cpu", "baselines": ("ridge",)}
    return Config(data=path, folder=folder, **chosen | options)


def test_a_wide_file_gives_tables_a_graph_pictures_and_a_model(wide: Path, tmp_path: Path, capsys) -> None:
    config = quick(wide, tmp_path / "run", known=("x1>x2",), forbidden=("x3>x1",), intervene=("x1=1.5",))
    folder = run(config)
    edges = pd.read_csv(folder / "tables" / "edges.csv")
    assert list(edges.columns) == ["source", "target", "probability", "sd", "score", "score sd"] and len(edges) == 9
    assert edges.score.is_monotonic_decreasing
    chosen = edges.set_index(["source", "target"])
    assert chosen.loc[("x1", "x2"), "probability"] == pytest.approx(1) and chosen.loc[("x3", "x1"), "probability"] == 0
    matrix = pd.read_csv(folder / "tables" / "probabilities.csv", index_col=0)
    assert matrix.loc["x1", "x2"] == pytest.approx(1)  # rows drive columns
    graph = networkx.read_graphml(folder / "graph.graphml")
    assert set(graph.nodes) == {"x1", "x2", "x3"} and graph.has_edge("x1", "x2") and not graph.has_edge("x3", "x1")
    law = Scotch.load(folder / "model")
    assert law.edge_probabilities().numpy().tolist() == (matrix.to_numpy() > 0.5).astype(float).tolist()
    page = (folder / "report.html").read_text()
    for words in (">Who drives whom<", ">Forecasts<", "x1 held at 1.5", "x1 &gt; x2"):
        assert words in page
    assert {path.name for path in (folder / "plots").iterdir()} >= {"who-drives-whom-1.png", "who-drives-whom-2.png"}
    assert "x1" in capsys.readouterr().out
    assert run(config) == folder  # again: everything is there


def test_a_long_file_is_the_same_task(wide: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(wide)
    long = (
        frame.melt(["unique_id", "ds"], var_name="what", value_name="reading").dropna().sample(frac=1, random_state=0)
    )
    long.to_csv(tmp_path / "long.csv", index=False)
    one = load(Config(data=wide)).series
    two = load(Config(data=tmp_path / "long.csv", variable="what", value="reading", values=("x1", "x2", "x3"))).series
    order = [two.ids.index(name) for name in one.ids]  # type: ignore[union-attr]
    np.testing.assert_array_equal(one.compact().values, two.rows(order).compact().values)
    assert one.variables == two.variables


def test_a_known_system_is_compared_with_its_graph(monkeypatch, tmp_path: Path) -> None:
    small = load_structure("coupled_sdes", variables=4, rows=3, points=30)
    monkeypatch.setattr(recipe.datasets, "load_structure", lambda name: small)
    folder = run(Config(quick=True, seeds=1, baselines=("ridge",), device="cpu", folder=tmp_path / "run"))
    table = pd.read_csv(folder / "tables" / "comparison.csv", index_col=0)
    assert len(table) == 2 and list(table.columns)[:3] == ["AUROC", "AUROC off the diagonal", "AUPRC"]
    assert "true" in pd.read_csv(folder / "tables" / "edges.csv").columns


def test_the_edge_table_is_mean_and_spread_over_fits() -> None:
    tables = np.array([[[0.0, 1.0], [0.2, 0.4]], [[0.0, 0.5], [0.4, 0.4]]])
    frame = edge_table(tables, 0.5 * tables, ("a", "b"))
    assert frame.iloc[0].tolist() == ["a", "b", 0.75, 0.25, 0.375, 0.125]
    line = frame[(frame.source == "b") & (frame.target == "a")].iloc[0]
    assert line.probability == pytest.approx(0.3) and line.sd == pytest.approx(0.1)


def test_visits_that_are_far_apart_get_a_warning(wide: Path, tmp_path: Path, caplog) -> None:
    """White noise has forgotten itself by the next visit; a chain at its own spacing has not."""
    random = np.random.default_rng(0)
    frame = pd.read_csv(wide)
    frame[["x1", "x2", "x3"]] = random.normal(size=(len(frame), 3))
    frame.to_csv(tmp_path / "white.csv", index=False)
    for path, warned in ((tmp_path / "white.csv", True), (wide, False)):
        caplog.clear()
        folder = run(quick(path, tmp_path / path.stem, seeds=1))
        said = any("may be too far apart" in line.getMessage() for line in caplog.records)
        assert said is warned
        assert ("may be too far apart" in (folder / "report.html").read_text()) is warned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.head(20), "series: 19 intervals between visits given over 1 series, 30 or more wanted"),
        (lambda f: f.assign(x2=3.0), r"\['x2'\] constant in 4 rows; leave these variables out"),
        (lambda f: pd.concat([f, f.iloc[[7]]]), "twice|two lines"),
        (lambda f: f[["unique_id", "ds", "x1"]], "series: 1 variable given, 2 or more wanted"),
    ],
)
def test_series_that_tell_nothing_are_refused_in_a_sentence(change, message, wide: Path, tmp_path: Path) -> None:
    change(pd.read_csv(wide)).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(ValueError, match=message):
        run(quick(tmp_path / "bad.csv", tmp_path / "run"))
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known": ("x1-x2",)}, "known: 'x1-x2' given, 'cause>effect' with two of x1, x2, x3 wanted"),
        ({"forbidden": ("x1>y",)}, "forbidden: 'x1>y' given"),
        ({"known": ("x1>x2",), "forbidden": ("x1>x2",)}, "given in both"),
        ({"intervene": ("x1=high",)}, "intervene: 'x1=high' given, 'name=number'"),
        ({"intervene": ("z=1",)}, "intervene: 'z=1' given"),
        ({"threshold": 1.0}, "threshold: 1.0 given"),
        ({"seeds": 0}, "seeds: 0 given, 1 or more"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str, wide: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(Config(data=wide, **options))


def test_the_command_line_says_it_in_one_line(wide: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["structure.py", "--data", str(wide), "--known", "a>b"])
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1
