"""robosuite's control step with the same numbers and less work.

robosuite's controller asks at every physics step (2 ms) anew for what it just had: six Jacobians where two are used,
names looked up, the base of an arm that never moves, buffers of measurements that its tasks do not read. Here the
order of the floating-point operations is robosuite's own, so that trajectories are equal to the last bit; only what is
not read is left out. Knows the usual case (`fits`): fixed bases, operational-space control of poses with fixed
impedance, simple grippers; anything else is stepped by robosuite. Source: robosuite 1.5,
`controllers/parts/arm/osc.py`, `robots/fixed_base_robot.py`, `environments/base.py`.
"""

from __future__ import annotations

import numpy as np


def fits(env) -> bool:
    """Whether `Stepper` does what `env.step` would do."""
    from robosuite.controllers.composite.composite_controller import CompositeController
    from robosuite.environments.base import MujocoEnv
    from robosuite.environments.robot_env import RobotEnv
    from robosuite.robots.fixed_base_robot import FixedBaseRobot

    kind = type(env)
    hooks = kind.step is MujocoEnv.step, kind._pre_action is RobotEnv._pre_action
    if not all(hooks) or kind._post_action is not MujocoEnv._post_action or not env.lite_physics or env._observables:
        return False
    for robot in env.robots:
        composite = robot.composite_controller
        if type(robot) is not FixedBaseRobot or type(composite) is not CompositeController:
            return False
        if not all(_fits(env, name, part, robot) for name, part in composite.part_controllers.items()):
            return False
    return True


class Stepper:
    """Control steps of an environment. Make a new one after each reset: robosuite rebuilds its controllers.

    Its arrays are views of the simulator's own memory.
    """

    def __init__(self, env):
        import mujoco

        self._env, self._step1, self._step2 = env, mujoco.mj_step1, mujoco.mj_step2
        self._model, self._data = env.sim.model._model, env.sim.data._data
        self._substeps = int(env.control_timestep / env.model_timestep)
        self._arms, self._robots = [], []
        for robot in env.robots:
            arms = [_Arm(env, robot, name) for name in robot.arms if robot._enabled_parts.get(name, False)]
            self._arms += arms
            self._robots.append((robot, arms))

    def step(self, action: np.ndarray) -> float:
        """Execute `action` in robosuite's own layout; returns robosuite's reward."""
        env, model, data, arms = self._env, self._model, self._data, self._arms
        env.timestep += 1
        self._step1(model, data)
        self._set_goals(action)
        for substep in range(self._substeps):
            if substep:
                self._step1(model, data)
                for arm in arms:
                    arm.measure()
            for arm in arms:
                arm.drive()
            self._step2(model, data)
        env.cur_time += env.control_timestep
        reward, env.done, _ = env._post_action(action)
        return float(reward)

    def _set_goals(self, action: np.ndarray) -> None:
        """Once a control step, through robosuite's own controllers; a gripper's command holds for the whole step."""
        done = 0
        for robot, arms in self._robots:
            for arm in arms:
                if arm.part.new_update:  # not after a reset: robosuite then keeps what it saw while resetting
                    arm.measure()
                arm.part.new_update = False  # what its own update would look up is in place
            composite = robot.composite_controller
            composite.update_state()
            composite.set_goal(action[done : done + robot.action_dim])
            done += robot.action_dim
            for name, part in composite.part_controllers.items():
                if name not in robot.arms and robot._enabled_parts.get(name, False):
                    columns = robot._ref_actuators_indexes_dict[name]
                    limits = self._model.actuator_ctrlrange[columns]
                    self._data.ctrl[columns] = np.clip(part.run_controller(), limits[:, 0], limits[:, 1])
            for arm in arms:
                arm.aim()


