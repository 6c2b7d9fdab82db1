#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

behaviour "reset(seed=5) twice gives two different starts, in robosuite's gymnasium wrapper and in Meta-World. robosuite
seeds numpy's global generator, from which its environments no longer draw; Meta-World keeps to the seed of make()."

environment 3.11 robosuite==1.5.2 mujoco==3.9.0 gymnasium==1.4.0 h5py==3.15.1
"$python" - 2>log <<'PY' | grep -v INFO || { cat log; exit 1; }
import numpy as np
import robosuite
from robosuite.wrappers import GymWrapper

no_pictures = dict(has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False)
env = robosuite.make("Lift", robots="Panda", **no_pictures)
wrapped = GymWrapper(env)


def cube():
    return env.sim.data.body_xpos[env.cube_body_id][:2].round(4).tolist()


def reset():
    wrapped.reset(seed=5)
    return cube()


starts = [reset() for _ in range(3)]
print("robosuite Lift, where the cube lies after reset(seed=5):", *starts)
assert len({tuple(start) for start in starts}) == 3, "equal starts: the behaviour has changed"


# What does repeat a start: a generator given both to the environment and to the sampler that places the objects.
def restart():
    env.rng = env.placement_initializer.rng = np.random.default_rng(5)
    env.reset()
    return cube()


assert restart() == restart(), "both generators set, and the starts differ"
print("both generators set:", restart(), restart())
PY

environment 3.11 metaworld==3.1.1 mujoco==3.3.0 gymnasium==1.4.0 packaging==25.0
"$python" - <<'PY'
import gymnasium
import metaworld  # noqa: F401  registers its environments


def goals(make_seed, reset_seed, count):
    env = gymnasium.make("Meta-World/MT1", env_name="reach-v3", seed=make_seed)
    return [tuple(env.reset(seed=reset_seed)[0][-3:].round(3).tolist()) for _ in range(count)]


same = goals(make_seed=1, reset_seed=5, count=3)
print("Meta-World reach-v3, the goal after reset(seed=5):", *same)
assert len(set(same)) == 3, "equal goals: the behaviour has changed"
assert goals(make_seed=1, reset_seed=99, count=3) == same, "the seed of reset counts: the behaviour has changed"
print("with reset(seed=99) in another environment made with the same seed: the same three goals")
PY
