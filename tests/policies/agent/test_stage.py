"""The world that a policy acts in where nobody says: from the record of its data, or asked for with those that fit."""

from __future__ import annotations

import json

import pytest

from understudy.configs.plugins import discover
from understudy.configs.spec import SCENE, STATE, EmbodimentError
from understudy.configs.world import read_world
from understudy.policies.agent.stage import check_saved, fitting, told_world, world_of
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint


@pytest.fixture(scope="module", autouse=True)
def registries():
    discover("policies", "sim")


def run_of(place, world, note=None, data=""):
    """A run of an untrained policy for a world, whose data were recorded in what `note` says."""
    from understudy.policies.models.diffusion import DiffusionConfig
    from understudy.policies.networks.mlp import MLPConfig

    body = read_world(world).embodiment()
    config = DiffusionConfig(inputs=(STATE, SCENE), network=MLPConfig(width=8, depth=1, condition_width=8))
    model = config.build(body, blank_scales(body))
    save_checkpoint(place / "checkpoints" / "00000001", model, kind="policy", config=config)
    (place / "config.yaml").write_text(f"data: '{data}'\n")
    if note is not None:
        (place / "begun_with.json").write_text(json.dumps({"dataset": {"world": note}}))
    return str(place)


def test_the_world_is_the_one_of_the_recording(tmp_path, capsys):
    recorded = json.loads(json.dumps(read_world("point").fingerprint()))
    run = run_of(tmp_path / "a", "point", recorded)
    assert world_of([run]) == "point"
    assert "recorded in world point; --world names another" in capsys.readouterr().out
    other = run_of(tmp_path / "b", "point", recorded | {"horizon": 17})
    assert read_world(told_world(other)).steps() == 17
    with pytest.raises(ValueError, match="trained in different ones"):
        world_of([run, other])


def test_the_world_of_a_former_run_is_read_from_its_data(tmp_path):
    recorded = json.loads(json.dumps(read_world("point").fingerprint()))
    (tmp_path / "data" / "meta").mkdir(parents=True)
    (tmp_path / "data" / "meta" / "recording.json").write_text(json.dumps({"world": recorded}))
    run = run_of(tmp_path / "run", "point", data=tmp_path / "data")
    assert told_world(run) == "point"
    assert told_world(run_of(tmp_path / "lost", "point", data=tmp_path / "gone")) is None


def test_where_nobody_says_it_those_that_fit_are_named(tmp_path):
    run = run_of(tmp_path / "run", "point")
    with pytest.raises(ValueError, match="give --world NAME, .*'point'.*worlds that fit it: point"):
        world_of([run])


def test_a_scene_of_another_task_is_named_with_the_task(tmp_path):
    """Same robot, other objects: the names of the robots would not tell them apart."""
    pytest.importorskip("robosuite")
    run = run_of(tmp_path / "run", "lift")
    with pytest.raises(EmbodimentError, match="world 'square': .*'cube.x' is expected, 'nut.x' is offered; .*: lift"):
        check_saved(run, read_world("square"))
    check_saved(run, read_world("lift"))
    body = read_world("lift").embodiment()
    assert {"lift"} <= set(fitting(body, (STATE, SCENE))) and "square" not in fitting(body, (STATE, SCENE))
