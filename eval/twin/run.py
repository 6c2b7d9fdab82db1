"""`understudy twin run`: act in a twin that something follows; tracking, lag and deadlines, as text, page, recording.

    understudy twin run --world twin.yaml --episodes 3 --page tracking.html --rerun twin.rrd

Who acts is the task's scripted demonstrator, or nobody (`--by still`). Policies act in the same world through
`understudy eval --world twin.yaml`, which writes a record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...configs.files import replace_text
from ...configs.world import read_world
from ...hardware.twin.calibration.identify import Push, write_pushes
from ...hardware.twin.env import TwinWorld
from ...hardware.twin.live.loop import LONGEST, Tick
from ...hardware.twin.live.online import OnlineLane
from ...hardware.twin.live.timing import as_text
from ...hardware.twin.live.tracking import Tracking
from ..pages.charts import Line, chart
from ..pages.page import page

SHORTEST = 30  # ticks of a push
KEEP = 6  # ticks between two pictures of a recording


@dataclass(frozen=True)
class Episode:
    """One episode in the twin: its ticks, its account, and tracking where a stand-in tells."""

    start: int
    success: bool
    progress: float
    ticks: Sequence[Tick]
    account: dict
    tracking: Tracking | None
    truth: Any = None  # what a stand-in says of success, see stand_in.Truth


@dataclass(frozen=True, kw_only=True)
class TwinRun:
    """Act in a twin that an arm or a stand-in follows, and measure how well both keep together."""

    DISCOVER: ClassVar[tuple[str, ...]] = ("sim", "hardware")

    world: str  # YAML of a world of type twin with `real` or `robot`
    by: str = "expert"  # who acts: expert, the task's scripted demonstrator, or still
    episodes: int = 1  # how many
    env_seed: int = 100_000  # of the first start
    steps: int = 0  # control steps of an episode; 0: until success or the horizon
    page: Path | None = None  # write the tracking curves to this HTML file
    rerun: Path | None = None  # write cameras, splats, residuals, wrenches and joints to this .rrd file
    pushes: Path | None = None  # write the episodes as pushes for `understudy twin identify`
    out: Path | None = None  # write the numbers to this JSON file

    def __post_init__(self) -> None:
        if self.by not in ("expert", "still"):
            raise ValueError(f"by is expert or still, not '{self.by}'")
        if self.episodes < 1 or self.steps < 0 or self.env_seed < 0:
            raise ValueError("episodes must be at least 1, steps and env_seed at least 0")

    def run(self) -> None:
        world = read_world(self.world)
        if not isinstance(world, TwinWorld) or not world.online:
            raise ValueError(f"{self.world} is no twin that something follows: type: twin, with real or robot")
        if self.rerun is not None and find_spec("rerun") is None:
            raise ImportError("--rerun needs rerun: pip install 'understudy[twin]'")
        if self.pushes is not None and not (world.scene and world.correct):
            raise ValueError(
                "--pushes are where pictures have the objects, and nothing corrects this twin: its own physics would "
                "be identified. Give its world a scene, of understudy twin build"
            )
        world.allow()
        lane = world.lane()
        assert isinstance(lane, OnlineLane)
        try:
            episodes = [self.act(lane, self.env_seed + number) for number in range(self.episodes)]
        finally:
            lane.close()
        print("\n".join(told(episode) for episode in episodes))
        print(as_text(episodes[-1].account["timing"]))
        self._write(world, episodes)

    def act(self, lane: OnlineLane, start: int) -> Episode:
        """One episode from `start`."""
        lane.keep_pictures(KEEP if self.rerun is not None else 0)
        _, info = lane.reset(seed=start)
        ended, done = False, 0
        while not ended:
            action = lane.expert_action() if self.by == "expert" else lane.rest()
            _, terminated, truncated, info = lane.advance(action)
            done += 1
            ended = terminated or truncated or 0 < self.steps <= done
        world_truth, tracking = None, None
        if lane.followed_by_stand_in:
            world_truth, tracking = lane.truth(), lane.tracking()
        account = lane.account()
        return Episode(start, info["success"], info["progress"], lane.ticks_done(), account, tracking, world_truth)

    def _write(self, world: TwinWorld, episodes: Sequence[Episode]) -> None:
        if self.page is not None:
            print(f"wrote {replace_text(self.page, render(self.world, episodes))}")
        if self.pushes is not None:
            pushes = [push for push in map(push_of, episodes) if push is not None]
            left = f", {left} episodes held too early" if (left := len(episodes) - len(pushes)) else ""
            print(f"wrote {write_pushes(self.pushes, pushes)}: {len(pushes)} pushes{left}")
        if self.rerun is not None:
            print(f"wrote {record(self.rerun, world, episodes)}")
        if self.out is not None:
            print(f"wrote {replace_text(self.out, json.dumps([numbers(one) for one in episodes], indent=1))}")


def push_of(episode: Episode) -> Push | None:
    """What was seen until the twin's arm was held, since then it may be elsewhere; None: too little."""
    ticks = list(takewhile(lambda tick: not tick.held, episode.ticks))
    if len(ticks) < SHORTEST:
        return None
    return Push.even(np.array([tick.time for tick in ticks]), np.array([tick.qpos for tick in ticks]))


