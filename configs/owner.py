"""One process at a time in a folder, by a lock on the folder itself that leaves no file behind."""

from __future__ import annotations

import os
import weakref
from pathlib import Path


class InUseError(OSError):
    """A folder that another process writes now."""


class Owned:
    """A folder that this process alone writes, until `release`, the end of the `with`, or the end of the process."""

    def __init__(self, descriptor: int | None):
        self._descriptor = descriptor
        self._free = weakref.finalize(self, _free, descriptor) if descriptor is not None else None
        _HELD.add(self)

    def release(self) -> None:
        """Let others write; a second time does nothing."""
        if self._free is not None:
            self._free()

    def leave(self) -> None:
        """In a forked child: the folder is its parent's alone, and free when the parent dies."""
        if self._free is not None and self._descriptor is not None and self._free.detach():
            os.close(self._descriptor)

    def __enter__(self) -> Owned:
        return self

    def __exit__(self, *reason) -> None:
        self.release()


_HELD: weakref.WeakSet[Owned] = weakref.WeakSet()


def _leave_all() -> None:
    for held in list(_HELD):
        held.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def _free(descriptor: int) -> None:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def owned(folder: Path) -> Owned:
    """Take a folder for this process alone: a lock on the folder itself, which leaves no file behind.

    Freed by the system when the process dies, however that happens. Where the file system knows no locks there is none.

    Raises:
        FileNotFoundError: no such folder.
        InUseError: another process, or another part of this one, holds it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return Owned(None)

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        text = f"'{folder}' is being written by another process; wait for its end, or give another folder"
        raise InUseError(text) from None
    except OSError:
        os.close(descriptor)
        return Owned(None)
    return Owned(descriptor)
