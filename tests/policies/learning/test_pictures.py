"""Policies that see: they learn what only a picture shows; encoders are handed on; embeddings are kept, and right."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, IMAGES, STATE, Embodiment, Window
from understudy.eval.offline.errors import Asked, chunk_errors
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.open import Acting, open_agent
from understudy.policies.agent.sight import SightWarning
from understudy.policies.critics.iql import IQLConfig
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.looks import look_of
from understudy.policies.data.open import open_dataset
from understudy.policies.data.rewards import Rewards
from understudy.policies.data.tables import DatasetWarning
from understudy.policies.data.windows import Windows
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning import memory
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.pictures import open_pictures, settled, signature
from understudy.policies.learning.train import Train, resume_run, start_run
from understudy.policies.load import load_policy
from understudy.policies.models.flow import FlowConfig
from understudy.policies.models.regression import RegressionConfig
from understudy.policies.networks.augment import Augment
from understudy.policies.networks.encoder import EncoderError
from understudy.policies.networks.eyes import Vision
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.resnet import ResNetConfig
from understudy.policies.policy import LaneNoise, Past

pytestmark = pytest.mark.usefixtures("cache")

TOP, SIDE = IMAGES + "top", 24
BODY = Embodiment(
    name="dot", action=("x", "y"), action_units=("m", "m"), limits=((-1.0, 1.0), (-1.0, 1.0)), rate=10.0,
    state=("clock",), state_units=("s",), cameras={"top": (SIDE, SIDE)},
)  # fmt: skip
ENCODER = ResNetConfig(width=16, blocks=(1,), keypoints=8, features=8)
SETTINGS = {
    "inputs": (STATE, TOP),
    "window": Window(observe=(0,), horizon=2),
    "n_action_steps": 1,
    "network": MLPConfig(width=32, depth=1, condition_width=32),
}


def picture(place: np.ndarray) -> np.ndarray:
    """A bright dot on grey at a place in [-1, 1]."""
    out = np.full((SIDE, SIDE, 3), 60, np.uint8)
    x, y = ((place + 1) / 2 * (SIDE - 5)).round().astype(int)
    out[y : y + 4, x : x + 4] = (250, 200, 40)
    return out


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """16 episodes of a dot that moves about; the action is its place, which the state does not tell."""
    root, rng = tmp_path_factory.mktemp("dots") / "demos", np.random.default_rng(0)
    writer = DatasetWriter(root, BODY, pictures="image")
    for start in range(16):
        places = rng.uniform(-0.9, 0.9, (12, 2)).astype(np.float32)
        none = np.zeros(12, np.float32)
        obs = {STATE: np.arange(12, dtype=np.float32)[:, None] / 10, TOP: np.stack([picture(p) for p in places])}
        quiet = {"reward": none, "progress": none, "success": none > 0, "terminated": False, "truncated": True}
        writer.add(Episode(start=start, task="point", obs=obs, action=places, sent=places, **quiet))
    return root


@pytest.fixture(scope="module")
def seeing(demos, tmp_path_factory):
    """A run whose encoder was trained from scratch."""
    run = tmp_path_factory.mktemp("runs") / "seeing"
    vision = Vision(encoder=ENCODER, augment=Augment(shift=0, brightness=0.1, contrast=0, saturation=0))
    start_run(_train(demos, run, RegressionConfig(vision=vision, **SETTINGS), steps=250))
    return run


def _train(demos, run, policy, steps=4, **changes):
    pace = {"log_every": 50, "validate_every": steps, "save_every": steps}
    optimize = Optimize(lr=3e-3, warmup=10, ema=0.9)
    settings = {"batch": 32, "validation": 0.2, "optimize": optimize, **pace, **changes}
    return Train(data=str(demos), policy=policy, out=run, steps=steps, **settings)


def test_a_policy_learns_what_only_the_picture_shows(seeing):
    last = [json.loads(line) for line in (seeing / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["validation/action_error"] < 0.5 * last["validation/mean_action_error"]


def test_pictures_are_read_in_the_same_way_after_loading(seeing):
    policy, _ = load_policy(seeing)
    assert not policy.training and policy.eyes.sizes == {TOP: (SIDE, SIDE)}
    place = np.array([0.5, -0.5], np.float32)
    future = policy.plan(_past(picture(place)[None, None]), 1, LaneNoise(0, np.zeros(1), np.zeros(1))).future
    assert np.abs(future[0, 0, 0].numpy() - place).max() < 0.4


def test_a_long_context_learns_from_kept_embeddings_of_a_frozen_encoder(demos, seeing, tmp_path, capsys):
    window = Window(observe=(-2, -1, 0), recall=(-2, -1), horizon=2)
    policy = FlowConfig(**{**SETTINGS, "window": window}, vision=Vision(init=str(seeing), frozen=True), noise_draws=2)
    start_run(_train(demos, tmp_path / "long", policy))
    assert "192 frames are read as 8 numbers each, 0 of them kept from before" in capsys.readouterr().out
    start_run(_train(demos, tmp_path / "again", policy))
    assert "192 frames are read as 8 numbers each, 192 of them kept from before" in capsys.readouterr().out

    # the frozen weights are those of the run, and what is kept is what acting would see
    model, _ = load_policy(tmp_path / "long")
    dataset = open_dataset(demos, columns=(STATE, TOP))
    kept = open_pictures(dataset, model, np.arange(16))[TOP].read(np.arange(40))
    fresh = dataclasses.replace(model.config, vision=dataclasses.replace(model.config.vision, frozen=False))
    online = fresh.build(dataset.embodiment, _scales(model))
    online.load_state_dict(model.state_dict())
    frames = open_pictures(dataset, online, np.arange(16))[TOP].read(np.arange(40))
    seen = online.eval().eyes.embed(TOP, torch.from_numpy(frames))
    assert np.abs(kept - seen.detach().numpy()).max() < 1e-5
    assert signature(model.eyes, TOP) == signature(load_policy(tmp_path / "again")[0].eyes, TOP)


def test_another_encoder_never_takes_what_was_kept(demos, seeing, tmp_path, capsys):
    other = tmp_path / "other"
    vision = Vision(encoder=ENCODER)
    start_run(_train(demos, other, RegressionConfig(vision=vision, **SETTINGS)))
    frozen = RegressionConfig(**SETTINGS, vision=Vision(init=str(other), frozen=True))
    capsys.readouterr()
    start_run(_train(demos, tmp_path / "head", frozen))
    assert "0 of them kept from before" in capsys.readouterr().out


def test_a_training_on_pictures_goes_on_bit_for_bit(demos, seeing, tmp_path):
    for name, vision in (("scratch", Vision(encoder=ENCODER)), ("frozen", Vision(init=str(seeing), frozen=True))):
        policy = FlowConfig(**SETTINGS, vision=vision)
        start_run(_train(demos, tmp_path / name, policy, steps=6))
        half = dataclasses.replace(_train(demos, tmp_path / f"{name}-half", policy, steps=6), save_every=3)
        start_run(half)
        shutil.rmtree(tmp_path / f"{name}-half" / "checkpoints" / "00000006")
        for link in ("last", "best"):
            (tmp_path / f"{name}-half" / link).unlink(missing_ok=True)
        (tmp_path / f"{name}-half" / "last").symlink_to("checkpoints/00000003")
        resume_run(tmp_path / f"{name}-half")
        ours, theirs = (load_policy(tmp_path / one)[0].state_dict() for one in (name, f"{name}-half"))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_an_agent_encodes_each_frame_once_and_plans_as_from_pictures(demos, seeing, tmp_path):
    window = Window(observe=(-2, -1, 0), recall=(-2, -1), horizon=4)
    policy = FlowConfig(**{**SETTINGS, "window": window, "n_action_steps": 2}, vision=Vision(init=str(seeing)))
    start_run(_train(demos, tmp_path / "long", policy))
    model, _ = load_policy(tmp_path / "long")

    rng, encoded = np.random.default_rng(3), []
    frames = np.stack([[picture(rng.uniform(-0.9, 0.9, 2)) for _ in range(2)] for _ in range(5)])  # (time, B, ...)
    embed = model.eyes.embed
    model.eyes.embed = lambda key, pictures: encoded.append(len(pictures)) or embed(key, pictures)
    agent = Agent(model, lanes=2, n_action_steps=2)
    state = np.zeros((2, 1), np.float32)
    agent.reset(np.arange(2), np.ones(2, bool), {STATE: state, TOP: frames[0]})
    for step in (1, 3):
        chunk = agent.act()
        look = np.stack([frames[step], frames[step + 1]], 1)
        agent.observe({STATE: np.zeros((2, 2, 1), np.float32), TOP: look}, chunk, np.ones((2, 2), bool))
    assert encoded == [2] * 5

    past = agent.past()
    assert past.obs[TOP].shape == (2, 3, 8)
    pictures = torch.from_numpy(frames[2:5].swapaxes(0, 1).copy())
    noise = [LaneNoise(0, np.arange(2), np.full(2, 2)) for _ in range(2)]
    kept = model.plan(past, 1, noise[0]).future
    anew = model.plan(dataclasses.replace(past, obs={**past.obs, TOP: pictures}), 1, noise[1]).future
    assert torch.allclose(kept, anew, atol=1e-5)


def test_a_picture_of_another_size_is_fitted_as_the_recorded_ones_were(seeing):
    model, _ = load_policy(seeing)
    agent = Agent(model, lanes=1, n_action_steps=1)
    assert agent.pictures == {TOP: (SIDE, SIDE)}
    large = np.repeat(np.repeat(picture(np.zeros(2)), 2, 0), 2, 1)
    small = Agent(model, lanes=1, n_action_steps=1)
    for one, seen in ((agent, large), (small, picture(np.zeros(2)))):
        one.reset(np.zeros(1), np.ones(1, bool), {STATE: np.zeros((1, 1), np.float32), TOP: seen[None]})
    assert np.allclose(agent.act(), small.act(), atol=1e-5)


def test_a_critic_ranks_plans_by_what_a_policy_s_frozen_encoder_sees(demos, seeing, tmp_path, capsys):
    vision = Vision(init=str(seeing), frozen=True)
    critic = IQLConfig(inputs=(STATE, TOP), vision=vision, rewards=Rewards(success="every"), widths=(16,))
    settings = {"batch": 32, "validation": 0.2, "log_every": 4, "validate_every": 4, "save_every": 4}
    start_run(Train(data=str(demos), critic=critic, out=tmp_path / "value", steps=4, **settings))
    assert "192 frames are read as 8 numbers each" in capsys.readouterr().out

    policy = FlowConfig(**SETTINGS, vision=Vision(encoder=ENCODER))
    start_run(_train(demos, tmp_path / "flow", policy))
    acting = Acting(policy=str(tmp_path / "flow"), block=2, candidates=3, critic=str(tmp_path / "value"))
    agent, _ = open_agent(acting, lambda: BODY)
    first = np.stack([picture(np.zeros(2)), picture(np.full(2, 0.8))])
    agent.reset(np.arange(2), np.ones(2, bool), {STATE: np.zeros((2, 1), np.float32), TOP: first})
    assert agent.past().obs[TOP].dtype == torch.uint8  # two read it: each by its own encoder
    scores = agent.critic.score(agent.past(), agent.planner.plan(agent.past(), 3, LaneNoise(0, *np.zeros((2, 2)))))
    assert scores.shape == (2, 3) and bool((scores[0] != scores[1]).any()) and agent.act().shape == (2, 1, 2)


def test_several_noise_draws_encode_an_observation_once(demos):
    dataset = open_dataset(demos, columns=(STATE, TOP))
    policy = FlowConfig(**SETTINGS, vision=Vision(encoder=ENCODER), noise_draws=5)
    model = policy.build(dataset.embodiment, _scales())
    calls, context = [], model.context
    model.context = lambda batch: calls.append(1) or context(batch)
    batch = {
        STATE: torch.zeros(3, 1, 1),
        TOP: torch.zeros(3, 1, SIDE, SIDE, 3, dtype=torch.uint8),
        "observation.valid": torch.ones(3, 1, dtype=torch.bool),
        ACTION: torch.rand(3, 2, 2),
        "action.valid": torch.ones(3, 2, dtype=torch.bool),
    }
    clean, encoded, repeated = model.drawn_from(batch)
    assert len(clean) == len(encoded) == len(repeated["action.valid"]) == 15 and calls == [1]
    assert torch.equal(clean[:5], clean[:1].expand(5, -1, -1)) and float(model.loss(batch)[0].detach()) > 0


def test_what_cannot_be_seen_is_refused_before_anything_is_trained(demos, seeing, tmp_path):
    run = tmp_path / "run"
    wrist = {**SETTINGS, "inputs": (STATE, IMAGES + "wrist")}
    with pytest.raises(DatasetError, match="no camera 'wrist'; its cameras: top"):
        start_run(_train(demos, run, FlowConfig(**wrist)))
    blind = tmp_path / "blind"
    start_run(_train(demos, blind, RegressionConfig(**{**SETTINGS, "inputs": (STATE,)})))
    with pytest.raises(EncoderError, match="reads no pictures; take the encoders of another run"):
        start_run(_train(demos, run, FlowConfig(**SETTINGS, vision=Vision(init=str(blind)))))
    assert not run.exists()


def test_a_policy_acts_and_goes_on_when_the_run_that_it_took_its_encoder_from_is_gone(demos, seeing, tmp_path):
    parent = tmp_path / "parent"
    shutil.copytree(seeing, parent, symlinks=True)
    policy = FlowConfig(**SETTINGS, vision=Vision(init=str(parent), frozen=True))
    start_run(_train(demos, tmp_path / "head", policy))
    shutil.rmtree(parent)
    before = load_policy(tmp_path / "head" / "last")[0].state_dict()
    resume_run(tmp_path / "head", {"steps": 6})
    after = load_policy(tmp_path / "head" / "last")[0].state_dict()
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved and "eyes" not in moved  # averaging leaves what is frozen as it was, to the last bit


def test_how_cameras_look_is_kept_and_a_swap_is_named_when_acting(demos, seeing, tmp_path):
    model, _ = load_policy(seeing)
    looks = model.config.vision.looks
    assert set(looks) == {TOP} and len(looks[TOP]) == 48
    other = IMAGES + "side"
    body = dataclasses.replace(BODY, cameras={"top": (SIDE, SIDE), "side": (SIDE, SIDE)})
    bright, dark = np.full((1, SIDE, SIDE, 3), (200, 220, 120), np.uint8), np.full((1, SIDE, SIDE, 3), 30, np.uint8)
    vision = Vision(encoder=ENCODER, looks={TOP: look_of(bright), other: look_of(dark)})
    two = FlowConfig(**{**SETTINGS, "inputs": (STATE, TOP, other)}, vision=vision).build(body, _scales())
    state = np.zeros((1, 1), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Agent(two, lanes=1).reset(np.zeros(1), np.ones(1, bool), {STATE: state, TOP: bright, other: dark})
    with pytest.warns(SightWarning, match="are the two cameras swapped"):
        Agent(two, lanes=1).reset(np.zeros(1), np.ones(1, bool), {STATE: state, TOP: dark, other: bright})


def test_settings_beside_a_run_that_encoders_are_taken_from_are_refused(demos, seeing, tmp_path):
    for vision in (Vision(init=str(seeing), crop=(8, 8)), Vision(init=str(seeing), encoder=ResNetConfig(width=32))):
        with pytest.raises(EncoderError, match="leave vision.(crop|encoder) out"):
            start_run(_train(demos, tmp_path / "run", FlowConfig(**SETTINGS, vision=vision)))


def test_a_look_other_than_that_of_the_run_that_encoders_are_taken_from_is_named(demos, seeing, monkeypatch):
    dataset = open_dataset(demos, columns=(STATE, TOP))
    policy = FlowConfig(**SETTINGS, vision=Vision(init=str(seeing), frozen=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settled(policy, dataset)
    monkeypatch.setattr("understudy.policies.learning.pictures._looks", lambda *_: {TOP: (60,) * 48})
    orange = Vision(encoder=ENCODER, looks={TOP: (250, 200, 40) * 16})
    monkeypatch.setattr("understudy.policies.learning.pictures._vision_of", lambda _: orange)
    with pytest.warns(DatasetWarning, match="shows no colours now"):
        settled(policy, dataset)


def _past(pictures: np.ndarray) -> Past:
    lanes = len(pictures)
    return Past(
        obs={STATE: torch.zeros(lanes, 1, 1), TOP: torch.from_numpy(pictures)},
        obs_times=(0,),
        obs_valid=torch.ones(lanes, 1, dtype=torch.bool),
        actions=torch.zeros(lanes, 0, 2),
        action_times=(),
        action_valid=torch.ones(lanes, 0, dtype=torch.bool),
        now=torch.zeros(lanes, dtype=torch.int64),
    )


def _scales(model=None):
    from understudy.policies.policy import Scales

    return Scales(action=((-1.0, -1.0), (1.0, 1.0)), states={STATE: ((0.0,), (1.0,))})


def test_fine_tuning_with_another_camera_takes_what_fits_and_says_what_is_new(demos, seeing, tmp_path, capsys):
    other = tmp_path / "side"
    shutil.copytree(demos, other)
    for file in (other / "meta" / "info.json", other / "meta" / "embodiment.json"):
        file.write_text(file.read_text().replace('observation.images.top"', 'observation.images.side"'))
    body = json.loads((other / "meta" / "embodiment.json").read_text())
    body["cameras"] = {"side": body["cameras"]["top"]}
    (other / "meta" / "embodiment.json").write_text(json.dumps(body))
    for file in other.rglob("*.parquet"):
        table = pq.read_table(file)
        names = [name.replace("images.top", "images.side") for name in table.column_names]
        pq.write_table(table.rename_columns(names), file)

    inputs = {**SETTINGS, "inputs": (STATE, IMAGES + "side")}
    policy = RegressionConfig(**inputs, vision=Vision(encoder=ENCODER))
    start_run(_train(other, tmp_path / "tuned", policy, init=seeing, freeze=("network",)))
    told = capsys.readouterr().out
    assert "cameras that it did not read, whose encoders begin anew: observation.images.side" in told
    assert "cameras of its own that are left out: observation.images.top" in told
    assert "frozen: network, 0.01 M parameters" in told
    ours, theirs = (load_policy(run)[0].network.state_dict() for run in (tmp_path / "tuned", seeing))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    seen = RegressionConfig(**SETTINGS, vision=Vision(encoder=ENCODER))
    with pytest.raises(ValueError, match="no part 'head' to freeze; the parts are eyes, network, and theirs"):
        start_run(_train(demos, tmp_path / "bad", seen, freeze=("head",)))


def test_a_training_that_would_find_no_memory_is_refused_and_may_be_tried_again(demos, tmp_path, monkeypatch):
    config = _train(demos, tmp_path / "run", RegressionConfig(vision=Vision(encoder=ENCODER), **SETTINGS), batch=64)
    monkeypatch.setattr(memory, "free_memory", lambda: 64 * 20_000.0)
    with pytest.raises(ValueError, match="would keep .* GB .*24x24, --batch 64.*fewer at a time") as told:
        start_run(config)
    assert "vision.size" not in str(told.value)  # they are small already

    fewer = int(str(told.value).rpartition(" ")[2].rstrip(")"))
    start_run(dataclasses.replace(config, batch=fewer))
    assert (config.out / "last").exists()


def test_what_encoders_keep_grows_with_the_batch_and_is_found_without_a_trace(seeing):
    model, _ = load_policy(seeing)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state, shown = torch.get_rng_state(), torch.zeros(4, 1, SIDE, SIDE, 3, dtype=torch.uint8)
    one, four = (memory.kept_bytes(model.train(), {TOP: shown[:count]}) for count in (1, 4))
    assert SIDE * SIDE * 3 * 4 < one < four < 4.1 * one
    assert torch.equal(state, torch.get_rng_state()) and model.eyes.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_recorded_pictures_are_resized_as_in_training(demos, tmp_path):
    smaller = Vision(encoder=ENCODER, size=(SIDE // 2, SIDE // 2))
    start_run(_train(demos, tmp_path / "run", RegressionConfig(vision=smaller, **SETTINGS)))
    model, _ = load_policy(tmp_path / "run")
    dataset = open_dataset(str(demos))
    asked = Asked(n_action_steps=1, candidates=1, policy_seed=0, every=1, batch=4)
    row = chunk_errors(model, dataset, 0, np.zeros(len(model.embodiment.action), np.float32), asked)
    assert np.isfinite(row["error"]).all()

    with pytest.raises(DatasetError, match="'side', which is not read: top"):
        Windows(dataset, model.window, tuple(model.inputs), images={"side": (8, 8)})
