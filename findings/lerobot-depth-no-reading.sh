#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "Depth cameras say 0 where they see nothing. A LeRobotDataset video gives 10 mm back there, as if something stood right
before the lens, and 10 m for everything farther, missing values of 65,535 too. Only the depths between keep their meaning."

environment 3.12 torch==2.11.0 "lerobot[dataset,core-scripts]==0.6.1" numpy==2.2.6
"$python" - 2>log <<'PY' || { cat log; exit 1; }
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

features = {
    "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
    "observation.images.depth": {
        "dtype": "video", "shape": (64, 96, 1), "names": ["height", "width", "channels"], "info": {"is_depth_map": True},
    },
}  # fmt: skip
wrote = np.repeat(np.array([0, 700, 3000, 12000, 20000, 65535], np.uint16), 16)  # millimetres, six stripes
frame = np.broadcast_to(wrote[None, :, None], (64, 96, 1)).copy()

dataset = LeRobotDataset.create("local/depth", fps=10, features=features, root="depth")
for _ in range(4):
    dataset.add_frame({"action": np.zeros(2, np.float32), "observation.images.depth": frame, "task": "look"})
dataset.save_episode()
dataset.finalize()

read = LeRobotDataset("local/depth", root="depth")[1]["observation.images.depth"].squeeze().numpy()
pairs = {int(wrote[column]): round(float(read[32, column])) for column in range(8, 96, 16)}
print("millimetres written: read", pairs)
assert pairs[0] == 10 and pairs[12000] == pairs[20000] == pairs[65535] == 10000, "the behaviour has changed"
assert abs(pairs[700] - 700) < 5 and abs(pairs[3000] - 3000) < 5, "depths within reach are no longer kept"
PY
