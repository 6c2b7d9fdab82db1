#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "mj_geomDistance of two boxes is 0, as if they touched, for some poses in which they are up to 14 cm apart. A
plane between the boxes, found by the separating axes, proves the gap. Spheres of the same reach are measured rightly.
MuJoCo 4.0.0 tells 0 for none of them (google-deepmind/mujoco 3383), but robosuite 1.5.2 runs on 3.9 at the newest."

environment 3.11 mujoco==3.9.0 numpy==2.2.6
"$python" - <<'PY'
import mujoco
import numpy as np

BODY = '<body name="{0}" mocap="true"><geom name="{0}" type="{1}" size="{2}"/></body>'


def model(kind, one, other):
    bodies = BODY.format("one", kind, one) + BODY.format("other", kind, other)
    return mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")


def gap(model, data):
    """The widest slab between two boxes over their 15 separating axes: never more than their distance."""
    turns = [data.geom_xmat[number].reshape(3, 3) for number in (0, 1)]
    apart = data.geom_xpos[1] - data.geom_xpos[0]
    axes = [*turns[0].T, *turns[1].T, *(np.cross(a, b) for a in turns[0].T for b in turns[1].T)]
    axes = [axis / np.linalg.norm(axis) for axis in axes if np.linalg.norm(axis) > 1e-6]
    reach = [sum(np.abs(axis @ turn) @ model.geom_size[number] for number, turn in enumerate(turns)) for axis in axes]
    return max(abs(axis @ apart) - far for axis, far in zip(axes, reach))


def poses(model, count):
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    for _ in range(count):
        data.mocap_pos[1] = rng.uniform(-0.15, 0.15, 3)
        turns = rng.normal(size=(2, 4))
        data.mocap_quat[:] = turns / np.linalg.norm(turns, axis=1, keepdims=True)
        mujoco.mj_kinematics(model, data)
        yield data


boxes, told, wrong = model("box", "0.03 0.02 0.05", "0.04 0.025 0.02"), 0, []
for data in poses(boxes, 20_000):
    least = gap(boxes, data)
    if least > 0.01:
        told += 1
        distance = mujoco.mj_geomDistance(boxes, data, 0, 1, 1.0, None)
        wrong += [(least, distance)] if distance < least - 1e-6 else []
print(f"boxes: {told} poses more than 10 mm apart; told to be nearer than they are: {len(wrong)}")
print(f"       what they are told: {sorted({distance for _, distance in wrong})}; widest gap {max(wrong)[0]:.3f} m")

balls, off = model("sphere", "0.03", "0.04"), 0.0
for data in poses(balls, 2_000):
    truth = np.linalg.norm(data.geom_xpos[1] - data.geom_xpos[0]) - 0.07
    off = max(off, abs(mujoco.mj_geomDistance(balls, data, 0, 1, 1.0, None) - truth))
print(f"spheres: off by {off:.1e} m at most")

assert len(wrong) > 0.01 * told and {distance for _, distance in wrong} == {0.0}, "the behaviour has changed"
assert max(wrong)[0] > 0.1 and off < 1e-6, "the behaviour has changed"
PY
