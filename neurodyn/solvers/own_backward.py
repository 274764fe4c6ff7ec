"""What solves with a backward pass of their own share: which tensors get gradients, and how outputs are told apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurodyn.solvers.brownian import Brownian
from neurodyn.solvers.loop import Cost
from neurodyn.solvers.schemes import Left, Scheme


def solve_by(
    function: type[torch.autograd.Function],
    scheme: Scheme,
    cost: Cost | None,
    z0: Tensor,
    noise: Tensor | Brownian,
    params: Sequence[Tensor],
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """States at the visits by their place in the grid, and costs by gap, with gradients to z0 and `params`.

    Args:
        function: its forward takes (scheme, cost, noise, places, gaps, z0, *params) and returns the states at
            `places`, then the costs of `gaps`.
        scheme, cost, z0, noise, params: as in `integrate_visits`.

    Raises:
        ValueError: noise that requires gradients, which these ways do not have; a tensor that drift, diffusion or cost
            use and that requires gradients, but is not among `params`: it would silently get none.
    """
    if isinstance(noise, Tensor) and noise.requires_grad:
        raise ValueError("noise: requires gradients, which only gradient='backprop' gives")
    if not scheme.grid.num_steps:
        return {}, {}
    wanted = [parameter for parameter in params if parameter.requires_grad]
    if torch.is_grad_enabled():
        _check_params(scheme, cost, z0, wanted)
    places = [place for place in dict.fromkeys(scheme.grid.index) if place > 0]
    gaps = list(dict.fromkeys(scheme.gap_of)) if cost is not None else []
    out = function.apply(scheme, cost, noise, places, gaps, z0, *wanted)
    return dict(zip(places, out[: len(places)], strict=True)), dict(zip(gaps, out[len(places) :], strict=True))


def add_gradients(totals: list[Tensor], found: Sequence[Tensor | None]) -> None:
    """Add what was found to the totals, in place."""
    for total, grad in zip(totals, found, strict=True):
        if grad is not None:
            total.add_(grad)


def _check_params(scheme: Scheme, cost: Cost | None, z0: Tensor, params: list[Tensor]) -> None:
    """Follow the graph of the first step's functions back to its leaves; each must be known."""
    point, t = z0.detach(), scheme.times[0]
    f, g = scheme.drift(0, t, point), scheme.diffusion(0, t, point)
    values = [f, g] if cost is None else [f, g, cost(0, t, Left(point, f, g))]
    known = {parameter.grad_fn for parameter in params}
    leaves = {id(parameter) for parameter in params}
    nodes = [value.grad_fn for value in values]
    while nodes:
        node = nodes.pop()
        if node is None or node in known:
            continue
        known.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in leaves:
            raise ValueError(f"params: lacks a tensor of shape {tuple(leaf.shape)} that needs gradients and is used")
        nodes += [parent for parent, _ in node.next_functions]
