"""All sides of the speed benchmark take the same step, and what is timed is put into records rightly."""

import time

import numpy as np
import pytest
import torch

from benchmarks import memory, speed, time_to_elbo
from benchmarks.rivals.problem import GAPS, Sizes, make_problem
from benchmarks.rivals.step import Unavailable
from benchmarks.rivals.ways import MODULES, all_ways, make_steps
from benchmarks.timing import Spread, Timed, interleave, ratio, spread, timing_record

SMALL = Sizes(batch=5, steps=2 * GAPS, latent=3)
TORCH = [way for way in all_ways(["native_steps", "torchsde_steps"])]


def disagreement(found, wanted):
    """The largest relative error of the loss and of each gradient, that one by its largest entry."""
    assert found.gradients.keys() == wanted.gradients.keys()
    errors = [abs(found.loss - wanted.loss) / abs(wanted.loss)]
    for name, value in wanted.gradients.items():
        assert found.gradients[name].shape == value.shape, name
        errors.append(np.abs(found.gradients[name] - value).max() / np.abs(value).max())
    return np.max(errors)  # NaN if one of them is


@pytest.fixture(scope="module")
def problem():
    return make_problem(SMALL, np.float64)


def by_hand(problem, increments):
    """The loss in NumPy, from its formulas."""
    w, sizes = {**problem.weights, **problem.inputs}, problem.sizes

    def softplus(x):
        return np.logaddexp(x, 0)

    def drift(kind, z, context=None):
        before = z @ w[f"{kind}_state"] + w[f"{kind}_bias"]
        if context is not None:
            before = before + context @ w["post_context"]
        return softplus(before) @ w[f"{kind}_out"] + w[f"{kind}_out_bias"]

    z, loss = w["z0"], 0.0
    for k in range(sizes.steps):
        f = drift("post", z, w["contexts"][k // problem.per_gap])
        g = np.empty_like(z)
        for i in range(sizes.latent):
            hidden = softplus(z[:, i : i + 1] * w["noise_in"][i] + w["noise_bias"][i])
            g[:, i] = 0.1 + 0.9 / (1 + np.exp(-(hidden @ w["noise_out"][i] + w["noise_out_bias"][i])))
        loss += 0.5 * (((f - drift("prior", z)) / g) ** 2).sum() * 2.0**-8
        z = z + f * 2.0**-8 + g * increments[k]
        if (k + 1) % problem.per_gap == 0:
            loss += 0.5 * ((z - problem.targets[k // problem.per_gap]) ** 2).sum()
    return loss / sizes.batch


@pytest.fixture(scope="module")
def plain(problem):
    way = next(way for way in TORCH if way.name == "neurodyn, backprop")
    return way.make(problem).answer(problem.increments(1))


def test_the_plain_way_computes_the_loss_that_the_problem_states(problem, plain):
    assert plain.loss == pytest.approx(by_hand(problem, problem.increments(1)), rel=1e-12)


def test_gradients_of_the_plain_way_are_those_of_finite_differences(problem, plain):
    step = 1e-6
    for name, place in (("post_context", (3, 7)), ("noise_out", (1, 4)), ("prior_state", (2, 9)), ("z0", (4, 1))):
        losses = []
        for sign in (1, -1):
            arrays = {**problem.weights, **problem.inputs}
            moved = arrays[name].copy()
            moved[place] += sign * step
            weights = {key: moved if key == name else value for key, value in problem.weights.items()}
            inputs = {key: moved if key == name else value for key, value in problem.inputs.items()}
            other = type(problem)(problem.sizes, weights, inputs, problem.targets)
            losses.append(by_hand(other, problem.increments(1)))
        slope = (losses[0] - losses[1]) / (2 * step)
        assert plain.gradients[name][place] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("way", [way for way in TORCH if way.exact], ids=lambda way: way.name)
def test_torch_sides_agree_in_loss_and_gradients(way, problem, plain):
    try:
        step = way.make(problem)
    except Unavailable as error:
        pytest.skip(str(error))
    assert disagreement(step.answer(problem.increments(1)), plain) < 1e-11


@pytest.mark.parametrize("module", ["scan_steps", "diffrax_steps"])
def test_jax_sides_agree_in_loss_and_gradients(module, problem, plain):
    jax = pytest.importorskip("jax")
    for package in MODULES[module]:
        pytest.importorskip(package)
    with jax.enable_x64(True):
        for way in all_ways([module]):
            if way.exact:
                assert disagreement(way.make(problem).answer(problem.increments(1)), plain) < 1e-11, way.name


def test_increments_have_the_variance_of_the_step():
    drawn = make_problem(Sizes(64, 400, 4)).increments()
    assert drawn.var() * 2**8 == pytest.approx(1, rel=0.02)
    assert drawn.dtype == np.float32


@pytest.mark.parametrize("way", all_ways(), ids=lambda way: way.name)
def test_every_way_takes_the_steps_that_it_is_timed_by(way):
    steps = make_steps([way], make_problem(Sizes(batch=4, steps=GAPS, latent=2)))
    if not steps:
        pytest.skip("not available here")
    step = steps[way.name]
    calls = {"train": step.train} if way.trains else {}
    calls |= {"sample": step.sample} if way.samples else {}
    timed = interleave(calls, rounds=1, seconds=60)
    assert calls and timed.keys() == calls.keys() and all(times.rounds[0] > 0 for times in timed.values())


def test_a_step_of_training_leaves_gradients_of_this_step_alone():
    problem = make_problem(Sizes(batch=4, steps=GAPS, latent=2))
    step = TORCH[0].make(problem)
    torch.manual_seed(0)
    step.train()
    first = step.tensors.z0.grad.clone()
    torch.manual_seed(0)
    step.train()
    assert torch.equal(step.tensors.z0.grad, first)


def test_the_grid_wants_whole_gaps():
    with pytest.raises(ValueError, match="steps: 30 given, a multiple of 25"):
        Sizes(steps=30)


def test_calls_take_turns_and_slow_ones_are_left_out(capsys):
    log = []
    calls = {name: lambda name=name: log.append(name) for name in "ab"}
    calls["slow"] = lambda: time.sleep(0.05)
    timed = interleave(calls, rounds=4, seconds=60, slowest=0.02)
    assert log == list("aabb") + list("ab") * 4
    assert timed.keys() == {"a", "b"} and len(timed["a"].rounds) == 4
    assert "slow: 0.1 s a call" in capsys.readouterr().err


def test_ratios_are_taken_within_rounds():
    # a machine that slows down by ten in the second half does not change who is faster, and by how much
    below, above = Timed(0, [1, 1, 10, 10]), Timed(0, [3, 3, 30, 30])
    assert ratio(above, below) == Spread(3, 3, 3)
    assert spread([1, 2, 3, 4, 5]) == Spread(3, 2, 4)
    record = timing_record("t", "r", "c", spread([1, 2, 3, 4, 5]), command="x", unit="ms", threads=2)
    assert (record.value, record.low, record.high) == (3, 2, 4)
    assert record.hardware.endswith(", 2 threads")


def test_the_base_table_compares_with_our_fastest_simulated_way():
    timed = {"neurodyn, backprop": Timed(0, [2.0]), "neurodyn, checkpoint": Timed(0, [1.0]), "other": Timed(9, [5.0])}
    made = {(r.row, r.column): r.value for r in speed.base_records("speed/step", timed, TORCH)}
    assert made["other", "step"] == 5000
    assert made["other", "times neurodyn's fastest simulated"] == 5
    assert made["other", "first call"] == 9


def test_memory_is_measured_in_a_process_of_its_own_and_compared():
    found = memory.in_own_process("neurodyn, backprop", 100, 1, 120)
    if found is None:
        pytest.skip("the process was stopped")
    assert found["peak"] > 20  # 100 steps keep 256 x 4 x 64 hidden units, twice, 4 bytes each: 52 MB
    results = {("neurodyn, backprop", 100): found, ("x", 100): {"peak": found["peak"] / 10, "seconds": [1.0]}}
    made = {(r.table, r.row, r.column): r.value for r in memory.records(results, 100)}
    assert made["memory/price", "x", "peak / backprop"] == pytest.approx(0.1)
    assert made["memory", "x", "100 steps"] == found["peak"] / 10


def test_times_to_an_elbo_are_looked_up_and_never_extrapolated():
    curve = [(1.0, -50.0), (2.0, float("nan")), (4.0, -20.0), (8.0, -30.0)]
    assert time_to_elbo.best(curve) == -20
    assert time_to_elbo.reached(curve, -20) == 4.0
    assert time_to_elbo.reached(curve, -19) is None
    slow = [(1.0, -90.0), (8.0, -60.0)]
    results = {
        (time_to_elbo.MATCHED, 0): {"curve": curve, "steps": 9, "budget": 8.0},
        (time_to_elbo.ADJOINT, 0): {"curve": slow, "steps": 2, "budget": 8.0},
        (time_to_elbo.SIMULATED, 0): {"curve": curve, "steps": 4, "budget": 8.0},
    }
    made = {(r.row, r.column): r.value for r in time_to_elbo.records(results)}
    assert made[time_to_elbo.MATCHED, "to the adjoint's best"] == 1.0
    assert (time_to_elbo.ADJOINT, "to the simulated one's best") not in made
    assert made[time_to_elbo.ADJOINT, "seeds that reach the simulated one's best"] == 0
    assert made[time_to_elbo.ADJOINT, "4 s"] == -60


@pytest.mark.parametrize("way", time_to_elbo.WAYS)
def test_a_short_training_gives_a_rising_curve(way):
    found = time_to_elbo.measure(way, 0, 1.5)
    assert found["steps"] >= 1 and all(np.isfinite(elbo) for _, elbo in found["curve"])
    assert found["curve"][-1][0] >= 1.5
