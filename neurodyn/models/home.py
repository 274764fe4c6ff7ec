"""Where a model computes: on the device, and in the dtype, of its parameters, whatever it is handed."""

from __future__ import annotations

from torch import nn

from neurodyn.series import SeriesBatch


def at_home(batch: SeriesBatch, networks: nn.Module) -> SeriesBatch:
    """The batch on the device of the networks, its values in their dtype; as it is if they have no parameters."""
    parameter = next(networks.parameters(), None)
    return batch if parameter is None else batch.to(parameter.device, parameter.dtype)


def beside(batch: SeriesBatch, model: nn.Module) -> SeriesBatch:
    """The batch on the model's device, its values as they are: for models that compute in float64 in any case."""
    parameter = next(model.parameters(), None)
    return batch if parameter is None else batch.to(parameter.device)
