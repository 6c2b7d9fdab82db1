"""Who runs the blocks of a run: this process, workers that each run whole blocks, or one policy that plans for all.

The block is the unit of work (`rollout.py`): a block goes to whoever is free, and its results come back as its episodes
end. So nothing crosses a process but env seeds and results, and nobody waits for anybody else's lanes. The same env
seeds give the same rows, to the last bit on a CPU, for any number of workers: what a slot gives depends on its env seed
alone, and the policy is always asked for all B slots.

- `workers` 0: in this process.
- `workers` N: N processes, each with its environments and its own copy of the policy. Where there are fewer blocks than
  workers a block is shared: each takes some of its slots, the others stay empty.
- `overlap`: the policy stays in this process (it computes on a GPU) and plans for N blocks in turn, while the
  environments of the others step in N processes.
- another `engine` (`engine.py`): N workers of a cluster, each as such a process.

A worker that dies, or hangs where its environment cannot be interrupted, takes only the running episodes with it: they
are run again by whoever is free, the one whose turn it was alone. Several jobs may be given at the same time; each
job's results are kept until they are asked for.
"""

from __future__ import annotations

import dataclasses
import re
import threading
import time
import warnings
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...configs.lanes.lane import Outside
from ...configs.lanes.lanes import Lanes
from ...configs.lanes.nursery import Nursery, can_fork
from ...configs.lanes.process import WorkerDied
from ...configs.lanes.pulse import TIMEOUT, check_timeout
from ...configs.lanes.worker import refuse_main
from ...configs.world import World
from .account import Account
from .engine import Engine, Hand, LocalEngine
from .recipes import Recipe
from .rollout import ATTEMPTS, NO_START, PAUSES, Actor, Block, Result, account, blocks, error_row, run_block
from .station import RAISED, RESULT, WARNED, Station, Took, load, peak_memory

LOOK = 0.5  # s between two looks at workers that say nothing


@dataclass(eq=False)
class Job:
    """Env seeds to act from, and how far they are."""

    recipe: Recipe
    blocks: Sequence[Block]  # as they were given
    waiting: deque[Block]
    results: deque[Result] = field(default_factory=deque)
    lost: dict[int, str] = field(default_factory=dict)
    running: int = 0  # blocks that somebody works on
    error: BaseException | None = None
    dropped: bool = False
    shared: bool = False  # its blocks were shared out among the workers

    @property
    def done(self) -> bool:
        return not self.waiting and not self.running


