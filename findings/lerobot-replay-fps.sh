#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "lerobot-replay has a setting --dataset.fps, 'Limit the frames per second', that does nothing: a recording made at
20 frames a second is replayed at 20 where 5 were asked for. A first, slow replay on a real arm is at full speed."

environment 3.12 torch==2.11.0 "lerobot[dataset,core-scripts]==0.6.1" numpy==2.2.6
"$python" - 2>log <<'PY' || { cat log; exit 1; }
import time
from dataclasses import dataclass

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.robots import Robot, RobotConfig
from lerobot.scripts.lerobot_replay import DatasetReplayConfig, ReplayConfig, replay

joints = ["shoulder.pos", "elbow.pos"]
sent = []


@RobotConfig.register_subclass("clocked")
@dataclass
class ClockedConfig(RobotConfig):
    pass


class Clocked(Robot):
    """A robot without a body: it notes when each action arrives."""

    config_class, name = ClockedConfig, "clocked"
    observation_features = action_features = dict.fromkeys(joints, float)
    is_connected = is_calibrated = True

    def connect(self, calibrate=True): ...
    def calibrate(self): ...
    def configure(self): ...
    def disconnect(self): ...

    def get_observation(self):
        return dict.fromkeys(joints, 0.0)

    def send_action(self, action):
        sent.append(time.perf_counter())
        return action


features = {"action": {"dtype": "float32", "shape": (2,), "names": joints}}
dataset = LeRobotDataset.create("local/wave", fps=20, features=features, root="wave", use_videos=False)
for _ in range(41):
    dataset.add_frame({"action": np.zeros(2, np.float32), "task": "wave"})
dataset.save_episode()
dataset.finalize()

recording = DatasetReplayConfig(repo_id="local/wave", root="wave", episode=0, fps=5)
replay(ReplayConfig(robot=ClockedConfig(), dataset=recording, play_sounds=False))
rate = (len(sent) - 1) / (sent[-1] - sent[0])
print(f"recorded at 20 frames a second, replayed with fps=5: {rate:.1f} actions a second")
assert rate > 6, "the limit is obeyed: the behaviour has changed"
PY
