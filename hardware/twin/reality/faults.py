"""What goes wrong between a twin and what it follows, when and for how long; part of the settings of a stand-in.

latency   pictures, joint echo and commands arrive `size` s later
loss      none of them arrives
cover     camera `what` sees a hand
shake     camera `what` is shaken by up to `size` m
bump      camera `what` is moved by `size` m, until it is put back
remove    object `what` (a body) is taken away, and put back where it was
swap      object `what` is exchanged for one of another colour and `size` times as large
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....configs.plugins import lookup
from ....configs.rng import rng_of

if TYPE_CHECKING:
    import mujoco

SIZES = {"latency": 0.1, "loss": 1.0, "cover": 1.0, "shake": 0.02, "bump": 0.03, "remove": 1.0, "swap": 0.75}
HAND = np.array([196, 150, 128])  # a hand before the lens, RGB
OTHER = (0.15, 0.65, 0.25, 1.0)  # colour of what an object is exchanged for


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong from `at` to `until`, s since the start of the episode."""

    kind: str
    at: float
    until: float = math.inf
    what: str = ""  # camera or body; empty: the first one
    size: float | None = None  # see the module; empty: the usual

    def __post_init__(self) -> None:
        lookup("fault", self.kind, SIZES)
        if not 0 <= self.at < self.until:
            raise ValueError(f"a fault lasts from `at` >= 0 to a later `until`, got {self.at} .. {self.until}")

    @property
    def amount(self) -> float:
        return SIZES[self.kind] if self.size is None else self.size


class Faults:
    """Those of one episode, as time goes on. `seed` draws how a camera shakes."""

    def __init__(self, faults: Sequence[Fault], cameras: Sequence[str], seed: int):
        for fault in faults:
            if fault.kind in ("cover", "shake", "bump") and fault.what:
                lookup("camera", fault.what, dict.fromkeys(cameras))
        self._faults, self._cameras, self._seed = tuple(faults), tuple(cameras), seed
        self._objects: dict[Fault, _Object] = {}

    def now(self, kind: str, time: float) -> Iterator[Fault]:
        """Those of a kind that hold at `time`."""
        return (fault for fault in self._faults if fault.kind == kind and fault.at <= time < fault.until)

    def latency(self, time: float) -> float:
        """s that everything is late."""
        return sum(fault.amount for fault in self.now("latency", time))

    def lost(self, time: float) -> bool:
        return any(True for _ in self.now("loss", time))

    def covered(self, camera: str, time: float) -> bool:
        return any(self._camera(fault) == camera for fault in self.now("cover", time))

    def moved(self, camera: str, time: float) -> np.ndarray:
        """(3,) m, how far a camera stands from its place."""
        offset = np.zeros(3)
        for fault in self.now("bump", time):
            if self._camera(fault) == camera:
                offset += fault.amount * np.array([0.6, -0.64, 0.48])
        for fault in self.now("shake", time):
            if self._camera(fault) == camera:
                offset += fault.amount * rng_of(self._seed, 7, round(1000 * time)).uniform(-1, 1, 3)
        return offset

    def touch(self, model: mujoco.MjModel, data: mujoco.MjData, bodies: Sequence[int], time: float) -> None:
        """Take objects away, exchange them, and put them back; `bodies` are those that can be meant."""
        for fault in self._faults:
            if fault.kind not in ("remove", "swap"):
                continue
            holds = fault.at <= time < fault.until
            if holds and fault not in self._objects:
                body = model.body(fault.what).id if fault.what else bodies[0]
                self._objects[fault] = _Object(model, data, body)
                self._objects[fault].take() if fault.kind == "remove" else self._objects[fault].swap(fault.amount)
            elif not holds and fault in self._objects:
                self._objects.pop(fault).back()

    def end(self) -> None:
        """Put everything back."""
        while self._objects:
            self._objects.popitem()[1].back()

    def _camera(self, fault: Fault) -> str:
        return fault.what or self._cameras[0]


class _Object:
    """A body of a scene that is taken away or exchanged, and what it was before."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, body: int):
        first, joint = model.body_geomadr[body], model.body_jntadr[body]
        self.model, self.data = model, data
        self.geoms = np.arange(first, first + model.body_geomnum[body])
        self.place = int(model.jnt_qposadr[joint])
        self.joints = range(joint, joint + model.body_jntnum[body])
        kept = (model.geom_rgba, model.geom_size, model.geom_contype, model.geom_conaffinity)
        self.kept = [(values, values[self.geoms].copy()) for values in kept]
        self.pose = data.qpos[self._qpos].copy()
        self.taken = False

    def take(self) -> None:
        self.taken = True
        self.model.geom_rgba[self.geoms, 3] = 0
        self.model.geom_contype[self.geoms] = self.model.geom_conaffinity[self.geoms] = 0

    def swap(self, factor: float) -> None:
        self.model.geom_rgba[self.geoms] = OTHER
        self.model.geom_size[self.geoms, :2] *= factor

    def back(self) -> None:
        for values, before in self.kept:
            values[self.geoms] = before
        if self.taken:
            self.data.qpos[self._qpos] = self.pose
            self.data.qvel[self._qvel] = 0

    @property
    def _qpos(self) -> np.ndarray:
        return _of_joints(self.model.jnt_qposadr, self.joints, self.model, (7, 4, 1, 1))

    @property
    def _qvel(self) -> np.ndarray:
        return _of_joints(self.model.jnt_dofadr, self.joints, self.model, (6, 3, 1, 1))


def _of_joints(first: np.ndarray, joints: Sequence[int], model: mujoco.MjModel, sizes: Sequence[int]) -> np.ndarray:
    """Indices of the numbers of some joints."""
    parts = [first[joint] + np.arange(sizes[model.jnt_type[joint]]) for joint in joints]
    return np.concatenate(parts) if parts else np.empty(0, int)
