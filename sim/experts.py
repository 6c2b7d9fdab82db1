"""Scripted demonstrators: they see the privileged state of a lane and say what to do now.

An expert is a plain function of the lane's state, so that a policy can learn it and so that it recovers from any
disturbance. It runs where the lane lives (`Lanes.call("expert_action")`). It knows nothing of datasets.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..configs.lane import Lane
from ..configs.plugins import lookup


class Expert(Protocol):
    """One demonstrator."""

    def act(self, env: Lane) -> np.ndarray:
        """The action (D,) for now, in the units of the embodiment; may exceed the limits, the lane clips."""
        ...


EXPERTS: dict[str, type[Expert]] = {}


def register_expert(name: str):
    """Class decorator: the task that this expert demonstrates. A name given twice is an error."""

    def register(expert: type[Expert]):
        if name in EXPERTS:
            raise ValueError(f"expert '{name}' is registered already")
        EXPERTS[name] = expert
        return expert

    return register


def expert_action(name: str, env: Lane, noise: float = 0.0) -> np.ndarray:
    """(D,) float32 action of the expert `name`, inside the limits.

    Args:
        noise: standard deviation of noise added to it, in half ranges of the limits; keyed by start and step. The reset
            option `shake` of a lane disturbs what is executed and leaves the action, the label, clean.
    """
    low, high = env.action_space.low, env.action_space.high
    action = np.asarray(lookup("expert", name, EXPERTS)().act(env), np.float32)
    if noise:
        rng = np.random.default_rng([env.start & 0xFFFFFFFFFFFFFFFF, env.ticks, 1])
        action = action + np.float32(noise) * rng.standard_normal(low.shape, np.float32) * (high - low) / 2
    return np.clip(action, low, high)


@register_expert("lift")
class LiftExpert:
    """Over the cube with open fingers, down a funnel, close, up: feedback on the cube's position, the hand upright."""

    down = np.array([[0.0, 1, 0], [1, 0, 0]])  # the hand's x and y axes when it points straight down
    turn = 1.0  # rad, about, that an action of 1 corrects

    gain = 0.5  # part of the remaining way to ask for in one step
    reach = 0.05  # m that an action of 1 asks for
    hover = 0.06  # m above the cube while not over it
    aside = 0.02  # m beside the cube that count as over it
    near = 0.015  # m above or below its middle at which the fingers close
    held = 0.066  # m between the fingers: less than open, no less than the cube's diagonal
    still = 0.02  # m/s between the fingers: they have met the cube
    up = 0.83  # m, height of a cube that has left the table

    def act(self, env) -> np.ndarray:
        gripper, hand = env.gripper_pose()
        cube = np.array(env.suite.sim.data.body_xpos[env.suite.cube_body_id])
        way = cube - gripper
        aside = np.linalg.norm(way[:2])
        at_cube = aside < self.aside and abs(way[2]) < self.near
        (left, right), (left_speed, right_speed) = env.fingers(), env.finger_speeds()
        gripped = left - right < self.held and abs(left_speed - right_speed) < self.still
        if at_cube and (gripped or cube[2] > self.up):
            way[2] = 0.2  # up, with it
        else:
            way[2] += self.hover * np.clip(aside / self.aside - 1, 0, 1)
        move = np.clip(self.gain * way / self.reach, -1, 1)
        axes = zip(hand.reshape(2, 3), self.down, strict=True)
        turn = np.clip(sum(np.cross(axis, wanted) for axis, wanted in axes) / self.turn, -1, 1)
        return np.array([*move, *turn, 1.0 if at_cube else -1.0])
