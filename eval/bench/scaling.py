"""`understudy bench rollout --scaling 1,2,4`: episodes a second with so many workers, beside one process and others.

Everything runs in turn on one machine, so that only the ratios speak: this process alone, workers that each run whole
blocks, stock robosuite or gym-pusht in one process, and lerobot's own evaluation loop with its environments stepped one
after the other (`SyncVectorEnv`) or in processes (`AsyncVectorEnv`). Two kinds of actors: random actions, which cost
nothing, as on the other sides, and an untrained diffusion policy on states. Every episode runs to its horizon. A run is
timed from nothing, with the start of its workers, and again with workers that are there.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.spec import SCENE, STATE, Window
from ...configs.world import REPORT_STARTS, World
from ...policies.agent.open import Acting
from ..rollout.crew import Crew
from ..rollout.recipes import PolicyRecipe, Recipe

RANDOM, POLICY = "random actions", "diffusion on states"


@dataclass(frozen=True)
class RandomRecipe:
    """The same random actions in all environments, a new one at every chunk."""

    limits: tuple[tuple[float, float], ...]
    block: int
    n_action_steps: int
    needs_torch = False

    def actor(self, lanes) -> RandomActor:
        return RandomActor(self)


class RandomActor:
    """See `RandomRecipe`; it looks at what was seen last, as a policy would."""

    look = (0,)

    def __init__(self, recipe: RandomRecipe):
        self.recipe, self.n_action_steps = recipe, recipe.n_action_steps

    def reset(self, starts, mask, obs) -> None:
        self._rng = np.random.default_rng(0)

    def act(self) -> np.ndarray:
        low, high = np.asarray(self.recipe.limits, np.float32).T
        chunk = np.repeat(self._rng.uniform(low, high, (1, len(low))), self.n_action_steps, 0)
        return np.broadcast_to(chunk, (self.recipe.block, *chunk.shape)).astype(np.float32)

    def observe(self, obs, sent, valid) -> None:
        """Reads, and forgets."""


def compare_scaling(
    world: World, workers: Sequence[int], *, block: int, n_action_steps: int, episodes: int, rounds: int
) -> dict:
    """Episodes a second of one process and of each number of workers, in `rounds` rounds.

    Returns:
        actor -> setting -> `whole` and `steady` episodes/s (medians), `times` one process and its range over the
        rounds, `efficiency` beside as many processes, s to the first episode, MB of a worker; and `others`.
    """
    results: dict = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an untrained policy has seen nothing
        for name, recipe in _recipes(world, block, n_action_steps, Path(folder)).items():
            laps: dict[int, list[dict]] = {}
            for turn in range(rounds):
                order = [0, *workers]
                for count in order if turn % 2 == 0 else order[::-1]:
                    laps.setdefault(count, []).append(_lap(world, recipe, block, count, episodes))
            results[name] = {_setting(count): _summary(count, laps[count], laps[0]) for count in laps}
    return results | {"others": dict(_others(world, block, n_action_steps, max(workers)))}


def _lap(world: World, recipe: Recipe, block: int, workers: int, episodes: int) -> dict:
    """Two runs of one crew: from nothing, then with workers that are there."""
    with Crew(world, block, workers) as crew:
        starts = range(REPORT_STARTS, REPORT_STARTS + episodes)
        spent: list[float] = []
        for _ in range(2):
            begun = time.perf_counter()
            if not spent:
                crew.account.begin()
                crew.start(recipe.needs_torch)
            errors = [result.row["error"] for result in crew.run(recipe, starts) if result.row["error"]]
            spent.append(time.perf_counter() - begun)
        told = crew.account.told()
    if errors:
        raise RuntimeError(f"an episode failed: {errors[0]}")
    return {
        "whole": episodes / spent[0],
        "steady": episodes / spent[1],
        "first": told["first_episode"],
        "memory": told["memory_mb"],
    }


def _summary(count: int, laps: Sequence[Mapping], alone: Sequence[Mapping]) -> dict:
    numbers: dict = {}
    for name in ("whole", "steady"):
        ratios = [mine[name] / one[name] for mine, one in zip(laps, alone, strict=True)]
        numbers[name] = statistics.median(lap[name] for lap in laps)
        numbers[f"{name}_times"] = statistics.median(ratios)
        numbers[f"{name}_range"] = [min(ratios), max(ratios)]
    numbers["efficiency"] = numbers["steady_times"] / max(1, count)
    numbers["first_episode_s"] = statistics.median(lap["first"] for lap in laps)
    memory = [value for lap in laps for value in lap["memory"] if value is not None]
    return numbers | {"memory_mb": max(memory, default=None)}


def _setting(count: int) -> str:
    return f"{count} workers" if count > 1 else ("1 worker" if count else "one process")


def _recipes(world: World, block: int, n_action_steps: int, folder: Path) -> dict[str, Recipe]:
    made: dict[str, Recipe] = {RANDOM: RandomRecipe(world.embodiment().limits, block, n_action_steps)}
    inputs = tuple(key for key in (STATE, SCENE) if key in world.embodiment().offers())
    if inputs:
        path = _untrained(world, inputs, n_action_steps, folder / "policy")
        made[POLICY] = PolicyRecipe(Acting(policy=str(path), block=block), world)
    return made


def _untrained(world: World, inputs: tuple[str, ...], n_action_steps: int, folder: Path) -> Path:
    import torch

    from ...policies.learning.checkpoint import blank_scales, save_checkpoint
    from ...policies.models.diffusion import DiffusionConfig
    from ...policies.networks.mlp import MLPConfig

    torch.manual_seed(0)
    body = world.embodiment()
    window = Window(observe=(-1, 0), horizon=2 * n_action_steps)
    config = DiffusionConfig(window=window, inputs=inputs, network=MLPConfig(), n_action_steps=n_action_steps)
    save_checkpoint(folder, config.build(body, blank_scales(body)).eval(), kind="policy", config=config)
    return folder


def _others(world: World, block: int, n_action_steps: int, most: int) -> Iterator[tuple[str, dict]]:
    """Episodes a second of what else there is for this world, with random actions."""
    kind = world.get_choice_name(type(world))
    steps = world.steps()
    if kind == "robosuite":
        from ...sim.robosuite.body import find_task
        from .rollout import Stock

        stock = Stock(find_task(world.task).environment, tuple(world.cameras), _size(world), n_action_steps)
        begun, chunks = time.perf_counter(), -(-2 * steps // n_action_steps)
        for _ in range(chunks):
            stock.work()
        stock.reset()
        yield "stock robosuite", {"episodes_per_s": chunks * n_action_steps / steps / (time.perf_counter() - begun)}
        stock.close()
    if kind == "gym_pusht" and importlib.util.find_spec("lerobot"):
        from .pusht import evaluates_processes, lerobot_rollout

        for envs, parallel in dict.fromkeys([(block, False), (block, True), (most, True)]):
            name = f"lerobot-eval, {'Async' if parallel else 'Sync'}VectorEnv of {envs}"
            if parallel and not evaluates_processes():
                yield name, {"absent": "this lerobot evaluates environments of its own process only"}
                continue
            work, close = lerobot_rollout(envs, n_action_steps, bool(world.cameras), steps, parallel)
            work()
            begun = time.perf_counter()
            work()
            yield name, {"episodes_per_s": envs / (time.perf_counter() - begun)}
            close()


def _size(world: World) -> int:
    return next((size[0] for size in world.cameras.values()), 84)


def table(results: Mapping) -> str:
    """The results as text."""
    lines = [
        f"{'episodes a second':<34}{'from nothing':>13}{'times':>7}{'steady':>9}{'times':>7}"
        f"{'efficiency':>12}{'first':>8}{'memory':>9}"
    ]
    for actor, settings in results.items():
        if actor == "others":
            continue
        lines.append(actor)
        for name, told in settings.items():
            memory = "-" if told["memory_mb"] is None else f"{told['memory_mb']} MB"
            lines.append(
                f"  {name:<32}{told['whole']:>13.2f}{told['whole_times']:>7.2f}{told['steady']:>9.2f}"
                f"{told['steady_times']:>7.2f}{100 * told['efficiency']:>10.0f} %{told['first_episode_s']:>6.1f} s"
                f"{memory:>9}"
            )
    alone = results[RANDOM][_setting(0)]["steady"]
    for name, told in results["others"].items():
        if "absent" in told:
            lines.append(f"{name:<34}{told['absent']}")
            continue
        rate = told["episodes_per_s"]
        lines.append(f"{name:<34}{'':>20}{rate:>9.2f}{rate / alone:>7.2f}")
    lines.append("times: one process of ours; medians of the rounds. first: until the first episode had ended")
    return "\n".join(lines)


def world_for(task: str, cameras: int, size: int, horizon: int) -> World:
    """The registered world of a task, with so many of its cameras."""
    from ...configs.world import find_world

    world = find_world(task)
    names = (*world.cameras, *world.views())[:cameras]
    if len(names) < cameras:
        raise ValueError(f"'{task}' has the cameras {', '.join(world.views())}; {cameras} were asked for")
    return dataclasses.replace(world, cameras=dict.fromkeys(names, (size, size)), horizon=horizon)
