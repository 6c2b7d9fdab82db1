"""`understudy deploy`: a policy acts on an arm, behind its guard, in time; what happens becomes a LeRobot dataset."""

from __future__ import annotations

from dataclasses import dataclass

from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class Deploy(Settings):
    """Let a policy act on an arm, behind its guard; records what happens."""

    def run(self) -> None:
        from .session import deploy, open_for_arm, rehearse

        agent, about, world = open_for_arm(self)
        if self.dry and not self.emulate:
            rehearse(self, agent, world)
        print(deploy(self, agent, about, world).text(self))
