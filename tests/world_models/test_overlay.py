"""A tiny world model of really rendered frames whose arm is drawn: exact pixels, nothing learnt of them, one world."""

import dataclasses
import json
from contextlib import closing

import numpy as np
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.episode import Episode
from understudy.configs.lanes.lanes import Lanes
from understudy.configs.rng import rng_of
from understudy.configs.spec import ACTION, IMAGES, SCENE, STATE
from understudy.configs.world import read_world
from understudy.eval.judge.films import find_films
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.checkpoint import load_model
from understudy.policies.policy import LaneNoise, Past
from understudy.world_models.codec import CodecConfig
from understudy.world_models.data import SEEN, encoded, open_joint
from understudy.world_models.drawn import HIDDEN, NOTHING, ROBOT, DrawnRobot, RobotError
from understudy.world_models.film_model import Memory
from understudy.world_models.films import clips, filmed
from understudy.world_models.overlay import DRAWN, Overlay, behind_rows, drawn_rows, left_open, open_places
from understudy.world_models.response import Response
from understudy.world_models.video import VideoConfig

pytestmark = pytest.mark.timeout(900)  # a small training comes first, on a machine that others load

SIDE, STEPS, EPISODES = 32, 22, 8
FRONT = f"{IMAGES}front"
WORLD = {"type": "mujoco", "task": "so101-reach", "horizon": 10_000}


def reach(height=SIDE, width=SIDE):
    return read_world(WORLD, cameras={"front": (height, width)})


def episode(lane, seed):
    """Random joint targets, each held for some steps."""
    rng, low_high = rng_of(seed, 1), np.array(lane.embodiment.limits).T
    obs, _ = lane.reset(seed=seed)
    target, rows = obs[STATE], []
    for _ in range(STEPS):
        if rng.random() < 0.4:
            target = np.clip(obs[STATE] + rng.uniform(-0.6, 0.6, 6), *low_high).astype(np.float32)
        seen = obs
        obs, _, _, _, info = lane.step(target)
        rows.append((seen, target, info))
    actions = np.array([row[1] for row in rows])
    return Episode(
        start=seed, task="reach", action=actions, sent=actions,
        obs={key: np.array([row[0][key] for row in rows]) for key in (STATE, SCENE, FRONT)},
        reward=np.zeros(STEPS, np.float32), progress=np.array([row[2]["progress"] for row in rows], np.float32),
        success=np.array([row[2]["success"] for row in rows]), terminated=False, truncated=True,
    )  # fmt: skip


def record(root, height=SIDE, width=SIDE, count=EPISODES):
    lane = reach(height, width).lane()
    writer = DatasetWriter(root, lane.embodiment, pictures="image")
    with closing(lane):
        for seed in range(100_000, 100_000 + count):
            writer.add(episode(lane, seed))
    return root


@pytest.fixture(scope="module")
def reach_data(tmp_path_factory):
    return record(tmp_path_factory.mktemp("reach") / "data")


CODEC = {"cameras": ["front"], "size": [SIDE, SIDE], "width": 16, "inner": 24, "keypoints": 8}


def train(folder, data, robot, codec=None, **changes):
    """Status and run of the dynamics; on a codec that is there, or after one."""
    video = {"type": "video", "run": codec or "stage:codec", "horizon": 4, "width": 24, "blocks": 1, "own_after": 6}
    stage = {"steps": 12, "batch": 8, "world_model": video | {"robot": robot} | changes}
    about = {"data": str(data), "device": "cpu", "validation": 0.2, "seed": 0}
    if codec is None:
        sight = {"steps": 40, "batch": 16, "world_model": {"type": "codec", "codec": CODEC}}
        about |= {"out": str(folder / "run"), "stages": {"codec": sight, "video": stage}}
    else:
        about |= stage | {"out": str(folder / "run")}
    folder.mkdir(exist_ok=True)
    (folder / "train.yaml").write_text(json.dumps(about))
    return main(["train", str(folder / "train.yaml")]), folder / "run" / ("" if codec else "video")


@pytest.fixture(scope="module")
def run(tmp_path_factory, reach_data):
    status, run = train(tmp_path_factory.mktemp("run"), reach_data, {"task": "so101-reach"})
    assert status == 0
    return run


@pytest.fixture(scope="module")
def model(run):
    return load_model(run, "world")[0]


@pytest.fixture(scope="module")
def cut(model, reach_data):
    dataset = model.config.open(reach_data, None)
    return clips(dataset, model, range(len(dataset.lengths)), 12, 6)


