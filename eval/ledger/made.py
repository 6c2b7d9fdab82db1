"""The commands that made what a record used: a training told by its settings, a recording by its card.

They are written into the manifest of a new record, so that `results --check` can follow its chain down to public data
without an entry in `chains.yaml`. What says nothing of how it was made is left for that file.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from ...configs.command import command_of
from ...policies.data.writer import DOCUMENTS
from ...policies.learning.run import SETTINGS
from .chains import used_by_policy

MOST = 100  # artefacts of one chain


def made(manifest: Mapping) -> dict[str, str]:
    """Artefact -> its command, for all that lie where the manifest says and know it; paths as they were given."""
    found: dict[str, str] = {}
    waiting = [*_parents(manifest), *used_by_policy(manifest)]
    while waiting and len(found) < MOST:
        path = waiting.pop(0)
        name, command, more = _training(path) or _recording(path) or ("", "", [])
        if command and name not in found:
            found[name] = command
            waiting += more
    return found


def _parents(manifest: Mapping) -> list[str]:
    """Who acted, also where its path is not one of those that chains know by their look."""
    policy = manifest.get("policy") or {}
    parents = (policy.get("config") or {}).get("parents") or []
    told = [policy.get("path"), *(one.get("path") if isinstance(one, Mapping) else one for one in parents)]
    return [path for path in told if isinstance(path, str)]


def _training(path: str) -> tuple[str, str, list[str]] | None:
    """(run, its command, what it read) of a path that is a run or lies in one."""
    from ...policies.learning.doors import DoorError, read_settings  # torch takes seconds
    from ...policies.learning.train import Train

    place = Path(path)
    run = next((folder for folder in (place, *place.parents[:2]) if (folder / SETTINGS).is_file()), None)
    if run is None:
        return None
    try:
        settings = dataclasses.replace(read_settings(run, Train), out=run, resume=None)
    except DoorError:
        return None  # damaged since: what acts was loaded from a checkpoint of its own
    read = [*settings.data.split(","), settings.init, settings.embodiment, settings.eval]
    return str(run), command_of(settings, "train"), [str(each).strip() for each in read if each]


def _recording(path: str) -> tuple[str, str, list[str]] | None:
    """(dataset, its command, what it read) of a recording of ours; those of before do not say it."""
    card = Path(path) / DOCUMENTS[0]
    try:
        command = json.loads(card.read_text()).get("command")
    except (OSError, ValueError, AttributeError):
        return None
    if not isinstance(command, str):
        return None
    read = [word for word in shlex.split(command)[2:] if Path(word).is_dir()]
    return path, f"{command} --out {shlex.quote(path)}", read
