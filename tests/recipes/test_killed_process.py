"""A real process of the forecast command, killed and interrupted from outside, against one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

STEPS, LIMIT = 240, 240
LATENT = Path("models") / "latent_sde"


def start(folder: Path, data: Path) -> subprocess.Popen[str]:
    words = f"--data {data} --steps {STEPS} --device cpu --baselines last_value linear_sde direct_gru".split()
    words += f"--num-samples 20 --hidden-size 8 --folder {folder}".split()
    return subprocess.Popen(
        [sys.executable, "-m", "neurodyn.cli", "forecast", *words],
        cwd=folder.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Until the latent SDE's training has come so far."""
    log, until = folder / LATENT / "metrics.jsonl", time.monotonic() + LIMIT
    while last_step(log) < step:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)


def last_step(log: Path) -> int:
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=LIMIT)
    return process.returncode, said


def status(folder: Path) -> str:
    return json.loads((folder / "run.json").read_text())["status"]


def test_a_run_killed_and_then_interrupted_ends_as_one_that_was_not(tmp_path):
    chance, data = np.random.default_rng(0), tmp_path / "visits.csv"
    times = np.sort(chance.random((15, 5)) * 4).ravel()
    values = {"a": chance.normal(size=75), "b": chance.normal(size=75)}
    pd.DataFrame({"unique_id": np.repeat(np.arange(15), 5), "ds": times} | values).to_csv(data, index=False)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    undisturbed = start(whole, data)

    # a kill: nothing is said, the checkpoint of step 100 stays
    victim = start(broken, data)
    wait_for_step(victim, broken, 120)
    victim.kill()
    assert end(victim)[0] == -signal.SIGKILL
    card = json.loads((broken / LATENT / "checkpoint" / "checkpoint.json").read_text())
    assert card["step"] in range(100, STEPS, 100) and status(broken) == "running"
    assert not (broken / "report.html").exists()

    # Ctrl-C: a checkpoint of the last step, a model, and a report of what is there
    stopped = start(broken, data)
    wait_for_step(stopped, broken, 150)
    stopped.send_signal(signal.SIGINT)
    code, said = end(stopped)
    assert code == 130 and "Traceback" not in said and said.endswith("neurodyn: interrupted\n")
    assert "interrupted: stopping after this step" in said
    card = json.loads((broken / LATENT / "checkpoint" / "checkpoint.json").read_text())
    assert 150 <= card["step"] < STEPS and card["stopped"] is None
    assert status(broken) == "interrupted"
    assert (broken / "model" / "weights.safetensors").is_file()
    comparison = pd.read_csv(broken / "tables" / "comparison.csv", index_col=0)
    assert {"last value", "LinearSDE", "latent SDE"} == set(comparison.index)
    assert "Ctrl-C" in (broken / "report.html").read_text()

    # and to the end, with the same numbers
    assert end(start(broken, data))[0] == 0
    assert end(undisturbed)[0] == 0
    assert status(broken) == status(whole) == "finished"
    for file in (
        "model/weights.safetensors",
        "tables/forecast.csv",
        "tables/by_variable.csv",
        LATENT / "metrics.jsonl",
    ):
        assert (broken / file).read_bytes() == (whole / file).read_bytes(), file
    one, two = (
        pd.read_csv(folder / "tables" / "comparison.csv").drop(columns="fit seconds") for folder in (broken, whole)
    )
    pd.testing.assert_frame_equal(one, two, check_exact=True)
