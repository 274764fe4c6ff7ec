"""One self-contained HTML page: text, tables and pictures in one file that needs no network and runs no script.

Everything given as text is escaped. The page follows the reader's light or dark setting, and on a narrow screen wide
tables and pictures scroll inside their own boxes.
"""

from __future__ import annotations

import base64
import html
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from neurodyn import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CSS = """
:root { color-scheme: light dark; --page: #f7f8fa; --card: #ffffff; --ink: #1f2933; --quiet: #5b6470; --line: #e1e5ea;
  --accent: #0068a5; --best: #e3f1fa; --good: #00785a; --look: #8f5a00; --bad: #b34700; --code: #f0f2f5; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --card: #1c2229; --ink: #e6e9ed; --quiet: #a0a9b4;
  --line: #323a44; --accent: #6cb8ea; --best: #173a52; --good: #3cc79c; --look: #f0b54a; --bad: #ff9559;
  --code: #262d36; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; }
p { margin: .55rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
.subtitle { color: var(--quiet); margin: 0 0 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .92rem; margin: 0 0 1.2rem; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.15rem 1.3rem 1.25rem;
  margin: 0 0 1.1rem; }
section.lead { border-left: .3rem solid var(--accent); }
.lead p { font-size: 1.06rem; }
.scroll { overflow-x: auto; max-width: 100%; -webkit-overflow-scrolling: touch; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
figure { margin: 1rem 0 .4rem; }
figure .scroll { background: #ffffff; border: 1px solid var(--line); border-radius: .4rem; padding: .5rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: var(--quiet); font-size: .9rem; margin: .45rem 0 .2rem; max-width: 46rem; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .34rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 600; vertical-align: bottom; border-bottom-width: 2px;
  white-space: normal; }
tbody th, thead th:first-child { text-align: left; font-weight: 600; }
th:first-child { padding-left: .2rem; position: sticky; left: 0; background: var(--card); }
td.best { background: var(--best); font-weight: 700; }
td.text, th.text { text-align: left; }
tr.ours th::after { content: " \\25C2 this model"; color: var(--accent); font-weight: 400; font-size: .84em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.1rem; margin: .6rem 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
ul.verdicts { list-style: none; padding: 0; margin: .4rem 0; }
ul.verdicts li { display: grid; grid-template-columns: 4.2rem 1fr; gap: .8rem; padding: .6rem 0;
  border-top: 1px solid var(--line); }
ul.verdicts li:first-child { border-top: 0; }
ul.verdicts p { margin: .1rem 0 0; }
.chip { border: 1.5px solid currentColor; border-radius: 1rem; text-align: center; font-size: .84rem; font-weight: 700;
  height: 1.65rem; line-height: 1.5rem; }
.good { color: var(--good); } .look { color: var(--look); } .bad { color: var(--bad); }
.reading { color: var(--quiet); font-weight: 400; }
pre { background: var(--code); border-radius: .4rem; padding: .7rem .9rem; overflow-x: auto; font-size: .87rem;
  line-height: 1.45; margin: .6rem 0; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
footer { color: var(--quiet); font-size: .85rem; }
@media (max-width: 40rem) {
  main { padding: 1.2rem .7rem 3rem; } h1 { font-size: 1.4rem; } section { padding: .95rem .9rem 1rem; }
  figure img.wide { max-width: none; width: 42rem; } tr.ours th::after { display: block; }
  figure:has(img.wide) figcaption::before { content: "Scrolls sideways. "; font-style: italic; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .45rem; }
  ul.verdicts li { grid-template-columns: 1fr; gap: .3rem; } .chip { width: 4.2rem; } }
@media print { body { background: #fff; } section { break-inside: avoid-page; } nav { display: none; } }
"""


