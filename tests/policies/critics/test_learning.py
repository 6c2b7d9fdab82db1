"""Critics learn: on a chain, on beginnings of chunks, and by the one training loop until they steer a policy."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.parse import parse
from understudy.configs.spec import SCENE, STATE, Embodiment, EmbodimentError, Window
from understudy.configs.world import read_world
from understudy.eval.evaluate.evaluate import Eval, evaluate
from understudy.policies.critics.calql import CalQLConfig
from understudy.policies.critics.chunk import ChunkConfig
from understudy.policies.critics.iql import IQLConfig
from understudy.policies.critics.open import critic_checkpoints, open_critic
from understudy.policies.critics.recall import RecallConfig
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.rewards import Rewards
from understudy.policies.data.weighting import Outcome, Weighting
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.checkpoint import CheckpointError, blank_scales, load_model, save_checkpoint
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Train
from understudy.policies.load import load_policy
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.ofql import OFQLConfig
from understudy.policies.networks.eyes import Vision
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import Past, Plans, Scales

LINKS, GAMMA = 10, 0.95
CHAIN = Embodiment(
    name="chain", action=("step",), action_units=("1",), limits=((-1.0, 1.0),), rate=10.0,
    state=tuple(f"s{i}" for i in range(LINKS)), state_units=("1",) * LINKS,
)  # fmt: skip
POINT = {"type": "point", "horizon": 24}
SMALL = {"inputs": (STATE, SCENE), "widths": (64, 64), "tau": 0.05, "rewards": Rewards(gamma=0.95)}
CHUNK = ChunkConfig(window=Window(observe=(0,), horizon=8), prefix=4, quantile=0.7, distil=0.6, **SMALL)


def updates_until_known(config) -> int:
    """Steps until the value of every state of a chain is right within 15 %, from all its windows at once."""
    ahead, episode = config.ahead, np.eye(LINKS, dtype=np.float32)
    dataset = SimpleNamespace(
        lengths=np.array([LINKS]), starts=np.array([0]), columns={"next.success": episode[:, -1:]}
    )
    frames, now = torch.eye(LINKS)[:, None], torch.arange(LINKS)
    batch = {key: torch.from_numpy(value) for key, value in config.rewards.rows(dataset, ahead).items()}
    batch |= {STATE: frames, "later." + STATE: frames[(now + ahead).clamp(max=LINKS - 1)]}
    batch |= {"action": torch.ones(LINKS, ahead, 1), "action.valid": now[:, None] + torch.arange(ahead) < LINKS}
    torch.manual_seed(0)
    zeros, ones = (0.0,) * LINKS, (1.0,) * LINKS
    model = config.build(CHAIN, Scales(action=((-1.0,), (1.0,)), states={STATE: (zeros, ones)}))
    optimizer, wanted = torch.optim.Adam(model.parameters(), 3e-3), batch["return"]
    for step in range(1, 2000):
        optimizer.zero_grad()
        model.loss(batch)[0].backward()
        optimizer.step()
        model.stepped()
        value = model.v(batch)[0].detach()
        if ((value - wanted).abs() < 0.15 * wanted)[: LINKS - ahead].all():
            return step
    raise AssertionError("the values were never right")


def test_value_travels_along_a_chain_in_fewer_updates_by_chunks():
    shared = {"widths": (64,), "tau": 0.1, "rewards": Rewards(gamma=GAMMA, final=1)}
    one = updates_until_known(IQLConfig(**shared))
    chunk = ChunkConfig(
        window=Window(observe=(0,), horizon=5), prefix=3, quantile=0.7, distil=0.6, bounded=False, **shared
    )
    assert 2 * updates_until_known(chunk) < one


def test_the_prefix_critic_ranks_beginnings_by_what_can_follow():
    """After +1 a quarter of the chunks earns 1, after -1 all earn 0.4: the mean says -1, the best that follows +1."""
    rng = np.random.default_rng(0)
    first, good = rng.choice([-1.0, 1.0], 512), rng.random(512) < 0.25
    reward = np.where(first > 0, good, 0.4)
    actions = np.stack([first, np.where(good, 1.0, -1.0)], 1)[..., None].astype(np.float32)
    flat = torch.zeros(512, 1, LINKS)
    batch = {STATE: flat, "later." + STATE: flat, "action": torch.from_numpy(actions)}
    batch |= {"reward": torch.from_numpy(reward).float(), "discount": torch.zeros(512)}
    batch |= {"action.valid": torch.ones(512, 2, dtype=torch.bool), "whole": torch.ones(512, dtype=torch.bool)}
    found = {}
    for distil in (0.5, 0.9):
        torch.manual_seed(0)
        config = ChunkConfig(
            window=Window(observe=(0,), horizon=2), prefix=1, distil=distil, bounded=False, widths=(32,)
        )
        states = {STATE: ((0.0,) * LINKS, (1.0,) * LINKS)}
        model = config.build(CHAIN, Scales(action=((-1.0,), (1.0,)), states=states))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            model.loss(batch)[0].backward()
            optimizer.step()
        obs = {STATE: torch.zeros(2, 1, LINKS)}
        found[distil] = model.prefix(obs, torch.tensor([[-1.0], [1.0]])).mean(0).tolist()
    assert found[0.5] == pytest.approx([0.4, 0.25], abs=0.06) and found[0.9] == pytest.approx([0.4, 0.75], abs=0.06)


def test_a_critic_of_two_tasks_tells_them_apart():
    """What is good in one task is bad in the other: the wrong task lowers the value of what was done."""
    rng = torch.Generator().manual_seed(0)
    action = torch.where(torch.rand(64, 1, 1, generator=rng) < 0.5, -1.0, 1.0)
    task = torch.randint(2, (64,), generator=rng)
    flat, yes = torch.zeros(64, 1, LINKS), torch.ones(64, 1, dtype=torch.bool)
    batch = {STATE: flat + 0.1, "later." + STATE: flat, "action": action, "action.valid": yes, "task": task}
    batch |= {
        "reward": ((action.flatten() > 0) == (task == 1)).float(),
        "discount": torch.zeros(64),
        "whole": yes[:, 0],
    }
    states = {STATE: ((0.0,) * LINKS, (1.0,) * LINKS)}
    torch.manual_seed(0)
    critic = IQLConfig(tasks=("left", "right"), widths=(32,), tau=0.1).build(
        CHAIN, Scales(action=((-1.0,), (1.0,)), states=states)
    )
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        critic.loss(batch)[0].backward()
        optimizer.step()
        critic.stepped()
    none, one = torch.zeros(1, 0, 1), torch.ones(1, 1, dtype=torch.bool)
    past = Past({STATE: batch[STATE][:1]}, (0,), one, none, (), one[:, :0], torch.zeros(1, dtype=torch.int64))
    both = torch.tensor([[[[-1.0]], [[1.0]]]])
    for name, best in (("left", 0), ("right", 1)):
        critic.judge_task(name)
        scores = critic.score(past, Plans(both[:, :, :0], both, past.now))[0]
        assert scores[best] > 0.8 and scores[1 - best] < 0.2
    for wrong in (None, "up"):
        with pytest.raises(ValueError, match="trained for left, right; write RUN@TASK"):
            critic.judge_task(wrong)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """60 episodes of the point, by actors that err to different degrees; about half succeed."""
    root, rng = tmp_path_factory.mktemp("value") / "data", np.random.default_rng(0)
    writer = DatasetWriter(root, read_world("point").embodiment())
    for start in range(60):
        target, angle, off = rng.uniform(-0.8, 0.8, 2), rng.uniform(-np.pi, np.pi), rng.uniform(0.2, 1.5)
        place, states, actions, won = (
            target + rng.uniform(0.2, 0.9) * np.array([np.cos(angle), np.sin(angle)]),
            [],
            [],
            [],
        )
        while len(won) < 30 and not any(won):
            if len(won) % 4 == 0:
                wrong = off * rng.standard_normal(2)
            aim = 4 * (target - place)
            states.append(place)
            actions.append(np.clip(aim / max(1, np.linalg.norm(aim)) + wrong, -1, 1))
            place = place + actions[-1] / 20
            won.append(np.linalg.norm(place - target) < 0.05)
        action, none = np.array(actions, np.float32), np.zeros(len(won), np.float32)
        seen = {STATE: np.array(states, np.float32), SCENE: np.tile(target, (len(won), 1)).astype(np.float32)}
        writer.add(
            Episode(
                start=start,
                task="point",
                obs=seen,
                action=action,
                sent=action,
                reward=none,
                progress=none,
                success=np.array(won),
                terminated=bool(won[-1]),
                truncated=not won[-1],
            )  # fmt: skip
        )
    return root


def settings(data: Path, out: Path, **changes) -> Train:
    plain = Train(
        data=str(data), out=out, critic=IQLConfig(**SMALL), steps=500, batch=128, validation=0.1, device="cpu",
        optimize=Optimize(lr=2e-3, warmup=20, ema=0.98, weight_decay=0.0), threads=1, log_every=100,
        validate_every=250, save_every=250,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> Path:
    """Critics `first`, hardly trained, and `chunk`, and an untrained `policy` that executes 4 of 8 actions."""
    root = tmp_path_factory.mktemp("runs")
    settings(data, root / "first", steps=20).run()
    settings(data, root / "chunk", critic=CHUNK).run()
    torch.manual_seed(0)
    body = read_world("point").embodiment()
    config = DiffusionConfig(
        window=Window(observe=(0,), horizon=8), inputs=(STATE, SCENE), n_action_steps=4,
        network=MLPConfig(width=16, depth=1, condition_width=8),
    )  # fmt: skip
    save_checkpoint(root / "policy", config.build(body, blank_scales(body)), kind="policy", config=config)
    return root


def test_a_critic_is_a_run_like_any_other(runs):
    critic, info = load_model(runs / "chunk", "critic")
    assert (info["type"], info["step"], critic.reads, critic.window.horizon) == ("chunk", 500, 4, 8)
    assert json.loads((runs / "chunk" / "last" / "config.json").read_text())["kind"] == "critic"
    lines = [json.loads(line) for line in (runs / "chunk" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["chunk_loss"] for line in lines if "chunk_loss" in line]
    assert losses[-1] < losses[0] and any("validation/prefix_q" in line for line in lines)
    with pytest.raises(CheckpointError, match="holds a critic, not a policy"):
        load_model(runs / "chunk", "policy")
    with pytest.raises(CheckpointError, match="holds a policy, not a critic"):
        open_critic(str(runs / "policy"), SimpleNamespace())


def test_a_trained_critic_steers_a_policy_that_never_learnt(runs, tmp_path):
    """The best of 16 plans comes nearer to the target than the first one, from the same starts."""

    def act(name: str, **changes):
        told = {"policy": str(runs / "policy"), "world": POINT, "episodes": 32, "env_seed": 1000, "videos": 0}
        return evaluate(Eval(**told, out=str(tmp_path / name), **changes))

    base, best = act("base"), act("best", candidates=16, critic=str(runs / "chunk"))
    gain = np.subtract(best.column("best_progress"), base.column("best_progress"))
    assert gain.mean() > 2 * gain.std() / 32**0.5  # two standard errors of 32 pairs
    first = act("first", candidates=2, critic=str(runs / "first"))  # judges one action of the four that are executed
    assert first.manifest["agent"]["n_action_steps"] == 4 and len(first.column("progress")) == 32


def test_the_task_that_a_critic_judges_is_said_where_it_is_opened(data, tmp_path):
    both = IQLConfig(**SMALL, tasks=("other", "point"))
    settings(data, tmp_path / "run", critic=both, steps=2).run()
    policy = SimpleNamespace(embodiment=read_world("point").embodiment())
    assert open_critic(f"{tmp_path}/run@point", policy).task == 1
    assert [path.name for path in critic_checkpoints(f"recall:3>{tmp_path}/run@point")] == ["00000002"]
    with pytest.raises(ValueError, match="trained for other, point; write RUN@TASK"):
        open_critic(f"{tmp_path}/run", policy)
    with pytest.raises(DatasetError, match="has the task 'point', which is not among other"):
        settings(data, tmp_path / "x", critic=IQLConfig(**SMALL, tasks=("other",))).run()


def test_a_critic_for_another_body_is_refused(runs, tmp_path):
    body = read_world("point").embodiment()
    for changes, told in (
        ({"action": ("x", "y", "z"), "action_units": ("m/s",) * 3, "limits": ((-1.0, 1.0),) * 3}, "differ in action"),
        ({"limits": ((-2.0, 2.0), (-1.0, 1.0))}, "differ in limits"),
    ):
        with pytest.raises(EmbodimentError, match=told):
            open_critic(str(runs / "first"), SimpleNamespace(embodiment=dataclasses.replace(body, **changes)))
    shutil.copytree(runs / "first", tmp_path / "other", symlinks=True)
    strange = dataclasses.replace(body, scene=("goal.x", "goal.y"))
    (tmp_path / "other" / "last" / "embodiment.json").write_text(strange.to_json())
    (tmp_path / "other" / "last" / "digests.json").unlink()
    told = Eval(
        policy=str(runs / "policy"), world=POINT, candidates=2, critic=str(tmp_path / "other"), out=str(tmp_path / "o")
    )
    with pytest.raises(EmbodimentError, match="'goal.x' is expected, 'target.x' is offered"):
        evaluate(told)


@pytest.mark.parametrize("critic", [CalQLConfig(**SMALL), CHUNK], ids=["calql", "chunk"])
def test_a_resumed_training_is_exact_and_episodes_may_be_weighted(data, tmp_path, critic):
    plan = {"steps": 20, "save_every": 10, "critic": critic, "keep": 9}
    plan["weighting"] = Weighting(outcome=Outcome.success)
    settings(data, tmp_path / "whole", **plan).run()
    shutil.copytree(tmp_path / "whole", tmp_path / "again", symlinks=True)
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "00000020")
    (tmp_path / "again" / "last").unlink()
    (tmp_path / "again" / "last").symlink_to("checkpoints/00000010")
    Train(resume=tmp_path / "again").run()
    whole, again = ((tmp_path / name / "last" / "model.safetensors").read_bytes() for name in ("whole", "again"))
    assert whole == again
    settings(data, tmp_path / "plain", **plan | {"weighting": None}).run()
    assert (tmp_path / "plain" / "last" / "model.safetensors").read_bytes() != whole


def test_a_policy_that_learns_with_a_critic_is_trained_by_the_same_loop(data, tmp_path):
    policy = OFQLConfig(
        window=Window(observe=(0,), horizon=4), inputs=(STATE, SCENE), n_action_steps=2, widths=(16,),
        network=MLPConfig(width=16, depth=1, condition_width=8),
    )  # fmt: skip
    settings(data, tmp_path / "run", critic=None, policy=policy, steps=4, log_every=2).run()
    saved, info = load_policy(tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert info["type"] == "ofql" and saved.config == policy and "validation/action_error" in lines and "td" in lines


def test_what_cannot_be_trained_is_refused_before_a_run_is_made(data, tmp_path):
    policy = DiffusionConfig(window=Window(horizon=4), n_action_steps=2)
    for changes, error, told in (
        ({"policy": policy}, ValueError, "and only one of them"),
        ({"critic": RecallConfig()}, ValueError, "'recall' needs no training"),
        ({"eval": Path("configs/eval/lift.yaml")}, ValueError, "a critic does not"),
        ({"critic": IQLConfig(rewards=Rewards(success="next.victory"))}, DatasetError, "rewards.success to every"),
        (
            {"critic": IQLConfig(inputs=("observation.images.top",), vision=Vision(init="runs/none", frozen=True))},
            DatasetError,
            "has no camera 'top'",
        ),
    ):
        with pytest.raises(error, match=told):
            settings(data, tmp_path / "x", **changes).run()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["iql", "calql", "chunk"])
def test_the_shipped_settings_are_of_critics(name):
    config = parse(Train, f"configs/train/value_{name}.yaml", [])
    config.check()
    assert config.learner.get_choice_name(type(config.learner)) == name and config.learner.inputs == (STATE, SCENE)
