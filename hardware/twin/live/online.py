"""A twin that something follows, in a process of its own: the lane in which a policy acts, and the loop behind it.

`pace: wall` runs the loop by the clock. It never waits for the policy: until the next action comes, ticks
hold the last controls, and are counted. `pace: free` runs exactly the ticks of each control step, in simulated time, so
that equal seeds give equal episodes.
"""

from __future__ import annotations

import gc
import time
from abc import abstractmethod
from collections import deque
from typing import Any, Protocol

import numpy as np

from ....configs.lanes.lane import Lane
from ....configs.lanes.process import Companion, at_work
from ....sim.decor import movable_bodies
from ....sim.open_loop import controls_of
from ....sim.task import TaskEnv
from ..align import Aligner
from .loop import Loop, LoopSettings, Tick
from .seam import Real
from .timing import Timing
from .tracking import Tracking, track

KEPT = 20_000  # ticks that are kept, five minutes at 60 Hz
ANSWER, BUILD = 60.0, 300.0  # s
SPIN = 0.0015  # s before a tick is due in which the clock is watched


class Twin(Protocol):
    """What this file needs of a twin's world; see `env.TwinWorld`."""

    @property
    def loop(self) -> LoopSettings: ...

    @property
    def judge(self) -> str: ...

    @property
    def pace(self) -> str: ...

    @abstractmethod
    def stage(self) -> Stage:
        """Build the parts, in the process of the loop."""
        ...


class Stage:
    """Twin, what follows it and what corrects it, in this process. Methods are those of a lane, tick by tick."""

    def __init__(self, lane: TaskEnv, real: Real, aligner: Aligner | None, world: Twin):
        self.lane, self.real, self.world = lane, real, world
        self.loop = Loop(lane.model, lane.data, real, aligner, world.loop, movable_bodies(lane.model))
        ticks = world.loop.rate / lane.embodiment.rate  # in a control step
        if ticks < 1 or abs(ticks - round(ticks)) > 1e-6:
            told = f"{world.loop.rate:g} ticks a second are no whole number in each of {lane.embodiment.rate:g} control"
            raise ValueError(f"{told} steps: set loop.rate to a multiple of {lane.embodiment.rate:g}")
        self.ticks_a_step = round(ticks)
        self.timing = Timing(1 / world.loop.rate)
        self.trace: deque[Tick] = deque(maxlen=KEPT)
        self._queue: deque[np.ndarray] = deque()
        self.starved = 0  # ticks without an action
        self._rehearsed = aligner is None

    def begin(self, seed: int, options: dict) -> None:
        """Both worlds go to start `seed`; the twin's arm to where the real one stands."""
        import mujoco

        from ....configs.spec import STATE

        if self.loop.aligner is not None and not self._rehearsed:  # before an arm is held: it takes a while
            self.lane.reset(seed=seed, options=options)
            self.loop.aligner.rehearse(self.lane.model, self.lane.data)
            self._rehearsed = True
        self.real.begin(seed)
        self.lane.reset(seed=seed, options=options)
        seen, _ = self.real.observe()
        arm, data = self.loop.joints, self.lane.data
        if np.abs(data.qpos[arm.qpos] - seen[STATE]).max() > 2e-3:  # an encoder's rounding is none
            data.qpos[arm.qpos] = seen[STATE]
            data.ctrl[arm.ctrl] = seen[STATE]
            mujoco.mj_forward(self.lane.model, data)
        self.loop.begin()
        self.trace.clear()
        self._queue.clear()
        self.starved = 0

    def order(self, action: np.ndarray) -> None:
        """Queue the ticks of a control step."""
        rows = controls_of(self.lane, np.asarray(action)[None])
        every = self.lane._substeps // len(rows)
        rows = np.repeat(rows, max(1, every), axis=0)
        cuts = np.rint(np.arange(self.ticks_a_step + 1) * len(rows) / self.ticks_a_step).astype(int)
        self._queue.extend(rows[low:high] for low, high in zip(cuts, cuts[1:], strict=False))

    @property
    def done(self) -> bool:
        """Whether the ticks of the last control step are over."""
        return not self._queue

    def tick(self) -> Tick:
        """One tick of what is queued; of holding still where nothing is."""
        if not self._queue:
            self.starved += 1
            count = round(self.lane._substeps / self.ticks_a_step)
            self._queue.append(np.tile(self.lane.data.ctrl, (count, 1)))
        tick = self.loop.tick(self._queue.popleft())
        self.trace.append(tick)
        return tick

    def settle(self) -> tuple[float, str]:
        """After a control step: (reward, why the arm was held)."""
        import mujoco

        mujoco.mj_forward(self.lane.model, self.lane.data)
        return self.judge()[1], self.loop.held

    def judge(self) -> tuple[bool, float]:
        """Success and progress, by the twin or by the tape measure."""
        if self.world.judge == "twin":
            return self.lane.judge()
        truth = self.truth()
        return truth.success, truth.progress

    def truth(self):
        """See `StandIn.truth`. AttributeError: it is no stand-in."""
        real: Any = self.real
        return real.truth()

    def tracking(self) -> Tracking:
        """How near the objects are to the stand-in's, tick by tick. ValueError: nobody can tell, or no tick yet."""
        real: Any = self.real
        if not hasattr(real, "history") or not self.trace:
            raise ValueError("tracking is told by a stand-in, after ticks")
        times, values = real.history()
        when = np.array([tick.time for tick in self.trace]) + self.loop.begun
        kept = when >= times[0] - 1e-6  # a stand-in forgets what is long ago
        when, twin = when[kept], np.array([tick.qpos for tick in self.trace])[kept]
        rows = np.clip(np.searchsorted(times, when - 1e-6), 0, len(times) - 1)
        return track(self.lane.model, self.loop.bodies.tolist(), when - self.loop.begun, twin, values[rows])

    def account(self) -> dict:
        """JSON-able: warnings, held ticks and lag of this episode; timing of all since the stage was built."""
        from .loop import lag_of

        ticks = list(self.trace)
        held: dict[str, int] = {}
        for tick in ticks:
            if tick.held:
                held[tick.held] = held.get(tick.held, 0) + 1
        about: dict[str, Any] = {"timing": self.timing.summary(), "warnings": self.loop.warnings, "held_ticks": held}
        about["starved"] = self.starved
        if len(ticks) > 60:
            try:
                about["lag_ticks"] = lag_of(np.array([t.joints for t in ticks]), np.array([t.echo for t in ticks]))
            except ValueError:
                pass
        return about

    def ticks(self) -> list[Tick]:
        """Those of this episode."""
        return list(self.trace)

    def keep_pictures(self, every: int) -> None:
        """Every so many ticks keep their pictures, for a view; 0: none."""
        self.loop.keep_every = every

    def close(self) -> None:
        self.real.close()
        self.lane.close()


