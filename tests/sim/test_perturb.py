"""Perturbations change what they say and nothing else, in the same way for the same start, and are undone."""

import dataclasses
import json

import draccus
import mujoco
import numpy as np
import pytest

from understudy.configs.lanes.lanes import Lanes
from understudy.configs.world import World, find_world, read_world, start_set
from understudy.sim.decor import movable_bodies
from understudy.sim.perturb import PERTURBATIONS, Perturbed, names_of, perturbed, register_perturbation, simulator
from understudy.sim.pusht.gym_pusht import GymPushT

LIFT, POINT = find_world("lift"), find_world("point")
CHANGES = {  # perturbation -> what its arrays begin with
    "light": ("light_", "headlight."),
    "camera": ("cam_pos", "cam_quat"),
    "distractors": (),
    "friction": ("geom_friction", "pair_friction", "dof_frictionloss"),
    "mass": ("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0")
    + ("actuator_acc0", "tendon_invweight0", "cam_poscom0", "light_poscom0"),  # derived from masses
    "latency": (),
}


def model_of(lane) -> dict[str, np.ndarray]:
    """All arrays and scales of a lane's model."""
    model, _ = simulator(lane)
    values = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    found = {name: value.copy() for name, value in values.items() if isinstance(value, np.ndarray)}
    head, stat = model.vis.headlight, model.stat
    found |= {f"headlight.{name}": getattr(head, name).copy() for name in ("ambient", "diffuse", "specular")}
    return found | {f"stat.{name}": np.array(getattr(stat, name)) for name in ("extent", "meaninertia", "center")}


def differing(one: dict, other: dict) -> set[str]:
    return {name for name in one if not np.array_equal(one[name], other[name])}


def drive(lane, steps: int = 8) -> list[dict]:
    rng = np.random.default_rng(0)
    low, high = lane.action_space.low, lane.action_space.high
    return [lane.step(rng.uniform(low, high).astype(np.float32))[0] for _ in range(steps)]


def states(seen: list[dict]) -> np.ndarray:
    return np.stack([np.concatenate([value for key, value in one.items() if "images" not in key]) for one in seen])


@pytest.fixture(scope="module", params=["lift", "point"])
def clean(request):
    """A clean world, its model, observation at start 3, and what eight steps from there give."""
    world = find_world(request.param)
    lane = world.lane()
    obs, _ = lane.reset(seed=3)
    yield world, model_of(lane), obs, states(drive(lane))
    lane.close()


@pytest.mark.parametrize("name", CHANGES)
def test_changes_what_it_says_and_nothing_else(clean, name):
    world, model, obs, course = clean
    lane = perturbed(world, name).lane()
    begun, _ = lane.reset(seed=3)
    assert all(np.array_equal(begun[key], obs[key]) for key in obs), "the start is the clean one"
    changed = differing(model, model_of(lane))
    assert not {array for array in changed if not array.startswith(CHANGES[name])}
    assert bool(changed) == bool(CHANGES[name])
    assert lane.delay == (lane.perturbation["latency"]["steps"] if name == "latency" else 0)
    assert bool(lane.decor) == (name == "distractors")
    if name in ("light", "camera", "distractors"):
        assert np.array_equal(states(drive(lane)), course), "what is only seen does not move anything"
    elif name == "latency" or (world.task, name) == ("point", "mass"):
        assert not np.array_equal(states(drive(lane)), course)
    lane.close()


def test_undone_before_the_next_start_and_the_same_again(clean):
    world, model, _, _ = clean
    busy, fresh = (perturbed(world, "all").lane() for _ in range(2))
    busy.reset(seed=4), drive(busy)
    before, decor, delay = model_of(busy), busy.decor, busy.delay
    busy.reset(seed=9), fresh.reset(seed=9)
    assert differing(before, model_of(busy)) and busy.decor != decor
    assert not differing(model_of(fresh), model_of(busy))
    assert (busy.decor, busy.delay, busy.perturbation) == (fresh.decor, fresh.delay, fresh.perturbation)
    assert np.array_equal(states(drive(busy)), states(drive(fresh)))
    busy.reset(seed=4)
    assert not differing(before, model_of(busy)) and (busy.decor, busy.delay) == (decor, delay)
    fresh.close(), busy.close()


def test_factors_are_what_they_say():
    lane = perturbed(LIFT, "mass,friction").lane()
    lane.reset(seed=11)
    disturbed = model_of(lane)
    drawn, (model, _) = lane.perturbation, simulator(lane)
    reference = LIFT.lane()
    reference.reset(seed=11)
    plain = model_of(reference)
    cube = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "cube_main")]
    assert movable_bodies(model).tolist() == cube, "the arm's own links are not touched"
    assert np.allclose(disturbed["body_mass"][cube], plain["body_mass"][cube] * drawn["mass"]["factor"])
    assert np.allclose(disturbed["geom_friction"], plain["geom_friction"] * drawn["friction"]["factor"])
    assert 1 / 1.5 <= drawn["mass"]["factor"] <= 1.5 and drawn["mass"]["factor"] != drawn["friction"]["factor"]
    lane.close(), reference.close()


