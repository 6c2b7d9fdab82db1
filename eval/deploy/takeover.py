"""A person who takes the arm from the policy, leads it by another arm, and hands it back.

The line `t` takes over, `p` lets the policy act again; with `--takeover_moved` a leader that is moved takes over, too.
The policy's plan is dropped at once. The leader's commands go through the guard that the policy's go through, which
approaches the first of them slowly from where the arm is: nothing jumps, wherever the leader is held. Until the arm has
come to the leader the person leads nothing yet, so these steps are no corrections (`takeover.phase` 1, `intervention`
false). A leader that says nothing leaves the arm standing; when it speaks again the arm comes to it slowly, too. Handed
back, the policy plans anew from what was really executed, and its first command is approached as well.

The column `intervention` has the name, type and meaning of lerobot's own recordings of this kind (`lerobot-rollout
--strategy.type=dagger` of lerobot 0.6.1): bool, true where a person's action is the one that is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...configs.spec import Embodiment
from ...policies.agent.ahead import Led
from ...policies.data.corrections import PERSON as LEADS
from ...policies.data.corrections import POLICY, UNLED
from ..demos.arm import NEAR, STANDS, Guide, check_leader

if TYPE_CHECKING:
    from ...hardware.lane.robot_env import RobotWorld
    from ...hardware.leader import Attended
    from .settings import Settings

STILL = 0.02  # rad or m, within which a leader rests
RESTS = 1.0  # s that it rests before a movement of it takes over


def leader_for(config: Settings, world: RobotWorld) -> Attended | None:
    """The leader of `--takeover`, not connected; None without one.

    Raises:
        LookupError, ValueError, ImportError: no such leader, or one that does not lead this arm.
    """
    if config.takeover is None:
        return None
    from ...hardware.leader import Attended, Leader, leader_settings

    check_leader("takeover", config.takeover)
    leader = Leader(leader_settings(config.takeover), world.embodiment())
    if not world.emulate:
        leader.check_apart(world.config())
    return Attended(leader)


class TakeOver:
    """Who acts, step by step; what `Ahead` asks. Begins with the policy.

    Args:
        guide: who says where the arm shall go; ConnectionError: nobody knows now.
        body: the arm.
        couple: tells the guard that somebody else commands from here on.
        moved: rad or m by which a leader that has rested is moved to take over; None: by the word alone.
    """

    def __init__(self, guide: Guide, body: Embodiment, couple: Callable[[], None], moved: float | None = None):
        self._guide, self.couple, self._moved, self._rate = guide, couple, moved, body.rate
        self._low, self._high = np.array(body.limits, float).T
        self.begin()

    def begin(self) -> None:
        """A new episode: the policy acts."""
        self.phases: list[float] = []  # of each step: POLICY, UNLED or LEADS
        self.times, self.active = 0, False
        self._rest: np.ndarray | None = None  # pose in which the leader rested last
        self._near: np.ndarray | None = None  # pose about which it has been for `_rested` steps
        self._rested, self._mute = 0, False

    @property
    def seconds(self) -> float:
        """How long the policy did not act, s."""
        return sum(phase != POLICY for phase in self.phases) / self._rate

    def take(self) -> None:
        """The person wants the arm."""
        if self.active:
            print("you have the arm already; p hands it back", flush=True)
            return
        self.active, self.times = True, self.times + 1
        self._coupled, self._leads, self._mute = False, False, False
        self._before: np.ndarray | None = None
        self._stood = 0
        print("taken over: hold the leader still, the arm comes to it slowly. p: the policy goes on", flush=True)

    def give_back(self) -> None:
        """The policy shall act again."""
        if not self.active:
            print("the policy acts already; t takes over", flush=True)
            return
        self.active, self._mute = False, False
        self._rest = self._near = None
        print("handed back: the policy plans anew from what was executed", flush=True)

    def __call__(self, last: np.ndarray) -> Led | None:
        """What the person asks for in this step, (D,); None: the policy acts. `last` (D,) was executed before it."""
        if not self.active and (self._moved is None or not self._is_moved()):
            self.phases.append(POLICY)
            return None
        if not self.active:
            print("the leader was moved", flush=True)
            self.take()
        pose = self._pose("the arm stands until it speaks again. p: the policy goes on")
        if pose is None:
            self._coupled = self._leads = False
            self.phases.append(UNLED)
            return Led(last, stands=True)
        if not self._coupled:
            self.couple()
            self._coupled, self._before, self._stood = True, None, 0
        if not self._leads and self._has_come(pose, last):
            self._leads = True
            print("you lead the arm. p: the policy goes on", flush=True)
        self.phases.append(LEADS if self._leads else UNLED)
        return Led(pose)

    def _pose(self, meanwhile: str) -> np.ndarray | None:
        """(D,) where the leader is; None, and said once, where it does not say."""
        try:
            pose = np.asarray(self._guide.read(), float)
            why = "" if np.isfinite(pose).all() else "its pose is not finite"
        except ConnectionError as error:
            why = str(error)
        if why:
            if not self._mute:
                print(f"the leader is silent ({why}): {meanwhile}", flush=True)
            self._mute = True
            return None
        if self._mute:
            print("the leader speaks again", flush=True)
        self._mute = False
        return pose

    def _has_come(self, pose: np.ndarray, last: np.ndarray) -> bool:
        """Whether the arm is at the leader, or as near as the guard lets it come."""
        moves = self._before is None or np.abs(last - self._before).max() > 1e-4
        self._stood, self._before = 0 if moves else self._stood + 1, np.array(last)
        near = np.abs(last - np.clip(pose, self._low, self._high)).max() <= NEAR
        return bool(near) or self._stood >= STANDS * self._rate

    def _is_moved(self) -> bool:
        """Whether a leader that has rested is away from there; one that slips slowly has rested where it is."""
        assert self._moved is not None
        pose = self._pose("it cannot take over")
        if pose is None:
            self._rest = self._near = None
            return False
        if self._near is None or np.abs(pose - self._near).max() > STILL:
            self._near, self._rested = pose, 0
        self._rested += 1
        if self._rested >= RESTS * self._rate:
            self._rest = self._near
        return self._rest is not None and float(np.abs(pose - self._rest).max()) > self._moved
