"""A twin that runs beside an arm and looks ahead: what would this command touch, and how hard?

Before a command leaves, the shadow puts its arm where the real one was measured, its objects where it last had them,
and lets the command act for `ahead` s. It tells the torque that contacts would put on each joint (for the guard, whose
own model knows no contact), and vetoes what would press on something harder than allowed. A command that does not press
harder than standing still does is not vetoed, so that an arm can always be led away. With an aligner it also compares
itself with cameras, and warns when the two part. It commands nothing: who asks it decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...configs.world import World
from ...sim.decor import movable_bodies
from ..envelope import Measured
from .align import Aligner
from .live.health import Health, Trust
from .live.pull import Supports
from .reality.layout import Joints, task_of

if TYPE_CHECKING:
    import mujoco

HARDER = 1.05  # in the force of standing still


@dataclass(frozen=True, kw_only=True)
class ShadowSettings:
    """What a shadow allows."""

    ahead: float = 0.15  # s that a command is let act for
    force: float = 6.0  # N, of the arm on what stands fast: table, walls, itself
    push: float = 25.0  # N, of the arm on what it may move
    torque: float | tuple[float, ...] | None = None  # N m, of contacts at each joint; empty: not limited
    apart: float = 0.3  # rad or m that measured joints may be off the shadow's, before it warns
    may_touch: tuple[str, ...] = ()  # bodies that the arm may press on as on what it may move
    trust: Trust = field(default_factory=Trust)  # when cameras are believed

    def __post_init__(self) -> None:
        for name in ("ahead", "force", "push", "apart"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of a shadow must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class Foresight:
    """What a command would do.

    Attributes:
        allowed: whether nothing speaks against it.
        torque: (D,) N m, the most that contacts would put on each joint, signed.
        force: N, the hardest contact of the arm.
        reasons: why not, in words.
        warnings: what was to be told beside: twin and camera part, ...
    """

    allowed: bool
    torque: np.ndarray
    force: float
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Felt:
    """What acted on the arm: torque (D,) N m, and the hardest contact with what stands fast and with what moves, N."""

    torque: np.ndarray
    fast: float
    fast_pair: str
    loose: float
    loose_pair: str


class Shadow:
    """See the module. Not for two threads.

    Args:
        world: a task in plain MuJoCo, whose scene is the one before the arm.
        rate: checks a second.
        aligner: compares the shadow with cameras; None: it does not look.
        start: start id at which its objects begin, where nobody says where they are.
    """

    def __init__(
        self,
        world: World,
        rate: float,
        settings: ShadowSettings | None = None,
        aligner: Aligner | None = None,
        start: int = 0,
    ):
        import mujoco

        self.settings, self.aligner = settings or ShadowSettings(), aligner
        self.task = task_of(world)
        self.model = self.task.scene().compile()
        self.data, self._scratch = mujoco.MjData(self.model), mujoco.MjData(self.model)
        self.joints = Joints.of(self.model)
        self._steps = max(1, round(1 / (rate * self.model.opt.timestep)))
        self._far = max(1, round(self.settings.ahead / self.model.opt.timestep))
        self._measured: Measured | None = None
        self._health: Health | None = None
        self._sort_bodies()
        self._supports = Supports(self.model, self._loose)
        self.begin(start)

    def begin(self, start: int = 0) -> None:
        """Objects at start `start` of the task."""
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        self.task.reset(self.model, self.data, np.random.default_rng(start))
        mujoco.mj_forward(self.model, self.data)
        self._measured, self._health, self._told = None, None, 0
        self._wrench = np.zeros((self.model.nbody, 6))

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
        reasons = self._against(felt)
        if reasons:  # no harder than standing still is allowed
            still = self._try(position)
            if felt.fast <= HARDER * still.fast and felt.loose <= HARDER * still.loose and self._against(still):
                reasons = []
        self.data.ctrl[self.joints.ctrl] = position if reasons else command
        force = max(felt.fast, felt.loose)
        return Foresight(not reasons, felt.torque, force, tuple(reasons), tuple(warnings))

    def look(self, images: Mapping[str, np.ndarray], now: float) -> bool:
        """Compare with pictures, and let them pull the objects in the next `check`. Whether they agree.

        Raises ValueError: the shadow has no aligner.
        """
        if self.aligner is None:
            raise ValueError("this shadow has no aligner: build it with a scene")
        if self._health is None:
            self._health = Health(self.settings.trust, images, now)
        found = self.aligner.correct(self.model, self.data, images, supports=self._supports.look(self.data))
        fine = self._health.judge(found.residual, now)
        self._wrench[:] = 0
        if fine:
            movable = np.isin(found.ids, self._loose)
            self._wrench[found.ids[movable]] = found.wrench[movable]
            self._health.corrected(now)
        return fine and not self._health.lost(now)

    # -- inside

    def _sort_bodies(self) -> None:
        """Which bodies are the arm, and which of the others it may push."""
        model = self.model
        driven = np.unique(model.jnt_bodyid[model.actuator_trnid[:, 0]])
        roots = np.unique(model.body_rootid[driven])
        self._arm = np.isin(model.body_rootid, roots) & (model.body_weldid != 0)
        named = [model.body(name).id for name in self.settings.may_touch]
        self._loose = np.union1d(movable_bodies(model), named).astype(int)

    def _follow(self, position: np.ndarray, measured: Measured) -> list[str]:
        """Let the objects live on for one step, the arm where it was measured."""
        import mujoco

        model, data, arm = self.model, self.data, self.joints
        warnings = []
        if self._measured is not None:
            data.xfrc_applied[:] = self._wrench
            mujoco.mj_step(model, data, self._steps)
            data.xfrc_applied[:] = 0
            self._wrench[:] = 0  # of old pictures would pull on and on
            off = np.abs(data.qpos[arm.qpos] - position)
            if (off > self.settings.apart).any():
                joint = int(np.argmax(off))
                warnings.append(f"the twin expected {arm.names[joint]} {off[joint]:.2f} elsewhere")
        before = self._measured
        passed = measured.time - before.time if before is not None else 0.0
        speed = (position - np.asarray(before.position)) / passed if before is not None and passed > 1e-4 else 0.0
        data.qpos[arm.qpos], data.qvel[arm.qvel] = position, speed
        mujoco.mj_forward(model, data)
        self._measured = measured
        if self._health is not None:
            warnings += self._health.warnings[self._told :]
            self._told = len(self._health.warnings)
            if self._health.lost(measured.time):
                warnings.append("twin and camera have parted: no camera agrees with the twin")
        return warnings

    def _try(self, command: np.ndarray) -> _Felt:
        """What acts on the arm while `command` is let act, in a copy."""
        import mujoco

        model, data = self.model, self._scratch
        mujoco.mj_copyData(data, model, self.data)
        data.ctrl[self.joints.ctrl] = command
        fast, loose = (0.0, ""), (0.0, "")
        torque: np.ndarray = np.zeros(len(command))
        for _ in range(self._far):
            mujoco.mj_step(model, data)
            if not data.ncon:
                continue
            now = self._contact_torque(data)
            torque = np.where(np.abs(now) > np.abs(torque), now, torque)
            for force, pair, moves in self._contacts(data):
                if moves and force > loose[0]:
                    loose = force, pair
                elif not moves and force > fast[0]:
                    fast = force, pair
        return _Felt(torque, *fast, *loose)

    def _contact_torque(self, data: mujoco.MjData) -> np.ndarray:
        """(D,) N m that contacts put on the joints now."""
        import mujoco

        kinds = data.efc_type
        contact = kinds >= int(mujoco.mjtConstraint.mjCNSTR_CONTACT_FRICTIONLESS)
        found = np.zeros(self.model.nv)
        mujoco.mj_mulJacTVec(self.model, data, found, np.where(contact, data.efc_force, 0.0))
        return found[self.joints.qvel]

    def _contacts(self, data: mujoco.MjData):
        """Of each contact of the arm: normal force in N, the names of the two, and whether the other may be moved."""
        import mujoco

        wrench = np.zeros(6)
        for number in range(data.ncon):
            bodies = self.model.geom_bodyid[data.contact.geom[number]]
            ours = self._arm[bodies]
            if not ours.any():
                continue
            mujoco.mj_contactForce(self.model, data, number, wrench)
            other = int(bodies[int(np.argmin(ours))])
            names = " and ".join(self._name(int(geom)) for geom in data.contact.geom[number])
            yield float(wrench[0]), names, other in self._loose

    def _name(self, geom: int) -> str:
        return self.model.geom(geom).name or self.model.body(int(self.model.geom_bodyid[geom])).name or "world"

    def _against(self, felt: _Felt) -> list[str]:
        settings, reasons = self.settings, []
        if felt.fast > settings.force:
            reasons.append(f"{felt.fast_pair} would press with {felt.fast:.1f} N")
        if felt.loose > settings.push:
            reasons.append(f"{felt.loose_pair} would push with {felt.loose:.1f} N")
        if settings.torque is not None:
            most = np.broadcast_to(np.asarray(settings.torque, float), felt.torque.shape)
            over = np.abs(felt.torque) - most
            if (over > 0).any():
                joint = int(np.argmax(over))
                reasons.append(f"contact would put {felt.torque[joint]:.2f} N m on {self.joints.names[joint]}")
        return reasons
