"""What a record says in a few numbers, as text for the terminal and for the report.

Reads a record and nothing else. An episode that ended in an error counts as a failure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from ...configs.progress import counted
from ..statistics.distributions import t_isf
from ..statistics.intervals import Interval, exact, mean_interval, wilson
from ..statistics.power import detectable
from .record import Record


@dataclass(frozen=True)
class Chosen:
    """A critic's scores of action chunks, in its own unit; means over replannings, then over episodes."""

    value: Interval  # of the chunk that was chosen; Student's t over episodes
    mean: float  # of all candidates
    spread: float  # standard deviation of a replanning's candidates
    candidates: int

    def text(self) -> str:
        """For a row of the summary."""
        away = f", {(self.value.estimate - self.mean) / self.spread:.2f} spreads above" if self.spread else ", equal to"
        return f"score {self.value.estimate:.3g}{away} the mean {self.mean:.3g} of {self.candidates} candidates"


@dataclass(frozen=True)
class Summary:
    """The numbers of one record. Intervals are two-sided, 95 %."""

    title: str
    world: str
    starts: str
    n: int
    asked: int  # episodes that the run was to have
    successes: int
    errors: int
    success: Interval  # Wilson
    success_exact: Interval  # Clopper-Pearson
    progress: Interval  # mean of the best progress
    final: float  # mean of the final progress
    length: float  # mean, control steps
    first_success: float | None  # median, control steps; None: no success
    physics: float  # s, summed over the episodes
    render: float  # s
    policy: float  # s
    ipc: float  # s, handing over: checks, copies, other processes; 0 where the record does not tell
    wait: float  # s, for slower environments, for a policy that plans for others, for work; 0 likewise
    rate: float | None  # episodes per second of wall time
    detects: (
        float | None
    )  # difference of success that as many episodes of another policy would show, paired; None: none
    chosen: Chosen | None = None  # what the critic said of the action chunks, if one chose
    at_reset: int = 0  # successes that were there before any action
    late: int = 0  # control steps that began late, of an arm
    late_of: int = 0  # control steps of the episodes that tell
    hertz: float | None = None  # control steps per second of the world; None: the record does not say

    def seconds(self, steps: float) -> str:
        """ " (1.6 s)" of so many control steps, "" where the record does not say."""
        return f" ({steps / self.hertz:.1f}\u00a0s)" if self.hertz else ""

    @property
    def split(self) -> dict[str, float]:
        """Where the time went, in s."""
        parts = {"physics": self.physics, "render": self.render, "policy": self.policy}
        return parts | ({"ipc": self.ipc, "waiting": self.wait} if self.ipc else {})

    @property
    def bound(self) -> str:
        """What the run spent most of its time with, and what would help."""
        name = max(self.split, key=lambda part: self.split[part])
        share = self.split[name] / max(sum(self.split.values()), 1e-9)
        return f"{_BOUND[name][0]} ({100 * share:.0f} % of the time): {_BOUND[name][1]}"

    def text(self) -> str:
        """A small table."""
        steps = ""
        if self.first_success is not None:
            steps = f", success after {self.first_success:.0f}{self.seconds(self.first_success)} (median)"
        spent = max(sum(self.split.values()), 1e-9)
        shares = {_BOUND[name][0] if name == "ipc" else name: part / spent for name, part in self.split.items()}
        split = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())

        rows = [
            ("success", f"{self.success}   {self.successes} of {self.n}, Wilson 95 %"),
            ("best progress", f"{self.progress}   mean, 95 %"),
            ("length", f"{self.length:.0f} steps{self.seconds(self.length)}{steps}"),
            ("time", split + ("" if self.rate is None else f"; {self.rate:.2f} episodes/s")),
        ]

        # lines that not every record has
        rows += [("bound by", self.bound)] if self.ipc else []
        rows.insert(2, ("detectable", detects(self.detects, self.n)))
        rows += [("chosen chunk", self.chosen.text())] if self.chosen else []
        rows += [("at reset", f"{self.at_reset} of {self.n} had succeeded before any action")] if self.at_reset else []
        if self.late:
            share = f"{100 * self.late / self.late_of:.0f} %"
            rows += [("deadlines", f"{self.late} of {counted(self.late_of, 'control step')} began late ({share})")]
        rows += [("errors", f"{counted(self.errors, 'episode')}, counted as failures")] if self.errors else []
        rows += [("unfinished", f"{self.n} of {counted(self.asked, 'episode')}")] if self.n < self.asked else []

        head = f"{self.title} in {self.world}, env seeds {self.starts}"
        return "\n".join([head, *(f"{name:<16}{value}" for name, value in rows)])


