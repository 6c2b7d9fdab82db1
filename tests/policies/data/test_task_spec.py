"""PushT's mirror is a symmetry of the simulator itself: mirrored starts and actions give mirrored episodes."""

import dataclasses

import numpy as np
import pytest
import torch

from understudy.configs.settings.shipped import find_config
from understudy.configs.spec import ACTION, IMAGES, SCENE, STATE
from understudy.configs.world import find_world
from understudy.policies.data.task_spec import _reflect, load_task_spec

IMAGE = IMAGES + "image"
CENTRE = np.array([0.0, 45.0])  # px, the T's centre of mass in its own frame
PIECE = find_config("configs/task_specs/pusht.yaml")


def mirrored(key: str, values: np.ndarray) -> np.ndarray:
    reflection = load_task_spec(PIECE).mirror[key]
    values = torch.from_numpy(np.asarray(values, np.float32))
    return _reflect(values, torch.ones(len(values), dtype=torch.bool), reflection).numpy()


def turned(angle: float) -> np.ndarray:
    """The centre of mass, as the simulator turns it about when an angle is set."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]) @ CENTRE


def play(state: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
    lane = dataclasses.replace(find_world("pusht"), cameras={"image": (96, 96)}).lane()
    obs, info = lane.reset(seed=0, options={"state": state})
    seen, progress = [obs], [info["progress"]]
    for action in actions:
        obs, _, _, _, info = lane.step(action)
        seen.append(obs)
        progress.append(info["progress"])
    lane.close()
    return {key: np.stack([one[key] for one in seen]) for key in (STATE, SCENE, IMAGE)} | {
        "progress": np.array(progress)
    }


@pytest.mark.parametrize("seed", [0, 2, 4, 5])
def test_mirror_of_pusht_is_exact(seed):
    rng = np.random.default_rng(seed)
    pusher, block, angle = rng.uniform(100, 400, 2), rng.uniform(150, 350, 2), rng.uniform(-3, 3)
    steps = rng.normal(0, 25, (40, 2)).cumsum(0)
    actions = np.clip(block + steps, 20, 490).astype(np.float32)
    straight = play(np.array([*pusher, *block, angle]), actions)
    # The T's own axis, at angle + 90 degrees, is reflected across the diagonal at 135 degrees. Setting an angle turns
    # the T about its centre of mass and moves its origin from where it was put.
    origin, opposite = block + CENTRE - turned(angle), np.pi / 2 - angle
    put = 512 - origin[::-1] - CENTRE + turned(opposite)
    reflected = play(np.array([*(512 - pusher[::-1]), *put, opposite]), mirrored(ACTION, actions))
    assert np.abs(straight[SCENE][-1] - straight[SCENE][0]).max() > 5, "the block was never pushed"
    np.testing.assert_allclose(reflected[STATE], mirrored(STATE, straight[STATE]), atol=0.02)
    np.testing.assert_allclose(reflected[SCENE], mirrored(SCENE, straight[SCENE]), atol=0.05)
    np.testing.assert_allclose(reflected["progress"], straight["progress"], atol=1e-3)

    # pictures too, but for the edges' pixels
    flip = load_task_spec(PIECE).mirror_pictures[IMAGE]
    there, here = (torch.from_numpy(played[IMAGE][::10]).float() for played in (reflected, straight))
    assert (there - flip(here)).abs().mean() < 0.25 * (there - here).abs().mean()
