"""The encoder over windows against windows gathered by hand, row by row."""

import pytest
import torch

from neurodyn.nets.logsignature_encoder import LogSignatureEncoder
from neurodyn.nets.signatures import logsignature
from neurodyn.noise import RowNoise
from neurodyn.posteriors.matched import MatchedPosterior
from neurodyn.sde.initial import GaussianInitial
from neurodyn.sde.neural import MLPSDE
from neurodyn.sde.prior import Prior
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64
LENGTHS = (9, 4, 1)


def ragged(lengths: tuple[int, ...]) -> SeriesBatch:
    generator = torch.Generator().manual_seed(0)
    rows, longest = len(lengths), max(lengths)
    times = (torch.rand(rows, longest, generator=generator, dtype=DOUBLE) + 0.1).cumsum(1)
    values = torch.randn(rows, longest, 2, generator=generator, dtype=DOUBLE)
    mask = torch.rand(values.shape, generator=generator) < 0.7
    mask[..., 0] = True
    mask &= torch.arange(longest)[:, None] < torch.tensor(lengths)[:, None, None]
    return SeriesBatch(times, values, mask, ids=tuple(str(k) for k in range(rows)))


def encoder(every: int = 3, causal: bool = False) -> LogSignatureEncoder:
    torch.manual_seed(0)
    return LogSignatureEncoder(2, 5, hidden_size=8, every=every, causal=causal).double()


def by_hand(net: LogSignatureEncoder, batch: SeriesBatch, row: int, length: int) -> tuple[list[int], torch.Tensor]:
    """Ends of the windows of a row whose first `length` visits are observed, and the features there."""
    values, known = batch.values[row, :length].clone(), batch.mask[row, :length]
    for k in range(length):
        before = values[k - 1] if k else torch.zeros(2, dtype=DOUBLE)
        values[k] = torch.where(known[k], values[k], before)
    path = torch.cat((batch.times[row, :length, None] - batch.times[row, 0], values), -1)
    ends = sorted({*range(0, length, net.every), length - 1})
    inputs = []
    for start, end in zip([0, *ends], ends, strict=False):
        words = logsignature(path[start : end + 1], net.depth)
        seen = known[start + 1 : end + 1].sum(0) if end else known[0]
        inputs.append(torch.cat((words, values[end], seen / net.every)))
    sequence = torch.stack(inputs)
    states = [net.ways[0](sequence[None])[0][0]]
    if len(net.ways) == 2:
        states.append(net.ways[1](sequence.flip(0)[None])[0][0].flip(0))
    return ends, net.feature_head(torch.cat(states, -1))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("every", [2, 3, 20])
def test_features_are_the_recurrences_answer_to_the_windows(every: int, causal: bool) -> None:
    batch, net = ragged(LENGTHS), encoder(every, causal)
    context = net(batch)
    assert context.places is not None
    for row, length in enumerate(LENGTHS):
        ends, wanted = by_hand(net, batch, row, length)
        assert context.places[row, : len(ends)].tolist() == ends
        torch.testing.assert_close(context.features[row, : len(ends)], wanted)
        torch.testing.assert_close(
            context.features[row, len(ends) :], wanted[-1:].expand_as(context.features[row, len(ends) :])
        )
        assert set(context.places[row, len(ends) :].tolist()) <= {length - 1}


def test_company_padding_and_unobserved_visits_change_nothing() -> None:
    batch, net = ragged(LENGTHS), encoder()
    whole = net(batch)
    for row in range(len(LENGTHS)):
        alone = net(batch.rows(torch.tensor([row])).compact())
        count = alone.features.shape[1]
        torch.testing.assert_close(whole.features[row, :count], alone.features[0])
        torch.testing.assert_close(whole.summary[row], alone.summary[0])
    hidden = batch.mask.clone()
    hidden[0, 4] = False  # a visit of which nothing is left is no visit
    rest = [0, 1, 2, 3, 5, 6, 7, 8]
    without = SeriesBatch(batch.times[:1, rest], batch.values[:1, rest], batch.mask[:1, rest], ids=("0",))
    holed = SeriesBatch(batch.times[:1], batch.values[:1], hidden[:1], ids=("0",))
    torch.testing.assert_close(net(holed).features, net(without).features)
    torch.testing.assert_close(net(holed).times, net(without).times)


def test_a_causal_one_knows_nothing_of_what_comes_later() -> None:
    batch, net = ragged((9,)), encoder(causal=True)
    changed = batch.values.clone()
    changed[0, 7:] += 1.0
    later = SeriesBatch(batch.times, changed, batch.mask, ids=("0",))
    one, other = net(batch), net(later)
    torch.testing.assert_close(one.features[0, :3], other.features[0, :3], atol=0, rtol=0)  # visits 0, 3, 6
    assert (one.features[0, 3] - other.features[0, 3]).abs().max() > 1e-3


def test_gradients_and_a_posterior_that_stands_on_windows() -> None:
    batch, net = ragged(LENGTHS), encoder()
    posterior = MatchedPosterior(2, 5, inner_knots=0).double()
    prior = Prior(MLPSDE(2, 8), GaussianInitial(2)).double()
    paths = posterior(net(batch), prior, RowNoise(0, batch.ids or ()))
    assert paths.z.shape == (1, 3, 9, 2)
    (paths.z.square().sum() + paths.path_kl.sum()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)
    assert net.ways[0].weight_ih_l0.grad.abs().sum() > 0 and net.ways[1].weight_ih_l0.grad.abs().sum() > 0


@pytest.mark.parametrize(("name", "value"), [("num_variables", 0), ("every", 1), ("depth", 0), ("hidden_size", 0)])
def test_sizes_that_make_no_sense_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got {value}, want"):
        LogSignatureEncoder(**{"num_variables": 2, "context_size": 3, name: value})
