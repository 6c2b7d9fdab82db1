"""Scores drawn over the picture of PushT: the bright place is the one that the critic prefers."""

import base64
from contextlib import closing

import numpy as np
import pytest
import torch

from understudy.configs.lanes.lanes import Lanes
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.inspect.heat_map import CELLS, dots, grid, heat_maps, paint
from understudy.policies.agent.agent import Agent
from understudy.policies.policy import Plans


class Corner:
    """Prefers to end at (400, 100) px."""

    window, inputs, reads = Window(observe=(0,), horizon=4), (STATE, SCENE), 4

    def score(self, past, plans):
        return -(plans.future[:, :, 3] - torch.tensor([400.0, 100.0])).norm(dim=-1)


class Around:
    """Plans places around the middle."""

    window, inputs = Window(observe=(0,), horizon=8), (STATE,)

    def __init__(self, embodiment):
        self.embodiment = embodiment

    def plan(self, past, n, rng):
        return Plans(torch.zeros(len(past.now), n, 0, 2), 256 + 40 * rng.normal(n, 8, 2), past.now)


def test_the_bright_place_is_the_preferred_one():
    world = read_world({"type": "pusht", "horizon": 24})
    agent = Agent(Around(world.embodiment()), lanes=2, n_action_steps=4, critic=Corner())
    with closing(Lanes(world, 2, 0)) as lanes:
        maps = heat_maps(agent, Corner(), lanes, range(2))
    assert len(maps) == 2 and maps[0].picture.shape == (256, 256, 3)
    assert not np.array_equal(maps[0].picture, maps[1].picture) and maps[0].caption.startswith("env seed 0, step")
    bright = maps[0].picture.astype(float)[..., :2].sum(-1)  # yellow, not red dots or a white ground
    assert bright[40:60, 190:210].mean() > bright[200:220, 20:40].mean() + 60
    assert base64.b64decode(maps[0].data.partition(",")[2]).startswith(b"\x89PNG")


def test_cells_and_colours():
    places = grid(np.zeros(2, np.float32), np.array([512, 256], np.float32))
    assert places.shape == (CELLS * CELLS, 2)
    np.testing.assert_allclose(places[1] - places[0], [512 / CELLS, 0], atol=1e-4)
    assert places[CELLS][1] > places[0][1] and places.max(0).tolist() == pytest.approx([506.67, 253.33], abs=0.01)
    white = np.full((64, 64, 3), 255, np.uint8)
    flat = paint(white, np.ones((CELLS, CELLS)))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
    picture = white.copy()
    dots(np.array([[0.25, 0.5], [0.75, 0.5]]), np.array([1.0, 0.0]), picture)
    assert picture[32, 16].tolist() == [224, 45, 35] and picture[32, 48].tolist() == [255, 255, 255]
    assert picture[32, 45].tolist() == [0, 0, 0]


def test_worlds_whose_actions_are_no_places_are_refused():
    world = read_world("point")
    with closing(Lanes(world, 1, 0)) as lanes, pytest.raises(ValueError, match="in px; 'point' has none"):
        heat_maps(Agent(Around(world.embodiment()), lanes=1, n_action_steps=4), Corner(), lanes, [0])
