"""A teleoperator of lerobot's that leads a robot of ours joint by joint: a leader arm, by its registered name.

Body joints are angles by the leader's own calibration, also where lerobot says them as percentages; a gripper (0..100)
is a share of its range and becomes that share of the robot's. A device that gives anything else but the robot's joints
(a gamepad's steps, a hand's pose) is refused.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..configs.spec import Embodiment
from .lerobot import Line, calibration_of, model_of, settled, with_calibration
from .lerobot_devices import make
from .lerobot_joints import SHARE, joints_of
from .robot import RobotConfig
from .so101 import GREETINGS, CalibrationError

SILENT = 0.25  # s without a reading after which nobody knows where a leader is
AGAIN = 0.05  # s before a leader that did not answer is asked again
EVERY = 0.005  # s between readings
ASTRAY = 0.35  # rad or m outside its range, where a joint is not where it says
ENDS = 2.0  # s that the thread may take to end


def leader_settings(leader: str | Mapping[str, Any]) -> dict[str, Any]:
    """A leader's settings from its name, a YAML file, or its keys with their type. Raises ValueError."""
    if isinstance(leader, str) and leader.endswith((".yaml", ".yml")):
        leader = yaml.safe_load(Path(leader).read_text(encoding="utf-8")) or {}
    settings = {"type": leader} if isinstance(leader, str) else leader
    if not isinstance(settings, Mapping) or "type" not in settings:
        raise ValueError(f"a teleoperator's settings need its type, such as so101_leader; got {settings!r:.80}")
    return dict(settings)


def _is_port(key: str, value: Any) -> bool:
    return isinstance(value, str) and (key == "port" or key.endswith("_port"))


class Leader:
    """See the module. Made for the robot that `body` describes.

    Args:
        settings: lerobot's, with their type; `units` is ours (`lerobot_joints.py`), `calibration` its file.

    Raises:
        LookupError, ValueError, ImportError: no such teleoperator or setting, or not one for this robot.
    """

    def __init__(self, settings: Mapping[str, Any], body: Embodiment):
        settings = dict(settings)
        units = settings.pop("units", "")
        self.kind, self.body = str(settings["type"]), body
        what = f"lerobot's {self.kind}"
        self.device = make("teleoperators", with_calibration(settings))
        gives = [key.removesuffix(".pos") for key in self._features(what)]
        if set(gives) != set(body.action):
            raise ValueError(
                f"{what} gives {', '.join(gives)}; '{body.name}' is led by its joints: {', '.join(body.action)}"
            )
        calibration_of(self.device, self.kind, "teleop")
        joints = joints_of(self.device, what, model_of(self.kind), units, bounded=False)
        by_name = {joint.name: joint for joint in joints}
        self.joints = tuple(by_name[name] for name in body.action)
        self.line = Line(self.device)
        for joint, unit in zip(self.joints, body.action_units, strict=True):
            if joint.unit != unit:
                raise ValueError(f"{joint.name} of {what} is in {joint.unit}, that of '{body.name}' in {unit}")

    def _features(self, what: str) -> list[str]:
        try:
            features = self.device.action_features
        except AttributeError:  # those of lerobot's keyboard exist only once it is connected
            features = None
        if not isinstance(features, Mapping) or not all(kind is float for kind in features.values()):
            raise ValueError(f"{what} gives no joints, so it cannot lead '{self.body.name}'")
        return list(features)

    def check_apart(self, robot: RobotConfig) -> None:
        """Refuse a leader at the robot's own port: it would switch the torque of the arm that it leads off.

        Raises:
            ValueError: both have one port, under whatever names.
        """
        stated = {**vars(robot), **getattr(robot, "robot", {})}
        ports = {os.path.realpath(port) for key, port in stated.items() if _is_port(key, port)}
        for bus in self.line.serial:
            if os.path.realpath(str(bus.port)) in ports:
                raise ValueError(
                    f"{bus.port} is the port of '{self.body.name}' itself: the leader is another arm, with a port of"
                    " its own; ls /dev/ttyACM* /dev/ttyUSB* names the ports, lerobot-find-port which is which"
                )

    def settled(self) -> dict[str, Any]:
        """What settles the meaning of its numbers, for a record: JSON-able."""
        return settled(self.device, self.kind, self.joints)

    def connect(self) -> None:
        """Open it; its torque stays as lerobot leaves it. Raises ConnectionError, CalibrationError."""
        self.line.claim()
        with self.line.unhurried():
            self.line.call(self._open, GREETINGS)
            calibrated = self.line.call(lambda: self.device.is_calibrated)
        if not calibrated:
            raise CalibrationError(
                f"{self.device.calibration_fpath} is not the calibration that the leader's motors hold: run "
                f"lerobot-calibrate --teleop.type={self.kind} --teleop.port={self.line.name} "
                f"--teleop.id={self.device.id}"
            )

    def _open(self) -> None:
        try:
            self.device.connect(calibrate=False)
        except BaseException:
            self.line.shut()
            raise

    def read(self) -> np.ndarray:
        """(D,) where the leader is, in the robot's units and order; not bounded.

        Raises ConnectionError: it does not say, or a joint is so far outside its calibrated range that it is elsewhere.
        """
        said = self.line.call(self.device.get_action)
        found = []
        for joint, (low, high) in zip(self.joints, self.body.limits, strict=True):
            value = float(said[joint.key])
            angle, (least, most) = joint.ours(value), joint.range
            if not least - ASTRAY <= angle <= most + ASTRAY:
                raise ConnectionError(
                    f"{joint.name} of the leader reads {angle:.2f} {joint.unit}, its range is {least:.2f} .. "
                    f"{most:.2f}: it crossed the seam of its encoder, or its horn was put on anew; calibrate it again"
                )
            found.append(low + joint.share(value) * (high - low) if joint.said == SHARE else angle)
        return np.array(found)

    def connect_again(self) -> None:
        """After its port was gone: open what is there now. Raises as `connect`; ConnectionError while it is gone."""
        self.line.shut()
        for bus in self.line.serial:
            bus.port_handler.is_using = False  # else the SDK, broken off in a packet, takes the port for busy for good
        self.connect()

    def close(self) -> None:
        """Safe to call twice, and after a failed `connect`."""
        with suppress(ConnectionError):
            with self.line.said():
                if self.device.is_connected:
                    self.device.disconnect()
        self.line.shut()
        self.line.release()


