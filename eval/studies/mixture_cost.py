"""What a mixture of two policies costs: its latency beside the sum of its parents', and what sparing saves of it.

    understudy study mixture_cost A B --out eval/records/bench/mixture.json
    understudy study mixture_cost A B --data DATA     what sparing does to action chunks, on windows of DATA

CPU time of one thread is taken, so that other programs disturb less. A turn draws action chunks of the first parent,
the mixture, the two networks asked in alternation without being composed, the mixture sparing evaluations, and the
second parent, on observations drawn evenly within the first parent's demonstrated spread. Ratios are of a turn.
Alternation shows what of the ratio is the machine's: two networks share a cache that one had for itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from ...configs.command import command_of
from ...policies.agent.agent import Agent
from ...policies.compositions.adapt import Adapt
from ...policies.compositions.mixture import Mixture
from ...policies.compositions.skipping import saving
from ...policies.field import noise_levels
from ...policies.load import load_policy
from ...policies.policy import LaneNoise, Past, Policy
from ..bench.settings import describe_machine
from ..ledger.study import Study

EARLY = Adapt(skip=((0.5, 1.0),))  # a quarter of the evaluations of two parents at ten steps


@dataclass(frozen=True, kw_only=True)
class MixtureCost:
    """Time a mixture of two policies beside its parents, or see what sparing evaluations does to its action chunks."""

    RENAMED: ClassVar[dict[str, str]] = {"lanes": "observations"}  # former names that are still read

    POSITIONALS: ClassVar[tuple[str, ...]] = ("parents",)

    parents: tuple[str, ...]  # two runs or checkpoints
    observations: tuple[int, ...] = (1, 8)  # planned for at a time
    pairs: int = 15  # turns
    repeat: int = 10  # action chunks of a turn
    data: str | None = None  # dataset: what sparing does to action chunks on its windows, in place of times
    episodes: str = "all"  # which of its episodes, for example 0-5,7-9
    without: str = ""  # episodes left out, for example 6
    columns: dict[str, list[str] | str] = field(default_factory=dict)  # {action: actions, observation.state: [a, b]}
    windows: int = 256  # of the dataset
    out: Path | None = None  # JSON of the table

    def __post_init__(self):
        if len(self.parents) != 2:
            raise ValueError(f"give two policies, got {len(self.parents)}")

    def run(self) -> None:
        torch.set_num_threads(1)
        if self.data:
            result = savings(self)
        else:
            result = study(self.parents, self.observations, self.pairs, self.repeat)
        print("\n".join("  ".join(map(str, row)) for row in (result.columns, *result.rows)), *result.notes, sep="\n")
        if self.out:
            print(result.write(self.out))


def observed(policies: Sequence[Policy], lanes: int) -> Past:
    """A past for all of `policies`: made-up observations, the same in all frames."""
    mixture = Mixture(policies, [1 / len(policies)] * len(policies))
    agent = Agent(mixture, lanes=lanes, n_action_steps=mixture.n_action_steps)
    rng = np.random.default_rng(0)
    scales = {key: policy.state_scales[key.replace(".", "_")] for policy in policies for key in policy.inputs}
    observations = {
        key: scale.unscale(torch.from_numpy(rng.uniform(-1, 1, (lanes, len(scale.mean))).astype(np.float32))).numpy()
        for key, scale in scales.items()
    }
    agent.reset(np.arange(lanes), np.ones(lanes, bool), observations)
    return agent.past()


def turns(parents: Sequence[Policy], lanes: int, pairs: int, repeat: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time a chunk of each side, a number a turn."""
    mixture, past = Mixture(parents, (0.5, 0.5)), observed(parents, lanes)
    works = {
        "first": _planning(parents[0], past, lanes),
        "mixture": _planning(mixture, past, lanes),
        "alternation": _alternation(mixture, past),
        "sparing": _planning(mixture.adapted(EARLY), past, lanes),
        "second": _planning(parents[1], past, lanes),
    }

    times = {name: [] for name in works}
    for turn in range(pairs + 1):  # the first one warms up
        for name, work in works.items():
            begun = time.thread_time()
            for _ in range(repeat):
                work()
            if turn:
                times[name].append(1000 * (time.thread_time() - begun) / repeat)
    return times


