"""Many copies of one world, stepped together: the vector environment that every rollout runs on.

Slots are fixed: an ended lane is frozen until it is reset (no autoreset), and a lane whose simulator raised, or whose
process died, is recorded as failed, leaves the others alone and is rebuilt by its next reset. Results do not depend on
the number of worker processes. This file knows nothing of policies or of what the world is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ..world import World, WorldSource, read_world
from .lane import LaneRun, Outside
from .pulse import TIMEOUT, Pulse, check_timeout
from .worker import Local, Worker, WorkerDied


@dataclass(frozen=True)
class Chunk:
    """What E control steps of B lanes gave.

    Once a lane has ended its rows are not `valid`: reward and sent are zero, the rest repeats its last value.
    """

    obs: dict[str, np.ndarray]  # key -> (B, L, ...) after the steps `look`; a lane that ended earlier repeats its last
    look: tuple[int, ...]  # L offsets in control steps, 0 = after the last of the E steps
    reward: np.ndarray  # (B, E) float32
    terminated: np.ndarray  # (B, E) bool
    truncated: np.ndarray  # (B, E) bool
    success: np.ndarray  # (B, E) bool
    progress: np.ndarray  # (B, E) float32 in 0..1
    sent: np.ndarray  # (B, E, D) float32, what was really executed
    valid: np.ndarray  # (B, E) bool, this step was executed
    wall_physics: np.ndarray  # (B,) float64 seconds
    wall_render: np.ndarray  # (B,) float64 seconds
    wall_ipc: np.ndarray  # (B,) float64 seconds, share of what handing over took: checks, copies, processes
    wall_wait: np.ndarray  # (B,) float64 seconds, share of what its process waited for slower ones
    film: dict[int, list[np.ndarray]]  # slot -> (h, w, 3) uint8 after each executed step, for the slots asked for
    failed: dict[int, str]  # slot -> error: these lanes are lost until their next reset


class Lanes(gymnasium.vector.VectorEnv):
    """`lanes` copies of `world`, in this process (`workers=0`) or spread over worker processes.

    Args:
        world: what to open; each lane is a `world.lane()`.
        lanes: B, the number of slots.
        workers: processes, each owning a contiguous part of the slots; at most one a lane.
        timeout: seconds that a control step may take, or a reset, before the lane has failed (its worker is ended;
            without workers a simulator is interrupted where that can be done). Building a lane may take `BUILDING`
            times as long, and nothing is a hang below `SLOWER` times the slowest so far. 0 or None: for ever.
        pulse: without workers: written at every control step, for whoever watches this process.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": ["rgb_array"]}
    render_mode = "rgb_array"

    def __init__(
        self,
        world: World,
        lanes: int = 8,
        workers: int = 0,
        timeout: float | None = TIMEOUT,
        pulse: Pulse | None = None,
    ):
        self._hosts: list = []  # nothing to close yet
        if lanes < 1 or workers < 0:
            raise ValueError(f"environments must be at least 1 and workers at least 0, got {lanes} and {workers}")
        if world.moves_arm and lanes > 1:
            raise ValueError(f"there is one arm, and {lanes} environments were asked for at the same time: ask for one")
        check_timeout(timeout or 0.0)
        self.world, self.embodiment, self.num_envs = world, world.embodiment(), lanes
        self.timeout = timeout or 0.0
        self.single_observation_space, self.single_action_space = self.embodiment.spaces()
        self.observation_space = batch_space(self.single_observation_space, lanes)
        self.action_space = batch_space(self.single_action_space, lanes)

        # who steps which slots
        if workers > 1:
            world.warm()
        groups = np.array_split(np.arange(lanes), min(workers, lanes) or 1)
        self._hosts = [Worker(world, self.timeout) if workers else Local(world, self.timeout, pulse) for _ in groups]
        self._host_of = {int(slot): host for host, group in zip(self._hosts, groups, strict=True) for slot in group}

        # what is known of each slot
        spaces = self.single_observation_space.items()
        self._obs = {key: np.zeros((lanes, *space.shape), space.dtype) for key, space in spaces}
        self._running, self._live, self._terminated, self._truncated = np.zeros((4, lanes), bool)
        self._success, self._progress = np.zeros(lanes, bool), np.zeros(lanes, np.float32)
        self._failures: dict[int, str] = {}  # not reported yet
        self._untouched: dict = {}  # host -> whether it was lost at nobody's turn

    @property
    def running(self) -> np.ndarray:
        """(B,) bool: lanes that the next step moves: reset, not ended, not failed."""
        return self._running.copy()

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that are up."""
        return [host.pid for host in self._hosts if host.pid is not None]

    def worker_of(self, slot: int) -> int:
        """Number of the worker that owns a slot; 0 in this process."""
        return self._hosts.index(self._host_of[slot])

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict | None = None):
        """Begin episodes in the slots of `options["reset_mask"]` (B,) bool (default: all); failed ones are rebuilt.

        Args:
            seed: start of each slot (B,); one int s means s, s+1, ...; None draws a start.
            options: "reset_mask"; "each": a list of B dicts (or None) for single lanes; all else goes to every lane.

        Returns:
            observations key -> (B, ...) of all slots (others keep their last), and info: `success` and `progress` (B,),
            `failed`: slot -> error of lanes that could not begin.
        """
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs)), bool)
        each = options.pop("each", None) or [None] * self.num_envs
        seeds = self._seeds(seed)
        self._per_lane("reset_mask", mask), self._per_lane("each", each)

        # forget what was
        slots = np.flatnonzero(mask).tolist()
        for flags in (self._running, self._live, self._terminated, self._truncated, self._success):
            flags[slots] = False
        self._progress[slots] = 0

        orders = {slot: (seeds[slot], options | (each[slot] or {})) for slot in slots}
        for slot, answer in self._reset_hosts(orders).items():
            self._failures.pop(slot, None)
            self._begin(slot, answer)

        info = {"success": self._success.copy(), "progress": self._progress.copy(), "failed": self._report()}
        return self._copy(), info

    def step(self, actions: np.ndarray):
        """One control step with (B, D) actions: the Gymnasium 5-tuple; frozen lanes give reward 0 and stay ended."""
        chunk = self.step_chunk(np.asarray(actions)[:, None] if np.ndim(actions) == 2 else actions)
        info = {"success": chunk.success[:, 0], "progress": chunk.progress[:, 0], "action.sent": chunk.sent[:, 0]}
        info |= {"valid": chunk.valid[:, 0], "failed": chunk.failed}
        obs = {key: value[:, 0] for key, value in chunk.obs.items()}
        return obs, chunk.reward[:, 0], chunk.terminated[:, 0], chunk.truncated[:, 0], info

    def step_chunk(self, actions: np.ndarray, look: Sequence[int] = (0,), film: Sequence[int] = ()) -> Chunk:
        """E control steps with (B, E, D) actions in the embodiment's units; other frames than `look` are not drawn.

        Args:
            look: offsets at which observations are wanted, from -E (before the first step) to 0 (after the last).
            film: slots whose picture is wanted after each step.

        Raises:
            ValueError: a wrong shape or offset, or an action that is not a number, naming the lane.
        """
        actions, look = self._checked(actions, look)
        begun = time.perf_counter()
        orders = {slot: actions[slot] for slot in np.flatnonzero(self._running).tolist()}
        runs, _ = self._ask("run", orders, tuple(look), tuple(film))
        chunk = self._empty(actions.shape, look, film)
        for slot in range(self.num_envs):
            self._write(chunk, slot, runs.get(slot, LaneRun()))
        chunk.failed.update(self._report())
        self._account(chunk, list(orders), begun)
        return chunk

    def build(self, slots: Sequence[int]) -> None:
        """Build lanes in advance, one after the other; what goes wrong is told by their reset."""
        for slot in slots:
            self._host_of[slot].ask("build", (slot,))
            self._host_of[slot].answer()

    def call(self, name: str, *args, slots: Sequence[int] | None = None) -> list:
        """Call a method (or read an attribute) of each lane, where it lives: results by slot, None where there is none.

        A lane that raises has failed; the next step reports it.
        """
        asked = range(self.num_envs) if slots is None else slots
        orders = {slot: None for slot in asked if self._live[slot]}
        answers, _ = self._ask("call", orders, name, args)

        results = [None] * self.num_envs
        for slot, (fine, result) in answers.items():
            if fine:
                results[slot] = result
            else:
                self._fail(slot, result)
        return results

    def fail(self, slot: int, text: str) -> None:
        """Give up a running lane for a reason that whoever acts in it has; the next step reports it."""
        if self._running[slot]:
            self._fail(slot, text)

    def render(self, slots: Sequence[int] | None = None) -> dict[int, np.ndarray]:
        """slot -> the picture (h, w, 3) uint8 now."""
        pictures = self.call("render", slots=slots)
        return {slot: picture for slot, picture in enumerate(pictures) if picture is not None}

    film_frame = render

    def close_extras(self, **kwargs) -> None:
        """Close all lanes and end all workers."""
        for host in self._hosts:
            host.close()

    # -- asking the hosts

    def _ask(self, name: str, orders: dict[int, object], *args) -> tuple[dict, dict[int, str]]:
        """Ask every host about its slots at once: (answers by slot, why others were lost with their worker)."""
        shares = {host: self._share(host, orders) for host in self._hosts}
        shares = {host: share for host, share in shares.items() if share}
        for host, share in shares.items():
            host.ask(name, *((*args, tuple(share)) if name == "call" else (share, *args)))

        # they work at the same time
        answers, lost, broken = {}, {}, None
        for host, share in shares.items():
            try:
                answers |= host.answer()
            except WorkerDied as death:
                lost |= self._lose(host, death, share)
            except AttributeError as error:
                broken = error
        if broken:
            raise broken
        return answers, lost

    def _share(self, host, orders: dict[int, object]) -> dict[int, object]:
        return {slot: order for slot, order in orders.items() if self._host_of[slot] is host}

    def _reset_hosts(self, orders: dict) -> dict[int, object]:
        """Reset; a worker that was gone before any lane had its turn is started again, once."""
        answers, lost = self._ask("reset", orders)
        again = [slot for slot in lost if self._untouched[self._host_of[slot]]]
        if again:
            more, still = self._ask("reset", {slot: orders[slot] for slot in again})
            answers, lost = answers | more, {slot: lost[slot] for slot in lost if slot not in again} | still
        return answers | lost

    def _lose(self, host, death: WorkerDied, share: dict) -> dict[int, str]:
        """A worker is gone, and with it what its lanes held: why, for the slots asked about.

        An ended lane has its result already. Whose turn it was has failed, the others were only in the same process.
        """
        self._untouched[host] = death.slot is None
        texts: dict[int, str] = {}
        for slot, owner in self._host_of.items():
            if owner is host:
                own = slot == death.slot and not death.outside
                texts[slot] = str(death) if own else Outside(death)
                if self._running[slot]:
                    self._fail(slot, texts[slot])
                self._live[slot] = False
        return {slot: texts[slot] for slot in share}

    def _fail(self, slot: int, text: str) -> None:
        self._running[slot] = self._live[slot] = False
        self._failures[slot] = text

    def _report(self) -> dict[int, str]:
        reported, self._failures = self._failures, {}
        return reported

    # -- reading what they answer

    def _begin(self, slot: int, answer) -> None:
        if isinstance(answer, str):
            self._fail(slot, answer)
            for value in self._obs.values():
                value[slot] = 0
            return
        obs, info = answer
        self._see(slot, obs)
        self._running[slot] = self._live[slot] = True
        self._success[slot], self._progress[slot] = info["success"], info["progress"]

    def _see(self, slot: int, obs: dict) -> None:
        for key, value in self._obs.items():
            value[slot] = obs[key]

    def _copy(self) -> dict[str, np.ndarray]:
        return {key: value.copy() for key, value in self._obs.items()}

    def _empty(self, shape: tuple[int, int, int], look: tuple[int, ...], film: Sequence[int]) -> Chunk:
        lanes, steps, _ = shape
        flags = {name: np.zeros((lanes, steps), bool) for name in ("terminated", "truncated", "success", "valid")}
        walls = {name: np.zeros(lanes) for name in ("wall_physics", "wall_render", "wall_ipc", "wall_wait")}
        obs = {key: np.repeat(value[:, None], len(look), 1) for key, value in self._obs.items()}
        floats = {name: np.zeros((lanes, steps), np.float32) for name in ("reward", "progress")}
        sent = np.zeros(shape, np.float32)
        pictures = {int(slot): [] for slot in film}
        return Chunk(obs=obs, look=look, **flags, **floats, sent=sent, **walls, film=pictures, failed={})

    def _write(self, chunk: Chunk, slot: int, run: LaneRun) -> None:
        """Put what one lane did into row `slot` of the chunk, and remember where it stands."""
        done, steps = len(run.reward), chunk.reward.shape[1]
        chunk.valid[slot, :done] = True
        for values, rows in ((chunk.reward, run.reward), (chunk.success, run.success), (chunk.progress, run.progress)):
            values[slot, :done] = rows

        # after its end a lane stays as it is
        if done:
            chunk.sent[slot, :done] = run.sent
            self._success[slot], self._progress[slot] = run.success[-1], run.progress[-1]
        chunk.success[slot, done:], chunk.progress[slot, done:] = self._success[slot], self._progress[slot]

        self._look(chunk, slot, run, done, steps)
        chunk.wall_physics[slot], chunk.wall_render[slot] = run.wall_physics, run.wall_render
        if slot in chunk.film:
            chunk.film[slot] = run.film
        if run.error:
            self._fail(slot, run.error)
        self._end(chunk, slot, run, done)

    def _account(self, chunk: Chunk, slots: list[int], begun: float) -> None:
        """Share out what the chunk took beyond the lanes' own work."""
        groups: dict = {}
        for slot in slots:
            groups.setdefault(self._host_of[slot], []).append(slot)
        own = chunk.wall_physics + chunk.wall_render
        busy = {host: float(own[group].sum()) for host, group in groups.items()}
        longest = max(busy.values(), default=0.0)
        for host, group in groups.items():
            chunk.wall_wait[group] = (longest - busy[host]) / len(group)
        chunk.wall_ipc[slots] = max(0.0, time.perf_counter() - begun - longest) / max(1, len(slots))

    def _look(self, chunk: Chunk, slot: int, run: LaneRun, done: int, steps: int) -> None:
        for column, offset in enumerate(chunk.look):
            seen = run.seen.get(min(steps + offset, done))
            for key, value in chunk.obs.items():
                if seen is not None:
                    value[slot, column] = seen[key]
        if run.seen:
            self._see(slot, run.seen[max(run.seen)])

    def _end(self, chunk: Chunk, slot: int, run: LaneRun, done: int) -> None:
        if run.terminated or run.truncated:
            self._running[slot], self._terminated[slot], self._truncated[slot] = False, run.terminated, run.truncated
        chunk.terminated[slot, max(done - 1, 0) :] = self._terminated[slot]
        chunk.truncated[slot, max(done - 1, 0) :] = self._truncated[slot]

    # -- checking what is asked

    def _checked(self, actions, look: Sequence[int]) -> tuple[np.ndarray, tuple[int, ...]]:
        actions, look = np.asarray(actions, np.float32), tuple(int(offset) for offset in look)
        batch, size = self.num_envs, *self.single_action_space.shape
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != (batch, size) or not actions.shape[1]:
            step, chunk = f"(B={batch}, D={size})", f"(B={batch}, E, D={size})"
            raise ValueError(f"actions must be {chunk} for step_chunk and {step} for step, got {actions.shape}")

        outside = [offset for offset in look if not -actions.shape[1] <= offset <= 0]
        if outside:
            raise ValueError(f"look offset {outside[0]} is outside of this chunk: it must be in -{actions.shape[1]}..0")

        bad = np.argwhere(~np.isfinite(actions).all(-1) & self._running[:, None])
        if len(bad):
            slot, step = bad[0].tolist()
            raise ValueError(
                f"action of environment {slot} at step {step} of the chunk is not finite: {actions[slot, step]}"
            )
        return actions, look

    def _seeds(self, seed) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if np.ndim(seed) == 0:
            return [int(seed) + slot for slot in range(self.num_envs)]
        self._per_lane("seed", seed)
        return [None if number is None else int(number) for number in seed]

    def _per_lane(self, name: str, values: Sequence) -> None:
        if len(values) != self.num_envs:
            raise ValueError(f"{name} needs one entry for each of {self.num_envs} environments, got {len(values)}")


def open_world(
    source: WorldSource, lanes: int = 8, workers: int = 0, timeout: float | None = TIMEOUT, **changes
) -> Lanes:
    """`lanes` copies of a world, in this process or in `workers` processes; see `read_world`."""
    return Lanes(read_world(source, **changes), lanes, workers, timeout)
