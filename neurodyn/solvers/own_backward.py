"""What solves with a backward pass of their own share: which tensors get gradients, and how outputs are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.loop import Cost
from neurodyn.solvers.schemes import Left, Scheme

Params = Sequence[Tensor | Sequence[Tensor]]
"""Tensors, and lists of N of them, of which step number k uses the k-th only."""


class Wanted(NamedTuple):
    """Which of the tensors that get gradients are used by which steps.

    Attributes:
        shared: places of those that any step may use.
        of_step: places of those that one step uses.
    """

    shared: list[int]
    of_step: dict[int, list[int]]

    def between(self, start: int, stop: int) -> list[int]:
        """Places of those that steps start..stop-1 use."""
        return [*self.shared, *(place for k in range(start, stop) for place in self.of_step.get(k, ()))]


def solve_by(
    function: type[torch.autograd.Function],
    scheme: Scheme,
    cost: Cost | None,
    z0: Tensor,
    noise: Tensor | Brownian,
    params: Params,
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """States at the visits by their place in the grid, and costs by gap, with gradients to z0 and `params`.

    Args:
        function: its forward takes (scheme, cost, noise, places, gaps, wanted, z0, *params) and returns the states at
            `places`, then the costs of `gaps`.
        scheme, cost, z0, noise, params: as in `integrate_visits`.

    Raises:
        ValueError: noise that requires gradients, which these ways do not have; a tensor that drift, diffusion or cost
            use and that requires gradients, but is not among `params`: it would silently get none; one that would get
            its gradient twice, because another of `params` is computed from it; a list of another length than N.
    """
    if isinstance(noise, Tensor) and noise.requires_grad:
        raise ValueError("noise: requires gradients, which only gradient='backprop' gives")
    if not scheme.grid.num_steps:
        return {}, {}
    steps = scheme.grid.num_steps
    given: list[tuple[Tensor, int | None]] = []
    for entry in params:
        if isinstance(entry, Tensor):
            given.append((entry, None))
        elif len(entry) == steps:
            given += [(tensor, k) for k, tensor in enumerate(entry)]
        else:
            raise ValueError(f"params: got a list of {len(entry)} tensors, want one for each of the {steps} steps")
    given = [(tensor, k) for tensor, k in given if tensor.requires_grad]
    if torch.is_grad_enabled():
        used = {id(tensor) for tensor in _used_params(scheme, cost, z0, [tensor for tensor, _ in given])}
        given = [(tensor, k) for tensor, k in given if id(tensor) in used]
    wanted = Wanted([], {})
    for place, (_, k) in enumerate(given):
        (wanted.shared if k is None else wanted.of_step.setdefault(k, [])).append(place)
    places = [place for place in scheme.visits if place > 0]
    gaps = list(dict.fromkeys(scheme.gap_of)) if cost is not None else []
    out = function.apply(scheme, cost, noise, places, gaps, wanted, z0, *(tensor for tensor, _ in given))
    return dict(zip(places, out[: len(places)], strict=True)), dict(zip(gaps, out[len(places) :], strict=True))


def add_gradients(totals: list[Tensor], found: Sequence[Tensor | None], places: Sequence[int] | None = None) -> None:
    """Add what was found to the totals, in place; `places` says to which of them, all if not given."""
    for place, grad in zip(range(len(totals)) if places is None else places, found, strict=True):
        if grad is not None:
            totals[place].add_(grad)


def _used_params(scheme: Scheme, cost: Cost | None, z0: Tensor, params: list[Tensor]) -> list[Tensor]:
    """The params without the leaves that act through others of them only, whose gradients come by way of those.

    Found in the graph of the first step's functions, whose leaves must all be known.
    """
    point, t = z0.detach(), scheme.times[0]
    f, g = scheme.drift(0, t, point), scheme.diffusion(0, t, point)
    values = [f, g] if cost is None else [f, g, cost(0, t, Left(point, f, g))]
    computed = {_edge(parameter) for parameter in params if parameter.grad_fn is not None}
    _, direct = _ancestors([_edge(value) for value in values], computed)
    leaves = {id(parameter) for parameter in params}
    for leaf in direct:
        if id(leaf) not in leaves:
            raise ValueError(f"params: lacks a tensor of shape {tuple(leaf.shape)} that needs gradients and is used")
    behind, indirect = _ancestors([parent for node, _ in computed for parent in node.next_functions], set())
    if behind & computed:
        raise ValueError("params: one of them is computed from another one, want only one of the two")
    direct_ids, indirect_ids = {id(leaf) for leaf in direct}, {id(leaf) for leaf in indirect}
    for parameter in params:
        if id(parameter) in direct_ids & indirect_ids:
            shape = tuple(parameter.shape)
            raise ValueError(f"params: one of shape {shape} is used both by itself and through another one of them")
    return [parameter for parameter in params if id(parameter) not in indirect_ids]


# A place in autograd's graph: a node, and which of its outputs. No node stands for what needs no gradient.
Edge = tuple[Any, int]


def _edge(tensor: Tensor) -> Edge:
    return tensor.grad_fn, tensor.output_nr


def _ancestors(edges: list[Edge], stop: set[Edge]) -> tuple[set[Edge], list[Tensor]]:
    """All of the graph behind `edges`, not going past those in `stop`, and the leaves in it."""
    seen: set[Edge] = set()
    leaves = []
    while edges:
        edge = edges.pop()
        if edge[0] is None or edge in seen or edge in stop:
            continue
        seen.add(edge)
        if hasattr(edge[0], "variable"):
            leaves.append(edge[0].variable)
        edges += edge[0].next_functions
    return seen, leaves