class OnlineLane(Lane):
    """The lane in the caller's process: every hook is asked of the loop's."""

    def __init__(self, world: Any):
        super().__init__(world)
        self.delay = world.clean.delay
        self._companion = Companion(f"{__name__}:serve")
        self._pipe = self._companion.start()
        self._held = ""
        self.followed_by_stand_in = world.real is not None
        self._ask(world, patience=BUILD)

    def begin(self, seed: int, options: dict) -> None:
        self._ask(("begin", seed, options), BUILD)

    def act(self, action: np.ndarray) -> float:
        reward, self._held = self._ask(("act", action))
        return reward

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
        """As `Lane.advance`; where the arm was held, what was executed is to stay."""
        reward, success, cut, info = super().advance(action)
        if self._held:
            info["action.sent"] = np.asarray(self.rest(), np.float32)
        return reward, success, cut, info

    def sense(self) -> dict[str, np.ndarray]:
        return self._ask(("lane", "sense"))

    def judge(self) -> tuple[bool, float]:
        return self._ask(("stage", "judge"))

    def rest(self) -> np.ndarray:
        return self._ask(("lane", "rest"))

    def render(self) -> np.ndarray:
        return self._ask(("lane", "render"))

    def expert_action(self, noise: float = 0.0) -> np.ndarray:
        """What the task's scripted demonstrator does now in the twin."""
        return self._ask(("expert", noise, self.ticks))

    def account(self) -> dict:
        """Warnings, held ticks and lag of this episode, timing since the lane was opened; see `Stage.account`."""
        return self._ask(("stage", "account"))

    def ticks_done(self) -> list[Tick]:
        """The ticks of this episode, for a view or a page."""
        return self._ask(("stage", "ticks"))

    def keep_pictures(self, every: int) -> None:
        """See `Stage.keep_pictures`."""
        self._ask(("stage", "keep_pictures", every))

    def truth(self):
        """See `StandIn.truth`."""
        return self._ask(("stage", "truth"))

    def tracking(self) -> Tracking:
        """See `Stage.tracking`."""
        return self._ask(("stage", "tracking"))

    def close(self) -> None:
        self._companion.close()

    def _ask(self, message, patience: float = ANSWER):
        if self._pipe.closed:
            raise ConnectionError("the twin's loop was closed; open its world again")
        try:
            self._pipe.send(message)
            if not self._pipe.poll(patience):
                self.close()  # a late answer would be taken for that of the next order
                raise TimeoutError(f"the twin's loop did not answer within {patience:g} s")
            fine, answer = self._pipe.recv()
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            raise ConnectionError(f"the twin's process is gone: {error}") from error
        if not fine:
            raise answer
        return answer


