"""What a twin costs: its whole loop at 60 Hz by the clock, and how much faster than real time it evaluates offline.

The loop runs in its process, followed by a stand-in in another one, which draws the cameras: what is timed is physics,
messages to what follows, and the correction by two cameras. Offline, lanes of the twin step in one process, from states
and with one camera; a second of all lanes together counts as that many seconds.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from ...configs.lanes.lanes import open_world
from ...configs.world import World, read_world
from ...hardware.twin.env import Reality, TwinWorld
from ...hardware.twin.live.online import OnlineLane
from ...hardware.twin.live.timing import as_text
from ...sim.task import TaskEnv

SIZE = (96, 96)  # px of a camera
LANES = 8
START = 100_000
SWING = 0.05  # part of the half range that random actions move


def compare_twin(task: str, seconds: float, scene: str = "") -> dict:
    """JSON-able: `loop` (see `Timing.summary`), `offline` (seconds of the task in a second of the clock), `lag_ticks`.

    Args:
        scene: folder of `understudy twin build`; empty: one is built, which is not timed.
    """
    world = read_world(task)
    with tempfile.TemporaryDirectory() as folder:
        built = scene or _build(task, Path(folder) / "scene")
        loop = _loop(world, built, seconds)
    camera = world.views()[0]
    offline = {
        "states": _offline(world, seconds / 4),
        "states, processor time": _offline(world, seconds / 4, time.process_time),
        "one camera": _offline(read_world(task, cameras={camera: SIZE}), seconds / 4),
    }
    return {"task": task, "loop": loop["timing"], "lag_ticks": loop.get("lag_ticks"), "offline": offline}


def table(result: dict) -> str:
    """What a terminal shows."""
    lines = [as_text(result["loop"])]
    if result["lag_ticks"] is not None:
        lines.append(f"real joints {result['lag_ticks']:.1f} ticks behind the twin's")
    lines += [f"offline, {name:<24} {factor:8.1f} x real time" for name, factor in result["offline"].items()]
    return "\n".join(lines)


def _build(task: str, folder: Path) -> str:
    from ...hardware.twin.build import Build, build

    build(Build(scene=task, out=folder, size=SIZE)).save(folder)
    return str(folder)


def _loop(world: World, scene: str, seconds: float) -> dict:
    """The account of a loop that ran by the clock; it is given what the demonstrator does in the simulator."""
    steps = round(seconds * world.embodiment().rate)
    episodes: dict[int, list[np.ndarray]] = {}
    for start in itertools.count(START):  # before the clock runs
        if sum(map(len, episodes.values())) >= steps:
            break
        episodes[start] = _demonstrated(world, start)
    with closing(TwinWorld(of=world, real=Reality(), scene=scene, pace="wall").lane()) as lane:
        assert isinstance(lane, OnlineLane)
        for start in itertools.cycle(episodes):
            lane.reset(seed=start)
            for action in episodes[start]:
                _, terminated, truncated, _ = lane.advance(action)
                steps -= 1
                if not steps:
                    return lane.account()
                if terminated or truncated:
                    break
    raise ValueError(f"seconds: {seconds:g} hold no control step")


def _demonstrated(world: World, start: int) -> list[np.ndarray]:
    """The actions of the demonstrator's episode from a start, without the twin."""
    with closing(world.lane()) as lane:
        assert isinstance(lane, TaskEnv)
        lane.reset(seed=start)
        actions, over = [], False
        while not over:
            actions.append(lane.expert_action())
            _, terminated, truncated, _ = lane.advance(actions[-1])
            over = terminated or truncated
    return actions


def _offline(world: World, seconds: float, clock=time.perf_counter) -> float:
    """Seconds of the task that pass in a second, all lanes together, in this process."""
    with closing(open_world(TwinWorld(of=world), LANES)) as lanes:
        lanes.reset(seed=list(range(START, START + LANES)))
        rest, rng = np.asarray(lanes.call("rest"), np.float32), np.random.default_rng(0)
        low, high = np.asarray(world.embodiment().limits, np.float32).T
        shape = (LANES, 8, len(low))
        for _ in range(2):
            lanes.step_chunk(np.tile(rest[:, None], (1, 8, 1)))
        steps, begun, ticking = 0, clock(), time.perf_counter()
        while time.perf_counter() - ticking < seconds:
            actions = rest[:, None] + SWING * rng.uniform(-1, 1, shape) * (high - low) / 2
            chunk = lanes.step_chunk(np.clip(actions, low, high).astype(np.float32))
            steps += int(chunk.valid.sum())
            if not lanes.running.all():
                lanes.reset(seed=list(range(START, START + LANES)))
        return round(steps / world.embodiment().rate / (clock() - begun), 2)
