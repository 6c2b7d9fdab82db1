"""Further columns of a grid's table: what the world's labels say, and differences to one setting pair by pair.

Labels are yes-or-no statements about an episode beside its success (a task may say `completion` and `context` apart).
A pair is two episodes from the same start by trainings with the same seed. Reads finished records, knows no folders.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from .ledger import Record
from .metrics import Interval
from .paired import join, tango
from .seeds import over_seeds, t_interval


def label_names(records: Sequence[Record]) -> tuple[str, ...]:
    """Labels that every episode of every record answers with yes or no, sorted."""
    answered = [
        {name for name, value in one.items() if isinstance(value, bool)}
        for record in records
        for one in _labels(record)
    ]
    return tuple(sorted(set.intersection(*answered))) if answered else ()


def label_rate(records: Sequence[Record], name: str) -> Interval | None:
    """Share of the episodes with this label; over several records (training seeds) as `over_seeds`. None for none."""
    counts = [(sum(bool(one.get(name)) for one in labels), len(labels)) for labels in map(_labels, records)]
    return over_seeds(*zip(*counts, strict=True)).interval if counts else None


def difference(ours: Sequence[Record | None], theirs: Sequence[Record | None]) -> tuple[Interval, Interval] | None:
    """Success of `ours` minus `theirs` over paired episodes, seed by seed; None where no seed has both.

    Returns:
        (for these checkpoints: Tango's interval of all pairs; for the recipes: Student t over training seeds, never
        narrower, or the first once more where one seed alone has both).
    """
    pairs = [join(b, a) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    won, lost = (sum(getattr(one, side) for one in pairs) for side in ("only_second", "only_first"))
    pooled = tango(won, lost, sum(len(one.starts) for one in pairs))
    if len(pairs) == 1:
        return pooled, pooled
    spread = t_interval([float(np.mean(one.success[:, 1])) - float(np.mean(one.success[:, 0])) for one in pairs])
    recipes = Interval(max(-1.0, min(spread.low, pooled.low)), spread.estimate, min(1.0, max(spread.high, pooled.high)))
    return pooled, recipes


def _labels(record: Record) -> list[dict]:
    return [json.loads(text or "{}") for text in record.column("labels")]
