"""Recordings of other formats become datasets that train; what does not fit is named and leaves nothing behind."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from understudy.__main__ import main
from understudy.configs.plugins import discover
from understudy.configs.spec import IMAGES, STATE, Mode
from understudy.policies.data.convert import Convert
from understudy.policies.data.encode import write_mp4
from understudy.policies.data.formats.format import FormatError
from understudy.policies.data.frames import open_frames
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset

REAL = Path(os.environ.get("UNDERSTUDY_DATA", "/none"))


@pytest.fixture(autouse=True)
def registered():
    discover("policies.data.formats")


def film(path, count, rate=5):
    """Frame i has the shade 40 + 5 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, [np.full((32, 48, 3), 40 + 5 * i, np.uint8) for i in range(count)], rate)


@pytest.fixture
def droid(tmp_path):
    """Two episodes of 10 and 7 rows, so of 4 and 3 frames, of two cameras."""
    root = tmp_path / "droid"
    (root / "annotation_train").mkdir(parents=True)
    for number, rows in enumerate((10, 7)):
        numbers = np.arange(rows) / 100
        columns = {
            "action.joint_position": np.tile(numbers[:, None] + 0.5, 7) - [0, 0, 0, 2, 0, 0, 0],
            "action.gripper_position": numbers,
            "observation.state.joint_position": np.tile(numbers[:, None], 7),
            "observation.state.gripper_position": numbers,
            "observation.state.cartesian_position": np.tile(numbers[:, None], 6),
        }
        values = {key: value.tolist() for key, value in columns.items()} | {
            "texts": [f"task {number}"],
            "success": number,
        }
        (root / "annotation_train" / f"{number}.json").write_text(json.dumps(values))
        for camera in range(2):
            film(root / "videos_train" / str(number) / f"{camera}.mp4", -(-rows // 3))
    return root


@pytest.fixture
def bridge(tmp_path):
    root = tmp_path / "bridge"
    for number in (3, 4):
        film(root / f"{number:09d}.mp4", 5, 20)
        np.savez(root / f"{number:09d}.npz", np.tile(np.linspace(-number, number, 5)[:, None], 10).astype(np.float32))
    return root


def test_droid_keeps_the_rows_that_have_a_frame(droid, tmp_path):
    assert main(["convert", str(droid), str(tmp_path / "d")]) == 0
    dataset = open_dataset(tmp_path / "d")
    body = dataset.embodiment
    assert dataset.lengths.tolist() == [4, 3] and dataset.rate == 5 and body.mode is Mode.absolute and not body.unknown
    assert list(body.cameras.items()) == [("camera_0", (32, 48)), ("camera_1", (32, 48))]
    assert np.allclose(dataset.columns["action"][:4, 0], [0.5, 0.53, 0.56, 0.59], atol=1e-6)
    assert np.allclose(dataset.columns[STATE][4:, 7], [0, 0.03, 0.06], atol=1e-6)
    assert list(dataset.tasks) == ["task 0", "task 1"]
    assert dataset.columns["next.success"][:, 0].tolist() == [0, 0, 0, 0, 0, 0, 1]
    shades = open_frames(dataset, "camera_1").read(np.arange(4)).mean((1, 2, 3))
    assert np.abs(shades - [40, 45, 50, 55]).max() < 3


def test_bridge_has_no_states_and_says_that_units_are_unknown(bridge, tmp_path, capsys):
    Convert(source=str(bridge), out=str(tmp_path / "d"), episodes="1").run()
    dataset = open_dataset(tmp_path / "d")
    assert dataset.lengths.tolist() == [5] and dataset.rate == 5 and dataset.embodiment.mode is Mode.delta
    assert dataset.columns["action"].shape == (5, 7) and dataset.columns["action"][0, 0] == -4
    assert dataset.embodiment.unknown_units and STATE not in dataset.columns
    assert "units of the actions are unknown" in capsys.readouterr().out


def short_film(droid):
    film(droid / "videos_train" / "1" / "1.mp4", 2)


def no_film(droid):
    (droid / "videos_train" / "1" / "1.mp4").unlink()


def no_rows(droid):
    file = droid / "annotation_train" / "1.json"
    values = json.loads(file.read_text())
    values["action.gripper_position"].pop()
    file.write_text(json.dumps(values))


def no_number(droid):
    file = droid / "annotation_train" / "1.json"
    file.write_text(file.read_text().replace("0.51", "NaN"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (short_film, "1.mp4 has 2 frames, but episode 1 has 3 rows that each need one"),
        (no_film, "1.mp4 is missing, the film of episode 1"),
        (no_rows, "columns have different numbers of rows"),
        (no_number, "does not hold 7 finite numbers a row"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_nothing(droid, tmp_path, spoil, said):
    spoil(droid)
    with pytest.raises(FormatError, match=said):
        Convert(source=str(droid), out=str(tmp_path / "d")).run()
    assert [path.name for path in tmp_path.iterdir()] == ["droid"]
    Convert(source=str(droid), out=str(tmp_path / "d"), without="1").run()
    assert open_dataset(tmp_path / "d").lengths.tolist() == [4]


def test_other_folders_are_refused_with_what_is_read(droid, bridge, tmp_path):
    with pytest.raises(FormatError, match="laid out as none of the formats that are read: .*droid: annotation_train"):
        Convert(source=str(tmp_path), out=str(tmp_path / "d")).run()
    with pytest.raises(FormatError, match="laid out as none .*: droid: annotation"):
        Convert(source=str(bridge), out=str(tmp_path / "d"), format="droid").run()
    with pytest.raises(LookupError, match="unknown format 'rosbag'"):
        Convert(source=str(bridge), out=str(tmp_path / "d"), format="rosbag").run()
    with pytest.raises(FormatError, match="there is no episode 5; there are 2"):
        Convert(source=str(droid), out=str(tmp_path / "d"), episodes="5").run()
    Convert(source=str(droid), out=str(tmp_path / "d"), pictures="image").run()
    with pytest.raises(DatasetError, match="--pictures is for a recording that only becomes a dataset"):
        Convert(source=str(tmp_path / "d"), out=str(tmp_path / "e"), pictures="video").run()
    assert IMAGES + "camera_0" in open_dataset(tmp_path / "d").features


@pytest.mark.skipif(not (REAL / "droid_subset").is_dir(), reason="set UNDERSTUDY_DATA to the folder of real data")
def test_real_recordings_are_converted(tmp_path):
    Convert(source=str(REAL / "droid_subset"), out=str(tmp_path / "droid"), episodes="0,6").run()
    dataset = open_dataset(tmp_path / "droid")
    assert dataset.lengths.tolist() == [56, 39] and set(dataset.cameras) == {"camera_0", "camera_1", "camera_2"}
    ahead = np.abs(dataset.columns["action"][:55, :7] - dataset.columns[STATE][1:56, :7]).mean()
    assert ahead < np.abs(dataset.columns["action"][:56, :7] - dataset.columns[STATE][:56, :7]).mean()
    Convert(source=str(REAL / "bridge_samples"), out=str(tmp_path / "bridge"), episodes="0-1").run()
    assert open_dataset(tmp_path / "bridge").columns["action"].shape[1] == 7
