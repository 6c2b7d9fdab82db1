"""How far a policy's planned actions lie from recorded ones: it plans at recorded observations, nobody acts.

For an observation at frame t the chunk's step k is compared with the action of frame t + k, where the episode has one.
Errors are absolute differences in the action's own units, of the first sample of each chunk; with more samples also of
their mean. Two guesses are judged by the same windows: the mean action, and the action before now, repeated (before the
first action: the mean action). The history that the policy reads is the recorded one. Angles are compared as numbers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...configs.spec import ACTION, Embodiment
from ...policies.data import statistics
from ...policies.data.windows import Windows
from .record import ERRORS, over_steps

if TYPE_CHECKING:
    from ...policies.data.dataset import Dataset
    from ...policies.policy import Planner

KINDS = {  # what a dimension is called by -> its kind; the first that fits
    "gripper": ("grip", "finger", "jaw", "claw", "thumb", "pinky", "handring", "handmiddle", "handindex"),
    "rotation": ("rot", "quat", "roll", "pitch", "yaw", "euler", "theta", "angle", "axis", "wrist_r", "rx", "ry", "rz"),
}
WRAPS = np.pi  # rad that no joint turns in one control step


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a policy is asked to plan."""

    n_action_steps: int  # E, of each chunk
    candidates: int = 1  # N samples at each observation
    policy_seed: int = 0
    every: int = 1  # control steps between observations at which it plans
    batch: int = 64  # observations at a time


def chunk_errors(policy: Planner, dataset: Dataset, place: int, mean: np.ndarray, asked: Asked) -> dict:
    """A row of `record.COLUMNS`: what the policy plans along the episode at position `place`, and how far off it is.

    Args:
        mean: (D,) the guess that knows nothing, in the action's units.

    Raises:
        FloatingPointError: the policy plans what is no number.
    """
    from ...policies.agent.goal import windows_of

    recorded = dataset.columns[ACTION][dataset.starts[place] :][: dataset.lengths[place]]  # (T, D)
    length, horizon, executed = len(recorded), policy.window.horizon, asked.n_action_steps
    frames = np.unique(np.r_[0 : length : asked.every, 0:length:executed])
    windows = Windows(dataset, policy.window, tuple(policy.inputs), np.array([place]), **windows_of(policy))
    number = int(dataset.episode_ids[place])
    plans, wall = _plan(policy, windows, number, frames, asked)  # (B, N, H, D)
    if not np.isfinite(plans).all():
        raise FloatingPointError(f"the policy plans NaN or infinity at observations of episode {number}")

    # what an agent that replans every E steps would do
    replans = np.searchsorted(frames, np.arange(0, length, executed))
    planned = plans[replans, 0, :executed].reshape(-1, recorded.shape[1])[:length]

    # each guess against what was done, step by step of the chunk
    judged = frames % asked.every == 0
    frames, plans = frames[judged], plans[judged]
    at = frames[:, None] + np.arange(horizon)
    wanted, valid = recorded[np.minimum(at, length - 1)], at < length  # (B, H, D), (B, H)
    before = np.where(frames[:, None] > 0, recorded[np.maximum(frames - 1, 0)], mean)
    guesses = {"error": plans[:, 0], "mean_action_error": mean, "last_action_error": before[:, None]}
    guesses["samples_mean_error"] = plans.mean(1) if asked.candidates > 1 else None

    row = {
        "episode": number,
        "task": dataset.tasks[place],
        "length": length,
        "windows": len(frames),
        "windows_by_step": valid.sum(0).astype(float).tolist(),
    }
    for name, guess in guesses.items():
        row[name] = row[ERRORS[name]] = []
        if guess is not None:
            off = np.abs(guess - wanted) * valid[:, :, None]
            row[ERRORS[name]] = _plain(off.sum(0) / np.maximum(valid.sum(0), 1)[:, None])
            row[name] = _plain(over_steps(row, ERRORS[name], executed))
    alone = dataclasses.replace(asked, candidates=1)
    _, latency = _plan(policy, windows, number, np.array([length // 2]), alone)
    return row | {
        "recorded": _plain(recorded),
        "planned": _plain(planned),
        "latency": latency,
        "wall_policy": wall,
    }


def spread_of(dataset: Dataset) -> np.ndarray:
    """(D,) standard deviation of the recorded actions, in units; 0 of a dimension that moves by rounding noise only."""
    actions = dataset.columns[ACTION]
    spread, floor = statistics.spread_of(actions), statistics.noise_floor(actions.min(0), actions.max(0))
    return np.where(spread > floor, spread, 0.0)


def mean_action(dataset: Dataset, places: np.ndarray) -> np.ndarray:
    """(D,) float32 mean of the recorded actions of the episodes at `places`."""
    member = np.zeros(len(dataset.lengths), bool)
    member[places] = True
    return dataset.columns[ACTION][np.repeat(member, dataset.lengths)].mean(0, dtype=np.float64).astype(np.float32)


def kinds_of(body: Embodiment) -> list[str]:
    """What each action dimension is: gripper, rotation or other; by its name, and by its unit."""
    kinds = []
    for name, unit in zip(body.action, body.action_units, strict=True):
        low = name.lower()
        named = next((kind for kind, words in KINDS.items() if any(word in low for word in words)), None)
        kinds.append(named or ("rotation" if unit in ("rad", "deg") else "other"))
    return kinds


def wrapping(dataset: Dataset) -> list[str]:
    """Names of absolute angles (rad) that jump by more than half a turn between two frames."""
    body, actions = dataset.embodiment, dataset.columns[ACTION]
    inner = np.ones(len(actions), bool)
    inner[dataset.starts] = False
    jumps = (np.abs(np.diff(actions, axis=0, prepend=actions[:1]))[inner] > WRAPS).any(0)
    return [
        name
        for name, unit, jumped in zip(body.action, body.action_units, jumps, strict=True)
        if unit == "rad" and jumped and body.mode.value != "velocity"
    ]


def _plan(policy: Planner, windows: Windows, number: int, frames: np.ndarray, asked: Asked) -> tuple[np.ndarray, float]:
    """(B, N, H, D) chunks in units, for the observations of episode `number` at `frames` (B,); and the seconds."""
    import torch

    from ...policies.policy import LaneNoise, past_of, weights_of

    device = next((weight.device for weight in weights_of(policy)), torch.device("cpu"))
    inputs, chunks, wall = tuple(policy.inputs), [], 0.0
    for some in np.split(frames, range(asked.batch, len(frames), asked.batch)):
        batch = {key: value.to(device) for key, value in windows.gather(some).items()}
        past = past_of(batch, policy.window, inputs)
        noise = LaneNoise(asked.policy_seed, np.full(len(some), number), some)
        begun = time.perf_counter()
        with torch.no_grad():
            chunks.append(policy.plan(past, asked.candidates, noise).future.float().cpu().numpy())
        wall += time.perf_counter() - begun
    return np.concatenate(chunks), wall


def _plain(values: np.ndarray) -> list[float]:
    """Flat, as float32 with seven digits, so that a line of JSON and the table hold the same."""
    return [float(f"{value:.7g}") for value in np.asarray(values, np.float64).ravel().tolist()]


def relative(row: Mapping, name: str, spread: np.ndarray, steps: int) -> np.ndarray:
    """(D,) an error of a row over the first `steps` steps, in spreads of each dimension; NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, over_steps(row, ERRORS[name], steps) / spread, np.nan)
