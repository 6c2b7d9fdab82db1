"""A demonstrator of PushT, in gym-pusht and in MuJoCo: plan a straight push, go round the block to it, push, repeat.

The plan is searched on the quasi-static model of `plan.py` and kept until it is done; whenever the episode did not
go on from where this demonstrator left it, it plans afresh from the state alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..experts import register_expert
from .plan import OUTLINE, RADIUS, Push, gap, plan
from .pusht import CENTRE, turned

CLEAR = RADIUS + 3.0  # px between the disc's centre and the block on its way
DETOUR = RADIUS + 14.0  # px of the corners that it goes round
ABOUT, PATIENCE = 15.0, 10  # px from where the disc should be, and control steps there, that are enough


@dataclass
class _Doing:
    """The push in hand, kept with the lane."""

    start: int
    tick: int
    push: Push
    pushing: bool = False
    waited: int = 0  # control steps near to where the disc should be now

    def there(self, now: np.ndarray, near: float) -> bool:
        """Whether the disc at `now` is where it should be; a disturbed one that stays about is, after a while."""
        away = np.linalg.norm((self.push.end if self.pushing else self.push.begin) - now)
        self.waited += bool(away < ABOUT)
        return bool(away < near or self.waited > PATIENCE)


@register_expert("pusht")
@register_expert("pusht-mujoco")
@register_expert("pusht-arm")
@dataclass(frozen=True)
class PushTExpert:
    """Knows the block's pose; see the module."""

    stride: float = 60.0  # px, how far ahead of the pusher it points on its way
    lead: float = 30.0  # px, the same while it pushes
    beam: int = 12  # first pushes of which it tries all second ones
    aside: float = 0.0  # px right of the goal where it brings the block

    styles: ClassVar[dict] = {"calm": {"stride": 35.0, "lead": 15.0}, "hasty": {"beam": 2, "stride": 80.0}}
    flaws: ClassVar[dict] = {"aside": {"aside": 30.0}}

    def act(self, env) -> np.ndarray:
        now, pose = np.asarray(env.rest(), float), centre_of_mass(env.block_pose())
        doing = getattr(env, "doing", None)
        if doing is None or doing.start != env.start or doing.tick != env.ticks:
            doing = self._begin(env, pose, now)

        # run up, push, next
        if doing.pushing and doing.there(now, 1.0):
            doing = self._begin(env, pose, now)
        if not doing.pushing and doing.there(now, 3.0):
            doing.pushing, doing.waited = True, 0
        doing.tick += 1
        env.doing = doing

        if doing.pushing:
            return ahead(now, doing.push.end, self.lead)
        return ahead(now, waypoint(pose, now, doing.push.begin), self.stride)

    def _begin(self, env, pose: np.ndarray, now: np.ndarray) -> _Doing:
        off = np.array([self.aside, 0.0])
        push = plan(pose - [*off, 0.0], now - off, self.beam)
        return _Doing(env.start, env.ticks, Push(push.begin + off, push.end + off))


def centre_of_mass(pose: np.ndarray) -> np.ndarray:
    """(3,) of the centre of mass, from gym-pusht's pose of the block."""
    return np.array([*(pose[:2] + CENTRE @ turned(pose[2])), pose[2]])


def ahead(now: np.ndarray, target: np.ndarray, most: float) -> np.ndarray:
    """A point on the way to `target`, at most `most` px away."""
    way = target - now
    return now + way * min(1.0, most / max(float(np.linalg.norm(way)), 1e-9))


def waypoint(pose: np.ndarray, now: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2,) px: where to go next so as to reach `target` without touching the block."""
    from shapely.geometry import LineString, Polygon

    # first away from the block
    outline = Polygon((OUTLINE - CENTRE) @ turned(pose[2]) + pose[:2])
    if gap(pose[None], now[None])[0] < CLEAR:
        near = np.array(outline.exterior.interpolate(outline.exterior.project(_point(now))).coords[0])
        out = now - near
        return now + 20 * out / max(float(np.linalg.norm(out)), 1e-9)

    # then round it, from corner to corner
    blocked = outline.buffer(CLEAR - 1)
    corners = np.array(outline.buffer(DETOUR, join_style="mitre", mitre_limit=1.2).exterior.coords)[:-1]
    nodes = np.array([now, target, *np.clip(corners, 2, 510)])
    pairs = itertools.product(nodes, nodes)
    free = np.array([not LineString(pair).intersects(blocked) for pair in pairs])
    return nodes[_shortest(nodes, free.reshape(len(nodes), -1))]


def _point(place: np.ndarray):
    from shapely.geometry import Point

    return Point(place)


def _shortest(nodes: np.ndarray, free: np.ndarray) -> int:
    """The node to go to from node 0 on the shortest way to node 1; 1 if there is none."""
    lengths = np.where(free, np.linalg.norm(nodes[:, None] - nodes[None], axis=2), np.inf)
    left = np.full(len(nodes), np.inf)
    left[1] = 0.0
    for _ in nodes:
        left = np.minimum(left, (lengths + left[None]).min(1))
    ways = lengths[0] + left
    ways[0] = np.inf
    return int(np.argmin(ways)) if np.isfinite(ways).any() else 1