class _Served:
    """What the loop's process does with its orders."""

    def __init__(self, stage: Stage, pipe):
        self.stage, self.pipe, self.acting, self.running = stage, pipe, False, False
        self._failed: Exception | None = None  # of a tick between orders, told with the next one

    def carry_out(self, message: tuple) -> None:
        """An order; `act` is answered when its ticks are done."""
        name, *given = message
        failed, self._failed = self._failed, None
        try:
            if failed is not None and name != "begin":
                raise failed
            if name == "begin":
                self.stage.begin(*given)
                self.running, answer = True, None
            elif name == "act":
                self.stage.order(given[0])
                self.acting = True
                return
            elif name == "expert":
                self.stage.lane.ticks = given[1]
                answer = self.stage.lane.expert_action(given[0])
            else:
                target = self.stage.lane if name == "lane" else self.stage
                answer = getattr(target, given[0])(*given[1:])
        except Exception as error:  # whatever a simulator raises is told to who asked
            self.pipe.send((False, error))
        else:
            self.pipe.send((True, answer))

    def tick(self) -> float:
        """One tick, and the answer where it ends a control step; its work in s."""
        begun = time.perf_counter()
        try:
            tick = self.stage.tick()
        except Exception as error:
            if self.acting:
                self.pipe.send((False, error))
            else:
                self._failed = error
            self.acting = self.running = False
            return 0.0
        spent = time.perf_counter() - begun
        self.stage.timing.add(spent, False, tick.seconds)
        if self.acting and self.stage.done:
            self.acting = False
            self.pipe.send((True, self.stage.settle()))
        return spent

    def free(self) -> None:
        """Orders, and the ticks that they take."""
        while True:
            self.carry_out(self.pipe.recv())
            while self.acting:
                self.tick()

    def wall(self) -> None:
        """Ticks by the clock, orders between them; also where every tick is late."""
        period, due = self.stage.timing.period, time.monotonic()
        while True:
            while self.pipe.poll(max(0.0, due - time.monotonic() - SPIN) if self.running else None):
                was = self.running
                self.carry_out(self.pipe.recv())
                if not was or self.stage.loop.tick_number == 0:
                    due = time.monotonic()
            while time.monotonic() < due:
                pass
            self.tick()
            due += period
            now = time.monotonic()
            if now > due:
                self.stage.timing.missed += 1
            if now > due + period:
                lost = int((now - due) / period)
                self.stage.timing.left_out += lost
                due += lost * period


def serve(pipe_number: int, pulse_number: int) -> None:
    """The life of the loop's process."""
    with at_work(pipe_number, pulse_number) as (pipe, _):
        stage = None
        try:
            try:
                world = pipe.recv()
                stage = world.stage()
            except Exception as error:  # told to who opens it
                pipe.send((False, error))
                return
            gc.freeze()  # what was built stays: no collection goes through it between two ticks
            pipe.send((True, None))
            served = _Served(stage, pipe)
            served.wall() if world.pace == "wall" else served.free()
        except (EOFError, OSError):
            return  # the other end is gone
        finally:
            if stage is not None:
                stage.close()
