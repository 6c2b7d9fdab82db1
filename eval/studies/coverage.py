"""What the intervals and tests deliver where the truth is known.

    understudy study coverage --out DIR

Writes one small JSON study each on rates, means, pairs, training seeds and agreement of worlds. Rates, Tango's interval
and McNemar's size are computed exactly, over all outcomes that can happen; the rest is simulated. Knows nothing of
records. Nominal is 95 % coverage and 5 % false positives, two-sided, for a number of episodes fixed beforehand.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.command import words_of
from ..agree.verdict import ALPHA, agree
from ..ledger.identity import Identity, Tested
from ..ledger.study import Study
from ..statistics.intervals import Interval, bootstrap_interval, exact, mean_interval, wilson
from ..statistics.paired import mcnemar, newcombe, paired_bootstrap, tango
from ..statistics.power import discordance
from ..statistics.seeds import over_seeds, t_interval

MODULE = "understudy study coverage"
PARTS = ("rates", "means", "pairs", "seeds", "agreement")
SCORES: dict[str, Callable] = {  # progress of episodes in 0..1 with its mean
    "beta(2, 2)": lambda rng, size: rng.beta(2, 2, size),
    "beta(0.5, 0.5)": lambda rng, size: rng.beta(0.5, 0.5, size),
    "1 or beta(1, 3)": lambda rng, size: np.where(rng.random(size) < 1 / 3, 1.0, rng.beta(1, 3, size)),
}
HALF = 0.5  # mean of each of them
PAIRS = ((0.5, 0.5), (0.5, 0.7), (0.1, 0.3), (0.9, 0.9), (0.95, 0.95))
SEEDS = ((0.5, 0.0), (0.5, 0.1), (0.5, 0.2), (0.8, 0.1), (0.95, 0.04))  # mean and spread of the rates of seeds


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Measure what the intervals and fixed-n tests deliver and write it."""

    out: Path  # folder of the JSON files
    runs: int = 2000  # imagined comparisons of each kind
    seed: int = 0  # of what is drawn
    worlds: int = 300  # runs of the part on agreement, each a whole `understudy agree`
    parts: tuple[str, ...] = PARTS  # which tables to make

    def run(self) -> None:
        studies = {"rates": rates, "means": means, "pairs": pairs, "seeds": seeds, "agreement": agreement}
        for part in self.parts:
            study = studies[part](self)
            study.write(self.out / f"coverage-{part}.json")
            print(f"{study.title}\n\n{study.markdown()}\n", flush=True)

    def command(self, part: str) -> str:
        """What a reader runs for one part."""
        words = words_of(self, without=("out", "parts"))
        return f"{MODULE} --out DIR --parts {shlex.join([part, *words])}"


def rates(config: Coverage) -> Study:
    """Wilson and Clopper-Pearson, exactly."""
    ns = (*range(20, 101), 150, 200, 300, 500)
    rows = []
    for name, interval, counts, low in (
        ("Wilson", wilson, ns, 0.05),
        ("Wilson", wilson, ns, 0.001),
        ("exact", exact, (*range(1, 20), *ns), 0.0001),
    ):
        coverages = [(*rate_coverage(interval, n, low), n) for n in counts]
        mean = float(np.mean([average for average, _, _, _ in coverages]))
        _, worst, at, n = min(coverages, key=lambda coverage: coverage[1])
        rows.append((name, f"{counts[0]}-{counts[-1]}", f"{low:g}-{1 - low:g}", mean, worst, n, at))

    return Study(
        title="Coverage of intervals of a success rate, exact",
        command=config.command("rates"),
        columns=("interval", "n", "rates", "mean coverage", "least coverage", "at n", "at rate"),
        rows=rows,
        notes=("Mean over 181 rates; the least over all rates, since coverage jumps at the ends of intervals only.",),
    )


def rate_coverage(interval: Callable, n: int, low: float) -> tuple[float, float, float]:
    """Mean coverage over a grid of rates low..1-low, the least over all of them, and the rate where that is."""
    from scipy.stats import binom

    counts = np.arange(n + 1)
    ends = np.array([interval(int(count), n)[::2] for count in counts])
    grid = np.linspace(low, 1 - low, 181)
    beside = np.concatenate([ends.ravel() - 1e-9, ends.ravel() + 1e-9])
    at = np.concatenate([grid, beside[(beside >= low) & (beside <= 1 - low)]])[:, None]
    inside = (ends[:, 0] <= at) & (at <= ends[:, 1])
    covered = (binom.pmf(counts, n, at) * inside).sum(1)
    worst = int(covered.argmin())
    return float(covered[: len(grid)].mean()), float(covered[worst]), float(at[worst, 0])


