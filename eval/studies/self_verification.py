"""What self-verification buys and costs: success, error of the remembered past and time, by number of candidates.

    understudy study self_verification --policy RUN --world NAME --episodes 200 --out study.json

For each N the policy acts from the same initial conditions; the recall critic keeps the candidate whose past was
executed. The past error is the root mean square distance of the kept chunk's past to it, in the scaled action space,
where some of it was executed. Time is one replanning of one environment on one thread, N candidates from one encoding
of the observation, all N in turn, again and again. Knows no network.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...configs.command import command_of
from ...configs.lanes.lanes import Lanes
from ...configs.plugins import discover
from ...configs.progress import Progress
from ...configs.world import REPORT_STARTS, read_world
from ...policies.agent.agent import Agent
from ...policies.critics.open import open_critic
from ...policies.load import load_policy
from ...policies.policy import LaneNoise, Past, Planner, Plans
from ..ledger.study import Study
from ..rollout.rollout import rollout
from ..statistics.intervals import Interval, bootstrap_interval, wilson

CRITIC = "recall_partly"


@dataclass(frozen=True, kw_only=True)
class SelfVerification:
    """Act with N candidates and self-verification, for several N, from the same initial conditions."""

    RENAMED: ClassVar[dict[str, str]] = {"seed": "env_seed"}  # former names that are still read

    policy: str  # run or checkpoint folder of a policy with recalled actions
    world: dict | str  # registered name, YAML file, or its keys
    out: Path  # study to write, .json
    candidates: tuple[int, ...] = (1, 3, 5, 10, 50)  # N
    episodes: int = 200  # of each N
    env_seed: int = REPORT_STARTS  # first env seed
    block: int = 8  # worlds that act at once
    workers: int = 0  # processes for the world; 0: in this one
    rounds: int = 30  # timed replannings for each N

    def run(self) -> None:
        if self.out.exists():
            raise FileExistsError(f"{self.out} exists; choose another --out")
        study = measure(self)
        study.write(self.out)
        print(study.markdown())

    @property
    def command(self) -> str:
        """What a reader runs: the settings that differ from the defaults."""
        return command_of(self, "study self_verification")


class ErrorNotingAgent(Agent):
    """An agent that notes the past error of the action chunks that it executes, by env seed and replanning."""

    def __init__(self, planner: Planner, **settings):
        super().__init__(planner, **settings)
        self.errors: dict[tuple[int, int], float] = {}
        self.seen: Past | None = None  # what the first environment knew when most was known

    def think(self) -> Plans:
        past, turns = self.past(), self._replans.copy()
        plans = super().think()
        any_valid = past.at(self.critic.window).action_valid.any(1).numpy()
        off = self.critic.distance(past, plans)[:, 0].sqrt().numpy()
        keys = zip(self._starts.tolist(), turns.tolist(), strict=True)
        self.errors |= {
            key: float(error) for key, error, executed in zip(keys, off, any_valid, strict=True) if executed
        }
        if self.seen is None or past.now[0] > self.seen.now[0]:
            self.seen = first_lane(past)
        return plans


def measure(config: SelfVerification) -> Study:
    """The study of all numbers of candidates."""
    import torch

    torch.set_num_threads(1)
    discover("policies", "sim")

    policy, _ = load_policy(config.policy)
    world = read_world(config.world)
    policy.embodiment.check(world.embodiment(), policy.inputs)

    # Act with each number of candidates.
    by_count, seen = {}, None
    with closing(Lanes(world, config.block, config.workers)) as lanes:
        for n in config.candidates:
            agent = ErrorNotingAgent(
                policy,
                lanes=config.block,
                n_action_steps=policy.n_action_steps,
                candidates=n,
                critic=open_critic(CRITIC, policy),
            )
            by_count[n] = _act(config, agent, lanes, n)
            seen = agent.seen

    # Time them on what was seen last.
    times = latency(policy, seen, config.candidates, config.rounds)
    base = times[config.candidates[0]]
    rows = [(n, *by_count[n], times[n], times[n] / base) for n in config.candidates]

    return Study(
        title=f"Self-verification on {world.task}",
        command=config.command,
        columns=("N", "success", "past error", "ms a replanning", "of the first row"),
        rows=rows,
        notes=(
            f"{config.episodes} initial conditions, env seeds from {config.env_seed}, the same for each N; "
            "success: Wilson 95 %. Past error: root mean square in the scaled action space, mean over "
            "episodes, 95 % bootstrap over episodes.",
            f"Time: median of {config.rounds} interleaved rounds, one environment, one thread, the observation "
            "encoded once.",
        ),
    )


def latency(policy: Planner, past: Past, candidates: tuple[int, ...], rounds: int) -> dict[int, float]:
    """N -> median milliseconds of planning N candidates for one environment, the numbers in turn."""
    spent = {n: [] for n in candidates}
    for turn in range(-2, rounds):
        for n in candidates:
            begun = time.perf_counter()
            policy.plan(past, n, LaneNoise(0, np.zeros(1, np.int64), np.full(1, turn + 2)))
            if turn >= 0:
                spent[n].append(1e3 * (time.perf_counter() - begun))
    return {n: statistics.median(values) for n, values in spent.items()}


def first_lane(past: Past) -> Past:
    """What is known in the first environment alone."""
    tensors = {name: getattr(past, name)[:1] for name in ("obs_valid", "actions", "action_valid", "now")}
    return dataclasses.replace(past, obs={key: value[:1] for key, value in past.obs.items()}, **tensors)


def _act(config: SelfVerification, agent: ErrorNotingAgent, lanes: Lanes, n: int) -> tuple[Interval, Interval]:
    """(success, past error of an episode), with intervals."""
    starts = range(config.env_seed, config.env_seed + config.episodes)
    rows = {}
    with Progress(f"N = {n}", len(starts), "episodes") as progress:
        for result in rollout(agent, lanes, starts):
            rows[result.start] = result.row
            progress.update(len(rows), f"success {sum(row['success'] for row in rows.values())}/{len(rows)}")

    errors = [_mean_error(agent, start, row["length"]) for start, row in sorted(rows.items())]
    errors = np.array([error for error in errors if error is not None])
    won = wilson(sum(row["success"] for row in rows.values()), len(rows))
    error = bootstrap_interval(errors / 2, np.random.default_rng(0))  # in the scaled space at most 2
    return won, Interval(*(2 * value for value in error))


def _mean_error(agent: ErrorNotingAgent, start: int, length: int) -> float | None:
    """Mean over the replannings of an episode; those of an environment that had ended do not count."""
    turns = range(-(-length // agent.n_action_steps))
    noted = [agent.errors[start, turn] for turn in turns if (start, turn) in agent.errors]
    return float(np.mean(noted)) if noted else None
