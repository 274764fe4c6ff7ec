"""Bad input to sdeint: one line that names the argument, before anything is computed."""

import pytest
import torch
from example_laws import DTYPE, GeometricBrownian, LevyArea
from torch import nn

from neurodyn.sde.base import SDE
from neurodyn.sde.neural import MLPSDE
from neurodyn.solvers.adapt import convert
from neurodyn.solvers.grid import step_grid
from neurodyn.solvers.native import integrate, integrate_visits
from neurodyn.solvers.solve import sdeint

START = torch.ones(3, 2, dtype=DTYPE)
ITO, STRATONOVICH = GeometricBrownian("ito"), GeometricBrownian("stratonovich")


class Mixed(SDE):
    noise_type, state_size, noise_size = "diagonal", 2, 2

    def drift(self, t, z):
        return z

    def diffusion(self, t, z):
        return z.roll(1, -1)


class Foreign(nn.Module):
    """In torchsde's style, with a diffusion of the wrong shape."""

    noise_type, sde_type = "general", "ito"

    def f(self, t, y):
        return y

    def g(self, t, y):
        return y


class Unknown(Foreign):
    noise_type = "levy"


@pytest.mark.parametrize(
    ("sde", "start", "ts", "options", "message"),
    [
        (ITO, START, [1.0, 0.0], {}, "^ts: .*strictly increasing"),
        (ITO, START, [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], {}, "^ts: .*decrease"),
        (ITO, START, [0.0, float("inf")], {}, "^ts: .*infinite"),
        (ITO, START, [0.0, 1.0], {"dt": 0.0}, "^dt: got 0.0"),
        (ITO, START, [0.0, 1.0], {"dt": -0.1}, "^dt: got -0.1"),
        (ITO, START, [[0.0, 1.0]] * 4, {}, r"^y0: got leading shape \(3,\)"),
        (ITO, torch.ones(3, 5), [0.0, 1.0], {}, "^y0: got states of size 5, want 2"),
        (ITO, torch.ones(3, 2, dtype=torch.int64), [0.0, 1.0], {}, "^y0: got torch.int64"),
        (ITO, START, [0.0, 1.0], {"noise": torch.zeros(9, 3, 2)}, r"^noise: got shape \(9, 3, 2\), want \(10, 3\)"),
        (ITO, START, [0.0, 1.0], {"noise": torch.zeros(10, 2, 2)}, "^noise: got shape"),
        (
            ITO,
            START.float(),
            [0.0, 1.0],
            {"noise": torch.zeros(10, 3, 2)},
            "^noise: got torch.float64, want torch.float32",
        ),
        (ITO, START, [0.0, 1.0], {"method": "srk"}, "^method: got 'srk', want one of euler"),
        (ITO, START, [0.0, 1.0], {"method": "heun"}, "^method: got 'heun' for a law in the ito sense"),
        (STRATONOVICH, START, [0.0, 1.0], {"method": "euler"}, "^method: got 'euler' for a law in the strat"),
        (LevyArea(), START, [0.0, 1.0], {"method": "milstein"}, "^method: got 'milstein' for general noise"),
        (Mixed(), START, [0.0, 1.0], {"method": "milstein"}, "^method: got 'milstein' for diagonal noise that mixes"),
        (ITO, START, [0.0, 1.0], {"gradient": "adjoint_"}, "^gradient: got 'adjoint_'"),
        (STRATONOVICH, START, [0.0, 1.0], {"gradient": "reversible"}, "^gradient: got 'reversible' with method 'heun'"),
        (ITO, START, [0.0, 1.0], {"seeds": [1, 2]}, "^seeds: got 2"),
        (ITO, START, [0.0, 1.0], {"seeds": [1, 2, 3], "generator": torch.Generator()}, "^seeds: got a generator too"),
        (Foreign(), START, [0.0, 1.0], {}, r"^sde: g gives \(3, 2\) for general noise"),
        (Unknown(), START, [0.0, 1.0], {}, "^sde: got noise_type 'levy'"),
        (nn.Linear(2, 2), START, [0.0, 1.0], {}, "^sde: got Linear without f, g"),
        (Foreign(), START, [0.0, 1.0], {"logqp": True}, "^logqp: got Foreign without a prior drift"),
    ],
)
def test_bad_input_is_named(sde, start, ts, options, message):
    if "noise" in options:
        options = {**options, "noise": options["noise"].to(DTYPE)}
    with pytest.raises(ValueError, match=message):
        sdeint(sde, start, torch.tensor(ts, dtype=DTYPE), **{"dt": 0.1, **options})


def test_bad_input_to_the_low_level_is_named():
    grid = step_grid([0.0, 1.0], 0.5)

    def rate(k, t, z):
        return z

    with pytest.raises(ValueError, match="^noise_type: got 'blue'"):
        integrate(rate, rate, START, grid, torch.zeros(2, 3, 2), noise_type="blue")
    with pytest.raises(ValueError, match="^sde_type: got 'backward'"):
        integrate(rate, rate, START, grid, torch.zeros(2, 3, 2), sde_type="backward")
    with pytest.raises(ValueError, match="^grid: got no steps"):
        integrate(rate, rate, START, step_grid([0.0], 0.5), torch.zeros(0, 3, 2, dtype=DTYPE))
    with pytest.raises(ValueError, match="^gradient: got 'none'"):
        integrate_visits(rate, rate, START, grid, torch.zeros(2, 3, 2, dtype=DTYPE), gradient="none")
    with pytest.raises(ValueError, match="^sde_type"):
        convert(MLPSDE(2), "backward")
