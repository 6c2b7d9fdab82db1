"""Scenes: who is what, Gaussians on bodies, cameras of MuJoCo's, and what is refused."""

import dataclasses

import mujoco
import numpy as np
import pytest

from understudy.hardware.twin.bodies import Roles, carry, find_roles
from understudy.hardware.twin.build import Build, build, warnings_of
from understudy.hardware.twin.calibration.calibrate import Lens
from understudy.hardware.twin.gaussians import read_cameras, write_cameras
from understudy.hardware.twin.scene import TwinScene, put_cameras, scene_spec, write_picture
from understudy.hardware.twin.splatting.surfaces import inside, sample_body
from understudy.hardware.twin.splatting.views import Photographer, add_camera, camera_of, looking_at

SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 2"/>
    <geom type="plane" size="1 1 .1" rgba=".8 .8 .8 1"/>
    <body name="can" pos="0 0 .05">
      <freejoint/>
      <geom name="round" type="cylinder" size=".03 .05" rgba=".8 .2 .1 1"/>
      <geom name="inner" type="box" size=".01 .01 .02" rgba="0 0 1 1"/>
      <geom name="lid" type="sphere" pos="0 0 .05" size=".02" rgba=".1 .6 .2 1"/>
    </body>
    <body name="rail" pos=".2 0 .1">
      <geom type="capsule" size=".01 .05"/>
      <body name="cart"><joint name="slide" type="slide"/><geom type="box" size=".02 .02 .02"/></body>
    </body>
    <body name="hand" mocap="true" pos="-.2 0 .1"><geom type="ellipsoid" size=".02 .03 .01"/></body>
    <body name="wall" pos="0 .4 .1"><geom type="box" size=".2 .01 .1"/></body>
  </worldbody>
  <actuator><position joint="slide" kp="10"/></actuator>
