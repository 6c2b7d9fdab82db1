"""What can be driven: the four verbs of a lerobot `Robot`, plus the `Embodiment` that says what its numbers mean.

A guarded robot is a robot, a twin is a robot. Units are SI (m, rad, s) on our side of this door: a driver converts.
Nothing here knows of policies or of any make of arm; a driver is one file that registers a `RobotConfig`.
Only `session.py` calls a driver: what opens a robot is `guarded.open_robot`, and it puts the guard in front.

Source: the verbs are those of `lerobot.robots.Robot` (0.4.4), so that its drivers fit with a thin adapter.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import draccus
import numpy as np

from ..configs.spec import Embodiment
from .envelope import Measured, check_envelope, is_number
from .motion.clearance import Surroundings

FAR = 10.0  # m; who puts a table or a wall farther away speaks of mm


@runtime_checkable
class Robot(Protocol):
    """An arm, or what behaves as one. Between `connect` and `disconnect` it may hold a torque."""

    embodiment: Embodiment

    @abstractmethod
    def connect(self) -> None:
        """Open the bus and the cameras. Must not move the arm. Raises ConnectionError, naming the device."""
        ...

    @abstractmethod
    def get_observation(self) -> Mapping[str, np.ndarray]:
        """The newest reading, with exactly the keys of `embodiment.offers()`.

        Vectors are float32 in the embodiment's units, pictures uint8 (h, w, 3) RGB. Raises ConnectionError.
        """
        ...

    @abstractmethod
    def send_action(self, action: np.ndarray) -> np.ndarray:
        """Command `action` (D,) float32, units of the embodiment; return what was really sent, (D,) float32.

        The two differ where a guard or the driver clipped. Raises ConnectionError.
        """
        ...

    @abstractmethod
    def disconnect(self) -> None:
        """Release the torque and close. Safe to call twice, and after a failed `connect`."""
        ...


class Driver(Protocol):
    """The bus of one arm. Every method raises ConnectionError, naming the device, when it does not answer."""

    embodiment: Embodiment  # without cameras: those are opened elsewhere
    body: str | None  # name of the arm in `sim/arms.py`, whose joints are the action's; None: no model is known

    @abstractmethod
    def connect(self) -> None:
        """Open and check. Must neither move the arm nor take hold of it."""
        ...

    @abstractmethod
    def measure(self, loads: bool) -> Measured:
        """Positions, and with `loads` the torques where servos tell, at `time.monotonic()`. Never an old value."""
        ...

    @abstractmethod
    def write(self, goal: np.ndarray) -> None:
        """Send a set-point (D,), units of the embodiment."""
        ...

    @abstractmethod
    def hold(self) -> None:
        """Switch the torque on; the arm stays where it is."""
        ...

    @abstractmethod
    def relax(self) -> None:
        """Switch the torque off."""
        ...

    @abstractmethod
    def close(self) -> None:
        """Close the bus. Safe to call twice, and after a failed `connect`."""
        ...


@dataclass(frozen=True)
class Description:
    """Whose numbers a robot takes, and the arm in `sim/arms.py` that it is."""

    embodiment: Embodiment
    body: str | None


@dataclass(frozen=True, kw_only=True)
class RobotConfig(draccus.ChoiceRegistry):
    """Settings of a robot; `type` in YAML picks the registered subclass."""

    envelope: dict[str, Any] = field(default_factory=dict)  # what the arm may do, see envelope.py; limits: no wider
    table: float | None = 0.0  # m, height of the table in the frame of the arm's base; null: there is none
    box_low: tuple[float, float, float] | None = None  # m, least x, y, z of any part of the arm
    box_high: tuple[float, float, float] | None = None
    estop: str | None = None  # a file that stops the arm as soon as it exists

    def __post_init__(self) -> None:
        """Raises ValueError: a setting that could not mean what it says."""
        check_envelope(self.envelope)
        rate = getattr(self, "rate", 1.0)
        if not is_number(rate) or rate <= 0:
            raise ValueError(f"rate of a robot: {rate!r} is no number of commands a second")
        boxes = {"box_low": self.box_low, "box_high": self.box_high}
        for name, box in boxes.items():
            if box is not None and (np.ndim(box) != 1 or len(box) != 3):
                raise ValueError(f"{name}: {box!r} is no x, y, z")
        for name, numbers in (boxes | {"table": None if self.table is None else (self.table,)}).items():
            if numbers is not None and not all(is_number(one) and abs(one) <= FAR for one in numbers):
                raise ValueError(f"{name}: {getattr(self, name)!r} is no place in m, from the arm's base")
        if self.box_low is not None and self.box_high is not None and not np.less(self.box_low, self.box_high).all():
            raise ValueError(f"box_low {list(self.box_low)} is not below box_high {list(self.box_high)}: x, y, z in m")
        if self.estop is not None and (not isinstance(self.estop, str) or not self.estop):
            raise ValueError(f"estop: {self.estop!r} is no file")

    @property
    def stop_file(self) -> Path | None:
        """The file that stops the arm as soon as it exists."""
        return None if self.estop is None else Path(os.path.expandvars(self.estop)).expanduser()

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(table=self.table, low=self.box_low, high=self.box_high)

    def driver(self) -> Driver:
        """The bus, not connected. For `session.py` alone: whoever else calls it goes round the guard."""
        raise NotImplementedError

    def describe(self) -> Description:
        """What the robot is, without opening it."""
        driver = self.driver()
        return Description(driver.embodiment, driver.body)

    def settled(self) -> dict[str, Any]:
        """What settles the meaning of its numbers, for a record: JSON-able, such as the calibration."""
        return {}

    def cameras(self) -> Mapping[str, Any]:
        """Name -> an opened-by-nobody-yet camera of `cameras.py`."""
        return {}
