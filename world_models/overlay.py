"""A drawn robot in an imagined film: maps for the dynamics, and the arm laid over what was imagined.

The actions pose the arm forward by its measured response (`response.py`); it is drawn (`drawn.py`) and enters the
dynamics as channel maps, as it stands now and as it will stand. Where nothing hides it the frame shows the drawn arm,
to the pixel; what hides it is the network's to say, learned from true frames, in which it is known: there the picture
is not the drawn arm. Places of a latent that are the arm's alone are encoded from the drawing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs.episode import SENT
from ..configs.files import replace_file
from ..configs.progress import Progress
from ..configs.spec import IMAGES, STATE
from ..policies.data.embeddings import Embeddings
from ..policies.data.frames import cache_folder, make_room
from .blocks import FOLD, as_floats, channels_last
from .data import Encoded, JointFrames, open_joint
from .drawn import (
    CHANNELS,
    HIDDEN,
    NOTHING,
    ROBOT,
    Drawer,
    DrawnRobot,
    RobotError,
    check_angles,
    check_prints,
)
from .response import Response

if TYPE_CHECKING:
    from ..policies.data.dataset import Dataset
    from .codec import Codec, CodecConfig

BEHIND = f"{IMAGES}behind"  # key of a batch: (B, O, C, h / 8, w / 8) float32, see `behind_rows`
DRAWN = f"{IMAGES}drawn"  # key of a batch: (B, O, cameras, h, w, 5) uint8, see `drawn.Drawing.pixels`, with `HIDDEN`
UNLIKE = 40  # levels of a channel by which a pixel is not the drawn one: something hides the arm there
FITS = 0.9  # part of the arm's pixels that look as drawn, in half of the training frames at least
BEGINS = 0.7  # the same of the frame that a film begins with
LOOKED_AT = 64  # frames that are compared with what is drawn
MAPS, WIDTH = 32, 48  # channels of the drawn arm in the dynamics; of what says that it is hidden
RARE = 10.0  # how much more a hidden pixel counts, at most


class Overlay(nn.Module):
    """The robot of a world model. Poses are (M, 2 D): joints now and one control step before, rad.

    Raises:
        RobotError: the task is not there, or its arm, cameras or fixed scene are others than in training.
    """

    def __init__(self, robot: DrawnRobot, eyes: CodecConfig, dims: int):
        super().__init__()
        self.robot, self.dims, self.cameras = robot, dims, len(eyes.cameras)
        self.drawer = Drawer(robot, eyes.cameras, eyes.size)
        self.response = Response(dims)
        self.enter = nn.Conv2d(CHANNELS * self.cameras * FOLD**2, MAPS, 1)
        self.hides = nn.Sequential(
            nn.Conv2d(eyes.shape[0] + MAPS, WIDTH, 3, padding=1), nn.SiLU(),
            nn.Conv2d(WIDTH, self.cameras * FOLD**2, 1), nn.PixelShuffle(FOLD),
        )  # fmt: skip

    # -- before training

    def begin(self, dataset: Dataset, episodes: np.ndarray, frames: JointFrames, steps: int) -> list[str]:
        """Measure the response on training episodes, and look whether the drawn arm lies where their pictures show it.

        Raises:
            RobotError: it does not, or angles are not in rad, or joints do not follow the actions.
        """
        joints, goals = dataset.columns[STATE], dataset.columns[SENT]
        rows = np.concatenate([dataset.starts[m] + np.arange(dataset.lengths[m]) for m in episodes])
        names, where = dataset.embodiment.action, str(dataset.root)
        for what, values in (("observation.state", joints), ("action", goals)):
            check_angles(values[rows], names, f"{what} of {where}")
        owner = np.repeat(np.asarray(episodes), dataset.lengths[episodes])
        answer = self.response.fit(joints[rows], goals[rows], owner, steps, names)

        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).astype(int))]
        alike = self.alike(torch.from_numpy(frames.read(some)), torch.from_numpy(joints[some]))
        seen = self.check_fit(alike.nanmedian(0).values, where)
        return [
            f"the arm of {self.robot.task} is drawn: as recorded in {seen:.0%} of its pixels; {answer.steps} steps on, "
            f"posed by the actions, off by {answer.off:.3f} rad (an arm that stands: {answer.standing:.3f})"
        ]

    def check_fit(self, alike: Tensor, where: str) -> float:
        """The least part of the arm that a camera shows as it is drawn.

        Args:
            alike: (cameras,) that part; NaN where a camera does not see the arm.

        Raises:
            RobotError: no camera sees it, or one shows another arm, or from elsewhere.
        """
        if alike.isnan().all():
            raise RobotError(
                f"drawn at the recorded joints, the arm of {self.robot.task} is in none of the pictures of {where}: "
                "there is nothing to draw. Train without world_model.robot"
            )
        worst = int(alike.nan_to_num(torch.inf).argmin())
        if (seen := float(alike[worst])) < FITS:
            raise RobotError(
                f"drawn at the recorded joints, the arm of {self.robot.task} looks as in the pictures of {where} in "
                f"{seen:.0%} of its pixels ({FITS:.0%} are asked for), as camera '{self.drawer.cameras[worst]}' sees "
                "it: another arm, camera, look or zero of the joints. Compare them (understudy inspect), or train "
                "without world_model.robot"
            )
        return seen

    def alike(self, pictures: Tensor, joints: Tensor) -> Tensor:
        """(M, cameras) part of the arm, drawn at joints (M, D), that pictures (M, cameras, h, w, 3) uint8 show so.

        Each camera for itself: one that sees the arm from near would outvote the others. NaN where it sees none.
        """
        drawn = self.draw(joints)
        mask = drawn[..., 4] != NOTHING
        same = mask & ~_unlike(drawn, pictures.to(drawn.device))
        return same.flatten(2).sum(2) / mask.flatten(2).sum(2)

    def check_starts(self, truth: Any, name: str) -> None:
        """Raise RobotError where a world of ours has another arm, camera or fixed scene; pictures tell of others."""
        from ..sim.task import MuJoCoWorld

        if not isinstance(truth, MuJoCoWorld):
            return
        theirs = DrawnRobot(task=truth.task, cameras=self.robot.cameras)
        found = Drawer(theirs, self.drawer.cameras, self.drawer.size).prints
        check_prints(self.robot.prints, found, f"the world '{name}', where films begin,")

    def check_begin(self, pictures: Tensor, joints: Tensor | None) -> str:
        """Why a film may not begin with a picture (1, cameras, h, w, 3) and joints (1, n, D); nothing where it may."""
        if joints is None:
            return "nothing says where the joints of the robot are, which is drawn; starts must offer " + STATE
        alike = self.alike(pictures, joints[:, -1])[0].nan_to_num(1.0)  # where no arm is to be seen, none is wrong
        worst = int(alike.argmin())
        if float(alike[worst]) >= BEGINS:
            return ""
        return (
            f"the arm of {self.robot.task}, drawn at the joints that the start has, looks as in its first frame in "
            f"{float(alike[worst]):.0%} of its pixels ({BEGINS:.0%} are asked for), as camera "
            f"'{self.drawer.cameras[worst]}' sees it: another camera, look or zero of the joints"
        )

    # -- drawing

    def draw(self, poses: Tensor) -> Tensor:
        """Poses (..., D or 2 D) -> (..., cameras, h, w, 5) uint8, see `drawn.Drawing.pixels`."""
        joints = poses[..., : self.dims].reshape(-1, self.dims).cpu().numpy()
        drawn = torch.from_numpy(self.drawer.pixels(joints)).to(poses.device)
        return drawn.unflatten(0, poses.shape[:-1])

    def maps(self, drawn: Tensor) -> Tensor:
        """(M, cameras, h, w, 5) uint8 -> (M, MAPS, h / 8, w / 8) for a network."""
        layers = drawn.float() / 255
        layers[..., 4] = (drawn[..., 4] != NOTHING).float()
        return self.enter(F.pixel_unshuffle(layers.permute(0, 1, 4, 2, 3).flatten(1, 2), FOLD))

    def hidden(self, latents: Tensor, drawn: Tensor) -> Tensor:
        """(M, cameras, h, w) logits that something hides the arm there."""
        return self.hides(channels_last(torch.cat([latents, self.maps(drawn)], 1))).float()

    def shown(self, latents: Tensor, drawn: Tensor) -> Tensor:
        """(M, cameras, h, w) bool, pixels at which the frame of latents (M, C, h / 8, w / 8) is the drawn arm's."""
        return (drawn[..., 4] != NOTHING) & (self.hidden(latents, drawn) < 0)

    def fill(self, latents: Tensor, drawn: Tensor, codec: Codec) -> Tensor:
        """Latents in which the places that are the arm's alone, where nothing was learnt, show the drawing."""
        whole = covered(self.shown(latents, drawn)).amin(1, keepdim=True) == 1
        mask = (drawn[..., 4] != NOTHING).repeat_interleave(3, 1)
        return torch.where(whole, codec.encode(torch.where(mask, as_floats(drawn[..., :3]), codec.mean)), latents)

    def lay(self, pictures: Tensor, latents: Tensor, drawn: Tensor) -> Tensor:
        """Pictures (M, cameras, h, w, 3) uint8 that were decoded from latents, with the drawn arm over them."""
        return torch.where(self.shown(latents, drawn)[..., None], drawn[..., :3], pictures)

    def apart(self, pictures: Tensor, latents: Tensor, drawn: Tensor) -> Tensor:
        """(M,) how far pictures, before the arm is laid over them, are from it at its outline; root mean square, of 1.

        Only places that are the arm's in part count: of the rest the network learns nothing.
        """
        shown = self.shown(latents, drawn)
        part = F.interpolate((covered(shown) < 1).float(), scale_factor=FOLD)
        weight = shown.float() * part
        off = ((pictures.float() - drawn[..., :3].float()) / 255).square().mean(-1)
        return ((weight * off).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1)).sqrt()

    # -- learning

    def loss(self, latents: Sequence[Tensor], drawn: Tensor) -> Tensor:
        """Error of what is said to hide the arm, read from each of the latents (M, C, h / 8, w / 8)."""
        told = drawn[..., 4] == HIDDEN
        mask = drawn[..., 4] != NOTHING
        rare = ((mask & ~told).sum() / told.sum().clamp(min=1)).clamp(1, RARE)
        weight = torch.where(told, rare, 1.0) * mask
        total = latents[0].new_zeros(())
        for one in latents:
            doubt = F.binary_cross_entropy_with_logits(self.hidden(one, drawn), told.float(), reduction="none")
            total = total + (weight * doubt).sum() / weight.sum().clamp(min=1)
        return total / len(latents)


