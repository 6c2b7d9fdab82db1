"""How near a digital twin stays to what its cameras see, by the way it is corrected, over 30 s of pushing.

    understudy study twin_tracking --out OUT.json

"Real" is a second MuJoCo world of PushT: the block is heavier, its centre of mass is elsewhere, friction and damping
differ, it moves one tick later, its cameras have noise, other colours and a delay and are not quite where the twin
believes, and things that the twin does not know move about the block. The twin gets the same commands and
the pictures of two cameras, nothing else. A script pushes the real block about, again and again from another side. All
ways of correction follow the same recordings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

from ...hardware.twin.align import Aligner, AlignSettings
from ...hardware.twin.bodies import body_poses
from ...hardware.twin.build import Build, build
from ...hardware.twin.scene import TwinScene
from ..ledger.study import Study
from ..statistics.intervals import Interval
from ._kept import Kept
from ._twin_takes import RATE, Reality, Take, advance, record

TREMBLE = 15  # ticks of the moving mean that oscillation is measured against
PUBLISHED = 4.0  # N/m, kp of Real-is-Sim
COLUMNS = (
    "correction", "solver", "iterations", "gain", "kp, N/m", "translation, cm", "yaw, deg", "longest, cm",
    "times nearer than open loop", "oscillation, mm", "CPU, ms a tick",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TwinTracking:
    """Follow recordings of pushing with every way of correction."""

    seeds: int = 10  # recordings
    seconds: float = 30.0  # of each
    size: int = 96  # px, side of the pictures
    gaussians: int = 300  # on the block
    iterations: tuple[int, ...] = (1, 3, 7)  # drawings of each camera in a tick
    kps: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0, 128.0, 256.0)  # N/m, tried with mask+se3 and 3 iterations
    reality: Reality = field(default_factory=Reality)  # how it differs
    seed: int = 0  # the first recording's
    out: Path  # file of the study

    def __post_init__(self) -> None:
        if self.seeds < 2 or self.seconds < 1:
            raise ValueError("seeds must be 2 or more, for an interval; seconds 1 or more")

    def run(self) -> None:
        from ...configs.command import command_of

        command = command_of(self, "study twin_tracking", without=("out",))
        command = f"{command} --out FILE.json"
        kept = Kept(self.out, self)
        with kept.going_on():
            rows, notes = table(self, kept)
            study = Study(
                title="Tracking by the digital twin", command=command, columns=COLUMNS, rows=rows, notes=notes
            )
            print(study.markdown())
            print(study.write(self.out))


def table(settings: TwinTracking, kept: Kept) -> tuple[list[tuple], tuple[str, ...]]:
    """Rows of `COLUMNS` and what a reader must know; each run is kept when it is done."""
    from ...configs.progress import Progress

    scene = build(
        Build(
            scene="pusht-mujoco",
            size=(settings.size, settings.size),
            gaussians=settings.gaussians,
            distance=0.75,
        )
    )
    ways = [None, *ways_of(settings)]
    tracks: list[list[Track]] = [[] for _ in ways]
    with Progress("tracking", settings.seeds * len(ways), "runs", done=len(kept)) as shown:
        for seed in range(settings.seed, settings.seed + settings.seeds):
            take = cache(partial(record, scene, settings.reality, settings.seconds, seed))
            for number, (way, found) in enumerate(zip(ways, tracks, strict=True)):

                def followed(way=way, take=take) -> dict:
                    return follow(scene, take(), way).plain()

                told = kept.get(f"{seed} {number}", followed)
                found.append(Track.of(told))
                shown.update(sum(map(len, tracks)))
    rows = [row(way, found, tracks[0]) for way, found in zip(ways, tracks, strict=True)]
    return rows, notes_of(settings, scene)


def ways_of(settings: TwinTracking) -> Iterator[AlignSettings]:
    """All that is compared, but for open loop."""
    for iterations in settings.iterations:
        yield AlignSettings(mode="gaussian", iterations=iterations)
        yield AlignSettings(mode="mask", iterations=iterations)
        yield AlignSettings(mode="mask+se3", iterations=iterations, solver="adam")
        yield AlignSettings(mode="mask+se3", iterations=iterations)
    yield AlignSettings(mode="gaussian", kp=PUBLISHED)
    for kp in settings.kps:
        yield AlignSettings(mode="mask+se3", kp=kp)


@dataclass(frozen=True, eq=False)
class Track:
    """What a twin did: errors (T,) in m and in rad, their oscillation in m, and processor time in s of each tick."""

    away: np.ndarray
    turned: np.ndarray
    oscillation: float
    cpu: np.ndarray

    def plain(self) -> dict:
        """JSON-able."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}

    @classmethod
    def of(cls, told: dict) -> Track:
        """What `plain` gave."""
        arrays = {name: np.array(told[name]) for name in ("away", "turned", "cpu")}
        return cls(oscillation=told["oscillation"], **arrays)


