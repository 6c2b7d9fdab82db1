"""Small recordings in the formats of other programs, in the layouts that these document: made to be damaged."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ._rlds import TEXT, image, tensor, write

LENGTHS = (9, 6, 12)
SIDE = 16  # px


def make_foreign(root: Path) -> None:
    """The folders robomimic, buffer2, buffer3, zipped and rlds."""
    for name in ("robomimic", "buffer2", "buffer3", "zipped"):
        (root / name).mkdir(parents=True)
    write_robomimic(root / "robomimic/demo.hdf5")
    write_buffer(root / "buffer2/demo.zarr", 2)
    write_buffer(root / "buffer3/demo.zarr", 3)
    write_buffer(root / "zipped/demo.zarr.zip", 2)
    write_rlds(root / "rlds")


def episodes() -> list[dict[str, np.ndarray]]:
    """Action, state, object and pictures of a few steps each."""
    found = []
    for number, steps in enumerate(LENGTHS):
        rng = np.random.default_rng(number)
        numbers = {"action": 3, "state": 4, "object": 2}
        one = {key: rng.normal(size=(steps, width)).astype(np.float32) for key, width in numbers.items()}
        found.append(one | {"image": rng.integers(1, 255, (steps, SIDE, SIDE, 3), np.uint8)})
    return found


def write_robomimic(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        about = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"], "control_freq": 20}}
        file.create_group("data").attrs["env_args"] = json.dumps(about)
        for number, one in enumerate(episodes()):
            steps, name = len(one["action"]), f"data/demo_{number}"
            file[f"{name}/actions"] = one["action"]
            file[f"{name}/obs/robot0_eef_pos"], file[f"{name}/obs/object"] = one["state"][:, :3], one["object"]
            file[f"{name}/obs/agentview_image"] = one["image"]
            file[f"{name}/rewards"] = np.arange(steps) == steps - 1
            file[f"{name}/dones"], file[f"{name}/states"] = np.zeros(steps, int), one["state"]
            file[name].attrs["num_samples"] = steps
        file["data"].attrs["total"] = sum(LENGTHS)
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])


def write_buffer(path: Path, version: Literal[2, 3]) -> None:
    import zarr

    whole = {key: np.concatenate([one[key] for one in episodes()]) for key in ("action", "state", "image")}
    arrays = {f"data/{key}": one for key, one in whole.items()} | {"meta/episode_ends": np.cumsum(LENGTHS)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store: Any = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else str(path)
        group = zarr.open_group(store, mode="w", zarr_format=version)
        for name, one in arrays.items():
            group.create_array(name, data=one, chunks=(8, *one.shape[1:]))
        if path.suffix == ".zip":
            store.close()


def write_rlds(folder: Path) -> None:
    import cv2

    features = {"observation/image": image(SIDE, SIDE), "observation/state": tensor(4), "action": tensor(3)}
    features |= {"language_instruction": TEXT, "is_first": tensor(dtype="bool"), "is_last": tensor(dtype="bool")}
    held = []
    for one in episodes():
        flags = np.arange(len(one["action"]))
        step = {"observation/state": one["state"], "action": one["action"]}
        step |= {"is_first": (flags == 0).astype(int), "is_last": (flags == flags[-1]).astype(int)}
        coded = [cv2.imencode(".png", picture)[1].tobytes() for picture in one["image"]]
        held.append(step | {"observation/image": coded, "language_instruction": [b"push"] * len(flags)})
    write(folder, features, {"train": [held[:2]], "val": [held[2:]]})
