"""The truncated tensor algebra that signatures live in: products, logarithm, prefixes, Lyndon words.

An element is a list of its levels 1 ... N; level k holds the coefficients of all words of k letters, flattened in
lexicographic order: (..., C^k). Its scalar part is kept apart: 1 for signatures, 0 for their logarithms.
"""

from __future__ import annotations

from functools import cache
from itertools import accumulate

import torch
from torch import Tensor

Levels = list[Tensor]


def outer(a: Tensor, b: Tensor) -> Tensor:
    """The tensor product of two levels, (..., m) and (..., n) to (..., m n)."""
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)


def product(a: Levels, b: Levels) -> Levels:
    """(1 + a)(1 + b) - 1, truncated: Chen's identity says that it is the signature of one path after the other."""
    found = []
    for k in range(len(a)):
        inner = [outer(a[j], b[k - 1 - j]) for j in range(k)]
        found.append(sum(inner, a[k] + b[k]))
    return found


def logarithm(a: Levels) -> Levels:
    """log(1 + a) = a - a^2 / 2 + a^3 / 3 - ..., by Horner's rule."""
    depth = len(a)
    rest: Levels | None = None  # of 1/n - a (1/(n+1) - a (...)), whose scalar part is 1/n
    for n in range(depth, 0, -1):
        scaled = [level / n for level in a]
        rest = scaled if rest is None else [x - y for x, y in zip(scaled, _nilpotent_product(a, rest), strict=True)]
    assert rest is not None
    return rest


def exponential(a: Levels) -> Levels:
    """exp(a) - 1 = a + a^2 / 2 + a^3 / 6 + ..."""
    power, total = a, a
    for n in range(2, len(a) + 1):
        power = [level / n for level in _nilpotent_product(power, a)]
        total = [x + y for x, y in zip(total, power, strict=True)]
    return total


def _nilpotent_product(a: Levels, b: Levels) -> Levels:
    """a b for elements without a scalar part: nothing at level 1."""
    found = [torch.zeros_like(a[0])]
    for k in range(1, len(a)):
        inner = [outer(a[j], b[k - 1 - j]) for j in range(k)]
        found.append(sum(inner[1:], inner[0]))
    return found


def prefix_levels(increments: Tensor, depth: int) -> Levels:
    """Signatures of all prefixes of a piecewise linear path: level k (..., L, C^k), after each of the L increments.

    Chen's identity for one more increment x is S_k' = S_k + sum_{j<k} S_j x^{k-j} / (k-j)!, so level k is a running sum
    of terms made from the lower levels: N running sums, no loop over the path. The inner sum goes by Horner's rule.
    """
    levels: Levels = []
    before: Levels = []  # the lower levels, before each increment
    for k in range(1, depth + 1):
        levels.append(_terms(increments, before, k).cumsum(-2))
        if k < depth:
            start = torch.zeros_like(levels[-1][..., :1, :])
            before.append(torch.cat((start, levels[-1][..., :-1, :]), -2))
    return levels


def final_levels(increments: Tensor, depth: int) -> Levels:
    """The signature of the whole path: level k (..., C^k). As `prefix_levels`, without the last running sum."""
    below = prefix_levels(increments, depth - 1)
    before = [torch.cat((torch.zeros_like(s[..., :1, :]), s[..., :-1, :]), -2) for s in below]
    return [level[..., -1, :] for level in below] + [_terms(increments, before, depth).sum(-2)]


def _terms(x: Tensor, before: Levels, k: int) -> Tensor:
    """sum_{j<k} S_j x^{k-j} / (k-j)! for every increment: (..., L, C^k)."""
    found = x / k
    for j in range(1, k):
        found = outer(found + before[j - 1], x / (k - j))
    return found


def split_levels(flat: Tensor, channels: int, depth: int) -> Levels:
    """Levels from their concatenation (..., C + C^2 + ... + C^N)."""
    return list(flat.split([channels**k for k in range(1, depth + 1)], -1))


@cache
def lyndon_words(channels: int, depth: int) -> tuple[tuple[int, ...], ...]:
    """Words of up to N letters that are smaller than all their rotations, shortest first, then in lexicographic order.

    Duval's algorithm (1988, "Generation d'une section des classes de conjugaison"). They number the dimensions of the
    free Lie algebra, whose elements logarithms of signatures are.
    """
    words, word = [], [-1]
    while word:
        word[-1] += 1
        words.append(tuple(word))
        full = [word[i % len(word)] for i in range(depth)]
        while full and full[-1] == channels - 1:
            full.pop()
        word = full
    return tuple(sorted(words, key=lambda w: (len(w), w)))


@cache
def lyndon_places(channels: int, depth: int) -> tuple[int, ...]:
    """Where the coefficients of the Lyndon words stand in the concatenation of all levels."""
    starts = [0, *accumulate(channels**k for k in range(1, depth + 1))]
    return tuple(
        starts[len(word) - 1] + sum(letter * channels**i for i, letter in enumerate(reversed(word)))
        for word in lyndon_words(channels, depth)
    )
