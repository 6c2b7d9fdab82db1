"""What the loop needs of what follows a twin: an arm behind its guard, or a stand-in."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import numpy as np

from ..reality.layout import Joints


class Real(Protocol):
    """What follows the twin: an arm behind its guard with cameras, or a stand-in. Times are s on one clock of its."""

    joints: Joints

    @property
    def time(self) -> float:
        """Now."""
        ...

    @abstractmethod
    def begin(self, start: int) -> None:
        """Where an episode begins. A stand-in goes there; of an arm it is where the arm is."""
        ...

    @abstractmethod
    def send(self, target: np.ndarray) -> np.ndarray:
        """Command joint positions (D,); what was really sent, (D,)."""
        ...

    @abstractmethod
    def resume(self) -> None:
        """Take hold again where the arm stands, if its guard stopped since nothing was read; not after another stop."""
        ...

    @abstractmethod
    def observe(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """The newest joint positions and pictures by observation key, and when each was captured."""
        ...

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Let simulated time pass; an arm's passes by itself."""
        ...

    @abstractmethod
    def close(self) -> None:
        """Let go. Safe to call twice."""
        ...
