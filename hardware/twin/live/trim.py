"""What the real joints lack in the long run is added to what they are sent: servos sag as the twin's have, once more.

The twin's achieved joints hang below what its servos were told, by gravity; sent as set-points, they let the real arm
hang below them by as much again. The difference between the twin's joints and the echo of the same moment is summed
(an integral term, bounded), and added.
"""

from __future__ import annotations

import numpy as np

MOST = 0.05  # rad or m, that is added


class Trim:
    """Of joints (D,): `offset`, rad or m, at most `MOST` either way, which grows by `rate` (1/s) of a difference."""

    def __init__(self, rate: float, count: int):
        self.rate, self.offset, self._last = rate, np.zeros(count), np.inf

    def learn(self, wanted: np.ndarray, echo: np.ndarray, moment: float) -> None:
        """The twin's joints at the moment, s, of an echo, and that echo."""
        seconds = min(max(moment - self._last, 0.0), 0.1)
        self.offset = np.clip(self.offset + self.rate * seconds * (wanted - echo), -MOST, MOST)
        self._last = moment
