"""The verb `emulate`: an arm on a pseudo-terminal, for any software that drives a real one.

`understudy emulate so101` prints the port and runs until it is ended (Ctrl-C, SIGTERM) or `--seconds` are over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .arm import Calibration, Kind, find_kind, make_chain, read_calibration, swept, write_calibration
from .bus import Bus
from .chain import Chain
from .faults import Fault, Faults
from .shafts import Shafts

if TYPE_CHECKING:
    from .cameras import Cameras

STEP = 0.02  # s between moves of the hand


@dataclass(frozen=True, kw_only=True)
class Emulate:
    """Emulate the servos of an arm on a pseudo-terminal."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("arm",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("sim",)

    # which arm: so101, koch or koch-leader
    arm: str = "so101"
    # path that names the port, e.g. robot_port; stays the same when the arm is unplugged and comes back
    link: Path | None = None
    # calibration file of lerobot's that the servos hold; written for this arm where there is none
    calibration: Path | None = None
    # servos fresh from the factory: no ranges, no offsets stored
    fresh: bool = False
    # ids on the bus in the order of the joints, e.g. [1, 2, 3, 3, 5, 6]; empty: 1, 2, 3 ...
    ids: tuple[int, ...] = ()
    # bits a second that the servos listen at; software of another rate is not heard
    baud: int = 1_000_000
    # bytes take their time on the line
    wire: bool = True
    # none, or sweep: a hand leads each joint whose torque is off over its range, as one does to calibrate or to lead;
    # it rests 6 s at home, sweeps 10 s, and so on
    hand: str = "none"
    # V at the servos; 0 for a bus without power, empty for the usual
    voltage: float | None = None
    # what the servos turn: nothing, arm (in MuJoCo, with gravity), or a task of the arm's, e.g. so101-pick-place
    load: str = "nothing"
    # name of a camera of the load's scene -> [height, width]; streams for browsers and OpenCV
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)
    fps: float = 30.0  # of the cameras
    # port for lerobot's zmq cameras, e.g. 5555; needs pyzmq
    zmq: int | None = None
    # what goes wrong: a list of {kind, id, at, until, chance, count, seconds}
    faults: tuple[Fault, ...] = ()
    seed: int = 0  # of the faults and of the task's start
    # s to run; empty: until it is ended
    seconds: float | None = None

    def __post_init__(self) -> None:
        kind = find_kind(self.arm)
        if self.hand not in ("none", "sweep"):
            raise ValueError(f"hand: '{self.hand}' is neither none nor sweep")
        if self.load != "nothing":
            from .coupled import check_load

            check_load(self.load, kind)
        joints = len(kind.joints)
        if self.ids and (len(self.ids) != joints or not all(0 <= id <= 252 for id in self.ids)):
            raise ValueError(f"ids: {list(self.ids)} are not {joints} numbers within 0..252")
        if self.zmq is not None and not self.cameras:
            raise ValueError("zmq: which cameras? Name them with --cameras '{front: [480, 640]}'")
        if self.cameras and self.load == "nothing":
            raise ValueError("cameras: nothing to see; give the arm a load, e.g. --load so101-pick-place")
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"seconds: {self.seconds} is not above 0")

    def run(self) -> None:
        """Play the arm until the end. Raises OSError, ValueError."""
        kind = find_kind(self.arm)
        calibration = self._calibration(kind)
        chain = self._chain(kind, calibration)
        bus = Bus(chain, kind.codec(), Faults(self.faults, self.seed), wire=self.wire, link=self.link)
        with ExitStack() as open_:
            open_.enter_context(bus)
            try:
                print(f"port: {bus.port}", flush=True)
                ids = ", ".join(f"{name} {servo.id}" for name, servo in zip(kind.joints, chain.servos, strict=True))
                print(f"{kind.name}: {ids}; {self.baud} baud. Ctrl-C ends it.", flush=True)
                parts: list[Bus | Cameras] = [bus]
                if self.cameras:
                    parts.append(open_.enter_context(self._show(bus)))
                self._play(bus, kind, kind.zeros(calibration), parts)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._ended(bus)) from None
            print(self._ended(bus))

    def _calibration(self, kind: Kind) -> dict[str, Calibration]:
        if self.calibration is not None and self.calibration.exists():
            return read_calibration(self.calibration, kind)
        if self.calibration is not None:
            write_calibration(self.calibration, kind.calibration())
            print(f"wrote {self.calibration}")
        return kind.calibration()

    def _chain(self, kind: Kind, calibration: dict[str, Calibration]) -> Chain:
        def coupled(zeros: tuple[float, ...]) -> Shafts:
            from .coupled import CoupledShafts

            return CoupledShafts(kind, zeros, None if self.load == "arm" else self.load, self.seed)

        shafts = None if self.load == "nothing" else coupled
        known = kind.servos[0].bauds
        if self.baud not in known:
            raise ValueError(f"baud: these servos know {', '.join(map(str, known))}, not {self.baud}")
        for name, id in zip(kind.joints, self.ids, strict=False):
            calibration = calibration | {name: replace(calibration[name], id=id)}
        chain = make_chain(kind, calibration, stored=not self.fresh, baud=self.baud, shafts=shafts)
        if self.voltage is not None:
            chain.supply(self.voltage)
        return chain

    def _show(self, bus: Bus) -> Cameras:
        from .cameras import Cameras

        cameras = Cameras(bus, self.cameras, self.fps, zmq=self.zmq)
        for name in self.cameras:
            print(f"camera: {cameras.address}{name}", flush=True)
        return cameras

    def _play(self, bus: Bus, kind: Kind, zeros: tuple[float, ...], parts: Sequence[Bus | Cameras]) -> None:
        """Until the time is over, or a part has failed: its close says of what."""
        begin, pause = time.monotonic(), threading.Event()
        while all(part.failed is None for part in parts):
            if self.hand == "sweep":
                with bus.held() as chain:
                    _lead(chain, [zero + angle for zero, angle in zip(zeros, swept(kind, chain.time), strict=True)])
            pause.wait(STEP)
            if self.seconds is not None and time.monotonic() - begin >= self.seconds:
                return

    def _ended(self, bus: Bus) -> str:
        faults = sum(bus.faults.done)
        struck = f", {faults} faults" if self.faults else ""
        return f"{bus.counts.requests} requests, {bus.counts.corrupt} of them corrupt{struck}; the port is gone"


def _lead(chain: Chain, angles: list[float]) -> None:
    """Move the hand on every joint that gives way."""
    for servo, shaft, angle in zip(chain.servos, chain.shafts.shafts, angles, strict=True):
        shaft.hand = None if servo.driven else angle
