"""Records of dreams: may their world model rank policies?

A dream ranks policies only while its model was measured (`understudy eval --world-model`) and follows its actions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...world_models.gate import ABSTAINS, noted, passes, refusal
from .record import Record


class DreamGateError(ValueError):
    """A ranking that rests on a world model which does not follow its actions, or was not measured."""


def refuse_unproven(records: Iterable[Record]) -> None:
    """Raise DreamGateError for a record that was made in a dream which may not rank policies."""
    for record in records:
        check_world(record.manifest.get("world") or {}, str(record.root))


def refused_starts(records: Iterable[Record]) -> tuple[tuple[str, int], ...]:
    """(initial_conditions, env_seed) of the starts that a dream refused, as of a scene that it does not know."""
    columns = ("initial_conditions", "env_seed", "error")
    rows = (row for record in records for row in zip(*map(record.column, columns), strict=True))
    return tuple(sorted({(kind, seed) for kind, seed, error in rows if ABSTAINS in error}))


def check_world(world: Mapping, what: str) -> None:
    """The same of a world as a manifest describes it.

    Raises:
        DreamGateError: naming `what` rests on it, and what to do.
    """
    if world.get("type") != "dream" or "model" not in world:  # one of another make says nothing of a model
        return
    config = world.get("config") or {}
    model = (config.get("of") or config).get("model", "")
    following = _noted(str(model), str(world.get("model", "")))
    if not passes(following):
        raise DreamGateError(
            f"{what} was made in a dream of {model}, and no policies are ranked by it: {refusal(following)}"
        )


def _noted(model: str, fingerprint: str) -> dict | None:
    """What was measured of the weights that dreamt; None where they are gone, or nobody has."""
    from ...policies.learning.checkpoint import find_checkpoint

    try:
        return noted(find_checkpoint(model), fingerprint)
    except FileNotFoundError:
        return None
