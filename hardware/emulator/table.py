"""Control tables: what a register is, and the memory of one servo that holds them.

A table is data, one file a family of servos (`sts3215.py`, `xseries.py`). The memory has two layers: what acts now, and
what is stored in the EEPROM and comes back after a loss of power.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Register:
    """A named value of the control table.

    `sign`: None for unsigned, the number of the sign bit for sign-magnitude, -1 for two's complement.
    `low`, `high`: what may be written, None for no limit but the size. `unit`: of one count.
    """

    name: str
    address: int
    size: int = 1
    default: int = 0
    low: int | None = None
    high: int | None = None
    unit: str = ""
    sign: int | None = None
    writable: bool = True

    def decode(self, data: bytes | bytearray) -> int:
        """The number in `size` bytes."""
        value = int.from_bytes(data, "little", signed=self.sign == -1)
        if self.sign is None or self.sign < 0:
            return value
        magnitude = value & ((1 << self.sign) - 1)
        return -magnitude if value >> self.sign & 1 else magnitude

    def encode(self, value: int) -> bytes:
        """`size` bytes of a number; one that does not fit becomes the nearest that does."""
        if self.sign == -1:
            reach = 1 << (8 * self.size - 1)
            return min(reach - 1, max(-reach, value)).to_bytes(self.size, "little", signed=True)
        if self.sign is None:
            return min((1 << 8 * self.size) - 1, max(0, value)).to_bytes(self.size, "little")
        reach = (1 << self.sign) - 1
        magnitude = min(reach, abs(value))
        return (magnitude | (value < 0) << self.sign).to_bytes(self.size, "little")


@dataclass(frozen=True)
class Table:
    """The registers of a family of servos. Addresses below `ram` are EEPROM."""

    name: str
    size: int  # bytes
    ram: int
    registers: tuple[Register, ...]  # by their addresses

    @cached_property
    def by_name(self) -> dict[str, Register]:
        return {register.name: register for register in self.registers}

    def __getitem__(self, name: str) -> Register:
        """The register of that name. Raises KeyError."""
        return self.by_name[name]

    def touched(self, address: int, length: int) -> list[Register]:
        """Registers that `length` bytes from `address` on reach, in the order of their addresses."""
        return [r for r in self.registers if r.address < address + length and address < r.address + r.size]


class Memory:
    """The registers of one servo: `memory["ID"]` reads and writes numbers, `raw` is the bytes that act."""

    def __init__(self, table: Table, **values: int):
        self.table = table
        self.raw = bytearray(table.size)
        for register in table.registers:
            self[register.name] = values.pop(register.name, register.default)
        if values:
            raise KeyError(f"{table.name} has no register '{next(iter(values))}'")
        self.stored = self.raw[: table.ram]

    def __getitem__(self, name: str) -> int:
        """The value of a register."""
        register = self.table[name]
        return register.decode(self.raw[register.address : register.address + register.size])

    def __setitem__(self, name: str, value: int) -> None:
        register = self.table[name]
        self.raw[register.address : register.address + register.size] = register.encode(int(value))

    def store(self, address: int, length: int) -> None:
        """Keep what of these bytes is EEPROM over a loss of power."""
        start, end = min(address, self.table.ram), min(address + length, self.table.ram)
        self.stored[start:end] = self.raw[start:end]

    def power_up(self) -> None:
        """The EEPROM area as stored, the rest as at the factory."""
        self.raw[:] = bytes(self.table.size)
        for register in self.table.registers:
            self[register.name] = register.default
        self.raw[: self.table.ram] = self.stored