class _Arm:
    """The operational-space controller of one arm: `part` is robosuite's, whose state it reads and keeps."""

    def __init__(self, env, robot, name: str):
        import mujoco
        from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error

        self.part = part = robot.composite_controller.part_controllers[name]
        self._model, data = env.sim.model._model, env.sim.data._data
        self._data, self._jacobian, self._full = data, mujoco.mj_jacSite, mujoco.mj_fullM
        self._matrices, self._idle, self._turn_error = opspace_matrices, nullspace_torques, orientation_error
        self._site = env.sim.model.site_name2id(part.ref_name)
        self._columns, self._places = _span(part.qvel_index), _span(part.qpos_index)
        self._motors = _span(robot._ref_actuators_indexes_dict[name])
        self._low, self._high = (np.array(side) for side in self._model.actuator_ctrlrange[self._motors].T)
        self._position, self._rotation = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)
        self._qpos, self._qvel, self._bias, self._ctrl = data.qpos, data.qvel, data.qfrc_bias, data.ctrl
        nv = self._model.nv
        self._mass, self._along, self._about = np.zeros((nv, nv)), np.zeros((3, nv)), np.zeros((3, nv))
        self._wrench = np.zeros(6)
        self._gain, self._damping = part.kp, part.kd

    def measure(self) -> None:
        """Where the hand is and how the joints move it, after `mj_step1`."""
        part, columns, along, about, qvel = self.part, self._columns, self._along, self._about, self._qvel
        self._jacobian(self._model, self._data, along, about, self._site)
        part.ref_pos[:] = self._position
        part.ref_ori_mat[:] = self._rotation
        part.ref_pos_vel[:] = np.dot(along, qvel)
        part.ref_ori_vel[:] = np.dot(about, qvel)
        part.J_full[:3] = part.J_pos[:] = along[:, columns]
        part.J_full[3:] = part.J_ori[:] = about[:, columns]
        part.joint_pos, part.joint_vel = self._qpos[self._places].copy(), qvel[columns].copy()
        self._full(self._model, self._mass, self._data.qM)
        part.mass_matrix = np.asfortranarray(self._mass[columns][:, columns])

    def aim(self) -> None:
        """The goal in world coordinates; it holds for the control step, for the base does not move."""
        part = self.part
        if part.input_ref_frame == "base":
            self._goal = part.origin_pos + np.dot(part.origin_ori, part.goal_pos)
            self._facing = np.dot(part.origin_ori, part.goal_ori)
        else:
            self._goal, self._facing = part.goal_pos, part.goal_ori

    def drive(self) -> None:
        """Write the torques for the next 2 ms."""
        part, gain, damping, wrench = self.part, self._gain, self._damping, self._wrench
        force = (self._goal - part.ref_pos) * gain[:3] + -part.ref_pos_vel * damping[:3]
        moment = self._turn_error(self._facing, part.ref_ori_mat) * gain[3:] + -part.ref_ori_vel * damping[3:]
        mass = part.mass_matrix
        _, linear, angular, idle = self._matrices(mass, part.J_full, part.J_pos, part.J_ori)
        wrench[:3], wrench[3:] = np.dot(linear, force), np.dot(angular, moment)
        torques = np.dot(part.J_full.T, wrench) + self._bias[self._columns]
        torques += self._idle(mass, idle, part.initial_joint, part.joint_pos, part.joint_vel)
        part.torques, part.new_update = torques, True
        self._ctrl[self._motors] = np.minimum(np.maximum(torques, self._low), self._high)


def _fits(env, name: str, part, robot) -> bool:
    from robosuite.controllers.parts.arm.osc import OperationalSpaceController
    from robosuite.controllers.parts.gripper.simple_grip import SimpleGripController

    if name not in robot.arms:
        return type(part) is SimpleGripController and part.interpolator is None
    if type(part) is not OperationalSpaceController or not isinstance(part.ref_name, str):
        return False
    model = env.sim.model._model
    base = model.site_bodyid[env.sim.model.site_name2id(f"{part.naming_prefix}{part.part_name}_center")]
    plain = part.impedance_mode == "fixed" and part.use_ori and part.uncoupling and part.lite_physics
    still = model.body_weldid[base] == 0
    return bool(plain and still and part.interpolator_pos is None and part.interpolator_ori is None)


def _span(indexes) -> slice | np.ndarray:
    """Indexes as a slice, if they are neighbours."""
    indexes = np.asarray(indexes, int)
    first, count = int(indexes[0]), len(indexes)
    return slice(first, first + count) if (indexes == np.arange(first, first + count)).all() else indexes
