"""Two policies on an emulated arm, scored blindly; the start of a pair is brought back before its second trial."""

import json
import os

import mujoco
import numpy as np
import pytest

from understudy.configs.world import read_world
from understudy.eval.compare import arm as module
from understudy.eval.compare.blind import blind_order
from understudy.eval.compare.compare import Compare, compare
from understudy.eval.compare.restore import Shown, Start, restore
from understudy.eval.demos.arm import Quit, Words
from understudy.eval.ledger.record import read_record
from understudy.hardware.consent import Refused

from ..deploy.test_deploy import saved  # noqa: F401

pytest.importorskip("daqp", reason="the guard's quadratic program")


KEYS = {"type": "robot", "emulate": True, "task": "so101-reach", "clock": "simulated"}


@pytest.fixture
def hand(monkeypatch):
    """Write lines as the person at the terminal; made anew by `hand(new=True)`."""
    ends = {}

    def type_in(*lines, ended=False):
        if "write" not in ends:
            ends["read"], ends["write"] = os.pipe()
            monkeypatch.setattr(module, "Words", lambda: Words(ends["read"]))
        os.write(ends["write"], "".join(f"{line}\n" for line in lines).encode())
        if ended:
            os.close(ends.pop("write"))

    yield type_in
    if "write" in ends:
        os.close(ends["write"])


def settings(policies, out, **how):
    how = {
        "emulate": True,
        "task": "so101-reach",
        "clock": "simulated",
        "seconds": 0.3,
        "delay": 0,
        "device": "cpu",
    } | how
    how = {"max": 2, "give_up": 0.0, "out": str(out)} | how
    config = Compare(what=policies, **how)
    config.check_names()
    return config


def test_a_person_stops_and_goes_on_without_losing_a_trial_or_being_unblinded(saved, tmp_path, hand, capsys):  # noqa: F811
    policies, out = (saved(), saved(spread=0.3)), tmp_path / "duel"
    hand("y", ended=True)  # and then nobody is there any more
    with pytest.raises(Refused, match="trial 2 is kept, without its score; go on with --resume"):
        compare(settings(policies, out, operator="anna", restore_within=2.0))
    said = capsys.readouterr()
    told = said.out + said.err
    assert not (out / "compare.html").exists() and not (out / "a" / "report.html").exists()
    assert policies[0] not in told and "A [" not in told and "success, Wilson" not in told
    first = json.loads((out / "unscored.json").read_text())

    hand("n", "y", "30 slipped", ended=True)
    found = compare(settings(policies, None, resume=str(out), operator="anna", restore_within=2.0))
    assert "trial 2 was acted before the interruption" in capsys.readouterr().out
    assert (out / "compare.html").is_file() and not (out / "unscored.json").exists()
    records = [read_record(out / side) for side in "ab"]
    order = records[0].manifest["sequential"]["order"]
    assert order == records[1].manifest["sequential"]["order"] and found.sequential["pairs"] == 2
    places = {}
    for who, record in enumerate(records):
        for row in record.rows:
            labels = json.loads(row["labels"])
            places[row["env_seed"], labels["place"]] = who, row, labels
    for start in (1000, 1001):
        assert tuple(places[start, place][0] for place in (0, 1)) == blind_order(order, start)
        assert "restored" not in places[start, 0][2]
        restored = places[start, 1][2]["restored"]
        assert restored["px"] <= 2 and restored["lost"] == 0 and restored["camera"] == "front"
    assert first["row"]["length"] == places[1000, 1][1]["length"]  # it was not acted again
    marks = [places[key][1]["best_progress"] for key in sorted(places)]
    assert np.allclose(marks, [1, 0, 1, 0.3]) and places[1001, 1][2]["note"] == "slipped"


def test_the_scene_scores_where_nobody_does(saved, tmp_path):  # noqa: F811
    found = compare(settings((saved(), saved(spread=0.3)), tmp_path / "duel", restore_within=1.0, max=1))
    assert found.sequential["pairs"] == 1 and (tmp_path / "duel" / "restore.png").is_file()


