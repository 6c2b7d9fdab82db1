"""Friction, damping and mass of a stand-in, found again from what it does when it is pushed."""

import numpy as np
import pytest
import yaml

from understudy.__main__ import main
from understudy.configs.world import read_world
from understudy.hardware.twin.calibration.identify import Fit, Push, identify, read_pushes, write_pushes
from understudy.hardware.twin.reality.stand_in import SAME, Changes, StandIn

TRUTH = {"friction": 1.4, "damping": 0.7, "mass": 1.3}
RATE, STEPS = 60, 60


def world():
    return read_world({"type": "pusht_mujoco", "damping": 20.0, "friction": 0.3})


def pushed(count, seed=0):
    """Straight pushes past the middle of the block, that end at once, so that it slides on; measured to 0.3 mm."""
    real, rng = StandIn(world(), Changes(**TRUTH, fps=10), {}, {}), np.random.default_rng(seed)
    pushes = []
    for start in range(count):
        real.begin(start)
        angle = rng.uniform(-np.pi, np.pi)
        way = np.array([np.cos(angle), np.sin(angle)])
        begin = real.data.qpos[:2] - 0.1 * way + rng.uniform(-0.03, 0.03) * np.array([-way[1], way[0]])
        real.data.qpos[3:5] = begin
        rows = [real.data.qpos.copy()]
        for step in range(1, STEPS + 1):
            real.send_action(begin + way * min(0.5 * step / RATE, 0.13))
            real.advance(1 / RATE)
            rows.append(real.data.qpos.copy())
        noise = rng.normal(0, 3e-4, (len(rows), 5))
        pushes.append(Push(np.arange(len(rows)) / RATE, np.array(rows) + noise))
    return pushes


@pytest.fixture(scope="module")
def pushes():
    return pushed(8)


def test_the_truth_is_in_the_intervals(pushes):
    found = identify(world(), pushes)
    for one in found.estimates:
        assert one.low < TRUTH[one.name] < one.high, one
        assert one.seen and one.high / one.low < 1.6, one
        assert min(one.repeats) / 1.5 < one.factor < max(one.repeats) * 1.5
    assert found.after < 0.6 * found.before


def test_what_pushes_do_not_tell_is_said():
    """Without contact friction in the scene, no factor of it changes anything."""
    clear = read_world({"type": "pusht_mujoco", "damping": 20.0})
    real = StandIn(clear, SAME, {}, {})
    rows = []
    real.begin(0)
    begin = real.data.qpos[:2] - [0.1, 0.0]
    real.data.qpos[3:5] = begin
    for step in range(40):
        real.send_action(begin + [min(0.4 * step / RATE, 0.12), 0.0])
        real.advance(1 / RATE)
        rows.append(real.data.qpos.copy())
    push = Push(np.arange(len(rows)) / RATE, np.array(rows))
    found = identify(clear, [push] * 3, Fit(parameters=("friction",)))
    assert not found.estimates[0].seen and "not seen" in str(found.estimates[0])
    assert found.factors() == {}


def test_files_and_refusals(pushes, tmp_path):
    file = write_pushes(tmp_path / "pushes.json", pushes[:2])
    assert np.allclose(read_pushes(file)[1].qpos, pushes[1].qpos, atol=1e-6)
    with pytest.raises(ValueError, match="at least three pushes"):
        identify(world(), pushes[:2])
    with pytest.raises(ValueError, match="joint numbers"):
        identify(read_world("pusht-arm"), pushes)
    with pytest.raises(ValueError, match="no object moves"):
        still = [Push(push.time, np.tile(push.qpos[:1], (len(push.time), 1))) for push in pushes]
        identify(world(), still)
    with pytest.raises(ValueError, match="times and poses"):
        Push(pushes[0].time, pushes[0].qpos[:-3])
    file.write_text('[{"time": [0, 1]}]')
    with pytest.raises(ValueError, match="no pushes"):
        read_pushes(file)


def test_a_factor_with_which_predictions_jump_is_not_told():
    """A T on its feet, pushed by an arm: another contact at each factor. Its narrow interval said nothing."""
    from understudy.hardware.twin.env import Reality, TwinWorld

    stage = TwinWorld(of=read_world("so101-pusht"), real=Reality(), correct=False).stage()
    pushes = []
    for start in (100_000, 100_001, 100_002):
        stage.begin(start, {})
        for stage.lane.ticks in range(60):
            stage.order(stage.lane.expert_action())
            while not stage.done:
                stage.tick()
            stage.settle()
        times, poses = stage.real.history()
        pushes.append(Push(times, poses))
    stage.close()
    found = identify(read_world("so101-pusht"), pushes, Fit(parameters=("friction", "mass")))
    assert all(one.jumps and not one.seen for one in found.estimates) and found.factors() == {}
    assert "not told" in str(found.estimates[0])


def test_the_command_reads_files_by_their_names(pushes, tmp_path, capsys):
    """As the docs have it: words, one or several, before the flags."""
    for number in (0, 1):
        write_pushes(tmp_path / f"{number}.json", pushes[2 * number : 2 * number + 2])
    words = ["twin", "identify", *(str(tmp_path / f"{number}.json") for number in (0, 1))]
    world = "{type: pusht_mujoco, damping: 20.0, friction: 0.3}"
    (tmp_path / "world.yaml").write_text(world)
    words += [
        "--world",
        str(tmp_path / "world.yaml"),
        "--fit.parameters",
        "[friction]",
        "--out",
        str(tmp_path / "f.yaml"),
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "4 pushes" in said and "damping, mass: 1, as in the twin" in said
    # what is left out of `changes` would be a stand-in's default, 1.3 of the mass
    written = yaml.safe_load((tmp_path / "f.yaml").read_text())["changes"]
    assert written["mass"] == written["damping"] == 1.0 != written["friction"]
