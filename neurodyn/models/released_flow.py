"""LangevinFlow as its authors released it, with every departure from a true evidence bound as a switch of its own.

Song, Keller, Yue, Perona and Welling (2025), arXiv 2507.11531; recurrences as in the code beside the paper:

    h_t = Dropout(GRU(x, h_{t-1})),    q(z_0), q(v_0) Gaussian from h_0
    z_{t+1} = z_t + 0.01 v_t,    v' = v_t - 0.01 dU/dz,    v_{t+1} = (1 - c) v' + sqrt(2 c) e
    log-rates = Linear(Transformer layer([z, v, h] of all bins))

After the first bin no data reach (z, v); they reach the read-out through h. With all switches off the loss is the
negative ELBO of a Langevin model whose posterior differs from its prior at the start alone. `LangevinFlow` is the model
to use; this one is what it is compared with.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import load_model, save_model
from neurodyn.likelihoods import make_likelihood
from neurodyn.loss import Loss
from neurodyn.models.population import PopulationConfig, PopulationModel, one_length
from neurodyn.noise import RowNoise
from neurodyn.sde.potentials import CoupledOscillators
from neurodyn.series import SeriesBatch
from neurodyn.spelling import check_options

STEP = 0.01
"""Of the Hamiltonian half, per bin."""
PRIOR_VARIANCE = 0.1
"""Of the law that velocities are drawn to after the first bin, N(0, 0.1)."""


@dataclass
class Quirks:
    """What the released code does; False does what the evidence bound asks for."""

    lagged_input: bool = True
    """h_t reads bin t - 1, not t (the paper reads t)."""
    unit_friction: bool = True
    """v -> (1 - c) v + sqrt(2 c) e, not the exact exp(-c) v + sqrt(1 - exp(-2 c)) e, which keeps N(0, 1)."""
    fixed_prior: bool = True
    """Velocities after the first bin are drawn to N(0, 0.1), not to the Langevin law, which they follow anyway."""
    variance_as_log: bool = True
    """In that KL the noise's variance 2 c stands where its logarithm should, a draw for the mean."""
    mean_likelihood: bool = True
    """The likelihood is a mean over bins and neurons, the KL a sum: the KL then weighs thousands of times more."""
    zero_kernel: bool = True
    """The potential's kernel starts at zero, where its normalisation freezes it at the signs of one gradient."""
    unbounded_potential: bool = True
    """The bare coupling as a potential, which has no lower bound."""
    decoder_reads_state: bool = True
    """h goes to the read-out, a path from data to rates that no KL prices."""
    mean_of_log_rates: bool = True
    """Predicted rates are exponentials of mean log-rates, not mean rates."""
    dropout_at_prediction: bool = True
    """Dropout stays on when rates are predicted."""


