"""Judge checkpoints while training goes on: `understudy eval` in a process of its own, one at a time.

Between steps the trainer only asks whether the process has ended; nothing of it reaches the trainer's weights or
generators, so that training with and without is the same to the last bit. When checkpoints come faster than they are
judged the newest waits and older ones are skipped, which is said. A judgement that fails costs a warning. `best` is the
checkpoint with most successes on the starts used, ties broken by the mean best progress; as these starts chose it, they
flatter it, and a report needs others. Each judgement is a line of RUN/evals.jsonl and a record under RUN/evals/;
RUN/evals.html draws them. Knows nothing of worlds or of statistics.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...configs.children import calling, last_line, start, stop
from ...configs.ends import UNHEARD
from ...configs.files import replace_text
from ...configs.settings.load import load
from ...configs.spec import Embodiment
from ...configs.world import REPORT_STARTS
from .links import numbered, point
from .state import read_rows

LINES, PAGE = "evals.jsonl", "evals.html"
PREFLIGHT = "understudy.eval.evaluate.preflight:main"  # by name: learning imports nothing of eval


class Aside:
    """Judges nothing: what a run has where no evaluation was asked for."""

    held: frozenset[Path] = frozenset()  # checkpoints that must not be deleted yet
    busy = False

    def due(self, step: int) -> bool:
        """Whether the checkpoint of this step is to be judged."""
        return False

    def submit(self, folder: Path) -> None:
        """Judge this checkpoint as soon as may be."""

    def poll(self) -> None:
        """Take note of what has ended and start what waits. Cheap."""

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Until nothing is left to judge, or `stopped()`."""

    def stop(self) -> None:
        """End what is running; it is begun anew when the run is resumed."""

    def resume(self, step: int) -> None:
        """Go on with a run that was restored at `step`."""


@dataclass(frozen=True)
class _Job:
    folder: Path  # the checkpoint
    process: subprocess.Popen
    begun: float

    @property
    def step(self) -> int:
        return int(self.folder.name)


