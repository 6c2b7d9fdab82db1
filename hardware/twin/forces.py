"""From where bodies should be to forces on them, and what contacts do against these forces.

Each Gaussian pulls its body like a spring: `f = opacity * kp * (where it should be - where it is)`; forces and their
moments about the centre of mass are summed (Real-is-Sim, arXiv 2504.03597, whose code takes the body's origin instead
of the centre of mass). The sum acts unchanged through all physics steps of a tick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco


def wrench(moved: np.ndarray, place: np.ndarray, opacity: np.ndarray, centre: np.ndarray, kp: float) -> np.ndarray:
    """(6,) N and N m about `centre` (3,) m, the world's frame, of springs.

    Args:
        moved: (n, 3) m, how far each Gaussian should move.
        place: (n, 3) m, where it is.
        opacity: (n,), its weight.
        kp: N/m of each.
    """
    forces = kp * opacity[:, None] * moved
    return np.concatenate([forces.sum(0), np.cross(place - centre, forces).sum(0)])


def stiffness(model: mujoco.MjModel, body: int, gain: float, period: float, weight: float) -> float:
    """kp (N/m) with which springs of that summed `weight` remove a share `gain` of an error within one period (s).

    For a body that nothing holds: by its mass and the damping of its sliding joints. Friction on a table takes a part
    of the force, so the share is smaller there.
    """
    import mujoco

    joints = range(int(model.body_jntadr[body]), int(model.body_jntadr[body]) + int(model.body_jntnum[body]))
    sliding = [j for j in joints if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_SLIDE]
    mass = float(model.body_subtreemass[body])
    damping = 0.0
    if sliding:
        dofs = model.jnt_dofadr[sliding]
        mass += float(model.dof_armature[dofs].mean())
        damping = float(model.dof_damping[dofs].mean())

    # from rest, after one period of a constant force of 1 N
    if damping * period < 1e-6 * mass:
        moved = period**2 / (2 * mass)
    else:
        time = mass / damping
        moved = (period - time * (1 - np.exp(-period / time))) / damping
    return float(gain / (moved * max(weight, 1e-9)))


def contact_force(model: mujoco.MjModel, data: mujoco.MjData, body: int, others: np.ndarray) -> np.ndarray:
    """(3,) N, the world's frame: what contacts with bodies of `others` (bool by body) do to `body` now."""
    import mujoco

    total, found = np.zeros(3), np.zeros(6)
    if not data.ncon:
        return total
    pairs = model.geom_bodyid[data.contact.geom]
    concerned = (pairs == body).any(1) & others[pairs].any(1)
    for i in np.flatnonzero(concerned):
        mujoco.mj_contactForce(model, data, int(i), found)
        force = data.contact[int(i)].frame.reshape(3, 3).T @ found[:3]
        total += force if pairs[i, 1] == body else -force  # the frame's x points from the first geom to the second
    return total


def opposition(wanted: np.ndarray, contact: np.ndarray) -> float:
    """0..1: how much of a wanted force (3,) N a contact's (3,) N takes away."""
    size = float(np.linalg.norm(wanted))
    if size < 1e-9:
        return 0.0
    return float(np.clip(-(wanted @ contact) / size**2, 0, 1))


def twist_of(model: mujoco.MjModel, data: mujoco.MjData, body: int, up: np.ndarray | None = None) -> np.ndarray:
    """(6, K) basis of the velocities that the joints allow a body: of its centre of mass and turning, world's frame.

    A free body that stands on something with normal `up` (3,) shifts along it and turns about the normal.
    """
    import mujoco

    move, turn = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacBodyCom(model, data, move, turn, body)
    both = np.concatenate([move, turn])
    used = np.abs(both).max(0) > 1e-9
    if used.sum() >= 6:
        return np.eye(6) if up is None else planar(up)
    left, sizes, _ = np.linalg.svd(both[:, used], full_matrices=False)
    return left[:, sizes > 1e-9]


def planar(up: np.ndarray) -> np.ndarray:
    """(6, 3) basis of the twists along a plane with unit normal `up` (3,)."""
    basis = np.zeros((6, 3))
    basis[:3, :2] = np.linalg.svd(np.asarray(up, float)[None])[2][1:].T
    basis[3:, 2] = up
    return basis


def turned_by(twist: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(4, 4) rigid motion of a twist (6,): move of the centre (3,) m, then a turn about it, rad."""
    import cv2

    motion = np.eye(4)
    motion[:3, :3] = cv2.Rodrigues(np.asarray(twist[3:], float))[0]
    motion[:3, 3] = centre + twist[:3] - motion[:3, :3] @ centre
    return motion
