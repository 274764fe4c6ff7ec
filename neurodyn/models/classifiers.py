"""Every classifier of series by name: what a comparison fits, in one place for the recipe and the benchmarks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurodyn.metrics.classes import score_classes
from neurodyn.models.baselines.minirocket_classifier import MiniRocketClassifier
from neurodyn.models.baselines.signature_classifier import SignatureClassifier
from neurodyn.models.classifier import READERS, SeriesClassifier
from neurodyn.models.forecasters import Entry, Training
from neurodyn.series import SeriesBatch
from neurodyn.training import FitResult, fit

CLASSIFIERS: dict[str, Entry] = {
    "lsde": Entry("neural LSDE", "A state in a learned potential that the path of the data tilts (Langevin type)."),
    "lnsde": Entry("neural LNSDE", "A contracting state along the path, with noise in proportion to it."),
    "gsde": Entry("neural GSDE", "A positive state along the path, contracting in its logarithm."),
    "controlled_sde": Entry("controlled SDE", "An SDE along the path, as released, with a network as diffusion."),
    "neural_sde": Entry("neural SDE", "As released as a baseline: it starts from the first visit and sees no other."),
    "neural_cde": Entry("neural CDE", "A state that integrates the path (Kidger et al. 2020)."),
    "gru_d": Entry("GRU-D", "A GRU with decaying inputs and state (Che et al. 2018)."),
    "gru_decay": Entry("GRU with decay", "This package's recurrent encoder, read forwards."),
    "ode_rnn": Entry("ODE-RNN", "A GRU whose state follows an ODE between visits (Rubanova et al. 2019)."),
    "gru_ode": Entry("GRU-ODE", "The same with the continuous limit of a GRU (De Brouwer et al. 2019)."),
    "ltc": Entry("LTC", "Liquid time constants (Hasani et al. 2021)."),
    "cfc": Entry("CfC", "Their closed form (Hasani et al. 2022)."),
    "logsignature": Entry("logsignature + logistic", "Logistic regression on logsignatures, no network."),
    "minirocket": Entry("MiniRocket + ridge", "Ridge regression on 9996 convolutions of the filled series."),
    "most_frequent": Entry("most frequent class", "The shares of the classes among the training rows."),
}
"""By name, in the order in which a recipe fits them."""

SCHEDULE: dict[str, Any] = {
    "steps": 150,
    "batch_size": 64,
    "learning_rate": 1e-2,
    "optimizer": "adamw",
    "weight_decay": 1e-2,
    "warmup_steps": 20,
    "clip_norm": 5.0,
    "validate_every": 25,
}
"""Settings of `FitConfig` for a few hundred series."""

VALIDATION_SAMPLES = 8


@dataclass(frozen=True)
class FittedClassifier:
    """A fitted classifier.

    Args:
        name: in `CLASSIFIERS`. model: fitted. seconds: that fitting took, over all parts of a resumed fit.
        result: of `fit`, for networks.
    """

    name: str
    model: Any
    seconds: float
    result: FitResult | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return self.result is not None and self.result.stopped == "interrupted"

    def probabilities(self, batch: SeriesBatch, num_samples: int = 32, *, seed: int = 0) -> Tensor:
        """(B, K) on the CPU."""
        if isinstance(self.model, SeriesClassifier):
            generator = torch.Generator().manual_seed(seed)
            return self.model.probabilities(batch, num_samples, generator=generator).cpu()
        found: Tensor = self.model.probabilities(batch.to("cpu"))
        return found


class MostFrequent:
    """The shares of the classes among the training rows, whatever the series."""

    def fit(self, train: SeriesBatch, num_classes: int) -> MostFrequent:
        """Count."""
        if train.labels is None:
            raise ValueError("labels: none given, class codes (B,) wanted")
        self.shares = torch.bincount(train.labels, minlength=num_classes).double() / len(train)
        return self

    def probabilities(self, batch: SeriesBatch) -> Tensor:
        """(B, K) float64."""
        return self.shares.expand(len(batch), -1)


def validation_score(model: nn.Module, batch: SeriesBatch) -> float:
    """Mean -log p(label), nats, by sample paths that are the same at every call."""
    assert isinstance(model, SeriesClassifier) and batch.labels is not None
    found = model.probabilities(batch, VALIDATION_SAMPLES, generator=torch.Generator().manual_seed(0))
    return score_classes(found, batch.labels).log_score


def fit_classifier(
    name: str,
    train: SeriesBatch,
    validation: SeriesBatch,
    num_classes: int,
    training: Training | None = None,
    *,
    hide: float = 0.0,
    folder: Path | None = None,
    **settings: Any,
) -> FittedClassifier:
    """Fit one classifier; networks keep the weights that did best on the validation rows by their log score.

    Args:
        name: in `CLASSIFIERS`.
        train, validation: standardised, on the CPU, with class codes as labels.
        num_classes: K.
        training: settings that all share; schedules by name.
        hide: largest share of the observations that a network's training step leaves out, drawn anew for each step from
            0 to it: the same series then looks different each time, and fewer observations later are nothing new.
        folder: of this classifier alone; a fit that was killed goes on from there.
        settings: of `ClassifierConfig`, for networks: hidden_size, form, path, ...

    Raises:
        ValueError: an unknown name or setting, a share out of range, and what `fit` raises.
        ImportError: "logsignature" without scikit-learn, "minirocket" without the extra of that name.
    """
    if name not in CLASSIFIERS:
        raise ValueError(f"name: {name!r} given, one of {', '.join(CLASSIFIERS)} wanted")
    if not 0 <= hide < 1:
        raise ValueError(f"hide: {hide} given, a share from 0 to below 1 wanted")
    training = training or Training()
    started = time.monotonic()
    if name not in READERS:
        plain: Any = MostFrequent()
        if name == "logsignature":
            plain = SignatureClassifier()
        elif name == "minirocket":
            plain = MiniRocketClassifier(training.seed)
        return FittedClassifier(name, plain.fit(train, num_classes), time.monotonic() - started)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = SeriesClassifier.build(
            num_variables=train.num_variables, num_classes=num_classes, reader=name, **settings
        )
    config = training.config(name, SCHEDULE)

    def augment(rows: SeriesBatch, generator: torch.Generator) -> SeriesBatch:
        return rows.drop_observed(hide * float(torch.rand((), generator=generator)), generator)[0]

    result = fit(
        model, train, validation, config, folder=folder, validate=validation_score, augment=augment if hide else None
    )
    return FittedClassifier(name, model, result.seconds, result)
