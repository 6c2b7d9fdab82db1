"""Diffusion Policy's replay buffers: stores of zarr v2 and v3, folders and zip files, and damage that zarr never tells.

The stores here are written with zarr in the layout of the class `ReplayBuffer`. The reader was compared with a folder
and a zip that its own `add_episode` and `save_to_path` wrote, with zarr 2.16.1 (4 episodes): numbers and pixels equal.
"""

import json
import shutil
import warnings
import zipfile

import numpy as np
import pytest

from understudy.configs.spec import STATE
from understudy.policies.data.convert import Convert
from understudy.policies.data.formats.format import FormatError
from understudy.policies.data.formats.replay_buffer import ReplayBuffer
from understudy.policies.data.frames import open_frames
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.tables import DatasetWarning

zarr = pytest.importorskip("zarr")
ENDS = [30, 47, 88]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))


def held(pictures=np.float32):
    rng = np.random.default_rng(0)
    values = {
        "state": rng.normal(size=(88, 5)),
        "action": rng.normal(size=(88, 2)),
        "keypoint": rng.normal(size=(88, 9, 2)),
    }
    values = {key: one.astype(np.float32) for key, one in values.items()}
    return values | {"img": rng.integers(1, 256, (88, 16, 16, 3)).astype(pictures)}


def store(path, version=2, values=None, ends=ENDS):
    values = held() if values is None else values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else str(path)
        group = zarr.open_group(target, mode="w", zarr_format=version)
        arrays = {"meta/episode_ends": np.asarray(ends, np.int64)} | {f"data/{key}": one for key, one in values.items()}
        for name, one in arrays.items():
            chunks = (20, *one.shape[1:]) if name.startswith("data/") else one.shape
            group.create_array(name, data=one, chunks=chunks)
        if path.suffix == ".zip":
            target.close()
    return path


@pytest.mark.parametrize(("version", "name"), [(2, "a.zarr"), (3, "a.zarr"), (2, "a.zarr.zip"), (3, "b.zip")])
def test_every_key_has_its_place(tmp_path, version, name):
    dataset, values = open_dataset(store(tmp_path / name, version)), held()
    assert dataset.lengths.tolist() == [30, 17, 41]
    columns = {"action": "action", STATE: "state", "observation.keypoint": "keypoint"}
    assert all((dataset.columns[key] == values[one].reshape(88, -1)).all() for key, one in columns.items())
    if name == "a.zarr":
        assert (open_frames(dataset, "img").read(np.arange(88)) == values["img"]).all()
    assert "next.success" not in dataset.features and "next.reward" not in dataset.features
    assert not dataset.embodiment.states("rate") and dataset.embodiment.unknown_units


def test_the_rate_is_said_or_told_by_timestamps(tmp_path):
    Convert(source=str(store(tmp_path / "a.zarr")), out=str(tmp_path / "d"), rate=20, pictures="image").run()
    assert open_dataset(tmp_path / "d").rate == 20 and open_dataset(tmp_path / "d").embodiment.states("rate")
    times = np.concatenate([7.0 * number + np.arange(n) / 12.5 for number, n in enumerate((30, 17, 41))])
    timed = store(tmp_path / "b.zarr", values=held() | {"timestamp": times})
    assert open_dataset(timed).rate == 12.5
    with pytest.raises(FormatError, match="states 12.5 steps a second; leave out --rate 20"):
        Convert(source=str(timed), out=str(tmp_path / "e"), rate=20).run()


def test_what_float32_is_too_coarse_for_is_told_by_name(tmp_path):
    clock = {"stamp": 1.7e9 + np.arange(88) / 10}  # s since 1970
    with pytest.warns(DatasetWarning, match="a.zarr: 'data/stamp' holds numbers too great .* take an offset off"):
        open_dataset(store(tmp_path / "a.zarr", values=held() | clock))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DatasetWarning)
        open_dataset(store(tmp_path / "b.zarr", values=held() | {"stamp": np.arange(88) / 10}))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("key", ["data/action", "data/state", "data/img", "meta/episode_ends"])
