"""robomimic's HDF5: demonstrations as groups of one file, with the arguments of the environment that they come from.

    data                    attribute env_args: JSON of the environment (name, robots, control_freq, controller)
    data/demo_N             attribute num_samples
    data/demo_N/actions     (T, D), and rewards (T,), dones (T,), states (T, S)
    data/demo_N/obs/KEY     (T, ...) observation before action t: vectors, and pictures uint8 (T, h, w, 3)
    mask/NAME               names of the demonstrations of a subset ("filter key")

What becomes of a key: `actions` is the action; `object` is `observation.environment_state`; `robotN_eef_pos`,
`robotN_eef_quat`, `robotN_gripper_qpos` of all robots, which are robomimic's own default, are `observation.state` (all
vectors in the order of the alphabet where a file has none of these); further vectors are columns `observation.KEY`;
`NAME_image` is the camera NAME. Episodes are sorted by their number. Next observations, simulator states and `dones`
are not carried. Success is the sparse reward of robosuite (above 0), and unknown with a shaped reward or another
environment. A file that `understudy convert` wrote says who acts and which keys are what, in the attribute `understudy`
of `data` (`../hdf5.py`), and comes back as it was. Source: robomimic 0.3 to 0.5 (Mandlekar et al. 2021,
arXiv:2108.03298).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ....configs.episode import PROGRESS, REWARD, SENT, SUCCESS, Episode
from ....configs.extras import pip_install
from ....configs.spec import IMAGES, SCENE, STATE, Embodiment, EmbodimentError, Mode
from .format import FormatError, Recording, check_finite, counted, in_float32, outcome, register_format, silent_body

MAGIC = b"\x89HDF\r\n\x1a\n"
REWARDS = "rewards"
WON = "success"  # of ours alone
TOLD = "understudy"  # attribute of a file of ours
OBJECT = ("object", "object-state")
STATES = ("eef_pos", "eef_quat", "gripper_qpos")  # of each robot, in this order
ROBOSUITE = 1  # robomimic's number of this kind of environment
OSC = ("dx", "dy", "dz", "rx", "ry", "rz", "gripper")  # of an arm whose controller is OSC_POSE
WIDEST = 4096  # numbers of an observation that is still a vector
AGAIN = "copy the file again"


@register_format("robomimic")
class Robomimic:
    """See the module."""

    layout = "FILE.hdf5 (data/demo_N/actions, data/demo_N/obs/KEY)"

    def holds(self, root: Path) -> bool:
        if not root.is_file():
            return False
        with open(root, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC

    def open(self, root: Path) -> Recording:
        with _reading(root) as file:
            demos = _demos(file, root)
            keys = {name: _keys(file, name, root) for name in demos}
            first = keys[demos[0]]
            for name, found in keys.items():
                _compare(found, first, root, name, demos[0])
            low, high = _range(file, demos)
            about, notes = _environment(file, root)
            subsets = _subsets(file, demos, root)
            of_ours = _told(file, root)
        if of_ours:
            return _of_ours(root, of_ours, first, demos, about, subsets)
        roles = _roles(first)
        body = _body(root, first, roles, about, low, high)
        extra = {f"observation.{key}": counted(key, first[key][0]) for key in roles["extra"]}
        sparse = REWARDS in first and _is_sparse(about)
        unsaid = (SENT, PROGRESS, *(() if sparse else (SUCCESS,)), *(() if REWARDS in first else (REWARD,)))
        said = "the sparse reward of robosuite" if sparse else "not said"
        told = (
            f"observation.state: {', '.join(roles['state']) or 'none'}; environment state:"
            f" {', '.join(roles['scene']) or 'none'}; cameras: {', '.join(roles['cameras']) or 'none'}",
            f"success: {said}; units are not stated; limits are those of the data",
            *notes,
        )
        return Recording(body, demos, told, extra, unsaid, about, subsets, inside=roles)

    def read(self, root: Path, recording: Recording, name: str) -> Episode:
        roles = recording.inside
        with _reading(root) as file:
            demo = _group(file, f"data/{name}", root)
            action = _vectors(demo, "actions", root)
            steps = len(action)
            obs = {
                key: np.concatenate([_vectors(demo, f"obs/{one}", root) for one in roles[part]], 1)
                for key, part in ((STATE, "state"), (SCENE, "scene"))
                if roles[part]
            }
            obs |= {IMAGES + camera: _pictures(demo, f"obs/{key}", root) for camera, key in roles["cameras"].items()}
            extra = {f"observation.{key}": _vectors(demo, f"obs/{key}", root) for key in roles["extra"]}
            reward = _vectors(demo, REWARDS, root)[:, 0] if REWARDS in demo else np.zeros(steps, np.float32)
            success = _vectors(demo, WON, root)[:, 0] > 0 if roles.get(WON) else reward > 0
            task = str(demo.attrs.get("task", recording.about.get("task") or ""))
        for what, values in {"actions": action, "rewards": reward, "success": success, **obs, **extra}.items():
            if len(values) != steps:
                raise FormatError(f"{root}: {name} has {steps} actions and {len(values)} rows of {what}; {AGAIN}")
            check_finite(values, f"{root}: {what} of {name}")
        won = outcome(steps, bool(success.any())) | {"reward": reward, "success": success}
        return Episode(
            start=_number(name), task=task, obs=obs, action=action,
            sent=action.copy(), extra=extra, **won,
        )  # fmt: skip


@contextmanager
def _reading(root: Path) -> Iterator:
    """The open file. What h5py says of a damaged one becomes a FormatError that names it."""
    try:
        import h5py
    except ImportError as error:
        raise FormatError(f"{root} is HDF5, which h5py reads: {pip_install('formats')}") from error
    try:
        with h5py.File(root, "r") as file:
            yield file
    except FormatError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{root} is damaged or cut short ({reason}); {AGAIN}") from error


def _group(file, name: str, root: Path):
    """A group that must be there; links that leave the file are not followed."""
    import h5py

    if not isinstance(file.get(name, getlink=True) if name in file else None, h5py.HardLink):
        raise FormatError(f"{root} has no group '{name}'; it is no recording of robomimic's, or {AGAIN}")
    found = file[name]
    if not isinstance(found, h5py.Group):
        raise FormatError(f"{root}: '{name}' is no group; {AGAIN}")
    return found


def _demos(file, root: Path) -> list[str]:
    """Names of the demonstrations, by number."""
    names = sorted(_group(file, "data", root), key=lambda name: (_number(name), name))
    if not names:
        raise FormatError(f"{root} holds no demonstration below 'data'")
    for name in names:
        _group(file, f"data/{name}", root)
    total = file["data"].attrs.get("total")
    rows = sum(len(_dataset(file, f"data/{name}/actions", root)) for name in names)
    if total is not None and int(total) != rows:
        raise FormatError(f"{root} states {int(total)} steps in all (data, attribute total), {rows} are there; {AGAIN}")
    return names


def _number(name: str) -> int:
    found = re.search(r"(\d+)$", name)
    return int(found[1]) if found else 0


def _dataset(file, name: str, root: Path):
    """An array that must be there, as rows of numbers that this very file holds."""
    import h5py

    found = file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.ndim < 1 or found.dtype.kind not in "fiub":
        raise FormatError(f"{root}: '{file.name.rstrip('/')}/{name}' is not there as rows of numbers; {AGAIN}")
    if found.external or found.is_virtual:
        raise FormatError(f"{root}: '{file.name.rstrip('/')}/{name}' lies in other files; copy them into one")
    return found


def _keys(file, demo: str, root: Path) -> dict[str, tuple[int, ...]]:
    """Key -> (numbers a row) of a vector, (height, width, 3) of a picture; `actions` among them."""
    where = f"data/{demo}"
    actions, group = _dataset(file, f"{where}/actions", root), file[where]
    steps = len(actions)
    if actions.ndim != 2 or not steps or not actions.shape[1]:
        raise FormatError(f"{root}: '{where}/actions' is {actions.shape}, rows of actions are due; {AGAIN}")
    stated = group.attrs.get("num_samples")
    if stated is not None and int(stated) != steps:
        raise FormatError(f"{root}: '{where}' states {int(stated)} steps (num_samples), {steps} are there; {AGAIN}")
    found: dict[str, tuple[int, ...]] = {"actions": (actions.shape[1],)}
    found |= {REWARDS: (1,)} if REWARDS in group else {}
    for key in sorted(_group(file, f"{where}/obs", root)) if "obs" in group else ():
        values = _dataset(file, f"{where}/obs/{key}", root)
        if len(values) != steps:
            raise FormatError(
                f"{root}: '{where}/obs/{key}' has {len(values)} rows, its actions {steps}: {AGAIN}, or leave it out"
            )
        width = int(np.prod(values.shape[1:]))
        if values.ndim == 4 and values.dtype == np.uint8 and values.shape[-1] == 3:
            found[key] = tuple(values.shape[1:])
        elif 0 < width <= WIDEST:
            found[key] = (width,)
    return found


def _compare(found: Mapping, first: Mapping, root: Path, name: str, other: str) -> None:
    """Refuse a demonstration whose keys or shapes are others than the first one's."""
    strange = next((key for key in {**first, **found} if found.get(key) != first.get(key)), None)
    if strange is not None:
        shapes = [f"{one.get(strange, 'nothing')}" for one in (first, found)]
        raise FormatError(f"{root}: '{strange}' is {shapes[0]} in {other} and {shapes[1]} in {name}; {AGAIN}")


