"""Weights on disk: what was saved comes back, and nothing else is let in."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from neurodyn.checkpoints import load_model, read_tensors, save_model, write_json, write_tensors


class Tied(nn.Module):
    """Tied weights, a buffer of integers, a scalar, and a constructor with arguments."""

    def __init__(self, size: int, names: list[str]) -> None:
        super().__init__()
        self.config = {"size": size, "names": names}
        self.first = nn.Linear(size, size)
        self.second = nn.Linear(size, size)
        self.second.weight = self.first.weight
        self.register_buffer("count", torch.tensor([3, 1]))
        self.scalar = nn.Parameter(torch.tensor(0.5))


class Untied(Tied):
    pass


class Assembled(nn.Module):
    """Made of parts, or by name."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    @classmethod
    def build(cls, part: str) -> "Assembled":
        model = cls({"linear": nn.Linear(2, 2)}[part])
        model.config = {"part": part}
        return model


class Evil:
    """Its unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, dtype):
    model = Tied(3, ["a", "b"]).to(dtype)
    folder = save_model(model, tmp_path / "deep" / "model")
    back = load_model(Tied, folder)
    assert back.config == model.config and back.second.weight is back.first.weight
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor) and back.state_dict()[name].dtype == tensor.dtype
    assert not back.training  # no dropout in what is loaded for use
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert json.loads((folder / "model.json").read_text())["class"] == "Tied"


def test_a_model_with_build_is_built_by_it(tmp_path):
    model = Assembled.build("linear")
    back = load_model(Assembled, save_model(model, tmp_path / "model"))
    assert torch.equal(back.part.weight, model.part.weight)
    with pytest.raises(ValueError, match="a Assembled without a dict `config`"):
        save_model(Assembled(nn.Linear(1, 1)), tmp_path / "other")


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_is_refused_and_not_run(tmp_path, protocol):
    marker, folder = tmp_path / "marker", save_model(Tied(2, []), tmp_path / "model")
    weights = folder / "weights.safetensors"
    weights.write_bytes(pickle.dumps(Evil(marker), protocol))
    for load in (lambda: load_model(Tied, folder), lambda: load_model(Tied, weights), lambda: read_tensors(weights)):
        with pytest.raises(ValueError, match="is a pickle.*give weights in safetensors" if protocol else "safetensors"):
            load()
    assert not marker.exists()
    pickle.loads(weights.read_bytes())
    assert marker.exists(), "the file really was malicious"


def test_a_file_of_torch_save_is_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is a pickle .as torch.save writes.: refused"):
        load_model(Tied, tmp_path / "model.pt")


def test_another_model_is_refused_with_both_names(tmp_path):
    folder = save_model(Tied(2, []), tmp_path / "model")
    with pytest.raises(ValueError, match="holds a Tied, and a Untied was to be loaded"):
        load_model(Untied, folder)


def test_damage_is_named(tmp_path):
    folder = save_model(Tied(2, []), tmp_path / "model")
    card = json.loads((folder / "model.json").read_text())
    write_json(folder / "model.json", card | {"config": {"size": 3, "names": []}})
    with pytest.raises(ValueError, match=r"has first.bias of shape \(2,\) for \(3,\)"):
        load_model(Tied, folder)
    write_json(folder / "model.json", card | {"config": {"width": 3}})
    with pytest.raises(ValueError, match="does not describe a Tied: .*width"):
        load_model(Tied, folder)
    write_json(folder / "model.json", card | {"format": 99})
    with pytest.raises(ValueError, match=r"has format 99 .written by neurodyn .*update neurodyn to read it"):
        load_model(Tied, folder)
    write_json(folder / "model.json", card | {"format": "new"})
    with pytest.raises(ValueError, match=r"has format new"):
        load_model(Tied, folder)
    write_json(folder / "model.json", card)
    tensors = read_tensors(folder / "weights.safetensors")
    write_tensors(folder / "weights.safetensors", {"extra": torch.zeros(1), "scalar": tensors["scalar"]})
    with pytest.raises(ValueError, match="it lacks count, first.bias, first.weight ...; it has, unknown .* extra"):
        load_model(Tied, folder)
    (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="not a safetensors file, or was cut short"):
        load_model(Tied, folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights file"):
        load_model(Tied, folder)


def test_what_cannot_be_saved_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="Linear without a dict `config` .*state_dict"):
        save_model(nn.Linear(1, 1), tmp_path / "model")
    model = Tied(2, [])
    model.config["names"] = {1, 2}
    with pytest.raises(ValueError, match="config of this Tied does not fit in JSON"):
        save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; a model is saved as a folder"):
        save_model(Tied(2, []), tmp_path / "file")


def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"a": 1})
    write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(2)})

    def die(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", die)
    for write in (
        lambda: write_json(tmp_path / "a.json", {"a": 2}),
        lambda: write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)}),
    ):
        with pytest.raises(OSError, match="no space"):
            write()
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert torch.equal(read_tensors(tmp_path / "a.safetensors")["a"], torch.ones(2))
