"""What a policy is made of, as one array that is sent to a node once and unpacked there under the hash of its content.

A parcel holds the files of one checkpoint folder without its training state, or one file. It is unpacked in the cache
folder of whoever works there (`cache_folder`, by default in the home), beside and renamed, so that many workers may
unpack it at the same time; what nobody has used for a week is removed.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....configs.machine import cache_folder
from ....policies.learning.checkpoint import find_checkpoint
from ....policies.learning.integrity import TRAINING

SHELF = "parcels"
KEPT = 7 * 24 * 3600.0  # s


@dataclass(frozen=True)
class Parcel:
    """A folder or a file.

    Args:
        name: hash of the content; with the name of the file, where it is one.
        content: (n,) uint8, a tar file.
    """

    name: str
    content: np.ndarray


def pack(place: str) -> Parcel:
    """The checkpoint that a path leads to, or the file that lies there.

    Raises:
        FileNotFoundError: neither is there.
    """
    path = Path(os.path.expandvars(place))
    folder = path.parent if path.is_file() and path.suffix else find_checkpoint(place)
    files = [path] if path.is_file() and path.suffix else sorted(file for file in folder.rglob("*") if file.is_file())
    told, digest = io.BytesIO(), hashlib.sha256()
    with tarfile.open(fileobj=told, mode="w") as tar:
        for file in files:
            inside = file.relative_to(folder)
            if TRAINING in inside.parts:
                continue
            content = file.read_bytes()
            digest.update(f"{inside.as_posix()}\n{len(content)}\n".encode() + content)
            entry = tarfile.TarInfo(inside.as_posix())
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    alone = f"/{path.name}" if path.is_file() and path.suffix else ""
    return Parcel(digest.hexdigest()[:32] + alone, np.frombuffer(told.getvalue(), np.uint8))


def shelf() -> Path:
    """Where parcels are unpacked on this machine."""
    return cache_folder() / SHELF


def lies_here(name: str) -> bool:
    """Whether a parcel is unpacked on this machine; notes that it is used."""
    folder = shelf() / name.partition("/")[0]
    try:
        os.utime(folder)
    except OSError:
        return False
    return True


def unpack(name: str, content: np.ndarray) -> None:
    """Put a parcel on the shelf. Raises OSError where there is no room."""
    if lies_here(name):
        return
    shelf().mkdir(parents=True, exist_ok=True)
    _tidy()
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=shelf()))
    try:
        with tarfile.open(fileobj=io.BytesIO(content.data), mode="r") as tar:
            tar.extractall(half, filter="data")
        half.rename(shelf() / name.partition("/")[0])
    except OSError:
        if not lies_here(name):  # else another worker was first
            raise
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _tidy() -> None:
    for folder in shelf().glob("*"):
        if folder.is_dir() and time.time() - folder.stat().st_mtime > KEPT:
            shutil.rmtree(folder, ignore_errors=True)
