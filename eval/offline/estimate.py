r"""What policies are worth, judged by recorded episodes alone, and whether such a judgement makes a good shortlist.

    understudy estimate RUN RUN RUN --data DATA --out fqe.json
    understudy estimate RUN RUN RUN --data DATA --truth REC REC REC

Fitted Q-evaluation (`fqe.py`) of each policy, at the pace at which it acts: an action is the E actions that it executes
of a chunk, what it would do next is drawn from it with the history that the recording holds. Reward 1 ends an episode
with its first success, so a value is the mean of gamma^(steps before it), 0 for none; a recording that was cut short
counts as going on. Truths are the same number from evaluation records of the same policies, in their order. State
vectors only. Its ranking can fail, above all where policies do what nobody recorded: look at the truths where there are
any. Nothing here acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...configs.command import command_of
from ...configs.episode import SENT, SUCCESS
from ...configs.progress import counted
from ...policies.data.weighting import successes
from ..ledger.record import Record, read_record
from ..ledger.study import Study
from ..statistics.intervals import Interval, mean_interval
from .fqe import FitSettings, Logged, evaluate_logged
from .shortlist import regret, sharpe_ratio

if TYPE_CHECKING:
    from ...policies.data.dataset import Dataset
    from ...policies.policy import Planner


BATCH = 256  # windows asked at a time


@dataclass(frozen=True, kw_only=True)
class LoggedPolicies:
    """Judge what policies are worth by recorded episodes with success labels, by fitted Q-evaluation; nobody acts.

    How far their plans lie from the recorded actions is another question: `understudy eval --policy RUN --data DATA`.
    """

    DISCOVER: ClassVar[tuple[str, ...]] = ("policies",)
    POSITIONALS: ClassVar[tuple[str, ...]] = ("policies",)

    policies: tuple[str, ...]  # runs or checkpoints
    data: str  # recorded episodes with success labels, good and bad; several: A,B
    episodes: str = "all"  # which of them, for example 0-5,7-9; of several datasets one part for each: 0-5;all
    without: str = ""  # episodes left out, for example 6
    columns: dict[str, list[str] | str] = field(default_factory=dict)  # {action: actions, observation.state: [a, b]}
    truth: tuple[str, ...] = ()  # evaluation records of the same policies, in their order
    gamma: float = 0.99  # discount of a control step
    draws: int = 2  # actions sampled from the policy at each state
    most: int = 20_000  # transitions used, spread evenly
    shortlist: int = 2  # with --truth: how many policies are short-listed, k of SharpeRatio@k
    fit: FitSettings = FitSettings()
    threads: int = 1  # CPU threads that torch uses
    out: Path | None = None  # JSON file for the table

    def run(self) -> None:
        """Print the table, write it if asked. Raises ValueError, OSError, LookupError for what cannot be judged."""
        import torch

        if self.truth and len(self.truth) != len(self.policies):
            raise ValueError(
                f"{counted(len(self.truth), 'record')} for {counted(len(self.policies), 'policy')}; give one each, "
                "in order"
            )
        torch.set_num_threads(self.threads)
        study = study_of(self)
        print(f"{study.title}\n\n{study.markdown()}\n")
        print("\n".join(f"{note}." for note in study.notes))
        if self.out is not None:
            print(f"written: {study.write(self.out)}")


def study_of(config: LoggedPolicies) -> Study:
    """A row for the recorded episodes themselves, and one for each policy."""
    from ...policies.load import load_policy

    truths = [discounted(read_record(path), config.gamma) for path in config.truth]
    rows, estimates, behaviour = [], [], None
    for place, path in enumerate(config.policies):
        policy = load_policy(path)[0]
        logged, behaviour, about = transitions(policy, config)
        judged = evaluate_logged(logged, config.fit)
        estimates.append(judged.value.estimate)
        rows.append((path, judged.value, truths[place] if truths else None, len(logged.state), judged.loss))
    rows.insert(0, ("recorded episodes", behaviour, behaviour if truths else None, None, None))
    return Study(
        title="What policies are worth by recorded episodes",
        command=command_of(config, "estimate", without=("threads", "out")),
        columns=("policy", "estimate", "by its own episodes", "transitions", "loss"),
        rows=rows,
        notes=(*_notes(config, about), *_ranking(config, estimates, [truth.estimate for truth in truths], behaviour)),
    )


def transitions(policy: Planner, config: LoggedPolicies) -> tuple[Logged, Interval, str]:
    """What `policy` is judged by, what the recorded episodes were worth, and which these are, in words.

    Raises:
        ValueError: pictures, no labels, or an embodiment that is not the policy's.
    """
    from ...configs.spec import ACTION, IMAGES, SCENE, STATE
    from ...policies.data.open import open_dataset
    from ...policies.policy import executed_of

    if any(key.startswith(IMAGES) for key in policy.inputs):
        raise ValueError(
            f"logged episodes are judged by state vectors, but the policy reads {', '.join(policy.inputs)}"
        )
    dataset = open_dataset(config.data, episodes=config.episodes, without=config.without, sources=config.columns)
    if SUCCESS not in dataset.columns:
        raise ValueError(f"nobody says which episodes of {dataset.root} succeeded; see `understudy label`")
    policy.embodiment.check(dataset.embodiment, policy.inputs)
    steps, first = executed_of(policy), successes(dataset)
    rows, reward, discount = chunks(dataset, first, steps, config.gamma)
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(config.most, len(rows))).round().astype(np.int64))
    rows, reward, discount = rows[chosen], reward[chosen], discount[chosen]
    state = np.concatenate([dataset.columns[key] for key in (STATE, SCENE) if key in dataset.columns], 1)
    state = (state - state.mean(0)) / np.maximum(state.std(0), 1e-6)
    drawn = plans_at(policy, dataset, np.unique(np.concatenate([rows + steps, dataset.starts])), steps, config.draws)
    low, high = np.asarray(policy.embodiment.limits, np.float32).T
    acted = dataset.columns.get(SENT, dataset.columns[ACTION])
    done = np.stack([acted[np.minimum(rows + step, len(acted) - 1)] for step in range(steps)], 1)
    ahead = np.minimum(rows + steps, len(state) - 1)

    def scaled(actions: np.ndarray) -> np.ndarray:
        return (2 * (actions - low) / (high - low) - 1).reshape(*actions.shape[:-2], -1)

    logged = Logged(
        state[rows], scaled(done), reward, discount, state[ahead], scaled(drawn(ahead)),
        np.searchsorted(dataset.starts, rows, "right") - 1, state[dataset.starts], scaled(drawn(dataset.starts)),
    )  # fmt: skip
    worth = np.where(first >= 0, config.gamma ** np.maximum(first, 0), 0.0)
    return (
        logged,
        mean_interval(worth),
        f"{counted(len(first), 'episode')} of {config.data}, {int((first >= 0).sum())} successes",
    )


def chunks(dataset: Dataset, first: np.ndarray, steps: int, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows from which `steps` actions were recorded, or success came before; their reward, and discount after.

    What a recording that was cut short would have shown next is not known: its last rows are left out.
    """
    now = np.arange(len(dataset)) - np.repeat(dataset.starts, dataset.lengths)
    length, success = np.repeat(dataset.lengths, dataset.lengths), np.repeat(first, dataset.lengths)
    away = success - now
    ends = (success >= 0) & (away >= 0) & (away < steps)
    kept = ends | ((now + steps < length) & ((success < 0) | (away >= 0)))
    reward = np.where(ends, gamma ** np.maximum(away, 0).astype(np.float64), 0.0)
    return np.flatnonzero(kept), reward[kept], np.where(ends, 0.0, gamma**steps)[kept]


