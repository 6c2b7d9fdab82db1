"""A shadow that runs beside a guard, in a process of its own, or in simulated time in this one.

    guard's process  --  where the command leads, measured joints  -->  shadow  --  torque, force, veto  -->  guard
    caller           --  start of an episode, pictures             -->  shadow  --  bounds, warnings     -->  caller

Neither waits for it: the guard has one question under way (`foresee.py`), a thread of the caller's hands over the start
of an episode and the newest pictures. The shadow answers the guard first, looks at pictures in between, and yields the
processor to both. Until it has begun the episode that the caller is in, what it answers counts as nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np

from ...configs.spec import IMAGES
from .. import talk
from ..envelope import Foresight, Measured
from ..foresee import LOST, counts, pack
from ..talk import Line
from .beside_settings import BesideSettings
from .gaussians import Camera
from .scene import TwinScene
from .shadow import Shadow

OPENING = 300.0  # s that the process may take to begin on a busy machine: MuJoCo, loops compiled at their first use
ANSWER = 10.0  # s that a quiet start may take
YIELDS = 5  # niceness above the caller's
SILENT, GONE = "the shadow is silent", "the shadow's process is gone"


@dataclass(frozen=True)
class Seen:
    """What the shadow made of pictures.

    Attributes:
        parted: twin and camera did not agree when they were compared last.
        compared: whether they were lately.
        warnings: since it was asked last.
    """

    parted: bool = False
    compared: bool = False
    warnings: tuple[str, ...] = ()


class Companion(Protocol):
    """A shadow as the caller has it. Nothing but `begin` waits. Times are s, of the clock that the guard lives by."""

    def begin(self, start: int, images: Mapping[str, np.ndarray], position: np.ndarray, now: float) -> None:
        """An episode begins; the arm stands at `position` (D,) and pictures show it."""
        ...

    def show(self, images: Mapping[str, np.ndarray], times: Mapping[str, float]) -> None:
        """The newest pictures, by observation key, and when each was taken."""
        ...

    def told(self, now: float) -> Seen:
        """What came of them."""
        ...

    def close(self) -> None:
        """Safe to call twice."""
        ...


@dataclass
class _Looks:
    """What the newest look came to."""

    parted: bool = False
    compared: float = -np.inf  # s, when the newest pictures were taken that were compared
    warnings: list[str] = field(default_factory=list)

    def told(self, now: float, recent: float) -> Seen:
        """With the warnings since then, which are told once."""
        warnings, self.warnings = tuple(dict.fromkeys(self.warnings)), []
        return Seen(self.parted, now - self.compared <= recent, warnings)


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
        home = self.shadow.data.qpos[self.shadow.joints.qpos].copy()
        self.shadow.settle(blank, home, 0.0)
        self.shadow.check(home, Measured(position=home, time=0.0))
        self.shadow.begin()

    def check(self, ahead: np.ndarray, measured: Measured) -> Foresight:
        """See `Shadow.check`."""
        found = self.shadow.check(ahead, measured)
        self._warnings += found.warnings
        return found

    def look(self, images: Mapping[str, np.ndarray], times: Mapping[str, float]) -> _Looks:
        """Compare with pictures, where it is time to."""
        pictures = self._fitted(images)
        taken = {name: times.get(IMAGES + name, times.get(name, 0.0)) for name in pictures}
        now = max(taken.values(), default=-np.inf)
        if now - self._looked >= 0.999 / self.settings.looks:
            self._looked = now
            self.shadow.look(pictures, taken)
        warnings, self._warnings = list(dict.fromkeys(self._warnings)), []
        return _Looks(self.shadow.parted, self.shadow.compared, warnings)

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
        self.settings, self.stops = settings, settings.lost == "stop"
        self._watcher = Watcher(settings, rate)
        self._answer: Foresight | None = None
        self._looks = _Looks()

    def ask(self, ahead: np.ndarray, measured: Measured) -> None:
        self._answer = self._watcher.check(ahead, measured)

    def newest(self, now: float) -> Foresight | None:
        return self._answer if counts(self._answer, now) else None

    def lost(self, now: float) -> str:
        return ""

    def forget(self, now: float) -> None:
        self._answer = None

    def begin(self, start: int, images: Mapping[str, np.ndarray], position: np.ndarray, now: float) -> None:
        self.forget(now)
        self._looks = _Looks()
        self._watcher.begin(start, images, position, now)

    def show(self, images: Mapping[str, np.ndarray], times: Mapping[str, float]) -> None:
        untold = self._looks.warnings
        self._looks = self._watcher.look(images, times)
        self._looks.warnings = untold + self._looks.warnings

    def told(self, now: float) -> Seen:
        return self._looks.told(now, self.settings.recent)

    def close(self) -> None:
        pass


def watch(guard: Connection, caller: Connection, settings: BesideSettings, rate: float, episode: Any) -> None:
    """The process: answer guard and caller until the caller is gone. `episode`: the number of the caller's."""
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
        begun = 0
        while True:
            ready = wait(ends)
            if guard in ready:
                try:
                    _answer(Line(guard), watcher, begun == episode.value)
                except (EOFError, OSError):
                    ends.remove(guard)  # the caller ends it
            if caller in ready:
                number, do, *words = caller.recv()
                if do == "begin":
                    watcher.begin(*words)
                    begun = number
                caller.send(watcher.look(*words) if do == "look" else None)


