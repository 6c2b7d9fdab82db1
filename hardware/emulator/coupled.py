"""The servos turn an arm of MuJoCo's: gravity, contact and the objects of a task act on them.

The scene is a task of `sim/` (`so101-pick-place`, ...) or the arm alone on its table. Its own position servos are taken
out; joints keep their stops, and friction and inertia are those of the emulated motor. Torques are applied at 500 Hz.
The processor time of a second is about 0.1 s of one core for the arm alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...configs.plugins import discover, lookup
from ...sim.arms import ARMS, Wiring, find_arm
from ...sim.task import TASKS
from .arm import Kind
from .chain import Chain
from .shafts import Shaft

DT = 0.002  # s


class CoupledShafts:
    """Shafts whose other end is an arm in a MuJoCo scene; `model` and `data` may be looked at while the bus is held.

    Args:
        zeros: shaft angle of each joint at 0 rad, in rad.
        task: a registered task; None for the arm alone, without anything to collide with.
        seed: of the task's start.

    Raises LookupError: no such task, or it is none of this arm.
    """

    def __init__(self, kind: Kind, zeros: Sequence[float], task: str | None = None, seed: int = 0):
        import mujoco

        self.kind, self.zeros, self.dt = kind, np.asarray(zeros, float), DT
        arm = find_arm(kind.name)
        self.task = None if task is None else find_task(task, kind)
        spec = arm.spec() if self.task is None else self.task.scene()
        spec.option.timestep = DT
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.wiring = Wiring.of(arm, self.model)

        # the emulated servos instead of the scene's
        self.model.actuator_gainprm[self.wiring.ctrl] = 0
        self.model.actuator_biasprm[self.wiring.ctrl] = 0
        motors = [servo.motor for servo in kind.servos]
        self.model.dof_armature[self.wiring.qvel] = [motor.armature for motor in motors]
        self.model.dof_frictionloss[self.wiring.qvel] = [motor.coulomb for motor in motors]
        self._viscous = np.array([motor.viscous for motor in motors])

        self.shafts: Sequence[Shaft] = [
            Shaft(0.0, low=zero + low, high=zero + high)
            for zero, (low, high) in zip(self.zeros, kind.limits, strict=True)
        ]
        self.begin(seed)

    def begin(self, seed: int) -> None:
        """The start of the task that `seed` draws; the home pose where there is no task."""
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        if self.task is None:
            self.data.qpos[self.wiring.qpos] = self.kind.home
        else:
            self.task.reset(self.model, self.data, np.random.default_rng(seed))
        mujoco.mj_forward(self.model, self.data)
        self._read()

    def step(self, torques: Sequence[float], braking: Sequence[float]) -> None:
        """See `shafts.Shafts.step`."""
        import mujoco

        pulls = [shaft.pull() for shaft in self.shafts]
        self.model.dof_damping[self.wiring.qvel] = self._viscous + braking
        self.data.qfrc_applied[self.wiring.qvel] = np.add(torques, pulls)
        mujoco.mj_step(self.model, self.data)
        self._read()

    @property
    def joints(self) -> np.ndarray:
        """(D,) joint angles, rad."""
        return self.data.qpos[self.wiring.qpos].copy()

    def success(self) -> bool | None:
        """Whether the task is done now; None without a task."""
        return None if self.task is None else bool(self.task.success(self.model, self.data))

    def _read(self) -> None:
        angles = (self.zeros + self.data.qpos[self.wiring.qpos]).tolist()
        speeds = self.data.qvel[self.wiring.qvel].tolist()
        for shaft, angle, speed in zip(self.shafts, angles, speeds, strict=True):
            shaft.angle, shaft.velocity = angle, speed


def begin_anew(chain: Chain, seed: int) -> None:
    """Put the scene of a chain that turns one at the start that `seed` draws; who held, holds there."""
    shafts = chain.shafts
    assert isinstance(shafts, CoupledShafts)
    torque = [servo.table["Torque_Enable"].address for servo in chain.servos]
    held = [servo.memory["Torque_Enable"] for servo in chain.servos]
    for servo, address in zip(chain.servos, torque, strict=True):
        servo.accept(address, b"\0")
    shafts.begin(seed)
    chain.follow()
    for servo, address, on in zip(chain.servos, torque, held, strict=True):
        servo.accept(address, bytes([on]))


def check_load(name: str, kind: Kind) -> None:
    """Raises LookupError: there is no MuJoCo model of this arm, or `name` is neither `arm` nor a task of it."""
    discover("sim")
    if kind.name not in ARMS:
        raise LookupError(f"load: there is no model of {kind.name} to turn, only of {', '.join(ARMS)}: leave load out")
    if name != "arm":
        find_task(name, kind)


def find_task(name: str, kind: Kind):
    """The task of that name. Raises LookupError: none, or of another arm."""
    discover("sim")
    fitting = {known: make for known, make in TASKS.items() if known.startswith(f"{kind.name}-")}
    return lookup(f"task of {kind.name}", name, fitting)()
