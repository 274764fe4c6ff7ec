"""Random numbers that belong to a row, not to its place in a batch.

Each number is a hash of (seed, what it is for, the row's id, its own indices), so a row draws the same noise whichever
rows, padding or device it meets: losses and forecasts don't change when rows are permuted or batches are split. The
hash is two rounds of the SplitMix64 finaliser (Steele, Lea and Flood 2014) per index, on int64 tensors, without loops
over rows.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from neurodyn.series import SeriesBatch

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift of int64 as if unsigned."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _wrap(x: int) -> int:
    """The int64 that equals x modulo 2^64."""
    return (x + 2**63) % 2**64 - 2**63


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _FIRST
    x = (x ^ _shift_right(x, 27)) * _SECOND
    return x ^ _shift_right(x, 31)


class RowNoise:
    """Noise for the rows of one batch.

    Args:
        seed: any integer.
        ids: one id per row, B of them; rows with one id share their noise.
        device: where the numbers are made.
    """

    def __init__(self, seed: int, ids: Sequence[str], device: torch.device | str = "cpu") -> None:
        keys = torch.tensor([zlib.crc32(name.encode()) for name in ids], dtype=torch.int64)
        self.keys = _mix(keys.to(device) * _GOLDEN + _wrap(seed * 2 + 1))

    @classmethod
    def keyed(cls, keys: Tensor) -> RowNoise:
        """Noise of rows by their keys (B,) int64, as another `RowNoise` has them."""
        noise = cls.__new__(cls)
        noise.keys = keys
        return noise

    @classmethod
    def of(cls, batch: SeriesBatch, generator: torch.Generator | None = None) -> RowNoise:
        """Noise for a batch's rows, with a seed from `generator` (torch's global one if not given).

        Rows without ids are told apart by their place, so give ids where rows may be permuted.
        """
        where = generator.device if generator is not None else "cpu"
        seed = int(torch.randint(2**31, (), generator=generator, device=where))
        return cls(seed, batch.ids or [str(k) for k in range(batch.num_rows)], batch.device)

    def _bits(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """Hashed int64 of shape (B, *shape)."""
        bits = _mix(self.keys + _wrap(zlib.crc32(purpose.encode()) * _GOLDEN))
        for size in shape:
            index = torch.arange(1, size + 1, dtype=torch.int64, device=bits.device)
            bits = _mix(bits[..., None] + index * _GOLDEN)
        return bits

    def uniform(self, purpose: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Uniform on (0, 1), (B, *shape); `purpose` names the draw, the same name gives the same numbers."""
        bits = self._bits(purpose, shape)
        numbers = (_shift_right(bits, 11).to(torch.float64) + 0.5) * 2.0**-53
        return numbers.to(dtype).clamp(max=1 - torch.finfo(dtype).eps)  # rounding must not reach 1

    def normal(self, purpose: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standard normal, (B, *shape), by Box and Muller's transform of the two halves of each hash."""
        bits = self._bits(purpose, shape)
        radius = ((_shift_right(bits, 32).to(torch.float64) + 0.5) * 2.0**-32).log().mul(-2).sqrt()
        angle = (bits & 0xFFFFFFFF).to(torch.float64) * (2 * math.pi * 2.0**-32)
        return (radius * angle.cos()).to(dtype)

    def samples(self, purpose: str, num_samples: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standard normal with samples in front, (S, B, *shape)."""
        return self.normal(purpose, num_samples, *shape, dtype=dtype).transpose(0, 1)

    def paired(self, purpose: str, num_samples: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """As `samples`, the second half the negative of the first: averages linear in the noise are exact."""
        half = self.samples(purpose, (num_samples + 1) // 2, *shape, dtype=dtype)
        return torch.cat((half, -half))[:num_samples]