def open_places(drawn: Tensor) -> Tensor:
    """(M, 1, h / 8, w / 8) part of each place of a latent that the drawn arm does not show: what is to be learnt."""
    return 1 - covered(drawn[..., 4] == ROBOT).mean(1, keepdim=True)


def left_open(drawn: Tensor) -> Tensor:
    """(M, 1, h / 8, w / 8) bool, places of a latent of which the drawn arm covers half at most, in every camera."""
    return covered(drawn[..., 4] != NOTHING).amax(1, keepdim=True) <= 0.5


def covered(shown: Tensor) -> Tensor:
    """(M, cameras, h / 8, w / 8) part of each place that is shown, of (M, cameras, h, w) bool."""
    return F.avg_pool2d(shown.float(), FOLD)


def _unlike(drawn: Tensor, pictures: Tensor) -> Tensor:
    """(..., h, w) bool, pixels (..., h, w, 3) that are not as drawn (..., h, w, 5)."""
    return (drawn[..., :3].int() - pictures.int()).abs().amax(-1) > UNLIKE


# -- of recorded episodes


@dataclass(frozen=True)
class DrawnRows:
    """The arm at the recorded joints of some episodes, read by dataset row."""

    files: dict[int, Path]
    starts: np.ndarray
    shape: tuple[int, ...]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Dataset rows of any shape -> uint8 (*shape, cameras, h, w, 5), a copy."""
        flat = rows.reshape(-1)
        episodes = np.searchsorted(self.starts, flat, "right") - 1
        out = np.empty((len(flat), *self.shape), np.uint8)
        for position in np.unique(episodes).tolist():
            members = episodes == position
            held = np.load(self.files[position], mmap_mode="r")
            out[members] = held[flat[members] - self.starts[position]]
        return out.reshape(*rows.shape, *self.shape)


def drawn_rows(dataset: Dataset, overlay: Overlay, episodes: np.ndarray) -> DrawnRows:
    """The arm at every recorded pose, drawn once and kept in the bounded cache of decoded pictures.

    Pixels of the arm that the recorded picture does not show so are marked `HIDDEN`.

    Raises:
        DatasetError: no room in the cache or on the disk.
    """
    drawer, joints = overlay.drawer, dataset.columns[STATE]
    frames = open_joint(dataset, drawer.cameras, drawer.size, episodes)
    shape = (len(drawer.cameras), *drawer.size, CHANNELS)
    folder = cache_folder()
    rows = {int(m): dataset.starts[m] + np.arange(dataset.lengths[m]) for m in episodes}
    files = {m: folder / f"{_name(drawer, joints[own], frames.files[m])}.npy" for m, own in rows.items()}
    todo = {m: path for m, path in files.items() if not path.exists()}
    size = int(np.prod(shape))
    if todo:
        wanted, new = (sum(len(rows[m]) * size for m in some) for some in (files, todo))
        make_room(folder, {*files.values(), *frames.files.values()}, wanted, new)
    done, total = 0, sum(len(rows[m]) for m in todo)
    with Progress(f"drawing the arm of {drawer.robot.task}", total, "frames") as progress:
        for m, path in todo.items():
            drawn = drawer.pixels(joints[rows[m]])
            unlike = _unlike(torch.from_numpy(drawn), torch.from_numpy(frames.episode(m))).numpy()
            drawn[..., 4][unlike & (drawn[..., 4] == ROBOT)] = HIDDEN

            def write(beside: Path, drawn=drawn) -> None:
                with open(beside, "wb") as file:
                    np.save(file, drawn)

            replace_file(path, write)
            done += len(drawn)
            progress.update(done)
    return DrawnRows(files, dataset.starts, shape)


def behind_rows(dataset: Dataset, latents: Encoded, drawn: DrawnRows, episodes: np.ndarray) -> Encoded:
    """What each place of a latent showed when the drawn arm last left it open, of every frame of some episodes.

    A place that it covers from an episode's first frame on shows that frame. Computed once and kept beside the latents.

    Raises:
        DatasetError: no room in the cache or on the disk.
    """
    folder = cache_folder()
    names = {int(m): f"behind 1 {latents.files[m].stem} {drawn.files[m].stem}" for m in episodes}
    files = {m: folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy" for m, name in names.items()}
    todo = {m: path for m, path in files.items() if not path.exists()}
    if todo:
        wanted, new = (sum(latents.files[m].stat().st_size for m in some) for some in (files, todo))
        make_room(folder, {*files.values(), *latents.files.values(), *drawn.files.values()}, wanted, new)
    with Progress("remembering what the arm covers", len(todo), "episodes") as progress:
        for count, (m, path) in enumerate(todo.items(), 1):
            rows = dataset.starts[m] + np.arange(dataset.lengths[m])
            seen, there = latents.read(rows), left_open(torch.from_numpy(drawn.read(rows))).numpy()
            for now in range(1, len(seen)):
                seen[now] = np.where(there[now], seen[now], seen[now - 1])
            flat = seen.reshape(len(rows), -1)

            def write(beside: Path, flat=flat) -> None:
                with open(beside, "wb") as file:
                    np.save(file, flat)

            replace_file(path, write)
            progress.update(count)
    return Encoded(Embeddings(files, dataset.starts, int(np.prod(latents.shape))), latents.shape)


def _name(drawer: Drawer, joints: np.ndarray, pictures: Path) -> str:
    """Of a file: tells what is drawn, where, and what was compared with it."""
    about = f"drawn 1 {sorted(drawer.prints.items())} {drawer.cameras} {drawer.size} {UNLIKE} {pictures.stem} "
    return hashlib.sha256(about.encode() + np.ascontiguousarray(joints, np.float32).tobytes()).hexdigest()[:32]
