"""What somebody saw of an episode: why it failed, in words, and whether it succeeded; read back, and counted.

A file holds an entry for each episode that was looked at, by the digest of its record's rows (`record_key`), so that it
is read back wherever the record lies. An entry may have a label (why it failed; the page of `understudy report` asks)
and a verdict (success or failure; the page of `understudy judge` asks a person, and a model's are written alike). Two
files may disagree, which is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...configs.documents import check_fields, read_document, read_object
from ...configs.progress import counted
from ..statistics.intervals import Interval, wilson
from .record import Record
from .verify import DIGESTS, ROWS_DIGEST, rows_digest

KIND, FORMAT = "failure-labels", 3  # 1: labels without verdicts; 2: verdicts that do not say which film was seen
LONGEST = 80  # letters of a label
SUCCESS, FAILURE, NEITHER = VERDICTS = ("success", "failure", "neither")  # neither: who judged did not decide
PERSON = "person"  # the judge whose verdicts are clicked
ASKED = "asked"  # key of a file of verdicts: the settings of a model that was asked


Place = tuple[str, str, int]  # record_key, initial conditions, env seed


class LabelsError(ValueError):
    """Labels that cannot be used; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """What was seen of one episode. The fields are the keys of the file."""

    record: str  # `record_key`
    name: str  # what the page called the record, for people
    initial_conditions: str
    env_seed: int
    label: str = ""  # why it failed
    verdict: str = ""  # one of `VERDICTS`; nothing where nobody was asked
    judge: str = ""  # whose verdict: person, or what the judge is called
    answer: str = ""  # what a model said, shortened
    film: str = ""  # sha256 of the film that was judged; nothing in files of earlier versions

    @property
    def place(self) -> Place:
        """The episode."""
        return self.record, self.initial_conditions, self.env_seed


@dataclass(frozen=True)
class Count:
    """How often a label was given, among the failures of a record that have one."""

    label: str
    n: int
    share: Interval  # Wilson, 95 %


@dataclass(frozen=True)
class Tally:
    """The labels of one record."""

    failures: int
    counts: tuple[Count, ...]  # the most frequent first
    disputed: tuple[int, ...]  # env seeds to which files give different labels; counted nowhere

    @property
    def labelled(self) -> int:
        return sum(count.n for count in self.counts)


def record_key(record: Record) -> str:
    """What tells a record from all others, wherever it lies: the sha256 of its rows."""
    told = record.manifest.get(DIGESTS) or {}
    return str(told.get(ROWS_DIGEST) or rows_digest(record.table))


def read_labels(paths: Iterable[str | Path]) -> list[Label]:
    """The labels of the files, in their order.

    Raises:
        FileNotFoundError: no such file.
        LabelsError: something else than what the page writes; an empty label, or one that is too long.
    """
    return [label for path in paths for label in _read(path)]


def _read(path: str | Path) -> list[Label]:
    values = read_document(path, KIND, FORMAT, LabelsError)
    entries = values.get("labels")
    if not isinstance(entries, list):
        raise LabelsError(f"{path} is damaged: its 'labels' are no list")
    labels = []
    for entry in entries:
        check_fields(Label, entry, path, LabelsError)
        label = Label(**entry)
        label = replace(label, label=" ".join(label.label.split()))
        if label.verdict not in ("", *VERDICTS):
            raise LabelsError(
                f"{path}: the verdict of env seed {label.env_seed} is '{label.verdict}', not {', '.join(VERDICTS)}"
            )
        if label.verdict and not label.judge:
            raise LabelsError(f"{path}: nobody says whose verdict that of env seed {label.env_seed} is ('judge')")
        if not (0 < len(label.label) <= LONGEST or label.verdict and not label.label):
            raise LabelsError(f"{path}: the label of env seed {label.env_seed} must have 1 to {LONGEST} letters")
        labels.append(label)
    return labels


