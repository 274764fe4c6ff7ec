"""The house stands: imports go down or along a floor, never up or in a circle; every public thing says what it is."""

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parent.parent
FLOORS = {
    1: [
        "series",
        "series_checks",
        "frames",
        "scaling",
        "noise",
        "quantiles",
        "style",
        "spelling",
        "loss",
        "likelihoods",
        "sde",
    ],
    2: [
        "solvers",
        "nets",
        "parallel",
        "checkpoints",
        "identity",
        "progress",
        "fit_config",
        "training",
        "training_log",
        "forecast",
        "forecast_tables",
    ],
    3: ["posteriors", "datasets", "metrics", "diagnostics", "plots"],
    4: ["models", "estimators", "serving", "runs", "report", "model_card", "compare", "html_page"],
    5: ["recipes"],
    6: ["cli"],
}
FLOOR_OF = {f"neurodyn.{room}": floor for floor, rooms in FLOORS.items() for room in rooms}
FACE_FLOOR = 5  # of the package's own face, which re-exports from the floors below: for programs, not for its parts
PACKAGE_FOLDERS = ("neurodyn", "datasets", "recipes")
# Importable under another name than the package that brings it.
BROUGHT_BY: dict[str, str] = {"triton": "torch", "sklearn": "scikit-learn", "yaml": "pyyaml"}  # triton: for CUDA


class Module(NamedTuple):
    name: str
    is_face: bool  # an __init__.py
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def read_package(top: Path) -> dict[str, Module]:
    """Every module of the package by its installed name."""
    modules = {}
    for folder in PACKAGE_FOLDERS:
        for path in sorted((top / folder).rglob("*.py")):
            parts = path.relative_to(top).with_suffix("").parts
            parts = parts if parts[0] == "neurodyn" else ("neurodyn", *parts)
            is_face = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_face else parts)
            modules[name] = Module(name, is_face, path.read_text(encoding="utf-8"))
    return modules


def room_of(name: str) -> str | None:
    """The room on a floor that a module is in; None for the package's own face."""
    return next((room for room in FLOOR_OF if name == room or name.startswith(room + ".")), None)


def imports(module: Module) -> Iterator[tuple[str, bool]]:
    """Full names of what a module imports, and whether on import (not inside a function, nor for types)."""
    later: set[ast.AST] = set()
    for node in ast.walk(tree := module.tree):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if function or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            later.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.name.split(".")
                above = above[: len(above) - node.level + module.is_face]
                base = ".".join([*above, *([base] if base else [])])
            yield from ((f"{base}.{alias.name}", node not in later) for alias in node.names)


