"""Learners of structure by name: which variable drives which, each by one call on standardised series."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neurodyn.models.baselines import one_step, pcmci
from neurodyn.models.scotch import Scotch
from neurodyn.models.unlinked import edge_probabilities, unlinked
from neurodyn.series import SeriesBatch
from neurodyn.training import FitConfig, FitResult, fit
from neurodyn.training_log import LogKind

Array = NDArray[np.float64]
QUICK_STEPS = 20
FEWEST_INTERVALS = 30
RESOLVED = 0.1
"""Correlation of a variable with itself one step later below which a step may be too long for a law of motion."""


@dataclass(frozen=True)
class StructureLearner:
    """A learner: its name for readers, what it is, and, for a baseline, the function of series and seed."""

    label: str
    about: str
    baseline: Callable[[SeriesBatch, int], Array] | None = None
    settings: dict[str, Any] | None = None
    """Of `Scotch`, for one of those."""


STRUCTURE_LEARNERS: dict[str, StructureLearner] = {
    "lagged_correlation": StructureLearner(
        "lagged correlation", "The correlation of a variable with another one step later.", one_step.lagged_correlation
    ),
    "vector_autoregression": StructureLearner(
        "VAR Granger", "Granger's test in a first-order vector autoregression.", one_step.vector_autoregression
    ),
    "ridge": StructureLearner("ridge", "Coefficients of a ridge regression one step ahead.", one_step.ridge),
    "quadratic_ridge": StructureLearner(
        "quadratic ridge", "The same with squares and products of the variables.", one_step.quadratic_ridge
    ),
    "boosted_trees": StructureLearner(
        "boosted trees", "Importances in gradient-boosted trees one step ahead.", one_step.boosted_trees
    ),
    "componentwise_mlp": StructureLearner(
        "cMLP", "A perceptron per variable with a group penalty on its inputs.", one_step.componentwise_mlp
    ),
    "pcmci_plus": StructureLearner(
        "PCMCI+", "Tests of partial correlation one step later, given the parents of both.", pcmci.pcmci_plus
    ),
    "scotch": StructureLearner(
        "SCOTCH, matched", "A law of motion masked by a graph, trained by SDE Matching.", None, {}
    ),
    "scotch_step": StructureLearner(
        "SCOTCH, one step", "The same with a one-step map in place of a law of motion.", None, {"posterior": "step"}
    ),
    "scotch_simulated": StructureLearner(
        "SCOTCH, simulated",
        "The same law with paths through the solver, which begin as bridges through the values.",
        None,
        {"posterior": "simulated", "noise": 0.05, "num_graphs": 1},
    ),
}
BASELINES = tuple(name for name, entry in STRUCTURE_LEARNERS.items() if entry.baseline is not None)


class LearnedStructure(NamedTuple):
    """`scores` (D, D), [i, j] for i drives j, larger is surer; `probabilities` (D, D) if asked for, from the scores of
    `unlinked` edges (N,)."""

    name: str
    scores: Array
    seconds: float
    probabilities: Array | None = None
    unlinked: Array | None = None
    model: Scotch | None = None
    result: FitResult | None = None


def learn_structure(
    name: str,
    series: SeriesBatch,
    *,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    quick: bool = False,
    progress: bool = False,
    folder: Path | str | None = None,
    steps: int | None = None,
    settings: dict[str, Any] | None = None,
    logs: tuple[LogKind, ...] = (),
    calibrate: bool = False,
) -> LearnedStructure:
    """Learn by the learner of this name.

    Args:
        series: standardised, all of them to learn from.
        quick: a few training steps only; the scores then mean nothing.
        folder: where a `Scotch` keeps its training records and its checkpoint, from which it resumes.
        steps: of the training of a `Scotch`, its ramp; its own number if not given.
        settings: further settings of a `Scotch`.
        logs: of its training, see `FitConfig`.
        calibrate: fit a `Scotch` a second time, to series of unlinked variables, and give every edge a probability (see
            `neurodyn.models.unlinked`). One series alone has no such partner, and gets none.

    Raises:
        ValueError: an unknown name; too few visits, see `check_enough`.
    """
    if name not in STRUCTURE_LEARNERS:
        raise ValueError(f"name: {name!r} given, one of {', '.join(STRUCTURE_LEARNERS)} wanted")
    check_enough(series)
    entry, begun = STRUCTURE_LEARNERS[name], time.monotonic()
    if entry.baseline is not None:
        return LearnedStructure(name, entry.baseline(series, seed), time.monotonic() - begun)
    chosen = (entry.settings or {}) | (settings or {})
    if steps is not None or quick:
        chosen |= {"ramp_steps": steps or QUICK_STEPS} | ({"warmup_steps": QUICK_STEPS} if quick else {})
    options = (seed, device, progress, logs)
    model, result = _fitted(series, chosen, *options, folder)
    scores, seconds = model.edge_scores().double().numpy(), result.seconds
    unlinked_scores = probabilities = None
    if calibrate and series.num_rows > 1:
        shuffled, apart = unlinked(series, seed)
        null, its_result = _fitted(shuffled, chosen, *options, None if folder is None else Path(folder) / "unlinked")
        free = model.graph.free.cpu().numpy()
        unlinked_scores = null.edge_scores().double().numpy()[apart & free]
        if unlinked_scores.size:
            probabilities = edge_probabilities(scores, unlinked_scores, free)
        seconds += its_result.seconds
    return LearnedStructure(name, scores, seconds, probabilities, unlinked_scores, model, result)


def _fitted(
    series: SeriesBatch,
    settings: dict[str, Any],
    seed: int,
    device: Literal["auto", "cpu", "cuda"],
    progress: bool,
    logs: tuple[LogKind, ...],
    folder: Path | str | None,
) -> tuple[Scotch, FitResult]:
    model = seeded(series, seed, **settings)
    return model, fit(model, series, None, fit_settings(model, seed, device, progress, logs), folder=folder)


def law_of_graph(
    series: SeriesBatch,
    graph: Array,
    *,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    steps: int = 1000,
    progress: bool = False,
    folder: Path | str | None = None,
    settings: dict[str, Any] | None = None,
    logs: tuple[LogKind, ...] = (),
) -> Scotch:
    """The law of motion under one given graph (D, D) of zeros and ones, for forecasts and interventions."""
    fixed = [[float(entry) for entry in row] for row in np.asarray(graph)]
    model = seeded(series, seed, **(settings or {}) | {"fixed": fixed, "warmup_steps": 0, "ramp_steps": steps})
    fit(model, series, None, fit_settings(model, seed, device, progress, logs), folder=folder)
    return model


def seeded(series: SeriesBatch, seed: int, **settings: Any) -> Scotch:
    """A fresh `Scotch` on these series whose weights are drawn from this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Scotch.on(series, **settings)


