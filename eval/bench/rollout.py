"""Rollouts of a robosuite task beside stock robosuite in one process, in interleaved pairs: state, one camera, two.

Both sides execute the same held random actions in the same scene from the same class of initial conditions, one
environment each, in chunks of E control steps. Stock robosuite is `robosuite.make` with its own settings and
observations: its cameras are drawn at every step, as it always does. Ours is a world in `Lanes`; `every step` reads a
picture after each of the E steps, as an agent with a reaction time of one step would, `once a chunk` only those after
the last, as an agent that executes E actions of a chunk does. The policy of both is a table of numbers, so its part
is what the loop itself costs.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from ...configs.lanes.lanes import Lanes
from ...sim.robosuite.build import RATE, draws, open_robosuite
from ...sim.robosuite.suite import Robosuite
from .policy import Contender, race

CAMERAS = ("agentview", "robot0_eye_in_hand")
CASES = (  # name, cameras, look, pictures at every step
    ("state", 0, "stock", False),
    ("one camera, every step", 1, "stock", True),
    ("one camera, once a chunk", 1, "stock", False),
    ("one camera, light, every step", 1, "light", True),
    ("one camera, light, once a chunk", 1, "light", False),
    ("two cameras, once a chunk", 2, "stock", False),
    ("two cameras, light, once a chunk", 2, "light", False),
)


@dataclass
class Ours:
    """A world of ours, a chunk at a time."""

    world: Robosuite
    n_action_steps: int
    every: bool  # read pictures at every step
    walls: list[tuple[float, float, float]] = field(default_factory=list)  # physics, render, loop in s a chunk

    def __post_init__(self):
        self.lanes = Lanes(self.world, 1)
        self.chunks = _chunks(self.n_action_steps)
        self.look = tuple(range(1 - self.n_action_steps, 1)) if self.every else (0,)
        self.done = 0
        self.reset()

    def reset(self) -> None:
        self.lanes.reset(seed=[self.done])

    def work(self) -> None:
        """One chunk; an episode that ends is begun anew."""
        begun = time.perf_counter()
        chunk = self.lanes.step_chunk(self.chunks[self.done % len(self.chunks)][None], look=self.look)
        spent = time.perf_counter() - begun
        physics, render = float(chunk.wall_physics[0]), float(chunk.wall_render[0])
        self.walls.append((physics, render, spent - physics - render))
        self.done += 1
        if not self.lanes.running.all():
            self.reset()

    def split(self) -> dict[str, float]:
        """Median milliseconds of a control step: physics, render, loop."""
        parts = zip(*self.walls, strict=True)
        names = ("physics", "render", "loop")
        return {
            name: 1000 * statistics.median(part) / self.n_action_steps for name, part in zip(names, parts, strict=True)
        }

    def close(self) -> None:
        self.lanes.close()


class Stock:
    """robosuite as it comes, a chunk at a time."""

    def __init__(self, environment: str, cameras: tuple[str, ...], size: int, n_action_steps: int):
        suite = open_robosuite()  # with the guard, or its pictures may be wrong
        self.env = suite.make(
            environment,
            robots="Panda",
            control_freq=int(RATE),
            reward_shaping=True,
            ignore_done=True,
            has_renderer=False,
            has_offscreen_renderer=bool(cameras),
            use_camera_obs=bool(cameras),
            **({"camera_names": list(cameras), "camera_heights": size, "camera_widths": size} if cameras else {}),
        )
        self.chunks, self.done = _chunks(n_action_steps), 0
        self.reset()

    def reset(self) -> None:
        with draws(self.env, self.done):
            self.env.reset()

    def work(self) -> None:
        for action in self.chunks[self.done % len(self.chunks)]:
            self.env.step(action)
        self.done += 1

    def close(self) -> None:
        self.env.close()


def compare_rollouts(world: Robosuite, size: int, n_action_steps: int, pairs: int, seconds: float) -> dict:
    """Each case against stock robosuite.

    Args:
        world: the task; its cameras and look are set by the cases.
        size: px, height and width of the pictures.
        n_action_steps: E, control steps of a chunk.
        seconds: about how long one turn of one side takes.

    Returns:
        case name -> steps/s and episodes/s of both, `speedup` (median ratio of the pairs) with all `speedups`,
        and our milliseconds a step in physics, render and loop.
    """
    from ...sim.robosuite.body import find_task

    results = {"physics alone": _physics_alone(world)}
    environment = find_task(world.task).environment
    for count in sorted({case[1] for case in CASES}):
        cameras = CAMERAS[:count]
        with closing(Stock(environment, cameras, size, n_action_steps)) as stock:
            for name, _, look, every in (case for case in CASES if case[1] == count):
                changed = replace(world, look=look, cameras=dict.fromkeys(cameras, (size, size)))
                with closing(Ours(changed, n_action_steps, every)) as ours:
                    results[name] = _case(ours, stock, pairs, seconds)
    results["rest"] = where_the_rest_goes(results, n_action_steps)
    return results


def _case(ours: Ours, stock: Stock, pairs: int, seconds: float) -> dict:
    raced = race(Contender("understudy", 0, ours.work), Contender("robosuite", 0, stock.work), pairs, seconds)
    horizon, both = ours.world.steps(), {}
    for side, timed in zip((ours, stock), raced["sides"], strict=True):
        step, reset = timed["ms"] / 1000 / ours.n_action_steps, _seconds(side.reset)
        both[timed["name"]] = {"steps_per_s": 1 / step, "reset_ms": 1000 * reset}
        both[timed["name"]] |= {"episodes_per_s": 1 / (reset + horizon * step)}
    speedups = [1 / ratio for ratio in raced["ratios"]]
    return both | {"speedup": statistics.median(speedups), "speedups": speedups, "ms_per_step": ours.split()}


def _physics_alone(world: Robosuite) -> dict:
    """Milliseconds of a control step's bare `mj_step` calls, of the reward with its judging, and of one observation."""
    import mujoco

    with closing(replace(world, cameras={}).lane()) as lane:
        lane.reset(seed=0)
        model, data = lane.suite.sim.model._model, lane.suite.sim.data._data
        substeps = round(1 / RATE / model.opt.timestep)
        parts = {
            "ms_per_step": lambda: mujoco.mj_step(model, data, substeps),
            "reward_ms": lambda: (lane.suite.reward(None), lane.judge()),
            "observation_ms": lane.sense,
        }
        seconds = {name: [_seconds(work) for _ in range(9)] for name, work in parts.items()}
        return {name: 1000 * statistics.median(spent) for name, spent in seconds.items()}


