"""What an arm's body may not touch: the table, the walls of its workspace, itself; and what its joints have to bear.

A MuJoCo copy of the arm, its base at the origin, x forward, z up. Its parts are the boxes and cylinders of the arm's
model, so what a real arm carries beside them (cables, a camera of one's own) is not there. Against the table and the
walls they have their true shape, against each other they are wrapped in capsules, up to a centimetre too wide. Pairs of
neighbours, and pairs that overlap where the arm is at home, are left out. Not for two threads.

The distances are our own: those of MuJoCo 3.9 (`mj_geomDistance`, and contacts with a margin) call three of a thousand
pairs of boxes that are 5 cm apart touching, and with the other of its two pipelines 10 cm deep in each other.
Source: closest points of two segments, Ericson, Real-Time Collision Detection (2005), 5.1.9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...sim.arms import Arm, Wiring

NEAR = 0.06  # m, further apart nothing is looked at
STRIPS = 4  # capsules, at most, that a box is wrapped in
WALLS = {"left": (1, 1), "right": (1, 0), "front": (0, 1), "back": (0, 0), "ceiling": (2, 1)}  # axis, end


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where the arm may be, in the frame of its base, m. None: nothing is there."""

    table: float | None = 0.0  # height of the table
    low: tuple[float, float, float] | None = None  # least x, y, z of any part; z of it is the table's business
    high: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Gap:
    """Two parts that are near each other: m between them, and how that changes by each joint, m/rad (D,)."""

    name: str
    distance: float
    slope: np.ndarray


@dataclass(frozen=True)
class _Pair:
    """Two links, whose capsules `first[i]` and `second[i]` can meet; or one, geoms `first`, and a fence."""

    one: int
    other: int | None
    fence: int
    first: np.ndarray
    second: np.ndarray


