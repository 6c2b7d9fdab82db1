#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "robosuite observes the hand's rotation twice, as robot0_eef_quat and robot0_eef_quat_site, and for the Panda the
two are a quarter turn about the tool's axis apart. The second is the frame of the site that the arm's controller moves."

environment 3.11 robosuite==1.5.2 mujoco==3.9.0 scipy==1.15.3
"$python" - 2>log <<'PY' | grep -v INFO || { cat log; exit 1; }
import numpy as np
import robosuite
from scipy.spatial.transform import Rotation

no_pictures = dict(has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False)
env = robosuite.make("Lift", robots="Panda", seed=0, **no_pictures)
observed = env.reset()
hand, site = (Rotation.from_quat(observed[key]) for key in ("robot0_eef_quat", "robot0_eef_quat_site"))
between = (hand.inv() * site).as_rotvec(degrees=True)
print("robot0_eef_quat     ", observed["robot0_eef_quat"].round(3))
print("robot0_eef_quat_site", observed["robot0_eef_quat_site"].round(3))
print("rotation between them, degrees about x, y, z:", (between + 0.0).round(2))
assert np.allclose(between, [0, 0, -90], atol=0.01), "the behaviour has changed"

controller = env.robots[0].part_controllers["right"]
follows_site = Rotation.from_matrix(controller.ref_ori_mat)
angle = np.degrees((site.inv() * follows_site).magnitude())
print(f"the controller's own rotation is {angle:.2f} degrees from robot0_eef_quat_site")
assert angle < 0.01, "the behaviour has changed"
PY
