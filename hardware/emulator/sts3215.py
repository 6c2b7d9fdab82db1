"""The Feetech STS3215: its control table, and what its firmware does with it.

Sources. Addresses, initial values and units: Feetech, "Memory table of the STS servos" (FT-SMS-STS-emanual,
doc.feetech.cn), and lerobot 0.6.1, `motors/feetech/tables.py`, whose names are used. Position loop:
better-actuator-models 1.0.2, `feetech/actuator.py` (duty per rad and unit of P, measured with an oscilloscope; greatest
duty and speed).
Not published and therefore chosen here: D and I are stored and have no effect; the starting force is added to the loop;
a value out of range is brought into it; a hot servo works again 5 K below its limit; switching the torque on takes the
present position for the goal; an overload ends with a goal on the other side or with the torque switched off.
"""

from __future__ import annotations

import math

from .motor import STS3215_MOTOR, Command
from .servo import COUNTS, Servo
from .table import Register, Table

R = Register
STS_TABLE = Table(
    "sts3215",
    size=96,
    ram=40,
    registers=(
        R("Firmware_Major_Version", 0, default=3, writable=False),
        R("Firmware_Minor_Version", 1, default=10, writable=False),
        R("Model_Number", 3, 2, default=777, writable=False),
        R("ID", 5, default=1, low=0, high=253),
        R("Baud_Rate", 6, default=0, low=0, high=7),
        R("Return_Delay_Time", 7, default=0, low=0, high=254, unit="2 us"),
        R("Response_Status_Level", 8, default=1, low=0, high=1),
        R("Min_Position_Limit", 9, 2, default=0, low=0, high=4094, unit="count"),
        R("Max_Position_Limit", 11, 2, default=4095, low=0, high=4095, unit="count"),
        R("Max_Temperature_Limit", 13, default=70, low=0, high=100, unit="degree C"),
        R("Max_Voltage_Limit", 14, default=80, low=0, high=254, unit="0.1 V"),
        R("Min_Voltage_Limit", 15, default=40, low=0, high=254, unit="0.1 V"),
        R("Max_Torque_Limit", 16, 2, default=1000, low=0, high=1000, unit="0.1 %"),
        R("Phase", 18, default=12),
        R("Unloading_Condition", 19, default=44),
        R("LED_Alarm_Condition", 20, default=47),
        R("P_Coefficient", 21, default=32),
        R("D_Coefficient", 22, default=32),
        R("I_Coefficient", 23, default=0),
        R("Minimum_Startup_Force", 24, 2, default=16, low=0, high=1000, unit="0.1 %"),
        R("CW_Dead_Zone", 26, default=1, low=0, high=32, unit="count"),
        R("CCW_Dead_Zone", 27, default=1, low=0, high=32, unit="count"),
        R("Protection_Current", 28, 2, default=500, low=0, high=511, unit="6.5 mA"),
        R("Angular_Resolution", 30, default=1, low=1, high=3),
        R("Homing_Offset", 31, 2, default=0, unit="count", sign=11),
        R("Operating_Mode", 33, default=0, low=0, high=3),
        R("Protective_Torque", 34, default=20, low=0, high=100, unit="1 %"),
        R("Protection_Time", 35, default=200, low=0, high=254, unit="10 ms"),
        R("Overload_Torque", 36, default=80, low=0, high=100, unit="1 %"),
        R("Velocity_closed_loop_P_proportional_coefficient", 37, default=10, low=0, high=100),
        R("Over_Current_Protection_Time", 38, default=200, low=0, high=254, unit="10 ms"),
        R("Velocity_closed_loop_I_integral_coefficient", 39, default=10, low=0, high=254),
        R("Torque_Enable", 40, default=0),
        R("Acceleration", 41, default=0, low=0, high=254, unit="100 count/s^2"),
        R("Goal_Position", 42, 2, default=0, unit="count", sign=15),
        R("Goal_Time", 44, 2, default=0, unit="0.1 %", sign=10),
        R("Goal_Velocity", 46, 2, default=0, unit="count/s", sign=15),
        R("Torque_Limit", 48, 2, default=1000, low=0, high=1000, unit="0.1 %"),
        R("Lock", 55, default=1, low=0, high=1),
        R("Present_Position", 56, 2, unit="count", sign=15, writable=False),
        R("Present_Velocity", 58, 2, unit="count/s", sign=15, writable=False),
        R("Present_Load", 60, 2, unit="0.1 %", sign=10, writable=False),
        R("Present_Voltage", 62, unit="0.1 V", writable=False),
        R("Present_Temperature", 63, unit="degree C", writable=False),
        R("Registered_Write", 64, writable=False),
        R("Status", 65, writable=False),
        R("Moving", 66, writable=False),
        R("Present_Current", 69, 2, unit="6.5 mA", sign=15, writable=False),
        R("Goal_Position_2", 71, 2, unit="count", sign=15, writable=False),
        R("Moving_Velocity_Threshold", 80, default=10, unit="count/s"),
        R("DTs", 81, default=1, unit="ms", writable=False),
        R("Velocity_Unit_factor", 82, default=1),
        R("Hts", 83, default=0, writable=False),
        R("Maximum_Velocity_Limit", 84, default=68, unit="50 count/s"),
        R("Maximum_Acceleration", 85, default=254, unit="100 count/s^2"),
        R("Acceleration_Multiplier", 86, default=1),
    ),
)
BAUDS = (1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400)  # by the code in Baud_Rate
VOLTAGE, ENCODER, TEMPERATURE, CURRENT, LOAD = 1, 2, 4, 8, 32  # bits of the status
DUTY_PER_RAD = 0.166  # and unit of P
GREATEST_DUTY = 0.97
COOLED = 5.0  # K below the limit, where a hot servo works again
AMPERE = 1 / 0.0065  # counts of Present_Current
MULTI_TURN = 0x10  # bit of Phase: positions are not folded into one turn
CENTRE = 128  # written to Torque_Enable: the present position becomes 2048
POSITION, VELOCITY, PWM, STEP = range(4)


