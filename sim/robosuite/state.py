"""The whole state of a robosuite environment as one vector, so that another copy can go on from there exactly.

It holds the simulator's integration state, where a reset placed fixed bodies (such as a door's frame), how far each
gripper's command is ramped, and for each arm's controller the joints that it tends to and the masses that it knows:
right after a reset robosuite still uses those from before the fingers were put in place.
"""

from __future__ import annotations

import numpy as np


def read_state(env) -> np.ndarray:
    """(S,) float64 state of an environment between two control steps."""
    import mujoco

    model, data = env.sim.model._model, env.sim.data._data
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.zeros(mujoco.mj_stateSize(model, spec))
    mujoco.mj_getState(model, data, integration, spec)
    parts = [integration, model.body_pos, model.body_quat]
    return np.concatenate([np.ravel(part) for part in (*parts, *_commands(env), *_targets(env), *_masses(env))])


def write_state(env, state: np.ndarray) -> None:
    """Put an environment into a state of `read_state`, of this copy or of another one of the same world.

    Raises:
        ValueError: a state of another size.
    """
    import mujoco

    model, data = env.sim.model._model, env.sim.data._data
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    commands, targets, masses = _commands(env), _targets(env), _masses(env)

    # how the vector is made up
    shapes = [(mujoco.mj_stateSize(model, spec),), model.body_pos.shape, model.body_quat.shape]
    sizes = [int(np.prod(shape)) for shape in shapes]
    sizes += [np.size(part) for part in (*commands, *targets, *masses)]
    state = np.asarray(state, np.float64)
    if state.shape != (sum(sizes),):
        raise ValueError(f"a state of this world has {sum(sizes)} numbers, got the shape {state.shape}")
    integration, places, turns, *rest = np.split(state, np.cumsum(sizes)[:-1])

    # the simulator, then grippers and controllers, which read it
    model.body_pos[:], model.body_quat[:] = places.reshape(shapes[1]), turns.reshape(shapes[2])
    mujoco.mj_setState(model, data, integration, spec)
    mujoco.mj_forward(model, data)
    for gripper, command in zip(_grippers(env), rest, strict=False):
        gripper.current_action = command.copy()
    _restart_controllers(env, rest[len(commands) : -len(masses) or None], rest[-len(masses) or len(rest) :])
    mujoco.mj_setState(model, data, integration, spec)  # forward has moved what the solver starts from


def _restart_controllers(env, targets: list[np.ndarray], masses: list[np.ndarray]) -> None:
    for part, target in zip(_parts(env), targets, strict=True):
        part.update_initial_joints(target)
    for part, (fresh, *numbers) in zip(_arms(env), masses, strict=True):
        if not fresh:
            part.mass_matrix = np.reshape(numbers, part.mass_matrix.shape, order="F")
    for robot in env.robots:
        robot.composite_controller.update_state()
        robot.composite_controller.reset()


def _grippers(env) -> list:
    return [robot.gripper[arm] for robot in env.robots for arm in robot.arms if robot.has_gripper[arm]]


def _commands(env) -> list[np.ndarray]:
    """Of each gripper a number for each of its motors; robosuite begins with a single zero."""
    ramps = [(np.asarray(gripper.current_action, np.float64), len(gripper.actuators)) for gripper in _grippers(env)]
    return [np.broadcast_to(ramp, motors) if ramp.size == 1 else ramp for ramp, motors in ramps]


def _parts(env) -> list:
    return [part for robot in env.robots for part in robot.composite_controller.part_controllers.values()]


def _arms(env) -> list:
    return [part for part in _parts(env) if getattr(part, "mass_matrix", None) is not None]


def _targets(env) -> list[np.ndarray]:
    return [np.asarray(part.initial_joint, np.float64) for part in _parts(env)]


def _masses(env) -> list[np.ndarray]:
    """Of each arm whether it will look at the masses anew, and those that it knows."""
    return [np.concatenate([[part.new_update], np.ravel(part.mass_matrix, order="F")]) for part in _arms(env)]
