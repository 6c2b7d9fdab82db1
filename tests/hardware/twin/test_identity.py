"""Who changes a file or a property of a scene makes another twin, and records and policies notice."""

import dataclasses
import json
import os
import shutil
import warnings

import numpy as np
import pytest

from understudy.configs.world import read_world
from understudy.eval.ledger.identity import MatchError, first_difference, same_scene
from understudy.hardware.twin.bodies import Roles, carry
from understudy.hardware.twin.env import Reality, TwinWorld
from understudy.hardware.twin.gaussians import Gaussians, read_cameras, write_cameras
from understudy.hardware.twin.identity import _rounded, identity_of, physics_of
from understudy.hardware.twin.live.health import Trust
from understudy.hardware.twin.live.loop import LoopSettings
from understudy.hardware.twin.mjcf import mjcf_files
from understudy.hardware.twin.scene import CARD, TwinScene, scene_spec
from understudy.hardware.twin.splatting.views import looking_at
from understudy.policies.agent.stage import TwinChanged, compare_twin

MESH = """o tetra
v 0 0 0
v {size} 0 0
v 0 {size} 0
v 0 0 {size}
f 1 3 2
f 1 2 4
f 2 3 4
f 1 4 3
"""
SCENE = """
<mujoco>
  <compiler meshdir="meshes"/>
  <include file="ground.xml"/>
  <asset><mesh name="tetra" file="tetra.obj"/></asset>
  <worldbody>
    <body name="can" pos="0 0 .05"><freejoint/><geom type="box" size=".02 .02 .03" mass="{mass}"/></body>
    <body name="rock" pos=".2 0 .1"><freejoint/><geom type="mesh" mesh="tetra"/></body>
  </worldbody>
</mujoco>
"""
GROUND = """<mujoco><worldbody>
<geom type="plane" size="1 1 .1" friction="{friction} 0.005 0.0001"/>
</worldbody></mujoco>"""


def write_source(folder, mass=0.1, size=0.05, friction=1.0):
    (folder / "meshes").mkdir(exist_ok=True)
    (folder / "meshes" / "tetra.obj").write_text(MESH.format(size=size))
    (folder / "ground.xml").write_text(GROUND.format(friction=friction))
    (folder / "scene.xml").write_text(SCENE.format(mass=mass))
    return folder / "scene.xml"


def build(source, out, mean=0.0):
    model = scene_spec(str(source)).compile()
    roles = Roles(("can",), ())
    gaussians = carry(model, roles, count=20, rng=np.random.default_rng(0))
    gaussians = dataclasses.replace(gaussians, mean=gaussians.mean + mean)
    camera = looking_at("front", np.array([0.6, 0, 0.6]), np.zeros(3), 16, 16)
    return TwinScene(gaussians, (camera,), roles, str(source), {"front": np.zeros((16, 16, 3))}).save(out)


@pytest.fixture
def scene(tmp_path):
    return build(write_source(tmp_path), tmp_path / "twin")


def changed(before, folder):
    now = identity_of(folder)
    return {part for part in before if before[part] != now[part]}


def test_the_same_scene_is_the_same_twin(scene, tmp_path):
    assert changed(identity_of(scene), scene) == set()
    again = build(tmp_path / "scene.xml", tmp_path / "again")
    assert changed(identity_of(scene), again) == set()
    shutil.copytree(scene, tmp_path / "copy")
    assert changed(identity_of(scene), tmp_path / "copy") == set()


def test_each_change_is_named(scene, tmp_path):
    before = identity_of(scene)
    camera = read_cameras(scene)[0]
    pose = camera.world_from_camera.copy()
    pose[0, 3] += 1e-3
    write_cameras(scene, (dataclasses.replace(camera, world_from_camera=pose),))
    assert changed(before, scene) == {"cameras"}
    write_cameras(scene, (camera,))

    own = Gaussians.load(scene)
    dataclasses.replace(own, colour=np.clip(own.colour + 0.01, 0, 1)).save(scene)
    assert "gaussians" in changed(before, scene)
    own.save(scene)
    (scene / "background.front.png").write_bytes((scene / "background.front.png").read_bytes() + b"\0")
    assert "backgrounds" in changed(before, scene)
    card = json.loads((scene / CARD).read_text()) | {"objects": ["rock"]}
    (scene / CARD).write_text(json.dumps(card))
    assert {"backgrounds", "roles"} <= changed(before, scene)


