"""The framing of TFRecord files, and the messages `tf.train.Example` in them, without TensorFlow and protobuf.

    uint64 length, uint32 masked CRC-32C of it, the bytes, uint32 masked CRC-32C of them; again and again, little endian

A record is handed out only if both checksums agree, so no changed bit passes. Sources: TensorFlow's `tf_record.h` and
`example.proto`, protobuf's wire format, RFC 3720 (CRC-32C).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from .format import FormatError

HEAD = struct.Struct("<QI")
TAIL = struct.Struct("<I")
POLYNOMIAL = 0x82F63B78  # of Castagnoli, bits reversed
MASK = 0xA282EAD8
LANES = 512  # parts of a long message that are taken at once
SHORT = 4096  # bytes up to which a message is taken byte by byte
VARINT, FIXED64, SIZED, FIXED32 = 0, 1, 2, 5  # wire types
AGAIN = "copy the file again"

Values = list[bytes] | np.ndarray


# -- records


def record_places(path: Path) -> list[tuple[int, int]]:
    """(offset, length) of the records of a file, by their heads alone.

    Raises:
        FormatError: a head whose checksum does not agree, a file that is cut short.
    """
    size, at = path.stat().st_size, 0
    places: list[tuple[int, int]] = []
    with open(path, "rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(HEAD.size)
            if len(head) < HEAD.size:
                raise FormatError(f"{path} is cut short: it ends within the head of record {len(places)}; {AGAIN}")
            length, stated = HEAD.unpack(head)
            if masked_crc(head[:8]) != stated:
                what = f"the length of record {len(places)} has a wrong checksum"
                raise FormatError(f"{path} is damaged: {what}; {AGAIN}")
            if at + HEAD.size + length + TAIL.size > size:
                raise FormatError(f"{path} is cut short: record {len(places)} is {length} bytes long; {AGAIN}")
            places.append((at + HEAD.size, length))
            at += HEAD.size + length + TAIL.size
    return places


def read_record(path: Path, offset: int, length: int) -> bytes:
    """The bytes of one record. Raises FormatError where their checksum does not agree."""
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(length + TAIL.size)
    if len(data) < length + TAIL.size:
        raise FormatError(f"{path} is cut short; {AGAIN}")
    if masked_crc(data[:length]) != TAIL.unpack(data[length:])[0]:
        raise FormatError(f"{path} is damaged: the record at byte {offset} has a wrong checksum; {AGAIN}")
    return data[:length]


# -- checksums


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated by 15 bits and moved by a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C of bytes, by google-crc32c where it is installed (zarr 3 brings it)."""
    try:
        from google_crc32c import value
    except ImportError:
        return own_crc32c(data)
    return int(value(data))


def own_crc32c(data: bytes) -> int:
    """The same in numpy: long messages are cut into lanes of equal length, whose remainders are joined."""
    width = len(data) // LANES if len(data) > SHORT else 0
    head = data[: len(data) - width * LANES]
    crc = 0xFFFFFFFF
    table = _table().tolist()
    for byte in head:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    if width:
        lanes = np.frombuffer(data, np.uint8, offset=len(head)).reshape(LANES, width)
        for part in _remainders(np.ascontiguousarray(lanes.T)).tolist():
            crc = _shifted(crc, width) ^ part
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> np.ndarray:
    """(256,) remainder of each byte."""
    values: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> 1) ^ np.uint32(POLYNOMIAL), values >> 1)
    return values


def _remainders(columns: np.ndarray) -> np.ndarray:
    """(lanes,) remainder of each lane, beginning at 0, of its bytes (length, lanes)."""
    table, crc = _table(), np.zeros(columns.shape[1], np.uint32)
    for bytes_ in columns:
        crc = table[(crc ^ bytes_) & 0xFF] ^ (crc >> 8)
    return crc


def _shifted(crc: int, count: int) -> int:
    """The remainder after `count` zero bytes."""
    out = 0
    for bit, image in enumerate(_zeros(count)):
        if crc >> bit & 1:
            out ^= image
    return out


@cache
def _zeros(count: int) -> tuple[int, ...]:
    """What `count` zero bytes make of each single bit: a matrix over two elements, by repeated squaring."""
    table = _table().tolist()
    step = tuple(table[(1 << bit) & 0xFF] ^ (1 << bit >> 8) for bit in range(32))  # one byte
    out = tuple(1 << bit for bit in range(32))

    def times(matrix: tuple[int, ...], value: int) -> int:
        total = 0
        for bit, image in enumerate(matrix):
            if value >> bit & 1:
                total ^= image
        return total

    while count:
        if count & 1:
            out = tuple(times(step, value) for value in out)
        step = tuple(times(step, value) for value in step)
        count >>= 1
    return out


# -- messages


def read_example(data: bytes, what: str, only: Collection[str] = ()) -> dict[str, Values]:
    """Feature -> its values: a list of bytes, or (n,) float32 or int64.

    Args:
        what: whose message it is, for errors.
        only: names of the features that are wanted; default all.

    Raises:
        FormatError: bytes that are no such message.
    """
    try:
        out: dict[str, Values] = {}
        for number, features in _fields(data):
            for inner, entry in _fields(features) if number == 1 else ():
                if inner != 1:
                    continue
                pair = dict(_fields(entry))
                if (name := bytes(pair[1]).decode()) in only or not only:
                    out[name] = _values(pair.get(2, b""))
        return out
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise FormatError(f"{what} is no tf.train.Example ({error}); {AGAIN}") from error


def _fields(data) -> Iterator[tuple[int, memoryview]]:
    """(number, bytes) of the fields of a message that have a length; those of fixed size come as their bytes."""
    view, at = memoryview(data), 0
    while at < len(view):
        key, at = _varint(view, at)
        kind = key & 7
        if kind == VARINT:
            begin = at
            _, at = _varint(view, at)
        elif kind in (FIXED64, FIXED32):
            begin, at = at, at + (8 if kind == FIXED64 else 4)
        elif kind == SIZED:
            length, begin = _varint(view, at)
            at = begin + length
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(view):
            raise ValueError("it ends within a field")
        yield key >> 3, view[begin:at]


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """(value, place behind it)."""
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a whole number of more than 64 bits")


def _values(feature) -> Values:
    """The list of a `Feature`: of bytes, of floats or of whole numbers."""
    for number, content in _fields(feature):
        if number == 1:
            return [bytes(part) for inner, part in _fields(content) if inner == 1]
        parts = [part for inner, part in _fields(content) if inner == 1]
        joined = b"".join(bytes(part) for part in parts)
        if number == 2:
            return np.frombuffer(joined, "<f4").astype(np.float32)
        if number == 3:
            return _varints(joined)
    return []


def _varints(data: bytes) -> np.ndarray:
    """(n,) int64 of whole numbers of seven bits a byte."""
    bytes_ = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(bytes_ < 0x80)
    if len(bytes_) and (not len(ends) or ends[-1] != len(bytes_) - 1):
        raise ValueError("it ends within a whole number")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    if len(ends) and int((ends - starts).max()) > 9:
        raise ValueError("a whole number of more than 64 bits")
    lengths = ends - starts + 1
    places = np.arange(len(bytes_)) - np.repeat(starts, lengths)
    parts = (bytes_.astype(np.uint64) & np.uint64(0x7F)) << (places * 7).astype(np.uint64)
    return np.add.reduceat(parts, starts).astype(np.int64) if len(ends) else np.zeros(0, np.int64)
