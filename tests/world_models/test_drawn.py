"""An arm that is drawn lies, pixel for pixel, where the true world shows it; what does not fit is refused by name."""

import dataclasses
from contextlib import closing

import mujoco
import numpy as np
import pytest

from understudy.configs.spec import IMAGES, STATE, Mode
from understudy.configs.world import read_world
from understudy.world_models.drawn import Drawer, DrawnRobot, RobotError, check_angles, check_prints

SIZE = (64, 64)
CAMERAS = ("front", "wrist")


def true_arm(lane, camera):
    """(h, w) bool, the pixels that the true world's arm has in a picture, objects before it left out."""
    import mujoco

    from understudy.sim.rendering import renderer_class

    names = {body.name for body in lane.task.arm.spec().bodies} - {"world"}
    own = [geom for geom in range(lane.model.ngeom) if lane.model.body(lane.model.geom_bodyid[geom]).name in names]
    renderer = renderer_class()(lane.model, *SIZE)
    renderer.enable_segmentation_rendering()
    renderer.update_scene(lane.data, camera)
    seen = renderer.render()
    renderer.close()
    return (seen[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM)) & np.isin(seen[..., 0], own)


@pytest.mark.parametrize("task", ["so101-reach", "so101-pick-place", "so101-pusht"])
def test_the_drawn_arm_lies_where_the_true_one_is_seen(task):
    lane = read_world(task, cameras=dict.fromkeys(CAMERAS, SIZE)).lane()
    with closing(lane), closing(Drawer(DrawnRobot(task=task), CAMERAS, SIZE)) as drawer:
        overlaps, rng = [], np.random.default_rng(0)
        for seed in range(3):
            obs, _ = lane.reset(seed=seed)
            for _ in range(6):
                obs, *_ = lane.step(
                    np.clip(obs[STATE] + rng.uniform(-0.3, 0.3, 6), *np.array(lane.embodiment.limits).T)
                )
            drawing = drawer.draw(obs[STATE])
            for place, camera in enumerate(CAMERAS):
                true, mask = true_arm(lane, camera), drawing.mask[place]
                overlaps.append((true & mask).sum() / (true | mask).sum())
                assert not (true & ~mask).any()  # what hides the arm is not drawn, so the drawn one may only be more
                apart = np.abs(obs[IMAGES + camera].astype(int) - drawing.colour[place])
                assert apart[true & mask].max() <= 2 and 0.02 < drawing.depth[place][mask].min() < 1
        assert min(overlaps) > 0.9 and np.mean(overlaps) >= 0.95


def test_a_drawing_speaks_of_one_frame_and_is_kept():
    with closing(Drawer(DrawnRobot(task="so101-reach"), ("front",), SIZE)) as drawer:
        home = np.array(drawer.arm.home, np.float32)
        one, other = drawer.pixels(np.stack([home, home + 0.3]))
        assert one.shape == (1, *SIZE, 5) and one.dtype == np.uint8
        assert set(np.unique(one[..., 4])) == {0, 1} and not one[one[..., 4] == 0].any()
        assert (one != other).any() and drawer.pixels(home[None])[0] is not one
        assert np.array_equal(drawer.pixels(home[None])[0], one)


def test_what_does_not_fit_is_refused_by_name():
    robot, task = DrawnRobot(task="so101-reach"), DrawnRobot(task="so101-reach").find()
    body = task.embodiment
    robot.check(body)
    swapped = (*body.action[1::-1], *body.action[2:])
    for changes, said in (
        ({"action": swapped}, "'shoulder_lift' where 'shoulder_pan' is"),
        ({"state": swapped}, "the state of 'so101'"),
        ({"action_units": ("deg",) * 6}, "shoulder_pan in deg"),
        ({"state_units": (*("rad",) * 5, "1")}, "gripper in 1"),
        ({"mode": Mode.delta}, "absolute joint targets"),
    ):
        with pytest.raises(RobotError, match=said):
            robot.check(dataclasses.replace(body, **changes))
    with pytest.raises(RobotError, match="are these degrees"):
        check_angles(np.array([[0.1, 0.2], [0.1, 93.0]]), ("a", "b"), "the dataset")
    with pytest.raises(RobotError, match="names no task"):
        DrawnRobot()
    with pytest.raises(RobotError, match="so101-reach"):
        DrawnRobot(task="pusht").find()
    with pytest.raises(RobotError, match="no camera 'top'"):
        Drawer(robot, ("top",), SIZE)


def test_another_arm_camera_or_scene_is_told_from_the_same_one():
    prints = {task: Drawer(DrawnRobot(task=task), CAMERAS, SIZE).prints for task in ("so101-reach", "so101-pusht")}
    same = Drawer(DrawnRobot(task="so101-pick-place"), CAMERAS, SIZE).prints
    assert same == prints["so101-reach"]  # the cube is not drawn
    with pytest.raises(RobotError, match="the arm of"):
        check_prints(prints["so101-reach"], prints["so101-pusht"], "here")  # it holds a stick
    crossed = DrawnRobot(task="so101-reach", cameras={"front": "wrist"}, prints=prints["so101-reach"])
    with pytest.raises(RobotError, match="the camera 'front'"):
        Drawer(crossed, ("front",), SIZE)


@pytest.mark.parametrize("task", ["so101-reach", "so101-pusht"])
def test_one_pass_shows_what_three_do(task):
    """Mask and depth of a camera that stands, beside MuJoCo's own renderings of object numbers and of depth."""
    drawer = Drawer(DrawnRobot(task=task), ("front", "wrist"), (48, 48))
    model, low_high = drawer._model, np.array(drawer.arm.limits).T
    rng, names = np.random.default_rng(0), ("front", "wrist")
    renderer = mujoco.Renderer(model, 48, 48)
    for joints in (np.array(drawer.arm.home), *rng.uniform(0.3 * low_high[0], 0.3 * low_high[1], (8, 6))):
        seen = drawer.draw(joints)
        for place, camera in enumerate(names):
            renderer.update_scene(drawer._data, camera)
            assert np.array_equal(seen.colour[place], renderer.render())
            renderer.enable_segmentation_rendering()
            mask = np.isin(renderer.render()[..., 0], drawer._own)
            renderer.disable_segmentation_rendering()
            assert np.array_equal(seen.mask[place], mask), camera
            renderer.enable_depth_rendering()
            depth = renderer.render()
            renderer.disable_depth_rendering()
            assert np.allclose(seen.depth[place][mask], depth[mask], atol=1e-4) and mask.any()
            assert np.isinf(seen.depth[place][~mask]).all()
    assert set(drawer._bare) == {"front"}  # the wrist's moves
    renderer.close()
    drawer.close()


def test_where_outlines_are_smoothed_depth_alone_does_not_tell_the_arm():
    drawer = Drawer(DrawnRobot(task="so101-reach"), ("front",), (48, 48))
    plain = drawer.draw(np.array(drawer.arm.home)).mask
    smooth = Drawer(DrawnRobot(task="so101-reach"), ("front",), (48, 48))
    smooth._model.vis.quality.offsamples = 4
    seen = smooth.draw(np.array(drawer.arm.home))
    assert not smooth._bare and drawer._bare
    assert np.array_equal(seen.mask, plain) and np.array_equal(np.isfinite(seen.depth), plain)
    drawer.close()
    smooth.close()
