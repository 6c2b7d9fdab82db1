#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "A joint that never moved in the demonstrations is scaled by 1e-8: 0.01 beyond the recorded value becomes 2,000,000
for the network (MIN_MAX and QUANTILES; 1,000,000 with MEAN_STD), and whatever the network answers, the joint is sent
back there."

environment 3.12 torch==2.11.0 "lerobot[dataset,core-scripts]==0.6.1" numpy==2.2.6
"$python" - 2>log <<'PY' || { cat log; exit 1; }
import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.processor import NormalizerProcessorStep, TransitionKey, UnnormalizerProcessorStep

features = {
    "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
    "action": PolicyFeature(FeatureType.ACTION, (2,)),
}
# Two joints: one moves from 0 to 1, the other stayed at 0.3 in every demonstration.
statistics = {"min": [0, 0.3], "max": [1, 0.3], "mean": [0.5, 0.3], "std": [0.2, 0], "q01": [0, 0.3], "q99": [1, 0.3]}
statistics = {name: torch.tensor(values, dtype=torch.float32) for name, values in statistics.items()}
largest = {}
for mode in ("MIN_MAX", "QUANTILES", "MEAN_STD"):
    scale = {kind: NormalizationMode[mode] for kind in (FeatureType.STATE, FeatureType.ACTION)}
    both = dict(features=features, norm_map=scale, stats=dict.fromkeys(features, statistics))
    state = {TransitionKey.OBSERVATION: {"observation.state": torch.tensor([[0.5, 0.31]])}}
    action = {TransitionKey.ACTION: torch.tensor([[0.0, 0.9]])}
    seen = NormalizerProcessorStep(**both)(state)[TransitionKey.OBSERVATION]["observation.state"][0].tolist()
    sent = UnnormalizerProcessorStep(**both)(action)[TransitionKey.ACTION][0].tolist()
    print(f"{mode}: the state (0.5, 0.31) becomes {seen}; the answer (0, 0.9) is sent as {sent}")
    largest[mode] = seen[1]
    assert abs(sent[1] - 0.3) < 1e-6, "the behaviour has changed"
assert largest["MIN_MAX"] > 1.9e6 and largest["QUANTILES"] > 1.9e6 and largest["MEAN_STD"] > 0.9e6, largest
PY
