"""Arms by name: joint names, limits and home, the MuJoCo model, forward kinematics and inverse kinematics.

One description serves the simulated tasks, a digital twin and a servo emulator. Inside, every joint is in rad, the
gripper too; `to_lerobot` and `from_lerobot` convert to what a lerobot follower with `use_degrees` says. Knows nothing
of tasks, drivers or networks. An arm is one file that registers itself, see `so101/arm.py`.
The inverse is damped least squares (Wampler 1986).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..configs.plugins import discover, lookup
from ..configs.spec import Embodiment, Mode

if TYPE_CHECKING:
    import mujoco

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One kind of arm. Every vector over its joints is in the order of `joints`, in rad; the last joint is the gripper.

    The gripper's angle is 0 where the published model has it, its lower limit is closed, its upper limit fully open.
    """

    name: str
    asset: str  # MJCF file in `sim/assets`; names of its joints and actuators are `joints`
    joints: tuple[str, ...]
    limits: tuple[tuple[float, float], ...]  # rad
    home: tuple[float, ...]  # rad, a pose with the hand over the table, pointing down
    hand: str = "grasp"  # site between the fingers: x out of the hand, z from the fixed finger to the moving one

    def spec(self) -> mujoco.MjSpec:
        """A fresh description of the arm alone, its base at the origin, x forward, z up."""
        import mujoco

        return mujoco.MjSpec.from_file(str(ASSETS / self.asset))

    @property
    def low(self) -> np.ndarray:
        """(D,) lower limits, rad."""
        return np.array([low for low, _ in self.limits])

    @property
    def high(self) -> np.ndarray:
        """(D,) upper limits, rad."""
        return np.array([high for _, high in self.limits])

    def embodiment(self, rate: float, scene: dict[str, str] | None = None) -> Embodiment:
        """Absolute joint targets in, joint positions out, all in rad. `scene`: name -> unit of what a task adds."""
        units = ("rad",) * len(self.joints)
        scene = scene or {}
        return Embodiment(
            name=self.name,
            action=self.joints,
            action_units=units,
            limits=self.limits,
            rate=rate,
            mode=Mode.absolute,
            frame="joint",
            state=self.joints,
            state_units=units,
            scene=tuple(scene),
            scene_units=tuple(scene.values()),
        )

    def opening(self, angle: float) -> float:
        """How far the gripper is open at `angle` (rad): 0 closed, 1 fully open."""
        low, high = self.limits[-1]
        return (angle - low) / (high - low)

    def angle(self, opening: float) -> float:
        """Gripper angle in rad of an opening 0..1."""
        low, high = self.limits[-1]
        return low + opening * (high - low)

    def to_lerobot(self, angles: np.ndarray) -> np.ndarray:
        """(..., D) rad -> degrees, and 0 (closed) .. 100 (open) for the gripper."""
        values = np.rad2deg(angles)
        values[..., -1] = 100 * self.opening(np.asarray(angles)[..., -1])
        return values

    def from_lerobot(self, values: np.ndarray) -> np.ndarray:
        """(..., D) degrees and 0..100 for the gripper -> rad."""
        angles = np.deg2rad(values)
        angles[..., -1] = self.angle(np.asarray(values)[..., -1] / 100)
        return angles


ARMS: dict[str, Arm] = {}


def register_arm(arm: Arm) -> Arm:
    """Make an arm known by its name. A name given twice is an error."""
    if arm.name in ARMS:
        raise ValueError(f"arm '{arm.name}' is registered already")
    ARMS[arm.name] = arm
    return arm


def find_arm(name: str) -> Arm:
    """The arm of that name. Raises LookupError listing the known ones."""
    discover("sim")
    return lookup("arm", name, ARMS)


