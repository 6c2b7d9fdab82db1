"""`understudy deploy`: a policy acts on an arm, behind its guard, in time; what happens becomes a LeRobot dataset."""

from __future__ import annotations

from dataclasses import dataclass

from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class Deploy(Settings):
    """Let a policy act on an arm, behind its guard; records what happens."""

    def run(self) -> None:
        from .session import deploy, open_for_arm, rehearse
        from .takeover import leader_for

        agent, about, world = open_for_arm(self)
        leader = leader_for(self, world)
        if self.dry and not self.emulate:
            rehearse(self, agent, world)
        print(deploy(self, agent, about, world, leader).text(self))
