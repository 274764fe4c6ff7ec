"""What a person sees while training runs."""

import logging
import sys

import pytest

from neurodyn.training import FitConfig, fit


def settings(**changes) -> FitConfig:
    plain = {"steps": 200, "batch_size": 0, "device": "cpu", "validate_every": 20}
    return FitConfig(**(plain | changes))


def test_without_a_terminal_ten_lines_go_to_the_log(mean_model, series, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="neurodyn"):
        fit(mean_model(), series, series, settings())
    lines = [record.getMessage() for record in caplog.records]
    assert (
        len(lines) == 10 and lines[0].startswith("step 20 of 200: objective ") and lines[-1].startswith("step 200 of")
    )
    assert all("validation" in line and "nan" not in line and line.endswith("s left") for line in lines)
    assert capsys.readouterr() == ("", "")
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="neurodyn"):
        fit(mean_model(), series, None, settings())
    assert caplog.records and all("validation" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("wanted", [True, False])
def test_on_a_terminal_a_bar_shows_the_loss_and_the_time_left(mean_model, series, monkeypatch, capsys, wanted):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(mean_model(), series, series, settings(progress=wanted))
    shown = capsys.readouterr().err
    assert ("200/200" in shown and "objective=" in shown and "validation=" in shown and "<" in shown) == wanted