class Clearance:
    """Distances and torques of `arm` among `surroundings`.

    Parts that can meet are G pairs: two links, or a link and the table or a wall. What was measured of a pair bounds it
    as long as the joints between its parts have moved little; only pairs that this leaves in doubt are measured again.
    """

    def __init__(self, arm: Arm, surroundings: Surroundings | None = None):
        import mujoco

        self.arm = arm
        self._model = arm.spec().compile()
        self._model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
        self._data, self._moved = mujoco.MjData(self._model), mujoco.MjData(self._model)
        self._wiring = Wiring.of(arm, self._model)
        self._friction = self._model.dof_frictionloss[self._wiring.qvel].copy()

        self._fences = _fences(surroundings or Surroundings())
        self._shapes()
        self._wrap()
        self._pairs = self._meeting()
        self._levers: np.ndarray = np.array([self._moving(pair) for pair in self._pairs]).reshape(-1, len(arm.joints))
        home = self._measured(np.asarray(arm.home, float), range(len(self._pairs)))
        rough = home < 0  # the model of the arm is rough there
        self._pairs = [pair for pair, out in zip(self._pairs, rough, strict=True) if not out]
        self._levers, self._known = self._levers[~rough], home[~rough]  # (G, D) m/rad, (G,) m
        self._fenced = np.array([pair.other is None for pair in self._pairs])
        self._where = np.tile(np.asarray(arm.home, float), (len(self._pairs), 1))  # (G, D), when that was measured

    def __len__(self) -> int:
        return len(self._pairs)

    def _meeting(self) -> list[_Pair]:
        """Links that are neither one nor neighbours, and what moves beside each fence."""
        model = self._model
        solid = np.flatnonzero(model.geom_contype | model.geom_conaffinity)
        parts = {body: solid[model.geom_bodyid[solid] == body] for body in range(model.nbody)}
        capsules = {body: np.flatnonzero(np.isin(self._of, geoms)) for body, geoms in parts.items()}
        links = [body for body, geoms in parts.items() if len(geoms)]
        found = []
        for place, one in enumerate(links):
            if model.body_weldid[one]:
                found += [_Pair(one, None, number, parts[one], parts[one]) for number in range(len(self._fences))]
            for other in links[place + 1 :]:
                a, b = (int(model.body_weldid[body]) for body in (one, other))
                above = [int(model.body_weldid[model.body_parentid[body]]) if body else -1 for body in (a, b)]
                if a != b and above[0] != b and above[1] != a:
                    found.append(
                        _Pair(one, other, -1, *(grid.ravel() for grid in np.meshgrid(capsules[one], capsules[other])))
                    )
        return found

    def _moving(self, pair: _Pair) -> np.ndarray:
        """(D,) m/rad, at most, by which each joint brings the two parts nearer."""

        def above(body: int | None) -> set[int]:
            found = set()
            while body:
                found.add(body)
                body = int(self._model.body_parentid[body])
            return found

        turned = above(pair.one) ^ above(pair.other)
        bodies = [int(self._model.joint(name).bodyid[0]) for name in self.arm.joints]
        levers = [self._lever(name) for name in self.arm.joints]
        return np.array([lever if body in turned else 0.0 for body, lever in zip(bodies, levers, strict=True)])

    def _lever(self, joint: str) -> float:
        """m from a joint's axis to the furthest part that it turns, whatever the other joints do."""
        model = self._model

        def below(body: int) -> float:
            own = [
                np.linalg.norm(model.geom_pos[g]) + model.geom_rbound[g]
                for g in np.flatnonzero(model.geom_bodyid == body)
            ]
            children = [c for c in range(1, model.nbody) if model.body_parentid[c] == body]
            return max([0.0, *own, *(np.linalg.norm(model.body_pos[child]) + below(child) for child in children)])

        return float(below(int(model.joint(joint).bodyid[0])))

    def nearest(self, angles: np.ndarray) -> np.ndarray:
        """(G,) m between each pair at `angles` (D,) rad, at most `NEAR`; below 0 they overlap."""
        return self._measured(np.asarray(angles, float), range(len(self._pairs)))

    def bound(self, angles: np.ndarray, moved: np.ndarray | float = 0.0) -> np.ndarray:
        """(G,) m that each pair has at least within `moved` (D,) rad of `angles`, by what was measured before."""
        return self._known - (self._levers * (np.abs(angles - self._where) + moved)).sum(1)

    def too_near(self, angles: np.ndarray, needed: np.ndarray) -> list[int]:
        """The pairs that are nearer than `needed` (G,) m, at most `NEAR`."""
        doubt = self.bound(angles) < needed
        if not doubt.any():
            return []
        if (doubt & self._fenced).any():
            doubt |= self._fenced  # the fences are measured together
        doubtful = np.flatnonzero(doubt)
        self._known[doubtful] = self._measured(angles, doubtful)
        self._where[doubtful] = angles
        return [int(pair) for pair in doubtful if self._known[pair] < needed[pair]]

    def gaps(self, angles: np.ndarray, within: float) -> dict[int, Gap]:
        """Pairs that are nearer than `within` m, at most `NEAR`, with their slopes."""
        import mujoco

        close = self.too_near(angles, np.full(len(self), within))
        self._place(angles)
        mujoco.mj_comPos(self._model, self._data)
        return {number: self._gap(number) for number in close}

    def _gap(self, number: int) -> Gap:
        pair = self._pairs[number]
        if pair.other is None:
            normal = self._normals[pair.fence]
            geom = int(pair.first[np.argmin(self._above()[pair.fence, pair.first])])
            slope = normal @ self._jacobian(geom, self._lowest(geom, normal))
            return Gap(self.between(number), float(self._known[number]), slope)

        distances, ends = self._between(pair.first, pair.second)
        index = int(np.argmin(distances))
        one, other = ends[0][index], ends[1][index]
        normal = (other - one) / max(float(np.linalg.norm(other - one)), 1e-9)
        first, second = int(self._of[pair.first[index]]), int(self._of[pair.second[index]])
        slope = normal @ (self._jacobian(second, other) - self._jacobian(first, one))
        return Gap(self.between(number), float(distances[index]), slope)

    def _place(self, angles: np.ndarray) -> None:
        import mujoco

        self._data.qpos[self._wiring.qpos] = angles
        mujoco.mj_kinematics(self._model, self._data)
        turns = self._data.geom_xmat.reshape(-1, 3, 3)[self._of]
        middles = self._data.geom_xpos[self._of] + (turns @ self._middles[:, :, None])[:, :, 0]
        self._there = middles, (turns @ self._axes[:, :, None])[:, :, 0]

    def _measured(self, angles: np.ndarray, numbers) -> np.ndarray:
        """m between some pairs, at most `NEAR`."""
        self._place(angles)
        found, above = [], None
        for number in numbers:
            pair = self._pairs[number]
            if pair.other is None:
                above = self._above() if above is None else above
                found.append(min(NEAR, float(above[pair.fence, pair.first].min())))
            else:
                found.append(min(NEAR, float(self._between(pair.first, pair.second)[0].min())))
        return np.array(found)

    def _wrap(self) -> None:
        """Capsules around the geoms: whose they are, and in its frame middle (3,) m, axis (3,), half length, radius."""
        import mujoco

        model, kinds = self._model, mujoco.mjtGeom
        found = []
        for geom in np.flatnonzero(model.geom_contype | model.geom_conaffinity):
            kind, size = model.geom_type[geom], model.geom_size[geom]
            if kind == kinds.mjGEOM_BOX:
                long, wide, flat = np.argsort(-size, kind="stable")
                strips = int(min(STRIPS, max(1, round(size[wide] / max(size[flat], 0.005)))))
                half = size[wide] / strips
                for strip in range(strips):
                    middle = np.eye(3)[wide] * (half * (2 * strip + 1) - size[wide])
                    found.append((geom, middle, np.eye(3)[long], size[long], np.hypot(half, size[flat])))
            elif kind == kinds.mjGEOM_CYLINDER and size[1] < size[0]:
                found.append((geom, np.zeros(3), np.eye(3)[2], 0.0, np.hypot(size[0], size[1])))
            elif kind in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE):
                found.append((geom, np.zeros(3), np.eye(3)[2], size[1], size[0]))
            else:
                found.append((geom, np.zeros(3), np.eye(3)[2], 0.0, model.geom_rbound[geom]))
        self._of = np.array([int(each[0]) for each in found])
        self._middles, self._axes = (np.array([each[k] for each in found]) for k in (1, 2))
        self._lengths, self._radii = (np.array([float(each[k]) for each in found]) for k in (3, 4))

    def _between(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """(n,) m between capsules, and the points (n, 3) of their axes that are nearest to each other."""
        middles, axes = self._there
        u, v, apart = axes[first], axes[second], middles[first] - middles[second]
        one, other = self._lengths[first], self._lengths[second]

        along, ahead, behind = ((a * b).sum(1) for a, b in ((u, v), (u, apart), (v, apart)))
        slant = 1 - along * along
        s = np.clip((along * behind - ahead) / np.where(slant > 1e-9, slant, np.inf), -one, one)
        t = np.clip(along * s + behind, -other, other)
        s = np.clip(along * t - ahead, -one, one)
        ends = middles[first] + s[:, None] * u, middles[second] + t[:, None] * v
        return np.linalg.norm(ends[0] - ends[1], axis=1) - self._radii[first] - self._radii[second], ends

    def _shapes(self) -> None:
        """Of each geom: half lengths of its axes where it has corners, then the radius and the axis' half length."""
        import mujoco

        kind, size, kinds = self._model.geom_type, self._model.geom_size, mujoco.mjtGeom
        box, tube, capsule = kind == kinds.mjGEOM_BOX, kind == kinds.mjGEOM_CYLINDER, kind == kinds.mjGEOM_CAPSULE
        self._corners = size * box[:, None]  # (n, 3)
        self._rim = size[:, 0] * tube
        self._ball = np.where(box | tube, 0.0, np.where(capsule, size[:, 0], self._model.geom_rbound))
        self._half = size[:, 1] * (tube | capsule)
        points = [place for _, place, _ in self._fences]
        self._normals = np.array([normal for _, _, normal in self._fences]).reshape(-1, 3)
        self._heights = np.array([p @ n for p, n in zip(points, self._normals, strict=True)])

    def _above(self) -> np.ndarray:
        """(fences, geoms) m from each fence to the nearest point of each geom."""
        axes = self._data.geom_xmat.reshape(-1, 3, 3)
        along = np.abs(np.einsum("fi,gij->fgj", self._normals, axes))  # of a geom's axes with the normal
        extent = (along * self._corners).sum(2) + along[:, :, 2] * self._half + self._ball
        extent += self._rim * np.sqrt(np.maximum(0.0, 1 - along[:, :, 2] ** 2))
        return self._normals @ self._data.geom_xpos.T - self._heights[:, None] - extent

    def _lowest(self, geom: int, normal: np.ndarray) -> np.ndarray:
        """(3,) m, the point of a part that is furthest along -normal."""
        import mujoco

        turn = self._data.geom_xmat[geom].reshape(3, 3)
        own, (a, b, c) = normal @ turn, self._model.geom_size[geom]
        kind, kinds = self._model.geom_type[geom], mujoco.mjtGeom
        if kind == kinds.mjGEOM_BOX:
            local = -np.sign(own) * (a, b, c)
        else:
            flat = np.append(own[:2] / max(np.hypot(own[0], own[1]), 1e-9), 0.0)
            rim = -a * (flat if kind == kinds.mjGEOM_CYLINDER else own)
            half = b if kind in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE) else 0.0
            local = rim - np.array([0.0, 0.0, np.sign(own[2]) * half])
        return self._data.geom_xpos[geom] + turn @ local

    def between(self, number: int) -> str:
        """A pair in words."""
        pair = self._pairs[number]
        first = self._model.body(pair.one).name
        return f"{first} and {self._fences[pair.fence][0] if pair.other is None else self._model.body(pair.other).name}"

    def _jacobian(self, geom: int, point: np.ndarray) -> np.ndarray:
        """(3, D) m/rad of a point of a part."""
        import mujoco

        rows = np.zeros((3, self._model.nv))
        mujoco.mj_jac(self._model, self._data, rows, None, np.array(point), int(self._model.geom_bodyid[geom]))
        return rows[:, self._wiring.qvel]

    def torque(self, angles: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
        """(D,) N m that the servos must give for this motion in free space: weight, inertia, friction."""
        import mujoco

        wiring = self._wiring  # the fence adds no joints
        data = self._moved
        data.qpos[wiring.qpos], data.qvel[wiring.qvel], data.qacc[wiring.qvel] = angles, velocity, acceleration
        mujoco.mj_inverse(self._model, data)
        return data.qfrc_inverse[wiring.qvel] + self._friction * np.sign(velocity)


def _fences(around: Surroundings) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, a point (3,) m and the inward normal (3,) of each plane that nothing may cross."""
    planes = [] if around.table is None else [("the table", np.array([0, 0, around.table]), np.array([0.0, 0, 1]))]
    for name, (axis, end) in WALLS.items():
        corner = around.high if end else around.low
        if corner is not None:
            place, normal = np.zeros(3), np.zeros(3)
            place[axis], normal[axis] = corner[axis], -1.0 if end else 1.0
            planes.append((f"the {name} of the workspace", place, normal))
    return planes
