"""What the ways of hiding latency cost: jumps where plans meet, accelerations and success, by delay.

    understudy study latency POLICY --out FILE.json

A policy acts in a simulated world from the same env seeds, with plans that come 0, 3, 6 and 12 control steps late, in
each of the ways of `--latency`. The seam is how far the first set-point of a new plan is from where the two before
lead, |a[t] - 2 a[t-1] + a[t-2]|, the greatest of all joints. Another policy for `past`
(`--conditioned DELAY=RUN`) is one that was trained to see late, with given past tokens; it acts at its own delay only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from ...configs.command import command_of
from ...configs.lanes.lanes import Lanes
from ...configs.plugins import discover, lookup
from ...configs.progress import Progress
from ...configs.world import REPORT_STARTS, looked_at, read_world, start_set
from ...policies.agent.latency import Mode
from ...policies.agent.open import Acting, check_policy, check_world, open_agent
from ...policies.agent.stage import world_of
from ..ledger.study import Study
from ..rollout.rollout import Result, rollout
from ..statistics.intervals import Interval, wilson
from ..statistics.paired import tango
from ._kept import Kept

MODES = tuple(mode.value for mode in Mode)
DELAYS = (0, 3, 6, 12)
DRAWS = 2_000  # bootstrap samples of the starts
PEER = Mode.rtc.value  # that the other ways are compared with, start by start
COLUMNS = (
    "policy", "delay, steps", "way", "n", "success", "success less rtc's", "seam, median of starts, mrad",
    "of rtc's seam", "seam, 95th percentile, mrad", "same within plans, median, mrad", "acceleration peak, rad/s^2",
    "steps to success",
)  # fmt: skip
NOTES = (
    "Success with Wilson's 95 % interval, its difference from rtc's with Tango's; the others are medians over starts "
    "with 95 % bootstrap intervals of them. All rows have the same starts, so differences and ratios are paired",
    "Seam: the second difference of the actions where a new plan takes over, greatest of all joints; of each start the "
    "mean over its seams, and their 95th percentile. With `wait` the arm also stops: the seam is where it goes on",
    "Of rtc's seam: this median divided by that of real-time chunking at the same delay",
    "Within plans: the same number at all other steps, so how much of a seam is the motion itself",
    "Acceleration peak: the greatest second difference of an episode, times the rate squared, as it is asked for; "
    "a guard would bend it",
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
            at = each.partition("=")[0]
            if not at.isdigit():
                raise ValueError(f"conditioned: '{each}' is not DELAY=RUN")
            if int(at) not in self.delays:
                raise ValueError(f"conditioned: '{each}' acts at a delay of {at} alone, which is none of --delays")

    def run(self) -> None:
        for policy in (self.policy, *(each.partition("=")[2] for each in self.conditioned)):
            check_policy(policy)
            discover("policies", "sim")
            if self.world is None:
                world_of([policy], tell=False)  # refuses once what would leave every row out
        kept = Kept(self.out, self)
        with kept.going_on():
            found = study(self, kept)
            print(found.markdown())
            print(found.write(self.out))


def study(config: LatencyStudy, kept: Kept) -> Study:
    """Every policy, delay and way that fits. Raises ValueError where none does."""
    found, left = dict[Case, Starts](), []
    cases = list(_cases(config))
    with Progress("acting", len(cases), "rows", done=len(kept)) as progress:
        for number, case in enumerate(cases):
            try:
                found[case] = Starts.of(kept.get(str(case), partial(_acted, config, case)))
            except ValueError as error:
                left.append(f"left out: {case.mode} at {case.delay}: {error}")
            progress.update(number + 1)
    if not found:
        raise ValueError("; ".join(left))
    rtc = {case.delay: starts for case, starts in found.items() if case.mode == PEER}
    command = f"{command_of(config, 'study latency', without=('out',))} --out FILE.json"
    notes = (*NOTES, f"Env seeds from {config.env_seed} on, policy seed {config.policy_seed}", *left)
    rows = [row(case, starts, rtc.get(case.delay)) for case, starts in found.items()]
    return Study(title="Latency hidden", command=command, columns=COLUMNS, rows=rows, notes=notes)


class Case(NamedTuple):
    """A row: who acts, how late its plans are in control steps, and the way to hide it."""

    policy: str
    delay: int
    mode: str


def _cases(config: LatencyStudy) -> Iterator[Case]:
    """Without a delay all ways are one."""
    for delay in config.delays:
        if not delay:
            yield Case(config.policy, 0, "-")
            continue
        for mode in config.latency:
            yield Case(config.policy, delay, mode)
        for each in config.conditioned:
            at, _, policy = each.partition("=")
            if int(at) == delay:
                yield Case(policy, delay, "past")


@dataclass(frozen=True)
class Starts:
    """What came of each start (n,): steps until success, or -1; what bent, in mrad, and nan where it has none of it."""

    first_success: np.ndarray
    seam: np.ndarray  # mean over its seams
    tail: np.ndarray  # 95th percentile of its seams
    within: np.ndarray  # median of its other steps
    peak: np.ndarray  # rad/s^2

    @classmethod
    def of(cls, told: dict) -> Starts:
        return cls(**{name: np.array(values, float) for name, values in told.items()})  # None becomes nan


def _acted(config: LatencyStudy, case: Case) -> dict[str, list]:
    """The columns of `Starts`, JSON-able. Raises ValueError: the way does not fit the policy."""
    world = read_world(config.world or world_of([case.policy], tell=False))
    agent, _ = open_agent(
        Acting(
            policy=case.policy,
            block=config.block,
            n_action_steps=config.n_action_steps,
            policy_seed=config.policy_seed,
            device=config.device,
            delay=case.delay,
            latency=case.mode if case.delay else "wait",
        ),
        world.embodiment,
        world.task,
    )
    world = looked_at(world, agent.pictures)
    check_world(agent, world)
    starts = range(config.env_seed, config.env_seed + config.episodes)
    takes = agent.latency.delay if agent.latency else 0  # step of a chunk at which its plan takes over
    with closing(Lanes(world, config.block, 0)) as lanes:
        results = sorted(
            rollout(agent, lanes, starts, initial_conditions=start_set(world)), key=lambda result: result.start
        )
    bent = [_bent(result, world.embodiment().rate, agent.n_action_steps, takes) for result in results]
    first = [result.row["first_success"] if result.row["success"] else -1 for result in results]
    return {"first_success": first} | {name: [each[name] for each in bent] for name in bent[0]}


def _bent(result: Result, rate: float, steps: int, takes: int) -> dict[str, float | None]:
    """The columns of `Starts` that one episode's actions give."""
    seam, rest = bends(result.actions, steps, takes)
    every = np.concatenate([seam, rest])
    return {
        "seam": 1000 * float(seam.mean()) if len(seam) else None,
        "tail": 1000 * float(np.percentile(seam, 95)) if len(seam) else None,
        "within": 1000 * float(np.median(rest)) if len(rest) else None,
        "peak": rate**2 * float(every.max()) if len(every) else None,
    }


