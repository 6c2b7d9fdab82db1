"""From where an expert demonstrates: env seeds in a row, or those at which the policy of a record failed."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...configs.progress import counted
from ...configs.world import DATA_STARTS, World, start_set
from ..ledger.record import Record, read_record
from .recording import RECORDING, written_starts
from .settings import Settings


@dataclass(frozen=True)
class Starts:
    """Env seeds, rising, each once, and where they are from."""

    seeds: Sequence[int]
    found: str = ""  # how many failures of which record they are; "" for seeds in a row

    @property
    def card(self) -> list[int] | dict[str, list[int]]:
        """What a recording says of them: first and end of seeds in a row, or all seeds at which a policy failed."""
        return {"failed": list(self.seeds)} if self.found else [self.seeds[0], self.seeds[-1] + 1]


def starts_of(settings: Settings, world: World) -> Starts:
    """The env seeds that are demonstrated in `world`: `episodes` in a row, or the first of a record's failures.

    Episodes that ended in an error are no failures of the policy. Warns where the policy has learnt from
    demonstrations of the very same seeds, as far as its data are at hand.

    Raises:
        FileNotFoundError, RecordError: no record, or a damaged one.
        ValueError: a record that is not finished, of other initial conditions, of seeds that are not for data, or
            without a failure.
    """
    if settings.starts is None:
        return Starts(range(settings.env_seed, settings.env_seed + settings.episodes))
    record = read_record(Path(os.path.expandvars(settings.starts)))
    _check(record, world)
    lost = [row for row in record.rows if row["error"]]
    failed = sorted(int(row["env_seed"]) for row in record.rows if not row["success"] and not row["error"])
    errors = f"{counted(len(lost), 'episode')} ended in an error, which is no failure of the policy" if lost else ""
    if not failed:
        why = f" ({errors})" if errors else ""
        raise ValueError(f"the policy of {record.root} failed nowhere{why}: there is nothing to demonstrate")
    if failed[0] < DATA_STARTS:
        raise ValueError(
            f"the record {record.root} has env seed {failed[0]}, which is for choosing or reporting: what is "
            f"learnt from it says nothing there any more. Let the policy act with --env_seed {DATA_STARTS} or above"
        )
    seeds = failed[: settings.episodes]
    for source, known in _learnt(record, world):
        if both := sorted(known.intersection(seeds)):
            warnings.warn(
                f"{counted(len(both), 'start')} of {len(seeds)} (the first: env seed {both[0]}) are in {source}, from "
                "which the policy has learnt: they are demonstrated once more. Let it act from seeds beyond those of "
                "its data (eval --env_seed)",
                stacklevel=2,
            )
    told = (
        f"{len(seeds)} of {counted(len(failed), 'failure')} in {counted(len(record.rows), 'episode')} of {record.root}"
    )
    if len(failed) < settings.episodes:
        told += f": fewer than the {settings.episodes} of --episodes; none is demonstrated twice"
    return Starts(seeds, f"{told}; {errors}" if errors else told)


def _check(record: Record, world: World) -> None:
    """Refuse a record that cannot say where a policy fails in `world`. Raises ValueError."""
    theirs, ours = (record.manifest.get("starts") or {}).get("set"), start_set(world)
    if theirs != ours:
        raise ValueError(
            f"the record {record.root} begins at '{theirs}', this world at '{ours}': an env seed is another initial "
            "condition there. Give a record of this task, or the --world that it is of"
        )
    if not record.manifest.get("complete", True):
        raise ValueError(
            f"the record {record.root} is not finished, more failures may come: understudy eval --resume "
            f"{record.root} goes on with it"
        )


def _learnt(record: Record, world: World) -> Iterator[tuple[str, frozenset[int]]]:
    """(dataset, env seeds of its episodes) of what the policy learnt from and that is of `world`'s task, if at hand."""
    train = (record.manifest.get("policy") or {}).get("train")
    data = str(train.get("data") or "") if isinstance(train, Mapping) else ""
    for source in filter(None, (part.strip() for part in data.split(","))):
        root = Path(os.path.expandvars(source))
        try:
            card = json.loads((root / RECORDING).read_bytes())
        except (OSError, ValueError):
            continue  # not here any more, or nobody says from where it began
        if isinstance(card, dict) and (card.get("world") or {}).get("task") == world.task:
            yield source, written_starts(root)
