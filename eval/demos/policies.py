"""`understudy demos TASK --policy RUN RUN`: policies act in place of the expert; success and failure are both data.

Critics need data of mixed quality. Each policy acts from its own share of the env seeds, in the order given; noise on
its actions widens what is seen and is part of the recorded action. Success labels are the world's. An episode without
success at its last step (`next.done`) was cut by the horizon, or by the world: a time-out, never a success. Env seeds
for choosing and for reporting (below 100000) are refused, so that they stay unseen. Knows nothing of critics.

With `takeover` the task's scripted expert corrects: it takes over where the policy makes no headway
(`rollout/helped.py`), and the recording says whose each step was, as `understudy deploy --takeover` does of a person's.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from ...configs.devices import choose_device
from ...configs.episode import Episode
from ...configs.plugins import discover
from ...configs.progress import Progress, counted
from ...configs.world import DATA_STARTS, World, looked_at, read_world, start_set
from ...policies.agent.open import Acting, check_world, open_agent
from ...policies.data.corrections import INTERVENTION, PERSON, PHASE, phase_columns
from ...sim.experts import Manner
from ..rollout.helped import PHASES, HelpedRecipe
from ..rollout.recipes import PolicyRecipe, weight_of
from ..rollout.rollout import Result
from ..rollout.standing import crew_for, paced
from .recording import RECORDING, RecordingError, recording, written_starts

if TYPE_CHECKING:
    from ...policies.agent.agent import Agent
    from .settings import Settings

__all__ = ["RECORDING", "RecordingError", "record_policies", "recording_card", "shares", "written_starts"]


def record_policies(config: Settings) -> list[dict]:
    """Let the policies of `config` act and write all their episodes; returns the rows of those that ended now.

    A killed recording goes on with `resume`, and ends in the same dataset as one that was not.

    Raises:
        RecordingError: env seeds that are not for data, a folder that is in use or holds another recording.
        ValueError, LookupError, OSError: policies that cannot act here.
    """
    discover("policies")
    _check(config)
    world = read_world(config.world or config.task, cameras=config.cameras)
    config = paced(config, world)
    opened = [_open(config, path, world) for path in config.policy]  # the last one is refused before the first acts
    world = looked_at(world, *(agent.pictures for _, agent in opened))
    for _, agent in opened:
        check_world(agent, world)
    card = recording_card(config, world)
    out = config.folder
    rows = []
    extra, flags = ({PHASE: ("phase",)}, (INTERVENTION,)) if config.takeover else (None, ())
    with recording(out, world.embodiment(), card, config, extra, flags=flags) as (writer, done):
        with Progress("recording", config.episodes, "episodes", done=len(done)) as progress:
            for result in _act(config, world, opened, done):
                if result.episode is not None and (result.row["success"] or config.keep_failures):
                    writer.add(_told(result) if config.takeover else result.episode)
                rows.append(result.row)
                won = sum(row["success"] for row in rows)
                progress.update(len(done) + len(rows), f"success {won}/{len(rows)}")
    if not writer.episodes:
        raise RecordingError("no episode was kept: nothing is written")
    won = sum(row["success"] for row in rows)

    print(
        f"{out}: {counted(writer.episodes, 'episode')}, {counted(writer.frames, 'step')}; success {won} of the "
        f"{len(rows)} that ended now"
    )
    if config.takeover and rows:
        print(_account_of_help(rows))
    return rows


def _told(result: Result) -> Episode:
    """The episode with the columns that say whose each step was."""
    assert result.episode is not None
    return dataclasses.replace(result.episode, extra=phase_columns(result.row[PHASES]))


def _account_of_help(rows: Sequence[Mapping]) -> str:
    helped = [row for row in rows if PERSON in row[PHASES]]
    alone, won = sum(row["success"] for row in rows if row not in helped), sum(row["success"] for row in helped)
    steps = sum(row[PHASES].count(PERSON) for row in rows)
    return (
        f"the policy alone succeeded in {alone} of {len(rows)}; the expert took over in {len(helped)}, of which {won} "
        f"succeeded: {steps} of {sum(row['length'] for row in rows)} steps are the expert's"
    )


def shares(config: Settings) -> list[range]:
    """The env seeds of each policy: equal parts in a row, the first ones longer by one where it does not divide."""
    parts = np.array_split(np.arange(config.env_seed, config.env_seed + config.episodes), len(config.policy))
    return [range(int(part[0]), int(part[-1]) + 1) for part in parts]


def recording_card(config: Settings, world: World) -> dict:
    """What a dataset of rollouts says of itself: JSON-able, equal for equal recordings."""
    from ...policies.hub import provenance_of
    from ...policies.learning.checkpoint import fingerprint
    from ...policies.load import load_policy
    from ...policies.policy import Planner, ensemble_of

    who = []
    for path, starts in zip(config.policy, shares(config), strict=True):
        policy, info = load_policy(path)
        one = {"path": path, "fingerprint": fingerprint(Path(info["path"])), "starts": [starts.start, starts.stop]}
        decay = ensemble_of(cast(Planner, policy)) if config.ensemble is None else config.ensemble
        one |= provenance_of(path, Path(info["path"]))
        who.append(one if decay is None or decay == -math.inf else one | {"ensemble": decay})
    how = {name: getattr(config, name) for name in ("noise", "action_noise", "n_action_steps", "policy_seed", "block")}
    how |= {"keep_failures": config.keep_failures, "pictures": config.pictures}
    how |= {"takeover": dataclasses.asdict(config.takeover)} if config.takeover else {}
    return json.loads(json.dumps({"by": "policy", "who": who, "how": how, "world": world.fingerprint()}, default=str))


def _act(config: Settings, world: World, opened: list[tuple[PolicyRecipe, Agent]], done: frozenset[int]) -> Iterator:
    """One result an episode, policy after policy; blocks do not depend on what is done already."""
    options = {"action_noise": config.action_noise} if config.action_noise else None
    workers, device = config.workers, opened[0][0].acting.device
    if config.takeover and choose_device(device) != "cpu":
        workers = 0  # a policy on a GPU plans for several processes, but an expert lives with its own environment
    crew = crew_for(
        world, workers, episodes=config.episodes, block=config.block, timeout=config.timeout,
        device=device, weights=weight_of(*config.policy),
        engine=config.engine, address=config.address,
    )  # fmt: skip
    with crew:
        jobs = {}
        for (recipe, agent), starts in zip(opened, shares(config), strict=True):
            acts: PolicyRecipe | HelpedRecipe = recipe
            if config.takeover:
                acts = HelpedRecipe(recipe, config.takeover)
            else:
                crew.know(recipe, recipe.noisy(agent))
            if not done.issuperset(starts):
                job = crew.submit(
                    acts, starts, keep=True, skip=done, options=options,
                    initial_conditions=start_set(world), policy_seed=config.policy_seed,
                )  # fmt: skip
                jobs[job] = 1 if config.takeover else agent.n_action_steps
        for job, n_action_steps in jobs.items():
            yield from crew.in_order(job, n_action_steps)


def _open(config: Settings, path: str, world: World) -> tuple[PolicyRecipe, Agent]:
    acting = Acting(
        policy=path,
        block=config.block,
        n_action_steps=config.n_action_steps,
        ensemble=config.ensemble,
        policy_seed=config.policy_seed,
    )
    agent, about = open_agent(acting, world.embodiment, world.task)
    return PolicyRecipe.of(acting, agent, about, world, config.noise), agent


def _check(config: Settings) -> None:
    if config.env_seed < DATA_STARTS:
        raise RecordingError(
            f"env seed {config.env_seed} is for choosing or reporting; data begin at {DATA_STARTS}, "
            "for example --env_seed 100000"
        )
    if config.episodes < len(config.policy):
        raise RecordingError(f"{config.episodes} initial conditions cannot be shared by {len(config.policy)} policies")
    if config.noise < 0:
        raise RecordingError(f"noise is a standard deviation, got {config.noise}")
    if config.style or config.fail:
        raise RecordingError("--style and --fail are of scripted experts; leave them out with --policy")
    if config.takeover:
        world = read_world(config.world or config.task, cameras=config.cameras)
        Manner().of(world.task, config.env_seed)  # somebody demonstrates the task
