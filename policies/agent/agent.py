"""The only stateful actor: it remembers, asks the planner for N plans, lets a critic choose, and hands out E actions.

The agent knows no world and no network. All lanes replan together, every E control steps; a lane that begins anew does
so between chunks. The planner is always called for all lanes, so that a lane's plans never depend on how many others
still run; its noise is keyed by (seed, start id, replan number).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ...configs.spec import Window
from ..policy import Critic, LaneNoise, Noiseless, Past, Planner, Plans, executed_of, weights_of
from .ensemble import Ensemble
from .latency import Delayed, Latency
from .monitor import Monitor
from .sight import Sight
from .steering import ScoreTrace, choice_draws, choose


@dataclass(frozen=True)
class Memory:
    """What an agent holds of one lane; the last frame is now, the last action came before it."""

    frames: Mapping[str, np.ndarray]  # key -> (R, ...)
    actions: np.ndarray  # (A, D) as executed
    now: int  # control steps since the episode began


class Agent:
    """Acts in B lanes with one planner.

    Args:
        planner: the policy.
        lanes: B.
        n_action_steps: E, actions executed of each plan; at most the planner's horizon. None: the planner's own.
        candidates: N plans drawn at each replanning; more than one asks for a critic.
        critic: scores the plans; the best is executed.
        temperature: above 0 the plan is drawn by a softmax over its score in place of the best (`steering.py`).
        seed: of the policy's noise.
        ensemble: decay of temporal ensembling (`ensemble.py`) over the plans that cover a step; None: the newest alone.
        noiseless: plans are drawn from noise of zeros: a policy that samples becomes deterministic.
        latency: how plans that come late are met (`latency.py`); None: they are there at once.
        watch: looks at plans of each replanning (`monitor.py`), drawn beside; the actions are those without it, bit for
            bit.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        lanes: int,
        n_action_steps: int | None = None,
        candidates: int = 1,
        critic: Critic | None = None,
        seed: int = 0,
        ensemble: float | None = None,
        monitor: Monitor | None = None,
        temperature: float = 0.0,
        latency: Delayed | None = None,
        noiseless: bool = False,
    ):
        n_action_steps = executed_of(planner) if n_action_steps is None else n_action_steps
        if not 1 <= n_action_steps <= planner.window.horizon:
            raise ValueError(
                f"n_action_steps must be within 1..{planner.window.horizon} (the policy's horizon), "
                f"got {n_action_steps}"
            )
        if candidates < 1 or (candidates > 1 and critic is None):
            raise ValueError(f"{candidates} candidates a plan: draw one, or several when a critic chooses among them")
        if critic is not None and critic.reads not in (
            0,
            1,
            n_action_steps,
        ):  # 1: plans are judged by how they begin (V-GPS)
            raise ValueError(f"the critic scores {critic.reads} future actions, but {n_action_steps} are executed")
        if not temperature >= 0:
            raise ValueError(f"the temperature must be at least 0, got {temperature}")

        if noiseless and (candidates > 1 or monitor):
            raise ValueError(
                "a noiseless policy has one plan, so nothing is there to choose from or to monitor: leave out "
                "candidates, critic and monitor"
            )
        if latency is not None and ensemble is not None:
            raise ValueError("temporal ensembling has a way with late plans of its own: give --ensemble=-inf")

        # who acts, and how
        self.latency = None if latency is None else Latency(latency, planner, lanes, n_action_steps)
        n_action_steps = n_action_steps if self.latency is None else self.latency.steps
        self.planner, self.critic, self.monitor, self.temperature = planner, critic, monitor, temperature
        self.n_action_steps, self.candidates, self.seed = n_action_steps, candidates, seed
        self.noiseless = noiseless
        self.origin = ""  # where the policy was loaded from, for messages

        # what all of them read
        self.window = Window.union(planner.window, *([critic.window] if critic else []))
        self.inputs = tuple(dict.fromkeys((*planner.inputs, *(critic.inputs if critic else ()))))

        self._low, self._high = np.asarray(planner.embodiment.limits, np.float32).T
        shape = lanes, planner.window.horizon, len(self._low)
        self._ensemble = None if ensemble is None else Ensemble(shape, n_action_steps, ensemble)
        if self.latency and self.latency.lead and (critic or monitor):
            raise ValueError("a policy that is asked from ahead is judged by no critic and no monitor: leave them out")
        self._trace = ScoreTrace(lanes) if candidates > 1 else None
        self._device = next((p.device for p in weights_of(planner)), torch.device("cpu"))
        self._sight = Sight(planner, critic, self._device)

        # memory of each environment
        self._frames: dict[str, np.ndarray] = {}  # key -> (B, reach + 1, ...), the last one is now
        self._actions = np.zeros((lanes, max(self.window.reach, 1), len(self._low)), np.float32)
        self._now = np.zeros(lanes, np.int64)
        self._starts = np.zeros(lanes, np.int64)
        self._replans = np.zeros(lanes, np.int64)

    @property
    def ensemble(self) -> float | None:
        """Decay of the temporal ensembling; None: the newest plan alone."""
        return None if self._ensemble is None else self._ensemble.decay

    @property
    def pictures(self) -> dict[str, tuple[int, int]]:
        """Key of each camera that is read -> (height, width) at which it is to be drawn: as it was recorded."""
        return dict(self._sight.recorded)

    @property
    def look(self) -> tuple[int, ...]:
        """Offsets within a chunk (0 = after its last step) of the frames that some later plan will read."""
        leads = {0, self.latency.lead if self.latency else 0}
        return tuple(sorted({-(-(o + lead) % self.n_action_steps) for o in self.window.observe for lead in leads}))

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        """Begin new episodes in the masked lanes.

        Args:
            starts: (B,) int64 start ids.
            mask: (B,) bool.
            obs: key -> (B, ...) first observations.
        """
        mask = np.asarray(mask, bool)
        for key in self.inputs:
            first = self._sight(key, np.asarray(obs[key]))
            if key not in self._frames:
                self._frames[key] = np.zeros((len(first), self.window.reach + 1, *first.shape[1:]), first.dtype)
            self._frames[key][mask] = first[mask][:, None]
        self._starts[mask] = np.asarray(starts)[mask]
        for array in (self._actions, self._now, self._replans):
            array[mask] = 0
        for follower in filter(None, (self.monitor, self._trace)):
            follower.reset(mask)
        for keeper in filter(None, (self._ensemble, self.latency)):
            keeper.reset(mask)

    def past(self) -> Past:
        """What the lanes have seen and done, at the offsets of the agent's window."""
        if self.latency and self.latency.ahead.any():
            return self._past_ahead(self.latency)
        window, last = self.window, self.window.reach
        frames = np.asarray(window.observe) + last
        tokens = np.asarray(window.recall, np.int64) + self._actions.shape[1]
        return Past(
            obs={key: torch.from_numpy(held[:, frames]).to(self._device) for key, held in self._frames.items()},
            obs_times=window.observe,
            obs_valid=self._since(window.observe),
            actions=torch.from_numpy(self._actions[:, tokens]).to(self._device),
            action_times=window.recall,
            action_valid=self._since(window.recall),
            now=torch.from_numpy(self._now.copy()).to(self._device),
        )

    def _past_ahead(self, latency: Latency) -> Past:
        """The past as it will be when the plan begins: the observations of now, committed actions as executed ones."""
        window, ahead, lanes = self.window, latency.ahead[:, None], np.arange(len(self._now))[:, None]
        frames = np.asarray(window.observe)[None] + self.window.reach + ahead
        tokens = np.asarray(window.recall, np.int64)[None] + self._actions.shape[1] + ahead
        actions = np.concatenate([self._actions, latency.committed()], 1)

        def since(offsets: tuple[int, ...]) -> torch.Tensor:
            return torch.from_numpy(self._now[:, None] + ahead + np.asarray(offsets)[None] >= 0).to(self._device)

        return Past(
            obs={key: torch.from_numpy(held[lanes, frames]).to(self._device) for key, held in self._frames.items()},
            obs_times=window.observe,
            obs_valid=since(window.observe),
            actions=torch.from_numpy(actions[lanes, tokens]).to(self._device),
            action_times=window.recall,
            action_valid=since(window.recall),
            now=torch.from_numpy(self._now + ahead[:, 0]).to(self._device),
        )

    def think(self) -> Plans:
        """One plan a lane, chosen among the candidates. Counts as a replanning."""
        past = self.past()
        plans = self._draw(past, self.candidates)
        if self.monitor:
            same = self.monitor.candidates == self.candidates
            self.monitor.update_alarm(past, plans if same else self._draw(past, self.monitor.candidates))
        chosen = plans if self.candidates == 1 else plans.pick(self._choose(past, plans))
        self._replans += 1
        return chosen

    @torch.no_grad()
    def _choose(self, past: Past, plans: Plans) -> torch.Tensor:
        """(B,) which candidate, by the critic's scores."""
        scores = self.critic.score(past, plans)
        draws = choice_draws(self.seed, self._starts, self._replans, self.candidates)
        choice = choose(scores, self.temperature, draws)
        self._trace.note(scores, choice)
        return choice

    def told(self, slot: int) -> dict:
        """Further columns of an episode's row: what a watch saw and what the critic said, at each replanning."""
        followers = filter(None, (self.monitor, self._trace))
        return {name: values for follower in followers for name, values in follower.told(slot).items()}

    def act(self) -> np.ndarray:
        """(B, E, D) float32 actions for the next E control steps, within the embodiment's limits.

        Raises:
            FloatingPointError: the policy planned a number that is not finite; the message names its checkpoint and the
                start id.
        """
        future = self.think().future[:, 0]
        whole = self._ensemble or self.latency
        future = (future if whole else future[:, : self.n_action_steps]).cpu().numpy()
        broken = ~np.isfinite(future).all((1, 2))
        if broken.any():
            slot = broken.argmax()
            raise FloatingPointError(
                f"the policy{f' {self.origin}' if self.origin else ''} planned NaN or infinity at start "
                f"{self._starts[slot]}, control step {self._now[slot]}. What it saw was finite: its weights, or its "
                "scales, cannot act there"
            )
        if self.latency:
            return self.latency.chunk(np.clip(future, self._low, self._high), self._actions[:, -1])
        actions = self._ensemble.blend(future) if self._ensemble else future
        return np.clip(actions, self._low, self._high)

    def meanwhile(self) -> np.ndarray | None:
        """(B, D, dims) what is executed while the next plan is made; None where it is there at once."""
        return None if self.latency is None else self.latency.meanwhile(self._actions[:, -1])

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        """Take in what a chunk gave.

        Args:
            obs: key -> (B, L, ...) observations at the offsets `look`.
            sent: (B, E, D) actions that were really executed.
            valid: (B, E) bool, steps that were really executed. Lanes that stopped within the chunk have ended.
        """
        for key in self.inputs:
            held = self._frames[key]
            held[:, : -self.n_action_steps] = held[:, self.n_action_steps :].copy()
            for position, offset in enumerate(self.look):
                if held.shape[1] + offset > 0:
                    held[:, offset - 1] = self._sight(key, obs[key][:, position])
        both = np.concatenate([self._actions, sent], 1)
        self._actions = both[:, -self._actions.shape[1] :].astype(np.float32)
        self._now += valid.sum(1)

    def rejoin(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, now: int) -> None:
        """Go on in all lanes from what was really seen and executed, whoever acted; plans of before are forgotten.

        Args:
            obs: key -> (B, R, ...) observations of consecutive control steps, the last one is of now. Where there are
                fewer than the window reaches back, the first stands for those before it.
            sent: (B, A, D) actions that were executed up to now, the newest last.
            now: control steps since the episode began.
        """
        for key in self.inputs:
            held, seen = self._frames[key], np.asarray(obs[key])
            for place in range(1, held.shape[1] + 1):
                held[:, -place] = self._sight(key, seen[:, -min(place, seen.shape[1])])
        self._actions[:] = 0
        kept = min(sent.shape[1], self._actions.shape[1])
        if kept:
            self._actions[:, -kept:] = sent[:, -kept:]
        self._now[:] = now
        self.forget(np.ones(len(self._now), bool))

    def forget(self, mask: np.ndarray) -> None:
        """What was planned before has no part in what comes, in the lanes of `mask` (B,) bool: somebody else acted."""
        for keeper in filter(None, (self._ensemble, self.latency, self.monitor)):
            keeper.reset(mask)

    def replans(self, slot: int) -> int:
        """Chunks that were planned in a lane since its episode began."""
        return int(self._replans[slot])

    def memory(self, slot: int) -> Memory:
        """What a lane remembers between two chunks. Raises ValueError where plans are kept, which are not in it."""
        if self._ensemble:
            raise ValueError("an agent that blends plans cannot go on from another moment; give --ensemble=-inf")
        if self.latency:
            raise ValueError("an agent with committed actions cannot go on from another moment; give --delay 0")
        frames = {key: held[slot].copy() for key, held in self._frames.items()}
        return Memory(frames, self._actions[slot].copy(), int(self._now[slot]))

    def remember(self, slot: int, memory: Memory, start: int, replan: int = 0) -> None:
        """Begin anew in a lane with what an agent of this window remembered.

        Noise is keyed by `start` from here; `replan` replannings are taken to be done.
        """
        self.reset(
            np.full(len(self._now), start),
            np.arange(len(self._now)) == slot,
            {
                key: np.broadcast_to(frames[-1], (len(self._now), *frames.shape[1:]))
                for key, frames in memory.frames.items()
            },
        )
        for key, frames in memory.frames.items():
            self._frames[key][slot] = frames
        self._actions[slot], self._now[slot], self._replans[slot] = memory.actions, memory.now, replan

    def _draw(self, past: Past, n: int) -> Plans:
        noise = (Noiseless if self.noiseless else LaneNoise)(self.seed, self._starts, self._replans)
        return self.latency.draw(past, n, noise) if self.latency else self.planner.plan(past, n, noise)

    def _since(self, offsets: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(self._now[:, None] + np.asarray(offsets, np.int64)[None] >= 0).to(self._device)
