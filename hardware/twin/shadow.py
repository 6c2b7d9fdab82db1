"""A twin that runs beside an arm and looks ahead: what would this command touch, and how hard?

Before a command leaves, the shadow puts its arm where the real one was measured, its objects where it last had them,
and lets the command act for `ahead` s. It tells the torque that contacts would put on each joint (for the guard, whose
own model knows no contact), and vetoes what would press on something harder than allowed. A command that does not press
harder than standing still does, there, is not vetoed, so that an arm can always be led away. With an aligner it also
compares itself, as it was when pictures were taken, with cameras, and warns when the two part; pictures that are much
older or newer than the joints it knows are left aside. It commands nothing: who asks it decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...configs.world import World
from ...sim.decor import movable_bodies
from ..envelope import Foresight, Measured
from .align import Aligner, Correction
from .bodies import body_ids, body_poses
from .build import start as start_of
from .live.health import Health, Trust
from .live.loop import PAST, between
from .live.pull import Supports, shift
from .live.resting import gap_of
from .reality.layout import Joints, task_of
from .touch import Felt, against, contact_torque, contacts

if TYPE_CHECKING:
    import mujoco

    from .scene import TwinScene

SETTLING = 20  # comparisons of a quiet start's pictures
FAR = 0.05  # m that an object goes in each of them at most
LONGEST = 0.1  # s that the shadow's physics goes on between two checks at most
PAUSE = 1.0  # s without a check, after which nobody wanted one
PARTED = "twin and camera have parted: no camera agrees with the twin"


@dataclass(frozen=True, kw_only=True)
class ShadowSettings:
    """What a shadow allows."""

    ahead: float = 0.15  # s that a command is let act for
    force: float = 6.0  # N, of the arm on what stands fast: table, walls, itself
    push: float = 25.0  # N, of the arm on what it may move
    torque: float | tuple[float, ...] | None = None  # N m, of contacts at each joint; empty: not limited
    apart: float = 0.3  # rad or m that measured joints may be off the shadow's, before it warns
    may_touch: tuple[str, ...] = ()  # bodies that the arm may press on as on what it may move
    share: float = 0.3  # of an error, that a picture removes from what stands on something
    most: float = 0.01  # m, the longest such move
    trust: Trust = field(default_factory=Trust)  # when cameras are believed

    def __post_init__(self) -> None:
        for name in ("ahead", "force", "push", "apart", "most"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} of a shadow must be a number above 0, got {getattr(self, name)}")
        if self.torque is not None and not np.all(np.asarray(self.torque, float) > 0):
            raise ValueError(f"torque of a shadow must be positive, got {self.torque}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share of a shadow is 0..1, got {self.share}")


class Shadow:
    """See the module. Not for two threads.

    Args:
        world: a task in plain MuJoCo, or a built scene: what is before the arm.
        rate: checks a second.
        aligner: compares the shadow with cameras; None: it does not look.
        start: start id at which its objects begin, where nobody says where they are.
    """

    def __init__(
        self,
        world: World | TwinScene,
        rate: float,
        settings: ShadowSettings | None = None,
        aligner: Aligner | None = None,
        start: int = 0,
    ):
        import mujoco

        self.settings, self.aligner = settings or ShadowSettings(), aligner
        self._start: Callable[[mujoco.MjModel, int], mujoco.MjData]
        if isinstance(world, World):
            self.task = task_of(world)
            self.model, self._start = self.task.scene().compile(), self._drawn
        else:
            self.model, self._start = world.spec(cameras=False).compile(), partial(start_of, world.source)
        self.data, self._scratch = mujoco.MjData(self.model), mujoco.MjData(self.model)
        self.joints = Joints.of(self.model)
        count, torque = len(self.joints.names), self.settings.torque
        if torque is not None and np.size(torque) not in (1, count):
            raise ValueError(f"torque of a shadow is one number, or one for each of {count} joints; got {torque}")
        self._drawn_bodies = None if aligner is None else body_ids(self.model, aligner.gaussians.bodies)
        self._then = mujoco.MjData(self.model)  # the shadow as pictures saw it
        self._past: deque[tuple[float, np.ndarray]] = deque(maxlen=max(2, round(PAST * rate)))  # s, (nq,)
        self._period = 1 / rate
        self._far = max(1, round(self.settings.ahead / self.model.opt.timestep))
        self._sort_bodies()
        self.begin(start)

    def begin(self, start: int = 0) -> None:
        """Objects at start `start` of the task."""
        import mujoco

        mujoco.mj_copyData(self.data, self.model, self._start(self.model, start))
        mujoco.mj_forward(self.model, self.data)
        self._measured: Measured | None = None
        self._health: Health | None = None
        self._told = 0  # warnings of its
        self._off = self._slow = self._late = False  # what was told already
        self._captured: dict[str, float] = {}  # camera -> when its newest picture was taken, s
        self.compared = -np.inf  # s, when the newest pictures were taken that were compared
        self._past.clear()
        self._supports = Supports(self.model, self._loose)
        self._wrench = np.zeros((self.model.nbody, 6))
        if self.aligner is not None:
            self.aligner.reset()

    def _drawn(self, model: mujoco.MjModel, start: int) -> mujoco.MjData:
        import mujoco

        data = mujoco.MjData(model)
        self.task.reset(model, data, np.random.default_rng(start))
        return data

    def place(self, body: str, pose: np.ndarray) -> None:
        """Put an object where it is known to be: (7,) x, y, z in m and a quaternion w, x, y, z.

        Raises:
            LookupError: no such body. ValueError: one that does not move freely.
        """
        import mujoco

        number = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, body)
        if number < 0:
            raise LookupError(f"the shadow's scene has no body '{body}'")
        joint = self.model.body_jntadr[number]
        if joint < 0 or self.model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_FREE:
            raise ValueError(f"body '{body}' does not move freely")
        first = self.model.jnt_qposadr[joint]
        self.data.qpos[first : first + 7] = pose
        mujoco.mj_forward(self.model, self.data)

    def check(self, command: np.ndarray, measured: Measured) -> Foresight:
        """What `command` (D,) would do to an arm that is where it was measured.

        Raises:
            ValueError: numbers of another arm, or that are not finite.
        """
        command, position = np.asarray(command, float), np.asarray(measured.position, float)
        if command.shape != position.shape or command.shape != self.joints.qpos.shape:
            raise ValueError(f"the shadow's arm has {len(self.joints.names)} joints, got {command.shape}")
        if not (np.isfinite(command).all() and np.isfinite(position).all()):
            raise ValueError("a command and a measured pose are finite numbers")
        warnings = self._follow(position, measured)
        felt = self._try(command)
        allowed = self.settings.force, self.settings.push, self.settings.torque
        reasons = against(felt, *allowed, self.joints.names)
        if reasons:  # no harder than standing still is allowed
            reasons = against(felt, *allowed, self.joints.names, self._try(position))
        self.data.ctrl[self.joints.ctrl] = position if reasons else command
        return Foresight(not reasons, felt.torque, felt.force, tuple(reasons), tuple(warnings), measured.time)

    def settle(self, images: Mapping[str, np.ndarray], position: np.ndarray, now: float) -> dict[str, float]:
        """A quiet start: objects go to where pictures have them, and the pictures set the cameras' bounds.

        Args:
            position: (D,) where the arm stands.

        Returns:
            Camera -> its bound from now on: `trust.margin` times the residual that is left.
        """
        import mujoco

        self.data.qpos[self.joints.qpos] = self.data.ctrl[self.joints.ctrl] = position
        self.data.qvel[:] = 0
        mujoco.mj_forward(self.model, self.data)
        self._past.clear()
        for _ in range(SETTLING):
            found = self._compare(images, now)
            self._move(found, 1.0, FAR)
        self._wrench[:] = 0  # of a scene that stands
        self._past.append((now, self.data.qpos.copy()))
        trust = self.settings.trust
        bounds = {name: trust.margin * value for name, value in found.residual.items()} | trust.bounds
        self._health = Health(replace(trust, bounds=bounds), images, now)
        for row, body in self._rows(found):
            if not found.seen[row] or found.overlap[row] < trust.overlap:
                name = self.model.body(body).name
                self._health.warnings.append(f"{name} is not found in the pictures of the start; it may be elsewhere")
        self._told, self.compared = 0, now
        return bounds

    def look(self, images: Mapping[str, np.ndarray], captured: Mapping[str, float]) -> bool:
        """Compare with pictures, and let them move the objects. Whether they agree.

        What stands on something is moved by a share of what pictures want, the rest is pulled in the next `check`. A
        camera that leaves its bound is left out, and tried again, as in the twin's loop (`live/health.py`).

        Args:
            captured: camera -> when its picture was taken, s, on the clock of `Measured.time`. What was here before,
                or is more than `trust.stale` from the newest measurement, is not compared.

        Raises ValueError: the shadow has no aligner.
        """
        if self.aligner is None:
            raise ValueError("this shadow has no aligner: build it with a scene")
        new = {name: captured[name] for name in images if captured[name] > self._captured.get(name, -np.inf)}
        self._captured |= new
        if not new:
            return not self.parted
        now = max(new.values())
        health = self._health = self._health or Health(self.settings.trust, images, now)
        here = now if self._measured is None else self._measured.time
        ages = {name: abs(here - moment) for name, moment in new.items()}
        if (least := min(ages.values())) > health.settings.stale:
            self._warn_late(health, least)
            return not self.parted
        self.compared = now
        good, tried = health.wanted(ages)
        if good:
            found = self._compare({name: images[name] for name in good}, max(new[name] for name in good))
            self._correct(health, found, health.strength(max(ages[name] for name in good)))
        if tried:
            found = self._compare({name: images[name] for name in tried}, max(new[name] for name in tried))
            health.judge(found.residual, now)
        return not self.parted

    @property
    def parted(self) -> bool:
        """Whether twin and cameras, when they were compared last, had not agreed for too long: no camera within its
        bound, or an object elsewhere."""
        health = self._health
        return health is not None and (health.lost(self.compared) or health.astray(self.compared))

    # -- inside

    def _compare(self, images: Mapping[str, np.ndarray], moment: float) -> Correction:
        """The aligner's answer for the shadow as it was at a moment, s."""
        import mujoco

        if self.aligner is None or self._drawn_bodies is None:
            raise ValueError("this shadow has no aligner: build it with a scene")
        self._grounds, then = self._supports.look(self.data), self._then
        then.qpos[:] = between(self._past, moment) if self._past else self.data.qpos
        then.mocap_pos[:], then.mocap_quat[:] = self.data.mocap_pos, self.data.mocap_quat
        mujoco.mj_normalizeQuat(self.model, then.qpos)
        mujoco.mj_kinematics(self.model, then)
        poses = body_poses(then, self._drawn_bodies)
        try:
            return self.aligner.correct(self.model, self.data, images, poses=poses, supports=self._grounds)
        except (np.linalg.LinAlgError, FloatingPointError):  # pictures that say nothing
            none, residual = np.zeros(len(poses)), dict.fromkeys(images, np.inf)
            wrench = np.zeros((len(poses), 6))
            return Correction(self._drawn_bodies, wrench, poses, residual, seen=none.astype(int), overlap=none)

    def _rows(self, found: Correction) -> list[tuple[int, int]]:
        """(row, body) of what is compared and may be moved."""
        return [(row, body) for row, body in enumerate(found.ids.tolist()) if body in self._loose]

    def _correct(self, health: Health, found: Correction, strength: float) -> None:
        """Judge what good cameras showed; where they agree, objects follow them."""
        rows, fine = self._rows(found), health.judge(found.residual, self.compared)
        seen = all(found.seen[row] for row, _ in rows)
        health.finds(min((float(found.overlap[row]) for row, _ in rows), default=1.0), seen, self.compared)
        if fine and np.isfinite(found.wrench).all():
            self._move(found, strength * self.settings.share, self.settings.most)
            self._wrench *= strength
        if fine and seen:
            health.corrected(self.compared)

    def _move(self, found: Correction, share: float, most: float) -> None:
        """Objects, and where they were, go by a share of the way to where pictures have them, by `most` m at most."""
        import mujoco

        self._wrench[:] = 0
        past = [old for _, old in self._past]
        for row, body in self._rows(found):
            up = self._grounds.get(body)
            if up is None:
                self._wrench[body] = found.wrench[row]
                continue
            gap = gap_of(self.data, body, found.pose[row])
            shift(self.model, self.data, body, up, gap, share, most, past)
        mujoco.mj_forward(self.model, self.data)

    def _warn_late(self, health: Health, seconds: float) -> None:
        """Once an episode."""
        if not self._late:
            health.warnings.append(f"pictures and joints are {seconds:.2f} s apart, so the shadow leaves them aside")
        self._late = True

    def _sort_bodies(self) -> None:
        """Which bodies are the arm, and which of the others it may push."""
        model = self.model
        driven = np.unique(model.jnt_bodyid[model.actuator_trnid[:, 0]])
        roots = np.unique(model.body_rootid[driven])
        self._arm = np.isin(model.body_rootid, roots) & (model.body_weldid != 0)
        known = [model.body(number).name for number in range(model.nbody)]
        for name in self.settings.may_touch:
            if name not in known:
                raise LookupError(f"may_touch of a shadow: no body '{name}' in its scene, which has {', '.join(known)}")
        named = [known.index(name) for name in self.settings.may_touch]
        self._loose = np.union1d(movable_bodies(model), named).astype(int)

    def _follow(self, position: np.ndarray, measured: Measured) -> list[str]:
        """Let the objects live on for one step, the arm where it was measured."""
        import mujoco

        model, data, arm, before = self.model, self.data, self.joints, self._measured
        warnings, passed = [], 0.0 if before is None else measured.time - before.time
        if before is not None:
            data.xfrc_applied[:] = self._wrench
            lived = float(np.clip(passed, 0, LONGEST)) or self._period
            mujoco.mj_step(model, data, max(1, round(lived / model.opt.timestep)))
            data.xfrc_applied[:] = 0
            off = np.abs(data.qpos[arm.qpos] - position)
            joint, was, self._off = int(np.argmax(off)), self._off, bool((off > self.settings.apart).any())
            if self._off and not was:
                warnings.append(f"the twin expected {arm.names[joint]} {off[joint]:.2f} {arm.units[joint]} elsewhere")
        self._wrench[:] = 0  # of old pictures would pull on and on
        if LONGEST < passed < PAUSE and not self._slow:
            self._slow = True
            warnings.append(f"the shadow is asked only every {passed:.2f} s: what moves in it falls behind")
        speed = (position - np.asarray(before.position)) / passed if before is not None and passed > 1e-4 else 0.0
        data.qpos[arm.qpos], data.qvel[arm.qvel] = position, speed
        mujoco.mj_forward(model, data)
        self._measured = measured
        self._past.append((measured.time, data.qpos.copy()))
        if self._health is not None:
            warnings += self._health.warnings[self._told :]
            self._told = len(self._health.warnings)
            if self._health.lost(self.compared):
                warnings.append(PARTED)
        return warnings

    def _try(self, command: np.ndarray) -> Felt:
        """What acts on the arm while `command` is let act, in a copy."""
        import mujoco

        model, data = self.model, self._scratch
        mujoco.mj_copyData(data, model, self.data)
        data.ctrl[self.joints.ctrl] = command
        felt = Felt(np.zeros(len(command)))
        for _ in range(self._far):
            mujoco.mj_step(model, data)
            if data.ncon:
                felt.add(contact_torque(model, data)[self.joints.qvel], contacts(model, data, self._arm, self._loose))
        return felt
