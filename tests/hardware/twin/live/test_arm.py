"""An SO-101 follows the twin: emulated servos that turn an arm of MuJoCo's, driver, guard, by the clock."""

import time

import numpy as np
import pytest

from understudy.configs.world import read_world
from understudy.hardware.emulator.arm import find_kind, make_chain, write_calibration
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.coupled import CoupledShafts
from understudy.hardware.emulator.feetech import Feetech

pytest.importorskip("lerobot", reason="the Feetech bus is lerobot's")
pytest.importorskip("daqp", reason="the guard's quadratic program")

KIND, START = find_kind("so101"), 900
SO101 = {"type": "mujoco", "task": "so101-pusht"}


@pytest.fixture
def arm(tmp_path):
    """(the bus of an arm in the scene, YAML of its robot)"""
    write_calibration(tmp_path / "so101.json", KIND.calibration())
    chain = make_chain(KIND, shafts=lambda zeros: CoupledShafts(KIND, zeros, "so101-pusht", START))
    with Bus(chain, Feetech()) as bus:
        file = tmp_path / "arm.yaml"
        file.write_text(f"type: so101\nport: {bus.port}\ncalibration: {tmp_path / 'so101.json'}\nrate: 60\n")
        yield bus, file


@pytest.mark.slow  # by the clock, three processes and the bus: a busy machine loses answers
def test_an_emulated_so101_follows_the_twin_through_driver_and_guard(arm):
    bus, file = arm
    lane = read_world({"type": "twin", "of": SO101, "robot": str(file), "pace": "wall", "correct": False}).lane()
    try:
        lane.reset(seed=START)
        # the wrist away from its own shoulder, which the guard keeps it off
        begun, goal = bus.chain.shafts.joints, np.asarray(lane.rest(), float) + [0.1, -0.1, 0, -0.1, 0, 0]
        end = time.monotonic() + 240  # on a busy machine the twin waits for the arm
        while time.monotonic() < end:
            lane.step(goal.astype(np.float32))
            real = bus.chain.shafts.joints
            if np.abs(real - goal)[:5].max() < 0.02:
                break
        assert np.abs(real - goal)[:5].max() < 0.02 and np.abs(begun - goal)[0] > 0.05  # sag and all
        led = lane.ticks_done()[-1]
        assert (
            np.abs(led.joints - goal)[:5].max() < 0.02 and np.abs(led.echo - real).max() < 0.05
        )  # it says what it does
    finally:
        lane.close()
