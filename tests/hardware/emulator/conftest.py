"""What the tests of the emulator share."""

import threading
import time

import pytest


@pytest.fixture(scope="session")
def lerobot_motors():
    """lerobot, ready to drive: skipped where it is not installed."""
    pytest.importorskip("lerobot", reason="lerobot is not installed")
    from understudy.configs.compat import prepare_lerobot

    prepare_lerobot()
    return pytest.importorskip("lerobot.motors")


@pytest.fixture
def until():
    """Wait until `holds()` is true; fail with `what` after 60 s."""

    def wait(holds, what="the state that is waited for"):
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, f"{what} did not come"
            threading.Event().wait(0.002)

    return wait


@pytest.fixture
def patiently():
    """Call again while a busy machine lets an answer come after lerobot's 50 ms; `close()` before another try."""

    def call(action, close=lambda: None):
        for _ in range(20):
            try:
                return action()
            except (ConnectionError, RuntimeError) as error:
                missed = error
                close()
        raise missed

    return call


@pytest.fixture(scope="session")
def unhurried():
    """Make a bus of lerobot's wait a second longer than its 34 or 50 ms: this machine may be busy. Returns the bus."""

    def make(bus):
        port, usual = bus.port_handler, bus.port_handler.setPacketTimeout

        def longer(length):
            usual(length)
            port.packet_timeout += 1000

        port.setPacketTimeout = longer
        return bus

    return make
