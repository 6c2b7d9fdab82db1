"""One servo: a memory, a motor, and a firmware that reads the one and drives the other.

A family is a subclass (`sts3215.py`, `xseries.py`) that says what its registers mean. Here is what they share: writing
bytes into registers, power, and the steps of the loop. The shaft's angle is in rad, 0 where the encoder reads 0, not
folded; `shafts.py` or `coupled.py` moves it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from .motor import AMBIENT, Command, Motor, SetPoint, duty_of
from .table import Memory, Table

COUNTS = 4096  # of the encoder, a turn
PER_RAD = COUNTS / (2 * math.pi)


class Servo(ABC):
    """A servo on the bus. `angle` (rad) and `velocity` (rad/s) are the shaft's; `values` are stored in registers."""

    model: str
    table: Table
    motor: Motor
    bauds: tuple[int, ...]

    def __init__(self, angle: float = math.pi, **values: int):
        self.memory = Memory(self.table, **values)
        self.angle, self.velocity = angle, 0.0
        self.duty = self.current = 0.0
        self.temperature, self.voltage = AMBIENT, self.motor.voltage
        self.set_point = SetPoint()
        self._steps = 0.0  # counts, the goal where goals are relative
        self._blocked = self._loaded = self._surged = 0.0  # duty at the overload, s of load, s of current
        self.power_up()

    @property
    def id(self) -> int:
        return self.memory["ID"]

    @property
    def baud(self) -> int:
        """Bits a second."""
        return self.bauds[self.memory["Baud_Rate"]]

    @property
    def delay(self) -> float:
        """s between a request and the answer."""
        return 2e-6 * self.memory["Return_Delay_Time"]

    @property
    def powered(self) -> bool:
        """Whether the electronics run: the servo answers and its motor can be driven."""
        return self.voltage > 2.5

    @property
    def driven(self) -> bool:
        """Whether the bridge is closed; if not, only friction brakes the shaft."""
        return self.powered and self.command() is not None

    def counts(self) -> float:
        """The encoder's count, not folded."""
        return self.angle * PER_RAD

    def power_up(self) -> None:
        """What happens when the voltage comes back: registers from the EEPROM, torque off."""
        self.memory.power_up()
        self.status = 0
        self.pending: tuple[int, bytes] | None = None  # a change that waits for the action
        self.quiet = 0.0  # s since the last request on the bus
        self._command: Command | None = None
        self._known = False
        self.angle %= 2 * math.pi  # an encoder of one turn
        self.wake()
        self.duty = self.current = 0.0

    def forget(self) -> None:
        """All registers as at the factory, the stored ones too."""
        self.memory = Memory(self.table)

    # the wire

    @property
    def error(self) -> int:
        """The error byte of an answer to which nothing else happened."""
        return self.status

    def identity(self) -> bytes:
        """What a ping is answered with."""
        return b""

    def refusal(self, kind: str) -> int | None:
        """The error byte of the answer to a packet that is `corrupt` or `unknown`; None for no answer."""
        return None

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address` on; zeros beyond the table."""
        self.refresh()
        return bytes(self.memory.raw[address : address + length]).ljust(length, b"\0")

    @abstractmethod
    def speaks(self, kind: str) -> bool:
        """Whether a request of that kind gets an answer."""

    @abstractmethod
    def accept(self, address: int, data: bytes) -> int:
        """Write `data` from `address` on, as far as it may be written; the error byte of the answer."""

    def _place_bytes(self, address: int, data: bytes) -> None:
        """Write what is writable, each register brought into its range."""
        memory = self.memory
        for register in self.table.touched(address, len(data)):
            if not register.writable:
                continue
            start, end = register.address, register.address + register.size
            content = bytearray(memory.raw[start:end])
            for place in range(max(start, address), min(end, address + len(data))):
                content[place - start] = data[place - address]
            value = register.decode(content)
            low = value if register.low is None else max(register.low, value)
            memory[register.name] = low if register.high is None else min(register.high, low)

    # the loop

    def command(self) -> Command | None:
        """What the registers ask of the motor, None for nothing: the bridge is open."""
        if not self._known:
            self._command, self._known = self._asked(), True
        return self._command

    def drive(self, dt: float) -> None:
        """One step of the firmware: move the set-point, set the duty."""
        command = self.command()
        if command is None or not self.powered:
            self.duty = 0.0
            return
        place = self._frame()
        if command.mode != "duty":
            self.set_point.step(command, dt)
        duty = self._sense() * duty_of(command, self.set_point, place, self._sense() * self.velocity * PER_RAD)
        if command.current < math.inf:
            middle, reach = self.motor.kt * self.velocity, self.motor.resistance * command.current
            volts = max(middle - reach, min(middle + reach, duty * self.voltage))
            duty = max(-1.0, min(1.0, volts / self.voltage))
        self.duty = duty

    def settle(self, angle: float, velocity: float, dt: float) -> None:
        """The shaft has moved: take its angle and velocity, and feel current, heat and load."""
        self.angle, self.velocity = angle, velocity
        self.current = self.motor.current(self.duty, self.voltage, velocity) if self.driven else 0.0
        self.temperature = self.motor.warmed(self.temperature, self.current, dt)
        if self.powered:
            self._protect(dt)

    @abstractmethod
    def wake(self) -> None:
        """Registers that follow from others when the power comes."""

    @abstractmethod
    def refresh(self) -> None:
        """Write the present values into their registers."""

    @abstractmethod
    def overload(self) -> None:
        """Behave as after an overload, whatever the load is."""

    @abstractmethod
    def _frame(self) -> float:
        """Where the shaft is, in the counts of goals and readings."""

    def _sense(self) -> float:
        """1, or -1 where the frame counts against the shaft."""
        return 1.0

    @abstractmethod
    def _asked(self) -> Command | None:
        """The registers as a command; None where the motor is off."""

    @abstractmethod
    def _protect(self, dt: float) -> None:
        """Notice overload, heat and voltage."""
