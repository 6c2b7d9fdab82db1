"""A model is told of data and worlds that it does not fit by name, before anything is imagined."""

import dataclasses
import json

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.configs.world import read_world
from understudy.policies.data.writer import DatasetWriter

from .conftest import SIDE, TOP, Dots, episode

pytestmark = pytest.mark.timeout(900)  # a small training comes first, on a machine that others load


def written(root, shift=0, camera="top", **changes):
    """Six episodes of the dots; actions `shift` rows late."""
    body = dataclasses.replace(Dots(cameras={"top": (SIDE, SIDE)}).embodiment(), **changes)
    writer = DatasetWriter(root, body if camera == "top" else body.with_cameras({camera: (SIDE, SIDE)}))
    for seed in range(300_000, 300_006):
        one = episode(seed)
        acts = np.concatenate([one.action[:1].repeat(shift, 0), one.action])[: len(one.action)]
        obs = {f"observation.images.{camera}" if key == TOP else key: value for key, value in one.obs.items()}
        writer.add(dataclasses.replace(one, action=acts, sent=acts, obs=obs))
    return root


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"rate": 20.0}, "rate"),
        ({"action": ("u", "v")}, "action"),
        ({"camera": "side"}, "'top'"),
    ],
)
def test_data_of_another_body_rate_or_camera_is_refused(dots_run, tmp_path, capsys, changes, said):
    data = written(tmp_path / "data", **changes)
    words = ["--world-model", str(dots_run), "--data", str(data), "--out", str(tmp_path / "out"), "--horizon", "8"]
    assert main(["eval", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told and not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes, said", [({"rate": 20.0}, "rate"), ({"camera": "side"}, "'top'")])
def test_first_frames_of_another_body_are_refused(dots_run, tmp_path, changes, said):
    data = written(tmp_path / "data", **changes)
    world = read_world({"type": "dream", "model": str(dots_run), "starts": str(data), "horizon": 8})
    with pytest.raises(ValueError, match=said):
        world.lane()


@pytest.mark.parametrize("shift", [1, 2])
def test_an_offset_between_frames_and_actions_is_told(dots_run, tmp_path, capsys, shift):
    data = written(tmp_path / "data", shift)
    words = ["--world-model", str(dots_run), "--data", str(data), "--out", str(tmp_path / "out"), "--horizon", "8"]
    assert main(["eval", *words]) == 0
    said = capsys.readouterr().out
    assert f"actions told {shift} step" in said and "may be shifted against each other" in said
    lags = json.loads((tmp_path / "out" / "manifest.json").read_text())["measures"]["lags"]
    assert max(lags, key=lags.get) == str(shift)
