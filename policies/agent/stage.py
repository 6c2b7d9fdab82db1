"""In which world a policy acts where nobody says: the one that its demonstrations were recorded in. Knows no torch."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...configs.plugins import discover
from ...configs.spec import IMAGES, AssumedWarning, Embodiment, EmbodimentError
from ...configs.world import WORLDS, World, name_of, read_world
from ..hub import is_hub_id
from ..learning.checkpoint import CheckpointError, find_checkpoint, parents_of
from ..learning.run import run_folder, training

RECORDING = Path("meta") / "recording.json"  # what a dataset of ours says of its recording
BEGUN = "begun_with.json"  # what a training of ours began with
NO_WORLD = "no registered world fits it by names and units; name the one of its task: --world NAME (`list worlds`)"


def world_of(policies: Sequence[str], tell: bool = True) -> dict | str:
    """The world that policies were trained in, as `read_world` takes it.

    Args:
        tell: print which it is.

    Raises:
        ValueError: nobody says it, or not of all the same; names worlds that fit.
    """
    told = [told_world(policy) for policy in policies]
    if told[0] is not None and all(one == told[0] for one in told):
        name = told[0] if isinstance(told[0], str) else told[0]["type"]
        if tell:
            print(f"the demonstrations were recorded in world {name}; --world names another")
        return told[0]
    raise ValueError(f"give --world NAME, the world to act in; {_why(policies, told)}")


def told_world(policy: str) -> dict | str | None:
    """The world that the demonstrations of a policy were recorded in; None where nobody says it."""
    for facts in _recordings(policy):
        discover("sim")
        world = _read(facts)
        if world is not None:
            return world
    return None


def check_fit(who: str, body: Embodiment, inputs: Sequence[str], world: World) -> None:
    """Raise EmbodimentError where a body cannot act in a world: the first difference, and worlds that fit."""
    try:
        body.check(world.embodiment(), tuple(inputs))
    except EmbodimentError as error:
        raise misfit(who, body, inputs, world, error) from error


def misfit(who: str, body: Embodiment, inputs: Sequence[str], world: World, error: Exception) -> EmbodimentError:
    """What to say of a policy that does not fit a world."""
    others = fitting(body, inputs)
    advice = f"; worlds that fit: {', '.join(others)}" if others else ""
    return EmbodimentError(f"{who} does not fit the world '{name_of(world)}': {error}{advice}")


def check_saved(policy: str, world: World) -> None:
    """Refuse a world that a policy of ours does not fit, by what lies beside its weights; others are judged later."""
    body = None if is_hub_id(policy) else body_of(policy)
    if body is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AssumedWarning)  # said when the policy is opened
            check_fit(policy, body[0], [key for key in body[1] if not key.startswith(IMAGES)], world)
        compare_twin(policy, world)


class TwinChanged(UserWarning):
    """A policy meets another twin than the one whose states it was trained on."""


def compare_twin(policy: str, world: World) -> None:
    """Warn where a policy was trained on states of a twin whose scene was another than that of `world`."""
    then = next((_scene(facts) for facts in _recordings(policy)), {})
    now = _scene(world.fingerprint()) if then else {}
    parts = [part for part in then if then[part] != now.get(part)]
    if now and parts:
        warnings.warn(
            f"{policy} was trained on states of a twin whose scene was another one: {', '.join(parts)} "
            f"{'is' if len(parts) == 1 else 'are'} not what it was then. It is judged in the scene of now",
            TwinChanged,
            stacklevel=2,
        )


def _scene(facts: Mapping) -> Mapping:
    """What a world's fingerprint says of the contents of a twin's scene."""
    twin = facts.get("twin")
    return (twin.get("identity") or {}) if isinstance(twin, Mapping) else {}


def fitting(body: Embodiment, inputs: Sequence[str]) -> list[str]:
    """Names of the registered worlds that a body can act in."""
    discover("sim")
    return [name for name, world in sorted(WORLDS.items()) if fits(body, inputs, world)]


def fits(body: Embodiment, inputs: Sequence[str], world: World) -> bool:
    """Whether a body can act in a world."""
    cameras = {key.removeprefix(IMAGES) for key in inputs if key.startswith(IMAGES)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumedWarning)
        try:
            body.check(world.embodiment(), tuple(key for key in inputs if not key.startswith(IMAGES)))
            return cameras <= set(world.views()) | set(world.cameras)
        except (EmbodimentError, ImportError, OSError, LookupError):  # what is not installed here cannot be acted in
            return False


def _recordings(policy: str) -> list[Mapping]:
    """What the training of a policy, or of the parts of a mixture, says of where its data were recorded."""
    run = None if is_hub_id(policy) else run_folder(policy)
    if run is not None:
        begun = _json(run / BEGUN).get("dataset") or {}
        if isinstance(begun.get("world"), Mapping):
            return [begun["world"]]
        sources = str((training(run) or {}).get("data") or begun.get("source") or "").split(",")
        told = [_json(Path(os.path.expandvars(source)) / RECORDING).get("world") for source in sources if source]
        return [one for one in told[:1] if isinstance(one, Mapping)]
    try:
        parents = [] if is_hub_id(policy) else parents_of(find_checkpoint(policy))
    except OSError:
        return []
    return [facts for parent in parents[:1] for facts in _recordings(str(parent))]


def _read(facts: Mapping) -> dict | str | None:
    """A world by its fingerprint: the name of a registered one, or keys where it differs from that."""
    kind, task = facts.get("type"), facts.get("task")
    for name, world in WORLDS.items():
        if (world.get_choice_name(type(world)), world.task) != (kind, task):
            continue
        own = dataclasses.asdict(world)
        same = {"horizon": world.steps()} if own.get("horizon") is None else {}
        differs = {k: facts[k] for k, v in own.items() if k in facts and json.loads(json.dumps(v)) != facts[k]}
        differs = {key: value for key, value in differs.items() if same.get(key) != value}
        try:
            return {"type": name} | differs if differs and read_world({"type": name} | differs) else name
        except (ValueError, LookupError, TypeError):
            return name
    return None


def _why(policies: Sequence[str], told: Sequence[dict | str | None]) -> str:
    """Why the world is not known, and which would do."""
    if all(one is not None for one in told):
        each = ", ".join(f"{policy} in {one}" for policy, one in zip(policies, told, strict=True))
        return f"the policies were trained in different ones: {each}"
    policy = next(policy for policy, one in zip(policies, told, strict=True) if one is None)
    body = body_of(policy)
    if body is None:
        return "`understudy list worlds` names them"
    names = fitting(*body)
    known = f"worlds that fit it: {', '.join(names)}" if names else NO_WORLD
    return f"{policy} was trained for '{body[0].name}' by data that name no world; {known}"


def body_of(policy: str) -> tuple[Embodiment, Sequence[str]] | None:
    """(who acts by a policy, what it observes), of a checkpoint of ours."""
    try:
        folder = find_checkpoint(policy)
        config = _json(folder / "config.json").get("config") or {}
        return Embodiment.load(folder / "embodiment.json"), config.get("inputs") or config.get("needs") or ()
    except (OSError, CheckpointError, EmbodimentError):
        return None


def _json(path: Path) -> dict:
    """A JSON object; empty where there is none that can be read."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
