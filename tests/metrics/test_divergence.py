"""The estimate of KL against closed forms of Gaussians in one to four dimensions, skewed and nearly flat ones too."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from neurodyn.metrics import neighbour_kl

DOUBLE = torch.float64


def gaussian(mean: list[float], root: torch.Tensor) -> MultivariateNormal:
    return MultivariateNormal(torch.tensor(mean, dtype=DOUBLE), scale_tril=root.to(DOUBLE))


SKEWED = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.8, 0.0], [-0.2, 0.3, 0.7]])
OTHER = torch.tensor([[1.1, 0.0, 0.0], [-0.2, 1.0, 0.0], [0.1, 0.0, 0.9]])
PAIRS = {
    "shifted, 1-D": (gaussian([0.0], torch.eye(1)), gaussian([1.5], torch.eye(1))),
    "narrower, 2-D": (gaussian([0.0, 0.0], 0.5 * torch.eye(2)), gaussian([0.3, 0.0], torch.eye(2))),
    "correlated, 3-D": (gaussian([0.0, 0.2, 0.0], SKEWED), gaussian([0.4, 0.0, -0.3], OTHER)),
    # as the Lorenz system's marginals early on: spread in one direction, thin in the others
    "threads, 3-D": (
        gaussian([0.0, 0.0, 0.0], torch.diag(torch.tensor([1.0, 0.03, 0.02]))),
        gaussian([0.1, 0.0, 0.02], torch.diag(torch.tensor([0.9, 0.04, 0.03]))),
    ),
    "mild, 4-D": (gaussian([0.0] * 4, torch.eye(4)), gaussian([0.4] * 4, 1.2 * torch.eye(4))),
}


@pytest.mark.parametrize("name", PAIRS)
def test_gaussian_pairs(name: str) -> None:
    first, second = PAIRS[name]
    torch.manual_seed(0)
    found = neighbour_kl(first.sample((20000,)), second.sample((20000,)))
    assert found == pytest.approx(float(kl_divergence(first, second)), abs=0.05)


def test_one_law_with_itself_and_unlike_numbers_of_draws() -> None:
    torch.manual_seed(1)
    law = PAIRS["threads, 3-D"][0]
    assert abs(neighbour_kl(law.sample((9000,)), law.sample((20000,)))) < 0.05
    assert abs(neighbour_kl(law.sample((20000,)), law.sample((20000,)), 5)) < 0.03


def test_a_change_of_variables_changes_nothing() -> None:
    torch.manual_seed(2)
    first, second = (law.sample((3000,)) for law in PAIRS["narrower, 2-D"])
    turn = torch.tensor([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]], dtype=DOUBLE)
    plain = neighbour_kl(first, second)
    assert neighbour_kl(3 * first @ turn + 5, 3 * second @ turn + 5) == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize(
    ("samples", "reference", "neighbours", "words"),
    [
        (torch.zeros(5, 2), torch.zeros(5, 3), 1, r"shapes \(5, 2\) and \(5, 3\)"),
        (torch.rand(5, 2), torch.rand(9, 2), 5, "neighbours: 5 given for 5 and 9"),
        (torch.full((9, 2), torch.nan), torch.rand(9, 2), 2, "samples: draws that are not finite"),
        (torch.zeros(9, 2), torch.rand(9, 2), 2, "draws that coincide"),
    ],
)
def test_bad_input(samples: torch.Tensor, reference: torch.Tensor, neighbours: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        neighbour_kl(samples, reference, neighbours)
