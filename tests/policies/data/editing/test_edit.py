"""Datasets that are chosen, merged, split, renamed, of another version: rows bit for bit, pictures frame for frame."""

import json
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.__main__ import main
from understudy.configs.episode import Episode
from understudy.configs.spec import IMAGES, STATE, Embodiment
from understudy.policies.data.convert import Convert, write_edited
from understudy.policies.data.films import read_film
from understudy.policies.data.frames import open_frames
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.split import Split
from understudy.policies.data.writer import DatasetWriter

LENGTHS, KEY = (12, 9, 15), IMAGES + "cam"
BODY = Embodiment(
    name="arm", action=("x", "y"), action_units=("m", "m"), limits=((-9, 9), (-9, 9)), rate=30, state=("p", "q"),
    state_units=("m", "rad"), cameras={"cam": (48, 64)},
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))


def pictures(seed, count):
    """Noise that no two frames share."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 255, (count, 6, 8, 3), np.uint8), np.ones((1, 8, 8, 1), np.uint8))


def ours(root, lengths=LENGTHS, seed=0, body=BODY, how="image", tasks=("push", "lift")):
    """A dataset of our writer, with two tasks."""
    writer = DatasetWriter(root, body, pictures=how, extra={"observation.force": ("f",)})
    for number, steps in enumerate(lengths):
        rng = np.random.default_rng([seed, number])
        won = np.zeros(steps, bool)
        won[-1] = number != 1
        action, state = (rng.normal(size=(steps, 2)).astype(np.float32) for _ in range(2))
        obs = {STATE: state} | ({KEY: pictures([seed, number], steps)} if body.cameras else {})
        writer.add(
            Episode(
                start=100 + number, task=tasks[number % len(tasks)], obs=obs, action=action, sent=action / 2,
                reward=won.astype(np.float32), progress=won.astype(np.float32), success=won, terminated=True,
                truncated=False, extra={"observation.force": rng.normal(size=(steps, 1)).astype(np.float32)},
            )
        )  # fmt: skip
    return root


def one_film(root, codec="libx264", rate=30, **options):
    """The same episodes as another program keeps them: one data file, one film, wherever its key frames lie."""
    import av

    ours(root, how="video")
    tables = [pq.read_table(path) for path in sorted(root.glob("data/*/*"))]
    for path in (*root.glob("data/*/*"), *root.glob("videos/*/*/*")):
        path.unlink()
    pq.write_table(pa.concat_tables(tables), root / "data/chunk-000/file-000.parquet")
    path = root / f"videos/{KEY}/chunk-000/file-000.mp4"
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream(codec, rate=rate, options={"crf": "10"} | options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, length in enumerate(LENGTHS):
            for place, picture in enumerate(pictures([0, number], length)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = sum(LENGTHS[:number]) + place, 1 / Fraction(rate)
                if place == 0 and "forced-idr" in options:
                    frame.pict_type = av.video.frame.PictureType.I
                file.mux(stream.encode(frame))
        file.mux(stream.encode())
    table = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(table).to_pylist()
    for row in rows:
        row["data/file_index"] = row[f"videos/{KEY}/file_index"] = 0
        row[f"videos/{KEY}/from_timestamp"] = row["dataset_from_index"] / rate
        row[f"videos/{KEY}/to_timestamp"] = row["dataset_to_index"] / rate
    pq.write_table(pa.Table.from_pylist(rows), table)
    return root


def rows(root):
    """Every column of every row but those that say where a row belongs, as Arrow holds them."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted(root.glob("data/*/*"))])
    names = [n for n in table.column_names if n not in ("index", "episode_index", "task_index")]
    return table.select(sorted(names)).combine_chunks()


def shown(root, camera="cam"):
    dataset = open_dataset(root)
    return [open_frames(dataset, camera).episode(m) for m in range(len(dataset.lengths))]


@pytest.mark.parametrize("how", ["image", "video"])
def test_to_v2_and_back_every_row_and_every_frame_stays(tmp_path, how):
    source = ours(tmp_path / "a", how=how)
    assert main(["convert", str(source), str(tmp_path / "v2"), "--to", "v2.1"]) == 0
    assert main(["convert", str(tmp_path / "v2"), str(tmp_path / "v3")]) == 0

    a, v2, v3 = (open_dataset(tmp_path / name) for name in ("a", "v2", "v3"))
    assert (v2.version, v3.version) == ("v2.1", "v3.0") and rows(tmp_path / "v3") == rows(source) == rows(
        tmp_path / "v2"
    )
    assert (
        v2.tasks == v3.tasks == a.tasks == ("push", "lift", "push") and v2.embodiment == v3.embodiment == a.embodiment
    )
    for mine, theirs, back in zip(shown(source), shown(tmp_path / "v2"), shown(tmp_path / "v3"), strict=True):
        assert (mine == theirs).all() and (mine == back).all()
    seeds = pq.read_table(tmp_path / "v3/meta/episodes/chunk-000/file-000.parquet")["env_seed"].to_pylist()
    assert seeds == [100, 101, 102]
    told, before = (json.loads((tmp_path / name / "meta/stats.json").read_text()) for name in ("v3", "a"))
    for key in before:
        for name in ("min", "max", "mean", "std", "count"):
            assert np.allclose(told[key][name], before[key][name], atol=1e-6), (key, name)


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        ({"g": "3", "bf": "0", "sc_threshold": "0"}, True),  # key frames at 0, 3, 6, ...: every episode begins with one
        ({"g": "100", "bf": "2", "forced-idr": "1"}, True),  # with frames that are predicted from later ones
        ({"g": "100", "bf": "0", "sc_threshold": "0"}, False),  # a lone key frame
    ],
)
def test_films_are_cut_by_packets_or_kept_whole(tmp_path, capsys, options, cut):
    source = one_film(tmp_path / "a", **options)
    before = shown(source)
    Convert(source=str(source), out=str(tmp_path / "b"), without="0").run()
    files = sorted((tmp_path / "b/videos").glob("*/*/*"))
    counts = [len(read_film(file).stamps) for file in files]
    assert counts == ([9, 15] if cut else [36])
    assert ("could not be cut" in capsys.readouterr().out) is not cut
    for mine, theirs in zip(before[1:], shown(tmp_path / "b"), strict=True):
        assert (mine == theirs).all()

    if cut:
        Convert(source=str(source), out=str(tmp_path / "v2"), to="v2.1").run()
        assert all((one == other).all() for one, other in zip(before, shown(tmp_path / "v2"), strict=True))
    else:
        with pytest.raises(DatasetError, match="episode 1 cannot be cut out of the film .*write v3.0"):
            Convert(source=str(source), out=str(tmp_path / "v2"), to="v2.1").run()
        assert not (tmp_path / "v2").exists()
    Convert(source=str(source), out=str(tmp_path / "all")).run()
    (film,) = (tmp_path / "all/videos").glob("*/*/*")
    assert film.read_bytes() == next((source / "videos").glob("*/*/*")).read_bytes()


def test_chosen_renamed_and_dropped(tmp_path):
    source = ours(tmp_path / "a")
    Convert(
        source=str(source), out=str(tmp_path / "b"), episodes="success and length > 10", tasks={"push": "push it"},
        drop=("cam", "observation.force"),
    ).run()  # fmt: skip
    a, b = open_dataset(source), open_dataset(tmp_path / "b")
    assert b.lengths.tolist() == [12, 15] and b.tasks == ("push it", "push it") and not b.cameras
    assert "observation.force" not in b.features and not b.embodiment.cameras
    kept = np.r_[0:12, 21:36]
    assert (b.columns["action"] == a.columns["action"][kept]).all()
    table = pq.read_table(tmp_path / "b/data/chunk-000/file-001.parquet")
    assert table["episode_index"].to_pylist() == [1] * 15 and table["index"].to_pylist() == list(range(12, 27))
    with pytest.raises(DatasetError, match="no episode has the task 'pull'; tasks: push; lift"):
        write_edited(str(source), tmp_path / "c", tasks={"pull": "x"})
    with pytest.raises(DatasetError, match="no column and no camera 'dog' to drop; there are action"):
        write_edited(str(source), tmp_path / "c", drop=("dog",))
    with pytest.raises(DatasetError, match="'action' cannot be dropped"):
        write_edited(str(source), tmp_path / "c", drop=("action",))
    assert not (tmp_path / "c").exists()


def test_labels_go_along(tmp_path):
    source = ours(tmp_path / "a")
    assert main(["label", str(source), "--success", "none", "--episodes", "2"]) == 0
    Convert(source=str(source), out=str(tmp_path / "b"), without="0", task="go").run()
    dataset = open_dataset(tmp_path / "b")
    assert [entry.success for entry in dataset.layout.entries] == [None, False] and dataset.tasks == ("go", "go")
    assert open_dataset(tmp_path / "b", episodes="labelled").lengths.tolist() == [15]


def test_merged_datasets_are_one_and_must_fit(tmp_path):
    one, other = ours(tmp_path / "a"), ours(tmp_path / "b", (6, 5), seed=1, tasks=("lift",))
    Convert(source=f"{one},{other}", out=str(tmp_path / "c")).run()
    merged, joined = open_dataset(tmp_path / "c"), open_dataset(f"{one},{other}")
    assert merged.tasks == joined.tasks and merged.lengths.tolist() == [12, 9, 15, 6, 5]
    assert all((merged.columns[key] == joined.columns[key]).all() for key in joined.columns if key != "task_index")
    assert [len(part) for part in shown(tmp_path / "c")] == [12, 9, 15, 6, 5]
    assert (shown(tmp_path / "c")[3] == shown(other)[0]).all()

    feet = Embodiment(**{**vars(BODY), "action_units": ("ft", "m")})
    ours(tmp_path / "feet", (5,), body=feet)
    with pytest.raises(DatasetError, match="not of one embodiment.*unit of 'x' differs"):
        Convert(source=f"{one},{tmp_path}/feet", out=str(tmp_path / "d")).run()
    ours(tmp_path / "video", (5,), how="video")
    with pytest.raises(
        DatasetError, match="'observation.images.cam' is image .* and video .*--drop observation.images"
    ):
        Convert(source=f"{one},{tmp_path}/video", out=str(tmp_path / "d")).run()


def test_split_by_shares_and_by_conditions(tmp_path, capsys):
    body = Embodiment(**{**vars(BODY), "cameras": {}})
    source = ours(tmp_path / "a", (5, 6, 7, 8, 9, 5, 6, 7, 8, 9), body=body)
    words = ["split", str(source), str(tmp_path / "s"), "--parts", "{train: 0.75, val: 0.25}", "--seed", "3"]
    assert main(words) == 0
    parts = [open_dataset(tmp_path / "s" / name) for name in ("train", "val")]
    assert [len(part.lengths) for part in parts] == [8, 2]
    together = np.concatenate([part.columns["action"] for part in parts])
    assert len(np.unique(together, axis=0)) == len(open_dataset(source))
    words[2] = str(tmp_path / "t")
    main(words)
    assert parts[1].fingerprint == open_dataset(tmp_path / "t/val").fingerprint

    Split(source=str(source), out=tmp_path / "c", parts={"won": "success and episode > 3", "lost": "not success"}).run()
    assert [len(open_dataset(tmp_path / "c" / name).lengths) for name in ("won", "lost")] == [6, 1]
    assert "3 episodes are in no part: 0, 2, 3" in capsys.readouterr().out
    for wrong, said in (
        ({"a": "success", "b": "episode < 5"}, "episode 0 is in the parts 'a' and 'b'"),
        ({"a": "0.9", "b": "0.2"}, "add up to 1.1"),
        ({"a": "0.9", "b": "success"}, "not both"),
        ({"a": "length > 99"}, "has no episode of the 10"),
        ({"../a": "0.5"}, "names of folders"),
    ):
        with pytest.raises(DatasetError, match=said):
            Split(source=str(source), out=tmp_path / "x", parts=wrong).run()


def test_rows_that_contradict_the_table_are_refused(tmp_path):
    source = ours(tmp_path / "a")
    path = source / "data/chunk-000/file-001.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(DatasetError, match="file-001.parquet"):
        Convert(source=str(source), out=str(tmp_path / "b")).run()
    assert not (tmp_path / "b").exists()


def test_a_film_that_is_not_there_is_named(tmp_path):
    source = ours(tmp_path / "a", how="video")
    (source / f"videos/{KEY}/chunk-000/file-001.mp4").unlink()
    with pytest.raises(
        DatasetError, match=r"no film of .* for 1 of the 3 episodes: 1; take .* --episodes 0,2, or .*--drop"
    ):
        Convert(source=str(source), out=str(tmp_path / "b")).run()
    Convert(source=str(source), out=str(tmp_path / "b"), without="1").run()
    assert len(shown(tmp_path / "b")) == 2


def test_a_part_that_fails_leaves_no_other(tmp_path, monkeypatch):
    from understudy.policies.data import split

    data, real = ours(tmp_path / "data"), split.write_edited

    def fails(source, out, *args, **named):
        if out.name == "second":
            raise DatasetError("the disk is full")
        real(source, out, *args, **named)

    monkeypatch.setattr(split, "write_edited", fails)
    with pytest.raises(DatasetError, match="the disk is full"):
        Split(source=str(data), out=tmp_path / "parts", parts={"first": "0.5", "second": "0.5"}).run()
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "cache"}


@pytest.mark.parametrize("options", [{}, {"bf": "2"}])
def test_packets_without_a_decoding_time_are_cut_all_the_same(tmp_path, monkeypatch, options):
    from understudy.policies.data.editing import cuts

    data = one_film(tmp_path / "data", g="3", keyint_min="3", sc_threshold="0", **options)
    film = read_film(next(data.rglob("*.mp4")))
    real = cuts._packets

    def silent(film):
        packets = real(film)
        for packet in packets:
            packet.dts = None
        return packets

    monkeypatch.setattr(cuts, "_packets", silent)
    outs = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    done = cuts.cut_film(film, [(np.arange(12), outs[0]), (np.arange(12, 21), outs[1])])
    monkeypatch.undo()
    assert done == cuts.cut_film(film, [(np.arange(12), tmp_path / "c.mp4"), (np.arange(12, 21), tmp_path / "d.mp4")])
    for out, count in zip(outs, (12, 9), strict=True):
        assert not out.exists() or len(read_film(out).times) == count
    assert done == [True, True] or options


BLIND = Embodiment(**{**vars(BODY), "cameras": {}})


def change_info(root, change):
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def change_tables(root, where, name, values):
    """Give the parquet files `where` of a dataset a column of `values(table)`."""
    for path in sorted(root.glob(where)):
        table = pq.read_table(path)
        if name in table.column_names:
            table = table.drop_columns([name])
        pq.write_table(table.append_column(name, pa.array(values(table))), path)


@pytest.mark.parametrize(
    ("ours_says", "theirs_says", "refused"),
    [
        ({}, {"names": ["g"]}, r"has g \[\?\] where .* has f \[\?\]"),
        ({"units": ["N"]}, {"units": ["lbf"]}, r"has f \[lbf\] where .* has f \[N\]"),
        ({"units": ["N"]}, {"names": None}, ""),  # what one side does not state is taken as told
    ],
)
def test_columns_of_other_names_or_units_are_not_merged(tmp_path, ours_says, theirs_says, refused):
    both = [ours(tmp_path / name, body=BLIND, seed=seed) for seed, name in enumerate("ab")]
    for root, said in zip(both, (ours_says, theirs_says), strict=True):
        change_info(root, lambda info, said=said: info["features"]["observation.force"].update(said))
    words = ["convert", ",".join(map(str, both)), str(tmp_path / "c")]
    if refused:
        with pytest.raises(DatasetError, match=refused):
            Convert(source=words[1], out=words[2]).run()
        with pytest.raises(DatasetError, match=refused):
            open_dataset(words[1])
        words += ["--drop", "observation.force"]
    assert main(words) == 0


def test_subtasks_keep_their_texts_or_are_not_merged(tmp_path):
    both = [ours(tmp_path / name, body=BLIND, seed=seed) for seed, name in enumerate("ab")]
    for root, texts in zip(both, (["reach", "grasp"], ["grasp", "place"]), strict=True):
        change_info(root, lambda info: info["features"].update(subtask_index={"dtype": "int64", "shape": [1]}))
        change_tables(root, "data/*/*", "subtask_index", lambda table: [row % 2 for row in range(len(table))])
        pq.write_table(pa.table({"subtask_index": [0, 1], "subtask": texts}), root / "meta/subtasks.parquet")
    Convert(source=str(both[0]), out=str(tmp_path / "one"), without="0").run()
    table = pq.read_table(tmp_path / "one/meta/subtasks.parquet")
    assert table["subtask"].to_pylist() == ["reach", "grasp"]
    with pytest.raises(DatasetError, match="'subtask_index' counts other texts in .*--drop subtask_index"):
        write_edited(f"{both[0]},{both[1]}", tmp_path / "two")
    write_edited(f"{both[0]},{both[1]}", tmp_path / "two", drop=("subtask_index",))
    assert not (tmp_path / "two/meta/subtasks.parquet").exists()


