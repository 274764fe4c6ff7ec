"""What models of populations share: which counts they may read, which are scored, and where read-outs start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from neurodyn.likelihoods import Likelihood
from neurodyn.models.home import at_home
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch


@dataclass
class PopulationConfig:
    """What a model of a population reads.

    Raises:
        ValueError: on construction, naming the setting.
    """

    num_neurons: int
    """N, held-in and held-out ones."""
    bin_width: float
    """In s: rates are per second."""
    held_out: tuple[int, ...] = ()
    """Positions of the neurons that are never read."""
    num_observed: int | None = None
    """How many bins are read; later ones are predicted. All, if not given."""
    coordinated_dropout: float = 0.3
    """Share of held-in counts that a training step hides, and only these of them are scored; 0: none."""

    def __post_init__(self) -> None:
        self.held_out = tuple(sorted(int(k) for k in self.held_out))
        if not self.bin_width > 0:
            raise ValueError(f"bin_width: {self.bin_width} given, a positive number of seconds wanted")
        if not 0 <= self.coordinated_dropout < 1:
            raise ValueError(f"coordinated_dropout: {self.coordinated_dropout} given, a share from 0 to below 1 wanted")
        if self.num_observed is not None:
            check_whole("num_observed", self.num_observed)
        wrong = [k for k in self.held_out if not 0 <= k < self.num_neurons]
        if wrong or len(set(self.held_out)) != len(self.held_out) or len(self.held_out) >= self.num_neurons:
            raise ValueError(
                f"held_out: {self.held_out} given, unlike positions below {self.num_neurons} that leave a neuron wanted"
            )


def check_whole(name: str, given: float, least: int = 1) -> None:
    """Raises ValueError: a setting that is no whole number from `least` on."""
    if given < least or given != int(given):
        raise ValueError(f"{name}: {given} given, a whole number from {least} wanted")


class Reading(NamedTuple):
    """What an encoder gets, and what is scored.

    counts: (B, T, held-in), zero where not read. seen: (B, T) bool, whether anything of a bin may be read.
    end: (B,), the last bin of each row. scored: weights and masks (B, T, N) of the likelihood.
    """

    counts: Tensor
    seen: Tensor
    end: Tensor
    scored: list[tuple[float, Tensor]]

    def longer(self, bins: int) -> Reading:
        """The same with `bins` bins for every row, unread ones at the end."""
        more = bins - self.counts.shape[1]
        counts, seen = nn.functional.pad(self.counts, (0, 0, 0, more)), nn.functional.pad(self.seen, (0, more))
        return Reading(counts, seen, torch.full_like(self.end, bins - 1), self.scored)


class PopulationModel(nn.Module):
    """Base of models of populations. Subclasses have a `likelihood`, `loss` and `rates`.

    Batches are as `neurodyn.datasets.spikes.spike_batch` makes them: regular bins, one variable per neuron. Entries
    that the mask leaves out are not read.
    """

    likelihood: Likelihood
    held_in: Tensor

    def __init__(self, settings: PopulationConfig) -> None:
        super().__init__()
        self.settings = settings
        inside = [k for k in range(settings.num_neurons) if k not in settings.held_out]
        self.register_buffer("held_in", torch.tensor(inside), persistent=False)

    def rates(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 32, *, seed: int = 0) -> Tensor:
        """Posterior mean of the expected counts per bin, (B, bins, N), all neurons; on the model's device.

        Args:
            batch: what is read of it are held-in neurons in the bins that training reads.
            bins: from each row's first bin on; more than the batch has predicts forward. The batch's if not given, for
                shorter rows too.
            num_samples: of the latents. seed: of them.

        Raises:
            ValueError: another number of neurons, bins of another width, fewer `bins` than the batch has.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rates")

    def start_at(self, train: SeriesBatch) -> None:
        """Check training counts, and let the read-out begin at every neuron's mean.

        Raises:
            ValueError: values that the likelihood cannot have produced, bins of another width.
        """
        check_bins(train, self.settings.bin_width)
        self.likelihood.check(train.values, train.mask)
        mean = (train.values * train.mask).sum((0, 1)) / train.mask.sum((0, 1)).clamp(min=1)
        if hasattr(self.likelihood, "exposure"):
            mean = (mean.clamp(min=1e-4) / self.settings.bin_width).log()
        bias: Any = self.likelihood.decoder.bias
        with torch.no_grad():
            bias.copy_(mean)

    def home(self, batch: SeriesBatch) -> SeriesBatch:
        """The batch where the model is.

        Whether its bins are as wide as the model's is checked where models are built and asked, not in every step of
        training, which would wait for the device.

        Raises:
            ValueError: another number of neurons.
        """
        if batch.num_variables != self.settings.num_neurons:
            raise ValueError(f"batch: {batch.num_variables} variables given, {self.settings.num_neurons} wanted")
        return at_home(batch, self)

    def asked(self, batch: SeriesBatch, bins: int | None = None) -> tuple[SeriesBatch, int]:
        """A batch to infer, where the model is, and how many bins it is inferred in. Raises as `rates`."""
        bins = check_asked(batch, bins, self.settings.num_neurons, self.settings.bin_width)
        return self.home(batch), bins

    def readable(self, batch: SeriesBatch) -> Tensor:
        """(B, T, N) bool: observed counts of held-in neurons in the bins that are read."""
        found = torch.zeros_like(batch.mask)
        found[:, : self.settings.num_observed, self.held_in] = batch.mask[:, : self.settings.num_observed, self.held_in]
        return found

    def read(self, batch: SeriesBatch, noise: RowNoise | None = None) -> Reading:
        """What may be read of a batch; with noise, after coordinated dropout (Keshtkaran and Pandarinath 2019).

        The hidden held-in counts are then scored in place of all held-in ones, with the weight that makes up for their
        number.
        """
        open_ = self.readable(batch)[..., self.held_in]
        seen, scored = open_.any(-1), [(1.0, batch.mask)]
        counts = torch.where(open_, batch.values[..., self.held_in], 0.0)
        share = self.settings.coordinated_dropout
        if noise is not None and share:
            hidden = noise.uniform("hidden", *open_.shape[1:], dtype=batch.dtype) < share
            counts = torch.where(hidden, 0.0, counts) / (1 - share)
            others = batch.mask.clone()
            others[..., self.held_in] &= ~open_
            masked = torch.zeros_like(batch.mask)
            masked[..., self.held_in] = open_ & hidden
            scored = [(1.0, others), (1 / share, masked)]
        return Reading(counts, seen, last_bin(batch), scored)

    def score(self, batch: SeriesBatch, latent: Tensor, scored: list[tuple[float, Tensor]]) -> Tensor:
        """Log-likelihood of the scored counts, mean over samples of `latent` (S, B, T, d): (B,), nats per trial."""
        parts = [weight * self.likelihood.log_prob(batch.values, latent, mask) for weight, mask in scored]
        return torch.stack(parts).sum(0).sum(-1).mean(0)


