"""How robosuite's scenes are drawn: as robosuite does it (`exact`), nearly so in less time (`stock`), or plainer.

Half of robosuite's drawing is a second pass for a floor that mirrors one per cent, and nearly all of the rest are
triangles far smaller than a pixel. `stock` leaves the pass out, brightens the floor by what it added, and joins the
corners of visual meshes that lie within 4 mm; `light` joins within 12 mm and leaves multi-sampling out too. Shapes that
collide are never touched, so physics is the same in every look. The reduction is vertex clustering (Rossignac and
Borrel 1993) onto existing corners, which keep their shading.
"""

from __future__ import annotations

import numpy as np

LOOKS = ("stock", "light", "exact")
CELLS = {"stock": 0.004, "light": 0.012}  # m within which the corners of a visual mesh are joined
MIRROR = 1.02  # by about how much a floor's mirror image brightens it, depending on the camera

_thinned: dict[
    tuple, list[np.ndarray]
] = {}  # (look, what the meshes were) -> their faces, for the next copy of a world


def apply_look(model, look: str) -> None:
    """Change what is drawn of a compiled `mujoco.MjModel`, in place; before its GL context is made."""
    if look == "exact":
        return
    for texture in {int(one) for plane in _mirrors(model) for one in model.mat_texid[plane] if one >= 0}:
        _brighten(model, texture)
    model.mat_reflectance[:] = 0
    model.vis.quality.shadowsize = 512  # robosuite's lights cast none
    if look == "light":
        model.vis.quality.offsamples = 0
    tables = [getattr(model, name) for name in ("mesh_facenum", "mesh_face", "mesh_facenormal", "mesh_facetexcoord")]
    key = look, hash(model.mesh_vert.tobytes()), hash(model.mesh_face.tobytes())
    if key not in _thinned:
        for mesh in drawn_meshes(model):
            thin(model, mesh, CELLS[look])
        _thinned[key] = [table.copy() for table in tables]
    for table, values in zip(tables, _thinned[key], strict=True):
        table[:] = values


def _mirrors(model) -> list[int]:
    """Materials of planes that mirror."""
    import mujoco

    planes = model.geom_matid[(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE) & (model.geom_matid >= 0)]
    return [int(one) for one in np.unique(planes) if model.mat_reflectance[one] > 0]


def _brighten(model, texture: int) -> None:
    start = int(model.tex_adr[texture])
    size = int(model.tex_height[texture]) * int(model.tex_width[texture]) * int(model.tex_nchannel[texture])
    pixels = model.tex_data[start : start + size]
    pixels[:] = np.minimum(np.round(pixels * MIRROR), 255).astype(np.uint8)


def drawn_meshes(model) -> list[int]:
    """Meshes that only visual geoms use: those that collide with nothing."""
    import mujoco

    meshes = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    drawn, used = (set(model.geom_dataid[meshes & kind].tolist()) for kind in (~solid, solid))
    return sorted(drawn - used)


def thin(model, mesh: int, cell: float) -> None:
    """Join the corners of a mesh within cells of `cell` m and drop the faces that vanish, in place."""
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    start, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    corners = model.mesh_vert[first : first + count]
    joined = _representatives(corners, cell)
    rows = slice(start, start + faces)
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


def _representatives(corners: np.ndarray, cell: float) -> np.ndarray:
    """(V,) for each corner (V, 3) the one of its cell that is nearest to the cell's mean."""
    _, group = np.unique(np.floor(corners / cell).astype(np.int64), axis=0, return_inverse=True)
    group = group.ravel()
    sizes = np.bincount(group)
    means = np.stack([np.bincount(group, corners[:, axis]) / sizes for axis in range(3)], axis=1)
    order = np.lexsort((np.linalg.norm(corners - means[group], axis=1), group))
    leaders = order[np.r_[0, np.flatnonzero(np.diff(group[order])) + 1]]
    return leaders[group]
