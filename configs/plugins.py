"""Find what registers itself: every module of a folder of ours, and the packages named in `UNDERSTUDY_PLUGINS`.

A new policy, critic, task, expert, world or robot is one new file; nothing here or elsewhere lists it. A module whose
name begins with an underscore registers nothing and is left out: it may need what is not installed.

No file of the current folder is ever taken for a module that nobody named. One that is named, as a plug-in is, and lies
nowhere else is imported from there; then the folder is searched too, after all others.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import pkgutil
import sys
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

PLUGINS = "UNDERSTUDY_PLUGINS"  # names of importable packages or modules, separated by commas


def discover(*folders: str, having: tuple[str, ...] = ()) -> None:
    """Import all modules of `folders` (for example "sim") and of the plug-in packages, so that they register.

    Args:
        having: of our folders, only modules whose source has one of these texts: those that register one kind of
            thing, so that a refusal of a name need not import the rest. Plug-ins are imported whole.

    Raises:
        ImportError: a plug-in that cannot be imported, by name.
    """
    root = __package__.rsplit(".", 1)[0]
    for folder in folders:
        if having:
            _import_having(f"{root}.{folder}", having)
        else:
            _import_all(f"{root}.{folder}")
    for name in filter(None, (part.strip() for part in os.environ.get(PLUGINS, "").split(","))):
        try:
            _import_all(name)
        except ImportError as error:
            raise ImportError(
                f"plug-in '{name}' (of --plugins or {PLUGINS}) cannot be imported: {error}. Give the name of a package "
                "that is installed, or of a folder or file here"
            ) from error


def import_named(name: str) -> ModuleType:
    """Import a module that the user named, also from the current folder where it lies nowhere else.

    Raises:
        ImportError: as `importlib.import_module`.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        first, here = name.partition(".")[0], os.getcwd()
        if error.name != first or here in sys.path or not importlib.machinery.PathFinder.find_spec(first, [here]):
            raise
    sys.path.append(here)
    return importlib.import_module(name)


@cache
def _import_all(name: str) -> None:
    package = import_named(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{name}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)


@cache
def _import_having(name: str, texts: tuple[str, ...]) -> None:
    for place in map(Path, importlib.import_module(name).__path__):
        for file in sorted(place.rglob("*.py")):
            source = file.read_text(encoding="utf-8")
            if not file.name.startswith("_") and any(text in source for text in texts):
                importlib.import_module(".".join((name, *file.relative_to(place).with_suffix("").parts)))


def lookup(kind: str, name: str, registered: Mapping):
    """`registered[name]`, or a `LookupError` that lists the known names."""
    if name not in registered:
        raise LookupError(f"unknown {kind} '{name}'.{_known(name, registered)}")
    return registered[name]


def check_names(given: Iterable[str], known: Collection[str], what: str) -> None:
    """Refuse settings, given by name in Python, that `what` does not have. Raises ValueError listing the known ones."""
    for name in given:
        if name not in known:
            raise ValueError(f"{what} has no setting '{name}'.{_known(name, known)}")


def _known(name: str, names: Collection[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, 1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(sorted(names)) or 'none'}"
