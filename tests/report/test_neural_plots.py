"""Pictures of populations show what they are given."""

import numpy as np

from neurodyn.plots import neural as plots
from neurodyn.style import png

RANDOM = np.random.default_rng(0)
TIMES = 0.02 * np.arange(20)
RATES = RANDOM.uniform(0.1, 1, (6, 20, 5))
COUNTS = RANDOM.poisson(RATES).astype(float)


def test_raster_has_a_mark_per_spiking_bin_and_rates_in_hz_sorted_by_peak() -> None:
    figure = plots.raster_and_rates(TIMES, COUNTS[0], RATES[0], bin_width=0.02, truth=RATES[0])
    raster, rates, truth = figure.axes[:3]
    assert len(raster.collections[0].get_offsets()) == (COUNTS[0] > 0).sum()
    shown = rates.images[0].get_array()
    order = np.argsort(RATES[0].argmax(0), kind="stable")
    np.testing.assert_allclose(shown, RATES[0][:, order].T / 0.02)
    np.testing.assert_allclose(truth.images[0].get_array(), shown)
    assert png(figure)[:4] == b"\x89PNG"


def test_condition_means_are_those_of_the_rates() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    figure = plots.psths(TIMES, COUNTS, RATES, labels, bin_width=0.02, neurons=[1, 4])
    lines = figure.axes[1].lines
    assert len(lines) == 6  # spikes and rates of three conditions
    np.testing.assert_allclose(lines[3].get_ydata(), RATES[2:4, :, 4].mean(0) / 0.02)


def test_latents_lie_on_their_principal_axes_whatever_their_number() -> None:
    for size in (1, 2, 6):
        figure = plots.latents(RANDOM.normal(size=(6, 20, size)), np.arange(6.0))
        axes = figure.axes[0]
        assert len(axes.lines) == 6
        assert png(figure)[:4] == b"\x89PNG"


def test_decoded_behaviour_and_the_field_of_a_known_well() -> None:
    figure = plots.decoded(TIMES, RATES[..., :2], RATES[..., 1:3], ("x", "y"))
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), RATES[0, :, 1])
    points = RANDOM.normal(size=(300, 3)) * np.array([3.0, 2.0, 0.1])
    figure = plots.flow_field(points, lambda q: -2 * q, lambda q: (q**2).sum(1))
    quiver = next(part for part in figure.axes[0].collections if hasattr(part, "U"))
    centre = points.mean(0)
    plane = np.linalg.svd(points - centre, full_matrices=False)[2][:2]
    np.testing.assert_allclose(np.stack([quiver.U, quiver.V], 1), -2 * (quiver.XY + centre @ plane.T), atol=1e-9)
