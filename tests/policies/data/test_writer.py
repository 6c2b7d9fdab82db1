"""The dataset writer: whole episodes only, whatever kills it; stock lerobot reads the same numbers."""

import dataclasses
import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, IMAGES, SCENE, STATE, Embodiment, Mode
from understudy.policies.data import writer as record
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.encode import Moments, write_mp4
from understudy.policies.data.frames import open_frames
from understudy.policies.data.open import open_dataset
from understudy.policies.data.writer import EPISODES, DatasetWriter

TOP = IMAGES + "top"
BODY = Embodiment(
    name="toy",
    action=("x", "y"),
    action_units=("m", "m"),
    limits=((-9, 9),) * 2,
    rate=10,
    state=("a", "b", "c"),
    state_units=("m", "m", "rad"),
    scene=("k",),
    scene_units=("m",),
    cameras={"top": (32, 48)},
)


def episode(start, steps=7, task="push", **more):
    rng = np.random.default_rng(start)

    def numbers(*shape):
        return rng.normal(size=shape).astype(np.float32)

    pictures = np.repeat(rng.integers(0, 256, (steps, 4, 6, 3), np.uint8), 8, 1).repeat(8, 2)
    parts = {
        "obs": {STATE: numbers(steps, 3), SCENE: numbers(steps, 1), TOP: pictures},
        "action": numbers(steps, 2),
        "sent": numbers(steps, 2),
        "reward": numbers(steps),
        "progress": rng.random(steps, np.float32),
        "success": np.arange(steps) == steps - 1,
    }
    return Episode(start=start, task=task, terminated=True, truncated=False, **(parts | more))


def assert_holds(root, episodes):
    """Our reader gives back exactly these episodes."""
    dataset = open_dataset(root)
    assert dataset.lengths.tolist() == [len(e) for e in episodes]
    assert dataset.tasks == tuple(e.task for e in episodes)
    for m, e in enumerate(episodes):
        part = slice(dataset.starts[m], dataset.starts[m] + len(e))
        told = {ACTION: e.action, "action.sent": e.sent, STATE: e.obs[STATE], SCENE: e.obs[SCENE]}
        told |= {"next.reward": e.reward[:, None], "next.progress": e.progress[:, None]}
        told |= {"next.success": e.success[:, None], "next.done": (np.arange(len(e)) == len(e) - 1)[:, None]}
        for key, values in told.items():
            np.testing.assert_array_equal(dataset.columns[key][part], values)


def test_what_is_written_is_read_back(tmp_path):
    writer = DatasetWriter(tmp_path / "toy", BODY, extra={"observation.force": ("fx", "fy")})
    forces = [np.full((n, 2), n, np.float32) for n in (7, 3)]
    episodes = [
        episode(100000, 7, extra={"observation.force": forces[0]}),
        episode(100001, 3, task="lift", extra={"observation.force": forces[1]}),
    ]
    assert [writer.add(e) for e in episodes] == [0, 1] and (writer.episodes, writer.frames) == (2, 10)
    assert_holds(tmp_path / "toy", episodes)
    dataset = open_dataset(tmp_path / "toy")
    assert dataset.embodiment == BODY
    np.testing.assert_array_equal(dataset.columns["observation.force"], np.concatenate(forces))
    np.testing.assert_array_equal(dataset.columns["task_index"][:, 0], [0] * 7 + [1] * 3)
    pictures = open_frames(dataset, "top").read(np.arange(10))
    np.testing.assert_array_equal(pictures, np.concatenate([e.obs[TOP] for e in episodes]))


