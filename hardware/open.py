"""A robot by its name and port, as the verbs take it from the command line: one of ours, or any of lerobot's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..configs.plugins import discover, lookup
from .guarded import GuardedRobot, open_robot
from .robot import RobotConfig

MARK = "RobotConfig.register_subclass("  # in the modules that register robots


def robot_config(
    robot: str | Mapping[str, Any], port: str | None = None, calibration: str | None = None
) -> RobotConfig:
    """The settings of a registered robot, of one of lerobot's, or of a YAML file with its `type`.

    Args:
        robot: its name, a YAML file, or its settings with their type.

    Raises:
        LookupError: an unknown robot, listing the known ones.
        ValueError: settings that it does not have, or lacks.
    """
    settings = _settings(robot)
    name = str(settings.pop("type"))
    settings |= {key: value for key, value in (("port", port), ("calibration", calibration)) if value is not None}
    made = _registered(name)
    if made is None:
        from .lerobot import lerobot_config

        return lerobot_config(name, settings)
    fields = {each.name: each for each in dataclasses.fields(made)}
    for key in settings:
        if key not in fields:
            raise ValueError(f"robot '{name}' has no setting '{key}'; it has {', '.join(fields)}")
    lacks = [
        key
        for key, each in fields.items()
        if key not in settings and each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    if lacks:
        find = (
            "" if "port" not in lacks else "; ls /dev/ttyACM* /dev/ttyUSB* names the ports, lerobot-find-port finds it"
        )
        raise ValueError(f"robot '{name}' needs {', '.join('--' + key for key in lacks)}{find}")
    return made(**settings)


def check_robot(robot: str | Mapping[str, Any] | None) -> None:
    """Refuse a robot that nobody registers, by its name alone. Raises as `robot_config`."""
    if robot is not None:
        _registered(str(_settings(robot)["type"]))


def _registered(name: str) -> Any:
    """The settings' class of one of our robots; None of lerobot's. Raises LookupError listing the known ones."""
    discover("hardware", having=(MARK,))
    known = RobotConfig.get_known_choices()
    if name not in known:
        from .lerobot import knows, plugged
        from .lerobot_devices import names_of

        if knows(name):
            return None
        known = dict.fromkeys((*known, *names_of("robots"), *plugged("robots")))
    return lookup("robot", name, known)


def _settings(robot: str | Mapping[str, Any]) -> dict[str, Any]:
    import yaml

    if isinstance(robot, str) and robot.endswith((".yaml", ".yml")):
        found = yaml.safe_load(Path(os.path.expandvars(robot)).read_text(encoding="utf-8")) or {}
        what = robot
    else:
        found, what = {"type": robot} if isinstance(robot, str) else robot, "--robot"
    if not isinstance(found, Mapping) or "type" not in found:
        raise ValueError(f"{what} must hold the settings of a robot with its type")
    return dict(found)


def open_named(robot: str | Mapping[str, Any], port: str | None = None, calibration: str | None = None) -> GuardedRobot:
    """A robot behind its guard, not connected."""
    return open_robot(robot_config(robot, port, calibration))
