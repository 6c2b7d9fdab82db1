#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "'lerobot-train --policy.type=diffusion' trains another policy in 0.6.1 than in 0.4.4: it plans 64 steps in place of 16
and plays 32 of them without looking in place of 8, with batch norm in place of group norm, and its picture encoder wants
a download."

cat >defaults.py <<'PY'
import json
import sys
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

asked = "horizon n_action_steps use_group_norm use_separate_rgb_encoder_per_camera pretrained_backbone_weights".split()
config = DiffusionConfig(device="cpu")
json.dump({name: getattr(config, name) for name in asked}, open(sys.argv[1], "w"))
PY
environment 3.11 torch==2.10.0 lerobot==0.4.4 numpy==2.2.6
"$python" defaults.py old.json 2>log || { cat log; exit 1; }
environment 3.12 torch==2.11.0 "lerobot[dataset,core-scripts]==0.6.1" numpy==2.2.6
"$python" defaults.py new.json 2>log || { cat log; exit 1; }

"$python" - <<'PY'
import json

old, new = json.load(open("old.json")), json.load(open("new.json"))
for name in old:
    print(f"{name}: {old[name]} in 0.4.4, {new[name]} in 0.6.1")
assert list(old.values()) == [16, 8, True, False, None], "0.4.4 has changed"
assert list(new.values()) == [64, 32, False, True, "ResNet18_Weights.IMAGENET1K_V1"], "the behaviour has changed"
PY
