"""What becomes of a picture that an agent takes in: fitted to the size that its policy reads, embedded once.

Where one policy alone reads a camera, the agent remembers what its encoder made of each frame in place of the frame: a
long memory costs one encoding a frame, whatever its length. Where others read it, too (parents of a composition, a
critic), frames are remembered as they are, and each encodes them for itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from ...configs.protocols import keeps
from ...configs.spec import IMAGES, EmbodimentError
from ..policy import Critic, Embodied, Planner, Sees


class Sight:
    """Callable on (key, what came) -> what is remembered.

    Raises:
        EmbodimentError: two that read one camera want pictures of different sizes.
    """

    def __init__(self, planner: Planner, critic: Critic | None, device: torch.device):
        readers = [*seers(planner), *(seers(critic) if critic else ())]
        self.sizes = sizes_of(readers)
        self.recorded = recorded_by([planner, *([critic] if critic else [])], self.sizes)
        self._told: set[str] = set()
        self._known = {key: look for one in readers for key, look in one.eyes.config.looks.items()}
        self._looks: dict[str, tuple[int, ...]] = {}  # of the first pictures
        self._eyes = readers[0].eyes if len(readers) == 1 and id(readers[0]) == id(planner) else None
        self._device = device

    def __call__(self, key: str, value: np.ndarray) -> np.ndarray:
        """Observations (B, ...) of all environments: pictures (B, h, w, 3) uint8 are fitted, and embedded (B, E)."""
        if key not in self.sizes or (value.ndim == 2 and value.dtype != np.uint8):
            return value
        if value.dtype != np.uint8 or value.ndim != 4 or value.shape[-1] != 3:
            raise EmbodimentError(
                f"'{key}' should be uint8 pictures (h, w, 3) in three colours, but is {value.dtype} of shape "
                f"{value.shape[1:]}"
            )
        self._tell_of_another_size(key, value.shape[1:3])
        pictures = fitted(value, self.sizes[key])
        if key in self._known and key not in self._looks:
            self._tell_of_another_look(key, pictures)
        if self._eyes is None:
            return pictures
        pictures = pictures if pictures.flags.writeable else pictures.copy()  # torch shares no memory that is read-only
        with torch.no_grad():
            return self._eyes.embed(key, torch.from_numpy(pictures).to(self._device)).float().cpu().numpy()

    def _tell_of_another_size(self, key: str, came: tuple[int, ...]) -> None:
        """Warn once of a camera that gives other pictures than were recorded."""
        recorded, read = self.recorded[key], self.sizes[key]
        if tuple(came) == tuple(recorded) or tuple(came) == tuple(read) or key in self._told:
            return
        self._told.add(key)
        cut = "resized" if came[0] * recorded[1] == came[1] * recorded[0] else "cut to other proportions and resized"
        warnings.warn(
            f"'{key}' gives pictures of {came[0]}x{came[1]}, the policy learnt from {recorded[0]}x{recorded[1]}; they "
            f"are {cut} to {read[0]}x{read[1]}, and may show the scene otherwise than in training",
            SightWarning,
            stacklevel=4,
        )

    def _tell_of_another_look(self, key: str, first: np.ndarray) -> None:
        """Warn of cameras that look swapped, or without colours, once the first pictures of all are here."""
        from ..data.looks import differences, look_of

        self._looks[key] = look_of(first)
        if len(self._looks) == len(self._known):
            for strange in differences(self._known, self._looks):
                warnings.warn(f"{strange} (beside what was learnt from)", SightWarning, stacklevel=4)


class SightWarning(UserWarning):
    """A camera that is not quite the one that was learnt from."""


def recorded_by(actors: list, sizes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """(height, width) at which each camera was recorded, by key: from those pictures are fitted to what is read.

    Args:
        sizes: of the pictures that encoders of ours read; stands in where nobody says what was recorded.
    """
    recorded: dict[str, tuple[int, int]] = {}
    for actor in actors:
        cameras = actor.embodiment.cameras if keeps(actor, Embodied) else {}
        for key in (key for key in actor.inputs if key.startswith(IMAGES)):
            size = cameras.get(key.removeprefix(IMAGES)) or sizes.get(key)
            if size and (key not in recorded or size[0] * size[1] > recorded[key][0] * recorded[key][1]):
                recorded[key] = (int(size[0]), int(size[1]))
    return recorded


def seers(actor: object) -> Iterator[Sees]:
    """What reads pictures among an actor and those that it is made of."""
    if keeps(actor, Sees) and actor.eyes is not None:
        yield actor
    for name in ("parents", "parts"):
        for one in getattr(actor, name, ()):
            yield from seers(one)


def sizes_of(readers: list[Sees]) -> dict[str, tuple[int, int]]:
    """(height, width) of the pictures that these read, by key. Raises EmbodimentError where two want others."""
    sizes: dict[str, tuple[int, int]] = {}
    for one in readers:
        for key, size in one.eyes.sizes.items():
            if sizes.setdefault(key, size) != size:
                raise EmbodimentError(
                    f"'{key}' is read at {sizes[key][0]}x{sizes[key][1]} and at {size[0]}x{size[1]}; what acts "
                    "together must read pictures of one size (vision.size)"
                )
    return sizes


def images_of(actor: object) -> dict[str, tuple[int, int]]:
    """(height, width) at which recorded pictures are handed to an actor, by camera; others are read as recorded."""
    return {key.removeprefix(IMAGES): size for key, size in sizes_of([*seers(actor)]).items()}


def fitted(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pictures (B, h, w, 3) as they were recorded -> (B, height, width, 3), as training saw them."""
    if pictures.shape[1:3] == tuple(size):
        return pictures
    from ..data.decode import fit

    return np.stack([fit(picture, size) for picture in pictures])