def test_the_imagined_frame_is_the_drawn_arm_and_else_what_was_imagined(model, cut):
    joints = torch.from_numpy(cut.joints())
    memory = model.remember(cut.pictures[:, 0], joints=joints)
    actions = torch.from_numpy(cut.actions[:, :4])
    with torch.no_grad():
        poses = model.poses(memory, actions, (2, 4))
        latents, after = model.advance(memory, actions, (2, 4), torch.zeros(len(cut), 1, *memory.now.shape[1:]))
        flat, at = latents.flatten(0, 1), poses.flatten(0, 1)
        seen, imagined, drawn = model.show(flat, at), model.sight.decode(flat), model.overlay.draw(at)
        shown = model.overlay.shown(flat, drawn)
    assert torch.equal(after.pose, poses[:, -1])
    assert shown.any() and torch.equal(seen[shown], drawn[..., :3][shown])
    assert torch.equal(seen[~shown], imagined[~shown]) and not (shown & (drawn[..., 4] == NOTHING)).any()


def test_posed_by_the_actions_it_lies_where_the_truth_has_it(model, cut):
    overlaps = []
    for step, _, pictures in filmed(model, cut.pictures[:, 0], cut.actions, (1, 4, 8), joints=cut.joints()):
        true = model.overlay.draw(torch.from_numpy(cut.joints(step)[:, 0]))[..., 4] != NOTHING
        memory = model.remember(cut.pictures[:, 0], joints=torch.from_numpy(cut.joints()))
        pose = model.overlay.response(memory.pose, torch.from_numpy(cut.actions[:, :step]))[:, -1]
        ours = model.overlay.draw(pose)[..., 4] != NOTHING
        overlaps.append(float((ours & true).sum() / (ours | true).sum()))
        stands = model.overlay.draw(memory.pose)[..., 4] != NOTHING
        assert overlaps[-1] > float((stands & true).sum() / (stands | true).sum())
        assert pictures.shape == cut.pictures[:, step].shape
    assert min(overlaps) > 0.7


def test_nothing_is_learnt_where_the_arm_is_shown(model):
    count, frames, shape = 3, 2 * model.horizon + 2, model.config.eyes.shape
    generator = torch.Generator().manual_seed(0)
    latents = torch.nn.functional.normalize(torch.randn(count, frames, *shape, generator=generator), dim=2)
    drawn = torch.full((count, frames, 1, SIDE, SIDE, 5), ROBOT, dtype=torch.uint8)
    batch = {SEEN: latents, ACTION: torch.zeros(count, frames, 6), DRAWN: drawn}

    def losses(seed):
        torch.manual_seed(seed)
        loss, scalars = model.loss(batch)
        return float(loss) - scalars["hidden"], scalars["latent"]

    rest, latent = losses(0)
    assert abs(rest) < 1e-6 < latent  # the arm fills the picture
    drawn[..., :8, :8, 4] = HIDDEN  # but for one corner, in which something is before it
    assert losses(0)[0] > 1e-3
    places = open_places(drawn[:, 0])
    assert places[:, 0, 0, 0].tolist() == [1] * count and float(places.sum()) == count


def test_joints_of_further_back_give_no_speed(model, cut):
    """A policy that looks back eight steps tells of no joints one step before; the arm is taken to stand."""
    now, actions = torch.from_numpy(cut.joints())[:2], torch.from_numpy(cut.actions[:2, :4])
    films = []
    for times in ((0,), (-8, 0)):
        obs = {FRONT: cut.pictures[:2, :1, 0].repeat(1, len(times), 1, 1, 1)}
        obs[STATE] = torch.cat([now - 0.3, now], 1)[:, -len(times) :]
        seen = torch.ones(2, len(times), dtype=torch.bool)
        none = {
            "actions": torch.zeros(2, 0, 6),
            "action_times": (),
            "action_valid": torch.zeros(2, 0, dtype=torch.bool),
        }
        past = Past(obs=obs, obs_times=times, obs_valid=seen, now=torch.full((2,), 8), **none)
        films.append(model.imagine(past, actions, LaneNoise(0, np.arange(2), np.zeros(2, int)))[FRONT])
    assert torch.equal(*films)


