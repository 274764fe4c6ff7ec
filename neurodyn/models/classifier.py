"""`SeriesClassifier`: classes of irregular series, read off a stable SDE, a controlled equation or a recurrent cell."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from neurodyn.checkpoints import load_model, save_model
from neurodyn.loss import Loss
from neurodyn.models.home import at_home
from neurodyn.nets.controlled import ControlledSDE, NeuralCDE, num_channels
from neurodyn.nets.gru_d import GRUD
from neurodyn.nets.gru_decay import GRUDecayEncoder
from neurodyn.nets.paths import PathKind
from neurodyn.nets.recurrent import RecurrentEncoder
from neurodyn.noise import RowNoise
from neurodyn.sde.controlled import ControlledLaw
from neurodyn.sde.stable import NeuralGSDE, NeuralLNSDE, NeuralLSDE
from neurodyn.sde.stable_released import ReleasedKind, ReleasedNeuralSDE
from neurodyn.series import SeriesBatch
from neurodyn.spelling import check_options

Reader = Literal[
    "lsde",
    "lnsde",
    "gsde",
    "neural_sde",
    "controlled_sde",
    "neural_cde",
    "gru_decay",
    "gru_d",
    "ode_rnn",
    "gru_ode",
    "ltc",
    "cfc",
]
READERS: tuple[Reader, ...] = get_args(Reader)
"""What can read a series, by name."""

StableReader = Literal["lsde", "lnsde", "gsde", "neural_sde", "controlled_sde"]
"""Those that are SDEs."""

_RELEASED: dict[str, ReleasedKind] = {
    "lsde": "langevin",
    "lnsde": "linear_noise",
    "gsde": "geometric",
    "neural_sde": "plain",
    "controlled_sde": "controlled",
}
_STABLE = {"lsde": NeuralLSDE, "lnsde": NeuralLNSDE, "gsde": NeuralGSDE}


@dataclass
class ClassifierConfig:
    """Of a `SeriesClassifier`.

    Raises:
        ValueError: on construction, for a setting out of its range.
    """

    num_variables: int
    """D."""
    num_classes: int
    """K."""
    reader: Reader = "lnsde"
    """"lsde", "lnsde", "gsde": stable SDEs along the path of the data; "neural_sde": an SDE that sees the first visit
    only; "controlled_sde": it, along the path; "neural_cde"; or cells: "gru_decay", "gru_d", "ode_rnn", "gru_ode",
    "ltc", "cfc"."""
    hidden_size: int = 32
    """Of the state, and of the networks."""
    form: Literal["theory", "released"] = "theory"
    """Of the stable SDEs: as their theory asks, or as the authors' code computes them."""
    path: PathKind = "hermite"
    """Of the SDEs and the CDE."""
    intensity: bool = False
    """Whether these also see how often each variable has been observed."""
    pace: float = 10.0
    """Units of the SDEs' own time, in which their rates are of order one, in one of the batch's: a series of so many
    relaxation times per unit."""
    longest_step: float = 0.25
    """Of the SDEs, in their own time."""
    mean: bool = True
    """Whether the class is read off the mean of the SDEs' state over time, too, and not only off where it ends."""
    dropout: float = 0.1
    """Of the read-out's hidden layer."""

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes: got {self.num_classes}, want 2 or more")
        for name in ("reader", "form"):
            choices = READERS if name == "reader" else ("theory", "released")
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, want one of {', '.join(choices)}")
        if not self.pace > 0:
            raise ValueError(f"pace: got {self.pace}, want a positive number")
        if self.num_variables < 1 or self.hidden_size < 1:
            raise ValueError(
                f"num_variables, hidden_size: got {self.num_variables} and {self.hidden_size}, want 1 or more"
            )


