"""How policies use the past: the action predictability ratio of their rollouts, and which observed frames matter.

The composition root of `understudy inspect --policy RUN`: opens runs, data and world, prints both tables, draws a page
and writes both as studies. What is measured stands in `predictability.py` and `past_matters.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.lanes.lanes import Lanes
from ...configs.progress import Progress
from ...configs.world import World, looked_at, read_world, start_set
from ...policies.learning.run import held_out, read_as, training
from ..rollout.rollout import rollout
from .arms import RunGroup, find_arms
from .past_matters import Change, changes, count_changes, spread_rows
from .predictability import Errors, Probe, held_out_errors
from .sight_map import SightMap, sight_maps

if TYPE_CHECKING:
    from ...policies.agent.agent import Agent
    from ...policies.data.dataset import Dataset
    from .settings import Settings


LOOKED = 4  # episodes whose pictures are blurred


@dataclass(frozen=True)
class Rollouts:
    """What one trained policy did."""

    actions: list[np.ndarray]  # (T, D) each, scaled
    successes: int
    n_action_steps: int  # E


@dataclass(frozen=True)
class Predictability:
    """Errors of all probes, made with the same number of updates."""

    expert: Errors
    halves: tuple[Errors, Errors]  # of the demonstrations: the control
    arms: Mapping[str, tuple[Errors, ...]]  # label -> one a training seed
    acted: Mapping[str, tuple[Rollouts, ...]]


def find_changes(config: Settings, arms: Sequence[RunGroup]) -> dict[str, list[list[Change]]]:
    """Label -> for each training seed what swapping parts of the past changes; see `past_matters`."""
    from ...policies.agent.goal import windows_of
    from ...policies.data.windows import Windows
    from ...policies.load import load_policy

    by_label: dict[str, list[list[Change]]] = {}
    policies = [(arm.label, run, load_policy(run)[0]) for arm in arms for run in arm.runs]
    total = sum(count_changes(policy, config.keys) for _, _, policy in policies)
    with Progress("swapping frames", total, "changes") as progress:
        for label, run, policy in policies:
            dataset, judged = open_data(config, run, tuple(policy.inputs))
            windows = Windows(dataset, policy.window, tuple(policy.inputs), **windows_of(policy))
            rows = spread_rows(dataset.starts[judged], dataset.lengths[judged], config.windows)
            of_run = []
            for change in changes(policy, windows, rows, keys=config.keys):
                of_run.append(change)
                progress.update(progress.done + 1, label)
            by_label.setdefault(label, []).append(of_run)
    return by_label


def find_predictability(config: Settings, arms: Sequence[RunGroup]) -> Predictability:
    """Let every policy act, then train and judge the probes.

    Raises:
        ValueError: fewer demonstrations than episodes, policies with different action scales or of different data.
    """
    world = where(config)
    demonstrations, scale = _demonstrations(config, arms)
    order = np.random.default_rng(0).permutation(len(demonstrations))
    half = min(config.rollouts, len(order) // 2)
    scaled = [actions / scale for actions in demonstrations]
    chosen = [order[: config.rollouts], order[:half], order[len(order) - half :]]
    expert, *halves = ([scaled[i] for i in some] for some in chosen)

    # Every probe takes as many updates as the largest set needs.
    acted = _act(config, arms, world, scale)
    sets = [expert, *halves, *(rollouts.actions for runs in acted.values() for rollouts in runs)]
    probe = Probe(repeats=config.repeats)
    batches = probe.batches(*sets)

    errors = []
    with Progress("training probes", len(sets), "sets") as progress:
        for trajectories in sets:
            errors.append(held_out_errors(trajectories, probe, batches))
            progress.update(len(errors))

    # What follows the expert and its halves is of the arms, in order.
    rest = iter(errors[3:])
    by_arm = {label: tuple(itertools.islice(rest, len(runs))) for label, runs in acted.items()}
    return Predictability(errors[0], (errors[1], errors[2]), by_arm, acted)


def find_sights(config: Settings, arms: Sequence[RunGroup]) -> dict[str, list[SightMap]]:
    """Label -> where its first run looks in pictures of its own rollouts; only of policies that see."""
    maps: dict[str, list[SightMap]] = {}
    agents = [(arm.label, _agent(arm.runs[0])) for arm in arms]
    seeing = [(label, agent) for label, agent in agents if agent.pictures]
    episodes = min(LOOKED, config.rollouts)
    with Progress("blurring pictures", len(seeing), "policies") as progress:
        for label, agent in seeing:
            world = looked_at(where(config), agent.pictures)
            with closing(Lanes(world, 8, config.workers, config.timeout)) as lanes:
                maps[label] = [*sight_maps(agent, lanes, range(config.env_seed, config.env_seed + episodes))]
            progress.update(progress.done + 1, label)
    return maps


def open_data(config: Settings, run: Path, inputs: tuple[str, ...]) -> tuple[Dataset, np.ndarray]:
    """The demonstrations of a run, or --data, and the positions of the episodes that were held out of its training.

    All episodes where --data names others, or where none was held out.
    """
    from ...policies.data.open import open_dataset

    settings = training(run)
    source = config.data or (settings or {}).get("data", "")
    if not source:
        raise ValueError(f"{run} does not say what it was trained on; give --data DATASET")
    chosen = read_as(None if config.data else settings)
    dataset = open_dataset(source, embodiment=config.embodiment, columns=inputs, **chosen)
    everything = np.arange(len(dataset.lengths))
    if settings is None or config.data:
        return dataset, everything
    held = held_out(dataset, settings)
    return dataset, held if len(held) else everything


def where(config: Settings) -> World:
    """The world in which policies are inspected. Raises ValueError: one by the clock, of which there are not many."""
    world = read_world(config.world)
    if world.by_the_clock:
        raise ValueError("policies are inspected in many environments at a time: give --world one in simulated time")
    return world


def starts_of(config: Settings) -> str:
    """The initial conditions that were acted from, in words."""
    last = config.env_seed + config.rollouts - 1
    return f"{start_set(read_world(config.world))}, env seeds {config.env_seed}-{last}"


def arms_of(config: Settings) -> tuple[RunGroup, ...]:
    """See `arms.find_arms`."""
    return find_arms(config.policy)


def _demonstrations(config: Settings, arms: Sequence[RunGroup]) -> tuple[list[np.ndarray], np.ndarray]:
    """Actions of all demonstrations, and the one scale (D,) of all policies."""
    from ...policies.load import load_policy
    from ...policies.policy import half_range

    sources, scales, dataset = set(), [], None
    for run in (run for arm in arms for run in arm.runs):
        dataset, _ = open_data(config, run, ())
        sources.add(dataset.fingerprint)
        scales.append(half_range(load_policy(run)[0]).numpy())
    if len(sources) > 1:
        raise ValueError("the policies were trained on different data; give the demonstrations by --data")
    if not all(np.allclose(scales[0], scale) for scale in scales):
        raise ValueError("the policies scale actions differently, so that their errors cannot be compared")
    if len(dataset.lengths) < config.rollouts:
        raise ValueError(
            f"as many demonstrations as rollouts are compared, but {dataset.root} has {len(dataset.lengths)}; "
            f"give --episodes {len(dataset.lengths)}"
        )
    return np.split(dataset.columns["action"], dataset.starts[1:]), scales[0]


def _act(
    config: Settings, arms: Sequence[RunGroup], world: World, scale: np.ndarray
) -> dict[str, tuple[Rollouts, ...]]:
    acted: dict[str, tuple[Rollouts, ...]] = {}
    agents = [(arm.label, _agent(run)) for arm in arms for run in arm.runs]
    world = looked_at(world, *(agent.pictures for _, agent in agents))
    for _, agent in agents:
        agent.planner.embodiment.check(world.embodiment(), agent.inputs)
    lanes = Lanes(world, 8, config.workers, config.timeout)
    with Progress("acting", config.rollouts * len(agents), "episodes") as progress, closing(lanes):
        for label, agent in agents:
            results = []
            for result in rollout(agent, lanes, range(config.env_seed, config.env_seed + config.rollouts)):
                results.append(result)
                progress.update(progress.done + 1, label)
            whole = sorted((result for result in results if not result.row["error"]), key=lambda result: result.start)
            won = sum(result.row["success"] for result in whole)
            rollouts = Rollouts([result.actions / scale for result in whole], won, agent.n_action_steps)
            acted[label] = (*acted.get(label, ()), rollouts)
    return acted


def _agent(run: Path) -> Agent:
    from ...policies.agent.agent import Agent
    from ...policies.load import load_policy
    from ...policies.policy import ensemble_of, executed_of

    policy = load_policy(run)[0]
    return Agent(policy, lanes=8, n_action_steps=executed_of(policy), ensemble=ensemble_of(policy))
