"""RLDS as tensorflow-datasets writes it (Open X-Embodiment, DROID): episodes as records of TFRecord files.

    features.json             what a record holds: `steps`, a sequence of action, observation, reward, ...
    dataset_info.json         splits, their files and how many records each has
    NAME-SPLIT.tfrecord-00000-of-00008

Neither TensorFlow nor tensorflow-datasets is needed. What becomes of a feature of `steps`: `action`, or all that lies
below it in the order of the alphabet, is the action; `observation/state`, else `observation/proprio`, else all vectors
of the observation but embeddings, are `observation.state`; pictures of the observation are cameras by their name;
`language_instruction` or `observation/natural_language_instruction` at the first step is the task; further numbers are
columns `observation.NAME` and `steps.NAME`. `is_first` and `is_last` are checked and not carried. All splits are read,
each a subset. The rate and success are not stored. By RLDS the action of a last step means nothing; many recordings
have one there, so it is kept. Refused by name: other file formats than tfrecord, an action that is no numbers. Left
out by name: ragged and nested sequences, videos, audio. Source: Ramos et al. 2021 (arXiv:2111.02767), tfds 4.9.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....configs.episode import PROGRESS, REWARD, SENT, SUCCESS, Episode
from ....configs.spec import IMAGES, STATE, Embodiment
from ..decode import read_picture
from .format import FormatError, Recording, check_finite, counted, in_float32, outcome, register_format, silent_body
from .tfrecord import Values, read_example, read_record, record_places

FEATURES, INFO = "features.json", "dataset_info.json"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
STEPS, OBSERVATION, ACTION = "steps/", "observation/", "action"
STATES = ("observation/state", "observation/proprio")
TASKS = ("language_instruction", "observation/natural_language_instruction", "observation/language_instruction")
BORDERS = {"is_first": 0, "is_last": -1}  # flag -> the one step where it is set
WIDEST = 4096  # numbers a step of what is still a vector
NUMBERS = (
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
AGAIN = "copy the folder again"


@dataclass(frozen=True)
class Feature:
    """What `features.json` says of a feature of the steps."""

    kind: str  # numbers | text | picture | other
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    encoding: str = "none"  # of numbers: none, or bytes | zlib a step

    @property
    def width(self) -> int:
        """Numbers a step."""
        return int(np.prod(self.shape))


@register_format("rlds")
class Rlds:
    """See the module."""

    layout = f"{FEATURES}, {INFO} and NAME-SPLIT.tfrecord-00000-of-00001 (a version's folder of tensorflow-datasets)"

    def holds(self, root: Path) -> bool:
        return _version(root) is not None

    def open(self, root: Path) -> Recording:
        folder = _version(root) or root
        features = _features(folder)
        info = _json(folder / INFO)
        splits = _places(folder, info)
        places = [place for split in splits.values() for place in split]
        if not places:
            raise FormatError(f"{folder} holds no episode")
        roles = _roles(folder, features)
        names = [str(number) for number in range(len(places))]
        low, high = _range(places, features, roles)
        numbers = iter(names)
        subsets = {split: [next(numbers) for _ in found] for split, found in splits.items()}
        extra = {_column(key): counted(_column(key), features[key].width) for key in roles["extra"]}
        unsaid = (SENT, PROGRESS, SUCCESS, *(() if "reward" in features else (REWARD,)))
        state, left = ", ".join(roles["state"]) or "none", ", ".join(roles["other"])
        told = (
            f"observation.state: {state}; cameras: {', '.join(roles['cameras']) or 'none'}",
            f"task: {roles['task'] or 'not said'}",
            "the rate is not stored: 10 Hz is a guess, give --rate",
            "units, mode of the actions and success are not stated; limits are those of the data",
            *((f"left out, which are not read: {left}",) if left else ()),
        )
        body = _body(str(info.get("name") or root.name), features, roles, low, high)
        about = {"name": info.get("name"), "version": info.get("version")}
        return Recording(body, names, told, extra, unsaid, about, subsets, inside=(features, roles, places))

    def read(self, root: Path, recording: Recording, name: str) -> Episode:
        features, roles, places = recording.inside
        what = f"episode {name} ({places[int(name)][0].name})"
        values = read_example(read_record(*places[int(name)]), what)
        action = _joined(values, features, roles["action"], what)
        steps = len(action)
        obs = {STATE: _joined(values, features, roles["state"], what)} if roles["state"] else {}
        for camera, key in roles["cameras"].items():
            obs[IMAGES + camera] = _pictures(values, features[key], key, what)
        extra = {_column(key): _numbers(values, features[key], key, what) for key in roles["extra"]}
        zero = np.zeros((steps, 1), np.float32)
        reward = (_numbers(values, features["reward"], "reward", what) if "reward" in features else zero)[:, 0]
        for key, found in {"action": action, "reward": reward, **obs, **extra}.items():
            if len(found) != steps:
                raise FormatError(f"{what} has {steps} actions and {len(found)} steps of {key}; {AGAIN}")
            check_finite(found, f"{key} of {what}")
        _check_borders(values, features, steps, what)
        won = outcome(steps, False) | {"reward": reward}
        task = _text(values, roles["task"], what) if roles["task"] else ""
        return Episode(start=int(name), task=task, obs=obs, action=action, sent=action.copy(), extra=extra, **won)


def _version(root: Path) -> Path | None:
    """The folder of a version: the given one, or the only one below it."""
    if (root / FEATURES).is_file() and (root / INFO).is_file():
        return root
    found = [path.parent for path in root.glob(f"*/{FEATURES}") if (path.parent / INFO).is_file()]
    return found[0] if len(found) == 1 else None


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} is damaged ({error}); {AGAIN}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds no names and values; {AGAIN}")
    return found


def _features(folder: Path) -> dict[str, Feature]:
    """The features of a step, by path."""
    path = folder / FEATURES
    found: dict[str, Feature] = {}
    try:
        steps = _json(path)["featuresDict"]["features"]["steps"]["sequence"]["feature"]
        _collect(steps["featuresDict"]["features"], "", found)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"{path} describes no steps of episodes as tfds 4 does ({error!r:.80}); {AGAIN}") from error
    return found


def _collect(features: Mapping, above: str, out: dict[str, Feature]) -> None:
    for name, feature in features.items():
        if "featuresDict" in feature:
            _collect(feature["featuresDict"]["features"], f"{above}{name}/", out)
        else:
            out[above + name] = _feature(feature)


def _feature(feature: Mapping) -> Feature:
    if "text" in feature:
        return Feature("text")
    if "classLabel" in feature:
        return Feature("numbers", (), "int64")
    told = feature.get("image") or feature.get("tensor")
    if not isinstance(told, Mapping):
        return Feature("other")
    shape = tuple(int(size) for size in (told.get("shape") or {}).get("dimensions", ()))
    dtype, encoding = str(told.get("dtype", "float32")), str(told.get("encoding") or "none").lower()
    if dtype == "string" and not shape:
        return Feature("text")
    if "image" in feature:
        return Feature("picture" if dtype == "uint8" and len(shape) == 3 and shape[-1] == 3 else "other", shape, dtype)
    fits = dtype in NUMBERS and all(size > 0 for size in shape) and 0 < int(np.prod(shape)) <= WIDEST
    return Feature("numbers" if fits and encoding in ("none", "bytes", "zlib") else "other", shape, dtype, encoding)


def _places(folder: Path, info: Mapping) -> dict[str, list[tuple[Path, int, int]]]:
    """Split -> (file, offset, length) of its records, as many as the splits promise."""
    kind = info.get("fileFormat") or "tfrecord"
    if kind != "tfrecord":
        again = "write it again with file_format='tfrecord'"
        raise FormatError(f"{folder} is stored as {kind}, which is not read; {again}")
    found: dict[str, list[tuple[Path, int, int]]] = {}
    try:
        for split in info["splits"]:
            counts = [int(count) for count in split["shardLengths"]]
            files = [_shard(folder, info, split, number, len(counts)) for number in range(len(counts))]
            records = [(path, record_places(path)) for path in files]
            for (path, places), count in zip(records, counts, strict=True):
                if len(places) != count:
                    raise FormatError(f"{path} holds {len(places)} records, {INFO} promises {count}; {AGAIN}")
            if str(split["name"]) in found:
                raise FormatError(f"{folder / INFO} lists the split {split['name']!r:.40} twice; {AGAIN}")
            found[str(split["name"])] = [(path, *place) for path, places in records for place in places]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{folder / INFO} says nothing sound of its splits ({error!r:.80}); {AGAIN}") from error
    _refuse_unlisted(folder, [path for places in found.values() for path, *_ in places])
    return found


def _refuse_unlisted(folder: Path, known: list[Path]) -> None:
    """Episodes in files that no split names would be lost without a word."""
    extra = sorted({path for path in folder.glob("*.tfrecord*") if path.is_file() and path.stat().st_size} - set(known))
    if extra:
        raise FormatError(f"{extra[0]} belongs to no split of {INFO}; {AGAIN}, or move the file away")


def _shard(folder: Path, info: Mapping, split: Mapping, number: int, count: int) -> Path:
    template = str(split.get("filepathTemplate") or TEMPLATE)
    x_of_y = f"{number:05d}-of-{count:05d}"
    known = {"DATASET": info["name"], "SPLIT": split["name"], "FILEFORMAT": "tfrecord", "SHARD_X_OF_Y": x_of_y}
    known |= {"SHARD_INDEX": f"{number:05d}", "NUM_SHARDS": f"{count:05d}"}
    name = template
    for key, value in known.items():
        name = name.replace(f"{{{key}}}", str(value))
    path = folder / name
    if path.parent != folder or not path.is_file():
        raise FormatError(f"{path} is missing, of the split {split['name']!r:.40}; {AGAIN}")
    return path


def _roles(folder: Path, features: Mapping[str, Feature]) -> dict:
    """Which features are action, state, cameras (name -> key), task, further columns, and which are not read."""
    vectors = [key for key, feature in sorted(features.items()) if feature.kind == "numbers"]
    action = [key for key in vectors if key == ACTION or key.startswith(f"{ACTION}/")]
    if not action:
        raise FormatError(f"{folder} has no numbers as 'steps/action'; its features: {', '.join(sorted(features))}")
    seen = [key for key in vectors if key.startswith(OBSERVATION)]
    state = [key for key in STATES if key in seen][:1] or [key for key in seen if "embedding" not in key]
    used = {*action, *state, *BORDERS, "reward"}
    pictures = [key for key, feature in features.items() if feature.kind == "picture" and key.startswith(OBSERVATION)]
    texts = [key for key in TASKS if key in features and features[key].kind == "text"]
    other = [key for key, feature in features.items() if feature.kind == "other"]
    other += [key for key, feature in features.items() if feature.kind == "picture" and key not in pictures]
    return {
        "action": action,
        "state": state,
        "cameras": {key.removeprefix(OBSERVATION).replace("/", "_"): key for key in pictures},
        "task": texts[0] if texts else "",
        "extra": [key for key in vectors if key not in used],
        "other": sorted(other),
    }


def _column(key: str) -> str:
    """The column of a further feature."""
    prefix = "observation." if key.startswith(OBSERVATION) else "steps."
    return prefix + key.removeprefix(OBSERVATION).replace("/", ".")


def _range(places: list, features: Mapping[str, Feature], roles: dict) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest action of all episodes."""
    keys = {STEPS + key for key in roles["action"]}
    lows, highs = [], []
    for number, (path, offset, length) in enumerate(places):
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(length)
        what = f"episode {number} ({path.name})"
        action = _joined(read_example(data, what, keys), features, roles["action"], what)
        check_finite(action, f"action of {what}")
        lows.append(action.min(0))
        highs.append(action.max(0))
    return np.min(lows, 0), np.max(highs, 0)