def summarize(record: Record) -> Summary:
    """The numbers of a record with at least one episode. Raises ValueError for an empty one."""
    n = len(record.table)
    if not n:
        raise ValueError(f"the record '{record.root}' holds no episode")

    column = {name: np.asarray(record.column(name)) for name in _NUMBERS}
    successes, first = int(column["success"].sum()), column["first_success"]
    starts, wall = record.column("env_seed"), record.manifest.get("wall")
    late, late_of = _late(record)

    return Summary(
        title=title(record.manifest),
        world=_world(record),
        starts=f"{starts[0]}..{starts[-1]}",
        n=n,
        asked=record.manifest.get("starts", {}).get("count", n),
        successes=successes,
        errors=sum(bool(error) for error in record.column("error")),
        success=wilson(successes, n),
        success_exact=exact(successes, n),
        progress=mean_interval(column["best_progress"]),
        final=float(column["final_progress"].mean()),
        length=float(column["length"].mean()),
        first_success=float(np.median(first[first >= 0])) if (first >= 0).any() else None,
        physics=float(column["wall_physics"].sum()),
        render=float(column["wall_render"].sum()),
        policy=float(column["wall_policy"].sum()),
        ipc=_told(record, "wall_ipc"),
        wait=_told(record, "wall_wait") + float((record.manifest.get("crew") or {}).get("idle") or 0.0),
        rate=record.manifest.get("acted", n) / wall if wall else None,
        detects=detectable(n, successes / n, paired=True),
        chosen=chosen(record),
        at_reset=int((first == 0).sum()),
        late=late,
        late_of=late_of,
        hertz=rate_of(record.manifest),
    )


def _late(record: Record) -> tuple[int, int]:
    """(control steps that began late, all) of the episodes whose labels tell."""
    if "labels" not in record.table.column_names:
        return 0, 0
    labels = [json.loads(told or "{}") for told in record.column("labels")]
    arms = [(one, n) for one, n in zip(labels, record.column("length"), strict=True) if {"late", "bent"} <= one.keys()]
    return sum(one["late"] for one, _ in arms), sum(n for _, n in arms)


def rate_of(manifest: dict) -> float | None:
    """Control steps per second of the world; None where the manifest does not say."""
    rate = manifest.get("rate", manifest.get("world", {}).get("rate"))
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def chosen(record: Record) -> Chosen | None:
    """What the critic said of the chosen action chunks and of all, of a record whose policy was steered; else None."""
    names = ("value", "value_mean", "value_spread")
    if not set(names) <= set(record.table.column_names):
        return None
    columns = [column for column in zip(*(record.column(name) for name in names), strict=True) if all(column)]
    if not columns:
        return None
    means = np.array([list(map(np.mean, column)) for column in columns])  # (episodes, 3)
    value, mean, spread = means.mean(0).tolist()
    half = t_isf(0.025, len(means) - 1) * means[:, 0].std(ddof=1) / len(means) ** 0.5 if len(means) > 1 else 0.0
    candidates = record.manifest.get("agent", {}).get("candidates", 0)
    return Chosen(Interval(value - half, value, value + half), mean, spread, candidates)


def detects(gap: float | None, n: int) -> str:
    """The smallest difference that n episodes can show, in words."""
    if gap is None:
        return f"{counted(n, 'episode', 'is', 'are')} too few to show any difference from another policy"
    least = f"a difference of {gap:.2f} in success at least"
    return f"{least}, to another policy on the same {n} initial conditions (McNemar, 80 % power)"


def _world(record: Record) -> str:
    """The set of initial conditions, and the kind of world too where it borrows another one's."""
    starts = record.manifest.get("starts", {}).get("set") or record.column("task")[0]
    kind = record.manifest.get("world", {}).get("type", "")
    return starts if starts.startswith(kind) else f"{kind} (initial conditions of {starts})"


def title(manifest: dict) -> str:
    """The name that was given; else who acted: a policy's name or path, type and step, or an expert."""
    if manifest.get("name"):
        return manifest["name"]
    policy = manifest.get("policy", {})
    step = "" if policy.get("step") is None else f", step {policy['step']}"
    kind = f" ({policy['type']}{step})" if policy.get("type") else ""
    return f"{policy.get('name') or policy.get('path', 'unnamed')}{kind}"


_BOUND = {  # part of the time -> its name, and what makes it shorter
    "physics": ("physics", "more cores (--workers), or a shorter horizon"),
    "render": ("drawing", "smaller or fewer cameras, --world.look light, or more cores (--workers)"),
    "policy": ("planning", "fewer solver steps, more executed actions, or --device cuda"),
    "ipc": ("handing over", "more executed actions of each chunk, or a larger --block"),
    "waiting": ("waiting", "fewer workers, more episodes, or a smaller --block"),
}


def _told(record: Record, name: str) -> float:
    """The sum of a column that not every record has, nor every row."""
    if name not in record.table.column_names:
        return 0.0
    return float(sum(value or 0.0 for value in record.column(name)))


_NUMBERS = (
    "success",
    "first_success",
    "best_progress",
    "final_progress",
    "length",
    "wall_physics",
    "wall_render",
    "wall_policy",
)
