"""On a GPU: the same answers as on the CPU, no waiting for the host inside of a step, and recorded steps as plain ones.

Skipped where there is no GPU. The fused engine's own checks are in tests/solvers/fused_checks.py and run there too.
"""

import pytest
import torch

from neurodyn import MLPSDE, FitConfig, LatentSDE, LinearSDE, Prior, SeriesBatch, fit, sdeint
from neurodyn.nets.context import Context
from neurodyn.noise import RowNoise
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.sde.initial import GaussianInitial
from neurodyn.serving import export_forecaster
from neurodyn.solvers import GraphedStep, brownian_increments, integrate_visits, path_kl_rate, step_grid
from neurodyn.solvers.fused import integrate_fused
from neurodyn.solvers.fused_laws import draw_keys, fused_law

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICE = "cuda"


@pytest.fixture
def batch() -> SeriesBatch:
    """Ragged rows with missing values."""
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(12, 9, generator=generator, dtype=torch.float64).cumsum(1)
    values = torch.randn(12, 9, 2, generator=generator, dtype=torch.float64).cumsum(1)
    mask = torch.rand(12, 9, 2, generator=generator) > 0.3
    mask[:, 0] = True
    mask[:3, 6:] = False
    return SeriesBatch(times, values, mask, ids=tuple(f"row-{k}" for k in range(12))).compact()


@pytest.fixture
def unwaiting():
    """Waiting for the device is an error between the two calls of this."""

    def switch(mode: str) -> None:
        torch.cuda.set_sync_debug_mode(mode)

    yield switch
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("posterior", ["matched", "simulated", "smoother"])
def test_a_model_has_the_same_loss_and_gradients_as_on_the_cpu(posterior, batch):
    torch.manual_seed(0)
    if posterior == "smoother":
        model = LatentSDE.on(LinearSDE(num_variables=2)).double()
    else:
        model = LatentSDE.build(num_variables=2, posterior=posterior, longest_step=0.2).double()
    found = []
    for device in ("cpu", DEVICE):
        model.to(device).zero_grad()
        loss = model.loss(batch, generator=torch.Generator().manual_seed(1))
        loss.objective().backward()
        grads = [p.grad.cpu().clone() for p in model.parameters() if p.grad is not None]
        found.append([loss.elbo.detach().cpu(), *grads])
    assert len(found[0]) == len(found[1]) > 3
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert torch.allclose(on_gpu, on_cpu, rtol=1e-7, atol=1e-8 * max(1.0, on_cpu.abs().max().item()))