def follow(scene: TwinScene, take: Take, settings: AlignSettings | None) -> Track:
    """The twin, told the commands of a recording and shown its pictures; not corrected without settings."""
    import mujoco

    model = scene.spec().compile()
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = take.start, take.start[3:5]
    mujoco.mj_forward(model, data)
    aligner = None if settings is None else Aligner.of(scene, settings)
    ids = np.array([model.body(name).id for name in scene.gaussians.bodies])

    poses, found, cpu = [], [], []
    for tick, command in enumerate(take.commands):
        data.ctrl[:] = command
        advance(model, data, (tick + 1) / RATE)
        data.xfrc_applied[:] = 0
        poses.append(body_poses(data, ids))
        found.append(data.qpos[:3].copy())
        shown = tick - take.delay
        if aligner is not None and shown >= 0:
            begun = time.process_time()
            images = {name: film[shown] for name, film in take.pictures.items()}
            aligner.correct(model, data, images, poses=poses[shown]).apply(data)
            cpu.append(time.process_time() - begun)
    return score(np.array(found), take.truth, np.array(cpu or [0.0]))


def score(found: np.ndarray, truth: np.ndarray, cpu: np.ndarray) -> Track:
    """Errors of block poses (T, 3)."""
    error = found - truth
    error[:, 2] = (error[:, 2] + np.pi) % (2 * np.pi) - np.pi
    kernel = np.ones(TREMBLE) / TREMBLE
    smooth = np.stack([np.convolve(error[:, axis], kernel, "valid") for axis in (0, 1)], 1)
    inner = error[TREMBLE // 2 : TREMBLE // 2 + len(smooth), :2]
    oscillation = float(np.sqrt(((inner - smooth) ** 2).sum(1).mean()))
    return Track(np.linalg.norm(error[:, :2], axis=1), np.abs(error[:, 2]), oscillation, cpu)


def row(way: AlignSettings | None, tracks: Sequence[Track], open_loop: Sequence[Track]) -> tuple:
    """The cells of `COLUMNS`."""
    away = [track.away.mean() for track in tracks]
    ratio = np.mean([track.away.mean() for track in open_loop]) / np.mean(away) if np.any(away) else None
    longest = max(track.away.max() for track in tracks)
    named = ("open loop", None, None, None, None) if way is None else named_cells(way)
    return (
        *named,
        interval(100 * np.array(away)),
        interval(np.rad2deg([track.turned.mean() for track in tracks])),
        round(float(100 * longest), 2),
        None if ratio is None else round(float(ratio), 1),
        round(1000 * float(np.mean([track.oscillation for track in tracks])), 3),
        round(1000 * float(np.mean([np.median(track.cpu) for track in tracks])), 2),
    )


def named_cells(way: AlignSettings) -> tuple:
    """Of a way of correction."""
    solver = way.solver if way.mode == "mask+se3" else "adam"
    return way.mode, solver, way.iterations, None if way.kp else way.gain, way.kp or None


def interval(values: np.ndarray) -> Interval:
    """Student's t, 95 %, of the mean of values that have no upper bound."""
    from scipy.stats import t

    values = np.asarray(values, float)
    half = t.isf(0.025, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return Interval(float(max(0.0, values.mean() - half)), float(values.mean()), float(values.mean() + half))


def notes_of(settings: TwinTracking, scene: TwinScene) -> tuple[str, ...]:
    """What was done, in sentences."""
    cameras = len(scene.cameras)
    return (
        f"{settings.seeds} recordings of {settings.seconds:g} s at {RATE:g} Hz, seeds from {settings.seed}; all ways "
        f"follow the same; means over ticks, and 95 % intervals (Student's t) over recordings",
        f"{cameras} cameras of {settings.size} x {settings.size} px; {len(scene.gaussians)} Gaussians; the twin sees "
        "pictures and commands only",
        f"Real is PushT in MuJoCo with: {settings.reality}",
        "Oscillation: root mean square of the error of translation beside its moving mean over a quarter of a second",
        "CPU: processor time of the correction alone, median over ticks",
    )
