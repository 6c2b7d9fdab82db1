"""Whether anything that is commanded leaves the guard's envelope, or an arm moving that nobody commands any more.

    understudy study guard --out OUT.json

Commands of each kind are sent through guard, packets and emulated servos to an SO-101 in MuJoCo, in simulated time.
Every set-point is judged by another model of the arm: position, velocity, acceleration and jerk as differences over the
steps, distance from table, walls and itself, torque. The torque of the motors is what the simulation gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.command import command_of
from ...configs.plugins import lookup
from ...configs.progress import Progress
from ...hardware.envelope import Command, Envelope, Measured, Outcome
from ...hardware.guard import Guard
from ...hardware.lane.direct import DirectArm
from ...hardware.motion.clearance import Clearance, Surroundings
from ...hardware.so101 import ENVELOPE, PUSHED
from ...sim.arms import Arm, find_arm
from ..ledger.study import Study
from ..statistics.intervals import Interval, bootstrap_interval, exact
from ._kept import Kept

RATES = (30.0, 60.0, 100.0, 200.0)
AROUND = Surroundings(low=(-0.3, -0.4, 0.0), high=(0.45, 0.4, 0.5))
ROUNDING = {"velocity": 1e-6, "acceleration": 1e-5, "jerk": 1e-4}  # part of the bound: differences of differences
NEAR, LIMIT = 1e-4, 1e-6  # m, rad
EPISODE = 500  # commands from one engagement on
COLUMNS = (
    "commands",
    "n",
    "engagements",
    "passed",
    "bent",
    "stopped",
    "velocity",
    "acceleration",
    "jerk",
    "nearest, mm",
    "torque by the model, N m",
    "torque of the motors, N m",
    "steps with a motor over the limit",
    "engagements that left the envelope",
)


@dataclass(frozen=True, kw_only=True)
class GuardStudy:
    """Send commands of every kind through the guard and judge every set-point."""

    commands: int = 100_000  # in all
    silences: int = 100  # times that the commands end while the arm moves
    kinds: tuple[str, ...] = ()  # of commands; default all
    seed: int = 0  # of what is drawn
    out: Path  # file of the study

    def __post_init__(self) -> None:
        for kind in self.kinds:
            lookup("kind of commands", kind, KINDS)
        if self.commands < len(KINDS) or self.silences < 1:
            raise ValueError(f"commands must be at least {len(KINDS)} and silences 1")

    def run(self) -> None:
        kept = Kept(self.out, self)
        with kept.going_on():
            study = guard_study(self, kept)
            print(study.markdown())
            print(study.write(self.out))


def guard_study(settings: GuardStudy, kept: Kept) -> Study:
    kinds = settings.kinds or tuple(KINDS)
    number = settings.commands // len(kinds)
    bench = Bench(settings.seed)
    rows = []
    with Progress("guard", len(kinds) * number, "commands", done=0) as progress:
        for kind in kinds:
            tallies = []
            for episode, begin in enumerate(range(0, number, EPISODE)):
                steps = min(EPISODE, number - begin)
                told = kept.get(f"{kind} {episode}", partial(bench.episode, kind, episode, steps))
                tallies.append(Tally(**told))
                progress.update(progress.done + steps, kind)
            rows.append((kind, *row(tallies)))
            print(*rows[-1], flush=True)

    with Progress("silence", settings.silences, "times") as progress:
        found = []
        for trial in range(settings.silences):
            found.append(kept.get(f"silence {trial}", partial(bench.silence, trial)))
            progress.update(len(found))
    longest, moved = np.max(found, axis=0)
    repeat = command_of(settings, "study guard", without=("out",)) + " --out FILE.json"
    notes = (
        f"n commands; rates of {', '.join(f'{rate:g}' for rate in RATES)} Hz in turn, {EPISODE} commands from one "
        f"engagement on; seed {settings.seed}; the default envelope of the SO-101, with walls; 95 % intervals over "
        "engagements: Clopper-Pearson, and bootstrap of the share of steps",
        "Velocity, acceleration and jerk: the greatest of any set-point, as part of its bound",
        "Nearest: of every tenth set-point; below the clearance only where the arm stood when it was engaged",
        "Left the envelope: a set-point beyond a bound, a limit or the torque by the model, or too near to something",
        f"Motors over the limit: the simulated motor gave more than the {ENVELOPE['torque']:g} N m of the envelope. A "
        f"servo that rests gives at most {PUSHED * ENVELOPE['torque']:.2f}, for its Torque_Limit is set so; what "
        "pushes it back adds its back-EMF, 0.55 N m per rad/s, until the guard has seen it and gives way",
        f"Silence: {settings.silences} times no command came any more while the arm moved; the set-points rested after "
        f"at most {1000 * longest:.0f} ms, the simulated arm moved by at most {moved:.4f} rad in the second after that",
    )
    return Study(title="What leaves the guard's envelope", command=repeat, columns=COLUMNS, rows=rows, notes=notes)


class Bench:
    """Plays episodes and silences, each drawn by its own seed."""

    def __init__(self, seed: int):
        self.seed, self.arm = seed, find_arm("so101")
        self.body, self.judge = Clearance(self.arm, AROUND), Clearance(self.arm, AROUND)

    def episode(self, kind: str, number: int, steps: int) -> dict[str, Any]:
        """A tally of so many commands of a kind."""
        rng = np.random.default_rng([self.seed, list(KINDS).index(kind), number])
        trial = self._trial(number)
        for command in KINDS[kind](trial, rng, steps):
            trial.step(command)
        return dataclasses.asdict(trial.tally)

    def silence(self, number: int) -> tuple[float, float]:
        """s from the last command until the set-points rest, and rad that the arm moves in the second after that."""
        rng = np.random.default_rng([self.seed, 99, number])
        trial = self._trial(number)
        for command in _adversarial(trial, rng, int(trial.rate * rng.uniform(0.5, 1.5))):
            trial.step(command)
        last = trial.now
        while not trial.guard.rests and trial.now < last + 5:
            trial.step(None)
        rested = trial.now - last
        trial.servos.advance(0.3)  # the servos arrive
        stands = trial.servos.joints
        trial.servos.advance(1.0)
        return rested, float(np.abs(trial.servos.joints - stands).max())

    def _trial(self, number: int) -> Trial:
        return Trial(self.arm, self.body.again(), self.judge, RATES[number % len(RATES)], Tally())


@dataclass
class Tally:
    """The worst of many steps."""

    n: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    over: int = 0
    left: int = 0

    def note(self, name: str, value: float) -> None:
        self.worst[name] = max(value, self.worst.get(name, -np.inf))


def row(tallies: list[Tally]) -> tuple:
    """What follows the kind of commands in `COLUMNS`, of the tallies of its engagements."""
    worst = {name: max(t.worst[name] for t in tallies) for name in tallies[0].worst}
    counts = (sum(t.outcomes.get(outcome.value, 0) for t in tallies) for outcome in Outcome)
    parts = (round(worst[name], 4) for name in ("velocity", "acceleration", "jerk"))
    torques = (round(worst[name], 3) for name in ("model", "motor"))
    over = bootstrap_interval([t.over / t.n for t in tallies], np.random.default_rng(0))
    left = exact(sum(t.left > 0 for t in tallies), len(tallies))
    shown = (Interval(*(round(part, 6) for part in one)) for one in (over, left))
    n = sum(t.n for t in tallies)
    return (n, len(tallies), *counts, *parts, round(-1000 * worst["nearness"], 2), *torques, *shown)


class Trial:
    """A guard and its arm from one engagement on."""

    def __init__(self, arm: Arm, body: Clearance, judge: Clearance, rate: float, tally: Tally):
        self.arm, self.judge, self.rate, self.tally = arm, judge, rate, tally
        self.servos = DirectArm("so101-reach")
        self.envelope = Envelope(limits=self.servos.scale.limits(), **ENVELOPE)
        self.guard = Guard(arm.joints, self.envelope, rate, body)
        self.bounds = self.envelope.bounds()
        self.torque = np.broadcast_to(np.asarray(self.envelope.torque, float), (len(arm.joints),))
        self.begin()
        self.number = 0

    def begin(self) -> None:
        """Engage where the arm stands, as it is measured."""
        self.place = self.guard.engage(self.servos.measure(), self.servos.chain.time)
        self.speed = self.push = np.zeros(len(self.place))
        self.started = self.place
        self.allowed = np.minimum(self.envelope.clearance, self.judge.nearest(self.place))

    @property
    def now(self) -> float:
        return self.servos.chain.time

    def command(self, target: np.ndarray, age: float = 0.0, number: int | None = None) -> Command:
        """The next one; a step ahead of it the arm's time will be `age` s later than its own."""
        self.number += 1
        when = self.now + 1 / self.rate - age
        return Command(target=target, time=when, number=self.number if number is None else number)

    def step(self, command: Command | None, unread: bool = False) -> None:
        self.servos.advance(1 / self.rate)
        measured: Measured | None = None if unread else self.servos.measure()
        verdict = self.guard.step(measured, command, self.now)
        self.servos.write(verdict.sent)
        self._judge(verdict.sent)
        tally = self.tally
        tally.n += 1
        tally.outcomes[verdict.outcome.value] = tally.outcomes.get(verdict.outcome.value, 0) + 1
        if verdict.outcome is Outcome.stopped and self.guard.rests:
            self.begin()

    def _judge(self, sent: np.ndarray) -> None:
        tally, bounds = self.tally, self.bounds
        velocity = (sent - self.place) * self.rate
        acceleration = (velocity - self.speed) * self.rate
        jerk = (acceleration - self.push) * self.rate
        parts = {
            "velocity": float(np.max(np.abs(velocity) / bounds.velocity)),
            "acceleration": float(np.max(np.abs(acceleration) / bounds.acceleration)),
            "jerk": float(np.max(np.abs(jerk) / bounds.jerk)),
        }
        for name, part in parts.items():
            tally.note(name, part)
        borne = np.abs(self.judge.torque(sent, velocity, acceleration))
        given = np.abs(self.servos.torque)
        if tally.n % 10 == 0:
            tally.note("nearness", -float(self.judge.nearest(sent).min()))
        tally.note("model", float(borne.max()))
        tally.note("motor", float(given.max()))
        tally.over += bool((given > self.torque).any())
        low, high = np.minimum(bounds.low, self.started), np.maximum(bounds.high, self.started)
        tally.left += bool(
            not np.isfinite(sent).all()
            or any(parts[name] > 1 + slack for name, slack in ROUNDING.items())
            or (sent < low - LIMIT).any()
            or (sent > high + LIMIT).any()
            or self.judge.too_near(sent, self.allowed - NEAR)
            or (borne > self.torque + LIMIT).any()
        )
        self.place, self.speed, self.push = sent, velocity, acceleration


