"""Pictures keep the twin where reality is; without pictures the arm is held, and goes on when they are back."""

import numpy as np
import pytest

from understudy.hardware.twin.build import Build, build
from understudy.hardware.twin.env import Reality
from understudy.hardware.twin.live.health import Health, Trust
from understudy.hardware.twin.live.loop import LoopSettings
from understudy.hardware.twin.live.resting import Gap, Ground, along, overcome, standing
from understudy.hardware.twin.reality.faults import Fault
from understudy.hardware.twin.reality.stand_in import Changes

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


def test_what_stands_is_not_lifted(task):
    lane = task.lane()
    lane.reset(seed=START)
    for _ in range(5):
        lane.step(lane.rest())
    body = lane.model.body("t").id
    ground = standing(lane.model, lane.data, body)
    assert np.allclose(ground.up, [0, 0, 1], atol=1e-3)
    weight = 9.81 * lane.model.body_mass[body]
    assert ground.friction == pytest.approx(weight, rel=0.3) and 0.005 < ground.arm < 0.06
    wrench = along(ground.up, np.array([1.0, 2, 3, 4, 5, 6]))
    assert np.allclose(wrench, [1, 2, 0, 0, 0, 6], atol=0.02)
    assert standing(lane.model, lane.data, lane.model.body("gripper").id) is None


def test_friction_is_overcome_along_the_wanted_move():
    ground = Ground(np.array([0.0, 0, 1]), friction=0.3, arm=0.02)
    still, none = np.zeros(3), 0.0
    slide = overcome(ground, Gap(np.array([0.01, 0, 0.5]), still, none))
    assert np.allclose(slide, [0.27, 0, 0, 0, 0, 0])
    turn = overcome(ground, Gap(still, np.array([0, 0, -0.2]), none))
    assert np.allclose(turn, [0, 0, 0, 0, 0, -0.27 * 0.02])
    assert np.linalg.norm(overcome(ground, Gap(np.array([0.01, 0, 0]), still, 0.2))) < 0.01  # it slides already
    assert np.linalg.norm(overcome(ground, Gap(np.array([1e-5, 0, 0]), still, none))) < 0.01  # it is there


def test_what_is_far_off_is_not_believed_at_once():
    health = Health(Trust(jump=0.03, patience=0.5), ("a",), 0.0)
    assert health.believes(0.01, True, 0.0)
    assert not health.believes(0.2, True, 0.1) and not health.astray(0.1)
    assert not health.believes(0.2, False, 0.7) and health.astray(0.7)  # nobody sees it: nothing to pull to
    assert health.believes(0.2, True, 0.8)  # lost, the arm held: pulled to where it is seen
    assert health.believes(0.028, True, 0.9) and health.astray(0.9)
    assert health.believes(0.01, True, 1.0) and not health.astray(1.0)
    assert "not where" in health.warnings[0] and "again" in health.warnings[-1]
