"""How near a twin's objects are to the real ones, tick by tick; a stand-in alone can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True, eq=False)
class Tracking:
    """Of T moments and the objects: `away` (T, bodies) m, `turned` (T, bodies) degrees; `time` (T,) s."""

    bodies: tuple[str, ...]
    time: np.ndarray
    away: np.ndarray
    turned: np.ndarray

    def summary(self) -> dict:
        """JSON-able: of each body mean, 95th percentile and last, cm and degrees."""
        found = {}
        for place, name in enumerate(self.bodies):
            cm, degrees = 100 * self.away[:, place], self.turned[:, place]
            found[name] = {
                "cm": [round(float(value), 3) for value in (cm.mean(), np.percentile(cm, 95), cm[-1])],
                "degrees": [round(float(v), 3) for v in (degrees.mean(), np.percentile(degrees, 95), degrees[-1])],
            }
        return found


def track(
    model: mujoco.MjModel, bodies: Sequence[int], time: np.ndarray, twin: np.ndarray, real: np.ndarray
) -> Tracking:
    """Compare joint positions (T, nq) of the twin and of what it is a twin of, at `time` (T,) s."""
    ours, theirs = poses(model, bodies, twin), poses(model, bodies, real)
    away = np.linalg.norm(ours[..., :3, 3] - theirs[..., :3, 3], axis=-1)
    traces = np.einsum("...ij,...ij->...", ours[..., :3, :3], theirs[..., :3, :3])
    turned = np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))
    return Tracking(tuple(model.body(int(body)).name for body in bodies), np.asarray(time, float), away, turned)


def poses(model: mujoco.MjModel, bodies: Sequence[int], qpos: np.ndarray) -> np.ndarray:
    """(T, bodies, 4, 4) m, where joint positions (T, nq) have the bodies."""
    import mujoco

    data, numbers = mujoco.MjData(model), list(bodies)
    found = np.tile(np.eye(4), (len(qpos), len(numbers), 1, 1))
    for row, values in enumerate(qpos):
        data.qpos[:] = values
        mujoco.mj_kinematics(model, data)
        found[row, :, :3, :3] = data.xmat[numbers].reshape(-1, 3, 3)
        found[row, :, :3, 3] = data.xpos[numbers]
    return found
