"""What the guard costs, how fast the bus is, and whether a loop with cameras holds its rate: all on an emulated SO-101.

The emulator is a process of its own whose line takes no time, so that what is left is the host's. Sides take turns in
one run. Processor time is a thread's own, or, of the guard's process, what Linux counts for it.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...hardware.emulator.feetech import pack
from ...hardware.emulator.packets import BROADCAST
from ...hardware.emulator.sts3215 import STS_TABLE
from ...hardware.envelope import Outcome
from ...hardware.feetech import ServoLine
from ...hardware.guarded import GuardedRobot, open_robot
from ...hardware.replay import replay_on
from ...hardware.so101 import SO101, SO101Config
from ...sim.arms import find_arm

RATE = 200.0  # Hz of the guarded commands
LOOP = 60.0  # Hz of the loop with cameras
SIZE = (240, 320)  # px of its pictures
SWING, PERIOD = 0.15, 3.0  # rad and s of the motion that is commanded
STARTS = 60.0  # s that the emulator may take to start, or to end
WARM = 20  # turns that do not count


@dataclass(frozen=True)
class Emulated:
    """An emulated arm in another process."""

    port: str
    calibration: str
    cameras: tuple[str, ...]  # addresses

    def config(self, rate: float, **settings) -> SO101Config:
        return SO101Config(port=self.port, calibration=self.calibration, rate=rate, **settings)


@contextmanager
def emulated(*flags: str) -> Iterator[Emulated]:
    """`understudy emulate so101` with these flags, until the end of the block."""
    package = __name__.partition(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        link, file = Path(folder) / "port", Path(folder) / "so101.json"
        words = [sys.executable, "-m", package, "emulate", "so101", "--link", str(link), "--calibration", str(file)]
        pipe = subprocess.PIPE
        with subprocess.Popen([*words, *flags], stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield Emulated(str(link), str(file), _cameras(process, sum("--cameras" in flag for flag in flags)))
            finally:
                process.terminate()
                try:
                    process.communicate(timeout=STARTS)
                except subprocess.TimeoutExpired:
                    process.kill()


def _cameras(process: subprocess.Popen, wanted: int) -> tuple[str, ...]:
    """Wait for the port, and for two cameras where they are asked for."""
    assert process.stdout is not None and process.stderr is not None
    late = threading.Timer(STARTS, process.kill)  # then its line ends, below
    late.start()
    found: list[str] = []
    ready = False
    while not ready or (wanted and len(found) < 2):
        line = process.stdout.readline()
        if not line:
            late.cancel()
            raise RuntimeError(f"the emulator did not start: {process.stderr.read()[-300:]}")
        ready |= line.startswith("port: ")
        found += [line.split()[1]] if line.startswith("camera: ") else []
    late.cancel()
    return tuple(found)


def compare_robot(seconds: float) -> dict:
    """The four measurements, each about `seconds` s."""
    found = {"guard": guard_cost, "bus": bus_cost, "loop": camera_loop, "replay": replay_on_time}
    return {name: measure(seconds) for name, measure in found.items()}


def guard_cost(seconds: float) -> dict:
    """Reading and commanding at 200 Hz: a driver alone, and another behind the guard, in turn."""
    with emulated("--wire", "false") as one, emulated("--wire", "false") as other:
        driver, robot = one.config(RATE).driver(), open_robot(other.config(RATE))
        with closing(driver):
            driver.connect()
            driver.hold()
            try:
                robot.connect()
                return _alternate(driver, robot, seconds)
            finally:
                robot.disconnect()
                driver.relax()


def _alternate(driver: SO101, robot: GuardedRobot, seconds: float) -> dict:
    home = np.array(find_arm("so101").home)
    steps = int(seconds * RATE)
    names = ("read", "read, guarded", "command", "to the bus", "command, guarded")
    walls: dict[str, list[float]] = {name: [] for name in names}
    spent, late = {"alone": 0.0, "guarded": 0.0}, {"alone": 0, "guarded": 0}

    def alone(goal: np.ndarray, number: int) -> None:
        began = time.thread_time()
        walls["read"].append(_timed(lambda: driver.measure(number % 4 == 0)))
        walls["command"].append(_timed(lambda: driver.write(goal)))
        spent["alone"] += time.thread_time() - began

    def guarded(goal: np.ndarray, number: int) -> None:
        began = time.thread_time()
        walls["read, guarded"].append(_timed(robot.observe))
        decided = time.monotonic()
        walls["command, guarded"].append(_timed(lambda: robot.send_action(goal)))
        assert robot.verdict is not None
        walls["to the bus"].append(robot.verdict.written - decided)
        spent["guarded"] += time.thread_time() - began

    assert robot.guard_process is not None
    before, due = _processor(robot.guard_process), time.monotonic()
    for number in range(steps):
        goal = home + _swing(number / RATE) * np.array([1, -0.3, -0.3, -1, 1, 0.5])
        for side in (alone, guarded) if number % 2 else (guarded, alone):
            try:
                side(goal, number)
            except ConnectionError:
                late[side.__name__] += 1
                if robot.verdict is not None and robot.verdict.outcome is Outcome.stopped:
                    robot.engage()
        due = max(due + 1 / RATE, time.monotonic())  # what is late is not made up for
        time.sleep(max(0.0, due - time.monotonic()))
    guard = _processor(robot.guard_process) - before

    result: dict = {name: _spread(values[WARM:]) for name, values in walls.items()}
    for what, name in (("added", "to the bus"), ("added, answer included", "command, guarded")):
        result[what] = {at: round(result[name][at] - result["command"][at], 4) for at in ("median", "p99")}
    result["processor"] = {
        "alone": round(1000 * spent["alone"] / steps, 4),
        "caller": round(1000 * spent["guarded"] / steps, 4),
        "guard": round(1000 * guard / steps, 4),
    }
    result["outcomes"], result["steps"], result["late"] = dict(robot.account.outcomes), steps, late
    return result


def bus_cost(seconds: float) -> dict:
    """Sync read and sync write of six motors: ours, lerobot's bus, and the bare port with the same bytes, in turn."""
    from ...configs.compat import prepare_lerobot

    prepare_lerobot()
    from lerobot.motors import Motor, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    joints = find_arm("so101").joints
    motors = {name: Motor(id, "sts3215", MotorNormMode.RANGE_M100_100) for id, name in enumerate(joints, 1)}
    with emulated("--wire", "false") as arm:
        bus, line = FeetechMotorsBus(port=arm.port, motors=motors), ServoLine(arm.port, range(1, 7))
        with closing(line):
            bus.connect(handshake=False)
            counts = line.read("Present_Position")[:, 0].tolist()
            values = dict(zip(joints, counts, strict=True))

            def ours() -> None:
                line.read("Present_Position")
                line.write("Goal_Position", counts)

            def lerobot() -> None:
                bus.sync_read("Present_Position", normalize=False)
                bus.sync_write("Goal_Position", values, normalize=False)

            try:
                return _race({"ours": ours, "lerobot": lerobot, "bare port": _bare(line)}, seconds)
            finally:
                bus.disconnect(disable_torque=False)


