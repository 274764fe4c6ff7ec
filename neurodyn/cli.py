"""The command `neurodyn`: recipes and data sets from a shell. Libraries are imported when a command needs them."""

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import neurodyn
from neurodyn.recipes.command import FAILED, SHARED_FIELDS, command, exit_code, summary
from neurodyn.spelling import nearest

Choice = TypeVar("Choice")

HELP = """usage: neurodyn COMMAND [options]

fit and compare models:
  forecast           the later visits of irregular series (neurodyn forecast --help lists the options)
  interpolate        values of irregular series that were hidden
  classify           classes of irregular series, their probabilities, fewer observations
  neural             neural spikes: rates, latents, forward predictions, decoded behaviour
  structure          which variable drives which, from irregular series

runs:
  sweep PLAN         a recipe with many settings and seeds, from a YAML file; goes on where it was stopped
  report RUN         how a run ended, its scores, and where its report is
  compare RUN RUN... a page with the settings, scores and learning curves of runs beside each other (--out FILE)

data and benchmarks:
  datasets list      the data sets that can be loaded by name
  datasets info NAME where a data set comes from, its licence and how to load it
  datasets get NAME  load a data set, from the official source if it is not here yet
  benchmark NAME     make a table of the documents anew, in a checkout; the names without NAME

options of those that fit:
  --config FILE      settings from a .yaml or .json file, or from the folder of an earlier run
  --print-config     all settings as YAML, to be changed and given to --config
  --quiet, --json    print nothing but errors; print the scores as JSON (report, compare and datasets list, too)

options:
  --help, --version
  --completion SHELL a script that completes commands and options: bash, zsh or fish

exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 Ctrl-C
"""

RECIPES = {
    "forecast": "forecast",
    "interpolate": "interpolate",
    "classify": "classify",
    "neural": "neural_population",
    "structure": "structure",
    "sweep": "sweep",
}
"""Commands that are recipes, and the files they are in."""


class UsageError(ValueError):
    """A command that does not exist, or that misses an argument."""


