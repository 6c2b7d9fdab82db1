"""How right verdicts of success are against what is known: accuracy, and balanced accuracy, with 95 % intervals.

Who always says "failure" is right as often as policies fail; balanced accuracy, the mean of the shares of successes and
of failures that are told, is one half for anybody who does not look. Verdicts of one group (films of one start, or of
one episode) are no independent evidence: intervals are Wilson's for as many verdicts as they are worth (design effect,
Dean and Pagano 2015), and those of a mean of two shares are put together by their distances (MOVER, Zou and Donner
2008).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from .intervals import Interval, wilson

NOTHING = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Right:
    """How right a judge is of films whose outcome is known."""

    films: int  # whose outcome is known
    none: int  # of them, those of which the judge gave no verdict; they count nowhere below
    true_positive: int
    false_positive: int  # said to be a success, and was none
    false_negative: int
    true_negative: int
    accuracy: Interval  # NaN where there is no verdict
    balanced: Interval  # NaN where successes, or failures, are missing

    @property
    def n(self) -> int:
        """Verdicts."""
        return self.films - self.none

    @property
    def constant(self) -> float:
        """Accuracy of always saying the more frequent of the two; NaN where there is no verdict."""
        won = self.true_positive + self.false_negative
        return max(won, self.n - won) / self.n if self.n else math.nan


def right(known: Sequence[bool], said: Sequence[bool | None], groups: Sequence[Hashable]) -> Right:
    """Verdicts against what is known, film by film.

    Args:
        known: (n,) whether each film is a success.
        said: (n,) verdicts; None where there is none.
        groups: (n,) what tells films that are independent apart.
    """
    rows = [(k, s, g) for k, s, g in zip(known, said, groups, strict=True) if s is not None]
    truth, verdict = np.array([row[0] for row in rows], bool), np.array([row[1] for row in rows], bool)
    number = {group: place for place, group in enumerate(dict.fromkeys(row[2] for row in rows))}
    member = np.array([number[row[2]] for row in rows], int)
    same = truth == verdict
    return Right(
        films=len(known),
        none=len(known) - len(rows),
        true_positive=int((truth & verdict).sum()),
        false_positive=int((~truth & verdict).sum()),
        false_negative=int((truth & ~verdict).sum()),
        true_negative=int((~truth & ~verdict).sum()),
        accuracy=share(same, member),
        balanced=_mean_of(share(same[truth], member[truth]), share(same[~truth], member[~truth])),
    )


def share(values: np.ndarray, groups: np.ndarray) -> Interval:
    """Share of True among values (n,), 95 %, where those of one group (n,) may be alike; NaN of none."""
    n = len(values)
    if not n:
        return NOTHING
    numbers = np.unique(groups, return_inverse=True)[1]
    sizes, sums = np.bincount(numbers).astype(float), np.bincount(numbers, values.astype(float))
    count, p = len(sizes), float(values.mean())
    if count == n:
        return wilson(int(values.sum()), n)
    if 0 < p < 1 and count > 1:
        between = count / (count - 1) * float(((sums - p * sizes) ** 2).sum()) / n**2
        effect = max(1.0, between / (p * (1 - p) / n))
    else:
        effect = n / count  # nothing tells how alike they are, so each group counts as one
    effect = min(effect, float(n))
    low, _, high = wilson(values.sum() / effect, n / effect)
    return Interval(low, p, high)


def _mean_of(first: Interval, second: Interval) -> Interval:
    if math.isnan(first.estimate) or math.isnan(second.estimate):
        return NOTHING
    middle = (first.estimate + second.estimate) / 2
    below = math.hypot(first.estimate - first.low, second.estimate - second.low) / 2
    above = math.hypot(first.high - first.estimate, second.high - second.estimate) / 2
    return Interval(max(0.0, middle - below), middle, min(1.0, middle + above))