@pytest.mark.parametrize("form", ["v3.0", "v2.1"])
def test_what_the_table_says_of_episodes_goes_along(tmp_path, form):
    one, other = (ours(tmp_path / name, body=BLIND, seed=seed) for seed, name in enumerate("ab"))
    change_tables(one, "meta/episodes/*/*", "operator", lambda table: ["ann", None, "bob"][: len(table)])
    write_edited(f"{one},{other}", tmp_path / "c", form, without="0;1-2")
    if form == "v3.0":
        rows_of = pq.read_table(tmp_path / "c/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    else:
        rows_of = [json.loads(line) for line in (tmp_path / "c/meta/episodes.jsonl").read_text().splitlines()]
    assert [row["operator"] for row in rows_of] == [None, "bob", None]
    assert [row["env_seed"] for row in rows_of] == [101, 102, 100]


def test_a_merge_of_two_robots_says_whose_name_it_bears(tmp_path, capsys):
    both = [ours(tmp_path / name, body=BLIND, seed=seed) for seed, name in enumerate("ab")]
    write_edited(f"{both[0]},{both[1]}", tmp_path / "alike")
    assert "robot_type" not in capsys.readouterr().out
    for root, robot in zip(both, ("so100", "so101"), strict=True):
        change_info(root, lambda info, robot=robot: info.update(robot_type=robot))
    write_edited(f"{both[0]},{both[1]}", tmp_path / "both")
    assert "note: the robot_type of meta/info.json is that of the first dataset, so100; of others it was so101" in (
        capsys.readouterr().out
    )


def test_what_is_left_behind_is_said(tmp_path, capsys):
    source = ours(tmp_path / "a", body=BLIND)
    change_info(source, lambda info: info.update(splits={"train": "0:2", "val": "2:3"}))
    change_tables(source, "data/*/*", "note", lambda table: ["x"] * len(table))
    change_tables(source, "meta/episodes/*/*", "grasps", lambda table: [[1.0]] * len(table))
    (source / "meta/notes.md").write_text("who was there")
    write_edited(str(source), tmp_path / "b")
    said = capsys.readouterr().out
    assert "note: the splits of meta/info.json (train, val) are one" in said
    assert "meta/info.json does not list are left behind: note" in said
    assert "columns of the episodes table of" in said and "left behind: grasps" in said
    assert "left behind: meta/notes.md" in said
    write_edited(str(tmp_path / "b"), tmp_path / "c")
    assert "note" not in capsys.readouterr().out


def test_rows_of_a_task_that_the_table_does_not_give_are_told(tmp_path):
    source = ours(tmp_path / "a", body=BLIND)
    change_tables(source, "data/*/*", "task_index", lambda table: [0, *[1] * (len(table) - 1)])
    with pytest.warns(UserWarning, match="episode 0 in .* has rows of the task 'lift', the episodes table says 'push'"):
        write_edited(str(source), tmp_path / "b")


def test_a_recording_that_is_in_it_twice_is_told(tmp_path, capsys):
    one, other = ours(tmp_path / "a", body=BLIND), ours(tmp_path / "b", (6, 5, 7), body=BLIND, seed=1)
    write_edited(f"{one},{other}", tmp_path / "c")
    assert "note" not in capsys.readouterr().out
    write_edited(f"{one},{other},{one}", tmp_path / "c2")
    assert "3 episodes have the very actions of an earlier one, such as episode 6 of 0" in capsys.readouterr().out
    Split(source=str(tmp_path / "c2"), out=tmp_path / "s", parts={"x": "episode < 8", "y": "episode == 8"}).run()
    assert "1 episode has the very actions of one in another part, such as 8 (y) of 2 (x)" in capsys.readouterr().out
