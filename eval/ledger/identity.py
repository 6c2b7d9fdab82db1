"""What makes two records records of the same policy, so that one may ask how it did in either world.

The hash of the weights and settings in its checkpoint (`policy.fingerprint`; a record without one: `policy.path`) and
how it was asked to act: executed actions of each chunk, candidates, critic and its weights, temperature, proposal,
sampler, ensemble. Not the seed of its noise, the block, threads or device.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...configs.former import FORMERLY
from .pairs import episodes_by_start
from .record import MANIFEST, Record, read_record
from .table import RecordError

ACTS = (
    "n_action_steps",
    "candidates",
    "critic",
    "critic_fingerprint",
    "temperature",
    "proposal",
    "sampler",
    "ensemble",
)


class MatchError(ValueError):
    """Records that do not belong together; the message names them."""


@dataclass(frozen=True)
class Identity:
    """Who acted. Two records tell of the same policy if `weights` and `acts` are equal."""

    weights: str  # fingerprint, or path
    acts: str  # JSON of `ACTS`
    name: str  # for people
    run: str  # training run that it came from; checkpoints of one run are no independent policies


@dataclass(frozen=True)
class Tested:
    """A policy in one world: its episodes by initial condition, from one record or several."""

    identity: Identity
    episodes: Mapping[
        tuple[str, int], tuple[float, float]
    ]  # (initial_conditions, env_seed) -> (success, best progress)
    records: tuple[str, ...]
    errors: int  # episodes that ended in an error; they count as failures


def identify(manifest: Mapping, today: Mapping[str, str] | None = None) -> Identity:
    """Who acted in a record.

    Args:
        today: fingerprint of an earlier version -> the present one of the same files, see `todays`.

    Raises:
        MatchError: the manifest names neither a fingerprint nor a path of a policy.
    """
    policy, agent = manifest.get("policy") or {}, manifest.get("agent") or {}
    path = str(policy.get("path") or "")
    weights = str(policy.get("fingerprint") or path)
    if not weights:
        raise MatchError("a record's manifest says neither policy.fingerprint nor policy.path: nobody knows who acted")
    weights = (today or {}).get(weights, weights)
    several = f", best of {agent['candidates']}" if (agent.get("candidates") or 1) > 1 else ""
    acts = json.dumps({key: agent.get(key) for key in ACTS}, sort_keys=True)
    name = str(manifest.get("name") or policy.get("name") or path or weights)
    return Identity(weights, acts, name + several, _run(path) or weights)


def open_records(paths: Iterable[str | Path]) -> list[Record]:
    """The records at `paths`; a folder that is none stands for the records in it.

    Raises:
        FileNotFoundError: a path where there is neither.
    """
    records = []
    for path in (Path(os.path.expandvars(path)) for path in paths):
        inside = [path] if (path / MANIFEST).is_file() else sorted(entry.parent for entry in path.glob(f"*/{MANIFEST}"))
        if not inside:
            raise FileNotFoundError(f"'{path}' is neither an episode record nor a folder of records")
        records += [read_record(folder) for folder in inside]
    return records


def todays(*sides: Iterable[Record]) -> dict[str, str]:
    """Fingerprint of an earlier version -> the present one of the same files, as far as these records say both."""
    who = [record.manifest.get("policy") or {} for side in sides for record in side]
    return {str(one[FORMERLY]): str(one["fingerprint"]) for one in who if FORMERLY in one}


def by_policy(
    records: Iterable[Record], side: str, today: Mapping[str, str] | None = None
) -> dict[tuple[str, str], Tested]:
    """The policies that `records` of one world tell of; several records of a policy are put together.

    Args:
        today: see `identify`.

    Raises:
        MatchError: records of different worlds, or two that hold the same initial condition of one policy.
        RecordError: a record without an episode.
    """
    policies: dict[tuple[str, str], Tested] = {}
    firsts: dict[tuple[str, str], Record] = {}
    records = list(records)

    for record in records:
        same_world(records[0], record, side)
        identity, episodes = identify(record.manifest, today), episodes_by_start(record)
        if not episodes:
            raise RecordError(f"the record '{record.root}' holds no episode")
        errors = sum(bool(error) for error in record.column("error"))

        key = identity.weights, identity.acts
        same_world(firsts.setdefault(key, record), record, side, seen=True)
        if key in policies:
            before = policies[key]
            if twice := sorted(set(before.episodes) & set(episodes)):
                start = "/".join(map(str, twice[0]))
                names = f"'{record.root}' and '{before.records[-1]}'"
                raise MatchError(
                    f"{names} ({side}) both hold initial condition {start} of {identity.name}; give one of them"
                )
            records_of = (*before.records, str(record.root))
            policies[key] = Tested(before.identity, {**before.episodes, **episodes}, records_of, before.errors + errors)
        else:
            policies[key] = Tested(identity, episodes, (str(record.root),), errors)

    return policies


def matched(truth: Iterable[Record], proxy: Iterable[Record]) -> list[tuple[Tested, Tested]]:
    """The policies of both worlds side by side.

    Raises:
        MatchError: a policy that only one side has, by name and with the reason where one is seen.
    """
    truth, proxy = list(truth), list(proxy)
    today = todays(truth, proxy)
    ours, theirs = by_policy(truth, "truth", today), by_policy(proxy, "proxy", today)
    lonely = [_lonely(tested, theirs, "proxy") for key, tested in ours.items() if key not in theirs]
    lonely += [_lonely(tested, ours, "truth") for key, tested in theirs.items() if key not in ours]
    if lonely:
        raise MatchError("policies without a partner: " + "; ".join(lonely))
    return [(tested, theirs[key]) for key, tested in ours.items()]


def world_name(record: Record) -> str:
    """The kind of world and its task, as the manifest says."""
    world = record.manifest.get("world") or {}
    kind, task = (str(world.get(key) or "") for key in ("type", "task"))
    if kind.replace("_", "-") == task:
        return task
    return "/".join(filter(None, (kind, task))) or "unnamed world"


def _lonely(tested: Tested, others: Mapping[tuple[str, str], Tested], side: str) -> str:
    """`name (record): not in the other world`, and why if the same weights are there."""
    sentence = f"{tested.identity.name} ('{tested.records[0]}') is not among the {side} records"
    for weights, acts in others:
        if weights == tested.identity.weights:
            return f"{sentence}: the same weights acted there with {acted_otherwise(tested.identity.acts, acts)}"
    return sentence


def acted_otherwise(here: str, there: str) -> str:
    """What differs between the `acts` of two identities, in words; nothing where nothing does."""
    ours, theirs = json.loads(here), json.loads(there)
    return ", ".join(f"{key} {ours[key]} against {theirs[key]}" for key in ACTS if ours[key] != theirs[key])


def same_world(first: Record, record: Record, side: str, *, seen: bool = False) -> None:
    """The settings of a world must be those of the first record; versions and ranges of env seeds may differ.

    Args:
        seen: also what is looked through. Of two policies cameras may differ, for they change nothing that happens; of
            one they change what it does.
    """
    if found := apart(*(each.manifest.get("world") or {} for each in (first, record)), seen=seen):
        raise MatchError(f"the {side} records '{first.root}' and '{record.root}' are of different worlds: {found}")


def apart(ours: Mapping, theirs: Mapping, *, seen: bool = False, without: Collection[str] = ()) -> str:
    """Where two worlds differ first, as manifests describe them, and both values, in words; nothing where none does.

    It is the same for a manifest that was read and for one that is yet to be written.

    Args:
        seen: as in `same_world`.
        without: keys that do not count, beside versions.
    """
    ours, theirs = (json.loads(json.dumps(world, default=str)) for world in (ours, theirs))
    ours, theirs = (world if seen else _without_cameras(world) for world in (ours, theirs))
    for key in sorted((set(ours) | set(theirs)) - {"versions", *without}):
        found = first_difference(_unversioned(ours.get(key)), _unversioned(theirs.get(key)), key)
        if found is not None:
            return f"{found[0]} is {found[1]} and {found[2]}"
    return ""


def _unversioned(value: object) -> object:
    """A value without the versions in it, as of the world that a dream begins in."""
    if not isinstance(value, Mapping):
        return value
    return {key: _unversioned(part) for key, part in value.items() if key != "versions"}


def _without_cameras(world: Mapping) -> dict:
    """A world's fingerprint, and the settings in it, as if nobody looked."""
    blind = {key: value for key, value in world.items() if key != "cameras"}
    return blind | ({"config": _without_cameras(world["config"])} if isinstance(world.get("config"), Mapping) else {})