def module_named(name: str, modules: dict[str, Module]) -> str | None:
    """The module of the package that `name` (a module, or something in one) is found in."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def upward_imports(modules: dict[str, Module]) -> list[str]:
    """Imports from a floor above, inside functions and for types too; and modules on no floor."""
    found = []
    for module in modules.values():
        here = room_of(module.name)
        if here is None:
            if module.name not in ("neurodyn", "neurodyn.__main__"):
                found.append(f"{module.name} is on no floor")
            continue
        for name, _ in imports(module):
            target = module_named(name, modules)
            there = FACE_FLOOR if target == "neurodyn" else FLOOR_OF.get(room_of(target or "") or "", 0)
            if there > FLOOR_OF[here]:
                found.append(f"{module.name} (floor {FLOOR_OF[here]}) imports {target} (floor {there})")
    return found


def circles(modules: dict[str, Module]) -> list[str]:
    """Circles of imports that happen on import, through the faces of rooms too."""
    edges: dict[str, set[str]] = {name: set() for name in modules}
    for module in modules.values():
        for name, at_once in imports(module):
            target = module_named(name, modules)
            if at_once and target and target != module.name:
                edges[module.name].add(target)
    found, done = [], set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(edges[name]):
                walk(target, [*path, name])
            done.add(name)

    for name in modules:
        walk(name, [])
    return found


def without_docstring(modules: dict[str, Module]) -> list[str]:
    """Public modules, classes, functions and methods without a docstring. Magic methods and overrides need none."""
    found = []
    for module in modules.values():
        if room_of(module.name) == "neurodyn.recipes":
            continue
        tree = module.tree
        if tree.body and not module.is_face and not ast.get_docstring(tree):
            found.append(module.name)
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    found.append(f"{module.name}.{node.name}")
    return found


def wrong_faces(modules: dict[str, Module]) -> list[str]:
    """Faces that re-export anything but their own room's (the package's own face: any room's but recipes and command
    line), or whose `__all__` is not what they define and import."""
    found = []
    for module in modules.values():
        if not module.is_face or not module.text.strip():
            continue
        names: set[str] = set()
        exported: list[str] = []
        for node in (tree := module.tree).body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                tree.body.extend(node.body)  # names that are imported when they are first asked for
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("neurodyn"):
                source = node.module or ""
                own = source == module.name or source.startswith(module.name + ".")
                floor = FLOOR_OF.get(room_of(source) or "", 0)
                if own and (module.name != "neurodyn" or floor < FACE_FLOOR):
                    names.update(alias.asname or alias.name for alias in node.names)
                elif module.name == "neurodyn":
                    found.append(f"{module.name} re-exports from {source}")
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                exported = ast.literal_eval(node.value)
        public = {name for name in names if not name.startswith("_")}
        if set(exported) != public or len(set(exported)) != len(exported):
            found.append(f"{module.name}: __all__ and what it offers differ by {sorted(set(exported) ^ public)}")
    return found


def runs_code_from_files(modules: dict[str, Module]) -> list[str]:
    """Uses of pickle in any form: a weights or data file must not be able to run code."""
    found = []
    for module in modules.values():
        for name, _ in imports(module):
            if name.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"):
                found.append(f"{module.name} imports {name}")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("torch.load", "torch.save", "torch.export.load", "pd.read_pickle", "pandas.read_pickle"):
                    found.append(f"{module.name} calls {called}")
                for keyword in node.keywords:
                    if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                        found.append(f"{module.name} gives allow_pickle={ast.unparse(keyword.value)}")
    return found


def machine_paths(files: dict[str, str]) -> list[str]:
    """Absolute paths of somebody's machine in any file."""
    pattern = re.compile(r"(?<![\w.}/)])/(work|root|home|Users|tmp/dev)/\w")
    return [name for name, text in files.items() if pattern.search(text)]


def undeclared(modules: dict[str, Module], declared: set[str]) -> list[str]:
    """Packages imported and not declared, optional ones inside functions aside."""
    found = set()
    for module in modules.values():
        for name, at_once in imports(module):
            package = name.split(".")[0]
            if at_once and package != "neurodyn" and package not in sys.stdlib_module_names:
                if BROUGHT_BY.get(package, package) not in declared:
                    found.add(f"{module.name} imports {package}")
    return sorted(found)


def project() -> dict:
    return tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))


def requirement(line: str) -> str:
    return re.split(r"[\s<>=!~\[;]", line)[0].lower()


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return read_package(TOP)


def test_no_file_imports_from_a_floor_above(modules):
    assert upward_imports(modules) == []


def test_no_import_circles(modules):
    assert circles(modules) == []


def test_faces_offer_their_own_room_and_say_so(modules):
    assert wrong_faces(modules) == []


def test_everything_in_a_face_is_there(modules):
    for module in modules.values():
        if module.is_face:
            face = importlib.import_module(module.name)
            assert [name for name in getattr(face, "__all__", []) if not hasattr(face, name)] == []


def test_everything_public_has_a_docstring(modules):
    assert without_docstring(modules) == []


def test_nothing_unpickles(modules):
    assert runs_code_from_files(modules) == []


