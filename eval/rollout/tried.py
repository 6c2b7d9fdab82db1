"""Candidates tried out: from states that a policy came to, several of its action chunks, each continued several times.

Which of two chunks is better in a state cannot be read off recorded episodes: there is one a state. So the world is
put back: by its own state where an environment offers `get_state` and `set_state`, else by the env seed and the
actions that led there, which every world here repeats exactly; what is then observed must be what the policy saw.
Each continuation executes the E actions of the chunk and goes on with the policy alone, with noise that is common to
the chunks of a state. Knows nothing of critics; `within_state.py` asks them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.former import AGENT, renamed
from ...configs.lanes.lanes import Lanes
from ...configs.progress import Progress
from ...configs.rng import rng_of
from .rollout import NO_START, rollout

if TYPE_CHECKING:
    from ...policies.agent.agent import Agent, Memory
    from ...policies.policy import Past, Plans

KEY = 1_000  # noise of continuation c from state i is keyed by KEY * i + c


class RestoreError(ValueError):
    """A world that did not come back to the state that it was in."""


@dataclass(frozen=True)
class Replanning:
    """A state at which the policy planned."""

    start: int
    memory: Memory  # of the agent
    asked: np.ndarray  # (T, D) actions since the start
    state: np.ndarray | None  # of the world; None where it offers none


@dataclass(frozen=True)
class TriedCandidates:
    """P candidates in each of S states, each continued C times."""

    frames: Mapping[str, np.ndarray]  # key -> (S, R, ...) observations, the last one is now
    actions: np.ndarray  # (S, A, D) executed, the last one came before now
    now: np.ndarray  # (S,) int64 control steps since the start
    start: np.ndarray  # (S,) int64
    recalled: np.ndarray  # (S, P, K, D) the candidates' own version of the past
    future: np.ndarray  # (S, P, H, D) the candidates
    won: np.ndarray  # (S, P, C) int64 control steps until success, -1: none within the horizon
    best: np.ndarray  # (S, P, C) float32 greatest progress
    about: Mapping  # who, where, how: JSON-able

    def past(self) -> Past:
        """What was known in the S states, at all offsets that are held."""
        return past_at(self.frames, self.actions, self.now)

    def plans(self) -> Plans:
        """The P candidates of each state."""
        import torch

        from ...policies.policy import Plans

        return Plans(torch.from_numpy(self.recalled), torch.from_numpy(self.future), torch.from_numpy(self.now))

    def save(self, path: str | Path) -> Path:
        """Write a .npz file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name) for name in ARRAYS}
        frames = {f"frames/{key}": value for key, value in self.frames.items()}
        with path.open("wb") as file:
            np.savez_compressed(file, about=json.dumps(dict(self.about)), **arrays, **frames)
        return path


ARRAYS = ("actions", "now", "start", "recalled", "future", "won", "best")


def past_at(frames: Mapping[str, np.ndarray], actions: np.ndarray, now: np.ndarray) -> Past:
    """The `Past` of S moments, at all offsets that are held: frames (S, R, ...), actions (S, A, D), now (S,)."""
    import torch

    from ...policies.policy import Past

    reach = next((value.shape[1] for value in frames.values()), 1)
    seen, done = np.arange(1 - reach, 1), np.arange(-actions.shape[1], 0)
    return Past(
        obs={key: torch.from_numpy(value) for key, value in frames.items()},
        obs_times=tuple(seen.tolist()),
        obs_valid=torch.from_numpy(now[:, None] + seen >= 0),
        actions=torch.from_numpy(actions),
        action_times=tuple(done.tolist()),
        action_valid=torch.from_numpy(now[:, None] + done >= 0),
        now=torch.from_numpy(now),
    )


def read_tried(path: str | Path) -> TriedCandidates:
    """What `TriedCandidates.save` wrote. Raises FileNotFoundError, or ValueError for another file."""
    with np.load(path, allow_pickle=False) as file:
        if missing := [name for name in (*ARRAYS, "about") if name not in file]:
            raise ValueError(f"{path} holds no tried candidates: it lacks '{missing[0]}'")
        frames = {name.removeprefix("frames/"): file[name] for name in file.files if name.startswith("frames/")}
        return TriedCandidates(
            frames=frames, about=renamed(json.loads(str(file["about"])), AGENT), **{name: file[name] for name in ARRAYS}
        )


