"""CUDA graphs: what is launched again and again on tensors of the same shapes is recorded once and launched as one.

A solve of small networks is thousands of kernels of a few microseconds, and the host takes about as long to launch
each. A recorded step has no launches of its own. Shapes are recorded one by one, so lengths are rounded up to a few
(`length_bucket`): `SeriesBatch.padded` brings a batch there, and padding changes no loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

WARM_UPS = 3  # calls before a recording, in which libraries settle on their kernels and buffers


class GraphedStep:
    """A training step's loss and gradients, or a solve, recorded on CUDA once per shapes of its inputs, then replayed.

    Without CUDA, and for the bucket after the last one that is recorded, the function is simply called. Either way a
    call puts fresh gradients into the parameters' ``grad``, whatever was there, so an optimizer step follows it, and
    ``zero_grad`` has no work.

    What is recorded must not look at values from the host (no ``.item()``, no ``if`` on a tensor), must take everything
    that changes between calls as an input, and must draw from CUDA's default generator or one of `generators`: its
    numbers are then new in every replay. No other loss of the parameters may be alive while a shape is recorded:
    autograd would tie the recording to its stream. Grids made from times on the CPU that all rows share fit; `fit`,
    whose batches are checked and compacted on the host, does not use this.

    Args:
        function: of tensors, which returns the loss, a scalar, if there are parameters, else one or several tensors.
        parameters: what gets gradients; none for a solve, which then runs without them.
        generators: CUDA generators that the function draws from, besides the default one.
        most: how many shapes are recorded; each holds its own buffers.

    Raises:
        ValueError: inputs that are not tensors on one device.
    """

    def __init__(
        self,
        function: Callable[..., Tensor | Sequence[Tensor]],
        parameters: Iterable[Tensor] = (),
        *,
        generators: Sequence[torch.Generator] = (),
        most: int = 16,
    ) -> None:
        self.function, self.parameters = function, list(parameters)
        self.generators, self.most = list(generators), most
        self._recorded: dict[object, _Recording] = {}

    def __call__(self, *inputs: Tensor) -> Tensor | Sequence[Tensor]:
        """The loss, detached, or what the function returns. On CUDA it is overwritten by the next call."""
        devices = {part.device.type if isinstance(part, Tensor) else type(part).__name__ for part in inputs}
        if len(devices) > 1 or devices - {"cpu", "cuda"}:
            raise ValueError(f"inputs: got {', '.join(sorted(devices))}, want tensors on one device, cpu or cuda")
        on_cuda = devices == {"cuda"} or (not devices and any(part.is_cuda for part in self.parameters))
        if not on_cuda:
            return self._run(inputs)
        shapes = tuple((part.shape, part.dtype) for part in inputs)
        if shapes not in self._recorded:
            if len(self._recorded) >= self.most:
                return self._run(inputs)
            self._recorded[shapes] = self._record(inputs)
        found = self._recorded[shapes]
        for place, part in zip(found.inputs, inputs, strict=True):
            place.copy_(part)
        found.graph.replay()
        for parameter, grad in zip(self.parameters, found.grads, strict=True):
            parameter.grad = grad
        return found.out

    @property
    def num_recorded(self) -> int:
        """How many shapes are recorded."""
        return len(self._recorded)

    def _run(self, inputs: Sequence[Tensor]) -> Tensor | Sequence[Tensor]:
        if not self.parameters:
            with torch.no_grad():
                return self.function(*inputs)
        for parameter in self.parameters:
            parameter.grad = None
        loss = self.function(*inputs)
        if not isinstance(loss, Tensor) or loss.ndim:
            raise ValueError("function: returned no scalar, want the loss, as there are parameters")
        loss.backward()
        return loss.detach()

    def _record(self, inputs: Sequence[Tensor]) -> _Recording:
        own = [part.detach().clone() for part in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._run(own)
        torch.cuda.current_stream().wait_stream(side)
        # gradients of the warm-up would be added to, and live outside of the graph's memory
        for parameter in self.parameters:
            parameter.grad = None
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            out = self._run(own)
        return _Recording(graph, own, out, [parameter.grad for parameter in self.parameters])


class _Recording:
    """A graph, and the tensors that it reads and writes."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        inputs: list[Tensor],
        out: Tensor | Sequence[Tensor],
        grads: list[Tensor | None],
    ) -> None:
        self.graph, self.inputs, self.out, self.grads = graph, inputs, out, grads


def length_bucket(length: int, *, shortest: int = 8, ratio: float = 1.25) -> int:
    """The length to pad to: the smallest of shortest, shortest * ratio, ... (rounded up) that is not below `length`.

    At most a share ``ratio - 1`` is padding for lengths from `shortest` on, and lengths up to n make about
    log(n / shortest) / log(ratio) shapes.

    Raises:
        ValueError: numbers that are not positive, or a ratio that is not above 1.
    """
    if length < 1 or shortest < 1 or not ratio > 1:
        raise ValueError(
            f"length, shortest, ratio: got {length}, {shortest} and {ratio}, want positive lengths and a ratio above 1"
        )
    bucket, exact = shortest, float(shortest)
    while bucket < length:
        exact *= ratio
        bucket = math.ceil(exact)
    return bucket
