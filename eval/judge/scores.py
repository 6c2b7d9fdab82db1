"""How right judges are: each against what is known of true and of imagined films, and against the person.

Apart for both kinds of film, since a judge that reads true films well may be fooled by imagined ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..ledger.labels import FAILURE, PERSON, SUCCESS, Place
from ..statistics.verdicts import Right, right
from .films import FORETOLD, RUN_AGAIN, Film

OWN = "learned"  # the world model's own judge
MEANT = {SUCCESS: True, FAILURE: False}


@dataclass(frozen=True)
class Score:
    """How right one judge is of one kind of film."""

    judge: str
    kind: str  # true | imagined
    against: str  # what is held to be right
    right: Right
    asked: int  # films of this kind that the judge was asked about


def scores(films: Sequence[Film], verdicts: Mapping[str, Mapping[Place, str]]) -> list[Score]:
    """Every judge against what is known, and against the person where there is one; kinds of films apart.

    Args:
        verdicts: judge -> verdict by place, as `labels.verdicts_of` gives them.
    """
    own = {film.place: SUCCESS if film.own else FAILURE for film in films if film.own is not None}
    judges = ({OWN: own} if own else {}) | {name: dict(said) for name, said in verdicts.items()}
    return [one for kind in (False, True) for one in _of_kind([f for f in films if f.imagined is kind], judges)]


def _of_kind(films: Sequence[Film], judges: Mapping[str, Mapping[Place, str]]) -> Iterator[Score]:
    person = judges.get(PERSON, {})
    for reference in dict.fromkeys(film.known_by for film in films):
        of = [film for film in films if film.known_by == reference and film.known is not None]
        yield from _against(reference, of, [bool(film.known) for film in of], judges)
    of = [film for film in films if person.get(film.place) in MEANT]
    others = {name: said for name, said in judges.items() if name != PERSON}
    yield from _against("the person", of, [MEANT[person[film.place]] for film in of], others)


def _against(
    reference: str, films: Sequence[Film], known: Sequence[bool], judges: Mapping[str, Mapping[Place, str]]
) -> Iterator[Score]:
    for name, said in judges.items():
        asked = [(film, outcome) for film, outcome in zip(films, known, strict=True) if film.place in said]
        if not asked:
            continue
        told = right(
            [outcome for _, outcome in asked],
            [MEANT.get(said[film.place]) for film, _ in asked],
            [film.group for film, _ in asked],
        )
        yield Score(name, "imagined" if films[0].imagined else "true", reference, told, len(asked))


def lines(found: Sequence[Score]) -> list[str]:
    """The scores as a table."""
    if not found:
        return ["nobody can tell how right the verdicts are: no outcome of these films is known (docs/dreams.md)"]
    wide = max(12, *(len(one.judge) for one in found)) + 2
    far = max(len(one.against) for one in found) + 2
    head = f"{'judge':<{wide}}{'films':<10}{'against':<{far}}{'accuracy':<24}{'balanced':<24}{'constant':>9}"
    out = [f"{head}{'verdicts':>10}{'none':>6}{'false yes':>11}{'false no':>10}"]
    for one in found:
        told = one.right
        out.append(
            f"{one.judge:<{wide}}{one.kind:<10}{one.against:<{far}}{_text(told.accuracy):<24}"
            f"{_text(told.balanced):<24}{'-' if math.isnan(told.constant) else f'{told.constant:.3f}':>9}"
            f"{told.n:>10}{told.none:>6}{told.false_positive:>11}{told.false_negative:>10}"
        )
    return out


def remarks(found: Sequence[Score]) -> Iterator[str]:
    """What a reader must know beside the numbers."""
    for one in found:
        if one.right.none > one.right.n:
            yield (
                f"{one.judge} gave no verdict of {one.right.none} of {one.asked} {one.kind} films: it does not answer "
                "the question, and what it said of the others is a choice of its own"
            )
        elif not math.isnan(one.right.balanced.estimate) and one.right.balanced.low <= 0.5:
            yield f"{one.judge} is not shown to tell success from failure in {one.kind} films, against {one.against}"
    if any(one.against == FORETOLD for one in found):
        yield (
            "what was imagined under recorded actions need not end as they did: where it does not, a judge who is "
            "right of the film counts as wrong; a person who looks is the better reference"
        )
    if any(one.against == RUN_AGAIN for one in found):
        yield (
            "a true run from the same start may end otherwise by the policy's own chance, and by the dream's errors: "
            "what is right of these is no judge's alone"
        )


def _text(interval) -> str:
    return "-" if math.isnan(interval.estimate) else str(interval)