@pytest.fixture(scope="module")
def remembering(run, reach_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("behind") / "run"
    codec = str(run.parent / "codec")
    status, run = train(folder, reach_data, {"task": "so101-reach"}, codec, behind=True)
    assert status == 0
    return load_model(run, "world")[0]


def test_what_the_arm_covers_is_remembered_as_it_was_last_seen(remembering, reach_data):
    dataset = remembering.config.open(reach_data, None)
    frames = open_joint(dataset, ("front",), (SIDE, SIDE), np.array([0, 1]))
    latents = encoded(dataset, frames, remembering.encode, "some", remembering.config.eyes.shape)
    drawn = drawn_rows(dataset, remembering.overlay, np.array([0, 1]))
    rows = dataset.starts[1] + np.arange(STEPS)
    kept = behind_rows(dataset, latents, drawn, np.array([0, 1])).read(rows[None])[0]
    seen, there = latents.read(rows), left_open(torch.from_numpy(drawn.read(rows)))[:, 0].numpy()
    assert there.any() and not there.all()
    for step in range(STEPS):
        for y, x in np.ndindex(there.shape[1:]):
            last = np.flatnonzero(there[: step + 1, y, x])
            at = last[-1] if len(last) else 0
            assert np.array_equal(kept[step, :, y, x], seen[at, :, y, x])


def test_films_go_on_with_what_the_arm_covers(remembering, cut):
    """Chunk after chunk, also of some of the films alone."""
    joints, actions = torch.from_numpy(cut.joints()), torch.from_numpy(cut.actions[:, :4])
    memory = remembering.remember(cut.pictures[:, 0], joints=joints)
    assert torch.equal(memory.behind, memory.now)
    noise = torch.zeros(len(cut), 1, *memory.now.shape[1:])
    with torch.no_grad():
        poses = remembering.poses(memory, actions, (3, 4))
        latents, after = remembering.advance(memory, actions, (3, 4), noise)
        wanted = memory.behind
        for at in range(2):
            there = left_open(remembering.overlay.draw(poses[:, at]))
            wanted = torch.where(there, latents[:, at], wanted)
        assert torch.equal(after.behind, wanted) and not torch.equal(after.behind, after.now)

        # of the last two frames, whoever looks at others: a place that is open in between alone stays as it was
        everything = remembering.poses(memory, actions, (1, 2, 3, 4)).unbind(1)
        there = torch.stack([left_open(remembering.overlay.draw(one)) for one in everything])
        assert (there[:2].any(0) & ~there[2:].any(0)).any()
        for looked in ((4,), (1, 2, 3, 4)):
            same = remembering.advance(memory, actions, looked, noise)[1]
            assert torch.allclose(same.behind, after.behind, atol=1e-6)

        parts = Memory.joined([after.rows(torch.tensor([0])), after.rows(torch.tensor([1]))])
        assert torch.equal(parts.behind, after.behind[:2]) and torch.equal(parts.pose, after.pose[:2])

        # it is what the dynamics sees, not only what is kept
        with torch.no_grad():
            remembering.dynamics.leave.weight.normal_()
        other = dataclasses.replace(after, behind=-after.behind)
        made = [remembering.advance(one, actions, (4,), noise)[0] for one in (after, other)]
        assert not torch.allclose(*made)


def test_without_a_robot_nothing_covers_anything():
    with pytest.raises(ValueError, match="say which one is drawn: robot"):
        VideoConfig(behind=True)


def test_what_hides_the_arm_is_known_of_true_frames(model, reach_data):
    """A ball between camera and arm covers the pixels that it covers in the truth, and no others."""
    dataset = model.config.open(reach_data, None)
    lane = reach().lane()
    with closing(lane):
        obs, _ = lane.reset(seed=0)
        away, before = (
            lane.draw({STATE: obs[STATE], SCENE: np.array(ball)})["front"]
            for ball in ([0.3, -0.5, -0.5], [0.36, 0.0, 0.27])
        )
    joints, ball = torch.from_numpy(obs[STATE])[None], (away.astype(int) != before).any(-1)
    arm = model.overlay.draw(joints)[0, 0, ..., 4].numpy() != NOTHING
    alike = [float(model.overlay.alike(torch.from_numpy(one)[None, None], joints)) for one in (away, before)]
    hidden = (ball & arm).sum() / arm.sum()
    assert hidden > 0.02 and alike[0] > 0.99 and abs(1 - alike[1] - hidden) < 0.02

    rows = drawn_rows(dataset, model.overlay, np.array([0, 1]))
    read = rows.read(np.array([[0, 1], [STEPS, STEPS + 3]]))
    assert read.shape == (2, 2, 1, SIDE, SIDE, 5) and set(np.unique(read[..., 4])) <= {NOTHING, ROBOT, HIDDEN}
    assert np.array_equal(
        read[1, 1, ..., :4], model.overlay.drawer.pixels(dataset.columns[STATE][[STEPS + 3]])[0, ..., :4]
    )
    first = {path: path.stat().st_mtime_ns for path in rows.files.values()}
    again = drawn_rows(dataset, model.overlay, np.array([0, 1]))
    assert {path: path.stat().st_mtime_ns for path in again.files.values()} == first  # drawn once


def test_the_response_follows_goals_and_refuses_those_of_another():
    rng, count = np.random.default_rng(0), 400
    true = Response(2)
    true.above.fill_(0.05)  # slower one way than the other
    goals = np.repeat(rng.uniform(-1, 1, (count // 10, 2)), 10, 0).astype(np.float32)
    state, rows = torch.zeros(1, 4), []
    for goal in goals:
        rows.append(state[0, :2].numpy())
        state = true.step(state, torch.from_numpy(goal)[None])
    joints, episodes = np.array(rows), np.repeat([0, 1], count // 2)
    names = ("lift", "turn")
    answer = Response(2).fit(joints, goals, episodes, 8, names)
    assert answer.off < 0.05 * answer.standing
    with pytest.raises(RobotError, match="do not follow the actions"):
        Response(2).fit(joints, rng.permutation(goals), episodes, 8, names)
    for few in (np.arange(count), np.zeros(8, int), np.zeros(5, int)):
        with pytest.raises(RobotError, match="no episode has the 10 steps"):
            Response(2).fit(joints[: len(few)], goals[: len(few)], few, 8, names)
    # one joint whose action is another thing, beside one that moves much and follows
    other = np.column_stack([goals[:, 0], rng.permutation(goals[:, 1])]) * np.array([1, 0.3], np.float32)
    small = joints * np.array([1, 0.3], np.float32)
    with pytest.raises(RobotError, match="the joint 'turn' does not follow"):
        Response(2).fit(small, other.astype(np.float32), episodes, 8, names)


def test_each_camera_must_show_the_arm_where_it_is_drawn():
    """The near camera sees most of the arm's pixels; the far one, turned about, is refused none the less."""
    eyes = CodecConfig(cameras=("front", "wrist"), size=(SIDE, SIDE))
    overlay = Overlay(DrawnRobot(task="so101-reach"), eyes, 6)
    joints = torch.tensor(overlay.drawer.arm.home).float() + torch.linspace(-0.2, 0.2, 5)[:, None]
    drawn = overlay.draw(joints)
    area = (drawn[..., 4] != NOTHING).flatten(2).sum(2).float().mean(0)
    for place, name in enumerate(eyes.cameras):
        pictures = drawn[..., :3].clone()
        assert overlay.check_fit(overlay.alike(pictures, joints).nanmedian(0).values, "here") == 1
        pictures[:, place] = 255 - pictures[:, place].flip(1)
        alike = overlay.alike(pictures, joints)
        with pytest.raises(RobotError, match=f"as camera '{name}' sees it"):
            overlay.check_fit(alike.nanmedian(0).values, "here")
        assert f"as camera '{name}' sees it" in overlay.check_begin(pictures[:1], joints[:1, None])
    assert area.min() < 0.5 * area.max()
    away = overlay.alike(torch.zeros_like(drawn[..., :3]), joints) * torch.nan
    with pytest.raises(RobotError, match="in none of the pictures"):
        overlay.check_fit(away[0], "here")


def test_what_does_not_fit_is_refused_before_training(run, reach_data, tmp_path, capsys):
    codec = str(run.parent / "codec")
    for robot, said in (
        ({"task": "so101-nothing"}, "so101-reach"),
        ({"task": "so101-reach", "cameras": {"front": "top"}}, "no camera 'top'"),
        ({"task": "so101-reach", "cameras": {"top": "front"}}, "names 'top', which the model does not see"),
        ({"task": "so101-reach", "cameras": {"front": "wrist"}}, "looks as in the pictures"),
        ({"task": "pusht"}, "no arm of 'pusht'"),
    ):
        status, made = train(tmp_path / "bad", reach_data, robot, codec)
        assert status == 2 and said in capsys.readouterr().err
        assert not (made / "checkpoints").exists()
    tall = record(tmp_path / "tall", 48, 32, 2)  # cut to a square it shows less than the camera sees
    assert train(tmp_path / "bad", tall, {"task": "so101-reach"}, codec)[0] == 2
    assert "looks as in the pictures" in capsys.readouterr().err


def dream(run, starts="so101-reach", **more):
    about = {"type": "dream", "model": str(run), "starts": starts, "cameras": {"front": [SIDE, SIDE]}}
    return read_world(about | more)


def test_it_is_a_world_in_which_the_state_is_the_drawn_one(run, model):
    true = reach().lane()
    with closing(true), closing(Lanes(dream(run, batch=2, signals=True, success_at=1.0), 2)) as lanes:
        begun, info = lanes.reset(seed=[1000, 1001])
        assert not info["failed"]
        obs, _ = true.reset(seed=1000)
        assert np.allclose(begun[STATE][0], obs[STATE], atol=1e-6)
        goals = np.repeat((begun[STATE] + 0.2)[:, None], 6, 1).astype(np.float32)
        chunk = lanes.step_chunk(goals, look=(-1, 0))
        assert chunk.valid.all() and chunk.obs[FRONT].shape == (2, 2, SIDE, SIDE, 3)
        for goal in goals[0]:
            obs, *_ = true.step(goal)
        end = chunk.obs[STATE][0, -1]
        assert np.abs(end - obs[STATE]).max() < 0.1 < np.abs(begun[STATE][0] - obs[STATE]).max()
        arm = model.overlay.draw(torch.from_numpy(end)[None])[0, 0]
        same = (arm[..., :3].numpy() == chunk.obs[FRONT][0, -1]).all(-1)[arm[..., 4].numpy() != NOTHING]
        assert same.mean() > 0.5
        assert all(0 < one["arm"] < 1 for one in lanes.call("labels"))


def test_rules_judge_the_drawn_joints_and_the_thing_that_is_read(run):
    lane = dream(run, judge="states", real_at=0).lane()
    with closing(lane):
        obs, _ = lane.reset(seed=1000)
        for _ in range(2):
            obs, progress, *_ = lane.step(obs[STATE] + np.float32(0.1))
        rules, states = lane.dreamer.rules, lane.film.states[2]
        assert (False, progress) == rules.score(states) == lane.judge() and 0 < progress < 1
        assert np.allclose(rules.task.joints(rules.model, rules.data), lane.film.memory.pose[0, :6])
        assert np.allclose(rules.data.mocap_pos[0], states[SCENE])
    for other in ("so101-pick-place", "so101-red-ball"):  # the ball is none of their things
        dream(run, other).lane()
        with pytest.raises(ValueError, match="'observation.environment_state' differs: 'ball.x' is expected"):
            dream(run, other, judge="states").lane()


def test_first_frames_of_another_robot_are_refused(run, model, cut):
    with pytest.raises(ValueError, match="the arm of the world 'so101-pusht'"):
        dream(run, "so101-pusht").lane()
    assert dream(run, "so101-pick-place").lane().dreamer.starts.lane is not None  # the same arm and camera
    joints = torch.from_numpy(cut.joints())
    assert model.check_begin(cut.pictures[:1, 0], joints[:1]) == ""
    assert "another camera" in model.check_begin(cut.pictures[:1, 0].flip(2), joints[:1])
    with pytest.raises(ValueError, match="say the joints"):
        model.remember(cut.pictures[:1, 0])


def test_eval_measures_it(run, reach_data, tmp_path, capsys):
    words = ["--world-model", str(run), "--data", str(reach_data), "--out", str(tmp_path / "out"), "--horizon", "8"]
    assert main(["eval", *words, "--films", "4", "--shown", "1", "--kept", "3", "--batch", "2"]) == 0
    films = find_films([tmp_path / "out"]).films
    assert len(films) == 6 and sum(film.imagined for film in films) == 3
    for true, imagined in zip(films[::2], films[1::2], strict=True):  # of one recording
        assert true.place[2] == imagined.place[2] and true.known is imagined.known is False
        (begin, end), (same, other) = (one.pictures.read([0, 8]) for one in (true, imagined))
        assert true.pictures.count == imagined.pictures.count == 9
        apart = [np.abs(one.astype(int) - two).mean() for one, two in ((begin, same), (end, other))]
        assert apart[0] < 2 < apart[1]  # encoded by h264
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert about["measures"]["films"] == 4 and "gate: " in capsys.readouterr().out
    assert about["measures"]["following"]["gap"]["shuffled"][1] > 0  # an arm that is drawn follows from the beginning
