"""SeriesBatch: canonical form, row operations, cuts and splits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodyn.series import SeriesBatch

nan = float("nan")


def ragged(
    rows: int = 5, visits: int = 6, size: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32
) -> SeriesBatch:
    """Rows of random length with gaps; covariates, static, labels and ids as well."""
    g = torch.Generator().manual_seed(seed)
    times = torch.rand(rows, visits, generator=g, dtype=torch.float64).add(0.01).cumsum(1) - 2
    mask = torch.rand(rows, visits, size, generator=g) < 0.6
    lengths = torch.randint(1, visits + 1, (rows,), generator=g)
    mask &= (torch.arange(visits) < lengths[:, None])[..., None]
    mask[:, 0, 0] = True
    return SeriesBatch(
        times,
        torch.randn(rows, visits, size, generator=g, dtype=dtype),
        mask,
        covariates=torch.randn(rows, visits, 2, generator=g),
        static=torch.randn(rows, 2, generator=g),
        labels=torch.arange(rows),
        ids=tuple(f"p{k}" for k in range(rows)),
        variables=tuple("abcdefgh"[:size]),
    )


def observations(batch: SeriesBatch) -> set[tuple[str, float, str, float]]:
    """Everything that was observed, as a set."""
    found = batch.mask.nonzero().tolist()
    assert batch.ids is not None
    return {
        (batch.ids[i], float(batch.times[i, t]), batch.variables[k], float(batch.values[i, t, k])) for i, t, k in found
    }


batches = st.builds(
    ragged, rows=st.integers(1, 6), visits=st.integers(1, 7), size=st.integers(1, 4), seed=st.integers(0, 10**6)
)


def test_masked_values_become_zero_and_padding_repeats_the_last_observed_time() -> None:
    batch = SeriesBatch(
        times=torch.tensor([[1.0, 2.0, nan], [0.5, 0.7, 0.9]]),
        values=torch.tensor([[[1.0], [nan], [5.0]], [[1.0], [2.0], [3.0]]]),
        mask=torch.tensor([[[True], [False], [False]], [[True], [True], [True]]]),
    )
    assert batch.times.dtype == torch.float64
    assert batch.times[0].tolist() == [1, 1, 1]
    assert batch.values[0].flatten().tolist() == [1, 0, 0]
    assert batch.variables == ("y1",)
    assert batch.first_time.tolist() == pytest.approx([1, 0.5])
    assert batch.last_time.tolist() == pytest.approx([1, 0.9])


def test_unobserved_visits_before_and_between_observations_keep_their_times() -> None:
    mask = torch.tensor([[[False], [True], [False], [True], [False]]])
    batch = SeriesBatch(torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0]]), torch.ones(1, 5, 1), mask)
    assert batch.times.tolist() == [[0, 1, 2, 3, 3]]
    assert batch.first_time.item() == 1
    assert batch.compact().times.tolist() == [[1, 3]]


def test_one_row_of_one_visit_is_legal() -> None:
    batch = SeriesBatch([[3.0]], [[[2.0]]])
    assert (batch.num_rows, batch.num_times, batch.num_variables, len(batch)) == (1, 1, 1, 1)
    assert batch.history(fraction=0.5).values.tolist() == [[[2.0]]]
    after = batch.after(fraction=0.5)
    assert not after.mask.any()
    assert after.times.tolist() == [[3.0]]


def test_whole_numbers_become_floats_and_dtype_moves_everything_but_times() -> None:
    batch = SeriesBatch(torch.tensor([[0, 1]]), torch.tensor([[[1], [2]]]), static=torch.tensor([[1]]))
    assert batch.values.dtype == torch.get_default_dtype()
    double = batch.to(dtype=torch.float64)
    assert double.values.dtype == double.static.dtype == double.times.dtype == torch.float64
    assert batch.to(dtype=torch.float32).times.dtype == torch.float64
    assert "1 rows" in repr(double)
    assert "\n" not in repr(double)


@settings(max_examples=30, deadline=None)
@given(batches, st.integers(0, 3), st.randoms())
def test_permutation_padding_trimming_and_compaction_change_no_observation(batch, extra, random) -> None:
    order = list(range(batch.num_rows))
    random.shuffle(order)
    want = observations(batch)
    for same in (batch.rows(order), batch.padded(batch.num_times + extra), batch.trim(), batch.compact()):
        assert observations(same) == want
        assert (same.times.diff(dim=1) >= 0).all()
        assert torch.equal(same.times[:, -1], same.last_time)
    back = batch.rows(order).rows(torch.tensor(order).argsort())
    assert torch.equal(back.values, batch.values)
    assert back.ids == batch.ids


@settings(max_examples=30, deadline=None)
@given(batches)
def test_checking_a_derived_batch_again_changes_nothing(batch) -> None:
    for part in (batch, batch.trim(), batch.padded(9), batch.compact(), batch.history(count=1)):
        again = SeriesBatch(part.times, part.values, part.mask, part.covariates, part.static, part.labels, part.ids)
        assert torch.equal(again.times, part.times)
        assert torch.equal(again.values, part.values)


@settings(max_examples=40, deadline=None)
@given(batches, st.sampled_from(["until", "per row", "fraction", "count"]), st.floats(0.05, 0.95))
def test_history_and_after_share_out_every_observation_once(batch, way, at) -> None:
    if way == "until":
        cut = {"until": float(batch.first_time.max() + at)}
    elif way == "per row":
        cut = {"until": batch.first_time + at * (batch.last_time - batch.first_time)}
    elif way == "fraction":
        cut = {"fraction": at}
    else:
        cut = {"count": torch.arange(batch.num_rows) % 3 + 1}
    past, future = batch.history(**cut), batch.after(**cut)
    assert observations(past) | observations(future) == observations(batch)
    assert not observations(past) & observations(future)
    assert past.num_rows == future.num_rows == batch.num_rows
    present = future.present
    assert (future.times[present] > past.last_time[:, None].expand_as(future.times)[present]).all()
    if way == "fraction":
        visits = batch.present.sum(1)
        assert past.present.sum(1).tolist() == [max(1, int(at * n + 1e-9)) for n in visits.tolist()]


def test_fraction_of_a_round_number_of_visits_is_not_lost_to_rounding() -> None:
    batch = SeriesBatch(torch.arange(100.0)[None], torch.ones(1, 100, 1))
    assert batch.history(fraction=0.29).num_times == 29


def test_after_moves_visits_to_the_front_with_their_covariates() -> None:
    batch = SeriesBatch(
        torch.tensor([[0.0, 1.0, 2.0], [0.0, 5.0, 6.0]]),
        torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]),
        covariates=torch.tensor([[[10.0], [20.0], [30.0]], [[40.0], [50.0], [60.0]]]),
    )
    future = batch.after(until=1.0)
    assert future.times.tolist() == [[2, 2], [5, 6]]
    assert future.values[..., 0].tolist() == [[3, 0], [5, 6]]
    assert future.covariates[1, :, 0].tolist() == [50, 60]
    assert batch.after(until=2.5).times.tolist()[0] == [2, 2]  # an empty row stays at its last observed time


def test_rows_takes_every_kind_of_index() -> None:
    batch = ragged()
    for index, want in (
        (2, ["p2"]),
        (-1, ["p4"]),
        (slice(1, 3), ["p1", "p2"]),
        (slice(None, None, -2), ["p4", "p2", "p0"]),
        ([3, 3, 0], ["p3", "p3", "p0"]),
        (torch.tensor([True, False, False, True, False]), ["p0", "p3"]),
    ):
        part = batch.rows(index)
        assert list(part.ids) == want
        assert [f"p{k}" for k in part.labels.tolist()] == want
        assert torch.equal(part.static[0], batch.static[int(want[0][1])])


@settings(max_examples=20, deadline=None)
@given(batches)
def test_select_keeps_the_observations_of_the_chosen_variables(batch) -> None:
    chosen = batch.select(batch.variables[::-1][-2:])
    assert chosen.variables == batch.variables[::-1][-2:]
    assert observations(chosen) == {found for found in observations(batch) if found[2] in chosen.variables}
    assert torch.equal(chosen.times[:, -1], chosen.last_time)


def test_concat_undoes_a_split() -> None:
    batch = ragged(7, 5)
    parts = [batch.rows([k]).trim() for k in range(7)]
    whole = SeriesBatch.concat(parts)
    assert observations(whole) == observations(batch)
    assert torch.equal(whole.static, batch.static)
    assert whole.ids == batch.ids


@settings(max_examples=20, deadline=None)
@given(batches, st.integers(0, 4), st.booleans())
def test_one_pass_of_batches_holds_every_row_once(batch, size, shuffle) -> None:
    parts = list(batch.batches(size, shuffle=shuffle, generator=torch.Generator().manual_seed(1)))
    assert sorted(name for part in parts for name in part.ids) == sorted(batch.ids)
    assert set().union(*(observations(part) for part in parts)) == observations(batch)
    assert all(part.num_rows == (size or batch.num_rows) for part in parts[:-1])
    assert all(int(part.trim().num_times) == part.num_times for part in parts)
    if not shuffle:
        assert [name for part in parts for name in part.ids] == list(batch.ids)


def test_batches_follow_the_generator() -> None:
    batch = ragged(20)

    def order(seed: int) -> list[str]:
        return [n for part in batch.batches(3, generator=torch.Generator().manual_seed(seed)) for n in part.ids]

    assert order(1) == order(1) != order(2)


def test_split_rows_is_a_partition_that_follows_the_seed() -> None:
    batch = ragged(50)
    parts = batch.split_rows((0.6, 0.2, 0.2), seed=3)
    assert [part.num_rows for part in parts] == [30, 10, 10]
    assert sorted(name for part in parts for name in part.ids) == sorted(batch.ids)
    assert (
        parts[0].ids
        == batch.split_rows((0.6, 0.2, 0.2), seed=3)[0].ids
        != batch.split_rows((0.6, 0.2, 0.2), seed=4)[0].ids
    )


def test_drop_observed_holds_out_the_asked_fraction_and_empties_no_row() -> None:
    batch = ragged(400, 8, 3)
    kept, held = batch.drop_observed(0.3, torch.Generator().manual_seed(0))
    assert observations(kept) | observations(held) == observations(batch)
    assert not observations(kept) & observations(held)
    total = int(batch.mask.sum())
    assert int(held.mask.sum()) / total == pytest.approx(0.3, abs=4 * (0.21 / total) ** 0.5 + 0.01)
    emptied, _ = batch.drop_observed(0.99, torch.Generator().manual_seed(0))
    assert emptied.mask.flatten(1).any(1).all()
    SeriesBatch(kept.times, kept.values, kept.mask)
    assert torch.equal(batch.drop_observed(0.0)[0].mask, batch.mask)


T, V = torch.tensor([[0.0, 1.0, 2.0]]), torch.ones(1, 3, 2)
SEEN = torch.ones(1, 3, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"times": torch.tensor([[0.0, 2.0, 1.0]]), "ids": ("ann",)}, ["times", "'ann'", "2 and then 1", "increasing"]),
        ({"times": torch.tensor([[0.0, 1.0, 1.0]]), "ids": ("ann",)}, ["times", "'ann'", "1 twice"]),
        ({"times": torch.tensor([[0.0, nan, 1.0]])}, ["times", "row 0", "nan", "visit 1"]),
        ({"times": torch.tensor([[0.0, 1.0, float("inf")]])}, ["times", "inf", "visit 2"]),
        ({"times": torch.tensor([0.0, 1.0, 2.0])}, ["times", "(3,)", "(1, 3)"]),
        ({"times": torch.zeros(2, 3)}, ["times", "(2, 3)", "(1, 3)"]),
        ({"values": torch.tensor([[[1.0, 2.0], [nan, 1.0], [1.0, 1.0]]])}, ["values", "nan", "y1", "visit 1", "mask"]),
        ({"values": torch.full((1, 3, 2), float("inf")), "mask": SEEN}, ["values", "inf", "finite"]),
        ({"values": torch.ones(1, 3)}, ["values", "(1, 3)", "(rows, times, variables)"]),
        ({"values": torch.ones(0, 3, 2)}, ["values", "(0, 3, 2)"]),
        ({"mask": torch.zeros(1, 3, 2, dtype=torch.bool)}, ["mask", "row 0", "no observation"]),
        ({"mask": torch.ones(1, 3, 2)}, ["mask", "float32", "bool"]),
        ({"mask": SEEN[..., 0]}, ["mask", "(1, 3)", "(1, 3, 2)"]),
        ({"covariates": torch.ones(1, 2, 1)}, ["covariates", "(1, 2, 1)", "(1, 3, any)"]),
        ({"covariates": torch.full((1, 3, 1), nan)}, ["covariates", "nan", "visit 0"]),
        ({"static": torch.ones(1)}, ["static", "(1,)", "(1, any)"]),
        ({"static": torch.tensor([[nan]])}, ["static", "nan", "column 0"]),
        ({"labels": torch.ones(2)}, ["labels", "(2,)", "(1,)"]),
        ({"ids": ("a", "b")}, ["ids", "1 names"]),
        ({"ids": "a"}, ["ids", "1 names"]),
        ({"variables": ("a",)}, ["variables", "2 names"]),
        ({"variables": ("a", "a")}, ["variables", "distinct"]),
    ],
)
def test_bad_input_is_named_in_one_line(arguments, words) -> None:
    with pytest.raises(ValueError) as caught:
        SeriesBatch(**({"times": T, "values": V} | arguments))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda b: b.history(), ["until", "fraction", "count", "exactly one"]),
        (lambda b: b.history(until=1.0, count=2), ["until", "count", "exactly one"]),
        (lambda b: b.history(until=-5.0), ["until", "row 0 (id 'p0')", "nothing observed", "5 such rows"]),
        (lambda b: b.history(until=torch.zeros(2)), ["until", "(2,)", "(5,)"]),
        (lambda b: b.history(fraction=1.0), ["fraction", "1.0", "between 0 and 1"]),
        (lambda b: b.rows([7]), ["index", "7", "-5 to 4"]),
        (lambda b: b.rows([]), ["index", "at least one"]),
        (lambda b: b.rows(torch.tensor([True, False])), ["index", "(2,)", "(5,)"]),
        (lambda b: b.rows(torch.tensor([0.5])), ["index", "float32", "integers"]),
        (lambda b: b.select(["a", "z"]), ["variables", "['z']", "'b'"]),
        (lambda b: b.select("a"), ["variables", "list"]),
        (lambda b: b.history(count=1).select(["a", "c"]).rows(0).select(["d"]), ["variables", "['d']"]),
        (lambda b: b.padded(2), ["num_times", "2", "6"]),
        (lambda b: b.split_rows((0.9, 0.2), 0), ["fractions", "at most 1"]),
        (lambda b: b.split_rows((0.95, 0.05), 0), ["fractions", "5 rows", "without a row"]),
        (lambda b: b.drop_observed(1.0), ["fraction", "1.0"]),
        (lambda b: list(b.batches(-1)), ["batch_size", "-1"]),
        (lambda b: SeriesBatch.concat([]), ["batches", "at least one"]),
        (lambda b: SeriesBatch.concat([b, ragged(size=2)]), ["batches", "variables", "batch 1"]),
        (lambda b: SeriesBatch.concat([b, b._with(static=None)]), ["batches", "static", "all or none"]),
    ],
)
def test_bad_calls_are_named_in_one_line(call, words) -> None:
    with pytest.raises(ValueError) as caught:
        call(ragged())
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
