"""Datasets: several layouts open to the same arrays, borders come from the episodes table, bad input is named."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.configs.spec import ACTION, SCENE, STATE
from understudy.policies.data.dataset import DatasetError, split_episodes
from understudy.policies.data.open import open_dataset
from understudy.policies.data.statistics import statistics
from understudy.policies.data.tables import DatasetWarning

LENGTHS = (5, 9, 3, 7)
FILES = (0, 0, 1, 1)  # two files of two episodes each


def rows(seed=0):
    """state, action of all episodes, in order."""
    rng = np.random.default_rng(seed)
    total = sum(LENGTHS)
    return rng.normal(size=(total, 3)).astype(np.float32), rng.normal(size=(total, 2)).astype(np.float32)


def features(**more):
    number = {"dtype": "float32", "names": None}
    whole = {"dtype": "int64", "shape": [1], "names": None}
    return {
        STATE: number | {"shape": [3], "names": {"axes": ["x", "y", "z"]}},
        ACTION: number | {"shape": [2], "names": [["left", "right"]]},
        "timestamp": number | {"shape": [1]},
        **{key: whole for key in ("index", "episode_index", "frame_index", "task_index")},
    } | more


def data_table(m, state, action, episode_index=None):
    start = sum(LENGTHS[:m])
    index = np.arange(start, start + LENGTHS[m])
    part = slice(start, start + LENGTHS[m])
    return pa.table(
        {
            STATE: pa.FixedSizeListArray.from_arrays(pa.array(state[part].ravel()), 3),
            ACTION: pa.array(action[part].tolist(), pa.list_(pa.float32())),
            "timestamp": pa.array((index - start) / 10, pa.float32()),
            "index": index,
            "episode_index": np.full(LENGTHS[m], m if episode_index is None else episode_index),
            "frame_index": index - start,
            "task_index": np.zeros(LENGTHS[m], np.int64),
        }
    )


def write_info(root, version, data_path, **more):
    info = {"codebase_version": version, "fps": 10, "features": features(), "data_path": data_path, "video_path": None}
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(info | more))


def write_v3(root, episodes=range(4), wrong_column=False):
    """v3.0 with two episodes a file; `episodes` are the rows of the table, and may leave some out."""
    state, action = rows()
    write_info(root, "v3.0", "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet")
    (root / "data/chunk-000").mkdir(parents=True)
    for file in (0, 1):
        members = [m for m in range(4) if FILES[m] == file]
        parts = [data_table(m, state, action, 0 if wrong_column else None) for m in members]
        pq.write_table(pa.concat_tables(parts), root / f"data/chunk-000/file-{file:03d}.parquet")
    table = [
        {
            "episode_index": m,
            "tasks": ["push"],
            "length": LENGTHS[m],
            "data/chunk_index": 0,
            "data/file_index": FILES[m],
            "dataset_from_index": sum(LENGTHS[:m]),
            "dataset_to_index": sum(LENGTHS[: m + 1]),
        }
        for m in episodes
    ]
    write_episodes(root, table)
    return root


def write_episodes(root, table):
    (root / "meta/episodes/chunk-000").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table), root / "meta/episodes/chunk-000/file-000.parquet")


def write_v2(root, version="v2.1"):
    state, action = rows()
    write_info(root, version, "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet", chunks_size=1000)
    (root / "data/chunk-000").mkdir(parents=True)
    for m in range(4):
        pq.write_table(data_table(m, state, action), root / f"data/chunk-000/episode_{m:06d}.parquet")
    lines = [json.dumps({"episode_index": m, "tasks": ["push"], "length": LENGTHS[m]}) for m in range(4)]
    (root / "meta/episodes.jsonl").write_text("\n".join(lines))
    return root


def edit_table(path, **columns):
    """Replace columns of a parquet file; None drops one."""
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.remove_column(place) if values is None else table.set_column(place, name, values)
    pq.write_table(table, path)


@pytest.fixture
def v3(tmp_path):
    return write_v3(tmp_path / "toy")


@pytest.mark.parametrize("version", ["v3.0", "v2.1", "v2.0"])
def test_every_layout_gives_the_same_arrays(tmp_path, version):
    root = write_v3(tmp_path / "a") if version == "v3.0" else write_v2(tmp_path / "a", version)
    dataset = open_dataset(root)
    state, action = rows()
    assert dataset.version == version and dataset.rate == 10 and dataset.tasks == ("push",) * 4
    np.testing.assert_array_equal(dataset.columns[STATE], state)
    np.testing.assert_array_equal(dataset.columns[ACTION], action)
    assert dataset.columns[ACTION].flags.c_contiguous and dataset.columns[ACTION].dtype == np.float32
    assert dataset.starts.tolist() == [0, 5, 14, 17] and dataset.lengths.tolist() == list(LENGTHS)


def test_episodes_left_out_of_the_table_are_told(tmp_path):
    """A column `episode_index` that says something else is refused; a subset of the rows opens."""
    state, _ = rows()
    with pytest.raises(DatasetError, match="episode 0 has 14 rows in .*file-000.parquet.*, the episodes table says 5"):
        open_dataset(write_v3(tmp_path / "wrong", wrong_column=True))
    with pytest.warns(DatasetWarning, match="file-000.parquet has 14 rows, the episodes table lists 9 of them"):
        subset = open_dataset(write_v3(tmp_path / "subset", episodes=(1, 3)))
    assert subset.episode_ids.tolist() == [1, 3]
    np.testing.assert_array_equal(subset.columns[STATE], np.concatenate([state[5:14], state[17:]]))


def test_embodiment_is_guessed_from_names_and_data(v3):
    body = open_dataset(v3).embodiment
    _, action = rows()
    assert body.action == ("left", "right") and body.state == ("x", "y", "z") and body.rate == 10
    assert set(body.unknown_units) == {"left", "right", "x", "y", "z"}
    np.testing.assert_allclose(body.limits, np.stack([action.min(0), action.max(0)], 1))


def test_constant_action_gets_limits(tmp_path):
    root = write_v2(tmp_path / "a")
    for m in range(4):
        path = root / f"data/chunk-000/episode_{m:06d}.parquet"
        edit_table(path, action=pa.array([[2.0, float(i)] for i in range(LENGTHS[m])], pa.list_(pa.float32())))
    assert open_dataset(root).embodiment.limits == ((1.5, 2.5), (0.0, 8.0))


def test_piece_names_the_body_and_own_card_wins(v3, tmp_path):
    piece = tmp_path / "task_spec.yaml"
    piece.write_text("name: arm\naction: [dx, dy]\naction_units: [m, m]\nlimits: [[-9, 9], [-9, 9]]\nmode: delta\n")
    body = open_dataset(v3, embodiment=piece).embodiment
    assert (body.name, body.action, body.mode.value, body.state_units) == ("arm", ("dx", "dy"), "delta", ("?",) * 3)
    (v3 / "meta/embodiment.json").write_text(body.to_json())
    assert open_dataset(v3).embodiment == body == open_dataset(v3, embodiment=piece).embodiment
    piece.write_text("action: [dx, dz]")
    with pytest.raises(DatasetError, match="differ in action"):
        open_dataset(v3, embodiment=piece)
    piece.write_text("action: [dx, dy]\nlimit: 3")
    with pytest.raises(DatasetError, match="unknown field 'limit'"):
        open_dataset(v3, embodiment=piece)


def test_embodiment_of_another_size_is_refused(v3):
    values = json.loads(open_dataset(v3).embodiment.to_json())
    values |= {"state": ["x"], "state_units": ["m"]}
    (v3 / "meta/embodiment.json").write_text(json.dumps(values))
    with pytest.raises(DatasetError, match="has 3 dimensions, its embodiment 'toy' names 1"):
        open_dataset(v3)


def add_features(root, **more):
    """Further features in info.json, and a table of one column each in every data file."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"features": info["features"] | more}))


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize(
    ("dtype", "mark"),
    [
        ("video", {"info": {"is_depth_map": True}}),
        ("video", {"info": {"video.is_depth_map": True}}),
        ("video", {"video_info": {"video.is_depth_map": True}}),
        ("image", {"info": {"is_depth_map": True, "depth_unit": "mm"}}),
    ],
)
def test_depth_cameras_are_left_out_and_named(tmp_path, version, dtype, mark):
    root = write_v3(tmp_path / "a") if version == "v3.0" else write_v2(tmp_path / "a", version)
    colours = {"dtype": dtype, "shape": [48, 64, 3], "info": {"is_depth_map": False}}
    depth = {"dtype": dtype, "shape": [48, 64, 1], **mark}
    add_features(root, **{"observation.images.top": colours, "observation.images.far": depth})
    with pytest.warns(DatasetWarning, match="left out what depth cameras measured.*: far"):
        dataset = open_dataset(root)
    assert list(dataset.cameras) == ["top"] and dataset.embodiment.cameras == {"top": (48, 64)}
    with pytest.raises(DatasetError, match="'far' of .* is a depth camera.*see colours: top"):
        dataset.camera("far")
    with (
        pytest.warns(DatasetWarning),
        pytest.raises(DatasetError, match="'far' of .* is a depth camera"),
    ):
        open_dataset(root, columns=("observation.images.far",))


