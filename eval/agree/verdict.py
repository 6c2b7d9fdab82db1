"""What may be concluded about a proxy world from records of the same policies in it and in the truth.

Computes; prints nothing. Agreement is established if a permutation test finds the proxy's order better than chance
(p <= .05), the policies differ in the truth and, with six of them or more, the lower end of the interval of rho lies
above 0; else no ranking is given. Letters come from exact McNemar tests (of progress: paired t tests) with Holm's
correction. Sources as in `agreement.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..ledger.identity import Tested
from ..statistics.agreement import (
    FEW,
    Bound,
    OutcomeTables,
    agreement_intervals,
    noise_ceiling,
    pearson,
    permutation_bound,
)
from ..statistics.calibration import left_out
from ..statistics.intervals import Interval, mean_interval, wilson
from ..statistics.multiple import differing, letters
from ..statistics.paired import mcnemar

ALPHA = 0.05
_RATES = {"success": "success rate", "progress": "progress"}
LOW_CEILING = 0.5  # r of a perfect proxy below which the episodes are too few to say much
MEASURED = {"success": 0, "progress": 1}  # what is compared -> its place among an episode's outcomes


@dataclass(frozen=True)
class PolicyPoint:
    """One policy in both worlds."""

    name: str
    run: str
    n_truth: int
    n_proxy: int
    truth: Interval
    proxy: Interval
    errors: int  # episodes of both worlds that ended in an error and count as failures


@dataclass(frozen=True)
class Judged:
    """How often the two worlds say the same of an initial condition, over all policies that acted from it in both."""

    episodes: int
    starts: int
    accuracy: Interval  # same outcome; t interval over initial conditions
    chance: float  # agreement of unrelated outcomes with these success rates
    kappa: float  # (accuracy - chance) / (1 - chance); NaN where chance is 1
    true_positive: int
    false_positive: int  # success in the proxy alone
    false_negative: int  # success in the truth alone
    true_negative: int


@dataclass(frozen=True)
class Verdict:
    """Whether agreement is established, and what may be said."""

    established: bool
    words: tuple[str, ...]  # sentences, the first is the verdict
    warnings: tuple[str, ...]
    ranking: tuple[tuple[str, str], ...]  # (policy, letters), best in the proxy first; empty where not established


@dataclass(frozen=True)
class Agreement:
    """Everything about one proxy and one truth."""

    by: str  # success | progress
    points: tuple[PolicyPoint, ...]  # best in the truth first
    measures: Mapping[str, Interval]  # r, rho, tau, mmrv
    other: Mapping[str, Interval]  # the same of the other measure (progress, or success)
    bound: Bound
    ceiling: Interval  # r that a perfect proxy would show
    judged: Judged | None  # None where the worlds share no initial condition
    bias: Interval  # proxy minus truth, mean over policies
    lined: tuple[float, float]  # mean error of a policy's rate, as in the proxy and by a line of other trainings; NaN
    again: Judged | None = None  # a second true run in place of the proxy; None where there is none
    again_r: float = math.nan  # Pearson r of the two true runs
    verdict: Verdict | None = None  # None only while it is being made


def agree(
    pairs: Sequence[tuple[Tested, Tested]],
    by: str,
    rng: np.random.Generator,
    draws: int = 2000,
    again: Sequence[tuple[Tested, Tested]] = (),
) -> Agreement:
    """Judge a proxy by policies tested in the truth and in it.

    Args:
        pairs: (truth, proxy) of each policy, see `identity.matched`.
        by: success or progress, which of the two the verdict is about.
        again: (truth, truth once more) of policies, with other noise: what a perfect proxy would agree.

    Raises:
        ValueError: fewer than two policies, or an unknown measure.
    """
    if by not in MEASURED:
        raise ValueError(f"cannot compare by '{by}'. Known: {', '.join(MEASURED)}")
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} policy in both worlds: agreement about ranks needs at least two, better six")

    pairs = sorted(pairs, key=lambda pair: -_mean(pair[0], by))
    runs = [truth.identity.run for truth, _ in pairs]
    cells = _cells(pairs, by)
    truth, proxy = cells.rates()

    measures = agreement_intervals(cells, rng, runs, draws=draws)
    other = agreement_intervals(_cells(pairs, next(name for name in MEASURED if name != by)), rng, runs, draws=draws)
    bound = permutation_bound(truth=truth, proxy=proxy, rng=rng)

    errors = [[_error(tested, by) for tested in pair] for pair in pairs]
    ceiling = noise_ceiling(
        truth=truth, error_truth=[here for here, _ in errors], error_proxy=[there for _, there in errors], rng=rng
    )

    points = tuple(_point(*pair, by) for pair in pairs)
    agreement = Agreement(
        by, points, measures, other, bound, ceiling, judge(pairs), _bias(truth, proxy), _lined(truth, proxy, runs),
        judge(again) if again else None, _r(again, by),
    )  # fmt: skip
    return replace(agreement, verdict=decide(agreement, pairs))


def decide(agreement: Agreement, pairs: Sequence[tuple[Tested, Tested]]) -> Verdict:
    """The verdict on what was found, in words."""
    k, gap, warnings = len(agreement.points), agreement.measures["mmrv"], (*_warnings(agreement.points),)
    if doubts := list(_doubts(agreement)):
        refusal = f"Agreement is not established for these {k} policies, so no ranking is given."
        return Verdict(False, (refusal, *doubts, *_advice(agreement)), warnings, ())
    at_most = "" if math.isnan(gap.high) else f"; 95 %: up to {gap.high:.3f}"
    words = (
        f"The proxy orders these {k} policies as the truth does, better than chance (p = {agreement.bound.p:.2g}).",
        f"Mis-ranked pairs differ by at most {gap.estimate:.3f} in true {_RATES[agreement.by]}, averaged over the "
        f"policies (MMRV{at_most}).",
    )
    return Verdict(True, words, (*warnings, *_advice(agreement)), tuple(_ranking(pairs, agreement)))


def judge(pairs: Sequence[tuple[Tested, Tested]]) -> Judged | None:
    """Agreement of single outcomes from the initial conditions that both worlds share."""
    shared = [
        (key, truth.episodes[key][0], proxy.episodes[key][0])
        for truth, proxy in pairs
        for key in truth.episodes
        if key in proxy.episodes
    ]

    if not shared:
        return None

    truth, proxy = (np.array([row[i] for row in shared]) > 0.5 for i in (1, 2))
    same, by_start = truth == proxy, {}
    for (key, _, _), equal in zip(shared, same.tolist(), strict=True):
        by_start.setdefault(key, []).append(equal)

    interval = mean_interval([np.mean(equal) for equal in by_start.values()])
    chance = float(truth.mean() * proxy.mean() + (1 - truth.mean()) * (1 - proxy.mean()))

    return Judged(
        episodes=len(shared),
        starts=len(by_start),
        accuracy=Interval(interval.low, float(same.mean()), interval.high),
        chance=chance,
        kappa=float((same.mean() - chance) / (1 - chance)) if chance < 1 else math.nan,
        true_positive=int((truth & proxy).sum()),
        false_positive=int((~truth & proxy).sum()),
        false_negative=int((truth & ~proxy).sum()),
        true_negative=int((~truth & ~proxy).sum()),
    )


def _bias(truth: np.ndarray, proxy: np.ndarray) -> Interval:
    low, middle, high = mean_interval(((proxy - truth + 1) / 2).tolist())
    return Interval(2 * low - 1, float((proxy - truth).mean()), 2 * high - 1)


def _lined(truth: np.ndarray, proxy: np.ndarray, runs: Sequence[str]) -> tuple[float, float]:
    said = left_out(proxy[:, None], truth, runs)
    after = math.nan if np.isnan(said).any() else float(np.abs(said - truth).mean())
    return float(np.abs(proxy - truth).mean()), after


def _r(again: Sequence[tuple[Tested, Tested]], by: str) -> float:
    if len(again) < 3:
        return math.nan
    return float(pearson(truth=[_mean(one, by) for one, _ in again], proxy=[_mean(two, by) for _, two in again]))


def _doubts(agreement: Agreement) -> Iterator[str]:
    """Reasons why agreement is not established."""
    rho, bound, k = agreement.measures["rho"], agreement.bound, len(agreement.points)
    if bound.least > ALPHA:
        yield f"{k} policies cannot show it: even a perfect order has p = {bound.least:.2g} by chance; take 4 or more."
    elif math.isnan(rho.estimate):
        yield "One world gives all policies the same rate."
    elif bound.p > ALPHA:
        yield f"An order at least as good comes about by chance with p = {bound.p:.2g} (needed: {ALPHA:g})."
    if k > FEW and not math.isnan(rho.estimate) and not rho.low > 0:
        low = "has no lower end" if math.isnan(rho.low) else f"begins at {rho.low:.3f} and does not exclude 0"
        yield f"The 95 % interval of rho {low}."
    if math.isnan(agreement.ceiling.estimate):
        yield "In the truth these policies differ no more than equal ones would by chance."


def _advice(found: Agreement) -> Iterator[str]:
    """What would help."""
    ceiling = found.ceiling
    if math.isnan(ceiling.estimate):
        yield "Test more episodes in the truth, or policies further apart."
    elif ceiling.low < LOW_CEILING:
        yield f"Even a perfect proxy would show r {ceiling.low:.2f} to {ceiling.high:.2f} here: test more episodes."


def _warnings(points: Sequence[PolicyPoint]) -> Iterator[str]:
    runs, k = len({point.run for point in points}), len(points)
    if runs < k:
        only = "one training run" if runs == 1 else f"{runs} training runs"
        yield f"The {k} policies are checkpoints of {only}: they rise and fall together, none is independent."

    if k <= FEW:
        yield (
            f"{k} policies are too few for intervals. What they can show is bounded by the number of their orders: "
            f"p is never below {1 / math.factorial(k):.2g}."
        )
    elif runs <= FEW:
        count = "1 training run" if runs == 1 else f"{runs} training runs"
        yield (
            f"Policies of {count} are too few to resample policies: the intervals resample initial conditions "
            f"only and hold for these policies. How the proxy ranks others is not known; "
            f"{FEW + 1} or more training runs would show it."
        )

    if errors := sum(point.errors for point in points):
        yield f"{errors} episodes ended in an error and count as failures."
    if len({(point.n_truth, point.n_proxy) for point in points}) > 1:
        yield "The policies were tested with different numbers of episodes."


def _ranking(pairs: Sequence[tuple[Tested, Tested]], agreement: Agreement) -> list[tuple[str, str]]:
    """Best in the proxy first; who shares a letter is not told apart there."""
    points = agreement.points
    combinations = list(itertools.combinations(range(len(points)), 2))
    p = [_apart(pairs[first][1], pairs[second][1], agreement.by) for first, second in combinations]
    rates = [point.proxy.estimate for point in points]
    marks = letters(rates, differing(len(points), combinations, p, ALPHA))
    return [(points[i].name, marks[i]) for i in np.argsort(-np.array(rates), kind="stable").tolist()]


def _apart(first: Tested, second: Tested, by: str) -> float:
    """p-value that two policies do equally well in the proxy, paired where both have initial conditions in common."""
    from scipy.stats import fisher_exact, ttest_ind, ttest_rel

    shared = sorted(set(first.episodes) & set(second.episodes))
    a, b = (_values(tested, by, shared or None) for tested in (first, second))
    if by == "success":
        if shared:
            return mcnemar(int((a > b).sum()), int((b > a).sum()))
        return float(fisher_exact([[int(x.sum()), int(len(x) - x.sum())] for x in (a, b)]).pvalue)
    if np.array_equal(a, b) or min(len(a), len(b)) < 2:
        return 1.0
    p = float((ttest_rel(a, b) if shared else ttest_ind(a, b, equal_var=False)).pvalue)
    return 1.0 if math.isnan(p) else p


def _cells(pairs: Sequence[tuple[Tested, Tested]], by: str) -> OutcomeTables:
    place = MEASURED[by]
    starts = sorted(set().union(*(tested.episodes for pair in pairs for tested in pair)))
    row = {key: i for i, key in enumerate(starts)}
    tables = np.full((2, len(starts), len(pairs)), np.nan)
    for column, pair in enumerate(pairs):
        for world, tested in enumerate(pair):
            for key, outcome in tested.episodes.items():
                tables[world, row[key], column] = outcome[place]
    return OutcomeTables(*tables)


def _point(truth: Tested, proxy: Tested, by: str) -> PolicyPoint:
    here, there = (_interval(tested, by) for tested in (truth, proxy))
    identity, errors = truth.identity, truth.errors + proxy.errors
    return PolicyPoint(identity.name, identity.run, len(truth.episodes), len(proxy.episodes), here, there, errors)


def _values(tested: Tested, by: str, starts: Sequence[tuple[str, int]] | None = None) -> np.ndarray:
    return np.array([tested.episodes[start][MEASURED[by]] for start in starts or tested.episodes])


def _mean(tested: Tested, by: str) -> float:
    return float(_values(tested, by).mean())


def _interval(tested: Tested, by: str) -> Interval:
    values = _values(tested, by)
    return wilson(int(values.sum()), len(values)) if by == "success" else mean_interval(values)


def _error(tested: Tested, by: str) -> float:
    """Standard error of a rate or mean; of a rate as if one more success and one more failure had been seen."""
    values, n = _values(tested, by), len(tested.episodes)
    if by == "success":
        likely = (values.sum() + 1) / (n + 2)
        return float(np.sqrt(likely * (1 - likely) / n))
    return float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.5
