"""What is refused before an arm is touched: another body, numbers of unknown meaning, cameras, rate; and how long
planning takes. Nothing here opens a bus.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...configs.progress import counted
from ...configs.protocols import keeps
from ...configs.spec import IMAGES, AssumedWarning, Embodiment, EmbodimentError, unnamed
from .settings import MEASURE

if TYPE_CHECKING:
    from ...configs.world import World
    from ...policies.agent.agent import Agent
    from .settings import Settings

CLOSE = 0.02  # rad or m, by which limits may differ: the rounding of calibrations
ALIKE = ("config", "cameras", "horizon", "robot", "port", "calibration")  # of a world, that an alarm may differ in
TRIALS = 5  # plans that are timed, after one that is not


def check_arm(agent: Agent, arm: Embodiment, limits: str = "equal") -> list[str]:
    """Refuse an arm that a policy, or its critic, was not trained for.

    Args:
        limits: "equal" (to `CLOSE`), or "arm": the arm's hold, whatever the policy's are.

    Returns:
        What the person at the arm should know.

    Raises:
        EmbodimentError: naming the first difference, or what nobody states.
    """
    from ...policies.policy import Combination, Embodied

    waiting, told = [agent.planner, *([agent.critic] if agent.critic else [])], []
    while waiting:
        one = waiting.pop(0)
        waiting.extend(one.parts if keeps(one, Combination) else ())
        body = one.embodiment if keeps(one, Embodied) or one is agent.planner else agent.planner.embodiment
        told += _check_body(body, arm, tuple(cast(Any, one).inputs), limits)
    return list(dict.fromkeys(told))


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _check_body(body: Embodiment, arm: Embodiment, inputs: tuple[str, ...], limits: str) -> list[str]:
    if body.action != arm.action:  # whose joints are others need not be told of units first
        of = "nobody named its numbers: give --embodiment FILE" if unnamed(body.action) else "it is of another robot"
        raise EmbodimentError(
            f"embodiments differ in action: the policy moves {_some(body.action)}, the arm {_some(arm.action)}; {of}"
        )
    if body.unknown:
        raise EmbodimentError(
            f"the policy says nothing of {', '.join(body.unknown)}: on an arm that may break something. State it with "
            "--embodiment FILE, or train on data that do (understudy inspect DATA)"
        )
    told, offered = [], arm
    if len(body.limits) == len(arm.limits):
        apart = np.abs(np.subtract(body.limits, arm.limits)).max(1)
        joint = int(apart.argmax())
        if apart[joint] <= CLOSE or limits == "arm":
            offered = dataclasses.replace(arm, limits=body.limits)
        if apart[joint] > CLOSE and limits == "arm":
            (a, b), (low, high) = body.limits[joint], arm.limits[joint]
            name, unit = arm.action[joint], arm.action_units[joint]
            told.append(f"{name} goes from {low:.2f} to {high:.2f} {unit}, the policy's from {a:.2f} to {b:.2f} {unit}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", AssumedWarning)
        try:
            body.check(offered, inputs)
        except AssumedWarning as silent:
            raise EmbodimentError(f"{silent}. On an arm nothing is assumed") from silent
        except EmbodimentError as error:
            advice = "; --limits arm lets it act within the arm's" if "differ in limits" in str(error) else ""
            if "does not offer it" in str(error):
                offers = ", ".join(arm.offers())
                advice = (
                    f". It shows {offers}: only simulators know where objects are. Train a policy on what the arm "
                    f"shows (understudy train --data DATA --policy.type diffusion --policy.inputs '[{offers}]')"
                    " and deploy that"
                )
            raise EmbodimentError(f"{error}{advice}") from error
    for need in inputs:
        if need.startswith(IMAGES) and body.offers().get(need) not in (None, arm.offers()[need]):
            (seen,), (has,) = body.offers()[need], arm.offers()[need]
            told.append(f"{need} has {has} pixels; the policy learned from {seen}, so pictures are resized")
    return told


def alarm_elsewhere(agent: Agent, world: World) -> list[str]:
    """What to know of an alarm that was calibrated in another world than this arm."""
    alarm = agent.monitor.alarm if agent.monitor else None
    if alarm is None:
        return []
    here = json.loads(json.dumps(world.fingerprint(), default=str))
    names = [name for name in sorted(here) if name not in ALIKE and alarm.world.get(name) != here[name]]
    if not names:
        return []
    name = names[-1] if "type" in names else names[0]
    return [
        f"warning: the alarm was calibrated elsewhere ({name}: {alarm.world.get(name)}, here {here[name]}), so how "
        "often it is raised for nothing is not known here: calibrate it on this arm (understudy eval --monitor with "
        "--world '{type: robot, ...}', then calibrate)"
    ]


def planning_steps(agent: Agent, body: Embodiment) -> tuple[int, float]:
    """(control steps that planning takes here, s of its median): the slowest of some plans, rounded up.

    Each follows a chunk that was executed, for some agents plan longer from the second plan of an episode on.
    """
    obs = {key: np.zeros((1, *space.shape), space.dtype) for key, space in body.spaces()[0].items()}
    seen = {key: np.repeat(value[:, None], len(agent.look), 1) for key, value in obs.items()}
    spent = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zeros may be far from what was trained on
        agent.reset(np.zeros(1, np.int64), np.ones(1, bool), obs)
        chunk = agent.act()
        for trial in range(TRIALS + 1):
            agent.observe(seen, chunk, np.ones(chunk.shape[:2], bool))
            begun = time.perf_counter()
            chunk = agent.act()
            spent += [time.perf_counter() - begun] * (trial > 0)
    return math.ceil(max(spent) * body.rate), float(np.median(spent))


def settled_delay(config: Settings, agent: Agent, body: Embodiment) -> int:
    """Control steps that planning is taken to take; says what it takes here."""
    from ...policies.agent.open import reopened

    if config.clock == "simulated":
        if config.delay == MEASURE:
            print("--delay 0: simulated time stands while a plan is made; --delay N lets plans come late")
        return max(0, config.delay)
    steps, median = planning_steps(reopened(dataclasses.replace(config, delay=_trial(config, agent)), agent), body)
    delay = steps if config.delay == MEASURE else config.delay
    print(
        f"planning takes {1000 * median:.0f} ms, at most {counted(steps, 'control step')} of {1000 / body.rate:.0f} "
        f"ms; --delay {delay}, --latency {config.latency}"
    )
    if steps > delay:
        print(f"the arm will stand, or go on by old plans, now and then: --delay {steps} allows for it")
    return delay


def _trial(config: Settings, agent: Agent) -> int:
    """The delay of the plans that are timed: with one, they are made as they will be, given committed actions."""
    if config.delay != MEASURE:
        return config.delay
    from ...policies.agent.latency import Mode

    return max(1, -agent.planner.window.observe[-1] if config.latency == Mode.past.value else 0)
