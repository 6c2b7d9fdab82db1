"""Any Gymnasium environment as a world: keys, success, progress, starts; what does not fit is named."""

import dataclasses
import json

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from understudy.configs.lanes.lanes import Lanes
from understudy.configs.parse import parse
from understudy.configs.world import read_world, start_set
from understudy.eval.contracts import check_world
from understudy.eval.evaluate.evaluate import Eval
from understudy.sim.gym.keys import GymWorldError
from understudy.sim.gym.world import GymWorld
from understudy.sim.perturb import applicable, perturbed

CAR = GymWorld(id="MountainCarContinuous-v0", names={"observation.state": ("position", "velocity")})
PENDULUM = GymWorld(id="Pendulum-v1", success="never", progress="reward", progress_range=(-16, 0))
POLE = GymWorld(id="CartPole-v1", success="survived", horizon=40)
NESTED = GymWorld(
    id="understudy/Nested-v0",
    keys={
        "observation.state": "robot/pose[0:2] + robot/grip",
        "observation.environment_state": "goal[-1:]",
        "observation.images.wrist": "picture",
    },
    limits=((-1, 1), (-2, 2)),
    success="found",
    progress="near",
    progress_range=(10, 20),
    horizon=5,
    rate=10.0,
)


class Nested(gymnasium.Env):
    """A dict of dicts, a picture, boundless actions; draws `made` when it is built."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, made: int = 0):
        real = {"pose": Box(-9, 9, (3,)), "grip": Box(-9, 9, (1, 1))}
        picture = Box(0, 255, (6, 8, 3), np.uint8)
        self.observation_space = Dict({"robot": Dict(real), "goal": Box(-9, 9, (2,)), "picture": picture})
        self.action_space = Box(-np.inf, np.inf, (1, 2))
        self.made = made

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.pose = self.np_random.uniform(-1, 1, 3)
        return self.see(), {}

    def step(self, action):
        assert action.shape == (1, 2)
        self.pose[:2] += action[0]
        return self.see(), -1.0, False, False, {"near": 14.0, "found": self.pose[0] > 5}

    def see(self):
        picture = np.full((6, 8, 3), 7, np.uint8)
        return {
            "robot": {"pose": self.pose.copy(), "grip": np.full((1, 1), 3.0)},
            "goal": np.array([1.0, 2 + self.made]),
            "picture": picture,
        }


gymnasium.register("understudy/Nested-v0", entry_point=Nested)


@pytest.mark.parametrize("world", [CAR, PENDULUM, POLE, NESTED], ids=lambda world: world.id)
def test_the_contract(world):
    check_world(world)


def test_what_is_read_from_the_environment():
    body = CAR.embodiment()
    assert body.state == ("position", "velocity") and body.state_units == ("?", "?") and not body.scene
    assert (body.limits, body.rate, CAR.steps(), CAR.task) == (((-1.0, 1.0),), 30.0, 999, "MountainCarContinuous-v0")
    assert POLE.embodiment().limits == ((0.0, 1.0),) and POLE.steps() == 40
    assert start_set(CAR) == "gym/MountainCarContinuous-v0"
    assert start_set(dataclasses.replace(CAR, kwargs={"goal_velocity": 0.01})) != start_set(CAR)
    json.dumps(CAR.fingerprint())
    assert CAR.fingerprint()["versions"]["gymnasium"] == gymnasium.__version__


def test_success_where_the_environment_ends():
    lane = CAR.lane()
    for start in (1000, 1001):
        obs, info = lane.reset(seed=start)
        assert info == {"success": False, "progress": 0.0}
        ended = False
        while not ended:
            push = np.sign(obs["observation.state"][1:]) if obs["observation.state"][1] else np.ones(1)
            obs, _, ended, truncated, info = lane.step(push)
            assert not truncated and info["progress"] == float(ended) == float(info["success"])
    lane.close()


def test_survival_and_an_end_without_success():
    lane = POLE.lane()
    obs, _ = lane.reset(seed=5)
    for tick in range(1, 41):
        action = np.array([0.6 if obs["observation.state"][2:] @ [1, 0.5] > 0 else 0.4], np.float32)
        obs, _, terminated, truncated, info = lane.step(action)
        assert info["action.sent"] in ([0.0], [1.0]), "what was really executed is a whole number"
        assert (terminated, truncated, info["success"]) == (tick == 40, False, tick == 40)
        assert info["progress"] == (1.0 if tick == 40 else pytest.approx(tick / 40))
    lane.reset(seed=5)
    steps = [lane.step(np.ones(1))[2:] for _ in range(12)]
    fell = next(step for step in steps if step[0])
    assert fell[1] is False and fell[2]["success"] is False and fell[2]["progress"] < 1
    lane.close()


def test_keys_slices_pictures_and_progress():
    world = dataclasses.replace(NESTED, cameras={"wrist": (3, 4)}, delay=1)
    lane = world.lane()
    obs, _ = lane.reset(seed=0)
    assert world.embodiment().state == ("pose.0", "pose.1", "grip.0") and world.embodiment().scene == ("goal.1",)
    assert obs["observation.state"][2] == 3 and obs["observation.environment_state"] == [2.0]
    assert obs["observation.images.wrist"].shape == (3, 4, 3) and (obs["observation.images.wrist"] == 7).all()
    moved, _, terminated, _, info = lane.step(np.array([9.0, -9.0]))
    assert (moved["observation.state"] == obs["observation.state"]).all(), "the first action comes a step late"
    assert info["progress"] == pytest.approx(0.4) and not terminated
    moved, *_ = lane.step(np.zeros(2))
    assert np.allclose(moved["observation.state"][:2] - obs["observation.state"][:2], [1, -2]), "clipped to the limits"
    lane.close()


def test_a_picture_of_the_environment():
    lane = dataclasses.replace(PENDULUM, cameras={"side": (48, 64)}).lane()
    obs, _ = lane.reset(seed=0)
    picture = obs["observation.images.side"]
    assert picture.shape == (48, 64, 3) and picture.std() > 5 and lane.render().ndim == 3
    lane.close()


def test_what_is_drawn_when_built_is_keyed_by_the_start():
    lane = dataclasses.replace(NESTED, remake="made").lane()
    assert [float(lane.reset(seed=start)[0]["observation.environment_state"][0]) for start in (4, 9, 4)] == [6, 11, 6]


def test_workers_give_the_same():
    actions = np.random.default_rng(0).uniform(-2, 2, (4, 20, 1)).astype(np.float32)
    seen = []
    for workers in (0, 2):
        lanes = Lanes(PENDULUM, 4, workers)
        lanes.reset(seed=1000)
        chunk = lanes.step_chunk(actions)
        seen.append((chunk.obs["observation.state"], chunk.progress))
        assert not chunk.failed
        lanes.close()
    assert all((one == other).all() for one, other in zip(*seen, strict=True))


def test_perturbed_by_latency_alone_without_mujoco():
    assert applicable(PENDULUM) == ("latency",)
    assert perturbed(PENDULUM, "all").fingerprint()["perturb"]["names"] == ["latency"]
    with pytest.raises(ValueError, match="type gym cannot be perturbed by 'mass'"):
        perturbed(PENDULUM, "mass")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "Pendulm-v1"}, "cannot make 'Pendulm-v1'.*Pendulum"),
        ({"module": "no_such_module"}, "'MountainCarContinuous-v0' needs the module 'no_such_module'"),
        ({"keys": {"observation.state": "pose"}}, "asks for 'pose'. The observation holds a Box"),
        ({"keys": {"state": "pose"}}, "'state' is none of ours. Known: observation.state"),
        ({"keys": {"observation.state": "pose[0"}}, r"'pose\[0' is not KEY"),
        ({"names": {"action": ("a", "b")}}, "names of 'action': 2 are given for 1 numbers"),
        ({"limits": ((0, 1), (0, 1))}, "limits: 2 are given for 1 actions"),
        ({"progress_range": (1, 1)}, "two ends"),
        ({"id": "understudy/Nested-v0"}, "keys: say which parts.*robot"),
        ({"id": "understudy/Nested-v0", "keys": {"observation.state": "robot"}}, "'robot', which is no Box"),
        ({"id": "understudy/Nested-v0", "keys": {"observation.state": "goal"}, "names": {}}, "no finite limits"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises((GymWorldError, ImportError), match=message):
        dataclasses.replace(CAR, **{"task": ""} | changes).embodiment()


def test_a_missing_horizon_rate_or_key_of_info_is_named():
    with pytest.raises(GymWorldError, match="give a horizon"):
        dataclasses.replace(NESTED, horizon=None).steps()
    with pytest.raises(GymWorldError, match="give a rate"):
        dataclasses.replace(NESTED, rate=None).embodiment()
    lane = dataclasses.replace(NESTED, success="won").lane()
    lane.reset(seed=0)
    with pytest.raises(GymWorldError, match="success: 'won' is not in the info of .*, which holds found, near"):
        lane.step(np.zeros(2))


def test_shipped_settings_can_be_read():
    for name in ("gym_fetch", "gym_metaworld", "gym_mountaincar"):
        world = read_world(parse(Eval, f"configs/eval/{name}.yaml", []).world)
        assert isinstance(world, GymWorld) and world.id
    assert world.embodiment().state == ("position", "velocity")


def test_fetch_of_gymnasium_robotics():
    reason = "needs gymnasium-robotics: pip install 'understudy[robotics]'"
    pytest.importorskip("gymnasium_robotics", reason=reason)
    world = read_world(parse(Eval, "configs/eval/gym_fetch.yaml", []).world)
    check_world(world)
    assert world.embodiment().rate == 25 and "gymnasium-robotics" in world.fingerprint()["versions"]
    lane, won = world.lane(), 0
    for start in range(1000, 1010):
        obs, info = lane.reset(seed=start)
        first, ended = obs, info["success"]
        while not ended:
            way = obs["observation.environment_state"] - obs["observation.state"][:3]
            obs, _, ended, truncated, info = lane.step(np.array([*10 * way, 0], np.float32))
            assert 0 <= info["progress"] <= 1 and (info["progress"] == 1) == info["success"]
            ended |= truncated
        won += info["success"]
        again = lane.reset(seed=start)[0]
        assert all((again[key] == first[key]).all() for key in first), "what was done before does not matter"
    assert won >= 9
    lane.close()
    late = perturbed(world, "all")
    assert late.names == ("light", "friction", "mass", "latency")
    check_world(late)


def test_meta_world():
    pytest.importorskip("metaworld", reason="needs Meta-World: pip install metaworld")
    world = read_world(parse(Eval, "configs/eval/gym_metaworld.yaml", []).world)
    check_world(world)
    lane = world.lane()
    goals = [lane.reset(seed=start)[0]["observation.environment_state"][3:] for start in (1, 2, 1)]
    assert (goals[0] == goals[2]).all() and (goals[0] != goals[1]).any()
    lane.close()


class Forgetful(Nested):
    """Draws from a generator of its own, whatever seed it is told."""

    def __init__(self, render_mode=None, made: int = 0):
        super().__init__(render_mode, made)
        self.own = np.random.default_rng(made)

    def reset(self, seed=None, options=None):
        self.pose = self.own.uniform(-1, 1, 3)
        return self.see(), {}


def test_an_environment_that_ignores_seeds_is_named():
    import warnings

    from understudy.sim.gym.world import GymLane, GymWorldWarning

    gymnasium.register("understudy/Forgetful-v0", Forgetful)
    world = dataclasses.replace(NESTED, id="understudy/Forgetful-v0")
    with pytest.warns(GymWorldWarning, match="begins otherwise each time .* seed 5.*remake: seed"):
        GymLane(world).begin(5, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error", GymWorldWarning)
        GymLane(dataclasses.replace(world, remake="made")).begin(5, {})
        lane = GymLane(NESTED)
        lane.begin(5, {})
        first = lane.sense()
        lane.begin(5, {})
        assert all(np.array_equal(first[key], seen) for key, seen in lane.sense().items())