def test_no_machine_paths():
    kinds = {".py", ".md", ".toml", ".txt", ".cff", ".json", ".yml", ".yaml", ".html"}
    folders = [*PACKAGE_FOLDERS, "benchmarks", "docs", "tests", ".ci"]
    paths = [p for f in folders for p in (TOP / f).rglob("*") if p.suffix in kinds or p.parent.name == ".ci"]
    paths += [p for p in TOP.iterdir() if p.suffix in kinds or p.name == "Makefile"]
    files = {
        str(p.relative_to(TOP)): p.read_text(encoding="utf-8") for p in paths if p.is_file() and p != Path(__file__)
    }
    assert len(files) > 30 and machine_paths(files) == []


def test_every_package_folder_is_installed():
    listed = set(project()["tool"]["setuptools"]["packages"])
    there = {name if module.is_face else name.rpartition(".")[0] for name, module in read_package(TOP).items()}
    assert listed == there


def test_every_import_is_declared(modules):
    declared = {requirement(line) for line in project()["project"]["dependencies"]}
    assert undeclared(modules, declared) == []


def test_every_dependency_is_pinned_for_the_tests():
    pinned = {requirement(line) for line in (TOP / "constraints.txt").read_text().splitlines() if "==" in line}
    extras = project()["project"]["optional-dependencies"]
    wanted = {requirement(x) for x in [*project()["project"]["dependencies"], *extras["test"], *extras["lint"]]}
    assert wanted <= pinned
    assert not re.search(r"^[^#]*\+", (TOP / "constraints.txt").read_text(), re.M), "a local build cannot be installed"


def planted(**files: str) -> dict[str, Module]:
    """A house of the given files, named with __ for dots; a name that ends in them is a face."""
    names = {n: n.replace("__", ".").removesuffix(".") for n in files}
    return {names[n]: Module(names[n], n.endswith("__"), text) for n, text in files.items()}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (upward_imports(planted(neurodyn__sde="from neurodyn.models import X", neurodyn__models="")), 1),
        (upward_imports(planted(neurodyn__sde="def f():\n import neurodyn.cli", neurodyn__cli="")), 1),
        (upward_imports(planted(neurodyn__nets__a="from ..training import fit", neurodyn__training="")), 0),
        (upward_imports(planted(neurodyn__nets__a="from ..plots import p", neurodyn__plots="")), 1),
        (upward_imports(planted(neurodyn__helpers="")), 1),
        (circles(planted(neurodyn__sde__a="import neurodyn.sde.b", neurodyn__sde__b="import neurodyn.sde.a")), 1),
        (circles(planted(neurodyn__a="import neurodyn.b", neurodyn__b="def f():\n import neurodyn.a")), 0),
        (upward_imports(planted(neurodyn__="", neurodyn__sde="from neurodyn import sdeint")), 1),
        (upward_imports(planted(neurodyn__="", neurodyn__cli="from neurodyn import __version__")), 0),
        (circles(planted(neurodyn__sde__="from neurodyn.sde.a import A", neurodyn__sde__a="import neurodyn.sde")), 1),
        (wrong_faces(planted(neurodyn__sde__="from neurodyn.sde.a import A, B\n__all__ = ['A']")), 1),
        (wrong_faces(planted(neurodyn__sde__="from neurodyn.sde.a import A\nimport os\n__all__ = ['A']")), 0),
        (wrong_faces(planted(neurodyn__="from neurodyn.cli import main\n__all__ = ['main']")), 2),
        (without_docstring(planted(neurodyn__series='"""Doc."""\ndef f(): pass\ndef _g(): pass')), 1),
        (without_docstring(planted(neurodyn__series="class A:\n  '''Doc.'''")), 1),
        (runs_code_from_files(planted(neurodyn__series="import pickle")), 1),
        (runs_code_from_files(planted(neurodyn__series="np.load(p, allow_pickle=True); torch.load(p)")), 2),
        (runs_code_from_files(planted(neurodyn__series="np.load(p, allow_pickle=False)")), 0),
        (machine_paths({"a": 'open("/' + 'home/me/x")', "b": "https://x.org/home/page"}), 1),
        (undeclared(planted(neurodyn__series="import numpy, os, secretlib"), {"numpy"}), 1),
    ],
)
def test_each_inspector_finds_what_is_planted(found, expected):
    assert len(found) == expected, found
