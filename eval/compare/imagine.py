"""Imagination in a live comparison: both policies dream the starts, too, where past starts say that it pays.

The dreams are records like any other, kept in the comparison's folder (`IMAGINED`): the past starts, and then those to
come together with `imagined` more, from which the mean is taken. Nothing is dreamt of the pairs to come before the past
has said that it pays.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.files import replace_text
from ...configs.former import FORMERLY
from ...configs.progress import counted
from ...configs.world import Around, read_world
from ...policies.agent.open import NOISELESS
from ..evaluate.evaluate import Eval, evaluate
from ..ledger.dreams import is_dream, refuse_unproven
from ..ledger.identity import acted_otherwise, apart, identify
from ..ledger.record import MANIFEST, Record, read_record
from ..ledger.table import OUTCOMES
from ..statistics.sequential import Sequential
from ..statistics.variate import FEW, VariateTest, mean_of, worth

IMAGINED = "imagined"  # folder of the dreams in that of the comparison


@dataclasses.dataclass(frozen=True)
class Imagination:
    """What is dreamt of a comparison."""

    model: str  # run of a world model
    past: tuple[str, ...]  # records of A and of B in the truth, from other starts
    pairs: int  # imagined ones that the mean comes from
    repeats: int  # dreams of each start and policy

    def check(self) -> None:
        """Raise ValueError for what cannot be."""
        if len(self.past) != 2:
            raise ValueError(
                "--imagine needs --past A_RECORD B_RECORD: true records of both policies from the same starts, "
                "others than "
                "those to come, which tell whether imagination pays"
            )
        if self.pairs < 100 or self.repeats < 1:
            raise ValueError(f"--imagined {self.pairs} must be at least 100 pairs, --dreams {self.repeats} at least 1")


def imagining(
    asked: Imagination, sides: Sequence[Eval], manifests: Sequence[Mapping], on: str, plain: Sequential, folder: Path
) -> tuple[Sequential, dict[str, Any]]:
    """The test to use, plain or with imagined outcomes, and what the plan says of it. Prints why.

    Args:
        sides: how each policy acts, as in the comparison.
        manifests: of both, to tell whether the past is theirs.

    Raises:
        ValueError: a past that is not of these policies as they act here, of this world, or of the starts to come;
            repeats that are the same dream; a model that may not rank.
    """
    if is_dream(manifests[0]["world"]):
        raise ValueError("--imagine stands beside true pairs, and this comparison is held in a dream; leave it out")
    column = OUTCOMES[on]
    past = [read_record(os.path.expandvars(path)) for path in asked.past]
    for record, manifest, name in zip(past, manifests, "AB", strict=True):
        _check_past(record, manifest, name)
    true = [_outcomes([record], column) for record in past]
    shared = sorted(set(true[0]) & set(true[1]))
    first, count = sides[0].env_seed, sides[0].episodes
    if tested := [start for start in shared if first <= start < first + count + asked.pairs]:
        raise ValueError(
            f"--past holds start {tested[0]}, which is to be tested or imagined; give others, such as 0-999"
        )
    if len(shared) < FEW:
        raise ValueError(
            f"--past: both records share {counted(len(shared), 'start')}; {FEW} or more tell whether imagination pays"
        )

    world = _world(sides[0].world, folder)
    _check_repeats(asked, sides[0], world)
    span = shared[0], shared[-1] - shared[0] + 1
    dreamt = [
        _dream(asked, side, world, span, folder / IMAGINED / f"past_{name}")
        for side, name in zip(sides, "ab", strict=True)
    ]
    refuse_unproven([record for records in dreamt for record in records])
    found = worth(
        _gaps(true, shared), _gaps([_outcomes(one, column) for one in dreamt], shared), asked.pairs, plain.alpha
    )
    print(found.text(), flush=True)
    told = found.correlation if np.isfinite(found.correlation) else None
    about: dict[str, Any] = {"model": asked.model, "correlation": told, "pays": found.pays, "factor": found.factor}
    about |= {"past": list(asked.past), "pairs": asked.pairs, "repeats": asked.repeats}
    if not found.pays:
        return plain, about

    span = first, count + asked.pairs
    dreamt = [
        _dream(asked, side, world, span, folder / IMAGINED / name) for side, name in zip(sides, "ab", strict=True)
    ]
    gaps = _gaps([_outcomes(one, column) for one in dreamt], range(first, first + count + asked.pairs))
    variate = mean_of(gaps[count:], found.factor, plain.alpha)
    about |= {"mean": [variate.low, variate.high]}
    return VariateTest(plain.most, plain.alpha, gaps[:count], variate), about


def _check_past(record: Record, manifest: Mapping, name: str) -> None:
    """Raise ValueError for a record that does not tell of a policy as it acts in this comparison, here in the truth."""
    then, now = identify(record.manifest), identify(manifest)
    if then.weights not in (now.weights, manifest["policy"].get(FORMERLY)):
        raise ValueError(f"--past: {record.root} is not of policy {name}; give the records of A and B in this order")
    if then.acts != now.acts:
        raise ValueError(
            f"--past: in {record.root} policy {name} acted otherwise than it will here: "
            f"{acted_otherwise(then.acts, now.acts)}. Evaluate it anew as this comparison is held"
        )
    worlds = record.manifest.get("world") or {}, manifest["world"]
    if found := apart(*worlds, without=("config",)):
        raise ValueError(f"--past: {record.root} is of another world than this comparison: {found}")


def _check_repeats(asked: Imagination, side: Eval, world: str) -> None:
    """Raise ValueError where neither policy nor model has noise, so that every dream of a start is the same."""
    dream = read_world(_dreaming(asked, side, world))
    if asked.repeats > 1 and side.proposal == NOISELESS and not dream.noisy:  # type: ignore[attr-defined]
        raise ValueError(
            f"--dreams {asked.repeats}: the policies act without noise and {asked.model} imagines in one pass, so all "
            "dreams of a start are the same; leave it out"
        )


def _dreaming(asked: Imagination, side: Eval, world: str) -> dict:
    """The dream of a world: what is delayed there is delayed in it, and its task is told."""
    true = read_world(world)
    clean = true.clean if isinstance(true, Around) else true
    told: dict[str, Any] = {"task": clean.task} if clean.task else {}
    told |= {"delay": clean.delay} if clean.delay else {}
    return {"type": "dream", "model": asked.model, "starts": world, "batch": side.block} | told


def _dream(asked: Imagination, side: Eval, world: str, span: tuple[int, int], folder: Path) -> list[Record]:
    """The episodes of one policy in the dream, a record for each repeat; what is there already is read."""
    records = []
    for repeat in range(asked.repeats):
        place = folder if asked.repeats == 1 else folder / str(repeat)
        there = (place / MANIFEST).is_file()
        kept, new = (str(place), None) if there else (None, str(place))
        dreaming = _dreaming(asked, side, world) | {"seed": repeat}
        place.parent.mkdir(parents=True, exist_ok=True)
        records.append(
            evaluate(
                dataclasses.replace(
                    side,
                    world=dreaming,
                    env_seed=span[0],
                    episodes=span[1],
                    videos=0,
                    policy_seed=side.policy_seed + 1000 * repeat,
                    resume=kept,
                    out=new,
                )
            )
        )
    return records


def _world(world: dict | str | None, folder: Path) -> str:
    """Where first frames come from: a name, or a file that says it."""
    if isinstance(world, str):
        return world
    folder.mkdir(parents=True, exist_ok=True)
    (folder / IMAGINED).mkdir(exist_ok=True)
    return str(replace_text(folder / IMAGINED / "truth.yaml", json.dumps(world)))


def _outcomes(records: Sequence[Record], column: str) -> dict[int, float]:
    """env seed -> mean outcome over the records."""
    seen: dict[int, list[float]] = {}
    for record in records:
        for start, value in zip(record.column("env_seed"), record.column(column), strict=True):
            seen.setdefault(start, []).append(min(1.0, max(0.0, float(value))))
    return {start: float(np.mean(values)) for start, values in seen.items()}


def _gaps(sides: Sequence[Mapping[int, float]], starts: Sequence[int]) -> np.ndarray:
    """(k,) B minus A."""
    return np.array([sides[1][start] - sides[0][start] for start in starts])
