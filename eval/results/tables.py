"""The records themselves on a page: a heading, a table, what it needs to be read, the command, where it came from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from ...configs.world import REPORT_STARTS
from ..catalog.measured import read_measured
from ..compare.comparison import FILE as COMPARISON
from ..compare.comparison import read_comparison
from ..ledger.origin import origin, repeat_command
from ..ledger.record import MANIFEST, Record, read_record
from ..ledger.study import Study, read_study, show, table
from ..ledger.summary import summarize
from ..statistics.intervals import wilson
from .pages import Page, Section

EXPERTS = "experts"
FOLD = 16  # a table of more rows is shown folded
RUNS = ("run", "policy", "world", "env seeds", "n", "success", "best progress", "date", "commit")
MEASURED = ("task", "expert", "env seeds", "n", "success", "best progress", "length, steps", "date", "commit")
NOWHERE = re.compile(r"(--(?:out|record)[= ])(?:DIR|FILE\S*|eval/records/\S+)")


class Words:
    """How a page says what older records said otherwise: names of paths, then today's terms."""

    def __init__(self, names: Mapping[str, str], terms: Sequence[tuple[str, str]]):
        longest = sorted(names, key=len, reverse=True)
        self.names = {name: names[name] for name in longest}
        self._paths = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
        self._terms = [(re.compile(old), new) for old, new in terms]

    def __call__(self, cell):
        if not isinstance(cell, str):
            return cell
        text = self._paths.sub(lambda found: self.names[found[0]], cell)
        for old, new in self._terms:
            text = old.sub(new, text)
        return text


def rows_with(study: Study, wanted: Sequence[str]) -> list[Sequence]:
    """The rows that hold all these texts: of a cell, alone or after its column's name (`n=20`)."""
    return [row for row in study.rows if set(map(str, wanted)) <= _texts(study.columns, row)]


def _texts(columns: Sequence[str], row: Sequence) -> set[str]:
    shown = [show(cell) for cell in row]
    return {*shown, *(f"{column}={text}" for column, text in zip(columns, shown, strict=True))}


def sections(page: Page, root: Path, up: str, words: Words) -> Iterator[str]:
    """The sections of a page; `up` leads from its folder to that of the records."""
    shared = _shared_notes(page, root)
    for tables, notes in shared.items():
        yield f"{tables}:\n"
        yield "\n".join(f"- {_sentence(words(note))}" for note in notes) + "\n"
    told = {note for notes in shared.values() for note in notes}
    for section in page.sections:
        yield f"### {section.title}\n"
        if section.text:
            yield f"{section.text}\n"
        if not section.records:
            yield f"No record yet. What makes it:\n\n{_block(section.fill)}"
        yield from _records(section, root, up, words, told)


def _records(section: Section, root: Path, up: str, words: Words, told: Container[str]) -> Iterator[str]:
    runs = [root / name for name in section.records if (root / name / MANIFEST).is_file()]
    measured = [name for name in section.records if name.startswith(f"{EXPERTS}/")]
    if runs:
        yield from _evaluations(runs, root, up, words, section.command)
    if measured:
        yield from _experts(measured, root, up)
    studies = [name for name in section.records if root / name not in runs and name not in measured]
    for name in studies:
        yield from _study(name, read_study(root / f"{name}.json"), up, words, told, section.command)


def _evaluations(runs: Sequence[Path], root: Path, up: str, words: Words, command: str) -> Iterator[str]:
    records = [read_record(run) for run in runs]
    rows = [run_row(record, root, up) for record in records]
    yield _folded([table(RUNS, [(link, *map(words, cells)) for link, *cells in rows])], len(rows))
    name = {record.root: record.root.relative_to(root).as_posix() for record in records}
    commands = dict.fromkeys(_evaluate(record, name[record.root]) for record in records)
    yield _block(command or "\n".join(commands))
    for folder in dict.fromkeys(run.parent for run in runs):
        if (folder / COMPARISON).is_file():
            yield words(conclusion(read_comparison(folder))) + "\n"


def _evaluate(record: Record, name: str) -> str:
    """The command that makes a record again, into a folder that is new at every second."""
    return repeat_command(record.manifest, "OUT").removesuffix("OUT") + f'"out/again/{name}-$(date +%s)"'


def conclusion(comparison: Mapping) -> str:
    """What a comparison of the runs above allows to say, with its caveats."""
    names = {part["label"]: part["record"] for part in comparison["contestants"]}
    sentences = [comparison["sequential"]["says"]] if comparison["sequential"] else []
    sentences += [part["says"] for part in comparison["differences"]]
    who = ", ".join(f"{label} is `{record}`" for label, record in names.items())
    return "\n".join([f"Compared ({who}):\n", *(f"- {text}" for text in [*sentences, *comparison["caveats"]])])


