"""The table of line coverage: folders are counted by their files, and all of them together."""

import pytest

from benchmarks.line_coverage import records


def test_folders_are_counted_by_their_files():
    def of(lines: int, run: int) -> dict[str, dict[str, int]]:
        return {"summary": {"num_statements": lines, "covered_lines": run}}

    files = {
        "neurodyn/series.py": of(10, 9),
        "neurodyn/sde/base.py": of(20, 20),
        "neurodyn/sde/stable.py": of(20, 10),
        "datasets/splits.py": of(50, 50),
        "neurodyn/nets/__init__.py": of(0, 0),
    }
    found = {(record.row, record.column): record.value for record in records({"files": files})}
    assert found["`neurodyn/sde/`", "lines"] == 40
    assert found["`neurodyn/sde/`", "run by tests"] == 75
    assert found["`neurodyn/`", "run by tests"] == pytest.approx(90)
    assert found["all", "lines"] == 100
    assert found["all", "run by tests"] == pytest.approx(89)
    assert ("`neurodyn/nets/`", "lines") not in found
