"""Whether another machine would compute the same: Python, our code, libraries, plug-ins, files of the world.

A machine that differs is refused with words, before anybody acts there: the same env seeds would give other episodes,
and nothing in a record would tell.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ....configs.machine import prepare, versions
from ....configs.sources import add_sources, our_code
from ...ledger.provenance import PACKAGES

NAMES = ("type", "task", "name")  # settings that are no paths, whatever lies in the folder where the command is given
DRAWN = "what pictures are drawn by (MUJOCO_GL)"
# beside those that a record names: what pictures, schedulers and policies of lerobot's are computed by
LIBRARIES = (*PACKAGES, "torchvision", "diffusers", "transformers", "timm", "opencv-python", "opencv-python-headless")


class OtherMachineError(ValueError):
    """A machine that would not compute the same; the message says what differs there, and what to do."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a run needs of a machine beside us.

    Args:
        modules: importable packages or modules, such as plug-ins.
        files: files and folders of the world's settings, absolute.
        draws: whether pictures are rendered.
    """

    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    draws: bool = False


def facts(needs: Needs = Needs()) -> dict[str, str]:
    """What must be the same: name of a part -> what this machine has of it; "absent" where it has none."""
    from .... import __version__

    python = "{}.{}".format(*sys.version_info)
    told = {"Python": python, "understudy": __version__, "the code of understudy": our_code()}
    told |= versions(*LIBRARIES)
    if needs.draws:
        prepare()
        told[DRAWN] = os.environ.get("MUJOCO_GL", "") or "by a display"
    told |= {f"the module {name}": _module(name) for name in needs.modules}
    return told | {f"the file {path}": _content(Path(path)) for path in needs.files}


def refuse_other(where: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Raise OtherMachineError where a machine has something else than this one, naming all of it."""
    had = {name: theirs.get(name, "absent") for name in ours}
    other = [f"{name}: {had[name]} there, {here} here" for name, here in ours.items() if had[name] != here]
    if not other:
        return
    hint = "install there what is installed here (`pip freeze`), of the same commit"
    if any(name.startswith("the file") for name in theirs):
        hint += "; files of a world are not sent: put them at the same place on every node"
    if theirs.get(DRAWN) != ours.get(DRAWN):
        hint += "; set MUJOCO_GL alike everywhere, before `ray start` and here"
    raise OtherMachineError(f"{where} would not compute the same: {'; '.join(other)}. Leave it out, or {hint}")


def needs_of(world: object, *objects: object) -> Needs:
    """What a world, and whatever else is sent, needs: modules that are not ours, and files that its settings name."""
    plugins = [name.strip() for name in os.environ.get("UNDERSTUDY_PLUGINS", "").split(",") if name.strip()]
    ours = (__package__ or "").partition(".")[0]
    modules = {type(one).__module__.partition(".")[0] for one in (world, *objects)} - {ours}
    draws = bool(getattr(world, "cameras", None))
    return Needs(tuple(sorted({*modules, *plugins})), tuple(sorted(set(_files(world)))), draws)


def _module(name: str) -> str:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        return "absent"
    digest = hashlib.sha256()
    for place in found.submodule_search_locations or [found.origin or ""]:
        add_sources(digest, Path(place))
    return digest.hexdigest()[:16]


def _content(path: Path) -> str:
    digest = hashlib.sha256()
    if not path.exists():
        return "absent"
    for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _files(value: object) -> Iterator[str]:
    """Paths that are there, in settings of any depth."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            if item.name not in NAMES:
                yield from _files(getattr(value, item.name))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in NAMES:
                yield from _files(inner)
    elif isinstance(value, (Path, str)) and str(value):
        path = Path(os.path.expandvars(value))
        if len(str(path)) < 1000 and path.exists():
            yield str(path.absolute())
    elif isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        for inner in value:
            yield from _files(inner)
