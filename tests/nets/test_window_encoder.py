"""The windowed encoder against windows gathered by hand, and the features that it leaves out."""

import pytest
import torch

from neurodyn.nets.window import WindowEncoder
from neurodyn.noise import RowNoise
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.posteriors.simulated import SimulatedPosterior
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64


def ragged(lengths: tuple[int, ...] = (9, 4, 1), variables: int = 2, seed: int = 0) -> SeriesBatch:
    generator = torch.Generator().manual_seed(seed)
    rows, longest = len(lengths), max(lengths)
    times = (torch.rand(rows, longest, generator=generator, dtype=DOUBLE) + 0.1).cumsum(1)
    values = torch.randn(rows, longest, variables, generator=generator, dtype=DOUBLE)
    mask = torch.rand(values.shape, generator=generator) < 0.7
    mask[..., 0] = True
    mask &= torch.arange(longest)[:, None] < torch.tensor(lengths)[:, None, None]
    return SeriesBatch(times, values, mask, ids=tuple(str(k) for k in range(rows)))


def encoder(every: int = 1, stride: int = 1, slopes: bool = False) -> WindowEncoder:
    torch.manual_seed(0)
    return WindowEncoder(2, 5, hidden_size=8, before=2, after=1, stride=stride, slopes=slopes, every=every).double()


@pytest.mark.parametrize("stride", [1, 3])
def test_features_are_the_networks_answer_to_the_visits_around(stride: int) -> None:
    batch, net = ragged(), encoder(stride=stride)
    context = net(batch)
    for row, length in enumerate((9, 4, 1)):
        for visit in range(length):
            window = []
            for other in range(visit - 2 * stride, visit + 2 * stride, stride):
                if 0 <= other < length:
                    lag = batch.times[row, other] - batch.times[row, visit]
                    window += [batch.values[row, other], batch.mask[row, other].double(), lag[None]]
                else:
                    window.append(torch.zeros(5, dtype=DOUBLE))
            torch.testing.assert_close(context.features[row, visit], net.net(torch.cat(window)))
        torch.testing.assert_close(context.summary[row], context.features[row, :length].mean(0))


def test_slopes_stand_in_for_the_values_of_other_visits() -> None:
    batch, net = ragged(), encoder(slopes=True)
    context = net(batch)
    for row, length in enumerate((9, 4, 1)):
        for visit in range(length):
            window = []
            for other in range(visit - 2, visit + 2):
                if not 0 <= other < length:
                    window.append(torch.zeros(5, dtype=DOUBLE))
                    continue
                value, known = batch.values[row, other], batch.mask[row, other]
                lag = batch.times[row, other] - batch.times[row, visit]
                if other != visit:
                    known = known & batch.mask[row, visit]
                    value = (value - batch.values[row, visit]) / lag * known
                window += [value, known.double(), lag[None]]
            torch.testing.assert_close(context.features[row, visit], net.net(torch.cat(window)))


@pytest.mark.parametrize("every", [2, 3, 4, 20])
def test_features_left_out_change_no_others(every: int) -> None:
    batch = ragged()
    full, thin = encoder()(batch), encoder(every)(batch)
    assert thin.places is not None
    for row, length in enumerate((9, 4, 1)):
        wanted = sorted({*range(0, length, every), length - 1})
        assert thin.places[row].unique().tolist() == wanted
        assert thin.places[row, : len(wanted)].tolist() == wanted  # and what follows repeats the last
        torch.testing.assert_close(thin.features[row], full.features[row, thin.places[row]])
        torch.testing.assert_close(thin.times[row], batch.times[row, thin.places[row]])
        torch.testing.assert_close(thin.summary[row], full.features[row, wanted].mean(0))


def test_features_at_chosen_visits_are_those_of_all() -> None:
    batch, net = ragged(), encoder(slopes=True)
    hole = batch.mask.clone()
    hole[0, 3] = False  # ranks count observed visits
    batch = SeriesBatch(batch.times, batch.values, hole, ids=batch.ids)
    full = net(batch).features
    found = net.at(batch, torch.tensor([[0, 3, 7], [3, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(found[0], full[0, [0, 4, 8]])
    torch.testing.assert_close(found[1], full[1, [3, 0, 0]])
    torch.testing.assert_close(found[2], full[2, [0, 0, 0]])


def test_a_matched_posterior_has_its_knots_where_features_stand_and_rows_stay_their_own() -> None:
    batch = ragged()
    torch.manual_seed(1)
    posterior = MatchedPosterior(3, 5, inner_knots=0).double().eval()
    prior, net = Prior(MLPSDE(3, 8), GaussianInitial(3)).double(), encoder(3)
    paths = posterior(net(batch), prior, RowNoise(0, batch.ids or ()), 2)
    assert paths.z.shape == (2, 3, 9, 3)  # latents at every visit all the same
    assert posterior.curve(net(batch)).knots[0].tolist() == batch.times[0, [0, 3, 6, 8]].tolist()
    for row in range(3):
        alone = batch.rows(row).trim()
        own = posterior(net(alone), prior, RowNoise(0, alone.ids or ()), 2)
        torch.testing.assert_close(own.path_kl[0], paths.path_kl[row], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(own.z[:, 0], paths.z[:, row, : alone.num_times], rtol=1e-9, atol=1e-10)


def test_parts_that_need_every_visit_say_so() -> None:
    batch = ragged()
    posterior = SimulatedPosterior(3, 3, 5, longest_step=0.5).double()
    prior = Prior(MLPSDE(3, 8), GaussianInitial(3)).double()
    with pytest.raises(ValueError, match="encoder: .* features at every visit wanted"):
        posterior(encoder(2)(batch), prior, RowNoise(0, batch.ids or ()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"before": -1}, "before: got -1"),
        ({"every": 0}, "every: got 0"),
        ({"stride": 0}, "stride: got 0"),
        ({"context_size": 0}, "context_size: got 0"),
    ],
)
def test_bad_sizes_are_named(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WindowEncoder(2, **{"context_size": 4, **options})