def _body(name: str, features: Mapping[str, Feature], roles: dict, low: np.ndarray, high: np.ndarray) -> Embodiment:
    alone = roles["action"] == [ACTION]

    def named(keys: list[str], name: Callable[[str], str]) -> tuple[str, ...]:
        return tuple(one for key in keys for one in counted(name(key), features[key].width))

    action = named(roles["action"], lambda key: key.removeprefix(f"{ACTION}/").replace("/", "."))
    action = tuple(map(str, range(len(action)))) if alone else action
    state = named(roles["state"], lambda key: key.removeprefix(OBSERVATION).replace("/", "."))
    cameras = {camera: (features[key].shape[0], features[key].shape[1]) for camera, key in roles["cameras"].items()}
    return silent_body(name, action, low, high, rate=None, state=state, cameras=cameras)


def _joined(values: Mapping[str, Values], features: Mapping[str, Feature], keys: list[str], what: str) -> np.ndarray:
    parts = [_numbers(values, features[key], key, what) for key in keys]
    counts = [len(part) for part in parts]
    if len(set(counts)) > 1:
        raise FormatError(f"{what} has {counts} steps of {', '.join(keys)}; {AGAIN}")
    return np.concatenate(parts, 1)


def _numbers(values: Mapping[str, Values], feature: Feature, key: str, what: str) -> np.ndarray:
    """(T, D) float32."""
    found = values.get(STEPS + key)
    if found is None:
        raise FormatError(f"{what} lacks '{STEPS}{key}', which {FEATURES} promises; {AGAIN}")
    if isinstance(found, list):
        found = _unpacked(found, feature, key, what)
    elif feature.encoding != "none" or (found.dtype.kind == "f") != feature.dtype.startswith("float"):
        due = f"{FEATURES} promises {feature.dtype}"
        raise FormatError(f"{what} holds '{STEPS}{key}' as {found.dtype}, {due}; {AGAIN}")
    if not len(found) or len(found) % feature.width:
        due = f"{feature.width} a step are due"
        raise FormatError(f"{what} holds {len(found)} numbers of '{STEPS}{key}', {due}; {AGAIN}")
    return in_float32(found.reshape(-1, feature.width), f"'{STEPS}{key}'")