@pytest.mark.parametrize("posterior", ["matched", "simulated"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fit_goes_up_and_forecasts_come_back(posterior, precision, batch):
    torch.manual_seed(0)
    model = LatentSDE.build(num_variables=2, posterior=posterior, longest_step=0.2)
    with torch.no_grad():
        before = model.to(DEVICE).loss(batch, generator=torch.Generator().manual_seed(1)).elbo.mean()
    config = FitConfig(steps=60, batch_size=0, warmup_steps=0, precision=precision, device="cuda", progress=False)
    fit(model, batch, config=config)
    assert next(model.parameters()).is_cuda
    with torch.no_grad():
        after = model.loss(batch, generator=torch.Generator().manual_seed(1)).elbo.mean()
    assert after > before + 1
    times = batch.last_time[:, None] + torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)
    forecast = model.forecast(batch, times, num_samples=20, generator=torch.Generator().manual_seed(2))
    assert forecast.samples.shape == (20, 12, 3, 2)
    assert forecast.samples.device.type == "cpu" and forecast.samples.isfinite().all()


def test_a_forecast_is_that_of_the_cpu(batch):
    torch.manual_seed(0)
    model = LatentSDE.build(num_variables=2, posterior="matched").double()
    times = batch.last_time[:, None] + torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    samples = [
        model.to(device).forecast(batch, times, num_samples=5, generator=torch.Generator().manual_seed(2)).samples
        for device in ("cpu", DEVICE)
    ]
    assert torch.allclose(samples[0], samples[1], rtol=1e-7, atol=1e-8)


def test_the_evidence_of_a_linear_model_is_that_of_the_cpu(batch):
    torch.manual_seed(0)
    model = LinearSDE(num_variables=2)
    with torch.no_grad():
        on_cpu = model.evidence(batch)
        on_gpu = model.to(DEVICE).evidence(batch.to(DEVICE))
    assert on_gpu.is_cuda and torch.allclose(on_gpu.cpu(), on_cpu, rtol=1e-9)


def test_an_exported_program_gives_the_numbers_of_the_model_to_the_bit(batch):
    torch.manual_seed(0)
    model = LatentSDE.build(num_variables=2, encoder="window", longest_step=0.3).to(DEVICE)
    batch, sizes = batch.to(dtype=torch.float32), {"num_visits": batch.num_times, "horizon": 2, "num_samples": 3}
    exported = export_forecaster(model, batch.variables, **sizes, reach=1.0)
    times = batch.last_time[:, None] + torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    generators = [torch.Generator().manual_seed(2) for _ in range(2)]
    found = exported.forecast(batch, times, generator=generators[0]).samples
    assert torch.equal(found, model.forecast(batch, times, 3, generator=generators[1]).samples)


WAYS = [
    ("euler", "ito", "backprop"),
    ("euler", "ito", "checkpoint"),
    ("milstein", "ito", "backprop"),
    ("heun", "stratonovich", "backprop"),
    ("reversible_heun", "stratonovich", "reversible"),
]


@pytest.mark.parametrize("times", [[0.0, 0.4, 1.0], [[0.0, 0.4, 1.0], [0.0, 0.1, 0.1], [0.5, 0.6, 2.0]]])
@pytest.mark.parametrize(("method", "sde_type", "gradient"), WAYS)
def test_solves_with_seeds_are_those_of_the_cpu(method, sde_type, gradient, times):
    torch.manual_seed(0)
    law = MLPSDE(3, 8, sde_type=sde_type).double()
    z0 = torch.randn(3, 3, dtype=torch.float64)
    ts = torch.tensor(times, dtype=torch.float64)
    found = []
    for device in ("cpu", DEVICE):
        law.to(device).zero_grad()
        options = {"method": method, "gradient": gradient, "seeds": [3, 4, 5]}
        states, paid = sdeint(law, z0.to(device), ts.to(device), dt=0.15, logqp=True, **options)
        (states.square().sum() + paid.sum()).backward()
        found.append([states.detach().cpu(), *(p.grad.cpu().clone() for p in law.parameters())])
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert torch.allclose(on_gpu, on_cpu, rtol=1e-9, atol=1e-10)


def native_loss(law, prior, z0, grid, noise):
    """Backprop through the eager engine, with the path priced against another law's drift."""
    visits = integrate_visits(
        lambda k, t, z: law.drift(t, z),
        lambda k, t, z: law.diffusion(t, z),
        z0,
        grid,
        noise,
        cost=lambda k, t, left: path_kl_rate(left.drift - prior.drift(t, left.point), left.diffusion, "diagonal"),
    )
    return visits.states.square().mean() + visits.cost.sum(-1).mean()


def test_no_step_waits_for_the_host(unwaiting):
    law, prior = MLPSDE(3, 8).to(DEVICE), MLPSDE(3, 8).to(DEVICE)
    grid = step_grid([0.0, 0.5, 1.0], 0.1)
    z0 = torch.randn(4, 3, device=DEVICE)
    noise = brownian_increments(grid, (4,), 3, device=DEVICE)
    unwaiting("error")
    native_loss(law, prior, z0, grid, noise).backward()
    with pytest.raises(RuntimeError, match="synchronizing"):  # the switch is on
        z0.sum().item()
    unwaiting("default")
    assert all(p.grad is not None for p in law.parameters())


def test_no_fused_solve_waits_for_the_host(unwaiting):
    pytest.importorskip("triton")
    law = MLPSDE(3, 8).to(DEVICE)
    grid = step_grid([0.0, 0.5, 1.0], 0.1)
    z0 = torch.randn(4, 3, device=DEVICE)
    for mode in ("default", "error"):  # the first solve on a grid takes it to the device
        unwaiting(mode)
        integrate_fused(fused_law(law), z0, grid, draw_keys(z0, None, None)).states.square().mean().backward()
    unwaiting("default")
    assert all(p.grad is not None for p in law.net.parameters())


def matching(batch):
    """SDE Matching on free contexts, as a function of the rows' keys."""
    torch.manual_seed(0)
    prior = Prior(MLPSDE(3, 8), GaussianInitial(3)).to(DEVICE)
    posterior = MatchedPosterior(3, 5, hidden_size=8).to(DEVICE)
    batch = batch.to(DEVICE)
    features = torch.randn(batch.num_rows, batch.num_times, 5, device=DEVICE)
    context = Context(batch, features, features[:, -1])
    noise = RowNoise(0, batch.ids, DEVICE)

    def loss(keys):
        noise.keys = keys
        paths = posterior(context, prior, noise)
        return paths.z.square().mean() + (paths.path_kl + paths.initial_kl).mean()

    return loss, [*prior.parameters(), *posterior.parameters()], noise.keys.clone()


def test_no_step_of_matching_waits_for_the_host(batch, unwaiting):
    loss, parameters, keys = matching(batch)
    unwaiting("error")
    loss(keys).backward()
    unwaiting("default")
    assert all(p.grad is not None for p in parameters)


def gradients(parameters):
    return [p.grad.clone() for p in parameters]


def plainly(function, inputs, parameters):
    """The loss and the gradients without a recording; no graph of autograd's is left behind."""
    loss = function(*inputs)
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


def agree(one, other, tolerance=1e-4):
    for a, b in zip(one, other, strict=True):
        assert (a - b).abs().max() <= tolerance * max(1.0, b.abs().max().item())


def test_a_recorded_step_has_the_gradients_of_the_plain_one():
    law, prior = MLPSDE(3, 8).to(DEVICE), MLPSDE(3, 8).to(DEVICE)
    parameters = [*law.parameters(), *prior.residual.parameters()]
    grid = step_grid([0.0, 0.5, 1.0], 0.1)

    def function(z0, noise):
        return native_loss(law, prior, z0, grid, noise)

    step = GraphedStep(function, parameters)
    for rows in (4, 4, 6):
        z0 = torch.randn(rows, 3, device=DEVICE)
        noise = brownian_increments(grid, (rows,), 3, device=DEVICE)
        loss = step(z0, noise).clone()
        agree([loss, *gradients(parameters)], plainly(function, (z0, noise), parameters))
    assert step.num_recorded == 2
    # weights that an optimizer moves are seen by the recording
    with torch.no_grad():
        for p in parameters:
            p.add_(0.1)
    agree([step(z0, noise), *gradients(parameters)], plainly(function, (z0, noise), parameters))


def test_noise_drawn_inside_of_a_recording_is_new_in_every_replay():
    law = MLPSDE(3, 8).to(DEVICE)
    grid = step_grid([0.0, 0.5, 1.0], 0.1)
    scale = grid.steps.sqrt().to(DEVICE, torch.float32)[:, None, None]

    def solve(z0):
        noise = scale * torch.randn(grid.num_steps, *z0.shape, device=DEVICE)
        return native_loss(law, law, z0, grid, noise)

    step = GraphedStep(solve, law.parameters())
    z0 = torch.zeros(64, 3, device=DEVICE)
    losses = {step(z0).item() for _ in range(5)}
    assert len(losses) == 5
    own = torch.Generator(DEVICE).manual_seed(3)
    draw = GraphedStep(lambda like: torch.randn(like.shape, device=DEVICE, generator=own), generators=[own])
    draws = {draw(torch.zeros(2, device=DEVICE))[0].item() for _ in range(5)}
    assert len(draws) == 5


def test_a_recorded_step_of_the_fused_engine_and_of_matching(batch):
    pytest.importorskip("triton")
    law = MLPSDE(3, 8).to(DEVICE)
    grid = step_grid([0.0, 0.5, 1.0], 0.1)

    def fused(z0, keys):
        return integrate_fused(fused_law(law), z0, grid, keys).states.square().mean()

    z0 = torch.randn(6, 3, device=DEVICE)
    loss, parameters, keys = matching(batch)
    cases = [(fused, list(law.parameters()), [(z0, draw_keys(z0, None, [k] * 6)) for k in (1, 2)])]
    cases.append((loss, parameters, [(keys,), (keys + 1,)]))
    for function, leaves, calls in cases:
        step = GraphedStep(function, leaves)
        seen = set()
        for inputs in calls:
            recorded = step(*inputs).clone()
            agree([recorded, *gradients(leaves)], plainly(function, inputs, leaves))
            seen.add(recorded.item())
        assert len(seen) == 2 and step.num_recorded == 1


def test_shapes_after_the_last_that_is_recorded_are_called_plainly():
    layer = torch.nn.Linear(3, 1).to(DEVICE)
    step = GraphedStep(lambda x: layer(x).square().mean(), layer.parameters(), most=1)
    for rows in (2, 5):
        x = torch.randn(rows, 3, device=DEVICE)
        assert torch.allclose(step(x), layer(x).square().mean())
    assert step.num_recorded == 1
