"""A new policy, critic, task, expert or robot is one file that registers itself: the built-in ones and a stranger's."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from understudy.configs.plugins import discover, lookup
from understudy.eval.contracts import BrokenContract, check_critic, check_policy, check_world
from understudy.policies.policy import executed_of

POLICY = '''
from dataclasses import dataclass
import torch
from torch import nn
from understudy.policies.policy import Plans, PolicyConfig

@PolicyConfig.register_subclass("hold")
@dataclass(frozen=True, kw_only=True)
class HoldConfig(PolicyConfig):
    """Plans one learned action for ever, with a little noise."""

    spread: float = 0.1  # of the noise

    def build(self, embodiment, scales):
        return Hold(self, embodiment)

class Hold(nn.Module):
    def __init__(self, config, embodiment):
        super().__init__()
        self.embodiment, self.window, self.inputs, self.spread = embodiment, config.window, config.inputs, config.spread
        self.action = nn.Parameter(torch.rand(len(embodiment.action)))

    @torch.no_grad()
    def plan(self, past, n, rng):
        future = self.action + self.spread * rng.normal(n, self.window.horizon, len(self.action))
        return Plans(future.new_zeros(len(past.now), n, 0, len(self.action)), future, past.now)

    def loss(self, batch):
        error = (batch["action"] - self.action).square().mean()
        return error, {"error": float(error)}
'''
CRITIC = '''
from dataclasses import dataclass
from understudy.configs.spec import Window
from understudy.policies.policy import CriticConfig

@CriticConfig.register_subclass("calm")
@dataclass(frozen=True, kw_only=True)
class CalmConfig(CriticConfig):
    """Prefers small actions."""

    reads: int = 4  # future actions

    def build(self, embodiment, scales):
        return Calm(self.reads)

class Calm:
    window, inputs = Window(observe=(0,), horizon=4), ("observation.state",)

    def __init__(self, reads):
        self.reads = reads

    def score(self, past, plans):
        return -plans.future[:, :, : self.reads].abs().mean((-1, -2))
'''
TASK = '''
import numpy as np
from understudy.sim.experts import register_expert
from understudy.sim.task import register_task
from understudy.sim.testing import Point, PointExpert

@register_task("still")
class Still(Point):
    """The point of the tests, which must come to rest near the origin."""

    horizon = 20

    def success(self, model, data):
        return bool(np.abs(data.qpos[:2]).max() < 0.01)

@register_expert("still")
class StillExpert(PointExpert):
    """Towards the origin."""

    def act(self, env):
        return -env.data.qpos[:2]
'''
ROBOT = '''
import time
from dataclasses import dataclass
import numpy as np
from understudy.configs.spec import Embodiment
from understudy.hardware.guard import Measured
from understudy.hardware.robot import RobotConfig

@RobotConfig.register_subclass("echo")
@dataclass(frozen=True, kw_only=True)
class EchoConfig(RobotConfig):
    """A robot that is where it was told to be."""

    def driver(self):
        return Echo()

class Echo:
    body = None
    embodiment = Embodiment(name="echo", action=("j",), action_units=("rad",), limits=((-1, 1),), rate=50,
                            state=("j",), state_units=("rad",))

    def connect(self):
        self.position = np.zeros(1)

    def measure(self, loads):
        return Measured(position=self.position.copy(), time=time.monotonic())

    def write(self, goal):
        self.position = np.array(goal)

    def hold(self):
        pass

    def relax(self):
        pass

    def close(self):
        pass
'''
USE = """
from understudy.configs.machine import prepare
prepare()
import numpy as np

def main():
    from understudy.configs.lanes.lanes import Lanes
    from understudy.configs.plugins import discover
    from understudy.configs.world import find_world
    from understudy.eval.contracts import check_critic, check_policy, check_robot, check_world
    from understudy.hardware.robot import RobotConfig
    from understudy.policies.agent.agent import Agent
    from understudy.policies.policy import CriticConfig, PolicyConfig, Scales

    discover("policies", "sim", "hardware")
    policy, critic = PolicyConfig.get_choice_class("hold")(), CriticConfig.get_choice_class("calm")()
    world = find_world("still")
    check_policy(policy), check_critic(critic), check_world(world)
    check_robot(RobotConfig.get_choice_class("echo")())
    body, scales = world.embodiment(), Scales(action=((-1, -1), (1, 1)), states={})
    judge = critic.build(body, scales)
    agent = Agent(policy.build(body, scales), lanes=2, n_action_steps=4, candidates=3, critic=judge)
    lanes = Lanes(world, 2, workers=1)
    obs, _ = lanes.reset(seed=[5, 6])
    agent.reset(np.array([5, 6]), np.ones(2, bool), obs)
    for _ in range(5):
        chunk = lanes.step_chunk(agent.act(), agent.look)
        agent.observe(chunk.obs, chunk.sent, chunk.valid)
    assert chunk.truncated[:, -1].all() or chunk.terminated.any(), chunk
    assert not chunk.failed, chunk.failed
    expert = lanes.call("expert_action")
    assert all(np.shape(action) == (2,) for action in expert), expert
    lanes.close()
    print("contracts kept")

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def stranger(tmp_path):
    """Environment of a process in which the package `stranger` of four files can be imported."""
    package = tmp_path / "stranger"
    package.mkdir()
    for name, text in {"__init__": "", "policy": POLICY, "critic": CRITIC, "task": TASK, "robot": ROBOT}.items():
        (package / f"{name}.py").write_text(text)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path}


