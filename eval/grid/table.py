"""The table of a grid: a line for every setting and evaluation, rates of single seeds and what holds over seeds.

Reads the records in the cells and nothing else. With several training seeds an interval is for the recipe (Student t
over seeds, never narrower than that of all episodes together); with one seed it is for that checkpoint alone, and the
line says so. Written as `table.md` and as `table.json`, a study that `understudy results` can print.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np

from ...configs.command import command_of
from ...configs.files import replace_text
from ..ledger.dreams import doubt_of
from ..ledger.pairs import difference
from ..ledger.record import MANIFEST, Record, read_record
from ..ledger.study import Study
from ..statistics.intervals import Interval, mean_interval
from ..statistics.permutation import MOST_AGENTS, PermutationTest
from ..statistics.seeds import over_seeds, t_interval
from .grid import Cell, Grid

NAME = "table"
ALPHA = 0.05  # probability of a false order, in all
FEWEST = 4  # seeds of two settings in the first group, or no order of theirs is rare enough
DIFFERENCE = (
    "minus {}: difference of the success rates over pairs of the same training seed and initial condition. These "
    "checkpoints: Tango's 95 % interval of all pairs. The recipe: Student t over training seeds, never narrower."
)


def write_table(grid: Grid, cells: Sequence[Cell], failed: Sequence[tuple[Cell, str]]) -> str:
    """Write OUT/table.md and OUT/table.json; returns what is printed."""
    study = tabulate(grid, cells, failed)
    study.write(grid.out / f"{NAME}.json")
    notes = "\n".join(f"- {note}" for note in study.notes)
    text = f"# {study.title}\n\n{study.markdown()}\n\n{notes}\n\n```\n{study.command}\n```\n"
    replace_text(grid.out / f"{NAME}.md", text)
    return f"{text}\ntable           {grid.out / NAME}.md, .json"


def tabulate(grid: Grid, cells: Sequence[Cell], failed: Sequence[tuple[Cell, str]]) -> Study:
    """The table as a study."""
    done = {(cell.setting, name, cell.seed): _finished(cell, name) for cell in cells for name in grid.eval}
    further = _Further(grid, done)

    rows = []
    for setting in dict.fromkeys(cell.setting for cell in cells):
        for name in grid.eval:
            records = [done[setting, name, seed] for seed in grid.seeds]
            rows.append((*_row(setting, name, records), *further.cells(setting, name)))

    seeds = [f"seed {seed}" for seed in grid.seeds]
    notes = [
        "Success: share of the episodes. Over two training seeds or more: 95 % Student t interval over seeds, never "
        "narrower than Wilson's of all episodes; over one seed: Wilson's, for this checkpoint only.",
        "Best progress: mean of the episodes' best progress, with a 95 % interval made in the same way (Student t).",
        *filter(None, (_verdict(grid, cells, name) for name in grid.eval)),
        *further.notes,
        *(f"Failed: {cell}: {why}" for cell, why in failed),
    ]

    columns = ("setting", "evaluation", *seeds, "success", "holds", "best progress", "episodes", *further.columns)
    return Study(title=grid.title, command=_command(grid), columns=columns, rows=rows, notes=notes)


def _verdict(grid: Grid, cells: Sequence[Cell], name: str) -> str:
    """Which settings differ in this evaluation, beyond the luck of training seeds; or why no dream says so."""
    rates = {setting: [] for setting in dict.fromkeys(cell.setting for cell in cells)}
    for cell in cells:
        record = _finished(cell, name)
        if record is not None and (doubt := doubt_of(record.manifest.get("world") or {}, f"evaluation {name}")):
            return f"{doubt}."
        rates[cell.setting].append(None if record is None else float(np.mean(record.column("success"))))
    sentence = verdict(rates, grid.looks)
    return f"{name}: {sentence}" if sentence and len(grid.eval) > 1 else sentence


def _finished(cell: Cell, name: str) -> Record | None:
    """The cell's record of an evaluation that came to its end."""
    folder = cell.folder / name
    record = read_record(folder) if (folder / MANIFEST).is_file() else None
    return record if record is not None and record.manifest.get("complete") else None


def _row(setting: str, name: str, records: Sequence[Record | None]) -> tuple:
    counts, progress, shown = [], [], []
    for record in records:
        if record is None:
            shown.append(None)
            continue
        wins = record.column("success")
        counts.append((sum(wins), len(wins)))
        progress.append(record.column("best_progress"))
        shown.append(f"{sum(wins) / len(wins):.3f} ({sum(wins)} of {len(wins)})")
    if not counts:
        return (setting, name, *shown, None, "nothing finished", None, 0)
    success = over_seeds(*zip(*counts, strict=True))
    holds = f"over {len(counts)} training seeds" if len(counts) > 1 else "for this checkpoint"
    return (setting, name, *shown, success.interval, holds, _mean_progress(progress), sum(n for _, n in counts))