Commands = Iterator[Command | None]


def _random(trial: Trial, rng: np.random.Generator, n: int) -> Commands:
    """Wanders, now and then jumps."""
    target = trial.place
    for _ in range(n):
        far = rng.random() < 0.05
        target = rng.uniform(trial.arm.low, trial.arm.high) if far else target + rng.normal(0, 0.03, len(target))
        yield trial.command(target)


def _adversarial(trial: Trial, rng: np.random.Generator, n: int) -> Commands:
    """From one end of all joints to the other, the way changed just when the arm is fastest; into table and itself."""
    ends = np.array([trial.arm.low, trial.arm.high])
    target, left = trial.place, 1  # at first where it is: or all of it would be an approach
    for _ in range(n):
        if left == 0:
            target = np.where(rng.random(len(target)) < 0.5, ends[0], ends[1])
            left = int(trial.rate * rng.uniform(0.05, 0.6))
        left -= 1
        yield trial.command(target + rng.normal(0, 1e-3, len(target)))


def _broken(values: tuple[float, ...]) -> Callable[[Trial, np.random.Generator, int], Commands]:
    def commands(trial: Trial, rng: np.random.Generator, n: int) -> Commands:
        for command in _random(trial, rng, n):
            assert command is not None
            if rng.random() < 0.3:
                command.target[rng.integers(len(command.target))] = rng.choice(values)
            yield command

    return commands


