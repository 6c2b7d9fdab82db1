"""A pair of policies composed over training seeds, gathered into one table.

    understudy study compositions DIR DIR .. --out FILE

Each folder is what `understudy compose --out DIR` left: the same kinds of parents, each time of another training seed.
Writes a study with a row for each seed and one for all: the weights that rollouts chose and those of least denoising
error, success on the fresh episodes, and the mixture minus the better parent and minus the control, paired. The better
parent of a row is the one that did better on that row's fresh episodes, which can only hurt the mixture's standing.
Intervals of the last row: success over training seeds (`seeds.py`); differences once for these checkpoints (Tango, all
pairs) and once for further trainings (Student's t over the seeds, never narrower).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.command import command_of
from ..compose.compose import FILE, read_search
from ..compose.fresh import FRESH
from ..compose.report import CONTROL, MIXTURE, PARENT
from ..compose.search import weights_text
from ..ledger.pairs import difference
from ..ledger.record import Record, read_record
from ..ledger.study import Study
from ..ledger.verify import inside
from ..statistics.intervals import Interval
from ..statistics.seeds import over_seeds


class CompositionError(ValueError):
    """A folder that holds no finished composition, or one of another pair."""


@dataclass(frozen=True)
class Composition:
    """What one search left behind; records are those of the fresh episodes."""

    name: str  # of the folder
    chosen: str
    predicted: str | None  # weights of least denoising error, with the first one's interval
    promised: float | None  # success that the search saw of the chosen weights
    records: dict[str, Record]  # mixture, parent 1 .., control

    @property
    def parents(self) -> tuple[str, ...]:
        return tuple(name for name in self.records if name.startswith(PARENT))


@dataclass(frozen=True, kw_only=True)
class Compositions:
    """Gather the searches of several training seeds into one study."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("folders",)

    folders: tuple[str, ...]  # of `understudy compose`, one a training seed
    out: Path  # file of the study
    title: str = "Two policies composed"  # of the page
    how: str = ""  # the command that made the folders, for the reader

    def run(self) -> None:
        """Read, join, write. Raises CompositionError, OSError."""
        compositions = [read_composition(Path(folder)) for folder in self.folders]
        if len({tuple(composition.records) for composition in compositions}) != 1:
            raise CompositionError("the searches differ in their number of parents, or only some have a control")
        study = gathered(compositions, self.title, self.command())
        study.write(self.out)
        print(f"{study.title}\n\n{study.markdown()}\n\n" + "\n".join(f"- {note}" for note in study.notes))

    def command(self) -> str:
        """What a reader runs."""
        again = command_of(self, "study compositions", without=("title", "how"))
        return " && ".join(part for part in (self.how, again) if part)


def read_composition(folder: Path) -> Composition:
    """A finished search and its fresh records.

    Raises:
        CompositionError: nothing there, or a search that did not end or reported nothing.
    """
    path = folder / FILE
    if not path.is_file():
        raise CompositionError(f"'{folder}' holds no search: it has no {FILE}")
    values = read_search(path)
    if not values.get("complete") or not values["report"]["entries"]:
        raise CompositionError(f"'{folder}' is not finished, or had no --report; go on with compose --resume {folder}")
    report, records, number = values["report"], {}, 0
    for entry in report["entries"]:
        number += entry["role"] == PARENT
        role = f"{PARENT} {number}" if entry["role"] == PARENT else entry["role"]
        if (place := inside(folder / FRESH, entry["record"])) is None:
            raise CompositionError(f"{path} names a record outside of its folder: {entry['record']!r}")
        records[role] = read_record(place)
    promised = report["entries"][0]["promised"]
    chosen = weights_text(tuple(report["found"]["chosen"]))
    return Composition(folder.name, chosen, _predicted(report), promised and promised[1], records)


def gathered(compositions: Sequence[Composition], title: str, command: str) -> Study:
    """The study of one pair."""
    first = compositions[0]
    control = CONTROL in first.records
    columns = ["seed", "weights chosen", "weights of least error", "mixture", *first.parents]
    columns += ["control"] * control + ["- better parent"] + ["- control"] * control + ["promised - fresh"]

    rows = [_row([composition], composition.chosen, composition.predicted) for composition in compositions]
    notes = [
        f"{len(first.records[MIXTURE].table)} fresh initial conditions a seed; weights were chosen on others.",
        "Differences are of success, paired; the better parent is the one that did better in these very episodes.",
        "Weights of least error: of the first parent, from held-out demonstrations, 95 % over episodes.",
    ]

    # All training seeds together.
    if len(compositions) > 1:
        rows.append(_row(compositions, None, None))
        pooled = [("better parent", _better(compositions)), *([("control", CONTROL)] if control else [])]
        for name, role in pooled:
            recipes = _difference(compositions, role)[1]
            notes.append(
                f"Mixture minus {name}, for further trainings ({len(compositions)} seeds, t): "
                f"{_points(recipes)} points."
            )

    return Study(title=title, command=command, columns=columns, rows=rows, notes=notes)


def _row(compositions: Sequence[Composition], chosen: str | None, predicted: str | None) -> list:
    first = compositions[0]
    rates = {role: _success(compositions, role) for role in first.records}
    row = [first.name if len(compositions) == 1 else "all", chosen, predicted, rates[MIXTURE]]
    row += [rates[role] for role in first.parents]
    row += [rates[CONTROL]] if CONTROL in rates else []
    row.append(_difference(compositions, _better(compositions))[0])
    row += [_difference(compositions, CONTROL)[0]] if CONTROL in rates else []
    promised = [composition.promised for composition in compositions if composition.promised is not None]
    row.append(sum(promised) / len(promised) - rates[MIXTURE].estimate if len(promised) == len(compositions) else None)
    return row


def _success(compositions: Sequence[Composition], role: str) -> Interval:
    columns = [composition.records[role].column("success") for composition in compositions]
    won = [sum(map(bool, column)) for column in columns]
    return over_seeds(won, [len(column) for column in columns]).interval


def _better(compositions: Sequence[Composition]) -> str:
    return max(compositions[0].parents, key=lambda role: _success(compositions, role).estimate)


def _difference(pairs: Sequence[Composition], role: str) -> tuple[Interval, Interval]:
    return difference([pair.records[MIXTURE] for pair in pairs], [pair.records[role] for pair in pairs])


def _predicted(report: dict) -> str | None:
    if not report["predicted"]:
        return None
    prediction = report["predicted"]["prediction"]
    low, _, high = prediction["intervals"][0]
    return f"{weights_text(tuple(prediction['weights']))} [{low:.2f}, {high:.2f}]"


def _points(value: Interval) -> str:
    return f"{100 * value.estimate:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"
