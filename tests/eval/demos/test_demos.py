"""Demonstrations: the expert in the rollout loop, into a dataset that holds successes only."""

import numpy as np
import pytest

from understudy.configs.spec import SCENE, STATE
from understudy.eval.demos.demos import Demos
from understudy.policies.data.open import open_dataset
from understudy.sim.testing import REACH

FAST = {"type": "point", "horizon": 14}  # too short for the farthest targets


def demonstrate(folder, **changes):
    Demos(**{"task": "point", "episodes": 12, "out": str(folder)} | changes).run()
    return open_dataset(folder)


def test_the_expert_reaches_every_target(tmp_path, capsys):
    dataset = demonstrate(tmp_path / "d")
    assert "12 episodes" in capsys.readouterr().out
    assert len(dataset.lengths) == 12 and dataset.embodiment.name == "point"
    columns, last = dataset.columns, dataset.starts + dataset.lengths - 1
    assert columns["next.success"][last].all() and columns["next.done"][last].all()
    assert columns["next.success"].sum() == 12
    gaps = np.linalg.norm(columns[STATE] - columns[SCENE], axis=1)
    assert (gaps >= REACH).all()  # every row is the view before an action, and the first success ended the episode
    assert np.array_equal(columns["action"], columns["action.sent"])


def test_workers_give_the_same_dataset(tmp_path):
    one, two = demonstrate(tmp_path / "a"), demonstrate(tmp_path / "b", workers=2)
    assert one.fingerprint == two.fingerprint


def test_failures_are_left_out_and_counted(tmp_path, capsys):
    kept = demonstrate(tmp_path / "kept", world=FAST)
    text = capsys.readouterr().out
    everything = demonstrate(tmp_path / "all", world=FAST, keep_failures=True)
    assert 0 < len(kept.lengths) < len(everything.lengths) == 12
    assert f"{len(kept.lengths)} of 12" in text


def test_shaking_disturbs_what_is_sent_and_noise_what_is_asked(tmp_path):
    shaken = demonstrate(tmp_path / "shaken", action_noise=0.3).columns
    assert np.abs(shaken["action"] - shaken["action.sent"]).max() > 0.1
    noisy = demonstrate(tmp_path / "noisy", noise=0.3).columns
    assert np.array_equal(noisy["action"], noisy["action.sent"])
    aim = 4 * (noisy[SCENE] - noisy[STATE])
    aim /= np.maximum(1, np.linalg.norm(aim, axis=1, keepdims=True))
    assert 0.1 < (noisy["action"] - aim).std() < 0.4


def test_pictures_are_recorded(tmp_path):
    dataset = demonstrate(tmp_path / "d", episodes=2, cameras={"top": (48, 64)}, pictures="image")
    assert dataset.features["observation.images.top"]["shape"] == [48, 64, 3]


def test_nothing_is_left_where_nobody_succeeds(tmp_path):
    with pytest.raises(ValueError, match="0 of 12(.|\n)*no episode succeeded"):
        demonstrate(tmp_path / "d", world={"type": "point", "horizon": 2})
    assert not (tmp_path / "d").exists()


def test_a_used_folder_and_a_task_without_expert_are_refused(tmp_path):
    with pytest.raises(FileExistsError, match="exists already"):
        demonstrate(tmp_path)
    with pytest.raises(LookupError, match="unknown expert 'Wipe'"):
        demonstrate(tmp_path / "d", task="robosuite/Wipe")
