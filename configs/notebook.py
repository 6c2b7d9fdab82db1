"""How our objects show themselves: a few named facts, as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape


def facts_text(name: str, facts: Mapping[str, str]) -> str:
    """`Name` and a line for each fact."""
    width = max(map(len, facts), default=0)
    return "\n".join([name, *(f"  {key:<{width}}  {value}" for key, value in facts.items())])


def facts_html(facts: Mapping[str, str]) -> str:
    """A table of two columns."""
    rows = (f"<tr><th style='text-align:left'>{escape(k)}</th><td style='text-align:left'>{escape(v)}</td></tr>"
            for k, v in facts.items())  # fmt: skip
    return f"<table>{''.join(rows)}</table>"


def rows_html(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table with a head."""
    first = "".join(f"<th style='text-align:left'>{escape(cell)}</th>" for cell in head)
    rest = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{first}</tr>{rest}</table>"
