"""Episodes of records side by side: two records joined on (`initial_conditions`, `env_seed`), differences over several.

Turns records into the plain arrays that `statistics/paired.py` and `statistics/seeds.py` judge; these know no record.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..statistics.intervals import Interval
from ..statistics.paired import Pairs, tango
from ..statistics.seeds import t_interval
from .record import Record


class PairingError(ValueError):
    """Episodes that cannot be put side by side; the message says why."""


def join(first: Record, second: Record) -> Pairs:
    """The episodes that two records have from the same initial conditions.

    Raises:
        PairingError: they share no initial condition.
    """
    ours, theirs = episodes_by_start(first), episodes_by_start(second)
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        ranges = (f"'{record.root}' has {_range_text(rows)}" for record, rows in ((first, ours), (second, theirs)))
        raise PairingError(f"the records share no initial condition: {'; '.join(ranges)}")
    outcomes = np.array([(ours[key], theirs[key]) for key in shared])  # (n, 2, 2)
    left_out = len(set(ours) ^ set(theirs))
    return Pairs(tuple(shared), outcomes[:, :, 0] > 0.5, outcomes[:, :, 1], left_out)


def episodes_by_start(record: Record) -> dict[tuple[str, int], tuple[float, float]]:
    """(initial_conditions, env_seed) -> (success as 0 or 1, best progress) of every episode."""
    columns = (record.column(name) for name in ("initial_conditions", "env_seed", "success", "best_progress"))
    return {(kind, start): (float(won), float(best)) for kind, start, won, best in zip(*columns, strict=True)}


def _range_text(rows: dict[tuple[str, int], tuple]) -> str:
    sets = sorted({kind for kind, _ in rows})
    starts = [start for _, start in rows]
    return f"{', '.join(sets)} {min(starts)}..{max(starts)}" if rows else "no episode"


def difference(ours: Sequence[Record | None], theirs: Sequence[Record | None]) -> tuple[Interval, Interval] | None:
    """Success of `ours` minus `theirs` over paired episodes, seed by seed; None where no seed has both.

    Returns:
        (for these checkpoints: Tango's interval of all pairs; for the recipes: Student t over training seeds, never
        narrower, or the first once more where one seed alone has both).
    """
    pairs = [join(b, a) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    won, lost = (sum(getattr(paired, side) for paired in pairs) for side in ("only_second", "only_first"))
    pooled = tango(won, lost, sum(len(paired.starts) for paired in pairs))
    if len(pairs) == 1:
        return pooled, pooled
    spread = t_interval(
        [float(np.mean(paired.success[:, 1])) - float(np.mean(paired.success[:, 0])) for paired in pairs]
    )
    recipes = Interval(max(-1.0, min(spread.low, pooled.low)), spread.estimate, min(1.0, max(spread.high, pooled.high)))
    return pooled, recipes
