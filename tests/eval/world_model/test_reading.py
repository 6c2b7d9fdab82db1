"""What is read badly is said number by number."""

import numpy as np

from understudy.eval.world_model.measures import read_off, reading_lines, summarise

SCENE = "observation.environment_state"
NAMES = ["ball.x", "ball.y", "ball.z"]


def about(off):
    """Of 5 films at 2 steps, read with errors of so many spreads."""
    spread = [0.02, 0.1, 0.01]
    errors = np.broadcast_to(np.array(off) * spread, (5, 2, 3))
    measured = {f"{SCENE} error": errors, f"{SCENE} seen": errors, "moved": np.zeros((5, 2), bool)}
    measured["psnr true"] = np.full((5, 2), 20.0)
    summary = summarise(measured, [4, 8], np.arange(5), {SCENE: spread})
    return {"measures": summary | {"read": read_off(summary["states"], drawn=True), "names": {SCENE: NAMES}}}


def test_a_height_that_nobody_sees_is_named():
    lines = reading_lines(about([0.5, 0.1, 1.05]))
    assert "read with a mean error of 0.55 of its spread" in lines[0] and "or are judged by it" in lines[0]
    assert "number by number: ball.x 0.50, ball.y 0.10, ball.z 1.05." in lines[1]


def test_what_is_read_well_is_not_spoken_of():
    assert reading_lines(about([0.1, 0.1, 0.2])) == []


def test_measures_of_earlier_versions_say_no_single_numbers():
    before = about([0.5, 0.1, 1.05])
    for kind in before["measures"]["states"][SCENE].values():
        del kind["each"]
    assert len(reading_lines(before)) == 1
