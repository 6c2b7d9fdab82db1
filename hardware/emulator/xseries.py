"""Dynamixel XL330-M077, XL330-M288 and XL430-W250: their control tables, and what their firmware does with them.

Sources. Tables, units, errors and modes: ROBOTIS e-Manual, pages xl330-m077, xl330-m288 and xl430-w250; names are those
of lerobot 0.6.1, `motors/dynamixel/tables.py`. Position loop: better-actuator-models 1.0.2, `dynamixel/actuator.py`:
the output of the P gain is half of what the manual says, as was measured on an XL330.
Not published and therefore chosen here: I, D and feedforward gains are stored and have no effect; the velocity mode
follows a moving set-point with the position's P gain; an overload is 95 % of the duty for 1.5 s; the reverse mode
negates the count; a hot servo stays off until its reboot. Not emulated: indirect addresses, the secondary id,
time-based profiles, the start-up configuration.
"""

from __future__ import annotations

import math

from .motor import XL330_M077_MOTOR, XL330_M288_MOTOR, XL430_MOTOR, Command
from .servo import COUNTS, PER_RAD, Servo
from .table import Register, Table

R = Register
VELOCITY_UNIT = 0.229 * COUNTS / 60  # counts/s of one count of a velocity
ACCELERATION_UNIT = 214.577 * COUNTS / 3600  # counts/s^2
FULL = 885  # counts of PWM at a duty of 1
BAUDS = (9_600, 57_600, 115_200, 1_000_000, 2_000_000, 3_000_000, 4_000_000)  # by the code in Baud_Rate
CURRENT, VELOCITY, POSITION, EXTENDED, CURRENT_POSITION, PWM = 0, 1, 3, 4, 5, 16  # operating modes
ALERT = 0x80
INSTRUCTION, CHECK, RANGE, LIMIT, ACCESS = 2, 3, 4, 6, 7  # errors of an answer
VOLTAGE, HEAT, LOAD = 1, 4, 32  # bits of Hardware_Error_Status
GAINS = (
    "Velocity_I_Gain",
    "Velocity_P_Gain",
    "Position_D_Gain",
    "Position_I_Gain",
    "Position_P_Gain",
    "Feedforward_2nd_Gain",
    "Feedforward_1st_Gain",
    "Profile_Acceleration",
    "Profile_Velocity",
)
OVERLOAD_DUTY, OVERLOAD_TIME = 0.95, 1.5  # of the limit, s
WATCHDOG_UNIT = 0.02  # s
EXPIRED = 255  # what Bus_Watchdog reads when it has struck


