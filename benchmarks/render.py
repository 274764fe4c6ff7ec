"""Put the tables of `benchmarks/results/*.json` into the docs: `python -m benchmarks.render [--check]`.

A page asks for a table with two markers, and what stands between them is replaced:

    <!-- table: NAME -->
    <!-- end table -->
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.records import RESULTS, ROOT, Record, read_records

_SLOT = re.compile(r"(?P<open><!-- table: (?P<name>[^>]+?) -->\n)(?P<body>.*?)(?P<close><!-- end table -->)", re.DOTALL)
_OPEN = re.compile(r"<!-- table: ([^>]+?) -->")


def format_number(value: float) -> str:
    """Three digits after the point below 10, fewer above: numbers of one column stay comparable."""
    size = abs(value)
    if size and size < 0.001:
        return f"{value:.1e}"
    return f"{value:.{3 if size < 10 else 1 if size < 1000 else 0}f}"


def _counts(records: Iterable[Record]) -> set[str]:
    """Columns of counts: whole numbers without a unit, none of them a mean, not all 0 or 1."""
    columns: dict[str, list[Record]] = {}
    for record in records:
        columns.setdefault(record.column, []).append(record)
    return {
        name
        for name, own in columns.items()
        if all(not record.unit and record.low is None and record.value == round(record.value) for record in own)
        and max(abs(record.value) for record in own) > 1
    }


def _cell(records: Sequence[Record], best: set[tuple[str, str, str, str]], count: bool) -> str:
    shown = []
    for record in records:
        text = f"{record.value:.0f}" if count else format_number(record.value)
        if record.key in best:
            text = f"**{text}**"
        if record.low is not None and record.high is not None:
            text += f" ({format_number(record.low)}-{format_number(record.high)})"
        shown.append(text)
    return "; ".join(shown)


def _best(records: Iterable[Record]) -> set[tuple[str, str, str, str]]:
    """Keys of each column's best records, those that print alike included."""
    columns: dict[str, list[Record]] = {}
    for record in records:
        if record.better:
            columns.setdefault(record.column, []).append(record)
    best = set()
    for column in columns.values():
        choose = min if column[0].better == "lower" else max
        winner = format_number(choose(record.value for record in column))
        best |= {record.key for record in column if format_number(record.value) == winner and len(column) > 1}
    return best


def render_table(records: Sequence[Record]) -> str:
    """A Markdown table of one table's records, with what made it beneath; rows and columns in order of first mention.

    Published numbers get rows of their own, marked with a number for their source.
    """
    sources = list(dict.fromkeys(record.source for record in records if record.source))
    labels = {
        record.key: record.row + (f" [{sources.index(record.source) + 1}]" if record.source else "")
        for record in records
    }
    rows = dict.fromkeys(labels.values())
    columns: dict[str, str] = {}
    for record in records:
        unit = f" ({record.unit})" if record.unit else ""
        columns.setdefault(record.column, record.column + unit)
    best, counts = _best(records), _counts(records)
    head = ["", *columns.values()]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(columns)]
    for row in rows:
        cells = [
            _cell([r for r in records if labels[r.key] == row and r.column == column], best, column in counts)
            for column in columns
        ]
        lines.append("| " + " | ".join([row, *cells]) + " |")
    return "\n".join([*lines, "", *_provenance(records, sources, bool(best))]) + "\n"


def _provenance(records: Sequence[Record], sources: Sequence[str], bold: bool) -> list[str]:
    notes = []
    for command in dict.fromkeys(record.command for record in records if record.command):
        own = [record for record in records if record.command == command]
        dates = sorted({record.date for record in own})
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        # a record of seeds that were shared out between machines names them all
        machines = "; ".join(dict.fromkeys(part for record in own for part in record.hardware.split("; ")))
        packages = dict.fromkeys(", ".join(f"{k} {v}" for k, v in record.versions.items()) for record in own)
        counts = sorted({len(record.seeds) for record in own} - {0})
        text = f"Made by `{command}` on {when}: {machines}; {'; '.join(packages)}."
        if counts and counts[-1] > 1:
            several = f"{counts[-1]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
            text += f" Means over {several}, in brackets the lowest and the highest."
        notes.append(text)
    notes += [f"[{number}] Published: {source}." for number, source in enumerate(sources, 1)]
    if bold:
        notes.append("Bold: best of its column.")
    return notes


def load_tables(results: Path = RESULTS) -> dict[str, list[Record]]:
    """Records of every table in a folder of results."""
    tables: dict[str, list[Record]] = {}
    for path in sorted(results.glob("*.json")):
        for record in read_records(path):
            tables.setdefault(record.table, []).append(record)
    return tables


def render_page(text: str, tables: dict[str, list[Record]]) -> str:
    """A page's text with its tables filled in.

    Raises ValueError for a table that no file has, and for a marker without its end.
    """
    slots = [match["name"] for match in _SLOT.finditer(text)]
    for name in _OPEN.findall(text):
        if name not in slots:
            raise ValueError(f"<!-- table: {name} --> has no <!-- end table --> of its own")
        if name not in tables:
            raise ValueError(f"<!-- table: {name} --> asks for a table that no file in benchmarks/results has")
    return _SLOT.sub(lambda match: match["open"] + render_table(tables[match["name"]]) + match["close"], text)


def pages(root: Path = ROOT) -> list[Path]:
    """The pages that may hold tables: the README and everything in docs."""
    return [path for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))] if path.is_file()]


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Render all pages, or with --check say which differ from the results: 1 if a page differs or cannot be made."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.render", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a page differs from the results"
    )
    check = parser.parse_args(arguments).check
    failed = False
    try:
        tables = load_tables(root / "benchmarks" / "results")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for path in pages(root):
        name = path.relative_to(root)
        old = path.read_text(encoding="utf-8")
        try:
            new = render_page(old, tables)
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        if new != old and check:
            print(f"{name} differs from benchmarks/results: run python -m benchmarks.render", file=sys.stderr)
            failed = True
        elif new != old:
            path.write_text(new, encoding="utf-8")
            print(f"{name}: tables rendered")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
