#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "A joint that starts outside its limits is no error for mink: asked to stay where it is, the arm is driven back
inside within one step, here at 8 and 20 rad/s. With a VelocityLimit added the problem has no solution, and an exception says so."

environment 3.11 mink==1.3.0 mujoco==4.0.0 daqp==0.11.0
"$python" - <<'PY'
import mink
import mujoco
import numpy as np

arm = mujoco.MjModel.from_xml_string("""
<mujoco>
  <compiler angle="degree"/>
  <default><joint type="hinge" axis="0 0 1" limited="true"/><geom type="capsule" size=".02"/></default>
  <worldbody>
    <body><joint name="shoulder" range="-60 60"/><geom fromto="0 0 0 .3 0 0"/>
      <body pos=".3 0 0"><joint name="elbow" range="-90 90"/><geom fromto="0 0 0 .2 0 0"/><site name="hand" pos=".2 0 0"/></body>
    </body>
  </worldbody>
</mujoco>""")
step = 0.02


def stay(shoulder_degrees, limits=None):
    """Joint velocities that mink answers where the target is the present place of the hand."""
    configuration = mink.Configuration(arm)
    configuration.update(np.radians([shoulder_degrees, 20]))
    task = mink.FrameTask("hand", "site", position_cost=1.0, orientation_cost=0.0)
    task.set_target(configuration.get_transform_frame_to_world("hand", "site"))
    return mink.solve_ik(configuration, [task], step, "daqp", limits=limits)


for degrees in (50, 70):
    print(f"shoulder at {degrees} of 60 degrees: velocities {stay(degrees).round(2) + 0.0} rad/s")
assert np.abs(stay(50)).max() < 1e-6 and 8 < np.abs(stay(70)[0]) < 9, "the behaviour has changed"

slow = [mink.ConfigurationLimit(arm), mink.VelocityLimit(arm, {"shoulder": 1.0, "elbow": 1.0})]
try:
    stay(70, slow)
except mink.NoSolutionFound as error:
    print("with a limit of 1 rad/s:", type(error).__name__)
else:
    raise SystemExit("a solution was found: the behaviour has changed")
PY