def _table(
    name: str,
    model: int,
    hot: int,
    volts: tuple[int, int, int, int],
    speed: tuple[int, int],
    gains: dict[str, int],
    amperes: int | None,
) -> Table:
    """`volts`: highest and lowest allowed, range. `speed`: limit and its range. `amperes`: limit in mA, if measured."""
    most, least, low, high = volts
    current: tuple[Register, ...] = (R("Present_Load", 126, 2, unit="0.1 %", sign=-1, writable=False),)
    if amperes:
        current = (
            R("Current_Limit", 38, 2, default=amperes, low=0, high=amperes, unit="mA"),
            R("Goal_Current", 102, 2, default=amperes, unit="mA", sign=-1),
            R("Present_Current", 126, 2, unit="mA", sign=-1, writable=False),
        )
    registers = (
        R("Model_Number", 0, 2, default=model, writable=False),
        R("Model_Information", 2, 4, writable=False),
        R("Firmware_Version", 6, default=53, writable=False),
        R("ID", 7, default=1, low=0, high=252),
        R("Baud_Rate", 8, default=1, low=0, high=6),
        R("Return_Delay_Time", 9, default=250, low=0, high=254, unit="2 us"),
        R("Drive_Mode", 10, default=0, low=0, high=13),
        R("Operating_Mode", 11, default=POSITION, low=0, high=16),
        R("Secondary_ID", 12, default=255),
        R("Protocol_Type", 13, default=2, low=2, high=2),
        R("Homing_Offset", 20, 4, low=-1_044_479, high=1_044_479, unit="count", sign=-1),
        R("Moving_Threshold", 24, 4, default=10, low=0, high=1023, unit="0.229 rev/min"),
        R("Temperature_Limit", 31, default=hot, low=0, high=100, unit="degree C"),
        R("Max_Voltage_Limit", 32, 2, default=most, low=low, high=high, unit="0.1 V"),
        R("Min_Voltage_Limit", 34, 2, default=least, low=low, high=high, unit="0.1 V"),
        R("PWM_Limit", 36, 2, default=FULL, low=0, high=FULL, unit="0.113 %"),
        R("Acceleration_Limit", 40, 4, default=32_767, low=0, high=32_767, unit="214.577 rev/min^2"),
        R("Velocity_Limit", 44, 4, default=speed[0], low=0, high=speed[1], unit="0.229 rev/min"),
        R("Max_Position_Limit", 48, 4, default=4095, low=0, high=4095, unit="count"),
        R("Min_Position_Limit", 52, 4, default=0, low=0, high=4095, unit="count"),
        R("Startup_Configuration", 60),
        R("PWM_Slope", 62, default=140, low=1, high=255, unit="1.977 mV/ms"),
        R("Shutdown", 63, default=53 if amperes else 52),
        R("Torque_Enable", 64, low=0, high=1),
        R("LED", 65, low=0, high=1),
        R("Status_Return_Level", 68, default=2, low=0, high=2),
        R("Registered_Instruction", 69, writable=False),
        R("Hardware_Error_Status", 70, writable=False),
        R("Velocity_I_Gain", 76, 2, default=gains["vi"], low=0, high=16_383),
        R("Velocity_P_Gain", 78, 2, default=gains["vp"], low=0, high=16_383),
        R("Position_D_Gain", 80, 2, default=gains["d"], low=0, high=16_383),
        R("Position_I_Gain", 82, 2, default=0, low=0, high=16_383),
        R("Position_P_Gain", 84, 2, default=gains["p"], low=0, high=16_383),
        R("Feedforward_2nd_Gain", 88, 2, low=0, high=16_383),
        R("Feedforward_1st_Gain", 90, 2, low=0, high=16_383),
        R("Bus_Watchdog", 98, low=0, high=127, unit="20 ms"),
        R("Goal_PWM", 100, 2, default=FULL, unit="0.113 %", sign=-1),
        R("Goal_Velocity", 104, 4, unit="0.229 rev/min", sign=-1),
        R("Profile_Acceleration", 108, 4, low=0, high=32_767, unit="214.577 rev/min^2"),
        R("Profile_Velocity", 112, 4, low=0, high=32_767, unit="0.229 rev/min"),
        R("Goal_Position", 116, 4, unit="count", sign=-1),
        R("Realtime_Tick", 120, 2, unit="ms", writable=False),
        R("Moving", 122, writable=False),
        R("Moving_Status", 123, writable=False),
        R("Present_PWM", 124, 2, unit="0.113 %", sign=-1, writable=False),
        R("Present_Velocity", 128, 4, unit="0.229 rev/min", sign=-1, writable=False),
        R("Present_Position", 132, 4, unit="count", sign=-1, writable=False),
        R("Velocity_Trajectory", 136, 4, unit="0.229 rev/min", sign=-1, writable=False),
        R("Position_Trajectory", 140, 4, unit="count", sign=-1, writable=False),
        R("Present_Input_Voltage", 144, 2, unit="0.1 V", writable=False),
        R("Present_Temperature", 146, unit="degree C", writable=False),
        R("Backup_Ready", 147, writable=False),
        *current,
    )
    return Table(name, 256, 64, tuple(sorted(registers, key=lambda register: register.address)))