def _bare(line: ServoLine) -> Callable[[], None]:
    """The same bytes without a thought: what the system and the emulator take for them."""
    register = STS_TABLE["Present_Position"]
    ask = pack(BROADCAST, 0x82, bytes([register.address, register.size, *line.ids]))
    size = (6 + register.size) * len(line.ids)

    def asked() -> None:
        line._send(ask)
        line._receive(size)

    return asked


def _race(sides: dict[str, Callable[[], None]], seconds: float) -> dict:
    """Wall and processor time of each side, in turn; an answer that came too late is left out and counted."""
    walls: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    late = dict.fromkeys(sides, 0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, side in sides.items():
            began, spent = time.perf_counter(), time.thread_time()
            try:
                side()
            except ConnectionError:
                late[name] += 1
                time.sleep(0.05)
                continue
            processor[name].append(time.thread_time() - spent)
            walls[name].append(time.perf_counter() - began)
    result: dict = {
        name: {"wall": _spread(walls[name][WARM:]), "processor": _spread(processor[name][WARM:]), "late": late[name]}
        for name in sides
    }
    median = {name: result[name]["processor"]["median"] for name in sides}
    result["ratio"] = round(median["lerobot"] / median["ours"], 2)
    result["ratio, 95 %"] = _ratio(processor["lerobot"][WARM:], processor["ours"][WARM:])
    result["turns"] = len(processor["ours"])
    return result


def _ratio(above: Sequence[float], below: Sequence[float], draws: int = 500) -> list[float]:
    """Bootstrap interval of the ratio of medians; sides are drawn apart, for what a turn takes they do not share."""
    rng = np.random.default_rng(0)
    medians = [
        np.median(np.asarray(side)[rng.integers(0, len(side), (draws, len(side)))], axis=1) for side in (above, below)
    ]
    return [round(float(end), 2) for end in np.percentile(medians[0] / medians[1], (2.5, 97.5))]


def camera_loop(seconds: float) -> dict:
    """A loop of 60 Hz that reads six motors and two cameras and commands; how many steps ended after the next began."""
    sizes = f"{{front: [{SIZE[0]}, {SIZE[1]}], wrist: [{SIZE[0]}, {SIZE[1]}]}}"
    with emulated("--load", "so101-reach", "--cameras", sizes) as arm:
        names = ("front", "wrist")
        cameras = {
            name: {"index": address, "width": SIZE[1], "height": SIZE[0]}
            for name, address in zip(names, arm.cameras, strict=True)
        }
        robot = open_robot(arm.config(LOOP, camera=cameras))
        try:
            robot.connect()
            return _loop(robot, seconds)
        finally:
            robot.disconnect()


def _loop(robot: GuardedRobot, seconds: float) -> dict:
    home, steps = np.array(find_arm("so101").home), int(seconds * LOOP)
    missed, spent, ages = 0, [], []
    began = due = time.monotonic()
    for number in range(steps):
        time.sleep(max(0.0, due - time.monotonic()))
        start, due = time.monotonic(), due + 1 / LOOP
        _, times = robot.observe()
        robot.send_action(home + _swing(number / LOOP) * np.array([1, -0.3, -0.3, -1, 1, 0.5]))
        end = time.monotonic()
        missed += end > due
        due = max(due, end)  # what is late is not made up for
        spent.append(end - start)
        ages += [end - moment for name, moment in times.items() if "images" in name]
    return {
        "steps": steps,
        "missed": missed,
        "rate": round(steps / (time.monotonic() - began), 2),
        "step": _spread(spent),
        "age of pictures": _spread(ages),
        "outcomes": dict(robot.account.outcomes),
    }


def replay_on_time(seconds: float) -> dict:
    """Recorded actions sent again at 30 and 60 Hz through the guard: how long after its time each one is sent."""
    home, found = np.array(find_arm("so101").home), {}
    for rate in (30.0, LOOP):
        swing = np.array([_swing(number / rate) for number in range(int(seconds * rate / 2))])
        with emulated() as arm:
            robot = open_robot(arm.config(rate))
            try:
                robot.connect()
                done = replay_on(robot, home + swing[:, None] * np.array([1, -0.3, -0.3, -1, 1, 0.5]))
            finally:
                robot.disconnect()
        found[f"{rate:g} Hz"] = {
            "actions": len(done.after),
            "late": done.late,
            "after": _spread(done.after.tolist()),
            "outcomes": dict(done.account.outcomes),
        }
    return found


def _swing(seconds: float) -> float:
    """rad, from rest and back."""
    return SWING * (1 - math.cos(2 * math.pi * seconds / PERIOD))


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _processor(pid: int) -> float:
    """Seconds of processor that a process took so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99 %, ms."""
    median, most = np.percentile(1000 * np.asarray(seconds), (50, 99))
    return {"median": round(float(median), 4), "p99": round(float(most), 4)}


def table(result: dict) -> str:
    guard, bus, loop, replay = (result[name] for name in ("guard", "bus", "loop", "replay"))
    lines = [f"{f'at {RATE:g} Hz, ms':<40}{'median':>9}{'99 %':>9}"]
    labels = {"to the bus": "command, guarded, till the bus has it", "command, guarded": "and its answer is back"}
    for name in (
        "read",
        "read, guarded",
        "command",
        "to the bus",
        "command, guarded",
        "added",
        "added, answer included",
    ):
        label = labels.get(name, name.replace("added", "added to a command"))
        lines.append(f"{label:<40}{guard[name]['median']:>9.3f}{guard[name]['p99']:>9.3f}")
    spent = guard["processor"]
    lines.append(
        f"processor time of a step: alone {spent['alone']:.3f} ms, guarded {spent['caller']:.3f} ms in the caller and "
        f"{spent['guard']:.3f} ms in the guard; {_outcomes(guard)}; "
        f"answers too late on this machine: {sum(guard['late'].values())}"
    )
    lines.append(f"\n{'read and write six motors, ms':<34}{'median':>9}{'99 %':>9}{'processor':>11}{'late':>6}")
    for name in ("ours", "lerobot", "bare port"):
        side = bus[name]
        walls = f"{side['wall']['median']:>9.3f}{side['wall']['p99']:>9.3f}"
        lines.append(f"{name:<34}{walls}{side['processor']['median']:>11.3f}{side['late']:>6}")
    low, high = bus["ratio, 95 %"]
    lines.append(
        f"lerobot / ours, processor time: {bus['ratio']:.2f} [{low:.2f}, {high:.2f}] over {bus['turns']} turns; the "
        "line takes no time on either side"
    )
    lines.append(
        f"\n{LOOP:g} Hz with two cameras of {SIZE[0]} x {SIZE[1]}: {loop['missed']} of {loop['steps']} deadlines "
        f"missed, {loop['rate']:.1f} Hz; a step {loop['step']['median']:.1f} ms (99 %: {loop['step']['p99']:.1f}), "
        f"pictures {loop['age of pictures']['median']:.0f} ms old (99 %: {loop['age of pictures']['p99']:.0f})"
    )
    for rate, told in replay.items():
        lines.append(
            f"replayed at {rate}: {told['late']} of {told['actions']} actions late by a step; sent "
            f"{told['after']['median']:.1f} ms after their time (99 %: {told['after']['p99']:.1f}); {_outcomes(told)}"
        )
    lines.append("sides took turns in one run: differences and ratios are paired, the rest depends on the machine")
    return "\n".join(lines)


def _outcomes(result: dict) -> str:
    return ", ".join(f"{count} {name}" for name, count in result["outcomes"].items())
