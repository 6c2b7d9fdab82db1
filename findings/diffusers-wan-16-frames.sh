#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "The Wan video autoencoder takes a clip of 16 frames, the usual length of an action chunk, and gives 13 back without
a word: it keeps 1 + 4k frames, and the last three do not touch the latents at all."

environment 3.11 diffusers==0.39.0 torch==2.13.0 numpy==2.2.6
"$python" - <<'PY'
import torch
from diffusers import AutoencoderKLWan

torch.manual_seed(0)
autoencoder = AutoencoderKLWan(base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()


@torch.no_grad()
def latents(clip):
    return autoencoder.encode(clip).latent_dist.mode()


back = {}
for frames in (4, 8, 13, 16, 17):
    clip = torch.randn(1, 3, frames, 32, 32)
    with torch.no_grad():
        back[frames] = autoencoder.decode(latents(clip)).sample.shape[2]
    print(f"{frames:2d} frames: {latents(clip).shape[2]} latent frames, {back[frames]} frames back")
assert back == {4: 1, 8: 5, 13: 13, 16: 13, 17: 17}, "the behaviour has changed"

clip = torch.randn(1, 3, 16, 32, 32)
blanked = clip.clone()
blanked[:, :, 13:] = 0
same = torch.equal(latents(clip), latents(blanked))
print("latents of 16 frames with the last three blanked:", "identical" if same else "different")
assert same, "the behaviour has changed"
PY