class _Further:
    """Columns that not every grid has: labels that the world gives, differences to the setting `against`."""

    def __init__(self, grid: Grid, done: dict[tuple[str, str, int], Record | None]):
        self.grid, self.done = grid, done
        self.labels = label_names([record for record in done.values() if record is not None])
        differences = (f"minus {grid.against}, these checkpoints", f"minus {grid.against}, the recipe")
        self.columns = (*self.labels, *(differences if grid.against else ()))
        self.notes = (DIFFERENCE.format(grid.against),) if grid.against else ()

    def cells(self, setting: str, name: str) -> tuple:
        ours = self._records(setting, name)
        finished = [record for record in ours if record is not None]
        labels = tuple(label_rate(finished, label) for label in self.labels)
        if not self.grid.against:
            return labels
        if setting == self.grid.against:
            return (*labels, None, None)
        return (*labels, *(difference(ours, self._records(self.grid.against, name)) or (None, None)))

    def _records(self, setting: str, name: str) -> list[Record | None]:
        return [self.done[setting, name, seed] for seed in self.grid.seeds]


def _mean_progress(seeds: Sequence[Sequence[float]]) -> Interval:
    """Mean over seeds of the mean of each, with an interval never narrower than that of all episodes together."""
    pooled = mean_interval(np.concatenate(seeds))
    if len(seeds) == 1:
        return pooled
    spread = t_interval([float(np.mean(values)) for values in seeds])
    return Interval(max(0.0, min(spread.low, pooled.low)), spread.estimate, min(1.0, max(spread.high, pooled.high)))


def _command(grid: Grid) -> str:
    """The words that began this, where this is a command line; else those that ask for the same grid."""
    if sys.argv[1:2] == ["run"]:
        words = re.sub(r"--shard[= ]\S+ ?", "", " ".join(map(shlex.quote, sys.argv[1:]))).strip()
        return f"understudy {words}"
    return command_of(grid, "run", without=("shard", "dry_run"))


def verdict(rates: Mapping[str, Sequence[float | None]], looks: int = 1) -> str:
    """What may be said of the settings.

    Args:
        rates: setting -> success rate of each seed, in one order; None where it is not finished.
        looks: K groups that the seeds were planned to come in.
    """
    names, table = list(rates), list(zip(*rates.values(), strict=True))
    if len(names) < 2:
        return ""

    group = len(table) // looks
    if group < FEWEST or len(names) > MOST_AGENTS:
        return (
            f"No verdict over training seeds: it takes {FEWEST} seeds a look and 2 to {MOST_AGENTS} settings; "
            f"here {len(names)} settings, {len(table)} seeds, {looks} looks."
        )

    test = PermutationTest(names, group, looks, ALPHA, rng=np.random.default_rng(0))
    for row in takewhile(lambda row: None not in row, table[: group * looks]):
        test.update(*row)
        if test.decision in ("A", "B", "done"):
            break

    apart = ", ".join(f"{better} above {worse}" for better, worse in test.better()) or "none"
    left = "" if test.decision else f"; {group * looks - test.n} planned seeds are still to come"
    plan = f"{looks} looks of {group} seeds" if looks > 1 else f"{group} seeds"

    return (
        f"Told apart over training seeds (permutation test, {plan}, at most {ALPHA:g} false in all): {apart}, "
        f"after {test.n} seeds{left}. Not told apart is no evidence of being equal."
    )


def label_names(records: Sequence[Record]) -> tuple[str, ...]:
    """Labels that every episode of every record answers with yes or no, sorted."""
    answered = [
        {name for name, value in labels.items() if isinstance(value, bool)}
        for record in records
        for labels in _labels(record)
    ]
    return tuple(sorted(set.intersection(*answered))) if answered else ()


def label_rate(records: Sequence[Record], name: str) -> Interval | None:
    """Share of the episodes with this label; over several records (training seeds) as `over_seeds`. None for none."""
    counts = [(sum(bool(answers.get(name)) for answers in labels), len(labels)) for labels in map(_labels, records)]
    return over_seeds(*zip(*counts, strict=True)).interval if counts else None


def _labels(record: Record) -> list[dict]:
    return [json.loads(text or "{}") for text in record.column("labels")]
