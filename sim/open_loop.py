"""Open-loop work in plain MuJoCo: many episodes whose controls are known, stepped in C++ by several threads at once.

`understudy study open_loop_cost` times it beside stepping. It takes the same processor time (Python is not what an
episode of known controls costs: one call of `mj_step` makes all physics steps of a control); all that is won comes from
further cores. `mujoco.rollout` gives the same trajectories to the last bit as `mj_step` with the same controls, because
a lane here adds nothing between the physics steps: what Python computes of an action is written into `data.ctrl` before
them. It fits replays, parameter searches and planning by sampling; not a policy, which must see first. A state is
MuJoCo's `mjSTATE_FULLPHYSICS`: time, qpos, qvel, act. What is not in it (mocap poses, applied forces, equality
switches) is as in the model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from ..configs.protocols import keeps

if TYPE_CHECKING:
    import mujoco

    from .task import TaskEnv

TOGETHER = 32  # episodes of different lengths that are rolled at once
ROOM = 128 * 2**20  # bytes of states that are held at once


def roll(
    model: mujoco.MjModel,
    states: np.ndarray,
    controls: np.ndarray,
    every: int = 1,
    warmstarts: np.ndarray | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """Step B copies of `model` through T controls each.

    Args:
        states: (B, S) full physics states, see `physics`.
        controls: (B, T, nu), or (1, T, nu) for all; each is held for `every` physics steps.
        warmstarts: (B, nv) `qacc_warmstart` of the copies: with it the first step is exact too; without, zeros.
        threads: how many; default one per core. They change the time alone.

    Returns:
        (B, T, S) the states after each control. A copy that diverges stays in its last good state.

    Raises:
        ValueError: shapes that do not fit the model or each other.
    """
    import mujoco
    from mujoco.rollout import Rollout

    states, controls = np.atleast_2d(np.asarray(states, float)), np.asarray(controls, float)
    _check(model, states, controls, every, warmstarts)
    batch, steps = len(states), controls.shape[1]

    # as many at once as memory allows
    warmstarts = np.zeros((batch, model.nv)) if warmstarts is None else np.asarray(warmstarts, float)
    threads = max(1, min(threads or len(os.sched_getaffinity(0)), batch))
    group = max(threads, ROOM // max(1, 8 * steps * every * states.shape[1]))

    results = np.empty((batch, steps, states.shape[1]))
    with Rollout(nthread=threads if threads > 1 else 0) as pool:
        workers = [mujoco.MjData(model) for _ in range(threads)]
        for begin in range(0, batch if steps else 0, group):
            part = slice(begin, begin + group)
            held = np.repeat(controls if len(controls) == 1 else controls[part], every, axis=1)
            rolled = pool.rollout(model, workers, states[part], held, initial_warmstart=warmstarts[part])[0]
            results[part] = rolled[:, every - 1 :: every]

    return results


def roll_each(
    model: mujoco.MjModel,
    states: np.ndarray,
    controls: Sequence[np.ndarray],
    every: int = 1,
    warmstarts: np.ndarray | None = None,
    threads: int | None = None,
) -> list[np.ndarray]:
    """`roll` for episodes of different lengths: controls (T_b, nu) of each copy, answered by states (T_b, S).

    Episodes of nearly equal length go together; the shorter ones hold their last control, which is cut off again.
    """
    lengths = np.array([len(rows) for rows in controls])
    results: list[np.ndarray] = [np.empty((0, states.shape[1]))] * len(lengths)
    order = np.flatnonzero(lengths)[np.argsort(lengths[lengths > 0], kind="stable")]

    for begin in range(0, len(order), TOGETHER):
        group = order[begin : begin + TOGETHER]
        steps = np.arange(lengths[group].max())
        padded = np.stack([controls[i][np.minimum(steps, lengths[i] - 1)] for i in group])
        warm = None if warmstarts is None else warmstarts[group]
        for i, rolled in zip(group, roll(model, states[group], padded, every, warm, threads), strict=True):
            results[i] = rolled[: lengths[i]].copy()

    return results


def _check(model, states, controls, every, warmstarts) -> None:
    import mujoco

    size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    if states.shape[1:] != (size,):
        raise ValueError(f"a state of this model has {size} numbers, got the shape {states.shape}")
    if controls.ndim != 3 or controls.shape[2] != model.nu or len(controls) not in (1, len(states)):
        raise ValueError(f"controls must be ({len(states)}, T, {model.nu}), got the shape {controls.shape}")
    if warmstarts is not None and np.shape(warmstarts) != (len(states), model.nv):
        raise ValueError(f"warm starts must be ({len(states)}, {model.nv}), got the shape {np.shape(warmstarts)}")
    if every < 1:
        raise ValueError(f"a control is held for at least one physics step, not {every}")


def physics(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """(S,) the full physics state of `data`, where `roll` begins."""
    return _read(model, data, "mjSTATE_FULLPHYSICS")


def qpos(model: mujoco.MjModel, states: np.ndarray) -> np.ndarray:
    """(..., nq) joint positions of full physics states (..., S)."""
    return states[..., 1 : 1 + model.nq]


def read_state(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """(S',) the integration state: physics, and also controls, warm start, mocap poses, forces and user data."""
    return _read(model, data, "mjSTATE_INTEGRATION")


def write_state(model: mujoco.MjModel, data: mujoco.MjData, state: np.ndarray) -> None:
    """Put `data` into a state of `read_state`, of a copy with the same model; all derived quantities follow.

    Raises:
        ValueError: a state of another size.
    """
    import mujoco

    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    size, state = mujoco.mj_stateSize(model, spec), np.asarray(state, float)
    if state.shape != (size,):
        raise ValueError(f"a state of this world has {size} numbers, got the shape {state.shape}")
    mujoco.mj_setState(model, data, state, spec)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, state, spec)  # forward has moved what the solver starts from