def _unpacked(cells: list[bytes], feature: Feature, key: str, what: str) -> np.ndarray:
    """Numbers that were stored as bytes, compressed or not."""
    if feature.encoding == "none":
        raise FormatError(f"{what} holds '{STEPS}{key}' as bytes, {FEATURES} promises {feature.dtype}; {AGAIN}")
    try:
        cells = [zlib.decompress(cell) for cell in cells] if feature.encoding == "zlib" else cells
        return np.concatenate([np.frombuffer(cell, np.dtype(feature.dtype)) for cell in cells])
    except (zlib.error, ValueError) as error:
        raise FormatError(f"{what}: '{STEPS}{key}' cannot be unpacked ({error}); {AGAIN}") from error


def _pictures(values: Mapping[str, Values], feature: Feature, key: str, what: str) -> np.ndarray:
    """(T, h, w, 3) uint8."""
    cells = values.get(STEPS + key)
    if not isinstance(cells, list) or not cells:
        raise FormatError(f"{what} lacks the pictures '{STEPS}{key}', which {FEATURES} promises; {AGAIN}")
    out = np.empty((len(cells), *feature.shape), np.uint8)
    for step, cell in enumerate(cells):
        decoded = _decoded(cell)
        if decoded is None or decoded[0].shape != feature.shape or decoded[1:] != (8, 3):
            shape = "no readable picture" if decoded is None else f"{decoded[0].shape} of {decoded[1]} bits"
            due = f"{FEATURES} promises {feature.shape}"
            raise FormatError(f"{what}, step {step}: '{key}' is {shape}, {due}; {AGAIN}")
        out[step] = decoded[0]
    return out


def _decoded(cell: bytes) -> tuple[np.ndarray, int, int] | None:
    import cv2

    try:
        return read_picture(cell)
    except (cv2.error, IndexError):  # a damaged header
        return None


def _text(values: Mapping[str, Values], key: str, what: str) -> str:
    """The text of the first step."""
    cells = values.get(STEPS + key)
    if not isinstance(cells, list) or not cells:
        raise FormatError(f"{what} lacks the texts '{STEPS}{key}', which {FEATURES} promises; {AGAIN}")
    return cells[0].decode("utf-8", "replace").strip()


def _check_borders(values: Mapping[str, Values], features: Mapping[str, Feature], steps: int, what: str) -> None:
    """Refuse an episode whose flags say that it is a part of one, or several."""
    for key, place in BORDERS.items():
        if key in features:
            set_at = np.flatnonzero(_numbers(values, features[key], key, what)[:, 0]).tolist()
            if set_at != [range(steps)[place]]:
                raise FormatError(f"{what} has {steps} steps, {key} is set at {set_at[:5]}; {AGAIN}")
