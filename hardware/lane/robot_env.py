"""An arm as a world: a lane like every other, whose control steps take their time.

World type `robot`. A real arm (`robot`, `port`) knows no seeds and no success: its episode ends at the horizon, or when
whoever watches concludes it. With `emulate` the arm is an SO-101 in the scene of `task`, behind driver, guard and wire
(`clock: wall`), or behind the guard in simulated time (`clock: simulated`); its starts are those of the task's world.

A control step is sent as `set_points` set-points, interpolated, each through the guard; what a step is told to have
executed (`action.sent`) is the last of them, as the guard let it through. Readings are taken just before the next step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.lanes.lane import Lane
from ...configs.spec import STATE, Embodiment, EmbodimentError, Mode
from ...configs.world import World
from ...sim.experts import expert_action
from ..bends import Bends
from ..consent import IN_WORLD, ask
from ..emulator.arm import find_kind
from ..emulator.coupled import find_task
from ..envelope import Envelope, Foresight, Outcome, envelope_of
from ..open import robot_config
from ..robot import RobotConfig
from ..so101 import ENVELOPE
from .arms import NUMBERS, DrivenArm, EmulatedArm, LiveArm, Look, SteppedArm

if TYPE_CHECKING:
    from ..twin.beside_settings import BesideSettings

CLOCKS = ("wall", "simulated")
EARLY = 0.01  # s before the next step that the arm is read; at most a third of a step
NOT_BEGUN = math.inf  # when the first step of an episode is due
LATE = 0.25  # part of a control step that one may begin late; more is a missed deadline
SHADOW = ("force", "vetoed", "parted", "heard", "compared")  # of `Steps.shadow`
SECONDS = 30.0  # of an episode, where nobody says
THERE, GOING = 0.01, 30.0  # rad or m that the set-point may be from a pose that the arm goes to; s that it may take
NEAR, SETTLES = 0.02, 1.0  # rad or m that the measured joints may be from it then; s more that they may take


@World.register_subclass("robot")
@dataclass(frozen=True, kw_only=True)
class RobotWorld(World):
    """An arm, real or emulated."""

    robot: dict | str | None = None  # one of ours or lerobot's, a YAML file, or its keys with their type
    port: str | None = None  # of the robot
    calibration: str | None = None  # its calibration file; default: its usual place
    emulate: bool = False  # an SO-101 in the scene of `task` in place of a robot
    clock: str = "wall"  # wall, or, of an emulated arm, simulated
    rate: float = 30.0  # control steps a second; of an emulated arm its task's
    set_points: int = 2  # sent to the servos in a control step
    # a twin that looks ahead for the guard: a scene's folder, a YAML file, or its keys, see twin/beside.py
    shadow: dict | str | None = None
    yes: bool = False  # do not ask before the first motion of a real arm

    def __post_init__(self) -> None:
        if self.clock not in CLOCKS:
            raise ValueError(f"clock: '{self.clock}' is none of {', '.join(CLOCKS)}")
        if self.emulate == (self.robot is not None):
            raise ValueError("which arm? Give robot and port, or emulate: true with the task of an SO-101")
        if self.clock == "simulated" and not self.emulate:
            raise ValueError("clock: a real arm lives in wall time")
        if self.set_points < 1 or not self.rate > 0:
            raise ValueError(f"set_points must be at least 1 and rate above 0, got {self.set_points} and {self.rate:g}")

    def config(self) -> RobotConfig:
        """Settings of the robot, at the rate of its set-points. Raises LookupError, ValueError."""
        assert self.robot is not None
        config, rate = robot_config(self.robot, self.port, self.calibration), self.rate * self.set_points
        if not any(each.name == "rate" for each in dataclasses.fields(config)):
            return config
        changed: dict[str, Any] = {"rate": rate}
        return dataclasses.replace(config, **changed)

    def envelope(self) -> Envelope:
        """What the guard of the arm allows; of an arm with a calibration, its limits may be narrower."""
        return envelope_of(ENVELOPE if self.emulate else self.config().envelope, self.embodiment())

    def embodiment(self) -> Embodiment:
        if self.emulate:
            return find_task(self.task, find_kind("so101")).embodiment.with_cameras(self.cameras)
        config = self.config()
        body = config.describe().embodiment
        if body.mode is not Mode.absolute:
            raise EmbodimentError(f"'{body.name}' takes {body.mode.value} actions; set-points must be absolute")
        sizes = {name: camera.size for name, camera in config.cameras().items()}
        return dataclasses.replace(body, rate=self.rate).with_cameras(sizes)

    def allow(self) -> None:
        if not (self.emulate or self.yes):
            ask(f"{self.embodiment().name} is about to move", instead=IN_WORLD)

    def arm(self) -> DrivenArm:
        """The arm, not connected. Raises EmbodimentError, ValueError: a shadow that is not of this arm."""
        from ..twin.beside import Beside, Within

        self.check_shadow()
        rate, beside = self.embodiment().rate * self.set_points, self.beside
        if self.emulate and self.clock == "simulated":
            within = None if beside is None else Within(beside, rate)
            return SteppedArm(self.task, self.eyes(), rate, shadow=within)
        shadow = None if beside is None else Beside(beside, rate)
        if not self.emulate:
            return LiveArm(self.config(), shadow)
        return EmulatedArm(self.task, self.eyes(), rate, self.embodiment().rate, shadow)

    @property
    def beside(self) -> BesideSettings | None:
        """Settings of the shadow. Raises FileNotFoundError, ValueError."""
        from ..twin.beside_settings import beside_settings

        return None if self.shadow is None else beside_settings(self.shadow)

    def check_shadow(self) -> list[str]:
        """Refuse a shadow of another arm or scene; what the person at the arm should know. See `check_beside`."""
        if (beside := self.beside) is None:
            return []
        from ..twin.beside_settings import check_beside

        body = self.embodiment()
        if self.emulate:
            return check_beside(beside, body.with_cameras(self.eyes()), self.task)
        return check_beside(beside, body)

    def eyes(self) -> dict[str, tuple[int, int]]:
        """Cameras of an emulated arm, its shadow's too, and their height and width."""
        if (beside := self.beside) is None:
            return dict(self.cameras)
        views = self.views()
        own = {name: (one.height, one.width) for name, one in beside.cameras().items() if name in views}
        return own | dict(self.cameras)

    def lane(self) -> RobotLane:
        return RobotLane(self, self.arm())

    def steps(self) -> int:
        if self.horizon:
            return self.horizon
        if self.emulate:
            return find_task(self.task, find_kind("so101")).horizon
        return round(SECONDS * self.rate)

    @property
    def start_set(self) -> str:
        return f"mujoco/{self.task}" if self.emulate else ""

    @property
    def moves_arm(self) -> bool:
        return not self.emulate

    @property
    def by_the_clock(self) -> bool:
        return self.clock == "wall"

    @property
    def undemonstrated(self) -> str:
        if not self.emulate:
            return "an arm is led by a person: --robot NAME --by TELEOPERATOR in place of --world"
        if self.clock != "simulated":
            return "a scripted expert acts on an emulated arm in simulated time alone: give the world clock: simulated"
        return ""

    def views(self) -> tuple[str, ...]:
        if self.emulate:
            return tuple(find_task(self.task, find_kind("so101")).cameras)
        return tuple(self.config().cameras())

    def fingerprint(self) -> dict:
        about = {"type": "robot", "horizon": self.steps(), "emulator": "so101" if self.emulate else None}
        found = dataclasses.asdict(self) | about | {"robot": None if self.emulate else self.config().settled()}
        del found["yes"]  # who was asked changes nothing
        if (beside := self.beside) is None:
            del found["shadow"]  # as records of before have it
            return found
        from ..twin.identity import identity_of

        return found | {"shadow": dataclasses.asdict(beside) | {"scene": identity_of(beside.folder)}}


