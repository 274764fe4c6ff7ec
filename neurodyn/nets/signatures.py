"""Signatures and logsignatures of paths: their iterated integrals, level by level.

    S^{i1 ... ik}(x) = integral over t1 < ... < tk of dx^{i1}_{t1} ... dx^{ik}_{tk},    k = 1 ... N

A signature determines a path up to how fast it is run through, so linear functions of it are what regressions of paths
are made of; its logarithm says the same in fewer numbers. Paths are piecewise linear between the points given, and
repeating a point adds nothing, so padding that repeats the last point is free.

Source: Chen (1957); Lyons, Caruana and Levy (2007), "Differential equations driven by rough paths"; Morrill, Salvi,
Kidger and Foster (2021), arXiv 2009.08295, for the log-ODE reduction.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from neurodyn.nets.tensor_algebra import (
    final_levels,
    logarithm,
    lyndon_places,
    lyndon_words,
    prefix_levels,
    split_levels,
)

Backend = Literal["torch", "pysiglib", "signatory"]
Mode = Literal["words", "expanded"]


def signature(path: Tensor, depth: int, *, prefixes: bool = False, backend: Backend = "torch") -> Tensor:
    """The signature up to level N, without its scalar 1.

    Args:
        path: (..., L, C), points that straight lines join; L >= 1.
        depth: N >= 1.
        prefixes: of the path up to each of its points, the first included (zero) and the last, instead of the whole.
        backend: "torch": always there, on any device, differentiable to any order. "pysiglib" (extra "signatures"),
            "signatory" (an extra that is built against torch): compiled; whole paths, first derivatives.

    Returns:
        (..., C + C^2 + ... + C^N), or (..., L, C + ... + C^N) with `prefixes`: words of one letter, of two in
        lexicographic order, and so on.

    Raises:
        ValueError: a path without points or channels, a depth below one, an unknown backend or one without prefixes.
        ImportError: a backend that is not installed; it says which extra brings it.
    """
    _check(path, depth, prefixes, backend)
    if backend != "torch":
        return _compiled(path, depth, backend)
    increments = path.diff(dim=-2)
    if prefixes:
        flat = torch.cat(prefix_levels(increments, depth), -1) if path.shape[-2] > 1 else None
        start = path.new_zeros(*path.shape[:-2], 1, signature_size(path.shape[-1], depth))
        return start if flat is None else torch.cat((start, flat), -2)
    if path.shape[-2] == 1:
        return path.new_zeros(*path.shape[:-2], signature_size(path.shape[-1], depth))
    return torch.cat(final_levels(increments, depth), -1)


def logsignature(
    path: Tensor, depth: int, *, prefixes: bool = False, mode: Mode = "words", backend: Backend = "torch"
) -> Tensor:
    """The logarithm of the signature in the tensor algebra, up to level N. Arguments as in `signature`, and:

    Args:
        mode: "words": the coefficients of the Lyndon words (`logsignature_words`), which determine all others.
            "expanded": the coefficients of all words, as in `signature`.

    Returns:
        (..., number of Lyndon words) or (..., C + C^2 + ... + C^N); with `prefixes` (..., L, ...).
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode: got {mode!r}, want one of {', '.join(get_args(Mode))}")
    channels = path.shape[-1]
    flat = signature(path, depth, prefixes=prefixes, backend=backend)
    levels = logarithm(split_levels(flat, channels, depth))
    if mode == "expanded":
        return torch.cat(levels, -1)
    places = torch.tensor(lyndon_places(channels, depth), device=path.device)
    return torch.cat(levels, -1).index_select(-1, places)


def logsignature_words(channels: int, depth: int) -> tuple[tuple[int, ...], ...]:
    """The Lyndon words that a logsignature's entries belong to, each a tuple of channels."""
    return lyndon_words(channels, depth)


def signature_size(channels: int, depth: int) -> int:
    """C + C^2 + ... + C^N."""
    return sum(channels**k for k in range(1, depth + 1))


def logsignature_size(channels: int, depth: int) -> int:
    """How many Lyndon words there are of up to N letters."""
    return len(lyndon_words(channels, depth))


def level_scales(channels: int, depth: int) -> Tensor:
    """(C + ... + C^N,) float64: k! for every word of k letters, which undoes the factorial decay of a signature."""
    return torch.tensor([float(math.factorial(k)) for k in range(1, depth + 1) for _ in range(channels**k)]).double()


def time_augment(path: Tensor, times: Tensor) -> Tensor:
    """(..., L, 1 + C): the times (..., L) as first channel. A signature is blind to speed; with time it is not."""
    if times.shape[-1:] != path.shape[-2:-1]:
        raise ValueError(f"times: got shape {tuple(times.shape)}, want (..., {path.shape[-2]}): one per point")
    column = times.to(path).expand(path.shape[:-1]).unsqueeze(-1)
    return torch.cat((column, path), -1)


