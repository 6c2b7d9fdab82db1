"""Whether a twin's loop should compare pictures with the twin of a lag before (`loop.lagged`), on fresh starts.

    understudy study twin_lag --out OUT.json

The default was chosen on starts 1010 to 1029. Here the same loop acts with both settings from starts that nobody has
looked at; the task's demonstrator pushes, a stand-in of other mass follows. A start is kept where the block was within
`cm` and `degrees` on average. Starts are paired: the last row is the difference, with its interval.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ...hardware.twin.build import Build, build
from ...hardware.twin.env import Reality, TwinWorld
from ...hardware.twin.live.loop import LoopSettings
from ...hardware.twin.reality.stand_in import Changes
from ..ledger.study import Study
from ..statistics.intervals import wilson
from ..statistics.paired import mcnemar, paired_t, tango
from ._kept import Kept

CHOSEN = range(1010, 1030)  # the starts that the default was chosen on
COLUMNS = ("pictures are compared with the twin", "starts", "kept, share", "block off, cm", "block turned, degrees")
WAYS = {"of their moment": False, "of a lag before": True}


@dataclass(frozen=True, kw_only=True)
class TwinLag:
    """Act from fresh starts with and without the lag."""

    task: str = "so101-pusht"  # in plain MuJoCo, with a demonstrator
    first: int = 1100  # start id of the first episode
    starts: int = 20  # episodes of each way
    seconds: float = 4.0  # of each
    friction: float = 1.0  # factor of the stand-in's, of the twin's
    mass: float = 1.3  # the same
    trim: float = 1.0  # 1/s, of both ways, see loop.trim
    lead: float = 0.0  # s, of both ways, see loop.lead; 0: as where the default was chosen
    size: int = 96  # px, side of the pictures
    cm: float = 1.0  # mean distance of the block, below which a start counts as kept
    degrees: float = 5.0  # the same of its turn
    out: Path  # file of the study

    def __post_init__(self) -> None:
        if self.starts < 2 or not self.seconds > 0 or min(self.cm, self.degrees) <= 0:
            raise ValueError("starts must be 2 or more, for an interval; seconds, cm and degrees above 0")
        if self.first < CHOSEN.stop and self.first + self.starts > CHOSEN.start:
            raise ValueError(
                f"starts {self.first} to {self.first + self.starts - 1} are among those that the default was chosen on "
                f"({CHOSEN.start} to {CHOSEN.stop - 1}): they cannot confirm it; begin elsewhere (--first 1100)"
            )

    def run(self) -> None:
        from ...configs.command import command_of

        command = f"{command_of(self, 'study twin_lag', without=('out',))} --out FILE.json"
        kept = Kept(self.out, self)
        with kept.going_on():
            off = measure(self, kept)
            study = Study(
                title="The lag of a twin's loop",
                command=command,
                columns=COLUMNS,
                rows=rows_of(self, off),
                notes=notes_of(self),
            )
            print(study.markdown())
            print(study.write(self.out))


def measure(settings: TwinLag, kept: Kept) -> np.ndarray:
    """(ways, starts, 2) mean distance in cm and mean turn in degrees; each start is kept when it is done."""
    from ...configs.progress import Progress
    from ...configs.world import read_world

    starts = range(settings.first, settings.first + settings.starts)
    with tempfile.TemporaryDirectory() as folder:
        scene = str(build(Build(scene=settings.task, size=(settings.size, settings.size))).save(Path(folder) / "scene"))
        changes = replace(Changes(), friction=settings.friction, mass=settings.mass)
        base = TwinWorld(of=read_world(settings.task), real=Reality(changes=changes), scene=scene)
        found: list[list] = []
        with Progress("lag", len(WAYS) * len(starts), "episodes", done=len(kept)) as shown:
            for lagged in WAYS.values():
                loop = LoopSettings(trim=settings.trim, lead=settings.lead, lagged=lagged)
                world, rows = replace(base, loop=loop), list[list[float]]()
                found.append(rows)
                for start in starts:
                    rows.append(kept.get(f"{lagged} {start}", partial(act, world, start, settings)))
                    shown.update(sum(map(len, found)))
    return np.array(found)


def act(world: TwinWorld, start: int, settings: TwinLag) -> list[float]:
    """An episode of the demonstrator's: mean distance in cm and mean turn in degrees of the object that is worst."""
    stage = world.stage()
    try:
        stage.begin(start, {})
        lane = stage.lane
        for _ in range(round(settings.seconds * lane.embodiment.rate)):
            stage.order(lane.expert_action())
            while not stage.done:
                stage.tick()
            stage.settle()
            lane.ticks += 1
        tracking = stage.tracking()
    finally:
        stage.close()
    return [100 * float(tracking.away.mean(0).max()), float(tracking.turned.mean(0).max())]


def rows_of(settings: TwinLag, off: np.ndarray) -> list[tuple]:
    """The cells of `COLUMNS`: each way, then the second less the first."""
    fine = (off[..., 0] <= settings.cm) & (off[..., 1] <= settings.degrees)
    n, won, lost = fine.shape[1], int((fine[1] & ~fine[0]).sum()), int((fine[0] & ~fine[1]).sum())
    rows: list[tuple] = [
        (name, n, wilson(int(good.sum()), n), paired_t(each[:, 0])[0], paired_t(each[:, 1])[0])
        for name, good, each in zip(WAYS, fine, off, strict=True)
    ]
    differences: Sequence = [paired_t(off[1, :, axis] - off[0, :, axis])[0] for axis in (0, 1)]
    p = mcnemar(won, lost)
    return [*rows, (f"the second less the first (McNemar p {p:.3f})", n, tango(won, lost, n), *differences)]


def notes_of(settings: TwinLag) -> tuple[str, ...]:
    """What was done, in sentences."""
    last = settings.first + settings.starts - 1
    return (
        f"{settings.task}, starts {settings.first} to {last}, {settings.seconds:g} s each, the task's demonstrator; "
        f"the stand-in has {settings.friction:g} x the friction and {settings.mass:g} x the mass, else its defaults",
        f"loop.trim {settings.trim:g}, loop.lead {settings.lead:g}; kept: mean distance up to {settings.cm:g} cm and "
        f"mean turn up to {settings.degrees:g} degrees, as the stand-in tells them",
        "95 % intervals: Wilson's for a share, Tango's for a difference of shares of the same starts, Student's t else",
        f"the default (of their moment) was chosen on starts {CHOSEN.start} to {CHOSEN.stop - 1}: none is in here",
    )
