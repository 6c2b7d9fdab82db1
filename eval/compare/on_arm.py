"""The settings of a comparison on an arm. Refusals that need no arm are here."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

MEASURE = -1  # the delay is measured, as `deploy` does


@dataclass(frozen=True, kw_only=True)
class OnArm:
    """Which arm two policies act on, and how their starts are made alike."""

    # live, on an arm: one of ours or lerobot's, a YAML file, or its keys (--robot.type NAME --robot.port PORT)
    robot: dict | str | None = None
    port: str | None = None  # of the robot, such as /dev/ttyACM0
    calibration: str | None = None  # lerobot's calibration file of the robot; default: its usual place
    # live: on an emulated SO-101 in the scene of --task; the same as --world '{type: robot, emulate: true, task: ..}'
    emulate: bool = False
    task: str = ""  # on an arm: text of the task for the records; of an emulated arm its scene, such as so101-reach
    clock: str = "wall"  # of an emulated arm: wall, or simulated, where time passes as fast as it is computed
    seconds: float | None = None  # on an arm: length of an episode; by default 30 s, of an emulated arm its task's
    latency: str = "wait"  # on an arm: what it does while a plan is made: wait | switch | blend | rtc | prefix | past
    delay: int = MEASURE  # on an arm: control steps that planning takes; -1: measured for each policy
    limits: str = "equal"  # of the joints: equal to the policies', or whatever the arm has (arm)
    # on an arm with a camera: px that the scene may be away from the start of its pair for an episode to begin
    restore_within: float | None = None
    # on an arm: folder of recorded starts, the `starts` of an earlier comparison; by default each pair's first trial
    starts: str | None = None
    yes: bool = False  # on an arm: do not ask before the first motion

    @property
    def arm_asked(self) -> bool:
        """Whether flags name an arm."""
        return self.robot is not None or self.emulate

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the settings of an arm that were given."""
        return tuple(item.name for item in fields(OnArm) if getattr(self, item.name) != item.default)

    @property
    def alike(self) -> dict[str, Any]:
        """What a comparison holds to of how its starts are made alike, where that is not the default."""
        held = {} if self.restore_within is None else {"restore_within": self.restore_within}
        starts = self.starts_folder
        return held if starts is None else held | {"starts": str(starts.resolve())}

    @property
    def starts_folder(self) -> Path | None:
        """Where the recorded starts are."""
        return None if self.starts is None else Path(os.path.expandvars(self.starts))

    def refuse_arm(self, why: str) -> None:
        """Refuse the settings of an arm where none acts. Raises ValueError."""
        if self.given:
            raise ValueError(
                f"--{self.given[0]} is of a live comparison on an arm (--robot NAME --port PORT, or --emulate true "
                f"--task so101-reach); {why}"
            )

    def check_arm(self, emulated: bool, operator: str) -> None:
        """Refuse what does not go together on an arm.

        Args:
            emulated: whether the arm is.
            operator: who scores, empty where nobody does.

        Raises:
            ValueError: naming the flag.
        """
        for name in ("restore_within", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"--{name} {value} is not above 0")
        if self.delay < MEASURE:
            raise ValueError(f"--delay {self.delay} is neither control steps nor -1, which measures them")
        if self.limits not in ("equal", "arm"):
            raise ValueError(f"--limits {self.limits} is neither equal nor arm")
        if emulated and self.starts is not None and self.restore_within is None:
            raise ValueError(
                "--starts: an emulated arm begins at its env seed, and nothing is compared with these pictures unless "
                "--restore_within PX is given: give it, or leave --starts out"
            )
        if not emulated and not operator:
            raise ValueError("a real arm does not know whether its task is done: --operator NAME scores each episode")
        if not emulated and self.clock != "wall":
            raise ValueError("--clock is of an emulated arm: leave it out")
        for name in () if self.arm_asked else ("port", "calibration", "task", "clock"):
            if getattr(self, name) != getattr(OnArm, name):
                raise ValueError(f"--{name} is of --robot or --emulate; with --world it belongs among its keys")

    def arm_world(self) -> dict[str, Any] | None:
        """The keys of the world that the flags name; None where they name none. Raises ValueError: two arms."""
        if not self.arm_asked:
            return None
        if self.robot is not None and self.emulate:
            raise ValueError("--robot is a real arm, --emulate true an SO-101 without one: leave one of them out")
        for name in ("port", "calibration") if self.emulate else ():
            if getattr(self, name) is not None:
                raise ValueError(f"--{name} is of a real arm, --emulate true has none: leave it out")
        keys = {"type": "robot", "emulate": self.emulate, "task": self.task or ("so101-reach" if self.emulate else "")}
        given = {"robot": self.robot, "port": self.port, "calibration": self.calibration}
        keys |= {name: value for name, value in given.items() if value is not None}
        return keys | ({"clock": self.clock} if self.emulate else {})
