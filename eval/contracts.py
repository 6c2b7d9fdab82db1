"""What every policy, critic, world and robot keeps, as checks that name what is broken.

The tests run them over all registered names; the author of a plug-in runs them over a file of their own:

    from understudy.eval.contracts import check_policy
    check_policy(MyPolicyConfig())

A check returns nothing and raises `BrokenContract`. They are small: a few windows, a few steps, on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ..configs.protocols import keeps, missing
from ..configs.spec import ACTION, SCENE, STATE, Embodiment
from ..configs.world import World

LANES, CANDIDATES = 3, 2


class BrokenContract(AssertionError):
    """A registered thing does not keep what its protocol promises."""


def sample_embodiment() -> Embodiment:
    """A small body that offers a state and a scene."""
    return Embodiment(
        name="sample",
        action=("x", "y"),
        action_units=("m", "m"),
        limits=((-1.0, 1.0), (-2.0, 2.0)),
        rate=10.0,
        state=("x", "y"),
        state_units=("m", "m"),
        scene=("a", "b", "c"),
        scene_units=("m", "m", "rad"),
    )


def check_policy(config, embodiment: Embodiment | None = None) -> None:
    """A `PolicyConfig` builds a planner that is deterministic, keeps environments apart, trains and survives saving."""

    from ..policies.policy import LaneNoise, Planner, Trainable

    embodiment = embodiment or sample_embodiment()
    policy = _build(config, embodiment)
    _require_kept(policy, Planner, "is no Planner: embodiment, window, inputs, plan")
    _require_kept(policy, Trainable, "is not trainable: window, inputs, loss")
    policy.eval()
    past, starts = sample_past(policy.window, policy.inputs, embodiment), np.arange(LANES)

    def plan(n: int, planner=policy):
        return planner.plan(past, n, LaneNoise(0, starts, starts))

    first = plan(CANDIDATES)
    _check_plans(first, policy, embodiment)
    _same(plan(CANDIDATES).future, first.future, "the same noise gives other action chunks")
    _close(plan(1).future[:, 0], first.future[:, 0], "the first candidate depends on how many are drawn")
    _check_loss(policy, sample_batch(policy.window, policy.inputs, embodiment) | sample_outcomes(config, embodiment))
    twin = _build(config, embodiment)
    twin.load_state_dict(policy.state_dict())
    _same(plan(CANDIDATES, twin.eval()).future, first.future, "the saved weights do not hold all that acts")
    _check_dump(config)


def check_critic(config, embodiment: Embodiment | None = None) -> None:
    """A `CriticConfig` builds a critic whose scores are finite, deterministic and made for each chunk alone.

    One that is trained also has a finite loss, and survives saving.
    """
    import torch

    from ..policies.policy import Critic, Plans, Trainable

    embodiment = embodiment or sample_embodiment()
    critic = _build(config, embodiment)
    _require_kept(critic, Critic, "is no Critic: window, inputs, reads, score")
    rng = torch.Generator().manual_seed(0)
    shape, dims = (LANES, CANDIDATES), len(embodiment.action)
    plans = Plans(
        torch.rand(*shape, len(critic.window.recall), dims, generator=rng),
        torch.rand(*shape, max(critic.window.horizon, critic.reads), dims, generator=rng),
        torch.zeros(LANES, dtype=torch.int64),
    )
    past = sample_past(critic.window, critic.inputs, embodiment)
    with torch.no_grad():
        scores, again = critic.score(past, plans), critic.score(past, plans)
        alone = critic.score(past, plans.pick(torch.ones(LANES, dtype=torch.int64)))
    _require(scores.shape == shape, f"score returns {tuple(scores.shape)}, not (B, N) = {shape}")
    _require(bool(torch.isfinite(scores).all()), "scores are not finite")
    _same(scores, again, "the same action chunks get other scores")
    _close(alone[:, 0], scores[:, 1], "the score of a chunk depends on the other candidates")
    if keeps(critic, Trainable):
        _check_loss(
            critic, sample_batch(critic.window, critic.inputs, embodiment) | sample_outcomes(config, embodiment)
        )
        twin = _build(config, embodiment)
        twin.load_state_dict(critic.state_dict())
        _same(twin.score(past, plans), scores, "the saved weights do not hold all that judges")
    _check_dump(config)


def check_world(world: World, steps: int = 3) -> None:
    """A `World` opens environments that agree with its embodiment, are a function of the env seed, and end on time."""
    world = dataclasses.replace(world, horizon=steps)
    lane, other = world.lane(), world.lane()
    try:
        space, actions = world.embodiment().spaces()
        _require(lane.observation_space == space, "observation_space is not that of the embodiment")
        _require(lane.action_space == actions, "action_space is not that of the embodiment")
        first, _ = lane.reset(seed=1)
        elsewhere, _ = lane.reset(seed=2)
        _require(_differ(first, elsewhere), "env seeds 1 and 2 begin alike")
        _check_observation(lane.reset(seed=1)[0], space)
        rng = np.random.default_rng(0)
        other.reset(seed=1)
        for step in range(steps):
            action = rng.uniform(actions.low, actions.high).astype(np.float32)
            ours, theirs = lane.step(action), other.step(action)
            _check_step(ours, space, actions)
            _require(not _differ(ours[0], theirs[0]), f"two copies with one env seed differ after step {step + 1}")
        _require(ours[3] or ours[2], f"neither ended nor truncated after the horizon of {steps} steps")
    finally:
        lane.close(), other.close()
    import json

    json.dumps(world.fingerprint())


def check_robot(config) -> None:
    """A `RobotConfig` opens, behind the guard, a robot that reads what it offers and says what it really sent.

    It is moved a little.
    """
    from ..hardware.guarded import open_robot
    from ..hardware.robot import Robot

    robot = open_robot(config)
    robot.connect()
    try:
        _require_kept(robot, Robot, "is no Robot: embodiment and four verbs")
        space, actions = robot.embodiment.spaces()
        _check_observation(robot.get_observation(), space)
        low, high = actions.low, actions.high
        sent = robot.send_action((low + high) / 2)
        _require(isinstance(sent, np.ndarray) and sent.shape == low.shape, f"send_action returned {sent!r}")
        _require(sent.dtype == np.float32, f"send_action returned {sent.dtype}, not float32")
        _require(bool(((sent >= low) & (sent <= high)).all()), f"sent {sent} is outside the limits")
    finally:
        robot.disconnect()
    robot.disconnect()  # twice is safe
    _check_dump(config)


def sample_past(window, inputs: tuple[str, ...], embodiment: Embodiment, lanes: int = LANES):
    """A `Past` of random numbers for `lanes` lanes, all of it valid."""
    import torch

    from ..policies.policy import Past

    rng = torch.Generator().manual_seed(1)
    sizes = {STATE: len(embodiment.state), SCENE: len(embodiment.scene)}
    frames, tokens = len(window.observe), len(window.recall)
    return Past(
        obs={key: torch.randn(lanes, frames, sizes[key], generator=rng) for key in inputs},
        obs_times=window.observe,
        obs_valid=torch.ones(lanes, frames, dtype=torch.bool),
        actions=torch.rand(lanes, tokens, len(embodiment.action), generator=rng),
        action_times=window.recall,
        action_valid=torch.ones(lanes, tokens, dtype=torch.bool),
        now=torch.full((lanes,), window.reach, dtype=torch.int64),
    )


def sample_batch(window, inputs: tuple[str, ...], embodiment: Embodiment, count: int = 4) -> dict:
    """A batch of random windows, as `Windows.gather` returns them."""
    import torch

    past = sample_past(window, inputs, embodiment, count)
    tokens = len(window.actions)
    actions = torch.rand(count, tokens, len(embodiment.action), generator=torch.Generator().manual_seed(2))
    return dict(past.obs) | {
        "observation.valid": past.obs_valid,
        ACTION: actions,
        "action.valid": torch.ones(count, tokens, dtype=torch.bool),
        "index": torch.arange(count),
        "episode": torch.zeros(count, dtype=torch.int64),
    }


def sample_outcomes(config, embodiment: Embodiment, count: int = 4) -> dict:
    """What windows of settings with `rewards` hold besides: outcomes and later frames. Nothing for others."""
    import torch

    from ..policies.data.rewards import Rewarded

    if not keeps(config, Rewarded):
        return {}
    from ..policies.data.windows import LATER

    later = sample_past(config.window, config.inputs, embodiment, count)
    rng = torch.Generator().manual_seed(3)
    out = {name: torch.rand(count, generator=rng) for name in ("reward", "discount", "return")}
    out |= {LATER + key: value.flip(0) for key, value in later.obs.items()}
    return out | {LATER + "observation.valid": later.obs_valid, "whole": torch.ones(count, dtype=torch.bool)}


def _check_loss(model, batch: dict) -> None:
    import torch

    scalar, named = model.loss(batch)
    _require(scalar.ndim == 0 and bool(torch.isfinite(scalar)), f"loss is no finite scalar: {scalar}")
    _require(all(isinstance(value, float) for value in named.values()), "loss returns scalars that are not floats")


def _build(config, embodiment: Embodiment):
    import torch

    from ..policies.policy import Scales

    torch.manual_seed(0)
    sizes = {STATE: len(embodiment.state), SCENE: len(embodiment.scene)}
    low, high = zip(*embodiment.limits, strict=True)
    states = {key: ((0.0,) * n, (1.0,) * n) for key, n in sizes.items()}
    return config.build(embodiment, Scales(action=(low, high), states=states))


def _check_plans(plans, policy, embodiment: Embodiment) -> None:
    import torch

    dims = len(embodiment.action)
    future = (LANES, CANDIDATES, policy.window.horizon, dims)
    past = (LANES, CANDIDATES, len(policy.window.recall), dims)
    _require(plans.future.shape == future, f"future is {tuple(plans.future.shape)}, not (B, N, H, D) = {future}")
    _require(plans.past.shape == past, f"past is {tuple(plans.past.shape)}, not (B, N, K, D) = {past}")
    _require(plans.start.shape == (LANES,), f"start is {tuple(plans.start.shape)}, not (B,)")
    _require(bool(torch.isfinite(plans.future).all()), "planned actions are not finite")


def _check_dump(config) -> None:
    """Written and read again, a config is the same."""
    import draccus

    base = next(base for base in type(config).__mro__[1:] if hasattr(base, "_choice_registry") and base in _bases())
    again = draccus.decode(base, draccus.encode(config) | {"type": base.get_choice_name(type(config))})
    _require(again == config, f"{config} reads back as {again}")


def _bases() -> tuple[type, ...]:
    from ..hardware.robot import RobotConfig
    from ..policies.policy import CriticConfig, PolicyConfig

    return PolicyConfig, CriticConfig, RobotConfig


def _check_observation(obs: Mapping[str, np.ndarray], space) -> None:
    _require(set(obs) == set(space), f"observation has keys {sorted(obs)}, offers {sorted(space)}")
    for key, box in space.items():
        value = obs[key]
        _require(value.dtype == box.dtype, f"'{key}' is {value.dtype}, not {box.dtype}")
        _require(value.shape == box.shape, f"'{key}' has shape {value.shape}, not {box.shape}")
        _require(bool(np.isfinite(value).all()), f"'{key}' is not finite")


def _check_step(step: tuple, space, actions) -> None:
    obs, _, terminated, truncated, info = step
    _check_observation(obs, space)
    missing = {"success", "progress", "action.sent"} - set(info)
    _require(not missing, f"info lacks {', '.join(sorted(missing))}")
    _require(0 <= info["progress"] <= 1, f"progress is {info['progress']}, not within 0..1")
    _require((info["progress"] == 1) == bool(info["success"]), "progress must be 1 on success and only then")
    _require(not info["success"] or terminated, "the first success must terminate")
    _require(np.shape(info["action.sent"]) == actions.shape, "action.sent has another shape than the action")


def _differ(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return any(not np.array_equal(a[key], b[key]) for key in a)


def _same(a, b, broken: str) -> None:
    import torch

    _require(torch.equal(a, b), broken)


def _close(a, b, broken: str) -> None:
    import torch

    _require(torch.allclose(a, b, rtol=1e-4, atol=1e-5), broken)


def _require_kept(thing, protocol: type, broken: str) -> None:
    """All that the protocol names must be there, also in a class that says so."""
    lacks = missing(thing, protocol)
    _require(not lacks, f"{type(thing).__name__} {broken}; it lacks {', '.join(lacks)}")


def _require(kept: bool, broken: str) -> None:
    if not kept:
        raise BrokenContract(broken)