def test_language_columns_are_no_vectors(v3):
    """As `lerobot-annotate` leaves them: lists of messages a frame, among the features."""
    language = {"dtype": "language", "shape": [1], "names": None}
    add_features(v3, language_persistent=language, language_events=language)
    for path in (v3 / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        said = [[{"role": "user", "content": "push", "style": "subtask"}]] * len(table)
        for name in ("language_persistent", "language_events"):
            table = table.append_column(name, pa.array(said))
        pq.write_table(table, path)
    dataset = open_dataset(v3)
    assert not {"language_persistent", "language_events"} & set(dataset.columns)
    np.testing.assert_array_equal(dataset.columns[ACTION], rows()[1])


@pytest.mark.parametrize("name", ["task", "__index_level_0__"])
def test_tasks_are_found_by_their_number_where_the_episodes_table_has_none(v3, name):
    """As lerobot's conversion of image columns to videos leaves it."""
    episodes = v3 / "meta/episodes/chunk-000/file-000.parquet"
    edit_table(episodes, tasks=None)
    assert open_dataset(v3).tasks == ("",) * 4, "nothing tells"
    tasks = pa.table({"task_index": pa.array([1, 0]), name: ["lift", "push"]})
    pq.write_table(tasks, v3 / "meta/tasks.parquet")
    path = v3 / "data/chunk-000/file-001.parquet"
    later = np.repeat([0, 1], [LENGTHS[2], LENGTHS[3]])
    edit_table(path, task_index=pa.array(later))
    assert open_dataset(v3).tasks == ("push", "push", "push", "lift")
    assert open_dataset(v3, columns=(STATE,)).tasks[3] == "lift"


def test_tasks_are_found_by_their_number_in_v2_too(tmp_path):
    root = write_v2(tmp_path / "a")
    lines = (root / "meta/episodes.jsonl").read_text().replace('"tasks": ["push"], ', "")
    (root / "meta/episodes.jsonl").write_text(lines)
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "push"}')
    assert open_dataset(root).tasks == ("push",) * 4


