"""Run a benchmark's jobs in parallel processes of one thread each, keep what is done, and go on after a kill."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.records import ROOT, jsonable

JOBS = ROOT / "runs" / "benchmarks"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def fingerprint(folder: Path = ROOT) -> str:
    """Checksum of the code that numbers come from, so that results of older code are never taken for new ones."""
    sha = hashlib.sha256()
    for room in ("benchmarks", "datasets", "neurodyn", "recipes"):
        for path in sorted((folder / room).rglob("*.py")):
            sha.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return sha.hexdigest()[:16]


def add_job_options(parser: argparse.ArgumentParser, seeds: Sequence[int] = ()) -> None:
    """What benchmarks of jobs ask alike: seeds, if there is a choice, how many processes, whether to begin anew."""
    if seeds:
        parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds))
    parser.add_argument("--processes", type=int, help="at a time, one thread each; all cores if not given")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of the same code")


def run_jobs(
    name: str,
    function: Callable[..., Any],
    jobs: Mapping[str, Mapping[str, Any]],
    *,
    processes: int | None = None,
    fresh: bool = False,
    folder: Path = JOBS,
) -> dict[str, Any]:
    """Call `function(**arguments)` for every job and return {job: result}, in the order of `jobs`.

    Every result is appended to `folder/NAME.jsonl` as it comes; a later call with the same code and arguments takes it
    from there.

    Args:
        name: of the benchmark.
        function: importable (defined at the top of a module), returns what JSON can hold, tensors and arrays included.
        jobs: name of each job and its keyword arguments.
        processes: how many at a time, each with one thread; as many as there are cores if not given. 1 runs here.
        fresh: forget earlier results.

    Raises:
        RuntimeError: naming the job, if one fails; the others' results are kept.
    """
    log = folder / f"{name}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        log.unlink(missing_ok=True)
    wanted = _wanted(jobs)
    done = _read_log(log, wanted)
    left = [job for job in jobs if job not in done]
    started = time.monotonic()
    _say(f"{name}: {len(jobs)} jobs, {len(done)} of them done before")
    failures: dict[str, BaseException] = {}

    def keep(job: str, result: Any) -> None:
        done[job] = jsonable(result)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**wanted[job], "result": done[job]}) + "\n")
        _say(f"{name}: {len(done)}/{len(jobs)} {job} ({time.monotonic() - started:.0f} s)")

    count = min(processes or os.cpu_count() or 1, len(left))
    if count <= 1:
        for job in left:
            try:
                keep(job, function(**jobs[job]))
            except Exception as error:
                failures[job] = error
    else:
        # spawned, not forked: a fork of a process whose libraries have started threads may hang
        context = multiprocessing.get_context("spawn")
        with _one_thread_environment(), ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread) as pool:
            futures = {pool.submit(function, **jobs[job]): job for job in left}
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    keep(futures[future], future.result())
                else:
                    failures[futures[future]] = error
    if failures:
        job, error = next(iter(failures.items()))
        raise RuntimeError(
            f"{name}: {len(failures)} of {len(jobs)} jobs failed, first {job}: {type(error).__name__}: {error}"
        ) from error
    return {job: done[job] for job in jobs}


def finished(name: str, jobs: Mapping[str, Mapping[str, Any]], *, folder: Path = JOBS) -> dict[str, Any]:
    """{job: result} of those jobs that `run_jobs` has run with the code as it is, in this call or any other."""
    done = _read_log(folder / f"{name}.jsonl", _wanted(jobs))
    return {job: done[job] for job in jobs if job in done}


def _wanted(jobs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of every job, its line of the log without the result."""
    code = fingerprint()
    return {job: {"job": job, "code": code, "arguments": jsonable(dict(given))} for job, given in jobs.items()}


def _read_log(log: Path, wanted: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    done = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that a kill cut short
        result = entry.pop("result", None)
        if wanted.get(entry.get("job")) == entry:
            done[entry["job"]] = result
    return done


class _one_thread_environment:
    """Lets spawned processes start with one thread; libraries read these variables when they load."""

    def __enter__(self) -> None:
        self.before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self.before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