def row(case: Case, starts: Starts, rtc: Starts | None) -> tuple:
    """The cells of `COLUMNS`; `rtc`: real-time chunking from the same starts, late by as much."""
    won, n = starts.first_success >= 0, len(starts.first_success)
    less, ratio = None, None
    if rtc is not None and case.mode != PEER:
        theirs = rtc.first_success >= 0
        less = tango(int((won & ~theirs).sum()), int((theirs & ~won).sum()), n)
        ratio = _middle(starts.seam, rtc.seam)
    middles = (_middle(starts.tail), _middle(starts.within), _middle(starts.peak), _middle(starts.first_success[won]))
    return *case, n, wilson(int(won.sum()), n), less, _middle(starts.seam), ratio, *middles


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


def _middle(values: np.ndarray, of: np.ndarray | None = None) -> Interval | None:
    """The median, where `of` is given divided by the median of these, with its 95 % bootstrap interval.

    Starts that lack a number are left out; `of` is of the same starts as `values`.
    """
    both = np.stack([values, np.ones_like(values) if of is None else of])
    both = both[:, np.isfinite(both).all(0)]
    if not both.shape[1] or not np.median(both[1]):
        return None
    drawn = np.random.default_rng(0).integers(0, both.shape[1], (DRAWS, both.shape[1]))
    with np.errstate(divide="ignore"):
        top, bottom = np.median(both[:, drawn], axis=2)
        low, high = np.percentile(top / bottom, (2.5, 97.5))
    found = Interval(*(float(f"{number:.4g}") for number in (low, np.median(both[0]) / np.median(both[1]), high)))
    return found if all(map(math.isfinite, found)) else None
