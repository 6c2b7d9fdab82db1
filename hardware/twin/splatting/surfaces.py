"""Points spread evenly over the surfaces of a MuJoCo body's shapes, with normals and colours.

A geom becomes triangles; many points are drawn on them, by area; those inside another shape of the same body are
dropped, for nobody sees them; `count` of the rest are kept, each far from the others (farthest point first) and then
moved to the middle of its neighbourhood (Lloyd 1982). Points whose normals differ count as apart, so that both sides
of a thin plate stay covered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

DENSE = 24  # points drawn for each that is kept
ROUNDS = 4  # of Lloyd's
ROUND = 32  # corners of a circle


@dataclass(frozen=True, eq=False)
class Samples:
    """Points (n, 3) m, outward normals (n, 3), colours (n, 3) in 0..1, and the area that they stand for, m^2."""

    points: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    area: float


def visible_geoms(model: mujoco.MjModel, body: int, groups: tuple[int, ...] = (0, 1, 2)) -> list[int]:
    """Numbers of the geoms of a body that a camera sees and that have triangles."""
    import mujoco

    shapes = mujoco.mjtGeom
    known = {shapes.mjGEOM_BOX, shapes.mjGEOM_SPHERE, shapes.mjGEOM_ELLIPSOID, shapes.mjGEOM_CAPSULE}
    known |= {shapes.mjGEOM_CYLINDER, shapes.mjGEOM_MESH}
    first = int(model.body_geomadr[body])
    own = range(first, first + int(model.body_geomnum[body]))
    geoms = [geom for geom in own if shapes(int(model.geom_type[geom])) in known]
    return [geom for geom in geoms if int(model.geom_group[geom]) in groups and colour_of(model, geom)[3] > 0]


def sample_body(
    model: mujoco.MjModel, body: int, count: int, rng: np.random.Generator, groups: tuple[int, ...] = (0, 1, 2)
) -> Samples | None:
    """About `count` points on a body, in its frame; None where it has nothing to be seen."""
    geoms = visible_geoms(model, body, groups)
    meshes = [triangles(model, geom) for geom in geoms]
    areas = np.array([_areas(corners).sum() for corners in meshes])
    if not len(geoms) or areas.sum() <= 0:
        return None

    # many points on each shape, without those inside another
    points, normals, colours, total = [], [], [], 0.0
    for geom, corners, area in zip(geoms, meshes, areas, strict=True):
        drawn = max(DENSE, round(DENSE * count * area / areas.sum()))
        place, normal = _on_triangles(corners, drawn, rng)
        outside = np.ones(drawn, bool)
        for other in geoms:
            if other != geom:
                outside &= ~inside(model, other, place)
        points.append(place[outside])
        normals.append(normal[outside])
        colours.append(np.broadcast_to(colour_of(model, geom)[:3], (int(outside.sum()), 3)))
        total += area * outside.mean()

    dense = Samples(np.concatenate(points), np.concatenate(normals), np.concatenate(colours), float(total))
    return _thinned(dense, count) if len(dense.points) else None


def surface_area(model: mujoco.MjModel, body: int, groups: tuple[int, ...] = (0, 1, 2)) -> float:
    """m^2 of all visible shapes of a body."""
    return float(sum(_areas(triangles(model, geom)).sum() for geom in visible_geoms(model, body, groups)))


def colour_of(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """(4,) red, green, blue, opacity of a geom: its material's, times the mean of its texture, or its own."""
    import mujoco

    material = int(model.geom_matid[geom])
    if material < 0:
        return np.clip(model.geom_rgba[geom], 0, 1)
    rgba = np.array(model.mat_rgba[material], float)
    texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
    if texture >= 0:
        first, channels = int(model.tex_adr[texture]), int(model.tex_nchannel[texture])
        size = int(model.tex_height[texture]) * int(model.tex_width[texture]) * channels
        pixels = np.asarray(model.tex_data[first : first + size]).reshape(-1, channels)
        rgba[:3] *= pixels[:, : min(3, channels)].mean(0) / 255
    return np.clip(rgba, 0, 1)


def triangles(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """(n, 3, 3) m: corners of the triangles of a geom, counter-clockwise from outside, in its body's frame."""
    import mujoco

    shapes, size = mujoco.mjtGeom, model.geom_size[geom]
    kind = model.geom_type[geom]
    if kind == shapes.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        first, faces = int(model.mesh_vertadr[mesh]), int(model.mesh_faceadr[mesh])
        vertices = model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])]
        corners = vertices[model.mesh_face[faces : faces + int(model.mesh_facenum[mesh])]].astype(float)
    elif kind == shapes.mjGEOM_BOX:
        corners = _box() * size
    elif kind == shapes.mjGEOM_SPHERE:
        corners = _lathe(_arc(1.0, 0.0)) * size[0]
    elif kind == shapes.mjGEOM_ELLIPSOID:
        corners = _lathe(_arc(1.0, 0.0)) * size
    elif kind == shapes.mjGEOM_CAPSULE:
        corners = _lathe(_arc(size[0], size[1]))
    else:
        corners = _lathe(np.array([[0, size[1]], [size[0], size[1]], [size[0], -size[1]], [0, -size[1]]]))
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    return corners @ turn.reshape(3, 3).T + model.geom_pos[geom]


