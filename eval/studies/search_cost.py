"""What a search for weights costs and what it finds.

    understudy study search_cost --out FILE

Plays every kind of search many times and writes a study of the episodes that it used beside the full grid, and of the
success of the weights that it chose. Two sources of episodes: planted success curves (the published sweeps of GPC,
arXiv 2510.01068, table of weights; outcomes from one initial condition correlate over weights), where the truth is
known; or the records of a finished grid search (`--records OUT/validation`), whose initial conditions are split at
random in those that the search sees, in random order, and those that its choice is judged on. Intervals of the latter
come from a bootstrap of the initial conditions. Knows nothing of policies.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...configs.command import words_of
from ...configs.plugins import lookup
from ..compose.search import BY_TEST, SearchResult, Trials, Weights, grid, simplex, successive_halving, top_two
from ..ledger.identity import open_records
from ..ledger.study import Study
from ..statistics.intervals import Interval, wilson
from ..statistics.seeds import t_interval

MODULE = "understudy study search_cost"
Search = Callable[[Trials, np.random.Generator], SearchResult]
SEARCHES: dict[str, Search] = {
    "grid": lambda trials, rng: grid(trials),
    "grid, raw rates": lambda trials, rng: grid(trials, smooth=0),
    "successive halving": lambda trials, rng: successive_halving(trials),
    "tests alone": lambda trials, rng: successive_halving(trials, keep=1),
    "bayes, half the grid": lambda trials, rng: top_two(trials, trials.full // 2, rng),
}
FLAT = "flat at .5"
SWEEPS = {  # success in % at weight 0, .1, .. 1 of the first policy named
    "can DP+MP": (5, 10, 10.5, 10.5, 16.5, 20, 20, 23, 25, 29, 34.5),
    "can FlorD+DP": (34.5, 34.5, 42.5, 48, 56, 62.5, 60.5, 63.5, 58, 62.5, 61.5),
    "can FlorD+MP": (5, 11.5, 21.5, 30.5, 39, 44.5, 47.5, 46.5, 56.5, 63, 61.5),
    "can FlorF+FP": (95, 98.5, 98.5, 96, 96.5, 97, 93, 92, 90, 90.5, 89),
    "can pi0+FP": (95, 96, 99, 98, 97.5, 98.5, 99.5, 98, 96, 96, 96.5),
    "lift FlorF+FP": (13, 10.5, 12.5, 23.5, 55, 81.5, 93, 98, 100, 98.5, 98.5),
    "lift pi0+FP": (13, 12.5, 17, 32.5, 67.5, 92.5, 98.5, 100, 100, 99.5, 99),
    "square DP+MP": (3, 3, 4, 1.5, 8, 4.5, 6, 6, 3.5, 7.5, 2),
    "square FlorD+DP": (2, 12.5, 20, 34, 44, 49, 61.5, 57, 59.5, 54.5, 46.5),
    "square FlorD+MP": (3, 8, 8.5, 17, 22, 34, 45, 45.5, 50, 54.5, 46.5),
    "square FlorF+FP": (77.5, 79, 85, 92, 92, 92, 91, 88, 88.5, 92.5, 88.5),
    "square pi0+FP": (77.5, 80.5, 84.5, 94, 93.5, 94, 93.5, 93, 90.5, 93.5, 92.5),
    "pusht DP+MP": (12.06, 19.81, 18.31, 18.87, 19.94, 19.88, 18.13, 21.5, 23.63, 22.38, 21.75),
    "pusht FlorD+DP": (21.75, 26.75, 29.38, 32.75, 36.06, 39.69, 41.13, 43.06, 40.5, 40.56, 40),
    "pusht FlorD+MP": (12.06, 22.88, 25.81, 30.62, 33.94, 37, 38.44, 40.5, 40.75, 40.88, 40),
    "pusht FlorF+FP": (54.25, 56.06, 54.5, 50.81, 47.38, 48.31, 47.69, 50.5, 46.19, 40.75, 39.38),
    "pusht pi0+FP": (54.25, 54.31, 56.81, 56.37, 53.31, 57.69, 59.12, 61.5, 62.25, 61.5, 57.69),
    FLAT: (50,) * 11,
}


@dataclass(frozen=True, kw_only=True)
class SearchCost:
    """Measure what searches for weights cost and find, and write it as a study."""

    RENAMED: ClassVar[dict[str, str]] = {"starts": "initial_conditions"}  # former names that are still read

    out: Path  # file of the study
    records: str | None = None  # folder of the records of a grid search; none: planted curves
    initial_conditions: int | None = None  # that a search sees; default 50 planted, half of the recorded ones
    runs: int = 200  # planted: runs of each curve; records: replays
    draws: int = 200  # records: resamples of the initial conditions
    correlation: float = 0.5  # planted: of outcomes from one initial condition, on the scale of the copula
    curves: tuple[str, ...] = ()  # planted: names of some; default all
    seed: int = 0  # of what is drawn

    def run(self) -> None:
        study = replayed(self) if self.records else planted(self)
        study.write(self.out)
        print(f"{study.title}\n\n{study.markdown()}\n")

    def command(self) -> str:
        """What a reader runs."""
        return f"{MODULE} --out {shlex.join(['FILE', *words_of(self, without=('out',))])}"


@dataclass(frozen=True)
class PlayedSearch:
    """One search that was played."""

    chosen: int  # place of the chosen weights
    episodes: int
    tested_away: tuple[int, ...]  # places of the weights that a test dropped


def play(
    search: Search, points: Sequence[Weights], table: np.ndarray, rng: np.random.Generator, block=8
) -> PlayedSearch:
    """A search over recorded outcomes: `table` (k, n) of k weights and n initial conditions, in their order."""
    rows = {point: table[i] for i, point in enumerate(points)}
    result = search(Trials(points, range(table.shape[1]), lambda w, starts: rows[w][list(starts)], block), rng)
    gone = tuple(i for i, trial in enumerate(result.tried) if trial.dropped.startswith(BY_TEST))
    return PlayedSearch(list(points).index(result.chosen), result.episodes, gone)


def planted(config: SearchCost) -> Study:
    """Searches on outcomes drawn from known curves."""
    starts, points = config.initial_conditions or 50, simplex(2, 11)
    names = config.curves or tuple(SWEEPS)
    curves = {name: np.array(lookup("curve", name, SWEEPS)) / 100 for name in names}
    played = {name: defaultdict(list) for name in curves}  # curve -> search -> outcomes

    # All searches see the same outcomes of a run.
    for place, (name, curve) in enumerate(curves.items()):
        for run in range(config.runs):
            rng = np.random.default_rng((config.seed, place, run))
            table = draw(curve, starts, config.correlation, rng)
            for search, how in SEARCHES.items():
                played[name][search].append(play(how, points, table, np.random.default_rng((config.seed, run))))

    return Study(
        title="Search for weights: episodes and success, on published curves of success over weights",
        command=config.command(),
        columns=("search", "episodes", "of the grid", "success", "minus the grid", "best dropped by a test"),
        rows=[_planted_row(search, curves, played, len(points) * starts) for search in SEARCHES],
        notes=(
            f"{len(set(curves) - {FLAT})} published sweeps over 11 weights as true curves, {config.runs} runs each, "
            f"{starts} initial conditions, seed {config.seed}; outcomes of one correlate over weights (normal copula, "
            f"{config.correlation}).",
            "Success: true rate of the chosen weights, mean over runs and curves; differences with t intervals over "
            f"runs, paired. Last column: curves and a flat one (.5), where every weight is best, by Wilson over "
            f"{len(curves) * config.runs} runs; its bound is .05.",
        ),
    )


def draw(curve: np.ndarray, starts: int, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """(k, n) outcomes 0 or 1 with these rates; those of one initial condition hang together by a Gaussian copula."""
    from scipy.special import ndtr

    common, own = rng.standard_normal(starts), rng.standard_normal((len(curve), starts))
    return (ndtr(np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own) < curve[:, None]).astype(float)


def _planted_row(search: str, curves: dict, played: dict, full: int) -> tuple:
    used, gained, missed, rates = [], [], [], []
    for name, curve in curves.items():
        outcomes, base = played[name][search], played[name]["grid"]
        missed += [bool(set(outcome.tested_away) & _best(curve, outcome)) for outcome in outcomes]
        if name == FLAT:
            continue
        used += [outcome.episodes for outcome in outcomes]
        rates += [float(curve[outcome.chosen]) for outcome in outcomes]
        gained += [
            float(curve[outcome.chosen] - curve[full_grid.chosen])
            for outcome, full_grid in zip(outcomes, base, strict=True)
        ]

    gain = tuple(t_interval(gained)) if search != "grid" else None
    share, away = float(np.mean(used)) / full, tuple(wilson(sum(missed), len(missed)))
    return search, float(np.mean(used)), share, float(np.mean(rates)), gain, away


def _best(curve: np.ndarray, outcome: PlayedSearch) -> set[int]:
    """The best weight; where several are, the middle one, whatever was chosen."""
    best = np.flatnonzero(curve == curve.max())
    return {int(best[len(best) // 2])}


def replayed(config: SearchCost) -> Study:
    """Searches on the records of a finished grid search."""
    points, table = read_table(config.records)
    starts = config.initial_conditions or table.shape[1] // 2
    if not 0 < starts < table.shape[1]:
        raise ValueError(f"{table.shape[1]} initial conditions are recorded; a search may see fewer, not {starts}")

    # The replays, and the same on resampled initial conditions.
    rng = np.random.default_rng(config.seed)
    whole = np.array([_replay(points, table, np.arange(table.shape[1]), starts, rng) for _ in range(config.runs)])
    drawn = np.array([_resampled(points, table, starts, rng) for _ in range(config.draws)])

    rows, full = [], len(points) * starts
    for i, search in enumerate(SEARCHES):
        episodes, success, same = whole[:, i].mean(0)
        share = _around(episodes / full, drawn[:, i, 0] / full)
        gain = _around(success - whole[:, 0, 1].mean(), drawn[:, i, 1] - drawn[:, 0, 1])
        rows.append((search, float(episodes), share, float(success), None if search == "grid" else gain, float(same)))

    return Study(
        title="Search for weights: episodes and success, replayed on recorded episodes",
        command=config.command(),
        columns=("search", "episodes", "of the grid", "success", "minus the grid", "same weights"),
        rows=rows,
        notes=(
            f"{len(points)} weights from {table.shape[1]} recorded initial conditions; each of {config.runs} replays "
            f"searches on {starts} of them in random order and judges its choice on the others. Seed {config.seed}.",
            f"Intervals: {config.draws} resamples of the initial conditions; they speak of these policies.",
        ),
    )


def read_table(folder: str) -> tuple[list[Weights], np.ndarray]:
    """Weights and success (k, n) of the records of a grid search, on the initial conditions that all of them have.

    Raises:
        ValueError: records of no search, or of one that did not play all weights from all of them.
    """
    by_weights: dict[Weights, dict[int, float]] = {}
    for record in open_records([folder]):
        weights = record.manifest.get("policy", {}).get("config", {}).get("weights")
        if not weights:
            raise ValueError(f"'{record.root}' does not say the weights of a mixture; give OUT/validation of a search")
        outcomes = zip(record.column("env_seed"), record.column("success"), strict=True)
        by_weights[tuple(weights)] = {start: float(won) for start, won in outcomes}
    shared = sorted(set.intersection(*(set(rows) for rows in by_weights.values())))
    most = max(map(len, by_weights.values()))
    if len(shared) < max(2, most):
        raise ValueError(
            f"the records of '{folder}' share {len(shared)} of up to {most} initial conditions; play all weights from "
            "all of them first: understudy compose --search grid --resume"
        )

    points = sorted(by_weights)
    table = np.zeros((len(points), len(shared)))
    for row, point in enumerate(points):
        table[row] = [by_weights[point][start] for start in shared]
    return points, table


def _replay(points, table: np.ndarray, ids: np.ndarray, starts: int, rng: np.random.Generator) -> np.ndarray:
    """(searches, 3): episodes, success on the others, whether the grid's weights were chosen.

    `ids`: places of the initial conditions, some perhaps several times; all copies of one fall on the same side.
    """
    distinct = rng.permutation(np.unique(ids))
    copies = np.array([(ids == place).sum() for place in distinct])
    cut = min(int(np.searchsorted(np.cumsum(copies), starts)) + 1, len(distinct) - 1)

    seen = rng.permutation(np.repeat(distinct[:cut], copies[:cut]))[:starts]
    rest = table[:, np.repeat(distinct[cut:], copies[cut:])].mean(1)

    outcomes = []
    for how in SEARCHES.values():
        own = np.random.default_rng(rng.integers(2**32))
        outcomes.append(play(how, points, table[:, seen], own))

    grid_choice = outcomes[0].chosen
    return np.array([(each.episodes, rest[each.chosen], each.chosen == grid_choice) for each in outcomes])


def _resampled(points, table: np.ndarray, starts: int, rng: np.random.Generator, inner: int = 5) -> np.ndarray:
    """(searches, 3) means over some replays on initial conditions drawn with replacement."""
    ids = rng.integers(0, table.shape[1], table.shape[1])
    return np.mean([_replay(points, table, ids, starts, rng) for _ in range(inner)], 0)


def _around(estimate: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(float(min(low, estimate)), float(estimate), float(max(high, estimate)))
