"""Row noise: the laws of its numbers, and that they belong to rows."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch

DOUBLE = torch.float64
ids = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


def many(count: int) -> list[str]:
    return [f"patient-{k}" for k in range(count)]


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("shape", [(200, 10, 20), (1, 40_000), (40_000,)])
def test_numbers_are_uniform_and_normal(shape: tuple[int, ...], seed: int) -> None:
    noise = RowNoise(seed, many(shape[0]))
    for draw, law in ((noise.uniform, scipy.stats.uniform()), (noise.normal, scipy.stats.norm())):
        numbers = draw("test", *shape[1:]).flatten().numpy()
        assert scipy.stats.kstest(numbers, law.cdf).pvalue > 1e-3
        for moment in (1, 2, 3, 4):
            spread = (law.moment(2 * moment) - law.moment(moment) ** 2) ** 0.5
            assert abs((numbers**moment).mean() - law.moment(moment)) < 4.5 * spread / len(numbers) ** 0.5


def test_numbers_are_independent_over_rows_indices_purposes_and_seeds() -> None:
    """Correlations of the numbers and of their squares, between neighbours along each axis and between tables."""
    base = RowNoise(0, many(60)).normal("a", 60, 60)
    others = [RowNoise(0, many(60)).normal("b", 60, 60), RowNoise(1, many(60)).normal("a", 60, 60)]
    pairs = [(base.narrow(axis, 0, 59), base.narrow(axis, 1, 59)) for axis in range(3)]
    pairs += [(base, other) for other in others] + [(base, base.transpose(1, 2))]
    for one, two in pairs:
        off = ~torch.eye(60, dtype=torch.bool).expand(60, 60, 60) if one.shape == base.shape else slice(None)
        for f, g in itertools.product((lambda x: x, lambda x: x.square() - 1), repeat=2):
            a, b = f(one)[off].flatten().numpy(), g(two)[off].flatten().numpy()
            assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / len(a) ** 0.5


def test_uniforms_and_normals_of_one_purpose_may_depend_but_names_of_ids_and_purposes_do_not_mix() -> None:
    # "ab" for the purpose "c" is not "a" for the purpose "bc"
    assert not torch.equal(RowNoise(0, ["ab"]).normal("c", 5), RowNoise(0, ["a"]).normal("bc", 5))


def test_no_two_of_many_rows_share_their_numbers() -> None:
    first = RowNoise(0, many(200_000)).uniform("test")
    assert len(first.unique()) == 200_000


@settings(max_examples=30, deadline=None)
@given(names=ids, seed=st.integers(0, 2**40), data=st.data())
def test_a_row_has_the_same_numbers_in_any_company_and_order(names: list[str], seed: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(names))))[: data.draw(st.integers(1, len(names)))]
    whole, part = RowNoise(seed, names), RowNoise(seed, [names[k] for k in order])
    assert torch.equal(whole.normal("a", 3, 2)[order], part.normal("a", 3, 2))
    assert torch.equal(whole.samples("a", 3, 2)[:, order], part.samples("a", 3, 2))
    assert torch.equal(whole.uniform("a", 3)[order], part.uniform("a", 3))


@settings(max_examples=30, deadline=None)
@given(names=ids, shape=st.tuples(st.integers(1, 4), st.integers(1, 4)), more=st.tuples(*[st.integers(0, 3)] * 2))
def test_a_longer_shape_keeps_the_numbers_of_the_shorter(
    names: list[str], shape: tuple[int, int], more: tuple[int, int]
) -> None:
    noise = RowNoise(3, names)
    long = noise.normal("a", shape[0] + more[0], shape[1] + more[1])
    assert torch.equal(long[:, : shape[0], : shape[1]], noise.normal("a", *shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, DOUBLE])
def test_every_dtype_rounds_the_same_numbers_and_uniforms_stay_below_one(dtype: torch.dtype) -> None:
    noise = RowNoise(0, many(3000))
    assert torch.equal(noise.normal("a", 50, dtype=dtype), noise.normal("a", 50).to(dtype))
    uniform = noise.uniform("a", 50, dtype=dtype)
    assert uniform.dtype == dtype
    assert 0 < uniform.min() and uniform.max() < 1


def test_paired_samples_are_opposite() -> None:
    noise = RowNoise(0, ["a", "b"])
    even, odd = noise.paired("x", 6, 3), noise.paired("x", 5, 3)
    assert torch.equal(even[3:], -even[:3]) and torch.equal(odd, even[:5])
    assert torch.equal(even[:3], noise.samples("x", 3, 3))
    assert torch.equal(noise.paired("x", 1, 3), noise.samples("x", 1, 3))


def test_noise_of_a_batch_follows_ids_and_the_generator() -> None:
    times = torch.arange(2.0).expand(3, 2)
    named = SeriesBatch(times, torch.zeros(3, 2, 1), ids=("x", "y", "z"))
    draw = RowNoise.of(named, torch.Generator().manual_seed(4)).normal("a", 2)
    turned = RowNoise.of(named.rows([2, 0]), torch.Generator().manual_seed(4)).normal("a", 2)
    assert torch.equal(draw[[2, 0]], turned)
    assert not torch.equal(draw, RowNoise.of(named, torch.Generator().manual_seed(5)).normal("a", 2))
    generator = torch.Generator().manual_seed(4)
    first, second = RowNoise.of(named, generator), RowNoise.of(named, generator)
    assert not torch.equal(first.normal("a", 2), second.normal("a", 2))


def test_rows_without_ids_are_told_apart_by_their_place() -> None:
    times = torch.arange(2.0).expand(4, 2)
    draw = RowNoise.of(SeriesBatch(times, torch.zeros(4, 2, 1)), torch.Generator().manual_seed(0)).normal("a", 2)
    assert len(draw[:, 0].unique()) == 4
