"""Points in space as a fixed camera of a task sees them, beside what it draws."""

import dataclasses

import mujoco
import numpy as np
import pytest
import torch

from understudy.configs.spec import IMAGES, SCENE, STATE, Embodiment, Mode
from understudy.configs.world import read_world
from understudy.policies.data.decode import middle_of
from understudy.policies.data.open import open_dataset
from understudy.policies.policy import Scales
from understudy.sim.task import TASKS
from understudy.world_models.blocks import PictureMap
from understudy.world_models.cameras import check_points, check_targets, in_picture, looked_up, projection
from understudy.world_models.codec import CodecConfig, CodecModelConfig

BALL = PictureMap(take=(0, 1, 2), task="so101-reach")
SIZES = {"front": (48, 64), "wrist": (48, 64)}


@pytest.mark.parametrize("read", [(48, 64), (24, 32), (48, 48), (40, 80)])
def test_a_ball_is_where_its_projection_says(read):
    """Also where pictures are read at other proportions: then their middle is cut out, and places moved outwards."""
    lane = read_world({"type": "mujoco", "task": "so101-reach", "cameras": {"front": list(SIZES["front"])}}).lane()
    one = looked_up(BALL, ("front",), SIZES, read)
    off, (top, left, tall, wide) = [], middle_of(SIZES["front"], read)
    for seed in range(1000, 1008):
        obs, _ = lane.reset(seed=seed)
        picture = obs[IMAGES + "front"].astype(int)
        rows, columns = np.nonzero((picture[..., 0] - picture[..., 1:].max(-1)) > 50)
        assert len(rows)
        rows, columns = (rows + 0.5 - top) / tall, (columns + 0.5 - left) / wide  # of what `fit` leaves
        place = one.places(torch.from_numpy(np.asarray(obs[SCENE], np.float32)))
        assert place.shape == (1, 2)
        told = (place[0].numpy() + 1) / 2 - [columns.mean(), rows.mean()]
        off.append(told * [wide, tall])
    assert np.abs(off).max() < 1.0  # px; a ball is three wide


@pytest.mark.parametrize(
    "task, camera, said",
    [
        ("so101-reach", "wrist", "'wrist' of so101-reach moves"),
        ("so101-reach", "top", "no camera 'top' .it has front, wrist"),
        ("pusht-mujoco", "image", "orthographic.*give `low` and `high`"),
        ("so101-nothing", "front", "no task 'so101-nothing'.*so101-reach"),
    ],
)
def test_a_camera_in_whose_pictures_points_have_no_place_is_refused(task, camera, said):
    with pytest.raises(ValueError, match=said):
        projection(task, camera, (64, 64), (64, 64))


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"take": (0, 1), "task": "so101-reach"}, "threes of dimensions"),
        ({"take": (0, 1, 2)}, "pairs of dimensions"),
        ({"take": (0, 1, 2), "task": "so101-pusht", "height": 0.01}, "pairs of dimensions"),
        ({"height": 0.01}, "0.01 m high names no `task`"),
        ({"points": ((0, 0),), "task": "so101-pusht", "take": (0, 1, 2, 3)}, "lies on a plane; say its `height`"),
        ({"points": ((0, 0),), "task": "so101-pusht", "height": 0, "take": (0, 1)}, "fours of dimensions"),
        ({"view": "front"}, "names no `task`"),
        ({"take": (0, 1, 2), "task": "so101-reach", "high": (512, 512)}, "no use for `low` and `high`"),
        ({"projection": (1.0,) * 12}, "`projection` is filled in"),
        ({"take": (0, 1, 2), "task": "so101-reach", "projection": (1.0, 2.0)}, "`projection` is filled in"),
    ],
)
def test_maps_that_mean_nothing_are_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        PictureMap(**keys)


def test_points_on_a_plane_are_points_in_space_of_one_height():
    flat = looked_up(PictureMap(task="so101-reach", height=0.05), ("front",), SIZES, (48, 64))
    places = torch.tensor([[0.2, 0.1], [0.15, -0.05]])
    whole = torch.cat([places, torch.full((2, 1), 0.05)], 1)
    assert flat.count == 1 and torch.equal(
        flat.places(places), looked_up(BALL, ("front",), SIZES, (48, 64)).places(whole)
    )
    with pytest.raises(ValueError, match="sees points in m; a vector has x in px"):
        check_points(flat, ("x", "y"), ("px", "m"), "a vector")


def test_points_of_a_thing_turn_with_it():
    """Of the T on its table, beside where the world itself has its corners."""
    lane = read_world({"type": "mujoco", "task": "so101-pusht"}).lane()
    corners = ((-0.03, 0.0), (0.03, 0.0), (0.0, -0.06))
    one = PictureMap(take=(0, 1, 2, 3), task="so101-pusht", height=0.016, points=corners)
    space = PictureMap(take=(0, 1, 2), task="so101-pusht")
    one, space = (looked_up(each, ("front",), SIZES, (48, 64)) for each in (one, space))
    assert one.count == 3 and one.metres == (0, 1)
    for seed in range(4):
        obs, _ = lane.reset(seed=seed)
        places = one.places(torch.from_numpy(np.asarray(obs[SCENE], np.float32)))
        body = lane.data.body("t")
        true = np.array([body.xpos + body.xmat.reshape(3, 3) @ [*corner, 0.008] for corner in corners])
        assert torch.allclose(places, space.places(torch.tensor(true, dtype=torch.float32))[:, 0], atol=1e-3)
    lane.close()
    check_points(one, ("x", "y", "c", "s"), ("m", "m", "1", "1"), "a vector")
    two = torch.tensor([[0.2, 0.0, 1.0, 0.0, 0.25, 0.1, 0.0, 2.0]] * 5)  # a turn need not be of unit length
    pair = dataclasses.replace(one, take=tuple(range(8)))
    assert pair.places(two).shape == (5, 6, 2)
    assert torch.allclose(pair.places(two)[:, 3:], one.places(torch.tensor([[0.25, 0.1, 0.0, 1.0]] * 5)))


