"""Trials that a person scores, in blinded order: for real arms, and worlds whose own judgement is not trusted.

From every initial condition both policies act once, in an order drawn from (seed, env seed); whoever scores is told the
number of the trial and nothing of who acted. Success is what the person says, and progress if they give one; what the
world measured stays in the labels. A trial may be done again before it is scored (a cable, a person in the way). One
that was acted and not scored yet when everything stopped is kept in `unscored.json` and asked about at first. The rows
know who acted, so whoever scores must not open the records before the end.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.files import replace_text
from ..ledger.record import RecordWriter

Act = Callable[[int], dict]  # env seed -> row of the episode that one policy acted from there
UNSCORED = "unscored.json"  # a trial that was acted and not scored yet
HELP = "y success, n failure, or a progress from 0 to 100; r does the trial again, ? shows this"


@dataclass(frozen=True)
class Score:
    """What a person says of a trial."""

    success: bool
    progress: float | None = None  # 0..1; None: 1 or 0 by success
    note: str = ""


class BlindStage:
    """A `sequential.PairStage` that asks a person after each trial.

    Args:
        acts: of A and B.
        writers: records of A and B.
        score: trial number, what the row says -> `Score`, or None to do the trial again; None: the world's holds.
        seed: of the order.
        operator: who scores, kept in the labels.
        folder: where a trial waits for its score, through interruptions too; None: nowhere.
    """

    def __init__(
        self,
        acts: tuple[Act, Act],
        writers: tuple[RecordWriter, RecordWriter],
        score: Callable[[int, Mapping], Score | None] | None,
        seed: int = 0,
        operator: str = "",
        folder: Path | None = None,
    ):
        self.acts, self.writers, self.score, self.seed, self.operator = acts, writers, score, seed, operator
        self.unscored = None if folder is None else folder / UNSCORED

    def play(self, starts: Sequence[int]) -> Iterator[tuple[Mapping, Mapping]]:
        for start in starts:
            for place, who in enumerate(blind_order(self.seed, start)):
                if start not in self.writers[who].done:
                    self.writers[who].add(self._trial(start, place, who))
                    if self.unscored is not None:
                        self.unscored.unlink(missing_ok=True)
            yield self.writers[0].rows[start], self.writers[1].rows[start]

    def _trial(self, start: int, place: int, who: int) -> dict:
        number, score, times = sum(len(writer.done) for writer in self.writers) + 1, None, 0
        row = self._waiting(start, who, number)
        while score is None:
            if row is None:
                row, times = self.acts[who](start), times + 1
                self._keep(row, who)
            if self.score is None:
                return dict(row) | {"labels": json.dumps(json.loads(row["labels"] or "{}") | {"place": place})}
            score = self.score(number, row)
            last, row = row, None
            if score is None and self.unscored is not None:
                self.unscored.unlink(missing_ok=True)
        return scored(last, score, place=place, operator=self.operator, times=max(times, 1))

    def _keep(self, row: Mapping, who: int) -> None:
        if self.unscored is not None and self.score is not None:
            replace_text(self.unscored, json.dumps({"who": who, "row": row}))

    def _waiting(self, start: int, who: int, number: int) -> dict | None:
        """The row of this trial, where it was acted before an interruption and not scored."""
        if self.unscored is None or self.score is None or not self.unscored.is_file():
            return None
        kept = json.loads(self.unscored.read_text())
        if (kept["who"], kept["row"]["env_seed"]) != (who, start):
            return None
        print(f"trial {number} was acted before the interruption and is not scored yet", flush=True)
        return kept["row"]


def secret_order() -> int:
    """A seed of an order that nobody can know beforehand; kept in the records, which tell it in the end."""
    return secrets.randbits(32)


def blind_order(seed: int, start: int) -> tuple[int, int]:
    """(0, 1) or (1, 0): who acts first from an initial condition, a fair coin keyed by both numbers."""
    first = int(np.random.default_rng((seed, start)).integers(2))
    return first, 1 - first


def scored(row: Mapping, score: Score, **about) -> dict:
    """The row of an episode with a person's score in place of the world's; the world's goes to the labels."""
    progress = float(score.success) if score.progress is None else score.progress
    labels = json.loads(row["labels"] or "{}") | about | {"note": score.note}
    labels |= {"measured": {key: row[key] for key in ("success", "first_success", "best_progress")}}
    length = row["length"]
    return dict(row) | {
        "success": score.success,
        "first_success": length if score.success else -1,
        "best_progress": progress,
        "final_progress": progress,
        "labels": json.dumps(labels),
    }


def ask(
    trial: int, row: Mapping, read: Callable[[str], str] = input, say: Callable[[str], None] = print
) -> Score | None:
    """Ask at the terminal how a trial went; None: do it again. Anything that is no answer is asked again."""
    if row["error"]:
        say(f"trial {trial} broke off: {row['error']}")
    while True:
        word, _, note = read(f"trial {trial}: success? [y/n/0-100/r/?] ").strip().partition(" ")
        answer = word.lower()
        if answer in ("r", "redo"):
            return None
        if answer in ("y", "yes", "n", "no"):
            return Score(answer.startswith("y"), None, note.strip())
        if answer.isdigit() and int(answer) <= 100:
            return Score(int(answer) == 100, int(answer) / 100, note.strip())
        say(HELP)