def by_place(labels: Iterable[Label]) -> dict[Place, tuple[str, ...]]:
    """The different labels of each episode; more than one where people disagree."""
    given: dict[Place, dict[str, None]] = {}
    for label in labels:
        if label.label:
            given.setdefault(label.place, {})[label.label] = None
    return {place: tuple(several) for place, several in given.items()}


def verdicts_of(labels: Iterable[Label]) -> dict[str, dict[Place, str]]:
    """Judge -> what it says of each episode; `NEITHER` where files of one judge contradict each other."""
    given: dict[str, dict[Place, str]] = {}
    for label in labels:
        if label.verdict:
            said = given.setdefault(label.judge, {})
            same = said.get(label.place, label.verdict) == label.verdict
            said[label.place] = label.verdict if same else NEITHER
    return given


def contradictions(labels: Iterable[Label]) -> dict[str, set[Place]]:
    """Judge -> the episodes of which its files say different things; judges that never do are left out."""
    seen: dict[tuple[str, Place], set[str]] = {}
    for label in labels:
        if label.verdict:
            seen.setdefault((label.judge, label.place), set()).add(label.verdict)
    out: dict[str, set[Place]] = {}
    for (judge, place), said in seen.items():
        if len(said) > 1:
            out.setdefault(judge, set()).add(place)
    return out


def check_asked(paths: Sequence[Path], now: Mapping[str, Mapping] | None = None) -> None:
    """Raise LabelsError where files hold verdicts of one model that was asked otherwise in each: it is two judges.

    Args:
        now: judge -> settings of one that is asked beside the files.
    """
    known: dict[str, tuple[Path | str, Mapping]] = {name: ("--judge", asked) for name, asked in (now or {}).items()}
    for path in paths:
        asked = read_object(path, LabelsError).get(ASKED)
        if not isinstance(asked, Mapping):  # of a person
            continue
        for judge in {label.judge for label in read_labels([path]) if label.verdict}:
            before, theirs = known.setdefault(judge, (path, asked))
            if differs := sorted(name for name in {*theirs, *asked} if theirs.get(name) != asked.get(name)):
                raise LabelsError(
                    f"{before} and {path} hold verdicts of {judge}, which was asked otherwise in each: {differs[0]} is "
                    f"{theirs.get(differs[0])!r} and {asked.get(differs[0])!r}. Compare them one at a time"
                )


def check_places(labels: Iterable[Label], records: Iterable[Record]) -> list[str]:
    """What of the labels belongs to no failure of these records, a sentence each."""
    known = {record_key(record): record for record in records}
    labels = list(labels)
    lost = Counter(label.name for label in labels if label.record not in known)
    said = [f"{counted(n, 'label')} of '{name}' belong to no record that was found" for name, n in lost.items()]
    for key, record in known.items():
        won = {(row["initial_conditions"], row["env_seed"]): row["success"] for row in record.rows}
        own = [label for label in labels if label.record == key and label.label]
        strange = [label.env_seed for label in own if won.get((label.initial_conditions, label.env_seed), True)]
        if strange:
            said.append(f"{record.root}: env seed {strange[0]} is labelled, and is none of its failures")
        judged = [label.env_seed for label in labels if label.record == key and label.verdict]
        if unknown := sorted(set(judged) - {seed for _, seed in won}):
            said.append(f"{record.root}: env seed {unknown[0]} is judged, and is none of its episodes")
    return said


def tally(record: Record, given: Mapping[Place, tuple[str, ...]]) -> Tally:
    """The labels of a record, counted; successes are not asked."""
    key, failed = record_key(record), [row for row in record.rows if not row["success"]]
    places = [(key, row["initial_conditions"], row["env_seed"]) for row in failed]
    several = tuple(place[2] for place in places if len(given.get(place, ())) > 1)
    counts = Counter(given[place][0] for place in places if len(given.get(place, ())) == 1)
    n = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Tally(len(failed), tuple(Count(label, k, wilson(k, n)) for label, k in ordered), several)
