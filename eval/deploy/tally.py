"""What a session of `understudy deploy` came to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...configs.progress import counted
from ...hardware.bends import WIDENED, Bends
from ...policies.agent.ahead import Log
from ..statistics.intervals import wilson
from .settings import Settings

OFTEN = 0.1  # part of the set-points; where the guard bends more of them, that is a warning


@dataclass
class Tally:
    """What a session came to."""

    rows: list[dict] = field(default_factory=list)
    steps: int = 0
    late: int = 0  # control steps that began late
    plans: int = 0
    plans_late: int = 0  # steps whose plan was not there
    seconds: list[float] = field(default_factory=list)  # of planning
    kept: int = 0
    set_points: int = 0
    bent: int = 0  # of them
    takeovers: int = 0
    led_seconds: float = 0.0  # in which the policy did not act
    unscored: int = 0  # episodes that nobody scored, or that were discarded
    limits: dict[str, int] = field(default_factory=dict)  # of the envelope -> set-points that it bent
    shadow: dict[str, float] = field(default_factory=dict)  # of a shadow: steps by what it said; the hardest force, N

    def add(self, row: dict, log: Log, bends: Bends) -> None:
        self.rows.append(row)
        self.set_points, self.bent = self.set_points + bends.number, self.bent + bends.bent
        for limit, one in bends.found.items():
            self.limits[limit] = self.limits.get(limit, 0) + one.commands
        labels = json.loads(row["labels"])
        self.steps, self.late = self.steps + row["length"], self.late + labels.get("late", 0)
        self.takeovers += labels.get("takeovers", 0)
        self.led_seconds += labels.get("takeover_s", 0.0)
        for name, value in labels.get("shadow", {}).items():
            if name == "force":
                self.shadow[name] = max(self.shadow.get(name, 0.0), value)
            elif name != "warnings":
                self.shadow[name] = self.shadow.get(name, 0) + value
        self.plans, self.plans_late = self.plans + len(log.seconds), self.plans_late + sum(log.late)
        self.seconds += log.seconds

    def text(self, config: Settings) -> str:
        helped = [row for row in self.rows if json.loads(row["labels"]).get("takeovers")]
        done, n = sum(row["success"] for row in self.rows), len(self.rows) - self.unscored
        won = done - sum(row["success"] for row in helped)  # by the policy alone
        if not self.rows:
            return "no episode was acted"
        rest = f"; {self.unscored} more discarded or not scored" if self.unscored else ""
        lines = [
            f"success         {wilson(won, n)}   {won} of {n}, Wilson 95 %{rest}"
            if n
            else f"success         not known: none of {len(self.rows)} episodes was scored",
            *(self._takeovers(helped) if helped else ()),
            f"deadlines       {self.late} of {counted(self.steps, 'control step')} began late, {self.plans_late} "
            "without their plan",
            f"planning        {1000 * float(np.median(self.seconds)):.0f} ms at the median of {self.plans}, "
            f"{1000 * max(self.seconds):.0f} ms at most",
            f"guard           {self.bent} of {counted(self.set_points, 'set-point')} bent",
        ]
        if self.shadow:
            lines.append(f"shadow          {shadow_text(self.shadow, self.steps)}")
        if self.bent > OFTEN * self.set_points:
            lines.append(self._warning(config))
        return "\n".join([*lines, *([f"{config.out}: {counted(self.kept, 'episode')} added"] if config.out else [])])

    def _takeovers(self, helped: list[dict]) -> list[str]:
        """How often a person stepped in, and how that is counted."""
        done = sum(row["success"] for row in helped)
        return [
            f"take-overs      {self.takeovers} in {len(helped)} of {counted(len(self.rows), 'episode')}, "
            f"{self.led_seconds:.1f} s in all; {done} of them were done with that help, which counts as no success "
            "of the policy"
        ]

    def _warning(self, config: Settings) -> str:
        """What it means that the guard bends so much, and what to do."""
        limits = sorted(self.limits, key=lambda name: -self.limits[name])
        most = f" (most of all its {' and '.join(limits[:2])})" if limits else ""
        flags = [f"--robot.envelope.{name}" for name in limits if name in WIDENED] or ["--robot.envelope.NAME"]
        world = (
            f"type: robot, emulate: true, task: {config.acted_scene if config.emulate else 'SCENE'}, clock: simulated"
        )
        return (
            f"warning: the policy asks for more than the envelope of the arm allows{most}: "
            f"{self.bent / self.set_points:.0%} of the set-points were bent, so what acts is not the policy that was "
            f"judged elsewhere. Judge it as the guard lets it act (understudy eval {config.policy} --world "
            f"'{{{world}}}'), train it on slower demonstrations (understudy replay DATA --dry_run true says what is "
            f"bent of them), or, where the servos can do more, give an arm {' and '.join(flags)}; see docs/deploy.md"
        )


def shadow_text(said: Mapping, steps: int) -> str:
    """What a shadow said of so many control steps, in words."""
    unheard = f"; the guard heard nothing new in {said['unheard']:.0f}" if said["unheard"] else ""
    blind = said["uncompared"]
    apart = f"twin and camera apart in {said['parted']:.0f}{f', not compared in {blind:.0f}' if blind else ''}"
    if blind >= steps:
        apart = "twin and camera were not compared"
    vetoed = f"{said['vetoed']:.0f} of {counted(steps, 'control step')} vetoed, at most {said['force']:.1f} N foreseen"
    return f"{vetoed}; {apart}{unheard}"


def shadow_lines(said: Mapping | None, steps: int) -> list[str]:
    """The same of one episode, with its warnings; nothing without a shadow."""
    if said is None:
        return []
    return [f"  shadow: {shadow_text(said, steps)}", *(f"  shadow: {warning}" for warning in said["warnings"])]
