"""What a lane drives, behind its guard: an arm on its port, an emulated one on a port, or one in simulated time.

All three take set-points, give readings with the moment of their capture, and know the time that they live in. An
emulated arm also begins anew from a seed and says how its task stands; of a real one only a person can say that.
"""

from __future__ import annotations

import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...configs.spec import IMAGES, SCENE, STATE
from ...sim.arms import find_arm
from ..emulator.coupled import CoupledShafts, begin_anew
from ..envelope import Command, Envelope, Outcome, Verdict
from ..guard import Guard
from ..guarded import Account, GuardedRobot
from ..motion.clearance import Clearance
from ..robot import RobotConfig
from ..so101 import ENVELOPE, SO101Config
from .direct import DirectArm
from .stage import Stage, standing

if TYPE_CHECKING:
    import mujoco

    from ..twin.beside import Beside, Companion, Within


@dataclass(frozen=True)
class Look:
    """What is seen at a moment: observations, when each was captured, and how the task stands (None: nobody knows)."""

    obs: Mapping[str, np.ndarray]
    times: Mapping[str, float]  # s
    success: bool | None = None
    progress: float = 0.0


class DrivenArm(Protocol):
    """An arm behind its guard, and its time."""

    @property
    @abstractmethod
    def shadow(self) -> Companion | None:
        """What looks ahead for its guard, and at its pictures."""
        ...

    @property
    @abstractmethod
    def account(self) -> Account:
        """What the guard did."""
        ...

    @abstractmethod
    def connect(self) -> None:
        """Take hold of the arm where it stands. Raises ConnectionError."""
        ...

    @abstractmethod
    def begin(self, seed: int) -> np.ndarray:
        """Take hold anew where the arm stands; an emulated one begins at `seed`. (D,) the set-point."""
        ...

    @abstractmethod
    def look(self) -> Look:
        """Everything that is seen now. Raises ConnectionError."""
        ...

    @abstractmethod
    def send(self, target: np.ndarray) -> Verdict:
        """One set-point, through the guard. Raises ConnectionError."""
        ...

    @abstractmethod
    def couple(self) -> None:
        """Somebody else commands from here on: the guard approaches their first command slowly."""
        ...

    @abstractmethod
    def now(self) -> float:
        """s"""
        ...

    @abstractmethod
    def sleep_until(self, moment: float) -> None:
        """Let time pass, at once where `moment` is over."""
        ...

    @abstractmethod
    def disconnect(self) -> None:
        """Bring the arm to rest and let go. Safe to call twice."""
        ...


class LiveArm:
    """An arm on its port, in wall time. See `DrivenArm`."""

    def __init__(self, config: RobotConfig, shadow: Beside | None = None):
        self.config, self.shadow = config, shadow
        self.robot: GuardedRobot = GuardedRobot(config)

    @property
    def account(self) -> Account:
        return self.robot.account

    def connect(self) -> None:
        self.connect_robot(self.config)

    def connect_robot(self, config: RobotConfig) -> None:
        """Take hold of the arm, the shadow first."""
        if self.shadow is None:
            self.robot = GuardedRobot(config)
            self.robot.connect()
            return
        with self.shadow.open() as pipe:
            self.robot = GuardedRobot(config, pipe, self.shadow.stops)
            try:
                self.robot.connect()
            except BaseException:
                self.shadow.close()
                raise

    def begin(self, seed: int) -> np.ndarray:
        goal = self.robot.engage()
        if self.shadow is not None:
            look = self.look()
            self.shadow.begin(self.start(seed), look.obs, look.obs[STATE], self.now())
            goal = self.robot.engage()  # the guard heard nobody meanwhile
        return goal

    def start(self, seed: int) -> int:
        """Where the shadow seeks the objects."""
        return 0 if self.shadow is None else self.shadow.settings.start

    def look(self) -> Look:
        return Look(*self.robot.observe())

    def send(self, target: np.ndarray) -> Verdict:
        self.robot.send_action(target)
        assert self.robot.verdict is not None
        return self.robot.verdict

    def couple(self) -> None:
        self.robot.couple()

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, moment: float) -> None:
        time.sleep(max(0.0, moment - time.monotonic()))

    def disconnect(self) -> None:
        self.robot.disconnect()
        if self.shadow is not None:
            self.shadow.close()


