"""The SDE contract: derivatives of the diffusion against closed forms and finite differences."""

import pytest
import torch

from neurodyn.sde.base import SDE, time_column

DTYPE = torch.float64


class Coupled(SDE):
    """Diagonal noise whose entries see each other: g_i = sin(z_i + 2 z_{i+1}) + 2 + t."""

    noise_type = "diagonal"
    state_size = noise_size = 3

    def diffusion(self, t, z):
        return torch.sin(z + 2 * z.roll(-1, -1)) + 2 + time_column(t, z)


class Separate(Coupled):
    """g_i = z_i^2 + t, coordinate by coordinate: g g' = 2 z^3 + 2 z t."""

    coordinatewise = True

    def diffusion(self, t, z):
        return z.square() + time_column(t, z)


class Matrix(SDE):
    """General noise, 3 x 2, every entry a function of every coordinate."""

    noise_type = "general"
    state_size, noise_size = 3, 2

    def diffusion(self, t, z):
        mixed = torch.stack((z.prod(-1), z.sum(-1)), -1)
        return torch.sin(z[..., :, None] * 1.5 + mixed[..., None, :]) + time_column(t, z)[..., None]


class OneSource(Matrix):
    noise_type = "scalar"
    noise_size = 1

    def diffusion(self, t, z):
        return super().diffusion(t, z)[..., :1]


def covariance(law, t, z):
    g = law.diffusion(t, z)
    return torch.diag_embed(g * g) if law.noise_type == "diagonal" else g @ g.mT


def matrix_diffusion(law, t, z):
    g = law.diffusion(t, z)
    return torch.diag_embed(g) if law.noise_type == "diagonal" else g


def by_differences(function, z, step=1e-5):
    """Jacobian of `function` along each coordinate of z, stacked in front."""
    columns = []
    for j in range(z.shape[-1]):
        shift = torch.zeros_like(z)
        shift[..., j] = step
        columns.append((function(z + shift) - function(z - shift)) / (2 * step))
    return torch.stack(columns)


LAWS = [Coupled, Separate, Matrix, OneSource]


@pytest.mark.parametrize("law_type", LAWS)
def test_half_divergence_equals_finite_differences(law_type):
    law, t = law_type(), torch.rand(4, dtype=DTYPE)
    z = torch.randn(2, 4, 3, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    jacobian = by_differences(lambda x: covariance(law, t, x), z)
    wanted = 0.5 * torch.einsum("j...ij->...i", jacobian)
    torch.testing.assert_close(law.half_divergence(t, z), wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("law_type", LAWS)
def test_ito_correction_equals_finite_differences(law_type):
    law, t = law_type(), 0.3
    z = torch.randn(2, 4, 3, dtype=DTYPE, generator=torch.Generator().manual_seed(1))
    jacobian = by_differences(lambda x: matrix_diffusion(law, t, x), z)
    wanted = 0.5 * torch.einsum("...jk,j...ik->...i", matrix_diffusion(law, t, z), jacobian)
    torch.testing.assert_close(law.ito_correction(t, z), wanted, rtol=1e-7, atol=1e-7)


def test_half_divergence_of_a_coordinatewise_law_in_closed_form():
    z = torch.randn(5, 3, dtype=DTYPE)
    torch.testing.assert_close(Separate().half_divergence(0.5, z), 2 * z**3 + z)


@pytest.mark.parametrize("law_type", LAWS)
def test_half_divergence_can_be_differentiated(law_type):
    law = law_type()
    z = torch.randn(2, 3, dtype=DTYPE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: law.half_divergence(0.2, x), z)


@pytest.mark.parametrize("law_type", LAWS)
def test_half_divergence_without_gradients_and_on_expanded_states(law_type):
    law = law_type()
    z = torch.randn(1, 3, dtype=DTYPE)
    with torch.no_grad():
        spread = law.half_divergence(0.2, z.expand(6, 4, 3))
    assert not spread.requires_grad
    torch.testing.assert_close(spread, law.half_divergence(0.2, z).expand(6, 4, 3))


def test_torchsde_names_follow_overrides():
    class Shifted(Separate):
        def drift(self, t, z):
            return z + 1

    law, z = Shifted(), torch.randn(2, 3)
    assert torch.equal(law.f(0.0, z), z + 1) and torch.equal(law.h(0.0, z), z + 1)
    assert torch.equal(law.g(0.0, z), z.square())


@pytest.mark.parametrize("t", [0.5, torch.tensor(0.5), torch.full((4,), 0.5), torch.full((1, 4), 0.5)])
def test_time_column_takes_every_form_of_time(t):
    z = torch.zeros(2, 4, 3)
    assert torch.equal(time_column(t, z), torch.full((2, 4, 1), 0.5))


def test_missing_drift_says_so():
    with pytest.raises(NotImplementedError, match="Matrix has no drift"):
        Matrix().drift(0.0, torch.zeros(3))
