"""The pages keep their word: code runs and prints what they show, pictures are made, links lead on."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]


def load_tool() -> ModuleType:
    """docs/pages.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "docs" / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool()
PAGES = tool.pages()
BENCHMARKS = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_page_runs_and_prints_what_it_shows(page: Path, tmp_path: Path) -> None:
    before = torch.get_default_dtype()
    for block, printed in tool.run(page, tmp_path):
        if block.runs:
            assert tool.differences(block.shown, printed) == [], f"{page.name}, code from line {block.line}"
    assert torch.get_default_dtype() == before
    for picture in tool.images(page):
        assert picture.is_file(), f"{page.name} shows {picture.name}, which is not in docs/images"
        others = [other.read_text(encoding="utf-8") for other in PAGES if other != page]
        elsewhere = any(f'savefig("{picture.name}"' in text for text in others)  # and there it is looked for
        made = (tmp_path / picture.name).is_file() or picture.name in BENCHMARKS or elsewhere
        assert made, f"{page.name} shows {picture.name}, which neither a page's code nor a benchmark writes"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target in re.findall(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_and_commands_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    missing = [
        f"make {name}" for name in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE) if name not in targets
    ]
    for name in re.findall(r"python -m (benchmarks\.\w+)", text):
        if not (ROOT / f"{name.replace('.', '/')}.py").is_file():
            missing.append(name)
    for name in re.findall(r"`((?:neurodyn|datasets|recipes|benchmarks|docs|tests)/[\w/.-]*)`", text):
        if not (ROOT / name).exists():
            missing.append(name)
    assert missing == []


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("page", "what"),
    [("own-sde", "class Bistable(SDE)"), ("own-posterior", "(Posterior)"), ("own-dataset", "def load(")],
)
def test_an_extension_is_one_block_of_at_most_30_lines(page: str, what: str) -> None:
    """Imports included. The page itself, which is run above, fits or forecasts with it, with no other file changed."""
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    block = next(block for block in tool.blocks(text) if what in block.code)
    assert len([line for line in block.code.splitlines() if line.strip()]) <= 30
    assert re.search(r"\bfit\(model|neurodyn forecast --dataset", text[block.end :])


def test_blocks_are_found_with_their_output_and_lines() -> None:
    text = "# A\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n<!-- no-run -->\n```python\nx = 2\n```\n"
    first, second = tool.blocks(text)
    assert (first.code, first.line, first.shown, first.runs) == ("print(1)\n", 4, "1\n", True)
    assert (second.code, second.line, second.shown, second.runs) == ("x = 2\n", 13, "", False)


def test_commands_are_run_and_must_succeed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "```shell\nneurodyn datasets list > 'a b.txt'\n```\n\n```shell\nneurodyn --version\n```\n"
    page.write_text(text)
    printed = [out for _, out in tool.run(page, tmp_path)]
    assert printed[0] == "" and printed[1].startswith("neurodyn ") and "pbcseq" in (tmp_path / "a b.txt").read_text()
    for wrong in ("neurodyn datasets lst", "rm x"):
        page.write_text(f"```shell\n{wrong}\n```\n")
        with pytest.raises(AssertionError, match=wrong.split()[0]):
            list(tool.run(page, tmp_path))


def test_output_is_written_in_its_place_and_old_output_goes() -> None:
    text = "a\n\n```python\nprint(1)\n```\n\nb\n\n```python\nx = 1\n```\n\n```text\nold\n```\n\nc\n"
    first, second = tool.blocks(text)
    new = tool.rewritten(text, [(first, "1\n"), (second, "")])
    assert new == "a\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\nb\n\n```python\nx = 1\n```\n\nc\n"
    assert tool.rewritten(new, [(block, block.shown) for block in tool.blocks(new)]) == new


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("crps 0.400", "crps   0.405", True),
        ("crps 0.400", "crps 0.450", False),
        ("312 rows", "311 rows", False),
        ("312 rows", "312 patients", False),
        ("", "anything", False),
        ("-19.86 nats", "-19.99 nats", True),
        ("-19.86 nats", "19.86 nats", False),
        ("79 % inside", "77 % inside", True),
        ("79 % inside", "70 % inside", False),
    ],
)
def test_outputs_may_differ_by_rounding_only(shown: str, printed: str, same: bool) -> None:
    assert (tool.differences(shown, printed) == []) == same


def test_a_page_with_wrong_code_fails_with_its_own_line(tmp_path: Path) -> None:
    page = tmp_path / "wrong.md"
    page.write_text("# A\n\n```python\nx = 1\n```\n\n```python\n\nraise ValueError('here')\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match="here") as caught:
        list(tool.run(page, tmp_path))
    assert caught.traceback[-1].lineno + 1 == 9
