"""Signatures by their algebra: a line's closed form, Chen, shuffles, time reversal; and by other libraries."""

import itertools
import math

import pytest
import torch

from neurodyn.nets.signatures import (
    lead_lag,
    level_scales,
    log_ode_path,
    logsignature,
    logsignature_size,
    logsignature_words,
    signature,
    signature_size,
    time_augment,
    window_logsignatures,
)
from neurodyn.nets.tensor_algebra import exponential, lyndon_words, product, split_levels

DOUBLE = torch.float64


def paths(rows=3, length=9, channels=2, seed=0, dtype=DOUBLE):
    return torch.randn(rows, length, channels, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def coefficient(flat, word, channels):
    """The entry of a word in a flat signature; 1 for the empty word."""
    if not word:
        return torch.ones_like(flat[..., 0])
    place = sum(channels**k for k in range(1, len(word)))
    for power, letter in enumerate(reversed(word)):
        place += letter * channels**power
    return flat[..., place]


def shuffles(a, b):
    """All interleavings of two words, with repetitions."""
    for places in itertools.combinations(range(len(a) + len(b)), len(a)):
        first, second = iter(a), iter(b)
        yield tuple(next(first) if i in places else next(second) for i in range(len(a) + len(b)))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_of_a_line_is_the_exponential_of_its_increment(dtype):
    start, step = torch.tensor([0.3, -1.0, 2.0], dtype=dtype), torch.tensor([0.5, -0.25, 1.5], dtype=dtype)
    # the same line in uneven pieces, with a point repeated
    line = start + torch.tensor([0.0, 0.1, 0.1, 0.7, 1.0], dtype=dtype)[:, None] * step
    found = signature(line, 4)
    assert found.shape == (signature_size(3, 4),) and found.dtype == dtype
    for k in range(1, 5):
        for word in itertools.product(range(3), repeat=k):
            wanted = math.prod(float(step[i]) for i in word) / math.factorial(k)
            assert float(coefficient(found, word, 3)) == pytest.approx(
                wanted, abs=1e-6 if dtype == torch.float32 else 1e-14
            )
    torch.testing.assert_close(
        logsignature(line, 4, mode="expanded")[3:], torch.zeros(117, dtype=dtype), atol=1e-6, rtol=0
    )


def test_level_two_is_area_and_integral():
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0], [0.0, 0.0]], dtype=DOUBLE)
    found = signature(square, 2)
    torch.testing.assert_close(found[:2], torch.zeros(2, dtype=DOUBLE))
    assert float(found[3] - found[4]) / 2 == pytest.approx(2.0)  # enclosed area, run through anticlockwise
    assert logsignature(square, 2).tolist() == pytest.approx([0.0, 0.0, 2.0])


@pytest.mark.parametrize("channels,depth", [(1, 5), (2, 5), (3, 4), (5, 2)])
def test_chens_identity(channels, depth):
    path = paths(channels=channels)
    first, second = path[:, :5], path[:, 4:]
    parts = [split_levels(signature(part, depth), channels, depth) for part in (first, second)]
    torch.testing.assert_close(torch.cat(product(*parts), -1), signature(path, depth))


def test_shuffle_product():
    path = paths(channels=3)
    flat = signature(path, 5)
    for a, b in [((0,), (1,)), ((0, 1), (2,)), ((1, 1), (0, 2)), ((2,), (0, 1, 1)), ((0, 2), (2, 1, 0))]:
        found = sum(coefficient(flat, word, 3) for word in shuffles(a, b))
        torch.testing.assert_close(found, coefficient(flat, a, 3) * coefficient(flat, b, 3))


def test_time_reversal_is_the_inverse():
    path = paths(channels=3)
    there, back = (split_levels(signature(p, 4), 3, 4) for p in (path, path.flip(1)))
    for level in product(there, back):
        torch.testing.assert_close(level, torch.zeros_like(level))
    torch.testing.assert_close(logsignature(path.flip(1), 4), -logsignature(path, 4))


