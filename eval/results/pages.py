"""What `pages.yaml` says beside the records: which questions there are, in which words, and which records answer them.

    pages:
      memory:                                     # docs/results/memory.md
        question: Does memory help where the present does not tell what to do?
        answer: It succeeds in {{ cell('grids/a', 'ptp', 'success') | bare }} of the episodes.
        plot: {title: .., axis: success, rows: [{label: with memory, at: "cell('grids/a', 'ptp', 'success')"}]}
        matrix: {..}                              # instead of plot and table: tasks by methods, see `matrix.py`
        table: {columns: [..], rows: [[..]]}
        says: [..]                                # a paragraph each
        failed: [..]                              # negative results
        cost: [..]
        repeat: {command: .., takes: ..}
        claims: [{text: .., number: .., n: ..}]   # rows of the table in RESULTS.md
        names: {runs/a: the first policy}         # what paths are called on this page
        sections: [{title: .., records: [grids/a]}]   # fill: the command that makes records that are not there yet
    terms: [[plans, action chunks]]               # pattern and words: older records say it otherwise

Texts hold no number of a result: they look it up (`facts.py`), and a typed one is refused. Every record is in exactly
one section. A folder of records without such a file gets one page of everything. What no record holds stands in
`notes/PAGE.md` beside the records and is printed last.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ...configs.documents import check_fields
from ..compare.comparison import FILE as COMPARISON
from ..ledger.record import MANIFEST

FILE = "pages.yaml"
NUMBER = re.compile(  # decimals, per cent, thousands, signed and long numbers
    r"(?<![\w.])[-+]?\d*\.\d+|(?<![\w.])[-+]?\d[\d,]*\s?%|(?<![\w.])[-+]\d+|(?<![\w.-])(?:\d{3,}|\d{1,3}(?:,\d{3})+)\b"
)
NEEDED = {  # keys of a page's parts
    "plot": ("title", "axis", "rows"),
    "table": ("columns", "rows"),
    "matrix": ("title", "methods", "rows"),
    "repeat": ("command",),
    "claims": ("text", "number", "n"),
}
LOOKED_UP = re.compile(r"\{\{.*?\}\}|`[^`]*`|\([^()\s]*\)", re.DOTALL)  # templates, code, targets of links


class PagesError(ValueError):
    """A `pages.yaml` that cannot be used; the message says where and why."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading over the tables of some records; a command instead of the one that a study keeps."""

    title: str
    records: Sequence[str]  # names, or patterns such as `pusht/*`
    command: str = ""
    text: str = ""
    fill: str = ""  # what makes the records where there are none yet; else each name must be one


@dataclass(frozen=True, kw_only=True)
class Page:
    """One question. The fields are the keys of `pages.yaml`, all texts templates."""

    name: str
    question: str
    answer: str = ""
    plot: Mapping = field(default_factory=dict)
    matrix: Mapping = field(default_factory=dict)
    table: Mapping = field(default_factory=dict)
    says: Sequence[str] = ()
    failed: Sequence[str] = ()
    cost: Sequence[str] = ()
    repeat: Mapping = field(default_factory=dict)
    claims: Sequence[Mapping] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Section] = ()

    def texts(self) -> Iterator[str]:
        """Every text that a reader sees, before numbers are looked up."""
        yield from (self.question, self.answer, *self.says, *self.failed, *self.cost)
        yield from (str(self.plot.get("title", "")), str(self.repeat.get("takes", "")))
        yield from (str(row.get("label", "")) for row in self.plot.get("rows", ()))
        yield from (str(text) for row in self.table.get("rows", ()) for text in row)
        yield from (str(row.get(part, "")) for row in self.matrix.get("rows", ()) for part in ("task", "training"))
        yield from (str(text) for claim in self.claims for text in claim.values())
        yield from (section.text for section in self.sections)


@dataclass(frozen=True)
class Pages:
    """All pages in their order, and how words of older records are said today."""

    pages: tuple[Page, ...]
    terms: tuple[tuple[str, str], ...] = ()


def record_names(root: Path) -> list[str]:
    """The name of every record: its path in the folder, without `.json`; a comparison goes with what it compares."""
    files = (path for path in sorted(root.rglob("*.json")) if path.name != COMPARISON)
    return [
        (path.parent if path.name == MANIFEST else path.with_suffix("")).relative_to(root).as_posix() for path in files
    ]


