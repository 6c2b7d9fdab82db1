"""A stand-in is other than the twin's world, the same again by its seed, and late as it says."""

import dataclasses
import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from understudy.hardware.twin.env import Reality
from understudy.hardware.twin.reality import stand_in
from understudy.hardware.twin.reality.faults import Fault
from understudy.hardware.twin.reality.layout import default_views
from understudy.hardware.twin.reality.remote import _Living
from understudy.hardware.twin.reality.stand_in import SAME, Changes, StandIn
from understudy.hardware.twin.splatting.views import camera_of, looking_at

EYES = {"left": (48, 48), "right": (48, 48)}


@pytest.fixture(scope="module")
def make(task):
    views = default_views(task.find())
    made = []

    def opened(changes=SAME, cameras=EYES, seed=0):
        made.append(StandIn(task, changes, cameras, views, seed=seed))
        return made[-1]

    yield opened
    for one in made:
        one.disconnect()


def lived(real, start, seconds=0.3):
    """Joint positions and the last pictures after a swing."""
    real.begin(start)
    home = real.get_observation()["observation.state"]
    for tick in range(round(60 * seconds)):
        real.send_action(home + 0.1 * np.sin(tick / 6))
        real.advance(1 / 60)
    return real.observe()


def test_equal_seeds_are_equal(make):
    one, two = make(Changes(fps=20)), make(Changes(fps=20))
    lived(one, 5)  # what was before does not count
    (first, when), (second, then) = lived(one, 3), lived(two, 3)
    assert when == then and all(np.array_equal(first[key], second[key]) for key in first)
    other = lived(make(Changes(fps=20), seed=1), 3)[0]
    assert np.array_equal(first["observation.state"], other["observation.state"])
    assert not np.array_equal(first["observation.images.left"], other["observation.images.left"])


def test_changes_are_felt_and_seen(make, task):
    changes = Changes(friction=1.5, mass=2.0, damping=0.5, noise=0.0, distractors=0)
    real, plain = make(changes), make()
    block, lane = real.model.body("t").id, task.lane()
    assert np.isclose(real.model.body_mass[block], 2 * lane.model.body_mass[block])
    assert np.isclose(real.model.geom("table").friction[0], 1.5 * lane.model.geom("table").friction[0])
    real.begin(2), plain.begin(2)
    assert np.array_equal(real.data.qpos, plain.data.qpos)  # starts mean the same
    for one in (real, plain):
        one.advance(0.05)
    seen, clean = (one.get_observation()["observation.images.left"].mean((0, 1)) for one in (real, plain))
    wanted = np.clip(clean * changes.gain + changes.offset, 0, 255)
    assert np.abs(seen - wanted).max() < 4 and np.abs(seen - clean).max() > 4


def test_latency_is_as_told(make):
    real = make(Changes(command_delay=0.05, camera_delay=0.05, fps=30, noise=0, distractors=0))
    real.begin(0)
    home = real.get_observation()["observation.state"].astype(float)
    real.send_action(home + 0.2)
    real.advance(0.045)
    assert np.abs(real.observe()[0]["observation.state"] - home).max() < 0.02
    real.advance(0.1)
    found, times = real.observe()
    assert np.abs(found["observation.state"] - home).max() > 0.05
    assert 0.05 <= real.time - times["observation.images.left"] <= 0.05 + 1 / 30 + 0.01


def test_faults_come_and_go(make, task):
    faults = (
        Fault(kind="cover", at=0.1, until=0.2, what="left"),
        Fault(kind="remove", at=0.3, until=0.4),
        Fault(kind="loss", at=0.5, until=0.6),
    )
    real, pictures, times = make(Changes(fps=30, noise=0, distractors=0, faults=faults)), {}, {}
    real.begin(1)
    for tick in range(45):
        real.advance(1 / 60)
        found, when = real.observe()
        pictures[tick] = {name: found.get(f"observation.images.{name}") for name in EYES}
        times[tick] = when["observation.state"]

    covered, free, gone = pictures[10], pictures[16], pictures[22]
    assert np.ptp(covered["left"].reshape(-1, 3), axis=0).max() == 0 and np.ptp(covered["right"]) > 50
    assert np.ptp(free["left"]) > 50
    assert np.abs(gone["left"].astype(int) - free["left"]).max() > 60  # the block is not there
    assert np.abs(pictures[28]["left"].astype(int) - free["left"]).max() < 25  # and there again
    assert times[34] == times[31] and times[40] > times[34]  # nothing was heard meanwhile


def test_it_looks_through_the_cameras_of_a_scene(task):
    """Also where they are rolled or their middle is not the picture's."""
    camera = looking_at("left", np.array([0.5, -0.3, 0.4]), np.array([0.2, 0, 0]), 64, 48)
    roll, K = np.eye(4), camera.K.copy()
    roll[:3, :3] = Rotation.from_rotvec([0, 0, 0.4]).as_matrix()
    K[:2, 2] += 5, -3
    camera = dataclasses.replace(camera, K=K, world_from_camera=camera.world_from_camera @ roll)
    real = StandIn(task, SAME, {"left": (48, 64)}, {"left": camera})
    try:
        real.begin(2)
        real.advance(0.02)
        place = camera_of(real.model, real.data, "left", 64, 48)
        assert np.allclose(place.K, camera.K, atol=1e-3)
        assert np.allclose(place.world_from_camera, camera.world_from_camera, atol=1e-6)
    finally:
        real.disconnect()


def test_what_was_before_a_slip_of_the_clock_stays_where_it_was(task):
    living = _Living(task, SAME, {}, {}, 60.0, 0)
    for _ in range(20):
        living.live()
        time.sleep(0.003)
    before = living.history()[0]
    for seconds in (0.3, 0.01):  # a busy machine
        time.sleep(seconds)
        living.live()
    after = living.history()[0]
    assert np.allclose(after[: len(before)], before) and after[-1] - before[-1] > 0.2


def test_pictures_drawn_beside_are_those_drawn_at_once(task):
    """In a thread of its own, and what is exposed meanwhile is left out, as a camera drops frames."""
    changes, views = Changes(fps=20, faults=(Fault(kind="remove", at=0.1),)), default_views(task.find())
    at_once, beside = (StandIn(task, changes, EYES, views, seed=3, apart=apart) for apart in (False, True))
    for real in (at_once, beside):
        real.begin(4)
    compared = 0
    for _ in range(12):
        for real in (at_once, beside):
            real.advance(0.05)
        beside._studio.finish()
        (wanted, when), (found, then) = at_once.observe(), beside.observe()
        compared += when == then and "observation.images.left" in found
        assert when == then and all(np.array_equal(found[key], wanted[key]) for key in wanted)
    assert compared > 5
    for real in (at_once, beside, beside, at_once):
        real.disconnect()


def test_tracking_leaves_out_what_a_stand_in_forgot(twin, monkeypatch):
    monkeypatch.setattr(stand_in, "PAST", 20)
    actor = twin(real=Reality(), correct=False).begin(2)
    ticks = actor.act(20)
    found = actor.stage.tracking()
    assert len(found.time) == 20 and np.isclose(found.time[0], ticks[-20].time)


def test_refusals(task):
    with pytest.raises(ValueError, match="friction"):
        Changes(friction=0)
    with pytest.raises(LookupError, match="latency"):
        Fault(kind="rain", at=0)
    with pytest.raises(ValueError, match="later"):
        Fault(kind="cover", at=2, until=1)
