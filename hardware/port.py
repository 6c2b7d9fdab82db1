"""Serial ports: whether there is one that may be used, and what one raises when it is gone, by its name."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

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


def fall_silent(bus, port: str) -> None:
    """Wait for answers that are late to a bus of lerobot's, and forget them. Raises ConnectionError."""
    time.sleep(LATE)
    with spoken_for(port):
        bus.port_handler.clearPort()
        bus.port_handler.ser.reset_input_buffer()
