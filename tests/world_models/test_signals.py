"""What a film says of itself rises where the film goes wrong, and changes nothing else."""

import warnings
from contextlib import closing

import numpy as np
import pytest
import torch

from understudy.configs.lanes.lanes import Lanes
from understudy.configs.spec import STATE
from understudy.configs.world import read_world
from understudy.policies.learning.checkpoint import load_model
from understudy.world_models.codec import Reading
from understudy.world_models.films import clips
from understudy.world_models.gate import SIGNALS
from understudy.world_models.signals import Teller

pytestmark = pytest.mark.timeout(900)  # a small training comes first, on a machine that others load


@pytest.fixture(scope="module")
def model(dots_run):
    return load_model(dots_run, "world")[0]


@pytest.fixture(scope="module")
def cut(model, dots_data):
    dataset = model.config.open(dots_data, None)
    return clips(dataset, model, list(range(len(dataset.lengths)))[-12:], 16, 12)


def test_frames_that_cannot_be_are_told(model, cut):
    lane = read_world({"type": "test_dots", "cameras": {"top": [32, 32]}}).lane()
    teller, gap = Teller(model, lane), model.config.eyes.gap
    true = cut.pictures[:, gap]
    twice = torch.where(true.float().mean(-1, keepdim=True) < true.float().mean(-1, keepdim=True).roll(11, 3),
                        true, true.roll(11, 3))  # the darker of both: every dot is there twice  # fmt: skip
    with torch.no_grad():
        good, bad = (teller.frames(one, model.sight.read(one), len(one)) for one in (true, twice))
        assert np.median(bad["drawn"]) > 1.5 * np.median(good["drawn"])
        assert np.median(bad["round_trip"]) > np.median(good["round_trip"])

        now, before = model.sight.read(true), model.sight.read(cut.pictures[:, 0])
        told = model.action_scale.scale(torch.from_numpy(cut.actions[:, :gap]))
        right, wrong = (teller.inverse(now, before, one) for one in (told, -told))
    assert np.median(right) < 0.7 * np.median(wrong)
    assert isinstance(now, Reading) and Teller(model, object()).lane is None


def test_a_dream_tells_its_signals_and_dreams_the_same(dots_run, tmp_path):
    (tmp_path / "dots.yaml").write_text("type: test_dots\n")
    about = {"type": "dream", "model": str(dots_run), "starts": str(tmp_path / "dots.yaml"), "batch": 4}
    films, labels = [], []
    for more in ({}, {"signals": True}):
        with closing(Lanes(read_world(about | more), 3)) as lanes:
            lanes.reset(seed=[1000, 1001, 1002])
            films.append(lanes.step_chunk(np.full((3, 8, 2), 50, np.float32)).obs[STATE])
            labels.append(lanes.call("labels"))
    assert np.array_equal(*films)
    assert set(labels[0][0]) == {"least_real"}
    assert set(labels[1][0]) == {"least_real", *SIGNALS} - {"unreal", "arm"}  # nothing is drawn here
    assert all(one["apart"] > 0 and np.isfinite(list(one.values())).all() for one in labels[1])
    assert "signals" not in read_world(about).fingerprint() and read_world(about | {"signals": True}).fingerprint()


@pytest.mark.parametrize("name", ["pusht", "so101-reach", "so101-pick-place", "so101-pusht"])
def test_what_is_drawn_of_a_state_is_what_was_seen(name):
    """Each world draws its own states as it saw them, after something else was drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        world = read_world(name)
        lane = read_world(world, cameras=dict.fromkeys(world.views(), (48, 48))).lane()
        others, _ = lane.reset(seed=3)
        seen, _ = lane.reset(seed=4)
        states = {key: seen[key] for key in lane.embodiment.offers() if key in seen and "images" not in key}
        lane.draw({key: others[key] for key in states})
        drawn = lane.draw(states)
    for camera, picture in drawn.items():
        apart = np.abs(picture.astype(int) - seen[f"observation.images.{camera}"])
        assert apart.mean() < 0.5, camera
    lane.close()


@pytest.mark.parametrize("name", ["pusht", "so101-reach", "so101-pick-place", "so101-pusht"])
def test_a_state_is_judged_as_the_world_judges_it(name):
    """By the world's own rules, of what it observed while something happened, in another copy of it."""
    world = read_world({"type": "gym_pusht"} if name == "pusht" else {"type": "mujoco", "task": name})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lane, other = world.lane(), world.lane()
        told = []
        with closing(lane), closing(other):
            obs, info = lane.reset(seed=4)
            for step in range(240):
                if step % 8 == 0:
                    told.append((info, other.score({key: np.array(value) for key, value in obs.items()})))
                if (action := lane.expert_action()) is None:
                    break
                obs, _, ended, _, info = lane.step(np.asarray(action, np.float32))
                if ended:
                    told.append((info, other.score(obs)))
                    break
            assert other.score({}) is None
    assert told[-1][0]["success"], "the expert ends with success"
    for ours, theirs in told:
        assert theirs == (ours["success"], pytest.approx(ours["progress"], abs=2e-3))
    assert np.ptp([info["progress"] for info, _ in told]) > 0.2
