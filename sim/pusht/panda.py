"""A Panda that holds a stick: its model, and the inverse kinematics that keeps the stick upright.

Kinematics, masses, limits and torques are those of robosuite's `panda/robot.xml`, read when needed (robosuite itself is
not imported); its meshes are replaced by capsules along the links. Servos of our own: joint position with damping,
within that file's torque limits, which also carry the arm's weight; stiff, as a real Panda's position control is, but
`KP` and `ARMATURE` (the rotors, which the file leaves out) are our choice and not identified. The inverse is damped
least squares (Wampler 1986) with a pull to a posture in its null space. Knows no task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

JOINTS = tuple(f"joint{number}" for number in range(1, 8))
REST = np.array([0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.78])  # rad, the elbow up, the hand down
KP = np.array([20000.0, 20000.0, 12000.0, 12000.0, 4000.0, 4000.0, 2000.0])  # N m / rad
AHEAD = 0.02  # s, k_v / k_p: a servo looks so far along the velocity it is told
ARMATURE = 0.1  # kg m^2
THICK = 0.045  # m, radius of the drawn links
COLOURS = ((0.9, 0.91, 0.92, 1), (0.75, 0.77, 0.8, 1))


def panda(stick: float, ball: float) -> mujoco.MjSpec:
    """The arm, base at the origin, x forward, z up, and a stick of `stick` m in its hand that ends in a ball.

    The ball (radius `ball` m) is the geom "pusher" around the site "tip"; nothing else of the arm touches anything.
    Actuators `joint1`.. take joint angles, rad. Raises ModuleNotFoundError without robosuite.
    """
    import mujoco

    spec = mujoco.MjSpec.from_file(str(_file()))
    spec.modelname = "panda"
    torques = {motor.target: motor.ctrlrange for motor in spec.actuators}

    # keep bodies and joints alone
    for kind in (spec.geoms, spec.sites, spec.cameras, spec.actuators, spec.meshes, spec.materials):
        for thing in list(kind):
            spec.delete(thing)

    # servos of our own
    for name, kp in zip(JOINTS, KP, strict=True):
        joint = spec.joint(name)
        joint.armature, joint.actgravcomp = ARMATURE, True  # the servos carry the arm's weight
        joint.actfrcrange, joint.actfrclimited = torques[name], mujoco.mjtLimited.mjLIMITED_TRUE
        servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=kp, kv=kp * AHEAD)

    for body in spec.bodies[1:]:
        body.gravcomp = 1
    _draw(spec, stick, ball)
    return spec


def _draw(spec: mujoco.MjSpec, stick: float, ball: float) -> None:
    """Capsules from joint to joint, the stick and its ball."""
    import mujoco

    capsule = dict(type=mujoco.mjtGeom.mjGEOM_CAPSULE, contype=0, conaffinity=0, density=0, group=1)
    # links
    names = ["link0", *(f"link{number}" for number in range(1, 8)), "right_hand"]
    for number, (name, child) in enumerate(zip(names, names[1:], strict=False)):
        end = spec.body(child).pos
        if np.linalg.norm(end) > 0:
            spec.body(name).add_geom(fromto=[0, 0, 0, *end], size=[THICK, 0, 0], rgba=COLOURS[number % 2], **capsule)

    # stick and ball
    hand = spec.body("right_hand")
    hand.add_geom(fromto=[0, 0, 0, 0, 0, stick], size=[ball / 2, 0, 0], rgba=[0.25, 0.41, 0.88, 1], **capsule)
    hand.add_site(name="tip", pos=[0, 0, stick], group=5)
    hand.add_geom(
        name="pusher",
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        pos=[0, 0, stick],
        size=[ball, 0, 0],
        density=0,
        rgba=[0.25, 0.41, 0.88, 1],
        group=1,
    )


def _file() -> Path:
    from importlib.util import find_spec

    package = find_spec("robosuite")
    if package is None:
        raise ModuleNotFoundError("the Panda is read from robosuite, which is not installed: pip install '.[sim]'")
    return Path(package.submodule_search_locations[0]) / "models" / "assets" / "robots" / "panda" / "robot.xml"


@dataclass(frozen=True)
class Solved:
    """Joint angles (7,) rad and what is left of the wish: m, and rad of the stick's lean."""

    angles: np.ndarray
    away: float
    lean: float


class StickKinematics:
    """Where the stick's tip is, and joint angles that bring it somewhere upright. Holds a MuJoCo copy of its own.

    Args:
        base: (3,) m, where the arm's base stands in the frame that tips are told in; axes are parallel.
    """

    def __init__(self, base: tuple[float, float, float], stick: float):
        import mujoco

        self.base = np.asarray(base, float)
        self._model = panda(stick, 0.01).compile()
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site("tip").id
        self.low, self.high = self._model.jnt_range.T.copy()

    def forward(self, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(7,) rad -> tip (3,) m and the unit vector (3,) from the hand to the tip."""
        import mujoco

        self._data.qpos[:] = angles
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)

        rotation = self._data.site_xmat[self._site].reshape(3, 3)
        return self._data.site_xpos[self._site] + self.base, rotation[:, 2]

    def follow(self, angles: np.ndarray, tip: np.ndarray, iterations: int = 2, pull: float = 0.03) -> np.ndarray:
        """Angles (7,) rad inside the limits with the tip nearer to (3,) m and the stick upright, from `angles`.

        `pull` is the part of the way to the posture `REST`, turned towards the tip, that the null space goes at once.
        """
        import mujoco

        linear, angular = np.zeros((3, 7)), np.zeros((3, 7))
        rest = REST + np.eye(7)[0] * np.arctan2(*(tip - self.base)[1::-1])
        for _ in range(iterations):
            place, axis = self.forward(angles)
            mujoco.mj_jacSite(self._model, self._data, linear, angular, self._site)

            # tip and lean, then the posture in what is left
            error = np.concatenate([tip - place, [-axis[1], axis[0]]])  # axis x (0, 0, -1)
            jacobian = np.concatenate([linear, angular[:2]])
            back = pull * (rest - angles)
            square = jacobian @ jacobian.T + 1e-8 * np.eye(5)
            move = back + jacobian.T @ np.linalg.solve(square, error - jacobian @ back)
            angles = np.clip(angles + np.clip(move, -0.3, 0.3), self.low, self.high)
        return angles

    def settle(self, tip: np.ndarray) -> Solved:
        """The angles for a tip at (3,) m, found from the posture `REST` alone, and how well they do."""
        rest = REST + np.eye(7)[0] * np.arctan2(*(tip - self.base)[1::-1])
        angles = self.follow(rest, tip, iterations=80)
        place, axis = self.forward(angles)
        return Solved(angles, float(np.linalg.norm(place - tip)), float(np.arccos(np.clip(-axis[2], -1, 1))))
