"""How a policy is asked to act (`Acting`), and the agent that does: the door to everything in this room.

`open_agent` loads the policy of whatever origin, its critic and its watch, and says what a manifest needs to repeat it.
Whoever lets policies act opens them here: evaluations, demonstrations, and what drives an arm. Knows no world: what a
world offers is handed in as an `Embodiment`, and `check_world` refuses one that does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...configs.parse import keys_of
from ...configs.plugins import lookup
from ...configs.protocols import keeps
from ..critics.open import critic_checkpoints, open_critic
from ..hub import provenance_of
from ..learning.checkpoint import fingerprint
from ..learning.run import training

if TYPE_CHECKING:
    from ...configs.spec import Embodiment
    from ..policy import Instructed, Planner
    from .agent import Agent
    from .monitor import Monitor


@dataclass(frozen=True, kw_only=True)
class Acting:
    """How a policy is asked to act; `understudy eval` adds where, from which initial conditions, and what is kept."""

    RENAMED: ClassVar[dict[str, str]] = {
        "execute": "n_action_steps",
        "watch": "monitor",
        "plans": "proposal",
    }  # former names that are still read

    policy: str  # run or checkpoint folder, lerobot's too; or a name on the hub: OWNER/NAME, OWNER/NAME@REVISION
    embodiment: str | None = (
        None  # file that says who acts where the checkpoint does not; default of lerobot's: its card
    )
    task_text: str | None = None  # instruction for a policy that reads one; default the world's task
    block: int = 8  # B, environments that act at the same time; results depend on it in the last digits
    n_action_steps: int | None = None  # E, actions executed of each action chunk; default the policy's own
    candidates: int = 1  # N action chunks sampled at each replanning; more need a critic
    critic: str | None = None  # who chooses: folder of a trained critic, recall, or random; A:5>B sieves, A+0.5*B adds
    temperature: float = 0.0  # above 0: draw the chunk by a softmax over its score; in spreads of the scores
    proposal: str = "policy"  # where candidates come from: policy | uniform: any action, held, as a control
    ensemble: float | None = None  # temporal ensembling: decay of its weights, -inf: none; default the policy's own
    monitor: int = 0  # N chunks looked at in each replanning; records recall error, spread, drift; 0: not
    alarm: str | None = None  # file of `understudy calibrate`: monitor, and say when the alarm is raised
    policy_seed: int = 0  # of the policy's noise
    steps: int | None = None  # of the sampler; default the policy's own
    solver: str | None = None  # of the sampler: ddim | dpmpp | heun
    scheduler: str | None = None  # instead of a solver: a class of diffusers, such as UniPCMultistepScheduler
    threads: int = 1  # of torch on the CPU
    device: str = "cpu"  # cpu | cuda: where the policy computes


def check_world(agent: Agent, world: Embodiment) -> None:
    """Refuse a world that differs from what the agent's policy, or a critic that chooses for it, was trained for.

    Raises:
        EmbodimentError: naming the first difference.
    """
    from ..policy import Combination, Embodied

    if not agent.critic:
        agent.planner.embodiment.check(world, agent.inputs)
        return
    waiting = [agent.planner, agent.critic]
    for one in waiting:
        parts = one.parts if keeps(one, Combination) else ()
        waiting.extend(parts)
        if not parts:
            body = one.embodiment if keeps(one, Embodied) else agent.planner.embodiment
            body.check(world, one.inputs)


def open_agent(config: Acting, where: Callable[[], Embodiment] | None, task: str = "") -> tuple[Agent, dict]:
    """The agent that the settings describe, and what the manifest says of its policy.

    Args:
        where: gives the embodiment of the world to act in; None: not known yet.
        task: the text of that world's task, for a policy that reads one.
    """
    from ..critics.controls import UniformPlanner
    from ..foreign.planner import settle
    from ..load import load_policy
    from ..policy import executed_of
    from .agent import Agent

    lookup("source of plans", config.proposal, {"policy": None, "uniform": None})
    policy, info = load_policy(config.policy, config.embodiment)
    foreign = settle(policy, where)
    _instruct(config, policy, task)
    if config.steps or config.solver or config.scheduler:
        policy = _resampled(policy, config)
    policy = UniformPlanner(policy) if config.proposal == "uniform" else policy
    critic = open_critic(config.critic, policy, config.device) if config.critic else None
    n_action_steps = config.n_action_steps or executed_of(policy)
    agent = Agent(
        policy.to(config.device),
        lanes=config.block,
        n_action_steps=n_action_steps,
        candidates=config.candidates,
        critic=critic,
        seed=config.policy_seed,
        ensemble=_ensemble(config, policy, n_action_steps),
        monitor=open_monitor(config, policy, n_action_steps),
        temperature=config.temperature,
    )
    agent.origin = str(info["path"])
    folder = Path(info["path"])
    about = {"path": config.policy, "fingerprint": fingerprint(folder)} | provenance_of(config.policy, folder)
    if agent.monitor and agent.monitor.alarm:
        agent.monitor.alarm.check(about["fingerprint"], agent_settings(config, agent))
    return agent, about | _told(info, ("type", "step", "config", "train")) | foreign | _trained(config.policy)


def agent_settings(config: Acting, agent: Agent) -> dict:
    """How the policy was asked to act."""
    import torch

    from ..policy import Sampled

    sampler = agent.planner.sampler if keeps(agent.planner, Sampled) else None
    unusual = monitored(config, agent) | _stated(agent, "ensemble") | _stated(agent.planner, "task_text")
    unusual |= {"temperature": config.temperature} if config.temperature else {}
    unusual |= {"proposal": config.proposal} if config.proposal != "policy" else {}
    weights = [fingerprint(folder) for folder in critic_checkpoints(config.critic)]
    unusual |= {"critic_fingerprint": weights} if weights else {}
    return unusual | {
        "n_action_steps": agent.n_action_steps,
        "candidates": config.candidates,
        "critic": config.critic,
        "policy_seed": config.policy_seed,
        "sampler": _sampling(sampler),
        "block": config.block,
        "threads": config.threads,
        "device": torch.cuda.get_device_name() if config.device.startswith("cuda") else config.device,
    }


def _stated(owner: object, name: str) -> dict:
    """An attribute by its name; empty where it is None or not there."""
    value = getattr(owner, name, None)
    return {} if value is None else {name: value}


def _instruct(config: Acting, policy: Planner, task: str) -> None:
    """Give a policy that reads one the text of the task, and say which."""
    from ..foreign.planner import instruct

    text = task if config.task_text is None else config.task_text
    ours = [*_instructed(policy)]
    for one in ours:
        one.language.instruct(text)
        one.task_text = policy.task_text = text
    if instruct(policy, text) or ours:
        source = "the world's task; --task_text changes it" if config.task_text is None else "--task_text"
        print(f"the policy reads the text of its task: '{text}' ({source})")
    elif config.task_text is not None:
        raise ValueError(f"the policy in '{config.policy}' reads no text; leave out --task_text")


def _instructed(actor: object) -> Iterator[Instructed]:
    """What reads the text of its task among a policy of ours and its parents."""
    from ..policy import Instructed

    if keeps(actor, Instructed) and actor.language is not None:
        yield actor
    for parent in getattr(actor, "parents", ()):
        yield from _instructed(parent)


def _ensemble(config: Acting, policy: Planner, n_action_steps: int) -> float | None:
    """Decay of temporal ensembling: the flag's, else what the policy was made for; says what becomes of its own."""
    from ..policy import ensemble_of, executed_of

    own = ensemble_of(policy)
    asked = None if config.ensemble == -math.inf else config.ensemble
    if own is not None:
        mine = "none" if asked is None else f"{asked:g}"
        taken = "its own; --ensemble changes it" if config.ensemble is None else f"--ensemble: {mine} in its place"
        print(f"the policy was made for temporal ensembling of decay {own:g} ({taken})")
        if n_action_steps != executed_of(policy):
            print(f"it was made to plan every {executed_of(policy)} steps, and plans every {n_action_steps} here")
    return own if config.ensemble is None else asked