def numbers(episode: Episode) -> dict:
    """JSON-able."""
    about: dict = {"start": episode.start, "success": bool(episode.success), "progress": float(episode.progress)}
    if episode.truth is not None:
        about["truth"] = {"success": episode.truth.success, "progress": episode.truth.progress}
    if episode.tracking is not None:
        about["tracking"] = episode.tracking.summary()
    return about | episode.account


def told(episode: Episode) -> str:
    """A few lines of text."""
    account, lines = episode.account, []
    outcome = "success" if episode.success else f"progress {episode.progress:.2f}"
    if episode.truth is not None:
        real = "success" if episode.truth.success else f"progress {episode.truth.progress:.2f}"
        outcome = f"twin {outcome}, real {real}"
    lag = account.get("lag_ticks")
    lines.append(
        f"start {episode.start}: {outcome}; {len(episode.ticks)} ticks"
        + ("" if lag is None else f", real joints {lag:.1f}{' or more' if lag >= LONGEST else ''} ticks behind")
    )
    if episode.tracking is not None:
        for name, values in episode.tracking.summary().items():
            cm, degrees = values["cm"], values["degrees"]
            lines.append(
                f"  {name}: off by {cm[0]:.2f} cm, {degrees[0]:.1f} degrees (mean); "
                f"{cm[1]:.2f}, {degrees[1]:.1f} (95 %); "
                f"{cm[2]:.2f}, {degrees[2]:.1f} (last)"
            )
    for reason, count in account["held_ticks"].items():
        lines.append(f"  held {count} ticks: {reason}")
    lines += [f"  {warning}" for warning in account["warnings"][:6]]
    return "\n".join(lines)


def render(source: str, episodes: Sequence[Episode]) -> str:
    """The HTML page with the tracking curves of all episodes."""
    from markupsafe import Markup

    shown = []
    for episode in episodes:
        time = [tick.time for tick in episode.ticks]
        charts = []
        if episode.tracking is not None:
            off = episode.tracking
            for values, label in ((100 * off.away, "cm off"), (off.turned, "degrees off")):
                lines = [
                    Line(off.time.tolist(), values[:, place].tolist(), "ab"[place % 2], name)
                    for place, name in enumerate(off.bodies)
                ]
                charts.append(chart(lines, x_label="seconds", y_label=label))
        cameras = sorted({name for tick in episode.ticks for name in tick.residual})
        if cameras:
            lines = [
                Line(time, [tick.residual.get(name, np.nan) for tick in episode.ticks], "ab"[place % 2], name)
                for place, name in enumerate(cameras)
            ]
            charts.append(chart(lines, x_label="seconds", y_label="residual of a camera"))
        lag = [float(np.abs(tick.joints - tick.echo).max()) for tick in episode.ticks]
        charts.append(chart([Line(time, lag, "a")], x_label="seconds", y_label="largest lag of a joint, rad or m"))
        work = [1000 * sum(tick.seconds.values()) for tick in episode.ticks]
        charts.append(chart([Line(time, work, "a")], x_label="seconds", y_label="work of a tick, ms"))
        shown.append({"text": told(episode), "charts": list(map(Markup, charts)), "start": episode.start})
    return page("twin.html", source=source, episodes=shown, timing=as_text(episodes[-1].account["timing"]))


def record(path: Path, world: TwinWorld, episodes: Sequence[Episode]) -> Path:
    """Write the ticks of all episodes to a rerun recording, one after the other."""
    import dataclasses

    from ...hardware.twin.gaussians import Gaussians
    from ...hardware.twin.reality.layout import Joints, task_of
    from ...hardware.twin.view import View

    model = task_of(world.of).scene().compile()
    gaussians = Gaussians.load(world.folder) if world.scene else None
    passed = 0.0
    with View(path, Joints.of(model).names, model, gaussians) as view:
        for episode in episodes:
            for tick in episode.ticks:
                view.tick(dataclasses.replace(tick, time=passed + tick.time), tick.pictures)
            passed += episode.ticks[-1].time + 1.0 if episode.ticks else 0.0
    return path
