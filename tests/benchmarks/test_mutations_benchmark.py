"""Formulas made wrong on purpose: each stands where the list says, and a wrong one is noticed."""

from pathlib import Path

import pytest

from benchmarks import mutations
from benchmarks.mutations import MUTATIONS, Mutation, copy_of_sources, measure, record, run_tests
from benchmarks.records import ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.formula)
def test_each_formula_stands_in_its_file_once(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    assert mutation.new != mutation.old and (ROOT / mutation.tests.partition("::")[0]).is_file()


def test_a_wrong_formula_is_noticed_in_a_copy_that_is_mended_afterwards(tmp_path: Path) -> None:
    folder = copy_of_sources(tmp_path)
    chosen = next(mutation for mutation in MUTATIONS if mutation.formula.startswith("fair CRPS"))
    chosen = chosen._replace(tests=chosen.tests + "::test_fair_crps_does_not_depend_on_the_number_of_samples")
    failed, run = measure(chosen, folder)
    assert failed >= 1 and run >= failed
    assert (folder / chosen.file).read_bytes() == (ROOT / chosen.file).read_bytes()
    assert run_tests(folder, [chosen.tests]) == (0, run)
    with pytest.raises(ValueError, match="0 times 'no such text', once wanted"):
        measure(chosen._replace(old="no such text"), folder)
    with pytest.raises(RuntimeError, match="no_such_test"):
        run_tests(folder, ["tests/metrics/no_such_test.py"])


def test_the_table_has_a_row_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.records.hardware", lambda: "a machine")
    made = [line for mutation in MUTATIONS for line in record(mutation, 1, 4)]
    assert len({line.row for line in made}) == len(MUTATIONS) >= 10
    assert {(line.column, line.value) for line in made} == {("tests that fail", 1.0), ("tests run", 4.0)}
    assert {line.table for line in made} == {mutations.TABLE}
