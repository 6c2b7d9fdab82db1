"""What becomes of an arm when its bus fails, and when the process that drives, records or guards it is killed.

    understudy study faults --out OUT.json

Each fault of the emulator strikes at a random moment while an emulated arm is driven behind its guard, on a Feetech bus
and on a Dynamixel bus. Then everything that is left is closed, and the arm is opened again. Each kill is `kill -9` at a
random moment: of the process that drives and records, and of the guard's.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...configs.command import command_of
from ...configs.episode import Episode
from ...configs.plugins import lookup
from ...configs.progress import Progress
from ...configs.spec import STATE
from ...hardware.emulator.arm import find_kind, make_chain, write_calibration
from ...hardware.emulator.bus import Bus
from ...hardware.emulator.faults import HAPPENING, KINDS, Fault
from ...hardware.envelope import Command, Outcome
from ...hardware.guarded import open_robot
from ...hardware.open import robot_config
from ...hardware.robot import RobotConfig
from ...hardware.session import Session
from ...policies.data.open import open_dataset
from ...policies.data.writer import DatasetWriter
from ..ledger.study import Study
from ..statistics.intervals import Interval, exact
from ._kept import Kept
from ._servos import Goals, released, stands

T = TypeVar("T")
ARMS = {"Feetech": ("so101", "so101"), "Dynamixel": ("koch", "koch_follower")}  # bus -> emulated arm, its driver
GOALS = {"Feetech": 42, "Dynamixel": 116}  # address of Goal_Position
RATE = 30.0
AFTER = 0.8  # s that the arm is driven on after a fault
GONE = 0.3  # s without power or port
HANGS = 20.0  # s of a drive, at most
TRIES = 30  # to open: on a busy machine an answer comes late
REST = 4.0  # s until an arm whose driver was killed must be let go
EPISODE = 6  # steps of a recorded episode
KILLED = ("policy and recorder", "guard")
COLUMNS = (
    "bus",
    "what",
    "n",
    "rode on",
    "stopped",
    "error",
    "opened again",
    "longest call, s",
    "fastest goal, of bound",
    "at rest",
    "as it must be",
    "episodes lost",
)
NOTES = (
    "Rode on: driven to the end without stop or error; stopped: the guard stopped the arm and said why; error: a "
    "ConnectionError that names the port",
    "Longest call: of a command, an opening or a closing; nothing may hang",
    "Fastest goal: between two goals on the wire, as part of the velocity that the envelope allows, with one count",
    "Opened again: by the same software; after an overload of a Dynamixel servo once its power was off, as its "
    "maker wants",
    "At rest: the torque is off after closing or, of a killed policy, by itself; after a killed guard the goals stay "
    "as they are and no servo moves",
    "As it must be: at rest in the end and, but for kills, opened again; share of the trials with its exact 95 % "
    "interval",
    "Episodes lost: of those that the recorder had said were written",
)


@dataclass(frozen=True, kw_only=True)
class FaultStudy:
    """Strike an emulated arm with every fault, and kill the processes around it."""

    times: int = 20  # of each fault on each bus
    kills: int = 20  # of each process
    buses: tuple[str, ...] = tuple(ARMS)  # which of them
    seed: int = 0  # of what is drawn
    out: Path  # file of the study

    def __post_init__(self) -> None:
        for bus in self.buses:
            lookup("bus", bus, ARMS)
        if self.times < 1 or self.kills < 0:
            raise ValueError("times must be at least 1 and kills 0")

    def run(self) -> None:
        kept = Kept(self.out, self)
        with kept.going_on(), tempfile.TemporaryDirectory() as folder:
            os.environ["HF_LEROBOT_HOME"] = folder  # lerobot keeps a calibration beside
            study = fault_study(self, Path(folder), kept)
            print(study.markdown())
            print(study.write(self.out))


def fault_study(settings: FaultStudy, folder: Path, kept: Kept) -> Study:
    rows = []
    total = len(settings.buses) * len(KINDS) * settings.times + len(KILLED) * settings.kills
    with Progress("faults", total, "trials") as progress:
        for bus in settings.buses:
            for number, kind in enumerate(KINDS):
                strike = partial(_strike, bus, kind, folder)
                rows.append((bus, kind, *_row(settings, f"{bus} {kind}", number, strike, kept, progress)))
                print(*rows[-1], flush=True)
        for number, who in enumerate(KILLED if settings.kills else ()):
            kill = partial(_kill, who, folder)
            rows.append(("Feetech", f"kill -9 of the {who}", *_row(settings, who, 100 + number, kill, kept, progress)))
            print(*rows[-1], flush=True)
    command = command_of(settings, "study faults", without=("out",)) + " --out FILE.json"
    notes = (f"n trials at random moments, drawn by seed {settings.seed}", *NOTES)
    return Study(title="Faults of a bus and kills", command=command, columns=COLUMNS, rows=rows, notes=notes)


Trial = Callable[[np.random.Generator, "Tally"], None]


def _row(settings: FaultStudy, what: str, number: int, strike: Trial, kept: Kept, progress: Progress) -> tuple:
    """Trials until so many counted; on a busy machine one may not begin."""
    whole, kills = Tally(), number >= 100
    wanted = settings.kills if kills else settings.times

    def make(trial: int) -> dict:
        tally = Tally()
        strike(np.random.default_rng([settings.seed, number, trial]), tally)
        return dataclasses.asdict(tally)

    for trial in range(3 * wanted):
        if whole.n < wanted:
            whole.add(Tally(**kept.get(f"{what} {trial}", partial(make, trial))))
            progress.update(progress.done + 1, what)
    return whole.row(kills)


@dataclass
class Tally:
    """What became of many trials."""

    n: int = 0
    reactions: dict[str, int] = field(default_factory=dict)
    again: int = 0
    longest: float = 0.0
    fastest: float = 0.0
    rests: int = 0
    lost: int = 0

    def add(self, other: Tally) -> None:
        for name in ("n", "again", "rests", "lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("longest", "fastest"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        for reaction, count in other.reactions.items():
            self.reactions[reaction] = self.reactions.get(reaction, 0) + count

    def timed(self, act: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return act()
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    def row(self, kills: bool) -> tuple:
        """By `COLUMNS`, behind bus and fault."""
        reactions = (self.reactions.get(name, 0) for name in ("rode on", "stopped", "error"))
        well = self.rests if kills else min(self.rests, self.again)
        share = Interval(*(round(part, 4) for part in exact(well, self.n))) if self.n else None
        longest, fastest = round(self.longest, 2), round(self.fastest, 3)
        return (self.n, *reactions, self.again, longest, fastest, self.rests, share, self.lost)


def _strike(name: str, kind: str, folder: Path, rng: np.random.Generator, tally: Tally) -> None:
    """Drive, fail, close, open again."""
    emulated, driver = ARMS[name]
    arm, goals = find_kind(emulated), Goals(GOALS[name])
    file = folder / f"{emulated}.json"
    write_calibration(file, arm.calibration())
    with Bus(make_chain(arm), arm.codec(), heard=goals) as bus:
        port = bus.port
        session = _opened(robot_config({"type": driver, "port": port}, calibration=str(file)), tally)
        after = rng.uniform(0.1, 0.6)
        with bus.held() as chain:
            goals.heard.clear()
            id = None if kind == "unplug" else int(rng.integers(1, 1 + len(chain.servos)))
            seconds = GONE if kind in HAPPENING else 0.1
            place = bus.faults.add(Fault(kind=kind, id=id, at=chain.time + after, count=1, seconds=seconds))
        reaction = _drive(session, bus, after + AFTER + seconds, port, tally)
        with suppress(ConnectionError):
            tally.timed(session.close)
        tally.fastest = max(tally.fastest, goals.fastest(_bound(session)))
        if not bus.faults.done[place]:
            return  # on a busy machine the emulated time stood still
        tally.n += 1
        tally.reactions[reaction] = tally.reactions.get(reaction, 0) + 1
        end = time.monotonic() + 2 * GONE
        while not bus.plugged and time.monotonic() < end:
            time.sleep(0.02)

        if (name, kind) == ("Dynamixel", "overload"):  # who shut itself off is off until its power was
            with bus.held() as chain:
                for servo in chain.servos:
                    chain.restart(servo)
        again = _opened(robot_config({"type": driver, "port": bus.port}, calibration=str(file)), tally)
        tally.again += _drive(again, bus, 0.2, bus.port, tally) == "rode on"
        tally.timed(again.close)
        tally.rests += released(bus)


def _opened(config: RobotConfig, tally: Tally) -> Session:
    for left in reversed(range(TRIES)):
        session = Session(config)
        try:
            tally.timed(session.open)
            return session
        except ConnectionError:
            session.close()
            if not left:
                raise
    raise AssertionError


def _drive(session: Session, bus: Bus, seconds: float, port: str, tally: Tally) -> str:
    """Sway all joints for so many s of the arm's time, which falls behind on a busy machine; how it ended."""
    home, began, end = session.guard.goal, time.monotonic(), bus.chain.time + seconds
    assert home is not None
    while (now := time.monotonic()) < began + HANGS and bus.chain.time < end:
        target = home + 0.1 * (1 - np.cos(4 * (now - began))) * np.array([1, 0.5, -0.5, -0.5, 1, 0.5])
        command = Command(target=target, time=now, number=time.monotonic_ns())  # counts up
        try:
            verdict = tally.timed(partial(session.command, command))
        except ConnectionError as error:
            assert port in str(error), f"an error that names no port: {error}"
            return "error"
        if verdict.outcome is Outcome.stopped:
            return "stopped"
        time.sleep(max(0.0, now + 1 / RATE - time.monotonic()))
    return "rode on"


