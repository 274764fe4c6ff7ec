"""Which variable drives which, from irregular series: fit SCOTCH by SDE Matching, compare with baselines, report.

    python recipes/structure.py                                        Lorenz-96, whose graph is known
    python recipes/structure.py --dataset glycolysis
    python recipes/structure.py --data my.csv --id patient --time day --values bili albumin platelet
    python recipes/structure.py --data my.csv ... --known "bili>albumin" --forbidden "albumin>bili"
    python recipes/structure.py --data my.csv ... --intervene bili=4

Values are standardised over all series. The edges' probabilities, and the scores that rank them, are means over several
fits from different weights; standard deviations are in the table. The law of motion is then fitted under the graph of
the edges above the threshold, for forecasts of the last part of the series, and for what would follow if variables were
held at values.

A run that was killed goes on when it is started again with the same --folder.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from neurodyn import datasets, plots
from neurodyn.checkpoints import write_json
from neurodyn.metrics.graphs import graph_scores
from neurodyn.models.scotch import Scotch
from neurodyn.models.structure import (
    RESOLVED,
    STRUCTURE_LEARNERS,
    LearnedStructure,
    check_enough,
    edge_table,
    known_edges,
    law_of_graph,
    learn_structure,
    self_correlation,
    tables_of,
)
from neurodyn.plots.graphs import drawn_graph, edge_matrix, to_networkx
from neurodyn.recipes.command import Execution, program, settings_of
from neurodyn.recipes.own_series import OwnSeries
from neurodyn.report import write_report
from neurodyn.runs import Run
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch

Array = NDArray[np.float64]
BaselineName = Literal[
    "lagged_correlation",
    "vector_autoregression",
    "ridge",
    "quadratic_ridge",
    "boosted_trees",
    "componentwise_mlp",
    "pcmci_plus",
]
SHOWN_ROWS, SHOWN_VARIABLES = 2, 5

log = logging.getLogger("neurodyn.recipes.structure")


@dataclass
class Config(Execution, OwnSeries):
    """Learn which variable drives which, from irregular series."""

    dataset: str = "lorenz96"
    """A system with a known graph: lorenz96, glycolysis, coupled_sdes, dream3 or netsim; not used with --data."""
    known: tuple[str, ...] = ()
    """Edges that are there, as "cause>effect"."""
    forbidden: tuple[str, ...] = ()
    """Edges that are not there."""
    posterior: Literal["bridge", "step"] = "bridge"
    """Bridges through the values (SDE Matching), or a one-step map."""
    noise: float | None = None
    """Standard deviation of the observation noise in standardised units; values are taken as exact if not given."""
    steps: int | None = None
    """Training steps of a fit; its own number if not given."""
    seeds: int = 3
    """How many fits from different weights."""
    seed: int = 0
    """The first of them."""
    threshold: float = 0.5
    """Probability above which an edge is drawn, and is in the law of the forecasts."""
    intervene: tuple[str, ...] = ()
    """Variables to hold at a value, in the data's own units, as "name=value", one forecast each."""
    baselines: tuple[BaselineName, ...] = ("lagged_correlation", "vector_autoregression", "ridge", "boosted_trees")
    """What to compare with; pcmci_plus needs the extra pcmci."""
    quick: bool = False
    """A few training steps only, to see that everything runs: the numbers then mean nothing."""


class Task(NamedTuple):
    """The series in their own units, the true graph (D, D) where it is known, and where they are from."""

    series: SeriesBatch
    truth: Array | None
    name: str
    source: str
    time_unit: str


def load(config: Config) -> Task:
    """Read the series and check that something can be learned from them.

    Raises ValueError for options that do not fit together or to the data, OSError for a file that cannot be read.
    """
    for name, least in (("seeds", 1), ("steps", 1)):
        given = getattr(config, name)
        if given is not None and given < least:
            raise ValueError(f"{name}: {given} given, {least} or more wanted")
    if not 0 < config.threshold < 1:
        raise ValueError(f"threshold: {config.threshold} given, a number between 0 and 1 wanted")
    if config.data is None:
        series, graph, info = datasets.load_structure(config.dataset)
        source = f"{info['source']}. Licence: {info['licence']}. {info['citation']}."
        task = Task(series, graph.double().numpy(), info["name"], source, info["time_unit"])
    else:
        name = config.data.name
        task = Task(config.read(), None, name, f"File {name}.", config.clock)
    check_enough(task.series)
    edges(config, task.series.variables)
    for words in config.intervene:
        intervention(words, task.series.variables)
    return task


def edges(config: Config, names: tuple[str, ...]) -> list[list[float | None]] | None:
    """The table of known (1), forbidden (0) and asked (None) edges; None if all are asked."""
    return known_edges(names, config.known, config.forbidden)


def intervention(words: str, names: tuple[str, ...]) -> tuple[str, float]:
    """A variable and the value to hold it at."""
    name, _, text = (word.strip() for word in words.partition("="))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if name not in names or value != value:
        raise ValueError(f"intervene: {words!r} given, 'name=number' with one of {', '.join(names)} wanted")
    return name, value