@pytest.mark.parametrize("what", [{"mass": 0.2}, {"size": 0.06}, {"friction": 0.7}])
def test_a_body_a_mesh_and_an_included_file_are_physics(scene, tmp_path, what):
    before = identity_of(scene)
    write_source(tmp_path, **what)
    os.utime(tmp_path / "meshes" / "tetra.obj", (1e9, 1e9))  # MuJoCo keeps meshes by path and whole seconds
    assert changed(before, scene) == {"files", "physics"}


@pytest.mark.parametrize("what", [{"size": 0.06}, {"friction": 0.7}])
def test_a_scene_whose_mesh_or_include_changed_is_built_again(scene, tmp_path, what):
    """Its Gaussians lie on another mesh than its physics has: only the first file was looked at."""
    TwinScene.load(scene)
    write_source(tmp_path, **what)
    with pytest.raises(ValueError, match=r"a file that .*scene.xml reads has changed since .* build it again"):
        TwinScene.load(scene)
    card = json.loads((scene / CARD).read_text())
    del card["files"]  # as earlier versions wrote it
    (scene / CARD).write_text(json.dumps(card))
    TwinScene.load(scene)


def test_another_word_in_the_file_is_no_other_physics(scene, tmp_path):
    before = identity_of(scene)
    (tmp_path / "ground.xml").write_text("<!-- the floor -->" + GROUND.format(friction=1.0))
    assert changed(before, scene) == {"files"}


def test_a_missing_mesh_is_refused(scene, tmp_path):
    (tmp_path / "meshes" / "tetra.obj").unlink()
    with pytest.raises(FileNotFoundError, match=r"tetra.obj of a twin's scene is missing"):
        identity_of(scene)


@pytest.fixture(scope="module")
def pusht(tmp_path_factory):
    """A scene of a world of ours, without pictures drawn."""
    return build_world("pusht-arm", tmp_path_factory.mktemp("scene") / "twin")


def build_world(world, out):
    model = scene_spec(world).compile()
    name = next(model.body(i).name for i in range(1, model.nbody) if model.body_dofnum[i] and model.body(i).name)
    roles = Roles((name,), ())
    camera = looking_at("front", np.array([0.6, 0, 0.6]), np.zeros(3), 16, 16)
    gaussians = carry(model, roles, count=20, rng=np.random.default_rng(0))
    return TwinScene(gaussians, (camera,), roles, world, {"front": np.zeros((16, 16, 3))}).save(out)


def test_a_twin_names_its_scene_by_contents(pusht, tmp_path):
    world = TwinWorld(of=read_world("pusht-arm"), scene=str(pusht))
    before = world.fingerprint()["twin"]["identity"]
    other = shutil.copytree(pusht, tmp_path / "other")
    own = Gaussians.load(other)
    dataclasses.replace(own, opacity=own.opacity * 0.9).save(other)
    now = TwinWorld(of=read_world("pusht-arm"), scene=str(other)).fingerprint()["twin"]["identity"]
    assert first_difference(before, now, "scene")[0] == "scene.gaussians"
    assert TwinWorld(of=read_world("pusht-arm")).fingerprint()["twin"] == "offline"  # as records of before have it


def test_eyes_that_the_scene_does_not_have_are_refused(pusht):
    """Their pictures were drawn and compared with nothing: the twin went uncorrected without a word."""
    world = TwinWorld(of=read_world("pusht-arm"), real=Reality(), scene=str(pusht))
    assert world.cameras_about()[1] == {"front": (16, 16)}
    for eyes in ({"left": (16, 16)}, {"front": (32, 32)}):
        with pytest.raises(ValueError, match="would correct nothing"):
            dataclasses.replace(world, eyes=eyes).cameras_about()
    with pytest.raises(ValueError, match="no camera 'left'; the scene has front"):
        bounds = LoopSettings(trust=Trust(bounds={"left": 0.1}))
        dataclasses.replace(world, loop=bounds).aligner()


