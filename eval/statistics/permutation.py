"""A group-sequential permutation test of scores of several training seeds, for two agents or a few more.

One score a seed (a success rate, a mean progress), the same number of new seeds of every agent between two looks. Where
two agents do not differ, the labels of a group of seeds may be exchanged; the difference of the summed scores is
compared with what exchanged labels give, over all groups so far. After look k of K at most alpha k / K is spent, and
exchanges that would have been stopped earlier are left out later. The observed order is one of the compared ones, so
the promise is exact for any number of draws.

For more than two agents every way of splitting the agents into clusters "of the same kind" is a hypothesis with a test
of its own (labels exchanged inside clusters, statistic: largest difference inside a cluster); two agents are called
different when every hypothesis that holds them for the same is rejected (closed testing, which the step-down of AdaStop
shortens). So the probability of any false statement is at most alpha, whichever agents are truly the same.

Differences enter by their absolute value, in the statistic and in what it is compared with: comparing it with signed
ones, as a released package does, doubles the false positives. Scores of different seeds must be independent.
Sources: Mathieu, Della Vecchia, Shilova et al., AdaStop; Marcus, Peritz and Gabriel 1976; Phipson and Smyth 2010.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from .sequential import UNDECIDED, A, B, State

MOST_AGENTS = 6


class PermutationTest:
    """See the module.

    Args:
        agents: 2 to `MOST_AGENTS` names.
        group: new seeds of every agent between two looks; with two agents at least 4 for alpha .05.
        looks: K.
        rng: draws the exchanges.
        draws: exchanges; the first look of two agents with 5 seeds has 252 different ones.

    Raises:
        ValueError: a plan that cannot decide anything, or too many agents.
    """

    name = "permutation"
    independent = True
    outcomes = "one score a training seed"

    def __init__(
        self,
        agents: Sequence[str] = (A, B),
        group: int = 5,
        looks: int = 5,
        alpha: float = 0.05,
        *,
        rng: np.random.Generator,
        draws: int = 3999,
    ):
        if not 2 <= len(set(agents)) == len(agents) <= MOST_AGENTS:
            raise ValueError(f"the test takes 2 to {MOST_AGENTS} agents with different names, got {list(agents)}")
        if group < 2 or looks < 1 or not 0 < alpha < 1 or draws * alpha / looks < 5:
            raise ValueError(f"no such plan: {group} seeds, {looks} looks, alpha {alpha}, {draws} draws")
        self.agents, self.group, self.looks = tuple(agents), group, looks
        self.alpha, self.rng, self.draws = alpha, rng, draws
        self.n, self._look = 0, 0
        self.sums = np.zeros(len(agents))
        self._buffer: list[np.ndarray] = []
        self._hypotheses = [_Hypothesis(clusters, draws) for clusters in _partitions(len(agents))]
        self._chances: dict[tuple, np.ndarray] = {}  # (cluster, look) -> (draws + 1, members) summed scores

    def update(self, *scores: float) -> State:
        """Take the scores of one more seed of every agent, in their order; look when a group is whole.

        Raises:
            ValueError: another number of scores, one that is not finite, or more seeds than planned.
        """
        if self._look >= self.looks:
            raise ValueError(f"the test was planned for {self.looks} groups of {self.group} seeds")
        row = np.asarray(scores, np.float64)
        if row.shape != (len(self.agents),) or not np.isfinite(row).all():
            raise ValueError(f"one finite score for each of {', '.join(self.agents)} is needed, got {list(scores)}")
        self._buffer.append(row)
        self.n += 1
        if len(self._buffer) == self.group:
            self._take(np.stack(self._buffer))
            self._buffer = []
        return self.state()

    def better(self) -> list[tuple[str, str]]:
        """(better, worse) of all pairs that have been told apart."""
        told_apart = []
        for i, j in combinations(range(len(self.agents)), 2):
            if all(hypothesis.rejected for hypothesis in self._hypotheses if hypothesis.joins(i, j)):
                first, second = (i, j) if self.sums[i] > self.sums[j] else (j, i)
                told_apart.append((self.agents[first], self.agents[second]))
        return told_apart

    @property
    def decision(self) -> str | None:
        """Of two agents "A" (the first), "B"; "undecided" at the end; None: go on. Of more: "done" or "undecided"."""
        told_apart = self.better()
        if len(self.agents) == 2 and told_apart:
            return A if told_apart[0][0] == self.agents[0] else B
        if len(told_apart) == len(self.agents) * (len(self.agents) - 1) // 2:
            return "done"
        return UNDECIDED if self._look >= self.looks else None

    @property
    def evidence(self) -> float:
        """See `State.evidence`; of two agents, as of the last look."""
        return self.state().evidence

    def state(self) -> State:
        """Where it stands; `pairs` counts seeds of each agent."""
        pair = self._hypotheses[0]
        share = pair.share if len(self.agents) == 2 else 0.0
        ahead = self.sums[1] > self.sums[0]
        toward = (0.0, share) if ahead else (share, 0.0)
        words = f"{len(self.better())} pairs told apart after look {self._look} of {self.looks}"
        return State(self.n, self.decision, *toward, words)

    def _take(self, block: np.ndarray) -> None:
        """(group, agents) scores of new seeds: extend every exchange and look."""
        self._look += 1
        self.sums = self.sums + block.sum(0)
        for hypothesis in self._hypotheses:
            for cluster in hypothesis.clusters:
                if (cluster, self._look) not in self._chances:
                    before = self._chances.pop((cluster, self._look - 1), 0.0)
                    self._chances[cluster, self._look] = before + self._exchanged(block[:, cluster])
        for hypothesis in self._hypotheses:
            ranges = [np.ptp(self._chances[cluster, self._look], axis=1) for cluster in hypothesis.clusters]
            hypothesis.look(np.max(ranges, 0), self.alpha * self._look / self.looks)

    def _exchanged(self, block: np.ndarray) -> np.ndarray:
        """(draws + 1, members) sums of a group's scores as they are (first row) and with labels exchanged."""
        order = self.rng.random((self.draws, block.size)).argsort(1)
        mixed = block.reshape(-1)[order].reshape(self.draws, *block.shape).sum(1)
        return np.concatenate([block.sum(0)[None], mixed])