def run(config: Config) -> Path:
    """Fit, compare, draw, forecast, report; returns the run's folder.

    Raises:
        ValueError: bad options or data.
        KeyboardInterrupt: after Ctrl-C; started again with the same folder, the run goes on.
    """
    task = load(config)
    scaling = Scaling.fit(task.series, log=list(config.log))
    scaled = scaling.apply(task.series)
    with Run.open(
        settings_of(config), name="structure", folder=config.folder, seed=config.seed, overwrite=config.overwrite
    ) as run_:
        log.info("%s: %s\nresults go to %s", task.name, _protocol(task), run_.folder)
        correlation = self_correlation(scaled)
        if correlation < RESOLVED:
            log.warning("%s", _unresolved(correlation))
        write_json(run_.path("scaling.json"), scaling.to_dict())
        fits = _fits(config, scaled, task.series.variables, run_)
        others: dict[str, LearnedStructure] = {
            name: learn_structure(name, scaled, seed=config.seed) for name in config.baselines
        }
        law = law_of_graph(
            scaled,
            tables_of(fits)[0].mean(0) > config.threshold,
            seed=config.seed,
            device=config.device,
            steps=20 if config.quick else config.steps or 1000,
            folder=run_.path("models", "law"),
            logs=config.logs,
        )
        law.save(run_.path("model"))
        report = _report(config, task, scaling, run_, fits, others, law, correlation)
        print(f"report: {report}")
    return run_.folder


def _fits(config: Config, scaled: SeriesBatch, names: tuple[str, ...], run_: Run) -> list[LearnedStructure]:
    """SCOTCH from each seed."""
    name = {"bridge": "scotch", "step": "scotch_step"}[config.posterior]
    chosen: dict[str, Any] = {} if config.noise is None else {"noise": config.noise}
    fixed = edges(config, names)
    if fixed is not None:
        chosen["fixed"] = fixed
    found = []
    for seed in range(config.seed, config.seed + config.seeds):
        log.info("fitting %s, seed %d", STRUCTURE_LEARNERS[name].label, seed)
        learned = learn_structure(
            name,
            scaled,
            seed=seed,
            device=config.device,
            quick=config.quick,
            progress=True,
            folder=run_.path("models", f"{name}-{seed}"),
            steps=config.steps,
            settings=chosen,
            logs=config.logs,
            calibrate=True,
        )
        if learned.result is not None and learned.result.stopped == "interrupted":
            raise KeyboardInterrupt
        found.append(learned)
    return found


def _report(
    config: Config,
    task: Task,
    scaling: Scaling,
    run_: Run,
    fits: list[LearnedStructure],
    others: dict[str, LearnedStructure],
    law: Scotch,
    correlation: float,
) -> Path:
    names = task.series.variables
    probabilities, scores = tables_of(fits)
    mean = probabilities.mean(0)
    table = edge_table(probabilities, scores, names, task.truth)
    run_.save_table("edges", table)
    run_.save_table("probabilities", pd.DataFrame(mean, index=pd.Index(names, name="drives"), columns=list(names)))
    _write_graphml(mean, names, config.threshold, run_.path("graph.graphml"))
    pictures: dict[str, list[tuple[Figure, str]]] = {
        "Who drives whom": [
            (
                edge_matrix(mean, names, truth=task.truth),
                "Mean probability over fits; rows drive columns."
                + (" A ring is an edge of the true graph." if task.truth is not None else ""),
            ),
            (
                drawn_graph(mean, names, threshold=config.threshold),
                f"Edges with a probability above {config.threshold:g}; a red rim is a self-loop.",
            ),
        ],
        "Forecasts": [_forecast(config, task, scaling, law, None)],
    }
    for words in config.intervene:
        pictures["Forecasts"].append(_forecast(config, task, scaling, law, words))
    for kind, drawn in pictures.items():
        for number, (figure, _) in enumerate(drawn, 1):
            run_.save_figure(f"{kind.replace(' ', '-').lower()}-{number}", figure)
    comparison, label = None, STRUCTURE_LEARNERS[fits[0].name].label
    if task.truth is not None:
        baselines = {STRUCTURE_LEARNERS[n].label: [f] for n, f in others.items()}
        comparison = _comparison(task.truth, {label: fits} | baselines)
        run_.save_table("comparison", comparison)
        print(f"\n{comparison.round(3).to_string()}\n")
    else:
        for name, other in others.items():
            frame = pd.DataFrame(other.scores, index=pd.Index(names, name="drives"), columns=list(names))
            run_.save_table(f"scores-{name}", frame)
    shown = table.head(15)
    print(shown.round(3).to_string(index=False))
    result = fits[0].result
    assert result is not None
    about = "\n\n".join(f"{STRUCTURE_LEARNERS[n].label}: {STRUCTURE_LEARNERS[n].about}" for n in others)
    sure = int((mean > config.threshold).sum())
    warning = f" {_unresolved(correlation)}" if correlation < RESOLVED else ""
    return write_report(
        run_,
        title=f"Structure of {task.name}",
        question=f"Which variable drives which? {_protocol(task)}{warning}",
        data=task.series,
        data_text=task.source,
        time_label=f"time ({task.time_unit})",
        time_unit=config.stamp_unit,
        model_text=(
            f"{STRUCTURE_LEARNERS[fits[0].name].about} The price of an edge rises during training. An edge's score is "
            "its mean probability on the way, high for edges that give way last. The probability in the table says "
            "what a score is worth: by the two groups that scores fall into, and by the scores of edges between "
            "variables of different series, which cannot drive each other; for a single series, which has no such "
            "partner, it is the score. Both say how well a variable's past explains another's motion given all others "
            "that were observed; a hidden common cause can look like an edge."
        ),
        model_facts={
            "edges": f"{sure} of {mean.size} above {config.threshold:g}",
            "fits": f"{len(fits)}, {sum(fit.seconds for fit in fits):.0f} s",
            "correlation with itself one step later": f"{correlation:.2f} (median over variables)",
            "edges of the highest score": ", ".join(
                f"{line.source} > {line.target} ({line.probability:.2f} +- {line.sd:.2f})"
                for line in shown[shown.source != shown.target].itertuples()
            ),
        },
        history=result.history,
        pictures=pictures,
        comparison=comparison,
        ours=None if comparison is None else label,
        comparison_text=f"Against the true graph, means over fits.\n\n{about}",
    )


