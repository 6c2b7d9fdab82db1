"""A dream is a world like any other: a policy acts in it, its rows join with the truth's, and it knows its limits."""

import dataclasses
import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.lanes.lanes import Lanes
from understudy.configs.rng import rng_of
from understudy.configs.spec import STATE
from understudy.configs.world import read_world, start_set
from understudy.eval.ledger.dreams import DreamGateError, doubt_of, refuse_unproven
from understudy.eval.ledger.record import read_record
from understudy.policies.data.decode import fit
from understudy.policies.learning.checkpoint import find_checkpoint, fingerprint, load_model
from understudy.policies.policy import LaneNoise
from understudy.world_models import dreaming, gate
from understudy.world_models.env import DreamWorld
from understudy.world_models.films import familiar
from understudy.world_models.starts import Starts

from .conftest import Dots, DotsLane

pytestmark = pytest.mark.timeout(900)  # a small training comes first, on a machine that others load

TOP = "observation.images.top"
TRUE = "{type: test_dots, cameras: {top: [32, 32]}}"


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "dots.yaml"
    path.write_text("type: test_dots\n")
    return str(path)


def world(run, starts, **more):
    return read_world({"type": "dream", "model": str(run), "starts": str(starts), "cameras": {"top": [32, 32]}} | more)


def far_seeds(count):
    """Starts that are far from success."""
    places = {seed: rng_of(seed, 7).uniform(12, 88, (2, 2))[0] for seed in range(1000, 1100)}
    return [seed for seed, place in places.items() if np.hypot(*(place - (30, 70))) > 45][:count]


def toward(goal, lanes, steps):
    return np.broadcast_to(np.asarray(goal, np.float32), (lanes, steps, 2)).copy()


def test_the_dream_goes_where_the_truth_goes(dots_run, truth):
    dream = world(dots_run, truth)
    true = read_world({"type": "test_dots", "cameras": {"top": [32, 32]}})
    assert start_set(dream) == start_set(true)
    ends = []
    for one in (dream, true):
        with closing(Lanes(one, 4)) as lanes:
            begun, _ = lanes.reset(seed=far_seeds(4))
            chunk = lanes.step_chunk(toward((70, 20), 4, 4), look=(-1, 0))
            assert chunk.obs[TOP].shape == (4, 2, 32, 32, 3) and chunk.valid.all()
            ends.append((begun[STATE], chunk.obs[STATE][:, -1]))
    assert np.abs(ends[0][0] - ends[1][0]).max() < 12
    assert np.median(np.abs(ends[0][1] - ends[1][1])) < 8


def test_success_is_seen_and_ends_the_episode(dots_run, truth):
    with closing(Lanes(world(dots_run, truth), 4)) as lanes:
        lanes.reset(seed=far_seeds(4))
        for _ in range(3):
            chunk = lanes.step_chunk(toward((30, 70), 4, 8))
        assert lanes.running.sum() <= 1  # all but perhaps one have seen that they are there
        assert chunk.progress.mean() > 0.9
        labels = lanes.call("labels")
        assert all(0 <= one["least_real"] <= 1 for one in labels)


def test_the_rules_of_the_true_world_judge_what_is_read(dots_run, truth):
    ruled = world(dots_run, truth, judge="states", signals=True)
    assert ruled.fingerprint() == world(dots_run, truth, signals=True).fingerprint() | {
        "judge": "states",
        "success_at": 1,
    }
    lane = ruled.lane()
    with closing(lane):
        lane.reset(seed=far_seeds(1)[0])
        rules = lane.dreamer.rules
        assert lane.judge() == rules.score(lane.film.states[0])
        while not lane.film.ended:
            _, reward, terminated, *_ = lane.step(np.array([30, 70], np.float32))
            tick = len(lane.film.sent)
            if lane.dreamer._due(tick):
                assert (terminated, reward) == rules.score(lane.film.states[tick])
        assert terminated and tick < 12
        assert lane.labels()["margin"] == 0


