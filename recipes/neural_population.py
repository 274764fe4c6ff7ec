"""Firing rates, latents and decoded behaviour of a neural population: fit LangevinFlow and baselines, compare, report.

    python recipes/neural_population.py                                       a simulated population with known rates
    python recipes/neural_population.py --dataset miller_m1                   a recording (see neurodyn.datasets)
    python recipes/neural_population.py --data mc_maze.nwb --set mc_maze      a set of the Neural Latents Benchmark
    python recipes/neural_population.py --data my.nwb --align go_cue --start -0.2 --stop 0.6 --behaviour hand_vel
    python recipes/neural_population.py --data lfads.h5 --bin-width 0.01      tensors, LFADS's or the benchmark's

Models read held-in neurons in the observed bins of a trial. Scores on test trials: co-bps on the held-out neurons,
fp-bps on all neurons in the bins after those observed, R2 of behaviour decoded from the rates, of condition means
(PSTH), tp correlation for dmfc_rsg, and R2 against the true rates where they are known.

Of your own NWB file every fifth trial is a test trial. The folder gets report.html, rates.h5 (expected counts per bin),
latents.npz (posterior means per trial and bin) and the fitted model.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neurodyn.datasets.neural_latents import suffixed
from neurodyn.datasets.spike_files import write_submission
from neurodyn.datasets.spikes import counts_of
from neurodyn.metrics.neural import few_shot_bits_per_spike, population_scores, ridge
from neurodyn.models.langevin_flow import LangevinFlow
from neurodyn.models.populations import POPULATION_MODELS, FittedPopulation, fit_population
from neurodyn.plots import neural as plots
from neurodyn.recipes.command import program, settings_of
from neurodyn.recipes.population_task import Config, Task, load
from neurodyn.report import who_wins, write_report
from neurodyn.runs import Run
from neurodyn.sde.langevin import UnderdampedLangevin
from neurodyn.training import DivergedError

Array = NDArray[Any]

log = logging.getLogger("neurodyn.recipes.neural_population")


def score(task: Task, train_rates: Array, rates: Array) -> dict[str, float]:
    """Scores of one model on the test trials."""
    counts = counts_of(task.test)
    more = {"truth": task.truth, "train_rates": train_rates, "moves": task.moves} | task.further
    return population_scores(rates, counts, task.held_out, task.observed, **more)


def run(config: Config) -> Path:
    """Fit, infer, compare, report; returns the run's folder.

    Raises:
        ValueError: bad options or data.
        KeyboardInterrupt: after Ctrl-C; started again with the same folder, the run goes on.
    """
    task = load(config)
    with Run.open(
        settings_of(config), name="neural", folder=config.folder, seed=config.seed, overwrite=config.overwrite
    ) as run_:
        log.info("%s: %s\nresults go to %s", task.name, _protocol(task), run_.folder)
        fitted: dict[str, FittedPopulation] = {}
        rates: dict[str, tuple[Array, Array]] = {}
        lines, notes = [], []
        for name in dict.fromkeys((*config.baselines, config.model)):
            entry = POPULATION_MODELS[name]
            log.info("fitting %s", entry.label)
            own = {"latent_size": config.latent_size, "drift": config.drift} if entry.make is LangevinFlow else {}
            try:
                fitted[name] = fit_population(
                    name,
                    task.train,
                    bin_width=task.bin_width,
                    held_out=task.held_out,
                    num_observed=task.observed,
                    steps=10 if config.quick else config.steps,
                    seed=config.seed,
                    device=config.device,
                    folder=run_.path("models", name) if entry.schedule else None,
                    settings=own,
                    schedule={"logs": config.logs} if entry.schedule else None,
                )
            except DivergedError as error:
                if name == config.model:
                    raise
                notes.append(f"{entry.label} is left out: {error}")
                continue
            result = fitted[name].result
            if result is not None and result.stopped == "interrupted":
                raise KeyboardInterrupt
            bins = task.train.num_times
            read = (task.train.history(count=task.observed), task.test.history(count=task.observed))
            rates[name] = tuple(fitted[name].rates(part, bins).numpy() for part in read)  # type: ignore[assignment]
            seconds = round(fitted[name].seconds, 1)
            lines.append({"model": entry.label, **score(task, *rates[name]), "fit seconds": seconds})
        table = pd.DataFrame(lines).set_index("model")
        scored = table.shape[1] > 1  # not those of a test set whose spikes are kept back
        if scored:
            table = table.sort_values(str(table.columns[0]), ascending=False, kind="stable")
        else:
            notes.append("The test trials have no counts to score; rates.h5 has what the models say of them.")
        run_.save_table("comparison", table)
        parts = {"train": rates[config.model][0], "eval": rates[config.model][1]}
        layout = task.name if config.set is None else suffixed(config.set, task.bin_width)
        write_submission(run_.path("rates.h5"), layout, parts, task.held_out, task.observed)
        report = _report(config, task, run_, fitted[config.model], rates[config.model], table, scored, notes)
        ours = POPULATION_MODELS[config.model].label
        print("", table.round(3).to_string(), "", *([who_wins(table, ours)] if scored else []), *notes, sep="\n")
        print(f"report: {report}")
    return run_.folder


def _protocol(task: Task) -> str:
    neurons, bins = task.train.num_variables, task.train.num_times
    return (
        f"{len(task.train)} training and {len(task.test)} test trials of {bins} bins of {1000 * task.bin_width:g} ms. "
        f"{neurons - len(task.held_out)} neurons are read in the first {task.observed} bins; {len(task.held_out)} "
        f"neurons are held out, and {bins - task.observed} bins are predicted."
    )


def _report(
    config: Config,
    task: Task,
    run_: Run,
    ours: FittedPopulation,
    rates: tuple[Array, Array],
    table: pd.DataFrame,
    scored: bool,
    notes: list[str],
) -> Path:
    model = ours.model
    assert isinstance(model, LangevinFlow) and ours.result is not None
    model.save(run_.path("model"))
    read = [part.history(count=task.observed) for part in (task.train, task.test)]
    # as rates are made: with blanks in the later bins, which training had too
    begin, paths = (
        model.latents(part, task.train.num_times, num_samples=16)[:, :, : task.observed].mean(0).double().cpu().numpy()
        for part in read
    )
    train_trials, eval_trials = (np.array(part.ids or ()) for part in read)
    np.savez(
        run_.path("latents.npz"),
        times=task.test.times[0, : task.observed].numpy(),
        train=begin,
        eval=paths,
        train_trials=train_trials,
        eval_trials=eval_trials,
    )
    positions = paths[..., : model.size]
    times, counts = task.test.times[0].numpy(), counts_of(task.test)
    found: dict[str, list[tuple[Any, str]]] = {"Spikes and rates": [], "Latents": [], "Law of motion": []}
    for trial in sorted({0, len(task.test) // 2}):
        truth = None if task.truth is None else task.truth[trial]
        drawn = plots.raster_and_rates(
            times, np.nan_to_num(counts[trial]), rates[1][trial], bin_width=task.bin_width, truth=truth
        )
        found["Spikes and rates"].append((drawn, f"Test trial {trial + 1}: all neurons, held-out ones too."))
    labels = task.test.labels
    if labels is not None:
        kinds = labels.numpy()
        busy = np.argsort(-np.nansum(counts, (0, 1)))[:8]
        seen = plots.psths(times, counts, rates[1], kinds, bin_width=task.bin_width, neurons=np.sort(busy).tolist())
        caption = "Condition means of test trials: spikes, smoothed (pale), and rates (full); a colour per condition."
        found["Spikes and rates"].append((seen, caption))
        colours, colour = kinds.astype(float), "condition"
    else:
        colours = np.nansum(counts, (1, 2)) if task.moves is None else np.nanmean(task.moves[1][..., 0], 1)
        colour = "spikes of the trial" if task.moves is None else f"mean {task.names[0]}"
    drawn = plots.latents(positions, colours, colour_label=colour)
    found["Latents"].append((drawn, "Mean positions of test trials on their principal axes; a dot is the first bin."))
    law = model.prior.sde

    def acceleration(points: Array) -> Array:
        q = torch.as_tensor(points, dtype=model.held_in.new_zeros(0, dtype=torch.float32).dtype)
        q = q.to(model.held_in.device)
        with torch.no_grad():
            return law.acceleration(0.0, q, torch.zeros_like(q)).double().cpu().numpy()  # type: ignore[operator]

    def energy(points: Array) -> Array:
        assert isinstance(law, UnderdampedLangevin)
        q = torch.as_tensor(points, dtype=torch.float32, device=model.held_in.device)
        with torch.no_grad():
            return (law.potential.energy(q) / law.bath.temperature).double().cpu().numpy()

    potential = energy if isinstance(law, UnderdampedLangevin) else None
    drawn = plots.flow_field(positions.reshape(-1, model.size), acceleration, potential)
    caption = "Acceleration of a latent at rest, on the positions' first two axes; dots are where test trials were."
    found["Law of motion"].append((drawn, caption + (" Shade: the potential." if potential else "")))
    if task.moves is not None:
        found["Behaviour"] = [_decoded(task, rates, times)]
    facts: dict[str, Any] = dict(model.config)
    facts["parameters"] = f"{sum(p.numel() for p in model.parameters()):,}"
    outside, seen_ = list(task.held_out), slice(0, task.observed)
    if np.nansum(counts[:, seen_][..., outside]) > 0:
        shots = min(20, len(task.train))
        learned = counts_of(task.train)[:, seen_][..., outside]
        bits = few_shot_bits_per_spike(
            begin, learned, paths, counts[:, seen_][..., outside], shots=shots, seed=config.seed
        )
        facts[f"few-shot co-bps ({shots} trials)"] = f"{bits:.3f}"
    for heading, drawings in found.items():
        for number, (figure, _) in enumerate(drawings, 1):
            run_.save_figure(f"{heading.lower().replace(' ', '-')}-{number}", figure)
    about = [f"{e.label}: {e.about}" for e in POPULATION_MODELS.values() if e.label in table.index]
    ours_ = POPULATION_MODELS[config.model]
    return write_report(
        run_,
        title=f"Rates of {task.name}",
        question=f"What rates made these spikes, and what comes next? {_protocol(task)}",
        data_text=task.source,
        model_text="\n\n".join([ours_.about, *([] if scored else notes)]),
        model_facts=facts,
        history=ours.result.history,
        pictures=found,
        comparison=table if scored else None,
        ours=ours_.label,
        comparison_text="\n\n".join([_protocol(task), *about, *notes]),
    )


def _decoded(task: Task, rates: tuple[Array, Array], times: Array) -> tuple[Any, str]:
    """Ridge regression from rates to behaviour, as it is scored."""
    assert task.moves is not None
    x, y = (part[:, : task.observed].reshape(-1, part.shape[-1]) for part in (rates[0], task.moves[0]))
    known = ~np.isnan(y).any(1)
    new = rates[1][:, : task.observed]
    predicted = ridge().fit(x[known], y[known]).predict(new.reshape(-1, new.shape[-1]))
    predicted = predicted.reshape(*new.shape[:2], -1)
    truth = task.moves[1][:, : task.observed]
    drawn = plots.decoded(times[: task.observed], truth, predicted, task.names)
    return drawn, "Behaviour of test trials, decoded linearly from the rates of the same bin."


def main() -> int:
    """The command line of this file: its exit code, see `neurodyn.recipes.command.exit_code`."""
    return program(Config, run, "neural_population", __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
