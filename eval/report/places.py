"""Where episodes of a record began: the first observation of each env seed, from its world opened anew.

A record keeps env seeds, not what they draw. The world that its manifest describes draws the same again; whether it is
the same world is asked of its fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...configs.plugins import discover
from ...configs.progress import Progress
from ...configs.spec import SCENE, STATE
from ...configs.world import KINDS, World, read_world
from ..ledger.origin import without_config
from ..ledger.record import Record

STILL = 1e-6  # spread below which a coordinate is the same in all episodes


@dataclass(frozen=True)
class Places:
    """Initial conditions of the episodes, in the order of the rows."""

    names: tuple[str, ...]  # of the coordinates that differ, with units; those that tell most of success first
    values: np.ndarray  # (episodes, coordinates) float64
    warning: str = ""  # why these may not be the places where the episodes began


def places(record: Record) -> Places:
    """The initial conditions of a record's episodes.

    Raises:
        ValueError: a record that does not say its world, or one whose initial conditions are not drawn by env seeds.
    """
    discover(*KINDS)
    settings = (record.manifest.get("world") or {}).get("config")
    if not settings:
        raise ValueError(f"{record.root} does not say how its world was opened, so there is no map of it")
    world = read_world(settings, cameras={})
    _refuse_real(world, record)

    body, lane = world.embodiment(), world.lane()
    names = [f"{name} ({unit})" for name, unit in zip(body.state, body.state_units, strict=True)]
    names += [f"{name} ({unit})" for name, unit in zip(body.scene, body.scene_units, strict=True)]
    seeds = record.column("env_seed")
    try:
        with Progress("initial conditions", len(seeds), "episodes") as progress:
            seen = []
            for seed in seeds:
                obs, _ = lane.reset(seed=seed)
                seen.append(np.concatenate([np.ravel(obs[key]) for key in (STATE, SCENE) if key in obs]))
                progress.update(len(seen))
    finally:
        lane.close()
    return _ordered(
        names, np.asarray(seen, np.float64), np.asarray(record.column("success"), bool), _other(record, world)
    )


def _refuse_real(world: World, record: Record) -> None:
    if ".hardware." in f".{type(world).__module__}.":
        raise ValueError(f"{record.root} was recorded on an arm, whose initial conditions no env seed draws again")


def _other(record: Record, world: World) -> str:
    """A sentence where today's world is not that of the record."""
    then, now = without_config(record.manifest.get("world") or {}), world.fingerprint()
    differs = [key for key in then if key not in ("cameras", "config") and _plain(then[key]) != _plain(now.get(key))]
    if not differs:
        return ""
    return f"the world has changed since in {', '.join(differs)}: the initial conditions may have been others"


def _plain(value: Any) -> Any:
    import json

    return json.loads(json.dumps(value, default=str))


def _ordered(names: list[str], values: np.ndarray, won: np.ndarray, warning: str) -> Places:
    """Without what never differs; first what separates the successes from the failures."""
    differs = np.flatnonzero(values.std(0) > STILL)
    told = sorted(differs, key=lambda place: -abs(separation(values[:, place], won)))
    return Places(tuple(names[place] for place in told), values[:, told], warning)


def separation(values: np.ndarray, won: np.ndarray) -> float:
    """Rank-biserial correlation of a coordinate (n,) with success (n,): -1..1, 0 where it tells nothing."""
    from scipy.stats import rankdata

    successes, failures = int(won.sum()), int((~won).sum())
    if not successes or not failures:
        return 0.0
    above = rankdata(values)[won].sum() - successes * (successes + 1) / 2
    return float(2 * above / (successes * failures) - 1)