def test_a_stranger_s_files_keep_the_contracts_and_act(stranger, tmp_path):
    script = tmp_path / "use.py"
    script.write_text(USE)
    environment = os.environ | stranger | {"UNDERSTUDY_PLUGINS": "stranger", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "contracts kept" in done.stdout


def test_the_command_lists_a_stranger_s_names(command, stranger):
    status, out, err = command("list", "--plugins", "stranger", **stranger)
    assert status == 0, err
    assert {"hold", "calm", "still", "echo"} <= set(out.split())


def test_a_plugin_that_cannot_be_imported_is_named(command):
    status, _, err = command("list", "policies", "--plugins", "no_such_package")
    assert status == 2
    assert "plug-in 'no_such_package'" in err and "UNDERSTUDY_PLUGINS" in err


def test_lookup_names_the_closest_and_all():
    with pytest.raises(LookupError, match="unknown fruit 'aple'. Did you mean 'apple'\\? Known: apple, pear"):
        lookup("fruit", "aple", {"apple": 1, "pear": 2})


def _names(kind):
    from understudy.eval.catalog.catalog import KINDS

    return sorted(KINDS[kind]())


@pytest.mark.parametrize("name", _names("policies"))
def test_built_in_policies(name):
    from understudy.policies.policy import PolicyConfig

    check_policy(PolicyConfig.get_choice_class(name)())


@pytest.mark.parametrize("name", _names("critics"))
def test_built_in_critics(name):
    from understudy.policies.policy import CriticConfig

    check_critic(CriticConfig.get_choice_class(name)())


def _robots():
    from understudy.eval.catalog.catalog import robots
    from understudy.hardware.robot import RobotConfig

    return sorted(robots().keys() & RobotConfig.get_known_choices().keys())


@pytest.mark.parametrize("name", _robots())
def test_built_in_robots_have_settings_that_say_what_they_are(name):
    """They need an arm; `tests/hardware` drives them against an emulated one."""
    from understudy.hardware.robot import RobotConfig

    config = RobotConfig.get_choice_class(name)
    assert config.__doc__ and config.driver is not RobotConfig.driver


@pytest.mark.parametrize("name", [name for name in _names("worlds") if not name.startswith("type:")])
def test_built_in_worlds(name):
    from understudy.configs.world import find_world

    check_world(find_world(name))


def test_every_expert_belongs_to_a_world():
    discover("sim")
    from understudy.configs.world import WORLDS
    from understudy.sim.experts import EXPERTS

    assert set(EXPERTS) <= set(WORLDS)


def test_a_broken_critic_is_named():
    from dataclasses import dataclass

    from understudy.configs.spec import Window
    from understudy.policies.policy import CriticConfig

    @dataclass(frozen=True, kw_only=True)
    class Odd(CriticConfig):
        def build(self, embodiment, scales):
            return self

        window, inputs, reads = Window(observe=(0,), horizon=4), ("observation.state",), 4

        def score(self, past, plans):
            return plans.future.mean((1, 2, 3))

    with pytest.raises(BrokenContract, match=r"score returns \(3,\), not \(B, N\)"):
        check_critic(Odd())


def test_a_planner_with_the_former_name_is_told():
    """`execute` must not be passed over in silence: 8 actions would be executed instead of what the author meant."""
    planner = SimpleNamespace(embodiment=None, window=None, inputs=(), plan=None)
    assert executed_of(planner, 5) == 5
    planner.execute = 2
    with pytest.raises(TypeError, match="SimpleNamespace.execute is named n_action_steps now; rename it"):
        executed_of(planner)


def test_worlds_and_robots_are_found_by_what_their_files_say():
    """A name is looked for in the modules that register such things alone; no other module registers one."""
    code = """
from understudy.configs.plugins import discover
from understudy.configs.world import KINDS, WORLDS, World, find_world
from understudy.hardware.open import check_robot
from understudy.hardware.robot import RobotConfig
for look in (find_world, check_robot):
    try: look("none")
    except LookupError: pass
worlds, kinds, robots = set(WORLDS), set(World.get_known_choices()), set(RobotConfig.get_known_choices())
assert {"lift", "pusht", "so101-reach"} <= worlds and {"so101", "lerobot"} <= robots
discover(*KINDS)
print({*WORLDS, *World.get_known_choices(), *RobotConfig.get_known_choices()} - worlds - kinds - robots)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stdout + done.stderr


def test_robots_are_found_without_what_only_a_twin_or_a_server_needs():
    script = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "gsplat", "rerun", "websockets", "msgpack", "lerobot", "torch"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Absent())
from understudy.configs.plugins import discover
discover("hardware")
from understudy.hardware.robot import RobotConfig
print(len(RobotConfig.get_known_choices()))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= 2
