"""Pictures of graphs, and graphs for other programs. Matrices are [i, j] for i drives j.

Needs networkx (the extra `structure`) where a graph is laid out or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from neurodyn import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 16  # variables up to which every cell has its number


def edge_matrix(
    probabilities: ArrayLike,
    names: Sequence[str],
    *,
    truth: ArrayLike | None = None,
    label: str = "probability of the edge",
) -> Figure:
    """Who (rows) drives whom (columns): a cell per edge, darker where surer; a ring where a known graph has one.

    Args:
        probabilities: (D, D), in [0, 1]. names: of the D variables. truth: (D, D) of zeros and ones.
    """
    table = np.asarray(probabilities, dtype=float)
    size = len(names)
    side = min(9.0, 2.2 + 0.38 * size)
    figure, axes = style.grid_of_axes(1, 1, width=side + 0.9, height=side)
    one = axes[0, 0]
    one.grid(False)
    shown = one.imshow(table, cmap=_pale_to_blue(), vmin=0, vmax=1)
    ticks = range(size) if size <= 40 else range(0, size, 10)
    one.set_xticks(list(ticks), [names[k] for k in ticks], rotation=90)
    one.set_yticks(list(ticks), [names[k] for k in ticks])
    one.set_xlabel("is driven")
    one.set_ylabel("drives")
    if size <= FEW:
        for i in range(size):
            for j in range(size):
                dark = table[i, j] > 0.55
                one.text(
                    j,
                    i,
                    f"{table[i, j]:.2f}",
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if dark else style.INK,
                )
    if truth is not None:
        sources, targets = np.nonzero(np.asarray(truth))
        one.scatter(
            targets,
            sources,
            s=(180 * side / (size + 4)),
            facecolors="none",
            edgecolors=style.VERMILLION,
            linewidths=1.2,
        )
    figure.colorbar(shown, ax=one, shrink=0.7).set_label(label, fontsize=8.5)
    return figure


def drawn_graph(probabilities: ArrayLike, names: Sequence[str], *, threshold: float = 0.5) -> Figure:
    """The edges with a probability above the threshold, on a circle; wider where surer. Self-loops are rings on nodes.

    Raises:
        ImportError: without networkx.
    """
    networkx = _networkx()
    table = np.asarray(probabilities, dtype=float)
    graph = to_networkx(table, names, threshold=threshold)
    side = min(9.0, 3.5 + 0.16 * len(names))
    figure, axes = style.grid_of_axes(1, 1, width=side, height=side)
    one = axes[0, 0]
    one.set_axis_off()
    place = networkx.circular_layout(graph)
    loops = [name for name in graph if graph.has_edge(name, name)]
    rim = [style.VERMILLION if name in loops else style.QUIET for name in graph]
    networkx.draw_networkx_nodes(
        graph, place, ax=one, node_color="white", edgecolors=rim, node_size=620, linewidths=1.6
    )
    networkx.draw_networkx_labels(graph, place, ax=one, font_size=8, font_color=style.INK)
    arrows = [(a, b) for a, b in graph.edges if a != b]
    networkx.draw_networkx_edges(
        graph,
        place,
        edgelist=arrows,
        ax=one,
        edge_color=style.BLUE,
        width=[0.6 + 2.0 * graph.edges[edge]["probability"] for edge in arrows],
        node_size=620,
        connectionstyle="arc3,rad=0.12",
        arrowsize=12,
    )
    one.margins(0.12)
    return figure


def to_networkx(probabilities: ArrayLike, names: Sequence[str], *, threshold: float = 0.5) -> Any:
    """A networkx DiGraph of all variables and of the edges above the threshold, each with its `probability`.

    Raises:
        ImportError: without networkx. ValueError: names and matrix of unlike sizes.
    """
    networkx = _networkx()
    table = np.asarray(probabilities, dtype=float)
    if table.shape != (len(names), len(names)):
        raise ValueError(f"probabilities: shape {table.shape} given, ({len(names)}, {len(names)}) wanted, as names")
    graph = networkx.DiGraph()
    graph.add_nodes_from(names)
    for source, target in np.argwhere(table > threshold).tolist():
        graph.add_edge(names[source], names[target], probability=float(table[source, target]))
    return graph


def _pale_to_blue() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("neurodyn_edges", ["#ffffff", style.SKY, style.BLUE, "#003f66"])


def _networkx() -> Any:
    try:
        import networkx
    except ImportError as error:
        raise ImportError("networkx is needed for this: pip install 'neurodyn[structure]'") from error
    return networkx