def test_the_camera_of_the_data_may_have_another_name():
    one = PictureMap(take=(0, 1, 2), task="so101-reach", camera=1, view="front")
    found = looked_up(one, ("wrist", "scene"), {"scene": (48, 64)}, (48, 48))
    assert found.projection == projection("so101-reach", "front", (48, 64), (48, 48))


def test_a_map_is_of_the_camera_that_it_was_made_for():
    one = looked_up(BALL, ("front",), SIZES, (48, 64))
    assert looked_up(one, ("front",), SIZES, (96, 128)) == one
    for recorded, read in (((64, 64), (64, 64)), ((48, 64), (64, 64))):  # the picture has other borders
        with pytest.raises(ValueError, match="not where it was"):
            looked_up(one, ("front",), {"front": recorded}, read)
    with pytest.raises(ValueError, match="names camera 2; there are 1: front"):
        looked_up(PictureMap(camera=2), ("front",), SIZES, (48, 64))
    with pytest.raises(ValueError, match="nobody has looked up"):
        BALL.places(torch.zeros(1, 3))


class Roped:
    """A task whose cameras stand otherwise than they seem to."""

    def scene(self):
        spec = mujoco.MjSpec()
        body = spec.worldbody.add_body(name="thing")
        body.add_freejoint()
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0])
        hand = spec.worldbody.add_body(name="hand", mocap=True)
        hand.add_body(name="finger").add_camera(name="held")
        spec.worldbody.add_camera(name="turning", mode=mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY, targetbody="thing")
        spec.worldbody.add_camera(
            name="measured", resolution=[64, 48], focal_pixel=[60, 60], sensor_size=[0.006, 0.004]
        )
        return spec


@pytest.mark.parametrize(
    "camera, said", [("held", "'held' of .* moves"), ("turning", "'turning' of .* moves"), ("measured", "by a sensor")]
)
def test_a_camera_that_only_seems_to_stand_is_refused(monkeypatch, camera, said):
    """It was taken to stand where the scene has it, and to see by a field of view that it does not have."""
    monkeypatch.setitem(TASKS, "roped", Roped)
    with pytest.raises(ValueError, match=said):
        projection("roped", camera, (48, 64), (48, 64))


def body(unit: str = "m", **changes) -> Embodiment:
    whole = {"action": ("x", "y", "z"), "action_units": (unit,) * 3, "limits": ((-1.0, 1.0),) * 3, "rate": 10.0}
    return Embodiment(**whole | changes)


@pytest.mark.parametrize(
    "one, said",
    [
        (body("mm"), "sees points in m; an action has x in mm, y in mm, z in mm. Convert"),
        (body(mode=Mode.delta), "sees places; actions of 'unnamed' are delta"),
        (body(frame="base"), "sees places in the world; actions of 'unnamed' are in base"),
    ],
)
def test_numbers_that_are_no_points_in_the_world_are_refused(one, said):
    with pytest.raises(ValueError, match=said):
        check_targets(BALL, one)
    check_targets(PictureMap(), one)  # of the picture itself these may be places
    for known in (body(), body("?")):
        check_targets(BALL, known)
    with pytest.raises(ValueError, match="has 2 numbers"):
        check_points(BALL, ("x", "y"), ("m", "m"), SCENE)


def test_places_that_are_hardly_ever_in_the_picture_are_refused():
    """Millimetres, or another frame: all would be learnt at the border, without a word."""
    lane = read_world({"type": "mujoco", "task": "so101-reach"}).lane()
    balls = np.stack([lane.reset(seed=seed)[0][SCENE] for seed in range(1000, 1020)])
    one = looked_up(BALL, ("front",), SIZES, (48, 64))
    assert in_picture(one, balls, "front", "a map") == "a map: 100 % of the recorded places lie in the picture of front"
    for wrong in (1000 * balls, 100 * balls, balls + [1.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="picture of front; are they in m, in the frame of so101-reach"):
            in_picture(one, wrong, "front", "a map")
    with pytest.raises(ValueError, match="0 % of .*; are `low` and `high` its corners"):
        in_picture(PictureMap(), np.full((5, 2), 300.0), "top", "a map")


def test_maps_of_states_that_nobody_reads_are_said_or_refused(dots_data):
    dataset = open_dataset(dots_data)
    with pytest.raises(ValueError, match="state_maps names 'observation.sate', which is no state vector"):
        CodecConfig(state_maps={"observation.sate": PictureMap()}).settle(dataset)
    settled = CodecConfig(size=(32, 32), state_maps={SCENE: BALL, STATE: PictureMap(high=(100, 100))}).settle(dataset)
    assert settled.states == (STATE,) and not settled.state_maps[SCENE].projection
    scales = Scales(action=((0.0,) * 2, (1.0,) * 2), states={STATE: ((50.0,) * 2,) * 2})
    model = CodecModelConfig(codec=settled).build(dataset.embodiment, scales)
    story = model.begin(dataset, np.arange(2))
    assert "state map of observation.environment_state: left out" in story[1] and "100 % of" in story[2]