def test_statistics_are_those_of_all_frames(tmp_path):
    writer = DatasetWriter(tmp_path / "toy", BODY)
    episodes = [episode(s, n) for s, n in ((0, 7), (1, 2), (2, 30))]
    for e in episodes:
        writer.add(e)
    stats = json.loads((tmp_path / "toy/meta/stats.json").read_text())
    action = np.concatenate([e.action for e in episodes]).astype(np.float64)
    np.testing.assert_allclose(stats[ACTION]["mean"], action.mean(0))
    np.testing.assert_allclose(stats[ACTION]["std"], action.std(0))
    np.testing.assert_array_equal(stats[ACTION]["max"], action.max(0))
    assert stats[ACTION]["count"] == [39]
    pixels = np.concatenate([e.obs[TOP] for e in episodes]) / 255  # uint8 sums would overflow
    np.testing.assert_allclose(np.ravel(stats[TOP]["mean"]), pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(np.ravel(stats[TOP]["std"]), pixels.std((0, 1, 2)), rtol=1e-5)
    assert np.shape(stats[TOP]["min"]) == (3, 1, 1) and stats[TOP]["count"] == [39]


def test_quantiles_are_those_of_numpy_and_merge_by_their_counts(tmp_path):
    """The least value that at least such a part does not exceed; of several episodes the weighted mean."""
    writer = DatasetWriter(tmp_path / "toy", BODY)
    episodes = [episode(s, n) for s, n in ((0, 7), (1, 1), (2, 30))]
    writer.add(episodes[0])
    writer = DatasetWriter.resume(tmp_path / "toy")
    for e in episodes[1:]:
        writer.add(e)
    stats = json.loads((tmp_path / "toy/meta/stats.json").read_text())
    table = pq.read_table(tmp_path / "toy" / EPISODES).to_pylist()
    counts, parts = [len(e) for e in episodes], {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
    for name, part in parts.items():
        by_hand = {
            ACTION: [np.quantile(e.action, part, 0, method="inverted_cdf") for e in episodes],
            "next.reward": [np.quantile(e.reward, part, 0, method="inverted_cdf")[None] for e in episodes],
            TOP: [np.quantile(e.obs[TOP].reshape(-1, 3), part, 0, method="inverted_cdf") / 255 for e in episodes],
        }
        for key, wanted in by_hand.items():
            shape = (3, 1, 1) if key == TOP else (-1,)
            for row, values in zip(table, wanted, strict=True):
                np.testing.assert_allclose(row[f"stats/{key}/{name}"], values.reshape(shape))
            whole = np.average(wanted, 0, counts).reshape(shape)
            np.testing.assert_allclose(stats[key][name], whole, rtol=1e-6)


def test_a_dataset_begun_without_quantiles_goes_on_without_them(tmp_path):
    writer = DatasetWriter(tmp_path / "toy", BODY)
    writer.add(episode(0))
    path = tmp_path / "toy" / EPISODES
    table = pq.read_table(path)
    pq.write_table(table.drop([name for name in table.column_names if "/q" in name]), path)
    DatasetWriter.resume(tmp_path / "toy").add(episode(1))
    assert len(pq.read_table(path)) == 2 and not [name for name in pq.read_table(path).column_names if "/q" in name]
    stats = json.loads((tmp_path / "toy/meta/stats.json").read_text())
    assert set(stats[ACTION]) == {"min", "max", "mean", "std", "count"}
    assert_holds(tmp_path / "toy", [episode(0), episode(1)])


def test_the_features_say_who_recorded_when_the_card_is_gone(tmp_path):
    body = dataclasses.replace(BODY, mode=Mode.delta, frame="base", rotation="axis-angle")
    DatasetWriter(tmp_path / "toy", body).add(episode(0))
    (tmp_path / "toy/meta/embodiment.json").unlink()
    assert open_dataset(tmp_path / "toy").embodiment == body
    path = tmp_path / "toy/meta/info.json"
    info = json.loads(path.read_text())
    info["features"][ACTION]["units"] = ["m"]
    path.write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="info.json: action_units has 1 entries for 2 names; correct `units`"):
        open_dataset(tmp_path / "toy")


def test_moments_merge_exactly():
    rng = np.random.default_rng(0)
    values = rng.normal(1e4, 1e-2, (1000, 3))
    merged = Moments.of_rows(values[:1])
    for part in np.split(values[1:], [10, 500]):
        merged = merged.merge(Moments.of_rows(part))
    np.testing.assert_allclose(merged.to_dict()["std"], values.std(0), rtol=1e-6)
    np.testing.assert_allclose(merged.mean, values.mean(0))


def test_existing_folder_is_refused(tmp_path):
    with pytest.raises(FileExistsError, match="exists already; choose another folder"):
        DatasetWriter(tmp_path, BODY)


def without(key):
    return {k: v for k, v in episode(0).obs.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": without(STATE)}, "lacks 'observation.state'"),
        ({"obs": episode(0).obs | {STATE: np.zeros((7, 2))}}, r"has shape \(7, 2\), this dataset needs \(7, 3\)"),
        ({"obs": episode(0).obs | {TOP: np.zeros((7, 32, 48, 3))}}, "pictures must be uint8"),
        ({"action": np.full((7, 2), np.nan, np.float32)}, "'action' is not finite at step 0"),
    ],
)
def test_an_episode_that_does_not_fit_changes_nothing(tmp_path, change, message):
    root = tmp_path / "toy"
    writer = DatasetWriter(root, BODY)
    writer.add(episode(0))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(ValueError, match=message):
        writer.add(dataclasses.replace(episode(1), task="another", **change))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    writer.add(episode(1))
    assert_holds(root, [episode(0), episode(1)])


