"""Which lines of the package do the tests run? `python -m benchmarks.line_coverage`.

Every test but those marked slow, in several processes; lines that run in processes started by tests (commands, several
devices' worth of processes, a wheel in another environment) are not seen. Table line_coverage: by folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.records import RESULTS, ROOT, Record, measured, publish

COMMAND = "python -m benchmarks.line_coverage"
ROOMS = ("neurodyn", "datasets", "recipes")


def records(report: dict[str, Any]) -> list[Record]:
    """The table, from coverage's report in JSON: of each folder the lines of code and the share that is run."""
    count: dict[str, list[int]] = {}
    for name, of in sorted(report["files"].items()):
        path = Path(name)
        room = "/".join(path.parts[:2]) if len(path.parts) > 2 else path.parts[0]
        for key in (f"`{room}/`", "all"):
            known = count.setdefault(key, [0, 0])
            known[0] += of["summary"]["num_statements"]
            known[1] += of["summary"]["covered_lines"]
    made = []
    for row in sorted(count, key=lambda row: (row == "all", row)):
        lines, run = count[row]
        if lines:
            values = {"lines": (float(lines), ""), "run by tests": (100 * run / lines, "%")}
            for column, (value, unit) in values.items():
                made.append(measured("line_coverage", row, column, [value], seeds=[0], command=COMMAND, unit=unit))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tests and write benchmarks/results/line_coverage.json.

    Raises:
        SystemExit: a test fails.
    """
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=2, help="at a time")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "coverage.json")
        options = [f"--cov={room}" for room in ROOMS]
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(chosen.processes), *options]
        command += ["--cov-report=", f"--cov-report=json:{report}"]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise SystemExit("a test fails: mend it first")
        made = records(json.loads(report.read_text(encoding="utf-8")))
    for record in made:
        print(f"{record.row:28s} {record.column:14s} {record.value:10.1f}")
    publish(RESULTS / "line_coverage.json", made)


if __name__ == "__main__":
    main()