def _roles(keys: Mapping[str, tuple[int, ...]]) -> dict:
    """Which keys are state, scene, cameras (name -> key) and further columns."""
    vectors = [key for key, shape in keys.items() if len(shape) == 1 and key not in ("actions", REWARDS)]
    pictures = [key for key, shape in keys.items() if len(shape) == 3]
    scene = [key for key in OBJECT if key in vectors][:1]
    others = [key for key in vectors if key not in scene]
    robots = sorted({found[1] for key in others if (found := re.match(r"(robot\d+)_", key))})
    state = [f"{robot}_{part}" for robot in robots for part in STATES if f"{robot}_{part}" in others] or others
    return {
        "state": state,
        "scene": scene,
        "cameras": {key.removesuffix("_image"): key for key in pictures},
        "extra": [key for key in others if key not in state],
    }


def _environment(file, root: Path) -> tuple[dict, tuple[str, ...]]:
    """What the file says of the environment, and a note."""
    text = file["data"].attrs.get("env_args")
    if text is None:
        return {}, ("the environment is not said",)
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{root}: the attribute env_args of 'data' is damaged ({error}); {AGAIN}") from error
    if not isinstance(found, dict) or not isinstance(found.get("env_kwargs", {}), dict):
        raise FormatError(f"{root}: the attribute env_args of 'data' holds no names and values; {AGAIN}")
    return {"env_args": found, "task": str(found.get("env_name") or "")}, ()


