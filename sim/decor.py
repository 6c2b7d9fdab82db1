"""Things that are drawn into a MuJoCo scene and are not in its physics, and which of its bodies can be moved.

A lane that draws with MuJoCo holds `decor`, a tuple of `Decor`, and adds it to each scene before the picture is made.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

SHAPES = {"box": 6, "sphere": 2, "cylinder": 5, "ellipsoid": 4}  # mujoco.mjtGeom
COLOURS = ((0.86, 0.2, 0.18), (0.17, 0.5, 0.85), (0.95, 0.75, 0.1), (0.3, 0.65, 0.3), (0.55, 0.3, 0.7), (0.1, 0.1, 0.1))
REACH = 1.5  # m from a driven body; what is further off was put out of the way
NEAR, FAR = 0.10, 0.30  # m from the movable things at which a distractor stands
SMALL, LARGE = 0.012, 0.03  # m, half sizes


@dataclass(frozen=True)
class Decor:
    """One body that is only drawn."""

    shape: int  # mujoco.mjtGeom
    size: tuple[float, float, float]  # m, half sizes as MuJoCo counts them for the shape
    position: tuple[float, float, float]  # m, world
    yaw: float  # rad
    colour: tuple[float, float, float]


def add_decor(scene: mujoco.MjvScene, decor: tuple[Decor, ...]) -> None:
    """Put the bodies at the end of an updated scene; those for which it has no room are left out."""
    import mujoco

    for thing in decor[: scene.maxgeom - scene.ngeom]:
        cos, sin = np.cos(thing.yaw), np.sin(thing.yaw)
        rotation = np.array([cos, -sin, 0, sin, cos, 0, 0, 0, 1.0])
        colour = np.array([*thing.colour, 1], np.float32)
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(geom, thing.shape, np.array(thing.size), np.array(thing.position), rotation, colour)
        scene.ngeom += 1


def scatter(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator, count: int) -> tuple[Decor, ...]:
    """`count` bodies standing about the movable ones, at the height on which these stand."""
    bodies = _within_reach(model, data)
    middles, floor = data.xipos[bodies], min(_lowest(model, data, body) for body in bodies)

    placed = []
    while len(placed) < count:
        angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(NEAR, FAR)
        place = middles[rng.integers(len(middles)), :2] + distance * np.array([np.cos(angle), np.sin(angle)])
        size, shape = rng.uniform(SMALL, LARGE, 3), rng.choice(list(SHAPES))
        yaw, colour = rng.uniform(-np.pi, np.pi), COLOURS[rng.integers(len(COLOURS))]
        if np.linalg.norm(middles[:, :2] - place, axis=1).min() < NEAR:
            continue  # on top of a thing that matters

        half, height = _sized(shape, size)
        position = tuple(float(x) for x in (*place, floor + height))
        placed.append(Decor(SHAPES[shape], half, position, float(yaw), colour))

    return tuple(placed)


def _within_reach(model: mujoco.MjModel, data: mujoco.MjData) -> list[int]:
    """Movable bodies with a shape that something driven could get at; all of them where that leaves none."""
    bodies = [int(body) for body in movable_bodies(model) if model.body_geomnum[body]]
    driven = data.xpos[np.unique(model.jnt_bodyid[_driven_joints(model)])]
    if not len(driven):
        return bodies

    near = [body for body in bodies if np.linalg.norm(driven - data.xipos[body], axis=1).min() < REACH]
    return near or bodies


def movable_bodies(model: mujoco.MjModel) -> np.ndarray:
    """Numbers of the bodies that move and hang on no motor; of all that move, where everything is driven."""
    roots = model.body_rootid
    moves = np.array([_moves(model, body) for body in range(model.nbody)])
    driven = np.isin(roots, roots[model.jnt_bodyid[_driven_joints(model)]])
    free = np.flatnonzero(moves & ~driven)
    return free if len(free) else np.flatnonzero(moves)


def movable_joints(model: mujoco.MjModel) -> np.ndarray:
    """Numbers of the degrees of freedom of the bodies in `movable_bodies` that no motor drives."""
    joints = model.dof_jntid
    idle = ~np.isin(joints, _driven_joints(model))
    return np.flatnonzero(np.isin(model.dof_bodyid, movable_bodies(model)) & idle)


def dress_robosuite(lane) -> None:
    """Let a robosuite lane's pictures hold its `decor`; its render context has no place of its own for that."""
    from .rendering import _bind_first

    sim = lane.suite.sim
    if getattr(sim.render, "dressed", False):
        return
    draw = sim.render

    @functools.wraps(draw)
    def dressed(*args, **kwargs):
        context = sim._render_context_offscreen
        if context is not None and "render" not in vars(context):
            context.render = functools.partial(_bind_first(_render), context, lane)
        return draw(*args, **kwargs)

    dressed.dressed = True
    sim.render = dressed


def _render(context, lane, width: int, height: int, camera_id: int | None = None, segmentation: bool = False) -> None:
    """robosuite's own `render`, with the decor added between its two halves."""
    import mujoco

    if width > context.con.offWidth or height > context.con.offHeight:
        limits = context.model.vis.global_
        context.update_offscreen_size(max(width, limits.offwidth), max(height, limits.offheight))

    # the scene, then the decor, then the picture
    fixed, free = mujoco.mjtCamera.mjCAMERA_FIXED, mujoco.mjtCamera.mjCAMERA_FREE
    context.cam.type, context.cam.fixedcamid = (free if camera_id == -1 else fixed), camera_id
    model, data, everything = context.model._model, context.data._data, mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(model, data, context.vopt, context.pert, context.cam, everything, context.scn)
    add_decor(context.scn, lane.decor)
    mujoco.mjr_render(viewport=mujoco.MjrRect(0, 0, width, height), scn=context.scn, con=context.con)


def _driven_joints(model: mujoco.MjModel) -> np.ndarray:
    """Numbers of the joints that a motor acts on directly."""
    import mujoco

    direct = (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT)
    return np.unique(model.actuator_trnid[np.isin(model.actuator_trntype, direct), 0])


def _moves(model: mujoco.MjModel, body: int) -> bool:
    return model.body_weldid[body] != 0 and model.body_mass[body] > 0


def _lowest(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> float:
    """Height of the lowest corner of a body's boxes, m."""
    first = model.body_geomadr[body]
    geoms = range(first, first + model.body_geomnum[body])
    heights = []
    for geom in geoms:
        centre, half = model.geom_aabb[geom].reshape(2, 3)
        up = data.geom_xmat[geom].reshape(3, 3)[2]
        heights.append(data.geom_xpos[geom, 2] + up @ centre - np.abs(up) @ half)
    return float(min(heights))


def _sized(shape: str, size: np.ndarray) -> tuple[tuple[float, float, float], float]:
    """MuJoCo's three numbers of a shape with about these half sizes, and its half height."""
    x, y, z = (float(value) for value in size)
    if shape == "sphere":
        return (x, x, x), x
    if shape == "cylinder":
        return (x, x, z), z
    return (x, y, z), z