class Section:
    """One card of a page; its methods append blocks and return the section."""

    def __init__(self, title: str, lead: bool = False) -> None:
        self.title = title
        self.lead = lead
        self.blocks: list[str] = []

    def text(self, text: str) -> Section:
        """Paragraphs, apart by blank lines."""
        self.blocks += [f"<p>{escape(part.strip())}</p>" for part in re.split(r"\n\s*\n", text) if part.strip()]
        return self

    def heading(self, text: str) -> Section:
        """A smaller heading."""
        self.blocks.append(f"<h3>{escape(text)}</h3>")
        return self

    def facts(self, facts: Mapping[str, Any]) -> Section:
        """Names and what they are."""
        rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
        self.blocks.append(f"<dl>{rows}</dl>")
        return self

    def code(self, text: str) -> Section:
        """Text to be typed, as it stands."""
        self.blocks.append(f'<pre tabindex="0"><code>{escape(text)}</code></pre>')
        return self

    def verdicts(self, lines: Sequence[tuple[str, str, str, str]]) -> Section:
        """Findings: (verdict "good", "look" or "bad"; name; reading; sentence)."""
        items = []
        for verdict, name, reading, sentence in lines:
            if verdict not in style.VERDICT:
                raise ValueError(f"lines: want a verdict of {', '.join(style.VERDICT)}, got {verdict!r}")
            items.append(
                f'<li><span class="chip {verdict}">{verdict}</span><div><strong>{escape(name)}</strong> '
                f'<span class="reading">{escape(reading)}</span><p>{escape(sentence)}</p></div></li>'
            )
        self.blocks.append(f'<ul class="verdicts">{"".join(items)}</ul>')
        return self

    def figure(self, figure: Figure | bytes, caption: str, dpi: int = 144) -> Section:
        """A matplotlib figure, or the bytes of a PNG; the caption also stands for it where it can't be seen."""
        content = figure if isinstance(figure, bytes) else style.png(figure, dpi)
        if not content.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError("figure: want a matplotlib Figure or the bytes of a PNG file")
        width, height = (int.from_bytes(content[k : k + 4], "big") for k in (16, 20))
        # At twice the density of the page, so that it is sharp on good screens.
        shown, tall = round(width * 96 / dpi), round(height * 96 / dpi)
        wide = ' class="wide"' if shown > 600 else ""
        data = base64.b64encode(content).decode()
        self.blocks.append(
            f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
            f'<img{wide} src="data:image/png;base64,{data}" width="{shown}" height="{tall}" alt="{escape(caption)}">'
            f"</div><figcaption>{escape(caption)}</figcaption></figure>"
        )
        return self

    def table(
        self,
        table: pd.DataFrame,
        caption: str,
        *,
        best: Mapping[str, Sequence[bool]] | None = None,
        show: Callable[[str, Any], str] | None = None,
        marked_row: str | None = None,
    ) -> Section:
        """A data frame whose index is its first column.

        Args:
            table: what to show.
            caption: below it.
            best: column to a flag per row: shown in bold on a tint.
            show: from a column's name and a value to its text; three significant digits when omitted.
            marked_row: name of the row that is "this model".
        """
        write = show or (lambda _, value: number(value))
        words = {c for c in table.columns if all(isinstance(v, str) for v in table[c])}
        head = f'<th scope="col">{escape(table.index.name or "")}</th>'
        head += "".join(f'<th scope="col"{" class=text" if c in words else ""}>{escape(c)}</th>' for c in table.columns)
        body = []
        for i, (name, line) in enumerate(zip(table.index, table.itertuples(index=False), strict=True)):
            cells = []
            for column, value in zip(table.columns, line, strict=True):
                kind = "best" if best and column in best and best[column][i] else ""
                kind = kind or ("text" if column in words else "")
                mark = f' class="{kind}"' if kind else ""
                cells.append(f"<td{mark}>{escape(write(str(column), value))}</td>")
            ours = ' class="ours"' if marked_row is not None and name == marked_row else ""
            body.append(f'<tr{ours}><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
        self.blocks.append(
            f'<figure class="table"><div class="scroll" style="background:none;border:0;padding:0" tabindex="0" '
            f'role="region" aria-label="{escape(caption)}"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div><figcaption>{escape(caption)}</figcaption></figure>"
        )
        return self


class Page:
    """A page of sections. ``section`` appends one and returns it to be filled."""

    def __init__(self, title: str, subtitle: str = "", footer: str = "") -> None:
        self.title, self.subtitle, self.footer = title, subtitle, footer
        self.sections: list[Section] = []

    def section(self, title: str, *, lead: bool = False) -> Section:
        """A new section at the end; ``lead`` sets it off as the page's summary."""
        self.sections.append(Section(title, lead))
        return self.sections[-1]

    def html(self) -> str:
        """The whole page. A section without a block is left out."""
        filled = [s for s in self.sections if s.blocks]
        links = "".join(f'<a href="#s{k}">{escape(s.title)}</a>' for k, s in enumerate(filled))
        cards = []
        for k, section in enumerate(filled):
            kind = ' class="lead"' if section.lead else ""
            blocks = "\n".join(section.blocks)
            cards.append(f'<section id="s{k}"{kind}><h2>{escape(section.title)}</h2>\n{blocks}\n</section>')
        subtitle = f'<p class="subtitle">{escape(self.subtitle)}</p>' if self.subtitle else ""
        footer = f"<footer><p>{escape(self.footer)}</p></footer>" if self.footer else ""
        # The policy makes sure of what the page promises: nothing is loaded from anywhere, nothing runs.
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
            f"<h1>{escape(self.title)}</h1>\n{subtitle}\n<nav>{links}</nav>\n{chr(10).join(cards)}\n{footer}\n"
            "</main>\n</body>\n</html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, whole or not at all."""
        target = Path(path)
        partial = target.with_name(target.name + ".part")
        partial.write_text(self.html(), encoding="utf-8")
        os.replace(partial, target)
        return target


def escape(text: Any) -> str:
    """Text made safe between tags and inside attributes; a number and its % stay on one line."""
    return re.sub(r"(?<=\d) %", "\u00a0%", html.escape(str(text), quote=True))


def number(value: Any, digits: int = 3) -> str:
    """A number for a table: three significant digits, no exponent between 0.001 and a million; text as it is."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return "\u2013"
    size = abs(float(value))
    sign = "\u2212" if float(value) < 0 else ""
    if math.isinf(size):
        return f"{sign}\u221e"
    if float(value).is_integer() and size < 1e6:
        return f"{sign}{size:,.0f}"
    if size and not 1e-3 <= size < 1e6:
        return f"{sign}{size:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
    return f"{sign}{size:,.{decimals}f}"
