r"""Whether a critic knows which of a policy's action chunks is better in the same state: tried out in the world.

    understudy study within_state --policy RUN --critics CRITIC random --world pusht --keep tried.npz
    understudy study within_state --tried tried.npz --critics OTHER --out study.json

In each of S states that the policy comes to, P of its action chunks are drawn and each is continued C times
(`tried.py`). The truth of a chunk is the mean of gamma^(steps until success), 0 for none, over its continuations (or
of the greatest progress). The rank correlation of scores and truths, taken in each state by itself and averaged, is
what time to go cannot give: all chunks of a state have the same. States in which no continuation, or every chunk
alike, succeeds say nothing and are counted apart; counted as 0 they give the second number. The ceiling is what a
critic would reach that knew the true means, as far as C continuations can show: the root of their own reliability
(halves, Spearman-Brown). Env seeds 0-999 are for looking, so that those for reporting stay unseen.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...configs.command import command_of
from ...configs.lanes.lanes import Lanes
from ...configs.world import REPORT_STARTS
from ..inspect.critic_facts import best_of
from ..ledger.study import Study
from ..rollout.tried import Remembered, TriedCandidates, read_tried, try_plans
from ..statistics.intervals import Interval, bootstrap_interval

COLUMNS = ("critic", "rank correlation", "all states", "better of two", "gain of its best", "gain of the best")


@dataclass(frozen=True, kw_only=True)
class WithinState:
    """Rank candidates of the same state by critics and by what becomes of them."""

    RENAMED: ClassVar[dict[str, str]] = {
        "seed": "env_seed",
        "execute": "n_action_steps",
        "plans": "candidates",
    }  # former names that are still read

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies",)

    critics: tuple[str, ...]  # as --critic of `understudy eval`: runs, recall, random, combinations
    policy: str | None = None  # run or checkpoint whose candidates are tried
    tried: Path | None = None  # candidates tried before, in place of trying some now
    keep: Path | None = None  # .npz file for what was tried now
    world: dict | str | None = (
        None  # a registered name, a YAML file, or its keys; by default where the policy was trained
    )
    states: int = 100  # S, of as many episodes
    candidates: int = 10  # P
    times: int = 8  # C, continuations of each candidate
    env_seed: int = 0  # first env seed, and seed of what is drawn
    n_action_steps: int | None = None  # E; default the policy's own
    steps: int | None = None  # of the policy's sampler; default its own
    truth: str = "success"  # success | progress: what counts of a continuation
    gamma: float = 0.99  # discount of a control step, of success
    block: int = 8  # worlds that act at once
    workers: int = 0  # processes for the world; 0: in this one
    threads: int = 1  # of torch on the CPU
    out: Path | None = None  # JSON of the table
    curve: Path | None = None  # JSON of another: what is chosen among 1, 2, .. candidates

    def run(self) -> None:
        """Try candidates or read them, ask the critics, print, write."""
        import torch

        torch.set_num_threads(self.threads)
        if (self.policy is None) == (self.tried is None):
            raise ValueError("give --policy RUN to try its candidates, or --tried FILE to read those tried before")
        if self.truth not in ("success", "progress"):
            raise ValueError(f"the truth is success or progress, not '{self.truth}'")
        if self.env_seed + self.states > REPORT_STARTS and self.policy is not None:
            asked = f"{self.env_seed}..{self.env_seed + self.states - 1}"
            raise ValueError(f"env seeds {asked}: those for looking are 0..{REPORT_STARTS - 1}")
        tried = read_tried(self.tried) if self.tried else _try(self)
        if self.keep is not None and not self.tried:
            print(f"kept: {tried.save(self.keep)}")
        study = study_of(self, tried)
        print(f"{study.title}\n\n{study.markdown()}\n\n" + "\n".join(f"{note}." for note in study.notes))
        if self.out is not None:
            print(f"written: {study.write(self.out)}")
        if self.curve is not None:
            curve = curve_study(self, tried)
            print(f"\n{curve.title}\n\n{curve.markdown()}\n\nwritten: {curve.write(self.curve)}")


@dataclass(frozen=True)
class Ranking:
    """How the scores of one critic rank candidates of the same state. Intervals: 95 %, bootstrap over states."""

    correlation: Interval  # mean of the states that tell
    all: Interval  # the others counted as 0
    pairs: float  # share of pairs of candidates of different truth that are in the right order
    gain: Interval  # truth of the candidate with the highest score, above the mean one
    most: float  # the same of the candidate with the highest truth, which is too high by the luck of the continuations
    states: int
    tell: int  # states in which candidates differ


def values(tried: TriedCandidates, truth: str, gamma: float) -> np.ndarray:
    """(S, P, C) what each continuation was worth, in 0..1."""
    if truth == "progress":
        return tried.best.astype(np.float64)
    return np.where(tried.won >= 0, gamma ** np.maximum(tried.won, 0), 0.0)


def rank(scores: np.ndarray, worth: np.ndarray, seed: int = 0) -> Ranking:
    """How well `scores` (S, P) rank the candidates of each state, whose continuations were `worth` (S, P, C) in 0..1.

    Raises:
        ValueError: shapes that do not fit, or no state in which candidates differ.
    """
    if scores.shape != worth.shape[:2]:
        raise ValueError(f"{scores.shape} scores for {worth.shape[:2]} candidates")

    truth, rng = worth.mean(2), np.random.default_rng(seed)
    each = correlations(scores, truth)
    tell = np.ptp(truth, 1) > 0
    if not tell.any():
        raise ValueError("in no state do the candidates differ in what becomes of them: take more states, or progress")

    lanes = np.arange(len(scores))
    gains = truth[lanes, scores.argmax(1)] - truth.mean(1)
    return Ranking(
        correlation=_signed(each[tell], rng),
        all=_signed(np.where(tell, each, 0.0), rng),
        pairs=_in_order(scores, truth),
        gain=_signed(gains, rng),
        most=float((truth.max(1) - truth.mean(1)).mean()),
        states=len(scores),
        tell=int(tell.sum()),
    )


def correlations(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(S,) Spearman correlation of two (S, P) tables, row by row; 0 where one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(table, axis=1) for table in (scores, truth)]
    first, second = (part - part.mean(1, keepdims=True) for part in ranks)
    norm = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.where(norm > 0, (first * second).sum(1) / np.where(norm > 0, norm, 1), 0.0)


def ceiling(worth: np.ndarray, seed: int = 0, splits: int = 20) -> float | None:
    """Correlation that the true means would reach with those of C continuations; None where halves say nothing.

    Halves of the continuations are correlated in the states that tell; r of halves is 2 r / (1 + r) of all
    (Spearman-Brown), and its root is what a perfect score reaches.
    """
    rng, count = np.random.default_rng(seed), worth.shape[2]
    tell = np.ptp(worth.mean(2), 1) > 0
    if count < 2 or not tell.any():
        return None
    halved = []
    for _ in range(splits):
        order = rng.permutation(count)
        halves = (worth[tell][:, :, part].mean(2) for part in (order[: count // 2], order[count // 2 : count // 2 * 2]))
        halved.append(correlations(*halves).mean())
    r = float(np.mean(halved))
    return (2 * r / (1 + r)) ** 0.5 if r > 0 else None


def study_of(config: WithinState, tried: TriedCandidates) -> Study:
    """A row for each critic."""
    worth = values(tried, config.truth, config.gamma)
    rows = []
    for name in config.critics:
        ranking = rank(scores_of(name, tried), worth, config.env_seed)
        rows.append((name, ranking.correlation, ranking.all, ranking.pairs, ranking.gain, ranking.most))

    top = ceiling(worth)
    states, plans, times = worth.shape
    tell = int((np.ptp(worth.mean(2), 1) > 0).sum())
    about = tried.about
    truth = "greatest progress" if config.truth == "progress" else f"{config.gamma:g}^(steps until success), 0 for none"

    return Study(
        title="Candidates of the same state, ranked by critics and by what becomes of them",
        command=_command(config),
        columns=COLUMNS,
        rows=rows,
        notes=(
            f"{states} states of as many episodes (env seeds {about['starts']}) x {plans} candidates of "
            f"{about['policy']} x {times} continuations in {about['world']}; truth of a candidate: mean of {truth}",
            f"Rank correlation: Spearman's in each of the {tell} states in which candidates differ, mean; all states: "
            "the others counted as 0; intervals 95 %, bootstrap over states",
            "Better of two: share of pairs of candidates of different truth in the right order. Gain: truth of the "
            "candidate chosen above the mean one; that of the best is too high by the luck of the continuations",
            f"Mean truth {worth.mean():.3f}; "
            + (f"a perfect critic would show about {top:.2f}" if top else "continuations too few to tell a ceiling"),
        ),
    )


def curve_study(config: WithinState, tried: TriedCandidates) -> Study:
    """A row for each number of candidates: what becomes of the one that each critic chooses, and how it scores it."""
    worth = values(tried, config.truth, config.gamma).mean(2)
    plans = worth.shape[1]
    counts = [count for count in (1, 2, 3, 5, 10, 20, 30, 50, 100) if count < plans] + [plans]

    columns, parts = ["candidates"], [counts]
    for name in config.critics:
        scores = scores_of(name, tried).astype(np.float64)
        columns += [f"{name}: truth", f"{name}: score"]
        for table in (worth, scores):
            parts.append([best_of(scores, table, count) for count in counts])

    return Study(
        title="The best of K candidates of the same state, by critics: what becomes of it",
        command=_command(config),
        columns=columns,
        rows=list(zip(*parts, strict=True)),
        notes=(
            f"{len(worth)} states; every K of the {plans} candidates counts alike; then the policy acts alone",
            "A critic that is misled by its own errors shows a score that rises where the truth falls",
        ),
    )


def scores_of(critic: str, tried: TriedCandidates) -> np.ndarray:
    """(S, P) scores of the critic that `critic` describes, see `policies/critics/open.py`."""
    import torch

    from ...policies.critics.open import open_critic
    from ...policies.load import load_policy

    policy = None if critic == "random" else load_policy(tried.about["policy"])[0]
    judge = open_critic(critic, policy)
    if judge.reads not in (0, 1, tried.about["n_action_steps"]):
        raise ValueError(
            f"{critic} scores {judge.reads} actions, but candidates were tried by {tried.about['n_action_steps']}"
        )
    with torch.no_grad():
        return judge.score(tried.past(), tried.plans()).cpu().numpy()


def _try(config: WithinState) -> TriedCandidates:
    from ...policies.agent.agent import Agent
    from ...policies.agent.open import open_agent
    from ...policies.critics.open import open_critic
    from ..evaluate.evaluate import Eval, open_stage

    settings = Eval(
        policy=config.policy, world=config.world, out="unused", block=config.block,
        n_action_steps=config.n_action_steps,
        steps=config.steps, policy_seed=config.env_seed,
    )  # fmt: skip
    world = open_stage(settings)

    # The critics judge; the first agent's planner acts.
    first, _ = open_agent(settings, world.embodiment, world.task)
    first.planner.embodiment.check(world.embodiment(), first.planner.inputs)
    if first.ensemble is not None:
        raise ValueError(
            f"the policy in '{config.policy}' blends chunks (temporal ensembling), so that no state of its own says"
            " what it does next; this study takes policies that execute the newest chunk"
        )
    judges = [open_critic(name, first.planner) for name in config.critics]
    agent = Agent(
        first.planner,
        lanes=config.block,
        n_action_steps=first.n_action_steps,
        critic=Remembered(judges),
        seed=config.env_seed,
    )

    starts = range(config.env_seed, config.env_seed + config.states)
    about = {"policy": config.policy, "world": str(world.task), "n_action_steps": agent.n_action_steps}
    about |= {"starts": f"{starts.start}..{starts.stop - 1}", "times": config.times}
    with closing(Lanes(world, config.block, config.workers)) as lanes:
        return try_plans(
            agent, lanes, starts, plans=config.candidates, times=config.times, seed=config.env_seed, about=about
        )


def _signed(values: np.ndarray, rng: np.random.Generator) -> Interval:
    """Bootstrap interval of the mean of values in -1..1."""
    interval = bootstrap_interval((values.clip(-1, 1) + 1) / 2, rng)
    return Interval(*(2 * part - 1 for part in interval))


def _in_order(scores: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pairs of different truth that are in the right order; equal scores count half."""
    apart = np.sign(truth[:, :, None] - truth[:, None])
    right = (np.sign(scores[:, :, None] - scores[:, None]) * apart + 1) / 2
    return float(right[apart != 0].mean())


def _command(config: WithinState) -> str:
    return command_of(config, "study within_state", without=("keep", "workers", "threads", "out", "curve"))
