"""A policy in the hand: what `understudy.load` gives, and what acts in a loop of one's own.

`select_action`, `predict_action_chunk` and `reset` are named as in lerobot. Inside works the `Agent` of every
evaluation, so that the actions are those of `understudy eval`, bit for bit, for the same env seeds and as many
environments at a time (`--block`). What is handed in is checked here, once, before anything is computed with it.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.notebook import facts_html, facts_text
from ...configs.plugins import check_names
from ...configs.spec import IMAGES, Embodiment, Window
from ...configs.world import looked_at
from .agent import Agent, Memory
from .observation import ObservationError, Seen, as_numpy, read_observation
from .open import Acting, assembled, check_world, open_agent

if TYPE_CHECKING:
    import torch

    from ...configs.world import World
    from ..policy import Planner

    Array = np.ndarray | torch.Tensor


OF_RECORDS = ("policy", "block", "monitor", "alarm")  # settings of `Acting` that one policy in the hand has not
OF_PLANNERS = ("n_action_steps", "policy_seed", "ensemble", "threads")  # those of a planner that was made in Python


class LoadedPolicy:
    """A policy that acts, from observations alone.

        policy = understudy.load("runs/lift")
        obs, info = env.reset(seed=1000)
        policy.reset(env_seed=1000)
        action = policy.select_action(obs)

    Observations are a mapping of the dataset's keys to arrays of NumPy or torch, of one environment or of a batch of
    B: `observation.state` (D,) or (B, D) in the units of the embodiment; `observation.images.NAME` uint8 (h, w, 3) RGB,
    or as `LeRobotDataset` gives it, float in 0..1 (3, h, w). Further keys are passed over. Actions come back as they
    were asked for: (D,) or (B, D) float32, NumPy or torch, in the units of `embodiment.action`, within its limits.

    Attributes:
        path: the run, checkpoint or name on the hub that it was loaded from.
        planner: the network or composition inside, a `Planner`.
        embodiment: who acts: names, units, limits and rate of the actions.
        window: which frames are read, and how many actions are planned (`horizon`).
        inputs: observation keys that are read.
        n_action_steps: E, actions executed of each chunk.
    """

    def __init__(self, agent: Agent, about: Mapping, settings: Acting, made_here: bool = False):
        self.about, self.settings, self.path = dict(about), settings, settings.policy
        self.made_here = made_here  # not of a folder: its planner was made in Python
        self.planner: Planner = agent.planner
        self.embodiment: Embodiment = agent.planner.embodiment
        self.window: Window = agent.window
        self.inputs: tuple[str, ...] = agent.inputs
        self.n_action_steps: int = agent.n_action_steps
        self._opened, self._hand = agent, None  # type: tuple[Agent, _Hand | None]
        self._env_seed: int | Sequence[int] | None = None
        self._episodes = 0  # begun so far without an env seed of the caller's

    def reset(self, env_seed: int | Sequence[int] | None = None) -> None:
        """Begin new episodes: what was seen and done is forgotten.

        Args:
            env_seed: what the environments were reset with; the policy's noise is keyed by it. One int s for B
                environments means s, s+1, ... None counts the episodes: 0, 1, ...
        """
        if self._hand is not None and self._env_seed is None:
            self._episodes += self._hand.count
        self._env_seed, self._hand = env_seed, None

    def select_action(self, obs: Mapping[str, Array], *, sent: Array | None = None) -> Array:
        """The action for now. A chunk is planned at the first step of an episode and every `n_action_steps` steps.

        Args:
            obs: what is observed now; see the class.
            sent: (D,) or (B, D), the action that was really executed since the last call, such as
                `info["action.sent"]`; default: what was handed out. It matters to policies that read past actions,
                where the environment changes what it is sent (delay, noise, clipping).

        Returns:
            (D,) or (B, D) float32.

        Raises:
            ObservationError: a missing key, a wrong shape or kind of number, NaN or infinity, by name.
            ValueError: another number of environments than at the beginning of the episode.
            FloatingPointError: the policy planned NaN or infinity.
        """
        seen = self._read(obs)
        hand = self._take_hand(seen)
        hand.note(seen.values, self._executed(sent, seen))
        with self.computing():
            return seen.give(hand.next_action())

    def predict_action_chunk(self, obs: Mapping[str, Array], *, sent: Array | None = None) -> Array:
        """The whole chunk that the policy would plan now, without acting: calling it changes nothing.

        The past is what `select_action` was given since `reset`; at the beginning of an episode it is `obs` repeated.
        Where `select_action` would plan, its next `n_action_steps` actions are the first of this chunk. To draw a
        fresh chunk for an observation without a past, call `reset()` before.

        Returns:
            (H, D) or (B, H, D) float32, H = `window.horizon` of the planner.

        Raises:
            as `select_action`.
        """
        seen = self._read(obs)
        begun = self._hand is not None
        hand = self._take_hand(seen)
        with self.computing():
            chunk = hand.imagine(seen.values, self._executed(sent, seen))
        if not begun:
            self._hand = None
        return seen.give(chunk)

    def agent(self, environments: int, *, blended: bool = True) -> Agent:
        """The actor that an evaluation would use, for so many environments at a time, with the same settings.

        Args:
            blended: with the temporal ensembling and the delay of the settings, if any.
        """
        mine, settings = self._opened, dataclasses.replace(self.settings, block=environments)
        if not blended:
            settings = dataclasses.replace(settings, delay=0)
        agent = assembled(settings, mine.planner, mine.critic, mine.ensemble if blended else None)
        agent.origin = mine.origin
        return agent

    def computing(self) -> AbstractContextManager[None]:
        """As many threads as its settings say, until the `with` statement ends: sums of floats depend on it."""
        return _threads(self.settings.threads)

    @property
    def foreign(self) -> bool:
        """Whether it is a policy of lerobot's, which may have to be told for whom it acts."""
        return str(self.about.get("type", "")).startswith("lerobot/")

    @property
    def title(self) -> str:
        """Path, type and step."""
        kind = self.about.get("type", type(self.planner).__name__)
        step = "" if self.about.get("step") is None else f", step {self.about['step']}"
        return f"{self.path} ({kind}{step})"

    def check(self, world: World) -> None:
        """Refuse a world whose actions or observations differ. Raises EmbodimentError naming the first difference."""
        check_world(self._opened, self.looked_at(world))

    def looked_at(self, world: World) -> World:
        """The world with the cameras that the policy reads, where it has them and does not offer them already."""
        return looked_at(world, self._opened.pictures)

    def facts(self) -> dict[str, str]:
        """What there is to say of it, for people."""
        sizes = {key: len(names) for key, names in self.embodiment.offers().items() if not key.startswith(IMAGES)}
        reads = ", ".join(f"{key} ({sizes[key]})" if key in sizes else key for key in self.inputs)
        body, window = self.embodiment, self.planner.window
        actions = ", ".join(body.action) if len(body.action) <= 8 else f"{len(body.action)} actions"
        frames = "now" if self.window.observe == (0,) else f"at steps {', '.join(map(str, self.window.observe))}"
        return {
            "policy": self.title,
            "reads": f"{reads}, {frames}",
            "plans": f"{window.horizon} actions, executes {self.n_action_steps}; {body.rate:g} Hz",
            "actions": f"{actions} ({body.mode.value}, of '{body.name}')",
        }

    def __repr__(self) -> str:
        return facts_text("LoadedPolicy", self.facts())

    def _repr_html_(self) -> str:
        return facts_html(self.facts())

    def _read(self, obs: Mapping[str, Array]) -> Seen:
        return read_observation(obs, self.inputs, self.embodiment)

    def _take_hand(self, seen: Seen) -> _Hand:
        """The memory of the running episodes; new at their beginning."""
        count = seen.count
        if self._hand is None:
            self._hand = _Hand(self, _starts(self._env_seed, count, self._episodes))
        elif self._hand.count != count:
            raise ValueError(
                f"the policy acts in {self._hand.count} environments since its reset, got observations of "
                f"{count}; call reset() first"
            )
        return self._hand

    def _executed(self, sent: Array | None, seen: Seen) -> np.ndarray | None:
        """(B, D) float32 of what the caller says was executed."""
        if sent is None:
            return None
        shape = (seen.count, len(self.embodiment.action))
        values = np.asarray(as_numpy(sent), np.float32)
        if values.shape != (shape[1:] if seen.single else shape):
            raise ObservationError(f"sent must be {shape[1:] if seen.single else shape}, got {values.shape}")
        return values.reshape(shape)