class BenchmarkFailed(RuntimeError):
    """A benchmark that ended with another exit code than 0."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0; 1 for a failure; 2 for wrong usage or input (one line on stderr); 130 after Ctrl-C.

    Args:
        arguments: what follows the program's name; taken from the command line if not given.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        print(f"neurodyn {neurodyn.__version__}")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return exit_code("neurodyn", lambda: _choose(words[0], COMMANDS, "command")(words[1:]))
    except BenchmarkFailed:
        return FAILED


def _choose(word: str, choices: dict[str, Choice], kind: str) -> Choice:
    """The choice of that name; what is nearest to it in the error if there is none."""
    if word in choices:
        return choices[word]
    near = difflib.get_close_matches(word, choices, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(choices)}"
    raise UsageError(f"no {kind} {word!r}: {hint}")


def _recipe(name: str, words: list[str]) -> None:
    if "" not in sys.path:
        sys.path.append("")  # for data sets of one's own, --dataset MODULE:FUNCTION, which lie where one is
    file = RECIPES[name]
    recipe = importlib.import_module(f"neurodyn.recipes.{file}")
    about = (recipe.__doc__ or "").replace(f"python recipes/{file}.py", f"neurodyn {name}")
    command(recipe.Config, recipe.run, f"neurodyn {name}", words, about or None)


def _completion(words: list[str]) -> None:
    """Print the completion script that tyro makes of all commands and their options."""
    shell = _choose(words[0] if words else "", {name: name for name in ("bash", "zsh", "fish")}, "shell")
    import tyro

    kinds: dict[str, Any] = {}
    for name, file in RECIPES.items():
        recipe = importlib.import_module(f"neurodyn.recipes.{file}")
        kinds[name] = dataclasses.make_dataclass(name, SHARED_FIELDS, bases=(recipe.Config,), kw_only=True)
    kinds |= {name: lambda: None for name in COMMANDS if name not in (*kinds, "--completion")}
    tyro.extras.subcommand_cli_from_dict(kinds, prog="neurodyn", args=["--tyro-print-completion", shell])


def _report(words: list[str]) -> None:
    as_json, words = _taken("--json", words)
    if len(words) != 1:
        raise UsageError(f"report: {len(words)} folders given, that of one run wanted")
    if as_json:
        print(json.dumps(summary(words[0])))
        return
    import pandas as pd

    from neurodyn.runs import open_run

    run = open_run(words[0])
    info, scores, page = run.info, run.folder / "tables" / "comparison.csv", run.folder / "report.html"
    print(f"{info['name']}, {info['status']}, started {info['started']}")
    if scores.is_file():
        print(f"\n{pd.read_csv(scores, index_col=0).round(3).to_string()}\n")
    print(f"report: {page}" if page.is_file() else "no report was written")


def _compare(words: list[str]) -> None:
    as_json, words = _taken("--json", words)
    out = "comparison.html"
    if "--out" in words[:-1]:
        place = words.index("--out")
        out = words[place + 1]
        words = words[:place] + words[place + 2 :]
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        near = nearest(unknown[0], ("--out", "--json"))
        raise UsageError(f"compare: no option {unknown[0]!r}{near}: there are --out FILE and --json")
    from neurodyn.compare import compare_runs

    table, page = compare_runs(words, out)
    if as_json:
        scores = json.loads(table.reset_index().to_json(orient="records", double_precision=15))
        print(json.dumps({"scores": scores, "page": str(page)}))
    else:
        print(f"{table.round(3).to_string()}\n\ncomparison: {page}")


def _taken(flag: str, words: list[str]) -> tuple[bool, list[str]]:
    """Whether a flag is there, and the words without it."""
    return flag in words, [word for word in words if word != flag]


def _datasets(words: list[str]) -> None:
    actions = {"list": _list_datasets, "info": _show_dataset, "get": _get_dataset}
    _choose(words[0] if words else "", actions, "datasets command")(words[1:])


def _list_datasets(words: list[str]) -> None:
    as_json, words = _taken("--json", words)
    if words:
        raise UsageError(f"datasets list: {words[0]!r} given, nothing or --json wanted")
    found = {name: _first_line(tree).removeprefix(f"`{name}`: ") for name, tree in _loaders().items()}
    if as_json:
        print(json.dumps([{"name": name, "about": about} for name, about in found.items()]))
    else:
        print("\n".join(f"{name:<20} {about}" for name, about in found.items()))


def _show_dataset(words: list[str]) -> None:
    if len(words) != 1:
        raise UsageError(
            f"datasets info: {len(words)} names given, that of one data set wanted; `neurodyn datasets list` has them"
        )
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

    if words[0] in datasets.structure_names():
        structure = datasets.load_structure(words[0])
        edges = int(structure.graph.sum())
        print(
            f"{words[0]}: {len(structure.series)} series of {structure.series.num_variables} variables, {edges} edges"
        )
        return
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


def _first_line(tree: ast.Module) -> str:
    return " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())


def _benchmark(words: list[str]) -> None:
    """Run a benchmark of the checkout that this package lies in; `words` after its name are its own options."""
    top = Path(neurodyn.__file__).resolve().parent.parent
    files = sorted((top / "benchmarks").glob("*.py"))
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    found = {name: tree for name, tree in trees.items() if name != "render" and _is_program(tree)}
    if not found:
        raise UsageError("benchmark: no folder `benchmarks` beside the package: it is in a checkout, not in the wheel")
    if not words:
        print("\n".join(f"{name:<20} {_first_line(tree).split(': `')[0]}" for name, tree in found.items()))
        return
    _choose(words[0], found, "benchmark")
    code = subprocess.call([sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]], cwd=top)
    if code == 130 or code == -2:
        raise KeyboardInterrupt
    if code == 2:
        raise UsageError(f"benchmark: {words[0]} does not take these options: {' '.join(words[1:])}")
    if code:
        raise BenchmarkFailed(words[0])


def _is_program(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    **{name: functools.partial(_recipe, name) for name in RECIPES},
    "report": _report,
    "compare": _compare,
    "datasets": _datasets,
    "benchmark": _benchmark,
    "--completion": _completion,
}

if __name__ == "__main__":
    sys.exit(main())
