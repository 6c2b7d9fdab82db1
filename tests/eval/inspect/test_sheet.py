"""The sheet and the text of `inspect`: all dimensions, wide columns in one line, cameras that show nothing, `--out`."""

import json
import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from understudy.__main__ import main
from understudy.configs.spec import ACTION, STATE
from understudy.eval.inspect.inspect import Inspect
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.open import open_dataset

CAMERA = "observation.images.cam"
LENGTHS = (12, 9)


def column(values):
    """An Arrow column of lists, or of pictures as PNG."""
    kind = pa.from_numpy_dtype(values.dtype)
    for _ in values.shape[1:]:
        kind = pa.list_(kind)
    return pa.array(values.tolist(), kind)


def pngs(pictures):
    import cv2

    return [{"bytes": cv2.imencode(".png", picture)[1].tobytes(), "path": None} for picture in pictures]


def write(root, pictures=None, names=None, **columns):
    """A dataset of these columns (rows, ...) and, where given, of one camera of PNG."""
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    total, ends = sum(LENGTHS), np.cumsum(LENGTHS).tolist()
    frames = np.concatenate([np.arange(n) for n in LENGTHS])
    kept = {"timestamp": (frames / 10).astype(np.float32), "frame_index": frames, "index": np.arange(total)}
    kept |= {"episode_index": np.repeat(np.arange(len(LENGTHS)), LENGTHS), "task_index": np.zeros(total, np.int64)}
    values = columns | kept
    features = {k: {"dtype": str(v.dtype), "shape": list(v.shape[1:]) or [1], "names": None} for k, v in values.items()}
    table = {key: column(one) for key, one in values.items()}
    if pictures is not None:
        features[CAMERA] = {"dtype": "image", "shape": [*pictures[0].shape[:2], 3], "names": None}
        table[CAMERA] = pa.array(pngs(pictures), pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    for key in (STATE, ACTION):
        if names and key in features:
            features[key]["names"] = names
    pq.write_table(pa.table(table), root / "data/chunk-000/file-000.parquet")
    entries = [
        {"episode_index": e, "tasks": ["push"], "length": n, "data/chunk_index": 0, "data/file_index": 0}
        | {"dataset_from_index": end - n, "dataset_to_index": end}
        for e, (n, end) in enumerate(zip(LENGTHS, ends, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(entries), root / "meta/episodes/chunk-000/file-000.parquet")
    info = {"codebase_version": "v3.0", "fps": 10, "features": features, "video_path": None}
    info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def vectors(width, seed=0):
    return np.random.default_rng(seed).normal(size=(sum(LENGTHS), width)).astype(np.float32)


def noise():
    return np.random.default_rng(0).integers(0, 255, (sum(LENGTHS), 32, 48, 3), np.uint8)


def told(root, tmp_path, capsys, out="sheet.svg"):
    Inspect(source=str(root), out=tmp_path / out).run()
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [12, 60])
def test_every_dimension_is_drawn_under_its_name(tmp_path, capsys, width):
    names = [f"joint_{i:02d}" for i in range(width)]
    root = write(tmp_path / "toy", names=names, **{STATE: vectors(width), ACTION: vectors(width, 1)})
    told(root, tmp_path, capsys)
    text = (tmp_path / "sheet.svg").read_text()
    assert all(text.count(name) == 2 for name in names)  # a histogram of the state, one of the action
    assert "not drawn" not in text and "1 of 2" in text


def test_what_is_not_drawn_is_counted_and_named(tmp_path, capsys):
    root = write(
        tmp_path / "toy", **{STATE: vectors(2), ACTION: vectors(2, 1), "force": vectors(3), "heat": vectors(1)}
    )
    told(root, tmp_path, capsys)
    assert "not drawn: 2 columns, force, heat" in (tmp_path / "sheet.svg").read_text()


def test_a_wide_column_is_one_line_and_one_panel(tmp_path, capsys):
    wide = vectors(96)
    wide[:, 7] = 3
    root = write(tmp_path / "toy", **{STATE: wide, ACTION: vectors(2), "touch": vectors(256).reshape(-1, 16, 16)})
    text = told(root, tmp_path, capsys)
    assert len(text.splitlines()) < 40 and "96 numbers (96 float32)" in text and "256 numbers (16x16 float32)" in text
    assert f"'{STATE}' never changes in 1 of its 96 numbers, the first is 7" in text
    sheet = (tmp_path / "sheet.svg").read_text()
    assert sheet.count("all 96 numbers") == 1 and sheet.count("all 256 numbers") == 1
    assert "64 of its 96 numbers" in sheet


@pytest.mark.parametrize("shape", [(32, 48, 3), (3, 32, 48), (32, 48), (32, 48, 1)])
def test_a_picture_stored_as_numbers_is_named_and_not_loaded(tmp_path, capsys, shape):
    stored = np.random.default_rng(0).integers(0, 255, (sum(LENGTHS), *shape), np.uint8)
    root = write(tmp_path / "toy", **{STATE: vectors(2), ACTION: vectors(2, 1), "obs.view": stored})
    for check in (True, False):
        assert "obs.view" not in open_dataset(root, check=check).columns
    assert open_dataset(root, columns=("obs.view",)).columns["obs.view"].shape == (21, stored[0].size)  # if asked for
    with pytest.raises(DatasetError, match="has no camera 'view'"):
        open_dataset(root).camera("view")
    text = told(root, tmp_path, capsys)
    assert len(text.splitlines()) < 30 and text.count("warning: 'obs.view' is a picture stored as numbers") == 1
    assert f"{stored[0].size} numbers ({'x'.join(map(str, shape))} uint8, 21 frames)" in text
    assert f"{stored.mean():.5g}" in text and "`image` or `video`" in text
    assert "obs.view, a picture stored as numbers" in (tmp_path / "sheet.svg").read_text()


def test_a_camera_asked_for_that_is_stored_as_numbers_says_so(tmp_path):
    stored = np.zeros((sum(LENGTHS), 32, 48, 3), np.uint8)
    root = write(tmp_path / "toy", **{STATE: vectors(2), ACTION: vectors(2, 1), CAMERA: stored})
    with pytest.raises(DatasetError, match="'cam' of .* is a picture stored as numbers .* `image` or `video`"):
        open_dataset(root, columns=(STATE, CAMERA))


def test_a_camera_that_shows_nothing_or_always_the_same_is_told(tmp_path, capsys):
    motion = {STATE: vectors(2), ACTION: vectors(2, 1)}
    pictures = noise()
    text = told(write(tmp_path / "black", pictures // 64, **motion), tmp_path, capsys, "1.png")
    assert "camera 'cam' is black in 2 of 2 episodes looked at: 0, 1" in text
    frozen = pictures.copy()
    frozen[12:] = frozen[12]
    text = told(write(tmp_path / "frozen", frozen, **motion), tmp_path, capsys, "2.png")
    assert "camera 'cam' stands still, showing the same picture all the time, in 1 of 2 episodes looked at: 1" in text
    stops = pictures.copy()
    stops[4:12] = stops[4]
    text = told(write(tmp_path / "stops", stops, **motion), tmp_path, capsys, "3.png")
    assert "camera 'cam' stands still from about frame 4 to frame 11 of episode 0, which has 12" in text
    text = told(write(tmp_path / "flat", np.full_like(pictures, 90), **motion), tmp_path, capsys, "4.png")
    assert "camera 'cam' shows one shade without any detail in 2 of 2" in text


def test_a_good_camera_is_not_warned_of(tmp_path, capsys):
    text = told(write(tmp_path / "toy", noise(), **{STATE: vectors(2), ACTION: vectors(2, 1)}), tmp_path, capsys)
    assert "camera 'cam'" not in text and "camera cam" in (tmp_path / "sheet.svg").read_text()


def test_a_camera_that_cannot_be_read_is_told_and_the_rest_is_drawn(tmp_path, capsys):
    deep = np.full((sum(LENGTHS), 32, 48), 1000, np.uint16)
    root = write(tmp_path / "toy", deep, **{STATE: vectors(2), ACTION: vectors(2, 1)})
    text = told(root, tmp_path, capsys)
    assert "camera 'cam' cannot be read: observation.images.cam of episode 0 holds no colours" in text
    sheet = (tmp_path / "sheet.svg").read_text()
    assert "not drawn: camera cam" in sheet and "length of the episodes" in sheet


def test_pictures_of_another_size_are_told(tmp_path, capsys):
    root = write(tmp_path / "toy", noise(), **{STATE: vectors(2), ACTION: vectors(2, 1)})
    info = json.loads((root / "meta/info.json").read_text())
    for shape, says in (([96, 96, 3], "are 32x48, meta/info.json says 96x96"), ([4], "which no picture has")):
        info["features"][CAMERA]["shape"] = shape
        (root / "meta/info.json").write_text(json.dumps(info))
        assert says in told(root, tmp_path, capsys, f"{len(shape)}.png")


def test_a_dataset_in_which_nothing_is_observed_says_so(tmp_path, capsys):
    text = told(write(tmp_path / "toy", **{ACTION: vectors(2), "qpos": vectors(2, 1)}), tmp_path, capsys)
    assert "nothing is observed: neither observation.state" in text and "its other columns: qpos" in text


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("nowhere/page.html", "does not exist"),
        ("nowhere/sheet.png", "does not exist"),
        ("sheet.txt", ".png, .svg, .pdf"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, monkeypatch, out, reason):
    from understudy.eval.inspect import files

    monkeypatch.setattr(files, "open_dataset", lambda *_, **__: pytest.fail("the work began"))
    begun = time.process_time()
    assert main(["inspect", str(tmp_path), "--out", str(tmp_path / out)]) == 2
    assert reason in capsys.readouterr().err and time.process_time() - begun < 3


def test_a_folder_that_may_not_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    from understudy.eval.inspect import files

    monkeypatch.setattr(files, "open_dataset", lambda *_, **__: pytest.fail("the work began"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.chdir(tmp_path)
    for out in (tmp_path / "sheet.png", None):
        with pytest.raises(DatasetError, match="may not be written; give --out"):
            Inspect(source=str(tmp_path), out=out).run()


def test_endings_may_be_written_large(tmp_path, capsys):
    told(write(tmp_path / "toy", **{STATE: vectors(2), ACTION: vectors(2, 1)}), tmp_path, capsys, "SHEET.PDF")
    assert (tmp_path / "SHEET.PDF").read_bytes().startswith(b"%PDF")