def means(config: Coverage) -> Study:
    """Student's t and the bootstrap for a mean progress, and the bootstrap for a paired difference of progress."""
    rows = []
    for kind, (name, draw) in enumerate(SCORES.items()):
        for n in (20, 50, 100):
            rng = np.random.default_rng((config.seed, 1, kind, n))
            hits = np.zeros((config.runs, 3), bool)
            for run in range(config.runs):
                first, second = draw(rng, (2, n))
                hits[run, 0] = _covers(mean_interval(first), HALF)
                hits[run, 1] = _covers(bootstrap_interval(first, rng, draws=1000), HALF)
                hits[run, 2] = _covers(paired_bootstrap(second - first, rng, draws=1000), 0)
            rows.append((name, n, *map(_share, hits.T)))

    return Study(
        title="Coverage of intervals of a mean progress",
        command=config.command("means"),
        columns=("progress", "n", "t", "bootstrap", "paired bootstrap, A/A"),
        rows=rows,
        notes=(f"{config.runs} runs a row with Wilson's interval, 1,000 resamples, seed {config.seed}.",),
    )


def pairs(config: Coverage) -> Study:
    """Differences of success rates from paired and from independent episodes."""
    rows = []
    for n in (20, 50, 100):
        tables = [(won, lost) for won in range(n + 1) for lost in range(n + 1 - won)]
        ends = np.array([tango(*table, n)[::2] for table in tables])
        reject = np.array([mcnemar(*table) <= ALPHA for table in tables])

        for first, second in PAIRS:
            for correlation in (0.0, 0.5):
                won, lost = discordance(first, second, correlation)
                chance = _chances(tables, n, won, lost)
                gap = second - first
                tango_covers = float(chance[(ends[:, 0] <= gap) & (gap <= ends[:, 1])].sum())
                booted = _booted(config, n, won, lost)
                free = _independent(n, first, second) if correlation == 0 else None
                size = float(chance[reject].sum())
                rows.append((f"{first}, {second}", correlation, n, won + lost, tango_covers, booted, size, free))

    return Study(
        title="Differences of success rates: coverage, and how often McNemar's exact test rejects",
        command=config.command("pairs"),
        columns=("rates", "correlation", "n", "discordant", "Tango", "bootstrap", "McNemar", "Newcombe"),
        rows=rows,
        notes=(
            "Tango, McNemar, Newcombe (independent episodes): exact, over all tables. McNemar's column is its size "
            "where the rates are equal, else its power.",
            f"Paired bootstrap: {config.runs} runs, 1,000 resamples, seed {config.seed}.",
        ),
    )


def seeds(config: Coverage) -> Study:
    """What `over_seeds` prints, beside t alone and beside Wilson's interval of all episodes together."""
    rows, episodes = [], 50
    for case, (mean, spread) in enumerate(SEEDS):
        for k in (3, 5, 10):
            rng = np.random.default_rng((config.seed, 3, case, k))
            counts = rng.binomial(episodes, _seed_rates(rng, mean, spread, (config.runs, k)))
            hits = np.zeros((config.runs, 3), bool)

            for run, row in enumerate(counts):
                intervals = (
                    over_seeds(row, np.full(k, episodes)).interval,
                    t_interval(row / episodes),
                    wilson(int(row.sum()), k * episodes),
                )
                hits[run] = [_covers(interval, mean) for interval in intervals]
            rows.append((mean, spread, k, *map(_share, hits.T)))

    return Study(
        title="Coverage of the success rate of a recipe over training seeds",
        command=config.command("seeds"),
        columns=("mean rate", "spread of seeds", "seeds", "printed", "t alone", "Wilson of all episodes"),
        rows=rows,
        notes=(
            f"True rates of seeds are beta with this mean and standard deviation, {episodes} episodes each; "
            f"{config.runs} runs a row, seed {config.seed}.",
            "Printed: t over the seeds, never narrower than Wilson's of all episodes. A single seed gets Wilson's, "
            "with the words 'for this checkpoint'.",
        ),
    )


