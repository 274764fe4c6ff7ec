"""Data-parallel training: what `fit` needs from torch.distributed, and nothing at all when that is not running.

Start a script with `torchrun --nproc-per-node=N script.py` and call `torch.distributed.init_process_group` before
`fit`. Each process then takes its own rows of every minibatch, and the gradients are averaged over rows.
"""

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def is_parallel() -> bool:
    """Whether this process is one of several training together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The number of this process: 0 when it is alone; process 0 writes the files."""
    return dist.get_rank() if is_parallel() else 0


def local_device(kind: str) -> torch.device:
    """The device this process trains on.

    Args:
        kind: "auto" (CUDA where there is one), "cpu" or "cuda".

    Raises:
        ValueError: "cuda" was asked for and there is none.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: 'cuda' was asked for, but torch finds no CUDA device; use 'cpu' or 'auto'")
    if kind == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device(
        "cuda", int(os.environ.get("LOCAL_RANK", "0")) if is_parallel() else torch.cuda.current_device()
    )


def share_of(index: Tensor) -> Tensor:
    """The rows of a minibatch that this process takes: every n-th of `index` (R,), all of it when alone."""
    return index[dist.get_rank() :: dist.get_world_size()] if is_parallel() else index


def average_over_rows(parameters: Sequence[nn.Parameter], parts: Tensor, rows: int) -> Tensor:
    """Replace each gradient and `parts` by their mean over the rows of all processes.

    A process's gradient is that of the mean over its own `rows`; processes may hold different numbers of rows (none
    included), so each counts by its rows. One collective call moves everything.

    Args:
        parameters: the trained parameters; a gradient that is None counts as zero.
        parts: (K,) means over this process's rows, to be averaged in the same way.
        rows: how many rows this process had.

    Returns:
        The averaged `parts`. Gradients are replaced in place.
    """
    if not is_parallel():
        return parts
    wide = torch.promote_types(parts.dtype, parameters[0].dtype)
    flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    message = torch.cat([*(g.to(wide) for g in flat), parts.to(wide), torch.ones(1, dtype=wide, device=parts.device)])
    # A process without rows has made no gradient: zero times whatever it holds must be zero, not NaN.
    message = message * rows if rows else torch.zeros_like(message)
    dist.all_reduce(message)
    message = message / message[-1]
    start = 0
    for parameter in parameters:
        mean = message[start : start + parameter.numel()].view_as(parameter).to(parameter.dtype)
        parameter.grad = mean.clone()
        start += parameter.numel()
    return message[start:-1].to(parts.dtype)


def same_start(model: nn.Module) -> None:
    """Give every process the parameters and buffers of process 0, in place."""
    if is_parallel():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)


def from_first(value: float, device: torch.device) -> float:
    """The number that process 0 holds, on every process, so that all of them decide alike."""
    if not is_parallel():
        return value
    message = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(message, src=0)
    return float(message)


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true on any process."""
    if not is_parallel():
        return flag
    message = torch.tensor([float(flag)], device=device)
    dist.all_reduce(message, op=dist.ReduceOp.MAX)
    return bool(message.item() > 0)
