"""What a caller and the guard's process say to each other: commands, readings and answers as bytes, the rest as JSON.

One answer to each message. A command goes two hundred times a second, so it is a few numbers; its first byte says what
a message is. Nothing here knows of buses or guards.
"""

from __future__ import annotations

import json
import select
import struct
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .envelope import Command, Foresight, Outcome, Verdict

COMMAND, OBSERVE, READING, VERDICT, OTHER = b"cormj"  # the first byte
OUTCOMES = tuple(Outcome)
_COMMAND = struct.Struct("<Bdq")  # what, time, number; then the target
_READING = struct.Struct("<Bd")  # what, time; then the position
# what, outcome, joints, foreseen, when it was written; then what was sent, and the reasons, a line each
_VERDICT = struct.Struct("<BBHBd")
NOTHING, ALLOWED, VETOED = 0, 1, 2  # foreseen; else than nothing, force and torques follow what was sent


class Line:
    """One end of a pipe between two processes. EOFError or OSError: the other end is gone."""

    def __init__(self, pipe: Connection):
        self.pipe = pipe
        self._waiting = None
        if hasattr(select, "poll"):  # a tenth of the time of the pipe's own poll
            self._waiting = select.poll()
            self._waiting.register(pipe.fileno(), select.POLLIN)

    def hears(self, seconds: float) -> bool:
        """Wait for a message, or for the other end's end."""
        if self._waiting is None:
            return self.pipe.poll(seconds)
        return bool(self._waiting.poll(1000 * seconds))

    def hear(self) -> bytes:
        return self.pipe.recv_bytes()

    def say(self, message: bytes) -> None:
        self.pipe.send_bytes(message)

    def tell(self, **content: Any) -> None:
        """Say something else than a command, a reading or a verdict."""
        self.say(other(**content))

    def close(self) -> None:
        self.pipe.close()


def other(**content: Any) -> bytes:
    """A message that is no command, reading or verdict."""
    return bytes([OTHER]) + json.dumps(content).encode()


def told(message: bytes) -> dict[str, Any] | None:
    """What `tell` was given; None for another message."""
    return json.loads(message[1:]) if message[0] == OTHER else None


def pack_command(target: np.ndarray, time: float, number: int) -> bytes:
    """`target` (D,). Raises ValueError: another shape."""
    if np.ndim(target) != 1:
        raise ValueError(f"a command is one number a joint, not of shape {np.shape(target)}")
    return _COMMAND.pack(COMMAND, time, number) + np.asarray(target, "<f8").tobytes()


def unpack_command(message: bytes) -> Command:
    _, time, number = _COMMAND.unpack_from(message)
    return Command(target=np.frombuffer(message, "<f8", offset=_COMMAND.size), time=time, number=number)


def pack_reading(position: np.ndarray, time: float) -> bytes:
    """`position` (D,)."""
    return _READING.pack(READING, time) + np.asarray(position, "<f8").tobytes()


def unpack_reading(message: bytes) -> tuple[np.ndarray, float]:
    return np.frombuffer(message, "<f8", offset=_READING.size), _READING.unpack_from(message)[1]


def pack_verdict(verdict: Verdict) -> bytes:
    """Of what was foreseen whether it was allowed, its torque, force and time."""
    seen, numbers = verdict.foreseen, np.asarray(verdict.sent, "<f8").tobytes()
    foreseen = NOTHING if seen is None else ALLOWED if seen.allowed else VETOED
    if seen is not None:
        numbers += np.array([seen.force, seen.time, *seen.torque], "<f8").tobytes()
    head = _VERDICT.pack(VERDICT, OUTCOMES.index(verdict.outcome), len(verdict.sent), foreseen, verdict.written)
    return head + numbers + "\n".join(verdict.reasons).encode()


def unpack_verdict(message: bytes) -> Verdict:
    """With what was sent as float32."""
    _, outcome, size, foreseen, written = _VERDICT.unpack_from(message)
    count = size if foreseen == NOTHING else 2 * size + 2
    end = _VERDICT.size + 8 * count
    numbers = np.frombuffer(message[_VERDICT.size : end], "<f8")
    seen = None
    if foreseen != NOTHING:
        force, moment = numbers[size : size + 2].tolist()
        seen = Foresight(foreseen == ALLOWED, numbers[size + 2 :], force, time=moment)
    reasons = tuple(filter(None, message[end:].decode().split("\n")))
    return Verdict(OUTCOMES[outcome], numbers[:size].astype(np.float32), reasons, written, seen)
