"""How the sequential tests behave where the truth is known.

    understudy study sequential_tests --out DIR

Simulates pairs of outcomes, lets every test run on them, and writes one small JSON study each on false positives, power
and stopping time, the decision table, permutation tests and giving up. Knows nothing of policies or worlds; the
published figures beside ours were measured by others with the authors' package (300 runs each).
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.command import words_of
from ..ledger.study import Study
from ..statistics.barnard import POINTS, BarnardTest, decision_table, operating, synthesise, table_risk
from ..statistics.betting import BettingTest
from ..statistics.intervals import Interval, wilson
from ..statistics.permutation import PermutationTest
from ..statistics.power import needed
from ..statistics.sequential import Sequential

MODULE = "understudy study sequential_tests"
CORRELATIONS = (-0.5, 0.0, 0.5, 0.9)
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
NARROW = (0.35, 0.5, 0.65)  # rates at which two outcomes can correlate by -0.5
CASES = ((0.5, 0.7), (0.5, 0.8), (0.1, 0.3), (0.7, 0.9))
STEP = {(0.5, 0.7): "98.7 %, 75", (0.5, 0.8): "100 %, 39", (0.1, 0.3): "100 %, 55", (0.7, 0.9): "100 %, 56"}
SCORES = {"beta(2, 2)": (2.0, 2.0), "beta(0.5, 0.5)": (0.5, 0.5), "beta(1, 6)": (1.0, 6.0)}
PEEK = (10, 100)  # the z-test is looked at after each of these pairs


@dataclass(frozen=True, kw_only=True)
class SequentialStudy:
    """Simulate the sequential tests and write what they do."""

    out: Path  # folder of the JSON files
    runs: int = 2000  # imagined comparisons of each kind
    pairs: int = 200  # N, the budget
    seed: int = 0  # of what is drawn
    parts: tuple[str, ...] = ("false-positives", "power", "table", "permutation", "giving-up")  # which tables to make
    doubt_runs: int = 200  # runs of the study on giving up, which imagines futures at every look
    cases: tuple[str, ...] = ()  # for power: RATE_A/RATE_B or RATE_A/RATE_B/CORRELATION, in place of the published ones

    def run(self) -> None:
        studies = {
            "false-positives": false_positives,
            "power": power,
            "table": tables,
            "permutation": permutations,
            "giving-up": giving_up,
        }
        for part in self.parts:
            study = studies[part](self)
            study.write(self.out / f"sequential-{part}{'-cases' if self.cases else ''}.json")
            print(f"{study.title}\n\n{study.markdown()}\n", flush=True)

    def command(self, part: str) -> str:
        """What a reader runs for one part."""
        words = words_of(self, without=("out", "parts", "cases"))
        words += ["--cases", f"[{', '.join(self.cases)}]"] if self.cases else []
        return f"{MODULE} --out DIR --parts {shlex.join([part, *words])}"


# -- outcomes


def success_pairs(rng, runs: int, pairs: int, p_a: float, p_b: float, correlation: float = 0.0):
    """(a, b), (R, N) bool each: success rates p_a and p_b, correlated within a pair.

    Raises:
        ValueError: two such rates cannot correlate by that much.
    """
    both = p_a * p_b + correlation * np.sqrt(p_a * (1 - p_a) * p_b * (1 - p_b))
    chances = np.array([both, p_a - both, p_b - both, 1 - p_a - p_b + both])
    if chances.min() < -1e-12:
        raise ValueError(f"rates {p_a} and {p_b} cannot correlate by {correlation}")
    drawn = np.searchsorted(np.cumsum(chances.clip(0)), rng.random((runs, pairs)), "right")
    return drawn <= 1, (drawn == 0) | (drawn == 2)


def score_pairs(rng, runs: int, pairs: int, shape: tuple[float, float], correlation: float = 0.0):
    """(a, b), (R, N) beta-distributed scores, coupled by a Gaussian copula of this correlation."""
    from scipy.stats import beta, norm

    first, second = rng.standard_normal((2, runs, pairs))
    second = correlation * first + np.sqrt(1 - correlation**2) * second
    return beta.ppf(norm.cdf(first), *shape), beta.ppf(norm.cdf(second), *shape)


def follow(test: Sequential, a: np.ndarray, b: np.ndarray) -> Sequential:
    """Let a test of R runs take all pairs (R, N)."""
    for first, second in zip(a.T, b.T, strict=True):
        test.update(first, second)
    return test


def peeking_z(a: np.ndarray, b: np.ndarray, paired: bool, alpha: float = 0.05) -> np.ndarray:
    """(R,) bool: a z-test of success read after every pair from `PEEK` was once significant.

    Args:
        paired: McNemar's z on the discordant pairs, else the pooled two-sample test.
    """
    from scipy.stats import norm

    n = np.arange(1, a.shape[1] + 1)
    x, y = np.cumsum(a, 1), np.cumsum(b, 1)
    pooled = (x + y) / (2 * n)
    variance = np.cumsum(a != b, 1) if paired else 2 * n * pooled * (1 - pooled)
    significant = np.abs(y - x) > norm.isf(alpha / 2) * np.sqrt(np.maximum(variance, 1e-12))
    return significant[:, PEEK[0] - 1 : PEEK[1]].any(1)


# -- studies


def false_positives(config: SequentialStudy) -> Study:
    """Two equal policies: how often a test sees a difference."""
    rows = [*_success_rows(config), *_score_rows(config)]
    return Study(
        title="False positives of the sequential tests between equal policies, alpha .05 two-sided",
        command=config.command("false-positives"),
        columns=("test", "outcomes", "correlation", "false positives", "<= 6.0 %", "mean pairs"),
        rows=rows,
        notes=(
            f"{config.runs:,} runs a row, at most {config.pairs} pairs, seed {config.seed}; Wilson 95 % intervals",
            "6.0 % is the upper end of the 95 % binomial band of a true 5 % at 2,000 runs",
            "The table is offered for independent pairs only and shown there",
            f"The z-tests are read after every pair from {PEEK[0]} to {PEEK[1]} and stopped at p < .05",
            "A correlation of -0.5 exists only for rates between 1/3 and 2/3",
        ),
    )


def _success_rows(config: SequentialStudy) -> Iterator[tuple]:
    rng = np.random.default_rng((config.seed, 1))
    for correlation in CORRELATIONS:
        for p in NARROW if correlation < 0 else RATES:
            a, b = success_pairs(rng, config.runs, config.pairs, p, p, correlation)
            tests: list[Sequential] = [BettingTest(config.pairs, runs=config.runs)]
            if correlation == 0:
                tests.append(BarnardTest(config.pairs, runs=config.runs, rng=rng))
            for test in tests:
                follow(test, a, b)
                yield _row(test.name, f"success {p}", correlation, test.side != 0, float(test.when.mean()))
            for name, paired in (("two-sample z-test, peeking", False), ("McNemar z-test, peeking", True)):
                yield _row(name, f"success {p}", correlation, peeking_z(a, b, paired), None)


def _score_rows(config: SequentialStudy) -> Iterator[tuple]:
    rng = np.random.default_rng((config.seed, 2))
    for correlation in CORRELATIONS:
        for name, shape in SCORES.items():
            test = BettingTest(config.pairs, runs=config.runs)
            follow(test, *score_pairs(rng, config.runs, config.pairs, shape, correlation))
            yield _row(test.name, f"progress {name}", correlation, test.side != 0, float(test.when.mean()))


def _row(test: str, outcomes: str, correlation: float, called: np.ndarray, pairs: float | None) -> tuple:
    share = _share(called)
    return test, outcomes, correlation, share, bool(share.estimate <= 0.06), pairs


def power(config: SequentialStudy) -> Study:
    """Two different policies: how often and how soon the better one is named."""
    rng = np.random.default_rng((config.seed, 3))
    plans = _plans(config.cases)
    rows = []

    for p_a, p_b, rho, kind, alpha in plans:
        both = np.clip(p_a * p_b + rho * np.sqrt(p_a * (1 - p_a) * p_b * (1 - p_b)), 0, min(p_a, p_b))
        feasible = (both - p_a * p_b) / np.sqrt(p_a * (1 - p_a) * p_b * (1 - p_b))
        a, b = success_pairs(rng, config.runs, config.pairs, p_a, p_b, feasible)

        test = (
            BettingTest(config.pairs, alpha, config.runs)
            if kind == "betting"
            else BarnardTest(config.pairs, alpha, config.runs, rng=rng)
        )
        rows.append(_power_row(follow(test, a, b), p_a, p_b, float(feasible), config.pairs))

    return Study(
        title=f"Power and stopping time of the sequential tests, at most {config.pairs} pairs",
        command=config.command("power"),
        columns=(
            *("rates", "correlation", "test", "alpha", "better one named", "worse one named", "mean pairs"),
            *("exact power, pairs", "published STEP", "fixed pairs", "episodes saved"),
        ),
        rows=rows,
        notes=(
            f"{config.runs:,} runs a row, seed {config.seed}; alpha is two-sided: .1 is .05 a side, as in the figures "
            "published for STEP (decided, mean pairs; 300 runs)",
            "Fixed pairs: what a test of the same alpha and power needs when n is fixed beforehand, the pooled "
            "two-sample score test beside the table, the exact McNemar test beside betting; powers above .999 as .999",
            "Mean pairs counts runs without a verdict with the whole budget",
        ),
    )


def _plans(cases: tuple[str, ...]) -> list[tuple]:
    """(rate A, rate B, correlation, test, alpha) of the rows on power."""
    if cases:
        return [(*([*map(float, case.split("/")), 0.0][:3]), "betting", 0.05) for case in cases]
    plans = [(p_a, p_b, 0.0, "table", alpha) for p_a, p_b in CASES for alpha in (0.1, 0.05)]
    return plans + [(p_a, p_b, rho, "betting", 0.05) for p_a, p_b in CASES for rho in (0.0, 0.5)]


def _power_row(test: Sequential, p_a: float, p_b: float, correlation: float, pairs: int) -> tuple:
    share, mean = _share(test.side > 0), float(test.when.mean())
    exact = None
    if isinstance(test, BarnardTest):
        _, called, expected = operating(decision_table(pairs, test.alpha / 2), p_a, p_b)
        exact = f"{100 * called:.1f} %, {expected:.1f}"
    aim = min(max(share.estimate, 0.01), 0.999)
    fixed = needed(p_a, p_b, paired=not test.independent, correlation=correlation, power=aim, alpha=test.alpha)
    return (
        *(f"{p_a}, {p_b}", round(correlation, 2), test.name, test.alpha, share, float((test.side < 0).mean()), mean),
        *(exact, STEP.get((p_a, p_b)) if test.alpha == 0.1 else None, fixed, f"{100 * (1 - mean / fixed):.0f} %"),
    )


def tables(config: SequentialStudy) -> Study:
    """Synthesis: time, and the accumulated risk on a grid ten times as fine as the control points."""
    rows = []
    for most, alpha in ((50, 0.025), (100, 0.025), (200, 0.025), (200, 0.05)):
        begun = time.process_time()
        table = synthesise(most, alpha)
        seconds = time.process_time() - begun

        # Exact risks, on coarse and fine grids.
        control = np.sin(np.linspace(np.arcsin(np.sqrt(0.25 / most)), np.pi / 4, POINTS)) ** 2
        fine = np.sin(np.linspace(1e-4, np.pi / 2 - 1e-4, 20 * POINTS)) ** 2
        unequal = max(operating(table, p + gap, p, both=False)[1] for p in (0.1, 0.5, 0.8) for gap in (0.01, 0.1))
        risks = (float(table_risk(table, control).max()), float(table_risk(table, fine).max()), unequal)
        rows.append((most, alpha, seconds, *risks, max(risks) <= alpha))

    return Study(
        title="The decision table: synthesis and accumulated risk of one side",
        command=config.command("table"),
        columns=(
            *("pairs", "alpha, one side", "CPU seconds", "risk at control points", "risk on 10x finer grid"),
            *("risk where A is better", "<= alpha"),
        ),
        rows=rows,
        notes=(
            f"Risks are exact, largest over the points; {POINTS} control points in (0, 1/2] stand for 0..1",
            f"The finer grid has {20 * POINTS} points over all of (0, 1)",
            "Where A is better: largest risk of calling B over rates (p + gap, p), p .1, .5, .8, gap .01 and .1",
        ),
    )


def permutations(config: SequentialStudy) -> Study:
    """Scores of training seeds, groups of five, at most five looks."""
    rows = [_seed_row(config, *plan) for plan in _SEED_PLANS]

    return Study(
        title="Group-sequential permutation tests over training seeds, alpha .05, five looks at five seeds",
        command=config.command("permutation"),
        columns=("scores", "agents", "any false statement", "better one named", "mean seeds an agent"),
        rows=rows,
        notes=(
            f"{config.runs:,} runs a row for two agents, {config.runs // 5} for four, seed {config.seed}; Wilson 95 %",
            "With four agents two pairs are equal; a false statement is any difference inside one of them",
        ),
    )


_SEED_PLANS = (  # what, shift of each agent
    ("normal", (0.0, 0.0)),
    ("normal", (0.0, 1.0)),
    ("rate of 50 episodes", (0.0, 0.0)),
    ("rate of 50 episodes", (0.0, 0.1)),
    ("normal", (0.0, 0.0, 1.5, 1.5)),
)


def _seed_row(config: SequentialStudy, what: str, shifts: tuple[float, ...]) -> tuple:
    rng = np.random.default_rng((config.seed, 4, len(shifts), int(10 * max(shifts)), len(what)))
    runs = config.runs if len(shifts) == 2 else config.runs // 5
    false, named, seeds = np.zeros(runs, bool), np.zeros(runs, bool), np.zeros(runs)
    for run in range(runs):
        test = PermutationTest(range(len(shifts)), rng=rng, draws=999)
        while test.decision is None:
            test.update(*_seed_scores(rng, what, shifts))
        told_apart = test.better()
        false[run] = any(shifts[better] <= shifts[worse] for better, worse in told_apart)
        named[run] = len(told_apart) == sum(higher > lower for higher in shifts for lower in shifts) > 0
        seeds[run] = test.n
    power = _share(named) if len(set(shifts)) > 1 else None
    return f"{what}, shifted by {', '.join(map(str, shifts))}", len(shifts), _share(false), power, float(seeds.mean())


def _seed_scores(rng, what: str, shifts: tuple[float, ...]) -> np.ndarray:
    if what == "normal":
        return rng.normal(shifts, 1.0)
    own = np.clip(rng.normal(0.5 + np.array(shifts), 0.1), 0, 1)  # seeds differ, and so do their episodes
    return rng.binomial(50, own) / 50


def giving_up(config: SequentialStudy) -> Study:
    """What the rule of giving up saves where there is nothing to find, and what it costs where there is."""
    rows = []
    for p_a, p_b in ((0.5, 0.5), (0.5, 0.6), (0.5, 0.7)):
        rng = np.random.default_rng((config.seed, 5, int(100 * p_b)))
        a, b = success_pairs(rng, config.doubt_runs, config.pairs, p_a, p_b)
        whole = follow(BettingTest(config.pairs, runs=config.doubt_runs), a, b)
        ends = [_until_hopeless(BettingTest(config.pairs), *pair) for pair in zip(a, b, strict=True)]

        called = np.array([end.side[0] for end in ends])
        gave_up = float(np.mean([end.gave_up for end in ends]))
        means = (float(whole.when.mean()), float(np.mean([end.n for end in ends])))
        rows.append((f"{p_a}, {p_b}", _share(whole.side != 0), _share(called != 0), gave_up, *means))

    return Study(
        title="Giving up when fewer than 5 % of the imagined futures are decided (betting test)",
        command=config.command("giving-up"),
        columns=(
            "rates",
            "decided, to the end",
            "decided, giving up",
            "gave up",
            "pairs, to the end",
            "pairs, giving up",
        ),
        rows=rows,
        notes=(f"{config.doubt_runs} runs a row, at most {config.pairs} pairs, a look every 8, seed {config.seed}",),
    )


def _until_hopeless(test: Sequential, a: np.ndarray, b: np.ndarray) -> Sequential:
    for first, second in zip(a, b, strict=True):
        if test.update(first, second).decision or (test.n % 8 == 0 and test.hopeless()):
            break
    return test


def _share(called: np.ndarray) -> Interval:
    return wilson(int(called.sum()), len(called))
