"""Stock lerobot opens what we write, frame by frame, and we open what stock lerobot writes."""

import json

import numpy as np
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, IMAGES, STATE, Embodiment
from understudy.policies.data.frames import open_frames
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.tables import DatasetWarning
from understudy.policies.data.writer import DatasetWriter

TOP = IMAGES + "top"
LENGTHS = (9, 4, 12)
BODY = Embodiment(
    name="toy",
    action=("x", "y"),
    action_units=("m", "m"),
    limits=((-9, 9),) * 2,
    rate=10,
    state=("a", "b"),
    state_units=("m", "m"),
    cameras={"top": (64, 64)},
)


def episode(start, steps, task):
    rng = np.random.default_rng(start)
    level = np.linspace(20 + 60 * start, 70 + 60 * start, steps).astype(np.uint8)  # tells the frame
    return Episode(
        start=start,
        task=task,
        obs={
            STATE: rng.normal(size=(steps, 2)).astype(np.float32),
            TOP: np.broadcast_to(level[:, None, None, None], (steps, 64, 64, 3)).copy(),
        },
        action=rng.normal(size=(steps, 2)).astype(np.float32),
        sent=rng.normal(size=(steps, 2)).astype(np.float32),
        reward=rng.random(steps, np.float32),
        progress=rng.random(steps, np.float32),
        success=np.arange(steps) == steps - 1,
        terminated=True,
        truncated=False,
    )


def episodes():
    return [episode(s, n, ("push", "lift", "push")[s]) for s, n in enumerate(LENGTHS)]


@pytest.mark.parametrize("pictures", ["image", "video"])
def test_stock_lerobot_opens_ours_frame_exact(lerobot, request, tmp_path, pictures):
    if pictures == "video":
        request.getfixturevalue("torchcodec")
    writer = DatasetWriter(tmp_path / "toy", BODY, pictures=pictures)
    for e in episodes():
        writer.add(e)
    stock = lerobot("someone/toy", root=tmp_path / "toy", delta_timestamps={ACTION: [-0.1, 0.0, 0.1]})
    assert (len(stock), stock.num_episodes, stock.fps) == (25, 3, 10)
    assert stock.meta.info["robot_type"] == "toy" and set(stock.meta.tasks.index) == {"push", "lift"}
    ours, row = open_frames(open_dataset(tmp_path / "toy"), "top").read(np.arange(25)), 0
    for m, e in enumerate(episodes()):
        for t in range(len(e)):
            item = stock[row]
            np.testing.assert_array_equal(item[ACTION], e.action[np.clip([t - 1, t, t + 1], 0, len(e) - 1)])
            np.testing.assert_array_equal(item[STATE], e.obs[STATE][t])
            np.testing.assert_array_equal(item["action.sent"], e.sent[t])
            assert item["next.reward"] == e.reward[t] and item["next.done"] == (t == len(e) - 1)
            assert (item["episode_index"], item["frame_index"], item["index"]) == (m, t, row)
            assert item["task"] == e.task and item["timestamp"] == pytest.approx(t / 10)
            theirs = (item[TOP].permute(1, 2, 0) * 255).round().numpy()
            np.testing.assert_array_equal(theirs, ours[row])
            np.testing.assert_allclose(theirs, e.obs[TOP][t], atol=0 if pictures == "image" else 3)
            row += 1
    assert stock.meta.stats[ACTION]["count"] == [25] and stock.meta.stats[TOP]["mean"].shape == (3, 1, 1)


def test_stock_lerobot_opens_what_a_killed_writer_left(lerobot, tmp_path):
    """Data and video of a third episode lie there, the table and info.json do not know it."""
    root = tmp_path / "toy"
    writer = DatasetWriter(root, BODY)
    for e in episodes()[:2]:
        writer.add(e)
    meta = {path: path.read_bytes() for path in (root / "meta").rglob("*") if path.is_file()}
    writer.add(episodes()[2])
    for path, content in meta.items():
        path.write_bytes(content)
    stock = lerobot("someone/toy", root=root)
    assert (len(stock), stock.num_episodes) == (13, 2)
    np.testing.assert_array_equal(stock[12][ACTION], episodes()[1].action[3])


