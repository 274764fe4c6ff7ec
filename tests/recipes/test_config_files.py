"""Configurations in files: YAML and JSON in, YAML out, and what is wrong with them in one line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from neurodyn.recipes import classify, forecast, interpolate, neural_population, structure
from neurodyn.recipes.config_files import from_mapping, read_config, to_yaml
from neurodyn.runs import resolved
from neurodyn.training import FitConfig

RECIPES = [forecast, interpolate, classify, neural_population, structure]


@dataclass
class Config:
    """Settings of every kind."""

    word: str = "a"
    maybe: Path | None = None
    count: int = 1
    rate: float = 0.5
    quick: bool = False
    names: tuple[str, ...] = ()
    noise: float | Literal["shared"] = 0.75
    kind: Literal["x", "y"] = "x"
    fit: FitConfig = field(default_factory=FitConfig)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__.rpartition(".")[2])
def test_every_recipe_reads_what_it_wrote(recipe, tmp_path):
    config = recipe.Config(steps=7, data=Path("my file.csv"), seed=3)
    path = tmp_path / "settings.yaml"
    path.write_text(to_yaml(resolved(config)))
    assert read_config(path, recipe.Config) == config != recipe.Config()


def test_every_kind_of_value_is_read(tmp_path):
    path = tmp_path / "settings.yml"
    path.write_text(
        "word: b\nmaybe: out/x.csv\ncount: 2\nrate: 1e-3\nquick: true\nnames: [a, 'b c']\nnoise: shared\nkind: y\n"
        "fit: {steps: 7, learning_rate: 1, device: cpu}\n"
    )
    fit = FitConfig(steps=7, learning_rate=1.0, device="cpu")
    wanted = Config("b", Path("out/x.csv"), 2, 0.001, True, ("a", "b c"), "shared", "y", fit)
    assert read_config(path, Config) == wanted
    assert from_mapping(yaml.safe_load(to_yaml(resolved(wanted))), Config) == wanted
    path.write_text("")
    assert read_config(path, Config) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuont: 2", r"'cuont' given \(did you mean 'count'\?\), some of word, "),
        ("count: two", "count: 'two' given, a whole number wanted"),
        ("count: 1.5", "count: 1.5 given, a whole number wanted"),
        ("count: true", "count: True given, a whole number wanted"),
        ("rate: fast", "rate: 'fast' given, a number wanted"),
        ("quick: 1", "quick: 1 given, true or false wanted"),
        ("word: 3", "word: 3 given, text wanted"),
        ("names: a", "names: 'a' given, a list, each text, wanted"),
        ("names: [1]", "names: 1 given, text wanted"),
        ("maybe: 3", "maybe: 3 given, a path or null wanted"),
        ("kind: z", "kind: 'z' given, one of x, y wanted"),
        ("fit: {stesp: 3}", "'stesp' given .did you mean 'steps'"),
        ("fit: {ema: 2}", "ema and select_after: 2.0"),
        ("- a", "a list given, settings as 'name: value' wanted"),
        ("a: [", "YAML or JSON wanted"),
        ("!!python/object/apply:os.getcwd []", "YAML or JSON wanted"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(text, message, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_config(path, Config)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config: .*none.yaml given, an existing file"):
        read_config(tmp_path / "none.yaml", Config)
    with pytest.raises(FileNotFoundError, match="or the folder of a run wanted"):
        read_config(tmp_path, Config)
