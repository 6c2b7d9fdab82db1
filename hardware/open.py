"""A robot by its name and port, as the verbs take it from the command line."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ..configs.plugins import discover, lookup
from .guarded import GuardedRobot, open_robot
from .robot import RobotConfig


def robot_config(robot: str, port: str | None = None, calibration: str | None = None) -> RobotConfig:
    """The settings of a registered robot, or of a YAML file with its `type`.

    Raises:
        LookupError: an unknown robot, listing the known ones.
        ValueError: settings that it does not have, or lacks.
    """
    import yaml

    discover("hardware")
    settings: dict = {}
    name = robot
    if robot.endswith((".yaml", ".yml")):
        settings = yaml.safe_load(Path(os.path.expandvars(robot)).read_text(encoding="utf-8")) or {}
        if not isinstance(settings, dict) or "type" not in settings:
            raise ValueError(f"{robot} must hold the settings of a robot with its type")
        name = settings.pop("type")
    made = lookup("robot", name, RobotConfig.get_known_choices())
    fields = {each.name: each for each in dataclasses.fields(made)}
    settings |= {key: value for key, value in (("port", port), ("calibration", calibration)) if value is not None}
    for key in settings:
        if key not in fields:
            raise ValueError(f"robot '{name}' has no setting '{key}'; it has {', '.join(fields)}")
    lacks = [
        key
        for key, each in fields.items()
        if key not in settings and each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    if lacks:
        raise ValueError(f"robot '{name}' needs {', '.join('--' + key for key in lacks)}")
    return made(**settings)


def open_named(robot: str, port: str | None = None, calibration: str | None = None) -> GuardedRobot:
    """A robot behind its guard, not connected."""
    return open_robot(robot_config(robot, port, calibration))
