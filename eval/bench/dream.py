"""Imagined frames a second beside rendered ones, in interleaved pairs of one process.

A world model of the usual size dreams PushT at 64 px in `batch` lanes, closed loop but for the policy, whose chunks of
numbers cost nothing: everything that a policy, the judge and the model itself read is imagined, decoded, read and
judged. Weights decide nothing about the time, so they are barely trained unless `run` names a world model. Beside it,
what draws: stock robosuite with one camera at every step; our light robosuite world at every step and once a chunk; and
gym-pusht, with a picture at every step, once a chunk, and on states alone (where no dream pays).
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...configs.devices import choose_precision
from ...configs.episode import Episode
from ...configs.lanes.lanes import Lanes
from ...configs.world import REPORT_STARTS
from ...sim.pusht.gym_pusht import GymPushT
from ...sim.robosuite.suite import Robosuite
from ...world_models.env import DreamWorld
from .policy import Contender, race

PIXELS = 64
CHUNK = 8  # control steps
LOOK = (-1, 0)  # what a policy of two moments reads
EPISODES, STEPS = 4, 40  # of the made-up recordings
MAPS = [{"take": [0, 1], "high": [512, 512]}]


class Chunks:
    """A world in lanes, told random chunks; episodes that end begin anew."""

    def __init__(self, world, lanes: int, look: tuple[int, ...] = LOOK):
        self.lanes, self.look = Lanes(world, lanes), look
        low, high = np.array(world.embodiment().limits, np.float32).T
        drawn = np.random.default_rng(0).uniform(0.25, 0.75, (16, lanes, 1, len(low))) * (high - low) + low
        self.chunks, self.done = drawn.repeat(CHUNK, 2).astype(np.float32), 0
        self.reset()

    def reset(self) -> None:
        self.lanes.reset(seed=list(range(REPORT_STARTS, REPORT_STARTS + self.lanes.num_envs)))

    def work(self) -> int:
        """One chunk in every lane; the steps that were done."""
        if not self.lanes.running.all():
            self.reset()
        chunk = self.lanes.step_chunk(self.chunks[self.done % len(self.chunks)], look=self.look)
        self.done += 1
        return int(chunk.valid.sum())

    def close(self) -> None:
        self.lanes.close()


def compare_dreams(run: str, batch: int, pairs: int, seconds: float, device: str, threads: int | None) -> dict:
    """Each way of getting pictures beside the dream.

    Args:
        run: of a world model of PushT; empty: one that is made here.
        batch: lanes.
        seconds: about how long one turn of one side takes.

    Returns:
        `dream` (steps and frames a second), and of each rival its steps and frames a second, `frames_ratio` and
        `steps_ratio` of the dream (medians of the pairs), and `frames_ratios` of all pairs.
    """
    import torch

    torch.set_num_threads(threads or torch.get_num_threads())
    with tempfile.TemporaryDirectory() as scratch:
        model = run or made_up(Path(scratch))
        world = DreamWorld(
            model=model,
            starts="pusht",
            batch=batch,
            horizon=100_000,
            success_at=1.0,
            device=device,
            threads=threads,
            precision=choose_precision("auto", device),
        )
        with closing(Chunks(world, batch)) as dream:
            return _raced(dream, batch, world, pairs, seconds)


def _raced(dream: Chunks, batch: int, world: DreamWorld, pairs: int, seconds: float) -> dict:
    frames = frames_of_chunk(world)
    out: dict = {"batch": batch, "frames_of_chunk": frames}
    for name, open_rival, seen in rivals():
        with closing(open_rival()) as rival:
            raced = race(Contender("dream", 0, dream.work), Contender(name, 0, rival.work), pairs, seconds)
        ours, theirs = (1000 / side["ms"] for side in raced["sides"])
        lanes = rival.lanes.num_envs if isinstance(rival, Chunks) else 1
        times = sorted(1 / ratio for ratio in raced["ratios"])
        both, per_frame = statistics.median(times), batch * frames / (lanes * seen) if seen else None
        out["dream"] = {"steps_per_s": ours * batch * CHUNK, "frames_per_s": ours * batch * frames}
        out[name] = {"steps_per_s": theirs * lanes * CHUNK, "frames_per_s": theirs * lanes * seen}
        out[name] |= {"steps_ratio": both * batch / lanes, "cpu_ratio": raced["cpu_ratio"]}
        out[name] |= {"frames_ratio": both * per_frame if per_frame else None}
        out[name] |= {"frames_ratios": [one * per_frame for one in times] if per_frame else None}
    return out


def frames_of_chunk(world: DreamWorld) -> int:
    """Frames that are imagined and decoded of a chunk: those that the policy reads and those that are judged."""
    looked = {CHUNK + offset for offset in LOOK}
    return len(looked | set(range(world.judge_every, CHUNK + 1, world.judge_every)))


def rivals():
    """(name, how it is opened, frames that it gives of a chunk)."""
    from .rollout import Ours, Stock

    lift = Robosuite(task="lift", look="light", cameras={"agentview": (PIXELS, PIXELS)})
    yield "robosuite, every step", lambda: Stock("Lift", ("agentview",), PIXELS, CHUNK), CHUNK
    yield "ours of robosuite, every step", lambda: Ours(lift, CHUNK, True), CHUNK
    yield "ours of robosuite, once a chunk", lambda: Ours(lift, CHUNK, False), 1
    drawn = replace(GymPushT(), cameras={"image": (PIXELS, PIXELS)}, horizon=100_000)
    every = tuple(range(1 - CHUNK, 1))
    yield "gym-pusht, every step", lambda: Chunks(drawn, 1, every), CHUNK
    yield "gym-pusht, once a chunk", lambda: Chunks(drawn, 1, (0,)), 1
    yield "gym-pusht, states alone", lambda: Chunks(replace(drawn, cameras={}), 1, (0,)), 0


def made_up(folder: Path) -> str:
    """The run of a world model of the usual size, trained for two steps on a few recordings of random actions."""
    from ...configs.settings.decode import decode
    from ...policies.data.writer import DatasetWriter
    from ...policies.learning.train import Train, start_run
    from ...world_models import codec as _codec  # noqa: F401  registers its settings
    from ...world_models import video as _video  # noqa: F401

    world = replace(GymPushT(), cameras={"image": (PIXELS, PIXELS)})
    writer = DatasetWriter(folder / "data", world.embodiment())
    with closing(world.lane()) as lane:
        for seed in range(EPISODES):
            writer.add(_recorded(lane, seed))

    sizes = {"observation.state": 2, "observation.environment_state": 16}
    maps = {key: {"take": list(range(count)), "high": [512, 512]} for key, count in sizes.items()}
    codec = {"type": "codec", "codec": {"size": [PIXELS, PIXELS], "state_maps": maps}}
    video = {"type": "video", "run": str(folder / "codec"), "action_maps": MAPS}
    plain = {"data": str(folder / "data"), "steps": 2, "batch": 4, "device": "cpu", "validation": 0.0}
    for name, settings in (("codec", codec), ("video", video)):
        told = plain | {"out": str(folder / name), "world_model": settings}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            start_run(decode(Train, told))
    return str(folder / "video")


def _recorded(lane, seed: int) -> Episode:
    """Random actions, each held for some steps."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(100, 400, (STEPS // CHUNK, 2)).repeat(CHUNK, 0).astype(np.float32)
    obs, _ = lane.reset(seed=seed)
    seen = []
    for action in actions:
        seen.append(obs)
        obs, *_ = lane.step(action)
    nothing = np.zeros(STEPS, np.float32)
    return Episode(
        start=seed, task="made up", obs={key: np.stack([one[key] for one in seen]) for key in seen[0]},
        action=actions, sent=actions, reward=nothing, progress=nothing, success=nothing.astype(bool),
        terminated=False, truncated=True,
    )  # fmt: skip


def table(result: dict) -> str:
    """The results as text."""
    dream = result["dream"]
    lines = [f"{'':<34}{'frames/s':>10}{'steps/s':>10}{'dream, frames':>15}{'dream, steps':>14}"]
    head = f"dream, {result['batch']} lanes, {result['frames_of_chunk']} frames of {CHUNK} steps"
    lines.append(f"{head:<34}{dream['frames_per_s']:>10.0f}{dream['steps_per_s']:>10.0f}")
    for name, one in result.items():
        if not isinstance(one, dict) or "steps_ratio" not in one:
            continue
        frames = f"{one['frames_ratio']:.1f} x" if one["frames_ratio"] else "-"
        lines.append(
            f"{name:<34}{one['frames_per_s']:>10.0f}{one['steps_per_s']:>10.0f}{frames:>15}"
            f"{one['steps_ratio']:>12.1f} x"
        )
    lines.append("ratios: medians of interleaved pairs. A frame of the dream is imagined, decoded, read and judged")
    return "\n".join(lines)
