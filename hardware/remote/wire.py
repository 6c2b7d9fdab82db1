"""Messages as bytes: one msgpack map each, read into frozen dataclasses field by field. No pickle, no objects.

An array is a map {dtype, shape, data} whose dtype is one of `DTYPES` and whose bytes are as many as dtype and shape
say; nothing else becomes an array. A message with a field too many, too few or of another kind is refused by the
field's name, before anything is made of the others.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import numpy as np

DTYPES = ("<f4", "<f8", "<i4", "<i8", "|u1", "|b1")  # little-endian numbers and truth values, as NumPy names them
MOST_DIMENSIONS = 6
LONGEST_TEXT = 2**16  # characters of one text

Message = TypeVar("Message")
KINDS: dict[str, type] = {}  # what a message says it is -> its class


class WireError(ValueError):
    """Bytes that are no message; says which field, and what it should be."""


def message(kind: str) -> Callable[[type[Message]], type[Message]]:
    """Register a frozen dataclass as the message of this name."""

    def register(made: type[Message]) -> type[Message]:
        KINDS[kind] = made
        made.KIND = kind  # type: ignore[attr-defined]
        return made

    return register


def pack(content: Any) -> bytes:
    """The bytes of a message."""
    return _packer().pack({"is": content.KIND} | _plain(content))


_OWN = threading.local()


def _packer() -> Any:
    """This thread's; it keeps its buffer: growing one anew to a picture's size costs more than copying."""
    if not hasattr(_OWN, "packer"):
        import msgpack

        _OWN.packer = msgpack.Packer(default=_default)
    return _OWN.packer


def unpack(data: bytes | str, *wanted: type) -> Any:
    """The message in these bytes, which must be one of `wanted`.

    Raises:
        WireError: anything else, by the name of what is wrong.
    """
    import msgpack

    if isinstance(data, str):
        raise WireError("a message is bytes, not text")
    try:
        values = msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=True)
    except (ValueError, msgpack.UnpackException) as error:  # UnicodeDecodeError and ExtraData are ValueErrors
        raise WireError(f"these {len(data)} bytes are no message ({type(error).__name__})") from error
    if not isinstance(values, dict):
        raise WireError(f"a message is a map, not {type(values).__name__}")
    kind = values.pop("is", None)
    made = KINDS.get(kind) if isinstance(kind, str) else None
    if made not in wanted:
        names = " or ".join(kind for kind, one in KINDS.items() if one in wanted)
        raise WireError(f"expected {names}, got {repr(kind)[:40]}")
    return _build(made, values, kind)


def _plain(content: Any) -> dict[str, Any]:
    """The fields of a dataclass, those inside it not opened yet."""
    return {field.name: getattr(content, field.name) for field in dataclasses.fields(content)}


def _default(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.str not in DTYPES:
            raise WireError(f"an array of {value.dtype} is not sent; numbers are {', '.join(DTYPES)}")
        return {"dtype": value.dtype.str, "shape": list(value.shape), "data": np.ascontiguousarray(value).data}
    if dataclasses.is_dataclass(value):
        return _plain(value)
    raise WireError(f"{type(value).__name__} is not sent")


def _build(made: type[Message], values: Mapping, place: str) -> Message:
    known = _readers(made)  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise WireError(f"{place} has no field {repr(name)[:40]}")
    missing = [name for name in known if name not in values]
    if missing:
        raise WireError(f"{place} lacks the field '{missing[0]}'")
    return made(**{name: read(values[name], f"{place}.{name}") for name, read in known.items()})


@cache
def _readers(made: type) -> dict[str, Callable[[Any, str], Any]]:
    hints = typing.get_type_hints(made)
    return {field.name: _reader(hints[field.name]) for field in dataclasses.fields(made)}


def _reader(hint: Any) -> Callable[[Any, str], Any]:
    """What reads a value of an annotated type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = _reader(next(part for part in parts if part is not type(None)))
        return lambda value, place: None if value is None else inner(value, place)
    if origin is tuple:
        return _sequence(_reader(parts[0]), None if parts[-1] is ... else len(parts))
    if origin is dict:
        return _mapping(_reader(parts[1]))
    if dataclasses.is_dataclass(hint):
        return lambda value, place: _build(hint, _a_map(value, place), place)  # type: ignore[arg-type]
    return _SIMPLE[hint]


def _sequence(read: Callable[[Any, str], Any], length: int | None) -> Callable[[Any, str], tuple]:
    def of(value: Any, place: str) -> tuple:
        if not isinstance(value, list) or length not in (None, len(value)):
            raise WireError(f"{place} must be a list{'' if length is None else f' of {length}'}")
        return tuple(read(one, place) for one in value)

    return of


def _mapping(read: Callable[[Any, str], Any]) -> Callable[[Any, str], dict]:
    def of(value: Any, place: str) -> dict:
        return {_text(key, place): read(one, f"{place}[{key!r:.60}]") for key, one in _a_map(value, place).items()}

    return of


def _a_map(value: Any, place: str) -> dict:
    if not isinstance(value, dict):
        raise WireError(f"{place} must be a map, not {type(value).__name__}")
    return value


def _whole(value: Any, place: str) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise WireError(f"{place} must be a whole number of 64 bits")
    return value


def _number(value: Any, place: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise WireError(f"{place} must be a finite number")
    return float(value)


def _truth(value: Any, place: str) -> bool:
    if type(value) is not bool:
        raise WireError(f"{place} must be true or false")
    return value


def _text(value: Any, place: str) -> str:
    if type(value) is not str or len(value) > LONGEST_TEXT:
        raise WireError(f"{place} must be a text of at most {LONGEST_TEXT} characters")
    return value


def _bytes(value: Any, place: str) -> bytes:
    if type(value) is not bytes:
        raise WireError(f"{place} must be bytes")
    return value


def array_of(dtype: Any, shape: Any, data: Any, place: str) -> np.ndarray:
    """The array of these bytes, read-only. Raises WireError unless all three fit."""
    if dtype not in DTYPES or type(dtype) is not str:
        raise WireError(f"{place} has numbers of {repr(dtype)[:40]}; it may be {', '.join(DTYPES)}")
    whole = isinstance(shape, (list, tuple)) and all(type(size) is int and size >= 0 for size in shape)
    if not whole or len(shape) > MOST_DIMENSIONS:
        raise WireError(f"{place} has no shape of at most {MOST_DIMENSIONS} sizes")
    kind = np.dtype(dtype)
    if type(data) is not bytes or len(data) != math.prod(shape) * kind.itemsize:
        raise WireError(f"{place} does not hold the bytes of {dtype} in the shape {list(shape)}")
    if dtype == "|b1" and data.translate(None, b"\0\1"):
        raise WireError(f"{place} holds truth values that are neither true nor false")
    return np.frombuffer(data, kind).reshape(shape)


def _array(value: Any, place: str) -> np.ndarray:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data"}:
        raise WireError(f"{place} must be an array: a map of dtype, shape and data")
    return array_of(value["dtype"], value["shape"], value["data"], place)


_SIMPLE: dict[Any, Callable[[Any, str], Any]] = {
    int: _whole,
    float: _number,
    bool: _truth,
    str: _text,
    bytes: _bytes,
    np.ndarray: _array,
}
