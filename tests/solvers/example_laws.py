"""Laws with solutions in closed form as functions of the Brownian path, for the tests of this folder."""

import torch

from neurodyn.sde.base import SDE, time_column

DTYPE = torch.float64


class Law(SDE):
    state_size = noise_size = 2

    def __init__(self, sde_type="ito"):
        super().__init__()
        self.sde_type = sde_type

    @property
    def is_ito(self):
        return self.sde_type == "ito"


class GeometricBrownian(Law):
    """dz_i = a_i z_i dt + b_i z_i dW_i: z_i = z_0 exp((a - b^2/2) t + b W), without b^2/2 in the Stratonovich sense."""

    noise_type, coordinatewise = "diagonal", True

    def __init__(self, sde_type="ito"):
        super().__init__(sde_type)
        self.a = torch.nn.Parameter(torch.tensor([0.5, -0.5], dtype=DTYPE))
        self.b = torch.nn.Parameter(torch.tensor([0.5, 0.7], dtype=DTYPE))

    def drift(self, t, z):
        return self.a * z

    def diffusion(self, t, z):
        return self.b * z

    def exact(self, z0, t, w):
        return z0 * torch.exp((self.a - 0.5 * self.b**2 * self.is_ito) * t + self.b * w)


class Spiral(Law):
    """dz = A z dt + B z dW with one W and commuting A, B: z = exp((A - B^2/2) t + B W) z_0."""

    noise_type, noise_size = "scalar", 1
    a = torch.tensor([[-0.3, 0.5], [-0.5, -0.3]], dtype=DTYPE)
    b = torch.tensor([[0.5, 0.4], [-0.4, 0.5]], dtype=DTYPE)

    def drift(self, t, z):
        return z @ self.a.mT

    def diffusion(self, t, z):
        return (z @ self.b.mT).unsqueeze(-1)

    def exact(self, z0, t, w):
        generator = (self.a - 0.5 * self.b @ self.b * self.is_ito) * t + self.b * w.unsqueeze(-1)
        return (torch.linalg.matrix_exp(generator) @ z0.unsqueeze(-1)).squeeze(-1)


class OrnsteinUhlenbeck(Law):
    """dz = -k z dt + G dW, additive."""

    noise_type, state_independent = "additive", True
    k = 1.5
    matrix = torch.tensor([[0.8, 0.0], [0.3, 0.5]], dtype=DTYPE)

    def drift(self, t, z):
        return -self.k * z

    def diffusion(self, t, z):
        return self.matrix.expand(*z.shape[:-1], 2, 2)

    def exact_on(self, z0, steps, dw):
        """From increments on a fine grid: the weight of each is the mean of exp(-k (T - s)) over its step."""
        end, ends = steps.sum(), steps.cumsum(0)
        weight = (torch.exp(-self.k * (end - ends)) - torch.exp(-self.k * (end - ends + steps))) / (self.k * steps)
        return torch.exp(-self.k * end) * z0 + (weight[:, None, None] * dw).sum(0) @ self.matrix.mT


class LevyArea(Law):
    """dz_1 = dW_1, dz_2 = z_1 dW_2: general noise that does not commute. The same in both senses."""

    noise_type = "general"

    def drift(self, t, z):
        return torch.zeros_like(z)

    def diffusion(self, t, z):
        one, zero = torch.ones_like(z[..., 0]), torch.zeros_like(z[..., 0])
        return torch.stack((torch.stack((one, zero), -1), torch.stack((zero, z[..., 0]), -1)), -2)

    def exact_on(self, z0, steps, dw):
        """The iterated integral as the sum over a fine grid."""
        before = dw[..., 0].cumsum(0) - dw[..., 0]
        first = z0[:, 0] + dw[..., 0].sum(0)
        return torch.stack((first, z0[:, 1] + ((z0[:, 0] + before) * dw[..., 1]).sum(0)), -1)


class Decay(Law):
    """dz = -rate(t) z dt without noise, rate = 1 + t: z = z_0 exp(-t - t^2/2), for solvers of rows at unlike times."""

    noise_type, coordinatewise = "diagonal", True

    def drift(self, t, z):
        return -(1 + time_column(t, z)) * z

    def diffusion(self, t, z):
        return torch.zeros_like(z)

    def exact(self, z0, start, end):
        primitive = lambda t: t + 0.5 * t**2  # noqa: E731
        return z0 * torch.exp(primitive(start) - primitive(end)).unsqueeze(-1)