def _settings(about: Mapping) -> dict:
    return (about.get("env_args") or {}).get("env_kwargs") or {}


def _is_sparse(about: Mapping) -> bool:
    """Whether a reward above 0 is success."""
    environment = about.get("env_args") or {}
    return environment.get("type") == ROBOSUITE and not _settings(about).get("reward_shaping")


def _rate(about: Mapping) -> float | None:
    rate = _settings(about).get("control_freq")
    if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 < rate < 1e6:
        return None
    return float(rate)


def _told(file, root: Path) -> dict:
    """What a file of ours says of itself; empty of others."""
    text = file["data"].attrs.get(TOLD)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{root}: the attribute {TOLD} of 'data' is damaged ({error}); {AGAIN}") from error
    lists, names = ("state", "scene", "extra"), ("cameras", "embodiment")
    sound = isinstance(found, dict) and all(isinstance(found.get(key), list) for key in lists)
    if not sound or not all(isinstance(found.get(key), dict) for key in names):
        raise FormatError(f"{root}: the attribute {TOLD} of 'data' lacks what it should say; {AGAIN}")
    return found


def _of_ours(
    root: Path, told: dict, keys: Mapping[str, tuple[int, ...]], demos: list[str], about: dict, subsets: dict
) -> Recording:
    """A file that `understudy convert` wrote. Raises FormatError where it does not hold what it says."""
    named = [*told["state"], *told["scene"], *told["extra"], *told["cameras"].values()]
    if lacking := next((key for key in named if key not in keys), None):
        raise FormatError(f"{root} says that it holds '{lacking}', which is not there; {AGAIN}")
    try:
        body = Embodiment.from_dict(told["embodiment"])
    except (EmbodimentError, TypeError, ValueError, KeyError) as error:
        raise FormatError(f"{root}: the attribute {TOLD} of 'data' names no body ({error}); {AGAIN}") from error
    cameras = {name: (keys[key][0], keys[key][1]) for name, key in told["cameras"].items()}
    body = replace(body, cameras=cameras)
    body = body if told["state"] else replace(body, state=(), state_units=())
    body = body if told["scene"] else replace(body, scene=(), scene_units=())
    for part, names in (("state", body.state), ("scene", body.scene), ("action", body.action)):
        width = sum(keys[key][0] for key in (["actions"] if part == "action" else told[part]))
        if width != len(names):
            raise FormatError(f"{root}: the {part} has {width} numbers, its body names {len(names)}; {AGAIN}")
    unsaid = (SENT, PROGRESS, *(() if told.get("reward") else (REWARD,)), *(() if told.get(WON) else (SUCCESS,)))
    extra = {f"observation.{key}": counted(key, keys[key][0]) for key in told["extra"]}
    notes = ("written by understudy; units and limits are as they were",)
    return Recording(body, demos, notes, extra, unsaid, about, subsets, inside=told)


