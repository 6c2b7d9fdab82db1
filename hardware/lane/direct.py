"""An emulated SO-101 whose time passes only when it is told to: guard, scale, packets, servos and MuJoCo, and no clock.

The same commands give the same numbers, however busy the machine is.
"""

from __future__ import annotations

import numpy as np

from ..emulator.arm import find_kind, make_chain
from ..emulator.coupled import CoupledShafts
from ..emulator.feetech import Feetech, pack
from ..emulator.packets import BROADCAST
from ..emulator.sts3215 import STS_TABLE
from ..envelope import Measured
from ..so101 import ENVELOPE, GRIPPER, SETTINGS, STALL, Scale, torque_limits


class DirectArm:
    """Its servos turn the arm in MuJoCo, in the scene of `task` at the start `seed`, or alone."""

    def __init__(self, task: str | None = None, seed: int = 0):
        limits = torque_limits(ENVELOPE["torque"])
        self.kind = find_kind("so101")
        self.scale = Scale(self.kind.calibration())
        self.chain = make_chain(self.kind, shafts=lambda zeros: CoupledShafts(self.kind, zeros, task, seed))
        self._codec = Feetech()
        for servo, name, limit in zip(self.chain.servos, self.kind.joints, limits, strict=True):
            held = {"Torque_Limit": limit, "Torque_Enable": 1}
            for register, value in (SETTINGS | (GRIPPER if name == "gripper" else {}) | held).items():
                self._write(servo.id, register, value)

    def measure(self) -> Measured:
        """Positions and torques as the servos tell them, now."""
        position = np.array(self._read("Present_Position"), float)
        load = np.array([-(v & 1023) if v >> 10 else v for v in self._read("Present_Load")])
        return Measured(position=self.scale.angles(position), time=self.chain.time, torque=load / 1000 * STALL)

    def write(self, goal: np.ndarray) -> None:
        """A set-point (D,) rad."""
        register = STS_TABLE["Goal_Position"]
        blocks = b"".join(
            bytes([servo.id]) + int(count).to_bytes(2, "little")
            for servo, count in zip(self.chain.servos, self.scale.counts(goal), strict=True)
        )
        self._ask(pack(BROADCAST, 0x83, bytes([register.address, 2]) + blocks))

    def advance(self, seconds: float) -> None:
        self.chain.advance(seconds)

    @property
    def joints(self) -> np.ndarray:
        """(D,) rad, as they truly are."""
        shafts = self.chain.shafts
        assert isinstance(shafts, CoupledShafts)
        return shafts.joints

    @property
    def torque(self) -> np.ndarray:
        """(D,) N m that the motors give now, as the simulation has it: what drives less what their speed takes."""
        return np.array([servo.motor.kt * servo.current for servo in self.chain.servos])

    def _write(self, id: int, name: str, value: int) -> None:
        register = STS_TABLE[name]
        self._ask(pack(id, 0x03, bytes([register.address]) + value.to_bytes(register.size, "little")))

    def _read(self, name: str) -> list[int]:
        register, ids = STS_TABLE[name], bytes(servo.id for servo in self.chain.servos)
        answers = self._ask(pack(BROADCAST, 0x82, bytes([register.address, register.size]) + ids))
        return [int.from_bytes(group[0].data, "little") for group in answers]

    def _ask(self, packet: bytes):
        request = self._codec.take(bytearray(packet))
        assert request is not None
        return self.chain.answer(request)