def test_the_scene_of_another_task_is_refused_offline_too(pusht):
    with pytest.raises(ValueError, match="was built of pusht-arm; this is a twin of so101-pusht"):
        TwinWorld(of=read_world("so101-pusht"), scene=str(pusht)).fingerprint()


class Told:
    """What `same_scene` asks of a record."""

    def __init__(self, root, world):
        self.root, self.manifest = root, {"world": world}


def test_records_of_two_scenes_are_not_compared():
    ours = Told("truth", {"twin": {"identity": {"gaussians": "a", "cameras": "b"}}})
    theirs = Told("proxy", {"twin": {"identity": {"gaussians": "a", "cameras": "c"}}})
    with pytest.raises(MatchError, match=r"'truth' and 'proxy'.*scene.cameras is b and c"):
        same_scene(ours, theirs)
    same_scene(ours, ours)
    same_scene(ours, Told("simulator", {"task": "pusht"}))  # which has no scene of a twin


def test_a_policy_is_told_of_another_twin_than_its_own(pusht, tmp_path):
    world = TwinWorld(of=read_world("pusht-arm"), scene=str(pusht))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("{}")
    then = json.loads(json.dumps(world.fingerprint(), default=str))
    (run / "begun_with.json").write_text(json.dumps({"dataset": {"world": then}}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", TwinChanged)
        compare_twin(str(run), world)
    then["twin"]["identity"]["physics"] = "another"
    (run / "begun_with.json").write_text(json.dumps({"dataset": {"world": then}}))
    with pytest.warns(TwinChanged, match="physics is not what it was then"):
        compare_twin(str(run), world)


@pytest.mark.parametrize("value, same", [(1 - 1e-12, 1.0), (6.1e-17, 0.0), (-0.0999999999, -0.1), (0.25, 0.25)])
def test_the_rounding_of_another_version_is_no_other_physics(value, same):
    assert _rounded(np.array([value, 2.0])) == _rounded(np.array([same, 2.0]))
    assert _rounded(np.array([value, 2.0])) != _rounded(np.array([same + 1e-3, 2.0]))


ARM = """<mujoco>{option}<worldbody><body name="arm"><joint name="turn"/><geom size=".1"/></body></worldbody>
<actuator><position joint="turn" kp="5" gear="{gear}"/></actuator></mujoco>"""


@pytest.mark.parametrize("what", [{"gear": 2}, {"option": '<option cone="elliptic"/>'}])
def test_a_gear_and_the_contact_model_are_physics(tmp_path, what):
    one, other = tmp_path / "one.xml", tmp_path / "other.xml"
    one.write_text(ARM.format(**{"gear": 1, "option": ""}))
    other.write_text(ARM.format(**({"gear": 1, "option": ""} | what)))
    assert physics_of(str(one)) != physics_of(str(other))


def test_files_are_found_where_mujoco_finds_them(tmp_path):
    """Height fields in the folder of meshes, sides of a cube, a model of its own, an include that comes twice."""
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "part.xml").write_text('<mujoco><asset><mesh file="own.stl"/></asset></mujoco>')
    (tmp_path / "more.xml").write_text('<mujocoinclude><include file="more.xml"/></mujocoinclude>')
    main = tmp_path / "main.xml"
    main.write_text(
        '<mujoco><compiler meshdir="meshes" texturedir="pictures"/><include file="more.xml"/><asset>'
        '<hfield file="hill.png"/><texture fileright="side.png"/><model file="part/part.xml"/></asset></mujoco>'
    )
    found = {str(path.relative_to(tmp_path)) for path in mjcf_files(main)}
    assert found == {
        "main.xml", "more.xml", "meshes/hill.png", "pictures/side.png", "part/part.xml", "part/own.stl"
    }  # fmt: skip
