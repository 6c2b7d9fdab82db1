"""Several datasets read as one, and labels that stand beside a recording."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from understudy.__main__ import main
from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, IMAGES, STATE, Embodiment, Window
from understudy.policies.data.columns import load_columns
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.labels import Label, read_answers
from understudy.policies.data.layout import LABELS, read_layout
from understudy.policies.data.open import open_dataset
from understudy.policies.data.windows import Windows
from understudy.policies.data.writer import DatasetWriter

BODY = Embodiment(
    name="toy",
    action=("x", "y"),
    action_units=("m", "m"),
    limits=((-1.0, 1.0), (-1.0, 1.0)),
    rate=10.0,
    state=("x",),
    state_units=("m",),
    cameras={"top": (8, 8)},
)
CAMERA = IMAGES + "top"


def write(root, lengths, *, body=BODY, won=False, seed=0):
    rng, writer = np.random.default_rng(seed), DatasetWriter(root, body)
    for start, steps in enumerate(lengths):
        action, success = rng.normal(size=(steps, 2)).astype(np.float32), np.zeros(steps, bool)
        success[-1] = won
        obs = {
            STATE: rng.normal(size=(steps, len(body.state))),
            CAMERA: rng.integers(0, 255, (steps, 8, 8, 3), np.uint8),
        }
        zeros = np.zeros(steps, np.float32)
        writer.add(
            Episode(
                start=start,
                task="toy",
                obs={key: obs[key] for key in body.offers()},
                action=action,
                sent=action,
                reward=zeros,
                progress=zeros,
                success=success,
                terminated=won,
                truncated=not won,
            )  # fmt: skip
        )
    return root


def bare(root):
    """Take away what says how episodes went, as in a recording of a person's."""
    info = json.loads((root / "meta/info.json").read_text())
    gone = [key for key in info["features"] if key.startswith("next.") or key == "action.sent"]
    for key in gone:
        del info["features"][key]
    (root / "meta/info.json").write_text(json.dumps(info))
    for path in (root / "data").rglob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(gone), path)
    return root


def test_two_folders_are_one_dataset(tmp_path):
    good, bad = write(tmp_path / "good", (4, 6), won=True), write(tmp_path / "bad", (5,), seed=1)
    one, two, both = open_dataset(good), open_dataset(bad), open_dataset(f"{good}, {bad}")
    assert both.lengths.tolist() == [4, 6, 5] and both.episode_ids.tolist() == [0, 1, 2]
    assert both.starts.tolist() == [0, 4, 10] and both.embodiment == one.embodiment
    for key in (STATE, ACTION, "next.success"):
        np.testing.assert_array_equal(both.columns[key], np.concatenate([one.columns[key], two.columns[key]]))
    assert both.fingerprint == open_dataset(f"{good},{bad}").fingerprint
    assert len({both.fingerprint, one.fingerprint, open_dataset(f"{bad},{good}").fingerprint}) == 3
    reads = Window(observe=(0,), horizon=3), (STATE, CAMERA)
    seen = Windows(both, *reads).gather(np.array([9, 10, 14]))
    alone = Windows(two, *reads).gather(np.array([0, 4]))
    assert seen["episode"].tolist() == [1, 2, 2]
    assert (seen[CAMERA][1:] == alone[CAMERA]).all() and (seen[ACTION][1:] == alone[ACTION]).all()


def test_a_name_with_a_comma_is_one_dataset(tmp_path):
    assert len(open_dataset(write(tmp_path / "a,b", (4,))).lengths) == 1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dataclasses.replace(BODY, rate=5.0), "not of one embodiment: .*rate"),
        (dataclasses.replace(BODY, limits=((-1.0, 1.0), (-2.0, 2.0))), "not of one embodiment: .*limits"),
        (dataclasses.replace(BODY, state=("x", "y"), state_units=("m", "m")), "'observation.state' has 1 numbers in"),
    ],
)
def test_datasets_that_do_not_fit_are_named(tmp_path, other, message):
    with pytest.raises(DatasetError, match=message):
        open_dataset(f"{write(tmp_path / 'a', (4,))},{write(tmp_path / 'b', (4,), body=other)}")


def test_features_that_some_lack_are_left_out(tmp_path):
    blind = dataclasses.replace(BODY, cameras={})
    both = open_dataset(f"{write(tmp_path / 'a', (4,))},{write(tmp_path / 'b', (4,), body=blind)}")
    assert both.cameras == {}
    with pytest.raises(DatasetError, match="has no camera 'top'"):
        open_dataset(f"{tmp_path / 'a'},{tmp_path / 'b'}", columns=(STATE, CAMERA))