@dataclass(frozen=True)
class Wiring:
    """Where an arm's joints are in a compiled model: indices into qpos, qvel and ctrl, in the order of `Arm.joints`."""

    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray

    @classmethod
    def of(cls, arm: Arm, model: mujoco.MjModel, prefix: str = "") -> Wiring:
        """Find the arm in `model`; `prefix` is what its names got when it was attached. KeyError: no such joint."""
        joints = [model.joint(prefix + name) for name in arm.joints]
        return cls(
            qpos=np.array([int(joint.qposadr[0]) for joint in joints]),
            qvel=np.array([int(joint.dofadr[0]) for joint in joints]),
            ctrl=np.array([model.actuator(prefix + name).id for name in arm.joints]),
        )


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Where the hand shall be, in the frame of the arm's base. What is None is left free.

    Weights say how many metres of error one rad counts; `rest` pulls the joints gently to a posture.
    """

    position: np.ndarray  # (3,) m, of the tool
    out: np.ndarray | None = None  # (3,) unit vector, where the hand's x axis points
    across: np.ndarray | None = None  # (3,) unit vector, from the fixed to the moving finger
    out_weight: float = 0.1  # m
    across_weight: float = 0.1  # m
    rest: np.ndarray | None = None  # (D,) rad
    rest_weight: float = 0.0  # m


class Kinematics:
    """Forward and inverse kinematics of an arm without a scene. Holds a MuJoCo copy of its own; not for two threads.

    Args:
        tool: (3,) m, the tool's point in the frame of the hand's site; the site itself by default.
        site: another site of the model than `arm.hand`.
    """

    def __init__(self, arm: Arm, tool: tuple[float, float, float] = (0.0, 0.0, 0.0), site: str | None = None):
        import mujoco

        self.arm, self.tool = arm, np.asarray(tool, float)
        self._model = arm.spec().compile()
        self._data = mujoco.MjData(self._model)
        self._wiring = Wiring.of(arm, self._model)
        self._site = self._model.site(site or arm.hand).id

    def forward(self, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(D,) rad -> position of the tool (3,) m and rotation of the hand (3, 3), in the frame of the base."""
        self._place(angles)
        rotation = self._data.site_xmat[self._site].reshape(3, 3).copy()
        return self._data.site_xpos[self._site] + rotation @ self.tool, rotation

    def inverse(self, wish: Wish, start: np.ndarray, iterations: int = 40, damping: float = 0.003) -> np.ndarray:
        """Joint angles (D,) rad inside the limits whose hand is as near to the wish as can be found from `start`.

        Damped least squares from `start`; the gripper keeps its angle. It does not fail: what cannot be reached is
        approached, so check with `forward` where that matters.
        """
        angles = np.array(start, float)
        low, high = self.arm.low, self.arm.high

        for _ in range(iterations):
            error, jacobian = self._gap(wish, angles)
            square = jacobian @ jacobian.T + damping**2 * np.eye(len(error))
            move = jacobian.T @ np.linalg.solve(square, error)
            move *= min(1.0, 0.3 / max(float(np.abs(move).max()), 1e-9))

            angles[:-1] = np.clip(angles[:-1] + move, low[:-1], high[:-1])
            if np.abs(move).max() < 5e-5:
                break

        return angles

    def _place(self, angles: np.ndarray) -> None:
        import mujoco

        self._data.qpos[self._wiring.qpos] = angles
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)

    def _gap(self, wish: Wish, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted error (n,) m and its Jacobian (n, D - 1) with respect to the joints but the gripper."""
        import mujoco

        position, rotation = self.forward(angles)
        linear, angular = np.zeros((3, self._model.nv)), np.zeros((3, self._model.nv))
        body = self._model.site_bodyid[self._site]
        mujoco.mj_jac(self._model, self._data, linear, angular, position, body)
        columns = self._wiring.qvel[:-1]

        # position, directions, posture: rows of one system
        errors, rows = [wish.position - position], [linear[:, columns]]
        for axis, aim, weight in ((0, wish.out, wish.out_weight), (2, wish.across, wish.across_weight)):
            if aim is not None:
                errors.append(weight * _turn(rotation[:, axis], np.asarray(aim, float)))
                rows.append(weight * angular[:, columns])
        if wish.rest is not None:
            errors.append(wish.rest_weight * (np.asarray(wish.rest) - angles)[:-1])
            rows.append(wish.rest_weight * np.eye(len(columns)))

        return np.concatenate(errors), np.concatenate(rows)


def _turn(have: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) rad that turns one unit vector onto another; opposite ones turn about any axis."""
    (a, b, c), (x, y, z) = have, want
    axis = np.array([b * z - c * y, c * x - a * z, a * y - b * x])  # np.cross takes ten times as long
    sine, cosine = np.linalg.norm(axis), float(have @ want)
    if sine < 1e-9:
        other = np.eye(3)[int(np.abs(have).argmin())]
        across = np.cross(have, other)
        return np.zeros(3) if cosine > 0 else np.pi * across / np.linalg.norm(across)
    return axis / sine * np.arctan2(sine, cosine)
