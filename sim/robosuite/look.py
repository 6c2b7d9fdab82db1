"""How robosuite's scenes are drawn: as robosuite does it (`exact`), nearly so in less time (`stock`), or plainer.

Half of robosuite's drawing is a second pass for a floor that mirrors the walls' gloss, and nearly all of the rest are
triangles far smaller than a pixel. `stock` spares the pass for fixed cameras that see little of the floor, and joins
the corners of visual meshes within cells of 8 mm, of up to 32 mm where the surface is flat; `light` leaves the pass and
multi-sampling out and joins within 12 to 48 mm. Both leave out what is fully transparent. Shapes that collide are never
touched, so physics is the same in every look. The reduction is vertex clustering (Rossignac and Borrel 1993) onto
existing corners, which keep their shading, with cells as coarse as the normals inside allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOOKS = ("stock", "light", "exact")
PICTURE = 256  # px, up to which pictures need no new buffer; robosuite's own 640 x 480 is cleared at every one
FLOOR = 0.1  # part of a picture from which on a mirroring floor is worth its pass
RAYS = 16  # by which a picture is probed, along each side


@dataclass(frozen=True)
class Clusters:
    """Within which corners are joined."""

    sizes: tuple[float, ...]  # m, coarse to fine; all corners are joined within the finest
    flat: float  # length of the mean of the normals in a cell, from which on it counts as flat


CELLS = {"stock": Clusters((0.032, 0.016, 0.008), 0.99), "light": Clusters((0.048, 0.024, 0.012), 0.95)}

# (look, what the meshes were) -> their faces, for the next copy of a world
_thinned: dict[tuple, list[np.ndarray]] = {}


def apply_look(model, look: str) -> frozenset[int]:
    """Change what is drawn of a compiled `mujoco.MjModel`, in place; before its GL context is made.

    Returns:
        the cameras, by number, in whose pictures floors mirror.
    """
    if look == "exact":
        return frozenset(range(model.ncam))
    cameras = range(model.ncam) if look == "stock" else ()
    mirrors = frozenset(camera for camera in cameras if _sees_floor(model, camera))
    model.vis.global_.offwidth = model.vis.global_.offheight = PICTURE
    model.vis.quality.shadowsize = 512  # robosuite's lights cast none
    if look == "light":
        model.vis.quality.offsamples = 0
    _hide(model)

    # thin the meshes, once for all copies
    names = ("mesh_facenum", "mesh_face", "mesh_facenormal", "mesh_facetexcoord")
    tables = [getattr(model, name) for name in names]
    key = look, hash(model.mesh_vert.tobytes()), hash(model.mesh_face.tobytes())
    if key not in _thinned:
        for mesh in drawn_meshes(model):
            thin(model, mesh, CELLS[look])
        _thinned[key] = [table.copy() for table in tables]
    for table, values in zip(tables, _thinned[key], strict=True):
        table[:] = values

    return mirrors


def drawn_meshes(model) -> list[int]:
    """Meshes that only visual geoms use: those that collide with nothing."""
    import mujoco

    meshes = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    drawn, used = (set(model.geom_dataid[meshes & kind].tolist()) for kind in (~solid, solid))
    return sorted(drawn - used)


def thin(model, mesh: int, cells: Clusters) -> None:
    """Join the corners of a mesh within `cells` and drop the faces that vanish, in place."""
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    start, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    rows = slice(start, start + faces)

    # faces that stay: three corners, once each
    corners = model.mesh_vert[first : first + count].astype(float)
    joined = _representatives(corners, model.mesh_face[rows], cells)
    moved = joined[model.mesh_face[rows]]
    kept = (moved[:, 0] != moved[:, 1]) & (moved[:, 1] != moved[:, 2]) & (moved[:, 0] != moved[:, 2])
    _, single = np.unique(np.sort(moved, axis=1), axis=0, return_index=True)
    kept &= np.isin(np.arange(faces), single)
    left = int(kept.sum())
    if left < 4:
        return

    for table, values in (
        (model.mesh_face, moved),
        (model.mesh_facenormal, model.mesh_facenormal[rows].copy()),
        (model.mesh_facetexcoord, model.mesh_facetexcoord[rows].copy()),
    ):
        table[start : start + left] = values[kept]
    model.mesh_facenum[mesh] = left


def _representatives(corners: np.ndarray, faces: np.ndarray, cells: Clusters) -> np.ndarray:
    """(V,) for each corner (V, 3) the one of its cell that is nearest to the cell's mean."""
    group = _groups(corners, faces, cells)
    sizes = np.bincount(group)
    means = np.stack([np.bincount(group, corners[:, axis]) / sizes for axis in range(3)], axis=1)
    order = np.lexsort((np.linalg.norm(corners - means[group], axis=1), group))
    leaders = order[np.r_[0, np.flatnonzero(np.diff(group[order])) + 1]]
    return leaders[group]


