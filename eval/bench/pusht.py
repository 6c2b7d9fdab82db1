"""PushT beside `lerobot-eval`: batches of episodes, states or 96 px pictures, in interleaved pairs of one process.

Equal on both sides: gym-pusht's physics, the number of environments, stepped one after the other in this process, env
seeds, the length of an episode, and a policy that costs next to nothing: it replays a chunk of E random numbers that it
asks for anew when they are used up. lerobot's side is its own `rollout` of `lerobot.scripts.lerobot_eval` with its own
environments, observation and (empty) processing steps; gym-pusht there draws at every step in pixel mode. Ours is the
loop of `understudy eval`. Once a chunk, pictures are drawn only after the steps that the policy looks at, at every step
as many as lerobot draws. Both run all their steps: nobody succeeds with random actions.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import statistics
from dataclasses import replace
from functools import partial

import numpy as np

from ...configs.lanes.lanes import Lanes
from ...configs.world import REPORT_STARTS
from ...sim.pusht.gym_pusht import GymPushT
from ..rollout.rollout import rollout
from .policy import Contender, race

SIZE = 96  # px, of gym-pusht's pictures
CASES = (  # name, pictures, at every step
    ("state", False, False),
    ("pixels, every step", True, True),
    ("pixels, once a chunk", True, False),
)
STEPS = 40  # of an episode


class Noise:
    """The actor: random targets in px, the same for all environments."""

    def __init__(self, lanes: int, n_action_steps: int, every: bool):
        self.lanes, self.n_action_steps = lanes, n_action_steps
        self.look = tuple(range(1 - n_action_steps, 1)) if every else (0,)
        self.reset(None, None, {})

    def reset(self, starts, mask, obs) -> None:
        self._rng = np.random.default_rng(0)

    def act(self) -> np.ndarray:
        return self._rng.uniform(0, 512, (self.lanes, self.n_action_steps, 2)).astype(np.float32)

    def observe(self, obs, sent, valid) -> None:
        """Reads, and forgets."""


def compare_pusht(envs: int, n_action_steps: int, pairs: int, seconds: float, steps: int = STEPS) -> dict:
    """Each case beside lerobot.

    Args:
        envs: environments on both sides.
        n_action_steps: E, control steps of a chunk.
        seconds: about how long one turn of one side takes.
        steps: control steps of an episode.

    Returns:
        case name -> steps/s of both, `speedup` (median ratio of the pairs) with all `speedups`; without lerobot only
        ours, and `absent`.
    """
    results = {}
    for name, pictures, every in CASES:
        world = replace(GymPushT(), horizon=steps, cameras={"image": (SIZE, SIZE)} if pictures else {})
        lanes = Lanes(world, envs)
        ours = _ours(lanes, Noise(envs, n_action_steps, every))
        peer = _lerobot(envs, n_action_steps, pictures, steps) if importlib.util.find_spec("lerobot") else None
        results[name] = _case(ours, peer, pairs, seconds, envs * steps)
        lanes.close()
    return results


def _case(ours, peer, pairs: int, seconds: float, steps: int) -> dict:
    raced = race(Contender("understudy", 0, ours), Contender("lerobot", 0, peer or ours), pairs, seconds)
    mine, theirs = (1000 * steps / side["ms"] for side in raced["sides"])
    sides = {"understudy": {"steps_per_s": mine}}
    if peer is None:
        return sides | {"absent": "lerobot is not installed"}
    speedups = [1 / ratio for ratio in raced["ratios"]]
    return sides | {
        "lerobot": {"steps_per_s": theirs},
        "speedup": statistics.median(speedups),
        "speedups": speedups,
    }


def _ours(lanes: Lanes, actor: Noise):
    starts = range(REPORT_STARTS, REPORT_STARTS + lanes.num_envs)

    def work() -> int:
        return sum(result.row["length"] for result in rollout(actor, lanes, starts))

    return work


def _lerobot(envs: int, n_action_steps: int, pictures: bool, steps: int):
    """lerobot's own evaluation of as many episodes as environments."""
    return lerobot_rollout(envs, n_action_steps, pictures, steps)[0]