class SideEvaluation(Aside):
    """Runs `understudy eval CONFIG` on every checkpoint that is due.

    Args:
        run: the run folder.
        config: a config of `understudy eval`; its policy, out, seed, workers and videos are replaced.
        every: steps between judged checkpoints; the one of the last step, `steps`, is always judged.
        episodes: starts of each judgement; None: as many as the config says.
        seed: first start.
        workers: processes for the world; 0 leaves the trainer most of a small machine.

    Raises:
        ValueError: starts that are for reporting. FileNotFoundError: no such config.
    """

    def __init__(
        self,
        run: Path,
        config: Path,
        *,
        every: int,
        steps: int,
        episodes: int | None = None,
        seed: int = 0,
        workers: int = 0,
    ):
        self.run, self.config, self.every, self.steps, self.seed = run, config, every, steps, seed
        self.workers = workers
        self.episodes = episodes or load(config).get("episodes", 50)
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}")
        if seed + self.episodes > REPORT_STARTS:
            raise ValueError(
                f"env seeds {seed}..{seed + self.episodes - 1} are not for choosing a checkpoint: "
                f"give eval_seed and eval_episodes within 0..{REPORT_STARTS - 1}"
            )
        self.rows: list[dict] = []
        self._running: _Job | None = None
        self._waiting: Path | None = None
        self._drawing: subprocess.Popen | None = None
        self._undrawn = False

    def check(self, embodiment: Embodiment, inputs: tuple[str, ...]) -> None:
        """Ask in a process of its own whether the evaluation's world takes such a policy. Raises ValueError if not."""
        asked = calling(PREFLIGHT, self.config, *inputs)
        answer = subprocess.run(asked, input=embodiment.to_json(), capture_output=True, text=True)
        if answer.returncode:
            lines = answer.stderr.strip().splitlines() or [f"status {answer.returncode}"]
            raise ValueError(f"--eval {self.config} would refuse this policy: {lines[-1]}")

    @property
    def held(self) -> frozenset[Path]:
        running = {self._running.folder} if self._running else set()
        return frozenset(path.resolve() for path in running | {self._waiting} - {None})

    @property
    def busy(self) -> bool:
        return self._running is not None or self._waiting is not None

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.steps

    def submit(self, folder: Path) -> None:
        if self._waiting is not None:
            self._note(self._waiting, {"skipped": f"step {int(folder.name)} came first"})
        self._waiting = folder
        self.poll()

    def poll(self) -> None:
        job = self._running
        if job is not None and job.process.poll() is not None:
            self._running = None
            self._judged(job)
        if self._running is None and self._waiting is not None:
            folder, self._waiting = self._waiting, None
            shutil.rmtree(self._record(folder), ignore_errors=True)  # what an interrupted judgement left
            self._running = _Job(folder, start(self.command(folder), self._log(folder)), time.monotonic())
        if self._undrawn and not self._is_drawing():
            self._undrawn = False
            self._drawing = start(["understudy", "curve", self.run], self.run / "evals" / "curve.log")

    def wait(self, stopped: Callable[[], bool]) -> None:
        if self.busy:
            last = self._waiting or self._running.folder
            print(f"training is done; waiting for the evaluation of step {int(last.name)}", flush=True)
        while (self.busy or self._undrawn or self._is_drawing()) and not stopped():
            self.poll()
            time.sleep(0.05)
        if self._drawing is not None and self._drawing.poll() not in (None, 0, UNHEARD):
            print(f"warning: {self.run / PAGE} could not be drawn; see {self.run / 'evals' / 'curve.log'}")

    def stop(self) -> None:
        job, drawing = self._running, self._drawing
        stop([one for one in (job and job.process, drawing) if one is not None])
        if job is not None:
            shutil.rmtree(self._record(job.folder), ignore_errors=True)
        self._running = self._waiting = self._drawing = None

    def resume(self, step: int) -> None:
        path = self.run / LINES
        self.rows = [row for row in read_rows(path) if row["step"] <= step and _is_judgement(row)]
        replace_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        known = max((row["step"] for row in self.rows), default=-1)
        saved = [int(folder.name) for folder in numbered(self.run)]
        owed = [number for number in saved if known < number <= step and self.due(number)]
        if owed:
            self.submit(self.run / "checkpoints" / f"{owed[-1]:08d}")

    def command(self, folder: Path) -> list[str]:
        """The words after `python -m`."""
        flags = {"policy": folder, "out": self._record(folder)}
        flags |= {"episodes": self.episodes, "env_seed": self.seed, "workers": self.workers, "videos": 0}
        words = [f"--{name}={value}" for name, value in flags.items()]
        return ["understudy", "eval", str(self.config), *words]

    def _judged(self, job: _Job) -> None:
        log = self._log(job.folder)
        if job.process.returncode not in (0, UNHEARD):
            self._note(job.folder, {"failed": last_line(log), "log": str(log.relative_to(self.run))})
            return
        wins, progress = read_outcomes(self._record(job.folder))
        row = {"n": len(wins), "successes": sum(wins), "success": sum(wins) / len(wins)}
        row |= {"best_progress": sum(progress) / len(progress), "seconds": round(time.monotonic() - job.begun, 1)}
        best = all(_merit(row) > _merit(other) for other in self.rows if "success" in other)
        if best:
            point(self.run, "best", job.folder)
        self._note(job.folder, row | {"best": best})
        self._undrawn = True

    def _is_drawing(self) -> bool:
        return self._drawing is not None and self._drawing.poll() is None

    def _note(self, folder: Path, row: dict) -> None:
        row = {"step": int(folder.name)} | row
        self.rows.append(row)
        with (self.run / LINES).open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(_sentence(row, self.seed), flush=True)

    def _record(self, folder: Path) -> Path:
        return self.run / "evals" / folder.name

    def _log(self, folder: Path) -> Path:
        return self.run / "evals" / f"{folder.name}.log"


def read_outcomes(record: Path) -> tuple[list[bool], list[float]]:
    """(successes, best progress) of the episodes of a record."""
    import pyarrow.parquet as pq

    table = pq.read_table(record / "episodes.parquet", columns=["success", "best_progress"])
    return table["success"].to_pylist(), table["best_progress"].to_pylist()


def _is_judgement(row: dict) -> bool:
    """Whether a row has what is read of it: one that succeeded its numbers, others their reason."""
    numbers = [row.get(name) for name in ("success", "best_progress")]
    return "success" not in row or all(type(number) in (int, float) and number == number for number in numbers)


def _merit(row: dict) -> tuple[float, float]:
    return row["success"], row["best_progress"]


def _sentence(row: dict, seed: int) -> str:
    if "skipped" in row:
        return f"evaluation of step {row['step']} skipped: {row['skipped']}"
    if "failed" in row:
        return f"warning: evaluation of step {row['step']} failed ({row['failed']}); see {row['log']}. Training goes on"
    starts = f"env seeds {seed}..{seed + row['n'] - 1}"
    best = "; the best so far" if row["best"] else ""
    return (
        f"step {row['step']}: {row['successes']} of {row['n']} succeed ({starts}), mean best progress "
        f"{row['best_progress']:.3f}{best}"
    )