@dataclass
class Steps:
    """What is kept of each control step of an episode beside what every world keeps; s since its begin."""

    captured: list[list[float]] = field(default_factory=list)  # of each part of the reading that the action followed
    commanded: list[float] = field(default_factory=list)
    outcome: list[float] = field(default_factory=list)  # of the worst set-point: 0 passed, 1 bent, 2 stopped
    late: list[float] = field(default_factory=list)  # 1: the step began late
    # with a shadow: force in N of the hardest contact foreseen, vetoed, twin and camera apart, heard (1: the guard had
    # an answer for each set-point), compared (1: pictures were lately)
    shadow: list[list[float]] = field(default_factory=list)
    torque: list[list[float]] = field(default_factory=list)  # N m (D,) that contacts were foreseen to put on the joints


class RobotLane(Lane):
    """One arm. Connected at the first `reset`; every step waits until it is due."""

    def __init__(self, world: RobotWorld, arm: DrivenArm):
        super().__init__(world)
        self._name = world.task
        self.arm, self.set_points, self._envelope = arm, world.set_points, world.envelope()
        self.period = 1 / (self.embodiment.rate * world.set_points)
        self.slack = LATE / self.embodiment.rate
        self.early = min(EARLY, 1 / (3 * self.embodiment.rate))
        self._connected = False
        self._scored: bool | None = None
        self._concluded = False
        self.reasons: tuple[str, ...] = ()  # why the guard bent or stopped the newest set-point

    def begin(self, seed: int, options: dict) -> None:
        if not self._connected:
            self.arm.connect()
            self._connected = True
        self._goal = self.sent = self.arm.begin(seed)
        self._look: Look = self._see()
        self._begun, self._due = self.arm.now(), NOT_BEGUN
        self.steps, self.stopped, self._scored, self._concluded = Steps(), "", None, False
        self.warnings: list[str] = []  # of the shadow, each once
        body = self.embodiment
        self.bends = Bends(body.action, self._envelope, 1 / self.period, body.action_units, "set-points")

    def seen(self) -> Mapping[str, np.ndarray]:
        """What is seen now, between episodes."""
        self._look = self.arm.look()
        return self.sense()

    def go(self, pose: np.ndarray) -> float:
        """Move to joints (D,) as slowly as the guard lets an approach be; how far they are measured from it, rad or m.

        `told` says what the guard had against it.
        """
        pose, end = np.asarray(pose, np.float32), self.arm.now() + GOING
        away, moment = math.inf, self.arm.now()
        while away > NEAR and self.arm.now() < end:
            verdict = self.arm.send(pose)
            self.reasons = verdict.reasons
            if verdict.outcome is Outcome.stopped:
                break
            if np.abs(verdict.sent - pose).max() <= THERE:
                away, end = self._away_from(pose), min(end, self.arm.now() + SETTLES)
            moment = max(moment + self.period, self.arm.now() - self.period)
            self.arm.sleep_until(moment)
        return away if math.isfinite(away) else self._away_from(pose)

    def _away_from(self, pose: np.ndarray) -> float:
        return float(np.abs(np.asarray(self.arm.look().obs[STATE]) - pose).max())

    def act(self, action: np.ndarray) -> float:
        target, worst = np.asarray(action, np.float32), Outcome.passed
        foreseen: list[Foresight | None] = []
        late, first = self._await(), self.arm.now()
        for part in range(1, self.set_points + 1):
            self.arm.sleep_until(self._due)
            set_point = self._goal + (target - self._goal) * (part / self.set_points)
            verdict = self.arm.send(set_point)
            self.bends.add(verdict, set_point)
            foreseen.append(verdict.foreseen)
            worst = max(worst, verdict.outcome, key=NUMBERS.__getitem__)
            self.reasons = verdict.reasons
            self._due += self.period
        self._goal, self.sent = target, np.asarray(verdict.sent, np.float32)
        if worst is Outcome.stopped:
            self.stopped = "; ".join(self.reasons)
        self._note(first, worst, late)
        if self.arm.shadow is not None:
            self._note_shadow(foreseen)
        self.arm.sleep_until(self._due - self.early)
        self._look = self._see()
        return self.judge()[1]

    def _see(self) -> Look:
        look = self.arm.look()
        if self.arm.shadow is not None:
            self.arm.shadow.show(look.obs, look.times)
        return look

    def _note_shadow(self, foreseen: Sequence[Foresight | None]) -> None:
        """The worst of the step's set-points, and what the shadow made of the pictures before."""
        assert self.arm.shadow is not None
        heard, seen = [one for one in foreseen if one is not None], self.arm.shadow.told(self.arm.now())
        force = max((one.force for one in heard), default=0.0)
        vetoed = any(not one.allowed for one in heard)
        torques = np.array([one.torque for one in heard] or [np.zeros(len(self.embodiment.action))])
        most = torques[np.abs(torques).argmax(0), np.arange(torques.shape[1])]
        known = len(heard) == len(foreseen), seen.compared
        self.steps.shadow.append([force, float(vetoed), float(seen.parted), *map(float, known)])
        self.steps.torque.append(most.tolist())
        self.warnings += [warning for warning in seen.warnings if warning not in self.warnings]

    def _await(self) -> bool:
        """Wait for the step's time; whether it is missed. A pause of the policy's begins a new time."""
        now = self.arm.now()
        if self._due == NOT_BEGUN:
            self._due = now
        late = now - self._due > self.slack
        if late:
            self._due = now
        self.arm.sleep_until(self._due)
        return late

    def _note(self, moment: float, worst: Outcome, late: bool) -> None:
        self.steps.captured.append([self._look.times[key] - self._begun for key in self.embodiment.offers()])
        self.steps.commanded.append(moment - self._begun)
        self.steps.outcome.append(NUMBERS[worst])
        self.steps.late.append(float(late))

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        """See `Lane.advance`. An episode whose arm was stopped, or that was concluded, ends."""
        reward, terminated, truncated, info = super().advance(action)
        info["action.sent"] = self.sent.copy()
        over = bool(self.stopped) or self._concluded
        return reward, terminated, (truncated or over) and not terminated, info

    def sense(self) -> dict[str, np.ndarray]:
        return {key: self._look.obs[key] for key in self.embodiment.offers()}

    def judge(self) -> tuple[bool, float]:
        if self._scored is not None:
            return self._scored, float(self._scored)
        return bool(self._look.success), float(self._look.progress)

    def rest(self) -> np.ndarray:
        return np.asarray(self.sent, np.float32)

    def conclude(self, success: bool | None) -> None:
        """End the episode after the step that comes: whoever watches says how it went; None: that is not said here."""
        self._concluded, self._scored = True, None if success is None else bool(success)

    def couple(self) -> None:
        """Somebody else commands from here on: their first command is approached slowly, from where the arm is sent."""
        self.arm.couple()
        self._goal = np.asarray(self.sent, np.float32)

    def labels(self) -> dict:
        """What the episode's row says of it."""
        bent = int(sum(number == NUMBERS[Outcome.bent] for number in self.steps.outcome))
        labels = {"stopped": self.stopped, "bent": bent, "late": int(sum(self.steps.late))}
        if self.arm.shadow is None:
            return labels
        force, vetoed, parted, heard, compared = np.array(self.steps.shadow).reshape(-1, len(SHADOW)).T
        shadow = {"vetoed": int(vetoed.sum()), "parted": int(parted.sum())}
        shadow |= {"unheard": int((heard == 0).sum()), "uncompared": int((compared == 0).sum())}
        return labels | {"shadow": shadow | {"force": float(force.max(initial=0)), "warnings": self.warnings}}

    def kept(self) -> dict[str, np.ndarray]:
        """Name of a column -> (T, n) of the episode."""
        return {name: np.array(values, np.float32) for name, values in vars(self.steps).items() if values}

    def told(self) -> dict[str, Any]:
        """What the newest set-point came to."""
        return {"goal": self._goal, "sent": self.sent, "reasons": self.reasons}

    def expert_action(self, noise: float = 0.0) -> np.ndarray:
        """What the task's scripted demonstrator does now; see `SteppedArm.sent_there`.

        Raises:
            LookupError: there is none of this task.
        """
        assert isinstance(self.arm, SteppedArm)  # as `RobotWorld.lane` says
        self.task, self.model, self.data = self.arm.sent_there(self.sent)  # what demonstrators look at
        return expert_action(self._name, self, noise)

    def render(self) -> np.ndarray:
        for picture in self._look.obs.values():
            if picture.ndim == 3:
                return picture
        return np.zeros((64, 64, 3), np.uint8)

    def close(self) -> None:
        if self._connected:
            self._connected = False
            self.arm.disconnect()