def _bound(session: Session) -> np.ndarray:
    """(D,) rad that the velocity allows in one step of the guard."""
    return np.broadcast_to(session.guard.envelope.velocity, len(session.guard.names)) / session.guard.rate


def _kill(who: str, within: Path, rng: np.random.Generator, tally: Tally) -> None:
    """Let a process drive and record, kill it or its guard, and look at the arm and at the recording."""
    folder = Path(tempfile.mkdtemp(dir=within))
    arm, file = find_kind("so101"), folder / "so101.json"
    write_calibration(file, arm.calibration())
    context = multiprocessing.get_context("spawn")
    with Bus(make_chain(arm), arm.codec()) as bus:
        ours, theirs = context.Pipe()
        process = context.Process(target=_caller, args=(theirs, bus.port, str(file), str(folder / "data")))
        process.start()
        theirs.close()
        try:
            try:
                guard, written = ours.recv(), 0
            except EOFError:
                return  # it could not open the arm
            end = time.monotonic() + rng.uniform(0.2, 1.5)
            while time.monotonic() < end or not written:
                if ours.poll(0.02):
                    written = ours.recv()
            victim = process.pid if who == KILLED[0] else guard
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            tally.n += 1
            began = time.monotonic()
            if who == KILLED[0]:
                while not released(bus) and time.monotonic() < began + REST:
                    time.sleep(0.02)
                tally.longest = max(tally.longest, time.monotonic() - began)
                tally.rests += released(bus)
            else:
                tally.rests += stands(bus)
            while ours.poll(0.5):
                try:
                    written = ours.recv()
                except EOFError:
                    break
        finally:
            process.kill()
            process.join()
    kept = len(open_dataset(str(folder / "data")).lengths) if written else 0
    tally.lost += max(0, written - kept)


