"""All servos of a Feetech bus at once: one packet that asks or sets, on a serial port that somebody has opened.

What a control loop does hundreds of times a second. Everything else (finding servos, calibrating, single registers) is
lerobot's bus, on the same port. A read gives the values of all servos, or raises: never some of an earlier one.
Protocol: `emulator/feetech.py`. Two-byte values here, little-endian, sign-magnitude.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence

from .emulator.feetech import HEADER, check, pack
from .emulator.packets import BROADCAST

SYNC_READ, SYNC_WRITE = 0x82, 0x83
SIZE = 6  # bytes of a status without data


class ServoLine:
    """Servos `ids` behind an open file. `patience`: s that the first answer may take beside its time on the line."""

    def __init__(self, file: int, ids: Sequence[int], patience: float, baud: int):
        self._file, self.ids = file, tuple(ids)
        self._patience, self._byte = patience, 10 / baud
        self._waiting = select.poll()
        self._waiting.register(file, select.POLLIN)

    def read(self, address: int, words: int) -> list[list[int]]:
        """`words` two-byte values from `address` on, of each servo. Raises ConnectionError, OSError."""
        length = 2 * words
        self._drain()
        self._send(pack(BROADCAST, SYNC_READ, bytes([address, length, *self.ids])))
        size = SIZE + length
        whole = self._receive(size * len(self.ids))
        found = []
        for place, id in enumerate(self.ids):
            packet = whole[place * size : (place + 1) * size]
            if packet[:4] != HEADER + bytes([id, length + 2]) or check(packet[2:-1]) != packet[-1]:
                raise ConnectionError(f"no sound answer of servo {id}")
            found.append([int.from_bytes(packet[at : at + 2], "little") for at in range(5, 5 + length, 2)])
        return found

    def write(self, address: int, values: Sequence[int]) -> None:
        """One two-byte value to each servo. Nobody answers. Raises OSError."""
        blocks = b"".join(bytes([id]) + value.to_bytes(2, "little") for id, value in zip(self.ids, values, strict=True))
        self._send(pack(BROADCAST, SYNC_WRITE, bytes([address, 2]) + blocks))

    def _send(self, packet: bytes) -> None:
        while packet:
            packet = packet[os.write(self._file, packet) :]

    def _receive(self, size: int) -> bytes:
        end = time.monotonic() + self._patience + size * self._byte
        whole = b""
        while len(whole) < size:
            left = end - time.monotonic()
            if left <= 0 or not self._waiting.poll(1000 * left):
                raise ConnectionError(f"{len(whole)} of {size} bytes came as an answer")
            part = os.read(self._file, size - len(whole))
            if not part:
                raise ConnectionError("the port is gone")
            whole += part
        return whole

    def _drain(self) -> None:
        """Forget what came without being asked for."""
        while self._waiting.poll(0):
            if not os.read(self._file, 4096):
                raise ConnectionError("the port is gone")


def signed(value: int, bit: int) -> int:
    """A sign-magnitude value whose sign is that bit."""
    return -(value & ~(1 << bit)) if value >> bit & 1 else value