def _answer(line: Line, watcher: Watcher, knows: bool) -> None:
    """`knows`: whether the scene is that of the episode; an answer of before the measurement counts as none."""
    asked = talk.told(line.hear()) or {}
    position = np.array(asked["position"])
    if knows:
        found = watcher.check(np.array(asked["ahead"]), Measured(position=position, time=asked["time"]))
    else:
        found = Foresight(True, np.zeros(len(position)), 0.0)
    line.tell(**pack(found))


@dataclass
class _Begin:
    """An episode that is to be begun."""

    number: int
    words: tuple
    done: threading.Event = field(default_factory=threading.Event)


class Beside:
    """The caller's end of a shadow in a process of its own. `open` gives the guard's end.

    One thread speaks with the process, so that one which stands still holds up nobody else.
    """

    def __init__(self, settings: BesideSettings, rate: float):
        self.settings, self.rate = settings, rate
        self.stops, self.cameras = settings.lost == "stop", settings.cameras()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._thread: threading.Thread | None = None
        self._new = threading.Event()
        self._lock = threading.Lock()  # of what follows
        self._begin: _Begin | None = None  # what the thread is to say next
        self._newest: tuple[dict[str, np.ndarray], dict[str, float]] | None = None
        self._looks, self._gone, self._closing = _Looks(), False, False
        self._since: float | None = None  # s of `time.monotonic`, when the exchange under way began

    @property
    def process(self) -> int | None:
        """Its process id."""
        return None if self._process is None else self._process.pid

    def open(self) -> Connection:
        """Start the process. Raises ConnectionError: it does not come up, with the reason."""
        context = multiprocessing.get_context("spawn")
        guards, his = context.Pipe()
        self._pipe, ours = context.Pipe()
        self._episode: Any = context.Value("q", 0, lock=False)
        given = his, ours, self.settings, self.rate, self._episode
        self._process = context.Process(target=watch, args=given, name="shadow", daemon=True)
        try:
            self._process.start()
            his.close()
            ours.close()
            wrong = self._pipe.recv() if self._pipe.poll(OPENING) else f"it says nothing for {OPENING:g} s"
        except (EOFError, OSError):
            wrong = "its process ended"
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if wrong:
            self.close()
            raise ConnectionError(f"the shadow of {self.settings.scene} does not begin: {wrong}")
        self._thread = threading.Thread(target=self._speak, name="shadow", daemon=True)
        self._thread.start()
        return guards

    def begin(self, start: int, images: Mapping[str, np.ndarray], position: np.ndarray, now: float) -> None:
        """See `Companion`. One that does not answer in time is left alone: it begins when it can, and until then the
        guard finds it silent."""
        words = start, fitted(images, self.cameras), np.asarray(position, float), now
        with self._lock:
            self._episode.value += 1
            begin = self._begin = _Begin(self._episode.value, words)
            self._newest, self._looks = None, _Looks()
        self._new.set()
        done = self._gone or begin.done.wait(ANSWER)
        if self._gone or not done:
            self._warn(GONE if self._gone else SILENT)

    def show(self, images: Mapping[str, np.ndarray], times: Mapping[str, float]) -> None:
        """See `Companion`."""
        with self._lock:
            self._newest = fitted(images, self.cameras), dict(times)
        self._new.set()

    def told(self, now: float) -> Seen:
        """See `Companion`."""
        with self._lock:
            seen, since = self._looks.told(now, self.settings.recent), self._since
        silent = since is not None and time.monotonic() - since > LOST
        return replace(seen, warnings=(*seen.warnings, SILENT)) if silent else seen

    def close(self) -> None:
        """See `Companion`."""
        self._closing = True
        self._new.set()
        process, self._process = self._process, None
        if process is None:
            return
        if process.pid is not None:
            process.kill()  # it holds nothing, and may stand still
            process.join()
        if self._thread is not None:
            self._thread.join()
        self._pipe.close()

    def _speak(self) -> None:
        """The thread: starts and the newest pictures, one exchange after the other."""
        begin: _Begin | None = None
        try:
            while self._new.wait() and not self._closing:
                self._new.clear()
                with self._lock:
                    begin, self._begin = self._begin, None
                    newest, self._newest = self._newest, None
                    episode = self._episode.value
                if begin is not None:
                    self._exchange(begin.number, "begin", *begin.words)
                    begin.done.set()
                if newest is None:
                    continue
                looks = self._exchange(episode, "look", *newest)
                with self._lock:
                    if episode == self._episode.value:  # nothing is said of an episode that is over
                        looks.warnings = self._looks.warnings + looks.warnings
                        self._looks = looks
        except (EOFError, OSError):
            self._gone = True
            if not self._closing:
                self._warn(GONE)
            for one in filter(None, (begin, self._begin)):
                one.done.set()

    def _exchange(self, *message: Any) -> Any:
        """Say something, and wait for what comes of it."""
        self._since = time.monotonic()
        try:
            self._pipe.send(message)
            return self._pipe.recv()
        finally:
            self._since = None

    def _warn(self, warning: str) -> None:
        with self._lock:
            self._looks.warnings.append(warning)