def test_labels_make_the_columns_that_a_recording_lacks(tmp_path, capsys):
    root = bare(write(tmp_path / "d", (4, 6, 5)))
    before = open_dataset(root).fingerprint
    with pytest.raises(DatasetError, match="column 'next.success' is not in"):
        open_dataset(root, columns=(STATE, "next.success"))
    (tmp_path / "told.csv").write_text("episode,success\n0,yes\n2,0\n")
    assert main(["label", str(root), "--success", str(tmp_path / "told.csv")]) == 0
    assert "2 of 3 episodes labelled, 1 successes" in capsys.readouterr().out
    with pytest.raises(DatasetError, match="column 'next.success' is not in"):
        open_dataset(root, columns=(STATE, "next.success"))  # one episode is not labelled
    Label(data=str(root), success="all", episodes="1").run()
    dataset = open_dataset(root)
    ends = dataset.starts + dataset.lengths - 1
    assert np.flatnonzero(dataset.columns["next.success"]).tolist() == [ends[0], ends[1]]
    assert np.flatnonzero(dataset.columns["next.done"]).tolist() == ends.tolist()
    assert np.array_equal(dataset.columns["next.reward"], dataset.columns["next.success"])
    assert dataset.fingerprint != before
    assert open_dataset(root, columns=(STATE, "next.reward")).columns["next.reward"].sum() == 2


def test_labels_win_over_what_was_recorded_and_leave_rewards(tmp_path):
    root = write(tmp_path / "d", (4, 6), won=True)
    Label(data=str(root), success="none", episodes="0").run()
    columns = open_dataset(root).columns
    assert np.flatnonzero(columns["next.success"]).tolist() == [9]
    assert columns["next.reward"].sum() == 0 and columns["next.done"].sum() == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"7": true}', "has no episode 7; it has 2"),
        ("a.json", '{"0": "perhaps"}', "neither yes nor no"),
        ("a.csv", "episode,won\n0,1\n", "write the columns episode, success"),
        ("a.csv", None, "does not exist; give all, none"),
    ],
)
def test_wrong_labels_are_named(tmp_path, name, text, message):
    root = write(tmp_path / "d", (4, 6))
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        Label(data=str(root), success=str(tmp_path / name)).run()
    assert not (root / LABELS).exists()


def test_lists_of_labels_and_of_episodes(tmp_path):
    layout = read_layout(write(tmp_path / "d", (4, 6, 5)))
    (tmp_path / "a.json").write_text("[true, 0, null]".replace("null", '"no"'))
    assert read_answers(str(tmp_path / "a.json"), layout) == {0: True, 1: False, 2: False}
    assert read_answers("all", layout, "0-1,2") == dict.fromkeys(range(3), True)
    with pytest.raises(DatasetError, match="names no episodes"):
        read_answers("all", layout, "first")


def test_what_one_part_recorded_and_another_was_told_is_one_column(tmp_path):
    told = bare(write(tmp_path / "told", (4, 6)))
    Label(data=str(told), success="all", episodes="1").run()
    Label(data=str(told), success="none", episodes="0").run()
    both = open_dataset(f"{write(tmp_path / 'own', (5,), won=True)},{told}", columns=(STATE,))
    again = load_columns(both.layout, ("next.success", "action.sent", "next.progress"), skip_missing=True)
    assert np.flatnonzero(again["next.success"]).tolist() == [4, 14]
    assert set(again) == {"next.success"}


def test_a_camera_that_parts_recorded_otherwise_is_named_with_both_sizes(tmp_path):
    parts = [write(tmp_path / name, [4]) for name in ("a", "b")]
    info = json.loads((parts[1] / "meta" / "info.json").read_text())
    info["features"][CAMERA]["shape"][:2] = [6, 10]
    (parts[1] / "meta" / "info.json").write_text(json.dumps(info))
    joined = open_dataset(f"{parts[0]},{parts[1]}", columns=(STATE,))  # hinders nobody who does not ask for it
    with pytest.raises(DatasetError, match="camera 'top' was recorded otherwise .* 8x8x3 in .*a; .* 6x10x3 in .*b"):
        joined.camera("top")


@pytest.mark.parametrize(
    ("other", "words"),
    [({"state": ("y", "x")}, r"has y \[m\] where others have x"), ({"state_units": ("mm", "mm")}, r"has x \[mm\]")],
)
def test_states_of_other_numbers_or_units_are_not_joined(tmp_path, other, words):
    body = dataclasses.replace(BODY, state=("x", "y"), state_units=("m", "m"))
    write(tmp_path / "a", [3], body=body)
    write(tmp_path / "b", [3], body=dataclasses.replace(body, **other))
    with pytest.raises(DatasetError, match=words):
        open_dataset(f"{tmp_path / 'a'},{tmp_path / 'b'}")
