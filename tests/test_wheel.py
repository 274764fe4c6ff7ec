"""The wheel: what is in it, and that it works outside the checkout, in an environment of its own."""

import json
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent


def run(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in words], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{words}: {done.stderr or done.stdout}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what the build reads, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("neurodyn", "datasets", "recipes"):
        shutil.copytree(TOP / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, folder / "source" / name)
    build = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps", "--no-index")
    run(*build, "--no-build-isolation", "--wheel-dir", folder, folder / "source", folder=folder)
    found = list(folder.glob("*.whl"))
    assert len(found) == 1
    return found[0]


def test_every_file_of_the_package_is_in_it_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    wanted = {path.relative_to(TOP).as_posix() for path in (TOP / "neurodyn").rglob("*") if path.is_file()}
    for room in ("datasets", "recipes"):
        wanted |= {f"neurodyn/{path.relative_to(TOP).as_posix()}" for path in (TOP / room).rglob("*") if path.is_file()}
    assert names == {name for name in wanted if "__pycache__" not in name}
    assert {"neurodyn/datasets/data/pbcseq.csv", "neurodyn/datasets/data/pbcseq.LICENSE", "neurodyn/py.typed"} <= names
    assert {"neurodyn/recipes/forecast.py", "neurodyn/solvers/fused_cpu.cpp"} <= names
    assert "Provides-Extra: sweep" in about and "License-File: LICENSE" in about


def test_it_forecasts_the_embedded_data_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """Its dependencies are those of the environment that runs the tests; the package itself is the wheel's."""
    home = tmp_path / "fresh"
    run(sys.executable, "-m", "venv", "--without-pip", home, folder=tmp_path)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    packages = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", folder=tmp_path).stdout.strip())
    # A path that a .pth file names is searched, but the .pth files in it are not: an editable install stays out.
    (packages / "outer.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=tmp_path)
    where = run(python, "-c", "import neurodyn; print(neurodyn.__file__)", folder=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(packages)
    few = ("--posterior", "matched", "--steps", "2", "--baselines", "last_value", "--num-samples", "10")
    done = run(python.with_name("neurodyn"), "forecast", *few, "--folder", "out", "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    assert {line["model"] for line in found["scores"]} == {"latent SDE", "last value"}
    assert (tmp_path / "out" / "report.html").is_file() and found["status"] == "finished"
    done = subprocess.run([python.with_name("neurodyn"), "benchmark"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "it is in a checkout, not in the wheel" in done.stderr
