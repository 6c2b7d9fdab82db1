"""Policies of ours under lerobot: its batches are our windows, its checkpoint acts here as there, and back again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import understudy
from understudy.__main__ import main
from understudy.configs.episode import Episode
from understudy.configs.spec import STATE, Embodiment, EmbodimentError
from understudy.policies.data.corrections import INTERVENTION
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.windows import Windows
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.export import documents_of, exportable, write_lerobot
from understudy.policies.foreign import offered
from understudy.policies.foreign.scale import ForeignError
from understudy.policies.learning.checkpoint import CheckpointError, save_checkpoint
from understudy.policies.load import load_policy

SMALL = "{network: {type: mlp, width: 16, depth: 1, condition_width: 16}, sampler: {steps: 2}}"
DISTRIBUTIONS = Path(offered.__file__).parent / "distributions"
WORLD = "so101-reach"
HORIZON = 12  # of the evaluations here


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two demonstrations."""
    out = tmp_path_factory.mktemp("data") / "demos"
    understudy.demos(WORLD, out, episodes=2)
    return out


@pytest.fixture(scope="module")
def trained(plugged, data, tmp_path_factory):
    """(lerobot's policy after three steps, the checkpoint that lerobot saved of it, the last batch)."""
    torch.manual_seed(0)
    config = plugged.settings.UnderstudyFlowConfig(
        device="cpu", push_to_hub=False, settings=SMALL, n_past_steps=2, horizon=8, n_action_steps=4
    )
    rate = open_dataset(data).rate
    deltas = {key: [step / rate for step in config.observation_delta_indices] for key in ("observation.state",)}
    deltas["observation.environment_state"] = deltas["observation.state"]
    deltas["action"] = [step / rate for step in config.action_delta_indices]
    frames = plugged.dataset("me/demos", root=data, delta_timestamps=deltas)
    policy = plugged.policy(config, ds_meta=frames.meta)
    before, after = plugged.processors(config, dataset_stats=frames.meta.stats)
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    policy.train()
    for step in (1, 2, 0):
        items = [frames[place] for place in range(step, len(frames), 3)]
        batch = before(torch.utils.data.default_collate(items))
        loss, _ = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        policy.update()
    folder = tmp_path_factory.mktemp("lerobot") / "pretrained_model"
    policy.save_pretrained(folder)
    before.save_pretrained(folder)
    after.save_pretrained(folder)
    return policy.eval(), folder, batch


def seen(count=2, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "observation.state": torch.from_numpy(rng.normal(0, 0.3, (count, 6)).astype(np.float32)),
        "observation.environment_state": torch.from_numpy(rng.normal(0.2, 0.05, (count, 3)).astype(np.float32)),
    }


def rewritten(folder, place, **changes):
    other = shutil.copytree(folder, place)
    document = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(document | changes))
    return other


def test_lerobot_finds_policies_worlds_and_robots_by_name(plugged):
    from lerobot.robots import RobotConfig

    known = plugged.config.get_known_choices()
    assert {offered.PREFIX + kind for kind in offered.KINDS} <= set(known)
    assert "understudy" in plugged.env.get_known_choices()
    assert {"understudy_so101", "understudy_guarded"} <= set(RobotConfig.get_known_choices())
    assert [plugged.policy_class(offered.PREFIX + kind).name for kind in offered.KINDS] == [
        offered.PREFIX + kind for kind in offered.KINDS
    ]


def test_a_batch_of_lerobots_is_our_window(trained, data):
    policy, _, batch = trained
    model = policy.model
    theirs = offered.batch_of(batch, model.inputs, policy.config.read, len(model.window.recall))
    ours = Windows(open_dataset(data), model.window, model.inputs).gather(batch["index"].flatten())
    assert {"action", "action.valid", "observation.valid", *model.inputs} <= set(theirs)
    for key, value in theirs.items():
        assert value.dtype == ours[key].dtype and torch.equal(value, ours[key]), key
    assert not ours["action.valid"].all() and not ours["observation.valid"].all(), "borders of episodes are among them"


def test_pictures_come_back_as_they_were_recorded():
    frames = torch.randint(0, 256, (2, 3, 4, 5, 3), dtype=torch.uint8)
    batch = {
        "observation.image": frames.movedim(-1, -3) / 255,
        "action": torch.zeros(2, 4, 1),
    }
    found = offered.batch_of(batch, ["observation.images.image"], ["observation.image"], 0)
    assert torch.equal(found["observation.images.image"], frames)


