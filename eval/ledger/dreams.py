"""Records of dreams: may their world model rank policies?

A dream ranks policies only while its model was measured (`understudy eval --world-model`) and follows its actions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ...world_models.gate import ABSTAINS, misjudged, misread, noted, passes, refusal
from .identity import MatchError, identify
from .record import Record


class DreamGateError(ValueError):
    """A ranking that rests on a world model which does not follow its actions, or was not measured."""


def refuse_unproven(records: Iterable[Record]) -> None:
    """Raise DreamGateError for a record that was made in a dream which may not rank policies, or not this one."""
    for record in records:
        world = record.manifest.get("world") or {}
        check_world(world, str(record.root))
        if is_dream(world) and (why := misread(_known(world), _reads(record.manifest))):
            raise DreamGateError(f"{record.root} was made in a dream in which its policy is not to be ranked: {why}")
        if is_dream(world) and world.get("model") in (
            (record.manifest.get("agent") or {}).get("critic_fingerprint") or ()
        ):
            raise DreamGateError(
                f"{record.root} was made in the dream of {_model(world)}, by which its policy chooses its plans, too: "
                "it does there what that dream likes. Judge it in another dream or in the simulator"
            )


def refused_starts(records: Iterable[Record]) -> tuple[tuple[str, int], ...]:
    """(initial_conditions, env_seed) of the starts that a dream refused, as of a scene that it does not know."""
    columns = ("initial_conditions", "env_seed", "error")
    rows = (row for record in records for row in zip(*map(record.column, columns), strict=True))
    return tuple(sorted({(kind, seed) for kind, seed, error in rows if ABSTAINS in error}))


def without(records: Sequence[Record], starts: Collection[tuple[str, int]]) -> list[Record]:
    """The records without episodes from these initial conditions. Raises MatchError where a policy keeps none."""
    import pyarrow as pa

    left: list[Record] = []
    kept: dict[tuple[str, str], int] = {}
    names: dict[tuple[str, str], str] = {}
    for record in records:
        table: Any = record.table
        own = zip(record.column("initial_conditions"), record.column("env_seed"), strict=True)
        some = table.filter(pa.array([start not in starts for start in own], pa.bool_()))
        identity = identify(record.manifest)
        key = identity.weights, identity.acts
        kept[key], names[key] = kept.get(key, 0) + len(some), identity.name
        left += [dataclasses.replace(record, table=some)] if len(some) else []
    if lost := [names[key] for key, count in kept.items() if not count]:
        raise MatchError(
            f"no start of {lost[0]} is left: the dream refused them all, which knows another scene, or nobody decided"
        )
    return left


def shared_noise(dreamt: Iterable[Record], true: Iterable[Record]) -> str:
    """What is to be said where policies dreamt with the noise of true runs; nothing where they did not."""
    seeds = [{seed for record in side for seed in record.column("policy_seed")} for side in (dreamt, true)]
    if not (shared := sorted(seeds[0] & seeds[1])):
        return ""
    return (
        f"policies dreamt with the noise of true runs (policy_seed {', '.join(map(str, shared))}): where they sample, "
        "single starts look more alike than with noise of their own"
    )


def is_dream(world: Mapping) -> bool:
    """Whether a world, as a manifest describes it, is imagined."""
    config = world.get("config") or {}
    return "dream" in (world.get("type"), config.get("type"), (config.get("of") or {}).get("type"))


def check_world(world: Mapping, what: str) -> None:
    """The same of a world as a manifest describes it.

    Raises:
        DreamGateError: naming `what` rests on it, and what to do.
    """
    if world.get("type") != "dream" or "model" not in world:  # one of another make says nothing of a model
        return
    following = _known(world)
    if not passes(following):
        raise DreamGateError(
            f"{what} was made in a dream of {_model(world)}, and no policies are ranked by it: {refusal(following)}"
        )
    if world.get("judge") == "states" and (why := misjudged(following)):
        raise DreamGateError(f"{what} was judged by the states that its dream of {_model(world)} read: {why}")


def doubt_of(world: Mapping, what: str) -> str:
    """What `check_world` says against a ranking; nothing where nothing is to be said."""
    try:
        check_world(world, what)
    except DreamGateError as error:
        return str(error)
    return ""


def _reads(manifest: Mapping) -> Collection[str]:
    """Keys that policy and critic act by; of records that do not say it, those of a single policy of ours."""
    config = (manifest.get("policy") or {}).get("config") or {}
    return manifest.get("reads") or config.get("inputs") or ()


def _model(world: Mapping) -> str:
    config = world.get("config") or {}
    return str((config.get("of") or config).get("model", ""))


def _known(world: Mapping) -> dict | None:
    """What was measured of the weights that dreamt; None where they are gone, or nobody has."""
    from ...policies.learning.checkpoint import find_checkpoint

    try:
        return noted(find_checkpoint(_model(world)), str(world.get("model", "")))
    except FileNotFoundError:
        return None