def where_the_rest_goes(results: dict, n_action_steps: int) -> str:
    """A state step of ours in its parts, and what part of the possible speed-up that is."""
    alone, state = results["physics alone"], results["state"]
    step, whole = alone["ms_per_step"], 1000 / state["understudy"]["steps_per_s"]
    seen = alone["observation_ms"] / n_action_steps
    control = state["ms_per_step"]["physics"] - step - alone["reward_ms"] - seen
    parts = {"mj_step": step, "controller": control, "reward": alone["reward_ms"], "observation": seen}
    parts["loop"] = state["ms_per_step"]["loop"]
    listed = ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
    possible = 1000 / state["robosuite"]["steps_per_s"] / step
    return f"a state step of ours takes {whole:.2f} ms: {listed}; physics alone: {possible:.1f} times stock"


def _chunks(n_action_steps: int) -> np.ndarray:
    """(16, E, 7) actions: one held through each chunk, half of the range."""
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (16, 1, 7)).astype(np.float32)
    return np.repeat(actions, n_action_steps, axis=1)


def _seconds(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def table(results: dict) -> str:
    """The results as text."""
    lines = [
        f"{'':<34}{'steps/s':>9}{'stock':>8}{'speed-up':>10}{'range':>13}{'episodes/s':>12}{'stock':>8}  ms a step"
    ]
    for name, case in results.items():
        if "speedup" not in case:  # not a race
            continue
        ours, stock, parts = case["understudy"], case["robosuite"], case["ms_per_step"]
        span = f"{min(case['speedups']):.1f}-{max(case['speedups']):.1f}"
        split = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
        lines.append(
            f"{name:<34}{ours['steps_per_s']:>9.0f}{stock['steps_per_s']:>8.0f}{case['speedup']:>10.2f}{span:>13}"
            f"{ours['episodes_per_s']:>12.2f}{stock['episodes_per_s']:>8.2f}  {split}"
        )

    pairs = len(results["state"]["speedups"])
    alone = results["physics alone"]["ms_per_step"]
    lines.append(f"speed-up: median of {pairs} interleaved pairs, beside stock robosuite with its own observations;")
    lines.append(f"its cameras are drawn at every step. Physics alone (mj_step) takes {alone:.2f} ms a step")
    if "rest" in results:
        lines.append(results["rest"])
    return "\n".join(lines)