class Crew:
    """Runs blocks of one world.

    Args:
        block: B.
        workers: processes; 0: this one.
        timeout: s that a control step may take; 0: for ever.
        overlap: the policy stays in this process and plans for all workers, in turn.
        nursery: which forks the workers, if one has begun to load already.
        engine: whose workers they are; None: this machine's.
    """

    def __init__(
        self,
        world: World,
        block: int = 8,
        workers: int = 0,
        timeout: float = TIMEOUT,
        *,
        overlap: bool = False,
        nursery: Nursery | None = None,
        engine: Engine | None = None,
    ):
        if block < 1 or workers < 0:
            raise ValueError(f"a block must be at least 1 and workers at least 0, got {block} and {workers}")
        check_timeout(timeout)
        world.allow()
        self.world, self.embodiment, self.block, self.workers = world, world.embodiment(), block, workers
        self.timeout, self.overlap = timeout, overlap
        self.account = Account(workers)
        self.stays = False  # whoever made it closes it, see `standing`
        self._jobs: list[Job] = []
        self._here = Station(lambda: Lanes(self.world, block, 0, timeout))
        if workers:
            refuse_main(world)
        self.turn = threading.Lock()
        self._warned: set[str] = set()
        self._nursery = nursery
        if workers > 1 and engine is None:
            world.warm()
        self._engine = engine or LocalEngine(overlap)
        self._hands: Sequence[Hand] = self._engine.hands(self, workers) if workers else ()

    def start(self, needs_torch: bool = True) -> None:
        """Start the workers in advance: they open their environments while this process opens the policy."""
        for hand in self._hands:
            if hand.pipe is None:
                hand.needs_torch = needs_torch
                hand.start()

    def nursery(self, needs_torch: bool) -> Nursery | None:
        """Which forks the workers; the first that was lost with all that it knew is the last."""
        if self._nursery is None and self.workers > 1 and can_fork():
            self._nursery = nursery_of(self.world, needs_torch)
        return self._nursery if self._nursery is not None and self._nursery.alive else None

    def enter(self, world: World) -> None:
        """Act in this world from now on; nothing happens where it is the same."""
        if world == self.world:
            return
        world.allow()
        self.world, self.embodiment = world, world.embodiment()
        self._here.close()
        for hand in self._hands:
            hand.reopen()

    def know(self, recipe: Recipe, actor: Actor) -> None:
        """An actor that is open in this process already."""
        self._here.know(recipe, actor)

    def shared_actor(self, recipe: Recipe, lanes: Lanes) -> Actor:
        """With `overlap`: the one actor of a recipe in this process, whose policy all blocks use."""
        return self._here.actor(recipe, lanes)

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that are up."""
        return [hand.pid for hand in self._hands if hand.pid is not None]

    # -- jobs

    def submit(
        self,
        recipe: Recipe,
        starts: Sequence[int],
        *,
        initial_conditions: str = "",
        policy_seed: int = 0,
        keep: bool = False,
        film: Collection[int] = (),
        skip: Collection[int] = (),
        options: Mapping | None = None,
    ) -> Job:
        """Act from these env seeds as `rollout` would; its results are had by `results`.

        Raises:
            ValueError: an env seed given twice, or a recipe that cannot be sent.
        """
        if self._hands:
            refuse_main(recipe)
        columns = {"initial_conditions": initial_conditions, "policy_seed": policy_seed}
        how = {"columns": columns, "keep": keep, "film": frozenset(film), "options": dict(options or {})}
        cut = blocks(starts, self.block, skip, **how)
        job = Job(recipe, cut, deque(cut))
        self._jobs.append(job)
        return job

    def run(self, recipe: Recipe, starts: Sequence[int], **how) -> Iterator[Result]:
        """Act from these env seeds, see `submit`, and yield each episode when it has ended."""
        return self.results(self.submit(recipe, starts, **how))

    def results(self, job: Job) -> Iterator[Result]:
        """Each episode of a job when it has ended. Left early, the rest of the job is dropped.

        Raises:
            MachineError: the machine failed at some env seeds again and again; raised when the others are done.
            ArmError: an episode on a real arm failed; those before it have been given.
        """
        try:
            while job.results or not job.done:
                if not self._hands:
                    yield from self._act_here(job, job.waiting.popleft())
                elif not job.results:
                    self._pump()
                while job.results:
                    yield job.results.popleft()
                if job.error is not None:
                    raise job.error
                account(job.lost, early=True)
            account(job.lost)
        finally:
            self.drop(job)

    def in_order(self, job: Job, n_action_steps: int) -> Iterator[Result]:
        """The results of a job block by block, in each as they end in a process of its own.

        Args:
            n_action_steps: E of who acts.
        """
        if not self._hands:
            yield from self.results(job)
            return
        place = {start: (at, slot) for at, block in enumerate(job.blocks) for slot, start in enumerate(block.starts)}
        left = [set(block.todo) for block in job.blocks]
        held: list[list[Result]] = [[] for _ in job.blocks]
        now = 0
        for result in self.results(job):
            at, _ = place[result.start]
            held[at].append(result)
            left[at].discard(result.start)
            while now < len(left) and not left[now]:
                ended = held[now]
                ended.sort(key=lambda one: (-(-one.row["length"] // n_action_steps), place[one.start][1]))
                yield from ended
                held[now], now = [], now + 1

    def drop(self, job: Job) -> None:
        """Forget a job; what runs of it runs on, to nobody's use."""
        job.waiting.clear()
        job.results.clear()
        job.dropped = True
        if job in self._jobs:
            self._jobs.remove(job)

    def close(self) -> None:
        """End the workers; those that work, at once."""
        self._jobs.clear()
        for hand in self._hands:
            hand.dismiss()
        for hand in self._hands:
            hand.close()
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None
        self._engine.close()
        self._here.close()

    def told(self) -> dict:
        """What the crew did with its time, for a manifest."""
        return self.account.told() | self._engine.told()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_) -> None:
        if self.stays:
            for job in list(self._jobs):
                self.drop(job)
        else:
            self.close()

    # -- in this process

    def _act_here(self, job: Job, block: Block) -> Iterator[Result]:
        station, begun = self._here, time.perf_counter()
        actor = station.actor(job.recipe)
        opening = time.perf_counter() - begun
        for result in run_block(block, actor, station.lanes, job.lost):
            self.account.saw_one()
            yield result
        self.account.take(0, Took(time.perf_counter() - begun, 0.0, opening, peak_memory()))

    # -- workers

    def _pump(self) -> None:
        """Hand out what waits, then hear what has been done since."""
        self._share_out()
        for hand in self._hands:
            if hand.order is None and self._waits() and hand.ready() and (order := self._next()) is not None:
                hand.give(order)
        heard = self._engine.wait(self._hands, LOOK)
        for hand in [hand for hand in self._hands if hand.order is not None]:
            if hand.pipe is None:  # it could not be started
                self._lose(hand, hand.death or WorkerDied("a worker could not be started", None, True))
                time.sleep(PAUSES[0])
            elif hand in heard:
                self._hear(hand)
            elif death := hand.stuck():
                self._lose(hand, death)

    def _share_out(self) -> None:
        """Where the blocks of new jobs do not go evenly into the workers, the last of them are shared."""
        if any(hand.order is not None for hand in self._hands):
            return
        new = [job for job in self._jobs if not job.shared]
        whole = [(job, block) for job in new for block in job.waiting]
        rest = len(whole) % len(self._hands)
        parts = len(self._hands) // rest if rest else 1
        for job in new:
            job.shared = True
        for job, block in whole[len(whole) - rest :] if parts > 1 else ():
            job.waiting.remove(block)
            job.waiting.extend(split(block, parts))

    def _waits(self) -> bool:
        return any(job.waiting for job in self._jobs)

    def _next(self) -> tuple[Job, Block] | None:
        for job in self._jobs:
            if job.waiting:
                job.running += 1
                return job, job.waiting.popleft()
        return None

    def _hear(self, hand) -> None:
        """All that a worker has said."""
        job = hand.order[0]
        try:
            while hand.order is not None and hand.pipe.poll():
                kind, content = hand.pipe.recv()
                if kind == RESULT:
                    self._take(hand, job, content)
                elif kind == WARNED:
                    self._warn(*content)
                elif kind == RAISED:
                    job.error = content
                    self._free(hand)
                else:
                    self.account.take(hand.number, content)
                    job.lost |= content.lost
                    self._free(hand)
                    hand.rested()
        except (EOFError, OSError):
            self._lose(hand, hand.died())

    def _take(self, hand, job: Job, result: Result) -> None:
        self.account.saw_one()
        hand.left.discard(result.start)
        if not job.dropped:
            job.results.append(dataclasses.replace(result, row=result.row | {"worker": hand.number}))

    def _warn(self, text: str, filename: str, line: int) -> None:
        """What a worker warns of, once for all: their numbers may differ."""
        kind = re.sub(r"[\d.]+", "#", text)
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn_explicit(text, UserWarning, filename, line)

    def _free(self, hand) -> None:
        hand.order[0].running -= 1
        hand.order = None

    def _lose(self, hand, death: WorkerDied) -> None:
        """A worker is gone: run again what it had not done, the env seed whose turn it was alone."""
        job, block = hand.order
        self._free(hand)
        self.account.again += 1
        if job.dropped:
            return
        culprit = block.starts[death.slot] if death.slot is not None else NO_START
        left = [start for start in block.todo if start in hand.left]
        if death.slot is None or culprit not in left:  # while the policy thought, or nobody was to blame
            self._again(job, dataclasses.replace(block, disturbed=block.disturbed + 1), left, death)
            return
        others = [start for start in left if start != culprit]
        if others:
            job.waiting.appendleft(keep_only(block, others))
        failed, disturbed = block.failed + (not death.outside), block.disturbed + death.outside
        self._again(job, dataclasses.replace(block, failed=failed, disturbed=disturbed), [culprit], death)

    def _again(self, job: Job, block: Block, starts: list[int], death: WorkerDied) -> None:
        """Try env seeds again, or tell that it makes no sense any more."""
        if not starts:
            return
        if block.disturbed > len(PAUSES):
            job.lost |= dict.fromkeys(starts, Outside(death))
        elif block.failed >= ATTEMPTS:
            rows = [error_row(block, start, str(death), self.world.task) for start in starts]
            job.results.extend(Result(row, self._no_actions()) for row in rows)
        else:
            job.waiting.appendleft(keep_only(block, starts))

    def _no_actions(self) -> np.ndarray:
        return np.zeros((0, len(self.embodiment.action)), np.float32)


def keep_only(block: Block, starts: Collection[int]) -> Block:
    """The block with all other slots empty."""
    left = tuple(start if start in starts else NO_START for start in block.starts)
    return dataclasses.replace(block, starts=left)


def split(block: Block, parts: int) -> list[Block]:
    """The block in up to so many blocks that leave different slots empty."""
    groups = np.array_split(np.asarray(block.todo), min(parts, len(block.todo)))
    return [keep_only(block, group.tolist()) for group in groups]


def nursery_of(world: World, needs_torch: bool = True) -> Nursery:
    """It loads what workers in this world need."""
    return Nursery(f"{load.__module__}:{load.__name__}", needs_torch, world)