def test_a_chunk_that_is_not_there_is_refused_and_not_read_as_zeros(tmp_path, version, key):
    root = store(tmp_path / "a.zarr", version)
    chunks = [path for path in (root / key).rglob("*") if path.is_file() and path.name[0].isdigit()]
    sorted(chunks)[0].unlink()
    group = zarr.open_group(str(root), mode="r")
    assert (group[key][:] == 0).any(), "zarr itself says nothing"
    with pytest.raises(DatasetError, match=f"1 of the . chunks of '{key}' are not there, which zarr reads as zeros"):
        open_dataset(root)


def test_a_wrong_name_makes_no_folder(tmp_path):
    for name in ("none.zarr", "none.zarr.zip"):
        with pytest.raises(DatasetError, match="does not exist"):
            open_dataset(tmp_path / name)
        with pytest.raises(FormatError, match="there is no"):
            Convert(source=str(tmp_path / name), out=str(tmp_path / "d"), format="replay-buffer").run()
        with pytest.raises(FormatError, match="there is no store"):
            ReplayBuffer().open(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def without(name):
    return lambda root: shutil.rmtree(root / name)


def rewritten(**changed):
    return lambda root: (
        shutil.rmtree(root),
        store(root, values={k: v for k, v in (held() | changed).items() if v is not None}),
    )


def truncated(name):
    def spoil(root):
        chunk = root / "data" / name / ("1.0" if name != "img" else "1.0.0.0")
        chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])

    return spoil


def metadata(key, value):
    def spoil(root):
        path = root / "data/state/.zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return spoil


FAULTS = {
    "no action": (without("data/action"), "no rows of numbers 'data/action'; its keys: img, keypoint, state"),
    "no ends": (without("meta"), "no array 'meta/episode_ends'"),
    "no data": (without("data"), "no group 'data'"),
    "a cut chunk": (truncated("state"), "1.0 is cut short or damaged: it is .* its head says otherwise"),
    "a cut picture": (truncated("img"), "1.0.0.0 is cut short or damaged"),
    "fewer rows": (rewritten(state=np.ones((80, 5))), "'data/state' has 80 rows, meta/episode_ends ends at 88"),
    "NaN": (rewritten(action=np.full((88, 2), np.nan)), "data/action is NaN or infinite in row 0"),
    "NaN in a state": (rewritten(state=np.full((88, 5), np.nan)), "observation.state of episode 0 is NaN"),
    "no picture": (rewritten(img=np.full((88, 16, 16, 3), 0.5)), "'data/img', rows 0 to 30, holds other values"),
    "ends fall": (lambda root: (shutil.rmtree(root), store(root, ends=[30, 20, 88])), "does not rise"),
    "ends past the rows": (lambda root: (shutil.rmtree(root), store(root, ends=[30, 47, 90])),
        "88 rows, .* ends at 90"),
    "a great shape": (metadata("shape", [88, 10**12]), "chunks of 'data/state' are not there|states the shape"),
    "another codec": (metadata("compressor", {"id": "imagecodecs_jpegxl"}), "cannot be read"),
    "a damaged document": (lambda root: (root / "data/state/.zarray").write_text("{"), "cannot be read|no array"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_told_by_name(tmp_path, fault):
    spoil, said = FAULTS[fault]
    root = store(tmp_path / "a.zarr")
    spoil(root)
    with pytest.raises(DatasetError, match=said) as told:
        open_dataset(root)
    assert "a.zarr" in str(told.value)


def test_a_damaged_zip_is_told_by_its_checksum(tmp_path):
    path = store(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as file:
        place = file.getinfo("data/state/1.0").header_offset + 60
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match="a.zip cannot be read .*CRC"):
        open_dataset(path)
