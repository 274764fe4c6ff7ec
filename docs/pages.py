"""Run the Python of the pages: `python docs/pages.py [--write] [PAGE ...]`.

Every block of a page marked ```python is run, in order, in one namespace and in a folder of its own; the commands of a
block marked ```shell are run as well, inside the same process. A ```text block right after one is what it printed. With
--write these blocks are written anew, and the pictures that a page both makes and shows are copied into docs/images. A
block under the comment <!-- no-run --> is only compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"

_BLOCK = re.compile(
    r"(?P<skip><!-- no-run -->\n\s*)?^```(?P<language>python|shell)\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<shown>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
_IMAGE = re.compile(r"!\[[^\]]*\]\((?P<path>[^)\s]*\.png)\)")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")


@dataclass(frozen=True)
class Block:
    """Code of a page, the line it starts at, what the page says that it prints ("" for nothing), whether it is run."""

    code: str
    line: int
    shown: str
    runs: bool
    end: int
    """Place in the page's text where the code's fence ends."""
    after: int
    """Place where its output ends."""


def pages(root: Path = ROOT) -> list[Path]:
    """The README and everything in docs."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    """The blocks of a page that are run, in order."""
    found = []
    for match in _BLOCK.finditer(text):
        end = match.end("code") + len("```\n")
        line = text.count("\n", 0, match.start("code")) + 1
        code = match["code"] if match["language"] == "python" else _calls(match["code"])
        found.append(Block(code, line, match["shown"] or "", not match["skip"], end, match.end()))
    return found


def _calls(shell: str) -> str:
    """Commands `neurodyn ... [> FILE]`, one a line, as Python that runs them."""
    return "".join(f"COMMAND({shlex.split(line)!r})\n" for line in shell.splitlines())


def command(words: list[str]) -> None:
    """Run one command of a page; AssertionError if it is none of ours or does not succeed."""
    from neurodyn.cli import main as neurodyn

    out = None
    if ">" in words:
        words, out = words[: words.index(">")], words[-1]
    assert words[0] == "neurodyn", f"{words[0]} is not run, a command of neurodyn wanted"
    with open(out, "w", encoding="utf-8") if out else contextlib.nullcontext() as file:
        with contextlib.redirect_stdout(file) if file else contextlib.nullcontext():
            assert neurodyn(words[1:]) == 0, f"{shlex.join(words)} failed"


def images(page: Path) -> list[Path]:
    """The pictures that a page shows."""
    return [(page.parent / match["path"]).resolve() for match in _IMAGE.finditer(page.read_text(encoding="utf-8"))]


def run(page: Path, folder: Path) -> Iterator[tuple[Block, str]]:
    """Each block of a page with what it printed, run in `folder`; blocks that are not run are compiled."""
    module = ModuleType(f"page_{page.stem.replace('-', '_')}")
    module.__dict__["COMMAND"] = command
    sys.modules[module.__name__] = module  # dataclasses and type hints look their module up
    with contextlib.chdir(folder):
        for block in blocks(page.read_text(encoding="utf-8")):
            # empty lines in front, so that a traceback names the page's own lines
            code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
            printed = io.StringIO()
            if block.runs:
                with contextlib.redirect_stdout(printed):
                    exec(code, module.__dict__)
            yield block, printed.getvalue()


def differences(shown: str, printed: str) -> list[str]:
    """Where two outputs differ: in words and counts at all, in other numbers by more than rounding may do.

    Training follows other rounding on other processors: 5 % and 0.02 are allowed there, 3 points in percentages.
    """
    words = [" ".join(_NUMBER.sub("#", text).split()) for text in (shown, printed)]
    if words[0] != words[1]:
        return [f"shown: {shown.strip()!r}", f"printed: {printed.strip()!r}"]
    found = []
    for a, b in zip(_NUMBER.finditer(shown), _NUMBER.finditer(printed), strict=True):
        count = all(re.fullmatch(r"-?\d+", number[0]) for number in (a, b))
        slack = 0.0 if count else 0.02 + 0.05 * max(abs(float(a[0])), abs(float(b[0])))
        if shown[a.end() :].startswith(" %"):
            slack = 3.0
        if abs(float(a[0]) - float(b[0])) > slack:
            found.append(f"{a[0]} shown, {b[0]} printed")
    return found


def rewritten(text: str, outputs: list[tuple[Block, str]]) -> str:
    """The page's text with the outputs in place of those that it shows."""
    for block, printed in reversed(outputs):
        if block.runs:
            shown = f"\n```text\n{printed.rstrip()}\n```\n" if printed.strip() else ""
            text = text[: block.end] + shown + text[block.after :]
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", nargs="*", type=Path, help="all pages if none is named")
    parser.add_argument(
        "--write", action="store_true", help="write outputs into the pages and pictures into docs/images"
    )
    arguments = parser.parse_args()
    failed = False
    for page in [path.resolve() for path in arguments.page] or pages():
        started, name = time.monotonic(), os.path.relpath(page, ROOT)
        with tempfile.TemporaryDirectory() as folder:
            outputs = list(run(page, Path(folder)))
            made = [path for path in images(page) if (Path(folder) / path.name).is_file()]
            faults = [fault for block, printed in outputs if block.runs for fault in differences(block.shown, printed)]
            if arguments.write:
                text = page.read_text(encoding="utf-8")
                page.write_text(rewritten(text, outputs), encoding="utf-8")
                for path in made:
                    shutil.copyfile(Path(folder) / path.name, path)
            else:
                failed |= bool(faults)
                print("\n".join(f"{name}: {fault}" for fault in faults), end="\n" if faults else "")
        print(f"{name}: {len(outputs)} blocks, {time.monotonic() - started:.1f} s")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
