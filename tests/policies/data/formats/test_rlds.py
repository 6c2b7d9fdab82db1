"""RLDS without TensorFlow: every feature has its place, every record its checksum.

The files here come from a writer of our own (`eval/studies/_rlds.py`). It was compared with files of
tensorflow-datasets 4.9.10 and TensorFlow 2.21 (three episodes in two splits; pictures as PNG and JPEG, float32,
float64, int64, bool, texts): all numbers and texts equal, PNG pictures equal in every pixel; JPEG within 7 of 255 (0.8
on average), since the two decode with other transforms.
"""

import json
import zlib

import cv2
import numpy as np
import pytest

from understudy.configs.spec import STATE
from understudy.eval.studies._rlds import TEXT, image, tensor, write
from understudy.policies.data.convert import Convert
from understudy.policies.data.formats import tfrecord
from understudy.policies.data.frames import open_frames
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset

FEATURES = {
    "observation/image": image(16, 24), "observation/state": tensor(8), "observation/depth": {"audio": {}},
    "action": tensor(7), "reward": tensor(), "is_first": tensor(dtype="bool"), "is_last": tensor(dtype="bool"),
    "language_instruction": TEXT, "count": tensor(dtype="int64"), "packed": tensor(2, dtype="float64", encoding="zlib"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))


def pictures(number, steps):
    return np.random.default_rng(number).integers(0, 255, (steps, 16, 24, 3), np.uint8)


def episode(number, steps):
    rng = np.random.default_rng(number)
    flags = np.arange(steps)
    return {
        "observation/image": [cv2.imencode(".png", one[..., ::-1])[1].tobytes() for one in pictures(number, steps)],
        "observation/state": rng.normal(size=(steps, 8)).astype(np.float32),
        "action": rng.normal(size=(steps, 7)).astype(np.float32),
        "reward": (flags == steps - 1).astype(np.float32),
        "is_first": (flags == 0).astype(int),
        "is_last": (flags == steps - 1).astype(int),
        "language_instruction": [f"put the cup {number}".encode()] * steps,
        "count": flags - 3,
        "packed": [zlib.compress(np.array([one, -one], np.float64).tobytes()) for one in flags / 8],
    }


def folder(root, **changed):
    """Three episodes of 5, 7 and 4 steps; the second is changed."""
    held = [episode(number, steps) for number, steps in enumerate((5, 7, 4))]
    held[1] = {key: one for key, one in (held[1] | changed).items() if one is not None}
    return write(root, FEATURES, {"train": [held[:1], held[1:2]], "val": [held[2:]]})


def test_every_feature_has_its_place(tmp_path, capsys):
    dataset = open_dataset(folder(tmp_path / "toy/1.0.0"))
    held = [episode(number, steps) for number, steps in enumerate((5, 7, 4))]

    def same(column, key):
        whole = np.concatenate([one[key] for one in held])
        return (dataset.columns[column] == whole.reshape(16, -1)).all()

    assert same("action", "action") and same(STATE, "observation/state") and same("next.reward", "reward")
    assert same("steps.count", "count") and dataset.columns["steps.packed"][:, 0].max() == 0.75
    assert dataset.tasks == ("put the cup 0", "put the cup 1", "put the cup 2")
    seen = open_frames(dataset, "image").read(np.arange(16))
    assert (seen == np.concatenate([pictures(number, steps) for number, steps in enumerate((5, 7, 4))])).all()
    assert "left out, which are not read: observation/depth" in capsys.readouterr().err
    assert open_dataset(tmp_path / "toy", episodes="'val' in subsets").lengths.tolist() == [4]
    Convert(source=str(tmp_path / "toy"), out=str(tmp_path / "d"), rate=5, pictures="image").run()
    assert open_dataset(tmp_path / "d").rate == 5 and "is_first" not in dataset.features


def test_every_changed_bit_is_told(tmp_path):
    root = folder(tmp_path / "toy")
    path = next(root.glob("*train*00001-of*"))
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for place in (*range(12), *rng.integers(12, len(data), 40).tolist()):
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        with pytest.raises(DatasetError, match="checksum|no tf.train.Example|episode 1|cut short"):
            open_dataset(root)
    for left in rng.integers(1, len(data), 10).tolist():
        path.write_bytes(data[:left])
        with pytest.raises(DatasetError, match="cut short"):
            open_dataset(root)
    path.write_bytes(data)
    assert open_dataset(root).lengths.tolist() == [5, 7, 4]


def test_checksums_are_those_of_crc32c():
    rng = np.random.default_rng(0)
    assert tfrecord.own_crc32c(b"123456789") == 0xE3069283  # of RFC 3720
    for size in (0, 1, 4096, 4097, 70001):
        data = rng.bytes(size)
        assert tfrecord.own_crc32c(data) == tfrecord.crc32c(data)


def info(change):
    def spoil(root):
        path = root / "dataset_info.json"
        told = json.loads(path.read_text())
        change(told)
        path.write_text(json.dumps(told))

    return spoil


FAULTS = {
    "NaN": ({"action": np.full((7, 7), np.nan, np.float32)}, "action of episode 1 .* is NaN"),
    "no action": ({"action": None}, "lacks 'steps/action', which features.json promises"),
    "a step less": ({"observation/state": np.ones((6, 8), np.float32)},
        "has 7 actions and 6 steps of observation.state"),
    "another width": ({"observation/state": np.ones((6, 9), np.float32)},
        "holds 54 numbers of 'steps/observation/state', 8"),
    "whole numbers": ({"action": np.ones((7, 7), np.int64)},
        "holds 'steps/action' as int64, features.json promises float32"),
    "a part of one": ({"is_last": np.zeros(7, int)}, r"has 7 steps, is_last is set at \[\]"),
    "several in one": ({"is_first": np.array([1, 0, 0, 1, 0, 0, 0])}, r"is_first is set at \[0, 3\]"),
    "no picture": ({"observation/image": [b"\x89PNG\r\n\x1a\nx"] * 7},
        "step 0: 'observation/image' is no readable picture"),
    "a picture less": ({"observation/image": [cv2.imencode(".png", pictures(0, 1)[0])[1].tobytes()] * 6}, "6 steps of"),
    "another size": ({"observation/image": [cv2.imencode(".png", np.ones((8, 8, 3)))[1].tobytes()] * 7},
        r"\(8, 8, 3\)"),
    "a shard": (lambda root: next(root.glob("*val*")).unlink(), "val.tfrecord-00000-of-00001 is missing"),
    "a shard too much": (lambda root: (root / "toy-test.tfrecord-00000-of-00001").write_bytes(b"x"), "to no split"),
    "another count": (info(lambda told: told["splits"][0].update(shardLengths=["1", "2"])),
        "holds 1 records, .* promises 2"),
    "array_record": (info(lambda told: told.update(fileFormat="array_record")),
        "stored as array_record, which is not read"),
    "a way out": (info(lambda told: told["splits"][0].update(filepathTemplate="../{SPLIT}")), "is missing"),
    "no splits": (info(lambda told: told.pop("splits")), "says nothing sound of its splits"),
    "features": (lambda root: (root / "features.json").write_text('{"a": 1}'), "describes no steps of episodes"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_told_by_name(tmp_path, fault):
    change, said = FAULTS[fault]
    root = folder(tmp_path / "toy", **(change if isinstance(change, dict) else {}))
    if callable(change):
        change(root)
    with pytest.raises(DatasetError, match=said):
        open_dataset(root)
