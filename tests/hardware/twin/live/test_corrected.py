"""Pictures keep the twin where reality is; without pictures the arm is held, and goes on when they are back."""

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest

from understudy.configs.spec import IMAGES
from understudy.hardware.envelope import Measured
from understudy.hardware.twin.align import Aligner
from understudy.hardware.twin.build import Build, build
from understudy.hardware.twin.env import Reality
from understudy.hardware.twin.live.health import Health, Trust
from understudy.hardware.twin.live.loop import LoopSettings
from understudy.hardware.twin.live.pull import Supports, obstacles, shift
from understudy.hardware.twin.live.resting import Gap, along, standing
from understudy.hardware.twin.reality.faults import Fault
from understudy.hardware.twin.reality.stand_in import Changes
from understudy.hardware.twin.scene import TwinScene
from understudy.hardware.twin.shadow import Shadow
from understudy.hardware.twin.splatting.views import Photographer

pytest.importorskip("numba", reason="the splats are drawn by it")
START = 100_000


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin") / "scene"
    build(Build(scene="so101-pusht", out=folder, size=(72, 72), gaussians=150, robot_gaussians=80)).save(folder)
    return str(folder)


def test_corrected_it_stays_with_reality(twin, scene):
    """As far apart as both are after pushing, without and with pictures."""
    changes = Changes(fps=30)
    free = twin(real=Reality(changes=changes), correct=False).begin(START)
    held = twin(real=Reality(changes=changes), scene=scene, align={"rate": 30}).begin(START)
    for actor in (free, held):
        actor.act(70)
    away = {name: actor.stage.tracking() for name, actor in (("free", free), ("held", held))}
    assert away["held"].away.mean() < 0.01 and away["held"].turned.mean() < 10
    assert away["held"].away[-20:].mean() < 0.6 * away["free"].away[-20:].mean()


def test_covered_cameras_hold_the_arm(twin, scene):
    cover = [Fault(kind="cover", at=1.0, until=2.0, what=name) for name in ("front", "view1")]
    trust = Trust(settle=20, patience=0.3)
    actor = twin(
        real=Reality(changes=Changes(fps=30, faults=tuple(cover))), scene=scene, loop=LoopSettings(trust=trust)
    ).begin(START)
    ticks = actor.act(75)
    when, held = np.array([tick.time for tick in ticks]), np.array([bool(tick.held) for tick in ticks])
    during = (when > 1.45) & (when < 2.0)
    assert not held[when < 1.2].any() and held[during].all()
    assert not held[when > 2.4].any()  # a few pictures later
    assert np.ptp(np.array([tick.joints for tick in ticks])[during], axis=0).max() < 0.02  # nothing moves
    assert not any(tick.wrench.any() for tick in np.array(ticks, object)[during])
    text = " ".join(actor.stage.loop.warnings)
    assert "'front' is left out" in text and "'view1' corrects again" in text


@pytest.mark.parametrize("kind, says", [("dark", "less than half"), ("frozen", "again and again"), ("late", "s old")])
def test_a_camera_that_gives_nothing_new_is_named_and_the_other_corrects(kind, says, twin, scene):
    """Dark or frozen, its own pictures had set its bound so wide that it was never left out, nor told of."""
    actor = twin(real=Reality(changes=Changes(fps=20)), scene=scene).begin(START)
    real, kept = actor.stage.real, {}
    plain = real.observe

    def observe():
        seen, times = plain()
        key = IMAGES + "front"
        if key in seen:
            first = kept.setdefault("picture", seen[key])
            dark = np.random.default_rng(round(1000 * times[key])).integers(0, 4, first.shape, np.uint8)
            seen[key] = {"dark": dark, "frozen": first, "late": seen[key]}[kind]
            times[key] -= 0.5 if kind == "late" else 0.0
        return seen, times

    real.observe = observe
    ticks = actor.act(45)
    told = [warning for warning in actor.stage.loop.warnings if warning.startswith("camera 'front'")]
    assert len(told) == 1 and says in told[0] and not any(tick.held for tick in ticks)
    assert any("view1" in tick.residual for tick in ticks[-6:])
    assert any("front" in tick.residual for tick in ticks[-6:]) == (kind == "dark")


def test_a_force_ends_with_its_tick(twin, scene):
    """Of cameras slower than the loop, too: twice as long would move four times as far."""
    loop = LoopSettings(grounded=False)
    ticks = twin(real=Reality(changes=Changes(fps=20)), scene=scene, loop=loop).begin(START).act(10)
    pulled = [bool(tick.wrench.any()) for tick in ticks]
    assert any(pulled) and not any(force for force, tick in zip(pulled, ticks, strict=True) if not tick.residual)


def test_what_stands_is_shifted_and_turned_and_not_lifted(task):
    lane = at_rest(task)
    model, data, body = lane.model, lane.data, lane.model.body("t").id
    up = standing(model, data, body)
    assert np.allclose(up, [0, 0, 1], atol=1e-3)
    assert standing(model, data, model.body("gripper").id) is None

    before, speed, old = data.xipos[body].copy(), data.qvel.copy(), data.qpos.copy()
    arm = data.qpos[:6].copy()
    gap = Gap(np.array([0.004, -0.002, 0.05]), np.array([0.3, 0.2, 0.1]))
    shift(model, data, body, up, gap, 0.5, 1.0, [old])
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    assert np.allclose(data.xipos[body] - before, [0.002, -0.001, 0], atol=2e-4)
    assert data.xmat[body][8] > 0.9999 and np.array_equal(data.qvel, speed) and np.array_equal(data.qpos[:6], arm)
    assert np.allclose(old, data.qpos)  # the past too
    assert np.allclose(along(up, np.array([1.0, 2, 3, 4, 5, 6])), [1, 2, 0, 0, 0, 6], atol=0.02)

    far = shift(model, data, body, up, Gap(np.array([1.0, 0, 0]), np.zeros(3)), 1.0, 0.003)
    assert np.allclose(far, [0.003, 0, 0, 0, 0, 0], atol=1e-6)


