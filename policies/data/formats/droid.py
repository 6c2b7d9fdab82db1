"""DROID episodes as they come with world models: one JSON file of rows, and one film a camera at a third of their rate.

    annotation_train/N.json     rows at 15 Hz: joint, Cartesian and gripper positions, observed and commanded
    videos_train/N/C.mp4        camera C at 5 Hz: frame i was taken at row 3 i

Rows without a frame are left out, so the dataset has 5 Hz. A row's action is the joint position that was commanded
there, which the arm comes to about three rows later, so about when the next row that is kept begins. Khazatsky et al.
2024 (arXiv 2403.12945).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ....configs.episode import Episode
from ....configs.spec import IMAGES, STATE, Embodiment, Mode
from ..films import read_film
from .format import FormatError, Recording, outcome, read_film_frames, register_format

ROWS, FILMS = "annotation_train", "videos_train"
RATE, EVERY = 15.0, 3  # Hz of the rows; rows a frame
LIMITS = (  # rad, of a Franka Emika Panda
    (-2.8973, 2.8973), (-1.7628, 1.7628), (-2.8973, 2.8973), (-3.0718, -0.0698), (-2.8973, 2.8973), (-0.0175, 3.7525),
    (-2.8973, 2.8973),
)  # fmt: skip
JOINTS = tuple(f"joint_{number}" for number in range(1, 8))
COLUMNS = {  # column -> numbers a row, 0: a number and no list
    "action.joint_position": 7,
    "action.gripper_position": 0,
    "observation.state.joint_position": 7,
    "observation.state.gripper_position": 0,
    "observation.state.cartesian_position": 6,
}


@register_format("droid")
class Droid:
    """See the module."""

    layout = f"{ROWS}/N.json and {FILMS}/N/CAMERA.mp4"

    def holds(self, root: Path) -> bool:
        return any((root / ROWS).glob("*.json")) and (root / FILMS).is_dir()

    def open(self, root: Path) -> Recording:
        names = sorted((path.stem for path in (root / ROWS).glob("*.json")), key=_number)
        films = sorted((root / FILMS / names[0]).glob("*.mp4"))
        if not films:
            raise FormatError(f"{root / FILMS / names[0]} holds no film; copy the films of the episodes")
        sizes = {f"camera_{film.stem}": _size(film) for film in films}
        body = Embodiment(
            name="franka",
            action=(*JOINTS, "gripper"),
            action_units=("rad",) * 7 + ("1",),
            limits=(*LIMITS, (0.0, 1.0)),
            rate=RATE / EVERY,
            mode=Mode.absolute,
            frame="base",
            state=(*JOINTS, "gripper", "x", "y", "z"),
            state_units=("rad",) * 7 + ("1",) + ("m",) * 3,
            cameras=sizes,
        )
        return Recording(
            body,
            names,
            (
                f"rows at {RATE:g} Hz, every third has a frame: the dataset has {RATE / EVERY:g} Hz",
                "action: the joint positions commanded at a row; gripper 0 is open, 1 closed",
                "success: the flag of the episode, at its last row",
            ),
        )

    def read(self, root: Path, recording: Recording, name: str) -> Episode:
        file, body = root / ROWS / f"{name}.json", recording.embodiment
        rows, what = _rows(file), f"episode {name}"
        steps = -(-len(rows["action.joint_position"]) // EVERY)
        kept = {
            key: np.asarray(rows[key], np.float32).reshape(-1, max(1, size))[::EVERY] for key, size in COLUMNS.items()
        }
        joints, gripper = "joint_position", "gripper_position"
        action = np.concatenate([kept[f"action.{part}"] for part in (joints, gripper)], 1)
        state = [kept[f"observation.state.{part}"] for part in (joints, gripper)]
        state.append(kept["observation.state.cartesian_position"][:, :3])
        obs = {STATE: np.concatenate(state, 1)}
        for camera, size in body.cameras.items():
            film = root / FILMS / name / f"{camera.removeprefix('camera_')}.mp4"
            obs[IMAGES + camera] = read_film_frames(film, steps, what)
            if obs[IMAGES + camera].shape[1:3] != size:
                height, width = obs[IMAGES + camera].shape[1:3]
                raise FormatError(f"{film} is {height}x{width}, in the first episode it was {size[0]}x{size[1]}")
        text = next(iter(rows.get("texts") or [""]))
        won = outcome(steps, bool(rows.get("success")))
        return Episode(start=_number(name), task=str(text), obs=obs, action=action, sent=action.copy(), **won)


def _rows(file: Path) -> dict:
    """The columns of an episode, of equal lengths."""
    try:
        rows = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(f"{file} cannot be read ({error}); copy it again") from error
    missing = [key for key in COLUMNS if key not in rows] if isinstance(rows, dict) else list(COLUMNS)
    if missing:
        raise FormatError(f"{file} has no '{missing[0]}'; it is no episode of this layout")
    counts = {key: len(rows[key]) for key in COLUMNS}
    if len(set(counts.values())) > 1 or not min(counts.values()):
        told = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise FormatError(f"{file}: columns have different numbers of rows, or none: {told}")
    for key, size in COLUMNS.items():
        values = rows[key]
        fits = all(
            isinstance(row, (int, float)) if not size else isinstance(row, list) and len(row) == size for row in values
        )
        if not fits or not np.isfinite(np.asarray(values, np.float64)).all():
            raise FormatError(f"{file}: '{key}' does not hold {size or 1} finite numbers a row")
    return rows


def _number(name: str) -> int:
    return int(name) if name.isdigit() else 0


def _size(film: Path) -> tuple[int, int]:
    from ..decode import read_frames

    height, width = next(read_frames(read_film(film, "the first episode"), np.arange(1))).shape[:2]
    return int(height), int(width)
