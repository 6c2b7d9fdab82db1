"""Run the cells of a grid in processes, a few at a time: go on where they are, survive those that fail, stop cleanly.

Only one `understudy run` works in a folder, or several with `--shard I/N`, each in cells of its own (locks that the
system frees when the process dies). Ctrl-C, a polite
kill and a closed terminal interrupt the commands, which save; a hard kill does the same on Linux
(`configs/children.py`).
"""

from __future__ import annotations

import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...configs.children import last_line, start, stop
from ...configs.cores import CORES
from ...configs.cores import cores as cores_of_machine
from ...configs.ends import UNHEARD, listening
from ...configs.files import clear_leftovers
from ...configs.owner import InUseError, owned
from ...configs.progress import Progress
from ...configs.world import read_world
from .alike import refuse_unlike
from .cells import GridError, StepState, reached, state, words, write_cell
from .evaluator import Evaluation, Evaluators, works_for
from .grid import Cell, Grid, Step, cells, read_shard
from .table import write_table

PID = ".pid"
PATIENCE = 60.0  # s that interrupted commands have to save
PAUSE = 0.2  # s between looks at the processes


@dataclass(frozen=True, kw_only=True)
class Run(Grid):
    """Train and evaluate over settings and seeds; run it again to go on."""

    def run(self) -> None:
        run_grid(self)