def read_pages(root: Path) -> Pages:
    """`pages.yaml` of a folder of records, its patterns resolved.

    Raises:
        PagesError: no such file of ours, a typed number, a record on no page or on two, a pattern without a record.
    """
    import yaml

    path, known = root / FILE, record_names(root)
    if not path.is_file():
        return Pages((Page(name="records", question="Records", sections=tuple(_everything(root, known))),))
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as cause:
        raise PagesError(f"{path} is no YAML: {' '.join(str(cause).split())}") from cause
    if not isinstance(values, dict) or not isinstance(values.get("pages"), dict) or set(values) - {"pages", "terms"}:
        raise PagesError(f"{path} must hold `pages` and may hold `terms`, nothing else")

    terms = values.get("terms") or ()
    if not all(isinstance(term, list) and len(term) == 2 for term in terms):
        raise PagesError(f"{path}: `terms` holds pairs of a pattern and the words for it")
    pages = tuple(_page(name, page, path, known) for name, page in values["pages"].items())
    _check_once(pages, known, path)
    return Pages(pages, tuple((str(old), str(new)) for old, new in terms))


def _everything(root: Path, known: Sequence[str]) -> Iterator[Section]:
    """A section for each study, for the evaluations of one folder, and for the experts."""
    together: dict[str, list[str]] = {}
    for name in known:
        alone = not (root / name / MANIFEST).is_file() and not name.startswith("experts/")
        together.setdefault(name if alone else name.rpartition("/")[0] or name, []).append(name)
    yield from (Section(title=title, records=tuple(names)) for title, names in together.items())


def _page(name: str, values: Mapping, path: Path, known: Sequence[str]) -> Page:
    where = f"{path}: page '{name}'"
    if not isinstance(values, Mapping) or "question" not in values:
        raise PagesError(f"{where} must hold keys, a `question` among them")
    fields: dict[str, Any] = {"name": str(name)} | dict(values)
    check_fields(Page, fields, path, PagesError)
    for part, keys in NEEDED.items():
        for value in fields.get(part, ()) if part == "claims" else filter(None, [fields.get(part)]):
            if missing := [key for key in keys if key not in value]:
                raise PagesError(f"{where}: its {part} lacks '{missing[0]}'")

    sections = []
    for section in values.get("sections") or ():
        if not isinstance(section, Mapping) or not {"title", "records"} <= set(section):
            raise PagesError(f"{where} has a section without `title` and `records`")
        check_fields(Section, dict(section), path, PagesError)
        found = [record for pattern in section["records"] for record in known if fnmatchcase(record, pattern)]
        empty = [each for each in section["records"] if not any(fnmatchcase(record, each) for record in known)]
        if empty and not section.get("fill"):
            raise PagesError(f"{where} names '{empty[0]}', and no record is called so")
        sections.append(Section(**dict(section) | {"records": tuple(found)}))
    sections += _filled(fields.get("matrix") or {}, known)
    page = Page(**fields | {"sections": tuple(sections)})
    for text in page.texts():
        if typed := NUMBER.search(LOOKED_UP.sub("", text)):
            place = f"'{typed[0].strip()}' in '{' '.join(text.split())[:60]}'"
            raise PagesError(f"{where} has {place} typed by hand; look it up in a record: {{{{ cell(..) }}}}")
    return page


def grid_record(grid: str) -> str:
    """The name of the record that the table of `configs/grid/matrix_lift.yaml` becomes: grids/matrix-lift."""
    return f"grids/{Path(grid).stem.replace('_', '-')}"


def _filled(matrix: Mapping, known: Sequence[str]) -> Iterator[Section]:
    """A section for each table of a grid that fills a row of a matrix, once it is among the records."""
    for row in matrix.get("rows", ()):
        record = grid_record(row["grid"]) if row.get("grid") else ""
        if record in known:
            yield Section(title=f"{row['task']}, {row['training']}", records=(record,))


def _check_once(pages: Sequence[Page], known: Sequence[str], path: Path) -> None:
    places = Counter(record for page in pages for section in page.sections for record in section.records)
    if missing := [name for name in known if not places[name]]:
        raise PagesError(f"{path}: the record '{missing[0]}' is on no page; add it to the section that it belongs to")
    if twice := [name for name, count in places.items() if count > 1]:
        raise PagesError(f"{path}: the record '{twice[0]}' is in {places[twice[0]]} sections; it belongs in one")
