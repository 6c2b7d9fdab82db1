"""Open a world to act in: a registered name, a YAML file, its keys, or a `World` already read, as lanes.

Knows no kind of world by name; a new one is a file elsewhere that registers itself.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass

import draccus

from ..configs.lanes import Lanes
from ..configs.plugins import discover
from ..configs.world import WORLDS, World, find_world

WorldSource = str | Mapping | World


def read_world(source: WorldSource, **changes) -> World:
    """The world that `source` describes, with the fields `changes` in place of its own where they are not None.

    Args:
        source: a registered name, a path to YAML (`$VAR` expanded), a mapping with `type` (a kind of
            world, or a registered name) and other keys, or a World.

    Raises:
        LookupError: an unknown name or type, listing the known ones.
        ValueError: keys that make no world.
    """
    if isinstance(source, World):
        world = source
    elif isinstance(source, Mapping):
        world = _from_keys(dict(source))
    else:
        world = find_world(os.path.expandvars(str(source)))
    return dataclasses.replace(world, **{key: value for key, value in changes.items() if value is not None})


def open_world(source: WorldSource, lanes: int = 8, workers: int = 0, **changes) -> Lanes:
    """`lanes` copies of a world, in this process or in `workers` processes; see `read_world`."""
    return Lanes(read_world(source, **changes), lanes, workers)


def start_set(world: World) -> str:
    """What start ids of this world belong to: rows of two records may be joined where it and the start are equal."""
    while hasattr(world, "of"):  # a perturbed world begins as the clean one does
        world = world.of
    own = getattr(world, "start_set", "")
    model = getattr(world, "model_seed", None)
    suffix = "" if model is None else f"#{model}"
    return own or f"{world.get_choice_name(type(world))}/{world.task}{suffix}"


def _from_keys(keys: dict) -> World:
    """`type` may be a kind of world, or a registered name whose defaults the other keys change."""
    from ..configs.parse import decode

    discover("sim", "world_models", "hardware")
    named = WORLDS.get(keys.get("type"))
    if named is not None:
        keys = draccus.encode(named) | keys | {"type": named.get_choice_name(type(named))}
    return decode(_Holder, {"world": keys}).world


@dataclass(frozen=True)
class _Holder:
    world: World
