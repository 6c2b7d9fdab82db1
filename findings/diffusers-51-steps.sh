#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "DDIM trained on 100 steps samples worse with 51 than with 50: the spacing is 100 // n, so from 51 on it is 1, and
sampling starts at step n - 1, with pure noise where the network expects a half-clean action. 'trailing' is worse still.
DDPM starts as low; its error is smaller."

environment 3.11 diffusers==0.39.0 torch==2.13.0 numpy==2.2.6
"$python" - <<'PY'
import torch
from diffusers import DDIMScheduler, DDPMScheduler

# Actions are Normal(0.7, 0.1), for which the perfect network is a formula: every error below is the sampler's.
mean, spread = 0.7, 0.1
settings = dict(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=False)


def sample(steps, **more):
    scheduler = DDIMScheduler(**settings, **more)
    scheduler.set_timesteps(steps)
    noisy = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    for step in scheduler.timesteps:
        kept = scheduler.alphas_cumprod[step]
        noise = (noisy - kept.sqrt() * mean) * (1 - kept).sqrt() / (kept * spread**2 + 1 - kept)
        noisy = scheduler.step(noise, step, noisy).prev_sample
    return int(scheduler.timesteps[0]), float(noisy.mean()), float(noisy.std())


print("wanted:                  mean 0.700, standard deviation 0.100")
for steps in (10, 50, 51, 60, 100):
    first, got, deviation = sample(steps)
    print(f"DDIM, {steps:3d} steps: starts at {first}, mean {got:.3f}, standard deviation {deviation:.3f}")
(fifty, good, _), (fifty_one, bad, _) = sample(50), sample(51)
assert (fifty, fifty_one) == (98, 50) and abs(good - mean) < 0.01 and abs(bad - mean) > 0.05, "the behaviour has changed"

# The usual cure starts at the noisiest step, but each step still goes 100 // 51 = 1 down where the list goes 2.
first, got, deviation = sample(51, timestep_spacing="trailing")
print(f"DDIM,  51 steps, timestep_spacing='trailing': starts at {first}, mean {got:.3f}, deviation {deviation:.3f}")
assert first == 99 and deviation > 0.2, "the behaviour has changed"

stochastic = DDPMScheduler(num_train_timesteps=100)
stochastic.set_timesteps(51)
print("DDPM, 51 steps: starts at", int(stochastic.timesteps[0]))
assert stochastic.timesteps[0] == 50, "the behaviour has changed"
PY