def test_variables_in_paths(v3, monkeypatch):
    monkeypatch.setenv("TOYS", str(v3.parent))
    assert open_dataset("$TOYS/toy").root == v3
    assert open_dataset("${TOYS}/toy").root == v3
    monkeypatch.delenv("TOYS")
    with pytest.raises(DatasetError, match="variable TOYS in .* is not set; export TOYS="):
        open_dataset("$TOYS/toy")


def test_fingerprint_tells_content_not_place(v3, tmp_path):
    copy = shutil.copytree(v3, tmp_path / "copy")
    assert open_dataset(v3).fingerprint == open_dataset(copy).fingerprint
    edit_table(copy / "data/chunk-000/file-001.parquet", timestamp=pa.array(np.ones(10, np.float32)))
    assert open_dataset(v3).fingerprint != open_dataset(copy).fingerprint


def bad_no_info(root):
    (root / "meta/info.json").unlink()


def bad_info_json(root):
    (root / "meta/info.json").write_text("{")


def bad_version(root):
    write_info(root, "v1.6", "data/x")


def bad_truncated(root):
    path = root / "data/chunk-000/file-001.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def bad_file_gone(root):
    (root / "data/chunk-000/file-001.parquet").unlink()


def bad_no_action(root):
    edit_table(root / "data/chunk-000/file-000.parquet", action=None)


def bad_dtype(root):
    edit_table(root / "data/chunk-000/file-000.parquet", action=pa.array(["1"] * 14))


def bad_width(root):
    edit_table(root / "data/chunk-000/file-000.parquet", action=pa.array([[1.0, 2.0, 3.0]] * 14))


def bad_uneven(root):
    edit_table(root / "data/chunk-000/file-000.parquet", action=pa.array([[1.0], [2.0, 3.0, 4.0]] * 7))


def bad_nan(root):
    values = np.ones((14, 2), np.float32)
    values[7, 1] = np.nan
    edit_table(root / "data/chunk-000/file-000.parquet", action=pa.array(values.tolist(), pa.list_(pa.float32())))


def bad_infinite_state(root):
    values = np.ones((10, 3), np.float32)
    values[9, 2] = -np.inf
    path = root / "data/chunk-000/file-001.parquet"
    edit_table(path, **{STATE: pa.array(values.tolist(), pa.list_(pa.float32()))})


def bad_zero_episodes(root):
    (root / "meta/episodes/chunk-000/file-000.parquet").unlink()


def bad_table_truncated(root):
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes()[:100])


def bad_rows_lost(root):
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 10), path)


