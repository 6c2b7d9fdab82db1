"""The start of a pair, brought back: its recorded pictures over what the cameras see, until the scene is as it was.

What is shown goes into a window where a screen is (and OpenCV can open one), else into `restore.html`, a page that
shows the newest overlay by itself, beside `restore.png`. How far the scene is from the start is measured by
`hardware/displacement.py`, for the camera that sees the largest distance.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.files import replace_file, replace_text
from ...configs.spec import IMAGES, STATE, Embodiment
from ...hardware.consent import Refused
from ...hardware.displacement import Displacement, displacement, overlay
from ..demos.arm import Quit, Words

STARTS, POSE = "starts", "pose.json"  # folder, a folder of pictures and a pose for each start in it
BLANK = 4.0  # grey levels, standard deviation of a picture that shows nothing: a covered lens, a dark room
ALONE = 30.0  # s that a scene may take to be restored where nobody is there
LOOKS = 0.3  # s between two looks
PAGE = """<!doctype html><meta charset="utf-8"><title>restore the scene</title>
<style>body{font:16px sans-serif;margin:1em;background:#222;color:#eee}img{width:100%;max-width:1280px}</style>
<p>cyan: edges of the recorded start that are not there now; red: edges of now that were not there</p>
<img id="view" alt="the recorded start over what the cameras see">
<script>setInterval(() => view.src = "restore.png?" + Date.now(), 500)</script>
"""


@dataclass(frozen=True)
class Start:
    """What a start looked like: camera -> (h, w, 3) uint8 RGB, and the joints (D,) of the arm."""

    pictures: Mapping[str, np.ndarray]
    pose: np.ndarray

    @classmethod
    def of(cls, obs: Mapping[str, np.ndarray]) -> Start:
        """From an observation."""
        pictures = {key.removeprefix(IMAGES): value for key, value in obs.items() if key.startswith(IMAGES)}
        return cls(pictures, np.asarray(obs[STATE], np.float32))

    @property
    def blank(self) -> tuple[str, ...]:
        """Cameras whose picture shows one colour alone."""
        return tuple(name for name, picture in self.pictures.items() if picture.std((0, 1)).max() < BLANK)

    def save(self, folder: Path) -> None:
        """Write it as PNGs and a pose; it is whole once the pose is there."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in self.pictures.items():
            _write(folder / f"{name}.png", picture)
        replace_text(folder / POSE, json.dumps({"pose": self.pose.tolist(), "cameras": sorted(self.pictures)}))

    @classmethod
    def load(cls, folder: Path) -> Start | None:
        """The start that is written there; None where none is. Raises ValueError: a picture that cannot be read."""
        import cv2

        if not (folder / POSE).is_file():
            return None
        about, pictures = json.loads((folder / POSE).read_text()), {}
        for name in about["cameras"]:
            picture = cv2.imread(str(folder / f"{name}.png"))
            if picture is None:
                raise ValueError(f"{folder / name}.png cannot be read: remove the folder to record that start anew")
            pictures[name] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        return cls(pictures, np.array(about["pose"], np.float32))

    def check(self, arm: Embodiment, folder: Path) -> None:
        """Refuse an arm that this start cannot be compared with. Raises ValueError, naming the start's `folder`."""
        if len(self.pose) != len(arm.action):
            raise ValueError(f"the start {folder} is of {len(self.pose)} joints, this arm has {len(arm.action)}")
        for name, picture in self.pictures.items():
            if name not in arm.cameras:
                raise ValueError(f"the start {folder} was recorded by camera '{name}', which this arm does not have")
            (h, w), (high, wide) = picture.shape[:2], arm.cameras[name]
            if (h, w) != (high, wide):
                raise ValueError(
                    f"the start {folder} was recorded by camera '{name}' with {w} x {h} pixels, now it gives {wide} x "
                    f"{high}: give the camera its former size, or record starts anew (without --starts)"
                )


def check_starts(folder: Path, wanted: range) -> None:
    """Refuse a folder of recorded starts that does not hold all that are `wanted`. Raises ValueError."""
    held = [start for start in wanted if (folder / str(start) / POSE).is_file()]
    if len(held) == len(wanted):
        return
    there = sorted(int(path.parent.name) for path in folder.glob(f"*/{POSE}") if path.parent.name.isdigit())
    instead = f"it holds {there[0]} to {there[-1]}, {len(there)} in all" if there else "it holds none"
    raise ValueError(
        f"--starts {folder} has {len(held)} of the starts {wanted[0]} to {wanted[-1]} that --env_seed and --max ask "
        f"for; {instead}"
    )


@dataclass(frozen=True)
class Restored:
    """How a scene was brought back: what the labels of the episode say."""

    distance: Displacement
    camera: str  # that sees it
    within: float | None  # px that were asked for
    forced: bool  # a person began the episode all the same
    seconds: float

    def labels(self) -> dict:
        """JSON-able."""
        told: dict[str, object] = {"px": round(self.distance.pixels, 2), "lost": self.distance.lost}
        told |= {"difference": round(self.distance.difference, 2), "camera": self.camera, "within": self.within}
        return told | {"forced": self.forced, "seconds": round(self.seconds, 1)}


def distance_from(start: Start, obs: Mapping[str, np.ndarray]) -> tuple[Displacement, str]:
    """How far a scene is from a start, and the camera that sees it farthest away. Raises ValueError: no such camera."""
    now, found = Start.of(obs).pictures, []
    for name, picture in start.pictures.items():
        if name not in now:
            raise ValueError(f"the start was recorded by camera '{name}', which this arm does not have")
        found.append((displacement(picture, now[name]), name))
    return max(found, key=lambda each: (each[0].lost, each[0].pixels))


def restore(
    start: Start,
    look: Callable[[], Mapping[str, np.ndarray]],
    show: Callable[[np.ndarray, str], None],
    words: Words | None,
    within: float | None,
) -> Restored:
    """Show the start over the scene until it is restored, and the person begins.

    Args:
        look: what is seen now.
        show: is given each overlay and a line of text.
        words: of the person: ENTER begins, `o` all the same, `q` quits; None: nobody is needed; it begins by itself.
        within: px; None: whatever the distance, it is only measured.

    Raises:
        Quit: the person has had enough. Refused: the person is gone. ValueError: nobody restores the scene.
    """
    begun, told = time.monotonic(), ""
    while True:
        obs = look()
        distance, camera = distance_from(start, obs)
        there = within is None or distance.within(within)
        text = f"{distance} ({camera})" + ("" if within is None else f", at most {within:g}")
        show(np.concatenate([_high(overlay(p, Start.of(obs).pictures[n])) for n, p in start.pictures.items()], 1), text)
        seconds = time.monotonic() - begun
        word = None if words is None else words.next()
        if word == "q":
            raise Quit
        if there and (words is None or word is not None):
            return Restored(distance, camera, within, False, seconds)
        if word == "o":
            return Restored(distance, camera, within, True, seconds)
        if words is not None and word is None and words.over:
            raise Refused("nobody is there to begin the trial: run it in a terminal")
        if words is None and seconds > ALONE:
            raise ValueError(
                f"the scene is {text}, and nobody is there to restore it: leave --restore_within out, or give it more "
                "pixels"
            )
        if words is not None and (line := _hint(text, there, word)) != told:
            print(line, flush=True)
            told = line
        time.sleep(LOOKS)


def _hint(text: str, there: bool, word: str | None) -> str:
    if there:
        return f"the scene is restored: {text}. ENTER begins, q quits"
    return f"restore the scene: {text}. {'o begins all the same, q quits' if word is not None else 'then ENTER begins'}"


class Shown:
    """Shows overlays: a window where a screen is, else a page in `folder`. Says once where to look."""

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.folder, self._say, self._window, self._told = folder, say, _has_screen(), False

    def __call__(self, picture: np.ndarray, text: str) -> None:
        import cv2

        lined = cv2.copyMakeBorder(picture, 0, 28, 0, 0, cv2.BORDER_CONSTANT, value=(20, 20, 20))
        place = 8, lined.shape[0] - 9
        cv2.putText(lined, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (240, 240, 240), 1, cv2.LINE_AA)
        if self._window:
            try:
                cv2.imshow("restore the scene", lined[..., ::-1])
                cv2.waitKey(1)
                return
            except cv2.error:  # a build of OpenCV without windows
                self._window = False
        _write(self.folder / "restore.png", lined)
        if not self._told:
            replace_text(self.folder / "restore.html", PAGE)
            self._say(f"the start over the live scene: {self.folder / 'restore.html'}")
            self._told = True

    def close(self) -> None:
        """Close the window."""
        import cv2

        if self._window:
            with suppress(cv2.error):
                cv2.destroyAllWindows()


def _has_screen() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _high(picture: np.ndarray) -> np.ndarray:
    """The picture at 360 px of height, so that cameras stand beside each other."""
    import cv2

    return cv2.resize(picture, (round(picture.shape[1] * 360 / picture.shape[0]), 360))


def _write(path: Path, picture: np.ndarray) -> None:
    import cv2

    done, data = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} could not be written to {path}")
    replace_file(path, lambda beside: beside.write_bytes(data.tobytes()))
