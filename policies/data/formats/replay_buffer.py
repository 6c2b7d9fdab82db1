"""Diffusion Policy's replay buffer: a zarr store (v2 or v3), a folder or a .zip, all episodes in one array a key.

    data/KEY              (N, ...) rows of all episodes, one after the other
    meta/episode_ends     (E,) row after the last one of each episode

What becomes of a key: `action` is the action; `state` or `obs`, if there is one, is `observation.state`, else all
vectors whose names begin with `robot` or hold `eef`, `joint` or `gripper`, in the order of the alphabet, else all
vectors; pictures, uint8 or whole floats of 0 to 255 as (N, h, w, 3), are cameras by the name of their key; further
vectors are columns `observation.KEY`. The rate is not stored: it is that of `timestamp`, or a guess.

zarr reads a chunk that is not there as zeros; here it is refused. (zarr 3 leaves out chunks that hold nothing but the
fill value; write with `write_empty_chunks=True`.) Zip files and some codecs have checksums, a folder with Blosc has
none. Source: `ReplayBuffer` of Chi et al. 2023 (arXiv:2303.04137), zarr 2.16 and 3.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ....configs.episode import PROGRESS, REWARD, SENT, SUCCESS, Episode
from ....configs.extras import pip_install
from ....configs.spec import IMAGES, STATE, Embodiment
from .format import FormatError, Recording, check_finite, counted, in_float32, outcome, register_format, silent_body

ENDS = "meta/episode_ends"
MARKS = (".zgroup", "zarr.json", ".zmetadata")  # one lies in the folder of a group
METADATA = (".zarray", ".zattrs", "zarr.json", ".DS_Store")
BLOSC = struct.Struct("<4BIII")  # versions, flags, size of a number; bytes of the values, of a block, of the chunk
STATES = ("state", "obs")
BODY = ("eef", "joint", "gripper")  # parts of names of what is the robot's own
REWARDS = ("reward", "rewards")
WIDEST = 4096  # numbers a row of what is still a vector
MOST = 2**40  # rows; no recording has more
CHUNKS = 10**7  # of an array; more are a damaged document
AGAIN = "copy the store again"
BROKEN = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError, NotImplementedError,
    AssertionError, ArithmeticError, MemoryError, EOFError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


@register_format("replay-buffer")
class ReplayBuffer:
    """See the module."""

    layout = f"FOLDER.zarr or FILE.zarr.zip (data/KEY, {ENDS})"

    def holds(self, root: Path) -> bool:
        if root.is_file():
            return root.suffix == ".zip" and zipfile.is_zipfile(root) and _prefix(root) is not None
        return (root / ENDS).is_dir() or any((root / name).is_file() for name in MARKS)

    def open(self, root: Path) -> Recording:
        with _reading(root) as store:
            ends = _ends(store)
            keys = {key: _shape(store, key) for key in store.keys}
            arrays = {key: shape for key, shape in keys.items() if shape}
            if len(arrays.get("action", ())) != 1:
                raise FormatError(f"{root} has no rows of numbers 'data/action'; its keys: {', '.join(keys)}; {AGAIN}")
            for key in keys:
                store.refuse_lost_chunks(f"data/{key}")
            for key in arrays:
                store.require_rows(key, int(ends[-1]))
            roles = _roles(arrays)
            action = store.read("data/action", 0, int(ends[-1])).reshape(int(ends[-1]), -1).astype(np.float32)
            check_finite(action, f"{root}: data/action")
            rate = _rate(store, ends)
        left = [key for key, shape in keys.items() if not shape]
        told = (
            f"observation.state: {', '.join(roles['state']) or 'none'}",
            f"cameras: {', '.join(roles['cameras']) or 'none'}",
            f"rate {rate:g} Hz by its timestamps" if rate else "the rate is not stored: 10 Hz is a guess, give --rate",
            "units, mode of the actions and success are not stated; limits are those of the data",
            *((f"left out, neither vectors nor pictures: {', '.join(left)}",) if left else ()),
        )
        names = [str(number) for number in range(len(ends))]
        extra = {f"observation.{key}": counted(key, arrays[key][0]) for key in roles["extra"]}
        unsaid = (SENT, PROGRESS, SUCCESS, *(() if roles["reward"] else (REWARD,)))
        return Recording(_body(root, arrays, roles, action, rate), names, told, extra, unsaid, inside=(roles, ends))

    def read(self, root: Path, recording: Recording, name: str) -> Episode:
        (roles, ends), number = recording.inside, int(name)
        first, last = int(ends[number - 1]) if number else 0, int(ends[number])
        with _reading(root) as store:

            def vectors(*keys: str) -> np.ndarray:
                parts = [in_float32(store.read(f"data/{key}", first, last), f"{root}: 'data/{key}'") for key in keys]
                return np.concatenate(parts, 1)

            obs = {STATE: vectors(*roles["state"])} if roles["state"] else {}
            obs |= {IMAGES + key: _pictures(store, key, first, last) for key in roles["cameras"]}
            extra = {f"observation.{key}": vectors(key) for key in roles["extra"]}
            action = vectors("action")
            reward = vectors(roles["reward"])[:, 0] if roles["reward"] else np.zeros(last - first, np.float32)
        for what, values in {"action": action, "reward": reward, **obs, **extra}.items():
            check_finite(values, f"{root}: {what} of episode {name}")
        won = outcome(last - first, False) | {"reward": reward}
        return Episode(start=number, task="", obs=obs, action=action, sent=action.copy(), extra=extra, **won)


class _Store:
    """A zarr group that is only read."""

    def __init__(self, root: Path, group: Any):
        self.root, self.group = root, group

    @property
    def keys(self) -> list[str]:
        """Keys below `data`."""
        if "data" not in self.group or not hasattr(self.group["data"], "keys"):
            raise FormatError(f"{self.root} has no group 'data'; it is no replay buffer, or {AGAIN}")
        return sorted(self.group["data"].keys())

    def array(self, name: str) -> Any:
        """An array that must be there."""
        if name not in self.group or not hasattr(self.group[name], "chunks"):
            raise FormatError(f"{self.root} has no array '{name}'; it is no replay buffer, or {AGAIN}")
        return self.group[name]

    def read(self, name: str, first: int, last: int) -> np.ndarray:
        """Rows of an array, as they were stored."""
        values = np.asarray(self.array(name)[first:last])
        if len(values) != last - first:
            raise FormatError(f"{self.root}: '{name}' ends before row {last}; {AGAIN}")
        return values

    def require_rows(self, key: str, rows: int) -> None:
        count = self.array(f"data/{key}").shape[0]
        if count != rows:
            raise FormatError(f"{self.root}: 'data/{key}' has {count} rows, {ENDS} ends at {rows}; {AGAIN}")

    def refuse_lost_chunks(self, name: str) -> None:
        """zarr would read them as the fill value."""
        array = self.array(name)
        sound = array.shape and all(size >= 1 for size in array.chunks) and max(array.shape) <= MOST
        if not sound or int(array.nchunks) > CHUNKS:
            raise FormatError(f"{self.root}: '{name}' states the shape {array.shape} in chunks {array.chunks}; {AGAIN}")
        due, there = int(array.nchunks), int(array.nchunks_initialized)
        if due != there:
            raise FormatError(
                f"{self.root}: {due - there} of the {due} chunks of '{name}' are not there, which zarr reads as zeros;"
                f" {AGAIN}, or if these values are really zero, write the array with write_empty_chunks=True"
            )
        if self.root.is_dir():
            _refuse_cut_chunks(self.root, name)


def _refuse_cut_chunks(root: Path, name: str) -> None:
    """Blosc reads past the end of a chunk that is cut short and gives what lies there; its head says how long it is."""
    stated = [root / name / mark for mark in (".zarray", "zarr.json")]
    if not any('"blosc"' in path.read_text(errors="replace") for path in stated if path.is_file()):
        return
    for path in (root / name).rglob("*"):
        if not path.is_file() or path.name in METADATA:
            continue
        with open(path, "rb") as file:
            head = file.read(BLOSC.size)
        size = path.stat().st_size
        if len(head) < BLOSC.size or BLOSC.unpack(head)[-1] != size:
            raise FormatError(
                f"{path} is cut short or damaged: it is {size} bytes long, its head says otherwise; {AGAIN}"
            )


@contextmanager
def _reading(root: Path) -> Iterator[_Store]:
    """The open store. What zarr says of a damaged one becomes a FormatError that names it; nothing is ever made."""
    try:
        import zarr
    except ImportError as error:
        raise FormatError(f"{root} is a zarr store, which zarr reads: {pip_install('formats')}") from error
    if not root.exists():
        raise FormatError(f"there is no store {root}")
    store: Any = None
    try:
        if root.is_file():
            store = getattr(zarr, "ZipStore", None) or zarr.storage.ZipStore
            store = store(str(root), mode="r")
            yield _Store(root, zarr.open_group(store, mode="r", path=_prefix(root) or None))
        else:
            yield _Store(root, zarr.open_group(str(root), mode="r"))
    except FormatError:
        raise
    except BROKEN as error:
        raise FormatError(f"{root} cannot be read ({_reason(error)}); {AGAIN}") from error
    finally:
        if store is not None and hasattr(store, "close"):
            store.close()


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if "imagecodecs" in text or "codec not available" in text:
        return (
            f"{text}; its pictures are compressed by a codec that is not installed: pip install imagecodecs-numcodecs"
        )
    return text


def _prefix(root: Path) -> str | None:
    """Path of the group in a zip file, "" at its top; None where it holds no replay buffer."""
    try:
        with zipfile.ZipFile(root) as file:
            names = file.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return None
    found = [name.partition(f"{ENDS}/")[0] for name in names if f"/{ENDS}/" in f"/{name}"]
    return min(found, key=len).strip("/") if found else None


def _ends(store: _Store) -> np.ndarray:
    """(E,) int64, ascending."""
    array = store.array(ENDS)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise FormatError(f"{store.root}: '{ENDS}' is {array.dtype} {array.shape}, one row of integers is due; {AGAIN}")
    store.refuse_lost_chunks(ENDS)
    ends = np.asarray(array[:]).astype(np.int64)
    if not len(ends):
        raise FormatError(f"{store.root} holds no episode")
    if ends[0] < 1 or ends[-1] > MOST or not (np.diff(ends) > 0).all():
        raise FormatError(f"{store.root}: '{ENDS}' does not rise from above 0: {ends[:5].tolist()} ...; {AGAIN}")
    return ends


def _shape(store: _Store, key: str) -> tuple[int, ...]:
    """(numbers a row) of a vector, (h, w, 3) of pictures, () of anything else."""
    array = store.array(f"data/{key}")
    shape = tuple(array.shape[1:])
    if array.dtype.kind not in "fiub" or not array.ndim:
        return ()
    if len(shape) == 3 and shape[-1] == 3 and min(shape[:2]) >= 8:
        return shape
    width = int(np.prod(shape))
    return (width,) if 0 < width <= WIDEST else ()


def _roles(arrays: dict[str, tuple[int, ...]]) -> dict:
    """Which keys are state, cameras, reward and further columns."""
    vectors = [key for key, shape in arrays.items() if len(shape) == 1 and key != "action"]
    reward = next((key for key in REWARDS if arrays.get(key) == (1,)), "")
    others = [key for key in vectors if key not in (*REWARDS, "timestamp")]
    state = [key for key in STATES if key in others][:1]
    state = state or [key for key in others if key.startswith("robot") or any(part in key for part in BODY)] or others
    return {
        "state": state,
        "cameras": [key for key, shape in arrays.items() if len(shape) == 3],
        "reward": reward,
        "extra": [key for key in vectors if key not in state and key != reward],
    }


def _body(root: Path, arrays: dict, roles: dict, action: np.ndarray, rate: float | None) -> Embodiment:
    state = tuple(name for key in roles["state"] for name in counted(key, arrays[key][0]))
    cameras = {key: (arrays[key][0], arrays[key][1]) for key in roles["cameras"]}
    name, width = root.name.split(".")[0], arrays["action"][0]
    names = tuple(map(str, range(width)))
    return silent_body(name, names, action.min(0), action.max(0), rate=rate, state=state, cameras=cameras)


def _rate(store: _Store, ends: np.ndarray) -> float | None:
    """Steps a second by `timestamp`, to a thousandth; None without one."""
    if "timestamp" not in store.keys:
        return None
    times = store.read("data/timestamp", 0, int(ends[-1])).astype(np.float64).reshape(int(ends[-1]), -1)[:, 0]
    steps = np.delete(np.diff(times), ends[:-1] - 1)
    usual = float(np.median(steps)) if len(steps) else 0.0
    if not np.isfinite(times).all() or usual <= 0:
        raise FormatError(f"{store.root}: 'data/timestamp' does not rise within its episodes; {AGAIN}")
    return round(1 / usual, 3)


def _pictures(store: _Store, key: str, first: int, last: int) -> np.ndarray:
    """(T, h, w, 3) uint8."""
    values = store.read(f"data/{key}", first, last)
    if values.dtype == np.uint8:
        return values
    whole = np.isfinite(values).all() and (values == np.rint(values)).all()
    if not whole or values.min() < 0 or values.max() > 255:
        where = f"{store.root}: 'data/{key}', rows {first} to {last},"
        raise FormatError(f"{where} holds other values than 0, 1, ... 255, which are no picture; write it as uint8")
    return values.astype(np.uint8)