def try_plans(
    agent: Agent, lanes: Lanes, starts: Sequence[int], *, plans: int, times: int, seed: int = 0, about: Mapping
) -> TriedCandidates:
    """One state of each episode, drawn evenly among its replannings; `plans` each, `times` continuations each.

    Args:
        agent: of one candidate; as many lanes as `lanes`.
        seed: of the states drawn, the plans and the continuations.

    Raises:
        RestoreError: a world that does not repeat itself.
        ValueError: an agent that blends chunks, or more continuations than there is noise for.
    """
    if agent.candidates != 1 or not 1 <= times <= KEY:
        raise ValueError(f"candidates are tried by an agent that draws one at a time, 1..{KEY} times each")

    # One state of each episode.
    noting = Noting(agent, lanes, seed)
    with Progress("visiting states", len(starts), "states") as progress:
        for count, _ in enumerate(rollout(noting, lanes, starts), start=1):
            progress.update(count)
    moments = [noting.kept[start] for start in starts if start in noting.kept]
    if not moments:
        raise ValueError("no episode gave a state")

    # Each candidate, continued several times.
    tried = _planned(agent, moments, plans, times, seed, about)
    jobs = [(i, p, c) for i in range(len(moments)) for c in range(times) for p in range(plans)]
    with Progress("continuing", len(jobs), "continuations") as progress:
        for count, (job, won, best) in enumerate(Continuations(agent, lanes, moments, tried.future).run(jobs), start=1):
            tried.won[job], tried.best[job] = won, best
            progress.update(count)
    return tried


class Noting:
    """Acts like `agent` and keeps one replanning of each episode, drawn evenly."""

    def __init__(self, agent: Agent, lanes: Lanes, seed: int):
        self.agent, self.lanes, self.seed = agent, lanes, seed
        self.n_action_steps, self.look = agent.n_action_steps, agent.look
        self.kept: dict[int, Replanning] = {}
        self._starts = np.full(lanes.num_envs, NO_START, np.int64)
        self._asked: list[list[np.ndarray]] = [[] for _ in range(lanes.num_envs)]
        self._last = np.zeros((lanes.num_envs, agent.n_action_steps, *lanes.single_action_space.shape), np.float32)
        self._draws: list[np.random.Generator | None] = [None] * lanes.num_envs

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        for slot in np.flatnonzero(mask).tolist():
            self._starts[slot], self._asked[slot] = starts[slot], []
            self._draws[slot] = rng_of(self.seed, starts[slot], 11)
        self.agent.reset(starts, mask, obs)

    def act(self) -> np.ndarray:
        for slot in np.flatnonzero(self.lanes.running).tolist():
            if self._draws[slot].random() < 1 / (len(self._asked[slot]) + 1):
                self.keep(slot, int(self._starts[slot]))
        self._last = self.agent.act()
        return self._last

    def keep(self, slot: int, start: int) -> None:
        """Take this moment in place of the one kept before."""
        asked = np.concatenate([self._last[slot, :0], *self._asked[slot]])
        self.kept[start] = Replanning(start, self.agent.memory(slot), asked, state_of(self.lanes, slot))

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        for slot, held in enumerate(self._asked):
            held.append(self._last[slot, valid[slot]])
        self.agent.observe(obs, sent, valid)


class Remembered:
    """All that some critics will read, so that the agent remembers it. Chooses nothing."""

    reads = 0

    def __init__(self, critics: Sequence):
        from ...configs.spec import Window

        self.window = Window.union(*(critic.window for critic in critics))
        self.inputs = tuple(dict.fromkeys(key for critic in critics for key in critic.inputs))


class Continuations:
    """Runs jobs (state, plan, number) in whatever lanes are free.

    Args:
        future: (S, P, H, D) the candidates.
    """

    def __init__(self, agent: Agent, lanes: Lanes, moments: Sequence[Replanning], future: np.ndarray):
        self.agent, self.lanes, self.moments, self.future = agent, lanes, moments, future
        self.low, self.high = lanes.single_action_space.low, lanes.single_action_space.high
        self.horizon = lanes.world.steps()

    def run(self, jobs: Sequence[tuple[int, int, int]]) -> Iterator[tuple[tuple[int, int, int], int, float]]:
        """(job, steps until success or -1, greatest progress) of each, as they end."""
        queue, running = list(reversed(jobs)), {}
        while queue or running:
            for slot in range(self.lanes.num_envs):
                if slot not in running and queue:
                    running[slot] = [queue.pop(), 0, 0.0]
                    self._begin(slot, running[slot][0])
            actions = self.agent.act()
            for slot, (job, done, _) in running.items():
                if not done:
                    plan = self.future[job[0], job[1], : self.agent.n_action_steps]
                    actions[slot] = np.clip(plan, self.low, self.high)
            chunk = self.lanes.step_chunk(actions, look=self.agent.look)
            self.agent.observe(chunk.obs, chunk.sent, chunk.valid)
            yield from self._ended(running, chunk)

    def _begin(self, slot: int, job: tuple[int, int, int]) -> None:
        moment = self.moments[job[0]]
        obs = restore(self.lanes, slot, moment)
        check_seen(obs, moment)
        self.agent.remember(slot, moment.memory, KEY * job[0] + job[2])

    def _ended(self, running: dict, chunk) -> Iterator[tuple[tuple[int, int, int], int, float]]:
        for slot, (job, done, best) in list(running.items()):
            left = self.horizon - self.moments[job[0]].memory.now - done
            valid = chunk.valid[slot] & (np.arange(chunk.valid.shape[1]) < left)
            won, steps = np.flatnonzero(chunk.success[slot] & valid), int(valid.sum())
            best = max(best, float(chunk.progress[slot][valid].max(initial=0)))
            running[slot] = [job, done + steps, best]
            if slot in chunk.failed:
                raise RestoreError(f"the world failed in a continuation: {chunk.failed[slot]}")
            if len(won) or steps < len(valid) or left <= len(valid) or not self.lanes.running[slot]:
                del running[slot]
                yield job, (done + int(won[0]) + 1 if len(won) else -1), best


