"""Every fast path has the states, prices and gradients of the plain eager float64 solve, for every solver.

A new path joins by its name in `PATHS`: options of `sdeint`, and where it goes.
"""

import warnings

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.sde.neural import MLPSDE
from neurodyn.solvers import compiled
from neurodyn.solvers.brownian import brownian_increments
from neurodyn.solvers.grid import step_grid
from neurodyn.solvers.solve import sdeint

DTYPE = torch.float64
NOISES = ["diagonal", "scalar", "additive", "general"]
METHODS = {"euler": "ito", "milstein": "ito", "heun": "stratonovich", "reversible_heun": "stratonovich"}
PATHS = {
    "checkpoint": {"gradient": "checkpoint"},
    "reversible": {"gradient": "reversible"},
    "compiled": {"compile": True},
    "fused": {"engine": "fused"},
}
REACH = {
    "reversible": lambda method, noise: method == "reversible_heun",
    # whose slope along itself torch differentiates in a way that dynamo does not follow
    "compiled": lambda method, noise: (method, noise) != ("milstein", "scalar"),
    "fused": lambda method, noise: (method, noise) == ("euler", "diagonal"),
}
CASES = [
    (path, method, noise)
    for path in PATHS
    for method in METHODS
    for noise in NOISES
    if (method, noise) != ("milstein", "general") and REACH.get(path, lambda *_: True)(method, noise)
]


class WithPrior(MLPSDE):
    def h(self, t, y):
        return -y


def build(path, method, noise, size):
    torch.manual_seed(0)
    if path == "fused":  # which takes plain laws: their own price is nothing
        return MLPSDE(size, 4).to(DTYPE)
    options = {"noise_type": noise, "sde_type": METHODS[method], "time_dependent": True, "hidden_layers": 2}
    law = WithPrior(size, 5, noise_size=size if noise in ("additive", "general") else None, **options)
    if noise in ("additive", "general"):
        with torch.no_grad():
            law.base.add_(torch.eye(size))  # else singular near t = 1, where the price is infinite
    return law.to(DTYPE)


@pytest.fixture
def traced(monkeypatch):
    """Through dynamo and AOTAutograd, without what inductor makes of it, which takes a minute for each."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch._dynamo.reset()


@pytest.mark.parametrize(("path", "method", "noise"), CASES)
def test_gradients_are_those_of_the_plain_solve_on_random_shapes(path, method, noise, traced):
    law = build(path, method, noise, 2)

    @settings(max_examples=1 if path == "compiled" else 5, deadline=None, database=None)
    @given(st.integers(1, 2), st.integers(1, 4), st.booleans(), st.integers(1, 11))
    def check(samples, rows, shared, steps):
        ts = torch.tensor([0.0, 0.4, 1.0], dtype=DTYPE)
        if not shared:
            ts = torch.stack([ts * share for share in (1.0, 0.5, 0.0, 0.9)])[:rows]
        dt = 1 / steps
        dw = brownian_increments(step_grid(ts, dt), (samples, rows), law.noise_size, dtype=DTYPE)
        start = torch.randn(samples, rows, 2, dtype=DTYPE, requires_grad=True)
        answers = []
        for options in ({}, PATHS[path]):
            states, price = sdeint(law, start, ts, dt=dt, method=method, noise=dw, logqp=True, **options)
            weight = torch.linspace(0.5, 1.5, states.numel(), dtype=DTYPE).reshape(states.shape)
            loss = (states.sin() * weight).sum() + (price * price.detach().cos()).sum()
            grads = torch.autograd.grad(loss, [start, *law.parameters()], allow_unused=True)
            answers.append([states, price, *(torch.zeros(()) if grad is None else grad for grad in grads)])
        torch.testing.assert_close(answers[1], answers[0], rtol=1e-9, atol=1e-10, check_dtype=False)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="(compile|engine):")  # a path that falls back is no path
        check()


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
def test_what_inductor_makes_of_a_chunk_has_the_plain_gradients(method):
    law = build("compiled", method, "diagonal", 2)
    start = torch.randn(3, 2, dtype=DTYPE, requires_grad=True)
    dw = brownian_increments(step_grid([0.0, 1.0], 0.2), (3,), 2, dtype=DTYPE)
    answers = []
    for compile in (False, True):
        states, price = sdeint(law, start, [0.0, 1.0], dt=0.2, method=method, noise=dw, logqp=True, compile=compile)
        grads = torch.autograd.grad(states.square().sum() + price.sum(), [start, *law.parameters()])
        answers.append([states, price, *grads])
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-10, atol=1e-11)


def test_where_compiling_fails_steps_run_as_they_are_with_one_warning(monkeypatch):
    def fails(graph, inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "BACKEND", fails)
    law = build("compiled", "euler", "diagonal", 2)
    dw = brownian_increments(step_grid([0.0, 1.0], 0.1), (3,), 2, dtype=DTYPE)
    options = {"dt": 0.1, "noise": dw, "compile": True}
    with pytest.warns(UserWarning, match="^compile: failed, so steps run uncompiled .*no compiler here") as told:
        first = sdeint(law, torch.zeros(3, 2, dtype=DTYPE), [0.0, 1.0], **options)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="compile:")
        second = sdeint(law, torch.zeros(3, 2, dtype=DTYPE), [0.0, 1.0], **options)
    plain = sdeint(law, torch.zeros(3, 2, dtype=DTYPE), [0.0, 1.0], dt=0.1, noise=dw)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, plain, rtol=1e-12, atol=1e-13)


def test_neither_the_horizon_nor_the_times_are_compiled_again(monkeypatch):
    counter = torch._dynamo.testing.CompileCounter()
    monkeypatch.setattr(compiled, "BACKEND", counter)
    law = build("compiled", "euler", "diagonal", 2)
    counts = []
    for end, dt in ((1.0, 0.1), (2.0, 0.05), (0.7, 0.02)):
        start = torch.zeros(3, 2, dtype=DTYPE, requires_grad=True)
        sdeint(law, start, [0.0, end], dt=dt, compile=True)
        counts.append(counter.frame_count)
    assert counts == [2, 2, 2]  # chunks, and the single steps that are left


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "checkpoint"}, "^compile: got True with another gradient"),
        ({"engine": "torchsde"}, "^compile: got True with engine 'torchsde', want 'native'"),
    ],
)
def test_what_cannot_be_compiled_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        sdeint(MLPSDE(2), torch.zeros(3, 2), [0.0, 1.0], dt=0.1, compile=True, **options)
