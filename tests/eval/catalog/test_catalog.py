"""`understudy list tasks` and `list experts`: what they say, the contact sheet, and how experts are measured."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from understudy.configs.world import WORLDS, find_world
from understudy.eval.catalog import stages
from understudy.eval.catalog.catalog import List
from understudy.eval.catalog.measured import measure, read_measured, stale, write_measured
from understudy.eval.catalog.sheet import COLUMNS, SIDE, first_picture, write_sheet
from understudy.sim.testing import Fault, FaultyWorld


def test_every_task_says_what_it_is(capsys):
    List(kind="tasks").run()
    text = capsys.readouterr().out
    assert set(stages.simulated()) == {line.split(":")[0] for line in text.splitlines() if not line.startswith(" ")}
    assert "cannot be opened" not in text
    for part in (
        "lift: robosuite, 7 actions, 11 state, 12 scene, 200 steps at 20 Hz",
        "gripper.xyz [m], gripper.rotation [1], finger.left, finger.right [m]",
        "kp0.x, kp0.y, ... kp7.y (16) [px]",
        "cameras  agentview, robot0_eye_in_hand",
        "action   x, y [m/s]; velocity, -1..1",
    ):
        assert part in text


def test_an_expert_is_measured_and_remembered(tmp_path, capsys):
    List(kind="experts", only="point", measure=20, records=str(tmp_path)).run()
    text = capsys.readouterr().out
    assert "success 20/20 [0.84, 1.00], best progress 1.00" in text and "Straight to the target" in text
    kept = read_measured("point", tmp_path)
    assert (kept.start_set, kept.first, kept.lost, kept.errors) == ("mujoco/point", 1000, (), 0)
    assert kept.provenance["versions"]["mujoco"] and "host" not in json.dumps(kept.provenance)
    List(kind="tasks", only="point", records=str(tmp_path)).run()
    assert "expert   success 20/20 [0.84, 1.00]" in capsys.readouterr().out
    write_measured(dataclasses.replace(kept, world="another"), tmp_path)
    List(kind="tasks", only="point", records=str(tmp_path)).run()
    assert "of an earlier version of the world" in capsys.readouterr().out
    path = tmp_path / "point.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    assert read_measured("point", tmp_path) is None


def test_what_is_lost_is_counted(monkeypatch):
    faulty = FaultyWorld(horizon=25, faults=(Fault(1003, 2),))
    monkeypatch.setitem(WORLDS, "point", faulty)
    measured = measure("point", 12)
    assert 1003 in measured.lost and measured.errors == 1
    assert measured.successes == 12 - len(measured.lost) > 0 and not stale(measured)


def test_the_contact_sheet(tmp_path, capsys):
    List(kind="tasks", only="point,pusht", sheet=str(tmp_path / "new" / "sheet.png"), records=str(tmp_path)).run()
    assert "pictures: " in capsys.readouterr().out
    sheet = cv2.imread(str(tmp_path / "new" / "sheet.png"))
    assert sheet.shape[1] == 2 * SIDE and all(sheet[:SIDE, x : x + SIDE].std() > 5 for x in (0, SIDE))


def test_a_task_that_cannot_be_drawn_leaves_the_others_alone(tmp_path):
    broken = FaultyWorld(faults=(Fault(1000, 0, "reset"),))
    worlds = {"good": WORLDS["point"], "bad": broken} | {f"more{n}": WORLDS["pusht"] for n in range(3)}
    failed = write_sheet(tmp_path / "sheet.png", worlds, {"good": "60 steps"})
    assert list(failed) == ["bad"] and "fault asked for" in failed["bad"]
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] == COLUMNS * SIDE and sheet.shape[0] > 2 * SIDE
    assert np.ptp(sheet[-SIDE:, -SIDE:]) == 0, "the last row is filled up"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kind": "tasks", "only": "lfit"}, "unknown task 'lfit'. Did you mean 'lift'"),
        ({"kind": "experts", "only": "nobody"}, "unknown expert 'nobody'"),
        ({"kind": "worlds", "sheet": "x.png"}, "--sheet belongs to `understudy list tasks`"),
        ({"kind": "tasks", "measure": 3}, "--measure belongs to `understudy list experts`"),
        ({"kind": "tasks", "only": "point", "sheet": "sheet.xyz"}, "end it in .png"),
    ],
)
def test_what_makes_no_sense_is_said(words, message):
    with pytest.raises((LookupError, ValueError), match=message):
        List(**words).run()


def test_the_whole_robot_is_on_the_sheet():
    picture = first_picture(find_world("lift"))
    cube = (picture[..., 0] > 100) & (picture[..., 1:] < 60).all(-1)
    wall = picture[:10, :100].reshape(-1, 3).mean(0)
    assert cube.sum() > 100 and np.abs(picture[0] - wall).max() < 60, "above the robot there is wall"


def test_films_of_the_so101_show_the_ball_when_it_is_reached():
    lane = find_world("so101-reach").lane()
    lane.reset(seed=1000)
    while not lane.step(lane.expert_action())[2]:
        pass
    red = lane.render().astype(int)
    assert ((red[..., 0] > 1.8 * red[..., 1]) & (red[..., 0] > 120)).sum() > 15
    lane.close()
