"""How a policy is asked to act (`Acting`), and the agent that does: the door to everything in this room.

`open_agent` loads the policy of whatever origin, its critic and its watch, and says what a manifest needs to repeat it.
Whoever lets policies act opens them here: evaluations, demonstrations, and what drives an arm. Knows no world: what a
world offers is handed in as an `Embodiment`, and `check_world` refuses one that does not fit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...configs.devices import check_device, choose_device
from ...configs.former import FORMERLY
from ...configs.plugins import lookup
from ...configs.protocols import keeps
from ...configs.settings.decode import keys_of
from ...configs.spec import EmbodimentError
from ..address import check_address, is_address
from ..critics.open import critic_checkpoints, open_critic
from ..hub import is_hub_id, provenance_of
from ..learning.checkpoint import find_checkpoint, fingerprint, former_fingerprint
from ..learning.run import training

if TYPE_CHECKING:
    from ...configs.spec import Embodiment
    from ...configs.world import World
    from ..policy import Critic, Instructed, Planner
    from .agent import Agent
    from .monitor import Monitor


NOISELESS = "noiseless"


@dataclass(frozen=True, kw_only=True)
class Acting:
    """How a policy is asked to act; `understudy eval` adds where, from which initial conditions, and what is kept."""

    RENAMED: ClassVar[dict[str, str]] = {
        "execute": "n_action_steps",
        "watch": "monitor",
        "plans": "proposal",
    }  # former names that are still read

    policy: str  # run or checkpoint folder, lerobot's too; a server, ws://HOST:PORT; on the hub: OWNER/NAME[@REVISION]
    embodiment: str | None = (
        None  # file that names the robot's actions, units and rate where the checkpoint does not; lerobot's: its card
    )
    task_text: str | None = None  # instruction for a policy that reads one; by default the world's task
    goal: str | None = (
        None  # goal of a policy that acts for one: a picture, CAMERA=PICTURE,..., or DATA:EPISODE, an episode's end
    )
    block: int = 8  # parallel environments (B); results depend on it in the last digits
    n_action_steps: int | None = None  # actions executed of each action chunk (E); by default the policy's own number
    candidates: int = 1  # action chunks sampled at each replanning (N); more than one need a critic
    critic: str | None = (
        None  # who chooses among candidates: a critic's run, recall, random; A:5>B: B ranks the best 5 of A; A+0.5*B
    )
    temperature: float = 0.0  # above 0, the chunk is drawn by a softmax over the scores; in standard deviations of them
    # where plans come from: policy | noiseless (the policy without sampling noise) | uniform (any action, as a control)
    proposal: str = "policy"
    ensemble: float | None = (
        None  # decay of the weights of temporal ensembling, -inf switches it off; by default the policy's own
    )
    monitor: int = 0  # chunks that the run-time monitor samples at each replanning; 0: no monitor
    alarm: str | None = None  # file of `understudy calibrate`: monitors, and says when the alarm is raised
    delay: int = 0  # control steps from asking for an action chunk until it is there, while the arm moves on
    latency: str = "wait"  # with a delay, what is done about it: wait | switch | blend | rtc | prefix | past
    policy_seed: int = 0  # seed of the policy's sampling noise
    steps: int | None = None  # denoising steps of the sampler; by default the policy's own number
    solver: str | None = None  # solver of the sampler: ddim | dpmpp | heun
    scheduler: str | None = None  # class of diffusers in place of a solver, such as UniPCMultistepScheduler
    threads: int = 1  # CPU threads that torch uses
    device: str = "auto"  # where the policy computes: auto (a GPU if there is one) | cpu | cuda | cuda:N


def check_policy_names(config: Acting) -> None:
    """Refuse a device, a policy, or files beside it that are not there, without loading anything.

    Raises:
        ValueError, FileNotFoundError: naming what is wrong.
    """
    check_device(config.device)
    check_policy(config.policy)
    for name in ("embodiment", "alarm"):
        value = getattr(config, name)
        if value is not None and not Path(os.path.expandvars(value)).is_file():
            raise FileNotFoundError(f"--{name} {value}: there is no such file")


def check_policy(policy: str) -> None:
    """Raise FileNotFoundError where a word is no run or checkpoint here, no address, no name that may be on the hub."""
    if is_address(policy):
        check_address(policy)
    elif not is_hub_id(policy):
        find_checkpoint(policy)


def check_world(agent: Agent, world: World) -> None:
    """Refuse a world that differs from what the agent's policy, or a critic that chooses for it, was trained for.

    Raises:
        EmbodimentError: naming the first difference, and worlds that fit.
    """
    from ..policy import Combination, Embodied
    from .stage import misfit

    offered = world.embodiment()
    if world.moves_arm:
        _refuse_unstated(agent)
    try:
        if not agent.critic:
            agent.planner.embodiment.check(offered, agent.inputs)
            return
        waiting = [agent.planner, agent.critic]
        for one in waiting:
            parts = one.parts if keeps(one, Combination) else ()
            waiting.extend(parts)
            if not parts:
                body = one.embodiment if keeps(one, Embodied) else agent.planner.embodiment
                body.check(offered, one.inputs)
    except EmbodimentError as error:
        raise misfit(agent.origin or "the policy", agent.planner.embodiment, agent.inputs, world, error) from error


def _refuse_unstated(agent: Agent) -> None:
    """Raise EmbodimentError for a policy of whose numbers nobody said what they mean."""
    from ..foreign.body import Settled

    planner = agent.planner
    guess = "what its numbers are, and in which units" if keeps(planner, Settled) and not planner.body.stated else ""
    if unknown := guess or planner.embodiment.unknown_in_short:
        raise EmbodimentError(
            f"nothing says of {agent.origin or 'the policy'} {unknown}: on an arm that may break something. State it "
            "with --embodiment FILE"
        )


def open_agent(
    config: Acting, where: Callable[[], Embodiment] | None, task: str = "", body: Embodiment | None = None
) -> tuple[Agent, dict]:
    """The agent that the settings describe, and what the manifest says of its policy.

    Args:
        where: gives the embodiment of the world to act in; None: not known yet.
        task: the text of that world's task, for a policy that reads one.
        body: who acts by a policy of lerobot's, where that is known already.
    """
    from ..critics.controls import UniformPlanner
    from ..foreign.planner import ChunkPlanner, settle
    from ..load import load_policy
    from ..policy import executed_of
    from .goal import show_goal

    device = choose_device(config.device)
    lookup("source of plans", config.proposal, dict.fromkeys(("policy", NOISELESS, "uniform")))
    policy, info = load_policy(config.policy, config.embodiment or body)
    foreign = settle(policy, where)
    _instruct(config, policy, task)
    show_goal(policy, config.goal, config.policy)
    if config.steps or config.solver or config.scheduler:
        policy = _resampled(policy, config)
    if config.proposal == NOISELESS and (is_address(config.policy) or isinstance(policy, ChunkPlanner)):
        raise ValueError(
            f"--proposal {NOISELESS}: '{config.policy}' draws its noise where nobody here can silence it; take another "
            "policy, or leave it out"
        )
    if config.proposal == NOISELESS:
        _refuse_noise_of_steps(policy)
    if config.delay and config.latency in ("rtc", "prefix", "past") and getattr(policy, "scheduler", None):
        own, steps = policy.scheduler, policy.sampler.steps
        print(f"--latency {config.latency}: later plans than the first are our sampler's ({steps} steps), not by {own}")
    policy = UniformPlanner(policy) if config.proposal == "uniform" else policy
    critic = open_critic(config.critic, policy, device) if config.critic else None
    ensemble = _ensemble(config, policy, config.n_action_steps or executed_of(policy))
    agent = assembled(config, policy.to(device), critic, ensemble)
    agent.origin = str(info["path"])
    folder = Path(info["path"])
    hashed = info.get("fingerprint", "") if is_address(config.policy) else fingerprint(folder)
    before = info.get(FORMERLY) if is_address(config.policy) else former_fingerprint(folder)
    about = {"path": config.policy, "fingerprint": hashed} | provenance_of(config.policy, folder)
    about |= {} if before is None else {FORMERLY: before}
    check_alarm(config, agent, about)
    return agent, about | _told(info, ("type", "step", "config", "train")) | foreign | _trained(config.policy)


def reopened(config: Acting, agent: Agent) -> Agent:
    """An agent of the same policy and critic whose delay and monitor are those of the settings; nothing is loaded.

    Its alarm is not checked; see `check_alarm`. Raises ValueError: a delay that the policy's plans do not bear.
    """
    other = assembled(config, agent.planner, agent.critic, agent.ensemble)
    other.origin = agent.origin
    return other


def assembled(config: Acting, policy: Planner, critic: Critic | None, ensemble: float | None) -> Agent:
    """The agent of a policy that is open already: all that the settings say of acting is done here, for everybody."""
    from ..policy import executed_of
    from .agent import Agent
    from .latency import Delayed, Mode

    n_action_steps = config.n_action_steps or executed_of(policy)
    delayed = Delayed.read(config.latency, config.delay)
    steps = n_action_steps + (config.delay if delayed and delayed.mode is Mode.wait else 0)
    return Agent(
        policy,
        lanes=config.block,
        n_action_steps=n_action_steps,
        candidates=config.candidates,
        critic=critic,
        seed=config.policy_seed,
        ensemble=ensemble,
        monitor=open_monitor(config, policy, steps),
        temperature=config.temperature,
        latency=delayed,
        noiseless=config.proposal == NOISELESS,
    )


def check_alarm(config: Acting, agent: Agent, about: Mapping) -> None:
    """Refuse an alarm of other weights than those of `about` (of `open_agent`), or of another way to act.

    Raises:
        AlarmError: naming what differs.
    """
    if agent.monitor and agent.monitor.alarm:
        agent.monitor.alarm.check(about["fingerprint"], agent_settings(config, agent), about.get(FORMERLY))


def agent_settings(config: Acting, agent: Agent) -> dict:
    """How the policy was asked to act."""
    import torch

    from ..policy import Sampled
    from .goal import RECORDED

    device = choose_device(config.device)
    sampler = agent.planner.sampler if keeps(agent.planner, Sampled) else None
    unusual = monitored(config, agent) | _stated(agent, "ensemble") | _stated(agent.planner, "task_text")
    unusual |= {"goal": config.goal} if config.goal not in (None, RECORDED) else {}
    unusual |= {"temperature": config.temperature} if config.temperature else {}
    unusual |= {"proposal": config.proposal} if config.proposal != "policy" else {}
    unusual |= {"delay": config.delay, "latency": config.latency} if config.delay else {}
    weights = [fingerprint(folder) for folder in critic_checkpoints(config.critic)]
    unusual |= {"critic_fingerprint": weights} if weights else {}
    return unusual | {
        "n_action_steps": agent.latency.executed if agent.latency else agent.n_action_steps,
        "candidates": config.candidates,
        "critic": config.critic,
        "policy_seed": config.policy_seed,
        "sampler": _sampling(sampler),
        "block": config.block,
        "threads": config.threads,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }


def _stated(owner: object, name: str) -> dict:
    """An attribute by its name; empty where it is None or not there."""
    value = getattr(owner, name, None)
    return {} if value is None else {name: value}


def _instruct(config: Acting, policy: Planner, task: str) -> None:
    """Give a policy that reads one the text of the task, and say which."""
    text = task if config.task_text is None else config.task_text
    if instruct(policy, text):
        told = getattr(policy, "task_text", text)  # where the text is empty, the only one that it knows
        whose = "the world's task" if text else "its own"
        source = f"{whose}; --task_text changes it" if config.task_text is None else "--task_text"
        print(f"the policy reads the text of its task: '{told}' ({source})")
    elif config.task_text is not None:
        raise ValueError(f"the policy in '{config.policy}' reads no text; leave out --task_text")


def instruct(policy: Planner, text: str) -> bool:
    """Let a policy, ours or lerobot's, act by this text from now on; whether it reads one. Raises LanguageError."""
    from ..foreign import planner as foreign

    ours = [*_instructed(policy)]
    for one in ours:
        one.language.instruct(text)
        one.task_text = policy.task_text = one.language.text
    return foreign.instruct(policy, text) or bool(ours)


def reads_text(policy: Planner) -> bool:
    """Whether a policy, ours or lerobot's, or a part of it, reads the text of its task."""
    from ..foreign import planner as foreign

    return any(True for _ in _instructed(policy)) or foreign.reads_text(policy)


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


def _refuse_noise_of_steps(policy) -> None:
    """Raise ValueError where each denoising step draws noise of its own, which is silenced by nobody."""
    from ..policy import Sampled
    from ..schedulers import STOCHASTIC

    own = getattr(policy, "scheduler", None)  # lerobot's: by its short name
    name = f"{own}Scheduler" if own else policy.sampler.scheduler if keeps(policy, Sampled) else None
    if name in STOCHASTIC:
        raise ValueError(
            f"--proposal {NOISELESS}: {name} draws noise at every denoising step; add --solver ddim, or leave it out"
        )


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
