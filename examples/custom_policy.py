"""A policy of one's own: one class of settings, one of the policy. Here a linear map from what is seen to the chunk.

    python examples/custom_policy.py [--quick]

With the command line, from this folder: understudy train ... --policy.type linear --plugins custom_policy
"""

import sys
from dataclasses import dataclass

import torch
from torch import nn

import understudy
from understudy.policies.policy import Plans, PolicyConfig, Scale


@PolicyConfig.register_subclass("linear")  # what --policy.type says
@dataclass(frozen=True, kw_only=True)
class LinearConfig(PolicyConfig):  # its fields are settings; window and inputs are there already
    def build(self, embodiment, scales):
        return Linear(self, embodiment, scales)


class Linear(nn.Module):
    def __init__(self, config, embodiment, scales):
        super().__init__()
        self.config, self.embodiment, self.window, self.inputs = config, embodiment, config.window, config.inputs
        self.units = Scale.between(*scales.action)  # actions in units <-> -1..1
        seen = sum(len(scales.states[key][0]) for key in self.inputs)
        self.map = nn.Linear(seen, self.window.horizon * len(embodiment.action))

    def chunk(self, obs):  # key -> (B, frames, numbers); the newest frame is the last
        newest = torch.cat([obs[key][:, -1] for key in self.inputs], 1)
        return self.map(newest).unflatten(1, (self.window.horizon, -1))  # (B, horizon, actions), scaled

    def loss(self, batch):  # what training makes small
        error = self.chunk(batch) - self.units.scale(batch["action"])
        return error[batch["action.valid"]].square().mean(), {}

    @torch.no_grad()
    def plan(self, past, n, rng):  # n chunks for each environment, in units
        future = self.units.unscale(self.chunk(past.obs))[:, None].expand(-1, n, -1, -1)
        return Plans(past=future[:, :, :0], future=future, start=past.now)


def main(quick: bool = False) -> None:
    from understudy.eval.contracts import check_policy

    check_policy(LinearConfig())  # deterministic, trains, survives saving; says what is broken

    understudy.demos("point", "out/linear/data", episodes=4 if quick else 40)
    policy = {"type": "linear", "inputs": ["observation.state", "observation.environment_state"]}
    steps = 50 if quick else 1000
    run = understudy.train(data="out/linear/data", out="out/linear/run", policy=policy, steps=steps, optimize__lr=0.01)
    print(understudy.rollout(run, "point", episodes=4 if quick else 100, n_action_steps=1))


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
