"""What becomes of a picture that an agent takes in: fitted to the size that its policy reads, embedded once.

Where one policy alone reads a camera, the agent remembers what its encoder made of each frame in place of the frame: a
long memory costs one encoding a frame, whatever its length. Where others read it, too (parents of a composition, a
critic), frames are remembered as they are, and each encodes them for itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ...configs.protocols import keeps
from ...configs.spec import EmbodimentError
from ..policy import Critic, Planner, Sees


class Sight:
    """Callable on (key, what came) -> what is remembered.

    Raises:
        EmbodimentError: two that read one camera want pictures of different sizes.
    """

    def __init__(self, planner: Planner, critic: Critic | None, device: torch.device):
        readers = [*seers(planner), *(seers(critic) if critic else ())]
        self.sizes = sizes_of(readers)
        self._eyes = planner.eyes if readers == [planner] else None
        self._device = device

    def __call__(self, key: str, value: np.ndarray) -> np.ndarray:
        """Observations (B, ...) of all environments: pictures (B, h, w, 3) uint8 are fitted, and embedded (B, E)."""
        if key not in self.sizes or value.dtype != np.uint8:
            return value
        pictures = fitted(value, self.sizes[key])
        if self._eyes is None:
            return pictures
        with torch.no_grad():
            return self._eyes.embed(key, torch.from_numpy(pictures).to(self._device)).float().cpu().numpy()


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


def fitted(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pictures (B, h, w, 3) as they were recorded -> (B, height, width, 3), as training saw them."""
    if pictures.shape[1:3] == tuple(size):
        return pictures
    from ..data.decode import fit

    return np.stack([fit(picture, size) for picture in pictures])
