"""`understudy report FOLDER...`: one page over all records and trainings below some folders.

A table that sorts; the failures of each record, to be looked at and labelled; where in the space of initial conditions
a policy succeeds. The page is one file that needs no network, and links to the reports that lie beside it.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.files import replace_text
from ...configs.progress import counted
from ..ledger.labels import by_place, check_places, read_labels, tally
from ..ledger.summary import title
from ..pages.page import page
from .found import find
from .places import Places, places
from .rows import evaluation, training


@dataclass(frozen=True, kw_only=True)
class Report:
    """One page over the records and trainings below some folders: a table that sorts, failures to label, maps."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("folders",)
    DISCOVER: ClassVar[tuple[str, ...]] = ()

    folders: list[str]  # where to look, such as runs out
    out: Path = Path("report.html")  # the page that is written, in place of an older one
    labels: tuple[str, ...] = ()  # files of labels that the page let somebody download; their counts are printed
    map: tuple[str, ...] = ()  # records of which success is drawn over initial conditions; opens their worlds anew
    failures: int = 40  # failures of a record that are shown for labelling, at most
    films: int = 4  # films of failures of a record that are put into the page, at most

    def check_names(self) -> None:
        """Raise FileNotFoundError for a folder or a file that is not there, ValueError for a page of another name."""
        for path in (*self.folders, *self.map):
            if not Path(os.path.expandvars(path)).expanduser().is_dir():
                raise FileNotFoundError(f"there is no folder '{path}'")
        for path in self.labels:
            if not Path(os.path.expandvars(path)).expanduser().is_file():
                raise FileNotFoundError(f"there is no file of labels '{path}'; the page's button downloads one")
        if self.out.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"--out {self.out}: the page is a file whose name ends in .html")

    def run(self) -> None:
        found = find([*self.folders, *self.map])
        labels = read_labels(Path(os.path.expandvars(path)).expanduser() for path in self.labels)
        if not (found.records or found.runs or found.pages):
            unread = f" ({found.unread[0]})" if found.unread else ""
            raise ValueError(f"no record, training or page of ours below {', '.join(self.folders)}{unread}")
        for text in (*found.unread, *check_places(labels, found.records)):
            warnings.warn(text, stacklevel=2)

        out = Path(os.path.expandvars(self.out)).expanduser()
        given = by_place(labels)
        maps = self._maps(found.records)
        evaluations = [
            evaluation(record, out.parent, given, maps.get(record.root.resolve()), self.failures, self.films)
            for record in found.records
        ]
        text = page(
            "index.html",
            folders=self.folders,
            evaluations=evaluations,
            runs=[training(run, out.parent) for run in found.runs],
            pages=[
                (each, os.path.relpath(each.path, out.parent))
                for each in found.pages
                if each.path.resolve() != out.resolve()
            ],
            unread=found.unread,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, text)
        print(
            f"found   {counted(len(found.records), 'record')}, {counted(len(found.runs), 'training')}, "
            f"{counted(len(found.pages), 'other page')}"
        )
        for record in found.records if labels else ():
            _say_counts(title(record.manifest), record.root, tally(record, given))
        print(f"page    {out}")

    def _maps(self, records) -> dict[Path, Places]:
        """Record's folder -> where its episodes began, of those that are asked for."""
        asked = [Path(os.path.expandvars(path)).expanduser().resolve() for path in self.map]
        chosen = [record for record in records if any(record.root.resolve().is_relative_to(path) for path in asked)]
        if asked and not chosen:
            raise ValueError(f"no record below {', '.join(self.map)} to draw a map of")
        return {record.root.resolve(): places(record) for record in chosen}


def _say_counts(name: str, root: Path, told) -> None:
    if not told.failures:
        return
    print(f"labels  {name} ({root}): {told.labelled} of {counted(told.failures, 'failure')}")
    for count in told.counts:
        print(f"        {count.n:>4}  {count.label:<30} {count.share}   of the labelled, Wilson 95 %")
    if disputed := told.disputed:
        print(f"        {len(disputed):>4}  with different labels, told nowhere: env seed {disputed[0]}")
