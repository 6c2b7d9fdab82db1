"""A quasi-static model of PushT and a search over straight pushes, both over many candidates at once.

The law is gym-pusht's: a disc that overlaps the block moves it out along the contact normal, in the ratio that its
inverse inertia gives (mass 1, moment 3000 px^2, no friction). A push is a straight line of the disc that begins at a
point of the outline. The search tries all of them, keeps the best few, and looks one push further. Coordinates are
gym-pusht's px; a block's pose is (x, y, angle) of its *centre of mass*. Knows nothing of lanes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .pusht import CENTRE, CORNERS, GOAL, turned

RADIUS = 15.0  # px, the pusher
MOMENT = 3000.0  # px^2
BOXES = ((np.array([0.0, 15.0]), np.array([60.0, 15.0])), (np.array([0.0, 75.0]), np.array([15.0, 45.0])))
OUTLINE = np.array([[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]], float)
SPACING = 8.0  # px between points of the outline
ANGLES = np.deg2rad([-40, -20, 0, 20, 40])  # of a push, from the inward normal
STRIDES = np.array([0.75] * 16 + [2.0] * 12 + [4.0] * 18)  # px, the steps of a push
RUN_UP = 8.0  # px from where a push begins to the outline
WALLS = (7.0, 504.0)  # px
KEYPOINTS = CORNERS - CENTRE
LONGEST = np.linalg.norm(KEYPOINTS, axis=1).max()  # px


@dataclass(frozen=True)
class Push:
    """One straight push: the disc's centre (2,) px where it runs up, and where it ends."""

    begin: np.ndarray
    end: np.ndarray


def goal_pose() -> np.ndarray:
    """(3,) of the goal's centre of mass."""
    return np.array([*(GOAL[:2] + CENTRE @ turned(GOAL[2])), GOAL[2]])


def keypoints(poses: np.ndarray) -> np.ndarray:
    """(N, 8, 2) px of poses (N, 3)."""
    return _turn(KEYPOINTS[None], poses[:, 2:3]) + poses[:, None, :2]


def errors(poses: np.ndarray) -> np.ndarray:
    """(N,) px: how far keypoints are from the goal, root mean square, and how far they are beyond the walls in sum."""
    x, y, angle = poses.T
    goal, middle = goal_pose(), KEYPOINTS.mean(0)
    cosine, sine = np.cos(angle) - np.cos(goal[2]), np.sin(angle) - np.sin(goal[2])
    dx, dy = x - goal[0], y - goal[1]

    # mean square over all keypoints, in closed form
    mixed = dx * (cosine * middle[0] - sine * middle[1]) + dy * (sine * middle[0] + cosine * middle[1])
    turn = 2 * (1 - np.cos(angle - goal[2])) * (KEYPOINTS**2).sum(1).mean()
    away = np.sqrt(np.maximum(dx**2 + dy**2 + 2 * mixed + turn, 0))

    # beyond the walls
    near = np.flatnonzero((np.minimum(x, y) < WALLS[0] + LONGEST) | (np.maximum(x, y) > WALLS[1] - LONGEST))
    if len(near):
        points = keypoints(poses[near])
        away[near] += (np.maximum(WALLS[0] - points, 0) + np.maximum(points - WALLS[1], 0)).sum((1, 2))
    return away


def slide(poses: np.ndarray, discs: np.ndarray) -> np.ndarray:
    """Poses (N, 3) of blocks out of which discs at (N, 2) have pushed themselves."""
    x, y, angle = (column.copy() for column in poses.T)
    for middle, half in BOXES:
        cosine, sine = np.cos(angle), np.sin(angle)
        dx, dy = discs[:, 0] - x, discs[:, 1] - y
        u, v = cosine * dx + sine * dy + (CENTRE - middle)[0], cosine * dy - sine * dx + (CENTRE - middle)[1]

        # contact with this box, in its frame
        nearest_u, nearest_v = np.clip(u, -half[0], half[0]), np.clip(v, -half[1], half[1])
        distance = np.maximum(np.hypot(u - nearest_u, v - nearest_v), 1e-9)
        along_u, along_v = (u - nearest_u) / distance, (v - nearest_v) / distance

        # how the overlap is shared
        lever = (nearest_u + (middle - CENTRE)[0]) * along_v - (nearest_v + (middle - CENTRE)[1]) * along_u
        share = np.maximum(RADIUS - distance, 0) / (1 + lever**2 / MOMENT)
        x -= share * (cosine * along_u - sine * along_v)
        y -= share * (sine * along_u + cosine * along_v)
        angle -= lever * share / MOMENT
    return np.stack([x, y, angle], 1)