def state_of(lanes: Lanes, slot: int) -> np.ndarray | None:
    """The state of a lane's world; None where it offers none, or where an action still waits to arrive."""
    if lanes.world.delay:
        return None
    try:
        return lanes.call("get_state", slots=[slot])[slot]
    except AttributeError:
        return None


def restore(lanes: Lanes, slot: int, moment: Replanning) -> dict[str, np.ndarray]:
    """Put an environment back into a moment; what it observes there."""
    mask = np.arange(lanes.num_envs) == slot
    _, info = lanes.reset(seed=[moment.start] * lanes.num_envs, options={"reset_mask": mask})
    if slot in info["failed"]:
        raise RestoreError(f"env seed {moment.start} cannot begin again: {info['failed'][slot]}")
    if moment.state is not None:
        lanes.call("set_state", moment.state, slots=[slot])
    else:
        for action in moment.asked:
            lanes.call("advance", action, slots=[slot])
    obs = lanes.call("sense", slots=[slot])[slot]
    if obs is None:
        raise RestoreError(f"env seed {moment.start} cannot be brought back to step {moment.memory.now}")
    return obs


def check_seen(obs: Mapping[str, np.ndarray], moment: Replanning) -> None:
    """Raise RestoreError where a state vector is not what the policy saw.

    What robosuite shows lags its state by 2 ms of motion, below 0.01 m or rad; a state that was put back does not lag.
    """
    lag = 1e-4 if moment.state is None else 1e-2
    for key, frames in moment.memory.frames.items():
        if frames.ndim == 2 and not np.allclose(obs[key], frames[-1], rtol=1e-4, atol=lag):
            off = float(np.abs(obs[key] - frames[-1]).max())
            at = f"env seed {moment.start} at step {moment.memory.now}"
            raise RestoreError(f"{at} came back with '{key}' {off:g} off")


def _planned(
    agent: Agent, moments: Sequence[Replanning], plans: int, times: int, seed: int, about: Mapping, batch: int = 32
) -> TriedCandidates:
    """The states with plans drawn, not tried yet."""
    import torch

    from ...policies.policy import LaneNoise

    memories = [moment.memory for moment in moments]
    shape = len(moments), plans, times
    tried = TriedCandidates(
        frames={key: np.stack([memory.frames[key] for memory in memories]) for key in memories[0].frames},
        actions=np.stack([memory.actions for memory in memories]),
        now=np.array([memory.now for memory in memories], np.int64),
        start=np.array([moment.start for moment in moments], np.int64),
        recalled=np.zeros((len(moments), plans, 0, 0), np.float32),
        future=np.zeros((len(moments), plans, 0, 0), np.float32),
        won=np.full(shape, -1, np.int64),
        best=np.zeros(shape, np.float32),
        about=about,
    )
    past, drawn = tried.past(), []
    for some in np.split(np.arange(len(moments)), range(batch, len(moments), batch)):
        noise = LaneNoise(seed + 1, tried.start[some], tried.now[some])
        with torch.no_grad():
            drawn.append(agent.planner.plan(_take(past, some), plans, noise))

    recalled = np.concatenate([part.past.cpu().numpy() for part in drawn])
    future = np.concatenate([part.future.cpu().numpy() for part in drawn])
    return TriedCandidates(**{**vars(tried), "recalled": recalled, "future": future})


def _take(past: Past, some: np.ndarray) -> Past:
    import dataclasses

    return dataclasses.replace(
        past,
        obs={key: value[some] for key, value in past.obs.items()},
        obs_valid=past.obs_valid[some],
        actions=past.actions[some],
        action_valid=past.action_valid[some],
        now=past.now[some],
    )
