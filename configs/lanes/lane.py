"""One lane: a copy of a world with time, delay and horizon, and a group of lanes run by one process.

`Lane` is the base of the worlds: a subclass says how to begin, act, sense and judge. `LaneGroup` runs chunks of
control steps on its lanes and turns an exception of one lane, or nonsense that it hands over, into a recorded failure
of that lane alone. This file knows nothing of processes (`worker.py`) or of batches (`lanes.py`).
"""

from __future__ import annotations

import errno
import os
import time
import traceback
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import gymnasium
import numpy as np

from ..protocols import keeps
from ..rng import rng_of
from ..world import World
from .handover import Handover, truth
from .pulse import Pulse

HOLD = 5  # control steps that a disturbance lasts
FULL = {getattr(errno, name) for name in ("ENOMEM", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "EAGAIN")}


class Outside(str):
    """Why a lane failed, where the fault is not its own: of the machine, or of another lane in its process."""


class LaneHangs(TimeoutError):
    """Raised inside a simulator that has not answered for too long."""


class MachineError(OSError):
    """The machine fails again and again: no memory, no disk, killed processes. What was kept stays valid."""


@runtime_checkable
class Advances(Protocol):
    """A lane that can step without looking, as `Lane` can."""

    @abstractmethod
    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        """One control step: (reward, terminated, truncated, info)."""
        ...


class Lane(gymnasium.Env):
    """A `gymnasium.Env` that owns seeding, delay, horizon and `info`; the hooks below are all that a world adds."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"

    def __init__(self, world: World):
        self.embodiment = world.embodiment()
        self.observation_space, self.action_space = self.embodiment.spaces()
        self.horizon, self.delay = world.steps(), world.delay
        self.metadata = self.metadata | {"render_fps": self.embodiment.rate}
        self.start, self.ticks = 0, 0
        self._action_noise = 0.0
        self._waiting: deque[np.ndarray] = deque()

    def begin(self, seed: int, options: dict) -> None:
        """Put the world at start `seed`."""
        raise NotImplementedError

    def act(self, action: np.ndarray) -> float:
        """Execute one control step with `action` (D,) float32 inside the limits; returns the reward."""
        raise NotImplementedError

    def sense(self) -> dict[str, np.ndarray]:
        """The observation now, in new memory."""
        raise NotImplementedError

    def judge(self) -> tuple[bool, float]:
        """(success, progress in 0..1) now; progress is 1 on success."""
        raise NotImplementedError

    def rest(self) -> np.ndarray:
        """The action that stays where it is: executed while a delayed first action has not arrived yet."""
        return np.zeros(self.action_space.shape, np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Start `seed`; without one, a start drawn from this lane's own generator.

        Option `action_noise`: standard deviation, in half ranges of the limits, of a disturbance added to what is
        executed. It is keyed by the start and held for `HOLD` steps, so that demonstrations also show how to recover.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        self._action_noise = float(options.pop("action_noise", 0.0))
        self.start = int(self.np_random.integers(2**31)) if seed is None else int(seed)

        self.begin(self.start, options)
        self.ticks = 0
        self._waiting = deque(self.rest() for _ in range(self.delay))
        success, progress = self.judge()
        return self.sense(), {"success": success, "progress": progress}

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        """`step` without looking: (reward, terminated, truncated, info)."""
        self._waiting.append(np.asarray(action, np.float32))
        low, high = self.action_space.low, self.action_space.high
        sent = np.clip(self._waiting.popleft() + self._disturbance(), low, high)
        reward = self.act(sent)
        self.ticks += 1
        success, progress = self.judge()
        info = {"success": success, "progress": progress, "action.sent": sent}
        return float(reward), success, self.ticks >= self.horizon and not success, info

    def _disturbance(self) -> np.ndarray | float:
        if not self._action_noise:
            return 0.0
        low, high = self.action_space.low, self.action_space.high
        draw = rng_of(self.start, self.ticks // HOLD).standard_normal(low.shape, np.float32)
        return np.float32(self._action_noise) * draw * (high - low) / 2

    def step(self, action: np.ndarray):
        """One control step; actions are clipped to the limits of the embodiment."""
        reward, terminated, truncated, info = self.advance(action)
        return self.sense(), reward, terminated, truncated, info


@dataclass
class LaneRun:
    """What one lane did in one chunk: n <= E steps, or fewer and an `error`."""

    reward: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    success: list[bool] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    sent: list[np.ndarray] = field(default_factory=list)
    seen: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)  # steps done -> observation then
    film: list[np.ndarray] = field(default_factory=list)
    wall_physics: float = 0.0  # s
    wall_render: float = 0.0  # s
    error: str = ""


class LaneGroup:
    """Lanes that one process steps, by slot. A lane is built at its first reset, and again after it failed."""

    def __init__(self, world: World, pulse: Pulse | None = None):
        self.world = world
        self.pulse = pulse or Pulse()
        self.starts: dict[int, int | None] = {}  # by slot: where each lane began last
        self._envs: dict[int, gymnasium.Env] = {}
        self._handover: Handover | None = None
        self._folder = os.getcwd()

    def build(self, slots: tuple[int, ...]) -> None:
        """Build lanes in advance. One that cannot be built says so at its reset."""
        for slot in slots:
            self.pulse.begin(slot, building=True)
            try:
                if slot not in self._envs:
                    self._envs[slot] = self.world.lane()
            except (Exception, SystemExit):  # it will be raised again where a row can tell it
                break
            self.pulse.beat()
        self.pulse.rest()

    def reset(self, orders: dict[int, tuple[int | None, dict]]) -> dict[int, tuple | str]:
        """slot -> (seed, options), answered by slot -> (observation, info), or the text of what went wrong."""
        answers = {}
        for slot, (seed, options) in orders.items():
            self.starts[slot] = seed
            self.pulse.begin(slot, building=slot not in self._envs)
            try:
                if slot not in self._envs:
                    self._envs[slot] = self.world.lane()
                obs, info = self._envs[slot].reset(seed=seed, options=options)
                answers[slot] = self._promised(obs, info)
            except BaseException as error:  # whatever a simulator raises ends this lane only
                answers[slot] = self._drop(slot, error)
            self.pulse.beat()
        self._rest()
        return answers

    def run(self, actions: dict[int, np.ndarray], look: tuple[int, ...], film: tuple[int, ...]) -> dict[int, LaneRun]:
        """slot -> (E, D) actions, answered by what each lane did; it stops where its episode ends."""
        answers = {}
        for slot, chunk in actions.items():
            run = answers[slot] = LaneRun()
            self.pulse.begin(slot)
            try:
                looked = {len(chunk) + offset for offset in look}
                _run_chunk(self._envs[slot], chunk, looked, slot in film, run, self._handover, self.pulse)
            except BaseException as error:  # whatever a simulator raises ends this lane only
                run.error = self._drop(slot, error)
        self._rest()
        return answers

    def call(self, name: str, args: tuple, slots: tuple[int, ...]) -> dict[int, tuple[bool, object]]:
        """slot -> (True, result of the method, or value of the attribute), or (False, what went wrong)."""
        answers = {}
        for slot in slots:
            if slot not in self._envs:
                continue
            target = getattr(self._envs[slot], name)
            self.pulse.begin(slot)
            try:
                answers[slot] = True, target(*args) if callable(target) else target
            except BaseException as error:  # whatever a simulator raises ends this lane only
                answers[slot] = False, self._drop(slot, error)
        self._rest()
        return answers

    def close(self) -> None:
        """Close all lanes."""
        for env in self._envs.values():
            env.close()
        self._envs.clear()

    def _rest(self) -> None:
        """Wait for the next order, in the folder of before: a simulator that changed it would move what is written."""
        self.pulse.rest()
        if os.getcwd() != self._folder:
            os.chdir(self._folder)

    def _promised(self, obs, info) -> tuple[dict, dict]:
        """What a reset gave, checked."""
        if self._handover is None:
            self._handover = Handover(self.world)
        success, progress = self._handover.outcome(info)
        return self._handover.observation(obs), {"success": success, "progress": progress}

    def _drop(self, slot: int, error: BaseException) -> str:
        """Close a lane and say why. Ctrl-C is no fault of a lane: it is raised again."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        self.pulse.begin(slot)
        env = self._envs.pop(slot, None)
        text = describe(error)
        if env is not None:
            try:
                env.close()
            except (Exception, SystemExit) as second:  # a broken simulator may not close either
                text += f" (and closing it: {type(second).__name__}: {_text(second)})"
        return Outside(text) if of_machine(error) else text