</mujoco>
"""


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(SCENE)


def test_roles_are_found_and_refused(model):
    roles = find_roles(model)
    assert roles.objects == ("can",) and set(roles.robot) == {"rail", "cart", "hand"}
    with pytest.raises(LookupError, match="no body 'tin'. It has: can, rail, cart, hand, wall"):
        find_roles(model, objects=("tin",))
    with pytest.raises(ValueError, match="'wall' cannot move"):
        find_roles(model, objects=("wall",))
    with pytest.raises(ValueError, match="no object"):
        find_roles(mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size="1"/></worldbody></mujoco>'))


def test_samples_lie_on_the_surface_and_not_inside(model):
    body = model.body("can").id
    samples = sample_body(model, body, 150, np.random.default_rng(0))
    round_, lid = model.geom("round").id, model.geom("lid").id
    assert 120 <= len(samples.points) <= 150
    assert not (inside(model, round_, samples.points, 1e-3) | inside(model, lid, samples.points, 1e-3)).any()
    assert (inside(model, round_, samples.points, -1e-3) | inside(model, lid, samples.points, -1e-3)).all()
    assert samples.colours[:, 2].max() < 0.3  # nothing of the blue box within
    side = np.abs(samples.points[:, 2]) < 0.04
    outward = samples.points[side, :2] / np.linalg.norm(samples.points[side, :2], axis=1, keepdims=True)
    assert ((samples.normals[side, :2] * outward).sum(1) > 0.98).all()
    area = 2 * np.pi * 0.03 * 0.1 + 2 * np.pi * 0.03**2 + 2 * np.pi * 0.02**2 - np.pi * 0.02**2
    assert samples.area == pytest.approx(area, rel=0.05)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (9.0, -6.0)])
def test_mujoco_draws_what_our_camera_projects(shift):
    camera = looking_at("c", np.array([0.5, -0.3, 0.6]), np.zeros(3), 160, 120)
    K = camera.K.copy()
    K[:2, 2] += shift
    camera = dataclasses.replace(camera, K=K)
    spec = mujoco.MjSpec.from_string(SCENE)
    add_camera(spec, camera)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    back = camera_of(model, data, "c", 160, 120)
    np.testing.assert_allclose(back.K, camera.K, atol=1e-4)
    np.testing.assert_allclose(back.world_from_camera, camera.world_from_camera, atol=1e-9)
    with Photographer(model, [camera]) as photographer:
        rows, columns = np.nonzero(photographer.bodies(data, "c") == model.body("hand").id)
        seen = camera.project(data.xpos[model.body("hand").id])
        assert [columns.mean(), rows.mean()] == pytest.approx(seen[:2], abs=0.3)
        gone = photographer.without(data, "c", [model.body("hand").id])
        assert (gone != photographer.picture(data, "c")).any(-1)[rows, columns].mean() > 0.9
        assert model.geom_rgba[:, 3].min() > 0  # and it is back


def test_build_save_load(tmp_path, model):
    path = tmp_path / "scene.xml"
    path.write_text(SCENE)
    settings = Build(scene=str(path), size=(48, 64), gaussians=80, robot_gaussians=60, distance=0.7)
    scene = build(settings)
    assert len(scene.cameras) == 2 and scene.backgrounds["view0"].shape == (48, 64, 3)
    overlaps = [check["overlap"]["can"] for check in scene.checks.values()]
    assert min(overlaps) > 0.7
    plain = build(dataclasses.replace(settings, fit=False))
    assert max(check["colour"] for check in scene.checks.values()) < min(c["colour"] for c in plain.checks.values())

    scene.save(tmp_path / "twin")
    loaded = TwinScene.load(tmp_path / "twin")
    assert loaded.roles == scene.roles and loaded.checks == scene.checks
    np.testing.assert_array_equal(loaded.gaussians.mean, scene.gaussians.mean)
    np.testing.assert_allclose(loaded.backgrounds["view1"], scene.backgrounds["view1"], atol=1 / 255)
    loaded.spec().compile()

    path.write_text(SCENE.replace(".03 .05", ".03 .06"))
    with pytest.raises(ValueError, match="has changed since"):
        TwinScene.load(tmp_path / "twin")


def test_build_refuses(tmp_path):
    with pytest.raises(ValueError, match="which scene"):
        Build()
    with pytest.raises(LookupError, match="pusht-mujok"):
        scene_spec("pusht-mujok")
    with pytest.raises(FileNotFoundError, match="no MJCF file"):
        scene_spec(str(tmp_path / "none.xml"))
    broken = tmp_path / "broken.xml"
    broken.write_text("<mujoco><worldbody><geom/></worldbody>")
    with pytest.raises(ValueError, match="MuJoCo cannot read"):
        scene_spec(str(broken))
    path = tmp_path / "scene.xml"
    path.write_text(SCENE)
    with pytest.raises(LookupError, match="no camera 'top'"):
        build(Build(scene=str(path), cameras=("top",)))
    write_picture(tmp_path / "wide.png", np.zeros((10, 40, 3)))
    few = {"gaussians": 20, "robot_gaussians": 20, "fit": False, "size": (16, 16)}
    with pytest.raises(ValueError, match="wide.png is 40 x 10, of another shape"):
        build(Build(scene=str(path), backgrounds={"view0": tmp_path / "wide.png"}, **few))
    with pytest.raises(LookupError, match="a background for 'top'"):
        build(Build(scene=str(path), backgrounds={"top": tmp_path / "wide.png"}, **few))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something else"):
        build(Build(scene=str(path), **few)).save(tmp_path / "full")


def test_an_object_that_nobody_sees_is_refused():
    text = SCENE.replace('size=".03 .05"', 'size=".03 .05" group="4"').replace('rgba="0 0 1 1"', 'group="4"')
    model = mujoco.MjModel.from_xml_string(text.replace('size=".02" rgba', 'size=".02" group="4" rgba'))
    with pytest.raises(ValueError, match="'can' has no shape"):
        carry(model, find_roles(model), count=20, rng=np.random.default_rng(0))


HIDDEN = """
<mujoco>
  <worldbody>
    <light pos="0 0 2"/>
    <geom type="plane" size="1 1 .1" rgba=".8 .8 .8 1"/>
    <body name="can" pos="0 0 .03"><freejoint/><geom type="box" size=".02 .02 .03" rgba=".8 .2 .1 1"/></body>
    <body name="arm" pos="{x} 0 .1">
      <joint name="slide" type="slide" axis="0 1 0" range="-.02 .02" limited="true"/>
      <geom type="box" size=".005 .3 .1"/>
    </body>
  </worldbody>
  <actuator><position joint="slide" kp="10"/></actuator>