def test_rules_that_cannot_judge_a_state_are_refused(dots_run, truth, dots_data, monkeypatch):
    with pytest.raises(ValueError, match="success_at 0.7 is a probability of the learned judge"):
        world(dots_run, truth, judge="states", success_at=0.7)
    with pytest.raises(ValueError, match="judge of a dream is learned or states, got 'person'"):
        world(dots_run, truth, judge="person")
    with pytest.raises(gate.DreamError, match="recordings .* have no rules"):
        world(dots_run, dots_data, judge="states", horizon=9).lane()
    model, plain = load_model(dots_run, "world")[0], Dots().embodiment()
    for changes, said in (
        ({"state": ("y", "x")}, "observation.state' differs"),
        ({"state_units": ("m", "m")}, "unit of 'x' differs"),
    ):  # rules would take the one number for the other
        body = dataclasses.replace(plain, **changes)
        monkeypatch.setattr(Dots, "embodiment", lambda self, body=body: body.with_cameras(self.cameras))
        Starts(world(dots_run, truth), model)
        with pytest.raises(ValueError, match=said):
            world(dots_run, truth, judge="states", seed=3).lane()
    monkeypatch.undo()
    monkeypatch.setattr(DotsLane, "score", lambda self, states: None)  # a scene that cannot be put where states say
    with pytest.raises(gate.DreamError, match="ask for more than this model reads from frames .observation.state."):
        world(dots_run, truth, judge="states", seed=3).lane()
    monkeypatch.setattr(dreaming, "keeps", lambda lane, protocol: False)
    with pytest.raises(gate.DreamError, match="judge no single states"):
        world(dots_run, truth, judge="states", seed=3).lane()


def test_what_one_lane_dreams_does_not_depend_on_the_others(dots_run, truth):
    films = []
    for count in (3, 1):
        with closing(Lanes(world(dots_run, truth), count)) as lanes:
            lanes.reset(seed=far_seeds(count))
            chunk = lanes.step_chunk(toward((70, 20), count, 6), look=(-3, 0))
            films.append((chunk.obs[STATE][0], chunk.obs[TOP][0], chunk.progress[0]))
    for together, alone in zip(*films, strict=True):
        assert np.array_equal(together, alone)


def test_half_precision_dreams_nearly_the_same(dots_run, truth):
    ends = []
    for precision in ("no", "bf16"):
        with closing(Lanes(world(dots_run, truth, precision=precision), 3)) as lanes:
            lanes.reset(seed=far_seeds(3))
            ends.append(lanes.step_chunk(toward((70, 20), 3, 6)).obs[STATE])
    assert 0 < np.abs(ends[0] - ends[1]).max() < 5  # of 100
    with pytest.raises(ValueError, match="no or bf16"):
        world(dots_run, truth, precision="half")


def test_one_lane_alone_is_an_environment(dots_run, truth):
    lane = world(dots_run, truth, horizon=3).lane()
    obs, info = lane.reset(seed=1000)
    assert set(obs) == {STATE, TOP} and set(info) == {"success", "progress"}
    for _ in range(3):
        obs, reward, terminated, truncated, info = lane.step(np.array([50, 50], np.float32))
    assert truncated or terminated
    assert lane.render().shape == (32, 32, 3) and info["action.sent"].tolist() == [50, 50]


def test_delay_holds_the_first_actions_back(dots_run, truth):
    with closing(Lanes(world(dots_run, truth, delay=2), 1)) as lanes:
        begun, _ = lanes.reset(seed=far_seeds(1))
        chunk = lanes.step_chunk(toward((90, 20), 1, 4))
        assert np.allclose(chunk.sent[0, :2], begun[STATE][0], atol=1e-3)  # stays where it was read to be
        assert chunk.sent[0, 2:].tolist() == [[90, 20]] * 2


def test_what_is_imagined_beyond_the_end_says_nothing_of_the_film(dots_run, truth):
    """A policy that executes more actions at a time imagines more after a success; the episode is the same."""
    labels, lengths = [], []
    for steps in (4, 16):
        with closing(Lanes(world(dots_run, truth, signals=True), 1)) as lanes:
            lanes.reset(seed=far_seeds(1))
            done = 0
            while lanes.running.any() and done < 16:
                done += int(lanes.step_chunk(toward((30, 70), 1, steps)).valid.sum())
            labels.append(lanes.call("labels")[0])
            lengths.append(done)
    assert lengths[0] == lengths[1] < 12
    assert labels[0] == labels[1] and labels[0]["apart"] > 0


def test_the_last_frame_is_judged_beside_an_earlier_one_whatever_its_number(dots_run, truth):
    """Judged alone it would count as success however little the film can be true."""
    places = {seed: rng_of(seed, 7).uniform(12, 88, (2, 2))[0] for seed in range(1000, 1100)}
    seed = max(places, key=lambda seed: np.hypot(*(places[seed] - (30, 70))))  # more than three steps away
    told = {}
    for real_at in (0.0, 0.5):
        doubtful = world(dots_run, truth, horizon=9, real_at=real_at, success_at=0.99)
        judge = dreaming.dreamer_of(doubtful).model.sight.judge
        with torch.no_grad():
            judge.platt[1] = torch.tensor([0.0, -1.0])  # no film can be true
        with closing(Lanes(doubtful, 1)) as lanes:
            lanes.reset(seed=[seed])
            told[real_at] = lanes.step_chunk(toward((30, 70), 1, 9))
    assert told[0.0].success.any()  # where nobody asks for that
    assert told[0.5].valid.all() and not told[0.5].success.any() and told[0.5].progress[0, -1] > 0.8


