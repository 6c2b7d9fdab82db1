"""What a follower's joints lack in the long run is added to what it is sent: its servos sag as the twin's have, once more.

The twin's achieved joints hang below what its servos were told, by gravity; sent as set-points, they let the real arm
hang below them by as much again, at the tip of an arm about a centimetre. The difference between the twin's joints and
the echo of the same moment is summed (an integral term, bounded), and added.
"""

from __future__ import annotations

import numpy as np


class Trim:
    """Of joints (D,): `offset`, rad or m, at most `bound` either way, which grows by `rate` (1/s) of a difference."""

    def __init__(self, rate: float, bound: float, count: int):
        self.rate, self.bound, self.offset = rate, bound, np.zeros(count)

    def learn(self, wanted: np.ndarray, echo: np.ndarray, seconds: float) -> None:
        """The twin's joints at the moment of an echo, that echo, and the time since the last one, s."""
        self.offset = np.clip(self.offset + self.rate * seconds * (wanted - echo), -self.bound, self.bound)
