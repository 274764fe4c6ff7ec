"""Networks that populations are usually fitted with, of about the size of a `LangevinFlow`: without a law of motion."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neurodyn.likelihoods import make_likelihood
from neurodyn.loss import Loss
from neurodyn.models.population import PopulationConfig, PopulationModel, Reading
from neurodyn.nets.binned import BinnedEncoder
from neurodyn.nets.readout import Readout
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch
from neurodyn.spelling import check_options


@dataclass
class NetworkConfig(PopulationConfig):
    """Of a `GRUAutoencoder` or a `PopulationTransformer`."""

    hidden_size: int = 64
    """Of the encoder's directions and of the generator; half the width of the Transformer."""
    num_factors: int = 12
    """Between a generator and the read-out."""
    likelihood: Literal["poisson", "negative_binomial"] = "poisson"
    """Law of the counts."""
    dropout: float = 0.1
    """Of layers."""


class _Network(PopulationModel):
    settings: NetworkConfig

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__(config)
        self.config = asdict(config)
        readout = Readout("linear", width, config.num_neurons)
        self.likelihood = make_likelihood(
            config.likelihood, width, config.num_neurons, decoder=readout, exposure=config.bin_width
        )

    @classmethod
    def build(cls, train: SeriesBatch | None = None, **config: Any) -> Any:
        """From `NetworkConfig`; with training trials, the read-out starts at every neuron's mean rate."""
        if train is not None:
            config = {"num_neurons": train.num_variables} | config
        known = [field.name for field in fields(NetworkConfig)]
        check_options(cls.__name__, config, known, needed=["num_neurons", "bin_width"])
        model = cls(NetworkConfig(**config))  # type: ignore[call-arg]
        if train is not None:
            model.start_at(train)
        return model

    def _latent(self, reading: Reading, noise: RowNoise, num_samples: int) -> tuple[Tensor, Tensor]:
        """Input of the read-out (S, B, T, width), and a KL in nats (B,)."""
        raise NotImplementedError

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Parts of the negative ELBO, (B,) each, nats per trial; in training mode with coordinated dropout."""
        batch = self.home(batch)
        noise = RowNoise.of(batch, generator)
        reading = self.read(batch, noise if self.training else None)
        latent, kl = self._latent(reading, noise, 1)
        none = torch.zeros_like(kl)
        return Loss(self.score(batch, latent, reading.scored), kl, none, none)

    @torch.no_grad()
    def rates(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 32, *, seed: int = 0) -> Tensor:
        """See `PopulationModel`."""
        batch, bins = self.asked(batch, bins)
        noise = RowNoise.of(batch, torch.Generator().manual_seed(seed))
        reading = self.read(batch).longer(bins)
        return self.likelihood.mean(self._latent(reading, noise, num_samples)[0]).mean(0)


class GRUAutoencoder(_Network):
    """An LFADS-like autoencoder: a GRU in both directions, a Gaussian first state, a GRU that runs on without input.

    After Pandarinath et al. (2018), Nature Methods 15, without the controller.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, config.num_factors)
        hidden = config.hidden_size
        self.encoder = BinnedEncoder(len(self.held_in), hidden, hidden, dropout=config.dropout)
        self.start = nn.Linear(2 * hidden, 2 * hidden)
        self.generator = nn.GRU(1, hidden, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.factors = nn.Linear(hidden, config.num_factors, bias=False)

    def _latent(self, reading: Reading, noise: RowNoise, num_samples: int) -> tuple[Tensor, Tensor]:
        features = self.encoder(reading.counts, reading.seen, reading.end)
        mean, log_sd = self.start(torch.cat((features[:, 0], features[:, -1]), -1)).chunk(2, -1)
        first = mean + log_sd.exp() * noise.samples("start", num_samples, mean.shape[-1], dtype=mean.dtype)
        kl = (0.5 * (mean.square() + (2 * log_sd).exp() - 1) - log_sd).sum(-1)
        rows, bins = num_samples * mean.shape[0], reading.counts.shape[1]
        path, _ = self.generator(mean.new_zeros(rows, bins, 1), first.reshape(1, rows, -1).contiguous())
        return self.factors(self.dropout(path)).unflatten(0, (num_samples, -1)), kl


class PopulationTransformer(_Network):
    """An NDT-like Transformer: attention over all bins, trained to fill in the counts that were hidden.

    After Ye and Pandarinath (2021), Neurons, Behavior, Data analysis and Theory; hidden counts are those of coordinated
    dropout.
    """

    def __init__(self, config: NetworkConfig) -> None:
        width = 2 * config.hidden_size
        super().__init__(config, width)
        inputs = len(self.held_in)
        self.encoder = BinnedEncoder(
            inputs, width, config.hidden_size, kind="attention", stride=1, dropout=config.dropout
        )

    def _latent(self, reading: Reading, noise: RowNoise, num_samples: int) -> tuple[Tensor, Tensor]:
        features = self.encoder(reading.counts, reading.seen, reading.end)[None]
        return features, features.new_zeros(features.shape[1])
