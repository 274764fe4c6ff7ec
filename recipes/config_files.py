"""Configurations of recipes in files: YAML or JSON to a typed configuration, and back."""

from __future__ import annotations

import datetime
import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from neurodyn.spelling import check_options

Config = TypeVar("Config")


def read_config(path: Path, kind: type[Config]) -> Config:
    """A configuration from a file (.yaml, .yml or .json) or from the folder of a run; what it lacks has its default.

    Raises:
        ValueError: one line with the path: not such a file, an unknown setting (with the nearest known one), a value
            of another type than the setting's.
        FileNotFoundError: no such file.
    """
    content = read_mapping(path / "config.json" if path.is_dir() else path)
    try:
        return from_mapping(content, kind)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a file of YAML or JSON.

    Raises:
        ValueError, FileNotFoundError: as `read_config`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"config: {path} given, an existing file or the folder of a run wanted")
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: YAML or JSON wanted ({' '.join(str(error).split())})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a {type(content).__name__} given, settings as 'name: value' wanted")
    return {str(name): value for name, value in content.items()}


def from_mapping(content: Mapping[str, Any], kind: type[Config]) -> Config:
    """A configuration from plain settings; the dataclass's own checks apply.

    Raises:
        ValueError: one line naming the setting.
    """
    hints = get_type_hints(kind)
    check_options("settings", content, [field.name for field in fields(kind)])  # type: ignore[arg-type]
    return kind(**{name: _fitted(value, hints[name], name) for name, value in content.items()})


def to_yaml(content: Mapping[str, Any]) -> str:
    """Plain settings as YAML, in their order."""
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)


def _fitted(value: Any, hint: Any, name: str) -> Any:
    """A value from a file as one of the type that is wanted."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in inside:
            try:
                return _fitted(value, option, name)
            except ValueError:
                continue
    elif origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in inside):
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        if len(inside) == 2 and inside[1] is ...:
            return tuple(_fitted(one, inside[0], name) for one in value)
    elif is_dataclass(hint) and isinstance(value, dict):
        return from_mapping(value, hint)  # type: ignore[arg-type]
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is str and isinstance(value, datetime.date):
        return str(value)  # YAML takes 2021-03-01 for a date
    elif hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-3 for text
        except ValueError:
            pass
    elif isinstance(hint, type) and type(value) is hint or (hint is type(None) and value is None):
        return value
    raise ValueError(f"{name}: {value!r} given, {_words(hint)} wanted")


def _words(hint: Any) -> str:
    """A type in words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in inside)
    if origin is Literal:
        return f"one of {', '.join(str(choice) for choice in inside)}"
    if origin is tuple:
        return f"a list, each {_words(inside[0])},"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    return names.get(hint, "null" if hint is type(None) else "settings as 'name: value'")
