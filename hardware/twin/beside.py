"""A shadow that runs beside a guard, in a process of its own, or in simulated time in this one.

    guard's process  --  where the command leads, measured joints  -->  shadow  --  torque, force, veto  -->  guard
    caller           --  start of an episode, pictures             -->  shadow  --  bounds, warnings     -->  caller

Neither waits for it: the guard has one question under way (`foresee.py`), a thread of the caller's hands over the
newest pictures. The shadow answers the guard first, looks at pictures in between, and yields the processor to both.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...configs.settings.decode import decode
from ...configs.spec import IMAGES, Embodiment, EmbodimentError
from .. import talk
from ..envelope import Foresight, Measured
from ..foresee import FRESH, pack
from ..talk import Line
from .gaussians import Camera, read_cameras, read_json
from .scene import CARD, TwinScene
from .shadow import Shadow, ShadowSettings

OPENING = 60.0  # s that the process may take to begin: MuJoCo, and loops that are compiled at their first use
ANSWER = 10.0  # s that a quiet start may take
YIELDS = 5  # niceness above the caller's
ENDS = ("go on", "stop")


@dataclass(frozen=True, kw_only=True)
class BesideSettings(ShadowSettings):
    """A shadow beside an arm. Raises ValueError: numbers or words that are none."""

    scene: str  # folder that `understudy twin build` wrote
    start: int = 0  # start id at which the objects of a real arm's scene are sought; an emulated arm's is the episode's
    looks: float = 10.0  # pictures of each camera a second that are compared, at most
    lost: str = "go on"  # what the guard does when the shadow is silent or gone: go on, or stop

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lost not in ENDS:
            raise ValueError(f"lost of a shadow is '{ENDS[0]}' or '{ENDS[1]}', not '{self.lost}'")
        if not self.looks > 0 or self.start < 0:
            raise ValueError("looks of a shadow must be above 0, start at least 0")

    @property
    def folder(self) -> Path:
        return Path(os.path.expandvars(self.scene))

    def cameras(self) -> dict[str, Camera]:
        """Those of the scene. Raises FileNotFoundError, ValueError: no scene."""
        return {camera.name: camera for camera in read_cameras(self.folder)}


def beside_settings(shadow: Mapping[str, Any] | str) -> BesideSettings:
    """The settings of a folder, of a YAML file that names one (`scene`), or of its keys. Nothing heavy is imported.

    Raises:
        FileNotFoundError, ValueError: no such file or scene, or settings that it does not have.
    """
    import yaml

    raw: Any = {"scene": shadow}
    if not isinstance(shadow, str):
        raw = shadow
    elif shadow.endswith((".yaml", ".yml")):
        raw = yaml.safe_load(Path(os.path.expandvars(shadow)).read_text(encoding="utf-8"))
    if not isinstance(raw, Mapping) or "scene" not in raw:
        raise ValueError("a shadow needs its scene: the folder that understudy twin build wrote")
    settings = decode(BesideSettings, dict(raw))
    read_json(settings.folder / CARD)
    settings.cameras()
    return settings


def check_beside(settings: BesideSettings, arm: Embodiment, task: str = "") -> list[str]:
    """Refuse a shadow of another arm or scene; what the person at the arm should know.

    Args:
        task: of an emulated arm, in whose scene it is.

    Raises:
        EmbodimentError: its joints are not the arm's, or not in the same units. ValueError: another scene, or cameras.
    """
    scene = TwinScene.load(settings.folder)
    if task and scene.source != task:
        raise ValueError(f"--shadow {settings.scene} was built of {scene.source}; the arm is in the scene of {task}")
    joints = Shadow(scene, 1.0, settings).joints
    if joints.names != arm.action:
        ours, theirs = ", ".join(joints.names), ", ".join(arm.action)
        raise EmbodimentError(f"the arm of --shadow {settings.scene} has the joints {ours}; the arm has {theirs}")
    if tuple(joints.units) != tuple(arm.action_units):
        raise EmbodimentError(f"the shadow's joints are in {joints.units}, the arm's in {arm.action_units}")
    return _shared(scene, arm)


def _shared(scene: TwinScene, arm: Embodiment) -> list[str]:
    """Which cameras compare. Raises ValueError: pictures of another shape."""
    shared = []
    for camera in scene.cameras:
        if camera.name not in arm.cameras:
            continue
        height, width = arm.cameras[camera.name]
        if abs(width * camera.height - height * camera.width) > 0.02 * width * camera.height:
            raise ValueError(
                f"camera {camera.name} gives {width} x {height}, the shadow's has {camera.width} x {camera.height}: "
                "build the scene with --size of the same shape"
            )
        shared.append(camera.name)
    if not shared:
        names = ", ".join(camera.name for camera in scene.cameras)
        return [f"the arm has none of the shadow's cameras ({names}): its objects are where its physics has them"]
    return [f"the shadow compares itself with {', '.join(shared)}"]


@dataclass(frozen=True)
class Seen:
    """What the shadow made of pictures since it was asked last."""

    parted: bool = False  # twin and camera do not agree
    warnings: tuple[str, ...] = ()


class Companion(Protocol):
    """A shadow as the caller has it. Nothing but `begin` waits."""

    def begin(self, start: int, images: Mapping[str, np.ndarray], position: np.ndarray, now: float) -> None:
        """An episode begins; the arm stands at `position` (D,) and pictures show it."""
        ...

    def show(self, images: Mapping[str, np.ndarray], now: float) -> None:
        """The newest pictures, by observation key."""
        ...

    def told(self) -> Seen:
        """What came of them."""
        ...

    def close(self) -> None:
        """Safe to call twice."""
        ...


class Watcher:
    """The shadow with its cameras: what its process runs, and simulated time in this one."""

    def __init__(self, settings: BesideSettings, rate: float):
        from .align import Aligner, AlignSettings

        scene = TwinScene.load(settings.folder)
        self.settings, self.cameras = settings, {camera.name: camera for camera in scene.cameras}
        self.shadow = Shadow(scene, rate, settings, Aligner.of(scene, AlignSettings(rate=settings.looks)))
        self._looked = -np.inf
        self._warnings: list[str] = []

    def begin(self, start: int, images: Mapping[str, np.ndarray], position: np.ndarray, now: float) -> dict[str, float]:
        """Objects at a start, then where the pictures have them; the bounds of the cameras."""
        self.shadow.begin(start)
        self._looked, self._warnings = now, []
        pictures = self._fitted(images)
        return self.shadow.settle(pictures, position, now) if pictures else {}

    def warm(self) -> None:
        """What takes long at its first use: loops are compiled."""
        blank = {name: np.zeros((one.height, one.width, 3), np.uint8) for name, one in self.cameras.items()}
        self.shadow.settle(blank, self.shadow.data.qpos[self.shadow.joints.qpos].copy(), 0.0)
        self.shadow.begin()

    def check(self, ahead: np.ndarray, measured: Measured) -> Foresight:
        """See `Shadow.check`."""
        found = self.shadow.check(ahead, measured)
        self._warnings += found.warnings
        return found

    def look(self, images: Mapping[str, np.ndarray], now: float) -> Seen:
        """Compare with pictures, where it is time to."""
        pictures = self._fitted(images)
        if pictures and now - self._looked >= 0.999 / self.settings.looks:
            self._looked = now
            self.shadow.look(pictures, now)
        warnings, self._warnings = tuple(dict.fromkeys(self._warnings)), []
        return Seen(self.shadow.parted(now), warnings)

    def _fitted(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return fitted(images, self.cameras)


def fitted(images: Mapping[str, np.ndarray], cameras: Mapping[str, Camera]) -> dict[str, np.ndarray]:
    """Camera -> picture in the size that the scene's camera has, of those that both have."""
    import cv2

    found = {}
    for name, camera in cameras.items():
        picture = images.get(IMAGES + name, images.get(name))
        if picture is None:
            continue
        if picture.shape[:2] != (camera.height, camera.width):
            picture = cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        found[name] = picture
    return found