def test_what_the_arm_touches_is_not_moved_into_it(task):
    """The stick stands against the T; a move towards it is left out, one away from it is made."""
    lane = at_rest(task)
    model, data, body = lane.model, lane.data, lane.model.body("t").id
    stick = model.geom("stick").id
    free = model.body_jntadr[body]
    tip = data.geom_xpos[stick].copy()
    data.qpos[model.jnt_qposadr[free] : model.jnt_qposadr[free] + 3] = tip + [0.0, 0.02, 0.0]
    mujoco.mj_forward(model, data)
    normals = obstacles(model, data, body)
    assert len(normals)
    into, up = normals[0] - normals[0][2] * np.array([0, 0, 1.0]), np.array([0.0, 0, 1])
    into /= np.linalg.norm(into)
    blocked = shift(model, data, body, up, Gap(0.01 * into, np.zeros(3)), 1.0, 1.0)
    assert blocked[:3] @ into < 0.005
    away = shift(model, data, body, up, Gap(-0.01 * into, np.zeros(3)), 1.0, 1.0)
    assert away[:3] @ into == pytest.approx(-0.01, abs=1e-6)


def test_missing_contacts_are_bridged(task):
    lane = at_rest(task)
    body = lane.model.body("t").id
    supports = Supports(lane.model, [body])
    assert body in supports.look(lane.data)
    start = lane.model.jnt_qposadr[lane.model.body_jntadr[body]]
    lane.data.qpos[start + 2] += 0.1
    mujoco.mj_forward(lane.model, lane.data)
    assert body in supports.look(lane.data)
    lane.data.time += 0.3
    assert not supports.look(lane.data)


def test_an_object_that_is_lost_is_told_and_found_again():
    health = Health(Trust(overlap=0.3, patience=0.5), ("a",), 0.0)
    health.finds(0.7, True, 0.0)
    health.finds(0.2, True, 0.1)
    assert not health.astray(0.1)
    health.finds(0.7, False, 0.7)  # nobody sees it
    assert health.astray(0.7)
    health.finds(0.35, True, 0.8)
    assert health.astray(0.8)  # not surely enough
    health.finds(0.5, True, 0.9)
    assert not health.astray(2.0)
    assert "not where" in health.warnings[0] and "again" in health.warnings[-1]


def test_overlap_tells_a_lost_object_and_far_turns_are_found(twin, scene):
    actor = twin(real=Reality(changes=Changes(fps=30)), scene=scene, align={"rate": 30}).begin(START)
    actor.act(3)
    loop, body = actor.stage.loop, actor.stage.lane.model.body("t").id
    data, found = actor.stage.lane.data, []
    truth = data.xmat[body].reshape(3, 3).copy()
    for angle in (0, 60):
        turn = Gap(np.zeros(3), np.array([0, 0, np.deg2rad(angle)]))
        shift(loop.model, data, body, np.array([0, 0, 1.0]), turn, 1, 1)
        mujoco.mj_forward(loop.model, data)
        seen, _ = loop.real.observe()
        pictures = {key.removeprefix(IMAGES): value for key, value in seen.items() if key.startswith(IMAGES)}
        found.append(loop.aligner.correct(loop.model, data, pictures, supports={body: np.array([0, 0, 1.0])}))
    row = found[0].ids.tolist().index(body)
    assert found[0].overlap[row] > 0.5 > found[1].overlap[row]
    for one in found:
        turn = one.pose[row][:3, :3] @ truth.T
        assert abs(np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))) < 15 and turn[2, 2] > 0.999


def test_a_shadow_moves_what_stands_along_the_table_and_once(task, scene):
    """By a share of what pictures of another place want, with no force that would act longer than a look."""
    built = TwinScene.load(Path(scene))
    shadow = Shadow(task, 60.0, aligner=Aligner.of(built), start=START)
    home = Measured(position=shadow.data.qpos[shadow.joints.qpos].copy(), time=0.0)
    for step in range(20):
        shadow.check(home.position, dataclasses.replace(home, time=step / 60))
    body, model = shadow.model.body("t").id, built.spec().compile()
    real = mujoco.MjData(model)
    real.qpos[:] = shadow.data.qpos
    real.qpos[model.jnt_qposadr[model.body_jntadr[body]]] += 0.01
    mujoco.mj_forward(model, real)
    with Photographer(model, built.cameras) as photographer:
        images = {camera.name: photographer.picture(real, camera.name) for camera in built.cameras}
    place = model.jnt_qposadr[model.body_jntadr[body]]
    before = shadow.data.qpos[place : place + 3].copy()
    assert shadow.look(images, dict.fromkeys(images, 19 / 60))
    moved = shadow.data.qpos[place : place + 3] - before
    assert 0.1 < moved[0] / 0.01 < 0.6 and np.abs(moved[1:]).max() < 0.1 * moved[0], moved
    assert not shadow._wrench.any()


def at_rest(task):
    """A lane a few steps after its start."""
    lane = task.lane()
    lane.reset(seed=START)
    for _ in range(5):
        lane.step(lane.rest())
    return lane
