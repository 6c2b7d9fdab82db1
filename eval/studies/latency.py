"""What the ways of hiding latency cost: jumps where plans meet, accelerations and success, by delay.

    understudy study latency POLICY --out FILE.json

A policy acts in a simulated world from the same env seeds, with plans that come 0, 3, 6 and 12 control steps late, in
each of the ways of `--latency`. The seam is how far the first set-point of a new plan is from where the two before
lead, |a[t] - 2 a[t-1] + a[t-2]|, the greatest of all joints. Another policy for `past`
(`--conditioned DELAY=RUN`) is one that was trained to see late, with given past tokens; it acts at its own delay only.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...configs.lanes.lanes import Lanes
from ...configs.plugins import discover, lookup
from ...configs.progress import Progress
from ...configs.world import REPORT_STARTS, World, looked_at, read_world, start_set
from ...policies.agent.latency import Mode
from ...policies.agent.open import Acting, check_policy, check_world, open_agent
from ...policies.agent.stage import world_of
from ..ledger.study import Study
from ..rollout.rollout import Result, rollout
from ..statistics.intervals import Interval, wilson

MODES = tuple(mode.value for mode in Mode)
DELAYS = (0, 3, 6, 12)
DRAWS = 2_000  # bootstrap samples of the starts
COLUMNS = (
    "policy",
    "delay, steps",
    "way",
    "n",
    "success",
    "seam, median of starts, mrad",
    "seam, 95th percentile, mrad",
    "same within plans, median, mrad",
    "acceleration peak, rad/s^2",
    "steps to success",
)
NOTES = (
    "Success with Wilson's 95 % interval; the others are medians over starts with 95 % bootstrap intervals of them",
    "Seam: the second difference of the actions where a new plan takes over, greatest of all joints; of each start the "
    "mean over its seams, and their 95th percentile. With `wait` the arm also stops: the seam is where it goes on",
    "Within plans: the same number at all other steps, so how much of a seam is the motion itself",
    "Acceleration peak: the greatest second difference of an episode, times the rate squared, as it is asked for; "
    "a guard would bend it",
    "One block of env seeds for all rows, so that rows are paired",
)


@dataclass(frozen=True, kw_only=True)
class LatencyStudy:
    """Let a policy act with late plans in every way, and look at the seams."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("policy",)

    policy: str  # the run or checkpoint folder; with past tokens, or `past` is left out
    out: Path  # file of the study
    conditioned: tuple[str, ...] = ()  # DELAY=RUN: policies for `past` that were trained to see so many steps late
    world: dict | str | None = None  # where; by default where the policy was trained
    episodes: int = 100  # starts of each row
    env_seed: int = REPORT_STARTS  # the first of them
    delays: tuple[int, ...] = DELAYS  # control steps
    latency: tuple[str, ...] = MODES  # the ways
    n_action_steps: int | None = None  # actions executed of each plan; by default the policy's own
    block: int = 8  # parallel environments
    policy_seed: int = 0  # of the policy's noise
    device: str = "cpu"  # where the policy computes

    def __post_init__(self) -> None:
        for mode in self.latency:
            lookup("way to hide latency", mode, dict.fromkeys(MODES))
        if self.episodes < 1 or any(delay < 0 for delay in self.delays):
            raise ValueError("episodes must be at least 1, delays at least 0")
        for each in self.conditioned:
            if not each.partition("=")[0].isdigit():
                raise ValueError(f"conditioned: '{each}' is not DELAY=RUN")

    def run(self) -> None:
        for policy in (self.policy, *(each.partition("=")[2] for each in self.conditioned)):
            check_policy(policy)
        discover("policies", "sim")
        print(study(self).write(self.out))


