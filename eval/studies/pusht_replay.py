"""How near PushT in MuJoCo comes to gym-pusht: the human episodes played again, open loop, from where they truly began.

    UNDERSTUDY_DATA=... understudy study pusht_replay --damping 200 --episodes 180

Reads `pusht_human/full_state.npz`: starts, actions, the reward after each action. It is how the numbers of
`PushTMuJoCo` were chosen. Measured over the 180 episodes (22,207 steps) with mujoco 3.9.0: absolute difference of the
final coverage from the recorded one, and how the coverage of all steps correlates with the recorded one.

    damping  friction  softness    mean   median  within 0.02   correlation, all steps
         50      0        0.004   0.060   0.0036      81 %          0.954
        200      0        0.004   0.022   0.0017      96 %          0.990
        400      0        0.004   0.015   0.0021      97 %          0.994    <- chosen
        400      0        0.010   0.015   0.0023      96 %          0.995
       1000      0        0.004   0.021   0.0046      97 %          0.993
        200      0.05     0.004   0.053   0.0138      66 %          0.968
        200      0.2      0.004   0.123   0.0453      25 %          0.916

The arm of `sim/pusht/arm.py` (`--world pusht-arm`), same physics: 0.014, 0.0012, 97 %, 0.994; its pusher is off the
free one's by 0.24 px on average, 99 % within 0.65, at most 7.4 (where a target was further away than it may pull).

The episodes are rolled open loop (`open_loop.py`): to the last bit what acting gives.

Final coverages of the chosen one: rank correlation 0.92. Pearson's is only 0.18: people stopped at nearly equal
coverages (standard deviation 0.021), beside which the few episodes that go another way weigh most.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...configs.plugins import lookup
from ...configs.world import find_world
from ...sim.open_loop import controls_of, physics, qpos, roll_each
from ...sim.pusht.arm import PushTArmWorld
from ...sim.pusht.gym_pusht import SUCCESS
from ...sim.pusht.pusht import PushTMuJoCo, PushTMuJoCoLane


@dataclass(frozen=True, kw_only=True)
class PushTReplayStudy:
    """Replay the human PushT episodes in MuJoCo: a line for one choice of the physics."""

    episodes: int | None = None  # the first ones; default all
    world: str = "pusht-mujoco"  # pusht-mujoco | pusht-arm, which also says how far its pusher is from the free one
    damping: float = PushTMuJoCo().damping  # of the world, as its setting of this name
    friction: float = PushTMuJoCo().friction  # of the world, as its setting of this name
    softness: float = PushTMuJoCo().softness  # of the world, as its setting of this name

    def run(self) -> None:
        lookup("world", self.world, dict.fromkeys(("pusht-mujoco", "pusht-arm")))
        physics_of = {name: getattr(self, name) for name in ("damping", "friction", "softness")}
        if "UNDERSTUDY_DATA" not in os.environ:
            raise ValueError("UNDERSTUDY_DATA must name the folder that holds pusht_human/full_state.npz")
        file = Path(os.environ["UNDERSTUDY_DATA"]) / "pusht_human" / "full_state.npz"
        replayed = replay(replace(find_world(self.world), **physics_of), file, self.episodes)
        print(self.world, physics_of, replayed.text())
        if self.world == "pusht-arm":
            free = replay(replace(find_world("pusht-mujoco"), **physics_of), file, self.episodes)
            away = np.linalg.norm(replayed.pusher - free.pusher, axis=1)
            print(f"pusher off the free one by {away.mean():.2f} px on average, ", end="")
            print(f"99 % within {np.quantile(away, 0.99):.2f}, at most {away.max():.2f}")


@dataclass(frozen=True)
class Replay:
    """Episodes played again beside the recorded ones."""

    final: np.ndarray  # (K,) coverage 0..1 after the last action, here
    recorded: np.ndarray  # (K,) the same, recorded
    progress: np.ndarray  # (T,) min(1, coverage / 0.95) after each action of all episodes, here
    recorded_progress: np.ndarray  # (T,) the same, recorded
    pusher: np.ndarray  # (T, 2) px, where the pusher is after each action

    def text(self) -> str:
        """One line of numbers."""
        off = np.abs(self.final - self.recorded)
        return (
            f"{len(off)} episodes: final coverage off by {off.mean():.4f} on average, median {np.median(off):.4f}, "
            f"{np.mean(off < 0.02):.0%} within 0.02, correlation {np.corrcoef(self.final, self.recorded)[0, 1]:.3f}, "
            f"of ranks {np.corrcoef(_ranks(self.final), _ranks(self.recorded))[0, 1]:.3f}; "
            f"over all {len(self.progress)} steps {np.corrcoef(self.progress, self.recorded_progress)[0, 1]:.3f}"
        )


def replay(world: PushTMuJoCo | PushTArmWorld, file: Path, episodes: int | None = None) -> Replay:
    """Play the recorded actions of the first `episodes` (all if None) from where they truly began, past any success."""
    with np.load(file) as data:
        ends, starts, actions = data["episode_ends"][:episodes], data["init_state"][:episodes], data["action"]
        recorded, rewards = data["final_coverage"][:episodes], data["reward"][: int(ends[-1])]
    lane = world.lane()
    rolled = play(lane, starts, np.split(actions[: ends[-1]], ends[:-1]))
    places = np.concatenate(rolled)
    coverages, pusher = lane.task.coverages(places), lane.task.pushers(places)
    lane.close()
    progress = np.minimum(1.0, coverages / SUCCESS)
    return Replay(coverages[ends - 1], recorded, progress, np.clip(rewards, 0, 1).astype(float), pusher)


def play(lane: PushTMuJoCoLane, starts: np.ndarray, actions: list[np.ndarray]) -> list[np.ndarray]:
    """Joint positions (T_k, nq) after each of the actions (T_k, 2), px, from each start (5,), open loop."""
    model, data, states, warm, controls = lane.model, lane.data, [], [], []
    for start, chosen in zip(starts, actions, strict=True):
        lane.reset(seed=0, options={"state": start})
        states.append(physics(model, data))
        warm.append(data.qacc_warmstart.copy())
        controls.append(controls_of(lane, chosen))

    each = len(controls[0]) // len(actions[0])  # controls in a control step
    every = round(1 / (lane.embodiment.rate * model.opt.timestep * each))
    rolled = roll_each(model, np.array(states), controls, every, np.array(warm))
    return [qpos(model, positions[each - 1 :: each]) for positions in rolled]


def _ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort()