def test_scales_are_those_of_our_own_training(trained, data):
    policy, _, _ = trained
    actions = open_dataset(data).columns["action"]
    low, high = torch.from_numpy(actions).amin(0), torch.from_numpy(actions).amax(0)
    assert torch.allclose(policy.model.action_scale.mean, (low + high) / 2)
    assert int(policy.averaged) == 3 and policy.config.normalization_mapping["ACTION"].value == "IDENTITY"


def test_its_checkpoint_acts_here_as_there(trained, plugged):
    policy, folder, _ = trained
    here = understudy.load(folder)
    again = plugged.policy_class("understudy_flow").from_pretrained(folder)
    assert here.about["type"] == "flow" and hasattr(here.planner, "field"), "of ours, it composes"
    policy.train().eval()  # episodes are counted anew
    for seeds in (1000, 1002):  # lerobot-eval goes on to the next environments
        here.reset(env_seed=seeds)
        policy.reset()
        again.reset()
        for step in range(6):
            now = seen(seed=step)
            action = here.select_action(now)
            assert torch.equal(action, policy.select_action(now)) and torch.equal(action, again.select_action(now))
    assert not torch.equal(policy.model.action_scale.std, torch.ones(6)), "in units, by scales inside"


def test_lerobots_evaluation_and_ours_end_the_same(trained, plugged, tmp_path):
    from lerobot.envs.factory import make_env
    from lerobot.scripts.lerobot_eval import rollout

    policy, folder, _ = trained
    policy.train().eval()
    config = plugged.world(task=WORLD, episode_length=HORIZON)
    env = make_env(config, n_envs=2)["understudy"][0]
    before, after = plugged.processors(policy.config, pretrained_path=str(folder))
    same = {"env_preprocessor": lambda one: one, "env_postprocessor": lambda one: one}
    told = rollout(env, policy, preprocessor=before, postprocessor=after, seeds=[1000, 1001], **same)
    env.close()

    world = {"type": "mujoco", "task": WORLD, "horizon": HORIZON}
    record = understudy.evaluate(folder, world, episodes=2, block=2, out=tmp_path / "record", videos=0)
    assert np.allclose(told["reward"].sum(1).numpy(), record.column("return"), rtol=1e-6)
    assert told["success"].any(1).tolist() == record.column("success")


def test_an_episode_that_ended_stands_still_until_it_is_seeded(plugged):
    import gymnasium

    config = plugged.world(task=WORLD, episode_length=2)
    env = gymnasium.make(config.gym_id, disable_env_checker=True, **config.gym_kwargs)
    assert config.fps == 30 and config.features_map["agent_pos"] == "observation.state"
    assert env.get_wrapper_attr("_max_episode_steps") == 2
    first, _ = env.reset(seed=3)
    action = first["agent_pos"]
    env.step(action)
    last, _, _, truncated, info = env.step(action)
    assert truncated and info == {"is_success": False}
    still, _ = env.reset()
    assert np.array_equal(still["agent_pos"], last["agent_pos"])
    assert env.step(action)[2:4] == (False, False)
    again, _ = env.reset(seed=3)
    assert np.array_equal(again["agent_pos"], first["agent_pos"])
    env.close()


def test_ours_goes_to_lerobots_layout_and_comes_back(trained, plugged, tmp_path):
    _, folder, _ = trained
    model, _ = load_policy(folder)
    save_checkpoint(tmp_path / "run", model, kind="policy", config=model.config)
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "theirs")]) == 0
    assert main(["export", str(tmp_path / "theirs"), str(tmp_path / "back"), "--to", "understudy"]) == 0
    one, other = load_file(tmp_path / "run" / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert load_policy(tmp_path / "back")[1]["config"] == load_policy(tmp_path / "run")[1]["config"]

    stock = plugged.policy_class("understudy_flow").from_pretrained(tmp_path / "theirs")
    plugged.processors(stock.config, pretrained_path=str(tmp_path / "theirs"))
    here = understudy.load(tmp_path / "run")
    here.reset(env_seed=1000)
    assert torch.equal(here.select_action(seen()), stock.select_action(seen()))
    with pytest.raises(FileExistsError, match="exists already"):
        write_lerobot(tmp_path / "theirs", model)


def test_only_what_every_lerobot_knows_is_written(trained):
    config = documents_of(load_policy(trained[1])[0])["config.json"]
    assert "pretrained_revision" not in config and config["normalization_mapping"]["STATE"] == "IDENTITY"


def test_unknown_fields_of_a_newer_lerobot_do_not_matter(trained, tmp_path):
    other = rewritten(trained[1], tmp_path / "new", pretrained_revision="main", something_new={"a": 1})
    assert load_policy(other)[1]["type"] == "flow"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"normalization_mapping": {"STATE": "IDENTITY", "ACTION": "MIN_MAX"}}, "normalises ACTION by MIN_MAX"),
        ({"policy": {}}, "understudy_flow, but its policy is a 'None'"),
        ({"embodiment": None}, "has no 'embodiment'"),
        ({"type": "understudy_value"}, "understudy_value"),
        ({"type": "understudy_diffusion"}, "its policy is a 'flow'"),
    ],
)
def test_what_is_another_policy_is_refused_by_name(trained, tmp_path, changes, said):
    with pytest.raises((ForeignError, LookupError), match=said):
        load_policy(rewritten(trained[1], tmp_path / "x", **changes))