def study(config: LatencyStudy) -> Study:
    """Every policy, delay and way that fits. Raises ValueError where none does."""
    rows, left = [], []
    cases = list(_cases(config))
    with Progress("acting", len(cases), "rows") as progress:
        for number, (policy, delay, mode) in enumerate(cases):
            try:
                rows.append(_row(config, policy, delay, mode))
                print(*rows[-1], flush=True)
            except ValueError as error:
                left.append(f"left out: {mode} at {delay}: {error}")
            progress.update(number + 1)
    if not rows:
        raise ValueError("; ".join(left))
    words = ["understudy", "study", "latency", config.policy, *(f"--conditioned={each}" for each in config.conditioned)]
    words += [f"--episodes={config.episodes}", "--out", "FILE.json"]
    notes = (*NOTES, f"Env seeds from {config.env_seed} on, policy seed {config.policy_seed}", *left)
    return Study(title="Latency hidden", command=shlex.join(words), columns=COLUMNS, rows=rows, notes=notes)


def _cases(config: LatencyStudy) -> Iterator[tuple[str, int, str]]:
    """(policy, delay, way); without a delay all ways are one."""
    for delay in config.delays:
        if not delay:
            yield config.policy, 0, "-"
            continue
        for mode in config.latency:
            yield config.policy, delay, mode
        for each in config.conditioned:
            at, _, policy = each.partition("=")
            if int(at) == delay:
                yield policy, delay, "past"


def _row(config: LatencyStudy, policy: str, delay: int, mode: str) -> tuple:
    """The cells of `COLUMNS`. Raises ValueError: the way does not fit the policy."""
    world = read_world(config.world or world_of([policy], tell=False))
    agent, _ = open_agent(
        Acting(
            policy=policy,
            block=config.block,
            n_action_steps=config.n_action_steps,
            policy_seed=config.policy_seed,
            device=config.device,
            delay=delay,
            latency=mode if delay else "wait",
        ),
        world.embodiment,
        world.task,
    )
    world = looked_at(world, agent.pictures)
    check_world(agent, world)
    return policy, delay, mode, *_measured(list(_acted(config, agent, world)), agent, world)


def _acted(config: LatencyStudy, agent, world: World) -> Iterator[Result]:
    starts = range(config.env_seed, config.env_seed + config.episodes)
    with closing(Lanes(world, config.block, 0)) as lanes:
        yield from rollout(agent, lanes, starts, initial_conditions=start_set(world))


def _measured(results: list[Result], agent, world: World) -> tuple:
    rate, steps = world.embodiment().rate, agent.n_action_steps
    takes = agent.latency.delay if agent.latency else 0  # step of a chunk at which its plan takes over
    seams = [bends(result.actions, steps, takes) for result in results]
    at, tail = ([1000 * float(f(seam)) for seam, _ in seams if len(seam)] for f in (np.mean, _tail))
    within = [1000 * float(np.median(rest)) for _, rest in seams if len(rest)]
    peak = [rate**2 * float(np.abs(np.diff(r.actions, 2, axis=0)).max()) for r in results if len(r.actions) > 2]
    won = [result.row["first_success"] for result in results if result.row["success"]]
    success = wilson(len(won), len(results))
    return len(results), tuple(success), *(_middle(values) for values in (at, tail, within, peak, won))


def bends(actions: np.ndarray, steps: int, takes: int) -> tuple[np.ndarray, np.ndarray]:
    """Greatest second difference of any joint (T - 2,) of actions (T, D): where plans take over, and elsewhere.

    Args:
        steps: of a chunk.
        takes: step of a chunk at which its plan takes over. The first plan of an episode takes over from nobody.
    """
    bend = np.abs(np.diff(actions, 2, axis=0)).max(1, initial=0)
    tick = np.arange(2, 2 + len(bend))
    seam = (tick % steps == takes) & (tick >= steps)
    return bend[seam], bend[~seam]


def _tail(values: np.ndarray) -> float:
    return float(np.percentile(values, 95))


def _middle(values: list) -> tuple | None:
    """The median with its 95 % bootstrap interval."""
    if not values:
        return None
    draws = np.random.default_rng(0).choice(np.asarray(values, float), (DRAWS, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), (2.5, 97.5))
    found = Interval(*(float(f"{number:.4g}") for number in (low, float(np.median(values)), high)))
    return tuple(found) if all(map(math.isfinite, found)) else None
