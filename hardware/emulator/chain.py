"""The servos of one arm on one bus: carries requests out, advances time. Knows neither bytes on the wire nor ports.

It has a clock of its own, `time` in s, that only `advance` moves: without a port (`bus.py`) a chain is a simulation
like any other, and the same calls give the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from .packets import BROADCAST, Change, Request, Status
from .servo import Servo
from .shafts import FreeShafts, Shaft, Shafts

Answers = list[list[Status]]  # in the order of the bus; more than one at once where ids collide


class Chain:
    """Servos in the order of the joints, and what they turn. Two servos may have one id, as on a real bus."""

    def __init__(self, servos: Sequence[Servo], shafts: Shafts | None = None):
        self.servos = tuple(servos)
        self.shafts = shafts or FreeShafts([s.motor for s in servos], [Shaft(s.angle) for s in servos])
        self.time, self._rest = 0.0, 0.0
        self._turns = [0.0] * len(self.servos)  # rad that a servo's encoder does not know of
        for servo, shaft in zip(self.servos, self.shafts.shafts, strict=True):
            servo.angle = shaft.angle
            self.restart(servo)

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps of the shafts; what is left of one is kept for the next call."""
        self._rest += seconds
        dt = self.shafts.dt
        while self._rest >= dt:
            self._rest -= dt
            self._step(dt)

    def _step(self, dt: float) -> None:
        torques, braking = [], []
        for servo in self.servos:
            servo.drive(dt)
            torques.append(servo.motor.torque(servo.duty, servo.voltage) if servo.driven else 0.0)
            braking.append(servo.motor.braking if servo.driven else 0.0)
        self.shafts.step(torques, braking)
        self.follow(dt)
        self.time += dt

    def follow(self, dt: float = 0.0) -> None:
        """Let the servos feel where their shafts are, and that so many seconds have passed."""
        for servo, shaft, turns in zip(self.servos, self.shafts.shafts, self._turns, strict=True):
            servo.settle(shaft.angle - turns, shaft.velocity, dt)

    def supply(self, volts: float | None, id: int | None = None) -> None:
        """Change the voltage at the servos, or at one id; None is the usual one. Who lost it forgets its RAM."""
        for servo in self.servos:
            if id not in (None, servo.id):
                continue
            before = servo.powered
            servo.voltage = servo.motor.voltage if volts is None else volts
            if servo.powered and not before:
                self.restart(servo)

    def restart(self, servo: Servo) -> None:
        """Power off and on again, at once."""
        servo.power_up()
        index = self.servos.index(servo)
        self._turns[index] = self.shafts.shafts[index].angle - servo.angle

    def answer(self, request: Request, baud: int | None = None) -> Answers:
        """Carry a request out.

        `baud`: bits a second of the host; who is set to another hears nothing. None is every servo's own.
        """
        hearing = [servo for servo in self.servos if servo.powered and baud in (None, servo.baud)]
        for servo in hearing:
            servo.quiet = 0.0
        everyone = sorted({servo.id for servo in hearing})
        called = everyone if request.id == BROADCAST else [request.id]
        groups = [(id, [servo for servo in hearing if servo.id == id]) for id in called]

        kind = request.kind
        if kind == "ping":
            answers = [[_status(servo, data=servo.identity()) for servo in servos] for _, servos in groups]
        elif request.reads:
            answers = self._read(request, hearing)
        elif kind in ("write", "sync_write", "bulk_write"):
            answers = self._write(request, hearing, everyone)
        elif kind in ("reg_write", "action"):
            answers = self._later(request, groups)
        elif kind in ("reboot", "factory_reset"):
            answers = self._restarted(request, groups)
        else:
            answers = [
                [_status(servo, code) for servo in servos if (code := servo.refusal(kind)) is not None]
                for _, servos in groups
            ]

        quiet = request.id == BROADCAST and not request.reads and kind != "ping"
        return [] if quiet else [group for group in answers if group]

    def _read(self, request: Request, hearing: list[Servo]) -> Answers:
        return [
            [
                _status(servo, data=servo.read(span.address, span.length))
                for servo in hearing
                if servo.id == span.id and servo.speaks(request.kind)
            ]
            for span in request.reads
        ]

    def _write(self, request: Request, hearing: list[Servo], everyone: list[int]) -> Answers:
        answers = []
        for change in request.writes:
            for id in everyone if change.id == BROADCAST else [change.id]:
                group = []
                for servo in [servo for servo in hearing if servo.id == id]:
                    error = servo.accept(change.address, change.data)  # which may change the id
                    if servo.speaks(request.kind):
                        group.append(_status(servo, error, id=id))
                answers.append(group)
        return answers

    def _later(self, request: Request, groups: list[tuple[int, list[Servo]]]) -> Answers:
        """Keep a change until the action, or carry out what was kept."""
        for _, servos in groups:
            for servo in servos:
                if request.kind == "reg_write":
                    change: Change = request.writes[0]
                    servo.pending = (change.address, change.data)
                elif servo.pending is not None:
                    servo.accept(*servo.pending)
                    servo.pending = None
        return [[_status(s, id=id) for s in servos if s.speaks(request.kind)] for id, servos in groups]

    def _restarted(self, request: Request, groups: list[tuple[int, list[Servo]]]) -> Answers:
        answers = [[_status(s, id=id) for s in servos if s.speaks(request.kind)] for id, servos in groups]
        for _, servos in groups:
            for servo in servos:
                if request.kind == "factory_reset":
                    servo.forget()
                self.restart(servo)
        return answers


def _status(servo: Servo, error: int | None = None, data: bytes = b"", id: int | None = None) -> Status:
    return Status(servo.id if id is None else id, servo.error if error is None else error, data, servo.delay)