def test_parts_of_an_episode_must_agree():
    with pytest.raises(ValueError, match="'reward' of the episode of env seed 3 has 5 rows for 7 actions"):
        episode(3, reward=np.zeros(5, np.float32))
    with pytest.raises(ValueError, match="has no steps"):
        dataclasses.replace(episode(3), action=np.zeros((0, 2)))


def test_full_disk_loses_only_the_episode_in_hand(tmp_path, monkeypatch):
    root = tmp_path / "toy"
    writer = DatasetWriter(root, BODY)
    writer.add(episode(0))
    parts = ("_write_data", "write_tasks", "write_json")
    for name in parts:
        with monkeypatch.context() as patch:
            patch.setattr(DatasetWriter if name == "_write_data" else record, name, no_space)
            with pytest.raises(OSError, match="No space left"):
                writer.add(episode(1))
        assert open_dataset(root).lengths.min() == 7 and not list(root.rglob("*.part"))
    resumed = DatasetWriter.resume(root)
    resumed.add(episode(2))
    assert open_dataset(root).lengths.tolist() == [7] * resumed.episodes


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from test_writer import BODY, episode
from understudy.policies.data.writer import DatasetWriter
calls, replace = 0, os.replace
def deadly(source, target):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = deadly
writer = DatasetWriter(sys.argv[1], BODY, pictures="video")
for start in range(3):
    writer.add(episode(start))
"""


@pytest.mark.parametrize("call", range(9, 15))
def test_killed_at_any_rename_leaves_whole_episodes(tmp_path, call):
    """Renames 1-2 make the folder, 3-8 the first episode (video, data, tasks, table, stats, info), 9-14 the second."""
    root = tmp_path / "toy"
    words = [sys.executable, "-c", KILLED, str(root), str(call), str(Path(__file__).parent)]
    assert subprocess.run(words, timeout=60).returncode == -signal.SIGKILL
    info = json.loads((root / "meta/info.json").read_text())
    finished = 2 if call > 12 else 1  # the table was renamed by call 12
    assert_holds(root, [episode(s) for s in range(finished)])
    assert info["total_episodes"] == 1 and info["total_frames"] == 7  # info.json is the last to change
    writer = DatasetWriter.resume(root)
    assert writer.episodes == finished and not list(root.rglob("*.part"))
    writer.add(episode(9, 4))
    assert_holds(root, [*(episode(s) for s in range(finished)), episode(9, 4)])


def test_odd_video_size_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="even height and width, got 31x48; store pictures as images instead"):
        write_mp4(tmp_path / "x.mp4", np.zeros((2, 31, 48, 3), np.uint8), 10)


def test_a_dataset_of_an_earlier_version_goes_on(tmp_path):
    """Its episodes table calls the env seed `start`."""
    writer = DatasetWriter(tmp_path / "toy", BODY, pictures="image")
    writer.add(episode(0))
    path = tmp_path / "toy" / EPISODES
    table = pq.read_table(path)
    pq.write_table(table.rename_columns(["start" if n == "env_seed" else n for n in table.column_names]), path)
    DatasetWriter.resume(tmp_path / "toy").add(episode(1))
    assert pq.read_table(path)["env_seed"].to_pylist() == [episode(0).start, episode(1).start]
