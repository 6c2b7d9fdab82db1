"""Replay recorded demonstrations in a simulator, step by step, to recover what the recording left out.

PushT: the published human demonstrations hold the pusher's position and no block. Their recorder started episode k
from `numpy.random.RandomState(k)`; k is found again from the first recorded pusher position, so that any subset or
renumbered copy works. Nothing is written unless the replay reproduces every recorded position and reward. It knows only
tasks whose rule of initial conditions is known. Source of the recordings: Chi et al. 2023 (Diffusion Policy).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...configs.episode import REWARD, Episode
from ...configs.files import replace_folder
from ...configs.lanes.lane import Lane
from ...configs.plugins import lookup
from ...configs.progress import Progress, counted
from ...configs.spec import ACTION, STATE
from ...configs.world import find_world
from ...policies.data.dataset import Dataset
from ...policies.data.open import open_dataset
from ...policies.data.writer import DatasetWriter

SEEDS = 10_000  # the recorder's env seeds that are tried: 0 .. SEEDS - 1
POSITION = 1e-3  # px, allowed difference of the pusher
GAIN = 1e-4  # allowed difference of the reward
BLOCK = ("block.x", "block.y", "block.angle")  # px, px, rad


class ReplayError(ValueError):
    """The simulator does not reproduce the recording; the message names the first differing step."""


@dataclass(frozen=True)
class Resim:
    """Replay a dataset's actions in a simulator: full states, pictures, rewards, checked against what was recorded."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("task",)

    task: str  # whose rule of initial conditions, and world: pusht
    data: str  # LeRobotDataset folder or hub id with observation.state and action
    out: str  # dataset folder to write
    episodes: str = "all"  # which of its episodes, for example 0-5,7-9
    without: str = ""  # episodes left out, for example 6
    columns: dict[str, list[str] | str] = field(default_factory=dict)  # {action: actions, observation.state: [a, b]}
    images: bool = True  # draw 96x96 pictures, camera "image"

    def run(self) -> None:
        replay = lookup("task to replay", self.task, REPLAYS)
        out = Path(os.path.expandvars(self.out))
        if out.exists():
            raise FileExistsError(f"'{out}' exists already; give another --out")
        dataset = open_dataset(self.data, episodes=self.episodes, without=self.without, sources=self.columns)
        print(f"{out}: {write_replay(replay, dataset, out, self.images)}")


@dataclass(frozen=True)
class ReplayAgreement:
    """How well a replay met its recording."""

    episodes: int = 0
    steps: int = 0
    position: float = 0.0  # px, largest difference
    reward: float | None = None  # largest difference; None: no rewards were recorded

    def __str__(self) -> str:
        rewards = "no rewards recorded" if self.reward is None else f"rewards within {self.reward:.1e} (allowed {GAIN})"
        return (
            f"{counted(self.episodes, 'episode')}, {counted(self.steps, 'step')} replayed; pusher positions within "
            f"{self.position:.1e} px (allowed {POSITION}), {rewards}, at every step"
        )

    def __add__(self, other: ReplayAgreement) -> ReplayAgreement:
        rewards = [reward for reward in (self.reward, other.reward) if reward is not None]
        return ReplayAgreement(
            self.episodes + other.episodes,
            self.steps + other.steps,
            max(self.position, other.position),
            max(rewards) if rewards else None,
        )


def write_replay(replay: Callable, dataset: Dataset, out: Path, images: bool) -> ReplayAgreement:
    """Replay all of `dataset` into the dataset folder `out`: written beside and renamed, so never half there.

    Raises:
        ReplayError: an episode that the simulator does not reproduce.
        FileExistsError: the folder was made meanwhile.
    """
    lane, extra = replay.open(images)
    total = ReplayAgreement()

    def fill(half: Path) -> None:
        nonlocal total
        writer = DatasetWriter(half, lane.embodiment, extra=extra)
        with Progress("replaying", len(dataset.lengths), "episodes") as progress:
            for episode, agreement in replay(lane, dataset):
                writer.add(episode)
                total += agreement
                progress.update(total.episodes)
        if out.exists():  # made by somebody else meanwhile
            raise FileExistsError(f"'{out}' exists already; give another --out")

    with closing(lane):
        replace_folder(out, fill)
    return total