def test_many_emulated_arms_may_act_at_a_time_where_no_setting_is_of_one_arm():
    world = read_world(KEYS)
    alone = Compare(what=("a", "b"), world=KEYS, seconds=1.0, out="x")
    many = Compare(what=("a", "b"), world=KEYS, out="x")
    assert module.acts_one_by_one(alone, world, "") and not module.acts_one_by_one(many, world, "")
    assert module.acts_one_by_one(many, world, "anna") and not module.acts_one_by_one(
        many, read_world("so101-reach"), ""
    )


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"robot": "so101"}, "leave one of them out"),
        ({"world": "so101-reach"}, "leave one out"),
        ({"restore_within": -1.0}, "restore_within -1.0 is not above 0"),
        ({"port": "/dev/x"}, "--port is of a real arm"),
        ({"emulate": False, "world": KEYS}, "--task is of --robot or --emulate; with --world"),
        ({"operator": "anna", "workers": 3}, "--workers: two policies share one arm"),
        ({"operator": "anna", "imagine": "runs/w"}, "--imagine"),
    ],
)
def test_what_would_be_ignored_is_refused(saved, tmp_path, how, words):  # noqa: F811
    with pytest.raises(ValueError, match=words):
        settings((saved(), saved(spread=0.3)), tmp_path / "duel", **how)


def test_settings_of_an_arm_are_refused_elsewhere(saved, tmp_path):  # noqa: F811
    policies = saved(), saved(spread=0.3)
    with pytest.raises(ValueError, match="--restore_within is of a live comparison on an arm"):
        Compare(what=policies, world="so101-reach", restore_within=2.0, out=str(tmp_path / "x")).check_names()
    with pytest.raises(ValueError, match="--seconds is of a live comparison on an arm .*with --data"):
        Compare(what=policies, data=str(tmp_path), seconds=2.0, out=str(tmp_path / "x")).check_names()


def test_a_displaced_scene_waits_until_it_is_restored_or_forced(tmp_path, capsys):
    keys = {"type": "robot", "emulate": True, "clock": "simulated", "cameras": {"front": [240, 320]}}
    lane = read_world(keys | {"task": "so101-reach"}).lane()
    lane.reset(seed=1000)
    Start.of(lane.seen()).save(tmp_path / "start")
    start, shafts = Start.load(tmp_path / "start"), lane.arm._shafts
    assert (start.pictures["front"] == lane.seen()["observation.images.front"]).all()
    away = [0.02, 0.02, 0.01, 0.0]  # m; the person brings the ball back
    place = shafts.data.mocap_pos[0].copy()
    read, write = os.pipe()

    def look():
        shafts.data.mocap_pos[0] = place + [0, away.pop(0) if len(away) > 1 else away[0], 0]
        mujoco.mj_forward(shafts.model, shafts.data)
        os.write(write, b"\n")  # who presses ENTER all the time
        return lane.seen()

    show = Shown(tmp_path)
    show._window = False
    done = restore(start, look, show, Words(read), 2.0)
    told = capsys.readouterr().out
    assert done.distance.pixels == 0 and not done.forced and done.labels()["within"] == 2.0
    far = [float(line.split("scene: ")[1].split()[0]) for line in told.splitlines() if "restore the scene: " in line]
    assert far == sorted(far, reverse=True) and far[0] > 10 and "the scene is restored" in told or len(far) >= 2
    assert (tmp_path / "restore.html").is_file() and (tmp_path / "restore.png").stat().st_size > 1000

    away[:] = [0.02]
    os.write(write, b"o\n")
    assert restore(start, look, show, Words(read), 2.0).forced
    os.write(write, b"q\n")
    with pytest.raises(Quit):
        restore(start, look, show, Words(read), 2.0)
    lane.close()


def test_where_nobody_is_a_displaced_scene_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("understudy.eval.compare.restore.ALONE", 0.2)
    dark = np.zeros((60, 80, 3), np.uint8)
    moved = dark.copy()
    moved[20:40, 30:50] = 255
    start = Start({"front": dark}, np.zeros(6, np.float32))
    obs = {"observation.images.front": moved, "observation.state": np.zeros(6, np.float32)}
    with pytest.raises(ValueError, match="nobody is there to restore it"):
        restore(start, lambda: obs, Shown(tmp_path, lambda text: None), None, 3.0)
    with pytest.raises(ValueError, match="recorded by camera 'wrist'"):
        restore(Start({"wrist": dark}, start.pose), lambda: obs, Shown(tmp_path), None, 3.0)