def fit_settings(
    model: Scotch, seed: int, device: Literal["auto", "cpu", "cuda"], progress: bool, logs: tuple[LogKind, ...] = ()
) -> FitConfig:
    """How a `Scotch` is trained: on all series at once, for the steps of its ramp."""
    return FitConfig(
        steps=max(1, model.settings.warmup_steps + model.settings.ramp_steps),
        batch_size=0,
        learning_rate=3e-3,
        schedule="constant",
        clip_norm=0.0,
        seed=seed,
        device=device,
        progress=progress,
        logs=logs,
    )


def check_enough(series: SeriesBatch) -> None:
    """ValueError if there are too few visits, or only one variable, to learn who drives whom."""
    intervals = int((series.present.sum(1) - 1).clamp(min=0).sum())
    if series.num_variables < 2:
        raise ValueError(f"series: {series.num_variables} variable given, 2 or more wanted")
    if intervals < FEWEST_INTERVALS:
        raise ValueError(
            f"series: {intervals} intervals between visits given over {series.num_rows} series, {FEWEST_INTERVALS} or "
            "more wanted"
        )


def self_correlation(series: SeriesBatch) -> float:
    """The median over variables of the correlation with themselves one step later.

    Near 1 the visits resolve the motion. Below `RESOLVED` the motion between visits may be lost: a bridge cannot see
    it then, and a one-step map (`posterior="step"`, boosted trees) is the better question.
    """
    x, y = one_step.one_step_pairs(series)
    centred = (x - x.mean(0)) * (y - y.mean(0))
    return float(np.median(centred.mean(0) / (x.std(0) * y.std(0))))


def known_edges(
    names: Sequence[str], known: Sequence[str] = (), forbidden: Sequence[str] = ()
) -> list[list[float | None]] | None:
    """`ScotchConfig.fixed` from edges in words, "cause>effect": 1 where known, 0 where forbidden; None if none is.

    Raises:
        ValueError: an edge of other variables, or in both lists.
    """
    if not known and not forbidden:
        return None
    table: list[list[float | None]] = [[None] * len(names) for _ in names]
    for option, given, value in (("known", known, 1.0), ("forbidden", forbidden, 0.0)):
        for words in given:
            ends = [word.strip() for word in words.split(">")]
            if len(ends) != 2 or not set(ends) <= set(names):
                raise ValueError(f"{option}: {words!r} given, 'cause>effect' with two of {', '.join(names)} wanted")
            i, j = (list(names).index(end) for end in ends)
            if table[i][j] not in (None, value):
                raise ValueError(f"known, forbidden: {words!r} given in both")
            table[i][j] = value
    return table


def tables_of(fits: Sequence[LearnedStructure]) -> tuple[Array, Array]:
    """Probabilities and scores of all fits, (fits, D, D) each; a score is compared with all fits' unlinked ones."""
    scores = np.stack([fit.scores for fit in fits])
    known = [fit.unlinked for fit in fits if fit.unlinked is not None and fit.unlinked.size]
    if not known:
        return scores, scores
    null = np.concatenate(known)
    free = [None if fit.model is None else fit.model.graph.free.cpu().numpy() for fit in fits]
    return np.stack([edge_probabilities(s, null, f) for s, f in zip(scores, free, strict=True)]), scores


def edge_table(probabilities: Array, scores: Array, names: Sequence[str], truth: Array | None = None) -> pd.DataFrame:
    """A line per possible edge, the highest score first: means and standard deviations over fits (fits, D, D)."""
    size = len(names)
    i, j = (part.ravel() for part in np.indices((size, size)))
    frame = pd.DataFrame(
        {
            "source": np.array(names)[i],
            "target": np.array(names)[j],
            "probability": probabilities.mean(0)[i, j],
            "sd": probabilities.std(0)[i, j],
            "score": scores.mean(0)[i, j],
            "score sd": scores.std(0)[i, j],
        }
    )
    if truth is not None:
        frame["true"] = truth[i, j].astype(int)
    return frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)
