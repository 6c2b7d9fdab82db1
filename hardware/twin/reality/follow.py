"""What follows a twin, behind a guard: a stand-in in simulated time, or an arm of `hardware/` on the wall's clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ....configs.spec import STATE, Mode
from ...envelope import Command, Envelope, Measured, Outcome, Verdict
from ...guard import Guard
from ...guarded import GuardedRobot
from ...robot import RobotConfig
from ..live.seam import Real
from .layout import Joints
from .stand_in import StandIn, Truth

# what a stand-in's arm may do where nothing else is said: what the simulated demonstrations take
ENVELOPE: dict[str, Any] = {"velocity": 4.5, "acceleration": 160.0, "jerk": 16000.0, "lag": 0.6}


class GuardedStandIn(Real):
    """A stand-in whose every command passes a guard, on the stand-in's own clock; `envelope` as of a robot."""

    def __init__(self, stand_in: StandIn, envelope: Mapping[str, Any] | None = None, clearance=None):
        self.stand_in, self.joints = stand_in, stand_in.joints
        settings = ENVELOPE | {"limits": _wide(stand_in.joints)} | dict(envelope or {})
        self.guard = Guard(self.joints.names, Envelope(**settings), stand_in.rate, clearance, self.joints.units)
        self.verdict: Verdict | None = None
        self._offset = 0.0
        self._number = 0
        self._engage()

    @property
    def time(self) -> float:
        return self._offset + self.stand_in.time

    def begin(self, start: int) -> None:
        """See `Real`. Time goes on, as the guard's does."""
        self._offset += self.stand_in.time + 1.0
        self.stand_in.begin(start)
        self._engage()

    def send(self, target: np.ndarray) -> np.ndarray:
        """See `Real`."""
        self._number += 1
        command = Command(target=np.asarray(target, float), time=self.time, number=self._number)
        self.verdict = self.guard.step(self._measured(), command, self.time)
        self.stand_in.send_action(self.verdict.sent)
        return self.verdict.sent

    def resume(self) -> None:
        """See `Real`."""
        if _unread(self.guard.stopped):
            self._engage()

    def observe(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """See `Real`."""
        found, times = self.stand_in.observe()
        return found, {key: self._offset + moment for key, moment in times.items()}

    def advance(self, seconds: float) -> None:
        """See `Real`."""
        self.stand_in.advance(seconds)

    def history(self) -> tuple[np.ndarray, np.ndarray]:
        """See `StandIn.history`, on this clock."""
        times, values = self.stand_in.history()
        return times + self._offset, values

    def truth(self) -> Truth:
        """See `StandIn.truth`."""
        return self.stand_in.truth()

    def close(self) -> None:
        """See `Real`."""
        self.stand_in.disconnect()

    def _engage(self) -> None:
        """A step ago: in simulated time the next command comes at once, and would be one too many."""
        then, measured = self.time - self.guard.step_length, self._measured()
        self.guard.engage(Measured(position=measured.position, time=min(measured.time, then)), then)

    def _measured(self) -> Measured:
        found, times = self.observe()
        return Measured(position=np.asarray(found[STATE], float), time=times[STATE])


class GuardedArm(Real):
    """An arm behind its guard, in real time. Its joints must be those of the twin, in rad.

    Args:
        cameras: name -> (height, width) px, of the twin's scene, by which the arm's pictures correct it.

    Raises ValueError: an arm of another rate than the loop's, other joints, units or cameras.
    """

    def __init__(self, config: RobotConfig, joints: Joints, rate: float, cameras: Mapping[str, tuple[int, int]]):
        self.joints, self.robot = joints, GuardedRobot(config)
        self.verdict: Verdict | None = None
        self.robot.connect()
        body = self.robot.embodiment
        try:
            if (body.action, body.state) != (joints.names, joints.names) or body.mode is not Mode.absolute:
                told = f"the arm takes {', '.join(body.action)} ({body.mode.value}) and tells {', '.join(body.state)}"
                raise ValueError(f"the twin has the joints {', '.join(joints.names)}; {told}")
            if (body.action_units, body.state_units) != (joints.units, joints.units):
                told = f"the twin's joints are in {', '.join(joints.units)}"
                raise ValueError(f"{told}; the arm's in {', '.join(body.action_units)}, {', '.join(body.state_units)}")
            if any(body.cameras.get(name) != size for name, size in cameras.items()):
                told = f"the scene was built for the cameras {dict(cameras)} (height, width)"
                raise ValueError(f"{told}; the arm's are {body.cameras or 'none'}")
            if body.rate < rate - 1e-6:
                raise ValueError(f"the arm takes {body.rate:g} commands a second, the twin sends {rate:g}: --rate")
        except ValueError:
            self.close()
            raise

    @property
    def time(self) -> float:
        return time.monotonic()

    def begin(self, start: int) -> None:
        """See `Real`: take hold of the arm where it stands."""
        self.robot.engage()

    def send(self, target: np.ndarray) -> np.ndarray:
        """See `Real`."""
        sent = self.robot.send_action(np.asarray(target, float))
        self.verdict = self.robot.verdict
        return sent

    def resume(self) -> None:
        """See `Real`."""
        if self.verdict is not None and self.verdict.outcome is Outcome.stopped and _unread(self.verdict.reasons[0]):
            self.robot.engage()

    def observe(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """See `Real`."""
        return self.robot.observe()

    def advance(self, seconds: float) -> None:
        """See `Real`."""

    def close(self) -> None:
        """See `Real`."""
        self.robot.disconnect()


def _unread(reason: str | None) -> bool:
    """Whether a guard stopped since the pose was not read, or only an old one; see `watch.Watch.unseen`."""
    return reason is not None and ("could not be read" in reason or "s old" in reason)


def _wide(joints: Joints) -> tuple[tuple[float, float], ...]:
    """The joints' limits; an encoder's rounding at a stop is inside."""
    return tuple((low - 2e-3, high + 2e-3) for low, high in joints.limits)
