"""Tables in pages come from the results and from nowhere else."""

import pytest

from benchmarks.records import Record, write_records
from benchmarks.render import format_number, main, render_page, render_table


def cell(row, column, value, **other):
    given = {
        "command": "python -m benchmarks.x",
        "date": "2030-01-02",
        "hardware": "Some CPU, 2 cores",
        "versions": {"torch": "9.9"},
        "better": "lower",
    }
    return Record("scores", row, column, value, **(given | other))


def project(tmp_path, records, page):
    write_records(tmp_path / "benchmarks" / "results" / "x.json", records)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(page)
    return tmp_path


PAGE = "# Title\n\nBefore.\n\n<!-- table: scores -->\nstale\n<!-- end table -->\n\nAfter.\n"


def test_rows_columns_best_ranges_and_provenance():
    text = render_table(
        [
            cell("one", "CRPS", 0.4, seeds=(0, 1), low=0.38, high=0.42),
            cell("one", "time", 120.0, unit="s"),
            cell("two", "CRPS", 0.3999),
            cell("three", "CRPS", 0.5),
        ]
    )
    lines = text.splitlines()
    assert lines[0] == "|  | CRPS | time (s) |"
    assert lines[2] == "| one | **0.400** (0.380-0.420) | 120.0 |"
    assert lines[3] == "| two | **0.400** |  |"  # what prints alike wins alike
    assert lines[4] == "| three | 0.500 |  |"
    assert "`python -m benchmarks.x` on 2030-01-02: Some CPU, 2 cores; torch 9.9." in text
    assert "Means over 2 seeds" in text


def test_counts_are_whole_and_a_share_of_one_is_not():
    text = render_table(
        [
            cell(n, column, v, better="")
            for n, *vs in (("a", 3, 1), ("b", 0, 0))
            for column, v in zip("nr", vs, strict=True)
        ]
    )
    assert "| a | 3 | 1.000 |" in text and "| b | 0 | 0.000 |" in text


def test_published_numbers_stand_in_rows_of_their_own_with_their_source():
    text = render_table(
        [cell("model", "CRPS", 0.4), cell("model", "CRPS", 0.3, command="", source="A. Author 2020, table 2")]
    )
    assert "| model | 0.400 |" in text
    assert "| model [1] | **0.300** |" in text
    assert "[1] Published: A. Author 2020, table 2." in text


def test_higher_may_be_better_and_a_neutral_column_has_no_best():
    text = render_table([cell(n, "R2", v, better="higher") for n, v in (("a", 0.1), ("b", 0.9))])
    assert "| b | **0.900** |" in text
    assert "**" not in render_table([cell(n, "width", v, better="") for n, v in (("a", 0.1), ("b", 0.9))])


@pytest.mark.parametrize(
    "value, text", [(0.41234, "0.412"), (-0.0004, "-4.0e-04"), (0, "0.000"), (52.34, "52.3"), (12345.6, "12346")]
)
def test_numbers_keep_few_digits(value, text):
    assert format_number(value) == text


def test_render_fills_pages_once_and_check_sees_any_difference(tmp_path, capsys):
    root = project(tmp_path, [cell("one", "CRPS", 0.4)], PAGE)
    page = root / "docs" / "page.md"
    assert main(["--check"], root=root) == 1
    assert page.read_text() == PAGE
    assert "docs/page.md differs" in capsys.readouterr().err
    assert main([], root=root) == 0
    text = page.read_text()
    assert "stale" not in text
    assert text.startswith("# Title\n\nBefore.\n\n<!-- table: scores -->\n|  | CRPS |")
    assert text.endswith("<!-- end table -->\n\nAfter.\n")
    assert main(["--check"], root=root) == 0
    write_records(root / "benchmarks" / "results" / "x.json", [cell("one", "CRPS", 0.5)])
    assert main(["--check"], root=root) == 1


def test_a_table_that_nobody_made_and_an_open_marker_are_errors(tmp_path):
    with pytest.raises(ValueError, match="speeds --> asks for a table"):
        render_page(PAGE.replace("scores", "speeds"), {"scores": [cell("a", "b", 1)]})
    with pytest.raises(ValueError, match="has no <!-- end table -->"):
        render_page("<!-- table: scores -->\n", {"scores": [cell("a", "b", 1)]})
    assert main(["--check"], root=project(tmp_path, [cell("a", "b", 1)], PAGE.replace("scores", "speeds"))) == 1


def test_the_projects_own_pages_show_its_results():
    assert main(["--check"]) == 0