def test_a_pipeline_that_scales_is_refused(trained, tmp_path):
    other = shutil.copytree(trained[1], tmp_path / "x")
    file = other / "policy_postprocessor.json"
    file.write_text(file.read_text().replace('"ACTION": "IDENTITY"', '"ACTION": "MEAN_STD"'))
    with pytest.raises(ForeignError, match="policy_postprocessor.json normalises ACTION by MEAN_STD"):
        load_policy(other)


def test_data_of_another_body_are_refused(trained, data, tmp_path):
    from understudy.api import read_world_of

    told = json.loads((trained[1] / "config.json").read_text())["embodiment"]
    offered.check_same_body(told, data, ("observation.state",))
    with pytest.raises(EmbodimentError, match="unit of 'gripper' differs"):
        units = [*told["action_units"][:-1], "m"]
        offered.check_same_body(told | {"action_units": units}, data, ())
    with pytest.raises(EmbodimentError, match="differ in action"):
        Embodiment.from_dict(told).check(read_world_of("point").embodiment())


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"settings": "{type: diffusion}"}, ValueError, "give --policy.type=understudy_diffusion"),
        ({"settings": "{netwrok: {type: mlp}}"}, ValueError, "network"),
        ({"settings": "[1, 2]"}, ValueError, "names and values"),
        ({"settings": "{language: {type: table}}"}, ValueError, "the text of a task"),
        ({"horizon": 4, "n_action_steps": 8}, ValueError, "within 1..4"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(plugged, asked, error, said):
    with pytest.raises(error, match=said):
        plugged.settings.UnderstudyFlowConfig(device="cpu", **asked)


@pytest.fixture(scope="module")
def taken_over(tmp_path_factory):
    """A recording in which a person led 4 of 9 steps."""
    body = Embodiment(
        name="a", action=("x",), action_units=("m",), limits=((-9.0, 9.0),), rate=10.0, frame="joint",
        state=("x",), state_units=("m",),
    )  # fmt: skip
    writer = DatasetWriter(tmp_path_factory.mktemp("led") / "data", body, flags=(INTERVENTION,))
    numbers = np.arange(9, dtype=np.float32)
    writer.add(Episode(
        start=0, task="t", obs={STATE: numbers[:, None]}, action=numbers[:, None], sent=numbers[:, None],
        reward=0 * numbers, progress=0 * numbers, success=numbers < 0, terminated=False, truncated=True,
        extra={INTERVENTION: numbers > 4},
    ))  # fmt: skip
    return writer.root


def test_take_overs_are_not_learned_from_like_demonstrations_unless_asked(plugged, taken_over, tmp_path):
    """A training asks for the parameters; who only acts beside such a recording, as lerobot-rollout does, does not."""
    meta = plugged.dataset("me/led", root=taken_over).meta
    how = {"device": "cpu", "push_to_hub": False, "settings": SMALL, "horizon": 4, "n_action_steps": 2}
    policy = plugged.policy(plugged.settings.UnderstudyFlowConfig(**how), ds_meta=meta)
    with pytest.raises(DatasetError) as refused:
        policy.get_optim_params()
    assert "'intervention' is true in 4 of 9 steps" in str(refused.value)
    assert f"understudy train --data {taken_over}" in str(refused.value)
    assert "--policy.all_alike=true" in str(refused.value)
    alike = plugged.policy(plugged.settings.UnderstudyFlowConfig(**how, all_alike=True), ds_meta=meta)
    assert len(list(alike.get_optim_params()))
    alike.save_pretrained(tmp_path / "saved")
    again = plugged.policy_class("understudy_flow").from_pretrained(tmp_path / "saved", dataset_meta=meta)
    assert again.config.all_alike and len(list(again.get_optim_params()))
    again.config.all_alike = False
    with pytest.raises(DatasetError, match="4 of 9 steps"):
        again.get_optim_params()


def test_corrections_in_a_training_file_are_refused_where_lerobot_draws_the_steps(plugged, tmp_path):
    file = tmp_path / "it.yaml"
    file.write_text("policy: {type: flow}\ncorrections: {weight: 2}\n")
    with pytest.raises(ValueError, match="holds `corrections`.*draws all alike"):
        plugged.settings.UnderstudyFlowConfig(device="cpu", settings=str(file))


def test_what_was_built_stays(trained, plugged):
    mode = type(trained[0].config.normalization_mapping["STATE"])
    with pytest.raises(ValueError, match="normalization_mapping says MIN_MAX for STATE"):
        plugged.settings.UnderstudyFlowConfig(device="cpu", normalization_mapping={"STATE": mode("MIN_MAX")})
    told = json.loads((trained[1] / "config.json").read_text())
    with pytest.raises(ValueError, match="--policy.horizon=9, but this policy was trained with 8"):
        plugged.settings.UnderstudyFlowConfig(
            device="cpu", policy=told["policy"], embodiment=told["embodiment"], horizon=9
        )
    with pytest.raises(ValueError, match="made for a dataset"):
        plugged.policy_class("understudy_flow")(
            plugged.settings.UnderstudyFlowConfig(
                device="cpu",
                input_features=trained[0].config.input_features,
                output_features=trained[0].config.output_features,
            )
        )


def test_a_training_file_of_ours_says_what_lerobot_trains():
    config = offered.settings_of("flow", "configs/train/lift_flow.yaml", {"n_past_steps": 3})
    assert config.network.width == 256 and config.window.recall == (-3, -2, -1) and config.window.horizon == 16
    assert offered.task_spec_of("configs/train/lift_flow.yaml").scale.low
    assert offered.task_spec_of(SMALL) is None


def test_what_has_no_type_there_is_refused(tmp_path, trained):
    (tmp_path / "x").mkdir()
    with pytest.raises(FileNotFoundError):
        exportable(str(tmp_path / "x"))
    other = rewritten(trained[1], tmp_path / "y", type="understudy_nothing")
    with pytest.raises((CheckpointError, LookupError)):
        exportable(str(other))


@pytest.mark.slow
def test_stock_commands_train_and_evaluate_and_ours_agrees(tmp_path):
    """pip install of the distributions, lerobot-train, lerobot-eval, then our eval of the same checkpoint."""
    pytest.importorskip("lerobot")
    place, bin_ = tmp_path / "installed", Path(sys.executable).parent
    named = [str(path) for path in sorted(DISTRIBUTIONS.iterdir())]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(place)]
    subprocess.run([*pip, *named], check=True)
    environment = os.environ | {"PYTHONPATH": str(place), "HF_HUB_OFFLINE": "1"}

    def run(*words):
        subprocess.run([str(bin_ / words[0]), *words[1:]], check=True, cwd=tmp_path, env=environment)

    run("understudy", "demos", WORLD, "--episodes", "12", "--out", "demos")
    run(
        "lerobot-train", "--policy.type=understudy_flow", f"--policy.settings={SMALL}", "--policy.push_to_hub=false",
        "--policy.device=cpu", "--dataset.repo_id=me/demos", "--dataset.root=demos", "--batch_size=32", "--steps=60",
        "--save_freq=60", "--num_workers=0", "--output_dir=train",
    )  # fmt: skip
    policy = "train/checkpoints/last/pretrained_model"
    run(
        "lerobot-eval", f"--policy.path={policy}", "--policy.device=cpu", "--env.type=understudy",
        f"--env.task={WORLD}", "--eval.batch_size=5", "--eval.n_episodes=10", "--eval.use_async_envs=false",
        "--output_dir=theirs",
    )  # fmt: skip
    run("understudy", "eval", "--policy", policy, "--world", WORLD, "--episodes", "10", "--block", "5", "--out", "ours")
    told = json.loads((tmp_path / "theirs" / "eval_info.json").read_text())["per_task"][0]["metrics"]
    record = understudy.read_record(tmp_path / "ours")
    assert told["successes"] == record.column("success")
    assert np.allclose(told["sum_rewards"], record.column("return"), rtol=1e-5)
