"""What can be driven: the four verbs of a lerobot `Robot`, plus the `Embodiment` that says what its numbers mean.

A guarded robot is a robot, a twin is a robot. Units are SI (m, rad, s) on our side of this door: a driver converts.
Nothing here knows of policies or of any make of arm; a driver is one file that registers a `RobotConfig`.

Source: the verbs are those of `lerobot.robots.Robot` (0.4.4), so that its drivers fit with a thin adapter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import draccus
import numpy as np

from ..configs.spec import Embodiment


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


@dataclass(frozen=True, kw_only=True)
class RobotConfig(draccus.ChoiceRegistry):
    """Settings of a robot; `type` in YAML picks the registered subclass."""

    def build(self) -> Robot:
        """A robot that is not connected yet."""
        raise NotImplementedError
