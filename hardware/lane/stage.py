"""An emulated arm in the scene of a task, as a process of its own: its servos on a port, starts and outcomes on a pipe.

What drives the arm sees a port and cameras, as of a real one. Who judges asks here how the task stands. When the
caller is gone the arm stays on its port for `LINGER` s, so that its guard can bring it to rest.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.spec import SCENE
from ..emulator.arm import find_kind, make_chain, write_calibration
from ..emulator.bus import Bus
from ..emulator.coupled import CoupledShafts, begin_anew
from ..emulator.feetech import Feetech
from ..talk import Line, told

ANSWER = 30.0  # s; it draws a start, or opens
LINGER = 5.0  # s


def play(pipe: Connection, task: str, sizes: Mapping[str, tuple[int, int]], fps: float) -> None:
    """The process: an SO-101 on a port until the caller closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides
    kind, line = find_kind("so101"), Line(pipe)
    chain = make_chain(kind, shafts=lambda zeros: CoupledShafts(kind, zeros, task))
    with ExitStack() as held, suppress(EOFError, OSError):
        bus = held.enter_context(Bus(chain, Feetech()))
        streams = ""
        if sizes:
            from ..emulator.cameras import Cameras

            streams = str(held.enter_context(Cameras(bus, sizes, fps)).address)
        line.tell(port=bus.port, streams=streams)
        try:
            _answer(line, bus)
        except (EOFError, OSError):
            time.sleep(LINGER)


def _answer(line: Line, bus: Bus) -> None:
    while True:
        asked = told(line.hear()) or {}
        with bus.held() as chain:
            if asked["do"] == "begin":
                begin_anew(chain, asked["seed"])
            elif asked["do"] == "close":
                return
            assert isinstance(chain.shafts, CoupledShafts)
            line.tell(**standing(chain.shafts))


def standing(shafts: CoupledShafts) -> dict:
    """How the task stands: JSON-able."""
    task: Any = shafts.task
    if bool(task.success(shafts.model, shafts.data)):
        success, progress = True, 1.0
    else:
        success, progress = False, min(float(task.progress(shafts.model, shafts.data)), 0.99)
    scene = task.observe(shafts.model, shafts.data).get(SCENE, ())
    return {"success": success, "progress": progress, "scene": np.asarray(scene, float).tolist()}


class Stage:
    """The caller's end. `port`, `streams` (address of the cameras' pictures) and `calibration` are there once open."""

    def __init__(self, task: str, sizes: Mapping[str, tuple[int, int]], fps: float, folder: Path):
        self.task, self.sizes, self.fps = task, dict(sizes), fps
        self.calibration = folder / "so101.json"
        self.port = self.streams = ""
        self._process: multiprocessing.process.BaseProcess | None = None

    def open(self) -> None:
        """Raises ConnectionError: it does not come up."""
        write_calibration(self.calibration, find_kind("so101").calibration())
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._line = Line(ours)
        self._process = context.Process(target=play, args=(theirs, self.task, self.sizes, self.fps), name="stage")
        self._process.start()
        theirs.close()
        found = self._hear()
        self.port, self.streams = found["port"], found["streams"]

    def begin(self, seed: int) -> dict:
        """The start that `seed` draws; how the task stands then."""
        return self._ask(do="begin", seed=seed)

    def look(self) -> dict:
        """How the task stands: success, progress, and the numbers of its scene."""
        return self._ask(do="look")

    def close(self) -> None:
        """Safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError, EOFError):
            self._line.tell(do="close")
        self._line.close()
        process.join(2 * LINGER)
        if process.is_alive():
            process.kill()
            process.join()

    def _ask(self, **words) -> dict:
        try:
            self._line.tell(**words)
        except OSError as error:
            raise ConnectionError(f"the emulated arm is gone ({error})") from error
        return self._hear()

    def _hear(self) -> dict:
        try:
            if not self._line.hears(ANSWER):
                raise ConnectionError(f"the emulated arm did not answer within {ANSWER:g} s")
            return told(self._line.hear()) or {}
        except (EOFError, ConnectionResetError) as error:
            raise ConnectionError("the emulated arm is gone") from error
