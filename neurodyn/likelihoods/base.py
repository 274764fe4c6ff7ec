"""Likelihoods: laws of the observed values given the latent state, each with the decoder that it reads them from.

Every law factorises over variables given the latent. Masks are airtight: at an unobserved entry neither the stored
value (NaN and infinity included) nor the decoder's output enters the density or its gradient.

Shapes: latents (..., B, T, d) with any leading sample dimensions, values and masks (B, T, D); densities in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodyn.noise import RowNoise

Source = torch.Generator | RowNoise | None
"""Where random numbers come from: a generator, row noise (then shapes are (S, B, ...)), or torch's global generator."""


class Likelihood(nn.Module):
    """Base of all likelihoods: decoding, masking and checking live here, densities in the subclasses.

    Args:
        decoder: "linear", "mlp" (one hidden SiLU layer), or a module that maps (..., d) to
            (..., parameters_per_variable * D), first all variables' first parameters, then all second ones, and so on.
        num_variables: D.
        latent_size: d; needed with a named decoder.
        hidden_size: width of the hidden layer of "mlp".

    Raises:
        ValueError: an unknown decoder, a named decoder without ``latent_size``, no variable.
    """

    parameters_per_variable: int = 1
    wanted_values: str = "finite numbers"

    def __init__(
        self, decoder: str | nn.Module, num_variables: int, *, latent_size: int | None = None, hidden_size: int = 64
    ):
        super().__init__()
        if num_variables < 1:
            raise ValueError(f"num_variables: got {num_variables}, want 1 or more")
        self.num_variables = num_variables
        self.decoder = _make_decoder(decoder, latent_size, hidden_size, self.parameters_per_variable * num_variables)

    # The laws.

    def _log_density(self, values: Tensor, raw: Tensor) -> Tensor:
        """Log-density per entry (..., B, T, D) from the decoder's output (..., B, T, P, D)."""
        raise NotImplementedError

    def _mean(self, raw: Tensor) -> Tensor:
        raise NotImplementedError

    def _sample(self, raw: Tensor, generator: Source) -> Tensor:
        raise NotImplementedError

    def _acceptable(self, values: Tensor) -> Tensor:
        """Bool per entry: can this law have produced the value?"""
        return torch.isfinite(values)

    # What users call.

    def log_prob(self, values: Tensor, latent: Tensor, mask: Tensor) -> Tensor:
        """Log-density of the observed entries of each visit, summed over variables.

        Args:
            values: (B, T, D); what stands where the mask is False is not read.
            latent: (..., B, T, d).
            mask: (B, T, D) bool, True where observed.

        Returns:
            (..., B, T) in nats, exactly 0 at visits where nothing is observed.

        Raises:
            ValueError: values or mask without D variables.
        """
        for name, table in (("values", values), ("mask", mask)):
            if table.shape[-1] != self.num_variables:
                raise ValueError(f"{name}: got {table.shape[-1]} variables, want {self.num_variables}")
        # Both sides are replaced before any nonlinearity: a zero gradient times an infinite one would be NaN.
        values = torch.where(mask, values, torch.zeros_like(values))
        raw = self._decode(latent)
        raw = torch.where(mask.unsqueeze(-2), raw, torch.zeros_like(raw))
        density = self._log_density(values, raw)
        return torch.where(mask, density, torch.zeros_like(density)).sum(-1)

    def mean(self, latent: Tensor) -> Tensor:
        """Expected values (..., D) given latents (..., d)."""
        return self._mean(self._decode(latent))

    def sample(self, latent: Tensor, generator: Source = None) -> Tensor:
        """One draw of the values (..., D) per latent (..., d), without gradient.

        ``generator`` is one on the latent's device, or the `RowNoise` of B rows: then latents are (S, B, T, d), and a
        row's draws do not depend on the other rows.
        """
        with torch.no_grad():
            return self._sample(self._decode(latent), generator)

    def check(self, values: Tensor, mask: Tensor) -> None:
        """Check once, before training, that this law can have produced the observed values (this waits for a GPU).

        Raises:
            ValueError: another number of variables, or an impossible value (names the first one and its variable).
        """
        if values.shape[-1] != self.num_variables:
            raise ValueError(f"values: got {values.shape[-1]} variables, want {self.num_variables}")
        bad = mask & ~self._acceptable(values)
        if bad.any():
            where = bad.nonzero()[0].tolist()
            given, name = values[tuple(where)].item(), type(self).__name__
            raise ValueError(f"values: variable {where[-1]} holds {given:g}, want {self.wanted_values} for {name}")

    def _decode(self, latent: Tensor) -> Tensor:
        """The decoder's output as (..., P, D), in float32 or wider even under mixed precision."""
        raw = self.decoder(latent)
        wanted = self.parameters_per_variable * self.num_variables
        if raw.shape[-1] != wanted:
            raise ValueError(f"decoder: gives {raw.shape[-1]} outputs, want {wanted} for {type(self).__name__}")
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        return raw.unflatten(-1, (self.parameters_per_variable, self.num_variables))


def _make_decoder(decoder: str | nn.Module, latent_size: int | None, hidden_size: int, outputs: int) -> nn.Module:
    if isinstance(decoder, nn.Module):
        return decoder
    if decoder not in ("linear", "mlp"):
        raise ValueError(f"decoder: got {decoder!r}, want 'linear', 'mlp' or a module")
    if latent_size is None:
        raise ValueError(f"latent_size: got None, want the latent's size for the decoder {decoder!r}")
    if decoder == "linear":
        return nn.Linear(latent_size, outputs)
    return nn.Sequential(nn.Linear(latent_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, outputs))


def standard_normal(like: Tensor, generator: Source, purpose: str = "values") -> Tensor:
    """Standard normal, of the shape, type and device of ``like``; purposes as in `open_uniform`."""
    if isinstance(generator, RowNoise):
        return generator.samples(purpose, like.shape[0], *like.shape[2:], dtype=like.dtype)
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def open_uniform(like: Tensor, generator: Source, purpose: str = "values") -> Tensor:
    """Uniform on (0, 1), of the shape, type and device of ``like``: never 0 or 1, where logarithms blow up.

    From one `RowNoise`, different draws need different purposes.
    """
    if isinstance(generator, RowNoise):
        return generator.uniform(purpose, like.shape[0], *like.shape[2:], dtype=like.dtype).transpose(0, 1)
    u = torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    edge = torch.finfo(like.dtype)
    return u.clamp(edge.tiny, 1.0 - edge.eps)