class PushTReplay:
    """The human PushT demonstrations in gym-pusht."""

    @staticmethod
    def open(images: bool) -> tuple[Lane, dict[str, tuple[str, ...]]]:
        """The environment to replay in, and the extra columns of the episodes."""
        import dataclasses

        cameras = {"image": (96, 96)} if images else {}
        return dataclasses.replace(find_world("pusht"), cameras=cameras).lane(), {"block_pose": BLOCK}

    def __call__(self, lane: Lane, dataset: Dataset) -> Iterator[tuple[Episode, ReplayAgreement]]:
        """Every episode of `dataset`, replayed."""
        for begin, length, number, text in zip(
            dataset.starts, dataset.lengths, dataset.episode_ids, dataset.tasks, strict=True
        ):
            rows = slice(begin, begin + length)
            state, action = dataset.columns[STATE][rows], dataset.columns[ACTION][rows]
            reward = dataset.columns[REWARD][rows, 0] if REWARD in dataset.columns else None
            yield self._find(lane, f"episode {number}", text or "pusht", state, action, reward)

    def _find(self, lane, name, text, state, action, reward) -> tuple[Episode, ReplayAgreement]:
        """Replay from each env seed that fits the first pusher position; the first that fits all along is it."""
        differences = []
        for seed in _candidates(state[0]):
            try:
                return replay_pusht(lane, seed, text, state, action, reward)
            except ReplayError as difference:
                differences.append(difference)
        if differences:
            raise ReplayError(f"{name} is not reproduced: {max(differences, key=lambda error: error.args[1]).args[0]}")
        x, y = state[0]
        raise ReplayError(
            f"{name} is not reproduced: it differs at step 0, where the pusher is at ({x:.3f}, {y:.3f}) px; "
            f"no env seed 0..{SEEDS - 1} of the recorder gives that. Is this the beginning of a recorded episode?"
        )


def replay_pusht(lane: Lane, seed: int, text: str, state, action, reward) -> tuple[Episode, ReplayAgreement]:
    """Replay one episode from the recorder's env seed `seed`.

    Args:
        state: (T, 2) recorded pusher positions before each action, px.
        action: (T, 2) recorded targets, px.
        reward: (T,) recorded rewards after each action, or None.

    Raises:
        ReplayError: with (message, step) of the first difference.
    """
    obs, _ = lane.reset(seed=seed, options={"state": recorder_start(seed)})
    seen, block, steps, agreement = [], [], [], ReplayAgreement(1, len(action), 0.0, None if reward is None else 0.0)

    for step, target in enumerate(action):
        off = float(np.abs(obs[STATE] - state[step]).max())
        if not off <= POSITION:
            raise _difference(step, seed, f"the pusher is {off:.3g} px from where it was recorded", POSITION)

        seen.append(obs)
        block.append(lane.block_pose())
        obs, gain, _, _, info = lane.step(target)
        steps.append((gain, info["progress"], info["success"], info["action.sent"]))

        missed = 0.0 if reward is None else _missed(reward, step, gain)
        if not missed <= GAIN:
            raise _difference(step, seed, f"the reward {gain:.6f} is {missed:.3g} from the recorded one", GAIN)
        agreement += ReplayAgreement(0, 0, off, missed)

    rewards, progress, success, sent = (np.array(column) for column in zip(*steps, strict=True))
    episode = Episode(
        start=seed,
        task=text,
        obs={key: np.stack([frame[key] for frame in seen]) for key in obs},
        action=action,
        sent=sent,
        reward=rewards.astype(np.float32),
        progress=progress.astype(np.float32),
        success=success,
        terminated=bool(success[-1]),
        truncated=not success[-1],
        final=obs,
        extra={"block_pose": np.array(block, np.float32)},
    )
    return episode, agreement


def recorder_start(seed: int) -> list[float]:
    """Pusher x, y, block x, y in px and angle in rad that the recorder drew from `RandomState(seed)`."""
    rng = np.random.RandomState(seed)
    pusher = [rng.randint(50, 450), rng.randint(50, 450)]
    return [*pusher, rng.randint(100, 400), rng.randint(100, 400), rng.randn() * 2 * np.pi - np.pi]


def _missed(reward: np.ndarray, step: int, gain: float) -> float:
    """Difference of the reward; the published recordings repeat the last but one reward in the last row."""
    missed = abs(float(reward[step]) - float(gain))
    last_repeats = 0 < step == len(reward) - 1 and reward[step] == reward[step - 1]
    return 0.0 if last_repeats else missed


def _difference(step: int, seed: int, what: str, allowed: float) -> ReplayError:
    return ReplayError(f"from env seed {seed}, {what} at step {step} (allowed {allowed})", step)


def _candidates(position: np.ndarray) -> list[int]:
    """Env seeds whose pusher begins at `position`."""
    return np.flatnonzero((np.abs(_first_positions() - position) <= POSITION).all(1)).tolist()


@cache
def _first_positions() -> np.ndarray:
    """(SEEDS, 2) pusher positions; a second of work."""
    return np.array([np.random.RandomState(seed).randint(50, 450, 2) for seed in range(SEEDS)])


REPLAYS = {"pusht": PushTReplay()}
