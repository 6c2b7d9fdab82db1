"""The one acting loop: an actor and B environments, blocks of B env seeds in fixed slots, one result an episode.

The actor may be a policy's `Agent`, a scripted expert or a tape of recorded actions; the environments any world. A
block is the reproducible unit: the actor always sees all B slots, and what happens in one slot depends on its own env
seed alone. So the same env seeds give the same episodes for any number of workers, also where an environment failed
and its env seed was done again. An environment that fails twice gives a row with an error; what the machine did (no
memory, a killed process) is tried again and never becomes a row. A real arm does not move again unasked: there an
episode that failed ends the run. Knows nothing of files, statistics or pictures beyond handing them on.
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from ...configs.episode import Episode
from ...configs.lanes.lane import MachineError, Outside
from ...configs.lanes.lanes import Chunk, Lanes
from ...configs.lanes.pulse import EPISODE
from ...configs.protocols import keeps
from ...configs.world import World

NO_START = -1  # env seed that the actor is given for a padded slot
ATTEMPTS = 2  # an env seed whose environment failed is done again once
PAUSES = (0.5, 1.0, 3.0, 10.0)  # s before an env seed is tried again after the machine failed
GIVE_UP = 3  # env seeds lost to the machine after which the others are not tried
WALLS = ("physics", "render", "policy", "ipc", "wait")  # where the time of an episode goes: columns `wall_*`


class ArmError(ConnectionError):
    """An episode on a real arm failed. It was let go, and nobody moves it again unasked."""


class Actor(Protocol):
    """Acts in all B slots at once, E control steps at a time. May also be a `Teller`."""

    @property
    def n_action_steps(self) -> int:
        """E."""
        ...

    @property
    def look(self) -> tuple[int, ...]:
        """Offsets of the frames that it reads after each chunk, 0 = after the last of the E steps."""
        ...

    def reset(self, starts: np.ndarray, mask: np.ndarray, obs: Mapping[str, np.ndarray]) -> None:
        """New episodes in the slots of `mask` (B,) bool: `starts` (B,) int64, `obs` key -> (B, ...) of all slots."""

    def act(self) -> np.ndarray:
        """(B, E, D) float32 actions in the embodiment's units."""

    def observe(self, obs: Mapping[str, np.ndarray], sent: np.ndarray, valid: np.ndarray) -> None:
        """What the chunk gave: key -> (B, L, ...) at the offsets `look`, (B, E, D) executed actions, (B, E) bool."""


@runtime_checkable
class Waits(Protocol):
    """An actor that shares its policy with others and waits for its turn."""

    waited: float  # s so far


@runtime_checkable
class Teller(Protocol):
    """An actor that has something to say of an episode."""

    @abstractmethod
    def told(self, slot: int) -> dict:
        """Further columns of the row of the episode that ends in this slot."""
        ...


@dataclass(frozen=True)
class Result:
    """One episode as it ended. `row` has the columns of `episodes.parquet`; see `ledger/table.py`."""

    row: dict
    actions: np.ndarray  # (T, D) float32, what the actor asked for
    episode: Episode | None = None  # everything, if it was kept
    film: tuple[np.ndarray, ...] = ()  # (h, w, 3) uint8: before the first step and after each, if it was filmed

    @property
    def start(self) -> int:
        return self.row["env_seed"]


@dataclass(frozen=True)
class Block:
    """One block of env seeds in their slots, and what was tried of it already. Everything in it may be sent away."""

    starts: tuple[int, ...]  # B of them, NO_START where a slot stays empty
    columns: Mapping  # of every row
    keep: bool = False
    film: frozenset[int] = frozenset()
    options: Mapping = field(default_factory=dict)
    failed: int = 0  # times that its environment has failed; above 0 it holds one env seed alone
    disturbed: int = 0  # times that the machine has failed at it

    @property
    def todo(self) -> tuple[int, ...]:
        return tuple(start for start in self.starts if start != NO_START)


@dataclass
class _Tape:
    """What one running episode gave so far."""

    first: dict[str, np.ndarray]  # observation of the reset
    begun_well: bool  # success before any step
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)  # one a chunk, only executed steps
    film: list[np.ndarray] = field(default_factory=list)
    walls: dict[str, float] = field(default_factory=lambda: dict.fromkeys(WALLS, 0.0))
    terminated: bool = False
    truncated: bool = False
    error: str = ""
    labels: dict = field(default_factory=dict)  # what the lane says of the episode when it has ended
    watched: dict = field(default_factory=dict)  # what the actor tells of it, more columns of the row

    def all(self, name: str, empty: tuple[int, ...], dtype=np.float32) -> np.ndarray:
        return np.concatenate([np.zeros((0, *empty), dtype), *(part[name] for part in self.parts)])


