"""Whether the cells of a grid may be put into one table: trained on one dataset, judged in one world.

A grid names both, and what lies at a name may have been made anew since the first cells were run.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...configs.documents import read_object
from ...configs.former import current_manifest
from ...policies.foreign.train import LerobotTrain
from ..ledger.identity import MatchError, same_world
from ..ledger.record import MANIFEST, Record, read_manifest
from .cells import GridError
from .grid import Cell

BEGUN = "begun_with.json"  # what a training of ours began with
DATA = ("data", "episodes", "without", "columns", "embodiment")  # settings by which two trainings name one dataset


def refuse_unlike(cells: Sequence[Cell]) -> None:
    """Compare what cells were trained on and judged in, as far as they are.

    Raises:
        GridError: one that is not like the first of the grid, by name.
    """
    _one_dataset(cells)
    for name in dict.fromkeys(step.name for cell in cells for step in cell.steps[1:]):
        _one_world(cells, name)


def _one_dataset(cells: Sequence[Cell]) -> None:
    """Of trainings whose settings name the same data."""
    first: dict[str, tuple[Cell, str]] = {}
    for cell in cells:
        step = cell.steps[0]
        path = step.place / BEGUN
        if isinstance(step.config, LerobotTrain) or not path.is_file():
            continue
        print_of_data = str((read_object(path, GridError).get("dataset") or {}).get("fingerprint"))
        named = {name: getattr(step.config, name, None) for name in DATA}
        other, fingerprint = first.setdefault(repr(named), (cell, print_of_data))
        if fingerprint != print_of_data:
            raise GridError(
                f"{cell} was trained on other data ({print_of_data}) than {other} ({fingerprint}), though both say"
                f" {named['data']}: it was made anew in between. Bring back one, and remove the cells of the other"
            )


def _one_world(cells: Sequence[Cell], name: str) -> None:
    """Of the records of one evaluation."""
    first: tuple[Cell, Record] | None = None
    for cell in cells:
        place = cell.folder / name
        if not (place / MANIFEST).is_file():
            continue
        record = Record(place, current_manifest(read_manifest(place)), None)
        if first is None:
            first = cell, record
        try:
            same_world(first[1], record, name)
        except MatchError as error:
            raise GridError(
                f"{cell} was judged in another world than {first[0]}, so no table can hold both: {error}. Remove the"
                " records of one, or give the grid another `out`"
            ) from error
