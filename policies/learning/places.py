"""The folder of a run as a place: whether a training may begin in it, go on in it, or clear it. Knows no torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ...configs.files import HALF, PART
from .links import CHECKPOINTS, NAMES, linked, numbered
from .run import SETTINGS

BEGUN = "begun_with.json"  # what a training began with, see `doors.py`
OWN = ("config.yaml", "task_spec.yaml", BEGUN, "metrics.jsonl", "evals.jsonl", "evals.html", "tb", "evals", CHECKPOINTS)


class DoorError(ValueError):
    """A training that cannot begin or go on as asked; the message says why and what to do."""


def check_free(run: Path, whole: Callable[[Path], bool] = lambda run: False) -> None:
    """Refuse a place where there is something already. A run that died before its settings were written is nothing.

    Args:
        whole: says whether the settings of a run without checkpoints can be read.
    Raises:
        FileExistsError: a run, or anything that no run would hold.
    """
    if not run.exists() and not run.is_symlink():
        return
    if (run / SETTINGS).is_file() and (numbered(run) or whole(run)):
        raise FileExistsError(
            f"{run} exists; choose another --out, such as {free_beside(run)}, or go on with: "
            f"understudy train --resume {run}"
        )
    strange = sorted(path.name for path in run.iterdir() if not _is_own(path)) if run.is_dir() else [run.name]
    if strange or numbered(run):
        which = f"it holds {strange[0]}" if strange else f"it holds checkpoints but no {SETTINGS}"
        raise FileExistsError(f"{run} exists; choose another --out, such as {free_beside(run)} ({which})")


def free_beside(run: Path) -> Path:
    """A folder that is not there yet: the name with a number behind it."""
    number = 2
    while (place := run.with_name(f"{run.name}-{number}")).exists():
        number += 1
    return place


def clear(run: Path) -> None:
    """Remove what a training left that died before its settings were written."""
    for path in run.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def locate(path: Path) -> tuple[Path, Path | None]:
    """(run, checkpoint) to go on with: a run and its last checkpoint, or the one of its checkpoints that is named.

    Raises:
        FileNotFoundError: no run. DoorError: a run that cannot be gone on with.
    """
    run, named = path, None
    if not (path / SETTINGS).is_file() and path.parent.name == CHECKPOINTS and path.is_dir():
        run, named = path.parent.parent, path
    elif path.name == "last" and (path.parent / SETTINGS).is_file():
        run = path.parent
    if not (run / SETTINGS).is_file():
        if run.is_dir() and all(map(_is_own, run.iterdir())):
            raise FileNotFoundError(
                f"{run} is not a run: it has no config.yaml, so its training died before it was written"
                f"{', or lost it' if numbered(run) else ''}. Begin it with: understudy train CONFIG.yaml --out {run}"
            )
        what = "is not a run: it has no config.yaml" if run.is_dir() else "is not a run: it does not exist"
        held = ", ".join(one.name for one in numbered(path.parent.parent)) if path.parent.name == CHECKPOINTS else ""
        raise FileNotFoundError(f"{run} {what}{f'; its run holds {held}' if held else ''}")
    if named is not None:
        return run, named
    last = linked(run, "last")
    if last is None and (saved := numbered(run)):
        last = saved[-1]  # `last` was lost, by a copy or a kill
    return run, last


def _is_own(path: Path) -> bool:
    """Whether a name in a run folder is one that trainings write."""
    return path.name in (*OWN, *NAMES) or path.name.endswith((PART, HALF))
