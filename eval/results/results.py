"""`understudy results`: RESULTS.md and `docs/results/` from the committed records, so that no number was typed by hand.

Three kinds of record lie under `eval/records/`: folders with a manifest and a table of episodes (`ledger/record.py`),
what was measured of the scripted experts (`experts/*.json`, `catalog/measured.py`), and studies (any other `*.json`,
`ledger/study.py`). A `compare.json` beside such folders says what may be concluded from them (`compare/comparison.py`),
`pages.yaml` which questions they answer (`pages.py`). The texts depend on these files alone: running twice gives the
same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.files import replace_text
from ..catalog.measured import read_measured
from ..compare.comparison import FILE as COMPARISON
from ..ledger.chains import MADE, check_chain, check_committed, read_chains, used, used_by_policy
from ..ledger.record import MANIFEST, read_record
from ..ledger.study import read_study
from .facts import Facts
from .page import render_index, render_page, render_plot
from .pages import read_pages
from .tables import EXPERTS

RECORDS = Path(__file__).parents[1] / "records"
FOLDER = "docs/results"  # of the pages, beside RESULTS.md
UP = "../../eval/records"  # from there to the records


class StaleError(ValueError):
    """A page does not say what the records say."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Write RESULTS.md and docs/results from the committed records, or check that they are current."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ()

    records: Path = RECORDS  # folder of records
    out: Path = RECORDS.parent.parent / "RESULTS.md"  # file to write; the pages go to docs/results beside it
    check: bool = False  # write nothing; fail where a page is not current or a record cannot be made again

    def run(self) -> None:
        texts = {self.out.parent / name: text for name, text in render(self.records, self.out.name).items()}
        extra = sorted(path for path in (self.out.parent / FOLDER).glob("*.*") if path not in texts and _ours(path))
        if not self.check:
            for path, text in texts.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_text(path, text)
            for path in extra:
                path.unlink()
            print(f"wrote {self.out} and {len(texts) - 1} files in {self.out.parent / FOLDER}")
            return

        stale = [path for path, text in texts.items() if not path.is_file() or path.read_text() != text]
        if stale or extra:
            raise StaleError(
                f"{[*stale, *extra][0]} is not what {self.records} says; run `understudy results` and commit it"
            )
        check_records(self.records)
        print(f"{self.out} is current, and {FOLDER} with it")


def _ours(path: Path) -> bool:
    """Pages and pictures are ours; whatever else lies in the folder is not touched."""
    return path.suffix in (".md", ".svg")


def render(root: Path = RECORDS, index: str = "RESULTS.md") -> dict[str, str]:
    """The text of every file, by its path beside RESULTS.md.

    Raises:
        FileNotFoundError: no such folder.
        StudyError, RecordError: a file that is none of the three kinds, by name.
        PagesError, FactError, PlotError: a page that cannot be made, and why.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of records at {root}")
    pages, facts, chains = read_pages(root), Facts(root), read_chains(root)
    texts = {index: render_index(pages, facts, FOLDER)}
    for page in pages.pages:
        texts[f"{FOLDER}/{page.name}.md"] = render_page(page, pages, root, UP, facts, chains)
        if page.plot or page.matrix:
            texts[f"{FOLDER}/{page.name}.svg"] = render_plot(page, facts, chains)
    return texts


def check_records(root: Path) -> None:
    """Refuse records that nobody else can make: a piece without a command, or code that was not committed.

    Raises:
        ChainError: the first one, and what is missing.
    """
    chains, changed = read_chains(root), {}
    for path in sorted(root.rglob("*.json")):
        folder, name = path.parent, path.relative_to(root).as_posix()
        if path.name == COMPARISON:
            continue
        if path.name == MANIFEST:
            name, manifest = folder.relative_to(root).as_posix(), read_record(folder).manifest
            paths, provenance = used_by_policy(manifest), manifest
        elif folder == root / EXPERTS:
            paths, provenance = [], getattr(read_measured(path.stem, folder), "provenance", {})
        else:
            study = read_study(path)
            paths, provenance = used(study.command), study.provenance
        check_chain(chains.with_own(provenance.get(MADE)), name, paths)
        changed[name] = bool((provenance.get("code") or {}).get("changed"))
    check_committed(chains, changed)