def run_grid(grid: Grid) -> None:
    """Run what is not done, then write and print the table.

    Raises:
        GridError: before anything runs, a cell that was run with other settings; in the end, cells that failed.
    """
    every = cells(grid)
    which, number = read_shard(grid.shard)
    todo = every[which - 1 :: number]
    states = {id(step): state(cell, step) for cell in todo for step in cell.steps}  # refuses before anything runs
    refuse_unlike(every)
    _refuse_many_by_the_clock(grid, every)
    if grid.dry_run:
        _show(todo, states)
        return
    grid.out.mkdir(parents=True, exist_ok=True)
    with _alone(grid, todo), listening():
        for place in [cell.folder for cell in todo] if grid.shard else [grid.out]:
            clear_leftovers(place)
        # cells at the same time share the cores
        shared = {CORES: str(max(1, int(cores_of_machine()) // grid.jobs))} if grid.jobs > 1 else {}
        evaluators = Evaluators(grid.out, shared)
        try:
            failed = Crew(todo, grid.jobs, evaluators).work()
        finally:
            evaluators.close()
    refuse_unlike(every)
    print(write_table(grid, every, failed))
    if grid.shard:
        print(f"shard {grid.shard}: {len(todo)} of {len(every)} cells; the table counts what all shards have done")
    if failed:
        raise GridError(
            f"{len(failed)} of {len(todo)} cells failed: " + "; ".join(f"{cell} ({why})" for cell, why in failed)
        )


def _refuse_many_by_the_clock(grid: Grid, every: Sequence[Cell]) -> None:
    """Raise GridError where what runs beside would make a world by the clock late, or shards would share an arm.

    Settings that the evaluation would refuse are refused here, before anything is trained. That of an evaluation which
    names none is its policy's, a simulator.
    """
    for step in every[0].steps[1:] if every else ():
        asked = getattr(step.config, "world", None)
        world = None if asked is None else read_world(asked)
        if world is not None and world.by_the_clock and grid.jobs > 1:
            raise GridError(f"the world of {step.name} goes by the clock, and what runs beside makes it late: --jobs 1")
        if world is not None and world.by_the_clock:
            from ..rollout.standing import check_paced

            try:
                check_paced(step.config, world)
            except ValueError as error:
                raise GridError(f"{step.name}: {error}") from error
        if world is not None and world.moves_arm and grid.shard:
            raise GridError(f"there is one arm in {step.name}, and shards may run at the same time: leave --shard out")


@dataclass
class RunningCell:
    """A cell at work."""

    cell: Cell
    step: Step
    process: subprocess.Popen | Evaluation


@dataclass
class Crew:
    """Works on cells, `jobs` at a time."""

    cells: Sequence[Cell]
    jobs: int
    evaluators: Evaluators
    tasks: list[RunningCell] = field(default_factory=list)
    failed: list[tuple[Cell, str]] = field(default_factory=list)
    finished: int = 0

    def work(self) -> list[tuple[Cell, str]]:
        """Returns the cells that failed, and why."""
        queue = deque(self.cells)
        total = sum(cell.steps[0].config.steps for cell in self.cells)
        try:
            with Progress("grid", total, "steps", done=self._steps()) as progress:
                while queue or self.tasks:
                    while queue and len(self.tasks) < self.jobs:
                        self._advance(queue.popleft())
                    time.sleep(PAUSE)
                    self._collect()
                    progress.update(self._steps(), self._note())
        except KeyboardInterrupt as pressed:
            raise KeyboardInterrupt("stopped; the same command goes on") from pressed
        finally:
            stop([task.process for task in self.tasks], PATIENCE)
        return self.failed

    def _advance(self, cell: Cell, after: Step | None = None) -> None:
        """Start the next step of a cell that is not done, or count the cell as finished."""
        try:
            step = next((step for step in cell.steps if state(cell, step) is not StepState.done), None)
            if step is None:
                self.finished += 1
                return
            if step is after:
                raise GridError(f"{step.name} ended, but is not done; see {step.log}")
            _await_orphan(cell)
            write_cell(cell)
            process = self._begin(step, words(cell, step))
        except (ValueError, OSError) as error:
            self._fail(cell, str(error))
            return
        (cell.folder / PID).write_text(str(process.pid))
        self.tasks.append(RunningCell(cell, step, process))

    def _begin(self, step: Step, asked: Sequence[str]) -> subprocess.Popen | Evaluation:
        """A training in a process of its own; evaluations in one that lives on, with its workers."""
        if step.name == "train":
            return start(["understudy", *asked], step.log)
        return self.evaluators.begin(asked, step.log)

    def _collect(self) -> None:
        """Go on with the cells whose command has ended."""
        for task in [task for task in self.tasks if task.process.poll() is not None]:
            self.tasks.remove(task)
            (task.cell.folder / PID).unlink(missing_ok=True)  # an evaluator lives on, and works elsewhere
            code = task.process.returncode
            if code not in (0, UNHEARD):
                self._fail(task.cell, f"{task.step.name} ended with status {code}: {last_line(task.step.log)}")
            else:
                self._advance(task.cell, after=task.step)

    def _fail(self, cell: Cell, why: str) -> None:
        self.failed.append((cell, why))
        print(f"{cell} failed: {why}. Logs are in {cell.folder}; the others go on", flush=True)

    def _steps(self) -> int:
        """Optimiser steps done in all cells; a cell that failed has no more to do."""
        lost = {id(cell) for cell, _ in self.failed}
        steps = ((cell, cell.steps[0]) for cell in self.cells)
        return sum(step.config.steps if id(cell) in lost else reached(step) for cell, step in steps)

    def _note(self) -> str:
        ended = self.finished + len(self.failed)
        now = "; ".join(f"{task.cell}: {task.step.name}" for task in self.tasks)
        return f"{ended} of {len(self.cells)} cells; now {now}" if now else f"{ended} of {len(self.cells)} cells"


@contextmanager
def _alone(grid: Grid, todo: Sequence[Cell]) -> Iterator[None]:
    """Only one grid in a folder at a time; of shards only one in a cell, however many they are."""
    folders = [*([] if grid.shard else [grid.out]), *(cell.folder for cell in todo)]
    with ExitStack() as held:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(owned(folder))
            except InUseError as error:
                raise GridError(
                    f"another `understudy run` works in {folder}; wait for it, or stop it"
                    + ("; all shards of one grid need the same N" if grid.shard else "")
                ) from error
        yield


def _await_orphan(cell: Cell) -> None:
    """Wait until a command that an earlier grid left in this cell has saved and gone."""
    noted = cell.folder / PID
    pid = noted.read_text().strip() if noted.is_file() else ""
    deadline = time.monotonic() + PATIENCE
    while pid.isdigit() and _works_in(int(pid), cell.folder):
        if time.monotonic() > deadline:
            raise GridError(f"process {pid} of an earlier grid still works in {cell.folder}; stop it")
        time.sleep(PAUSE)


def _works_in(pid: int, folder: Path) -> bool:
    """Whether this process is a command of ours that names the folder; where there is no /proc nobody knows."""
    try:
        asked = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return str(folder).encode() in asked or works_for(folder, asked)


def _show(todo: Sequence[Cell], states: dict[int, StepState]) -> None:
    for cell in todo:
        print(f"{cell}:")
        for step in cell.steps:
            print(f"  {states[id(step)].value:<10} {step.command}")
    left = sum(any(states[id(step)] is not StepState.done for step in cell.steps) for cell in todo)
    print(f"{left} of {len(todo)} cells are not done")
