"""Classifiers learn what is known to tell classes apart, row by row, and say how sure they are."""

import math

import pytest
import torch

from neurodyn.metrics.classes import score_classes
from neurodyn.models.classifier import READERS, SeriesClassifier
from neurodyn.models.classifiers import CLASSIFIERS, fit_classifier
from neurodyn.models.forecasters import Training
from neurodyn.series import SeriesBatch


def waves(rows=120, visits=16, seed=0, missing=0.2):
    """Two classes that only the order of events tells apart: a bump in y1 before one in y2, or after it."""
    g = torch.Generator().manual_seed(seed)
    times = torch.sort(torch.rand(rows, visits, generator=g, dtype=torch.float64), 1).values
    labels = torch.arange(rows) % 2
    early, late = 0.3 + 0.1 * torch.rand(rows, generator=g), 0.65 + 0.1 * torch.rand(rows, generator=g)
    first, second = torch.where(labels == 0, early, late), torch.where(labels == 0, late, early)
    centre = torch.stack((first, second), -1)[:, None]
    values = torch.exp(-50 * (times[..., None] - centre) ** 2) + 0.1 * torch.randn(rows, visits, 2, generator=g)
    mask = torch.rand(rows, visits, 2, generator=g) >= missing
    mask[:, 0] = True
    return SeriesBatch(times, values.float(), mask, labels=labels, ids=tuple(map(str, range(rows))))


@pytest.mark.parametrize("reader", [name for name in READERS if name != "neural_sde"])
def test_learns_the_order_of_events(reader):
    parts = waves(240).rows(slice(0, 160)), waves(240).rows(slice(160, 200)), waves(240).rows(slice(200, 240))
    schedule = {"steps": 150, "learning_rate": 1e-2, "validate_every": 25, "patience": 0}
    training = Training(device="cpu", progress=False, schedules={reader: schedule})
    fitted = fit_classifier(reader, parts[0], parts[1], 2, training, hidden_size=16)
    found = score_classes(fitted.probabilities(parts[2]), parts[2].labels)
    assert found.accuracy >= 0.85, found


def test_the_published_baseline_sees_the_first_visit_only():
    batch = waves(10)
    model = SeriesClassifier.build(num_variables=2, num_classes=2, reader="neural_sde", hidden_size=8).eval()
    later = SeriesBatch(
        batch.times,
        torch.cat((batch.values[:, :1], batch.values[:, 1:] + 1), 1),
        batch.mask,
        labels=batch.labels,
        ids=batch.ids,
    )
    seed = [torch.Generator().manual_seed(0) for _ in range(2)]
    one, two = model.probabilities(batch, 4, generator=seed[0]), model.probabilities(later, 4, generator=seed[1])
    # to the Hermite path the first visit is that of all channels, filled from what is observed there: all are
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("reader", ["lsde", "lnsde", "gsde", "controlled_sde", "neural_cde", "gru_d", "cfc"])
def test_rows_are_their_own(reader):
    batch = waves(6)
    model = SeriesClassifier.build(num_variables=2, num_classes=3, reader=reader, hidden_size=8).eval()

    def says(rows):
        return model.probabilities(rows, 4, generator=torch.Generator().manual_seed(0))

    whole = says(batch)
    torch.testing.assert_close(whole.sum(1), torch.ones(6))
    order = [4, 1, 0, 5, 2, 3]
    torch.testing.assert_close(says(batch.padded(20).rows(order)), whole[order])
    torch.testing.assert_close(says(batch.rows(3)), whole[3:4])


def test_loss_is_the_log_probability_of_the_label_and_more_paths_average():
    batch = waves(8)
    model = SeriesClassifier.build(num_variables=2, num_classes=2, reader="gsde", hidden_size=8).eval()
    loss = model.loss(batch, generator=torch.Generator().manual_seed(3))
    one = model.probabilities(batch, 1, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss.log_likelihood, one[range(8), batch.labels].log())
    assert not loss.path_kl.any() and not loss.initial_kl.any()
    from neurodyn.noise import RowNoise

    paths = model.scores(batch, 5, noise=RowNoise.of(batch, torch.Generator().manual_seed(4))).exp().mean(0)
    torch.testing.assert_close(model.probabilities(batch, 5, generator=torch.Generator().manual_seed(4)), paths)


@pytest.mark.parametrize("form", ["theory", "released"])
def test_saves_and_loads(form, tmp_path):
    batch = waves(4)
    model = SeriesClassifier.build(num_variables=2, num_classes=2, reader="lnsde", hidden_size=8, form=form).eval()
    model.save(tmp_path / "model")
    again = SeriesClassifier.load(tmp_path / "model").eval()
    found = [m.probabilities(batch, 3, generator=torch.Generator().manual_seed(0)) for m in (model, again)]
    torch.testing.assert_close(*found)


def test_baselines_without_networks():
    train, test = waves(160), waves(80, seed=1)
    shares = fit_classifier("most_frequent", train, test, 3).probabilities(test)
    assert shares[0].tolist() == [0.5, 0.5, 0.0] and shares.shape == (80, 3)
    assert score_classes(shares[:, :2], test.labels).log_score == pytest.approx(math.log(2))
    pytest.importorskip("sklearn")
    fitted = fit_classifier("logsignature", train, test, 3)
    found = fitted.probabilities(test)
    assert score_classes(found, test.labels).accuracy >= 0.9
    alone = fitted.probabilities(test.padded(30).rows([5]))
    torch.testing.assert_close(alone, found[5:6])


def test_every_reader_has_an_entry():
    assert set(READERS) | {"logsignature", "minirocket", "most_frequent"} == set(CLASSIFIERS)


def test_bad_input_is_named():
    for options, message in [
        ({"reader": "lstm"}, "reader: got 'lstm'"),
        ({"num_classes": 1}, "num_classes: got 1"),
        ({"hidden_size": 0}, "num_variables, hidden_size: got 2 and 0"),
        ({"form": "paper"}, "form: got 'paper'"),
        ({"depth": 3}, "SeriesClassifier: 'depth' given"),
    ]:
        with pytest.raises(ValueError, match=message):
            SeriesClassifier.build(**({"num_variables": 2, "num_classes": 2} | options))
    model = SeriesClassifier.build(num_variables=2, num_classes=2)
    batch = waves(3)
    with pytest.raises(ValueError, match="labels: got none"):
        model.loss(SeriesBatch(batch.times, batch.values, batch.mask))
    with pytest.raises(ValueError, match="name: 'svm' given"):
        fit_classifier("svm", batch, batch, 2)