class XSeries(Servo):
    """One servo. `present = shaft + Homing_Offset`; only the position mode folds it into one turn, when it begins."""

    bauds = BAUDS
    modes: tuple[int, ...]

    # the wire

    @property
    def error(self) -> int:
        """See `Servo.error`."""
        return ALERT if self.status else 0

    def identity(self) -> bytes:
        """See `Servo.identity`: model and firmware."""
        return bytes(self.memory.raw[0:2]) + bytes(self.memory.raw[6:7])

    def refusal(self, kind: str) -> int | None:
        """See `Servo.refusal`."""
        return self.error | (CHECK if kind == "corrupt" else INSTRUCTION)

    def speaks(self, kind: str) -> bool:
        """Whether a request of that kind is answered, by the status return level."""
        level = self.memory["Status_Return_Level"]
        return level > 1 or kind == "ping" or (level == 1 and kind in ("read", "sync_read", "bulk_read"))

    def accept(self, address: int, data: bytes) -> int:
        """See `Servo.accept`. A write that is refused in one register changes none."""
        memory = self.memory
        touched = self.table.touched(address, len(data))
        error = self._refused(address, data, touched)
        if error:
            return self.error | error
        before = {register.name: memory[register.name] for register in touched}
        memory.raw[address : address + len(data)] = data
        memory.store(address, len(data))
        for name, old in before.items():
            self._changed(name, old)
        self._known = False
        return self.error

    def _refused(self, address: int, data: bytes, touched: list[Register]) -> int:
        """The error of a write, 0 if it may be done."""
        memory = self.memory
        if not touched or address + len(data) > self.table.size or not all(r.writable for r in touched):
            return ACCESS
        if touched[0].address < self.table.ram and memory["Torque_Enable"]:
            return ACCESS
        content = bytearray(memory.raw)
        content[address : address + len(data)] = data
        for register in touched:
            value = register.decode(content[register.address : register.address + register.size])
            if register.low is not None and value < register.low or register.high is not None and value > register.high:
                return RANGE
            if register.name == "Operating_Mode" and value not in self.modes:
                return RANGE
            if register.name == "Torque_Enable" and value and self.status & memory["Shutdown"]:
                return ACCESS
            if register.name.startswith("Goal_"):
                if memory["Bus_Watchdog"] == EXPIRED:
                    return RANGE
                low, high = self._bounds(register.name)
                if not low <= value <= high:
                    return LIMIT
        return 0

    def _bounds(self, name: str) -> tuple[float, float]:
        """Of a goal, from the limits in the EEPROM."""
        memory = self.memory
        if name == "Goal_Position":
            if memory["Operating_Mode"] == POSITION:
                return memory["Min_Position_Limit"], memory["Max_Position_Limit"]
            return -1_048_575, 1_048_575
        limit = memory[
            {"Goal_PWM": "PWM_Limit", "Goal_Velocity": "Velocity_Limit", "Goal_Current": "Current_Limit"}[name]
        ]
        return -limit, limit

    def _changed(self, name: str, before: int) -> None:
        """Side effects of a register that was written."""
        memory = self.memory
        if name == "Operating_Mode" and memory[name] != before:
            for gain in GAINS:
                memory[gain] = self.table[gain].default
            self._begin()
        elif name == "Torque_Enable" and memory[name] and not before:
            self._begin()
        elif name in ("Homing_Offset", "Drive_Mode"):
            self.set_point.put(self._frame())

    def _begin(self) -> None:
        """The goal becomes the present position, which in the position mode is of one turn."""
        if self.memory["Operating_Mode"] == POSITION:
            self._turn = math.floor(self._signed() / COUNTS) * COUNTS
        place = self._frame()
        self.memory["Goal_Position"] = round(place)
        self.memory["Goal_Velocity"] = 0
        self.set_point.put(place)

    # the loop

    def wake(self) -> None:
        """See `Servo.wake`."""
        memory = self.memory
        self._turn = math.floor(self._signed() / COUNTS) * COUNTS
        self._awake = 0.0
        memory["Goal_PWM"] = memory["PWM_Limit"]
        if "Goal_Current" in self.table.by_name:
            memory["Goal_Current"] = memory["Current_Limit"]
        self._loaded = 0.0
        self._begin()

    def _signed(self) -> float:
        """The shaft's count in the sense of the drive mode."""
        return -self.counts() if self.memory["Drive_Mode"] & 1 else self.counts()

    def _frame(self) -> float:
        return self._signed() - self._turn + self.memory["Homing_Offset"]

    def _sense(self) -> float:
        return -1.0 if self.memory["Drive_Mode"] & 1 else 1.0

    def _asked(self) -> Command | None:
        """See `Servo._asked`."""
        memory, mode = self.memory, self.memory["Operating_Mode"]
        if not memory["Torque_Enable"]:
            return None
        limit = min(memory["PWM_Limit"], abs(memory["Goal_PWM"])) / FULL
        current = math.inf
        if "Goal_Current" in self.table.by_name:
            allowed = memory["Current_Limit"]
            wanted = abs(memory["Goal_Current"]) if mode in (CURRENT, CURRENT_POSITION) else allowed
            current = min(allowed, wanted) / 1000
        if mode == PWM:
            return Command(mode="duty", duty=memory["Goal_PWM"] / FULL, limit=limit, current=current)
        if mode == CURRENT:
            return Command(mode="duty", duty=math.copysign(1.0, memory["Goal_Current"]), limit=limit, current=current)

        speed, acceleration = memory["Profile_Velocity"], memory["Profile_Acceleration"]
        return Command(
            mode="velocity" if mode == VELOCITY else "position",
            goal=memory["Goal_Velocity"] * VELOCITY_UNIT if mode == VELOCITY else memory["Goal_Position"],
            speed=speed * VELOCITY_UNIT if speed and mode != VELOCITY else math.inf,
            acceleration=acceleration * ACCELERATION_UNIT if acceleration else math.inf,
            gain=memory["Position_P_Gain"] / (256 * FULL),
            limit=limit,
            current=current,
        )

    def _protect(self, dt: float) -> None:
        """Voltage, heat and overload switch the torque off as `Shutdown` says; silence ends a movement."""
        memory = self.memory
        self._awake += dt
        self.quiet += dt
        limit = memory["PWM_Limit"] / FULL
        self._loaded = self._loaded + dt if abs(self.duty) > OVERLOAD_DUTY * limit else 0.0

        volts = 10 * self.voltage
        if not memory["Min_Voltage_Limit"] <= volts <= memory["Max_Voltage_Limit"]:
            self._shut(VOLTAGE)
        if self.temperature > memory["Temperature_Limit"]:
            self._shut(HEAT)
        if self._loaded > OVERLOAD_TIME:
            self._shut(LOAD)

        watch = memory["Bus_Watchdog"]
        if 0 < watch < EXPIRED and memory["Torque_Enable"] and self.quiet > watch * WATCHDOG_UNIT:
            self._begin()
            memory["Bus_Watchdog"] = EXPIRED
            self._known = False

    def _shut(self, bit: int) -> None:
        self.status |= bit
        if self.status & self.memory["Shutdown"]:
            self.memory["Torque_Enable"] = 0
            self._known = False

    def overload(self) -> None:
        """See `Servo.overload`."""
        self._shut(LOAD)

    def refresh(self) -> None:
        """See `Servo.refresh`."""
        memory, sense = self.memory, self._sense()
        speed = sense * self.velocity * PER_RAD / VELOCITY_UNIT
        memory["Present_Position"] = round(self._frame())
        memory["Present_Velocity"] = round(speed)
        memory["Present_PWM"] = round(sense * self.duty * FULL)
        if "Present_Current" in self.table.by_name:
            memory["Present_Current"] = round(sense * self.current * 1000)
        else:
            memory["Present_Load"] = round(sense * self.duty * 1000)
        memory["Velocity_Trajectory"] = round(self.set_point.speed / VELOCITY_UNIT)
        memory["Position_Trajectory"] = round(self.set_point.place)
        memory["Present_Input_Voltage"] = round(10 * self.voltage)
        memory["Present_Temperature"] = round(self.temperature)
        memory["Hardware_Error_Status"] = self.status
        memory["Moving"] = abs(speed) > memory["Moving_Threshold"]
        memory["Realtime_Tick"] = int(self._awake * 1000) % 32_768
        memory["Registered_Instruction"] = self.pending is not None


_XL330_GAINS = {"vi": 1600, "vp": 180, "d": 0, "p": 400}


class XL330M077(XSeries):
    """The leader's servo."""

    model = "xl330-m077"
    table = _table(model, 1190, 70, (70, 35, 31, 70), (1620, 2047), _XL330_GAINS, 1750)
    motor = XL330_M077_MOTOR
    modes = (CURRENT, VELOCITY, POSITION, EXTENDED, CURRENT_POSITION, PWM)


class XL330M288(XSeries):
    """The follower's small servo."""

    model = "xl330-m288"
    table = _table(model, 1200, 70, (70, 35, 31, 70), (445, 2047), _XL330_GAINS, 1750)
    motor = XL330_M288_MOTOR
    modes = (CURRENT, VELOCITY, POSITION, EXTENDED, CURRENT_POSITION, PWM)


class XL430(XSeries):
    """The follower's strong servo; it measures load instead of current."""

    model = "xl430-w250"
    gains = {"vi": 1000, "vp": 100, "d": 4000, "p": 640}
    table = _table(model, 1060, 72, (140, 60, 60, 140), (265, 1023), gains, None)
    motor = XL430_MOTOR
    modes = (VELOCITY, POSITION, EXTENDED, PWM)
