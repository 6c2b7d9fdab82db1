"""`understudy judge FILMS`: who says of films whether the task succeeded, and how right that is.

A vision-language model is asked, or a page is written on which a person clicks; verdicts are files of labels
(`ledger/labels.py`), which are put beside what is known of the films, and beside each other.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.documents import read_object
from ...configs.files import replace_text
from ...configs.plugins import discover
from ...configs.progress import Progress, counted
from ...configs.settings.decode import keys_of
from ..ledger.labels import (
    ASKED,
    FORMAT,
    KIND,
    NEITHER,
    VERDICTS,
    Label,
    LabelsError,
    check_asked,
    contradictions,
    read_labels,
    verdicts_of,
)
from .films import Film, Films, find_films
from .judges import JudgeError, ModelJudge, PersonJudge, ask, read_judge, rubric_of
from .opened import open_model
from .page import click_page
from .prompt import chosen
from .scores import lines, remarks, scores


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Say of films whether the task succeeded, by a vision-language model or by a person, and how right each judge is.

    Films are those of episode records (of a dream or a simulator), or of a dataset, such as an arm's. Without --judge,
    verdicts that were given before are compared.
    """

    POSITIONALS: ClassVar[tuple[str, ...]] = ("films",)
    DISCOVER: ClassVar[tuple[str, ...]] = ()

    films: list[str]  # records, folders of records, or datasets
    judge: dict | str | None = None  # {type: vlm, model: ..., url: ..., task: ...} asks a model; person writes a page
    labels: tuple[str, ...] = ()  # files of verdicts, by models or by a person, that are compared
    truth: tuple[str, ...] = ()  # true records of the policies that dreamt: what their films are known by
    out: Path | None = None  # file of the verdicts, default verdicts.json; or the person's page, default judge.html

    def check_names(self) -> None:
        """Refuse what cannot be, before anything heavy is imported."""
        for path in self.labels:
            if not _expanded(path).is_file():
                raise FileNotFoundError(f"there is no file of verdicts '{path}'")
        if self.judge is None and self.out is not None:
            raise ValueError("--out says where verdicts of --judge go; without --judge nothing is written")
        if self.judge is None:
            return
        discover()  # judges of plug-ins
        config = read_judge(self.judge)
        ends = (".html", ".htm") if isinstance(config, PersonJudge) else (".json",)
        if self.out is not None and self.out.suffix.lower() not in ends:
            what = "a person's page" if isinstance(config, PersonJudge) else "a file of verdicts"
            raise ValueError(f"--out {self.out}: {what} ends in {ends[0]}")

    def run(self) -> None:
        given = read_labels(map(_expanded, self.labels))
        config = None if self.judge is None else read_judge(self.judge)
        now = {config.name: settings_of(config)} if isinstance(config, ModelJudge) else {}
        check_asked(list(map(_expanded, self.labels)), now)
        found = find_films(self.films, self.truth)
        check_seen(found.films, given)
        _say(found)
        if isinstance(config, PersonJudge):
            out = _expanded(self.out or "judge.html")
            print(f"page            {replace_text(out, click_page(found.films, config, self.films))}")
        elif isinstance(config, ModelJudge):
            out = _expanded(self.out or "verdicts.json")
            given += judged(found.films, config, out)
            print(f"verdicts        {out}")
        elif config is not None:
            raise JudgeError(f"a judge of type '{config.get_choice_name(type(config))}' cannot be asked")
        compare(found.films, given)


