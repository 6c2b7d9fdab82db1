"""The host's end of a Feetech bus: all servos in one packet, as a control loop needs it, and one servo's registers.

A read gives the values of all servos, or raises: never some of an earlier one. Registers by the names of
`emulator/sts3215.py`; protocol: `emulator/feetech.py`. Signs are sign-magnitude. POSIX only.
Every method raises ConnectionError, or OSError where the port fails.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence

import numpy as np

from .emulator.feetech import HEADER, check, pack
from .emulator.packets import BROADCAST
from .emulator.sts3215 import STS_TABLE
from .emulator.table import Register

READ, WRITE, SYNC_READ, SYNC_WRITE = 0x02, 0x03, 0x82, 0x83
SIZE = 6  # bytes of a status without data
BAUD = 1_000_000
PATIENCE = 0.034  # s that the first answer may take beside its time on the line
LATE = 0.05  # s that an answer may come late
LOCKED = 0x37  # address of Lock: what is written while it is 0 is kept without power


class ServoLine:
    """Servos `ids` behind a port, which is opened. `file`: of a port that is open already."""

    def __init__(self, port: str, ids: Sequence[int], file: int | None = None):
        self._serial, self.ids = None, tuple(ids)
        if file is None:
            import serial

            self._serial = serial.Serial(port, BAUD, timeout=0)
            file = self._serial.fileno()
        self._file = file
        self._waiting = select.poll()
        self._waiting.register(file, select.POLLIN)

    def close(self) -> None:
        if self._serial is not None:
            self._serial.close()

    def read(self, *names: str) -> np.ndarray:
        """(servos, names) of registers in the order of their addresses; what stands between them is read along."""
        registers = [STS_TABLE[name] for name in names]
        length = registers[-1].address + registers[-1].size - registers[0].address
        self.forget()
        self._send(pack(BROADCAST, SYNC_READ, bytes([registers[0].address, length, *self.ids])))
        size = SIZE + length
        whole = self._receive(size * len(self.ids))
        rows = [self._sound(whole[at * size : (at + 1) * size], id) for at, id in enumerate(self.ids)]
        return np.array([[_value(row, register, registers[0].address) for register in registers] for row in rows])

    def write(self, name: str, values: Sequence[int]) -> None:
        """One value to each servo. Nobody answers."""
        register = STS_TABLE[name]
        size = register.size
        blocks = b"".join(bytes([id]) + v.to_bytes(size, "little") for id, v in zip(self.ids, values, strict=True))
        self._send(pack(BROADCAST, SYNC_WRITE, bytes([register.address, size]) + blocks))

    def read_one(self, id: int, name: str) -> int:
        """A register of one servo."""
        register = STS_TABLE[name]
        self.forget()
        self._send(pack(id, READ, bytes([register.address, register.size])))
        return _value(self._sound(self._receive(SIZE + register.size), id), register, register.address)

    def write_one(self, id: int, name: str, value: int) -> None:
        """A register of one servo, which says that it heard."""
        register = STS_TABLE[name]
        self.forget()
        self._send(pack(id, WRITE, bytes([register.address]) + value.to_bytes(register.size, "little")))
        self._sound(self._receive(SIZE), id)

    def forget(self) -> None:
        """What came without being asked for."""
        while self._waiting.poll(0):
            if not os.read(self._file, 4096):
                raise ConnectionError("the port is gone")

    def fall_silent(self) -> None:
        """Wait for answers that are late, and forget them: or they would be taken for those to the next request."""
        time.sleep(LATE)
        self.forget()

    def _send(self, packet: bytes) -> None:
        while packet:
            packet = packet[os.write(self._file, packet) :]

    def _receive(self, size: int) -> bytes:
        end = time.monotonic() + PATIENCE + size * 10 / BAUD
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

    def _sound(self, packet: bytes, id: int) -> bytes:
        """The data of a status."""
        if packet[:3] != HEADER + bytes([id]) or packet[3] != len(packet) - 4 or check(packet[2:-1]) != packet[-1]:
            raise ConnectionError(f"no sound answer of servo {id}")
        return packet[5:-1]


def _value(data: bytes, register: Register, begin: int) -> int:
    at = register.address - begin
    value = int.from_bytes(data[at : at + register.size], "little")
    if register.sign is not None and value >> register.sign & 1:
        return -(value & ~(1 << register.sign))
    return value