@pytest.mark.parametrize("use_videos", [False, True])
def test_we_open_what_stock_lerobot_writes(lerobot, tmp_path, use_videos):
    camera = {
        "dtype": "video" if use_videos else "image",
        "shape": (64, 64, 3),
        "names": ["height", "width", "channels"],
    }
    features = {
        TOP: camera,
        STATE: {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
        ACTION: {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    }
    stock = lerobot.create("someone/toy", 10, features, root=tmp_path / "toy", use_videos=use_videos)
    for e in episodes():
        for t in range(len(e)):
            stock.add_frame({TOP: e.obs[TOP][t], STATE: e.obs[STATE][t], ACTION: e.action[t], "task": e.task})
        stock.save_episode()
    stock.finalize()
    dataset = open_dataset(tmp_path / "toy")
    assert len(list((tmp_path / "toy/data").rglob("*.parquet"))) == 1  # several episodes a file
    assert dataset.lengths.tolist() == list(LENGTHS) and dataset.tasks == ("push", "lift", "push")
    np.testing.assert_array_equal(dataset.columns[ACTION], np.concatenate([e.action for e in episodes()]))
    assert dataset.embodiment.action == ("x", "y") and dataset.embodiment.cameras == {"top": (64, 64)}
    frames = open_frames(dataset, "top").read(np.arange(25)).astype(float)
    truth = np.concatenate([e.obs[TOP] for e in episodes()])
    np.testing.assert_allclose(frames, truth, atol=3 if use_videos else 0)
    assert json.loads((tmp_path / "toy/meta/info.json").read_text())["total_episodes"] == 3


def test_our_statistics_are_those_of_lerobot(lerobot, tmp_path):
    """Its quantiles come from histograms of 5000 bins, ours from the values: they differ by a bin at most."""
    from lerobot.datasets.compute_stats import aggregate_stats, get_feature_stats

    writer = DatasetWriter(tmp_path / "toy", BODY)
    for e in episodes():
        writer.add(e)
    parts = []
    for e in episodes():
        pixels = e.obs[TOP].transpose(0, 3, 1, 2).astype(np.float32)  # the squares of uint8 overflow in lerobot 0.4
        found = get_feature_stats(pixels, axis=(0, 2, 3), keepdims=True)
        top = {name: value if name == "count" else value[0] / 255 for name, value in found.items()}
        parts.append({TOP: top, ACTION: get_feature_stats(e.action, axis=0, keepdims=False)})
    ours = lerobot("someone/toy", root=tmp_path / "toy").meta.stats
    for key, theirs in aggregate_stats(parts).items():
        assert set(theirs) == set(ours[key]) >= {"q01", "q10", "q50", "q90", "q99"}
        bin_width = np.ptp([theirs["min"], theirs["max"]]) / 5000
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[key][name], value, atol=1.01 * bin_width, rtol=1e-4)


@pytest.mark.parametrize("edit", ["delete", "merge"])
def test_the_body_outlives_lerobots_edit_tools(lerobot, tmp_path, edit):
    from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets

    for name in ("toy", "more"):
        writer = DatasetWriter(tmp_path / name, BODY)
        for e in episodes():
            writer.add(e)
    stock = [lerobot(f"someone/{name}", root=tmp_path / name) for name in ("toy", "more")]
    if edit == "delete":
        delete_episodes(stock[0], [1], output_dir=tmp_path / "edited", repo_id="someone/edited")
        wanted = [episodes()[0], episodes()[2]]
    else:
        merge_datasets(stock, "someone/edited", tmp_path / "edited")
        wanted = [*episodes(), *episodes()]
    assert not (tmp_path / "edited/meta/embodiment.json").exists()
    dataset = open_dataset(tmp_path / "edited")
    assert dataset.embodiment == BODY and dataset.tasks == tuple(e.task for e in wanted)
    np.testing.assert_array_equal(dataset.columns[ACTION], np.concatenate([e.action for e in wanted]))
    frames = open_frames(dataset, "top").read(np.arange(len(dataset)))
    np.testing.assert_array_equal(frames, np.concatenate([e.obs[TOP] for e in wanted]))


@pytest.mark.parametrize("use_videos", [False, True])
def test_what_a_depth_camera_of_lerobots_measured_is_no_picture(lerobot, tmp_path, use_videos):
    pytest.importorskip("lerobot.datasets.depth_utils", reason="this lerobot records no depth")
    dtype = "video" if use_videos else "image"
    names = ["height", "width", "channels"]
    features = {
        TOP: {"dtype": dtype, "shape": (64, 64, 3), "names": names},
        IMAGES + "far": {"dtype": dtype, "shape": (64, 64, 1), "names": names, "info": {"is_depth_map": True}},
        ACTION: {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    }
    stock = lerobot.create("someone/toy", 10, features, root=tmp_path / "toy", use_videos=use_videos)
    e = episodes()[0]
    for t in range(len(e)):
        far = np.full((64, 64, 1), 500 + 100 * t, np.uint16)
        stock.add_frame({TOP: e.obs[TOP][t], IMAGES + "far": far, ACTION: e.action[t], "task": e.task})
    stock.save_episode()
    stock.finalize()
    with pytest.warns(DatasetWarning, match="depth cameras measured.*: far"):
        dataset = open_dataset(tmp_path / "toy")
    assert dataset.embodiment.cameras == {"top": (64, 64)}
    with pytest.raises(DatasetError, match="'far' of .* is a depth camera"):
        open_frames(dataset, "far")
    seen = open_frames(dataset, "top").read(np.arange(9)).astype(float)
    np.testing.assert_allclose(seen, e.obs[TOP], atol=3 * use_videos)

    path = tmp_path / "toy/meta/info.json"  # if nothing announced it
    info = json.loads(path.read_text())
    info["features"][IMAGES + "far"]["info"] = {}
    path.write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="one channel of more than 8 bits"):
        open_frames(open_dataset(tmp_path / "toy"), "far")