class STS3215(Servo):
    """One servo. `present = shaft - Homing_Offset`, folded into 0..4095 unless `Phase` says otherwise."""

    model = "sts3215"
    table = STS_TABLE
    motor = STS3215_MOTOR
    bauds = BAUDS

    # the wire

    def speaks(self, kind: str) -> bool:
        """Whether a request of that kind is answered, by the response level."""
        return self.memory["Response_Status_Level"] > 0 or kind in ("ping", "read", "sync_read")

    def accept(self, address: int, data: bytes) -> int:
        """See `Servo.accept`. What may not be written is left as it is without a word."""
        memory = self.memory
        before = {register.name: memory[register.name] for register in self.table.touched(address, len(data))}
        self._place_bytes(address, data)
        if not memory["Lock"]:
            memory.store(address, len(data))
        for name, old in before.items():
            self._changed(name, old)
        self._known = False
        return self.status

    def _changed(self, name: str, before: int) -> None:
        """Side effects of a register that was written."""
        memory = self.memory
        if name == "Torque_Enable":
            self._switch(before)
        elif name == "Goal_Position":
            if memory["Operating_Mode"] == STEP:
                self._steps += memory[name]
            if self.status & LOAD and (memory[name] - self._frame()) * self._blocked < 0:
                self._clear(LOAD)
        elif name in ("Homing_Offset", "Phase", "Operating_Mode"):
            self._steps = self._frame()
            self.set_point.put(self._frame())

    def _switch(self, before: int) -> None:
        memory = self.memory
        if memory["Torque_Enable"] == CENTRE:
            offset = round(self.counts() - COUNTS / 2)
            memory["Homing_Offset"] = (offset + COUNTS // 2) % COUNTS - COUNTS // 2
            memory.store(self.table["Homing_Offset"].address, 2)
            memory["Torque_Enable"] = before
        if not memory["Torque_Enable"]:
            self._clear(LOAD | CURRENT)
        elif not before:
            place = self._frame()
            self._steps = place
            memory["Goal_Position"] = round(place)
            self.set_point.put(place)
        memory["Torque_Enable"] = min(1, memory["Torque_Enable"])

    # the loop

    def wake(self) -> None:
        """See `Servo.wake`."""
        memory = self.memory
        memory["Torque_Limit"] = memory["Max_Torque_Limit"]
        self._steps = round(self._frame())
        memory["Goal_Position"] = round(self._frame())
        self._blocked = self._loaded = self._surged = 0.0

    def _frame(self) -> float:
        """Where the shaft is, in the counts that goals and readings are in."""
        place = self.counts() - self.memory["Homing_Offset"]
        return place if self.memory["Phase"] & MULTI_TURN else place % COUNTS

    def _asked(self) -> Command | None:
        """See `Servo._asked`."""
        memory, mode = self.memory, self.memory["Operating_Mode"]
        if (
            not memory["Torque_Enable"]
            or self.status & (VOLTAGE | TEMPERATURE | CURRENT) & memory["Unloading_Condition"]
        ):
            return None
        limit = min(memory["Max_Torque_Limit"], memory["Torque_Limit"]) / 1000
        if self.status & LOAD and memory["Unloading_Condition"] & LOAD:
            limit = min(limit, memory["Protective_Torque"] / 100)
        limit = min(limit, GREATEST_DUTY)
        if mode == PWM:
            return Command(mode="duty", duty=memory["Goal_Time"] / 1000, limit=limit)

        acceleration: float = 100 * min(a for a in (memory["Acceleration"], memory["Maximum_Acceleration"], 999) if a)
        if not memory["Acceleration"]:
            acceleration = math.inf
        speed, fastest = abs(memory["Goal_Velocity"]), 50 * memory["Maximum_Velocity_Limit"] or math.inf
        return Command(
            mode="velocity" if mode == VELOCITY else "position",
            goal=self._goal(mode),
            speed=min(speed or fastest, fastest),
            acceleration=acceleration,
            gain=DUTY_PER_RAD * memory["P_Coefficient"] * 2 * math.pi / COUNTS,
            start=memory["Minimum_Startup_Force"] / 1000,
            dead=max(memory["CW_Dead_Zone"], memory["CCW_Dead_Zone"]),
            limit=limit,
        )

    def _goal(self, mode: int) -> float:
        memory = self.memory
        if mode == VELOCITY:
            return memory["Goal_Velocity"]
        if mode == STEP:
            return self._steps
        low, high = memory["Min_Position_Limit"], memory["Max_Position_Limit"]
        return max(low, min(high, memory["Goal_Position"])) if low < high else memory["Goal_Position"]

    def _protect(self, dt: float) -> None:
        """Overload, over-current, temperature and voltage: set the bits of the status."""
        memory, status = self.memory, self.status

        loaded = abs(self.duty) * 100 > memory["Overload_Torque"]
        self._loaded = self._loaded + dt if loaded else 0.0
        if self._loaded > memory["Protection_Time"] / 100:
            self.status |= LOAD
            self._blocked = self.duty
        surging = abs(self.current) * AMPERE > memory["Protection_Current"]
        self._surged = self._surged + dt if surging else 0.0
        if self._surged > memory["Over_Current_Protection_Time"] / 100:
            self.status |= CURRENT

        cool = COOLED if status & TEMPERATURE else 0.0
        self._mark(TEMPERATURE, self.temperature > memory["Max_Temperature_Limit"] - cool)
        volts = 10 * self.voltage
        self._mark(VOLTAGE, not memory["Min_Voltage_Limit"] <= volts <= memory["Max_Voltage_Limit"])
        if self.status != status:
            self._known = False

    def _mark(self, bit: int, holds: bool) -> None:
        self.status = self.status | bit if holds else self.status & ~bit

    def _clear(self, bits: int) -> None:
        self.status &= ~bits
        self._known = False
        self._loaded = self._surged = 0.0

    def overload(self) -> None:
        """See `Servo.overload`."""
        self.status |= LOAD
        self._blocked = self.duty
        self._known = False

    def refresh(self) -> None:
        """See `Servo.refresh`."""
        memory = self.memory
        place = round(self._frame())
        memory["Present_Position"] = place if memory["Phase"] & MULTI_TURN else place % COUNTS
        memory["Present_Velocity"] = round(self.velocity * COUNTS / (2 * math.pi))
        memory["Present_Load"] = round(self.duty * 1000)
        memory["Present_Voltage"] = round(10 * self.voltage)
        memory["Present_Temperature"] = round(self.temperature)
        memory["Present_Current"] = round(self.current * AMPERE)
        memory["Status"] = self.status
        memory["Moving"] = abs(memory["Present_Velocity"]) > memory["Moving_Velocity_Threshold"]
        memory["Goal_Position_2"] = memory["Goal_Position"]
        memory["Registered_Write"] = self.pending is not None
