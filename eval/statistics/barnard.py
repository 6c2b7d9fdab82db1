"""A sequential test of two success rates from independent pairs, by a decision table that a linear program makes.

After t pairs the state is the pair of success counts (x of A, y of B). The table says at which lead y - x, given
s = x + y, to call B better; the mirrored table speaks for A. Under the null p_A = p_B = p a state has the probability
n p^s (1-p)^(2t-s) with n the (weighted) number of ways to come there without having been stopped, so one propagation
of n serves every p. At each t a linear program picks the share w of every state that is stopped: as much as possible
(sum of w), subject to

    risk spent before + sum of w n p^s (1-p)^(2t-s) <= alpha (t / N)^SHAPE        for every control point p,

with alpha the risk of one side. States (x, y) and (t-y, t-x) are tied (p and 1-p), so half the points and half the
states do. What is left of the budget is carried on. Only the outermost states of each s can be in a solution: those
behind the first one that the budget cannot pay whole are left out, which loses nothing.
Budgets are `MARGIN` below alpha, which covers the gaps between control points (`table_risk` computes it for any p).
The null p_A > p_B is safer still: the stopping region grows with y and shrinks with x, so coupling bounds its risk.

Not for pairs whose outcomes depend on each other, for example through common initial conditions that are hard for
both: use `betting`. Written from the description in Snyder et al. 2025, "Is your imitation learning policy better
than mine?" (arXiv 2503.10966); no code of theirs was read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.files import replace_file
from ...configs.machine import cache_folder
from ...configs.progress import Progress
from .sequential import Sequential

SHAPE = 0.9  # the budget grows as (t / N)^SHAPE; 1 gives more power to small differences, less speed to large ones
POINTS = 97  # control points in (0, 1/2]
MARGIN = 0.998
MOST = 500  # pairs; beyond that the numbers of ways leave the range of double precision
NEVER = np.int16(32000)
VERSION = 1


@dataclass(frozen=True)
class Table:
    """One side's decisions, for N pairs at a risk of alpha."""

    most: int  # N
    alpha: float
    lead: np.ndarray  # (N + 1, 2 N + 1) int16: stop at t pairs with s successes in all when y - x is at least this
    part: np.ndarray  # (N + 1, 2 N + 1) float32: stop with this probability when y - x is 2 less

    def chance(self, t: int, s: np.ndarray, lead: np.ndarray) -> np.ndarray:
        """Probability of stopping now."""
        full = self.lead[t, s]
        return np.where(lead >= full, 1.0, np.where(lead == full - 2, self.part[t, s], 0.0))


