"""pbcseq: the embedded table, its splits and its protocol; and the registry."""

from __future__ import annotations

import hashlib

import pytest
import torch

from neurodyn.datasets import histories, load, names, pbcseq
from neurodyn.scaling import Scaling


def test_the_embedded_table_is_whole() -> None:
    frame = pbcseq.table()
    assert len(frame) == 1945
    assert frame["id"].nunique() == 312
    assert hashlib.sha256(pbcseq._FILE.read_bytes()).hexdigest() == pbcseq.SHA256
    assert pbcseq.SHA256 in pbcseq._FILE.with_suffix(".LICENSE").read_text()
    second = frame[(frame["id"] == 2) & (frame["day"] == 182)].iloc[0]
    assert (second["bili"], second["alk_phos"], second["sex"], second["status"]) == (0.8, 2107, 1.0, 0)


def test_an_altered_table_is_refused(tmp_path, monkeypatch) -> None:
    copy = tmp_path / "pbcseq.csv"
    copy.write_bytes(pbcseq._FILE.read_bytes().replace(b"14.5", b"15.4", 1))
    monkeypatch.setattr(pbcseq, "_FILE", copy)
    with pytest.raises(ValueError, match="altered; install the package again"):
        pbcseq.load()
    copy.write_bytes(copy.read_bytes().replace(b"15.4", b"14.5", 1).replace(b"\n", b"\r\n"))
    assert pbcseq.load().train.num_rows == 187  # other line ends are not another table


def test_splits_hold_every_patient_and_visit_once() -> None:
    train, validation, test, info = pbcseq.load(split=0)
    assert (train.num_rows, validation.num_rows, test.num_rows) == (187, 63, 62)
    ids = [name for part in (train, validation, test) for name in part.ids]
    assert sorted(ids, key=int) == [str(k) for k in range(1, 313)]
    assert sum(int(part.present.sum()) for part in (train, validation, test)) == 1945
    assert train.variables == pbcseq.VARIABLES
    assert train.static.shape == (187, len(info["static_names"]))
    assert pbcseq.load(split=1).test.ids != test.ids
    assert pbcseq.load(split=0).test.ids == test.ids


def test_values_times_and_outcomes_are_the_tables() -> None:
    splits = pbcseq.load()
    batch = next(part for part in splits[:3] if "2" in part.ids)
    row = batch.ids.index("2")
    assert batch.times[row, :3].tolist() == pytest.approx([0, 182 / 365.25, 365 / 365.25])
    assert batch.values[row, 1].tolist() == pytest.approx([0.8, 0, 3.60, 2107, 139.5, 188, 11.0])
    assert batch.mask[row, 1].tolist() == [True, False, True, True, True, True, True]
    assert batch.static[row].tolist() == pytest.approx([56.446270, 1, 1, 0, 1, 1, 0, 3])
    assert batch.labels[row].item() == 0
    assert splits.info["end_time"]["2"] == pytest.approx(5169 / 365.25)
    for part in splits[:3]:
        ends = torch.tensor([splits.info["end_time"][name] for name in part.ids], dtype=torch.float64)
        assert (part.last_time <= ends + 1e-9).all()


def test_scaling_with_logarithms_makes_training_values_less_skewed() -> None:
    train, _, _, info = pbcseq.load()
    x = Scaling.fit(train, log=info["log"]).apply(train)
    raw = Scaling.fit(train).apply(train)
    for name in info["log"]:
        k = train.variables.index(name)
        skewness = [(part.values[..., k][part.mask[..., k]] ** 3).mean().abs().item() for part in (x, raw)]
        assert skewness[0] < skewness[1]


def test_protocols_follow_the_definition() -> None:
    _, _, test, info = pbcseq.load()
    history, future = pbcseq.histories(test, "half")
    visits = dict(zip(test.ids, test.present.sum(1).tolist(), strict=True))
    assert set(history.ids) == {name for name, n in visits.items() if n >= 2}
    assert history.ids == future.ids
    assert history.present.sum(1).tolist() == [visits[name] // 2 for name in history.ids]
    assert future.present.sum(1).tolist() == [visits[name] - visits[name] // 2 for name in history.ids]
    history, future = pbcseq.histories(test, "two_years")
    assert set(history.ids) == {
        name for name, late in zip(test.ids, (test.last_time > 2).tolist(), strict=True) if late
    }
    assert history.last_time.max() <= 2 < future.first_time.min()
    again, _ = histories(test, **info["protocols"]["two_years"])
    assert torch.equal(again.values, history.values)
    per_row, _ = histories(test, until=torch.full((test.num_rows,), 2.0))
    assert torch.equal(per_row.values, history.values)
    with pytest.raises(ValueError, match="protocol: 'quarter' given"):
        pbcseq.histories(test, "quarter")
    with pytest.raises(ValueError, match=r"until=99.0: none of 62 rows"):
        histories(test, until=99.0)


def test_the_registry_knows_every_loader_and_names_the_nearest() -> None:
    assert names()[0] == "pbcseq"
    assert torch.equal(load("pbcseq", split=2).train.values, pbcseq.load(split=2).train.values)
    with pytest.raises(ValueError, match=r"'pbc_seq' given \(did you mean 'pbcseq'\?\)"):
        load("pbc_seq")
    with pytest.raises(ValueError, match=r"'splits' given for pbcseq \(did you mean 'split'\?\), some of \['split'\]"):
        load("pbcseq", splits=3)
    for name in ("ornstein_uhlenbeck", "linear_gaussian", "lorenz"):
        splits = load(name, rows=2, held_out=1)
        assert splits.info["name"] == name
        wanted = {"name", "source", "licence", "citation", "time_unit", "log", "protocols", "static_names"}
        assert wanted <= set(splits.info)
