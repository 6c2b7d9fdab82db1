"""Two policies on an emulated arm, scored blindly; the start of a pair is brought back before its second trial."""

import dataclasses
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
from understudy.policies.agent.open import Acting

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
        ({"operator": "anna", "block": 4}, "--block: a person scores"),
        ({"videos": 2}, "--videos: two policies share one arm"),
        ({"block": 4}, "--block: two policies share one arm"),
        ({"timeout": 5.0}, "--timeout: two policies share one arm"),
        ({"imagined": 100}, "--imagined and --dreams are of --imagine"),
        ({"starts": "there"}, "an emulated arm begins at its env seed, and nothing is compared"),
        ({"starts": "there", "restore_within": 2.0}, "0 of the starts 1000 to 1001 .* it holds none"),
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


def test_starts_of_an_earlier_comparison_must_be_there_and_of_this_arm(saved, tmp_path):  # noqa: F811
    policies = saved(), saved(spread=0.3)
    lane = read_world(KEYS | {"cameras": {"front": [60, 80]}}).lane()
    lane.reset(seed=1000)
    Start.of(lane.seen()).save(tmp_path / "starts" / "1000")
    lane.close()
    how = {"starts": str(tmp_path / "starts"), "restore_within": 5.0}
    with pytest.raises(ValueError, match="1 of the starts 1000 to 1001 .* it holds 1000 to 1000, 1 in all"):
        settings(policies, tmp_path / "duel", **how)
    with pytest.raises(ValueError, match="camera 'front' with 80 x 60 pixels, now it gives 320 x 240"):
        compare(settings(policies, tmp_path / "duel", max=1, **how))
    body = read_world(KEYS).embodiment()
    assert not list((tmp_path / "duel").glob("starts/*"))  # nothing of it is taken
    with pytest.raises(ValueError, match="of 5 joints, this arm has 6"):
        Start({}, np.zeros(5, np.float32)).check(body, tmp_path)
    with pytest.raises(ValueError, match="camera 'top', which this arm does not have"):
        Start({"top": np.zeros((6, 8, 3), np.uint8)}, np.zeros(6, np.float32)).check(body, tmp_path)


def test_a_start_whose_camera_is_covered_is_no_start(saved, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(
        "understudy.hardware.lane.arms.SteppedArm._draw", lambda *_: np.full((240, 320, 3), 9, np.uint8)
    )
    config = settings((saved(), saved(spread=0.3)), tmp_path / "duel", max=1, restore_within=5.0)
    with pytest.raises(ValueError, match="camera 'front' shows one colour alone in the start .*uncover it"):
        compare(config)
    assert not list((tmp_path / "duel").glob("starts/*"))


def test_what_makes_starts_alike_holds_when_a_comparison_goes_on_and_no_refusal_tells_the_order(
    saved,  # noqa: F811
    tmp_path,
    hand,
):
    policies, out = (saved(), saved(spread=0.3)), tmp_path / "duel"
    hand("y", ended=True)
    with pytest.raises(Refused):
        compare(settings(policies, out, operator="anna", restore_within=2.0))
    order = read_record(out / "a").manifest["sequential"]["order"]
    hand("y", "y", "y", ended=True)
    for changes, words in (
        ({"restore_within": 4.0}, "restore_within was 2.0, now 4.0$"),
        ({"restore_within": 2.0, "env_seed": 1001}, "env_seed was 1000, now 1001$"),
        ({"restore_within": 2.0, "alpha": 0.1}, "alpha was 0.05, now 0.1$"),
    ):
        with pytest.raises(ValueError, match=words) as refused:
            compare(settings(policies, None, resume=str(out), operator="anna", **changes))
        assert str(order) not in str(refused.value) and f"{order:08x}" not in str(refused.value)


def test_what_a_person_ends_early_is_not_judged_by_that():
    lane = read_world(KEYS).lane()
    lane.reset(seed=1000)
    for success, found in ((None, False), (True, True)):
        lane.reset(seed=1000)
        lane.conclude(success)
        _, _, terminated, truncated, info = lane.step(lane.rest())
        assert (terminated, truncated, info["success"]) == (found, not found, found)
    lane.reset(seed=1000)
    lane.arm._shafts.task.success = lambda model, data: True  # the scene's own judgement
    lane.conclude(None)
    assert lane.step(lane.rest())[-1]["success"]
    lane.close()


def test_the_arm_is_the_one_that_the_world_describes():
    asked = {"shadow": "out/twin", "horizon": 7, "set_points": 3}
    world = read_world(KEYS | asked)
    config = Compare(what=("a", "b"), world=KEYS, out="x", latency="blend", delay=0)
    found = module.arm_settings(config, Acting(policy="a"), world, None)
    assert (found.shadow, found.set_points, found.seconds, found.latency) == ("out/twin", 3, None, "blend")
    real = {"type": "robot", "robot": "so101", "port": "/dev/x"}
    rates = [
        module.arm_settings(config, Acting(policy="a"), read_world(real | r), None).rate for r in ({}, {"rate": 15.0})
    ]
    assert rates == [None, 15.0]


def test_a_horizon_is_counted_in_steps(saved):  # noqa: F811
    world = read_world(KEYS | {"horizon": 7, "delay": 1})
    config = Compare(what=("a", "b"), world=KEYS, out="x", delay=0)
    both = [module.arm_settings(config, Acting(policy=saved(), device="cpu"), world, None) for _ in range(2)]
    _, met, _ = module.open_on_arm(both, world, False, False)
    assert met.steps() == 7 and met.delay == 1
    both = [dataclasses.replace(one, seconds=0.5) for one in both]
    assert module.open_on_arm(both, world, False, False)[1].steps() == 15


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
    read, write = os.pipe()
    os.close(write)  # the person is gone
    with pytest.raises(Refused, match="nobody is there to begin the trial"):
        restore(start, lambda: {**obs, "observation.images.front": dark}, Shown(tmp_path), Words(read), None)
    with pytest.raises(ValueError, match="recorded by camera 'wrist'"):
        restore(Start({"wrist": dark}, start.pose), lambda: obs, Shown(tmp_path), None, 3.0)
