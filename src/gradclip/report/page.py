"""One self-contained page: the verdict first, then a table, then charts. It loads nothing from anywhere."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template

from gradclip._write import replacing
from gradclip.report.charts import Chart, Line
from gradclip.report.notice import Notice
from gradclip.report.table import Table

__all__ = ["Page", "Section", "Table", "render", "write"]


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own."""

    title: str
    parts: Sequence[Table | Chart]
    about: str = ""


@dataclass(frozen=True)
class Page:
    """What is on a page, as plain text and numbers; every text is escaped when it is rendered."""

    title: str
    verdict: str
    about: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """How to make this page again: the command, the seed, the versions."""
    sections: Sequence[Section] = ()
    """What comes after these, part by part."""
    notices: Sequence[Notice] = ()
    """What a reader must know before all else; right under the verdict."""


def write(page: Page, path: Path) -> Path:
    """Write a page, making its folders; returns the absolute path.

    Raises:
        OSError: it cannot be written.
    """
    path = path.absolute()
    with replacing(path) as file:
        file.write(render(page).encode("utf-8", "backslashreplace"))
    return path


def render(page: Page) -> str:
    """Return the page as one HTML document, about 5 MB of which are plotly.js."""
    from plotly.offline import get_plotlyjs

    return Template(_part("page.html")).substitute(
        title=_text(page.title),
        verdict=_text(page.verdict),
        about=f'<p class="about">{_text(page.about)}</p>' if page.about else "",
        notices="\n".join(map(_notice, page.notices)),
        tables="\n".join(map(_table, page.tables)),
        charts=_parts(page.charts, "chart", 2),
        sections="\n".join(_section(i, section) for i, section in enumerate(page.sections)),
        facts="".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in page.facts.items()),
        css=_part("page.css"),
        plotly=get_plotlyjs() if _draws(page) else "",
        script=_part("page.js"),
    )


def _part(name: str) -> str:
    return files("gradclip.report").joinpath(name).read_text(encoding="utf-8")


def _text(words: str) -> str:
    return html.escape(words)


def _json(value: object) -> str:
    """JSON that may stand inside a script element: no ``<`` can end it or open a comment."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _notice(notice: Notice) -> str:
    facts = "".join(f"<li>{_text(fact)}</li>" for fact in notice.facts)
    code = f'<pre tabindex="0"><code>{_text(notice.code)}</code></pre>' if notice.code else ""
    return (
        f'<section class="notice {_text(notice.level)}"><h2>{_text(notice.title)}</h2><p class="kind">{_text(notice.about)}</p>'
        f"<p>{_text(notice.sentence)}</p>{f'<ul>{facts}</ul>' if facts else ''}{code}</section>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"{_align(table, i)}>{_text(name)}</th>' for i, name in enumerate(table.columns))
    body = "\n".join(f"<tr>{''.join(_cells(table, row))}</tr>" for row in table.rows)
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in table.notes)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(table.caption)}"><table>'
        f"<caption><span>{_text(table.caption)}</span></caption><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>{notes}"
    )


def _cells(table: Table, row: Sequence[str]) -> Iterable[str]:
    for i, cell in enumerate(row):
        tag, scope = ("th", ' scope="row"') if i == 0 else ("td", "")
        yield f"<{tag}{scope}{_align(table, i)}>{_text(cell)}</{tag}>"


def _align(table: Table, column: int) -> str:
    return ' class="number"' if column in table.numeric else ""


def _draws(page: Page) -> bool:
    return bool(page.charts) or any(isinstance(part, Chart) for section in page.sections for part in section.parts)


def _section(place: int, section: Section) -> str:
    about = f'<p class="about">{_text(section.about)}</p>' if section.about else ""
    parts = _parts(section.parts, f"chart-{place}", 3)
    heading = f'<h2 id="part-{place}">{_text(section.title)}</h2>'
    return f'<section class="part" aria-labelledby="part-{place}">{heading}{about}\n{parts}\n</section>'


def _parts(parts: Sequence[Table | Chart], name: str, level: int) -> str:
    """Charts in a grid, tables between them over its whole width."""
    if not parts:
        return ""
    drawn = (
        _chart(f"{name}-{i}", part, level) if isinstance(part, Chart) else f'<div class="wide">{_table(part)}</div>'
        for i, part in enumerate(parts)
    )
    return '<div class="charts">\n' + "\n".join(drawn) + "\n</div>"


def _chart(name: str, chart: Chart, level: int) -> str:
    label = _text(f"{chart.title}. {chart.see}")
    return (
        f'<section class="{"wide" if chart.wide else "half"}"><h{level} id="{name}">{_text(chart.title)}</h{level}>\n'
        f'<figure aria-labelledby="{name}">'
        f"<figcaption>{_text(chart.see)}</figcaption>\n"
        f'<div class="plot" role="img" aria-label="{label}" style="height:{chart.height}px"></div>\n'
        f'<script type="application/json">{_json(chart.figure)}</script>\n'
        f"<details><summary>The numbers</summary>{_table(chart.numbers or _numbers(chart))}</details>\n</figure></section>"
    )


def _numbers(chart: Chart) -> Table:
    columns = ("line", "first", "smallest", "largest", "last", "not finite")
    rows = [_extent(line) for line in chart.lines]
    return Table(f"{chart.title}: the ends of each line", columns, rows, frozenset(range(1, 6)))


def _extent(line: Line) -> tuple[str, ...]:
    finite = line.finite
    shown = (finite[0], min(finite), max(finite), finite[-1]) if finite else ()
    numbers = [f"{value:.4g}" for value in shown] or ["–"] * 4
    return line.name, *numbers, str(len(line.values) - len(finite))
