"""What `meta/` says is believed only as what it is due to be: numbers, texts, paths inside the folder."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from understudy.policies.data.decode import _unpack
from understudy.policies.data.layout import DatasetError, read_layout
from understudy.policies.data.open import open_dataset
from understudy.policies.data.tables import file_inside
from understudy.policies.learning.checkpoint import CheckpointError, load_weights

ACTION, WRIST = "action", "observation.images.wrist"
LENGTHS = (4, 3, 5)
DATA3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DATA2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
TABLE = "meta/episodes/chunk-000/file-000.parquet"
CAMERA = {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}


def rows(e):
    n = LENGTHS[e]
    action = pa.array([[100.0 * e + t, 0.5 * t] for t in range(n)], pa.list_(pa.float32()))
    return pa.table({ACTION: action, "episode_index": np.full(n, e), "frame_index": np.arange(n)})


def write_info(root, **info):
    features = {ACTION: {"dtype": "float32", "shape": [2], "names": ["x", "y"]}} | info.pop("features", {})
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps({"fps": 10, "video_path": None, "features": features} | info))


def write_v3(root, edit=None, **info):
    """One data file; `edit` changes each row of the episodes table."""
    write_info(root, **({"codebase_version": "v3.0", "data_path": DATA3} | info))
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables([rows(e) for e in range(3)]), root / "data/chunk-000/file-000.parquet")
    ends = np.cumsum(LENGTHS).tolist()
    table = [
        {"episode_index": e, "tasks": ["push"], "length": n, "data/chunk_index": 0, "data/file_index": 0}
        | {"dataset_from_index": end - n, "dataset_to_index": end}
        for e, (n, end) in enumerate(zip(LENGTHS, ends, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist([edit(row) if edit else row for row in table]), root / TABLE)
    return root


def write_v2(root, edit=None, **info):
    write_info(root, **({"codebase_version": "v2.1", "data_path": DATA2} | info))
    (root / "data/chunk-000").mkdir(parents=True)
    for e in range(3):
        pq.write_table(rows(e), root / f"data/chunk-000/episode_{e:06d}.parquet")
    lines = [{"episode_index": e, "tasks": ["push"], "length": n} for e, n in enumerate(LENGTHS)]
    lines = [edit(line) if edit else line for line in lines]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def first_actions(root):
    return open_dataset(root, columns=()).columns[ACTION][:, 0].tolist()


TRUTH = [100.0 * e + t for e, n in enumerate(LENGTHS) for t in range(n)]


def edit_with(**cells):
    """Set cells of episode 1."""
    return lambda row: row | cells if row["episode_index"] == 1 else row


# --- tables that went through pandas ---------------------------------------------------------------------------------


def clips(number):
    def edit(row):
        there = row["episode_index"] < 2
        named = {f"videos/{WRIST}/chunk_index": number(0), f"videos/{WRIST}/file_index": number(0)}
        named |= {f"videos/{WRIST}/from_timestamp": 0.0}
        return row | {key: value if there else None for key, value in named.items()}

    return edit


@pytest.mark.parametrize("number", [int, float])
def test_a_camera_that_some_episodes_lack_hinders_nobody(tmp_path, number):
    root = write_v3(tmp_path / "a", clips(number), features={WRIST: CAMERA}, video_path=VIDEO3)
    assert first_actions(root) == TRUTH
    held = [[clip.path for clip in entry.clips.values()] for entry in read_layout(root).entries]
    assert held == [[f"videos/{WRIST}/chunk-000/file-000.mp4"]] * 2 + [[]]


def test_nan_says_not_there_as_null_does(tmp_path):
    def edit(row):
        return {key: np.nan if value is None else value for key, value in clips(float)(row).items()}

    root = write_v3(tmp_path / "a", edit, features={WRIST: CAMERA}, video_path=VIDEO3)
    assert [len(entry.clips) for entry in read_layout(root).entries] == [1, 1, 0]


def test_whole_numbers_stored_as_floats_are_whole_numbers(tmp_path):
    def edit(row):
        return {key: value if key == "tasks" else float(value) for key, value in row.items()}

    assert first_actions(write_v3(tmp_path / "a", edit)) == TRUTH
    assert first_actions(write_v2(tmp_path / "b", edit, chunks_size=1000.0)) == TRUTH
    assert all(isinstance(entry.length, int) for entry in read_layout(tmp_path / "a").entries)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("length", 3.5),
        ("length", -3),
        ("length", float("inf")),
        ("dataset_from_index", 4.5),
        ("dataset_to_index", None),
        ("data/chunk_index", 0.5),
        ("data/file_index", -1),
        ("episode_index", 0.5),
        ("episode_index", None),
        ("length", 2**60),
    ],
)
def test_other_numbers_are_refused_by_file_episode_and_column(tmp_path, column, value):
    root = write_v3(tmp_path / "a", edit_with(**{column: value}))
    who = "(0.5|None|nan)" if column == "episode_index" else "1(.0)?"
    with pytest.raises(
        DatasetError, match=f"'{column}' of episode {who} in .*{TABLE} is .* whole number from 0 on is due"
    ):
        open_dataset(root)


def test_a_fraction_of_a_video_file_is_refused(tmp_path):
    def edit(row):
        return clips(float)(row) | ({f"videos/{WRIST}/file_index": 0.5} if row["episode_index"] == 1 else {})

    root = write_v3(tmp_path / "a", edit, features={WRIST: CAMERA}, video_path=VIDEO3)
    with pytest.raises(DatasetError, match=f"'videos/{WRIST}/file_index' of episode 1.* in .*{TABLE} is 0.5"):
        open_dataset(root)


@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_a_task_written_as_text_is_one_task(tmp_path, write):
    one = write(tmp_path / "a", lambda row: row | {"tasks": "push it"})
    assert open_dataset(one, columns=()).tasks == ("push it",) * 3
    strange = write(tmp_path / "b", lambda row: row | {"tasks": [3]})
    with pytest.raises(DatasetError, match=r"'tasks' of episode 0 in .* is \[3\], a list of texts is due"):
        open_dataset(strange)


def test_no_chunks_size_is_the_usual_one(tmp_path):
    assert first_actions(write_v2(tmp_path / "a", chunks_size=None)) == TRUTH


# --- templates -------------------------------------------------------------------------------------------------------


def test_v2_may_say_chunk_index(tmp_path):
    other = DATA2.replace("episode_chunk", "chunk_index")
    assert first_actions(write_v2(tmp_path / "a", data_path=other)) == TRUTH


@pytest.mark.parametrize("key", ["data_path", "video_path"])
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("data/chunk-{part:03d}/{video_key}.parquet", r"with \{part\}, which nobody fills in.* may hold \{"),
        ("data/{}.parquet", r"with \{\}, which nobody fills in"),
        ("data/{0}.parquet", r"with \{0\}, which nobody"),
        ("data/{chunk_index.real}", r"with \{chunk_index.real\}, which nobody"),
        ("data/{chunk_index:x3}", "that is no path"),
        ("data/{", "that is no path"),
        ("../{chunk_index}.parquet", "which is not inside the dataset's folder"),
        ("/data/{chunk_index}.parquet", "which is not inside the dataset's folder"),
        ("data/../../{chunk_index}.parquet", "which is not inside the dataset's folder"),
        (["data"], "'data'.*, a text is due"),
        (3, " 3, a text is due"),
    ],
)
@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_a_template_that_cannot_be_filled_is_named(tmp_path, write, key, template, message):
    info = {"features": {WRIST: CAMERA}, "video_path": "{video_key}/{chunk_index}.mp4"} | {key: template}
    with pytest.raises(DatasetError, match=f"meta/info.json.*{key}.*{message}"):
        open_dataset(write(tmp_path / "a", **info))


# --- paths -----------------------------------------------------------------------------------------------------------


def test_a_video_key_that_climbs_out_is_refused(tmp_path):
    root = write_v3(tmp_path / "a")
    keys = {f"videos/../../x/{name}": 0 for name in ("chunk_index", "file_index", "from_timestamp")}
    table = [row | keys for row in pq.read_table(root / TABLE).to_pylist()]
    pq.write_table(pa.Table.from_pylist(table), root / TABLE)
    write_info(root, codebase_version="v3.0", data_path=DATA3, video_path=VIDEO3, features={"../../x": CAMERA})
    with pytest.raises(DatasetError, match="names the file 'videos/../../x/.*not inside the dataset's folder"):
        open_dataset(root)


def test_links_that_leave_the_folder_are_refused(tmp_path):
    root = write_v3(tmp_path / "a")
    file = root / "data/chunk-000/file-000.parquet"
    other = shutil.move(file, tmp_path / "elsewhere.parquet")
    file.symlink_to(other)
    with pytest.raises(
        DatasetError, match="file-000.parquet is a link that leaves the dataset's folder, to .*elsewhere"
    ):
        open_dataset(root)
    inside = root / "kept.parquet"
    shutil.move(other, inside)
    file.unlink()
    file.symlink_to(inside)
    assert first_actions(root) == TRUTH
    (tmp_path / "link").symlink_to(root)
    assert first_actions(tmp_path / "link") == TRUTH


def test_links_of_a_hub_cache_are_followed(tmp_path):
    """Every file of a snapshot is a link to ../../blobs/HASH, or of an older download to a cache elsewhere."""
    plain = write_v3(tmp_path / "plain")
    cache = tmp_path / "hub/datasets--someone--toy"
    (cache / "blobs").mkdir(parents=True)
    for kept in (cache / "snapshots/0123", tmp_path / "downloaded"):
        for number, path in enumerate(sorted(p for p in plain.rglob("*") if p.is_file())):
            blob = cache / "blobs" / f"{number:040x}"
            shutil.copy(path, blob)
            link = kept / path.relative_to(plain)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
        assert first_actions(kept) == TRUTH


def test_pictures_of_a_column_stay_inside(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    root = tmp_path / "a"
    root.mkdir()
    for path in ("../secret.png", str(tmp_path / "secret.png"), "a/../../secret.png"):
        with pytest.raises(DatasetError, match="frame 0 of top names the file .* not inside the dataset's folder"):
            next(_unpack(root, pa.array([{"bytes": None, "path": path}]), "top"))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DatasetError, match="is a link that leaves"):
        next(_unpack(root, pa.array([{"bytes": None, "path": "link.png"}]), "top"))
    (root / "note.png").write_text(POINTER)
    with pytest.raises(DatasetError, match="note.png cannot be read: .*git lfs pull"):
        next(_unpack(root, pa.array([{"bytes": None, "path": "note.png"}]), "top"))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..\\x", "C:x", "a\0b", ""])
def test_no_name_leads_out(tmp_path, name):
    if name != "/etc/passwd":  # absolute ones are those of joined datasets, and refused where they are read
        with pytest.raises(DatasetError, match="not inside the dataset's folder"):
            file_inside(tmp_path, name)
    assert file_inside(tmp_path, "a/b..c/..d") == tmp_path / "a/b..c/..d"


# --- git-lfs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["meta/info.json", "meta/labels.json", TABLE, "meta/tasks.parquet", "data/chunk-000/file-000.parquet"]
)
def test_what_git_lfs_did_not_fetch_is_named(tmp_path, file):
    root = write_v3(tmp_path / "a", lambda row: {key: value for key, value in row.items() if key != "tasks"})
    (root / file).write_text(POINTER)
    with pytest.raises(DatasetError, match=f"{file} cannot be read: .* note of git-lfs .* `git lfs pull`"):
        open_dataset(root)


def test_lines_and_weights_that_git_lfs_did_not_fetch(tmp_path):
    root = write_v2(tmp_path / "a")
    (root / "meta/episodes.jsonl").write_text(POINTER)
    with pytest.raises(DatasetError, match="episodes.jsonl cannot be read: .*`git lfs pull`"):
        open_dataset(root)
    (tmp_path / "model.safetensors").write_text(POINTER)
    with pytest.raises(CheckpointError, match="model.safetensors cannot be read .*`git lfs pull`"):
        load_weights(torch.nn.Linear(1, 1), tmp_path / "model.safetensors")


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fps", 0, "says fps 0, a number of frames a second above 0 is due"),
        ("fps", -10, "says fps -10, a number"),
        ("fps", float("nan"), "says fps nan, a number"),
        ("fps", "10", "says fps '10', a number"),
        ("fps", [10], r"says fps \[10\], a number"),
        ("fps", True, "says fps True, a number"),
        ("total_episodes", "8", "says total_episodes '8', a whole number"),
        ("total_frames", [1], r"says total_frames \[1\], a whole number"),
        ("chunks_size", 0, "says chunks_size 0, a whole number above 0"),
        ("chunks_size", "many", "says chunks_size 'many', a whole number above 0"),
        ("features", [1], r"says features \[1\], a table"),
        ("features", {ACTION: 3}, "says no dtype and shape of the feature 'action'"),
        ("features", {ACTION: {"dtype": "float32", "shape": ["2"]}}, "gives the feature 'action' the shape"),
        ("features", {ACTION: {"dtype": "float32", "shape": [-2]}}, "gives the feature 'action' the shape"),
        ("features", {ACTION: {"dtype": "float32", "shape": [2], "names": 7}}, "gives the feature 'action' 7 as names"),
    ],
)
def test_values_of_another_kind_are_refused(tmp_path, key, value, message):
    root = write_v2(tmp_path / "a")
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DatasetError, match=f"info.json {message}"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("meta/info.json", b"[1]", "info.json holds no names and values"),
        ("meta/info.json", b"\xff\xfe\x00", "info.json is damaged"),
        ("meta/info.json", b"[" * 100_000, "info.json is damaged"),
        ("meta/episodes.jsonl", b'{"episode_index": 0, "length": 4}\n[1]\n', "damaged: line 2 is no table"),
        ("meta/episodes.jsonl", b'{"episode_index": 0, "length": 4}\n{"epi', "episodes.jsonl is damaged in line 2"),
        ("meta/episodes.jsonl", b'{"episode_index": 0, "length": "4"}\n', "'length' of episode 0 in .* is '4'"),
        ("meta/episodes.jsonl", b'{"episode_index": [0], "length": 4}\n', r"'episode_index' of episode \[0\] in"),
        ("meta/episodes.jsonl", b"\xff\n", "episodes.jsonl is damaged in line 1"),
        ("meta/tasks.jsonl", b'{"task": "push"}\n', "a row of .*tasks.jsonl lacks 'task_index'"),
        ("meta/tasks.jsonl", b'{"task_index": "a", "task": "push"}\n', "tasks.jsonl has the task_index 'a'"),
        ("meta/labels.json", b"[1]", "labels.json is damaged"),
        ("meta/labels.json", b'{"success": {"0": "no"}}', "labels.json is damaged"),
    ],
)
def test_damaged_files_of_meta_are_named(tmp_path, file, content, message):
    root = write_v2(tmp_path / "a", lambda row: {key: value for key, value in row.items() if key != "tasks"})
    (root / file).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        open_dataset(root)


def test_a_table_cut_anywhere_is_refused(tmp_path):
    root = write_v3(tmp_path / "a")
    for file in (root / TABLE, root / "meta/info.json", root / "data/chunk-000/file-000.parquet"):
        whole = file.read_bytes()
        for size in range(0, len(whole) - 1, max(1, len(whole) // 12)):
            file.write_bytes(whole[:size])
            with pytest.raises(DatasetError, match=f"{file.name} is damaged"):
                open_dataset(root)
        file.write_bytes(whole)