def test_noise_of_films_is_not_that_of_policies(dots_run, truth, monkeypatch):
    """Both are keyed by seed, start and a number: with equal seeds a first plan would know the film's noise."""
    drawn = []

    class Told(LaneNoise):
        def normal(self, *shape):
            drawn.append(super().normal(*shape))
            return drawn[-1]

    monkeypatch.setattr(dreaming, "LaneNoise", Told)
    with closing(Lanes(world(dots_run, truth, signals=True, batch=1), 1)) as lanes:
        lanes.reset(seed=[1000])
        lanes.step_chunk(toward((70, 20), 1, 4))
    film, twin = (one.flatten()[:8] for one in drawn)
    policy = LaneNoise(0, np.array([1000]), np.array([0])).normal(8)[0]
    assert not any(torch.equal(one, other) for one, other in ((film, policy), (twin, policy), (film, twin)))


def test_a_model_that_was_measured_or_trained_anew_is_opened_anew(dots_run, truth, tmp_path):
    run = shutil.copytree(dots_run, tmp_path / "run")
    first = dreaming.dreamer_of(world(run, truth))
    assert dreaming.dreamer_of(world(run, truth, cameras={"top": [64, 64]})) is first
    checkpoint = find_checkpoint(run)
    gate.note(checkpoint, fingerprint(checkpoint), {"starts": {"most": 0.5, "episodes": 9}})
    second = dreaming.dreamer_of(world(run, truth))
    assert second is not first and second.known["starts"]["most"] == 0.5
    weights = next(checkpoint.glob("*.safetensors"))
    os.utime(weights, ns=(1, 1))
    assert dreaming.dreamer_of(world(run, truth)) is not second


def test_starts_that_were_recorded(dots_run, dots_data):
    dream = world(dots_run, dots_data, horizon=8)
    with closing(Lanes(dream, 2)) as lanes:
        _, info = lanes.reset(seed=100_005)
        assert not info["failed"]
        _, info = lanes.reset(seed=7)
        assert "was not recorded" in info["failed"][0]
    with pytest.raises(ValueError, match="say `horizon`"):
        world(dots_run, dots_data).steps()


def test_a_start_of_another_scene_is_refused_by_name(dots_run, dots_data, truth, monkeypatch):
    checkpoint = find_checkpoint(dots_run)
    model = load_model(dots_run, "world")[0]
    dataset = model.config.open(dots_data, None)
    starts = familiar(model, dataset, range(30, 40))
    noted = {"step": 16, "films": 9, "gap": {"shuffled": [3, 4, 5]}, "starts": starts}
    before = (dots_run / gate.FILE).read_text() if (dots_run / gate.FILE).is_file() else None
    gate.note(checkpoint, fingerprint(checkpoint), noted)
    monkeypatch.setattr("understudy.world_models.dreaming._DREAMERS", {})  # one that has read the note
    try:
        with closing(Lanes(world(dots_run, truth), 4)) as lanes:
            assert len(lanes.reset(seed=far_seeds(4))[1]["failed"]) <= 1  # promised of at most one in eleven
        other = Path(truth).with_name("strange.yaml")
        other.write_text("type: test_dots\nscene: strange\n")
        with closing(Lanes(world(dots_run, other), 1)) as lanes:
            [reason] = lanes.reset(seed=far_seeds(1))[1]["failed"].values()
        assert gate.ABSTAINS in reason and "does not know" in reason
    finally:
        (dots_run / gate.FILE).unlink() if before is None else (dots_run / gate.FILE).write_text(before)