</mujoco>
"""


@pytest.mark.parametrize("x", [0.05, -0.05])
def test_made_cameras_stand_where_the_robot_does_not_hide_the_objects(x, tmp_path):
    path = tmp_path / "hidden.xml"
    path.write_text(HIDDEN.format(x=x))
    settings = Build(scene=str(path), gaussians=20, robot_gaussians=20, fit=False, size=(64, 64))
    cameras = build(settings).cameras
    assert [camera.name for camera in cameras] == ["view0", "view1"]
    spec = scene_spec(str(path))
    put_cameras(spec, cameras)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    can, plate = model.body("can").id, model.body("arm").id
    with Photographer(model, cameras) as photographer:
        for camera in cameras:
            seen, whole = (photographer.bodies(data, camera.name, without=some) == can for some in ((), (plate,)))
            assert seen.sum() > 0.9 * whole.sum() > 10
    ways = np.array([camera.world_from_camera[:3, 2] for camera in cameras])
    assert ways[0] @ ways[1] < 0.8  # not from one side


RIDING = """
<mujoco>
  <worldbody>
    <geom type="plane" size="1 1 .1"/>
    <body name="can" pos="0 0 .03"><freejoint/><geom type="box" size=".02 .02 .03"/></body>
    <body name="tin" pos="0 .2 .03"><freejoint/><geom type="box" size=".02 .02 .03"/></body>
    <body name="base" pos=".3 0 .1">
      <geom type="box" size=".02 .02 .02"/>
      <body name="cart"><joint name="slide" type="slide"/><geom type="box" size=".02 .02 .02"/>
        <camera name="wrist" pos="0 0 .5"/></body>
    </body>
  </worldbody>
  <actuator><position joint="slide" kp="10"/></actuator>
</mujoco>
"""


@pytest.fixture
def riding(tmp_path):
    path = tmp_path / "riding.xml"
    path.write_text(RIDING)
    return str(path)


def test_a_camera_that_rides_on_the_arm_is_refused(riding):
    """It was taken for one that stands where it began."""
    with pytest.raises(ValueError, match="'wrist' rides on cart"):
        build(Build(scene=riding, cameras=("wrist",)))
    for ignored in ({"views": 3}, {"distance": 1.0}):
        with pytest.raises(ValueError, match="of cameras that are made"):
            Build(scene=riding, cameras=("wrist",), **ignored)


def test_a_folder_of_something_else_is_refused_before_the_work(riding, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    monkeypatch.setattr("understudy.hardware.twin.build.build", lambda settings: pytest.fail("it was built"))
    for out in ("full", "full/notes.txt"):
        with pytest.raises(FileExistsError, match="something else"):
            Build(scene=riding, out=tmp_path / out).run()


@pytest.mark.parametrize("distortion, bends", [([0.0] * 5, False), ([-0.3, 0.1, 0, 0, 0], True)])
def test_what_would_shift_every_correction_is_told(riding, tmp_path, distortion, bends):
    """Objects that are left out, a base elsewhere than calibrated cameras count from, a lens that bends."""
    model = scene_spec(riding).compile()
    gaussians = carry(model, Roles(("can",), ("cart",)), count=20, rng=np.random.default_rng(0))
    camera = looking_at("front", np.array([0.6, 0, 0.6]), np.zeros(3), 64, 48)
    scene = TwinScene(gaussians, (camera,), Roles(("can",), ("cart",)), riding, {"front": np.zeros((48, 64, 3))})
    assert [line.partition(" ")[0] for line in warnings_of(Build(scene=riding), scene)] == ["tin"]
    Lens(640, 480, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), np.array(distortion), 0.1).write(tmp_path)
    told = "\n".join(warnings_of(Build(scene=riding, calibration=tmp_path), scene))
    assert "base is at 0.300, 0.000, 0.100 m" in told and ("undistorted" in told) == bends


def test_a_list_of_cameras_with_a_name_twice_or_none_is_refused(tmp_path):
    camera = looking_at("front", np.array([0.6, 0, 0.6]), np.zeros(3), 16, 16)
    for cameras, says in (((camera, camera), "two cameras 'front'"), ((), "no camera")):
        write_cameras(tmp_path, cameras)
        with pytest.raises(ValueError, match=says):
            read_cameras(tmp_path)