class SeriesClassifier(nn.Module):
    """p(class | series) = E[softmax(read-out(state after the last visit))], the mean over sample paths of an SDE.

    Train with `fit`, on batches whose labels are class codes 0 ... K - 1 and whose values are standardised. A row's
    probabilities depend on its observed entries, and on its id where the reader is an SDE, alone.

    Args:
        config: see `ClassifierConfig`; `build` takes its fields.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.settings = config
        self.config = asdict(config)
        size, hidden = config.num_variables, config.hidden_size
        self.reader: Any
        if config.reader in _RELEASED:
            law = stable_law(config.reader, config.form, hidden, size, config.intensity)
            self.reader = ControlledSDE(
                law, path=config.path, intensity=config.intensity, longest_step=config.longest_step
            )
        elif config.reader == "neural_cde":
            self.reader = NeuralCDE(size, hidden, hidden, width=hidden, path=config.path, intensity=config.intensity)
        elif config.reader == "gru_decay":
            self.reader = GRUDecayEncoder(size, hidden, hidden, direction="forward")
        elif config.reader == "gru_d":
            self.reader = GRUD(size, hidden)
        else:
            self.reader = RecurrentEncoder(size, hidden, config.reader, hidden)
        read = hidden * (1 + (config.mean and isinstance(self.reader, ControlledSDE)))
        self.readout = nn.Sequential(
            nn.LayerNorm(read),
            nn.Linear(read, hidden),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, config.num_classes),
        )

    @classmethod
    def build(cls, **config: Any) -> Self:
        """From the fields of `ClassifierConfig`.

        Raises:
            ValueError: an unknown field, one that is missing, or one out of its range.
        """
        known = [field.name for field in fields(ClassifierConfig)]
        check_options(cls.__name__, config, known, needed=["num_variables", "num_classes"])
        return cls(ClassifierConfig(**config))

    @property
    def random(self) -> bool:
        """Whether the reader draws paths."""
        return isinstance(self.reader, ControlledSDE)

    def scores(self, batch: SeriesBatch, num_samples: int = 1, *, noise: RowNoise | None = None) -> Tensor:
        """Log-probabilities of the classes for each sample path, (S, B, K); S = 1 where the reader draws none."""
        batch = at_home(batch, self).compact()
        if self.random:
            batch = batch._with(times=batch.times * self.settings.pace)
            state = self.reader(batch, num_samples, mean=self.settings.mean, noise=noise)
        else:
            state = self.reader(batch).summary[None]
        found: Tensor = self.readout(state).log_softmax(-1)
        return found

    def loss(self, batch: SeriesBatch, *, generator: torch.Generator | None = None) -> Loss:
        """-log p(label) of each row, (B,), by one sample path.

        Raises:
            ValueError: a batch without class codes as labels.
        """
        labels = self._codes(batch)
        found = self.scores(batch, 1, noise=RowNoise.of(batch, generator))[0]
        right = found.gather(-1, labels.to(found.device)[:, None])[:, 0]
        zero = torch.zeros_like(right)
        return Loss(right, zero, zero, zero)

    @torch.no_grad()
    def probabilities(
        self, batch: SeriesBatch, num_samples: int = 32, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, K), on the batch's device: means over `num_samples` paths."""
        found = self.scores(batch, num_samples, noise=RowNoise.of(batch, generator))
        return (found.logsumexp(0) - math.log(len(found))).exp().to(batch.device)

    def _codes(self, batch: SeriesBatch) -> Tensor:
        labels = batch.labels
        if labels is None or labels.is_floating_point():
            given = "none" if labels is None else str(labels.dtype)
            raise ValueError(f"labels: got {given}, want class codes from 0 to {self.settings.num_classes - 1}")
        return labels.long()

    def save(self, path: Path | str) -> Path:
        """Write a folder with the weights and the configuration; returns it."""
        return save_model(self, path)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """What `save` wrote."""
        return load_model(cls, path)


def stable_law(reader: str, form: str, state_size: int, num_variables: int, intensity: bool = False) -> ControlledLaw:
    """The law of a `StableReader` along the path of so many variables."""
    channels = num_channels(num_variables, intensity)
    if form == "released" or reader not in _STABLE:
        return ReleasedNeuralSDE(_RELEASED[reader], state_size, channels)
    return _STABLE[reader](state_size, channels, state_size)
