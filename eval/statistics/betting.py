"""A test by betting: for 0/1 outcomes and for scores in [0, 1], on pairs whose outcomes may depend on each other.

Whoever believes that B is better bets, before each pair, a fraction of the money on the difference b - a. If B is not
better, no way of betting makes money on average, so the money ever reaches 2 / alpha with probability at most alpha / 2
(Ville's inequality); a second bettor believes in A. Pairs with equal outcomes move no money: for success this is a test
on the discordant pairs, whatever the correlation inside a pair.

The money is spread at the start over bets of fixed fractions l with weights l (1 - l) and then left alone. That
equals one bettor whose fraction is the mean of l weighted by what each has earned, a function of past pairs only,
close to Kelly's fraction after some tens of pairs (Cover 1991). The weights were chosen by power and stopping time on
0/1 and beta-distributed outcomes, against plug-in Kelly fractions; the choice does not touch validity. What is tested
is the mean difference of the outcomes over initial conditions, given that pairs are independent of one another.
Sources: Waudby-Smith and Ramdas 2024; N-SCORE (arXiv 2603.13616).
"""

from __future__ import annotations

import numpy as np

from .sequential import Sequential

FRACTIONS = np.linspace(0.025, 0.975, 20)
WEIGHTS = FRACTIONS * (1 - FRACTIONS) / (FRACTIONS * (1 - FRACTIONS)).sum()


class BettingTest(Sequential):
    """Two bettors, one for each side. See the module for what it promises; the budget `most` may be changed freely."""

    name = "betting"
    outcomes = "success (0 or 1) or a score in [0, 1]"
    independent = False
    PARTS = ("side", "when", "logs", "peak")

    def __init__(self, most: int, alpha: float = 0.05, runs: int = 1):
        super().__init__(most, alpha, runs)
        self.logs = np.repeat(np.log(WEIGHTS)[None, None], runs, 0).repeat(2, 1)  # (R, side A B, fraction) log money
        self.peak = np.zeros((runs, 2))  # most money so far, log, at least the stake

    def _look(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        difference = np.stack([a - b, b - a], 1)[..., None]
        self.logs = self.logs + np.log1p(FRACTIONS * difference)
        self.peak = np.maximum(self.peak, _log_sum(self.logs))
        done = self.peak >= self._needed - 1e-12
        return np.where(done[:, 1], 1, np.where(done[:, 0], -1, 0))

    @property
    def _needed(self) -> float:
        return float(np.log(2 / self.alpha))

    def money(self) -> tuple[float, float]:
        """What a stake of 1 on A and on B has become, first run."""
        return tuple(np.exp(_log_sum(self.logs[0])).tolist())

    def p_value(self) -> float:
        """Two-sided, valid at any time: twice the inverse of the most money that either bettor ever had (at most 1)."""
        return float(min(1.0, 2 * np.exp(-self.peak[0].max())))

    def _progress(self) -> tuple[float, float, str]:
        money = self.money()
        side = "B" if money[1] >= money[0] else "A"
        words = f"evidence for {side}: {max(money):.3g} ({np.exp(self._needed):.0f} needed)"
        return *(np.log(np.maximum(money, 1.0)) / self._needed).tolist(), words


def _log_sum(logs: np.ndarray) -> np.ndarray:
    top = logs.max(-1)
    return top + np.log(np.exp(logs - top[..., None]).sum(-1))
