"""What every posterior answers: given a context, the latent at the visits and the path KL against a prior."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from neurodyn.nets.context import Context
from neurodyn.noise import RowNoise
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch


class PosteriorPaths(NamedTuple):
    """Samples of a posterior over paths, with their price.

    Attributes:
        z: (S, B, T, d), the latent at the context's visit times.
        path_kl: (B,), nats per series: an unbiased estimate of KL(q || p) of the paths given their start, or an upper
            bound.
        initial_kl: (B,), nats per series: KL of the start.
    """

    z: Tensor
    path_kl: Tensor
    initial_kl: Tensor


def check_paths(posterior: nn.Module, paths: object, batch: SeriesBatch) -> None:
    """Refuse what is no `PosteriorPaths` of the batch's visits.

    Raises:
        ValueError: another type; z, path_kl or initial_kl of another shape.
    """
    rows, visits = batch.times.shape
    given: object = type(paths).__name__
    if isinstance(paths, PosteriorPaths):
        found = {name: tuple(part.shape) for name, part in paths._asdict().items()}
        if (
            found["z"][1:3] == (rows, visits)
            and len(found["z"]) == 4
            and found["path_kl"] == found["initial_kl"] == (rows,)
        ):
            return
        given = ", ".join(f"{name} {shape}" for name, shape in found.items())
    raise ValueError(
        f"posterior: {type(posterior).__name__} gave {given}; PosteriorPaths with z (S, {rows}, {visits}, d), path_kl "
        f"({rows},) and initial_kl ({rows},) wanted"
    )


def check_context_size(encoder: nn.Module, reader: nn.Module, wanted: int | None) -> None:
    """Refuse an encoder whose features have another size than their reader takes, where both say which.

    Raises:
        ValueError: two sizes.
    """
    given = getattr(encoder, "context_size", None)
    if given is not None and wanted is not None and given != wanted:
        raise ValueError(
            f"encoder: {type(encoder).__name__} with context_size {given} given, {wanted} wanted as "
            f"{type(reader).__name__} reads"
        )


class PathDetail(NamedTuple):
    """Posterior paths seen closely, for diagnostics and pictures.

    Attributes:
        times: (B, N), within each row's first and last visit, increasing.
        z: (S, B, N, d) samples. For a simulated posterior they are paths; otherwise one sample of each marginal,
            with noise shared over time.
        control: (S, B, N, m), (posterior drift - prior drift) / diffusion: half its square is the KL per unit of time.
    """

    times: Tensor
    z: Tensor
    control: Tensor


class Posterior(nn.Module):
    """A law of latent paths given data. Subclasses say how paths are drawn and priced.

    Attributes:
        context_size: C of the encoder's features that it reads, for a model to check; None if it does not say.
    """

    context_size: int | None = None

    def forward(self, context: Context, prior: Prior, noise: RowNoise, num_samples: int = 1) -> PosteriorPaths:
        """Latents at the visits and the KL against `prior`.

        Args:
            context: what the encoder knows of B rows, their visit times among it. Rows must be compact: observed visits
                first, padding (which repeats the last time) after.
            prior: the law of motion and of the start.
            noise: row noise; the same gives the same paths.
            num_samples: S.
        """
        raise NotImplementedError

    def detail(
        self, context: Context, prior: Prior, noise: RowNoise, num_times: int = 64, num_samples: int = 16
    ) -> PathDetail:
        """Latents and control on a grid of times, for diagnostics (no gradient is needed)."""
        raise NotImplementedError