class BarnardTest(Sequential):
    """Two mirrored tables at alpha / 2 each.

    Args:
        rng: draws that settle states where the table says "with probability w".

    Raises:
        ValueError: more than `MOST` pairs.
    """

    name = "table"
    outcomes = "success (0 or 1)"
    independent = True
    PARTS = ("side", "when", "x", "y")

    def __init__(self, most: int, alpha: float = 0.05, runs: int = 1, *, rng: np.random.Generator):
        super().__init__(most, alpha, runs, rng)
        self.table = decision_table(most, alpha / 2)
        self.x, self.y = np.zeros((2, runs), np.int64)

    def _look(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
            raise ValueError("the table is for success (0 or 1); for scores use the betting test")
        self.x, self.y = self.x + a.astype(np.int64), self.y + b.astype(np.int64)
        lead, s = self.y - self.x, self.x + self.y
        drawn = self.rng.random(self.runs)
        return np.where(drawn < self.table.chance(self.n, s, np.abs(lead)), np.sign(lead), 0)

    def _progress(self) -> tuple[float, float, str]:
        lead, s = int(self.y[0] - self.x[0]), int(self.x[0] + self.y[0])
        needed = int(self.table.lead[self.n, s])
        if needed == NEVER:
            return 0.0, 0.0, "too early for any verdict"
        words = f"{'B' if lead >= 0 else 'A'} leads by {abs(lead)} successes, {needed} decide"
        return max(0, -lead) / needed, max(0, lead) / needed, words


def decision_table(most: int, alpha: float) -> Table:
    """The table for one side at risk alpha, from the cache or made (seconds for 200 pairs) and kept there.

    Raises:
        ValueError: more than `MOST` pairs.
    """
    if not 4 <= most <= MOST:
        raise ValueError(f"the table is made for 4 to {MOST} pairs, not {most}; the betting test has no such limit")
    path = cache_folder() / "tables" / f"barnard{VERSION}-{most}-{alpha:.6g}-{SHAPE:g}-{POINTS}-{MARGIN:g}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Table(most, alpha, kept["lead"], kept["part"])
    except (OSError, ValueError, KeyError):
        with Progress("decision table", most, "steps") as progress:
            table = synthesise(most, alpha, watch=progress.update)
        _keep(path, table)
        return table


def synthesise(
    most: int,
    alpha: float,
    shape: float = SHAPE,
    points: int = POINTS,
    margin: float = MARGIN,
    watch: Callable[[int], None] = lambda step: None,
) -> Table:
    """Make the table; see the module. Some seconds for N = 200, up to a minute for 500. `watch` is told each step."""
    p = np.sin(np.linspace(np.arcsin(np.sqrt(0.25 / most)), np.pi / 4, points)) ** 2
    ways, spent = np.zeros((most + 2, most + 2)), np.zeros(points)
    ways[0, 0] = 1.0  # scaled by 4^-t
    lead = np.full((most + 1, 2 * most + 1), NEVER)
    part = np.zeros((most + 1, 2 * most + 1), np.float32)

    for t in range(1, most + 1):
        ways = _one_pair(ways)
        watch(t)
        if t < max(4, int(np.log2(most)) + 1):
            continue

        # Stop as much as the risk allows.
        budget = alpha * margin * (t / most) ** shape - spent
        x, y, mass = _candidates(ways, t, p, budget)
        if len(x):
            w = _choose(x, y, t, mass, budget)
            spent += mass @ w
            _stop(ways, t, x, y, w)
            lead[t], part[t] = _boundary(ways, t, x, y, w, lead[t], part[t])
    return Table(most, alpha, lead, part)


def _one_pair(ways: np.ndarray) -> np.ndarray:
    new = ways.copy()
    new[1:] += ways[:-1]
    new[:, 1:] += ways[:, :-1]
    new[1:, 1:] += ways[:-1, :-1]
    return new / 4


def _candidates(ways: np.ndarray, t: int, p: np.ndarray, budget: np.ndarray) -> tuple[np.ndarray, ...]:
    """Counts x, y (V,) of the states that may be stopped now, s <= t, and their null masses (P, V), twins added."""
    xs, ys = [], []
    for s in range(1, t + 1):
        nearest = int(np.argmin(np.abs(p - s / (2 * t))))
        x = np.arange((s + 1) // 2)
        x = x[ways[x, s - x] > 0]
        mass = _mass(ways[x, s - x], s, t, p[[nearest]])[0]
        few = int(np.searchsorted(np.cumsum(mass), budget[nearest], "right")) + 1
        xs.append(x[:few])
        ys.append(s - x[:few])
    x, y = np.concatenate(xs), np.concatenate(ys)
    return x, y, _mass(ways[x, y], x + y, t, p)


def _mass(ways: np.ndarray, s, t: int, p: np.ndarray) -> np.ndarray:
    """(P, V) null probability of states together with their twins (a state with s = t may be its own: counted once)."""
    up, down = np.log(p)[:, None], np.log1p(-p)[:, None]
    base = np.log(ways) + 2 * t * np.log(2)
    return np.exp(base + s * up + (2 * t - s) * down) + (np.asarray(s) < t) * np.exp(base + (2 * t - s) * up + s * down)


def _choose(x: np.ndarray, y: np.ndarray, t: int, mass: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """(V,) shares w in [0, 1] that stop the most states within the budget."""
    from scipy.optimize import linprog

    room = np.maximum(budget, 1e-15)
    states = np.where(x + y < t, 2.0, 1.0)
    solution = linprog(-states, A_ub=mass / room[:, None], b_ub=np.ones(len(room)), bounds=(0, 1), method="highs")
    if solution.x is None:
        raise ArithmeticError(f"the linear program of step {t} was not solved: {solution.message}")
    w = np.where(solution.x > 1 - 1e-9, 1.0, np.where(solution.x < 1e-9, 0.0, solution.x))
    for state in range(1, len(w)):  # from the outermost state inwards, so that one number per s holds the decision
        if x[state] + y[state] == x[state - 1] + y[state - 1] and w[state - 1] < 1:
            w[state] = 0
    return w


def _stop(ways: np.ndarray, t: int, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
    ways[x, y] *= 1 - w
    twin = x + y < t
    ways[(t - y)[twin], (t - x)[twin]] *= 1 - w[twin]


def _boundary(ways, t: int, x, y, w, lead: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table at t: beyond the outermost state that goes on, everything was stopped or is out of reach."""
    shares = {}
    for won, lost, share in zip(x.tolist(), y.tolist(), w.tolist(), strict=True):
        shares[won, lost] = shares[t - lost, t - won] = share
    for s in range(1, 2 * t):
        lowest = first = max(0, s - t)
        while 2 * first < s and ways[first, s - first] == 0:
            first += 1
        part[s] = shares.get((first, s - first), 0.0)
        if first > lowest or part[s] > 0:
            lead[s] = s - 2 * first + 2
    return lead, part


def table_risk(table: Table, p: np.ndarray) -> np.ndarray:
    """(P,) probability that one side calls a difference where both rates are p in (0, 1); exact."""
    p = np.asarray(p, np.float64)
    risk, ways = np.zeros(len(p)), np.zeros((table.most + 2, table.most + 2))
    ways[0, 0] = 1.0
    for t in range(1, table.most + 1):
        ways = _one_pair(ways)
        stopped = ways * _shares(table, t, len(ways))
        x, y = np.nonzero(stopped)
        s, base = x + y, np.log(stopped[x, y]) + 2 * t * np.log(2)
        risk += np.exp(base + s * np.log(p)[:, None] + (2 * t - s) * np.log1p(-p)[:, None]).sum(1)
        ways = ways - stopped
    return risk


def operating(table: Table, p_a: float, p_b: float, both: bool = True) -> tuple[float, float, float]:
    """Exactly: the probabilities of calling A and of calling B, and the mean number of pairs until that or the end.

    Args:
        both: use the table for both sides; else for B alone, where the first number is 0.
    """
    going = np.zeros((table.most + 2, table.most + 2))
    going[0, 0] = 1.0
    called_a = called_b = pairs = 0.0
    for t in range(1, table.most + 1):
        pairs += going.sum()
        going = _step(going, p_a, p_b)
        shares = _shares(table, t, len(going))
        called_b += float((going * shares).sum())
        called_a += float((going * shares.T).sum()) if both else 0.0
        going = going * (1 - shares - (shares.T if both else 0))
    return called_a, called_b, float(pairs)


def _step(going: np.ndarray, p_a: float, p_b: float) -> np.ndarray:
    new = going * ((1 - p_a) * (1 - p_b))
    new[1:] += going[:-1] * (p_a * (1 - p_b))
    new[:, 1:] += going[:, :-1] * ((1 - p_a) * p_b)
    new[1:, 1:] += going[:-1, :-1] * (p_a * p_b)
    return new


def _shares(table: Table, t: int, size: int) -> np.ndarray:
    """(size, size) probability of calling B in each state (x, y) after t pairs; 0 outside of y > x."""
    x, y = np.arange(size)[:, None], np.arange(size)[None]
    shares = table.chance(t, np.minimum(x + y, 2 * table.most), y - x)
    return np.where((y > x) & (np.maximum(x, y) <= t), shares, 0.0)


def _keep(path: Path, table: Table) -> None:
    """Beside and renamed; a cache that cannot be written is only slower."""

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            np.savez_compressed(file, lead=table.lead, part=table.part)

    try:
        replace_file(path, write)
    except OSError:
        return