def _groups(corners: np.ndarray, faces: np.ndarray, cells: Clusters) -> np.ndarray:
    """(V,) the number of each corner's cell: the coarsest in which all normals are nearly the same."""
    first, second, third = (corners[faces[:, side]] for side in range(3))
    normals = np.cross(second - first, third - first)  # as long as twice the area
    areas = np.linalg.norm(normals, axis=1)

    # sums around each corner
    count = len(corners)
    around = _around(faces, areas, count)
    facing = [_around(faces, normals[:, axis], count) for axis in range(3)]

    # coarse to fine
    label, open_ = np.zeros((count, 4), np.int64), np.ones(count, bool)
    for level, size in enumerate(cells.sizes):
        cell = np.floor(corners / size).astype(np.int64)
        group = np.unique(cell, axis=0, return_inverse=True)[1].ravel()
        mean = np.linalg.norm([np.bincount(group, part) for part in facing], axis=0)
        flat = (mean >= cells.flat * np.bincount(group, around))[group] | (level + 1 == len(cells.sizes))
        label[open_ & flat] = np.c_[np.full(count, level), cell][open_ & flat]
        open_ &= ~flat
    return np.unique(label, axis=0, return_inverse=True)[1].ravel()


def _around(faces: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """(V,) for each of `count` corners the sum of the `values` (F,) of its faces."""
    sums = (np.bincount(faces[:, side], values, count) for side in range(3))
    return sum(sums, np.zeros(count))


def _hide(model) -> None:
    """Leave out sites that cannot be seen, and robosuite's marks of targets, which lie below the floor."""
    model.site_group[model.site_rgba[:, 3] <= 0] = 5
    model.geom_group[model.body_mocapid[model.geom_bodyid] >= 0] = 5


def _sees_floor(model, camera: int) -> bool:
    """Whether much of a camera's picture may be mirroring floor; of a camera that moves that is not known."""
    return model.cam_bodyid[camera] != 0 or _floor(model, camera) > FLOOR


def _floor(model, camera: int) -> float:
    """Part of a fixed camera's picture that mirroring floor takes up while nothing has moved yet."""
    import mujoco

    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    floors = np.flatnonzero(planes & (model.geom_matid >= 0) & (model.mat_reflectance[model.geom_matid] > 0))

    # probe the picture with rays
    visual, hit = np.eye(6, dtype=np.uint8)[1], np.zeros((1, 1), np.int32)
    turn = model.cam_mat0[camera].reshape(3, 3)
    side = np.tan(np.radians(model.cam_fovy[camera]) / 2) * (2 * (np.arange(RAYS) + 0.5) / RAYS - 1)
    seen = 0
    for x in side:
        for y in side:
            mujoco.mj_ray(model, data, model.cam_pos0[camera], turn @ [x, y, -1.0], visual, 1, -1, hit)
            seen += int(hit[0, 0]) in floors
    return seen / RAYS**2
