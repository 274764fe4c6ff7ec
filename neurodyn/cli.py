"""The command `neurodyn`: recipes and data sets from a shell. Libraries are imported when a command needs them."""

import ast
import difflib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from neurodyn import __version__

Choice = TypeVar("Choice")

HELP = """usage: neurodyn COMMAND [options]

commands:
  forecast           fit models to irregular series and compare their forecasts (--help lists the options)
  classify           fit models to irregular series with labels: classes, their probabilities, fewer observations
  neural             fit models to neural spikes: rates, latents, forward predictions, decoded behaviour
  datasets list      the data sets that can be loaded by name
  datasets info NAME where a data set comes from, its licence and how to load it

options:
  --help, --version
"""


class UsageError(ValueError):
    """A command that does not exist, or that misses an argument."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for bad input (one line on stderr), 130 after Ctrl-C.

    Args:
        arguments: what follows the program's name; taken from the command line if not given.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        print(f"neurodyn {__version__}")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _choose(words[0], COMMANDS, "command")(words[1:])
    except KeyboardInterrupt:
        print("neurodyn: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if not _is_about_the_input(error):
            raise
        print(f"neurodyn: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _is_about_the_input(error: Exception) -> bool:
    """Whether a message is all the user needs; a RuntimeError other than DivergedError is a defect to be traced."""
    if not isinstance(error, RuntimeError):
        return True
    from neurodyn.training import DivergedError

    return isinstance(error, DivergedError)


def _choose(word: str, choices: dict[str, Choice], kind: str) -> Choice:
    """The choice of that name; what is nearest to it in the error if there is none."""
    if word in choices:
        return choices[word]
    near = difflib.get_close_matches(word, choices, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(choices)}"
    raise UsageError(f"no {kind} {word!r}: {hint}")


def _forecast(words: list[str]) -> None:
    import tyro

    recipe = importlib.import_module("neurodyn.recipes.forecast")
    recipe.run(tyro.cli(recipe.Config, args=words, prog="neurodyn forecast"))


def _neural(words: list[str]) -> None:
    import tyro

    recipe = importlib.import_module("neurodyn.recipes.neural_population")
    recipe.run(tyro.cli(recipe.Config, args=words, prog="neurodyn neural"))


def _classify(words: list[str]) -> None:
    import tyro

    recipe = importlib.import_module("neurodyn.recipes.classify")
    recipe.run(tyro.cli(recipe.Config, args=words, prog="neurodyn classify"))


def _datasets(words: list[str]) -> None:
    action = _choose(words[0] if words else "", {"list": _list_datasets, "info": _show_dataset}, "datasets command")
    action(words[1:])


def _list_datasets(words: list[str]) -> None:
    for name, tree in _loaders().items():
        about = (ast.get_docstring(tree) or "").partition("\n\n")[0]
        print(f"{name:<20} {' '.join(about.split()).removeprefix(f'`{name}`: ')}")


def _show_dataset(words: list[str]) -> None:
    if not words:
        raise UsageError("datasets info: the name of a data set is wanted; `neurodyn datasets list` has them")
    tree = _choose(words[0], _loaders(), "data set")
    load = _load_of(tree)
    assert load is not None
    about = (ast.get_docstring(load) or "").replace("\n", "\n    ")
    print(f"{ast.get_docstring(tree)}\n\nneurodyn.datasets.{words[0]}.load({ast.unparse(load.args)})\n    {about}")


def _loaders() -> dict[str, ast.Module]:
    """The source of each data set: a file of neurodyn.datasets with a function `load`. Read, not run: that is quick."""
    spec = importlib.util.find_spec("neurodyn.datasets")
    folders = (spec.submodule_search_locations if spec else None) or []
    paths = sorted(path for folder in folders for path in Path(folder).glob("*.py"))
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in paths if path.stem != "__init__"}
    return {name: tree for name, tree in trees.items() if _load_of(tree)}


def _load_of(tree: ast.Module) -> ast.FunctionDef | None:
    return next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "load"), None)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "forecast": _forecast,
    "classify": _classify,
    "neural": _neural,
    "datasets": _datasets,
}

if __name__ == "__main__":
    sys.exit(main())
