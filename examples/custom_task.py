"""A task of one's own in plain MuJoCo: a scene, what is seen and done, when it is done; and an expert that shows it.

    python examples/custom_task.py [--quick]

A cart on a rail must stop at a mark. With the command line, from this folder:
understudy demos park --plugins custom_task --out out/park
"""

import sys

import mujoco
import numpy as np

import understudy
from understudy.configs.spec import Embodiment, Mode
from understudy.sim.experts import register_expert
from understudy.sim.task import register_task

SCENE = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody>
    <light pos="0 -1 3"/>
    <camera name="front" pos="0 -2.4 0.6" xyaxes="1 0 0 0 .24 1"/>
    <geom type="box" size="1 .03 .02" rgba=".8 .8 .8 1" contype="0" conaffinity="0"/>
    <body name="cart" pos="0 0 .1">
      <joint name="rail" type="slide" axis="1 0 0"/>
      <geom type="box" size=".1 .08 .06" mass="1" rgba=".16 .47 .71 1" contype="0" conaffinity="0"/>
    </body>
    <body name="mark" mocap="true">
      <geom type="box" size=".02 .12 .03" rgba=".88 .48 .37 1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator><velocity joint="rail" kv="20"/></actuator>
</mujoco>
"""


@register_task("park")
class Park:
    """Action: velocity (m/s) at 20 Hz. State: position (m) and velocity (m/s) of the cart. Scene: the mark (m)."""

    embodiment = Embodiment(
        name="cart", rate=20.0, mode=Mode.velocity,
        action=("cart",), action_units=("m/s",), limits=((-1.0, 1.0),),
        state=("cart", "cart.velocity"), state_units=("m", "m/s"),
        scene=("mark",), scene_units=("m",),
    )  # fmt: skip
    horizon = 80  # control steps
    cameras = ("front",)

    def scene(self):
        return mujoco.MjSpec.from_string(SCENE)

    def reset(self, model, data, rng):
        data.qpos[0], data.mocap_pos[0, 0] = rng.uniform(-0.9, 0.9, 2)

    def observe(self, model, data):
        state = [data.qpos[0], data.qvel[0]]
        return {"observation.state": state, "observation.environment_state": data.mocap_pos[0, :1]}

    def control(self, model, data, action):
        data.ctrl[:] = action

    def rest(self, model, data):  # the action that stays where it is
        return np.zeros(1)

    def success(self, model, data):
        return abs(data.qpos[0] - data.mocap_pos[0, 0]) < 0.02 and abs(data.qvel[0]) < 0.05

    def progress(self, model, data):  # 0..1
        return 1 - abs(data.qpos[0] - data.mocap_pos[0, 0]) / 1.8


@register_expert("park")
class ParkExpert:
    """Towards the mark, slower near it."""

    def act(self, env):
        return 4 * (env.data.mocap_pos[0, :1] - env.data.qpos[:1])


def main(quick: bool = False) -> None:
    from understudy.configs.world import find_world
    from understudy.eval.contracts import check_world

    check_world(find_world("park"))  # seeded, honest about its spaces; says what is broken

    env = understudy.make("park")  # a gymnasium.Env
    obs, info = env.reset(seed=1000)
    print(env, {key: value.tolist() for key, value in obs.items()})

    tried = understudy.rollout("expert", "park", episodes=5 if quick else 100, films=2)
    print(tried)
    print("films:", *tried.save_films("out/park"))


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
