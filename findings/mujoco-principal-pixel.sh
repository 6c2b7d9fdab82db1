#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "principalpixel of a MuJoCo camera is no principal point as OpenCV's calibration gives it, nor its distance from
the middle of the picture: positive numbers move the optical axis to the left and up, against the direction in which
columns and rows count. A calibrated (cx, cy) is written as (width / 2 - cx, height / 2 - cy), both negated."

environment 3.11 mujoco==3.9.0 numpy==2.2.6
MUJOCO_GL=${MUJOCO_GL:-egl} "$python" - <<'PY'
import mujoco
import numpy as np

SIDE = 101
SCENE = """<mujoco><visual><global offwidth="101" offheight="101"/></visual><worldbody>
<light pos="0 0 1" dir="0 0 -1" diffuse="1 1 1"/>
<geom type="sphere" size="0.01" pos="0 0 0" rgba="1 1 1 1"/>
<camera name="eye" pos="0 0 1" resolution="101 101" sensorsize="0.0101 0.0101" focalpixel="200 200"
 principalpixel="{} {}"/></worldbody></mujoco>"""


def middle(x, y):
    """(column, row) of the ball's middle, which lies on the camera's axis."""
    model = mujoco.MjModel.from_xml_string(SCENE.format(x, y))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, SIDE, SIDE) as renderer:
        renderer.enable_segmentation_rendering()
        renderer.update_scene(data, "eye")
        rows, columns = np.nonzero(renderer.render()[..., 0] == 0)
    return columns.mean(), rows.mean()


centre = middle(0, 0)
print(f"mujoco {mujoco.__version__}: principalpixel (0, 0): the axis is at column {centre[0]:.1f}, row {centre[1]:.1f}")
moved = {}
for offset in ((20, 0), (0, 12), (20, 12)):
    column, row = middle(*offset)
    moved[offset] = (column - centre[0], row - centre[1])
    print(f"principalpixel {offset}: moved by {moved[offset][0]:+.1f} columns, {moved[offset][1]:+.1f} rows")
for (x, y), (across, down) in moved.items():
    assert abs(across + x) < 1 and abs(down + y) < 1, "the behaviour has changed"
PY