def lead_lag(path: Tensor) -> Tensor:
    """(..., 2 L - 1, 2 C): the path beside its own past, (x1, x1), (x2, x1), (x2, x2), (x3, x2), ...

    First the leading copy, then the lagging one. Its second level holds the quadratic variation: the integral of lead
    over lag less that of lag over lead is the sum of squared increments.
    """
    doubled = path.repeat_interleave(2, -2)
    return torch.cat((doubled[..., 1:, :], doubled[..., :-1, :]), -1)


def window_logsignatures(
    path: Tensor, depth: int, window: int, *, mode: Mode = "words", backend: Backend = "torch"
) -> Tensor:
    """Logsignatures of the pieces of `window` increments that a path is cut into: (..., W, size).

    Args:
        path: (..., L, C), L >= 2. Where `window` does not divide L - 1, the last piece is shorter.
        depth: N. window: increments in a piece, 1 or more.

    Raises:
        ValueError: a window below one, a path with one point, and as in `logsignature`.
    """
    if window < 1:
        raise ValueError(f"window: got {window}, want 1 or more increments")
    length = path.shape[-2]
    if length < 2:
        raise ValueError(f"path: got {length} point, want 2 or more to cut into windows")
    pieces = -(-(length - 1) // window)
    rest = pieces * window + 1 - length
    if rest:
        path = torch.cat((path, path[..., -1:, :].expand(*path.shape[:-2], rest, path.shape[-1])), -2)
    cut = path.unfold(-2, window + 1, window).transpose(-1, -2)  # (..., W, window + 1, C)
    return logsignature(cut, depth, mode=mode, backend=backend)


def log_ode_path(
    times: Tensor, path: Tensor, depth: int, window: int, *, backend: Backend = "torch"
) -> tuple[Tensor, Tensor]:
    """The log-ODE reduction of a long path: one point per window of `window` increments, with more channels.

    The new path starts at the old one's first point (zero in the further channels), and moves by the logsignature of a
    window at a time. A controlled equation along it, linear between its points, is a log-ODE solve of the equation
    along the old path: few steps instead of many, and what happened within a step is in the channels.

    Args:
        times: (..., L). path: (..., L, C), with time among its channels. Padding repeats the last point.
        depth: N. window: increments in a window.

    Returns:
        times (..., W + 1) and path (..., W + 1, number of Lyndon words): for `interpolate(..., kind="linear")`.
    """
    moves = window_logsignatures(path, depth, window, backend=backend)
    start = path[..., :1, :]
    start = torch.cat((start, start.new_zeros(*start.shape[:-1], moves.shape[-1] - start.shape[-1])), -1)
    last = path.shape[-2] - 1
    places = torch.arange(0, moves.shape[-2] + 1, device=times.device).mul_(window).clamp_(max=last)
    return times.index_select(-1, places), torch.cat((start, start + moves.cumsum(-2)), -2)


def _check(path: Tensor, depth: int, prefixes: bool, backend: str) -> None:
    if path.ndim < 2 or not path.shape[-2] or not path.shape[-1] or not path.is_floating_point():
        raise ValueError(f"path: got {path.dtype} of shape {tuple(path.shape)}, want floating (..., L, C)")
    if depth < 1:
        raise ValueError(f"depth: got {depth}, want 1 or more levels")
    if backend not in get_args(Backend):
        raise ValueError(f"backend: got {backend!r}, want one of {', '.join(get_args(Backend))}")
    if prefixes and backend != "torch":
        raise ValueError(f"prefixes: got True with backend {backend!r}, want 'torch' for them")


def _compiled(path: Tensor, depth: int, backend: str) -> Tensor:
    """By another library, in its own (B, L, C)."""
    library = _library(backend)
    lead = path.shape[:-2]
    rows = path.reshape(-1, *path.shape[-2:]).clone()  # which libraries want to own
    if rows.shape[1] == 1:  # libraries want an increment; one of length zero changes nothing
        rows = torch.cat((rows, rows), 1)
    found: Tensor = library(rows, depth)
    return found.reshape(*lead, -1)


def _library(backend: str) -> Any:
    """The function (B, L, C), N -> (B, C + ... + C^N) of another library."""
    hints = {
        "pysiglib": "pip install 'neurodyn[signatures]'",
        "signatory": "pip install --no-build-isolation signatory==1.2.6.1.9.0",
    }
    module = "pysiglib.torch_api" if backend == "pysiglib" else "signatory"
    try:
        library = importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"backend: {backend!r} given, which is not installed here: {hints[backend]}") from error
    if backend == "signatory":
        return library.signature
    return lambda rows, depth: library.sig(rows, depth)
