"""An exported forecaster gives the numbers of the model, travels as a file, and is never read back by the package."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from neurodyn.models import LatentSDE, LinearSDE
from neurodyn.noise import RowNoise
from neurodyn.series import SeriesBatch
from neurodyn.serving import ExportedForecaster, export_forecaster, row_keys

VISITS, HORIZON, SAMPLES, REACH = 4, 2, 3, 0.9
NAMES = ("a", "b")


def histories(rows: int, visits: int = VISITS) -> SeriesBatch:
    g = torch.Generator().manual_seed(1)
    times = torch.rand(rows, visits, generator=g, dtype=torch.float64).add(0.05).cumsum(1)
    mask = torch.rand(rows, visits, 2, generator=g) < 0.7
    mask[:, 0] = True
    ids = tuple(f"row {k}" for k in range(rows))
    return SeriesBatch(times, torch.randn(rows, visits, 2, generator=g), mask, ids=ids, variables=NAMES)


def asked(history: SeriesBatch) -> torch.Tensor:
    """The second time of the second row repeats the first: padding."""
    lead = torch.tensor([[0.25, 0.85], [0.5, 0.5]], dtype=torch.float64)
    return history.last_time[:, None] + lead[torch.arange(len(history)) % 2]


def moved(model):
    """A model whose weights are not those of a fresh one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def make(kind: str):
    torch.manual_seed(0)
    small = {"hidden_size": 4, "context_size": 4, "longest_step": 0.3}
    if kind == "linear":
        return moved(LinearSDE(2))
    if kind == "core":
        return moved(LatentSDE.on(moved(LinearSDE(2, ("level", "ou"))), encoder="attention", **small))
    return moved(LatentSDE.build(num_variables=2, latent_size=2, encoder="window", likelihood=kind, **small))


@pytest.fixture(scope="module", params=["linear", "core", "student_t"])
def pair(request):
    """A model and its export, made once for all tests."""
    with torch.random.fork_rng(devices=[]):
        model = make(request.param)
        reach = None if request.param == "linear" else REACH
        sizes = {"num_visits": VISITS, "horizon": HORIZON, "num_samples": SAMPLES}
        return model, export_forecaster(model, NAMES, **sizes, reach=reach)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_program_gives_the_numbers_of_the_model_to_the_bit(pair, rows):
    model, exported = pair
    history = histories(rows)
    times = asked(history)
    wanted = model.forecast(history, times, SAMPLES, generator=seeded())
    found = exported.forecast(history, times, generator=seeded())
    assert torch.equal(found.samples, wanted.samples) and not found.samples.requires_grad
    assert torch.equal(found.times, wanted.times) and torch.equal(found.present, wanted.present)
    assert found.ids == wanted.ids and torch.equal(found.origin, wanted.origin)
    other = exported.forecast(history, times, generator=seeded(1))
    assert not torch.allclose(other.samples, wanted.samples)


def test_shorter_histories_and_fewer_times_fit_into_it(pair):
    model, exported = pair
    history = histories(3, visits=2)
    times = asked(history)[:, :1]
    found = exported.forecast(history, times, generator=seeded())
    padded, noise = history.compact().padded(VISITS), RowNoise.of(history, seeded())
    assert torch.equal(found.samples, model.sample_forecast(padded, times, SAMPLES, noise))
    wanted = model.forecast(history, times, SAMPLES, generator=seeded())
    torch.testing.assert_close(found.samples, wanted.samples, rtol=1e-5, atol=1e-6)  # padding may round differently


def test_a_padded_history_rounds_differently_and_no_more():
    """The one place where a program and its model may part; how, is up to the kernels of the machine's products."""
    torch.manual_seed(0)
    sizes = {"latent_size": 4, "hidden_size": 32, "context_size": 16}
    history, rounding = histories(40, visits=5), torch.finfo(torch.float32).eps
    differences = {}
    for encoder in ("gru", "window", "attention"):
        model = moved(LatentSDE.build(num_variables=2, encoder=encoder, **sizes))
        times, noise = asked(history), RowNoise.of(history, seeded())
        padded, whole = (model.sample_forecast(h, times, 50, noise) for h in (history.padded(12), history))
        differences[encoder] = float((padded - whole).abs().max() / whole.abs().max())
    assert max(differences.values()) < 10 * rounding, differences


def test_a_saved_and_loaded_model_exports_to_the_same_numbers_to_the_bit(pair, tmp_path):
    model, exported = pair
    back = type(model).load(model.save(tmp_path / "model"))
    history = histories(2)
    again = back.forecast(history, asked(history), SAMPLES, generator=seeded())
    assert torch.equal(again.samples, model.forecast(history, asked(history), SAMPLES, generator=seeded()).samples)
    if isinstance(model, LinearSDE):  # an export takes seconds
        anew = export_forecaster(back, NAMES, num_visits=VISITS, horizon=HORIZON, num_samples=SAMPLES)
        found = anew.forecast(history, asked(history), generator=seeded())
        assert torch.equal(found.samples, exported.forecast(history, asked(history), generator=seeded()).samples)