def lerobot_rollout(envs: int, n_action_steps: int, pictures: bool, steps: int, parallel: bool = False):
    """(work, close): lerobot's own evaluation of as many episodes as environments, with random actions.

    Args:
        parallel: each environment in a process (`AsyncVectorEnv`); else one after the other (`SyncVectorEnv`).
    """
    from ...configs.compat import prepare_lerobot

    prepare_lerobot()
    from lerobot.envs.configs import PushtEnv
    from lerobot.envs.factory import make_env
    from lerobot.processor import PolicyProcessorPipeline
    from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
    from lerobot.scripts.lerobot_eval import rollout as stock

    kind = "pixels_agent_pos" if pictures else "environment_state_agent_pos"
    config = PushtEnv(obs_type=kind, episode_length=steps, observation_height=SIZE, observation_width=SIZE)
    env = _side_by_side(config, envs) if parallel else make_env(config, n_envs=envs)["pusht"][0]
    empty = [PolicyProcessorPipeline(steps=[]) for _ in range(3)]
    asis = {"to_transition": policy_action_to_transition, "to_output": transition_to_policy_action}
    empty.append(PolicyProcessorPipeline(steps=[], **asis))
    policy, seeds = _noise_policy(envs, n_action_steps), list(range(REPORT_STARTS, REPORT_STARTS + envs))

    def work() -> int:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            episodes = stock(env, policy, *empty, seeds=seeds)
        return episodes["done"].numel()

    return work, env.close


def evaluates_processes() -> bool:
    """Whether lerobot's evaluation takes environments in processes: 0.4 asks for their objects, which lie elsewhere."""
    from importlib.metadata import version

    return tuple(map(int, version("lerobot").split(".")[:2])) >= (0, 5)


def _side_by_side(config, envs: int):
    """The `AsyncVectorEnv` that lerobot would make.

    In its own the processes do not know gym-pusht's name, and end when they are asked for a task that it does not have.
    """
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode

    make = partial(_gym, config.package_name, config.gym_id, config.disable_env_checker, config.gym_kwargs)
    return AsyncVectorEnv([make] * envs, autoreset_mode=AutoresetMode.SAME_STEP, context="forkserver")


def _gym(package: str, name: str, unchecked: bool, settings: dict):
    import gymnasium

    importlib.import_module(package)
    env = gymnasium.make(name, disable_env_checker=unchecked, **settings)
    env.unwrapped.task = env.unwrapped.task_description = ""
    return env


def _noise_policy(envs: int, n_action_steps: int):
    """`Noise` as lerobot's loop wants it."""
    import torch

    class NoisePolicy(torch.nn.Module):
        def reset(self) -> None:
            self.actor, self.queue = Noise(envs, n_action_steps, every=False), []

        def select_action(self, batch: dict) -> torch.Tensor:
            if not self.queue:
                self.queue = list(torch.from_numpy(self.actor.act()).unbind(1))
            return self.queue.pop(0)

    return NoisePolicy()


def table(results: dict) -> str:
    """The results as text."""
    lines = [f"{'':<26}{'steps/s':>9}{'lerobot':>9}{'speed-up':>10}{'range':>13}"]
    for name, case in results.items():
        rate = case["understudy"]["steps_per_s"]
        if "absent" in case:
            lines.append(f"{name:<26}{rate:>9,.0f}  {case['absent']}")
            continue
        span = f"{min(case['speedups']):.2f}-{max(case['speedups']):.2f}"
        peer = case["lerobot"]["steps_per_s"]
        lines.append(f"{name:<26}{rate:>9,.0f}{peer:>9,.0f}{case['speedup']:>10.2f}{span:>13}")
    if "speedups" in case:
        lines.append(f"speed-up: median of {len(case['speedups'])} interleaved pairs, beside lerobot's own evaluation")
        lines.append("loop with as many environments; in pixel mode it draws at every step")
    return "\n".join(lines)
