"""How much each past observation matters to a policy: one frame is swapped for another episode's, the chunk compared.

Windows are frames of demonstrations. For each observed offset, the frame there is replaced by the one that another
episode shows at the same offset and the same step since its beginning (so that it is a likely frame, of another story),
and the policy plans again with the same noise. `change` is the root mean square change of the actions it would
execute, over the same where everything seen was swapped: 0, the frame is not used; 1, it alone decides which chunk is
made. The parts need not add up to 1. Steps shorter than the offset have no such frame and are left out there.

What this cannot tell: a frame whose content other frames repeat may be used and yet change little, and swapped frames
side by side with true ones are windows that nobody has seen. Recalled actions are an input only of a policy that is
given them (`given`). One that denoises them beside the future ones (PTP, or the baseline without a target) has its own
version of them in every chunk: `PINNED` holds this part of it at the executed actions while the rest is denoised,
so that it shows how much the chunk suffers from what the policy makes of its past.
Knows nothing of files; a policy is a `Planner`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..statistics.intervals import Interval

if TYPE_CHECKING:
    from torch import Tensor

    from ...policies.data.windows import Windows
    from ...policies.policy import LaneNoise, Past, Planner

FRAME, GIVEN, PINNED, NOISE = "frame", "given action", "recalled actions as executed", "another noise"
BATCH = 256  # windows planned for at a time
FEWEST = 5  # episodes that an interval is made of


@dataclass(frozen=True)
class Change:
    """What replacing one part of what was seen does to the chunks of W windows."""

    what: str  # FRAME, GIVEN, PINNED, NOISE
    key: str  # the observation that was swapped; "": all of them, or none
    offset: int  # control steps, 0 = now
    moved: np.ndarray  # (W,) mean squared change of the executed actions, scaled; nan where there is no such frame
    most: np.ndarray  # (W,) the same where everything seen was swapped
    episode: np.ndarray  # (W,) id of the window's episode

    def interval(self, rng: np.random.Generator, draws: int = 2000) -> Interval | None:
        """Change relative to swapping everything, with a 95 % bootstrap interval over episodes; see `interval_of`."""
        return interval_of([self], rng, draws)


def interval_of(changes: Sequence[Change], rng: np.random.Generator, draws: int = 2000) -> Interval | None:
    """The same part of several policies (training seeds) together: all windows count alike, episodes are redrawn.

    The interval is of these policies on fresh episodes; it knows nothing of further training seeds. None where fewer
    than `FEWEST` episodes reach so far back.
    """
    sums = [_sums(change) for change in changes]
    episodes = sorted(set().union(*sums))
    table = np.array([[of_change.get(episode, (0.0, 0.0)) for episode in episodes] for of_change in sums]).sum(0)
    if len(table) < FEWEST or not table[:, 1].sum() > 0:
        return None
    weights = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), draws)
    moved, most = (weights @ table).T
    low, high = np.quantile(np.sqrt(moved[most > 0] / most[most > 0]), (0.025, 0.975))
    return Interval(float(low), float(np.sqrt(table[:, 0].sum() / table[:, 1].sum())), float(high))


def changes(
    planner: Planner, windows: Windows, rows: np.ndarray, *, keys: bool = False, seed: int = 0
) -> Iterator[Change]:
    """Swap every frame in turn, oldest first, then every given action; hold the recalled ones; draw other noise.

    Args:
        windows: of all episodes of the dataset, so that its position is the dataset's row; the planner's own window.
        rows: (W,) windows to judge by.
        keys: swap each observation key alone, too.
        seed: of who is swapped with whom, and of the noise.

    Raises:
        ValueError: the dataset has one episode, so that there is no other.
    """
    from ...policies.policy import past_is_given

    story = _Story.of(planner, windows, rows, seed)
    plain = story.plan(story.past)
    most = story.moved(plain, story.plan(story.swapped(range(len(story.past.obs_times)), given=True)))
    names = [("", tuple(planner.inputs))]
    names += [(key, (key,)) for key in planner.inputs] if keys and len(planner.inputs) > 1 else []
    for place, offset in enumerate(planner.window.observe):
        there = _both(story.past.obs_valid, story.other.obs_valid, place)
        for name, some in names:
            moved = story.moved(plain, story.plan(story.swapped([place], some)))
            yield Change(FRAME, name, offset, np.where(there, moved, np.nan), most, story.episode)
    for place, offset in enumerate(planner.window.recall if past_is_given(planner) else ()):
        there = _both(story.past.action_valid, story.other.action_valid, place)
        moved = story.moved(plain, story.plan(story.swapped((), given=place)))
        yield Change(GIVEN, "", offset, np.where(there, moved, np.nan), most, story.episode)
    if _is_denoised(planner):
        there = story.past.action_valid.any(1).numpy()
        yield Change(PINNED, "", 0, np.where(there, story.moved(plain, story.pinned()), np.nan), most, story.episode)
    yield Change(NOISE, "", 0, story.moved(plain, story.plan(story.past, 1)), most, story.episode)


def count_changes(planner: Planner, keys: bool = False) -> int:
    """How many `changes` there are."""
    from ...policies.policy import past_is_given

    names = 1 + (len(planner.inputs) if keys and len(planner.inputs) > 1 else 0)
    tokens = len(planner.window.recall) if past_is_given(planner) else 0
    return len(planner.window.observe) * names + tokens + _is_denoised(planner) + 1


def spread_rows(starts: np.ndarray, lengths: np.ndarray, most: int) -> np.ndarray:
    """At most `most` rows of the episodes that begin at rows `starts`, evenly spread over all their frames."""
    rows = np.concatenate([np.arange(first, first + count) for first, count in zip(starts, lengths, strict=True)])
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64))]


@dataclass(frozen=True)
class _Story:
    """Windows, and for each one of another episode at the same step."""

    planner: Planner
    rows: np.ndarray  # (W,)
    past: Past
    other: Past
    episode: np.ndarray  # (W,)
    seed: int

    @classmethod
    def of(cls, planner: Planner, windows: Windows, rows: np.ndarray, seed: int) -> _Story:
        from ...policies.policy import past_of

        dataset, rows = windows.dataset, np.asarray(rows, np.int64)
        if len(dataset.lengths) < 2:
            raise ValueError(f"{dataset.root} has one episode; what matters is found by swapping frames between two")
        rng = np.random.default_rng(seed)
        mine = np.searchsorted(dataset.starts, rows, "right") - 1
        theirs = (mine + rng.integers(1, len(dataset.lengths), len(rows))) % len(dataset.lengths)
        steps = np.minimum(rows - dataset.starts[mine], dataset.lengths[theirs] - 1)
        gathered = [windows.gather(some) for some in (rows, dataset.starts[theirs] + steps)]
        past, other = (past_of(batch, planner.window, tuple(planner.inputs)) for batch in gathered)
        return cls(planner, rows, past, other, gathered[0]["episode"].numpy(), seed)

    def swapped(self, places: Sequence[int], keys: Sequence[str] | None = None, given: int | bool = False) -> Past:
        """The past with the frames at `places` of some keys, and a given action (True: all), taken from the other."""
        keys, places = tuple(self.past.obs) if keys is None else keys, list(places)
        obs = {key: _swap(value, self.other.obs[key], places) for key, value in self.past.obs.items() if key in keys}
        changed = {"obs": dict(self.past.obs) | obs}
        if given is not False:
            tokens = list(range(len(self.past.action_times))) if given is True else [given]
            changed["actions"] = _swap(self.past.actions, self.other.actions, tokens)
        return dataclasses.replace(self.past, **changed)

    def plan(self, past: Past, draw: int = 0) -> Tensor:
        """(W, E, D) actions that would be executed, in the scaled action space."""
        return self._planned(lambda some, noise: self.planner.plan(some, 1, noise).future, past, draw)

    def pinned(self) -> Tensor:
        """(W, E, D) the same with the recalled part of the chunk held at the executed actions."""
        return self._planned(lambda some, noise: _pinned_future(self.planner, some, noise), self.past, 0)

    def _planned(self, ask: Callable[[Past, LaneNoise], Tensor], past: Past, draw: int) -> Tensor:
        import torch

        from ...policies.policy import LaneNoise, executed_of, half_range

        parts = []
        for some in np.split(np.arange(len(self.rows)), range(BATCH, len(self.rows), BATCH)):
            noise = LaneNoise(self.seed, self.rows[some], np.full(len(some), draw))
            with torch.no_grad():
                future = ask(_take(past, some), noise)[:, 0]
            parts.append(future[:, : executed_of(self.planner, future.shape[1])])
        return torch.cat(parts) / half_range(self.planner)

    def moved(self, plain: Tensor, plan: Tensor) -> np.ndarray:
        """(W,) float64 mean squared difference."""
        return (plain - plan).double().square().mean((1, 2)).numpy()


def _is_denoised(planner: Planner) -> bool:
    """True if recalled actions are a part of the chunk that `GenerativePolicy.plan` denoises."""
    from ...policies.models.generative import GenerativePolicy
    from ...policies.policy import past_is_given

    plain = getattr(type(planner), "plan", None) is GenerativePolicy.plan
    return plain and bool(planner.window.recall) and not past_is_given(planner)


def _pinned_future(policy, past: Past, rng: LaneNoise) -> Tensor:
    """(B, 1, H, D) `GenerativePolicy.plan` with prefix conditioning on the executed actions, in units."""
    import torch

    from ...policies.field import noise_levels

    field = policy.field(past, 1)
    values = torch.zeros(field.shape)
    mask = torch.zeros(field.shape, dtype=torch.bool)
    recalled = len(policy.window.recall)
    values[:, 0, :recalled] = policy.action_scale.scale(past.actions)
    mask[:, 0, :recalled] = past.action_valid[..., None]
    levels = noise_levels(policy.sampler.steps, field.sigma_min, field.sigma_max)
    chunk = policy.sampler.draw(field, rng.normal(*field.shape[1:]), levels, known=(values, mask))
    return policy.action_scale.unscale(chunk)[:, :, recalled:]


def _both(mine: Tensor, theirs: Tensor, place: int) -> np.ndarray:
    return (mine[:, place] & theirs[:, place]).numpy()


def _swap(mine: Tensor, theirs: Tensor, places: list[int]) -> Tensor:
    mixed = mine.clone()
    mixed[:, places] = theirs[:, places]
    return mixed


def _take(past: Past, some: np.ndarray) -> Past:
    import torch

    chosen = torch.from_numpy(some)
    cut = {name: getattr(past, name)[chosen] for name in ("obs_valid", "actions", "action_valid", "now")}
    return dataclasses.replace(past, obs={key: value[chosen] for key, value in past.obs.items()}, **cut)


def _sums(change: Change) -> Mapping[int, tuple[float, float]]:
    """Episode -> (squared change, squared change of everything), over its windows that have such a frame."""
    sums: dict[int, tuple[float, float]] = {}
    for episode, moved, most in zip(change.episode.tolist(), change.moved, change.most, strict=True):
        if np.isfinite(moved):
            a, b = sums.get(episode, (0.0, 0.0))
            sums[episode] = a + float(moved), b + float(most)
    return sums
