"""Inference beyond the encoder: its features are fitted to the rows at hand, with the model as it is.

An encoder that was trained on few conditions guesses badly on others, where the law of motion and the read-out still
hold. A few steps of gradient ascent on each row's own evidence bound close that gap (Kim et al. 2018, "Semi-amortized
variational autoencoders", arXiv 1802.02550; here without any change to training).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def refined(features: Tensor, bound: Callable[[Tensor], Tensor], steps: int, rate: float) -> Tensor:
    """Features (B, ...) after `steps` steps of Adam that raise a bound, each row by itself; no gradient is kept.

    Args:
        features: where to start.
        bound: what each row is to raise, (B,), at features; it may draw new noise whenever it is called.
        steps: 0 or more. rate: of the first step, in units of the features; it falls to zero along a cosine.
    """
    found = features.detach().clone().requires_grad_()
    adam = torch.optim.Adam([found], lr=rate)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.5 * rate * (1 + math.cos(math.pi * step / steps))
        with torch.enable_grad():
            # Adam scales every entry by itself, so a row's steps do not depend on its company
            (found.grad,) = torch.autograd.grad(-bound(found).sum(), [found])
        adam.step()
    return found.detach()
