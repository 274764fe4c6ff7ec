"""The recipe lorenz: a short run goes through in every setting and prints what it should."""

import math

import pytest

from neurodyn.recipes.lorenz import Config, run


@pytest.mark.parametrize("posterior", ["matched", "simulated"])
def test_a_short_run_prints_four_divergences(posterior: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(
        posterior=posterior, setting="noisy", steps=2, batch_size=4, draws=200, device="cpu", progress=False
    )  # type: ignore[arg-type]
    found = run(config)
    assert len(found["kl"]) == 4 and all(math.isfinite(value) for value in found["kl"])
    assert len(found["variation"]) == 3 and min(found["variation"]) > 0
    shown = capsys.readouterr().out
    assert shown.count("KL at") == 4 and "quadratic variation" in shown