def _stale(trial: Trial, rng: np.random.Generator, n: int) -> Commands:
    for command in _adversarial(trial, rng, n):
        assert command is not None
        if rng.random() < 0.3:
            command = Command(target=command.target, time=command.time - rng.uniform(0, 5), number=command.number)
        yield command


def _reordered(trial: Trial, rng: np.random.Generator, n: int) -> Commands:
    """Now and then one that was sent before, once more."""
    sent: list[Command] = []
    for command in _adversarial(trial, rng, n):
        assert command is not None
        sent = [*sent[-5:], command]
        yield sent[rng.integers(len(sent))] if rng.random() < 0.3 else command


def _missing(trial: Trial, rng: np.random.Generator, n: int) -> Commands:
    """Gaps of up to half a second."""
    gap = 0
    for command in _adversarial(trial, rng, n):
        gap = int(rng.uniform(0, 0.5) * trial.rate) if gap == 0 and rng.random() < 0.02 else max(0, gap - 1)
        yield None if gap else command


KINDS: dict[str, Callable[[Trial, np.random.Generator, int], Commands]] = {
    "random": _random,
    "adversarial": _adversarial,
    "not finite": _broken((np.nan, np.inf, -np.inf)),
    "huge": _broken((1e300, -1e300, 1e6, -1e6)),
    "stale": _stale,
    "re-ordered": _reordered,
    "missing": _missing,
}
