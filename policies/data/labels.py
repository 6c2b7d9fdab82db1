"""`understudy label DATA`: say which episodes of a recording succeeded, where nobody has said so.

The labels stand beside the recording in `meta/labels.json`; the data files stay as they are. Reading a labelled episode
gives `next.success` 1 at its last frame if it succeeded and 0 elsewhere, whatever was recorded, and, where the columns
are missing, `next.done` 1 at its last frame and `next.reward` equal to `next.success`. What other tools read does not
change. A failure is an episode without success: a time-out.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.files import replace_text
from .choose import choose, is_everything
from .layout import LABELS, DatasetError, Layout, expand_path, read_labels, read_layout

YES = ("1", "true", "t", "yes", "y", "success", "succeeded", "successful", "ok", "pass", "passed", "good", "done")
NO = ("0", "false", "f", "no", "n", "fail", "failed", "failure", "unsuccessful", "bad", "error")
BLANK = ("", "nan", "na", "n/a", "none", "null", "<na>", "?", "-")  # nobody has looked
WORDS: dict[str, bool | None] = dict.fromkeys(YES, True) | dict.fromkeys(NO, False) | dict.fromkeys(BLANK)
EPISODES = ("episode", "episode_index", "episode_id", "episodes")  # headers of the one column
SUCCESSES = ("success", "succeeded", "is_success", "successful")  # and of the other
SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True, kw_only=True)
class Label:
    """Say which episodes of a dataset succeeded."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("data",)

    data: str  # dataset folder
    success: str  # all | none, or a file: CSV with the columns episode, success, or JSON {"0": true, ...}
    episodes: str = "all"  # with all | none: which, for example 0-9,12
    without: str = ""  # with all | none: episodes left as they are, for example 6

    def run(self) -> None:
        layout = read_layout(expand_path(self.data))
        given = read_answers(self.success, layout, self.episodes, self.without)
        answers = read_labels(layout.root) | given
        labels = {"success": {str(key): answers[key] for key in sorted(answers)}}
        path = replace_text(layout.root / LABELS, json.dumps(labels, indent=1))
        won = sum(answers.values())
        print(f"{path}: {len(answers)} of {len(layout.entries)} episodes labelled, {won} successes")


def read_answers(source: str, layout: Layout, episodes: str = "all", without: str = "") -> dict[int, bool]:
    """Episode id -> success, from `all`, `none` or a file.

    Raises:
        DatasetError: a file that is no table of labels, or episodes that the dataset does not have.
    """
    known = [entry.id for entry in layout.entries]
    if source in ("all", "none"):
        chosen = choose(layout, episodes, without).entries
        answers = dict.fromkeys((entry.id for entry in chosen), source == "all")
    else:
        if not is_everything(episodes, without):
            flag = "--episodes" if is_everything("", without) else "--without"
            raise DatasetError(f"{flag} goes with --success all or none; a file names its episodes itself")
        answers = _read_file(expand_path(source))
    strange = sorted(set(answers) - set(known))
    if strange:
        raise DatasetError(f"{layout.root} has no episode {strange[0]}; it has {len(known)}, up to {max(known)}")
    return answers


def _read_file(path: Path) -> dict[int, bool]:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; give all, none, or a file with the columns episode, success")
    text = _text(path)
    answers: dict[int, tuple[bool, str]] = {}
    for where, key, value in _json_rows(path, text) if path.suffix.lower() == ".json" else _csv_rows(path, text):
        episode, answer = _episode(key, where), _truth(value, where)
        if answer is None:
            continue
        before, earlier = answers.get(episode, (answer, where))
        if before != answer:
            words = {True: "yes", False: "no"}
            raise DatasetError(
                f"{where}: episode {episode} stands twice, with {words[before]} ({earlier}) and {words[answer]};"
                " remove one of the two"
            )
        answers.setdefault(episode, (answer, where))
    return {episode: answer for episode, (answer, _) in answers.items()}


def _text(path: Path) -> str:
    """The text of a file in UTF-8, in UTF-16 with its mark, or else in Windows-1252, as spreadsheets write."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp1252", "latin-1")
    for encoding in encodings:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(encoding)
    raise DatasetError(f"{path} cannot be read as {' or '.join(encodings)}; save it as UTF-8")


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, object, object]]:
    """(place, episode, success) of each row. Raises DatasetError for a table without these columns."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=head.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    columns: tuple[int, int] | None = None
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = _columns(path, [cell.strip().lower().replace(" ", "_") for cell in row], separator)
            elif len(row) <= columns[0]:
                raise DatasetError(f"{where} names no episode; write the columns episode, success")
            else:
                yield where, row[columns[0]], row[columns[1]] if len(row) > columns[1] else ""
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}; write the columns episode, success") from error
    if columns is None:
        raise DatasetError(f"{path} is empty; write the columns episode, success")


def _columns(path: Path, names: list[str], separator: str) -> tuple[int, int]:
    """Places of the columns of episodes and of success. Raises DatasetError: missing, or there twice."""
    places = []
    for known in (EPISODES, SUCCESSES):
        found = [place for place, name in enumerate(names) if name in known]
        if len(found) != 1:
            what = f"no column '{known[0]}'" if not found else f"{len(found)} columns for '{known[0]}'"
            raise DatasetError(
                f"{path}, line 1 has {what}, but {', '.join(names)} (separated by {separator!r}); write the columns"
                " episode, success"
            )
        places.append(found[0])
    return places[0], places[1]


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, object, object]]:
    """(place, episode, success) of {"0": true}, [true, ...], [{"episode": 0, "success": true}], or our own file."""

    def pairs(items: list[tuple[str, object]]) -> list[tuple[str, object]]:  # a key given twice is seen
        return [("", dict), *items]

    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'{path} is not valid JSON ({error}); write {{"0": true, "1": false}}') from error
    if not isinstance(document, list):
        raise DatasetError(f'{path} holds {document!r:.40}; write {{"0": true, "1": false}}')
    if _is_object(document):
        items = document[1:]
        inner = [value for key, value in items if key == "success"]
        if inner and len(inner) == 1 and _is_object(inner[0]):
            items = inner[0][1:]
        yield from ((f"{path}, key '{key}'", key, value) for key, value in items)
        return
    for place, value in enumerate(document):
        where = f"{path}, entry {place}"
        if not _is_object(value):
            yield where, place, value
            continue
        fields = [(str(key).strip().lower(), one) for key, one in value[1:]]
        found = [[one for key, one in fields if key in known] for known in (EPISODES, SUCCESSES)]
        if not all(len(ones) == 1 for ones in found):
            raise DatasetError(f"{where} needs one 'episode' and one 'success'; write both")
        yield where, found[0][0], found[1][0]


def _is_object(value: object) -> bool:
    return isinstance(value, list) and bool(value) and value[0] == ("", dict)


def _episode(value: object, where: str) -> int:
    """An episode's id, also written 3.0. Raises DatasetError."""
    try:
        number = math.nan if isinstance(value, bool) else float(str(value).strip())
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number == int(number) >= 0):
        raise DatasetError(f"{where}: {value!r:.40} is no episode; write its number, such as 3")
    return int(number)


def _truth(value: object, where: str) -> bool | None:
    """Yes, no, or None where nobody has said. Raises DatasetError."""
    word = "" if value is None else str(value).strip().lower()
    if word not in WORDS:
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if number not in (0, 1):
            raise DatasetError(f"{where}: {value!r:.40} is neither yes nor no; write 1 or 0, and nothing where unknown")
        return number == 1
    return WORDS[word]