def _comparison(truth: Array, found: dict[str, list[LearnedStructure]]) -> pd.DataFrame:
    """Scores of all learners against the truth; those of baselines have no threshold, calibration or F1."""
    lines = []
    for label, fits in found.items():
        scores = [graph_scores(fit.scores / max(1.0, fit.scores.max()), truth) for fit in fits]
        mean = {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}
        line: dict[str, Any] = {"model": label, "AUROC": mean["auroc"], "AUROC off the diagonal": mean["auroc_off"]}
        line |= {"AUPRC": mean["auprc"], "fit seconds": round(float(np.mean([fit.seconds for fit in fits])), 1)}
        lines.append(line)
    return pd.DataFrame(lines).set_index("model").sort_values("AUROC", ascending=False, kind="stable")


def _forecast(config: Config, task: Task, scaling: Scaling, law: Scotch, words: str | None) -> tuple[Figure, str]:
    """The last fifth of the longest series from what came before, as it is or with a variable held."""
    chosen = task.series.present.sum(1).argsort(descending=True, stable=True)[:SHOWN_ROWS]
    rows = task.series.rows(chosen)
    known = rows.history(fraction=0.8)
    truth = rows.after(fraction=0.8)
    scaled = scaling.apply(known)
    span = (scaling.apply_times(rows.last_time) - scaled.last_time)[:, None]
    times = scaled.last_time[:, None] + span * torch.linspace(0, 1, 40, dtype=torch.float64)
    held: dict[str, float] = {}
    caption = "Forecasts of the last fifth of the series by the law under the drawn graph."
    if words is not None:
        name, value = intervention(words, task.series.variables)
        held = {name: float(_scaled(scaling, name, value))}
        caption = f"The same with {name} held at {value:g} from the end of the known part on."
    shown = list(task.series.variables[:SHOWN_VARIABLES])
    if words is not None and name not in shown:
        shown[-1] = name
    generator = torch.Generator().manual_seed(config.seed)
    forecast = law.forecast(scaled, times, 200, generator=generator, interventions=held).undo(scaling)
    figure = plots.forecast_fan(
        forecast,
        range(len(chosen)),
        shown,
        history=known,
        truth=truth if words is None else None,
        time_label=f"time ({task.time_unit})",
        time_unit=config.stamp_unit,
    )
    return figure, caption


def _scaled(scaling: Scaling, name: str, value: float) -> torch.Tensor:
    place = scaling.variables.index(name)
    given = torch.tensor(value, dtype=torch.float64)
    if bool(scaling.log[place]):
        if value <= 0:
            raise ValueError(f"intervene: {name}={value:g} given, a positive value wanted, as logarithms are taken")
        given = given.log()
    return (given - scaling.mean[place]) / scaling.sd[place]


def _write_graphml(mean: Array, names: tuple[str, ...], threshold: float, path: Path) -> None:
    import networkx

    networkx.write_graphml(to_networkx(mean, names, threshold=threshold), path)


def _protocol(task: Task) -> str:
    visits = int(task.series.present.sum())
    return f"{len(task.series)} series of {task.series.num_variables} variables, {visits} visits."


def _unresolved(correlation: float) -> str:
    return (
        f"A variable's correlation with itself one step later is {correlation:.2f}: the visits may be too far "
        "apart to see the motion between them. Compare with --posterior step and with the boosted trees."
    )


def main() -> int:
    """The command line of this file: its exit code, see `neurodyn.recipes.command.exit_code`."""
    return program(Config, run, "structure", __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