def study(parents: Sequence[str], lanes: Sequence[int], pairs: int, repeat: int) -> Study:
    """The table of all numbers of observations."""
    policies = [load_policy(parent)[0] for parent in parents]
    rows = []

    for count in lanes:
        times = turns(policies, count, pairs, repeat)
        sums = [a + b for a, b in zip(times["first"], times["second"], strict=True)]
        for name in ("mixture", "alternation", "sparing"):
            ratios = [mine / both for mine, both in zip(times[name], sums, strict=True)]
            spread = min(ratios), statistics.median(ratios), max(ratios)
            rows.append((name, count, statistics.median(times[name]), statistics.median(sums), spread))

    machine = ", ".join(f"{name} {value}" for name, value in describe_machine().items() if value is not None)
    notes = (
        f"Ratio: median of {pairs} turns of {repeat} action chunks and their range; CPU time of one thread.",
        "Alternation: the networks asked in turn and not composed, so what the machine adds. Sparing: "
        f"a quarter of the evaluations, angles {EARLY.skip[0][0]:g} to {EARLY.skip[0][1]:g}.",
        f"Machine: {machine}.",
    )

    columns = ("case", "observations", "ms a chunk", "parents together, ms", "ratio")
    asked = MixtureCost(parents=tuple(parents), observations=tuple(lanes), pairs=pairs, repeat=repeat)
    command = command_of(asked, "study mixture_cost")
    return Study(
        title="A mixture of two beside the sum of its parents", command=command, columns=columns, rows=rows, notes=notes
    )


def savings(asked: MixtureCost) -> Study:
    """What sparing each half of the path saves and does to action chunks for windows spread evenly over a dataset."""
    from ...policies.data.open import open_dataset
    from ...policies.data.windows import Windows

    mixture = Mixture([load_policy(parent)[0] for parent in asked.parents], (0.5, 0.5))
    assert asked.data is not None
    dataset = open_dataset(asked.data, episodes=asked.episodes, without=asked.without, sources=asked.columns)
    held = Windows(dataset, mixture.window, mixture.inputs)
    chosen = np.unique(np.linspace(0, len(held) - 1, asked.windows).astype(np.int64))

    rows = []
    for low, high in ((0.5, 1.0), (0.3, 1.0), (0.0, 0.5)):
        for reuse in (True, False):
            saved = saving(mixture, Adapt(skip=((low, high),), reuse=reuse), [held.gather(chosen)])
            rows.append((f"{low:g} to {high:g}", reuse, saved.skipped, saved.change, saved.noise))

    columns = ("spared angles", "reuse", "evaluations spared", "change of chunks", "change by other noise")
    notes = (f"Root mean square in the scaled action space, {len(chosen)} windows, the same noise; seed 0.",)
    command = command_of(replace(asked, out=None), "study mixture_cost")
    return Study(
        title="What sparing evaluations does to action chunks", command=command, columns=columns, rows=rows, notes=notes
    )


def _planning(policy: Policy, past: Past, lanes: int) -> Callable[[], object]:
    starts = np.arange(lanes)
    return lambda: policy.plan(past, 1, LaneNoise(0, starts, np.zeros_like(starts)))


def _alternation(mixture: Mixture, past: Past) -> Callable[[], None]:
    @torch.no_grad()
    def work() -> None:
        fields = [parent.field(past.at(parent.window), 1) for parent in mixture.parents]
        chunks = [torch.zeros(field.shape) for field in fields]
        for level in noise_levels(mixture.sampler.steps, fields[0].sigma_min, fields[0].sigma_max)[:-1]:
            for asked, chunk in zip(fields, chunks, strict=True):
                asked(chunk, level)

    return work