def same_scene(truth: Record, proxy: Record) -> None:
    """Where both sides say of which twin's scene they are, it must be one. Raises MatchError."""
    ours, theirs = (_scene_of(each.manifest.get("world") or {}) for each in (truth, proxy))
    if ours and theirs and (found := first_difference(ours, theirs, "scene")) is not None:
        raise MatchError(
            f"'{truth.root}' and '{proxy.root}' are of twins of different scenes: {found[0]} is {found[1]} and "
            f"{found[2]}; act anew in one of them"
        )


def one_world(truth: Record, proxy: Record) -> bool:
    """Whether both act in one simulator, as a twin that nothing follows does in the world that it is a twin of."""
    ours, theirs = (_simulated(each.manifest.get("world") or {}) for each in (truth, proxy))
    return bool(ours) and first_difference(ours, theirs, "world") is None


def _simulated(world: Mapping) -> dict:
    """A world's fingerprint without versions, cameras, how it was asked for, and a twin that is offline."""
    twin = world.get("twin")
    offline = twin == "offline" or isinstance(twin, Mapping) and bool(twin.get("offline"))
    left_out = {"versions", "cameras", "config"} | ({"twin"} if offline else set())
    return {key: value for key, value in world.items() if key not in left_out}


def _scene_of(world: Mapping) -> Mapping:
    """What a world's fingerprint says of the contents of a twin's scene; empty where it says nothing."""
    twin, shadow = world.get("twin"), world.get("shadow")
    if isinstance(twin, Mapping):
        return twin.get("identity") or {}
    return (shadow.get("scene") or {}) if isinstance(shadow, Mapping) else {}


def first_difference(before: object, now: object, path: str) -> tuple[str, object, object] | None:
    """Where two values of a JSON object differ first, and both; a key that is not there is one that is null."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        parts = (first_difference(before.get(key), now.get(key), f"{path}.{key}") for key in (*before, *now))
        return next((part for part in parts if part is not None), None)
    return None if before == now else (path, before, now)


def _run(path: str) -> str:
    """The training run that a policy's path lies in."""
    run = path.partition("/checkpoints/")[0].rstrip("/")
    return run.removesuffix("/best").removesuffix("/last")
