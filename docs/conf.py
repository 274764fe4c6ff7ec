"""The documentation site: `make docs` builds it into build/site."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import neurodyn

project = "neurodyn"
author = "The neurodyn maintainers"
release = neurodyn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["pages.py"]
html_theme = "furo"
html_title = f"neurodyn {release}"
html_static_path: list[str] = []
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
default_role = "code"  # docstrings mark names with single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # a name such as `steps` is an attribute of several classes
copybutton_exclude = ".linenos, .gp"

ROOMS = {
    "sde": "Laws of motion",
    "solvers": "Solvers",
    "posteriors": "Posteriors",
    "nets": "Networks",
    "likelihoods": "Likelihoods",
    "models": "Models",
    "estimators": "Estimators in scikit-learn's ways",
    "metrics": "Metrics",
    "plots": "Plots",
    "datasets": "Data sets",
}
API = Path(__file__).parent / "api"


def write_api(app: Any) -> None:
    """One page per room of the package, and one of the modules that stand by themselves; written anew by each build."""
    API.mkdir(exist_ok=True)
    pages = {"core": ("Series, training, forecasts, reports", _modules("neurodyn", alone=True))}
    pages |= {room: (title, _modules(f"neurodyn.{room}")) for room, title in ROOMS.items()}
    for name, (title, modules) in pages.items():
        parts = [f"{title}\n{'=' * len(title)}\n"]
        for module in modules:
            parts.append(f"{module}\n{'-' * len(module)}\n\n.. automodule:: {module}\n   :members:\n")
        text = "\n".join(parts)
        path = API / f"{name}.rst"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # an untouched page is not built again
            path.write_text(text, encoding="utf-8")


def _modules(package: str, alone: bool = False) -> list[str]:
    """The modules of a package, those of packages inside it too unless `alone`."""
    found = importlib.import_module(package)
    names: list[str] = []
    for module in pkgutil.iter_modules(found.__path__, package + "."):
        if not module.ispkg:
            names.append(module.name)
        elif not alone:
            names += _modules(module.name)
    return names


SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Layout)s?:+$")
FIELD = re.compile(r"[A-Z][A-Za-z ]{2,20}: ")


def mark_up(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text.

    Indented blocks are formulas; "Source: ..." with indented lines that go on is a paragraph; and * and | mean product
    and norm, not emphasis.
    """
    found: list[str] = []
    section = formula = False
    for line in lines:
        indented, before = line.startswith("    "), bool(found and found[-1].strip())
        if line.strip() and not indented:
            section, formula = SECTION.match(line) is not None, False
            if before and FIELD.match(line):
                found.append("")
        elif indented and not section and not formula and not before:
            found += ["::", ""]
            formula = True
        elif indented and not section and not formula:
            line = line.lstrip()
        found.append(line if formula else _escaped(line))
    lines[:] = found


def _escaped(line: str) -> str:
    """A line with *, | and a last _ as themselves, except inside backticks."""
    parts = re.split(r"(``.+?``|`.+?`)", line)
    parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def skip(app: Any, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn writes into estimators."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app: Any) -> None:
    """For Sphinx."""
    app.connect("builder-inited", write_api)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", mark_up, priority=100)  # before napoleon, which writes emphasis of its own
