"""The robot, drawn: where its kinematics are known it is posed and rendered by MuJoCo, and nobody has to imagine it.

A `DrawnRobot` names a task of ours (`sim/task.py`) that has an arm; `Drawer` renders this arm alone, at joint angles,
as the cameras of the task see it at the size of the model's pictures: colour, depth, and which pixels are the arm's.
What stands fixed in the scene (the table) hides the arm where it is nearer; what can move is not drawn, so whether an
object hides the arm is for the network to say (`overlay.py`). Fingerprints tell another arm, camera or fixed scene.

Needs no torch; MuJoCo only to draw.
"""

from __future__ import annotations

import atexit
import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..configs.spec import Embodiment, Mode

NOTHING, ROBOT, HIDDEN = 0, 1, 2  # of a pixel: not the robot's; the robot's; the robot's behind something that moves
CHANNELS = 5  # of a drawn pixel: red, green, blue, nearness, and one of the above
HELD = 512  # drawn poses that are kept at hand
TURN = 2 * np.pi  # rad, more than a joint of ours turns
FAR = 0.5  # m, by which a nearness falls to 1 / e
FIGURES = 5  # decimals of the model's numbers that a fingerprint counts


class RobotError(ValueError):
    """A robot that cannot be drawn into these pictures; the message says what differs and what to do."""


@dataclass(frozen=True, kw_only=True)
class DrawnRobot:
    """Whose arm is drawn, and as which camera sees it."""

    task: str = ""  # a task of ours with an arm, such as so101-reach
    cameras: dict[str, str] = field(default_factory=dict)  # camera of the data -> that of the task, where names differ
    prints: dict[str, str] = field(default_factory=dict)  # fingerprints of arm, cameras and fixed scene; filled in

    def __post_init__(self):
        if not self.task:
            raise RobotError("world_model.robot names no task; give the one whose arm is in the pictures: so101-reach")

    def named(self, camera: str) -> str:
        """The task's name of a camera of the data."""
        return self.cameras.get(camera, camera)

    def find(self) -> Any:
        """The task. Raises RobotError for one that is not known, or has no arm."""
        return arm_task(self.task)

    def check(self, body: Embodiment) -> None:
        """Raise RobotError unless actions and states of a body are the arm's joints, in its order and in rad."""
        arm = self.find().arm
        for what, names, units in (("action", body.action, body.action_units), ("state", body.state, body.state_units)):
            if names != arm.joints:
                differs = next((f"'{b}' where '{a}' is" for a, b in zip(arm.joints, names, strict=False) if a != b), "")
                raise RobotError(
                    f"the arm of {self.task} cannot be posed by the {what} of '{body.name}', which has "
                    f"{differs or f'{len(names)} numbers where {len(arm.joints)} joints are'}: "
                    f"the joints in order are {', '.join(arm.joints)}"
                )
            if wrong := [f"{name} in {unit}" for name, unit in zip(names, units, strict=True) if unit != "rad"]:
                raise RobotError(
                    f"the arm of {self.task} is posed in rad; the {what} of '{body.name}' has {', '.join(wrong)}. "
                    "Convert the dataset, or state its units with --embodiment FILE"
                )
        if body.mode is not Mode.absolute:
            raise RobotError(f"the arm is drawn from absolute joint targets; actions of '{body.name}' are {body.mode}")


def arm_task(name: str) -> Any:
    """A registered task with an arm. Raises RobotError for one that is not known, or has none."""
    from ..configs.plugins import discover
    from ..sim.task import TASKS

    discover("sim")
    known = {key for key, task in TASKS.items() if hasattr(task, "arm")}
    if name not in known:
        raise RobotError(
            f"no arm of '{name}' is known; tasks with an arm that can be drawn: {', '.join(sorted(known))}"
        )
    return TASKS[name]()


@dataclass(frozen=True, eq=False)
class Drawing:
    """The arm at one pose as the model's cameras see it.

    Args:
        colour: (cameras, h, w, 3) uint8.
        depth: (cameras, h, w) float32 m along the camera's axis, where the arm is; infinite elsewhere.
        mask: (cameras, h, w) bool, pixels that are the arm's.
    """

    colour: np.ndarray
    depth: np.ndarray
    mask: np.ndarray

    def pixels(self) -> np.ndarray:
        """(cameras, h, w, 5) uint8: colour, nearness 255 exp(-depth / `FAR`), and `ROBOT`; all 0 elsewhere."""
        nearness = np.rint(255 * np.exp(-self.depth / FAR)).astype(np.uint8)
        layers = [self.colour * self.mask[..., None], nearness[..., None], self.mask[..., None] * np.uint8(ROBOT)]
        return np.concatenate(layers, -1)