class Within:
    """A shadow in this process, for an arm in simulated time: as `Outlook` to the guard, as `Beside` to the caller."""

    def __init__(self, settings: BesideSettings, rate: float):
        self.stops = settings.lost == "stop"
        self._watcher = Watcher(settings, rate)
        self._answer: Foresight | None = None
        self._seen = Seen()

    def ask(self, ahead: np.ndarray, measured: Measured) -> None:
        self._answer = self._watcher.check(ahead, measured)

    def newest(self, now: float) -> Foresight | None:
        return self._answer if self._answer is not None and now - self._answer.time <= FRESH else None

    def lost(self, now: float) -> str:
        return ""

    def begin(self, start: int, images: Mapping[str, np.ndarray], position: np.ndarray, now: float) -> None:
        self._answer, self._seen = None, Seen()
        self._watcher.begin(start, images, position, now)

    def show(self, images: Mapping[str, np.ndarray], now: float) -> None:
        self._seen = self._watcher.look(images, now)

    def told(self) -> Seen:
        return self._seen

    def close(self) -> None:
        pass


def watch(guard: Connection, caller: Connection, settings: BesideSettings, rate: float) -> None:
    """The process: answer guard and caller until the caller closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides
    os.nice(YIELDS)
    with suppress(EOFError, OSError):
        try:
            watcher = Watcher(settings, rate)
            watcher.warm()
        except Exception as error:  # told where the arm is not yet touched
            caller.send(f"{type(error).__name__}: {error}")
            return
        caller.send("")
        ends: list[Connection] = [guard, caller]
        while True:
            ready = wait(ends)
            if guard in ready:
                try:
                    _answer(Line(guard), watcher)
                except (EOFError, OSError):
                    ends.remove(guard)  # the caller ends it
                continue
            number, do, *words = caller.recv()
            caller.send((number, watcher.begin(*words) if do == "begin" else watcher.look(*words)))


def _answer(line: Line, watcher: Watcher) -> None:
    asked = talk.told(line.hear()) or {}
    measured = Measured(position=np.array(asked["position"]), time=asked["time"])
    line.tell(**pack(watcher.check(np.array(asked["ahead"]), measured)))


class Beside:
    """The caller's end of a shadow in a process of its own. `open` gives the guard's end."""

    def __init__(self, settings: BesideSettings, rate: float):
        self.settings, self.rate = settings, rate
        self.stops, self.cameras = settings.lost == "stop", settings.cameras()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._thread: threading.Thread | None = None
        self._speaks = threading.Lock()  # who holds it has a question under way
        self._new = threading.Event()
        self._lock = threading.Lock()
        self._newest: tuple[dict[str, np.ndarray], float] | None = None
        self._parted, self._warnings, self._closing = False, list[str](), False
        self._number = 0  # of the newest question

    @property
    def process(self) -> int | None:
        """Its process id."""
        return None if self._process is None else self._process.pid

    def open(self) -> Connection:
        """Start the process. Raises ConnectionError: it does not come up, with the reason."""
        context = multiprocessing.get_context("spawn")
        guards, his = context.Pipe()
        self._pipe, ours = context.Pipe()
        self._process = context.Process(
            target=watch, args=(his, ours, self.settings, self.rate), name="shadow", daemon=True
        )
        self._process.start()
        his.close()
        ours.close()
        try:
            wrong = self._pipe.recv() if self._pipe.poll(OPENING) else f"it says nothing for {OPENING:g} s"
        except (EOFError, OSError):
            wrong = "its process ended"
        if wrong:
            self.close()
            raise ConnectionError(f"the shadow of {self.settings.scene} does not begin: {wrong}")
        self._thread = threading.Thread(target=self._hand_over, name="shadow", daemon=True)
        self._thread.start()
        return guards

    def begin(self, start: int, images: Mapping[str, np.ndarray], position: np.ndarray, now: float) -> None:
        """See `Companion`. One that does not answer in time is left alone: the guard finds it silent."""
        with self._lock:
            self._newest, self._parted, self._warnings = None, False, []
        pictures = fitted(images, self.cameras)
        if not self._speaks.acquire(timeout=ANSWER):
            self._warn("the shadow is silent")
            return
        try:
            number = self._say("begin", start, pictures, np.asarray(position, float), now)
            if self._heard(number, ANSWER) is None:
                self._warn("the shadow is silent")
        except (EOFError, OSError):
            self._warn("the shadow's process is gone")
        finally:
            self._speaks.release()

    def show(self, images: Mapping[str, np.ndarray], now: float) -> None:
        """See `Companion`."""
        with self._lock:
            self._newest = fitted(images, self.cameras), now
        self._new.set()

    def told(self) -> Seen:
        """See `Companion`."""
        with self._lock:
            seen, self._warnings = Seen(self._parted, tuple(dict.fromkeys(self._warnings))), []
        return seen

    def close(self) -> None:
        """See `Companion`."""
        self._closing = True
        self._new.set()
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            self._pipe.close()
        process.join(1.0)
        if process.is_alive():
            process.kill()
            process.join()

    def _hand_over(self) -> None:
        """The thread: the newest pictures, one exchange after the other."""
        while self._new.wait() and not self._closing:
            self._new.clear()
            with self._lock:
                newest, self._newest = self._newest, None
            if newest is None:
                continue
            with self._speaks:
                try:
                    seen = self._heard(self._say("look", *newest), None)
                except (EOFError, OSError):
                    if not self._closing:
                        self._warn("the shadow's process is gone")
                    return
            with self._lock:
                self._parted = seen.parted
                self._warnings += seen.warnings

    def _say(self, do: str, *words: Any) -> int:
        """Ask something; its number."""
        self._number += 1
        self._pipe.send((self._number, do, *words))
        return self._number

    def _heard(self, number: int, patience: float | None) -> Any:
        """The answer to a question, older ones left aside; None where it does not come in time."""
        while self._pipe.poll(patience):
            answered, value = self._pipe.recv()
            if answered == number:
                return value
        return None

    def _warn(self, warning: str) -> None:
        with self._lock:
            self._warnings.append(warning)
