"""Pictures of graphs show what they are given, the right way round."""

import numpy as np
import pytest

from neurodyn.plots.graphs import drawn_graph, edge_matrix, to_networkx

NAMES = ("a", "b", "c")
TABLE = np.array([[0.9, 0.8, 0.1], [0.2, 0.3, 0.7], [0.0, 0.4, 0.6]])


def test_rows_drive_columns() -> None:
    figure = edge_matrix(TABLE, NAMES, truth=np.eye(3))
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("drives", "is driven")
    np.testing.assert_array_equal(axes.images[0].get_array(), TABLE)
    texts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert texts[(1, 0)] == "0.80" and texts[(0, 1)] == "0.20"
    rings = axes.collections[0].get_offsets()
    assert sorted(map(tuple, rings.tolist())) == [(0, 0), (1, 1), (2, 2)]


def test_the_graph_has_the_edges_above_the_threshold() -> None:
    graph = to_networkx(TABLE, NAMES)
    assert set(graph.edges) == {("a", "a"), ("a", "b"), ("b", "c"), ("c", "c")}
    assert graph.edges["a", "b"]["probability"] == 0.8
    assert set(to_networkx(TABLE, NAMES, threshold=0.85).edges) == {("a", "a")}
    assert list(to_networkx(np.zeros((3, 3)), NAMES).nodes) == list(NAMES)
    figure = drawn_graph(TABLE, NAMES)
    words = {text.get_text() for text in figure.axes[0].texts}
    assert set(NAMES) <= words and len(figure.axes[0].patches) == 2  # two arrows between variables
    drawn_graph(np.zeros((3, 3)), NAMES)


def test_sizes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"probabilities: shape \(3, 3\) given, \(2, 2\) wanted"):
        to_networkx(TABLE, ("a", "b"))