class Drawer:
    """Renders the arm of a task alone, at poses. Not for two threads.

    Args:
        cameras: of the data, in the model's order.
        size: (height, width) of all pictures.

    Raises:
        RobotError: no such camera, or another arm, camera or fixed scene than `robot.prints` says.
    """

    def __init__(self, robot: DrawnRobot, cameras: tuple[str, ...], size: tuple[int, int]):
        import mujoco

        from ..sim.arms import Wiring

        task = robot.find()
        if unknown := [name for name in robot.cameras if name not in cameras]:
            raise RobotError(
                f"world_model.robot.cameras names '{unknown[0]}', which the model does not see; its cameras are "
                f"{', '.join(cameras)}"
            )
        self.arm, self.robot, self.cameras = task.arm, robot, tuple(cameras)
        self.size: tuple[int, int] = (size[0], size[1])
        self._names = [robot.named(name) for name in cameras]
        for name, theirs in zip(cameras, self._names, strict=True):
            if theirs not in task.cameras:
                raise RobotError(
                    f"{robot.task} has no camera '{theirs}' (it has {', '.join(task.cameras)}); say which one took the "
                    f"pictures: world_model.robot.cameras: {{{name}: ...}}"
                )
        self._model = task.scene().compile()
        self._data = mujoco.MjData(self._model)
        self._wiring = Wiring.of(task.arm, self._model)
        self._own, fixed = _geoms(self._model, task.arm)
        self.prints = _prints(self._model, self._own, fixed, dict(zip(cameras, self._names, strict=True)))
        check_prints(robot.prints, self.prints, f"the task {robot.task}")
        _hide(self._model, np.setdiff1d(np.arange(self._model.ngeom), np.union1d(self._own, fixed)))
        self._renderer: Any = None
        self._bare: dict[str, np.ndarray] = {}  # camera that stands -> depth of the scene without the arm
        self._held: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def draw(self, joints: np.ndarray) -> Drawing:
        """The arm at joint angles (D,), rad."""
        import mujoco

        from ..sim.rendering import renderer_class

        if self._renderer is None:
            self._renderer = renderer_class()(self._model, *self.size)
            if not _DRAWING:
                atexit.register(_close_all)  # runs before GL is gone, for it is registered later
            _DRAWING.add(self)
            self._bare = {name: self._without_arm(name) for name in self._names if self._stands(name)}
        self._data.qpos[self._wiring.qpos] = joints
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        colours, depths, masks = zip(*(self._seen(name) for name in self._names), strict=True)
        return Drawing(np.stack(colours), np.stack(depths), np.stack(masks))

    def pixels(self, joints: np.ndarray) -> np.ndarray:
        """Poses (M, D) rad -> (M, cameras, h, w, 5) uint8, see `Drawing.pixels`; the last `HELD` are kept."""
        return np.stack([self._pixels(np.ascontiguousarray(one, np.float32)) for one in joints])

    def __deepcopy__(self, memo: dict) -> Drawer:
        """One with a GL context of its own, which is not copied."""
        return Drawer(self.robot, self.cameras, self.size)

    def close(self) -> None:
        """Free what draws."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _pixels(self, joints: np.ndarray) -> np.ndarray:
        key = joints.tobytes()
        if key not in self._held:
            self._held[key] = self.draw(joints).pixels()
            if len(self._held) > HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]

    def _seen(self, camera: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour, depth and mask from one camera; the renderer is left as it was.

        As a camera that stands sees it, the arm is where the scene is nearer than without it.
        """
        renderer = self._renderer
        renderer.update_scene(self._data, camera)
        colour = renderer.render()
        if camera in self._bare:
            depth = renderer.depth()
            mask = depth != self._bare[camera]
        else:
            mask, depth = self._segmented(), renderer.depth()
        return colour, np.where(mask, depth, np.inf).astype(np.float32), mask

    def _segmented(self) -> np.ndarray:
        """(h, w) bool, where the scene that is set up shows the arm; twice the time."""
        import mujoco

        self._renderer.enable_segmentation_rendering()
        what = self._renderer.render()
        self._renderer.disable_segmentation_rendering()
        return (what[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM)) & np.isin(what[..., 0], self._own)

    def _stands(self, camera: str) -> bool:
        """Whether what a camera sees without the arm is always the same, and tells where the arm is."""
        from ..sim.rendering import stands

        smooth = self._model.vis.quality.offsamples > 0  # pixels at an outline would be the arm's in part
        return not smooth and stands(self._model, self._model.camera(camera).id)

    def _without_arm(self, camera: str) -> np.ndarray:
        """(h, w) m, depth of what stands fixed."""
        import mujoco

        model, shown = self._model, (self._model.geom_matid.copy(), self._model.geom_rgba.copy())
        _hide(model, self._own)
        mujoco.mj_kinematics(model, self._data)
        mujoco.mj_camlight(model, self._data)
        self._renderer.update_scene(self._data, camera)
        model.geom_matid[:], model.geom_rgba[:] = shown
        self._renderer.render()
        return self._renderer.depth()


