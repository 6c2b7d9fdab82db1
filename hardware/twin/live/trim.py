"""What the real joints lack in the long run is added to what they are sent: servos sag as the twin's have, once more.

The twin's achieved joints hang below what its servos were told, by gravity; sent as set-points, they let the real arm
hang below them by as much again. While a joint moves, the real one is behind by its lag, too, which is no sag: added,
it would carry the arm on where the twin stops. So the difference between the twin's joints and the echo of the same
moment is taken apart: a lag that all joints have in common, by least squares against their velocities with old
moments forgotten, and the rest, which is summed (an integral term, bounded), and added.
"""

from __future__ import annotations

import numpy as np

MOST = 0.05  # rad or m, that is added
MEMORY = 2.0  # s after which a moment counts a third
LONGEST = 0.25  # s, of a lag
SLOW = 0.05  # rad/s or m/s: joints that move no faster tell no lag


class Trim:
    """Of joints (D,): `offset`, rad or m, at most `MOST` either way, which grows by `rate` (1/s) of what is lacking.

    `lag`: s, by which the real joints are behind the twin's while they move.
    """

    def __init__(self, rate: float, count: int):
        self.rate, self.offset, self.lag = rate, np.zeros(count), 0.0
        self._last: tuple[float, np.ndarray] | None = None
        self._moved = self._squares = 0.0

    def learn(self, wanted: np.ndarray, echo: np.ndarray, moment: float) -> None:
        """The twin's joints at the moment, s, of an echo, and that echo."""
        before, self._last = self._last, (moment, np.array(wanted, float))
        if before is None or moment <= before[0]:
            return
        passed = moment - before[0]
        speed, gap = (self._last[1] - before[1]) / passed, wanted - echo
        seconds = min(passed, 0.1)
        if np.abs(speed).max() > SLOW:
            kept = np.exp(-seconds / MEMORY)
            self._moved = kept * self._moved + seconds * float(gap @ speed)
            self._squares = kept * self._squares + seconds * float(speed @ speed)
            self.lag = float(np.clip(self._moved / self._squares, 0, LONGEST))
        self.offset = np.clip(self.offset + self.rate * seconds * (gap - self.lag * speed), -MOST, MOST)
