"""The picture of README.md: tasks in the middle of an episode beside the top of a report.

    understudy study readme_pictures --record RECORD --out docs/pictures/overview.webp

The experts act; the report is the record's own page, opened in Chromium (`make chromium`), which also puts the parts
together. So nothing in the picture is drawn by hand.
"""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.files import replace_file
from ...configs.plugins import discover
from ...configs.spec import IMAGES
from ...configs.world import REPORT_STARTS, read_world
from ..evaluate.report import render
from ..ledger.record import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDE, TALL = 1600, 1140  # px of the whole
TILE = (380, 460)  # px of a task's picture, height and width
SHOWN = 950  # CSS px of the report's width: two columns of charts


@dataclass(frozen=True)
class View:
    """One task: from where it is seen, and which part of its episode is done."""

    world: str
    caption: str
    done: float  # of the episode, 0..1
    camera: str = ""  # of the world; else a free one, in plain MuJoCo:
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m
    distance: float = 1.0  # m
    azimuth: float = 0.0  # degrees
    elevation: float = 0.0


VIEWS = (
    View("lift", "robosuite Lift", 0.85, camera="sideview"),
    View("pusht", "PushT", 0.45, camera="image"),
    View("so101-pick-place", "SO-101 pick and place", 0.3, target=(0.15, -0.02, 0.1), distance=0.52, azimuth=215,
         elevation=-50),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReadmePictures:
    """Make the picture of README.md."""

    record: Path  # whose report is shown, one that the table of README.md cites
    out: Path = Path("docs/pictures/overview.webp")  # folder for the pictures
    quality: int = 80  # of the WebP, 0..100

    def run(self) -> None:
        discover("sim")
        report = render(read_record(self.record), _run_of(self.record))
        tiles = [(view.caption, picture(view)) for view in VIEWS]
        replace_file(self.out, lambda path: path.write_bytes(compose(tiles, report, self.quality)))
        print(f"{self.out}, {self.out.stat().st_size / 1000:.0f} kB")


def picture(view: View) -> np.ndarray:
    """(h, w, 3) uint8 RGB: the expert's episode from the first reporting env seed, as far as `view.done`.

    Raises:
        RuntimeError: the expert fails from there.
    """
    frames = list(_episode(view))
    return frames[round(view.done * (len(frames) - 1))]


def _episode(view: View) -> Iterator[np.ndarray]:
    """A picture before each control step."""
    height, width = TILE
    size = (2 * height, 2 * width) if view.world != "pusht" else (2 * height, 2 * height)
    lane: Any = read_world(view.world, cameras={view.camera: size} if view.camera else None).lane()
    draw = None if view.camera else _free_camera(lane, view, size)
    try:
        obs, info = lane.reset(seed=REPORT_STARTS)
        for _ in range(10_000):
            yield _fitted(obs[IMAGES + view.camera] if draw is None else draw())
            obs, _, terminated, truncated, info = lane.step(lane.expert_action(0.0))
            if terminated or truncated:
                break
    finally:
        lane.close()
    if not info["success"]:
        raise RuntimeError(f"the expert of {view.world} fails from env seed {REPORT_STARTS}: choose another task")


def _free_camera(lane, view: View, size: tuple[int, int]):
    """A function that draws a plain MuJoCo scene from where nobody has put a camera."""
    import mujoco

    lane.model.vis.global_.offheight, lane.model.vis.global_.offwidth = size
    renderer, camera = mujoco.Renderer(lane.model, *size), mujoco.MjvCamera()
    camera.lookat[:] = view.target
    camera.distance, camera.azimuth, camera.elevation = view.distance, view.azimuth, view.elevation

    def draw() -> np.ndarray:
        renderer.update_scene(lane.data, camera)
        return renderer.render()

    return draw


def _fitted(frame: np.ndarray) -> np.ndarray:
    """To the size of a tile; what is too narrow stands in the middle of white."""
    import cv2

    height, width = TILE
    small = cv2.resize(np.ascontiguousarray(frame), (round(frame.shape[1] * height / frame.shape[0]), height),
                       interpolation=cv2.INTER_AREA)  # fmt: skip
    tile = np.full((height, width, 3), 255, np.uint8)
    left = (width - small.shape[1]) // 2
    tile[:, max(0, left) : max(0, left) + small.shape[1]] = small[:, :width]
    return tile


def compose(tiles: list[tuple[str, np.ndarray]], report: str, quality: int) -> bytes:
    """The picture as WebP: tiles below each other on the left, the top of the report on the right.

    Raises:
        RuntimeError: no Chromium.
    """
    import cv2

    right = WIDE - TILE[1]
    with tempfile.TemporaryDirectory() as folder, _chromium() as browser:
        page = Path(folder) / "report.html"
        page.write_text(report)
        scale = right / SHOWN
        top = _shot(browser, page, SHOWN, round(TALL / scale), scale)
        tasks = "".join(f'<figure><img src="{_png(tile)}"><b>{escape(text)}</b></figure>' for text, tile in tiles)
        style = (
            f"body{{margin:0;display:flex;width:{WIDE}px;height:{TALL}px;overflow:hidden;font:600 23px sans-serif}}"
            f"figure{{margin:0;position:relative;height:{TILE[0]}px}}img{{display:block}}"
            "b{position:absolute;left:14px;bottom:12px;background:#fffd;border-radius:8px;padding:4px 12px}"
        )
        whole = Path(folder) / "whole.html"
        right_side = f'<img src="{_uri(top)}" width="{right}">'
        whole.write_text(f"<meta charset=utf-8><style>{style}</style><div>{tasks}</div>{right_side}")
        png = _shot(browser, whole, WIDE, TALL, 1)

    pixels: Any = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()


def _shot(browser, page: Path, width: int, height: int, scale: float) -> bytes:
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale, color_scheme="light"
    )
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.wait_for_load_state("load")
    png = tab.screenshot()
    context.close()
    return png


def _chromium():
    """A context manager that gives a browser."""
    import os
    import shutil
    from contextlib import contextmanager

    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise RuntimeError("the report is opened in Chromium: pip install playwright, then make chromium") from error

    @contextmanager
    def opened():
        with sync_playwright() as play:
            names = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
            path = next(filter(None, map(shutil.which, names)), play.chromium.executable_path)
            if not Path(path).is_file():
                raise RuntimeError("no Chromium found: make chromium, or playwright install chromium")
            root = hasattr(os, "geteuid") and os.geteuid() == 0
            browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
            yield browser
            browser.close()

    return opened()


def _png(frame: np.ndarray) -> str:
    from ...policies.data.encode import png

    return _uri(png(frame))


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _run_of(record: Path) -> Path | None:
    from ...policies.learning.run import run_folder

    path = read_record(record).manifest.get("policy", {}).get("path", "")
    return run_folder(path) if path and Path(path).exists() else None
