"""A dataset as robomimic's HDF5: `understudy convert DATA FILE.hdf5`; read again by `formats/robomimic.py`.

    data                     attributes total, env_args (JSON), and `understudy` (JSON): what the rest cannot say
    data/demo_N              attributes num_samples, task, episode
    data/demo_N/obs/KEY      float32 (T, D), uint8 (T, h, w, 3)
    data/demo_N/actions, rewards, dones; success where it was recorded
    mask/train, mask/valid   names of demonstrations

`observation.state` goes back to the keys of the recording that it was made of, where its dimensions are named after
them (`robot0_eef_pos.0`), else it is `state`; `observation.environment_state` is `object`, the camera NAME is
`NAME_image`, a further column `observation.KEY` is KEY. `dones` is 1 at the last step. There are no `next_obs`, since a
dataset does not hold the observation after the last action, and no `states`: what a dataset calls a state is none of a
simulator, and robomimic would set one by it. So robomimic trains on the file (`hdf5_load_next_obs: false`), and neither
plays it back nor lets a policy act without an environment that `env_args` names.

Source: robomimic 0.3 (Mandlekar et al. 2021, arXiv:2108.03298), `utils/dataset.py`, `scripts/split_train_val.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.episode import REWARD, SUCCESS
from ...configs.extras import pip_install
from ...configs.files import replace_file
from ...configs.progress import Progress
from ...configs.spec import ACTION, IMAGES, SCENE, STATE
from .choose import ALL
from .dataset import Dataset
from .frames import open_frames
from .known import known
from .layout import SOURCE, DatasetError, read_json
from .open import open_dataset

SUFFIXES = (".hdf5", ".h5")
TOLD = "understudy"  # attribute of `data`: who acts and what became of which column
VALID = 0.1  # share of the demonstrations for validation where the dataset names no subsets, as in robomimic's script
GYM = 2  # robomimic's number of an environment that its own factory does not build
OBSERVATION = "observation."


@dataclass(frozen=True)
class Keys:
    """Which key of `obs` holds which columns."""

    state: dict[str, slice]  # key -> dimensions of observation.state
    scene: str | None
    cameras: dict[str, str]  # camera -> key
    extra: dict[str, str]  # column -> key


def is_hdf5(path: Path) -> bool:
    """Whether a path is to be a file of robomimic's."""
    return path.suffix.lower() in SUFFIXES


def write_hdf5(
    source: str, out: Path, *, episodes: str = ALL, without: str = "", task: str = "", drop: tuple[str, ...] = ()
) -> str:
    """Write the chosen episodes of a dataset, with all its numbers and pictures; what was done, in words.

    Args:
        task: text that all episodes get.
        drop: columns and cameras that are left out.

    Raises:
        DatasetError: a dataset that is damaged or several at once, an unknown name in `drop`, h5py not installed.
        FileExistsError: `out` is there.
    """
    try:
        import h5py
    except ImportError as error:
        raise DatasetError(f"{out} would be HDF5, which h5py writes: {pip_install('formats')}") from error
    if out.exists():
        raise FileExistsError(f"{out} exists; choose another file")
    dataset = open_dataset(source, episodes=episodes, without=without)
    if dataset.parts:
        raise DatasetError("several datasets are not written as one file; merge them first: understudy convert A,B OUT")
    keys = _keys(dataset, drop)
    masks = _masks(dataset)

    def write(beside: Path) -> None:
        with h5py.File(beside, "w") as file, Progress("writing", len(dataset.lengths), "episodes") as progress:
            data = file.create_group("data")
            data.attrs["total"] = int(dataset.lengths.sum())
            data.attrs["env_args"] = json.dumps(_environment(dataset, task))
            data.attrs[TOLD] = json.dumps(_told(dataset, keys))
            for place in range(len(dataset.lengths)):
                _write_episode(data.create_group(f"demo_{place}"), dataset, keys, place, task)
                progress.update(place + 1)
            for name, places in masks.items():
                file[f"mask/{name}"] = np.array([f"demo_{place}".encode() for place in places])

    replace_file(out, write)
    shares = ", ".join(f"{name} {len(places)}" for name, places in masks.items())
    lacks = "" if REWARD in dataset.columns else "; rewards are 0, nobody recorded any"
    return (
        f"{out}: robomimic's HDF5, {len(dataset.lengths)} demonstrations, {int(dataset.lengths.sum())} steps; masks:"
        f" {shares}; no next_obs (hdf5_load_next_obs: false) and no states of a simulator{lacks}"
    )


