"""Whose rows an episode gets: what the episodes table promises is compared with what the rows of a file say."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.eval.inspect.files import inspect_dataset
from understudy.policies.data.layout import DatasetError, read_layout
from understudy.policies.data.open import open_dataset
from understudy.policies.data.rows import read_rows
from understudy.policies.data.several import join
from understudy.policies.data.tables import DatasetWarning

ACTION = "action"
LENGTHS = (12, 9, 15, 11)
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def episode_rows(e, length, fps=10, first=0):
    """The rows of one episode; the first action of frame t of episode e is 100 e + t."""
    frame = np.arange(length)
    columns = {
        ACTION: pa.array([[100.0 * e + t, t / 10] for t in frame], pa.list_(pa.float32())),
        "timestamp": pa.array((frame / fps).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(np.full(length, e)),
        "index": pa.array(first + frame),
    }
    return pa.table(columns)


def write(root, lengths=LENGTHS, ids=None, files=1, change=None, edit=None, drop=(), **info):
    """v3.0; `change` of the rows of each file, `edit` of the rows of the episodes table."""
    ids = list(range(len(lengths))) if ids is None else ids
    starts = np.cumsum(lengths) - lengths
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    place = [k * files // len(lengths) for k in range(len(lengths))]
    for file in range(files):
        parts = [
            episode_rows(e, n, first=int(start))
            for e, n, start, where in zip(ids, lengths, starts, place, strict=True)
            if where == file
        ]
        rows = pa.concat_tables(parts)
        rows = (change(rows) if change else rows).drop_columns(list(drop))
        pq.write_table(rows, root / DATA.format(chunk_index=0, file_index=file))
    table = [
        {"episode_index": e, "tasks": ["push"], "length": n, "data/chunk_index": 0, "data/file_index": where}
        | {"dataset_from_index": int(start), "dataset_to_index": int(start + n)}
        for e, n, start, where in zip(ids, lengths, starts, place, strict=True)
    ]
    table = edit(table) if edit else table
    pq.write_table(pa.Table.from_pylist(table), root / "meta/episodes/chunk-000/file-000.parquet")
    write_info(root, codebase_version="v3.0", data_path=DATA, **info)
    return root


def write_info(root, **more):
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    features = {ACTION: {"dtype": "float32", "shape": [2], "names": ["x", "y"]}, "timestamp": scalar}
    features |= {key: scalar for key in ("frame_index", "episode_index", "index")}
    (root / "meta").mkdir(exist_ok=True)
    info = {"fps": 10, "video_path": None, "features": features} | more
    (root / "meta/info.json").write_text(json.dumps(info))


def write_v2(root, lengths=LENGTHS, names=None, change=None, drop=()):
    """v2.1; `names[e]` is the number in the name of the file that holds episode e."""
    (root / "data/chunk-000").mkdir(parents=True)
    starts = np.cumsum(lengths) - lengths
    for e, n in enumerate(lengths):
        rows = episode_rows(e, n, first=int(starts[e]))
        rows = (change(rows) if change else rows).drop_columns(list(drop))
        name = e if names is None else names[e]
        pq.write_table(rows, root / f"data/chunk-000/episode_{name:06d}.parquet")
    path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    write_info(root, codebase_version="v2.1", data_path=path)
    rows = [{"episode_index": e, "tasks": ["push"], "length": n} for e, n in enumerate(lengths)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def taken(order):
    return lambda rows: rows.take(pa.array(order(rows)))


def by_episodes(*order):
    """Rows of a file in another order of episodes."""
    return taken(lambda rows: np.concatenate([np.flatnonzero(rows["episode_index"].to_numpy() == e) for e in order]))


def set_column(rows, name, values):
    place = rows.column_names.index(name)
    return rows.set_column(place, name, pa.array(values)) if values is not None else rows.remove_column(place)


def renumbered(rows):
    rows = by_episodes(0, 2, 1, 3)(rows)
    return set_column(rows, "index", np.arange(len(rows)))


def read(dataset):
    """Episode -> its first actions."""
    action = dataset.columns[ACTION][:, 0]
    spans = zip(dataset.episode_ids.tolist(), dataset.starts, dataset.lengths, strict=True)
    return {e: action[start : start + n].tolist() for e, start, n in spans}


def truth(lengths=LENGTHS, ids=None):
    ids = range(len(lengths)) if ids is None else ids
    return {e: [100.0 * e + t for t in range(n)] for e, n in zip(ids, lengths, strict=True)}


def opened_quietly(root):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error", DatasetWarning)
        return open_dataset(root, columns=())


def restarted(table):
    """As a merge leaves it whose second part counts from 0 again."""
    at = 0
    for k, row in enumerate(table):
        at = 0 if k == 2 else at
        row |= {"dataset_from_index": at, "dataset_to_index": at + row["length"]}
        at += row["length"]
    return table


def with_lengths(*lengths):
    def edit(table):
        at = 0
        for row, n in zip(table, lengths, strict=True):
            row |= {"length": n, "dataset_from_index": at, "dataset_to_index": at + n}
            at += n
        return table

    return edit


# --- what is fine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "drop",
    [(), ("index",), ("episode_index",), ("frame_index",), ("timestamp",), ("episode_index", "frame_index")]
    + [("index", "frame_index"), ("index", "episode_index"), ("index", "episode_index", "frame_index", "timestamp")],
)
@pytest.mark.parametrize("files", [1, 2, 4])
def test_what_agrees_opens_without_a_word_whichever_columns_are_there(tmp_path, files, drop):
    assert read(opened_quietly(write(tmp_path / "a", files=files, drop=drop))) == truth()
    assert read(opened_quietly(write_v2(tmp_path / "b", drop=drop))) == truth()


def test_ids_need_not_begin_at_0_nor_follow_each_other(tmp_path):
    ids = [5, 7, 8, 20]
    assert read(opened_quietly(write(tmp_path / "a", ids=ids))) == truth(ids=ids)


def test_numbers_may_be_stored_as_other_kinds(tmp_path):
    def change(rows):
        rows = set_column(rows, "episode_index", rows["episode_index"].to_numpy().astype(np.float64))
        rows = set_column(rows, "frame_index", rows["frame_index"].to_numpy().astype(np.int16))
        lists = pa.array([[i] for i in rows["index"].to_pylist()])
        return rows.set_column(rows.column_names.index("index"), "index", lists)

    assert read(opened_quietly(write(tmp_path / "a", change=change))) == truth()


def test_an_index_of_an_earlier_dataset_is_no_contradiction(tmp_path):
    def moved(rows):
        return set_column(rows, "index", rows["index"].to_numpy() + 1000 + 7 * rows["episode_index"].to_numpy())

    assert read(opened_quietly(write(tmp_path / "a", change=moved))) == truth()
    assert read(opened_quietly(write_v2(tmp_path / "b", change=moved))) == truth()


def test_rows_of_deleted_episodes_are_told_with_both_counts(tmp_path):
    root = write(tmp_path / "a", edit=lambda table: [table[1], table[3]])
    with pytest.warns(DatasetWarning, match=r"file-000.parquet has 47 rows, the episodes table lists 20.*other 27"):
        dataset = open_dataset(root)
    assert read(dataset) == {e: values for e, values in truth().items() if e in (1, 3)}


def test_episodes_that_were_not_chosen_are_not_unlisted(tmp_path):
    layout = read_layout(write(tmp_path / "a")).only([1, 3])
    assert [entry.id for entry in layout.entries] == [1, 3] and [entry.id for entry in layout.others] == [0, 2]
    file = layout.entries[0].file
    rows = read_rows(layout, file, [*layout.entries, *layout.others], [ACTION])
    assert rows.notes == () and [(entry.id, first) for entry, first in rows.places] == [
        (0, 0),
        (1, 12),
        (2, 21),
        (3, 36),
    ]


# --- what contradicts ----------------------------------------------------------------------------------------------


def test_exchanged_lengths_are_refused_with_both_numbers(tmp_path):
    root = write(tmp_path / "a", edit=with_lengths(12, 15, 9, 11))
    with pytest.raises(DatasetError, match=r"episode 1 has 9 rows in .*file-000.parquet .*the episodes table says 15"):
        open_dataset(root)
    with pytest.warns(DatasetWarning, match="episode 1 has 9 rows"):
        open_dataset(root, check=False)


@pytest.mark.parametrize(
    "spoil",
    [
        {"edit": restarted},
        {"change": by_episodes(0, 2, 1, 3)},
        {"change": renumbered},
        {"change": renumbered, "lengths": (10, 10, 10, 10)},
        {"change": taken(lambda rows: np.random.default_rng(0).permutation(len(rows)))},
        {"change": taken(lambda rows: np.arange(len(rows))[::-1])},
        {"change": lambda rows: set_column(renumbered(rows), "timestamp", None)},
        {"change": by_episodes(0, 2, 1, 3), "drop": ("frame_index",)},
        {"change": by_episodes(0, 2, 1, 3), "drop": ("episode_index",)},
        {"change": by_episodes(0, 2, 1, 3), "drop": ("episode_index",), "lengths": (10, 10, 10, 10)},
        {"change": by_episodes(0, 2, 1, 3), "drop": ("episode_index", "frame_index")},
    ],
    ids=lambda spoil: "-".join(spoil),
)
def test_rows_are_read_by_their_ids_where_these_are_complete(tmp_path, spoil):
    with pytest.warns(
        DatasetWarning, match=r"file-000.parquet do not lie as the episodes table says .* put in order by"
    ):
        dataset = open_dataset(write(tmp_path / "a", **spoil), columns=())
    assert read(dataset) == truth(spoil.get("lengths", LENGTHS))
    with pytest.warns(DatasetWarning):
        assert read(open_dataset(tmp_path / "a", check=False, columns=())) == read(dataset)


def test_two_files_that_changed_places(tmp_path):
    root = write(tmp_path / "a", lengths=(10, 10, 10, 10), files=2)
    one, two = (root / DATA.format(chunk_index=0, file_index=k) for k in (0, 1))
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)
    with pytest.raises(DatasetError, match=r"episode 0 has 0 rows in .*file-000.parquet .*rows of episode 2, 3 are in"):
        open_dataset(root)


def test_renamed_files_of_v2_are_refused(tmp_path):
    root = write_v2(tmp_path / "a", lengths=(10, 10, 10), names=[0, 2, 1])
    with pytest.raises(
        DatasetError, match=r"episode 1 has 0 rows in .*episode_000001.parquet .*rows of episode 2 are in"
    ):
        open_dataset(root)


@pytest.mark.parametrize("drop", [(), ("episode_index",), ("index", "episode_index"), ("frame_index",)])
def test_rows_of_a_v2_file_are_put_in_order(tmp_path, drop):
    backwards = taken(lambda rows: np.arange(len(rows))[::-1])
    with pytest.warns(DatasetWarning, match="put in order by"):
        assert read(open_dataset(write_v2(tmp_path / "a", change=backwards, drop=drop), columns=())) == truth()


def lost_and_doubled(rows):
    return pa.concat_tables([rows.slice(0, 5), rows.slice(4, 1), rows.slice(6)])


def shuffled_and_counted_anew(rows):
    """Rows of episode 2 in another order, with a new `frame_index`; the clock still tells."""
    order = np.arange(len(rows))
    order[21:36] = np.random.default_rng(0).permutation(order[21:36])
    frame, index = rows["frame_index"], rows["index"]
    rows = rows.take(pa.array(order))
    return set_column(set_column(rows, "frame_index", frame.to_numpy()), "index", index.to_numpy())


def shuffled_without_a_clock(rows):
    index = rows["index"]
    rows = shuffled_and_counted_anew(rows)
    order = np.arange(len(rows))
    order[21:36] = order[21:36][::-1]
    return set_column(set_column(rows, "index", index.to_numpy()[order]), "timestamp", None)


def counted_from_1(rows):
    return set_column(rows, "frame_index", rows["frame_index"].to_numpy() + 1)


def as_text(rows):
    return set_column(rows, "episode_index", [str(e) for e in rows["episode_index"].to_pylist()])


def half_numbers(rows):
    return set_column(rows, "frame_index", rows["frame_index"].to_numpy() + 0.5)


def empty_cells(rows):
    return set_column(rows, "episode_index", [None, *rows["episode_index"].to_pylist()[1:]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lost_and_doubled, "episode 0 in .*file-000.parquet has frame_index 4 where 5 is due"),
        (shuffled_and_counted_anew, "timestamps of episode 2 in .*file-000.parquet go back from .* at frame"),
        (shuffled_without_a_clock, "'frame_index' and 'index' of .* contradict each other in episode 2 from frame"),
        (as_text, "column 'episode_index' of .*file-000.parquet holds string; write whole numbers"),
        (half_numbers, "column 'frame_index' of .*file-000.parquet has cells that are empty or no whole numbers"),
        (empty_cells, "column 'episode_index' of .* has cells that are empty"),
    ],
)
def test_what_cannot_be_settled_is_refused(tmp_path, change, message):
    root = write(tmp_path / "a", change=change)
    with pytest.raises(DatasetError, match=message):
        open_dataset(root)
    with pytest.warns(DatasetWarning, match=message):
        open_dataset(root, check=False)


@pytest.mark.parametrize("drop", [("index", "episode_index"), ("index", "episode_index", "frame_index", "timestamp")])
def test_rows_that_cannot_be_counted_are_refused(tmp_path, drop):
    root = write(tmp_path / "a", drop=drop, change=lambda rows: rows.slice(0, 40))
    with pytest.raises(DatasetError, match="gives episode 3 11 frames in .*file-000.parquet, which has 40 rows"):
        open_dataset(root)


# --- clocks --------------------------------------------------------------------------------------------------------


def clock(rate=10.0, start=0.0, kind=np.float32, jitter=0.0):
    def change(rows):
        times = start + rows["frame_index"].to_numpy() / rate
        times = times + jitter * np.random.default_rng(0).uniform(-1, 1, len(times)) / rate
        return set_column(rows, "timestamp", times.astype(kind))

    return change


@pytest.mark.parametrize(
    "change",
    [clock(), clock(kind=np.float64), clock(start=1.7e9, kind=np.float64), clock(jitter=0.2), clock(10.2), clock(9.8)],
)
def test_clocks_that_go_as_stated(tmp_path, change):
    assert read(opened_quietly(write(tmp_path / "a", change=change))) == truth()


def with_gap(rows):
    times = rows["timestamp"].to_numpy().copy()
    times[5:12] += 0.1
    return set_column(rows, "timestamp", times)


def standing(rows):
    times = rows["timestamp"].to_numpy().copy()
    times[5] = times[4]
    return set_column(rows, "timestamp", times)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (clock(5.0), r"tell of 5 frames a second \(episode 0\), meta/info.json says fps 10"),
        (clock(9.0), "tell of 9 frames a second"),
        (clock(30.0), "tell of 30 frames a second"),
        (clock(start=1.7e9), "kept as float32 around 1.7e.09 s, in steps of 1.3e.02 s, too coarse for 10 frames"),
        (clock(np.inf), "never change within an episode"),
        (clock(start=np.nan), "hold NaN or infinite values"),
        (with_gap, "0.2 s pass from frame 4 to 5 of episode 0, 0.1 s are due, and 0 times more: frames may"),
        (standing, r"time does not go on at 1 frames \(episode 0, frame 5\)"),
    ],
)
def test_clocks_that_are_odd_are_told(tmp_path, change, message):
    with pytest.warns(DatasetWarning, match=message):
        dataset = open_dataset(write(tmp_path / "a", change=change), columns=())
    assert read(dataset) == truth()


# --- losses, joins, looking ------------------------------------------------------------------------------------------


def test_an_episode_lost_from_the_table_is_told(tmp_path):
    lost = write(tmp_path / "a", files=4, edit=lambda t: [*t[:2], *t[3:]], total_episodes=4, total_frames=47)
    with pytest.warns(
        DatasetWarning, match=r"total_episodes 4, .* lists 3: 1 are lost.*total_frames 47, .* lists 32: 15"
    ):
        open_dataset(lost)
    right = write(tmp_path / "b", total_episodes=4, total_frames=47)
    assert read(opened_quietly(right)) == truth()
    with pytest.warns(DatasetWarning, match=r"total_frames 50, the episodes table lists 47: 3 are lost"):
        open_dataset(write(tmp_path / "c", total_episodes=4, total_frames=50))


def test_what_a_killed_writer_leaves_is_no_loss(tmp_path):
    assert read(opened_quietly(write(tmp_path / "a", total_episodes=3, total_frames=36))) == truth()


def test_joined_datasets_know_what_their_rows_say(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", ids=[3, 4, 5, 6])
    layout = join((open_dataset(a), open_dataset(b))).layout
    assert [entry.recorded_id for entry in layout.entries] == [0, 1, 2, 3, 3, 4, 5, 6]
    second = [entry for entry in layout.entries if entry.file == layout.entries[4].file]
    assert read_rows(layout, second[0].file, second, [ACTION]).notes == ()


def test_inspect_prints_what_it_found(tmp_path, capsys):
    inspect_dataset(str(write(tmp_path / "a", edit=with_lengths(12, 15, 9, 11))), tmp_path / "a.png")
    assert "episode 1 has 9 rows" in capsys.readouterr().out.replace("\n", " ")
    inspect_dataset(str(write(tmp_path / "b", change=renumbered, lengths=(10,) * 4)), tmp_path / "b.png")
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "do not lie as the episodes table says" in shown and "no warnings" not in shown


def test_files_that_changed_places_are_told_by_their_index_alone(tmp_path):
    lengths, drop = (10, 10, 10), ("episode_index",)
    assert read(open_dataset(write_v2(tmp_path / "right", lengths, drop=drop), columns=())) == truth(lengths)
    with pytest.raises(DatasetError, match=r"episode_000001.parquet come after .*episode_000002.parquet by 'index'"):
        open_dataset(write_v2(tmp_path / "exchanged", lengths, names=[0, 2, 1], drop=drop))
    restart = write_v2(tmp_path / "anew", lengths, drop=drop, change=lambda rows: set_column(rows, "index", range(10)))
    assert read(open_dataset(restart, columns=())) == truth(lengths)


def test_files_that_the_table_does_not_list_are_counted(tmp_path):
    root = write(tmp_path / "data", files=2, edit=lambda table: table[:2])
    with pytest.warns(DatasetWarning, match="lists 21 rows in 1 files; 26 more lie in 1 files"):
        assert len(open_dataset(root)) == 21


def test_numbers_that_index_leaves_out_within_an_episode_are_told(tmp_path):
    def skip(rows):
        index = rows["index"].to_numpy()
        return set_column(rows, "index", np.where(index > 4, index + 3, index))

    with pytest.warns(DatasetWarning, match="leaves out 3 numbers within episode 0"):
        assert read(open_dataset(write(tmp_path / "data", change=skip))) == truth()


def test_a_frame_index_may_begin_elsewhere(tmp_path):
    with pytest.warns(DatasetWarning, match="begins at 1 in episode 0, not at 0"):
        assert read(open_dataset(write(tmp_path / "data", change=counted_from_1))) == truth()


def test_a_task_that_the_rows_and_the_table_tell_otherwise_is_named(tmp_path):
    def tasks(rows):
        return rows.append_column("task_index", pa.array(np.repeat([0, 1, 0, 1], LENGTHS)))

    def edit(table):
        return [row | {"tasks": [text]} for row, text in zip(table, ("push", "push", "pull", "pull"), strict=True)]

    root = write(tmp_path / "data", change=tasks, edit=edit)
    pq.write_table(pa.table({"task_index": [0, 1], "__index_level_0__": ["push", "pull"]}), root / "meta/tasks.parquet")
    with pytest.warns(DatasetWarning, match="episode 1 .* has the task 'pull' by its rows .*, 'push' by the episodes"):
        open_dataset(root)


def actions(change):
    """The actions changed, in 64 bits."""
    return lambda rows: set_column(rows, ACTION, change(rows[ACTION].to_pylist()))


def test_an_empty_cell_is_named_and_hinders_its_own_episode_alone(tmp_path):
    root = write(tmp_path / "data", change=actions(lambda cells: [None, *cells[1:]]))
    with pytest.raises(DatasetError, match="has 1 empty cells, the first in row 0"):
        open_dataset(root)
    assert list(read(open_dataset(root, without="0"))) == [1, 2, 3]


def test_what_float32_cannot_hold_is_told(tmp_path):
    far = actions(lambda cells: [[a + 1e9, b] for a, b in cells])
    with pytest.warns(DatasetWarning, match=r"varies by 310 around 1e\+09 and is read in steps of 64"):
        open_dataset(write(tmp_path / "far", change=far))
    great = actions(lambda cells: [[a * 1e39, b] for a, b in cells])
    refused = pytest.raises(DatasetError, match="is inf in episode 0")
    with pytest.warns(DatasetWarning, match="more than float32 holds"), refused:
        open_dataset(write(tmp_path / "great", change=great))