def _read(model, data, spec: str) -> np.ndarray:
    import mujoco

    spec = getattr(mujoco.mjtState, spec)
    state = np.empty(mujoco.mj_stateSize(model, spec))
    mujoco.mj_getState(model, data, state, spec)
    return state


def bench(name: str, lanes: int, steps: int, threads: int | None, repeats: int = 3) -> dict:
    """Time random actions in the registered world `name`: all lanes stepped one by one, and rolled; JSON-able.

    Drawing the actions, resets and what Python computes of an action are outside of both times.

    Raises:
        LookupError: no such world, or not one in plain MuJoCo.
    """
    from ..configs.world import find_world
    from .task import TaskEnv

    with closing(find_world(name).lane()) as lane:
        if not isinstance(lane, TaskEnv):
            raise LookupError(f"{name} is not a task in plain MuJoCo")
        begun, controls = _draw_controls(lane, lanes, steps)
        every = round(steps / (lane.embodiment.rate * lane.model.opt.timestep)) // controls.shape[1]

        # stepped and rolled in turn
        times, equal = [], True
        for _ in range(repeats):
            stepped, slow = _step(lane, begun, controls, every)
            start = _clocks()
            rolled = roll(lane.model, begun[0], controls, every, begun[1], threads)
            times.append([slow, _clocks() - start])
            equal = equal and bool((rolled[:, -1] == stepped).all())

    threads = threads or len(os.sched_getaffinity(0))
    setting = {"world": name, "lanes": lanes, "steps": steps, "threads": threads}
    (slow, slow_cpu), (fast, fast_cpu) = (row.tolist() for row in np.median(times, axis=0))
    ratios = [round(float(slow[0] / fast[0]), 2) for slow, fast in times]

    return setting | {
        "stepped_per_s": round(lanes * steps / slow),
        "rolled_per_s": round(lanes * steps / fast),
        "ratio": float(np.median(ratios)),
        "ratios": ratios,
        "processor_ratio": round(slow_cpu / fast_cpu, 2),
        "equal": equal,
    }


def _clocks() -> np.ndarray:
    """Seconds of the wall and of the processors, all threads."""
    return np.array([time.perf_counter(), time.process_time()])


def _draw_controls(lane: TaskEnv, lanes: int, steps: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """(states, warm starts) of `lanes` starts, and controls (lanes, T, nu) of actions drawn about where each rests."""
    rng, low, high = np.random.default_rng(0), lane.action_space.low, lane.action_space.high
    states, warm, controls = [], [], []
    for start in range(lanes):
        lane.reset(seed=start)
        states.append(physics(lane.model, lane.data))
        warm.append(lane.data.qacc_warmstart.copy())
        drift = rng.normal(0, 0.05, (steps, len(low))).cumsum(0) * (high - low) / 2
        actions = np.clip(lane.rest() + drift, low, high)
        controls.append(controls_of(lane, actions))
    return (np.array(states), np.array(warm)), np.array(controls)


def controls_of(lane: TaskEnv, actions: np.ndarray) -> np.ndarray:
    """(T * n, nu) what actions (T, D) write into `data.ctrl`, n times in each control step; changes the lane's data.

    A task whose controls are more than a function of one action says them itself, as `controls(data, actions)`.
    """
    from .task import Controlled

    if keeps(lane.task, Controlled):
        return lane.task.controls(lane.data, actions).reshape(-1, lane.model.nu)
    rows = []
    for action in actions:
        lane.task.control(lane.model, lane.data, action)
        rows.append(lane.data.ctrl.copy())
    return np.array(rows)


def _step(lane: TaskEnv, begun, controls: np.ndarray, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Final states (B, S) of stepping one copy after the other in Python, and the `_clocks` that took."""
    import mujoco

    model, data, final, spent = lane.model, lane.data, [], np.zeros(2)
    for state, warm, rows in zip(*begun, controls, strict=True):
        mujoco.mj_resetData(model, data)
        mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        data.qacc_warmstart[:] = warm

        start = _clocks()
        for row in rows:
            data.ctrl[:] = row
            mujoco.mj_step(model, data, every)
        spent += _clocks() - start

        final.append(physics(model, data))
    return np.array(final), spent
