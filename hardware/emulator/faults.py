"""What goes wrong on a bus, by a script: which fault, when, how often. The same script and seed do the same.

Answers are spoilt one by one (`lost`, `checksum`, `truncated`, `foreign`, `slow`); servos and port at a time
(`overload`, `brownout`, `unplug`). Times are the chain's, in s since the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .packets import Codec, Status

if TYPE_CHECKING:
    from .chain import Chain

SPOILING = ("lost", "checksum", "truncated", "foreign", "slow")
HAPPENING = ("overload", "brownout", "unplug")
KINDS = SPOILING + HAPPENING


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    lost: no answer. checksum: a wrong check. truncated: the second half is missing. foreign: another servo's id.
    slow: the answer comes `seconds` later. overload: the servo limits its torque and says so. brownout: no voltage for
    `seconds`, then the servo comes back with its stored registers and no torque. unplug: no port for `seconds`.
    """

    kind: str
    id: int | None = None  # of the servo; None for every one
    at: float = 0.0  # s, not before
    until: float = float("inf")  # s, for those that spoil answers
    chance: float = 1.0  # that an answer is spoilt
    count: int | None = None  # at most so often; None for no limit. What happens at a time happens once
    seconds: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault '{self.kind}' is none of {', '.join(KINDS)}")
        if not 0 <= self.chance <= 1:
            raise ValueError(f"fault {self.kind}: chance {self.chance} is not between 0 and 1")
        if self.at < 0 or self.seconds < 0 or self.until < self.at:
            raise ValueError(f"fault {self.kind}: at, seconds and until - at must not be negative")
        if self.count is not None and self.count < 1:
            raise ValueError(f"fault {self.kind}: count {self.count} is below 1")


class Faults:
    """A script that runs. `done` counts, by the place in the script, how often each fault struck."""

    def __init__(self, script: Sequence[Fault] = (), seed: int = 0):
        self.seed = seed
        self.script: list[Fault] = []
        self.done: list[int] = []
        self._chances: list[np.random.Generator] = []
        self._dark: dict[int, float] = {}  # place in the script -> when its voltage comes back
        self._back = 0.0  # when the port is there again
        for fault in script:
            self.add(fault)

    def add(self, fault: Fault) -> int:
        """Put a fault at the end of the script; its place."""
        place = len(self.script)
        self.done.append(0)
        self._chances.append(np.random.default_rng([self.seed, place]))
        self.script.append(fault)  # last: the bus may be looking
        return place

    def spoil(self, packet: bytes, status: Status, codec: Codec, time: float) -> tuple[bytes, float]:
        """What arrives of an answer, and how many s later."""
        late = 0.0
        for place, fault in enumerate(self.script):
            if fault.kind not in SPOILING or not self._strikes(place, fault, status.id, time) or not packet:
                continue
            self.done[place] += 1
            if fault.kind == "lost":
                packet = b""
            elif fault.kind == "checksum":
                packet = codec.broken(packet)
            elif fault.kind == "truncated":
                packet = packet[: (len(packet) + 1) // 2]
            elif fault.kind == "foreign":
                packet = codec.readdressed(packet, status.id % 252 + 1)
            else:
                late += fault.seconds
        return packet, late

    def _strikes(self, place: int, fault: Fault, id: int, time: float) -> bool:
        if fault.id not in (None, id) or not fault.at <= time < fault.until:
            return False
        if fault.count is not None and self.done[place] >= fault.count:
            return False
        return fault.chance >= 1 or self._chances[place].random() < fault.chance

    def happen(self, chain: Chain) -> None:
        """Strike the servos whose time has come, give back the voltage of those whose time is over."""
        for place, fault in enumerate(self.script):
            if fault.kind not in ("overload", "brownout") or self.done[place] or chain.time < fault.at:
                continue
            self.done[place] = 1
            if fault.kind == "overload":
                for servo in chain.servos:
                    if fault.id in (None, servo.id):
                        servo.overload()
            else:
                chain.supply(0.0, fault.id)
                self._dark[place] = chain.time + fault.seconds

        for place in [place for place, end in self._dark.items() if chain.time >= end]:
            del self._dark[place]
            chain.supply(None, self.script[place].id)

    def unplugged(self, time: float) -> bool:
        """Whether the port is gone now; `seconds` count from when that is first asked."""
        for place, fault in enumerate(self.script):
            if fault.kind == "unplug" and not self.done[place] and time >= fault.at:
                self.done[place] = 1
                self._back = max(self._back, time + fault.seconds)
        return time < self._back
