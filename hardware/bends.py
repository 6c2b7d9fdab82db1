"""Which limit of an envelope bends commands, of which joints, how often and by how much, for who may widen it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .envelope import Envelope, Outcome, Verdict

LIMITS = {  # words of a reason -> the setting that they come from
    "would move at": "velocity",
    "would change its velocity too fast": "acceleration",
    "would bear": "torque",
    "is outside": "limits",
    "from the first command": "approach",
    "come too near": "clearance",
}
PER = {"velocity": "/s", "approach": "/s", "acceleration": "/s^2"}  # after the joint's unit
OTHERS = 3  # lines of other reasons
WIDENED = ("velocity", "acceleration")  # by their numbers; more torque may break gears
MARGIN = 1.1  # of a velocity that lets the commands pass
SMALL = 0.07  # rad, how far an STS3215 is behind its set-points anyway
ANGLES = ("rad",)


@dataclass
class Bent:
    """Of one limit: how many commands, and how far each joint was sent from the command at most."""

    commands: int = 0
    most: dict[str, float] = field(default_factory=dict)


class Bends:
    """Takes verdicts in, command by command, `rate` a second. `units`: of the joints; `word`: what is commanded."""

    def __init__(
        self, names: tuple[str, ...], envelope: Envelope, rate: float, units: tuple[str, ...], word: str = "commands"
    ):
        self.names, self.envelope, self.rate, self.units, self.word = names, envelope, rate, units, word
        self.found: dict[str, Bent] = {}
        self.others: dict[str, int] = {}  # reasons that come from no limit
        self.number = self.bent = 0
        self.farthest: np.ndarray = np.zeros(len(names))  # from the commands
        self.fastest: np.ndarray = np.zeros(len(names))  # of the commands, a second
        self._before: np.ndarray | None = None

    def add(self, verdict: Verdict, target: np.ndarray) -> None:
        """`target` (D,) became `verdict`."""
        self.number, self.bent = self.number + 1, self.bent + (verdict.outcome is Outcome.bent)
        speed = np.zeros(len(target)) if self._before is None else np.abs(target - self._before) * self.rate
        self.fastest, self._before = np.maximum(self.fastest, speed), target

        away = np.abs(verdict.sent - target)
        self.farthest = np.maximum(self.farthest, away)
        counted = set()
        for reason in verdict.reasons:
            limit, joint = next((setting for words, setting in LIMITS.items() if words in reason), None), ""
            if limit is None:
                self.others[reason] = self.others.get(reason, 0) + 1
                continue
            if reason.partition(" ")[0] in self.names:
                joint = reason.partition(" ")[0]
            place = self.names.index(joint) if joint else int(away.argmax())
            if limit == "velocity" and speed[place] <= self._bounds(limit)[place]:
                limit = "acceleration"  # it makes up for what that let it fall behind
            one = self.found.setdefault(limit, Bent())
            one.commands += limit not in counted
            counted.add(limit)
            name = self.names[place]
            one.most[name] = max(one.most.get(name, 0.0), float(away[place]))

    @property
    def share(self) -> float:
        """Part of the commands that was bent."""
        return self.bent / max(1, self.number)

    def __str__(self) -> str:
        joint = int(self.farthest.argmax())
        far = f", {self.names[joint]} by up to {_amount(self.farthest[joint], self.units[joint])}" if self.bent else ""
        return f"{self.bent} of {self.number} {self.word} bent{far}"

    def lines(self) -> list[str]:
        """The limits that bent most commands first, then other reasons."""
        others = sorted(self.others.items(), key=lambda item: -item[1])[:OTHERS]
        lines = [self._line(limit, one) for limit, one in self._most()]
        return [*lines, *(f"  {reason}: {count} of {self.number} {self.word}" for reason, count in others)]

    def advice(self) -> list[str]:
        """Whether it matters, and how to widen what may be widened; none where all pass."""
        widened = [line for limit, one in self._most() if limit in WIDENED for line in self._widen(limit, one)]
        return [self._matters(), *widened] if self.bent else []

    def _most(self) -> list[tuple[str, Bent]]:
        return sorted(self.found.items(), key=lambda item: -item[1].commands)

    def _matters(self) -> str:
        joint = int(self.farthest.argmax())
        far, unit = self.farthest[joint], self.units[joint]
        about = str(self)
        if unit in ANGLES and far <= SMALL:
            return f"{about}: harmless, less than servos are behind their set-points anyway"
        return f"{about}: the arm leaves the commanded way by that; watch whether the task bears it, or widen the limit"

    def _line(self, limit: str, one: Bent) -> str:
        joints = [self._joint(limit, name, far) for name, far in sorted(one.most.items(), key=lambda item: -item[1])]
        return f"  {limit}: {one.commands} of {self.number} {self.word} bent; {', '.join(joints)}"

    def _joint(self, limit: str, joint: str, far: float) -> str:
        place = self.names.index(joint)
        unit, bounds = self.units[place], self._bounds(limit)
        of = {"torque": "N m", "clearance": "m"}.get(limit, f"{unit}{PER.get(limit, '')}")
        about = [f"limit {bounds[place]:g} {of}"] if len(bounds) else []
        about += [f"asked {self.fastest[place]:.2f} {of}"] if limit == "velocity" else []
        within = f" ({', '.join(about)})" if about else ""
        return f"{joint} by up to {_amount(far, unit)}{within}"

    def _widen(self, limit: str, one: Bent) -> list[str]:
        """The flag with a number for each joint: one number for all would narrow those that have more."""
        bounds = self._bounds(limit)
        if not len(bounds):
            return []
        wider = [
            max(bound, math.ceil(10 * (MARGIN * self.fastest[place] if limit == "velocity" else 1.5 * bound)) / 10)
            if name in one.most
            else bound
            for place, (name, bound) in enumerate(zip(self.names, bounds, strict=True))
        ]
        values = ", ".join(f"{value:g}" for value in wider)
        units = ", ".join(dict.fromkeys(f"{unit}{PER[limit]}" for unit in self.units))
        return [
            f"to widen it: --robot.envelope.{limit} '[{values}]' (in {units}: {', '.join(self.names)}; one number is "
            "for all)"
        ]

    def _bounds(self, limit: str) -> np.ndarray:
        """(D,) of a setting that has numbers, else (0,)."""
        value = getattr(self.envelope, limit)
        if limit == "limits" or value is None:
            return np.zeros(0)
        return np.broadcast_to(np.asarray(value, float), (len(self.names),))


def _amount(value: float, unit: str) -> str:
    degrees = f", {math.degrees(value):.1f} degrees" if unit in ANGLES else ""
    return f"{value:.3f} {unit}{degrees}"
