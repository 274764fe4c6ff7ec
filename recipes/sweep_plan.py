"""What a sweep is asked: a recipe, the settings that stay, those that vary, the seeds, and what decides."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurodyn.recipes.config_files import from_mapping, read_mapping
from neurodyn.spelling import check_options, nearest

RECIPES = {
    "forecast": "forecast",
    "interpolate": "interpolate",
    "classify": "classify",
    "neural": "neural_population",
    "structure": "structure",
}
"""Recipes by command, and the files they are in."""


@dataclass(frozen=True)
class Plan:
    """A sweep as its file says it.

    vary: by setting, a list of choices, or a range {"low": ..., "high": ..., "log": ...}. score: "validation", or a
    column of the recipe's table of scores.
    """

    recipe: str
    settings: dict[str, Any]
    vary: dict[str, Any]
    seeds: tuple[int, ...] = (0,)
    score: str = "validation"

    @property
    def module(self) -> Any:
        """The recipe."""
        return importlib.import_module(f"neurodyn.recipes.{RECIPES[self.recipe]}")

    def config(self, chosen: dict[str, Any], seed: int) -> Any:
        """The recipe's configuration for what was chosen, without baselines. ValueError names what does not fit."""
        return from_mapping({**self.settings, **chosen, "seed": seed, "baselines": []}, self.module.Config)

    def every(self) -> list[dict[str, Any]]:
        """Every combination of the lists.

        Raises:
            ValueError: something varies over a range.
        """
        for name, choices in self.vary.items():
            if not isinstance(choices, list):
                raise ValueError(f"trials: not given, wanted, as {name} varies over a range")
        return [dict(zip(self.vary, chosen, strict=True)) for chosen in itertools.product(*self.vary.values())]

    def proposed(self, trial: Any) -> dict[str, Any]:
        """The choice of an Optuna trial."""
        found = {}
        for name, choices in self.vary.items():
            if isinstance(choices, list):
                found[name] = choices[trial.suggest_categorical(name, list(range(len(choices))))]
            else:
                whole = isinstance(choices["low"], int) and isinstance(choices["high"], int)
                draw = trial.suggest_int if whole else trial.suggest_float
                found[name] = draw(name, choices["low"], choices["high"], log=choices.get("log", False))
        return found


def read_plan(path: Path) -> Plan:
    """The plan in a YAML file, every choice of which the recipe would take.

    Raises:
        ValueError: one line with the path: an unknown recipe or setting, a value of another type.
        FileNotFoundError: no such file.
    """
    content = read_mapping(path)
    try:
        check_options("plan", content, ["recipe", "settings", "vary", "seeds", "score"], ["recipe", "vary"])
        recipe, seeds = content["recipe"], content.get("seeds", [0])
        if recipe not in RECIPES:
            raise ValueError(f"recipe: {recipe!r} given{nearest(str(recipe), RECIPES)}, one of {list(RECIPES)} wanted")
        if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise ValueError(f"seeds: {seeds!r} given, a list of whole numbers from 0 on wanted")
        for name in ("settings", "vary"):
            if not isinstance(content.get(name, {}), dict):
                raise ValueError(f"{name}: {content[name]!r} given, settings as 'name: value' wanted")
        plan = Plan(
            recipe, content.get("settings", {}), content["vary"], tuple(seeds), content.get("score", "validation")
        )
        _check(plan)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return plan


def _check(plan: Plan) -> None:
    if not plan.vary:
        raise ValueError("vary: nothing given, one setting or more wanted")
    for name, choices in plan.vary.items():
        if name in plan.settings or name in ("seed", "baselines", "folder", "overwrite"):
            raise ValueError(f"vary: {name!r} given, a setting that is not set otherwise wanted")
        if isinstance(choices, dict):
            check_options(f"vary: {name}", choices, ["low", "high", "log"], ["low", "high"])
            choices = [choices["low"], choices["high"]]
            if not all(isinstance(end, int | float) for end in choices) or not choices[0] < choices[1]:
                raise ValueError(f"vary: {name}: {choices} given, numbers with low below high wanted")
        if not isinstance(choices, list) or not choices:
            raise ValueError(f"vary: {name}: {choices!r} given, a list or {{low: ..., high: ...}} wanted")
        for choice in choices:
            plan.config({name: choice}, plan.seeds[0])
