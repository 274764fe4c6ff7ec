"""The report: self-contained, safe with any text, and right about who wins."""

import base64
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch

from neurodyn import style
from neurodyn.diagnostics import Diagnostic
from neurodyn.html_page import Page, number
from neurodyn.report import best_of_columns, who_wins, write_report
from neurodyn.runs import Run
from neurodyn.series import SeriesBatch

NASTY = "<script>alert('x')</script> & \"quotes\" </title></style>"


class Reader(HTMLParser):
    """Collects tags, text, and checks that every element is closed in order."""

    VOID = {"meta", "img", "br"}

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words, self.attributes = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def table():
    columns = {"crps": [0.4, 0.381, 0.392], "coverage_90": [0.95, 0.84, 0.91], "width_90": [3.0, 1.0, 2.0]}
    return pd.DataFrame(columns, index=["last value", "linear SDE", "latent SDE"])


def test_best_is_the_smallest_error_and_the_coverage_nearest_its_level(table):
    assert best_of_columns(table) == {"crps": [False, True, False], "coverage_90": [False, False, True]}
    ties = pd.DataFrame({"mae": [0.50001, 0.5, 0.7, float("nan")]})
    assert best_of_columns(ties) == {"mae": [True, True, False, False]}


def test_who_wins_is_said_plainly(table):
    assert who_wins(table) == "The winner is linear SDE with a CRPS of 0.381; next comes latent SDE with 0.392."
    assert who_wins(table, "latent SDE").endswith(
        "The model of this run, latent SDE, comes 2nd of 3 with 0.392, 2.9 % above the winner."
    )
    assert "linear SDE, the model of this run, with" in who_wins(table, "linear SDE")
    table.loc["direct GRU"] = [0.3825, 0.9, 2.0]
    assert "level with it, within 1 %: direct GRU." in who_wins(table)
    assert "nothing to compare" in who_wins(table.iloc[:1])
    table.loc["latent SDE", "crps"] = float("nan")
    assert who_wins(table, "latent SDE").endswith("latent SDE, has no score.")
    # A negative score, as a log-density gives: still the smaller wins, and the gap is in its size.
    nll = pd.DataFrame({"gaussian_nll": [-1.0, -2.0]}, index=["a", "b"])
    assert who_wins(nll, "a").startswith("The winner is b") and "50.0 % above" in who_wins(nll, "a")
    for bad, message in (
        (table.iloc[:0], "^comparison: the table"),
        (table[["width_90"]], "^comparison: first column"),
    ):
        with pytest.raises(ValueError, match=message):
            who_wins(bad)
    with pytest.raises(ValueError, match="^ours: 'x' given"):
        who_wins(table, "x")


def test_numbers_for_readers():
    shown = [number(x) for x in (0.38149, 12.345, 123.4, 12345.6, 7, -0.5, 0.00012, 0, float("nan"), float("inf"), "a")]
    assert shown == ["0.381", "12.3", "123", "12,346", "7", "\u22120.500", "1.20e-04", "0", "\u2013", "\u221e", "a"]


def whole(run, table, **changes):
    g = torch.Generator().manual_seed(0)
    times = torch.rand(5, 6, generator=g, dtype=torch.float64).add(0.1).cumsum(1)
    data = SeriesBatch(times, torch.randn(5, 6, 2, generator=g), variables=("<i>u</i>", "v"))
    figure, axes = style.grid_of_axes(1, 1, width=7, height=2)
    axes[0, 0].plot([0, 1], [0, 1])
    one = Diagnostic("drift gap", 0.3, "units", "look", NASTY, {"z1": 1.0}, "share", (0.0, 1.0), None)
    given = {
        "title": NASTY,
        "question": "First paragraph.\n\nSecond " + NASTY,
        "data": data,
        "data_text": NASTY,
        "units": {"v": "<mg>"},
        "time_label": "time (years)",
        "model_text": NASTY,
        "model_facts": {NASTY: NASTY},
        "history": [{"step": s, "objective": 1.0 / s, "validation": 1.0} for s in (1, 2, 3)],
        "best_step": 2,
        "diagnostics": [one, one._replace(verdict="good", sentence="Fine.")],
        "forecasts": [(figure, "fan " + NASTY)],
        "calibration": [(figure, "PIT")],
        "comparison": table.rename(index={"latent SDE": NASTY}),
        "ours": NASTY,
        "reproduce": "neurodyn forecast --x '<y>'",
    }
    return write_report(run, **(given | changes)).read_text()


def test_the_report_is_whole_valid_and_loads_nothing(tmp_path, table):
    run = Run.open({}, folder=tmp_path / "run", seed=5)
    page = whole(run, table)
    read = Reader(page)
    for title in ("In short", "Question", "Data", "Model", "Training", "Diagnostics", "Forecasts", "Calibration"):
        assert title in read.text
    assert "Comparison" in read.text and "How to reproduce" in read.text
    assert "script" not in read.tags and "i" not in read.tags and "link" not in read.tags
    assert read.text.count("alert('x')") >= 9  # shown, not run
    links = [v for _, k, v in read.attributes if k in ("src", "href")]
    assert links and all(v.startswith(("data:image/png;base64,", "#s")) for v in links)
    assert "http:" not in page and "https:" not in page and "@import" not in page and "url(" not in page
    for source in [v for v in links if v.startswith("data:")]:
        assert base64.b64decode(source.partition(",")[2], validate=True).startswith(b"\x89PNG")
    # Every link in the page has its target, every picture words that stand for it.
    ids = {v for _, k, v in read.attributes if k == "id"}
    assert {v[1:] for v in links if v.startswith("#")} == ids
    assert read.tags.count("img") == len([1 for tag, k, v in read.attributes if tag == "img" and k == "alt" and v])
    assert "seed 5" in read.text and run.info["versions"]["torch"] in read.text
    assert "Of 2 diagnostics, drift gap: worth a look. The others are good." in read.text
    assert not (run.folder / "report.html.part").exists()


def test_the_best_cells_and_this_runs_model_are_marked(tmp_path, table):
    page = whole(Run.open({}, folder=tmp_path / "run"), table)
    assert re.findall(r'<td class="best">([^<]*)', page) == ["0.381", "91.0\u00a0%"]
    assert page.count('<tr class="ours">') == 1
    assert "90\u00a0% coverage" in page and "1.53" not in page


def test_an_interrupted_run_reports_what_there_is(tmp_path):
    run = Run.open({}, folder=tmp_path / "run")
    run.finish("interrupted")
    read = Reader(write_report(run, title="Part", question="Why?").read_text())
    assert "This run was interrupted; its results are partial." in read.text
    assert "Comparison" not in read.text and "In short" not in read.text and "How to reproduce" in read.text


def test_page_refuses_what_it_cannot_show():
    section = Page("t").section("s")
    with pytest.raises(ValueError, match="^figure: "):
        section.figure(b"GIF89a", "no")
    with pytest.raises(ValueError, match="^lines: want a verdict"):
        section.verdicts([("fine", "a", "b", "c")])