def _resampled(policy, config: Acting):
    from ..field import Solver
    from ..models.generative import with_sampler
    from ..policy import Sampled

    if not keeps(policy, Sampled):
        flags = "--steps, --solver and --scheduler"
        raise ValueError(f"{flags} change a sampler, but the policy in '{config.policy}' has none")
    solver = lookup("solver", config.solver, {one.value: one for one in Solver}) if config.solver else None
    return with_sampler(policy, steps=config.steps, solver=solver, scheduler=config.scheduler)


def _sampling(sampler) -> dict | None:
    """A sampler as keys; without a scheduler as records had it before there was one."""
    keys = None if sampler is None else keys_of(sampler)
    if keys and keys.get("scheduler", "") is None:
        del keys["scheduler"]
    return keys


def _told(info: dict, names: tuple[str, ...]) -> dict:
    return {name: info[name] for name in names if name in info}


def _trained(policy: str) -> dict:
    """What the manifest says of the training run that the policy lies in; empty without one."""
    settings = training(policy)
    if settings is None:
        return {}
    named = {"name": settings["name"]} if settings.get("name") else {}
    return named | {"train": _source(settings)}


def _source(settings: dict) -> dict:
    """What was learnt from; which episodes and columns where not simply all."""
    told = {key: settings.get(key) for key in ("seed", "data", "steps", "batch")}
    chosen = {key: settings.get(key) for key in ("episodes", "without", "columns")}
    return told | {key: value for key, value in chosen.items() if value and value != "all"}


def open_monitor(config: Acting, policy: Planner, n_action_steps: int) -> Monitor | None:
    """The watch that the settings of an evaluation ask for.

    Raises:
        AlarmError: --monitor asks for another number of plans than the alarm was calibrated with.
    """
    if not config.monitor and config.alarm is None:
        return None
    from .alarm import AlarmError, load_alarm
    from .monitor import Monitor

    alarm = load_alarm(config.alarm) if config.alarm is not None else None
    if alarm and config.monitor not in (0, alarm.candidates):
        raise AlarmError(
            f"the alarm looks at {alarm.candidates} plans, --monitor asks for {config.monitor}; leave it out"
        )
    candidates = alarm.candidates if alarm else config.monitor
    return Monitor(policy, lanes=config.block, n_action_steps=n_action_steps, candidates=candidates, alarm=alarm)


def monitored(config: Acting, agent: Agent) -> dict:
    """What the manifest says of the watch; empty without one."""
    monitor = agent.monitor
    if monitor is None:
        return {}
    about = {"monitor": monitor.candidates}
    if monitor.alarm is None:
        return about
    calibration = {
        "path": config.alarm,
        "alpha": monitor.alarm.alpha,
        "n": monitor.alarm.n,
        "threshold": monitor.alarm.threshold,
    }
    return about | {"alarm": calibration | {"clock": monitor.alarm.clock, "world": monitor.alarm.world}}
