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

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...sim.arms import Arm, Wiring

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


class _Poses(NamedTuple):
    """Of each solid geom at T angles: how it is turned (T, n, 3, 3) and where it is (T, n, 3), m."""

    turns: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class _Pair:
    """Two links, whose capsules `first[i]` and `second[i]` can meet; or one, solid geoms `first`, and a fence."""

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
        self._square = np.ix_(self._wiring.qvel, self._wiring.qvel)
        self._friction = self._model.dof_frictionloss[self._wiring.qvel].copy()

        self._solid = np.flatnonzero(self._model.geom_contype | self._model.geom_conaffinity)
        self._fences = _fences(surroundings or Surroundings())
        self._shapes()
        self._wrap()
        self._pairs = self._meeting()
        home = np.asarray(arm.home, float)
        distances = self._distances(self._placed(home[None]), range(len(self._pairs)))[0]
        self._pairs = [pair for pair, apart in zip(self._pairs, distances, strict=True) if apart >= 0]
        self._known = distances[distances >= 0]  # (G,) m; the model of the arm is rough where it is below 0
        self.names = [self._between_whom(pair) for pair in self._pairs]
        self._levers = np.array([self._moving(pair) for pair in self._pairs]).reshape(-1, len(arm.joints))  # m/rad
        self._where = np.tile(home, (len(self._pairs), 1))  # (G, D), when that was measured

    def __len__(self) -> int:
        return len(self._pairs)

    def again(self) -> Clearance:
        """Another one of the same arm, which remembers what it measured by itself. Not at the same time as this one."""
        other = copy(self)
        other._known, other._where = self._known.copy(), self._where.copy()
        return other

    def _meeting(self) -> list[_Pair]:
        """Links that are neither one nor neighbours, and what moves beside each fence."""
        model = self._model
        parts = {body: np.flatnonzero(model.geom_bodyid[self._solid] == body) for body in range(model.nbody)}
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
        """(G,) m between each pair at `angles` (D,) rad; below 0 they overlap."""
        return self._distances(self._placed(np.asarray(angles, float)[None]), range(len(self._pairs)))[0]

    def bound(self, angles: np.ndarray, moved: np.ndarray | float = 0.0) -> np.ndarray:
        """(G,) m that each pair has at least within `moved` (D,) rad of `angles`, by what was measured before."""
        return self._known - (self._levers * (np.abs(angles - self._where) + moved)).sum(1)

    def too_near(self, angles: np.ndarray, needed: np.ndarray) -> list[int]:
        """The pairs that are nearer than `needed` (G,) m."""
        self._measure(angles, self.bound(angles) < needed)
        return np.flatnonzero(self._known < needed).tolist()

    def stays_clear(self, path: np.ndarray, needed: np.ndarray) -> bool:
        """Whether each pair keeps `needed` (G,) m at all angles of `path` (T, D) rad.

        What is measured in the middle holds for all of it if the joints move little; else every pose is measured.
        """
        middle = path[len(path) // 2]
        moved = np.abs(path - middle).max(0)
        doubt = self.bound(middle, moved) < needed
        self._measure(middle, doubt)
        if (self._known[doubt] < needed[doubt]).any():
            return False
        left = np.flatnonzero(doubt & (self._known - self._levers @ moved < needed))
        return not len(left) or bool((self._distances(self._placed(path), left) >= needed[left]).all())

    def _measure(self, angles: np.ndarray, which: np.ndarray) -> None:
        """Find out how near some pairs, (G,) truth values, are at `angles`."""
        if which.any():
            self._known[which] = self._distances(self._placed(angles[None]), np.flatnonzero(which))[0]
            self._where[which] = angles

    def gaps(self, angles: np.ndarray, within: float) -> dict[int, Gap]:
        """Pairs that are nearer than `within` m, with their slopes."""
        import mujoco

        close = self.too_near(angles, np.full(len(self), within))
        if not close:
            return {}
        poses = self._placed(angles[None])
        mujoco.mj_comPos(self._model, self._data)
        above, (middles, axes) = self._above(poses)[0], self._capsules(poses)
        return {number: self._gap(number, above, middles[0], axes[0]) for number in close}

    def _gap(self, number: int, above: np.ndarray, middles: np.ndarray, axes: np.ndarray) -> Gap:
        pair = self._pairs[number]
        if pair.other is None:
            normal, own = self._normals[pair.fence], above[pair.fence, pair.first]
            geom = int(self._solid[pair.first[np.argmin(own)]])
            slope = normal @ self._jacobian(geom, self._lowest(geom, normal))
            return Gap(self.names[number], float(own.min()), slope)

        a, b = pair.first, pair.second
        ends = self._ends(middles[a], axes[a], a, middles[b], axes[b], b)
        distances = np.linalg.norm(ends[1] - ends[0], axis=1) - self._radii[a] - self._radii[b]
        index = int(np.argmin(distances))
        one, other = ends[0][index], ends[1][index]
        normal = (other - one) / max(float(np.linalg.norm(other - one)), 1e-9)
        first, second = (int(self._solid[self._of[capsules[index]]]) for capsules in (a, b))
        slope = normal @ (self._jacobian(second, other) - self._jacobian(first, one))
        return Gap(self.names[number], float(distances[index]), slope)

    def _placed(self, path: np.ndarray) -> _Poses:
        """Where the parts are at each of the angles (T, D)."""
        import mujoco

        data, turns, places = self._data, [], []
        for angles in path:
            data.qpos[self._wiring.qpos] = angles
            mujoco.mj_kinematics(self._model, data)
            turns.append(data.geom_xmat[self._solid])
            places.append(data.geom_xpos[self._solid])
        return _Poses(np.array(turns).reshape(len(path), -1, 3, 3), np.array(places))

    def _distances(self, poses: _Poses, numbers: Iterable[int]) -> np.ndarray:
        """(T, n) m between some pairs."""
        pairs = [self._pairs[number] for number in numbers]
        found = np.zeros((len(poses.places), len(pairs)))
        fenced = [place for place, pair in enumerate(pairs) if pair.other is None]
        if fenced:
            above = self._above(poses)
            for place in fenced:
                found[:, place] = above[:, pairs[place].fence, pairs[place].first].min(1)

        linked = [place for place, pair in enumerate(pairs) if pair.other is not None]
        if linked:
            found[:, linked] = self._between(poses, [pairs[place] for place in linked])
        return found

    def _between(self, poses: _Poses, pairs: list[_Pair]) -> np.ndarray:
        """(T, n) m between pairs of links.

        Only capsules whose spheres are nearer than the middles of some others are looked at closely.
        """
        first = np.concatenate([pair.first for pair in pairs])
        second = np.concatenate([pair.second for pair in pairs])
        sizes = [len(pair.first) for pair in pairs]
        begins = np.cumsum([0, *sizes[:-1]])

        middles, axes = self._capsules(poses)
        apart = middles[:, first] - middles[:, second]
        distances = np.sqrt(_dot(apart, apart)) - (self._radii[first] + self._radii[second])
        nearest = np.minimum.reduceat(distances, begins, axis=1)
        spheres = distances - (self._lengths[first] + self._lengths[second])
        pose, place = np.nonzero(spheres < np.repeat(nearest, sizes, axis=1))

        one, other = first[place], second[place]
        ends = self._ends(middles[pose, one], axes[pose, one], one, middles[pose, other], axes[pose, other], other)
        across = ends[0] - ends[1]
        distances[pose, place] = np.sqrt(_dot(across, across)) - (self._radii[one] + self._radii[other])
        return np.minimum.reduceat(distances, begins, axis=1)

    def _capsules(self, poses: _Poses) -> tuple[np.ndarray, np.ndarray]:
        """(T, c, 3) middles, m, and axes of the capsules."""
        turns = poses.turns[:, self._of]
        middles = poses.places[:, self._of] + (turns @ self._middles[:, :, None])[..., 0]
        return middles, (turns @ self._axes[:, :, None])[..., 0]

    def _ends(self, middle, u, first, middle_other, v, second) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3) m, the points of the axes of capsules that are nearest to each other."""
        apart, one, other = middle - middle_other, self._lengths[first], self._lengths[second]
        along, ahead, behind = _dot(u, v), _dot(u, apart), _dot(v, apart)
        slant = 1 - along * along
        s = np.clip((along * behind - ahead) / np.where(slant > 1e-9, slant, np.inf), -one, one)
        t = np.clip(along * s + behind, -other, other)
        s = np.clip(along * t - ahead, -one, one)
        return middle + s[:, None] * u, middle_other + t[:, None] * v

    def _wrap(self) -> None:
        """Capsules around the geoms: whose they are, and in its frame middle (3,) m, axis (3,), half length, radius."""
        import mujoco

        model, kinds = self._model, mujoco.mjtGeom
        found = []
        for place, geom in enumerate(self._solid):
            kind, size = model.geom_type[geom], model.geom_size[geom]
            if kind == kinds.mjGEOM_BOX:
                long, wide, flat = np.argsort(-size, kind="stable")
                strips = int(min(STRIPS, max(1, round(size[wide] / max(size[flat], 0.005)))))
                half = size[wide] / strips
                for strip in range(strips):
                    middle = np.eye(3)[wide] * (half * (2 * strip + 1) - size[wide])
                    found.append((place, middle, np.eye(3)[long], size[long], np.hypot(half, size[flat])))
            elif kind == kinds.mjGEOM_CYLINDER and size[1] < size[0]:
                found.append((place, np.zeros(3), np.eye(3)[2], 0.0, np.hypot(size[0], size[1])))
            elif kind in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE):
                found.append((place, np.zeros(3), np.eye(3)[2], size[1], size[0]))
            else:
                found.append((place, np.zeros(3), np.eye(3)[2], 0.0, model.geom_rbound[geom]))
        self._of = np.array([int(each[0]) for each in found])
        self._middles, self._axes = (np.array([each[k] for each in found]) for k in (1, 2))
        self._lengths, self._radii = (np.array([float(each[k]) for each in found]) for k in (3, 4))

    def _shapes(self) -> None:
        """Of each geom: half lengths of its axes where it has corners, then the radius and the axis' half length."""
        import mujoco

        solid, kinds = self._solid, mujoco.mjtGeom
        kind, size = self._model.geom_type[solid], self._model.geom_size[solid]
        box, tube, capsule = kind == kinds.mjGEOM_BOX, kind == kinds.mjGEOM_CYLINDER, kind == kinds.mjGEOM_CAPSULE
        self._corners = size * box[:, None]  # (n, 3)
        self._rim = size[:, 0] * tube
        self._ball = np.where(box | tube, 0.0, np.where(capsule, size[:, 0], self._model.geom_rbound[solid]))
        self._half = size[:, 1] * (tube | capsule)
        points = [place for _, place, _ in self._fences]
        self._normals = np.array([normal for _, _, normal in self._fences]).reshape(-1, 3)
        self._heights = np.array([p @ n for p, n in zip(points, self._normals, strict=True)])

    def _above(self, poses: _Poses) -> np.ndarray:
        """(T, fences, geoms) m from each fence to the nearest point of each geom."""
        along = np.abs(np.einsum("fi,tgij->tfgj", self._normals, poses.turns))  # of a geom's axes with the normal
        extent = np.einsum("tfgj,gj->tfg", along, self._corners) + along[..., 2] * self._half + self._ball
        extent += self._rim * np.sqrt(np.maximum(0.0, 1 - along[..., 2] ** 2))
        return np.einsum("fi,tgi->tfg", self._normals, poses.places) - self._heights[:, None] - extent

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

    def _between_whom(self, pair: _Pair) -> str:
        other = self._fences[pair.fence][0] if pair.other is None else self._model.body(pair.other).name
        return f"{self._model.body(pair.one).name} and {other}"

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

    def inertia(self) -> np.ndarray:
        """(D, D) N m s^2/rad that acceleration takes, where `torque` was asked last."""
        import mujoco

        size = self._model.nv
        whole = np.zeros((size, size))
        mujoco.mj_fullM(self._model, whole, self._moved.qM)
        return whole[self._square]

    @property
    def damping(self) -> np.ndarray:
        """(D,) N m s/rad that velocity takes."""
        return self._model.dof_damping[self._wiring.qvel]


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(..., 3), (..., 3) -> (...)."""
    return np.einsum("...i,...i->...", one, other)


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