def test_a_saved_program_runs_without_the_package_and_tells_what_it_takes(pair, tmp_path):
    model, exported = pair
    path = exported.save(tmp_path / "deep" / "forecaster.pt2")
    assert [p.name for p in path.parent.iterdir()] == ["forecaster.pt2"]
    files = {"neurodyn.json": ""}
    call = torch.export.load(path, extra_files=files).module()  # our own file
    about = json.loads(files["neurodyn.json"])
    assert about["inputs"] == ["times", "values", "mask", "asked", "keys"] and about["variables"] == ["a", "b"]
    assert (about["num_visits"], about["horizon"], about["num_samples"]) == (VISITS, HORIZON, SAMPLES)
    history = histories(5)
    times, keys = asked(history), row_keys(7, history.ids)
    whole = history.compact().padded(VISITS)
    samples = call(whole.times, whole.values, whole.mask, times, keys)
    assert torch.equal(samples, exported._call(whole.times, whole.values, whole.mask, times, keys))
    alone = call(whole.times[3:4], whole.values[3:4], whole.mask[3:4], times[3:4], row_keys(7, ["row 3"]))
    torch.testing.assert_close(alone, samples[:, 3:4], rtol=1e-5, atol=1e-6)


def test_the_file_holds_no_path_of_the_machine(pair, tmp_path):
    with zipfile.ZipFile(pair[1].save(tmp_path / "x.pt2")) as archive:
        contents = b"".join(archive.read(name) for name in archive.namelist())
    assert len(contents) > 10_000
    assert str(Path(__file__).parents[1]).encode() not in contents and str(Path.home()).encode() + b"/" not in contents


class Evil:
    """Its unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_torchs_reader_unpickles_so_the_package_has_none_of_its_own(tmp_path):
    """What the docs say of .pt2 files; that the package never calls the reader is in tests/test_structure.py."""
    exported = export_forecaster(make("linear"), NAMES, num_visits=1, horizon=1, num_samples=1)
    good, bad, marker = exported.save(tmp_path / "good.pt2"), tmp_path / "bad.pt2", tmp_path / "marker"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            pickled = "sample_inputs" in name
            target.writestr(name, pickle.dumps(Evil(marker)) if pickled else source.read(name))
    try:
        torch.export.load(bad)
    except Exception:  # whatever it says of what it found
        assert True
    assert marker.exists()
    assert not hasattr(ExportedForecaster, "load")


def test_running_out_of_steps_is_said_and_in_the_bare_program_nan(pair):
    model, exported = pair
    history = histories(2)
    times = history.last_time[:, None] + torch.tensor([0.1, 50.0], dtype=torch.float64)
    if isinstance(model, LinearSDE):
        assert exported.forecast(history, times).samples.isfinite().all()
        return
    with pytest.raises(ValueError, match="^times: 50 beyond the last visit given, at most 0.9 wanted"):
        exported.forecast(history, times)
    whole = history.compact().padded(VISITS)
    samples = exported._call(whole.times, whole.values, whole.mask, times, row_keys(0, history.ids))
    assert samples[:, :, 0].isfinite().all() and samples[:, :, 1].isnan().all()


def test_what_the_program_was_not_made_for_is_named(pair):
    _, exported = pair
    history = histories(2)
    with pytest.raises(ValueError, match="^history: 5 visits given, 4 or fewer wanted"):
        exported.forecast(histories(2, visits=5), torch.tensor([9.0]))
    with pytest.raises(ValueError, match="^times: 3 per row given, 2 or fewer wanted"):
        exported.forecast(history, history.last_time[:, None] + torch.tensor([0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match=r"^history: variables \['b', 'a'\] given"):
        exported.forecast(history.select(["b", "a"]), asked(history))
    with pytest.raises(ValueError, match="comes before the row's last observed time"):
        exported.forecast(history, torch.tensor([0.0]))


def test_what_cannot_be_exported_is_named():
    sizes = {"num_visits": 2, "horizon": 2}
    latent = LatentSDE.build(num_variables=2, latent_size=2, hidden_size=4, context_size=4)
    with pytest.raises(ValueError, match="^reach: None given, a positive time wanted"):
        export_forecaster(latent, NAMES, **sizes)
    with pytest.raises(ValueError, match="^horizon: 0 given"):
        export_forecaster(latent, NAMES, num_visits=2, horizon=0, reach=1.0)
    with pytest.raises(ValueError, match="^variables: 1 names given, 2 wanted"):
        export_forecaster(latent, ("a",), **sizes, reach=1.0)
    with pytest.raises(ValueError, match="^model: a Linear given, a LatentSDE or a LinearSDE wanted"):
        export_forecaster(torch.nn.Linear(1, 1), NAMES, **sizes)
    for changes, message in (({"likelihood": "poisson"}, "likelihood 'poisson' given"), ({"num_static": 1}, "static")):
        model = LatentSDE.build(num_variables=2, latent_size=2, hidden_size=4, context_size=4, **changes)
        with pytest.raises(ValueError, match=f"^model: .*{message}"):
            export_forecaster(model, NAMES, **sizes, reach=1.0)
    parts = LatentSDE(latent.prior, latent.encoder, latent.posterior, latent.likelihood, latent.start)
    with pytest.raises(ValueError, match="^model: a LatentSDE of your own parts"):
        export_forecaster(parts, NAMES, **sizes, reach=1.0)
    exported = export_forecaster(LinearSDE(1), ("y",), num_visits=1, horizon=1, num_samples=1)
    with pytest.raises(ValueError, match="a file ending in .pt2 wanted"):
        exported.save("forecaster.onnx")
