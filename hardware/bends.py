"""Which limit of an envelope bends commands, of which joint, how often and by how much: for people who may widen it."""

from __future__ import annotations

from dataclasses import dataclass

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
SHOWN = 6  # lines of limits, at most
OTHERS = 3  # lines of other reasons


@dataclass
class Bent:
    """Of one limit and joint: how many commands, and how far from the command the joint was sent at most."""

    commands: int = 0
    most: float = 0.0


class Bends:
    """Takes verdicts in, command by command, `rate` a second."""

    def __init__(self, names: tuple[str, ...], envelope: Envelope, rate: float, word: str = "commands"):
        """`word`: what is commanded, in the plural."""
        self.names, self.envelope, self.rate, self.word = names, envelope, rate, word
        self.found: dict[tuple[str, str], Bent] = {}
        self.number = self.bent = 0
        self.others: dict[str, int] = {}  # reasons that come from no limit
        self.most, self.furthest = 0.0, ""  # how far from its command a joint was sent, and which
        self.fastest = np.zeros(len(names))  # of the commands, a second
        self._before: np.ndarray | None = None

    def add(self, verdict: Verdict, target: np.ndarray) -> None:
        """`target` (D,) became `verdict`."""
        self.number += 1
        if self._before is not None:
            self.fastest = np.maximum(self.fastest, np.abs(target - self._before) * self.rate)
        self._before = target

        self.bent += verdict.outcome is Outcome.bent
        away = np.abs(verdict.sent - target)
        if away.max() > self.most:
            self.most, self.furthest = float(away.max()), self.names[int(away.argmax())]
        for reason in verdict.reasons:
            limit = next((setting for words, setting in LIMITS.items() if words in reason), None)
            joint = reason.partition(" ")[0]
            if limit is None:
                self.others[reason] = self.others.get(reason, 0) + 1
                continue
            far = float(away[self.names.index(joint)] if joint in self.names else away.max())
            one = self.found.setdefault((limit, joint if joint in self.names else ""), Bent())
            one.commands, one.most = one.commands + 1, max(one.most, far)

    @property
    def share(self) -> float:
        """Part of the commands that was bent."""
        return self.bent / max(1, self.number)

    def __str__(self) -> str:
        far = f", {self.furthest} by up to {self.most:.3f}" if self.bent else ""
        return f"{self.bent} of {self.number} {self.word} bent{far}"

    def lines(self) -> list[str]:
        """The limits that bent most commands first, and how to widen those that may be."""
        most = sorted(self.found.items(), key=lambda item: (-item[1].commands, -item[1].most))
        lines = [self._line(limit, joint, one) for (limit, joint), one in most[:SHOWN]]
        others = sorted(self.others.items(), key=lambda item: -item[1])[:OTHERS]
        return [*lines, *(f"  {reason}: {count} of {self.number} {self.word}" for reason, count in others)]

    def _line(self, limit: str, joint: str, one: Bent) -> str:
        said = f"  {limit}{self._bound(limit, joint)}: {one.commands} of {self.number} {self.word} bent"
        return f"{said}, {joint or 'a joint'} by up to {one.most:.3f}{self._asked(limit, joint)}"

    def _bound(self, limit: str, joint: str) -> str:
        value = getattr(self.envelope, limit)
        if limit == "limits" or value is None:
            return ""
        place = self.names.index(joint) if joint else 0
        return f" {np.broadcast_to(np.asarray(value, float), (len(self.names),))[place]:g}"

    def _asked(self, limit: str, joint: str) -> str:
        if limit != "velocity" or not joint:
            return ""
        return f"; the {self.word} move at up to {self.fastest[self.names.index(joint)]:.2f}/s"
