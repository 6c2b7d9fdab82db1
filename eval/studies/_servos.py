"""What the servos of an emulated arm were told and what they do: shared by the studies that fail buses and kill."""

from __future__ import annotations

import time

import numpy as np

from ...hardware.emulator.bus import Bus
from ...hardware.emulator.chain import Chain
from ...hardware.emulator.packets import Request
from ...hardware.emulator.servo import PER_RAD


class Goals:
    """Goals on the wire, by servo: (s, counts)."""

    def __init__(self, address: int):
        self.address = address
        self.heard: list[tuple[float, int, int]] = []

    def __call__(self, moment: float, request: Request) -> None:
        for change in request.writes:
            if change.address == self.address:
                self.heard.append(
                    (moment, change.id, int.from_bytes(change.data, "little", signed=len(change.data) > 2))
                )

    def fastest(self, bound: np.ndarray, period: float | None = None) -> float:
        """The greatest step between two goals of a servo, as part of `bound` (D,), the most in one step, in rad.

        With `period`, s between two steps, goals that came later, since some were lost on a broken line, may be as many
        steps apart as there were.
        """
        worst, last = 0.0, dict[int, tuple[float, int]]()
        for moment, id, count in self.heard:
            if id in last:
                before, was = last[id]
                steps = max(1, round((moment - before) / period)) if period else 1
                worst = max(worst, (abs(count - was) - 1) / PER_RAD / float(bound[id - 1]) / steps)
            last[id] = moment, count
        return worst


def released(bus: Bus) -> bool:
    """Whether the torque of every servo is off."""
    with bus.held() as chain:
        return not any(servo.memory["Torque_Enable"] for servo in chain.servos)


def stands(bus: Bus) -> bool:
    """Whether goals stay and the servos come to rest at them with their torque on."""
    time.sleep(0.5)
    before = state_of(bus)
    time.sleep(0.3)
    after = state_of(bus)
    return before[:2] == after[:2] and all(after[1]) and max(after[2]) < 0.05


def state_of(bus: Bus) -> tuple[list[int], list[int], list[float]]:
    """Of each servo its goal in counts, whether its torque is on, and its speed in rad/s."""
    with bus.held() as chain:
        return _each(chain, "Goal_Position"), _each(chain, "Torque_Enable"), [abs(s.velocity) for s in chain.servos]


def _each(chain: Chain, name: str) -> list[int]:
    return [servo.memory[name] for servo in chain.servos]
