"""Films: every row gets its own frame, found by time or by order, or the film is refused with the reason."""

import json
import subprocess
import sys
import warnings
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.policies.data.decode import _colours
from understudy.policies.data.films import read_film
from understudy.policies.data.frames import open_frames
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.tables import DatasetWarning

KEY, NTSC = "observation.images.cam", Fraction(30000, 1001)
LENGTHS = (12, 9, 15)
SHARP = {"crf": "1"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))


def levels(rows):
    """Grey level of the frame of each row."""
    return (np.asarray(rows) * 6 + 10) % 240


def film(path, count, rate=30, codec="libx264", first=0, without=(), **options):
    """Write a film of flat grey frames, the first of which is shown at frame number `first`."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream(codec, rate=rate, options=SHARP | options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = 1 / Fraction(rate)
        for i in range(count):
            if i in without:
                continue
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), levels(i), np.uint8), format="rgb24")
            frame.pts, frame.time_base = first + i, 1 / Fraction(rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def dataset(root, lengths=LENGTHS, starts=None, fps=30, shape=(48, 64, 3)):
    """Write one of states and a camera whose clips begin at `starts` (s) of one film, by default one after another."""
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    ends, total = np.cumsum(lengths).tolist(), sum(lengths)
    entries = []
    for e, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        place = {"data/chunk_index": 0, "data/file_index": 0}
        place |= {f"videos/{KEY}/chunk_index": 0, f"videos/{KEY}/file_index": 0}
        place[f"videos/{KEY}/from_timestamp"] = (end - length) / fps if starts is None else float(starts[e])
        borders = {"length": length, "dataset_from_index": end - length, "dataset_to_index": end}
        entries.append({"episode_index": e, "tasks": ["push"]} | place | borders)
    pq.write_table(pa.Table.from_pylist(entries), root / "meta/episodes/chunk-000/file-000.parquet")
    numbers = pa.array(np.random.default_rng(0).normal(size=(total, 2)).tolist(), pa.list_(pa.float32()))
    frames = np.concatenate([np.arange(n) for n in lengths])
    columns = {"observation.state": numbers, "action": numbers, "index": np.arange(total), "frame_index": frames}
    columns |= {"timestamp": (frames / fps).astype(np.float32), "task_index": np.zeros(total, np.int64)}
    columns["episode_index"] = np.repeat(np.arange(len(lengths)), lengths)
    pq.write_table(pa.table(columns), root / "data/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": [0], "__index_level_0__": ["push"]}), root / "meta/tasks.parquet")
    vector = {"dtype": "float32", "shape": [2], "names": None}
    features = {"observation.state": vector, "action": vector}
    features |= {key: {"dtype": "int64", "shape": [1]} for key in ("index", "frame_index", "episode_index")}
    features |= {"timestamp": {"dtype": "float32", "shape": [1]}, KEY: {"dtype": "video", "shape": shape}}
    info = {"codebase_version": "v3.0", "fps": fps, "features": features, "total_episodes": len(lengths)}
    info |= {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    info |= {"video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root / f"videos/{KEY}/chunk-000/file-000.mp4"


def seen(root, episodes=None):
    """Grey level of every row of the episodes, and the warnings that came."""
    found = open_dataset(root)
    rows = np.arange(len(found))
    if episodes is not None:
        rows = np.concatenate([np.arange(found.lengths[m]) + found.starts[m] for m in episodes])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pictures = open_frames(found, "cam", episodes=episodes).read(rows)
    off = np.abs(pictures.mean((1, 2, 3)) - levels(rows)).max()
    assert off < 3, f"frames of other rows: {off}"
    return " ".join(str(one.message) for one in told if issubclass(one.category, DatasetWarning))


def shifted(frames):
    """Starts of the three clips, the last two of them wrong by so many frames."""
    return [0, (12 + frames) / 30, (21 + frames) / 30]


@pytest.mark.parametrize("frames", [0.2, 0.6, -0.6, 1, -1, 2.4])
def test_clips_that_begin_beside_the_frames_are_read_in_their_order_where_the_film_holds_just_them(tmp_path, frames):
    film(dataset(tmp_path / "toy", starts=shifted(frames)), sum(LENGTHS))
    for episodes in ([1], [2], [0]):
        told = seen(tmp_path / "toy", episodes)
        assert "file-000.mp4" in told and "paired in their order" in told


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (0.6, "episode 1 begins beside the frames of the film .*0.60 frames after frame 12 and 0.40 before"),
        (-0.6, "episode 1 begins beside .*0.40 frames after frame 11"),
        (-1, "episode 1 begins at frame 11 of the film .*before episode 0 ends, at frame 11: 1 frames would belong"),
        (8, "36 frames|40 frames and its episodes 36 rows, but by time it lacks frame"),
    ],
)
def test_else_the_whole_film_is_refused_with_the_first_clip_that_is_off(tmp_path, frames, reason):
    film(dataset(tmp_path / "toy", starts=shifted(frames)), sum(LENGTHS) + 4)
    for episodes in ([0], [1], [2]):
        with pytest.raises(DatasetError, match=reason):
            open_frames(open_dataset(tmp_path / "toy"), "cam", episodes=episodes)


def test_a_clip_that_is_a_tenth_of_a_frame_off_is_read_without_a_word(tmp_path):
    film(dataset(tmp_path / "toy", starts=shifted(0.08)), sum(LENGTHS) + 4)
    assert not seen(tmp_path / "toy")


def test_a_whole_frame_between_two_clips_is_warned_of(tmp_path):
    path = dataset(tmp_path / "toy", (12, 9), starts=[0, 13 / 30])
    film(path, 25)
    found = open_dataset(tmp_path / "toy")
    with pytest.warns(DatasetWarning, match="1 frames .* between episode 0 and episode 1 .* too late, by 1 frames"):
        open_frames(found, "cam", episodes=[1])


def test_a_film_that_begins_late_is_read_in_order_or_refused(tmp_path):
    film(dataset(tmp_path / "toy"), sum(LENGTHS), first=3)
    assert "begins at 0.1 s, 3.00 frames after episode 0" in seen(tmp_path / "toy")
    film(dataset(tmp_path / "more"), sum(LENGTHS) + 3, first=3)
    with pytest.raises(DatasetError, match="begins at 0.1 s.*None of the 3 episodes"):
        open_frames(open_dataset(tmp_path / "more"), "cam", episodes=[1])
    film(dataset(tmp_path / "own", starts=[0.1, 15 / 30, 24 / 30]), sum(LENGTHS), first=3)
    assert not seen(tmp_path / "own")  # its clips begin late, too


@pytest.mark.parametrize(
    "options",
    [{"bf": "3", "g": "250"}, {"bf": "3", "g": "8", "x264-params": "open-gop=1"}, {"bf": "0", "g": "2"}],
)
def test_frames_that_are_stored_out_of_order_stand_at_their_rows(tmp_path, options):
    film(dataset(tmp_path / "toy"), sum(LENGTHS), **options)
    assert not seen(tmp_path / "toy") and not seen(tmp_path / "toy", [1])


def test_a_little_other_rate_shows_over_long_films_only(tmp_path):
    film(dataset(tmp_path / "short"), sum(LENGTHS) + 2, rate=NTSC)
    assert "Hz" not in seen(tmp_path / "short")
    film(dataset(tmp_path / "one", (600,)), 600, rate=NTSC)
    assert "600 frames at 29.97 Hz, episode 0 has 600 rows at 30 Hz" in seen(tmp_path / "one")
    film(dataset(tmp_path / "by time", (400, 200), starts=[0, 400 / float(NTSC)]), 610, rate=NTSC)
    assert "610 frames at 29.97 Hz, its 2 episodes have 600 rows" in seen(tmp_path / "by time", [1])


@pytest.mark.parametrize(("lengths", "frames"), [((600,), 604), ((300, 200, 300), 810), ((1000, 100), 1110)])
def test_films_at_another_rate_with_frames_to_spare_are_refused_with_rates_and_counts(tmp_path, lengths, frames):
    film(dataset(tmp_path / "toy", lengths), frames, rate=NTSC)
    with pytest.raises(DatasetError, match=f"{frames} frames at 29.97 Hz.* {sum(lengths)} rows at 30 Hz") as told:
        open_frames(open_dataset(tmp_path / "toy"), "cam", episodes=[len(lengths) - 1])
    assert "copy it again" not in str(told.value) and "fps" in str(told.value)


@pytest.mark.parametrize(("fps", "rate"), [(5, 20), (20, 5), (30, 60)])
def test_one_frame_a_row_at_quite_another_rate_is_paired_one_to_one(tmp_path, fps, rate):
    film(dataset(tmp_path / "toy", (22,), fps=fps), 22, rate=rate)
    assert f"22 frames at {rate} Hz, episode 0 has 22 rows at {fps} Hz" in seen(tmp_path / "toy")


def test_a_film_that_is_cut_short_says_so_whatever_its_rate(tmp_path):
    path = dataset(tmp_path / "toy")
    film(path, 30)
    told = seen(tmp_path / "toy", [0, 1])  # which are whole, if the film is cut at its end
    assert "has 30 frames, its episodes 36 rows: if it lost frames before its end" in told
    with pytest.raises(DatasetError, match="lacks frame 9 of the 15 of episode 2; copy it again"):
        open_frames(open_dataset(tmp_path / "toy"), "cam")
    film(path, sum(LENGTHS) + 1, without=(5,))
    with pytest.raises(DatasetError, match="lacks frame 5 of the 12 of episode 0; copy it again"):
        open_frames(open_dataset(tmp_path / "toy"), "cam")
    film(dataset(tmp_path / "slow", (22,), fps=5), 15, rate=20)
    with pytest.raises(DatasetError, match="15 frames at 20 Hz.*22 rows at 5 Hz.* 7 rows have no frame") as told:
        open_frames(open_dataset(tmp_path / "slow"), "cam")
    assert "copy it again" not in str(told.value)


def test_a_film_of_every_moment_gives_the_frame_at_the_time_of_each_row(tmp_path):
    film(dataset(tmp_path / "toy", (10,), fps=5), 40, rate=20)
    found = open_dataset(tmp_path / "toy")
    with pytest.warns(DatasetWarning, match="40 frames at 20 Hz.*10 rows at 5 Hz.*at the time of each row"):
        pictures = open_frames(found, "cam").read(np.arange(10))
    np.testing.assert_allclose(pictures.mean((1, 2, 3)), levels(4 * np.arange(10)), atol=3)


@pytest.mark.parametrize(
    ("matrix", "spread", "wanted"),
    [
        (None, None, (220, 39, 30)),
        (5, None, (220, 39, 30)),
        (1, None, (236, 56, 27)),
        (1, 2, (221, 63, 38)),
        (9, None, (227, 45, 26)),
    ],
)
def test_films_have_the_colours_that_they_are_tagged_with_as_in_other_programs(tmp_path, matrix, spread, wanted):
    import av
    import cv2

    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10, options=SHARP)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if matrix:
            stream.codec_context.colorspace = matrix
        if spread:
            stream.codec_context.color_range = spread
        red = np.full((48, 64, 3), (220, 40, 30), np.uint8)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        file.mux(stream.encode())
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
    ours = _colours(frame, path)
    assert tuple(ours[24, 32]) == wanted
    if tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 13) or matrix in (None, 5):  # before, it ignores tags
        np.testing.assert_array_equal(ours, cv2.VideoCapture(str(path)).read()[1][..., ::-1])
    if matrix in (None, 5):
        np.testing.assert_array_equal(ours, frame.to_ndarray(format="rgb24"))


def test_a_film_tells_its_times_without_being_decoded(tmp_path):
    film(tmp_path / "a.mp4", 20, rate=10, bf="3")
    found = read_film(tmp_path / "a.mp4")
    np.testing.assert_allclose(found.times, np.arange(20) / 10)
    assert found.rate == pytest.approx(10) and found.places.tolist() == list(range(20))


def test_a_dataset_that_is_named_twice_or_joined_has_the_frames_of_each(tmp_path):
    film(dataset(tmp_path / "a"), sum(LENGTHS))
    film(dataset(tmp_path / "b", starts=shifted(0.6)), sum(LENGTHS))
    for names in ("a,a", "b,b", "a,b"):
        found = open_dataset(",".join(str(tmp_path / name) for name in names.split(",")))
        pictures = open_frames(found, "cam").read(np.arange(2 * sum(LENGTHS)))
        rows = np.tile(np.arange(sum(LENGTHS)), 2)
        np.testing.assert_allclose(pictures.mean((1, 2, 3)), levels(rows), atol=3)


def test_a_film_may_be_left_before_its_end_while_its_decoder_logs(tmp_path):
    """Somebody, as lerobot, may have turned PyAV's logging on; in a process of its own, for it might wait for ever."""
    film(tmp_path / "film.mp4", 60, bf="0")
    script = f"""
import logging, pathlib
import av, numpy as np
from understudy.policies.data.decode import read_frames
from understudy.policies.data.films import read_film
av.logging.set_level(av.logging.DEBUG)
logging.getLogger("libav").setLevel(logging.CRITICAL)
film = read_film(pathlib.Path({str(tmp_path / "film.mp4")!r}))
print(sum(len(list(read_frames(film, np.arange(i, i + 3)))) for i in range(50)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.stdout == "150\n", done.stderr


@pytest.mark.parametrize(("more", "told"), [(1, "37 frames for 36 rows: the last 1 belong to none"), (12, "")])
def test_a_frame_too_many_is_told_episodes_that_were_left_out_are_not(tmp_path, more, told):
    film(dataset(tmp_path / "toy"), sum(LENGTHS) + more)
    assert told in (said := seen(tmp_path / "toy")) and bool(said) == bool(told)


def episodes_table(root, change):
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pa.Table.from_pylist([change(row) for row in pq.read_table(path).to_pylist()]), path)


def test_a_clip_that_ends_elsewhere_than_its_rows_is_told(tmp_path):
    film(dataset(tmp_path / "toy"), sum(LENGTHS))
    episodes_table(tmp_path / "toy", lambda row: row | {f"videos/{KEY}/to_timestamp": 1.2})
    assert "clip of episode 0 in the film" in (told := seen(tmp_path / "toy")) and "36 frames, and has 12 rows" in told


def test_clips_that_lie_in_another_order_than_the_rows_are_told(tmp_path):
    film(dataset(tmp_path / "toy", starts=(0, 27 / 30, 12 / 30)), sum(LENGTHS))
    with pytest.warns(DatasetWarning, match="episode 1 lies before episode 2 in .* and after it in the film"):
        open_frames(open_dataset(tmp_path / "toy"), "cam")


def test_rows_with_a_film_whose_time_does_not_begin_at_0_are_told(tmp_path):
    film(dataset(tmp_path / "toy"), sum(LENGTHS))
    path = tmp_path / "toy/data/chunk-000/file-000.parquet"
    rows = pq.read_table(path)
    late = pa.array(rows["timestamp"].to_numpy() + np.float32(0.5))
    pq.write_table(rows.set_column(rows.column_names.index("timestamp"), "timestamp", late), path)
    with pytest.warns(DatasetWarning, match=r"begin at 0.5 s in episode 0, not at 0; .* 15 frames beside"):
        open_dataset(tmp_path / "toy")