def test_bad_settings_are_refused_by_name(dots_run, truth, dots_data):
    with pytest.raises(ValueError, match="names the run"):
        DreamWorld(starts=truth)
    with pytest.raises(ValueError, match="where films begin"):
        DreamWorld(model=str(dots_run))
    for wrong in ({"success_at": 5}, {"success_at": 0}, {"real_at": 1}, {"real_at": -0.1}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* of a dream"):
            world(dots_run, truth, **wrong)
    with pytest.raises(ValueError, match="must divide"):
        world(dots_run, truth, judge_every=3).lane()
    with pytest.raises(ValueError, match="imagines"):
        world(dots_run.parent / "codec", truth).embodiment()
    with pytest.raises(ValueError, match="no camera 'top'"):
        world(dots_run, "pusht-mujoco").lane()


def test_a_policy_acts_in_it_and_only_a_measured_model_ranks(dots_run, dots_data, truth, tmp_path, capsys):
    run = tmp_path / "policy"
    scale = dots_run.parent.parent / "scale.yaml"
    text = f"data: {dots_data}\nout: {run}\nsteps: 30\nbatch: 32\ndevice: cpu\nscale: {scale}\n"
    (tmp_path / "policy.yaml").write_text(text + "policy: {type: regression, window: {observe: [0], horizon: 8}}\n")
    assert main(["train", str(tmp_path / "policy.yaml")]) == 0
    place = f"{{type: dream, model: {dots_run}, starts: {truth}}}"
    records = []
    for seed in (0, 1):
        out = tmp_path / f"dreamt{seed}"
        words = ["--policy", str(run), "--out", str(out), "--episodes", "4", "--block", "4", "--videos", "1"]
        assert main(["eval", *words, "--world", place, "--policy_seed", str(seed)]) == 0
        records.append(str(out))
    record = read_record(records[0])
    assert record.column("error") == [""] * 4
    assert record.column("initial_conditions")[0] == "test_dots/dots" and record.manifest["world"]["type"] == "dream"
    assert "least_real" in json.loads(record.column("labels")[0]) and record.column("video")[0] is not None

    checkpoint = find_checkpoint(dots_run)
    known = gate.noted(checkpoint, fingerprint(checkpoint))
    file = dots_run / gate.FILE
    file.unlink(missing_ok=True)
    capsys.readouterr()
    assert main(["compare", *records]) == 2
    assert "nobody has measured" in capsys.readouterr().err
    gate.note(checkpoint, fingerprint(checkpoint), {"step": 16, "films": 9, "gap": {"shuffled": [0.1, 0.4, 0.7]}})
    assert main(["compare", *records]) == 2
    assert "does not follow its actions" in capsys.readouterr().err
    fine = {"step": 16, "films": 9, "gap": {"shuffled": [3, 4, 5]}}
    [acts_by, *_] = record.manifest["reads"]
    assert record.manifest["reads"] == record.manifest["policy"]["config"]["inputs"]
    gate.note(checkpoint, fingerprint(checkpoint), fine | {"read": {acts_by: 0.55}})
    assert main(["compare", *records]) == 2
    assert f"from true frames {acts_by} is read with a mean error of 0.55" in capsys.readouterr().err
    gate.note(checkpoint, fingerprint(checkpoint), fine | {"read": {acts_by: 0.05, "observation.other": 0.9}})
    assert main(["compare", *records]) == 0

    # by rules, every state that is read decides
    ruled = place.replace("}", ", judge: states}")
    words = ["--policy", str(run), "--out", str(tmp_path / "ruled"), "--episodes", "4", "--block", "4", "--videos", "0"]
    assert main(["eval", *words, "--world", ruled]) == 0
    capsys.readouterr()
    judged = read_record(tmp_path / "ruled")
    with pytest.raises(DreamGateError, match="judged by the states that its dream .* read.*observation.other"):
        refuse_unproven([judged])
    assert "observation.other" in doubt_of(judged.manifest["world"], "an evaluation"), "a table and a search ask this"
    gate.note(checkpoint, fingerprint(checkpoint), fine)
    assert "nobody has measured how well states are read" in doubt_of(judged.manifest["world"], "an evaluation")
    gate.note(checkpoint, fingerprint(checkpoint), fine | {"read": {acts_by: 0.05}})
    refuse_unproven([judged])
    refuse_unproven([record])
    gate.note(checkpoint, fingerprint(checkpoint), known or fine)  # as other tests of this run left it


def test_first_frames_are_drawn_as_large_as_the_recorded_ones(dots_run, truth):
    """What is drawn small is not what is drawn large and reduced, as the pictures were that the model learnt from."""
    model, _ = load_model(dots_run, "world")
    model.embodiment = model.embodiment.with_cameras({"top": (96, 96)})
    starts = Starts(world(dots_run, truth), model)
    seen, recorded = starts.first(1000)[0], starts.lane.reset(seed=1000)[0][TOP]
    assert recorded.shape == (96, 96, 3) and (seen[0].numpy() == fit(recorded, (32, 32))).all()
