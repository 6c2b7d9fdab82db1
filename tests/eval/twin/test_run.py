"""`understudy twin run`: what it writes for `twin identify`, and when it does not."""

import numpy as np

from understudy.__main__ import main
from understudy.eval.twin.run import Episode, push_of, told
from understudy.hardware.twin.live.loop import Tick


def test_the_path_of_a_twin_that_nothing_corrects_is_no_measurement(tmp_path, capsys):
    """`identify` would find the twin's own friction and mass, to a percent."""
    world = tmp_path / "twin.yaml"
    for more in ("", "correct: false\nscene: scene\n"):
        world.write_text("type: twin\nof: {type: mujoco, task: so101-pusht}\nreal: {}\n" + more)
        words = ["twin", "run", "--world", str(world), "--pushes", str(tmp_path / "pushes.json")]
        assert main(words) != 0
        assert "nothing corrects this twin" in capsys.readouterr().err


def ticks(times, held=()):
    nothing = {"wrench": np.zeros((1, 6)), "residual": {}, "conflict": {}, "age": 0.0, "left_out": (), "seconds": {}}
    values = [np.array([moment]) for moment in times]
    return [
        Tick(time=moment, joints=value, echo=value, qpos=value, held="held" if number in held else "", **nothing)
        for number, (moment, value) in enumerate(zip(times, values, strict=True))
    ]


def episode(some, **account):
    account = {"held_ticks": {}, "warnings": []} | account
    return Episode(7, success=False, progress=0.5, ticks=some, account=account, tracking=None)


def test_a_push_ends_where_the_arm_was_held_and_has_even_times():
    """The clock's ticks are uneven; from a hold on objects may be elsewhere."""
    times = np.arange(90) / 60 + np.random.default_rng(0).uniform(0, 0.008, 90)
    push = push_of(episode(ticks(times, held=range(60, 70))))
    assert len(push.time) == 60 and np.ptp(np.diff(push.time)) < 1e-9
    assert np.allclose(push.qpos[:, 0], push.time)
    assert push_of(episode(ticks(times, held=[10]))) is None


def test_the_longest_lag_that_is_looked_for_is_told_as_such():
    assert "12.0 or more ticks behind" in told(episode(ticks([0.0]), lag_ticks=12.0))
    assert "1.1 ticks behind" in told(episode(ticks([0.0]), lag_ticks=1.1))