@dataclass
class ReleasedFlowConfig(PopulationConfig):
    """Sizes and settings; the released ones are for 35 bins of 20 ms. After `num_observed` bins the last is read again.

    Raises:
        ValueError: on construction, naming the setting.
    """

    coordinated_dropout: float = 0.5
    """Share of held-in counts that a training step hides; most of these are scored, and some of the others."""
    hidden_size: int = 64
    """H of z, v and h each; a multiple of 4. 280 in the released scripts."""
    friction: float = 0.55
    """c per bin."""
    dropout: float = 0.05
    """Of h, and of the Transformer layer."""
    likelihood: Literal["poisson", "negative_binomial", "gaussian"] = "poisson"
    """Law of the values."""
    readout: Literal["transformer", "linear"] = "transformer"
    """ "transformer", or "linear" from the bin's own latents."""
    quirks: dict[str, bool] | None = None
    """Switches of `Quirks` that are not as released."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % 4 or self.hidden_size < 4:
            raise ValueError(f"hidden_size: {self.hidden_size} given, a multiple of 4 wanted")
        if not 0 < self.friction < 1:
            raise ValueError(f"friction: {self.friction} given, a number between 0 and 1 wanted")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: {self.dropout} given, a share from 0 to below 1 wanted")
        if self.likelihood not in ("poisson", "negative_binomial", "gaussian"):
            raise ValueError(f"likelihood: {self.likelihood!r} given, poisson, negative_binomial or gaussian wanted")
        check_options("quirks", self.quirks or {}, [field.name for field in fields(Quirks)])
        for name, value in (self.quirks or {}).items():
            if not isinstance(value, bool):
                raise ValueError(f"quirks: {name}={value!r} given, True or False wanted")
        if self.likelihood == "gaussian" and Quirks(**(self.quirks or {})).mean_of_log_rates:
            raise ValueError(
                "quirks: mean_of_log_rates given with a gaussian likelihood, whose means have no logarithm; "
                "mean_of_log_rates=False wanted"
            )


class ReleasedFlow(PopulationModel):
    """See the module and `ReleasedFlowConfig`; make models with `build`."""

    settings: ReleasedFlowConfig

    def __init__(self, config: ReleasedFlowConfig) -> None:
        super().__init__(config)
        self.config = asdict(config)
        self.quirks = Quirks(**(config.quirks or {}))
        size, neurons = config.hidden_size, config.num_neurons
        self.cell = nn.GRUCell(len(self.held_in), size)
        self.dropout = nn.Dropout(config.dropout)
        self.start = nn.Linear(size, 4 * size)
        self.potential = CoupledOscillators(size, form="released" if self.quirks.unbounded_potential else "squares")
        if self.quirks.zero_kernel:
            nn.init.zeros_(self.potential.weight)
        width = (3 if self.quirks.decoder_reads_state else 2) * size
        decoder = Decoder(width, neurons, config.readout, config.dropout)
        options: dict[str, Any] = {} if config.likelihood == "gaussian" else {"exposure": config.bin_width}
        self.likelihood = make_likelihood(config.likelihood, width, neurons, decoder=decoder, **options)

    @classmethod
    def build(cls, train: SeriesBatch | None = None, **config: Any) -> ReleasedFlow:
        """From `ReleasedFlowConfig`; with training trials, the read-out starts at every neuron's mean rate."""
        if train is not None:
            config = {"num_neurons": train.num_variables} | config
        known = [field.name for field in fields(ReleasedFlowConfig)]
        check_options("ReleasedFlow", config, known, needed=["num_neurons", "bin_width"])
        model = cls(ReleasedFlowConfig(**config))
        if train is not None:
            one_length(train, "ReleasedFlow")
            model.start_at(train)
        return model

    def save(self, path: Path | str) -> Path:
        """Write a folder of weights (safetensors) and configuration (JSON)."""
        return save_model(self, path)

    @classmethod
    def load(cls, path: Path | str) -> ReleasedFlow:
        """Read what `save` wrote. Raises as `load_model`."""
        return load_model(cls, path)

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """Parts of the loss, (B,) each: nats per trial, but for a `mean_likelihood`, nats per bin and neuron.

        Raises:
            ValueError: another number of neurons, trials of several lengths.
        """
        batch = one_length(self.home(batch), "ReleasedFlow")
        noise = RowNoise.of(batch, generator)
        counts, open_ = self._counts(batch)
        scored, scale, kept = batch.mask, 1.0, 1 - self.settings.coordinated_dropout
        if self.training and kept < 1:
            keep = noise.uniform("keep", *open_.shape[1:], dtype=batch.dtype) < kept
            counts, scale = counts * keep, 1 / kept
            again = noise.uniform("again", *open_.shape[1:], dtype=batch.dtype) < 1 - kept
            scored = batch.mask.clone()
            limit = counts.shape[1]
            scored[:, :limit, self.held_in] &= (~keep | again)[:, :limit]
        latent, initial_kl, path_kl = self._run(counts * scale, batch.num_times, noise, 1)
        log_prob = self.likelihood.log_prob(batch.values, latent, scored).sum(-1).mean(0)
        if self.quirks.mean_likelihood:
            log_prob = log_prob / (batch.num_times * batch.num_variables)
        return Loss(log_prob, initial_kl, path_kl, torch.zeros_like(path_kl))

    @torch.no_grad()
    def rates(self, batch: SeriesBatch, bins: int | None = None, num_samples: int = 50, *, seed: int = 0) -> Tensor:
        """See `PopulationModel`; over `num_samples` passes. Trials have one length."""
        batch, bins = self.asked(batch, bins)
        batch = one_length(batch, "ReleasedFlow")
        noise = RowNoise.of(batch, torch.Generator().manual_seed(seed))
        training = self.training
        self.train(self.quirks.dropout_at_prediction)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of dropout
            latent, _, _ = self._run(self._counts(batch)[0], bins, noise, num_samples)
            rates = self.likelihood.mean(latent)
        self.train(training)
        return rates.log().mean(0).exp() if self.quirks.mean_of_log_rates else rates.mean(0)

    def _counts(self, batch: SeriesBatch) -> tuple[Tensor, Tensor]:
        """What the GRU may read: counts (B, T_observed, held-in), and the mask of the same shape."""
        limit = self.settings.num_observed or batch.num_times
        inside = batch.mask[:, :limit, self.held_in]
        return torch.where(inside, batch.values[:, :limit, self.held_in], 0.0), inside

    def _run(self, counts: Tensor, bins: int, noise: RowNoise, num_samples: int) -> tuple[Tensor, Tensor, Tensor]:
        """[z, v, h] of all bins (S, B, bins, .), and the KL of the first bin and of the later ones, (B,)."""
        quirks, size, friction = self.quirks, self.settings.hidden_size, self.settings.friction
        if quirks.unit_friction:
            decay, kick = 1 - friction, math.sqrt(2 * friction)
        else:
            decay, kick = math.exp(-friction), math.sqrt(-math.expm1(-2 * friction))
        inputs = counts.unbind(1)
        state = self.dropout(self.cell(inputs[0].expand(num_samples, -1, -1).flatten(0, 1)))
        state = state.unflatten(0, (num_samples, -1))
        mean_z, log_z, mean_v, log_v = self.start(state).chunk(4, -1)
        first = noise.samples("first", num_samples, 2 * size, dtype=state.dtype)
        z = mean_z + (0.5 * log_z).exp() * first[..., :size]
        v = mean_v + (0.5 * log_v).exp() * first[..., size:]
        initial = standard_kl(torch.cat((mean_z, mean_v), -1), torch.cat((log_z, log_v), -1))
        kicks = noise.samples("kicks", num_samples, max(bins - 1, 1), size, dtype=state.dtype).unbind(2)
        path, kept = torch.zeros_like(initial), [(z, v, state)]
        for t in range(1, bins):
            read = inputs[min(t - 1 if quirks.lagged_input else t, len(inputs) - 1)].expand(num_samples, -1, -1)
            state = self.dropout(self.cell(read.flatten(0, 1), state.flatten(0, 1))).unflatten(0, (num_samples, -1))
            push = self.potential.gradient(z)
            z, still = z + STEP * v, decay * (v - STEP * push)
            v = still + kick * kicks[t - 1]
            if quirks.fixed_prior:
                log_variance = 2 * friction if quirks.variance_as_log else 2 * math.log(kick)
                spread = math.exp(log_variance) + (v if quirks.variance_as_log else still).square()
                rest = math.log(PRIOR_VARIANCE) - log_variance - 1
                path = path + 0.5 * (spread / PRIOR_VARIANCE + rest).sum(-1)
            kept.append((z, v, state))
        columns = zip(*kept, strict=True) if quirks.decoder_reads_state else list(zip(*kept, strict=True))[:2]
        latent = torch.cat([torch.stack(column, 2) for column in columns], -1)
        return latent, initial.mean(0), path.mean(0)