def test_prefixes_are_signatures_of_prefixes():
    path = paths(channels=2)
    found = signature(path, 4, prefixes=True)
    assert found.shape == (3, 9, signature_size(2, 4)) and not found[:, 0].any()
    for length in range(2, 10):
        torch.testing.assert_close(found[:, length - 1], signature(path[:, :length], 4))
    logs = logsignature(path, 3, prefixes=True)
    torch.testing.assert_close(logs[:, 6], logsignature(path[:, :7], 3))


def test_padding_by_the_last_point_and_reparametrisation_change_nothing():
    path = paths()
    padded = torch.cat((path, path[:, -1:].expand(-1, 4, -1)), 1)
    torch.testing.assert_close(signature(padded, 4), signature(path, 4))
    middle = torch.cat((path[:, :3], 0.3 * path[:, 2:3] + 0.7 * path[:, 3:4], path[:, 3:]), 1)
    torch.testing.assert_close(signature(middle, 4), signature(path, 4))
    torch.testing.assert_close(signature(path + 5.0, 4), signature(path, 4))


def test_lyndon_words_are_those_of_the_definition_and_as_many_as_witt_says():
    for channels, depth in [(1, 4), (2, 6), (3, 4), (4, 3)]:
        wanted = [
            word
            for k in range(1, depth + 1)
            for word in itertools.product(range(channels), repeat=k)
            if all(word < word[i:] + word[:i] for i in range(1, k))
        ]
        assert list(lyndon_words(channels, depth)) == wanted == list(logsignature_words(channels, depth))
    assert [logsignature_size(3, depth) for depth in (1, 2, 3)] == [3, 6, 14]


def test_logsignature_is_a_lie_element_that_its_words_determine():
    path = paths(channels=3)
    logs = split_levels(logsignature(path, 4, mode="expanded"), 3, 4)
    torch.testing.assert_close(torch.cat(exponential(logs), -1), signature(path, 4))
    # Dynkin: bracketing from the left multiplies level k of a Lie element by k
    for k in (2, 3, 4):
        level = logs[k - 1].unflatten(-1, (3,) * k)
        bracketed = torch.zeros_like(level)
        for word in itertools.product(range(3), repeat=k):
            own = level[(..., *word)]
            for w, c in _bracket(word).items():
                bracketed[(..., *w)] += c * own
        torch.testing.assert_close(bracketed, k * level)


def _bracket(word):
    """[[[i1, i2], i3], ...] as words and coefficients."""
    terms = {word[:1]: 1}
    for letter in word[1:]:
        new: dict = {}
        for w, c in terms.items():
            new[(*w, letter)] = new.get((*w, letter), 0) + c
            new[(letter, *w)] = new.get((letter, *w), 0) - c
        terms = new
    return terms


def test_lead_lag_holds_the_quadratic_variation():
    path = paths(channels=2)
    doubled = lead_lag(path)
    assert doubled.shape == (3, 17, 4)
    torch.testing.assert_close(doubled[:, ::2, :2], path)
    flat = signature(doubled, 2)
    moves = path.diff(dim=1)
    for i, j in itertools.product(range(2), repeat=2):
        variation = coefficient(flat, (2 + i, j), 4) - coefficient(flat, (i, 2 + j), 4)
        if i == j:
            torch.testing.assert_close(variation.abs(), (moves[..., i] * moves[..., j]).sum(1))


def test_time_makes_speed_visible():
    path, times = paths(), torch.linspace(0, 1, 9, dtype=DOUBLE)
    slow = time_augment(path, times.square())
    assert slow.shape == (3, 9, 3) and torch.equal(slow[0, :, 0], times.square())
    assert not torch.allclose(signature(slow, 2), signature(time_augment(path, times), 2))
    # word (time, x) is the integral of elapsed time against dx
    flat = signature(time_augment(path, times), 2)
    middle = 0.5 * (times[1:] + times[:-1])
    torch.testing.assert_close(coefficient(flat, (0, 1), 3), (middle * path.diff(dim=1)[..., 0]).sum(1))


