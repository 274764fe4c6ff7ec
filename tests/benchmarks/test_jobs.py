"""Jobs of benchmarks: results are kept as they come, and only the missing ones are run again."""

import os

import pytest
import torch

from benchmarks import jobs
from benchmarks.jobs import finished, run_jobs


def square(value, log=None):
    if log is not None:
        with open(log, "a") as file:
            file.write(f"{value}\n")
    return {"square": torch.tensor(float(value * value)), "process": os.getpid(), "threads": torch.get_num_threads()}


def fail_on_two(value, log):
    if value == 2:
        raise ValueError("two is not wanted")
    return square(value, log)


def arguments(log, count=4):
    return {f"job {k}": {"value": k, "log": str(log)} for k in range(count)}


def test_results_come_in_the_order_of_the_jobs_and_are_plain_numbers(tmp_path):
    found = run_jobs("x", square, arguments(tmp_path / "log"), processes=1, folder=tmp_path)
    assert [result["square"] for result in found.values()] == [0.0, 1.0, 4.0, 9.0]
    assert list(found) == ["job 0", "job 1", "job 2", "job 3"]


def test_what_is_done_is_not_done_again_unless_asked(tmp_path):
    log = tmp_path / "log"
    run_jobs("x", square, arguments(log, 2), processes=1, folder=tmp_path)
    with (tmp_path / "x.jsonl").open("a") as file:
        file.write('{"job": "job 2", "co')  # what a kill leaves of a line
    run_jobs("x", square, arguments(log, 4), processes=1, folder=tmp_path)
    assert log.read_text().split() == ["0", "1", "2", "3"]
    run_jobs("x", square, arguments(log, 4), processes=1, folder=tmp_path, fresh=True)
    assert len(log.read_text().split()) == 8


def test_what_several_calls_have_finished_is_found(tmp_path):
    every = arguments(tmp_path / "log", 4)
    for part in (["job 3"], ["job 1"]):
        run_jobs("x", square, {job: every[job] for job in part}, processes=1, folder=tmp_path)
    assert {job: found["square"] for job, found in finished("x", every, folder=tmp_path).items()} == {
        "job 1": 1.0,
        "job 3": 9.0,
    }


def test_other_arguments_or_other_code_are_another_job(tmp_path, monkeypatch):
    log = tmp_path / "log"
    run_jobs("x", square, {"job": {"value": 1, "log": str(log)}}, processes=1, folder=tmp_path)
    changed = run_jobs("x", square, {"job": {"value": 3, "log": str(log)}}, processes=1, folder=tmp_path)
    assert changed["job"]["square"] == 9
    monkeypatch.setattr(jobs, "fingerprint", lambda: "later code")
    run_jobs("x", square, {"job": {"value": 3, "log": str(log)}}, processes=1, folder=tmp_path)
    assert log.read_text().split() == ["1", "3", "3"]


def test_the_fingerprint_follows_the_code(tmp_path):
    (tmp_path / "neurodyn").mkdir()
    (tmp_path / "neurodyn" / "a.py").write_text("x = 1\n")
    before = jobs.fingerprint(tmp_path)
    (tmp_path / "neurodyn" / "a.py").write_text("x = 2\n")
    assert jobs.fingerprint(tmp_path) != before


def test_a_failing_job_is_named_and_the_others_are_kept(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(RuntimeError, match="1 of 4 jobs failed, first job 2: ValueError: two is not wanted"):
        run_jobs("x", fail_on_two, arguments(log), processes=1, folder=tmp_path)
    assert log.read_text().split() == ["0", "1", "3"]
    with pytest.raises(RuntimeError):
        run_jobs("x", fail_on_two, arguments(log), processes=1, folder=tmp_path)
    assert log.read_text().split() == ["0", "1", "3"]


def test_processes_run_side_by_side_with_one_thread_each(tmp_path):
    found = run_jobs("x", square, {f"{k}": {"value": k} for k in range(2)}, processes=2, folder=tmp_path)
    assert [result["square"] for result in found.values()] == [0.0, 1.0]
    assert all(result["threads"] == 1 and result["process"] != os.getpid() for result in found.values())