@runtime_checkable
class Together(Protocol):
    """A world whose lanes in one process are stepped together."""

    @abstractmethod
    def group(self, pulse: Pulse | None) -> LaneGroup:
        """All lanes of one process, none built yet."""
        ...


def open_group(world: World, pulse: Pulse | None = None) -> LaneGroup:
    """The lanes of this process, one by one, or all together where the world steps them so."""
    return world.group(pulse) if keeps(world, Together) else LaneGroup(world, pulse)


def of_machine(error: BaseException) -> bool:
    """Whether memory, disk, processes or open files ran out: no fault of the world or the policy."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in FULL)


def describe(error: BaseException) -> str:
    """`Type: message (file:line)` of an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {_text(error)}{where}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # whatever a simulator's own exception raises when it is to be told
        return f"(its text raises {type(second).__name__})"


def _run_chunk(
    env: gymnasium.Env,
    actions: np.ndarray,
    look: set[int],
    film: bool,
    run: LaneRun,
    promised: Handover,
    pulse: Pulse,
) -> None:
    """Step `env` through `actions` into `run`, looking after the step counts in `look` and at the episode's end."""
    for done, action in enumerate(actions, start=1):
        begun = time.perf_counter()
        obs, (reward, terminated, truncated, info) = _advance(env, action)
        acted = time.perf_counter()

        # look, film
        terminated, truncated = truth("terminated", terminated), truth("truncated", truncated)
        ended = terminated or truncated
        seen = None
        if done in look or ended:
            seen = promised.observation(env.sense() if obs is None else obs)
        sensed = time.perf_counter()
        picture = env.render() if film else None

        # time and outcome; a step that breaks a promise leaves nothing
        drawn = info.get("wall_render", 0.0) + time.perf_counter() - (acted if env.embodiment.cameras else sensed)
        success, progress = promised.outcome(info)
        reward, sent = promised.reward(reward), promised.sent(info)
        run.wall_render += drawn
        run.wall_physics += time.perf_counter() - begun - drawn
        run.reward.append(reward)
        run.success.append(success)
        run.progress.append(progress)
        run.sent.append(sent)
        if seen is not None:  # in memory of its own where another look follows: some lanes fill the same arrays again
            run.seen[done] = seen if len(look) == 1 else {key: np.array(value) for key, value in seen.items()}
        if film:
            run.film.append(picture)
        run.terminated, run.truncated = terminated, truncated
        pulse.beat()
        if ended:
            return


def _advance(env: gymnasium.Env, action: np.ndarray):
    """(observation or None where the lane can look later, (reward, terminated, truncated, info))."""
    if isinstance(env, Lane) or keeps(env, Advances):
        return None, env.advance(action)
    obs, *rest = env.step(action)
    return obs, rest
