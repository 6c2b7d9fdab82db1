"""lerobot's robots, teleoperators and cameras by their registered names, made unmodified from plain settings.

Only the module that registers a name is imported, so that a robot whose vendor's library is missing hides no other. The
names are read in lerobot's source; plug-ins (`lerobot_robot_...`) are looked for where lerobot itself knows none.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..configs.compat import prepare_lerobot
from ..configs.plugins import lookup

BASES = {"robots": "RobotConfig", "teleoperators": "TeleoperatorConfig", "cameras": "CameraConfig"}
ONE = {"robots": "robot", "teleoperators": "teleoperator", "cameras": "camera"}


@cache
def names_of(kind: str) -> Mapping[str, str]:
    """Registered name -> the module that registers it, of lerobot's own; nothing of it is imported. Empty without it.

    Args:
        kind: robots, teleoperators or cameras.
    """
    found = importlib.util.find_spec("lerobot")
    if found is None or not found.submodule_search_locations:
        return {}
    root = Path(next(iter(found.submodule_search_locations)))
    told = re.compile(rf'{BASES[kind]}\.register_subclass\("([^"]+)"\)')
    return {
        name: ".".join(("lerobot", *file.relative_to(root).with_suffix("").parts))
        for file in sorted((root / kind).rglob("config*.py"))
        for name in told.findall(file.read_text(encoding="utf-8"))
    }


def make(kind: str, settings: Mapping[str, Any]) -> Any:
    """The device that `settings` describe, by their `type`; not connected.

    Raises:
        LookupError: no such type, listing the known ones.
        ValueError: a setting that it does not have or lacks, or a value that it refuses.
        ImportError: lerobot, or what that device needs beside it, is missing.
    """
    config = configured(kind, settings)
    factories = importlib.import_module(f"lerobot.{kind}.utils")
    if kind == "cameras":
        return factories.make_cameras_from_configs({"": config})[""]
    return getattr(factories, f"make_{ONE[kind]}_from_config")(config)


def configured(kind: str, settings: Mapping[str, Any]) -> Any:
    """lerobot's own settings of a device. Raises as `make`."""
    prepare_lerobot()
    import draccus

    base, name = _registry(kind, str(settings.get("type", "")))
    made = base.get_choice_class(name)
    fields = {field.name: field for field in dataclasses.fields(made) if field.init}
    for key in settings:
        if key != "type" and key not in fields:
            raise ValueError(f"lerobot's {name} has no setting '{key}'; it has {', '.join(fields)}")
    lacks = [
        key
        for key, field in fields.items()
        if key not in settings and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if lacks:
        raise ValueError(f"lerobot's {name} needs {', '.join(lacks)}")
    for camera in _cameras(settings):
        _registry("cameras", camera)
    try:
        return draccus.decode(base, dict(settings))
    except (draccus.utils.DraccusException, ValueError, TypeError) as error:
        raise ValueError(f"lerobot's {name} refuses its settings: {error}") from error


def _registry(kind: str, name: str):
    """(lerobot's registry of that kind, the name, registered in it)."""
    try:
        base = getattr(importlib.import_module(f"lerobot.{kind}"), BASES[kind])
        if name in names_of(kind):
            importlib.import_module(names_of(kind)[name])
        elif name not in base.get_known_choices():
            importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()
    except ImportError as error:
        extra = next((key for key in EXTRAS if key in str(error)), None)
        advice = f"pip install 'lerobot[{EXTRAS[extra]}]'" if extra else "install what it needs (lerobot's docs say)"
        raise ImportError(f"lerobot's {ONE[kind]} {name} cannot be imported: {error}; {advice}") from error
    known = dict.fromkeys((*names_of(kind), *base.get_known_choices()))
    lookup(f"{ONE[kind]} of lerobot's", name, known)
    return base, name


EXTRAS = {"scservo_sdk": "feetech", "dynamixel_sdk": "dynamixel", "pyrealsense2": "intelrealsense", "zmq": "pyzmq-dep"}


def _cameras(settings: Mapping[str, Any]) -> list[str]:
    """Types of the cameras that settings name, wherever they stand."""
    found = []
    for key, value in settings.items():
        if not isinstance(value, Mapping):
            continue
        if key == "cameras":
            found += [str(one["type"]) for one in value.values() if isinstance(one, Mapping) and "type" in one]
        else:
            found += _cameras(value)
    return found
