"""`understudy results`: RESULTS.md from the committed records, so that no number in it was typed by hand.

Three kinds of record lie under `eval/records/`: folders with a manifest and a table of episodes (`ledger/record.py`),
what was measured of the scripted experts (`experts/*.json`, `catalog/measured.py`), and studies (any other `*.json`,
`ledger/study.py`). A `compare.json` beside such folders says what may be concluded from them (`compare/comparison.py`);
an `about.md` is copied above their table: what was trained, and how. The text depends on these files alone: running
twice gives the same bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..configs.files import replace_text
from ..configs.world import REPORT_STARTS
from .catalog.measured import read_measured
from .compare.comparison import FILE as COMPARISON
from .compare.comparison import read_comparison
from .ledger.chains import check_chain, check_committed, read_chains, used, used_by_policy
from .ledger.origin import origin, repeat_command
from .ledger.record import MANIFEST, Record, read_record
from .ledger.study import read_study, show, table
from .ledger.summary import summarize
from .statistics.intervals import wilson

RECORDS = Path(__file__).parent / "records"
EXPERTS, ABOUT = "experts", "about.md"
HEAD = """\
# Results

Made from `eval/records/` by `understudy results`; do not edit. Success: share of the episodes, with Wilson's 95 %
interval. Progress: mean over the episodes of the best progress (0 to 1), with a 95 % t interval. Both say how sure one
may be of *this checkpoint* on fresh episodes; another training seed differs by more. Env seeds 0-999 serve to choose
among policies, 1000 and up to report. A commit with `+` had uncommitted changes: it alone does not make the number
again; no more of these are taken. How the policies, critics and data were made: `eval/records/chains.yaml`.

Policies of records up to 2026-11-27 were trained without the linear skip and the input bound, the default since. To
train them again as they were: `--policy.linear_skip false --policy.input_bound null` (one-step policies and
regression take the second alone, critics `--critic.input_bound null`).
"""
RUNS = ("run", "policy", "world", "env seeds", "n", "success", "best progress", "date", "commit")
MEASURED = ("task", "expert", "env seeds", "n", "success", "best progress", "length, steps", "date", "commit")


class StaleError(ValueError):
    """RESULTS.md does not say what the records say."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Write RESULTS.md from the committed records, or check that it is current."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ()

    records: Path = RECORDS  # folder of records
    out: Path = RECORDS.parent.parent / "RESULTS.md"  # file to write
    check: bool = False  # write nothing; fail where the file is not current or a record cannot be made again

    def run(self) -> None:
        text = render(self.records)
        if not self.check:
            replace_text(self.out, text)
            print(f"wrote {self.out}")
        elif not self.out.is_file() or self.out.read_text() != text:
            raise StaleError(f"{self.out} is not what {self.records} says; run `understudy results` and commit it")
        else:
            check_records(self.records)
            print(f"{self.out} is current")


def check_records(root: Path) -> None:
    """Refuse records that nobody else can make: a piece without a command, or code that was not committed.

    Raises:
        ChainError: the first one, and what is missing.
    """
    chains, changed = read_chains(root), {}
    for path in sorted(root.rglob("*.json")):
        folder, name = path.parent, path.relative_to(root).as_posix()
        if path.name == COMPARISON:
            continue
        if path.name == MANIFEST:
            name, manifest = folder.relative_to(root).as_posix(), read_record(folder).manifest
            paths, provenance = used_by_policy(manifest), manifest
        elif folder == root / EXPERTS:
            paths, provenance = [], getattr(read_measured(path.stem, folder), "provenance", {})
        else:
            study = read_study(path)
            paths, provenance = used(study.command), study.provenance
        check_chain(chains, name, paths)
        changed[name] = bool((provenance.get("code") or {}).get("changed"))
    check_committed(chains, changed)