def inside(model: mujoco.MjModel, geom: int, points: np.ndarray, margin: float = 1e-4) -> np.ndarray:
    """(n,) whether points in the body's frame are inside a geom, deeper than `margin` m. A mesh has no inside here."""
    import mujoco

    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    local = (points - model.geom_pos[geom]) @ turn.reshape(3, 3)
    shapes, size = mujoco.mjtGeom, model.geom_size[geom]
    kind = model.geom_type[geom]
    if kind == shapes.mjGEOM_BOX:
        return (np.abs(local) < size - margin).all(1)
    if kind == shapes.mjGEOM_SPHERE:
        return np.linalg.norm(local, axis=1) < size[0] - margin
    if kind == shapes.mjGEOM_ELLIPSOID:
        return np.linalg.norm(local / size, axis=1) < 1 - margin / size.min()
    beyond = np.maximum(np.abs(local[:, 2]) - size[1], 0)
    radius = np.linalg.norm(local[:, :2], axis=1)
    if kind == shapes.mjGEOM_CAPSULE:
        return np.hypot(radius, beyond) < size[0] - margin
    if kind == shapes.mjGEOM_CYLINDER:
        return (radius < size[0] - margin) & (np.abs(local[:, 2]) < size[1] - margin)
    return np.zeros(len(points), bool)


def thin_out(points: np.ndarray, normals: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which `count` of n points (n, 3) to keep, evenly spread, (count,); and whose each point is, (n,)."""
    from scipy.spatial import cKDTree

    count = min(count, len(points))
    spread = np.linalg.norm(np.ptp(points, axis=0)) / max(1.0, np.sqrt(count))
    place = np.concatenate([points, normals * spread], 1)

    chosen = np.empty(count, int)
    chosen[0] = np.linalg.norm(place - place.mean(0), axis=1).argmin()
    away = np.full(len(place), np.inf)
    for i in range(1, count):
        away = np.minimum(away, ((place - place[chosen[i - 1]]) ** 2).sum(1))
        chosen[i] = away.argmax()

    for _ in range(ROUNDS):
        owner = cKDTree(place[chosen]).query(place)[1]
        sums = np.zeros((count, place.shape[1]))
        np.add.at(sums, owner, place)
        middles = sums / np.maximum(np.bincount(owner, minlength=count), 1)[:, None]
        chosen = np.unique(cKDTree(place).query(middles)[1])
        count = len(chosen)
    return chosen, cKDTree(place[chosen]).query(place)[1]


def _thinned(dense: Samples, count: int) -> Samples:
    chosen, owner = thin_out(dense.points, dense.normals, count)
    colours = np.zeros((len(chosen), 3))
    np.add.at(colours, owner, dense.colours)
    colours /= np.maximum(np.bincount(owner, minlength=len(chosen)), 1)[:, None]
    return Samples(dense.points[chosen], dense.normals[chosen], colours, dense.area)


def _on_triangles(corners: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    areas = _areas(corners)
    which = rng.choice(len(corners), count, p=areas / areas.sum())
    a, b = rng.random((2, count))
    over = a + b > 1
    a, b = np.where(over, 1 - a, a), np.where(over, 1 - b, b)
    first, second, third = np.moveaxis(corners[which], 1, 0)
    normal = np.cross(second - first, third - first)
    return first + a[:, None] * (second - first) + b[:, None] * (third - first), normal / np.linalg.norm(
        normal, axis=1, keepdims=True
    )


def _areas(corners: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def _box() -> np.ndarray:
    """Triangles of the cube from -1 to 1."""
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)[:: int(sign)]
            corners = np.insert(square, 0, sign, axis=1)
            corners = np.roll(corners, axis, axis=1)
            faces += [corners[[0, 1, 2]], corners[[0, 2, 3]]]
    return np.array(faces)


def _arc(radius: float, half: float) -> np.ndarray:
    """(n, 2) radius and height of a capsule's outline, from its top down."""
    angles = np.linspace(0, np.pi, ROUND // 2 + 2)
    shift = np.where(angles < np.pi / 2, half, -half)
    return np.stack([radius * np.sin(angles), radius * np.cos(angles) + shift], 1)


def _lathe(outline: np.ndarray) -> np.ndarray:
    """Triangles of an outline (n, 2), radius and height from the top down, turned about z."""
    turns = np.linspace(0, 2 * np.pi, ROUND + 1)
    ring = np.stack([np.cos(turns), np.sin(turns)], 1)
    grid = np.concatenate(
        [
            outline[:, None, :1] * ring,
            np.broadcast_to(outline[:, None, 1:], (len(outline), len(ring), 1)),
        ],
        2,
    )
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    corners = np.concatenate([np.stack([a, b, c], 2), np.stack([a, c, d], 2)]).reshape(-1, 3, 3)
    return corners[_areas(corners) > 1e-14]
