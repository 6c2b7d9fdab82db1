"""What a shadow beside an arm is told (`beside.py`), and what is refused before the arm is touched: no scene, another
arm's, settings that would do nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.settings.decode import decode
from ...configs.spec import Embodiment, EmbodimentError
from ..foresee import FRESH
from .gaussians import Camera, read_cameras, read_json
from .reality.layout import Joints
from .scene import CARD, TwinScene
from .shadow import Shadow, ShadowSettings

ENDS = ("go on", "stop")
ELSEWHERE = 0.35  # rad or m, by which the limits of an arm's joint may differ from the scene's


@dataclass(frozen=True, kw_only=True)
class BesideSettings(ShadowSettings):
    """A shadow beside an arm. Raises ValueError: numbers or words that are none."""

    scene: str  # folder that `understudy twin build` wrote
    start: int = 0  # start id at which the objects of a real arm's scene are sought; an emulated arm's is the episode's
    looks: float = 10.0  # pictures of each camera a second that are compared, at most
    lost: str = "go on"  # what the guard does when the shadow is silent or gone: go on, or stop

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lost not in ENDS:
            raise ValueError(f"lost of a shadow is '{ENDS[0]}' or '{ENDS[1]}', not '{self.lost}'")
        if not self.looks > 0 or self.start < 0:
            raise ValueError("looks of a shadow must be above 0, start at least 0")
        if self.ahead < FRESH:
            raise ValueError(
                f"ahead of a shadow beside an arm must be {FRESH:g} s or more, as long as its answers count"
            )

    @property
    def recent(self) -> float:
        """s after which pictures that were compared say nothing of now."""
        return self.trust.patience + 2 / self.looks

    @property
    def folder(self) -> Path:
        return Path(os.path.expandvars(self.scene))

    def cameras(self) -> dict[str, Camera]:
        """Those of the scene. Raises FileNotFoundError, ValueError: no scene."""
        return {camera.name: camera for camera in read_cameras(self.folder)}


def beside_settings(shadow: Mapping[str, Any] | str) -> BesideSettings:
    """The settings of a folder, of a YAML file that names one (`scene`), or of its keys. Nothing heavy is imported.

    Raises:
        FileNotFoundError, ValueError: no such file or scene, or settings that it does not have.
    """
    import yaml

    raw: Any = {"scene": shadow}
    if not isinstance(shadow, str):
        raw = shadow
    elif shadow.endswith((".yaml", ".yml")):
        raw = yaml.safe_load(Path(os.path.expandvars(shadow)).read_text(encoding="utf-8"))
    if not isinstance(raw, Mapping) or "scene" not in raw:
        raise ValueError("a shadow needs its scene: the folder that understudy twin build wrote")
    settings = decode(BesideSettings, dict(raw))
    read_json(settings.folder / CARD)
    settings.cameras()
    return settings


def check_beside(settings: BesideSettings, arm: Embodiment, task: str = "") -> list[str]:
    """Refuse a shadow of another arm or scene; what the person at the arm should know.

    Args:
        task: of an emulated arm, in whose scene it is.

    Raises:
        EmbodimentError: its joints are not the arm's, or not in the same units. ValueError: another scene, or cameras,
        or settings that would do nothing. LookupError: a body that the scene does not have.
    """
    scene = TwinScene.load(settings.folder)
    if task and settings.start:
        raise ValueError(f"start {settings.start} of a shadow is of a real arm; an emulated arm's is the episode's")
    names = [camera.name for camera in scene.cameras]
    if unknown := set(settings.trust.bounds) - set(names):
        raise ValueError(f"trust.bounds of a shadow: no camera '{min(unknown)}'; its scene has {', '.join(names)}")
    if task and scene.source != task:
        raise ValueError(f"--shadow {settings.scene} was built of {scene.source}; the arm is in the scene of {task}")
    joints = Shadow(scene, 1.0, settings).joints
    if joints.names != arm.action:
        ours, theirs = ", ".join(joints.names), ", ".join(arm.action)
        raise EmbodimentError(f"the arm of --shadow {settings.scene} has the joints {ours}; the arm has {theirs}")
    if tuple(joints.units) != tuple(arm.action_units):
        raise EmbodimentError(f"the shadow's joints are in {joints.units}, the arm's in {arm.action_units}")
    return [*_turned(joints, arm), *_shared(scene, arm)]


def _turned(joints: Joints, arm: Embodiment) -> list[str]:
    """Joints that go elsewhere than the scene's: their zero may be another, and the twin's arm turned against this one.

    An arm of the same names may be calibrated otherwise; nothing else tells it.
    """
    if len(arm.limits) != len(joints.limits):  # an arm that states none
        return []
    apart = np.abs(np.subtract(joints.limits, arm.limits)).max(1)
    return [
        f"warning: {name} goes from {low:.2f} to {high:.2f} {unit}, the shadow's from {a:.2f} to {b:.2f}: is the "
        "calibration that of the scene's arm? Where its zero is another, what is foreseen is wrong"
        for name, unit, (low, high), (a, b), off in zip(
            joints.names, joints.units, arm.limits, joints.limits, apart, strict=True
        )
        if off > ELSEWHERE
    ]


def _shared(scene: TwinScene, arm: Embodiment) -> list[str]:
    """Which cameras compare. Raises ValueError: pictures of another shape."""
    shared = []
    for camera in scene.cameras:
        if camera.name not in arm.cameras:
            continue
        height, width = arm.cameras[camera.name]
        if abs(width * camera.height - height * camera.width) > 0.02 * width * camera.height:
            raise ValueError(
                f"camera {camera.name} gives {width} x {height}, the shadow's has {camera.width} x {camera.height}: "
                "build the scene with --size of the same shape"
            )
        shared.append(camera.name)
    if not shared:
        names = ", ".join(camera.name for camera in scene.cameras)
        return [f"the arm has none of the shadow's cameras ({names}): its objects are where its physics has them"]
    return [f"the shadow compares itself with {', '.join(shared)}"]