def render(root: Path = RECORDS) -> str:
    """The text of RESULTS.md.

    Raises:
        FileNotFoundError: no such folder.
        StudyError, RecordError: a file that is none of the three kinds, by name.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of records at {root}")
    parts = [HEAD, *evaluations(root), *experts(root), *studies(root)]
    return "\n".join(parts)


def evaluations(root: Path) -> Iterator[str]:
    """A section for each experiment: its episode records and the commands that repeat them."""
    experiments = defaultdict(list)
    for manifest in sorted(root.rglob(MANIFEST)):
        experiments[manifest.parent.parent].append(manifest.parent)
    for folder, runs in experiments.items():
        records = [read_record(run) for run in runs]
        yield f"## {folder.relative_to(root).as_posix()}\n"
        yield from _about(folder)
        yield table(RUNS, [run_row(record, root) for record in records]) + "\n"
        commands = dict.fromkeys(repeat_command(record.manifest) for record in records)
        yield "```\n" + "\n".join(commands) + "\n```\n"
        if (folder / COMPARISON).is_file():
            yield conclusion(read_comparison(folder)) + "\n"


def conclusion(comparison: Mapping) -> str:
    """What a comparison of the runs above allows to say, with its caveats."""
    names = {part["label"]: part["record"] for part in comparison["contestants"]}
    sentences = [comparison["sequential"]["says"]] if comparison["sequential"] else []
    sentences += [part["says"] for part in comparison["differences"]]
    who = ", ".join(f"{label} is `{record}`" for label, record in names.items())
    return "\n".join([f"Compared ({who}):\n", *(f"- {text}" for text in [*sentences, *comparison["caveats"]])])


def run_row(record: Record, root: Path) -> tuple:
    """The cells of `RUNS`."""
    summary, manifest = summarize(record), record.manifest
    train = manifest.get("policy", {}).get("train") or {}
    seed = "" if train.get("seed") is None else f", train seed {train['seed']}"
    unfinished = f" of {summary.asked}, stopped early" if summary.n < summary.asked else ""
    first = manifest.get("starts", {}).get("first", REPORT_STARTS)
    return (
        f"[{record.root.name}](eval/records/{record.root.relative_to(root).as_posix()})",
        summary.title + seed,
        summary.world,
        summary.starts.replace("..", "-") + (" (validation)" if first < REPORT_STARTS else ""),
        f"{summary.n}{unfinished}" + (f", {summary.errors} in error" if summary.errors else ""),
        f"{summary.successes}: {show(tuple(summary.success))}",
        show(tuple(summary.progress)),
        *origin(manifest),
    )


def experts(root: Path) -> Iterator[str]:
    """What the scripted experts reached."""
    folder, rows = root / EXPERTS, []
    for path in sorted(folder.glob("*.json")):
        measured = read_measured(path.stem, folder)
        if measured is None:
            raise ValueError(f"{path} was not written by this version of `understudy list experts --measure`")
        starts = f"{measured.first}-{measured.first + measured.episodes - 1}"
        success = f"{measured.successes}: {show(tuple(wilson(measured.successes, measured.episodes)))}"
        reached = measured.episodes, success, measured.best_progress, measured.length
        rows.append((measured.task, measured.expert, starts, *reached, *origin(measured.provenance)))
    if rows:
        yield f"## {EXPERTS}\n"
        yield from _about(folder)
        yield table(MEASURED, rows) + "\n"
        yield "```\nunderstudy list experts --only NAME --measure 100\n```\n"


def studies(root: Path) -> Iterator[str]:
    """All other JSON files: one table each, by folder."""
    folders = defaultdict(list)
    for path in sorted(root.rglob("*.json")):
        if path.name not in (MANIFEST, COMPARISON) and path.parent != root / EXPERTS:
            folders[path.parent].append(path)
    for folder, paths in folders.items():
        yield f"## {folder.relative_to(root).as_posix()}\n"
        yield from _about(folder)
        for path in paths:
            study = read_study(path)
            date, commit = origin(study.provenance)
            yield f"### {study.title}\n"
            yield study.markdown() + "\n"
            text = " ".join(" ".join(note.split()).rstrip(".") + "." for note in study.notes)
            yield f"{text} [{path.name}](eval/records/{path.relative_to(root).as_posix()}), {date}, {commit}\n".lstrip()
            yield f"```\n{study.command.strip()}\n```\n"


def _about(folder: Path) -> Iterator[str]:
    if (folder / ABOUT).is_file():
        yield (folder / ABOUT).read_text().strip() + "\n"
