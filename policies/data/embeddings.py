"""Embeddings of a dataset's pictures by a frozen encoder: computed once, kept, and read in place of the pictures.

Past-token prediction trains a long context on them (arXiv 2505.09561, stage 2 of 3). They lie beside the decoded
pictures in the same bounded cache (`frames.py`), one file an episode, named by the pictures and by everything that the
encoder does, so that those of another encoder, other data or another crop are never taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...configs.files import replace_file
from ...configs.progress import Progress
from .frames import Frames, cache_folder, make_room

AT_ONCE = 64  # pictures that are embedded together


class Embeddings:
    """Embeddings of some episodes, read by dataset row; a stand-in for `Frames`.

    Args:
        files: an array (n, E) float32 for each episode, by position.
        starts: (M,) row of each episode's first frame.
        width: E.
    """

    def __init__(self, files: dict[int, Path], starts: np.ndarray, width: int):
        self.files, self._starts, self._width = files, starts, width
        self._open: dict[int, np.ndarray] = {}

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Dataset rows of any shape -> float32 (*shape, E), a copy."""
        flat = rows.reshape(-1)
        episodes = np.searchsorted(self._starts, flat, "right") - 1
        out = np.empty((len(flat), self._width), np.float32)
        for position in np.unique(episodes).tolist():
            members = episodes == position
            out[members] = self._episode(position)[flat[members] - self._starts[position]]
        return out.reshape(*rows.shape, self._width)

    def _episode(self, position: int) -> np.ndarray:
        if position not in self._open:
            self._open[position] = np.asarray(np.load(self.files[position], mmap_mode="r"))
        return self._open[position]


def open_embeddings(
    frames: Frames, embed: Callable[[Tensor], Tensor], encoder: str, width: int, lengths: Iterable[int], what: str = ""
) -> tuple[Embeddings, int]:
    """Embeddings of decoded pictures, computed where they are not kept yet.

    Args:
        frames: the pictures of some episodes.
        embed: pictures (M, h, w, 3) uint8 -> (M, E).
        encoder: text that tells what `embed` does from everything else, weights included.
        width: E.
        lengths: frames of each episode of the dataset, by position.
        what: the camera, for the progress line.

    Returns:
        (embeddings, how many frames were embedded now).
    Raises:
        DatasetError: no room in the cache or on the disk.
    """
    folder, counts = cache_folder(), list(lengths)
    files = {m: folder / f"{_name(path, encoder)}.npy" for m, path in frames.files.items()}
    todo = {m: path for m, path in files.items() if not path.exists()}
    if todo:
        frame = 4 * width
        kept = {*files.values(), *frames.files.values()}
        make_room(folder, kept, sum(counts[m] * frame for m in files), sum(counts[m] * frame for m in todo))
        _embed_all(frames, embed, todo, counts, what)
    return Embeddings(files, frames.starts, width), sum(counts[m] for m in todo)


@torch.no_grad()
def _embed_all(frames: Frames, embed: Callable, todo: dict[int, Path], counts: list[int], what: str) -> None:
    done, total = 0, sum(counts[m] for m in todo)
    with Progress(f"embedding {what}", total, "frames") as progress:
        for position, path in todo.items():
            parts = []
            for pictures in torch.from_numpy(frames.episode(position)).split(AT_ONCE):
                parts.append(embed(pictures).float().cpu().numpy())
                done += len(pictures)
                progress.update(done)
            whole = np.concatenate(parts)

            def write(beside: Path, whole=whole) -> None:
                with open(beside, "wb") as file:
                    np.save(file, whole)

            replace_file(path, write)


def _name(pictures: Path, encoder: str) -> str:
    return hashlib.sha256(f"embedding 1 {pictures.stem} {encoder}".encode()).hexdigest()[:32]