class Decoder(nn.Module):
    """One Transformer layer over all bins (post-norm, 2 heads, 512 hidden, no code of places), then a linear layer."""

    def __init__(self, width: int, num_variables: int, kind: str, dropout: float) -> None:
        if kind not in ("transformer", "linear"):
            raise ValueError(f"readout: {kind!r} given, 'transformer' or 'linear' wanted")
        super().__init__()
        self.layer: nn.TransformerEncoderLayer | None = None
        if kind == "transformer":
            self.layer = nn.TransformerEncoderLayer(width, 2, 512, dropout, batch_first=True)
            with torch.no_grad():  # T-Fixup's scale
                for linear in (self.layer.linear1, self.layer.linear2, self.layer.self_attn.out_proj):
                    linear.weight.mul_(0.67 * 3**-0.25)
        self.last = nn.Linear(width, num_variables)

    @property
    def bias(self) -> Tensor:
        """(N,)."""
        return self.last.bias

    def forward(self, latent: Tensor) -> Tensor:
        """(..., T, width) to (..., T, N)."""
        if self.layer is not None:
            latent = self.layer(latent.reshape(-1, *latent.shape[-2:])).reshape(latent.shape)
        found: Tensor = self.last(latent)
        return found


def standard_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL( N(mean, exp(log_variance)) || N(0, 1) ), summed over the last axis, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