class EmulatedArm(LiveArm):
    """An emulated SO-101 in a task's scene, on a port, in wall time. See `DrivenArm`."""

    def __init__(
        self,
        task: str,
        cameras: Mapping[str, tuple[int, int]],
        rate: float,
        fps: float,
        shadow: Beside | None = None,
    ):
        self.task, self.sizes, self.rate, self.fps, self.shadow = task, dict(cameras), rate, fps, shadow
        self._held = ExitStack()

    def connect(self) -> None:
        folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="understudy-arm-")))
        self.stage = Stage(self.task, self.sizes, self.fps, folder)
        self._held.callback(self.stage.close)
        try:
            self.stage.open()
            self.connect_robot(self._config())
            self._held.callback(super().disconnect)
        except BaseException:
            self._held.close()
            raise

    def _config(self) -> SO101Config:
        seen = {
            name: {"index": f"{self.stage.streams}{name}", "width": width, "height": height}
            for name, (height, width) in self.sizes.items()
        }
        return SO101Config(port=self.stage.port, calibration=str(self.stage.calibration), rate=self.rate, camera=seen)

    def begin(self, seed: int) -> np.ndarray:
        self.stage.begin(seed)
        return super().begin(seed)

    def start(self, seed: int) -> int:
        return seed

    def look(self) -> Look:
        obs, times = self.robot.observe()
        stands, moment = self.stage.look(), time.monotonic()
        return _told(obs, times, stands, moment)

    def disconnect(self) -> None:
        self._held.close()


@dataclass
class SteppedArm:
    """An emulated SO-101 in a task's scene, whose time passes when it is told to. See `DrivenArm`."""

    task: str
    cameras: Mapping[str, tuple[int, int]]
    rate: float
    account: Account = field(default_factory=Account)
    shadow: Within | None = None
    _renderers: dict = field(default_factory=dict)

    def connect(self) -> None:
        arm = find_arm("so101")
        self.servos = DirectArm(self.task)
        envelope = Envelope(limits=self.servos.scale.limits(), **ENVELOPE)
        self.guard = Guard(arm.joints, envelope, self.rate, Clearance(arm, RobotConfig().surroundings))
        self.account, self._number = Account(), 0

    def begin(self, seed: int) -> np.ndarray:
        begin_anew(self.servos.chain, seed)
        goal = self.guard.engage(self.servos.measure(), self.now()).astype(np.float32)
        if self.shadow is not None:
            self.shadow.begin(seed, self.look().obs, goal, self.now())
        return goal

    def look(self) -> Look:
        position, moment = self.servos.measure().position, self.now()
        obs = {STATE: position.astype(np.float32)}
        for name, (height, width) in self.cameras.items():
            obs[IMAGES + name] = self._draw(name, height, width)
        return _told(obs, dict.fromkeys(obs, moment), standing(self._shafts), moment)

    def send(self, target: np.ndarray) -> Verdict:
        self.sleep_until(self.guard.due)
        self._number += 1
        command = Command(target=np.asarray(target, float), time=self.now(), number=self._number)
        measured = self.servos.measure()
        foresight = None if self.shadow is None else self.shadow.newest(self.now())
        verdict = self.guard.step(measured, command, self.now(), foresight)
        self.servos.write(verdict.sent)
        if self.shadow is not None:
            self.shadow.ask(self.guard.ahead, measured)
        self.account.add(verdict)
        return replace(verdict, sent=verdict.sent.astype(np.float32))

    def couple(self) -> None:
        self.guard.couple()

    def now(self) -> float:
        return self.servos.chain.time

    def sleep_until(self, moment: float) -> None:
        self.servos.advance(max(0.0, moment - self.now()))

    def disconnect(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def sent_there(self, pose: np.ndarray) -> tuple[Any, mujoco.MjModel, mujoco.MjData]:
        """(task, model, data) as if the arm, but for its last joint, the gripper, stood at `pose` (D,), rad.

        Servos hang behind what they are sent: who takes the next step from where they are never arrives.
        """
        import mujoco

        shafts = self._shafts
        data = copy(shafts.data)
        data.qpos[shafts.wiring.qpos[:-1]] = pose[:-1]
        mujoco.mj_forward(shafts.model, data)
        return shafts.task, shafts.model, data

    @property
    def _shafts(self) -> CoupledShafts:
        shafts = self.servos.chain.shafts
        assert isinstance(shafts, CoupledShafts)
        return shafts

    def _draw(self, camera: str, height: int, width: int) -> np.ndarray:
        from ...sim.rendering import renderer_class

        if (height, width) not in self._renderers:
            self._renderers[height, width] = renderer_class()(self._shafts.model, height, width)
        renderer = self._renderers[height, width]
        renderer.update_scene(self._shafts.data, camera)
        return renderer.render().copy()


def _told(obs: Mapping[str, np.ndarray], times: Mapping[str, float], stands: Mapping, moment: float) -> Look:
    """A reading and how the task stands."""
    scene = np.asarray(stands["scene"], np.float32)
    if not len(scene):
        return Look(obs, times, stands["success"], stands["progress"])
    return Look({**obs, SCENE: scene}, {**times, SCENE: moment}, stands["success"], stands["progress"])


NUMBERS = {Outcome.passed: 0.0, Outcome.bent: 1.0, Outcome.stopped: 2.0}
