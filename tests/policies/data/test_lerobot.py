"""Stock lerobot opens what we write, frame by frame, and we open what stock lerobot writes."""

import json

import numpy as np
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, IMAGES, STATE, Embodiment
from understudy.policies.data.frames import open_frames
from understudy.policies.data.open import open_dataset
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
    row = 0
    for m, e in enumerate(episodes()):
        for t in range(len(e)):
            item = stock[row]
            np.testing.assert_array_equal(item[ACTION], e.action[np.clip([t - 1, t, t + 1], 0, len(e) - 1)])
            np.testing.assert_array_equal(item[STATE], e.obs[STATE][t])
            np.testing.assert_array_equal(item["action.sent"], e.sent[t])
            assert item["next.reward"] == e.reward[t] and item["next.done"] == (t == len(e) - 1)
            assert (item["episode_index"], item["frame_index"], item["index"]) == (m, t, row)
            assert item["task"] == e.task and item["timestamp"] == pytest.approx(t / 10)
            assert (item[TOP] * 255).mean() == pytest.approx(
                e.obs[TOP][t].mean(), abs=1e-3 if pictures == "image" else 2
            )
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
    levels = open_frames(dataset, "top").read(np.arange(25)).mean((1, 2, 3))
    truth = np.concatenate([e.obs[TOP].mean((1, 2, 3)) for e in episodes()])
    np.testing.assert_allclose(levels, truth, atol=3 if use_videos else 0)
    assert json.loads((tmp_path / "toy/meta/info.json").read_text())["total_episodes"] == 3
