"""What is said on a servo bus, apart from how it is written in bytes: requests of the host, statuses of the servos.

A codec (`feetech.py`, `dynamixel.py`) turns bytes into `Request`s and `Status`es into bytes; `chain.py` carries the
requests out. Nothing here knows of registers, time or ports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

BROADCAST = 0xFE
INSTRUCTIONS = {  # what both protocols call by the same numbers
    0x01: "ping",
    0x02: "read",
    0x03: "write",
    0x04: "reg_write",
    0x05: "action",
    0x06: "factory_reset",
    0x08: "reboot",
    0x82: "sync_read",
    0x83: "sync_write",
}


@dataclass(frozen=True)
class Span:
    """`length` bytes from `address` on, of the servo `id`."""

    id: int
    address: int
    length: int


@dataclass(frozen=True)
class Change:
    """`data` for the addresses from `address` on, of the servo `id`."""

    id: int
    address: int
    data: bytes


@dataclass(frozen=True)
class Request:
    """One packet of the host.

    `kind`: ping, read, write, reg_write, action, sync_read, sync_write, bulk_read, bulk_write, factory_reset, reboot;
    `corrupt` where the check failed, `unknown` where the instruction is none.
    """

    kind: str
    id: int
    size: int  # bytes on the wire
    reads: tuple[Span, ...] = ()
    writes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Status:
    """What one servo answers."""

    id: int
    error: int = 0
    data: bytes = b""
    delay: float = 0.0  # s of silence before it, the servo's return delay


class Codec(Protocol):
    """One wire protocol."""

    def take(self, buffer: bytearray) -> Request | None:
        """Remove the first packet of `buffer`, and the noise before it; None while none is complete."""
        ...

    def status(self, status: Status) -> bytes:
        """The bytes of a status packet."""
        ...

    def broken(self, packet: bytes) -> bytes:
        """A status packet whose check is wrong."""
        ...

    def readdressed(self, packet: bytes, id: int) -> bytes:
        """A status packet as another servo would send it."""
        ...