def rollout(
    actor: Actor,
    lanes: Lanes,
    starts: Sequence[int],
    *,
    initial_conditions: str = "",
    policy_seed: int = 0,
    keep: bool = False,
    film: Collection[int] = (),
    skip: Collection[int] = (),
    options: Mapping | None = None,
) -> Iterator[Result]:
    """Act from every env seed and yield each episode when it has ended (see `in_order`). B is the number of lanes.

    Args:
        starts: env seeds, different from each other.
        initial_conditions: the set that the env seeds draw from, a column of the rows.
        policy_seed: of the actor's noise, a column of the rows.
        keep: look at every frame and give whole episodes.
        film: env seeds whose pictures are wanted.
        skip: env seeds that are done already; their slots stay empty.
        options: reset options of the lanes.

    Raises:
        ValueError: an env seed given twice.
        MachineError: the machine failed at some env seeds again and again; raised when the others are done.
        ArmError: an episode on a real arm failed; those before it have been given.
    """
    lost: dict[int, str] = {}
    how = {"columns": {"initial_conditions": initial_conditions, "policy_seed": policy_seed}, "keep": keep}
    how |= {"film": frozenset(film), "options": dict(options or {})}
    for block in blocks(starts, lanes.num_envs, skip, **how):
        yield from run_block(block, actor, lanes, lost)
        account(lost, early=True)
    account(lost)


def blocks(starts: Sequence[int], size: int, skip: Collection[int] = (), **how) -> list[Block]:
    """The blocks of env seeds in their order, those that are to be skipped left out of their slots; empty ones too.

    Raises:
        ValueError: an env seed given twice.
    """
    starts = [int(start) for start in starts]
    if len(set(starts)) != len(starts):
        raise ValueError("an env seed is given twice; the outcome of an initial condition is one row")
    cut = [starts[begin : begin + size] for begin in range(0, len(starts), size)]
    left = [tuple(NO_START if start in skip else start for start in part) for part in cut]
    made = [Block(part + (NO_START,) * (size - len(part)), **how) for part in left]
    return [block for block in made if block.todo]


def run_block(block: Block, actor: Actor, lanes: Lanes, lost: dict[int, str]) -> Iterator[Result]:
    """Act from every env seed of one block, and yield each episode when it has ended.

    Args:
        lost: is told env seeds at which the machine failed again and again, and how.

    Raises:
        ArmError: an episode on a real arm failed, and would have been done again.
    """
    yield from _Loop(actor, lanes, block, lost).run()


def account(lost: Mapping[int, str], early: bool = False) -> None:
    """Raise MachineError if env seeds were lost to the machine; `early`: if there were many."""
    if not lost or (early and len(lost) < GIVE_UP):
        return
    start, text = next(iter(lost.items()))
    others = f", and at {len(lost) - 1} more env seeds" if len(lost) > 1 else ""
    raise MachineError(
        f"the machine failed {len(PAUSES) + 1} times at env seed {start}{others}: {text}. That says nothing of the "
        "policy, so no row is written for it; the other episodes are kept. Make room (memory, disk, processes), "
        "then go on with --resume"
    )


def error_row(block: Block, start: int, text: str, task: str) -> dict:
    """The row of an episode of which nothing is left but why it ended, twice."""
    tape = _Tape({}, False, error=text)
    nothing = np.zeros(0, np.float32)
    row = dict(block.columns) | _outcome(tape, nothing, nothing, nothing.astype(bool))
    row |= {"env_seed": start, "task": task, "attempt": block.failed + block.disturbed, "worker": 0}
    return row | {f"wall_{name}": 0.0 for name in WALLS} | {"video": "", "labels": "{}"}


def in_order(results: Iterable[Result], starts: Sequence[int]) -> Iterator[Result]:
    """The same results in the order of `starts`, each as soon as all earlier ones are there."""
    waiting: dict[int, Result] = {}
    order = iter(starts)
    due = next(order, None)
    for result in results:
        waiting[result.start] = result
        while due in waiting:
            yield waiting.pop(due)
            due = next(order, None)