def _caller(pipe, port: str, calibration: str, folder: str) -> None:
    """Drive and record: says the guard's process, then how many episodes were written."""
    robot = open_robot(robot_config({"type": "so101", "port": port, "rate": RATE}, calibration=calibration))
    robot.connect()
    pipe.send(robot.guard_process)
    writer = DatasetWriter(folder, robot.embodiment)
    home, step = robot.get_observation()[STATE], 0
    while True:
        rows = []
        for _ in range(EPISODE):
            step += 1
            began = time.monotonic()
            state = robot.get_observation()[STATE]
            target = home + 0.15 * (1 - np.cos(step / 8)) * np.array([1, 0, 0, 0, 1, 0], np.float32)
            rows.append((state, target, robot.send_action(target)))
            time.sleep(max(0.0, began + 1 / RATE - time.monotonic()))
        state, target, sent = (np.array(part, np.float32) for part in zip(*rows, strict=True))
        nothing = np.zeros(EPISODE, np.float32)
        writer.add(
            Episode(
                start=writer.episodes,
                task="sway",
                obs={STATE: state},
                action=target,
                sent=sent,
                reward=nothing,
                progress=nothing,
                success=nothing > 0,
                terminated=False,
                truncated=True,
            )
        )
        pipe.send(writer.episodes)
