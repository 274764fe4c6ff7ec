"""Weights and checkpoints on disk: safetensors for tensors, JSON for the rest, and nothing that could run code.

Every file is written beside its place and then renamed into it, so a kill leaves the old file or the new one.
"""

import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)

FORMAT = 1  # of model.json and checkpoint.json; raised when a reader of today could not read them


def package_version() -> str:
    """The installed version of neurodyn, or "unknown" in a checkout that is not installed."""
    try:
        return version("neurodyn")
    except PackageNotFoundError:
        return "unknown"


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one move: a reader sees the old file or the whole new one.

    Raises:
        ValueError: `content` holds NaN or infinity, which JSON does not have.
        TypeError: `content` holds something that is not JSON.
    """
    text = json.dumps(content, indent=1, allow_nan=False)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON, or was cut short: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a JSON object, and holds a {type(content).__name__}")
    return content


def check_format(card: Mapping[str, Any], source: Path) -> None:
    """Whether this version of the package can read what the card, with its "format" and "neurodyn", describes.

    Raises:
        ValueError: a later format than `FORMAT`, or none; names both versions of the package.
    """
    given = card.get("format")
    if not isinstance(given, int) or not 1 <= given <= FORMAT:
        later = isinstance(given, int) and given > FORMAT
        raise ValueError(
            f"{source} has format {given} (written by neurodyn {card.get('neurodyn')}); this neurodyn "
            f"{package_version()} reads format {FORMAT}" + ("; update neurodyn to read it" if later else "")
        )


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors in one move.

    Tensors are copied first, because safetensors refuses tensors that share memory (tied weights do).

    Raises:
        ValueError: a value is not a tensor (a module's `get_extra_state` can put one there).
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name!r} is a {type(tensor).__name__}; only tensors can be saved as safetensors")
    temporary = path.with_name(path.name + ".part")
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is a pickle (never unpickled: that would run its code), or is no safetensors
            file, or was cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(2)
        # 0x80 opens every pickle since protocol 2; torch.save has written a zip archive of pickles ("PK") since 1.6.
        # Only asked of files that safetensors refused: its own first bytes are a length and may be these.
        if start[:1] == b"\x80" or start == b"PK":
            raise ValueError(
                f"{path} is a pickle (as torch.save writes): refused, because reading one can run any code; "
                "give weights in safetensors"
            ) from None
        raise ValueError(f"{path} is not a safetensors file, or was cut short: {error}") from None


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy tensors into a model's parameters and buffers, all of them or none.

    Raises:
        ValueError: a name is missing or left over, or a shape differs; names the first few, and `source`.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    wrong = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    faults = [
        f"{word} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for word, names in (("lacks", missing), ("has, unknown to the model,", extra))
        if names
    ]
    faults += [f"has {n} of shape {tuple(tensors[n].shape)} for {tuple(own[n].shape)}" for n in sorted(wrong)[:3]]
    if faults:
        raise ValueError(
            f"{source} holds weights of another model than this {type(model).__name__}: it " + "; it ".join(faults)
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def save_model(model: nn.Module, path: Path | str) -> Path:
    """Save a model as a folder: `weights.safetensors`, and `model.json` with its class and constructor arguments.

    Args:
        model: has an attribute `config`, a dict that JSON can hold: the arguments of the class method `build` where
            the class has one, otherwise of its constructor.
        path: the folder to write, made if it is not there.

    Returns:
        The folder.

    Raises:
        ValueError: the model has no such `config`, or `path` is a file.
    """
    path = Path(path)
    name, config = type(model).__name__, getattr(model, "config", None)
    if not isinstance(config, dict):
        raise ValueError(
            f"model: a {name} without a dict `config` of its constructor's arguments cannot be saved; write its "
            "state_dict() with write_tensors, and load_weights into one built anew"
        )
    if path.exists() and not path.is_dir():
        raise ValueError(f"path: {path} is a file; a model is saved as a folder")
    card = {"format": FORMAT, "class": name, "config": config, "neurodyn": package_version()}
    try:
        json.dumps(card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"model: the config of this {name} does not fit in JSON: {error}") from None
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path / "weights.safetensors", model.state_dict())
    write_json(path / "model.json", card)
    return path


def load_model(cls: type[Model], path: Path | str) -> Model:
    """Build the model that `save_model` wrote to a folder, on the CPU, in the precision it was saved in.

    It is ready for use, in evaluation mode: without dropout, as `fit` leaves it.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: the folder holds a model of another class or a later format, or its weights are damaged, of
            another model, or a pickle.
    """
    path = Path(path)
    if path.is_file():
        read_tensors(path)  # says what is wrong with the file, a pickle above all
        raise ValueError(f"path: {path} is a file of bare weights; a model is loaded from the folder that save made")
    card = read_json(path / "model.json")
    if card.get("class") != cls.__name__:
        raise ValueError(f"{path} holds a {card.get('class')}, and a {cls.__name__} was to be loaded")
    check_format(card, path)
    tensors = read_tensors(path / "weights.safetensors")
    try:
        make = getattr(cls, "build", cls)  # a model may be built from names by a class method of this name
        model = make(**card["config"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # torch's own, for sizes that cannot be
        raise ValueError(f"{path}/model.json does not describe a {cls.__name__}: {error}") from None
    _take_dtype(model, tensors)
    load_weights(model, tensors, path)
    return model.eval()


def _take_dtype(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model the dtype of the tensors; parts that keep their own (a linear core in float64) have no say."""
    model.to(torch.float32)
    following = [name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32]
    dtypes = {tensors[name].dtype for name in following if name in tensors}
    if len(dtypes) == 1 and (dtype := dtypes.pop()).is_floating_point:
        model.to(dtype)


class CheckpointFolder:
    """The checkpoint of a training run: a folder with `checkpoint.json` and the tensors file that it names.

    The JSON is renamed into place after its tensors are on disk, so it always names a whole file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.card = path / "checkpoint.json"

    def exists(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.card.is_file()

    def write(self, card: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace the checkpoint by this one; `card` must be JSON and hold the key "step"."""
        self.path.mkdir(parents=True, exist_ok=True)
        name = f"state-{card['step']:08d}.safetensors"
        write_tensors(self.path / name, tensors)
        write_json(self.card, {"format": FORMAT, "tensors": name, "neurodyn": package_version(), **card})
        self._keep_only(name)

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The card and the tensors that were written last.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: a file is damaged, a pickle, or of a later format.
        """
        card = read_json(self.card)
        check_format(card, self.card)
        if not isinstance(card.get("tensors"), str):
            raise ValueError(f"{self.card} was altered: it names no tensors file")
        return card, read_tensors(self.path / Path(card["tensors"]).name)

    def remove(self) -> None:
        """Delete the checkpoint, if there is one."""
        self.card.unlink(missing_ok=True)
        self._keep_only("")

    def _keep_only(self, name: str) -> None:
        for file in self.path.glob("state-*.safetensors*"):
            if file.name != name:
                file.unlink(missing_ok=True)