def gap(poses: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) px between points (N, 2) and the outline of blocks (N, 3); 0 inside."""
    local = _turn((points - poses[:, :2])[:, None], -poses[:, 2:3])[:, 0] + CENTRE
    away = [np.linalg.norm(np.maximum(np.abs(local - middle) - half, 0), axis=1) for middle, half in BOXES]
    return np.minimum(*away)


def plan(pose: np.ndarray, disc: np.ndarray, beam: int = 12) -> Push:
    """The first push of the best pair, for a block at `pose` (3,) and the disc at (2,) px."""
    pose = np.array([*pose[:2], goal_pose()[2] + (pose[2] - goal_pose()[2] + np.pi) % (2 * np.pi) - np.pi])
    first = _expand(pose[None], disc[None])
    order = np.argsort(first.score)[:beam]
    order = order[np.isfinite(first.score[order])]

    # look one push further
    second = _expand(first.after[order], first.end[order])
    then = second.score.reshape(len(order), -1).min(1) + first.cost[order]
    best = order[np.argmin(np.minimum(then, first.score[order]))]
    return Push(first.begin[best], first.end[best])


@dataclass(frozen=True)
class _Pushes:
    begin: np.ndarray  # (M, 2) px
    end: np.ndarray  # (M, 2) px, at the best length
    after: np.ndarray  # (M, 3) pose then
    cost: np.ndarray  # (M,) time it takes, in units of the score
    score: np.ndarray  # (M,) log error then, plus cost; inf where it cannot be done


def _expand(poses: np.ndarray, discs: np.ndarray) -> _Pushes:
    """All pushes of each of N blocks, (M = N * pushes of one), each with its best length."""
    touch, inward = _candidates()
    count = len(touch)
    blocks = np.repeat(poses, count, 0)
    angles = blocks[:, 2:3]

    # the pushes in px coordinates
    ways = _turn(np.tile(inward, (len(poses), 1))[:, None], angles)[:, 0]
    starts = _turn(np.tile(touch - CENTRE, (len(poses), 1))[:, None], angles)[:, 0] + blocks[:, :2]
    begin = starts - RUN_UP * ways

    # which can be begun, and from how far
    able = (gap(blocks, begin) > RADIUS + 3) & _inside(begin)
    travel = np.linalg.norm(begin - np.repeat(discs, count, 0), axis=1)

    # push on, and remember the best length
    best, length, after = np.full(len(blocks), np.inf), np.zeros(len(blocks)), blocks.copy()
    now, moved = blocks, 0.0
    for stride in STRIDES:
        moved += stride
        place = starts + moved * ways
        now = slide(now, place)
        score = np.log(errors(now) + 0.3) + _time(travel, moved)
        better = (score < best) & able & _inside(place)
        best[better], length[better], after[better] = score[better], moved, now[better]

    return _Pushes(begin, starts + length[:, None] * ways, after, _time(travel, length), best)


def _time(travel, length):
    """What a push costs: about a hundredth of the score a control step."""
    return 0.1 + (travel / 25 + length / 12) / 100


def _candidates() -> tuple[np.ndarray, np.ndarray]:
    """Disc centres (M, 2) px in the block's frame that touch its outline, and directions (M, 2) of pushes there."""
    places, ways = [], []
    for corner, other in zip(OUTLINE, np.roll(OUTLINE, -1, 0), strict=True):
        along = (other - corner) / np.linalg.norm(other - corner)
        outward = np.array([along[1], -along[0]])
        reach = np.linalg.norm(other - corner)
        for part in np.arange(3.0, reach - 2, SPACING):
            for angle in ANGLES:
                places.append(corner + part * along + RADIUS * outward)
                ways.append(-outward @ turned(angle))

    # not where the disc would overlap the block
    places, ways = np.array(places), np.array(ways)
    free = gap(np.array([[*CENTRE, 0.0]]).repeat(len(places), 0), places) > RADIUS - 0.01
    return places[free], ways[free]


def _inside(points: np.ndarray) -> np.ndarray:
    return ((points > 3) & (points < 509)).all(1)


def _turn(points: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Points (N or 1, K, 2) turned by angles (N, 1) rad."""
    sine, cosine = np.sin(angles), np.cos(angles)
    x, y = points[..., 0], points[..., 1]
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], -1)