class Attended:
    """A leader that is read in a thread of its own: who moves the arm never waits for the leader's bus.

    One whose servos did not answer is asked again, one whose port was gone is opened again.
    """

    def __init__(self, leader: Leader):
        self.leader = leader
        self._newest: tuple[np.ndarray, float] | None = None  # pose, and when it was asked for, s
        self._fault, self._over = "", threading.Event()  # why the newest reading failed
        self._thread: threading.Thread | None = None

    def connect(self) -> None:
        """See `Leader.connect`. The first pose is there afterwards."""
        self.leader.connect()
        self._newest = self.leader.read(), time.monotonic()
        self._thread = threading.Thread(target=self._attend, name="leader", daemon=True)
        self._thread.start()

    def _attend(self) -> None:
        while not self._over.wait(EVERY):
            asked = time.monotonic()
            try:
                self._newest, self._fault = (self.leader.read(), asked), ""
            except Exception as error:  # whatever it was, the thread goes on: who is led hears that it is silent
                self._fault = str(error) or type(error).__name__
                self._over.wait(AGAIN)
                self._return()

    def _return(self) -> None:
        """Open a port that was gone, if it is there again."""
        if self._over.is_set() or not self.leader.line.gone:
            return
        try:
            self.leader.connect_again()
        except Exception as error:
            self._fault = str(error) or type(error).__name__

    def read(self) -> np.ndarray:
        """See `Leader.read`: the newest pose, at once. Raises ConnectionError: it is over `SILENT` s old."""
        if self._newest is None:
            raise ConnectionError("it was not connected")
        pose, moment = self._newest
        age = time.monotonic() - moment
        if age > SILENT:
            raise ConnectionError(
                self._fault or f"its newest pose is {age:.2f} s old: the machine, or its bus, is slow"
            )
        return pose

    def close(self) -> None:
        """Safe to call twice, and after a failed `connect`."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(ENDS)
        self.leader.close()