def _controller(about: Mapping) -> dict:
    """The settings of the arm's controller, of robosuite up to 1.4 and of 1.5."""
    found = _settings(about).get("controller_configs")
    found = found[0] if isinstance(found, list) and found else found
    parts = found.get("body_parts") if isinstance(found, dict) else None
    found = parts.get("right", parts) if isinstance(parts, dict) else found
    return found if isinstance(found, dict) else {}


def _body(root: Path, keys: Mapping, roles: dict, about: Mapping, low: np.ndarray, high: np.ndarray) -> Embodiment:
    controller = _controller(about)
    width = keys["actions"][0]
    meaning: dict = {}
    delta = controller.get("control_delta", controller.get("input_type") == "delta")
    names = tuple(map(str, range(width)))
    if controller.get("type") == "OSC_POSE" and delta:
        meaning = {"mode": Mode.delta, "rotation": "axis-angle"}
        names = OSC if width == len(OSC) else names
        meaning |= {"frame": str(controller["input_ref_frame"])} if "input_ref_frame" in controller else {}
    robots = _settings(about).get("robots") or root.stem
    robots = robots if isinstance(robots, list) else [robots]

    def named(part: str) -> tuple[str, ...]:
        return tuple(name for key in roles[part] for name in counted(key, keys[key][0]))

    cameras = {camera: keys[key][:2] for camera, key in roles["cameras"].items()}
    return silent_body(
        "-".join(map(str, robots)).lower(), names, low, high, rate=_rate(about), state=named("state"),
        scene=named("scene"), cameras=cameras, **meaning,
    )  # fmt: skip


def _range(file, demos: list[str]) -> tuple[np.ndarray, np.ndarray]:
    values = np.concatenate([file[f"data/{name}/actions"][:] for name in demos]).astype(np.float32)
    check_finite(values, f"{file.filename}: actions")
    return values.min(0), values.max(0)


def _subsets(file, demos: list[str], root: Path) -> dict[str, list[str]]:
    """Filter keys, each with its demonstrations."""
    if "mask" not in file:
        return {}
    found = {}
    for key in _group(file, "mask", root):
        names = [one.decode() if isinstance(one, bytes) else str(one) for one in np.ravel(file[f"mask/{key}"][()])]
        strange = next((one for one in names if one not in demos), None)
        if strange is not None:
            raise FormatError(f"{root}: the filter key '{key}' names {strange!r:.40}, which is not there; {AGAIN}")
        found[key] = names
    return found


def _vectors(demo, name: str, root: Path) -> np.ndarray:
    """(T, D) float32."""
    return in_float32(_dataset(demo, name, root)[:], f"{root}: '{name}'")


def _pictures(demo, name: str, root: Path) -> np.ndarray:
    return _dataset(demo, name, root)[:]
