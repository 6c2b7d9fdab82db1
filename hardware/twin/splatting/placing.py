"""Where a scene's made cameras stand: where the robot hides the objects least, and apart from the other cameras.

From behind the robot's base a camera sees the robot's back and a few pixels of what lies before it; what is found of an
object there says little. So places all round the scene are tried: what is seen of the objects with the robot in its
way, at several starts and in several poses of the robot, as a share of what is seen without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..gaussians import Camera
from ..scene import put_cameras
from .views import Photographer

if TYPE_CHECKING:
    import mujoco

STARTS, POSES = 3, 4  # starts that are tried, and poses of the robot at each: the start's own and some at random
BENT = 0.25  # of a joint's range, how far such a pose is from the start's at most
ALIKE = 0.03  # shares that differ by less are alike: then it is the place that is farthest from other cameras
APART = 40.0  # degrees between the directions of two cameras, where there are such places


def place_cameras(
    spec: mujoco.MjSpec,
    start: Callable[[mujoco.MjModel, int], mujoco.MjData],
    objects: Sequence[str],
    robot: Sequence[str],
    places: Sequence[Camera],
    there: Sequence[Camera],
    count: int,
) -> list[Camera]:
    """`count` of `places`, the best first.

    Args:
        spec: the scene; cameras are added to it.
        start: the scene at the start that a number draws.
        there: cameras that the scene has.
    """
    shares, middle = _shares(spec, start, objects, robot, places)
    chosen: list[int] = []
    for _ in range(min(count, len(places))):
        others = [*there, *(places[number] for number in chosen)]
        away = np.array([min((_angle(one, other, middle) for other in others), default=180.0) for one in places])
        left = [number for number in range(len(places)) if number not in chosen]
        free = [number for number in left if away[number] >= APART] or left
        best = max(shares[number] for number in free)
        chosen.append(max((n for n in free if shares[n] >= best - ALIKE), key=lambda n: away[n]))
    return [places[number] for number in chosen]


def _shares(spec, start, objects, robot, places: Sequence[Camera]) -> tuple[np.ndarray, np.ndarray]:
    """(places,) 0..1 how much of the objects each sees past the robot; (3,) m, where the objects are on average."""
    put_cameras(spec, tuple(places))
    model = spec.compile()
    own = [model.body(name).id for name in objects]
    hidden = [model.body(name).id for name in robot]
    seen, whole, middles = np.zeros(len(places)), np.zeros(len(places)), []
    with Photographer(model, places) as photographer:
        for number in range(STARTS):
            for data in _poses(model, start(model, number), np.random.default_rng(number)):
                middles.append(data.xipos[own].mean(0))
                for place, camera in enumerate(places):
                    seen[place] += np.isin(photographer.bodies(data, camera.name), own).sum()
                    whole[place] += np.isin(photographer.bodies(data, camera.name, without=hidden), own).sum()
    return seen / np.maximum(whole, 1), np.mean(middles, 0)


def _poses(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> Iterator[mujoco.MjData]:
    """A start, and the same with the driven joints elsewhere."""
    import mujoco

    begun = data.qpos.copy()
    joints = [int(j) for j in np.unique(model.actuator_trnid[:, 0]) if 0 <= j < model.njnt and model.jnt_limited[j]]
    for pose in range(POSES if joints else 1):
        data.qpos[:] = begun
        for joint in joints if pose else ():
            low, high = model.jnt_range[joint]
            moved = data.qpos[model.jnt_qposadr[joint]] + BENT * (high - low) * rng.uniform(-1, 1)
            data.qpos[model.jnt_qposadr[joint]] = np.clip(moved, low, high)
        mujoco.mj_forward(model, data)
        yield data


def _angle(one: Camera, other: Camera, middle: np.ndarray) -> float:
    """Degrees between the directions in which two cameras see a place (3,) m."""
    ways = [middle - camera.world_from_camera[:3, 3] for camera in (one, other)]
    a, b = (way / max(float(np.linalg.norm(way)), 1e-9) for way in ways)
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))
