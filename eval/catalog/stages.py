"""What `understudy list tasks` and `list experts` say of each task: spaces, units, time, cameras, expert and its level.

Knows no task by name; a world that cannot be described on this machine says why in its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ...configs.plugins import discover
from ...configs.world import WORLDS, World

MANY = 9  # names of one unit that are written out


def simulated() -> dict[str, World]:
    """Registered name -> world, of those that live in a simulator."""
    discover("sim")
    return {name: WORLDS[name] for name in sorted(WORLDS)}


def demonstrated() -> dict[str, World]:
    """Those that have a scripted expert."""
    worlds = simulated()
    from ...sim.experts import EXPERTS

    return {name: world for name, world in worlds.items() if world.task in EXPERTS}


def summary(world: World) -> str:
    """One line: kind, time limit, numbers of actions and observations."""
    try:
        body = world.embodiment()
        seen = f"{len(body.state)} state, {len(body.scene)} scene"
        return f"{kind_of(world)}, {len(body.action)} actions, {seen}, {world.steps()} steps at {body.rate:g} Hz"
    except (ImportError, LookupError, ValueError, OSError) as error:
        return f"{kind_of(world)}, cannot be opened here: {error}"


def describe_task(name: str, world: World, folder: Path) -> str:
    """Some lines: what is seen and done, in which units; how long; with which expert."""
    lines = [f"{name}: {summary(world)}"]
    try:
        body = world.embodiment()
        limits = ", ".join(f"{low:g}..{high:g}" for low, high in dict.fromkeys(body.limits))
        act = f"{vector(body.action, body.action_units)}; {body.mode.value}, {limits}"
        rows = {
            "action": act,
            "state": vector(body.state, body.state_units),
            "scene": vector(body.scene, body.scene_units),
            "cameras": ", ".join(world.views()),
        }
        lines += [f"  {row:<8} {text}" for row, text in rows.items() if text]
    except (ImportError, LookupError, ValueError, OSError):
        pass  # the summary says it
    return "\n".join([*lines, f"  {'expert':<8} {level(name, world, folder)}"])


def describe_expert(name: str, world: World, folder: Path) -> str:
    """One line: what it does and how well."""
    import inspect

    from ...sim.experts import EXPERTS

    first = inspect.cleandoc(EXPERTS[world.task].__doc__ or "").partition("\n")[0]
    return f"  {name:<20} {level(name, world, folder)}\n  {'':<20} {first}"


def level(name: str, world: World, folder: Path) -> str:
    """What the expert of a task reached, as far as it was measured."""
    from ...sim.experts import EXPERTS
    from .measured import read_measured, stale

    if world.task not in EXPERTS:
        return "none"
    measured = read_measured(name, folder)
    if measured is None:
        return f"not measured (understudy list experts --only {name} --measure 100)"
    return f"success {measured}" + (", of an earlier version of the world" if stale(measured) else "")


def vector(names: tuple[str, ...], units: tuple[str, ...]) -> str:
    """`x, y [m], yaw [rad]`: names grouped by unit in their order; long groups are cut, with their length."""
    groups: list[tuple[str, list[str]]] = []
    for name, unit in zip(names, units, strict=True):
        if not groups or groups[-1][0] != unit:
            groups.append((unit, []))
        groups[-1][1].append(name)
    return ", ".join(f"{_shortened(group)} [{unit}]" for unit, group in groups)


def kind_of(world: World) -> str:
    """The `type` of a world's YAML."""
    return world.get_choice_name(type(world))


def folder_of(records: str) -> Path:
    """Where measured levels are."""
    from .measured import RECORDS

    return Path(os.path.expandvars(records)) if records else RECORDS


def remember(name: str, episodes: int, workers: int, folder: Path) -> None:
    """Measure an expert and write its file."""
    from .measured import measure, write_measured

    write_measured(measure(name, episodes, workers), folder)


def draw(worlds: Mapping[str, World], sheet: str, folder: Path) -> str:
    """Write the contact sheet; says where, and what could not be drawn."""
    from ...sim.experts import EXPERTS
    from .measured import read_measured
    from .sheet import write_sheet

    captions = {}
    for name, world in worlds.items():
        measured = read_measured(name, folder)
        reached = f"expert {measured.successes}/{measured.episodes}" if measured else "expert not measured"
        captions[name] = f"{world.steps()} steps, " + (reached if world.task in EXPERTS else "no expert")
    path = Path(os.path.expandvars(sheet))
    failed = write_sheet(path, worlds, captions)
    return "\n".join([f"pictures: {path}", *(f"  {name} could not be drawn: {why}" for name, why in failed.items())])


def _shortened(names: list[str]) -> str:
    if len(names) > MANY:
        return f"{', '.join(names[:2])}, ... {names[-1]} ({len(names)})"
    text = re.sub(r"(\S+)\.x, \1\.y, \1\.z\b(?!_)", r"\1.xyz", ", ".join(names))
    return re.sub(r"(\S+)\.x_x, \1\.x_y, \1\.x_z, \1\.y_x, \1\.y_y, \1\.y_z", r"\1.rotation", text)