_DRAWING: weakref.WeakSet[Drawer] = weakref.WeakSet()  # of this process


def _close_all() -> None:
    for drawer in list(_DRAWING):
        drawer.close()


def check_prints(known: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Raise RobotError naming the first part of which a fingerprint differs from the `known` one."""
    for part, value in known.items():
        if found.get(part, value) != value:
            raise RobotError(
                f"{part} of {where} is not the one that this world model was trained with: it would be drawn where "
                "the pictures do not show it. Take the task as it was, or train anew"
            )


def check_angles(joints: np.ndarray, names: tuple[str, ...], what: str) -> None:
    """Raise RobotError where recorded angles (N, D) can be no rad."""
    most = np.abs(joints).max(0)
    if (most > TURN).any():
        worst = int(most.argmax())
        raise RobotError(
            f"'{names[worst]}' of {what} reaches {most[worst]:.1f}, more than a turn in rad: are these degrees? "
            "Convert the dataset; the arm is drawn from rad"
        )


def _hide(model: Any, geoms: np.ndarray) -> None:
    """Let some geoms not be drawn."""
    model.geom_matid[geoms] = -1
    model.geom_rgba[geoms, 3] = 0


def _geoms(model: Any, arm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the geoms that are the arm's, and of those that stand fixed."""
    names = {body.name for body in arm.spec().bodies} - {"world"}
    bodies = [model.body(number) for number in range(model.nbody)]
    own = np.array([body.name in names for body in bodies])
    stands = (model.body_weldid == 0) & (model.body_mocapid < 0) & ~own
    return np.flatnonzero(own[model.geom_bodyid]), np.flatnonzero(stands[model.geom_bodyid])


def _prints(model: Any, own: np.ndarray, fixed: np.ndarray, cameras: Mapping[str, str]) -> dict[str, str]:
    """Part -> fingerprint of the numbers that decide how it looks."""
    bodies = np.unique(model.geom_bodyid[own])
    joints = np.flatnonzero(np.isin(model.jnt_bodyid, bodies))

    def shapes(geoms: np.ndarray) -> list[np.ndarray]:
        fields = ("geom_type", "geom_size", "geom_pos", "geom_quat", "geom_rgba")
        return [getattr(model, name)[geoms] for name in fields]

    light = [model.light_pos, model.light_dir, model.light_diffuse, model.vis.headlight.diffuse]
    light += [model.vis.headlight.ambient]
    arm = [model.body_pos[bodies], model.body_quat[bodies], model.jnt_axis[joints], model.jnt_pos[joints]]
    parts = {"the arm": shapes(own) + arm, "what stands fixed": shapes(fixed), "the light": light}
    for ours, theirs in cameras.items():
        number = model.camera(theirs).id
        place = model.cam_bodyid[number] if model.cam_bodyid[number] in bodies else 0
        seen = [model.cam_pos[number], model.cam_quat[number], model.cam_fovy[number], place]
        parts[f"the camera '{ours}'"] = seen
    return {part: _digest(values) for part, values in parts.items()}


def _digest(values: list) -> str:
    digest = hashlib.sha256()
    for value in values:
        numbers = np.round(np.asarray(value, float), FIGURES) + 0.0  # no negative zero
        digest.update(f"{numbers.shape}".encode() + numbers.tobytes())
    return digest.hexdigest()[:16]
