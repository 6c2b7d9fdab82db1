"""The matrix of a page: tasks by methods, each cell a record with its n and its budget, or a gap that is shown as one.

    matrix:
      title: Success by task and method                       # of the picture
      methods: {diffusion: diffusion, flow: flow matching}    # column -> name
      short: {flow: flow|matching}                            # in the picture; `|` breaks a line
      rows:
        - {task: Lift, training: in full, expert: lift, cells: {diffusion: [lift/diffusion]}}
        - {task: Lift, training: small, cells: {flow: [grids/lift-one-step, flow]}}    # record, and what its row holds
        - {task: Lift, training: equal budgets, grid: configs/grid/matrix_lift.yaml}   # or its table

A cell is evaluations (several: trainings of one recipe), a setting of a grid's table, or a row of a study of policies
alone. Steps, windows a step and demonstrations come from how `chains.yaml` says that each was made (`budget.py`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

from ...configs.settings.load import load
from ..ledger.chains import CODE, MADE, Chains
from ..ledger.record import MANIFEST, read_record
from ..ledger.study import read_study, table
from ..statistics.intervals import wilson
from ..statistics.seeds import over_seeds
from .budget import Budget, budget_of, budget_of_setting, demonstrations
from .facts import FactError, Facts, bare, rate
from .heat import HeatRow, heat
from .pages import Page, Pages, grid_record
from .tables import rows_with

GAP = "-"
GRID = re.compile(r"configs/grid/[\w.-]+\.yaml")


@dataclass(frozen=True)
class Measured:
    """What one record says of a method on a task."""

    success: tuple[float, float, float]  # low, rate, high; 95 %
    episodes: int  # of all trainings
    trainings: int
    budget: Budget
    record: str  # its name, of several the first


@dataclass(frozen=True)
class Line:
    """A row of the matrix."""

    task: str
    training: str
    expert: tuple[float, float, float] | None
    cells: Mapping[str, Measured | None]  # by method
    grid: str  # the file that fills the row; "" where there is none


def lines(page: Page, facts: Facts, chains: Chains) -> list[Line]:
    """The rows of a page's matrix.

    Raises:
        FactError, BudgetError: a cell that its record, or the command behind it, does not hold.
    """
    methods, found = page.matrix["methods"], []
    for row in page.matrix["rows"]:
        cells = {name: list(where) for name, where in (row.get("cells") or {}).items()}
        grid = row.get("grid", "")
        if grid and (facts.root / f"{grid_record(grid)}.json").is_file():
            cells = {name: [grid_record(grid), name] for name in methods}
        if unknown := sorted(cells.keys() - methods.keys()):
            raise FactError(f"the matrix has no method '{unknown[0]}'; it has {', '.join(methods)}")
        measured = {name: _measured(cells.get(name), bool(grid), facts, chains) for name in methods}
        expert = tuple(facts.expert(row["expert"]).success) if "expert" in row else None
        found.append(Line(str(row["task"]), str(row.get("training", "")), expert, measured, grid))
    return found


def render_matrix(page: Page, pages: Pages, facts: Facts, chains: Chains) -> Iterator[str]:
    """The tables of a page's matrix, and what fills its gaps."""
    methods, rows = page.matrix["methods"], lines(page, facts, chains)
    cells = [[_shown(line.cells[name]) for name in methods] for line in rows]
    heads = [(line.task, line.training, GAP if line.expert is None else bare(line.expert)) for line in rows]
    columns = ["task", "training", "scripted expert", *methods.values()]
    yield table(columns, [[*head, *row] for head, row in zip(heads, cells, strict=True)]) + "\n"

    total, there = len(rows) * len(methods), sum(cell != GAP for row in cells for cell in row)
    yield f"A dash is a gap: {total - there} of {total} cells have no record.\n"
    if fills := [line for line in rows if line.grid and not any(line.cells.values())]:
        tables = " and ".join(
            f"`{_table(line.grid)}` as `eval/records/{grid_record(line.grid)}.json`" for line in fills
        )
        yield f"What fills a row with dashes alone; copy {tables}, then run `understudy results`:\n"
        yield "```\n" + "\n".join(f"understudy run {line.grid}" for line in fills) + "\n```\n"

    where = {record: page.name for page in pages.pages for part in page.sections for record in part.records}
    each = [
        _long(line, methods[name], cell, where[cell.record])
        for line in rows
        for name, cell in line.cells.items()
        if cell
    ]
    head = ("task", "method", "success", "episodes", "trainings", "demonstrations", "steps", "windows a step", "page")
    yield f"<details><summary>n and budget of each of the {there}</summary>\n\n{table(head, each)}\n\n</details>\n"