def _keys(dataset: Dataset, drop: tuple[str, ...]) -> Keys:
    body, columns = dataset.embodiment, dataset.columns
    known_names = {ACTION, *columns, *dataset.cameras, *dataset.cameras.values()}
    if strange := [name for name in drop if name not in known_names]:
        raise DatasetError(f"--drop {strange[0]}: no such column or camera; there are {', '.join(sorted(known_names))}")
    if ACTION in drop:
        raise DatasetError(f"--drop {ACTION}: a demonstration is its actions; leave it out")
    kept = {key for key in columns if key not in drop}
    state = _parts(body.state, columns[STATE].shape[1]) if STATE in kept else {}
    cameras = {name: f"{name}_image" for name, key in dataset.cameras.items() if name not in drop and key not in drop}
    extra = {
        key: key.removeprefix(OBSERVATION)
        for key in sorted(kept)
        if key.startswith(OBSERVATION) and key not in (STATE, SCENE) and not key.startswith(IMAGES)
    }
    names = [*state, *cameras.values(), *extra.values(), *(["object"] if SCENE in kept else [])]
    if double := {name for name in names if names.count(name) > 1}:
        raise DatasetError(f"two columns would be the key '{min(double)}'; leave one out: --drop")
    if strange := [name for name in names if "/" in name]:
        raise DatasetError(f"'{strange[0]}' cannot be a key of HDF5, which divides at '/'; leave it out: --drop")
    return Keys(state, "object" if SCENE in kept else None, cameras, extra)


def _parts(names: tuple[str, ...], width: int) -> dict[str, slice]:
    """Key -> dimensions of a vector whose dimensions are named KEY.0, KEY.1, ...; else one key of all."""
    found: dict[str, slice] = {}
    place = 0
    for key, group in groupby(names, key=lambda name: name.rpartition(".")[0] or name):
        count = len([*group])
        found[key] = slice(place, place + count)
        place += count
    numbered = all(
        [*names[part]] in ([key], [f"{key}.{number}" for number in range(part.stop - part.start)])
        for key, part in found.items()
    )
    imported = any("." in name for name in names)
    together = place == width == len(names) and len({*found}) == len(found)
    return found if numbered and imported and together else {"state": slice(0, width)}


def _masks(dataset: Dataset) -> dict[str, list[int]]:
    """Name -> places of episodes: the subsets of the recording, else one in ten for validation."""
    count = len(dataset.lengths)
    if (dataset.root / SOURCE).is_file():
        told = known(dataset.layout, ("subsets",))
        names = list(dict.fromkeys(name for values in told for name in values["subsets"]))
        if names:
            return {name: [at for at, values in enumerate(told) if name in values["subsets"]] for name in names}
    order = np.random.default_rng(0).permutation(count)
    valid = sorted(order[: max(1, round(VALID * count))].tolist()) if count > 1 else []
    train = [place for place in range(count) if place not in valid]
    return {"train": train} | ({"valid": valid} if valid else {})


def _environment(dataset: Dataset, task: str) -> dict[str, Any]:
    """`env_args`: as the recording said, else the task and the rate."""
    path = dataset.root / SOURCE
    about = read_json(path, "copy the dataset again").get("about") if path.is_file() else None
    said = about.get("env_args") if isinstance(about, Mapping) else None
    if isinstance(said, Mapping):
        return dict(said)
    name = task or next((text for text in dataset.tasks if text), dataset.embodiment.name)
    return {"env_name": name, "type": GYM, "env_kwargs": {"control_freq": dataset.rate}}


def _told(dataset: Dataset, keys: Keys) -> dict[str, Any]:
    return {
        "format": 1,
        "embodiment": json.loads(dataset.embodiment.to_json()),
        "state": list(keys.state),
        "scene": [keys.scene] if keys.scene else [],
        "cameras": keys.cameras,
        "extra": list(keys.extra.values()),
        "reward": REWARD in dataset.columns,
        "success": SUCCESS in dataset.columns,
    }


def _write_episode(demo, dataset: Dataset, keys: Keys, place: int, task: str) -> None:
    steps, first = int(dataset.lengths[place]), int(dataset.starts[place])
    rows = slice(first, first + steps)
    demo.attrs["num_samples"] = steps
    demo.attrs["task"] = task or dataset.tasks[place]
    demo.attrs["episode"] = int(dataset.episode_ids[place])
    demo["actions"] = dataset.columns[ACTION][rows]
    demo["rewards"] = dataset.columns[REWARD][rows, 0] if REWARD in dataset.columns else np.zeros(steps, np.float32)
    demo["dones"] = (np.arange(steps) == steps - 1).astype(np.int64)
    if SUCCESS in dataset.columns:
        demo["success"] = (dataset.columns[SUCCESS][rows, 0] > 0).astype(np.uint8)
    obs = demo.create_group("obs")
    for key, part in keys.state.items():
        obs[key] = dataset.columns[STATE][rows, part]
    if keys.scene:
        obs[keys.scene] = dataset.columns[SCENE][rows]
    for column, key in keys.extra.items():
        obs[key] = dataset.columns[column][rows]
    for camera, key in keys.cameras.items():
        obs[key] = open_frames(dataset, camera, episodes=[place]).episode(place)