@pytest.mark.parametrize(("name", "camera"), [("lift", "agentview"), ("point", "top")])
def test_pictures_show_it(name, camera):
    world = dataclasses.replace(find_world(name), cameras={camera: (64, 64)})
    key = f"observation.images.{camera}"

    def picture(lane) -> np.ndarray:
        return lane.reset(seed=3)[0][key].astype(int)

    lane = world.lane()
    plain = picture(lane)
    lane.close()
    for kind in CHANGES:
        lane = perturbed(world, kind).lane()
        first = picture(lane)
        other = lane.reset(seed=4)[0][key]
        assert (np.abs(first - plain).max() > 8) == (kind in ("light", "camera", "distractors")), kind
        assert np.array_equal(picture(lane), first) and not np.array_equal(other, first)
        lane.close()


def test_workers_see_the_same():
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 6, 2)).astype(np.float32)
    runs = []
    for workers in (0, 2):
        lanes = Lanes(perturbed(POINT, "all"), 4, workers)
        lanes.reset(seed=20)
        runs.append((lanes.step_chunk(actions).obs["observation.state"], lanes.call("perturbation")))
        lanes.close()
    assert np.array_equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert len({json.dumps(one) for one in runs[0][1]}) == 4, "every start is disturbed in its own way"


def test_level_scales():
    one, half = (perturbed(POINT, "friction", level).lane() for level in (1.0, 0.5))
    one.reset(seed=2), half.reset(seed=2)
    factors = [lane.perturbation["friction"]["factor"] for lane in (one, half)]
    assert np.isclose(np.log(factors[0]), 2 * np.log(factors[1]))


def test_fingerprints_differ_and_starts_join():
    dim = perturbed(LIFT, "light,mass")
    assert dim.fingerprint()["perturb"] == {"names": ["light", "mass"], "level": 1.0, "version": 1}
    assert {key: value for key, value in dim.fingerprint().items() if key != "perturb"} == LIFT.fingerprint()
    assert perturbed(LIFT, "light").fingerprint() != dim.fingerprint() != perturbed(LIFT, "light,mass", 2).fingerprint()
    assert start_set(dim) == start_set(LIFT) and dim.task == "lift" and dim.steps() == LIFT.steps()
    json.dumps(dim.fingerprint())


def test_a_world_s_yaml_and_changes(tmp_path):
    keys = {"type": "perturbed", "of": {"type": "robosuite", "task": "lift"}, "perturb": ["felt"], "delay": 1}
    world = read_world(keys, cameras={"agentview": (32, 32)})
    assert world.names == ("friction", "mass", "latency")
    assert world.clean.delay == 1 and world.embodiment().cameras == {"agentview": (32, 32)}
    again = draccus.decode(World, draccus.encode(world) | {"type": "perturbed"})
    assert again == world


def test_names():
    assert names_of("light, friction") == ("light", "friction")
    assert names_of("all") == tuple(PERTURBATIONS) == names_of(["seen", "felt", "light"])
    with pytest.raises(LookupError, match="unknown perturbation 'ligth'. Did you mean 'light'.* Known: all, camera"):
        perturbed(POINT, "ligth")
    with pytest.raises(ValueError, match="registered already"):
        register_perturbation("light")(None)
    with pytest.raises(ValueError, match="level must be positive"):
        perturbed(POINT, "light", 0)


def test_gym_pusht_has_latency_alone():
    world = GymPushT()
    with pytest.raises(ValueError, match="gym_pusht cannot be perturbed by 'friction'.*Possible: latency"):
        perturbed(world, "friction,latency")
    late = perturbed(world, "all")
    assert late.names == ("latency",)
    lane = late.lane()
    lane.reset(seed=1)
    assert lane.delay == lane.perturbation["latency"]["steps"] >= 1
    with pytest.raises(ValueError, match="Possible: nothing"):
        Perturbed(of=late, perturb=("light",))


def test_a_plug_in_s_perturbation(monkeypatch):
    monkeypatch.setattr("understudy.sim.perturb.PERTURBATIONS", dict(PERTURBATIONS))
    from understudy.sim import perturb

    @perturb.register_perturbation("gale")
    def gale(stage, rng, level):
        stage.model.body_gravcomp[:] = level
        return {}

    lane = perturbed(POINT, "gale").lane()
    lane.reset(seed=0)
    assert (simulator(lane)[0].body_gravcomp == 1).all()


def test_the_command_s_flag():
    from understudy.configs.parse import parse
    from understudy.eval.evaluate.evaluate import Eval, open_stage

    words = ["--policy", "p", "--out", "o", "--world", "point"]
    world = open_stage(parse(Eval, None, [*words, "--perturb", "light,friction", "--perturb-level", "2"]))
    assert (world.names, world.level) == (("light", "friction"), 2.0)
    assert open_stage(parse(Eval, None, words)) == POINT
    assert open_stage(parse(Eval, "configs/eval/perturb_lift.yaml", [])).names == ("friction", "mass", "latency")
