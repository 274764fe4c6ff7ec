"""What all tests share: one thread, pictures without a screen, seeds, and where the real data is."""

import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """The same global random numbers in every test, whatever ran before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator for what takes one."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data that NEURODYN_DATA names; the test is skipped where there is none."""
    named = os.environ.get("NEURODYN_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("needs the data sets: NEURODYN_DATA names no folder")
    return Path(named)