def render_heat(page: Page, facts: Facts, chains: Chains) -> str:
    """The picture of a page's matrix."""
    matrix = page.matrix
    short = [(matrix.get("short") or {}).get(name, text) for name, text in matrix["methods"].items()]
    rows = [
        HeatRow(
            ", ".join(filter(None, (line.task, line.training))),
            _aside(line),
            [None if cell is None else cell.success[1] for cell in line.cells.values()],
        )
        for line in lines(page, facts, chains)
    ]
    return heat(facts.fill(matrix["title"]), short, rows)


def _table(grid: str) -> str:
    """Where a grid leaves its table."""
    return f"{load(CODE / grid)['out']}/table.json"


def _shown(cell: Measured | None) -> str:
    return GAP if cell is None else rate(cell.success)


def _long(line: Line, method: str, cell: Measured, page: str) -> tuple:
    budget = cell.budget
    counts = (cell.episodes, cell.trainings, budget.demonstrations, budget.steps, budget.batch)
    task = ", ".join(filter(None, (line.task, line.training)))
    return (task, method, rate(cell.success), *counts, f"[{page}]({page}.md)")


def _aside(line: Line) -> str:
    """Demonstrations and steps of a row, a range where methods differ."""
    budgets = [cell.budget for cell in line.cells.values() if cell]
    if not budgets:
        return ""
    shown = [_range([getattr(one, part) for one in budgets]) for part in ("demonstrations", "steps")]
    return f"{shown[0]} demos, {shown[1]} steps"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _measured(where: Sequence[str] | None, filled: bool, facts: Facts, chains: Chains) -> Measured | None:
    """The cell of a record and the texts of its row; of a grid made for the matrix, a setting may be missing."""
    if not where:
        return None
    name, *keys = where
    runs = sorted(path.parent for path in facts.root.rglob(MANIFEST) if fnmatchcase(_name(path.parent, facts), name))
    if runs:
        return _evaluated(runs, facts, chains)
    study = read_study(facts.root / f"{name}.json")
    rows = rows_with(study, keys)
    if filled and not rows:
        return None
    if len(rows) != 1:
        raise FactError(f"{name} has {len(rows)} rows with {', '.join(keys)}, not one")
    row = dict(zip(study.columns, rows[0], strict=True))
    if "setting" in row and (grid := GRID.search(study.command)):
        return _of_grid(name, row, grid[0], chains)
    return _of_policies(name, row, study.command, chains)


def _of_grid(name: str, row: Mapping, grid: str, chains: Chains) -> Measured | None:
    """A setting of a grid's table; None where its trainings or evaluations failed."""
    if row["success"] is None:
        return None
    trainings = sum(cell is not None for column, cell in row.items() if re.fullmatch(r"seed \d+", column))
    return Measured(row["success"], row["episodes"], trainings, budget_of_setting(grid, row["setting"], chains), name)


def _of_policies(name: str, row: Mapping, command: str, chains: Chains) -> Measured:
    """A row of a study of several trainings, each judged in `--episodes` episodes."""
    policies, each = (_behind(flag, command) for flag in ("--policies", "--episodes"))
    if not policies or len(each) != 1:
        raise FactError(f"{name} is no table of a grid, and its command names no --policies or --episodes")
    episodes = int(each[0]) * len(policies)
    return Measured(row["success"], episodes, len(policies), budget_of(policies[0], chains), name)


def _behind(flag: str, command: str) -> list[str]:
    """The words behind a flag, up to the next."""
    words = shlex.split(command)
    if flag not in words:
        return []
    return list(takewhile(lambda word: not word.startswith("--"), words[words.index(flag) + 1 :]))


def _name(folder: Path, facts: Facts) -> str:
    return folder.relative_to(facts.root).as_posix()


def _evaluated(runs: Sequence[Path], facts: Facts, chains: Chains) -> Measured:
    counts, budgets = [], set()
    for run in runs:
        manifest, summary = read_record(run).manifest, facts.episodes(_name(run, facts))
        train = manifest["policy"].get("train") or {}
        if not {"data", "batch"} <= train.keys():
            raise FactError(f"{_name(run, facts)} does not say what its policy was trained on")
        data = demonstrations(train["data"], chains.with_own(manifest.get(MADE)))
        counts.append((summary.successes, summary.n))
        budgets.add(Budget(data, manifest["policy"]["step"], train["batch"]))
    if len(budgets) > 1:
        raise FactError(f"the trainings of {_name(runs[0], facts)} and its like differ in their budgets")
    wins, each = [won for won, _ in counts], [n for _, n in counts]
    success = over_seeds(wins, each).interval if len(runs) > 1 else wilson(*counts[0])
    return Measured(
        (success.low, success.estimate, success.high), sum(each), len(runs), budgets.pop(), _name(runs[0], facts)
    )