def run_row(record: Record, root: Path, up: str) -> tuple:
    """The cells of `RUNS`."""
    summary, manifest = summarize(record), record.manifest
    train = manifest.get("policy", {}).get("train") or {}
    seed = "" if train.get("seed") is None else f", train seed {train['seed']}"
    unfinished = f" of {summary.asked}, stopped early" if summary.n < summary.asked else ""
    first = manifest.get("starts", {}).get("first", REPORT_STARTS)
    return (
        f"[{record.root.name}]({up}/{record.root.relative_to(root).as_posix()})",
        summary.title + seed,
        summary.world,
        summary.starts.replace("..", "-") + (" (validation)" if first < REPORT_STARTS else ""),
        f"{summary.n}{unfinished}" + (f", {summary.errors} in error" if summary.errors else ""),
        f"{summary.successes}: {show(tuple(summary.success))}",
        show(tuple(summary.progress)),
        *origin(manifest),
    )


def _experts(names: Sequence[str], root: Path, up: str) -> Iterator[str]:
    rows = []
    for name in names:
        path = root / f"{name}.json"
        measured = read_measured(path.stem, path.parent)
        if measured is None:
            raise ValueError(f"{path} was not written by this version of `understudy list experts --measure`")
        seeds = f"{measured.first}-{measured.first + measured.episodes - 1}"
        success = f"{measured.successes}: {show(tuple(wilson(measured.successes, measured.episodes)))}"
        reached = measured.episodes, success, measured.best_progress, measured.length
        link = f"[{measured.task}]({up}/{name}.json)"
        rows.append((link, measured.expert, seeds, *reached, *origin(measured.provenance)))
    yield _folded([table(MEASURED, rows)], 0)
    yield _block("\n".join(f"understudy list experts --only {Path(name).name} --measure 100" for name in names))


def _study(name: str, study: Study, up: str, words: Words, told: Container[str], command: str) -> Iterator[str]:
    date, commit = origin(study.provenance)
    rows = [tuple(words(cell) for cell in row) for row in study.rows]
    yield _folded([table([words(column) for column in study.columns], rows)], len(rows))
    own = [_sentence(words(note)) for note in study.notes if note not in told]
    if own:
        yield "\n".join(f"- {note}" for note in own) + "\n"
    yield f'Record: [{name}]({up}/{name}.json), "{words(study.title)}", {date}, {commit}.\n'
    yield _block(command or NOWHERE.sub(lambda found: f"{found[1]}out/again/{name}{_suffix(found[0])}", study.command))


def _suffix(words: str) -> str:
    return "" if words.endswith("DIR") else ".json"


def _shared_notes(page: Page, root: Path) -> dict[str, list[str]]:
    """Notes of three tables or more, or of all, by the tables that they belong to."""
    places: dict[str, dict[str, str]] = {}  # note -> record -> title of its section
    studies = 0
    for section in page.sections:
        for name in section.records:
            path = root / f"{name}.json"
            if path.is_file() and path.parent.name != EXPERTS:
                studies += 1
                for note in read_study(path).notes:
                    places.setdefault(note, {})[name] = section.title

    shared: dict[str, list[str]] = {}
    for note, where in places.items():
        if len(where) > 2 or 1 < len(where) == studies:
            titles = "; ".join(f"*{title}*" for title in dict.fromkeys(where.values()))
            shared.setdefault("All tables" if len(where) == studies else titles, []).append(note)
    return shared


def _sentence(note: str) -> str:
    text = " ".join(note.split()).rstrip(".") + "."
    return text[0].upper() + text[1:] if text.split(" ", 1)[0].isalpha() else text


def _folded(lines: Sequence[str], rows: int) -> str:
    """A table, behind a line that opens it where it is long."""
    text = "\n".join(lines)
    if rows <= FOLD:
        return text + "\n"
    return f"<details><summary>{rows} rows</summary>\n\n{text}\n\n</details>\n"


def _block(command: str) -> str:
    return f"```\n{command.strip()}\n```\n"


def steps(command: str, needs: Sequence[tuple[str, str]]) -> str:
    """One command that makes what is missing first: pasted twice, it makes nothing twice."""
    parts = [f"{{ test -e {shlex.quote(made)} || {how}; }}" for made, how in needs]
    return " && \\\n".join([*parts, command])
