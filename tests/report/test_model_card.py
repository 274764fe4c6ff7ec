"""The card of a run's model: all of its sections, and code in it that loads the model."""

import pandas as pd
import pytest
import torch

from neurodyn.checkpoints import write_json
from neurodyn.model_card import QUICK, USE, write_model_card
from neurodyn.models import LinearSDE
from neurodyn.report import write_report
from neurodyn.runs import Run
from neurodyn.scaling import Scaling
from neurodyn.series import SeriesBatch


@pytest.fixture
def data() -> SeriesBatch:
    values = torch.tensor([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [4.0, 0.0]]])
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    mask[1, 1, 1] = False
    return SeriesBatch(torch.tensor([[0.0, 2.0], [0.0, 4.0]]), values, mask, variables=("a", "b|c"))


def report(run: Run, data: SeriesBatch, **changes):
    table = pd.DataFrame({"crps": [0.4, 0.381], "coverage_90": [0.95, 0.84]}, index=["last value", "latent SDE"])
    given = {
        "title": "Forecasts of <i>things</i>",
        "question": "How well?",
        "data": data,
        "data_text": "From nowhere.",
        "units": {"a": "mg/dl"},
        "time_label": "time (years)",
        "model_text": "A latent SDE.",
        "model_facts": {"parameters": "1,234"},
        "history": [{"step": s, "objective": 1.0, "validation": 1.0 / s} for s in (1, 2, 3)],
        "best_step": 2,
        "comparison": table,
        "ours": "latent SDE",
        "comparison_text": "Held-out rows.",
    }
    write_report(run, **(given | changes))
    return (run.folder / "model_card.md").read_text(encoding="utf-8")


def test_a_quick_run_says_so_and_no_card_says_running(tmp_path, data):
    card = report(Run.open({"quick": True}, folder=tmp_path / "run"), data)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert QUICK in card and QUICK in page and "running" not in card
    assert QUICK not in report(Run.open({}, folder=tmp_path / "long"), data)


def test_every_report_has_a_card_with_all_that_a_reader_needs(tmp_path, data):
    card = report(Run.open({}, folder=tmp_path / "run", seed=5), data)
    headings = [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]
    assert headings == [
        *("What it is", "What was asked", "Data", "Training", "Scores", "Intended use and limits", "How to load it")
    ]
    assert card.startswith("---\nlibrary_name: neurodyn\n") and "# Forecasts of &lt;i>things&lt;/i>" in card
    for said in (
        "- parameters: 1,234",
        "2 series with 4 visits; from first to last visit 2 in the median, time (years).",
        "| a | mg/dl | 4 | 0 % | 1 | 4 |",
        "| b\\|c |  | 3 | 25 % | 10 | 30 |",
        "- seed: 5",
        "- steps: 3",
        "- weights from step: 2",
        "- validation (lower is better): 0.500",
        "The winner is latent SDE, the model of this run, with a CRPS of 0.381",
        "| last value | 0.400 | 0.950 |",
        "Held-out rows.",
        "The folder holds no model of its own",
        *USE,
    ):
        assert said in card, said
    assert "model_card.md" in (tmp_path / "run" / "report.html").read_text()


def test_the_code_in_it_loads_the_model_and_its_scaling(tmp_path, data, monkeypatch):
    run = Run.open({}, folder=tmp_path / "run")
    scaling = Scaling.fit(data)
    model = LinearSDE(2).fit(scaling.apply(data), max_iterations=1)
    model.save(run.path("model"))
    write_json(run.path("scaling.json"), scaling.to_dict())
    card = report(run, data)
    code = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(run.folder)
    found: dict = {}
    exec(code, found)
    back, scaled = found["model"], found["scaling"].apply(data)
    assert torch.equal(back.evidence(scaled), model.evidence(scaling.apply(data)))


def test_what_is_not_given_leaves_its_section_out(tmp_path):
    run = Run.open({}, folder=tmp_path / "run")
    text = write_model_card(run, title="A run", question="Why?", limits=["For nothing."]).read_text()
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["What was asked", "Training", "Intended use and limits", "How to load it"]
    assert "- For nothing." in text and "seed" not in text
    assert sorted(p.name for p in run.folder.iterdir()) == ["config.json", "model_card.md", "run.json"]


def test_facts_of_any_kind_are_told_as_they_are(tmp_path, data):
    facts = {"held_out": (8, 9), "potential": None, "slopes": True, "rate": 0.0123456, "parameters": 1234}
    card = report(Run.open({}, folder=tmp_path / "run"), data, model_facts=facts)
    told = ["held_out: (8, 9)", "potential: None", "slopes: True", "rate: 0.0123", "parameters: 1,234"]
    assert all(f"\n- {line}\n" in card for line in told)