class _Hypothesis:
    """The agents inside each cluster do not differ."""

    def __init__(self, clusters: tuple[tuple[int, ...], ...], draws: int):
        self.clusters, self.rejected, self.share = clusters, False, 0.0
        self.alive = np.ones(draws + 1, bool)

    def joins(self, first: int, second: int) -> bool:
        return any(first in cluster and second in cluster for cluster in self.clusters)

    def look(self, values: np.ndarray, level: float) -> None:
        """`values` (draws + 1,), the observed one first: stop the largest as far as `level` in all may be spent."""
        room = int(np.floor(level * len(values) + 1e-9)) - int((~self.alive).sum())
        values = np.round(values, 9)  # sums of the same scores in another order are equal
        alive = np.sort(values[self.alive])[::-1]
        if not len(alive) or not self.alive[0]:
            return
        edge = alive[room] if room < len(alive) else -np.inf  # everything above it fits
        self.share = float(min(1.0, values[0] / edge)) if edge > 0 else 0.0
        stopped = self.alive & (values > edge)
        self.rejected = bool(stopped[0])
        self.alive &= ~stopped


def _partitions(k: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to split k agents into clusters but the one without any pair; clusters of one are left out."""

    def split(rest: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
        if not rest:
            yield ()
            return
        first, others = rest[0], rest[1:]
        for size in range(len(others) + 1):
            for mates in combinations(others, size):
                left = tuple(other for other in others if other not in mates)
                for more in split(left):
                    yield ((first, *mates), *more)

    for clusters in split(tuple(range(k))):
        pairs = tuple(cluster for cluster in clusters if len(cluster) > 1)
        if pairs:
            yield pairs