def agreement(config: Coverage) -> Study:
    """How often `understudy agree` calls worlds agreeing that have nothing, much, or everything in common."""
    rows = []
    for shared, name in ((0.0, "unrelated"), (0.8, "alike (r .8)"), (1.0, "the same rates")):
        for k in (3, 4, 5, 6, 10, 20):
            rng = np.random.default_rng((config.seed, 4, k, int(10 * shared)))
            results = [agree(_two_worlds(rng, k, 50, shared), "success", rng, draws=300) for _ in range(config.worlds)]

            better = _share(np.array([result.bound.p <= ALPHA for result in results]))
            established = _share(np.array([result.verdict.established for result in results]))
            target = _many_policies(shared, 50)
            covered = _share(np.array([_covers(result.measures["r"], target) for result in results])) if k > 5 else None
            mmrv = float(np.mean([result.measures["mmrv"][1] for result in results]))
            rows.append((name, k, better, established, mmrv, covered))

    return Study(
        title="Agreement of two worlds: how often it is established, and coverage of r",
        command=config.command("agreement"),
        columns=("proxy", "policies", "p <= .05", "established", "mean MMRV", "r covered"),
        rows=rows,
        notes=(
            "50 episodes of each policy in each world from common initial conditions; true rates uniform, correlated "
            f"by a normal copula. {config.worlds} runs a row, 300 resamples, seed {config.seed}.",
            "r covered: of the r that a hundred thousand such policies show with as many episodes; up to five policies "
            "get no such interval.",
        ),
    )


def _chances(tables: list[tuple[int, int]], n: int, won: float, lost: float) -> np.ndarray:
    from scipy.stats import multinomial

    cells = np.array([(*table, n - sum(table)) for table in tables])
    return multinomial.pmf(cells, n, (won, lost, max(0.0, 1 - won - lost)))


def _booted(config: Coverage, n: int, won: float, lost: float) -> Interval:
    rng = np.random.default_rng((config.seed, 2, n, round(1000 * won), round(1000 * lost)))
    counts = rng.multinomial(n, (won, lost, 1 - won - lost), config.runs)
    intervals = (paired_bootstrap(np.repeat([1.0, -1.0, 0.0], row), rng, draws=1000) for row in counts)
    return _share(np.array([_covers(interval, won - lost) for interval in intervals]))


def _independent(n: int, first: float, second: float) -> float:
    from scipy.stats import binom

    counts = range(n + 1)
    tables = [((a, n), (b, n)) for a in counts for b in counts]
    ends = np.array([newcombe(*table)[::2] for table in tables]).reshape(n + 1, n + 1, 2)
    chance = np.outer(binom.pmf(counts, n, first), binom.pmf(counts, n, second))
    gap = second - first
    return float(chance[(ends[..., 0] <= gap) & (gap <= ends[..., 1])].sum())


def _seed_rates(rng: np.random.Generator, mean: float, spread: float, shape: tuple[int, int]) -> np.ndarray:
    if not spread:
        return np.full(shape, mean)
    size = mean * (1 - mean) / spread**2 - 1
    return rng.beta(mean * size, (1 - mean) * size, shape)


def _true_rates(rng: np.random.Generator, k: int, shared: float) -> np.ndarray:
    """(2, k) rates in truth and proxy, uniform in 0..1."""
    from scipy.stats import norm

    truth, other = rng.standard_normal((2, k))
    return norm.cdf(np.stack([truth, shared * truth + np.sqrt(1 - shared**2) * other]))


def _two_worlds(rng: np.random.Generator, k: int, n: int, shared: float) -> list[tuple[Tested, Tested]]:
    won = rng.random((n, 2, k)) < _true_rates(rng, k, shared)
    names = [Identity(f"p{i}", "", f"p{i}", f"run{i}") for i in range(k)]

    def tested(i: int, world: int) -> Tested:
        episodes = {("starts", start): (float(won[start, world, i]),) * 2 for start in range(n)}
        return Tested(names[i], episodes, ("",), 0)

    return [(tested(i, 0), tested(i, 1)) for i in range(k)]


def _many_policies(shared: float, n: int) -> float:
    from ..statistics.agreement import pearson

    rng = np.random.default_rng(7)
    truth, proxy = rng.binomial(n, _true_rates(rng, 100_000, shared)) / n
    return float(pearson(truth=truth, proxy=proxy))


def _covers(interval: Interval, value: float) -> bool:
    return interval.low - 1e-12 <= value <= interval.high + 1e-12


def _share(hits: np.ndarray) -> Interval:
    return wilson(int(np.sum(hits)), len(hits))
