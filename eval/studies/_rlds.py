"""A small writer of RLDS folders, to try the reader on: TFRecord framing and protobuf by hand, apart from its code."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

CLASS = "tensorflow_datasets.core.features."


def crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 3720 defines it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def sized(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values: Any) -> bytes:
    if isinstance(values[0], bytes):
        return sized(1, b"".join(sized(1, one) for one in values))
    values = np.ravel(values)
    if values.dtype.kind == "f":
        return sized(2, sized(1, values.astype("<f4").tobytes()))
    return sized(3, sized(1, b"".join(varint(int(one)) for one in values)))


def example(features: dict[str, Any]) -> bytes:
    return sized(
        1, b"".join(sized(1, sized(1, key.encode()) + sized(2, feature(one))) for key, one in features.items())
    )


def tensor(*shape: int, dtype: str = "float32", encoding: str = "none") -> dict:
    sizes = {"dimensions": [str(size) for size in shape]} if shape else {}
    return {"pythonClassName": CLASS + "Tensor", "tensor": {"dtype": dtype, "encoding": encoding, "shape": sizes}}


def image(height: int, width: int) -> dict:
    shape = {"dimensions": [str(height), str(width), "3"]}
    return {"pythonClassName": CLASS + "Image", "image": {"dtype": "uint8", "encodingFormat": "png", "shape": shape}}


TEXT = {"pythonClassName": CLASS + "Text", "text": {}}


def nested(features: dict[str, dict]) -> dict:
    """`a/b` -> features within features."""
    out: dict[str, dict] = {}
    for key, one in features.items():
        first, _, rest = key.partition("/")
        out.setdefault(first, {})[rest] = one
    inner = {key: one[""] if "" in one else nested(one) for key, one in out.items()}
    return {"pythonClassName": CLASS + "FeaturesDict", "featuresDict": {"features": inner}}


def write(folder: Path, features: dict[str, dict], splits: dict[str, list], name: str = "toy") -> Path:
    """Write episodes (feature of a step -> values of all steps), by split, each a list of shards."""
    folder.mkdir(parents=True)
    steps = {"pythonClassName": CLASS + "Dataset", "sequence": {"feature": nested(features), "length": "-1"}}
    top = {"pythonClassName": CLASS + "FeaturesDict", "featuresDict": {"features": {"steps": steps}}}
    (folder / "features.json").write_text(json.dumps(top))
    told = []
    for split, shards in splits.items():
        for number, episodes in enumerate(shards):
            records = [frame(example({f"steps/{key}": one for key, one in episode.items()})) for episode in episodes]
            (folder / f"{name}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}").write_bytes(b"".join(records))
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        told.append({"name": split, "shardLengths": [str(len(one)) for one in shards], "filepathTemplate": template})
    info = {"name": name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": told}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder
