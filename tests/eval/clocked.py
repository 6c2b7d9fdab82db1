"""Worlds by the clock that take no time: one that moves nothing, and one that stands for a real arm."""

from dataclasses import dataclass
from typing import ClassVar

from understudy.configs.world import World
from understudy.sim.testing import FaultyWorld

CLOCKED, ARM = {"type": "clocked", "task": "point", "horizon": 12}, {"type": "arm", "task": "point", "horizon": 12}


@World.register_subclass("clocked")
@dataclass(frozen=True, kw_only=True)
class Clocked(FaultyWorld):
    """The point of the tests, whose time passes by itself."""

    @property
    def by_the_clock(self) -> bool:
        return True


@World.register_subclass("arm")
@dataclass(frozen=True, kw_only=True)
class Arm(Clocked):
    """The same, and what it moves can break."""

    built: ClassVar[list[int]] = []  # one for each lane that was opened

    @property
    def moves_arm(self) -> bool:
        return True

    def lane(self):
        self.built.append(len(self.built))
        return super().lane()