def judged(films: Sequence[Film], config: ModelJudge, out: Path) -> list[Label]:
    """Ask a model about each film; those that `out` has from the same judge are not asked again.

    Every verdict is on the disk before the next film is asked about.

    Raises:
        JudgeError: a judge that cannot be asked, or does not answer.
        LabelsError: `out` holds verdicts of another judge.
    """
    rubrics = {film.place: rubric_of(config, film.task, film.views) for film in films}
    settings = settings_of(config)
    before = _before(out, settings)
    check_seen(films, before)
    done = {label.place: label for label in before}
    ours, left = [film for film in films if film.place in done], [film for film in films if film.place not in done]
    labels = {film.place: done[film.place] for film in ours}
    if ours:
        print(f"{len(ours)} of {counted(len(films), 'film')} have their verdict in {out} already")
    if not left:
        return list(labels.values())

    model = open_model(config)
    with Progress("judging", len(films), "films", done=len(ours)) as progress:
        for film in left:
            frames = film.pictures.read(chosen(film.pictures.count, config.frames))
            verdict, answer = ask(config, model, rubrics[film.place], frames)
            labels[film.place] = _label(film, verdict, config.name, answer)
            write_verdicts(
                out, settings, [*(one for place, one in done.items() if place not in labels), *labels.values()]
            )
            progress.update(len(labels), verdict)
    if unread := [label.answer for label in labels.values() if label.verdict == NEITHER]:
        print(f"{len(unread)} of {len(films)} answers were neither yes nor no, such as: {unread[0]!r}")
    return list(labels.values())


def settings_of(config: ModelJudge) -> dict:
    """How a model is asked, as a file of verdicts tells it."""
    return json.loads(json.dumps(keys_of(config)))


def write_verdicts(out: Path, settings: Mapping, labels: Sequence[Label]) -> Path:
    """A file of verdicts, with the settings of who was asked."""
    document = {"kind": KIND, "format": FORMAT, ASKED: dict(settings), "labels": [asdict(label) for label in labels]}
    return replace_text(out, json.dumps(document, indent=1) + "\n")


def check_seen(films: Sequence[Film], given: Sequence[Label]) -> None:
    """Raise LabelsError where a verdict is of another film than the one that is here."""
    here = {film.place: film for film in films}
    for label in given:
        film = here.get(label.place)
        if film is not None and label.verdict and label.film and label.film != film.pictures.digest():
            raise LabelsError(
                f"{label.judge} judged another film of {label.initial_conditions} {label.env_seed} of {film.name} than "
                "the one that is here (its sha256 differs): it was filmed anew, or changed. Judge it anew"
            )


def compare(films: Sequence[Film], given: Sequence[Label]) -> None:
    """Print how right each judge is."""
    there = {film.place for film in films}
    verdicts = verdicts_of(given)
    for name, several in contradictions(given).items():
        print(
            f"note: {counted(len(several), 'film', 'has', 'have')} different verdicts of {name} in different files, "
            "which count as none"
        )
    for name, said in verdicts.items():
        here = [verdict for place, verdict in said.items() if place in there]
        counts = Counter(here)
        told = ", ".join(f"{counts[one]} {one}" for one in VERDICTS)
        print(f"{name}: {told}; {len(films) - len(here)} of {counted(len(films), 'film')} without an entry")
        if strange := len(said) - len(here):
            warnings.warn(
                f"{counted(strange, 'verdict')} of {name} {'is' if strange == 1 else 'are'} of films that are not here",
                stacklevel=2,
            )
    found = scores(films, verdicts)
    print("", *lines(found), sep="\n")
    for note in remarks(found):
        print(f"note: {note}")


def _say(found: Films) -> None:
    imagined = sum(film.imagined for film in found.films)
    print(f"{counted(len(found.films), 'film')}, {imagined} of them imagined")
    if found.unfilmed:
        print(
            f"note: {counted(found.unfilmed, 'episode', 'has', 'have')} no film, and the "
            f"{counted(found.chosen, 'film')} of their records were chosen by outcome: rates over them are not the "
            "policies'. `understudy eval --videos N` films more"
        )


def _before(out: Path, settings: Mapping) -> list[Label]:
    """The verdicts that `out` has already. Raises LabelsError for those of another judge."""
    if not out.is_file():
        return []
    labels, asked = read_labels([out]), read_object(out, LabelsError).get(ASKED)
    if asked != settings:
        raise LabelsError(
            f"{out} holds verdicts of another judge, or of one that was asked otherwise; give another --out"
        )
    return labels


def _label(film: Film, verdict: str, judge: str, answer: str) -> Label:
    record, kind, seed = film.place
    return Label(
        record=record, name=film.name, initial_conditions=kind, env_seed=seed, verdict=verdict, judge=judge,
        answer=answer, film=film.pictures.digest(),
    )  # fmt: skip


def _expanded(path: str | Path) -> Path:
    return Path(os.path.expandvars(path)).expanduser()
