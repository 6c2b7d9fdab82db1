"""The ratios that a bench is run for, and the targets set for them: how many times as fast as a peer ours is.

A ratio is above one where ours is faster. Pairs give its median and range, servers and buses its 95 % bootstrap
interval, what ran once its value alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Ratio = tuple[float, float, float] | float  # (low, middle, high), or a value alone
CORES = 0.85  # part of a perfect gain that more workers shall have


@dataclass(frozen=True)
class Headline:
    """One ratio of a bench."""

    bench: str  # its name in `every.PLAN`
    what: str
    peer: str
    times: Callable[[Mapping], Ratio]  # result -> how many times as fast
    target: float | None = None  # at least so many times; None: none was set


def reached(times: Ratio, target: float | None) -> str:
    """Whether a target is reached: yes, in the median (not in every pair), or no."""
    if target is None:
        return "no target"
    low, middle = (times[0], times[1]) if isinstance(times, tuple) else (times, times)
    return "yes" if low >= target else "in the median" if middle >= target else "no"


def _raced(case: str) -> Callable[[Mapping], Ratio]:
    """Of `policy.race`, whose ratios are those of times."""

    def times(result: Mapping) -> Ratio:
        race = result[case]
        return 1 / max(race["ratios"]), 1 / race["ratio"], 1 / min(race["ratios"])

    return times


def _rolled(case: str) -> Callable[[Mapping], Ratio]:
    def times(result: Mapping) -> Ratio:
        found = result["cases"][case]
        return min(found["speedups"]), found["speedup"], max(found["speedups"])

    return times


def _served(case: str) -> Callable[[Mapping], Ratio]:
    return lambda result: tuple(result["cases"][case]["ratio"]["understudy"])


def _scaled(result: Mapping) -> Ratio:
    two = result["cases"]["random actions"]["2 workers"]
    return two["steady_range"][0], two["steady_times"], two["steady_range"][1]


def _kept(result: Mapping) -> Ratio:
    return 1 / max(result["ratios"]), 1 / result["ratio"], 1 / min(result["ratios"])


def _bus(result: Mapping) -> Ratio:
    low, high = result["bus"]["ratio, 95 %"]
    return low, result["bus"]["ratio"], high


def _imagined(case: str) -> Callable[[Mapping], Ratio]:
    def times(result: Mapping) -> Ratio:
        found = result["cases"][case]
        return min(found["frames_ratios"]), found["frames_ratio"], max(found["frames_ratios"])

    return times


def _spread(result: Mapping) -> Ratio:
    cases = result["cases"]
    return cases["range"][0], cases["times"], cases["range"][1]


NO_SLOWER = 0.95  # five in a hundred are left to chance
Cases = tuple[tuple[str, str], ...]  # (case of a rollout, how it is called)
LIFT: Cases = (
    ("state", "Lift, states"),
    ("one camera, every step", "Lift, a picture every step"),
    ("one camera, once a chunk", "Lift, a picture a chunk"),
)
CAN: Cases = (("state", "Can, states"), ("one camera, every step", "Can, a picture every step"))
PUSHT: Cases = (
    ("state", "PushT, states"),
    ("pixels, every step", "PushT, a picture every step"),
    ("pixels, once a chunk", "PushT, a picture a chunk"),
)

HEADLINES = (
    Headline("loader", "windows a CPU second, equal batch", "lerobot", lambda result: result["ratio"], 100),
    Headline("train", "training step, equal network", "lerobot", _raced("equal network"), NO_SLOWER),
    Headline("train", "training step, our default network", "lerobot", _raced("our default network"), 1),
    Headline("latency", "chunk in ten steps, equal network", "lerobot", _raced("equal network"), NO_SLOWER),
    Headline("latency", "chunk in one step, equal network", "lerobot", _raced("equal network, one step"), 8),
    Headline("latency", "chunk, our default network", "lerobot", _raced("our default network"), 1),
    *(Headline("rollout-lift", what, "robosuite", _rolled(case), 1) for case, what in LIFT),
    *(Headline("rollout-can", what, "robosuite", _rolled(case), 1) for case, what in CAN),
    *(Headline("rollout-pusht", what, "lerobot-eval", _rolled(case), 1) for case, what in PUSHT),
    Headline("scaling", "Lift, two workers", "one process", _scaled, 2 * CORES),
    Headline("cluster", "Lift, two raylets", "one raylet", _spread, 2 * CORES),
    Headline("serve", "time added by the server, a state", "lerobot's server", _served("state"), 3),
    Headline("serve", "the same, two cameras", "lerobot's server", _served("two cameras"), 3),
    Headline("robot", "read and write six servos, CPU time", "lerobot", _bus, 3),
    Headline("stages", "long context, kept embeddings", "end to end", _kept, 10),
    Headline("twin", "simulated time of the twin, states", "real time", lambda result: result["offline"]["states"], 50),
    Headline("dream", "imagined frames, each step", "robosuite", _imagined("robosuite, every step"), 10),
    Headline("dream", "the same", "our robosuite", _imagined("ours of robosuite, every step"), 3),
)
