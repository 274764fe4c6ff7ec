"""What the command lines of all recipes share: settings from files, quiet and machine-readable runs, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from neurodyn.training_log import LogKind

Config = TypeVar("Config")

SHARED = """Besides the options below:
  --config FILE      settings from a .yaml or .json file, or from the folder of an earlier run; options given here win
  --print-config     print all settings as YAML, and run nothing
  --quiet            print nothing but errors
  --json             print one JSON object with the scores, and nothing else, on stdout"""

SHARED_FIELDS = [("config", Path | None, None), *((flag, bool, False) for flag in ("print_config", "quiet", "json"))]
"""The same as fields of a dataclass, for completions."""

FAILED, WRONG, INTERRUPTED = 1, 2, 130
"""Exit codes: something failed, the input or the usage was wrong, Ctrl-C."""


@dataclass
class Execution:
    """The options of a recipe's configuration that its results do not depend on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are trained."""
    logs: tuple[LogKind, ...] = ()
    """Training logs beside each metrics.jsonl: metrics.csv, events for TensorBoard (`neurodyn[tensorboard]`)."""
    folder: Path | None = None
    """Where results go; runs/NAME-TIME if not given."""
    overwrite: bool = False
    """Replace another run in the folder."""


def settings_of(config: Any) -> dict[str, Any]:
    """What the results of a configuration depend on: what a run's folder is opened with."""
    return {name: value for name, value in asdict(config).items() if name not in {f.name for f in fields(Execution)}}


def command(
    kind: type[Config],
    run: Callable[[Config], Path],
    prog: str,
    words: Sequence[str] | None = None,
    about: str | None = None,
) -> None:
    """Make a recipe's configuration from options and files, and run it.

    Args:
        kind: the dataclass of its settings.
        run: what runs it, and returns the folder of the run.
        prog: the command's name, in its help.
        words: the options; taken from the command line if not given.
        about: what the help begins with, the docstring of `kind` if not given.

    Raises:
        SystemExit: wrong options (code 2) or --help (code 0).
        ValueError: a file of settings that is wrong; and what `run` raises.
    """
    import tyro

    parser = argparse.ArgumentParser(prog, add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    for flag in ("--print-config", "--quiet", "--json"):
        parser.add_argument(flag, action="store_true")
    shared, rest = parser.parse_known_args(sys.argv[1:] if words is None else list(words))
    defaults: dict[str, Any] = {}
    if shared.config is not None:
        from neurodyn.recipes.config_files import read_config

        defaults["default"] = read_config(shared.config, kind)
    text = f"{inspect.cleandoc(about or kind.__doc__ or '')}\n\n{SHARED}"
    config = tyro.cli(kind, args=rest, prog=prog, description=text, **defaults)
    if shared.print_config:
        from neurodyn.recipes.config_files import to_yaml
        from neurodyn.runs import resolved

        print(to_yaml(resolved(config)), end="")
        return
    with silence(shared.quiet) if shared.quiet or shared.json else contextlib.nullcontext():
        folder = run(config)
    if shared.json:
        print(json.dumps(summary(folder)))


@contextlib.contextmanager
def silence(logs: bool) -> Iterator[None]:
    """Nothing on stdout inside; nor messages and progress bars on stderr if `logs`."""
    root = logging.getLogger()
    level = root.level
    if logs:
        root.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        root.setLevel(level)


def summary(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """A finished run in what JSON can hold: where it is, how it ended, its scores by model, its tables.

    Raises:
        ValueError: no run in the folder.
    """
    import pandas as pd

    from neurodyn.runs import open_run

    run = open_run(folder)
    scores, page = run.folder / "tables" / "comparison.csv", run.folder / "report.html"
    table = pd.read_csv(scores).to_json(orient="records", double_precision=15) if scores.is_file() else "[]"
    return {
        "run": str(run.folder),
        "name": run.info["name"],
        "status": run.info["status"],
        "report": str(page) if page.is_file() else None,
        "scores": json.loads(table),
        "tables": sorted(str(path) for path in (run.folder / "tables").glob("*.csv")),
    }


def exit_code(prog: str, action: Callable[[], Any]) -> int:
    """Do something, and turn how it ended into an exit code, with one line on stderr where it did not succeed.

    0; 2 for bad input (ValueError, OSError); 1 for training that diverged and for a missing optional package; 130 after
    Ctrl-C. Anything else is a defect of ours: it is raised, and Python's own exit code for it is 1.
    """
    try:
        action()
    except KeyboardInterrupt:
        return _ended(prog, "interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; Python must not flush into it at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError) as error:
        return _ended(prog, error, WRONG)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        return _ended(prog, error, FAILED)
    except RuntimeError as error:
        from neurodyn.training import DivergedError

        if not isinstance(error, DivergedError):
            raise
        return _ended(prog, error, FAILED)
    return 0


def _ended(prog: str, why: object, code: int) -> int:
    print(f"{prog}: {' '.join(str(why).split())}", file=sys.stderr)
    return code


def program(kind: type[Config], run: Callable[[Config], Path], prog: str, about: str | None = None) -> int:
    """The command line of a recipe's own file, `python recipes/NAME.py`: the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return exit_code(prog, lambda: command(kind, run, prog, about=about))
