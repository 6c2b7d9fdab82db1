"""A twin that runs beside an arm and looks ahead: what would this command touch, and how hard?

Before a command leaves, the shadow puts its arm where the real one was measured, its objects where it last had them,
and lets the command act for `ahead` s. It tells the torque that contacts would put on each joint (for the guard, whose
own model knows no contact), and vetoes what would press on something harder than allowed. A command that does not press
harder than standing still does is not vetoed, so that an arm can always be led away. With an aligner it also compares
itself with cameras, and warns when the two part. It commands nothing: who asks it decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...configs.world import World
from ...sim.decor import movable_bodies
from ..envelope import Foresight, Measured
from .align import Aligner, Correction
from .build import start as start_of
from .live.health import Health, Trust
from .live.pull import Supports, shift
from .live.resting import gap_of
from .reality.layout import Joints, task_of

if TYPE_CHECKING:
    import mujoco

    from .scene import TwinScene

HARDER = 1.05  # in the force of standing still
SETTLING = 20  # comparisons of a quiet start's pictures
FAR = 0.05  # m that an object goes in each of them at most
LONGEST = 0.1  # s that the shadow's physics goes on between two checks at most
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
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of a shadow must be positive, got {getattr(self, name)}")
        if self.torque is not None and not np.all(np.asarray(self.torque, float) > 0):
            raise ValueError(f"torque of a shadow must be positive, got {self.torque}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share of a shadow is 0..1, got {self.share}")


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
        self._period = 1 / rate
        self._far = max(1, round(self.settings.ahead / self.model.opt.timestep))
        self._measured: Measured | None = None
        self._health: Health | None = None
        self._sort_bodies()
        self._supports = Supports(self.model, self._loose)
        self.begin(start)

    def begin(self, start: int = 0) -> None:
        """Objects at start `start` of the task."""
        import mujoco

        mujoco.mj_copyData(self.data, self.model, self._start(self.model, start))
        mujoco.mj_forward(self.model, self.data)
        self._measured, self._health, self._told = None, None, 0
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
        reasons = self._against(felt)
        if reasons:  # no harder than standing still is allowed
            still = self._try(position)
            if felt.fast <= HARDER * still.fast and felt.loose <= HARDER * still.loose and self._against(still):
                reasons = []
        self.data.ctrl[self.joints.ctrl] = position if reasons else command
        force = max(felt.fast, felt.loose)
        return Foresight(not reasons, felt.torque, force, tuple(reasons), tuple(warnings), measured.time)

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
        residual: dict[str, float] = {}
        for _ in range(SETTLING):
            found = self._compare(images)
            residual = dict(found.residual)
            self._move(found, 1.0, FAR)
        trust = self.settings.trust
        bounds = {name: trust.margin * value for name, value in residual.items()} | trust.bounds
        self._health = Health(replace(trust, bounds=bounds), images, now)
        self._told = 0
        return bounds

    def look(self, images: Mapping[str, np.ndarray], now: float) -> bool:
        """Compare with pictures, and let them move the objects. Whether they agree.

        What stands on something is moved by a share of what pictures want, the rest is pulled in the next `check`.

        Raises ValueError: the shadow has no aligner.
        """
        found = self._compare(images)
        if self._health is None:
            self._health = Health(self.settings.trust, images, now)
        fine = self._health.judge(found.residual, now)
        rows = [row for row, body in enumerate(found.ids) if body in self._loose]
        seen = bool(rows) and all(found.seen[row] for row in rows)
        self._health.finds(min((float(found.overlap[row]) for row in rows), default=1.0), seen, now)
        if fine and np.isfinite(found.wrench).all():
            self._move(found, self.settings.share, self.settings.most)
        if fine and seen:
            self._health.corrected(now)
        return fine and not self.parted(now)

    def parted(self, now: float) -> bool:
        """Whether twin and cameras have not agreed for too long: no camera within its bound, or an object elsewhere."""
        return self._health is not None and (self._health.lost(now) or self._health.astray(now))

    # -- inside

    def _compare(self, images: Mapping[str, np.ndarray]) -> Correction:
        if self.aligner is None:
            raise ValueError("this shadow has no aligner: build it with a scene")
        self._grounds = self._supports.look(self.data)
        return self.aligner.correct(self.model, self.data, images, supports=self._grounds)

    def _move(self, found: Correction, share: float, most: float) -> None:
        """Objects go by a share of the way to where pictures have them, by `most` m at most."""
        import mujoco

        self._wrench[:] = 0
        for row, body in enumerate(found.ids.tolist()):
            if body not in self._loose:
                continue
            up = self._grounds.get(body)
            if up is None:
                self._wrench[body] = found.wrench[row]
                continue
            gap = gap_of(self.data, body, found.pose[row])
            shift(self.model, self.data, body, up, gap, share, most)
        mujoco.mj_forward(self.model, self.data)

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
            passed = float(np.clip(measured.time - self._measured.time, 0, LONGEST)) or self._period
            mujoco.mj_step(model, data, max(1, round(passed / model.opt.timestep)))
            data.xfrc_applied[:] = 0
            self._wrench[:] = 0  # of old pictures would pull on and on
            off = np.abs(data.qpos[arm.qpos] - position)
            if (off > self.settings.apart).any():
                joint = int(np.argmax(off))
                warnings.append(f"the twin expected {arm.names[joint]} {off[joint]:.2f} {arm.units[joint]} elsewhere")
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
                warnings.append(PARTED)
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
            reasons.append(f"{felt.fast_pair} would press with {felt.fast:.1f} of {settings.force:g} N")
        if felt.loose > settings.push:
            reasons.append(f"{felt.loose_pair} would push with {felt.loose:.1f} of {settings.push:g} N")
        if settings.torque is not None:
            most = np.broadcast_to(np.asarray(settings.torque, float), felt.torque.shape)
            over = np.abs(felt.torque) - most
            if (over > 0).any():
                joint = int(np.argmax(over))
                put = f"{felt.torque[joint]:.2f} of {most[joint]:g} N m"
                reasons.append(f"contact would put {put} on {self.joints.names[joint]}")
        return reasons
