"""Starts of policies in a dream and in the truth, as records hold them: what a promise is made from (`promise.py`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...world_models.gate import ABSTAINS, SIGNALS
from ..ledger.dreams import is_dream, refused_starts
from ..ledger.identity import Identity, MatchError, apart, identify, same_world
from ..ledger.record import Record

ARM = "robot"  # type of a world that is an arm
INCIDENTAL = ("config", "seed", "batch", "device", "signals")  # of a dream: what is no other world


class PromiseError(ValueError):
    """Records from which nothing can be promised, or a promise that does not fit; the message says what to do."""


@dataclass(frozen=True)
class Cells:
    """Starts of policies in both worlds, n rows."""

    policy: np.ndarray  # (n,) number of the policy
    run: np.ndarray  # (n,) number of its training
    start: list[tuple[str, int]]  # initial conditions and env seed
    truth: np.ndarray  # (n,) success rate over the true repeats; NaN where there is none
    repeats: np.ndarray  # (n,) of the truth
    dream: np.ndarray  # (n, 2) success rate of this start, and of the policy, in the dream
    names: tuple[str, ...]  # of policies
    refused: tuple[tuple[str, int], ...]  # starts that the dream itself refused
    signals: np.ndarray | None = None  # (n, S) what the films said of themselves, see `world_models/signals.py`
    told: tuple[str, ...] = ()  # names of the signals
    dreams: int = 1  # of each start, which its dreamt rate is the mean of; the median
    errors: tuple[int, int] = (0, 0)  # true and dreamt episodes that ended in an error, and count as failures

    def seen(self, names: Sequence[str]) -> np.ndarray:
        """(n, 2 + 2 P) what is known of each row: dreamt rates, and signals of imagined successes and failures apart.

        Raises:
            PromiseError: a signal that the films did not tell.
        """
        if missing := [name for name in names if name not in self.told]:
            raise PromiseError(
                f"the promise reads the signal '{missing[0]}', which these dreams did not tell; dream them again with "
                "`signals: true` in the world"
            )
        won = self.dream[:, :1]
        parts = [self.dream]
        for name in names:
            assert self.signals is not None
            value = self.signals[:, [self.told.index(name)]]
            parts += [value * won, value * (1 - won)]
        return np.concatenate(parts, 1)


def gather(dreamt: Sequence[Record], true: Sequence[Record] = ()) -> Cells:
    """The starts of the policies that were dreamt, with their true repeats.

    Raises:
        MatchError: no policy and start in both worlds, though there is a truth; records of several worlds.
        PromiseError: a truth that is a dream, or an episode that is there twice and would count as its own repeat.
    """
    for record in true:
        if is_dream(_world(record)):
            raise PromiseError(f"--truth {record.root} is a dream itself; give records of the world that counts")
        same_world(true[0], record, "truth")
    ours, theirs = _repeats(dreamt), _repeats(true)
    told, signs = _signals(dreamt)
    rows, runs, said = [], [], []
    names: list[str] = []
    for key, (identity, episodes) in sorted(ours.items(), key=lambda item: item[1][0].name):
        mean = float(np.mean([np.mean(values) for values in episodes.values()])) if episodes else math.nan
        there = theirs.get(key, (identity, {}))[1]
        for start, values in sorted(episodes.items()):
            if true and start not in there:
                continue
            seen = there.get(start, [])
            said.append(np.mean(signs[key][start], 0) if told else np.zeros(0))
            rows.append(
                (len(names), start, float(np.mean(seen)) if seen else math.nan, len(seen), np.mean(values), mean)
            )
        names.append(identity.name)
        runs.append(identity.run)
    if not rows:
        raise MatchError(
            "the dream and the truth share no policy and start; give records of the same policies and starts"
        )
    policy = np.array([row[0] for row in rows])
    numbers = np.unique(runs, return_inverse=True)[1]
    return Cells(
        policy, numbers[policy], [row[1] for row in rows], np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows]), np.array([row[4:] for row in rows], float), tuple(names),
        refused_starts(dreamt), np.array(said).reshape(len(rows), len(told)), told,
        int(np.median([len(values) for _, episodes in ours.values() for values in episodes.values()])),
        (_errors(true), _errors(dreamt)),
    )  # fmt: skip


def _repeats(records: Iterable[Record]) -> dict[tuple[str, str], tuple[Identity, dict[tuple[str, int], list[float]]]]:
    """(weights, acts) -> who acted, and the outcomes of each start over all records."""
    out: dict[tuple[str, str], tuple[Identity, dict[tuple[str, int], list[float]]]] = {}
    seen: dict[tuple, Record] = {}  # who acted, from where and with which noise -> in which record
    for record in records:
        identity, world = identify(record.manifest), _world(record)
        key = identity.weights, identity.acts
        _, episodes = out.setdefault(key, (identity, {}))
        columns = ("initial_conditions", "env_seed", "policy_seed", "success", "error")
        for kind, seed, noise, won, error in zip(*map(record.column, columns), strict=True):
            chance = record.root if world.get("type") == ARM else world.get("seed", 0)  # an arm repeats nothing
            before = seen.setdefault((*key, kind, seed, noise, chance), record)
            if before is not record:
                raise PromiseError(
                    f"'{before.root}' and '{record.root}' both hold {kind} {seed} of {identity.name} with policy_seed "
                    f"{noise}: that is one episode, no repeat of it. Give one of them, or repeats with another "
                    "--policy_seed"
                )
            if ABSTAINS not in error:
                episodes.setdefault((kind, seed), []).append(float(won))
    return out


def _errors(records: Iterable[Record]) -> int:
    return sum(bool(error) and ABSTAINS not in error for record in records for error in record.column("error"))


def _world(record: Record) -> Mapping:
    return record.manifest.get("world") or {}


def _signals(records: Sequence[Record]) -> tuple[tuple[str, ...], dict[tuple[str, str], dict[tuple[str, int], list]]]:
    """Names of the signals that all films told, and (weights, acts) -> start -> what each of its films said."""
    rows = []
    for record in records:
        identity = identify(record.manifest)
        columns = ("initial_conditions", "env_seed", "labels", "error")
        for kind, seed, labels, error in zip(*map(record.column, columns), strict=True):
            if ABSTAINS not in error:
                said = json.loads(labels or "{}")
                said |= {"unreal": 1 - said["least_real"]} if "least_real" in said else {}
                rows.append(((identity.weights, identity.acts), (kind, seed), said))
    names = tuple(name for name in SIGNALS if rows and all(name in said for _, _, said in rows))
    out: dict[tuple[str, str], dict[tuple[str, int], list]] = {}
    for key, start, said in rows:
        out.setdefault(key, {}).setdefault(start, []).append([said[name] for name in names])
    return names, out


def dream_of(records: Sequence[Record]) -> dict:
    """The world that was dreamt, as the manifests describe it: its `model`, and the settings that decide an outcome.

    Raises:
        PromiseError: records that are no dream's, or of several models or settings.
    """
    worlds = [_world(record) for record in records]
    models = {str(world.get("model", "")) if world.get("type") == "dream" else "" for world in worlds}
    if models == {""} or len(models) > 1:
        raise PromiseError("the records to calibrate are not all of one dream; give those of one world model")
    for record, world in zip(records, worlds, strict=True):
        if found := other_dream(worlds[0], world):
            raise PromiseError(f"'{records[0].root}' and '{record.root}' are dreams of other settings: {found}")
    return {key: value for key, value in worlds[0].items() if key not in (*INCIDENTAL, "versions", "cameras")}


def other_dream(ours: Mapping, theirs: Mapping) -> str:
    """What decides outcomes otherwise in another dream, in words; nothing where nothing does."""
    return apart(ours, theirs, without=(*INCIDENTAL, "cameras"))