class _Loop:
    """State of one block; `_tapes` holds the episodes that run now, by slot."""

    def __init__(self, actor: Actor, lanes: Lanes, block: Block, lost: dict[int, str]):
        self.actor, self.lanes, self.block, self.lost = actor, lanes, block, lost
        self.ids = np.asarray(block.starts, np.int64)
        self.frames = tuple(range(1 - actor.n_action_steps, 1)) if block.keep else ()
        self.look = tuple(sorted({*actor.look, *self.frames}))
        self.told = actor.told if keeps(actor, Teller) else None
        self.labelled = True  # until a lane says that it has no labels
        self.horizon = horizon_of(lanes.world)
        self._tapes: dict[int, _Tape] = {}

    def run(self) -> Iterator[Result]:
        """All env seeds of the block, those of failed environments a second time."""
        ids, slots = self.ids, np.flatnonzero(self.ids != NO_START).tolist()
        failed, disturbed = dict.fromkeys(slots, self.block.failed), dict.fromkeys(slots, self.block.disturbed)
        attempt = self.block.failed + self.block.disturbed
        anew = True
        while slots:
            again = []
            # Alone from the second try on: a start that takes its process down takes no other with it.
            for group in [slots] if attempt == 0 else [[slot] for slot in slots]:
                if attempt > 1 and disturbed[group[0]]:
                    time.sleep(PAUSES[disturbed[group[0]] - 1])
                for slot, tape in self._attempt(group, anew):
                    outside = isinstance(tape.error, Outside)
                    if tape.error and self.lanes.world.moves_arm and (outside or self.block.failed + 1 < ATTEMPTS):
                        raise ArmError(
                            f"the episode of env seed {int(ids[slot])} failed: {tape.error}. Nothing of it is kept, "
                            "and the arm was let go: it does not move again unasked"
                        )
                    failed[slot] += bool(tape.error) and not outside
                    disturbed[slot] += outside
                    if disturbed[slot] > len(PAUSES):
                        self.lost[int(ids[slot])] = tape.error
                        account(self.lost, early=True)
                    elif tape.error and failed[slot] < ATTEMPTS:
                        again.append(slot)
                    else:
                        yield self._result(int(ids[slot]), slot, attempt, tape)
                anew = False
            slots = sorted(again)
            attempt += 1

    def _attempt(self, slots: list[int], anew: bool) -> Iterator[tuple[int, _Tape]]:
        """Run the env seeds in `slots` to their ends; the other slots stay as they are."""
        yield from self._begin(slots, anew)
        filmed = [slot for slot in self._tapes if int(self.ids[slot]) in self.block.film]
        while self._tapes:
            begun, waited = time.perf_counter(), self._waited()
            asked = np.asarray(self.actor.act(), np.float32)
            thought = time.perf_counter() - begun
            chunk = self.lanes.step_chunk(asked, look=self.look, film=[slot for slot in filmed if slot in self._tapes])
            begun = time.perf_counter()
            columns = [chunk.look.index(offset) for offset in self.actor.look]
            self.actor.observe({key: seen[:, columns] for key, seen in chunk.obs.items()}, chunk.sent, chunk.valid)
            waited = self._waited() - waited
            thought += time.perf_counter() - begun - waited
            yield from self._write(chunk, asked, thought / len(self._tapes), waited / len(self._tapes))

    def _waited(self) -> float:
        return self.actor.waited if keeps(self.actor, Waits) else 0.0

    def _begin(self, slots: list[int], anew: bool) -> Iterator[tuple[int, _Tape]]:
        ids, film = self.ids, self.block.film
        mask = np.zeros(len(ids), bool)
        mask[slots] = True
        seeds = [start if start != NO_START else None for start in ids.tolist()]
        obs, info = self.lanes.reset(seed=seeds, options=dict(self.block.options) | {"reset_mask": mask})
        self.actor.reset(ids, np.ones(len(ids), bool) if anew else mask, obs)
        pictures = self.lanes.render([slot for slot in slots if int(ids[slot]) in film]) if film else {}
        for slot in slots:
            first = {key: value[slot].copy() for key, value in obs.items()} if self.block.keep else {}
            tape = _Tape(first, bool(info["success"][slot]), error=info["failed"].get(slot, ""))
            tape.film.extend([pictures[slot]] if slot in pictures else [])
            if tape.error:
                yield slot, tape
            else:
                self._tapes[slot] = tape

    def _write(self, chunk: Chunk, asked: np.ndarray, thought: float, waited: float) -> Iterator:
        """Put a chunk onto the running tapes and give those that have ended."""
        for slot, tape in list(self._tapes.items()):
            done = int(chunk.valid[slot].sum())
            names = ("reward", "progress", "success", "sent")
            part = {name: getattr(chunk, name)[slot, :done] for name in names} | {"action": asked[slot, :done]}
            for key, seen in chunk.obs.items() if self.block.keep else ():
                part[key] = seen[slot, [chunk.look.index(offset) for offset in self.frames[:done]]]
            tape.parts.append(part)
            tape.film.extend(chunk.film.get(slot, ()))
            walls = {name: getattr(chunk, f"wall_{name}")[slot] for name in WALLS if name != "policy"}
            walls |= {"policy": thought, "wait": walls["wait"] + waited}
            tape.walls = {name: spent + float(walls[name]) for name, spent in tape.walls.items()}
            tape.error = chunk.failed.get(slot, "")
            tape.terminated, tape.truncated = bool(chunk.terminated[slot].any()), bool(chunk.truncated[slot].any())
            if not (tape.error or tape.terminated or tape.truncated):
                self._end_endless(slot, tape)
            if tape.error or tape.terminated or tape.truncated:
                del self._tapes[slot]
                tape.labels = {} if tape.error else self._labels(slot, tape)
                tape.watched = self.told(slot) if self.told else {}
                yield slot, tape

    def _end_endless(self, slot: int, tape: _Tape) -> None:
        """An episode that does not end within its time, or far behind its horizon, has failed."""
        spent, limit = tape.walls["physics"] + tape.walls["render"], EPISODE * self.lanes.timeout
        steps = sum(len(part["reward"]) for part in tape.parts)
        if limit and spent > limit:
            tape.error = f"the episode took {spent:.0f} s in its environment, more than {limit:g} s: it was ended"
        elif self.horizon and steps > 2 * self.horizon + self.actor.n_action_steps:
            tape.error = f"the episode did not end: {steps} control steps with a horizon of {self.horizon}"
        if tape.error:
            self.lanes.fail(slot, tape.error)

    def _labels(self, slot: int, tape: _Tape) -> dict:
        """`labels()` of an episode that has ended, if its world offers that: what success alone does not say."""
        if not self.labelled:
            return {}
        try:
            labels = self.lanes.call("labels", slots=[slot])[slot] or {}
        except AttributeError:
            self.labelled = False
            return {}
        try:
            return json.loads(json.dumps(dict(labels), allow_nan=False))
        except (TypeError, ValueError) as error:
            tape.error = f"labels() of the environment cannot be written as JSON: {error}"
            return {}

    def _result(self, start: int, slot: int, attempt: int, tape: _Tape) -> Result:
        dims = self.lanes.single_action_space.shape
        asked, reward, progress = tape.all("action", dims), tape.all("reward", ()), tape.all("progress", ())
        success = tape.all("success", (), bool)
        task = self.lanes.world.task
        row = dict(self.block.columns) | _outcome(tape, reward, progress, success)
        row |= {"env_seed": start, "task": task, "attempt": attempt, "worker": self.lanes.worker_of(slot)}
        row |= {f"wall_{name}": spent for name, spent in tape.walls.items()}
        row |= {"video": "", "labels": json.dumps(tape.labels)} | tape.watched
        episode = (
            self._episode(start, tape, asked, reward, progress, success) if self.block.keep and not tape.error else None
        )
        return Result(row, asked, episode, tuple(tape.film))

    def _episode(self, start: int, tape: _Tape, asked, reward, progress, success) -> Episode:
        obs = {}
        for key, first in tape.first.items():
            obs[key] = np.concatenate([first[None], *(part[key] for part in tape.parts)])

        return Episode(
            start=start,
            task=self.lanes.world.task,
            obs={key: value[:-1] for key, value in obs.items()},
            final={key: value[-1] for key, value in obs.items()},
            action=asked,
            sent=tape.all("sent", self.lanes.single_action_space.shape),
            reward=reward,
            progress=progress,
            success=success,
            terminated=tape.terminated,
            truncated=tape.truncated,
        )


def horizon_of(world: World) -> int:
    """Control steps until an episode is cut; 0 where the world does not say."""
    try:
        return int(world.steps())
    except (NotImplementedError, AttributeError, ValueError):
        return 0


def _outcome(tape: _Tape, reward: np.ndarray, progress: np.ndarray, success: np.ndarray) -> dict:
    """The columns that say how it went. `first_success`: control steps until success was first seen, else -1."""
    first = 0 if tape.begun_well else int(success.argmax()) + 1 if success.any() else -1
    return {
        "success": first >= 0 and not tape.error,
        "first_success": -1 if tape.error else first,
        "best_progress": float(progress.max(initial=0)),
        "final_progress": float(progress[-1]) if len(progress) else 0.0,
        "return": float(reward.sum(dtype=np.float32)),
        "length": len(reward),
        "progress": progress.tolist(),
        "terminated": tape.terminated,
        "truncated": tape.truncated,
        "error": tape.error,
    }
