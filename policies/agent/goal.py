"""`--goal`: a picture file, or the last pictures of an episode, as a policy that acts for a goal reads them.

--goal end.png                 of a policy with one goal camera
--goal top=a.png,wrist=b.png   of several
--goal out/demos:17            what the cameras showed at the end of episode 17 of a dataset
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ...configs.protocols import keeps
from ...configs.spec import IMAGES, Embodiment
from ..data.choose import numbers_of
from ..data.decode import fit, read_picture
from ..data.frames import open_frames
from ..data.open import open_dataset
from ..networks.goals import GoalError
from ..policy import Planner, SeesGoals
from .sight import images_of

RECORDED = "recorded"  # each recorded episode brings its own goal: nothing is shown beforehand


def show_goal(planner: Planner, asked: str | None, policy: str) -> None:
    """Show a policy, or the parents of a composition, the goal that is asked for; says which.

    Args:
        asked: as given by `--goal`.
        policy: what it was loaded from, for messages.

    Raises:
        GoalError: a goal for a policy that reads none, none for one that does, or one that does not fit.
        DatasetError: no such dataset, episode or camera in it.
    """
    if asked == RECORDED:
        return
    actors = [*goal_readers(planner)]
    if not actors:
        if asked is not None:
            raise GoalError(f"the policy in '{policy}' acts for no goal picture; leave out --goal")
        return
    keys = tuple(dict.fromkeys(key for actor in actors for key in actor.goals.keys))
    if asked is None:
        cameras = ", ".join(key.removeprefix(IMAGES) for key in keys)
        raise GoalError(
            f"the policy in '{policy}' acts for a goal picture ({cameras}), and none is given; give --goal PICTURE, or "
            "--goal DATA:EPISODE for the last pictures of an episode"
        )
    pictures = _pictures(asked, keys)
    for actor in actors:
        shown = {key: _fitted(asked, key, pictures[key], actor) for key in actor.goals.keys}
        actor.goals.show({key: torch.from_numpy(picture) for key, picture in shown.items()})
    print(f"the policy acts for the goal {asked}")


def goal_readers(actor: object) -> Iterator[SeesGoals]:
    """What acts for goal pictures among a policy and its parents."""
    if keeps(actor, SeesGoals) and actor.goals is not None:
        yield actor
    for parent in getattr(actor, "parents", ()):
        yield from goal_readers(parent)


def windows_of(actor: object) -> dict:
    """How `data.windows.Windows` brings an actor's pictures: `images`, their sizes, and `goals`, its goal cameras."""
    goals = dict.fromkeys(key for one in goal_readers(actor) for key in one.goals.keys)
    return {"images": images_of(actor), "goals": tuple(goals)}


def _pictures(asked: str, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The picture (h, w, 3) uint8 of each goal camera."""
    data, colon, episode = asked.rpartition(":")
    if colon and episode.isdigit() and not Path(os.path.expandvars(asked)).is_file():
        return _last_of(data, int(episode), keys)
    files = _files(asked, keys)
    for file in files.values():
        if not file.is_file():
            raise GoalError(
                f"--goal {asked}: there is no picture {file}; give a file, or DATA:EPISODE for the end of an episode"
            )
    return {key: _picture(file, key) for key, file in files.items()}


def _files(asked: str, keys: tuple[str, ...]) -> dict[str, Path]:
    if len(keys) == 1 and "=" not in asked:
        return {keys[0]: Path(os.path.expandvars(asked))}
    given = dict(part.partition("=")[::2] for part in asked.split(","))
    names = {key.removeprefix(IMAGES): key for key in keys}
    if given.keys() != names.keys() or not all(given.values()):
        wanted = ",".join(f"{name}=PICTURE" for name in names)
        raise GoalError(f"--goal {asked}: the policy reads a goal of each of {', '.join(names)}; give --goal {wanted}")
    return {names[name]: Path(os.path.expandvars(file)) for name, file in given.items()}


def _picture(file: Path, key: str) -> np.ndarray:
    """A picture file as uint8 (h, w, 3). Raises GoalError unless it has three colours of 8 bits."""
    read = read_picture(file.read_bytes())
    if read is None:
        raise GoalError(f"--goal {file} is no readable picture")
    picture, bits, channels = read
    if bits > 8 or channels == 1:
        what = f"{bits} bits a channel" if bits > 8 else "shades of grey alone"
        raise GoalError(f"--goal {file} holds {what}; '{key}' is read in three colours of 8 bits")
    return picture


def _last_of(data: str, episode: int, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What cameras showed at the end of an episode of a dataset."""
    dataset = open_dataset(data, columns=keys, episodes=str(episode))
    place = [*map(int, dataset.episode_ids)].index(numbers_of(str(episode))[0])
    frames = {key: open_frames(dataset, key.removeprefix(IMAGES), episodes=[place]) for key in keys}
    return {key: one.episode(place)[-1] for key, one in frames.items()}


def _fitted(asked: str, key: str, picture: np.ndarray, actor: SeesGoals) -> np.ndarray:
    """A goal picture at the size that a policy reads. Raises GoalError for one of another size than was recorded."""
    body: Embodiment = actor.embodiment
    came, read = picture.shape[:2], tuple(actor.eyes.sizes[key])
    recorded = tuple(body.cameras[key.removeprefix(IMAGES)])
    if came not in (recorded, read):
        raise GoalError(
            f"--goal {asked}: the picture of '{key}' is {came[0]}x{came[1]}; the policy learnt from "
            f"{recorded[0]}x{recorded[1]} (height x width). Take one of this camera, or resize it yourself"
        )
    return np.ascontiguousarray(fit(picture, read))
