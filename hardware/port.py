"""Serial ports: whether there is one that may be used, and what one raises when it is gone, by its name."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .feetech import LATE

PORTS = "plug the arm in; ls /dev/ttyACM* /dev/ttyUSB* names the ports, lerobot-find-port which of them it is"
MEMORY = 1  # Linux's major number of /dev/null and its like


@contextmanager
def spoken_for(port: str) -> Iterator[None]:
    """Whatever a serial port raises when it is gone, as one ConnectionError that names it."""
    import termios

    import serial

    try:
        yield
    except ConnectionError as error:
        raise ConnectionError(f"{port}: {error}") from error
    except (serial.SerialException, OSError, termios.error, RuntimeError) as error:
        raise ConnectionError(f"{port}: {error}") from error
    except IndexError as error:  # scservo_sdk's answer to a packet that is too short
        raise ConnectionError(f"{port}: an answer was cut short") from error


def port_fault(port: str) -> tuple[str, str] | None:
    """(what is wrong with a serial port, what to do about it); None: it may be used. Nothing is sent."""
    if not os.path.exists(port):
        return f"{port}: there is no such port", PORTS
    about = os.stat(port)
    if not stat.S_ISCHR(about.st_mode):
        return f"{port} is a file or folder, not a serial port", PORTS
    if sys.platform == "linux" and os.major(about.st_rdev) == MEMORY:
        return f"{port} is a device, but no serial port", PORTS
    if not os.access(port, os.R_OK | os.W_OK):
        return f"{port}: no permission", "sudo usermod -a -G dialout $USER, then log in anew"
    return None


def check_port(port: str) -> None:
    """Raise ConnectionError: there is no such port, or it is not ours to use."""
    if fault := port_fault(port):
        raise ConnectionError("; ".join(fault))


class Claim:
    """One program alone drives the arm on a port, as far as others ask: ours do, and whoever locks as pyserial does.

    Raises ConnectionError: another one does, or the port cannot be opened.
    """

    def __init__(self, port: str):
        import fcntl

        with spoken_for(port):
            self._file: int | None = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise ConnectionError(f"{port}: another program drives it; end that one first (fuser {port})") from error

    def release(self) -> None:
        """Safe to call twice."""
        import fcntl

        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # whoever inherited it
            os.close(file)


def fall_silent(bus, port: str) -> None:
    """Wait for answers that are late to a bus of lerobot's, and forget them. Raises ConnectionError."""
    time.sleep(LATE)
    with spoken_for(port):
        bus.port_handler.clearPort()
        bus.port_handler.ser.reset_input_buffer()
