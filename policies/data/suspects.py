"""Films that may have ended the process that decoded them: a damaged one can, inside the decoder and without a word.

While a film is decoded a note of it lies beside the cache. A note of a process that is gone tells that it died just
then, by the film or otherwise. So that film is first decoded whole by a process of its own, which may die of it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .films import cannot_decode
from .layout import expand_path

# decodes a film and keeps nothing
PROBE = """
import sys, av
try:
    with av.open(sys.argv[1]) as container:
        for frame in container.decode(container.streams.video[0]):
            frame.to_ndarray(format="rgb24")
except av.FFmpegError:
    pass  # which this process survives, and so does ours
"""


@contextmanager
def noted(path: Path, what: str = "the episode") -> Iterator[None]:
    """Decode a film in here, with a note in `$UNDERSTUDY_CACHE/decoding` as long as that lasts.

    Raises:
        DatasetError: a process died while it decoded this film, and another one does, too.
    """
    film = path.resolve()
    name = hashlib.sha256(os.fsencode(film)).hexdigest()[:16]
    notes = expand_path(os.environ.get("UNDERSTUDY_CACHE") or "~/.cache/understudy") / "decoding"
    own = notes / f"{name}-{os.getpid()}"
    try:
        notes.mkdir(parents=True, exist_ok=True)
        own.write_text(f"{film}\n")
    except OSError:  # a full disk, a home that may not be written: nothing is noted, and all else goes on
        yield
        return

    try:
        for note in notes.glob(f"{name}-*"):
            if not _alive(int(note.name.rpartition("-")[2])):
                _probe(film, what)
                note.unlink(missing_ok=True)
        yield
    finally:
        own.unlink(missing_ok=True)


def _probe(film: Path, what: str) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", PROBE, str(film)], capture_output=True, check=False)
    if done.returncode < 0:
        raise cannot_decode(film, f"the decoder dies of it, by signal {-done.returncode}", what)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
