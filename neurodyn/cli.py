"""The command `neurodyn`: recipes and data sets from a shell. Libraries are imported when a command needs them."""

import ast
import difflib
import functools
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
  interpolate        fit models to irregular series and compare how they fill in values that were hidden
  classify           fit models to irregular series with labels: classes, their probabilities, fewer observations
  neural             fit models to neural spikes: rates, latents, forward predictions, decoded behaviour
  structure          learn which variable drives which, from irregular series
  report RUN         how a run ended, its scores, and where its report is
  compare RUN RUN... a page with the settings, scores and learning curves of runs beside each other (--out FILE)
  datasets list      the data sets that can be loaded by name
  datasets info NAME where a data set comes from, its licence and how to load it
  datasets get NAME  load a data set, from the official source if it is not here yet

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


def _recipe(module: str, command: str, words: list[str]) -> None:
    import tyro

    recipe = importlib.import_module(f"neurodyn.recipes.{module}")
    recipe.run(tyro.cli(recipe.Config, args=words, prog=f"neurodyn {command}"))


def _report(words: list[str]) -> None:
    if len(words) != 1:
        raise UsageError(f"report: {len(words)} folders given, that of one run wanted")
    import pandas as pd

    from neurodyn.runs import open_run

    run = open_run(words[0])
    info, scores, page = run.info, run.folder / "tables" / "comparison.csv", run.folder / "report.html"
    print(f"{info['name']}, {info['status']}, started {info['started']}")
    if scores.is_file():
        print(f"\n{pd.read_csv(scores, index_col=0).round(3).to_string()}\n")
    print(f"report: {page}" if page.is_file() else "no report was written")


def _compare(words: list[str]) -> None:
    out = "comparison.html"
    if "--out" in words[:-1]:
        place = words.index("--out")
        out = words[place + 1]
        words = words[:place] + words[place + 2 :]
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        raise UsageError(f"compare: no option {unknown[0]!r}: there is --out FILE")
    from neurodyn.compare import compare_runs

    table, page = compare_runs(words, out)
    print(f"{table.round(3).to_string()}\n\ncomparison: {page}")


def _datasets(words: list[str]) -> None:
    actions = {"list": _list_datasets, "info": _show_dataset, "get": _get_dataset}
    _choose(words[0] if words else "", actions, "datasets command")(words[1:])


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


def _get_dataset(words: list[str]) -> None:
    if len(words) != 1:
        raise UsageError(f"datasets get: {len(words)} names given, that of one data set wanted")
    _choose(words[0], _loaders(), "data set")
    from neurodyn import datasets

    splits = datasets.load(words[0])
    rows = f"{len(splits.train)} training, {len(splits.validation)} validation and {len(splits.test)} test rows"
    print(f"{words[0]}: {rows} of {splits.train.num_variables} variables")


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
    "forecast": functools.partial(_recipe, "forecast", "forecast"),
    "interpolate": functools.partial(_recipe, "interpolate", "interpolate"),
    "classify": functools.partial(_recipe, "classify", "classify"),
    "neural": functools.partial(_recipe, "neural_population", "neural"),
    "structure": functools.partial(_recipe, "structure", "structure"),
    "report": _report,
    "compare": _compare,
    "datasets": _datasets,
}

if __name__ == "__main__":
    sys.exit(main())
