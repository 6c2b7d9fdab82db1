"""Occlusion maps are bright where the picture decides, and stand on the page of a policy that sees."""

from contextlib import closing

from understudy.configs.lanes.lanes import Lanes
from understudy.configs.spec import IMAGES, STATE, Window
from understudy.configs.world import looked_at, read_world
from understudy.eval.inspect.page import render, sights_study
from understudy.eval.inspect.settings import Settings
from understudy.eval.inspect.sight_map import sight_maps
from understudy.policies.agent.agent import Agent
from understudy.policies.foreign.planner import callable_planner

TOP, SIZE = IMAGES + "top", (24, 48)


def left(obs):
    """Actions that the contrast of the left half decides."""
    part = obs[TOP][:, -1, :, : SIZE[1] // 2].float() / 255
    return part.square().mean((1, 2, 3))[:, None, None].expand(-1, 4, 2) * 10


def test_the_map_is_bright_where_the_picture_decides():
    body = read_world("point").embodiment().with_cameras({"top": SIZE})
    planner = callable_planner(
        left, embodiment=body, inputs=(STATE, TOP), window=Window(observe=(-1, 0), horizon=4), n_action_steps=2
    )
    agent = Agent(planner, lanes=2)
    world = looked_at(read_world({"type": "point", "horizon": 6}), agent.pictures)
    with closing(Lanes(world, 2)) as lanes:
        maps = [*sight_maps(agent, lanes, [0, 1])]
    assert [(one.camera, one.start, one.step) for one in maps] == [
        ("top", 0, 2),
        ("top", 0, 4),
        ("top", 1, 2),
        ("top", 1, 4),
    ]
    for one in maps:
        assert one.picture.shape == (*SIZE, 3) and one.change.shape == (6, 12)
        assert one.change[:, 7:].max() == 0 < one.change[:, :6].max() <= one.whole
        assert one.half < 0.5 and one.drawn().picture.shape == (160, 320, 3)

    config = Settings(policy=("left",), world="point")
    study = sights_study(config, {"left": maps})
    assert study.rows[0][:3] == ("left", "top", 4) and study.rows[0][3] > 0
    html = render({}, [study], {"left": maps})
    assert "Where left looks" in html and html.count("data:image/png") == 4