def last_bin(batch: SeriesBatch) -> Tensor:
    """(B,) int64, the last bin of each row in which anything is observed."""
    return (batch.present * torch.arange(batch.num_times, device=batch.device)).amax(1)


def one_length(batch: SeriesBatch, reader: str) -> SeriesBatch:
    """The batch without columns that no row uses, for models without padding.

    Raises:
        ValueError: rows that end before others.
    """
    batch = batch.trim()
    last = last_bin(batch)
    if short := (last < last.max()).nonzero()[:1].tolist():
        row = short[0][0]
        name = batch.ids[row] if batch.ids else row
        raise ValueError(
            f"batch: row {name} of {int(last[row]) + 1} bins given beside rows of up to {int(last.max()) + 1}, trials "
            f"of one length wanted for {reader}"
        )
    return batch


def check_asked(batch: SeriesBatch, bins: int | None, num_neurons: int, bin_width: float) -> int:
    """How many bins a batch is inferred in.

    Raises:
        ValueError: another number of neurons, bins of another width, fewer `bins` than the batch has.
    """
    if batch.num_variables != num_neurons:
        raise ValueError(f"batch: {batch.num_variables} variables given, {num_neurons} wanted")
    check_bins(batch, bin_width)
    if bins is not None and bins < batch.num_times:
        raise ValueError(f"bins: {bins} given, {batch.num_times} or more wanted, those of the batch")
    return batch.num_times if bins is None else bins


def check_bins(batch: SeriesBatch, bin_width: float) -> None:
    """Raises ValueError: a row whose bins, up to its last observed one, are not `bin_width` s apart, to a hundredth."""
    inside = torch.arange(batch.num_times - 1, device=batch.device) < last_bin(batch)[:, None]
    gaps = batch.times.diff(dim=1)
    wrong = (inside & ((gaps - bin_width).abs() > 0.01 * bin_width)).nonzero()[:1].tolist()
    if wrong:
        row, k = wrong[0]
        name = batch.ids[row] if batch.ids else row
        raise ValueError(
            f"batch: bins {k} and {k + 1} of row {name} are {float(gaps[row, k]):.6g} s apart, {bin_width:g} s wanted, "
            "the model's bin_width"
        )


def random_windows(rows: SeriesBatch, generator: torch.Generator, *, shortest: float) -> SeriesBatch:
    """Stretches of the rows, each from a random bin on, of one random length for all; for `fit(augment=...)`.

    Without them the place in a trial tells an encoder what the latents are, wherever trials begin alike.

    Args:
        rows: regular bins, all of them observed. shortest: share of the bins that a stretch has at least.
    """
    bins = rows.num_times
    length = int(torch.randint(math.ceil(shortest * bins), bins + 1, (1,), generator=generator))
    begin = torch.randint(0, bins - length + 1, (rows.num_rows, 1), generator=generator)
    place = (begin + torch.arange(length)).to(rows.device)
    wide = place[..., None].expand(-1, -1, rows.num_variables)
    return rows._with(
        times=rows.times.gather(1, place),
        values=rows.values.gather(1, wide),
        mask=rows.mask.gather(1, wide),
        covariates=None,
    )
