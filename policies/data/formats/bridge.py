"""BridgeData V2 episodes as they come with world models: a film and an array of actions each, no states, no texts.

    NAME.mp4      T frames
    NAME.npz      arr_0 (T, 7 or more): actions, x y z roll pitch yaw gripper; further columns are zeros

Row i is frame i and the action after it. The robot acts at 5 Hz, whatever rate the film plays at; the actions are
scaled in a way that nobody states, so their units are unknown. Walke et al. 2023 (arXiv 2308.12952).
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ....configs.episode import Episode
from ....configs.spec import IMAGES, UNKNOWN_UNIT, Embodiment, Mode
from .droid import _size
from .format import FormatError, Recording, outcome, read_film_frames, register_format

RATE = 5.0
ACTIONS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
CAMERA = "image"


@register_format("bridge")
class Bridge:
    """See the module."""

    layout = "NAME.npz (arr_0) and NAME.mp4 side by side"

    def holds(self, root: Path) -> bool:
        return any(path.with_suffix(".mp4").is_file() for path in root.glob("*.npz"))

    def open(self, root: Path) -> Recording:
        names = sorted(path.stem for path in root.glob("*.npz"))
        values = np.concatenate([_actions(root / f"{name}.npz") for name in names])
        low, high = values.min(0), values.max(0)
        limits = tuple((float(a), float(b) if b > a else float(a) + 1) for a, b in zip(low, high, strict=True))
        body = Embodiment(
            name="widowx",
            action=ACTIONS,
            action_units=(UNKNOWN_UNIT,) * len(ACTIONS),
            limits=limits,
            rate=RATE,
            mode=Mode.delta,
            cameras={CAMERA: _size(root / f"{names[0]}.mp4")},
            guessed=("limits",),
        )
        return Recording(
            body,
            names,
            (
                f"rate {RATE:g} Hz, as BridgeData V2 was recorded; the films may play faster",
                "no states and no texts of tasks are there; units of the actions are unknown, limits those of the data",
                "success: not said; every episode is taken for a demonstration that succeeded",
            ),
        )

    def read(self, root: Path, recording: Recording, name: str) -> Episode:
        action = _actions(root / f"{name}.npz")
        pictures = read_film_frames(root / f"{name}.mp4", len(action), f"episode {name}")
        size = recording.embodiment.cameras[CAMERA]
        if pictures.shape[1:3] != size:
            height, width = pictures.shape[1:3]
            raise FormatError(f"{root / name}.mp4 is {height}x{width}, in the first episode it was {size[0]}x{size[1]}")
        number = int(name) if name.isdigit() else list(recording.episodes).index(name)
        obs, won = {IMAGES + CAMERA: pictures}, outcome(len(action), True)
        return Episode(start=number, task="", obs=obs, action=action, sent=action.copy(), **won)


def _actions(file: Path) -> np.ndarray:
    """(T, 7) float32."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            values = arrays["arr_0"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise FormatError(f"{file} cannot be read ({error}); copy it again") from error
    if values.ndim != 2 or values.shape[1] < len(ACTIONS) or not len(values):
        raise FormatError(f"{file}: arr_0 is {values.shape}, not rows of {len(ACTIONS)} or more numbers")
    if not np.isfinite(values).all():
        raise FormatError(f"{file}: arr_0 holds NaN or infinity")
    return values[:, : len(ACTIONS)].astype(np.float32)