def open_policy(path: str, world: World | None = None, **settings: Any) -> LoadedPolicy:
    """The policy of a folder or hub name, to act as `settings` say; see `understudy.load`.

    Raises:
        ValueError: an unknown setting. Else as `open_agent`, and EmbodimentError where it does not fit the world.
    """
    check_names(settings, [field.name for field in fields(Acting) if field.name not in OF_RECORDS], "load")
    config = Acting(policy=path, block=1, **settings)
    agent, about = open_agent(config, world.embodiment if world else None, world.task if world else "")
    loaded = LoadedPolicy(agent, about, config)
    if world:
        loaded.check(world)
    return loaded


def hold_planner(planner: Planner, **settings: Any) -> LoadedPolicy:
    """A planner that was made in Python, to act as `settings` say. Raises ValueError for an unknown one."""
    check_names(settings, OF_PLANNERS, "load, of a planner made here,")
    config = Acting(policy=type(planner).__name__, **settings)
    agent = Agent(
        planner, lanes=1, n_action_steps=config.n_action_steps, seed=config.policy_seed, ensemble=config.ensemble
    )
    return LoadedPolicy(agent, {}, config, made_here=True)


class _Hand:
    """The running episodes of one loop: an agent, what it was shown since its last chunk, and the rest of that."""

    def __init__(self, policy: LoadedPolicy, starts: np.ndarray):
        self.agent, self.starts, self.count = policy.agent(len(starts)), starts, len(starts)
        self._policy = policy
        self._chunk = np.zeros((0,), np.float32)
        self._taken = self._steps = 0  # of the chunk; of the episode
        self._since: list[tuple[dict[str, np.ndarray], np.ndarray]] = []  # (observation after a step, executed)
        # as far back as the window reaches, the newest last; what `imagine` plans from
        reach = self.agent.window.reach
        self._frames: deque[dict[str, np.ndarray]] = deque(maxlen=reach + 1)
        self._actions: deque[np.ndarray] = deque(maxlen=max(reach, 1))

    @property
    def begun(self) -> bool:
        return bool(self._frames)

    def note(self, obs: dict[str, np.ndarray], sent: np.ndarray | None) -> None:
        """Remember what is seen now, and what was executed before it."""
        if not self.begun:
            self.agent.reset(self.starts, np.ones(len(self.starts), bool), obs)
            self._frames.extend([obs] * (self._frames.maxlen or 1))
            self._actions.extend([np.zeros((len(self.starts), self._dims), np.float32)] * (self._actions.maxlen or 1))
            return
        sent = self._asked() if sent is None else sent
        self._frames.append(obs)
        self._actions.append(sent)
        self._since.append((obs, sent))
        self._steps += 1

    def next_action(self) -> np.ndarray:
        """(B, D); plans where the chunk is used up."""
        if self._taken == len(self._since) == 0:
            self._chunk = self.agent.act()
        elif self._taken == self.agent.n_action_steps:
            self._tell()
            self._chunk, self._taken = self.agent.act(), 0
        self._taken += 1
        return self._asked().copy()

    def imagine(self, obs: dict[str, np.ndarray], sent: np.ndarray | None) -> np.ndarray:
        """(B, H, D), the chunk planned from `obs` as now, by another agent with this one's memory."""
        agent, count = self.agent, len(self.starts)
        other = self._policy.agent(count, blended=False)
        other.reset(self.starts, np.ones(count, bool), obs)
        if self.begun:
            frames = [*self._frames, obs][-(self._frames.maxlen or 1) :]
            actions = [*self._actions, self._asked() if sent is None else sent][-(self._actions.maxlen or 1) :]
            for slot, start in enumerate(self.starts.tolist()):
                held = {key: np.stack([frame[key][slot] for frame in frames]) for key in agent.inputs}
                done = np.stack([action[slot] for action in actions])
                other.remember(slot, Memory(held, done, self._steps + 1), start, agent.replans(slot))
        low, high = np.asarray(self._policy.embodiment.limits, np.float32).T
        return np.clip(other.think().future[:, 0].cpu().numpy(), low, high)

    @property
    def _dims(self) -> int:
        return len(self._policy.embodiment.action)

    def _asked(self) -> np.ndarray:
        """(B, D), the action handed out last."""
        return self._chunk[:, self._taken - 1]

    def _tell(self) -> None:
        """Hand the agent what the chunk gave."""
        steps = len(self._since)
        seen = [self._since[steps - 1 + offset][0] for offset in self.agent.look]
        obs = {key: np.stack([frame[key] for frame in seen], 1) for key in self.agent.inputs}
        sent = np.stack([sent for _, sent in self._since], 1)
        self.agent.observe(obs, sent, np.ones(sent.shape[:2], bool))
        self._since = []


def _starts(env_seed: int | Sequence[int] | None, count: int, episodes: int) -> np.ndarray:
    """(B,) int64, what keys the noise of each environment."""
    if env_seed is None or np.ndim(env_seed) == 0:
        first = episodes if env_seed is None else int(env_seed)  # type: ignore[arg-type]
        return first + np.arange(count)
    if len(env_seed) != count:  # type: ignore[arg-type]
        raise ValueError(f"reset was given {len(env_seed)} env seeds for {count} environments")  # type: ignore[arg-type]
    return np.asarray(env_seed, np.int64)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """As many threads as an evaluation computes with: sums of floats depend on it."""
    import torch

    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)
