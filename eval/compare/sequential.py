"""A sequential comparison: two policies act pair by pair until a sequential test has decided or gives up.

What plays the pairs is a `PairStage`: rollouts in any world, block by block, or one trial at a time in blinded order
with a person who says how it went (`blind`). Every episode goes into the record of its policy as it ends, so that what
was stopped goes on where it was. Knows no world, no policy and no statistics beyond the test's verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..ledger.record import RecordWriter
from ..ledger.table import OUTCOMES
from ..rollout.crew import Crew, Job
from ..rollout.film import Tapes, choose_pairs, film_again
from ..rollout.recipes import Recipe
from ..statistics.sequential import HOPELESS, UNDECIDED, A, B, Sequential, State

METER = 24  # characters to either side
NAMES = {"betting": "betting test", "table": "decision table", "imagined": "betting test beside imagined pairs"}


class PairStage(Protocol):
    """Gives the episodes of both policies."""

    def play(self, starts: Sequence[int]) -> Iterator[tuple[Mapping, Mapping]]:
        """Rows (`ledger/table.py`) of A and B for each env seed, in order; what is recorded is not run again."""


@dataclass(frozen=True)
class Side:
    """One policy of a sequential comparison in the rollout loop."""

    recipe: Recipe
    writer: RecordWriter
    columns: Mapping  # initial_conditions and policy_seed of its rows
    shift: int = 0  # added to every env seed, for tests that need independent pairs


@dataclass(frozen=True)
class Rules:
    """How a sequential comparison ends."""

    on: str = "success"  # success | progress: what is compared
    until_decided: bool = True  # else the whole budget is run, and the test only watched
    give_up: float = 0.05  # see `Sequential.hopeless`; 0: never

    def __post_init__(self):
        from ...configs.plugins import lookup

        lookup("outcome", self.on, OUTCOMES)
        if not 0 <= self.give_up < 1:
            raise ValueError(f"--give_up is a share of futures, 0 <= share < 1, got {self.give_up}")


@dataclass(frozen=True)
class Standing:
    """Where a comparison stands after a block of pairs."""

    state: State
    pairs: int  # counted; more than the test's own where it was only watched
    budget: int
    wins: tuple[int, int]  # successes of A and B in the pairs counted

    def text(self, blind: bool = False) -> str:
        """One line: pairs, successes, a meter and the test's own words; `blind` tells whoever scores no side."""
        if blind:
            return f"{self.pairs:>4}/{self.budget} pairs  {100 * abs(self.state.evidence):.0f} % of the evidence needed"
        a, b = self.wins
        return f"{self.pairs:>4}/{self.budget} pairs  A {a:>3}  B {b:>3}  {meter(self.state)}  {self.state.note}"


@dataclass(frozen=True)
class SequentialComparison:
    """How it went. `history` is (pairs, evidence -1..1) after every block."""

    decision: str | None  # "A", "B", "undecided", "hopeless"; None: stopped from outside
    state: State
    pairs: int
    counts: tuple[int, int, int, int]  # pairs in which neither, only B, only A, both succeeded
    history: tuple[tuple[int, float], ...]

    @property
    def wins(self) -> tuple[int, int]:
        """Successes of A and of B in the pairs counted."""
        _, only_b, only_a, both = self.counts
        return only_a + both, only_b + both