def plans_at(policy: Planner, dataset: Dataset, rows: np.ndarray, steps: int, draws: int):
    """A function rows -> (n, J, E, D) actions that the policy would execute there, of the `rows` asked once."""
    import torch

    from ...policies.agent.goal import windows_of
    from ...policies.data.windows import Windows
    from ...policies.policy import LaneNoise, past_of

    rows = rows[rows < len(dataset)]
    windows, futures = Windows(dataset, policy.window, tuple(policy.inputs), **windows_of(policy)), []
    for some in np.split(rows, range(BATCH, len(rows), BATCH)):
        noise = LaneNoise(0, some, np.zeros(len(some), np.int64))
        with torch.no_grad():
            past = past_of(windows.gather(some), policy.window, tuple(policy.inputs))
            futures.append(policy.plan(past, draws, noise).future[:, :, :steps].cpu().numpy())
    plans = np.concatenate(futures)
    return lambda asked: plans[np.searchsorted(rows, asked).clip(max=len(rows) - 1)]


def discounted(record: Record, gamma: float) -> Interval:
    """Mean of gamma^(steps before the first success), 0 for none, of the episodes of a record."""
    first = np.asarray(record.column("first_success"), np.float64)
    return mean_interval(np.where(first >= 0, gamma ** np.maximum(first - 1, 0), 0.0))


def _ranking(config: LoggedPolicies, estimates: list[float], truths: list[float], behaviour: Interval) -> list[str]:
    """How good the estimates rank, in sentences."""
    from scipy.stats import spearmanr

    if len(truths) < 2:
        return []
    k, sentences = min(config.shortlist, len(truths)), []
    if min(np.ptp(estimates), np.ptp(truths)) > 0:
        sentences.append(f"Spearman correlation of estimates and truths {spearmanr(estimates, truths).statistic:.2f}")
    sentences.append(f"Regret of the best by estimate {regret(estimates, truths):.3f}")
    if k >= 2:
        ratio = sharpe_ratio(estimates, truths, behaviour.estimate, k)
        sentences.append(f"SharpeRatio@{k} {ratio:.2f}, behaviour: the recorded episodes")
    return sentences


def _notes(config: LoggedPolicies, about: str) -> tuple[str, ...]:
    fit = config.fit
    return (
        f"Value: mean of {config.gamma:g}^(steps before the first success), 0 for none; the policies never acted",
        f"Data: {about}; {config.draws} draws of the policy at each state",
        f"95 % intervals: the fit repeated on {fit.replicates} resamplings of the episodes, Student's t; they do not "
        "cover what no episode shows",
        f"Fit: {counted(fit.steps, 'step')} of Adam, batch {fit.batch}, rate {fit.rate:g}, target {fit.tau:g}, seed "
        f"{fit.seed}",
    )
