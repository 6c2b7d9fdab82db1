"""The wire: a pseudo-terminal that any serial software can open, with a thread behind it that plays the chain.

Line time: a byte takes 10 bits at the speed that the host has set on the port; a half-duplex line carries one after
the other, so a request of 14 bytes and six answers of 8 take 0.62 ms at 1 Mbaud. The host gets the answers to one
request together, when the line has carried the last, as from a USB adapter. Servos set to another speed hear nothing.
Modem lines (CTS, DTR) do not exist on a pseudo-terminal. Needs Linux (the host's speed is read by TCGETS2).
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .chain import Chain
from .faults import Faults
from .packets import Codec, Request, Status

TICK = 0.005  # s between steps while nobody asks
LATE = 0.05  # s that the thread may be behind; more is not made up for, or answers would come late
FRAME = 0.001  # s that an adapter collects bytes for before it hands them to the host
SILENCE = 0.05  # s after which half a packet is forgotten
ENDS = 10.0  # s until the thread must have ended
BITS = 10  # of a byte on the line: start, 8, stop
_TCGETS2 = 0x802C542A


@dataclass
class Counts:
    """What went over the line, and the seconds that the emulator fell behind the clock and let go."""

    requests: int = 0
    corrupt: int = 0
    overrun: int = 0  # answers that the host did not make room for
    dropped: float = 0.0  # s


@dataclass
class Bus:
    """A chain on a port. `with Bus(chain, Feetech()) as bus: open(bus.port)`.

    Args:
        wire: whether bytes take their time on the line; without, answers come at once.
        link: a path that always names the port, also after it was unplugged and came back under another name.
        heard: called with every request and the chain's time, in the thread of the bus.
        punctual: its thread comes before every ordinary one where the system permits it, for servos do not wait for a
            busy host.
    """

    chain: Chain
    codec: Codec
    faults: Faults = field(default_factory=Faults)
    wire: bool = True
    link: Path | None = None
    heard: Callable[[float, Request], None] | None = None
    counts: Counts = field(default_factory=Counts)
    punctual: bool = False

    def __post_init__(self) -> None:
        self.lock = threading.RLock()  # of the chain
        self.failed: BaseException | None = None  # what ended the thread
        self._ends: tuple[int, int] | None = None  # ours and the host's end of the port
        self._wake = os.pipe()
        self._buffer, self._last_byte = bytearray(), 0.0
        self._free = 0.0  # when the line is quiet again
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="servo bus", daemon=True)

    def __enter__(self) -> Bus:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Open the port and play. Raises OSError: no pseudo-terminal, or `link` names something that is no link."""
        self._plug()
        self._now = time.monotonic()
        self._thread.start()

    def close(self) -> None:
        """End the thread and take the port away; raises what ended the thread earlier. May be called twice."""
        self._stop = True
        if self._thread.is_alive():
            os.write(self._wake[1], b".")
            self._thread.join(ENDS)
            if self._thread.is_alive():
                raise TimeoutError(f"the emulated bus did not end within {ENDS:g} s")
        self._unplug()
        for end in self._wake:
            with suppress(OSError):
                os.close(end)
        failed, self.failed = self.failed, None
        if failed is not None:
            raise failed

    @property
    def port(self) -> str:
        """The path that a driver opens. Raises ConnectionError while it is unplugged."""
        if self._ends is None:
            raise ConnectionError("the emulated arm is unplugged")
        return str(self.link) if self.link else os.ttyname(self._ends[1])

    @property
    def plugged(self) -> bool:
        return self._ends is not None

    @contextmanager
    def held(self) -> Iterator[Chain]:
        """The chain, while the bus waits: to look at servos or to move them by hand from another thread."""
        with self.lock:
            self._catch_up()
            yield self.chain

    @property
    def baud(self) -> int:
        """Bits a second that the host has set on the port."""
        assert self._ends is not None
        return struct.unpack("=4I20B2I", fcntl.ioctl(self._ends[0], _TCGETS2, bytes(44)))[-1]

    # the port

    def _plug(self) -> None:
        if self.link and self.link.exists() and not self.link.is_symlink():
            raise FileExistsError(f"{self.link} is there already and is no link: name another path")
        ours, theirs = os.openpty()
        for end in (ours, theirs):
            tty.setraw(end)  # or the host's bytes would come back as an echo
        os.set_blocking(ours, False)
        if self.link:
            spare = self.link.with_name(f".{self.link.name}.{os.getpid()}")
            spare.symlink_to(os.ttyname(theirs))
            spare.replace(self.link)
        self._ends = ours, theirs  # from now on it is plugged in

    def _unplug(self) -> None:
        if self._ends is None:
            return
        if self.link and self.link.is_symlink():
            self.link.unlink()
        for end in self._ends:
            os.close(end)
        self._ends = None
        self._buffer.clear()

    # the thread

    def _run(self) -> None:
        if self.punctual:
            with suppress(AttributeError, OSError):  # not Linux; not permitted: see `ulimit -r`
                os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        try:
            while not self._stop:
                self._turn()
        except BaseException as error:  # shown by close()
            self.failed = error

    def _turn(self) -> None:
        listening = [self._wake[0], *(self._ends or ())[:1]]
        ready, _, _ = select.select(listening, [], [], TICK)
        with self.lock:
            self._catch_up()
            if self._ends is not None and self._ends[0] in ready:
                self._receive()
            elif self._buffer and time.monotonic() - self._last_byte > SILENCE:
                self._buffer.clear()
            self._follow_faults()

    def _catch_up(self) -> None:
        """Let the chain's time follow the clock."""
        now = time.monotonic()
        behind, self._now = now - self._now, now
        self.counts.dropped += max(0.0, behind - LATE)
        self.chain.advance(min(behind, LATE))

    def _follow_faults(self) -> None:
        self.faults.happen(self.chain)
        if self.faults.unplugged(self.chain.time):
            self._unplug()
        elif self._ends is None:
            self._plug()

    def _receive(self) -> None:
        assert self._ends is not None
        now = time.monotonic()
        try:
            self._buffer += os.read(self._ends[0], 65536)
        except BlockingIOError:
            return
        self._last_byte = now
        while self._ends is not None and (request := self.codec.take(self._buffer)) is not None:
            self._serve(request, now)

    def _serve(self, request: Request, arrived: float) -> None:
        """Carry out one request and answer, each byte at its time."""
        self.counts.requests += 1
        self.counts.corrupt += request.kind == "corrupt"
        if self.heard:
            self.heard(self.chain.time, request)
        baud = self.baud
        byte = BITS / baud if self.wire else 0.0
        self._free = max(self._free, arrived) + request.size * byte

        carried = b""
        for group in self.chain.answer(request, baud):
            packet = self._collide(group)
            packet, late = self.faults.spoil(packet, group[0], self.codec, self.chain.time)
            if late > FRAME:
                self._send(carried)
                carried = b""
            self._free += (group[0].delay if self.wire else 0.0) + len(packet) * byte + late
            carried += packet
        self._send(carried)

    def _collide(self, group: list[Status]) -> bytes:
        """What the line carries when several servos answer at once: low bits win, what is longer goes on alone."""
        packets = [self.codec.status(status) for status in group]
        length = max(map(len, packets))
        columns = zip(*(packet.ljust(length, b"\xff") for packet in packets), strict=True)
        whole = bytearray(b"\xff" * length)
        for place, column in enumerate(columns):
            for byte in column:
                whole[place] &= byte
        return bytes(whole)

    def _send(self, packets: bytes) -> None:
        """Hand bytes to the host when the line has carried the last of them."""
        if not packets:
            return
        assert self._ends is not None
        while (wait := self._free - time.monotonic()) > 0:
            time.sleep(min(wait, TICK))
            if wait > TICK:
                self._catch_up()
        try:
            os.write(self._ends[0], packets)
        except BlockingIOError:
            self.counts.overrun += 1  # the host does not read