class RolloutStage:
    """Both policies in one world, a block each in turn, or at the same time where a crew has workers.

    Args:
        plan: the env seeds of each call of `play`, in order. Workers that would be idle play ahead; what they played
            is recorded only where it is asked for, so that the records do not depend on their number.
    """

    def __init__(
        self,
        sides: tuple[Side, Side],
        crew: Crew,
        films: bool = False,
        plan: Sequence[Sequence[int]] = (),
    ):
        self.sides, self.crew, self.plan = sides, crew, [list(starts) for starts in plan]
        self.tapes = tuple(Tapes(side.writer.root, films) for side in sides)  # by the env seed of the pair
        self._jobs: dict[tuple[int, int], Job] = {}  # (side, first env seed of the pair)

    def play(self, starts: Sequence[int]) -> Iterator[tuple[Mapping, Mapping]]:
        self._submit(starts)
        for number, (side, tapes) in enumerate(zip(self.sides, self.tapes, strict=True)):
            job = self._jobs.pop((number, starts[0]), None)
            for result in self.crew.results(job) if job else ():
                tapes[result.start - side.shift] = result.actions
                side.writer.add(result.row)
        for start in starts:
            first, second = (side.writer.rows[start + side.shift] for side in self.sides)
            yield first, second

    def _submit(self, starts: Sequence[int]) -> None:
        """Give out these env seeds, and those of later calls that idle workers can begin with."""
        ahead = math.ceil(self.crew.workers / 2)
        now = self.plan.index(list(starts)) if list(starts) in self.plan else len(self.plan)
        for pairs in [starts, *self.plan[now + 1 : now + 1 + ahead]]:
            for number, side in enumerate(self.sides):
                env_seeds = [start + side.shift for start in pairs]
                if (number, pairs[0]) not in self._jobs and not set(env_seeds) <= side.writer.done:
                    job = self.crew.submit(side.recipe, env_seeds, skip=side.writer.done, **side.columns)
                    self._jobs[number, pairs[0]] = job

    def stop(self) -> None:
        """What was played ahead is not wanted."""
        for job in self._jobs.values():
            self.crew.drop(job)
        self._jobs.clear()

    def film(self, count: int) -> None:
        """Film up to `count` pairs, where one alone succeeded first, by playing their actions again."""
        rows = [
            {start: side.writer.rows[start + side.shift] for start in tapes if start + side.shift in side.writer.done}
            for side, tapes in zip(self.sides, self.tapes, strict=True)
        ]
        self.stop()
        chosen = choose_pairs(*rows, count)
        for side, tapes in zip(self.sides, self.tapes, strict=True):
            again = {start + side.shift: tapes[start] for start in chosen}
            for start, path in film_again(self.crew, side.writer.rows, again, side.writer.root).items():
                side.writer.set_video(start, path)


def fight(
    stage: PairStage,
    starts: Sequence[int],
    test: Sequential,
    rules: Rules,
    block: int = 8,
    watch: Callable[[Standing], None] = lambda standing: None,
) -> Iterator[SequentialComparison]:
    """Play block after block and yield where the comparison stands after each; the last one says how it ended.

    Only pairs up to the verdict count; the rest of their block is in the records all the same.

    Args:
        starts: env seeds, as many as the test's budget.
        block: pairs between two looks; a multiple of the environments of the stage, or its rollouts are padded. The
            test takes pair after pair whatever it is: more looks stop sooner, and make no verdict less certain.
    """
    counts, history = [0] * 4, []
    column = OUTCOMES[rules.on]

    for begin in range(0, len(starts), block):
        for pair in stage.play(starts[begin : begin + block]):
            if rules.until_decided and test.decision is not None:
                continue
            outcomes = [min(1.0, max(0.0, float(row[column]))) for row in pair]
            test.update(*outcomes)
            counts[2 * bool(pair[0]["success"]) + bool(pair[1]["success"])] += 1

        if rules.until_decided and rules.give_up:
            test.hopeless(rules.give_up)

        state, pairs = test.state(), sum(counts)
        history.append((pairs, round(state.evidence, 4)))
        sequential = SequentialComparison(state.decision, state, pairs, tuple(counts), tuple(history))
        watch(Standing(state, pairs, len(starts), sequential.wins))

        yield sequential
        if rules.until_decided and state.decision is not None:
            return


def say(sequential: SequentialComparison, rules: Rules, test: Sequential) -> str:
    """The verdict in words: what may be concluded, and what not."""
    n, name = sequential.pairs, NAMES[test.name]
    how = f"{rules.on}, {name}, alpha {test.alpha:g} two-sided"
    if not rules.until_decided and n == test.most:
        return f"All {n} planned pairs were run, whatever they showed; the comparison below is for that fixed number."

    if rules.until_decided and sequential.decision in (A, B):
        better, worse = (A, B) if sequential.decision == A else (B, A)
        return (
            f"Decided after {n} of at most {test.most} pairs: {better} is better than {worse} ({how}). "
            "This holds although the pairs were looked at as they came in."
        )

    nothing = "No difference was shown; that is no evidence of being equal."
    if sequential.decision == HOPELESS:
        share = f"{100 * rules.give_up:g} %"
        return (
            f"Given up after {n} of at most {test.most} pairs ({how}): if they go on like this, the chance of a "
            f"verdict within the budget is below {share}. {nothing}"
        )

    if sequential.decision == UNDECIDED:
        return f"Not decided within {test.most} pairs ({how}). {nothing}"
    return f"Stopped after {n} of at most {test.most} pairs without a verdict ({how}). {nothing}"


def meter(state: State) -> str:
    """`A [      ======|                 ] B`: how far the evidence reaches to either side; full is a verdict."""
    filled = round(abs(state.evidence) * METER)
    left = ("=" * filled if state.evidence < 0 else "").rjust(METER)
    right = ("=" * filled if state.evidence > 0 else "").ljust(METER)
    return f"A [{left}|{right}] B"