def test_windows_are_pieces_and_their_product_is_the_whole():
    path = paths(length=12)
    pieces = window_logsignatures(path, 3, 4, mode="expanded")
    assert pieces.shape == (3, 3, signature_size(2, 3))
    torch.testing.assert_close(pieces[:, 1], logsignature(path[:, 4:9], 3, mode="expanded"))
    torch.testing.assert_close(pieces[:, 2], logsignature(path[:, 8:], 3, mode="expanded"))  # shorter
    whole = None
    for piece in pieces.unbind(1):
        own = exponential(split_levels(piece, 2, 3))
        whole = own if whole is None else product(whole, own)
    torch.testing.assert_close(torch.cat(whole, -1), signature(path, 3))


def test_log_ode_path_is_the_old_path_at_its_own_points_and_more():
    path, times = paths(length=12), torch.linspace(0, 1, 12, dtype=DOUBLE).expand(3, -1)
    fewer, reduced = log_ode_path(times, path, 2, 4)
    assert reduced.shape == (3, 4, 3) and fewer.tolist()[0] == pytest.approx([0, 4 / 11, 8 / 11, 1])
    torch.testing.assert_close(reduced[:, :, :2], path[:, [0, 4, 8, 11]])
    area = torch.stack([logsignature(path[:, a:b], 2)[:, 2] for a, b in ((0, 5), (4, 9), (8, 12))], 1)
    torch.testing.assert_close(reduced[:, :, 2].diff(dim=1), area)


def test_level_scales_undo_factorials():
    line = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=DOUBLE)
    torch.testing.assert_close(signature(line, 4) * level_scales(2, 4), torch.ones(30, dtype=DOUBLE))


def test_gradients():
    path = paths(rows=1, length=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: logsignature(p, 3), (path,))
    assert torch.autograd.gradcheck(lambda p: signature(p, 3, prefixes=True), (path,))


@pytest.mark.parametrize("backend", ["pysiglib", "signatory"])
def test_backends_agree_in_values_and_gradients(backend):
    pytest.importorskip(backend)
    path = paths(rows=4, length=20, channels=3).reshape(2, 2, 20, 3).requires_grad_()
    weight = torch.randn(signature_size(3, 4), dtype=DOUBLE)
    found, ours = signature(path, 4, backend=backend), signature(path, 4)
    torch.testing.assert_close(found, ours, rtol=1e-11, atol=1e-12)
    gradients = [torch.autograd.grad((f * weight).sum(), path)[0] for f in (found, ours)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(logsignature(path, 3, backend=backend), logsignature(path, 3), rtol=1e-10, atol=1e-11)
    short = path[:, :, :1].detach()
    assert not signature(short, 2, backend=backend).any()


def test_signatorys_words_are_ours():
    signatory = pytest.importorskip("signatory")
    path = paths(channels=3)
    torch.testing.assert_close(signatory.logsignature(path, 4, mode="words"), logsignature(path, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: signature(p[0, 0], 2), "path: got torch.float64 of shape"),
        (lambda p: signature(p, 0), "depth: got 0"),
        (lambda p: signature(p, 2, backend="esig"), "backend: got 'esig'"),
        (lambda p: signature(p, 2, prefixes=True, backend="signatory"), "prefixes: got True with backend 'signatory'"),
        (lambda p: logsignature(p, 2, mode="hall"), "mode: got 'hall'"),
        (lambda p: window_logsignatures(p, 2, 0), "window: got 0"),
        (lambda p: window_logsignatures(p[:, :1], 2, 2), "path: got 1 point"),
        (lambda p: time_augment(p, torch.zeros(4)), "times: got shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(paths())


def test_a_missing_backend_names_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pysiglib.torch_api", None)
    monkeypatch.setitem(__import__("sys").modules, "pysiglib", None)
    with pytest.raises(ImportError, match=r"neurodyn\[signatures\]"):
        signature(paths(), 2, backend="pysiglib")