def bad_table_column(root):
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["data/file_index"]), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bad_no_info, "no meta/info.json; give the folder that holds meta/ and data/"),
        (bad_info_json, "info.json is damaged .* copy the dataset again"),
        (bad_version, "LeRobotDataset v1.6; understudy reads v2.0, v2.1, v3.0"),
        (bad_truncated, "file-001.parquet is damaged or cut short .*copy it again"),
        (bad_file_gone, "file-001.parquet is missing; copy it again"),
        (bad_no_action, "column 'action' is not in .*file-000.parquet; available: observation.state, timestamp"),
        (bad_dtype, "column 'action' in .* has dtype string, numbers are needed"),
        (bad_width, "holds 42 numbers in 14 rows, meta/info.json promises 2 a row"),
        (bad_uneven, "holds 3 numbers in row 1 and 2 in others"),
        (bad_nan, r"'action' is nan in episode 1, frame 2, dimension 1 \('right'\)"),
        (bad_infinite_state, r"'observation.state' is -inf in episode 3, frame 6, dimension 2 \('z'\)"),
        (bad_zero_episodes, "has zero episodes; record or copy at least one"),
        (bad_table_truncated, "meta/episodes/.* is damaged or cut short"),
        (
            bad_rows_lost,
            r"episode 1 has 5 rows in .*file-000.parquet \('episode_index' is 1\), the episodes table says 9",
        ),
        (bad_table_column, "episodes table of .* lacks column 'data/file_index'"),
    ],
)
def test_bad_input_is_named(v3, spoil, message):
    spoil(v3)
    with pytest.raises(DatasetError, match=message):
        open_dataset(v3)


def test_bad_v2_table_is_named(tmp_path):
    root = write_v2(tmp_path / "a")
    (root / "meta/episodes.jsonl").write_text('{"episode_index": 0}')
    with pytest.raises(DatasetError, match="episodes.jsonl lacks 'length'; copy meta/ again"):
        open_dataset(root)
    (root / "meta/episodes.jsonl").write_text('{"episode_index"')
    with pytest.raises(DatasetError, match="episodes.jsonl is damaged"):
        open_dataset(root)
    (root / "meta/episodes.jsonl").unlink()
    with pytest.raises(DatasetError, match="episodes.jsonl is missing; a v2.1 dataset needs it"):
        open_dataset(root)


def test_asked_columns_and_cameras_must_exist(v3):
    assert set(open_dataset(v3, columns=(STATE,)).columns) == {STATE, ACTION}
    with pytest.raises(DatasetError, match=f"column '{SCENE}' is not in .*; available: observation.state, action"):
        open_dataset(v3, columns=(SCENE,))
    with pytest.raises(DatasetError, match="has no camera 'wrist'; its cameras: none"):
        open_dataset(v3, columns=("observation.images.wrist",))


def test_hub_id_without_network_says_what_to_do():
    with pytest.raises(DatasetError, match="'nobody/nothing-at-all' is no folder here and could not be fetched"):
        open_dataset("nobody/nothing-at-all")
    with pytest.raises(DatasetError, match="does not exist; give the folder"):
        open_dataset("./not-there/at-all")


def test_split_is_by_episode_and_depends_on_the_seed(v3):
    dataset = open_dataset(v3)
    train, held = split_episodes(dataset, 0.25, seed=0)
    assert sorted([*train, *held]) == [0, 1, 2, 3] and len(held) == 1
    assert split_episodes(dataset, 0.25, seed=0)[1] == held
    assert {int(split_episodes(dataset, 0.25, seed=s)[1][0]) for s in range(20)} == {0, 1, 2, 3}
    assert len(split_episodes(dataset, 0.0, seed=0)[1]) == 0
    assert len(split_episodes(dataset, 0.01, seed=0)[1]) == 1
    with pytest.raises(ValueError, match="fraction"):
        split_episodes(dataset, 1.0, seed=0)


def test_statistics_of_chosen_episodes_with_a_floor(tmp_path):
    root = write_v2(tmp_path / "a")
    for m in range(4):
        path = root / f"data/chunk-000/episode_{m:06d}.parquet"
        edit_table(path, action=pa.array([[7.0, float(m)]] * LENGTHS[m], pa.list_(pa.float32())))
    found = statistics(open_dataset(root), (STATE, ACTION), np.array([1, 3]))
    part = np.concatenate([rows()[0][5:14], rows()[0][17:]])
    np.testing.assert_allclose(found[STATE].mean, part.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[STATE].std, part.std(0), rtol=1e-5)
    np.testing.assert_array_equal(found[STATE].max, part.max(0))
    assert found[ACTION].std[0] == 1 and found[ACTION].min.tolist() == [7, 1]
    with pytest.raises(DatasetError, match="no column 'nope'"):
        statistics(open_dataset(root), ("nope",))
