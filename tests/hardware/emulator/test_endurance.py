"""Nothing that comes over the wire, and no fault at any moment, stops the emulator."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from understudy.hardware.emulator import dynamixel, feetech
from understudy.hardware.emulator.arm import find_kind, make_chain
from understudy.hardware.emulator.bus import Bus
from understudy.hardware.emulator.faults import KINDS, Fault, Faults
from understudy.hardware.emulator.packets import INSTRUCTIONS

PROTOCOLS = {"so101": feetech, "koch": dynamixel}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_bytes_break_the_chain(name):
    """Noise, and sound packets with random instructions, ids and contents: every angle stays a number."""
    kind, rng = find_kind(name), np.random.default_rng(0)
    chain, codec, buffer = make_chain(kind), kind.codec(), bytearray()
    instructions = [*INSTRUCTIONS, 0x7F] if name == "so101" else [*dynamixel.KINDS, 0x7F]
    for _ in range(3000):
        content = rng.integers(0, 256, rng.integers(0, 24), np.uint8).tobytes()
        id = int(rng.choice([1, 2, 3, 4, 5, 6, 9, 254]))
        sound = PROTOCOLS[name].pack(id, int(rng.choice(instructions)), content)
        buffer += sound if rng.random() < 0.8 else content
        while (request := codec.take(buffer)) is not None:
            for group in chain.answer(request):
                for status in group:
                    assert codec.status(status)
        chain.advance(0.001)
    assert all(
        np.isfinite([servo.angle, servo.velocity, servo.temperature, servo.duty]).all() for servo in chain.servos
    )
    assert all(len(servo.memory.raw) == servo.table.size for servo in chain.servos)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_fault_twenty_times_at_random_moments(name, until):
    """A host that asks on and on sees silence, damage and a port that comes and goes; then all is as before."""
    serial = pytest.importorskip("serial", reason="pyserial is not installed")
    kind, rng = find_kind(name), np.random.default_rng(1)
    script = [
        Fault(kind=fault, id=int(rng.integers(1, 7)), at=float(rng.uniform(0, 1.5)), count=1, seconds=0.01)
        for fault in KINDS
        for _ in range(20)
    ]
    pack = PROTOCOLS[name].pack
    ask, size = (pack(254, 0x01), 6 * 6) if name == "so101" else (pack(254, 0x01), 6 * 14)
    with Bus(make_chain(kind), kind.codec(), Faults(script)) as bus:

        def asked():
            try:
                with serial.Serial(bus.port, 1_000_000, timeout=0.02, exclusive=False) as port:
                    for _ in range(20):
                        port.write(ask)
                        whole = len(port.read(size)) == size
            except (OSError, serial.SerialException, *TERMIOS):
                whole = False
            return whole and bus.chain.time > 1.8 and all(bus.faults.done)

        until(asked, "an answer of all six after the faults")
        assert bus.failed is None and all(servo.powered for servo in bus.chain.servos)


try:
    import termios

    TERMIOS = (termios.error,)
except ImportError:  # no Linux
    TERMIOS = ()


def test_rustypot_reads_and_writes(until):
    """The Rust bus that is the fast way to an SO-101."""
    rustypot = pytest.importorskip("rustypot", reason="rustypot is not installed")
    kind = find_kind("so101")
    with Bus(make_chain(kind), kind.codec()) as bus:
        arm = rustypot.Sts3215PyController(bus.port, 1_000_000, 0.5)
        places = arm.sync_read_present_position([1, 2, 3, 4, 5, 6])
        assert places == pytest.approx(kind.home, abs=0.002)
        arm.sync_write_torque_enable([1, 2, 3, 4, 5, 6], [True] * 6)
        arm.sync_write_goal_position([1, 2, 3, 4, 5, 6], [0.1] * 6)
        until(lambda: bus.chain.servos[5].memory["Goal_Position"] != round(2048 + kind.home[5] * 652))
        assert {servo.memory["Goal_Position"] for servo in bus.chain.servos} == {2113}


@pytest.mark.slow
def test_stock_lerobot_record_writes_a_dataset_that_ours_opens(tmp_path, lerobot_motors, command):
    """`lerobot-record` with a follower and a leader on two emulated ports, each its own command."""
    environment = os.environ | {"HF_LEROBOT_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    starts = {
        "follower": ("--load", "arm", "--calibration", tmp_path / "calibration/robots/so_follower/me.json"),
        "leader": ("--hand", "sweep", "--calibration", tmp_path / "calibration/teleoperators/so_leader/me.json"),
    }
    started = []
    try:
        for name, words in starts.items():
            words = [sys.executable, "-m", "understudy", "emulate", "so101", "--link", tmp_path / name, *words]
            started.append(subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True))
            while not started[-1].stdout.readline().startswith("port: "):
                assert started[-1].poll() is None
        done = subprocess.run(
            [
                Path(sys.executable).parent / "lerobot-record",
                *("--robot.type=so101_follower", "--robot.id=me", f"--robot.port={tmp_path / 'follower'}"),
                *("--teleop.type=so101_leader", "--teleop.id=me", f"--teleop.port={tmp_path / 'leader'}"),
                *("--dataset.repo_id=me/x", f"--dataset.root={tmp_path / 'data'}", "--dataset.single_task=wave"),
                *("--dataset.num_episodes=2", "--dataset.episode_time_s=3", "--dataset.reset_time_s=1"),
                *("--dataset.fps=30", "--dataset.push_to_hub=false", "--play_sounds=false"),
            ],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    finally:
        for process in started:
            process.terminate()
            process.communicate()

    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    assert info["total_episodes"] == 2 and info["robot_type"] == "so_follower"
    status, said, error = command("inspect", tmp_path / "data")
    assert status == 0 and "episodes     2" in said and "shoulder_pan.pos" in said, error
