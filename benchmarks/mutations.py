"""Central formulas with one sign, factor or transpose changed: do the tests notice? `python -m benchmarks.mutations`.

Each change is made alone, in a temporary copy of the sources, and tests that are to catch it are run there. The table
has how many of them fail. Without a change all of them have to pass.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.records import RESULTS, ROOT, Record, measured, merge_records

COMMAND = "python -m benchmarks.mutations"
TABLE = "mutations/central formulas"


class Mutation(NamedTuple):
    """A formula in words, where it stands, the text that is replaced there, by what, and the tests that are run."""

    formula: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "path KL, its 1/2 left out",
        "neurodyn/solvers/path_kl.py",
        "return 0.5 * (excess / diffusion).square().sum(-1)",
        "return (excess / diffusion).square().sum(-1)",
        "tests/solvers/test_path_price.py",
    ),
    Mutation(
        "drift from marginals, the sign of the score",
        "neurodyn/posteriors/matched.py",
        "pull = 0.5 * _outer(sde, times, sample.z, sample.score)",
        "pull = -0.5 * _outer(sde, times, sample.z, sample.score)",
        "tests/posteriors/test_matched.py::test_path_kl_equals_the_closed_form_for_a_linear_prior",
    ),
    Mutation(
        "div(g g')/2 of coordinate-wise noise, halved",
        "neurodyn/sde/base.py",
        "return value * slope\n        size = z.shape[-1]",
        "return 0.5 * value * slope\n        size = z.shape[-1]",
        "tests/sde/test_base_law.py",
    ),
    Mutation(
        "Ito less Stratonovich drift, its 1/2 left out",
        "neurodyn/sde/base.py",
        'return 0.5 * torch.einsum("k...ik->...i", slope)',
        'return torch.einsum("k...ik->...i", slope)',
        "tests/sde/test_base_law.py",
    ),
    Mutation(
        "Kalman update of the mean, its sign",
        "neurodyn/sde/kalman.py",
        "mean = mean + (white_gain.mT @ white[..., None])[..., 0]",
        "mean = mean - (white_gain.mT @ white[..., None])[..., 0]",
        "tests/sde/test_kalman.py",
    ),
    Mutation(
        "Kalman update of the covariance, its sign",
        "neurodyn/sde/kalman.py",
        "covariance = _symmetric(covariance - white_gain.mT @ white_gain)",
        "covariance = _symmetric(covariance + white_gain.mT @ white_gain)",
        "tests/sde/test_kalman.py",
    ),
    Mutation(
        "fair CRPS, S^2 pairs for S (S - 1)",
        "neurodyn/metrics/scores.py",
        "pairs = count * (count - 1) if fair else count * count\n    return error.abs()",
        "pairs = count * count\n    return error.abs()",
        "tests/metrics/test_scores.py",
    ),
    Mutation(
        "Ornstein-Uhlenbeck part of BAOAB, e^(-c h) for e^(-2 c h) in the variance",
        "neurodyn/solvers/splitting.py",
        "torch.expm1(-2 * rate * span)",
        "torch.expm1(-rate * span)",
        "tests/solvers/test_splitting.py::test_stationary_covariance_is_the_closed_form",
    ),
    Mutation(
        "co-bps, nats for bits",
        "neurodyn/metrics/neural.py",
        "return float(gain / spikes / math.log(2))\n\n\ndef rate_r2",
        "return float(gain / spikes)\n\n\ndef rate_r2",
        "tests/metrics/test_neural_metrics.py",
    ),
    Mutation(
        "divergence-free correction, C transposed",
        "neurodyn/posteriors/divergence_free.py",
        "omega = (rows * cross - columns * cross.mT)",
        "omega = (rows * cross.mT - columns * cross)",
        "tests/posteriors/test_matched.py::test_skew_correction_solves_its_equation_and_is_the_best",
    ),
    Mutation(
        "who drives whom, the graph transposed",
        "neurodyn/sde/graph.py",
        "seen = graph.mT * z[..., None, :]",
        "seen = graph * z[..., None, :]",
        "tests/sde/test_graph_law.py",
    ),
    Mutation(
        "Chen's identity, the factors in the other order",
        "neurodyn/nets/tensor_algebra.py",
        "found = outer(found + before[j - 1], x / (k - j))",
        "found = outer(x / (k - j), found + before[j - 1])",
        "tests/nets/test_signatures.py",
    ),
    Mutation(
        "rate of a cubic curve, 2 u for 3 u",
        "neurodyn/nets/spline.py",
        "(1.0 - u) * (1.0 - 3.0 * u) * self.bend0",
        "(1.0 - u) * (1.0 - 2.0 * u) * self.bend0",
        "tests/nets/test_spline.py",
    ),
    Mutation(
        "KL of two Gaussians, the sign of the log-determinant",
        "neurodyn/sde/initial.py",
        "+ self.log_scale.sum() - log_det",
        "+ self.log_scale.sum() + log_det",
        "tests/sde/test_initial.py",
    ),
)


def copy_of_sources(folder: Path) -> Path:
    """The package in the shape in which it installs, and its tests."""
    for name in ("neurodyn", "datasets", "recipes", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("datasets", "recipes"):
        (folder / "neurodyn" / name).symlink_to(folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, int]:
    """How many of these tests failed, and how many were run, with the package from `folder`.

    Raises:
        RuntimeError: tests that could not be collected or run.
    """
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    where = "import neurodyn, neurodyn.recipes; print(neurodyn.__file__, *neurodyn.recipes.__path__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=folder, env=environment, capture_output=True, text=True
    ).stdout
    if any(not Path(path).is_relative_to(folder) for path in found.split()) or not found:
        raise RuntimeError(f"the tests would run {found}, and not the copy in {folder}")
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    counts = {kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|errors?)", done.stdout)}
    if done.returncode not in (0, 1) or counts.get("error", 0) or counts.get("errors", 0):
        raise RuntimeError(f"{' '.join(tests)}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return counts.get("failed", 0), counts.get("failed", 0) + counts.get("passed", 0)


def measure(mutation: Mutation, folder: Path) -> tuple[int, int]:
    """Tests that fail, and tests run, with the change made in the copy; the copy is as before afterwards.

    Raises:
        ValueError: the formula does not stand in its file, exactly once.
    """
    path = folder / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file}: {text.count(mutation.old)} times {mutation.old!r}, once wanted")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        return run_tests(folder, [mutation.tests])
    finally:
        path.write_text(text, encoding="utf-8")


def record(mutation: Mutation, failed: int, run: int) -> list[Record]:
    """The row of one mutation."""
    row = f"{mutation.formula} (`{mutation.file}`)"
    cells = {"tests that fail": failed, "tests run": run}
    return [measured(TABLE, row, name, [float(value)], seeds=[0], command=COMMAND) for name, value in cells.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every change is noticed, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=0, metavar="K", help="begin with the K-th, after an interruption")
    first = parser.parse_args(arguments).first
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = copy_of_sources(Path(name).resolve())
        chosen = MUTATIONS[first:]
        failed, run = run_tests(folder, list(dict.fromkeys(mutation.tests for mutation in chosen)))
        if failed:
            raise SystemExit(f"{failed} of {run} tests fail without any change")
        for mutation in chosen:
            failed, run = measure(mutation, folder)
            missed += not failed
            merge_records(RESULTS / "mutations.json", record(mutation, failed, run))
            print(f"{mutation.formula:80s} {failed:4d} of {run} tests fail", flush=True)
    print("written to benchmarks/results/mutations.json; python -m benchmarks.render puts it into the docs")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
