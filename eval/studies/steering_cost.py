r"""What steering costs: the time of a replanning with K candidates and a critic, as a ratio to the policy alone.

    understudy study steering_cost --policies RUN RUN --critic CRITIC --world pusht --out study.json

One environment, one thread, the observation encoded once for all K; the policy draws, the critic scores, one chunk is
kept. All K in turn, again and again; medians of CPU time, so that a busy machine does not count. K = 1 is the policy
without the critic. Knows no network.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...configs.command import command_of
from ...configs.lanes.lanes import Lanes
from ...configs.protocols import keeps
from ..ledger.study import Study

ENCODING = 0  # beside numbers of candidates: no chunk is drawn


@dataclass(frozen=True, kw_only=True)
class SteeringBench:
    """Time replannings with several numbers of candidates."""

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "sim")

    policies: tuple[str, ...]  # runs or checkpoints
    critic: str  # as --critic of `understudy eval`
    world: dict | str  # registered name, YAML file, or its keys
    candidates: tuple[int, ...] = (1, 10, 50, 100)  # K; the first is what the others are compared to
    rounds: int = 30  # timed replannings for each K
    n_action_steps: int | None = None  # E; default the policy's own
    steps: int | None = None  # of the sampler; default the policy's own
    out: Path | None = None  # JSON of the table

    def run(self) -> None:
        """Time, print, write. Raises ValueError, LookupError, OSError for what cannot act here."""
        study = measure(self)
        print(f"{study.title}\n\n{study.markdown()}\n\n" + "\n".join(f"{note}." for note in study.notes))
        if self.out is not None:
            print(f"written: {study.write(self.out)}")


def measure(config: SteeringBench) -> Study:
    """A row for each policy and K."""
    rows = []
    for path in config.policies:
        times, encoding, about = replannings(config, path)
        base = times[config.candidates[0]]
        rows += [(path, about, count, spent, spent / base, encoding) for count, spent in times.items()]
    return Study(
        title="Time of a replanning with K candidates and a critic",
        command=command_of(config, "study steering_cost", without=("out",)),
        columns=("policy", "network", "K", "ms", "ratio", "encoding, ms"),
        rows=rows,
        notes=(
            f"Median CPU time of {config.rounds} interleaved rounds; one environment, one thread, K of one encoding",
            "K = 1: the policy alone, no critic asked; encoding: of that, what the observation takes, once for any K",
        ),
    )


def replannings(config: SteeringBench, path: str) -> tuple[dict[int, float], float | None, str]:
    """K -> median milliseconds of a replanning; those of encoding, if a field tells; and what the policy is."""
    import torch

    from ...policies.agent.open import open_agent
    from ...policies.models.tokens import TokenPolicy
    from ...policies.policy import Policy, weights_of
    from ..evaluate.evaluate import Eval, open_stage

    torch.set_num_threads(1)

    # An agent for each K, all at one observation.
    agents, obs = {}, None
    for count in config.candidates:
        settings = Eval(
            policy=path, world=config.world, out="unused", block=1, candidates=count, critic=config.critic,
            n_action_steps=config.n_action_steps, steps=config.steps,
        )  # fmt: skip
        world = open_stage(settings)
        agents[count], _ = open_agent(settings, world.embodiment, world.task)
        if obs is None:
            with closing(Lanes(open_stage(settings), 1, 0)) as lanes:
                obs, _ = lanes.reset(seed=[0])
        agents[count].reset(np.zeros(1, np.int64), np.ones(1, bool), obs)

    # What is timed.
    first = next(iter(agents.values()))
    planner, past = first.planner, first.past()
    works = {count: agent.think for count, agent in agents.items()}
    if keeps(planner, Policy):
        works[ENCODING] = torch.no_grad()(lambda: planner.field(past.at(planner.window), 1))

    # In turn; two rounds warm up.
    spent: dict[int, list[float]] = {name: [] for name in works}
    for turn in range(-2, config.rounds):
        for name, work in works.items():
            begun = time.process_time()
            work()
            if turn >= 0:
                spent[name].append(1e3 * (time.process_time() - begun))

    medians = {name: statistics.median(values) for name, values in spent.items()}

    size = sum(parameter.numel() for parameter in weights_of(planner))
    network = planner.network if isinstance(planner, TokenPolicy) else planner
    about = f"{type(network).__name__}, {size / 1e6:.2f} M parameters"
    encoding = medians.pop(ENCODING, None)
    return medians, encoding, about
