"""Real lerobot policies, saved by lerobot itself: the import is exact, black boxes are keyed, and `eval` takes them."""

import dataclasses
import hashlib
import json
import shutil
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from understudy.configs.spec import SCENE, STATE, Embodiment
from understudy.configs.world import read_world
from understudy.eval.studies.foreign_import import check
from understudy.policies.agent.open import Acting, agent_settings, open_agent
from understudy.policies.compositions.mixture import Mixture
from understudy.policies.field import sample
from understudy.policies.foreign.diffusion import Between
from understudy.policies.foreign.planner import load_foreign
from understudy.policies.foreign.scale import ForeignError, ForeignWarning
from understudy.policies.learning.checkpoint import (
    acting_files,
    find_checkpoint,
    fingerprint,
    former_fingerprint,
    is_of,
)
from understudy.policies.load import load_policy, save_mixture
from understudy.policies.policy import LaneNoise, Past, Planner, Policy

PICTURE = "observation.image"
STATS = {
    STATE: {"min": [0.0, 10.0], "max": [500.0, 400.0], "mean": [250.0, 200.0], "std": [80.0, 90.0]},
    SCENE: {"min": [0.0] * 16, "max": [512.0] * 16, "mean": [256.0] * 16, "std": [100.0] * 16},
    "action": {"min": [12.0, 25.0], "max": [511.0, 505.0], "mean": [230.0, 290.0], "std": [100.0, 95.0]},
    PICTURE: {"mean": [[[0.5]]] * 3, "std": [[[0.3]]] * 3, "min": [[[0.0]]] * 3, "max": [[[1.0]]] * 3},
}
MIN_MAX = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"}
MEAN_STD = dict.fromkeys(MIN_MAX, "MEAN_STD")
TINY = {
    "horizon": 8,
    "n_action_steps": 4,
    "down_dims": (16, 32),
    "use_group_norm": True,
    "diffusion_step_embed_dim": 16,
    "noise_scheduler_type": "DDIM",
    "num_inference_steps": 4,
}


@pytest.fixture(scope="module")
def peer(lerobot):
    """What of lerobot the tests call."""
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    kinds = {
        STATE: ("STATE", (2,)),
        SCENE: ("ENV", (16,)),
        PICTURE: ("VISUAL", (3, 32, 32)),
        "action": ("ACTION", (2,)),
    }
    features = {key: PolicyFeature(FeatureType(kind), shape) for key, (kind, shape) in kinds.items()}
    stats = {key: {name: torch.tensor(value) for name, value in of.items()} for key, of in STATS.items()}

    def make(kind, inputs=(STATE, SCENE), modes=MIN_MAX, **settings):
        torch.manual_seed(0)
        settings = {"pretrained_backbone_weights": None} | settings  # lerobot 0.6 would fetch some
        config = make_policy_config(
            kind,
            input_features={key: features[key] for key in inputs},
            output_features={"action": features["action"]},
            normalization_mapping={key: NormalizationMode(mode) for key, mode in modes.items()},
            device="cpu",
            push_to_hub=False,
            **settings,
        )
        policy = get_policy_class(kind)(config).eval()
        used = {key: stats[key] for key in (*inputs, "action")}
        return policy, make_pre_post_processors(config, dataset_stats=used)

    def save(folder, *args, **settings):
        policy, processors = make(*args, **settings)
        policy.save_pretrained(folder)
        for processor in processors:
            processor.save_pretrained(folder)
        return folder

    return types.SimpleNamespace(make=make, save=save)


@pytest.fixture(scope="module")
def folder(peer, tmp_path_factory):
    """A tiny diffusion policy on PushT's states, random weights."""
    return peer.save(tmp_path_factory.mktemp("foreign") / "pretrained_model", "diffusion", **TINY)


@pytest.fixture(scope="module")
def policy(folder):
    return load_foreign(folder)[0]


def copy_of(folder, tmp_path, **changes):
    """The checkpoint with other settings in its config.json."""
    other = shutil.copytree(folder, tmp_path / "copy")
    (other / "config.json").write_text(json.dumps(json.loads((other / "config.json").read_text()) | changes))
    return other


def past(lanes=3, frames=2, pictures=False):
    rng = torch.Generator().manual_seed(1)
    obs = {
        STATE: torch.rand(lanes, frames, 2, generator=rng) * 500,
        SCENE: torch.rand(lanes, frames, 16, generator=rng) * 500,
    }
    if pictures:
        obs["observation.images.image"] = torch.randint(0, 256, (lanes, frames, 32, 32, 3), generator=rng).to(
            torch.uint8
        )
    return Past(
        obs=obs,
        obs_times=tuple(range(1 - frames, 1)),
        obs_valid=torch.ones(lanes, frames, dtype=torch.bool),
        actions=torch.zeros(lanes, frames - 1, 2),
        action_times=tuple(range(1 - frames, 0)),
        action_valid=torch.ones(lanes, frames - 1, dtype=torch.bool),
        now=torch.zeros(lanes, dtype=torch.int64),
    )


def noise(lanes=3):
    return LaneNoise(5, np.arange(lanes), np.zeros(lanes, np.int64))


def stock_actions(peer, past, kind="diffusion", inputs=(STATE, SCENE), keys=None, **settings):
    """What lerobot executes from this past: its processors and `select_action`, with our noise."""
    policy, (before, after) = peer.make(kind, inputs, **settings)
    policy.reset()
    told = {"noise": noise(len(past.now)).normal(1, 8, 2)[:, 0]}
    actions = []
    for frame in range(len(past.obs_times)):
        seen = {own: past.obs[(keys or {}).get(own, own)][:, frame] for own in inputs}
        if PICTURE in seen:
            seen[PICTURE] = seen[PICTURE].permute(0, 3, 1, 2).float() / 255
        if frame == 0:
            policy._queues["action"].extend([torch.zeros(len(past.now), 2)])  # look on while there is an action left
        action = policy.select_action(before(seen), **told)
        actions.append(after(action))
    actions += [after(policy._queues["action"].popleft()) for _ in range(3)]
    return torch.stack(actions[-4:], 1)


@pytest.mark.parametrize(
    ("inputs", "modes"),
    [((STATE, SCENE), MIN_MAX), ((STATE, SCENE), MEAN_STD), ((STATE, PICTURE), MIN_MAX)],
    ids=["min-max", "mean-std", "pictures"],
)
def test_a_plan_is_what_lerobot_executes(peer, tmp_path, inputs, modes):
    settings = TINY | {"inputs": inputs, "modes": modes}
    policy, info = load_foreign(peer.save(tmp_path / "pretrained_model", "diffusion", **settings))
    seen = past(pictures=PICTURE in inputs)
    plans = policy.plan(seen, 1, noise())
    wanted = stock_actions(peer, seen, keys={PICTURE: "observation.images.image"}, **settings)
    assert plans.past.shape == (3, 1, 1, 2) and plans.future.shape == (3, 1, 7, 2) and policy.n_action_steps == 4
    assert (plans.future[:, 0, :4] - wanted).abs().max() < 1e-3, "px of 500"
    assert info["type"] == "lerobot/diffusion" and isinstance(policy, Policy)


@pytest.mark.parametrize(("prediction", "lanes"), [("epsilon", 3), ("epsilon", 1), ("sample", 3)])
def test_the_field_is_lerobots_network_at_its_own_steps(peer, tmp_path, prediction, lanes):
    policy, _ = load_foreign(peer.save(tmp_path / "m", "diffusion", prediction_type=prediction, **TINY))
    model, seen = policy.policy.diffusion, past(lanes)
    field, condition = policy.field(seen, 2), policy.condition(seen.obs).repeat_interleave(2, 0)
    assert field.shape == (lanes, 2, 8, 2) and field.times == (-1, 0, 1, 2, 3, 4, 5, 6)
    kept = model.noise_scheduler.alphas_cumprod
    for step in (0, 1, 37, 98, 99):
        x = torch.randn(2 * lanes, 8, 2, generator=torch.Generator().manual_seed(step))
        out = model.unet(x, torch.full((2 * lanes,), step), global_cond=condition)  # a row for each candidate
        s, y = policy.ratios[step], x / kept[step].sqrt()
        clean = field(y.view(lanes, 2, 8, 2), s).view_as(x)
        told = clean if prediction == "sample" else (y - clean) / s
        assert (told - out).abs().max() < 1e-5
    assert (field.sigma_min, field.sigma_max) == (policy.ratios[0], policy.ratios[99])


def test_our_first_order_walk_over_its_levels_is_its_ddim(peer, tmp_path):
    policy, _ = load_foreign(peer.save(tmp_path / "m", "diffusion", clip_sample=False, **TINY))
    start, levels = noise().normal(2, 8, 2), policy.own_levels()
    theirs = policy._by_own_scheduler(past(), start)
    widened = start * (1 + levels[0] ** 2) ** 0.5 / levels[0]  # lerobot begins at unit variance, not at s * noise
    ours = sample(policy.field(past(), 2), widened, levels, clip=None)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert policy.sampler.clip is None and policy.sampler.steps == 4


def test_the_check_that_users_run_says_that_the_import_is_exact(policy):
    found = check(policy, past(), 3)
    assert found["plan"]["max"] < 1e-3 and found["action size"] > 100
    assert found["walk, clip None"]["max"] < 1e-3 < found["walk, clip 1.0"]["max"], "the two bound differently"
    assert policy.policy.diffusion.noise_scheduler.config.clip_sample and policy.scheduler == "DDIM"


def test_told_otherwise_our_sampler_draws(folder):
    policy, _ = load_foreign(folder)
    own = policy.plan(past(), 1, noise()).future
    assert policy.scheduler == "DDIM" and policy.sampler.clip == 1.0
    policy.sampler = dataclasses.replace(policy.sampler, steps=3)
    assert policy.scheduler is None and not torch.equal(policy.plan(past(), 1, noise()).future, own)


def test_between_two_steps_the_nearer_or_a_fraction_is_asked(policy):
    s = policy.ratios
    assert policy.step_of(s[40]) == 40 and policy.step_of(s[40] * 0.3 + s[41] * 0.7) == 41
    assert policy.step_of(0.0) == 0 and policy.step_of(1e9) == 99
    policy.between = Between.fractional
    assert 40 < policy.step_of((s[40] + s[41]) / 2) < 41 and policy.step_of(s[40]) == 40
    policy.between = Between.nearest


def test_a_stochastic_scheduler_draws_by_lane(folder, tmp_path):
    policy, _ = load_foreign(copy_of(folder, tmp_path, noise_scheduler_type="DDPM"))
    plans = policy.plan(past(), 3, noise())
    assert policy.scheduler == "DDPM"
    assert (policy.plan(past(), 1, noise()).future - plans.future[:, :1]).abs().max() < 1e-3
    assert (policy.plan(past(lanes=1), 3, noise(1)).future.shape) == (1, 3, 7, 2)
    ddim = load_foreign(folder)[0].plan(past(), 3, noise())
    assert (ddim.future - plans.future).abs().max() > 1


def test_old_weights_with_buffers_act_the_same(folder, tmp_path, policy):
    old = copy_of(folder, tmp_path)
    weights = load_file(old / "model.safetensors")
    for key, kinds in ((STATE, STATS[STATE]), (SCENE, STATS[SCENE]), ("action", STATS["action"])):
        where = ("normalize_targets", "unnormalize_outputs") if key == "action" else ("normalize_inputs",)
        for prefix in where:
            names = {f"{prefix}.buffer_{key.replace('.', '_')}.{name}": kinds[name] for name in ("min", "max")}
            weights |= {name: torch.tensor(value) for name, value in names.items()}
    save_file(weights, old / "model.safetensors")
    for path in old.glob("policy_p*"):
        path.unlink()
    found = load_foreign(old)[0].plan(past(), 1, noise())
    assert torch.equal(found.future, policy.plan(past(), 1, noise()).future)
    box, _ = load_foreign(old, black_box=True)
    assert torch.equal(
        box.plan(past(), 1, noise()).future, load_foreign(folder, black_box=True)[0].plan(past(), 1, noise()).future
    )


def test_unknown_settings_are_passed_over_with_a_warning(folder, tmp_path, policy):
    newer = copy_of(folder, tmp_path, flux_capacitor=3)
    with pytest.warns(ForeignWarning, match="does not know: flux_capacitor"):
        found, _ = load_foreign(newer)
    assert torch.equal(found.plan(past(), 1, noise()).future, policy.plan(past(), 1, noise()).future)


LATER = {
    "act": {"pretrained_revision": None},
    "diffusion": {"gradient_checkpointing": False, "pretrained_revision": None},
}


@pytest.mark.parametrize("kind", LATER)
@pytest.mark.parametrize("wrote", ["0.4.4", "0.6.1"])
@pytest.mark.filterwarnings("ignore::understudy.policies.foreign.scale.ForeignWarning")
def test_a_checkpoint_of_the_other_lerobot_acts_the_same(peer, tmp_path, kind, wrote):
    """Between 0.4.4 and 0.6.1 `LATER` came to config.json, and nothing else changed in a folder."""
    _, inputs, settings = BOXES[kind]
    own = peer.save(tmp_path / "own", kind, inputs=inputs, **settings)
    other = copy_of(own, tmp_path)
    config = json.loads((own / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in LATER[kind]}
    (other / "config.json").write_text(json.dumps(config | (LATER[kind] if wrote == "0.6.1" else {})))
    found, wanted = (load_foreign(path)[0].plan(past(), 2, noise()).future for path in (other, own))
    assert torch.equal(found, wanted)


class Sight:
    """Frames of an episode, the same for lerobot and for an agent."""

    def __init__(self, steps, lanes=2):
        rng = torch.Generator().manual_seed(4)
        self.obs = {key: torch.rand(steps, lanes, size, generator=rng) * 500 for key, size in ((STATE, 2), (SCENE, 16))}
        self.steps, self.lanes = steps, lanes

    def walk(self, agent):
        """(steps, lanes, 2) what an agent that replans at every step does."""
        every, actions = np.ones(self.lanes, bool), []
        frames = [{key: values[step].numpy() for key, values in self.obs.items()} for step in range(self.steps)]
        agent.reset(np.arange(self.lanes), every, frames[0])
        for frame in [*frames[1:], frames[0]]:
            actions.append(agent.act()[:, 0])
            sent = actions[-1][:, None]
            agent.observe({key: values[:, None] for key, values in frame.items()}, sent, every[:, None])
        return np.stack(actions)


ENSEMBLED = {"chunk_size": 6, "n_action_steps": 1, "temporal_ensemble_coeff": 0.3, "dim_model": 16,
    "n_heads": 2, "dim_feedforward": 16, "n_encoder_layers": 1, "n_vae_encoder_layers": 1, "latent_dim": 4}  # fmt: skip


def body_for(world="pusht"):
    return read_world(world).embodiment()


@pytest.mark.filterwarnings("ignore::understudy.policies.foreign.scale.ForeignWarning")
def test_temporal_ensembling_is_the_policys_own_and_lerobots(peer, tmp_path, capsys):
    folder, sight = peer.save(tmp_path / "m", "act", **ENSEMBLED), Sight(14)
    policy, (before, after) = peer.make("act", **ENSEMBLED)
    wanted = []
    for step in range(sight.steps):
        seen = before({key: values[step] for key, values in sight.obs.items()})
        wanted.append(after(policy.select_action(seen)).detach())
    wanted = torch.stack(wanted).numpy()

    agent, _ = open_agent(Acting(policy=str(folder), block=2), body_for)
    assert agent.ensemble == 0.3 and agent.n_action_steps == 1
    assert "temporal ensembling of decay 0.3 (its own" in capsys.readouterr().out
    low, high = np.asarray(body_for().limits, np.float32).T
    assert np.abs(sight.walk(agent) - np.clip(wanted, low, high)).max() < 2e-4, "px of 500"
    assert agent_settings(Acting(policy=str(folder)), agent)["ensemble"] == 0.3

    config = Acting(policy=str(folder), block=2, ensemble=0.0)
    agent, _ = open_agent(config, body_for)
    assert agent.ensemble == 0.0 and "--ensemble: 0 in its place" in capsys.readouterr().out
    assert np.abs(sight.walk(agent) - np.clip(wanted, low, high)).max() > 0.1
    agent, _ = open_agent(dataclasses.replace(config, ensemble=float("-inf")), body_for)
    assert agent.ensemble is None and "--ensemble: none in its place" in capsys.readouterr().out
    assert "ensemble" not in agent_settings(config, agent)


def test_a_negative_coefficient_of_temporal_ensembling_is_refused(peer, tmp_path):
    folder = peer.save(tmp_path / "m", "act", **ENSEMBLED)
    with pytest.raises(ForeignError, match="temporal_ensemble_coeff -0.1: newer chunks would count more"):
        load_foreign(copy_of(folder, tmp_path, temporal_ensemble_coeff=-0.1))


@pytest.fixture(scope="module")
def reader(peer):
    """A step of lerobot's that reads the text of the task: the longer it is, the farther away the state."""
    from lerobot.processor import ProcessorStep, ProcessorStepRegistry

    @ProcessorStepRegistry.register("length_of_the_task")
    class Length(ProcessorStep):
        def __call__(self, transition):
            texts = transition["complementary_data"]["task"]
            seen = transition["observation"]
            far = torch.tensor([[100.0 * len(text)] for text in texts])
            return {**transition, "observation": {**seen, STATE: seen[STATE] + far}}

        def transform_features(self, features):
            return features

    yield "length_of_the_task"
    ProcessorStepRegistry.unregister("length_of_the_task")


@pytest.mark.filterwarnings("ignore:nothing says who")
def test_a_policy_that_reads_the_task_is_told_the_worlds(peer, reader, tmp_path, capsys):
    folder = peer.save(tmp_path / "m", *BOXES["act"][:1], inputs=BOXES["act"][1], **BOXES["act"][2])
    deaf, _ = open_agent(Acting(policy=str(folder), block=3), body_for, "pusht")
    assert deaf.planner.task_text is None and "text" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="reads no text; leave out --task_text"):
        open_agent(Acting(policy=str(folder), block=3, task_text="push"), body_for, "pusht")

    pipeline = json.loads((folder / "policy_preprocessor.json").read_text())
    pipeline["steps"].insert(0, {"registry_name": reader, "config": {}})
    (folder / "policy_preprocessor.json").write_text(json.dumps(pipeline))

    def told(task="pusht", **changes):
        config = Acting(policy=str(folder), block=3, **changes)
        agent, _ = open_agent(config, body_for, task)
        return agent, agent_settings(config, agent), capsys.readouterr().out

    agent, settings, said = told()
    assert settings["task_text"] == "pusht" and "its task: 'pusht' (the world's task" in said
    by_hand, _ = load_foreign(folder, task="pusht")
    assert torch.equal(agent.planner.plan(past(), 1, noise()).future, by_hand.plan(past(), 1, noise()).future)

    other, settings, said = told(task_text="push the T")
    assert settings["task_text"] == "push the T" and "'push the T' (--task_text)" in said
    assert not torch.equal(other.planner.plan(past(), 1, noise()).future, by_hand.plan(past(), 1, noise()).future)
    with pytest.warns(ForeignWarning, match="neither the world nor --task_text gives one"):
        told("")


def test_what_does_not_fit_is_refused_by_name(folder, tmp_path):
    broken = copy_of(folder, tmp_path)
    weights = load_file(broken / "model.safetensors")

    def load(**changes):
        config = json.loads((folder / "config.json").read_text()) | changes
        (broken / "config.json").write_text(json.dumps(config))
        return load_foreign(broken)

    with pytest.raises(LookupError, match="'telepathy'; the installed lerobot knows act, diffusion"):
        load(type="telepathy")
    with pytest.raises(ForeignError, match="'tdmpc', which plans by search"):
        load(type="tdmpc")
    with pytest.raises(ForeignError, match="does not fit the network"):
        load(down_dims=[32, 64])
    lost = next(name for name in weights if name.endswith("final_conv.1.weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, broken / "model.safetensors")
    with pytest.raises(ForeignError, match=rf"lacks weight '{lost}' \(1 in all\)"):
        load()
    save_file(weights | {"extra.weight": torch.zeros(2)}, broken / "model.safetensors")
    with pytest.raises(ForeignError, match=r"unknown weight 'extra\.weight'"):
        load()
    save_file(weights, broken / "model.safetensors")
    pipeline = json.loads((broken / "policy_preprocessor.json").read_text())
    pipeline["steps"].append({"registry_name": "tokenizer_processor", "config": {}})
    (broken / "policy_preprocessor.json").write_text(json.dumps(pipeline))
    with pytest.raises(ForeignError, match="step 'tokenizer_processor'"):
        load()


BOXES = {
    "diffusion": ("diffusion", (STATE, SCENE), TINY),
    "act": ("act", (STATE, SCENE), {"chunk_size": 6, "n_action_steps": 5, "dim_model": 16, "n_heads": 2,
            "dim_feedforward": 16, "n_encoder_layers": 1, "n_vae_encoder_layers": 1, "latent_dim": 4}),
    "vqbet": ("vqbet", (STATE, PICTURE), {"n_obs_steps": 2, "use_group_norm": True,
              "crop_shape": (28, 28), "gpt_n_layer": 1, "gpt_n_head": 2,
              "gpt_hidden_dim": 16, "gpt_input_dim": 16, "gpt_output_dim": 16, "vqvae_n_embed": 4,
              "vqvae_embedding_dim": 8, "vqvae_enc_hidden_dim": 8, "gpt_block_size": 32, "action_chunk_size": 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.filterwarnings("ignore:.*Residual VQ")
def test_a_black_box_asked_in_one_batch_answers_as_asked_one_by_one(peer, tmp_path, name):
    kind, inputs, settings = BOXES[name]
    planner, info = load_foreign(peer.save(tmp_path / "m", kind, inputs=inputs, **settings), black_box=True)
    seen = past(pictures=PICTURE in inputs)
    assert isinstance(planner, Planner) and info["type"] == f"lerobot/{kind}"
    together = planner.plan(seen, 4, noise()).future
    assert planner.batched, "its draws are keyed by row"
    planner.batched = False
    apart = planner.plan(seen, 4, noise()).future
    assert (together - apart).abs().max() < 1e-2, "px of 500"
    first = planner.plan(seen, 1, noise()).future
    assert (together[:, :1] - first).abs().max() < 1e-2
    spread = (together - together[:, :1]).abs().max()
    assert spread == 0 if name == "act" else spread > 1


def test_act_plans_what_lerobot_says(peer, tmp_path):
    kind, inputs, settings = BOXES["act"]
    planner, _ = load_foreign(peer.save(tmp_path / "m", kind, inputs=inputs, **settings))
    policy, (before, after) = peer.make(kind, inputs, **settings)
    seen = past()
    wanted = after(policy.predict_action_chunk(before({key: seen.obs[key][:, -1] for key in inputs})))
    assert (planner.plan(seen, 1, noise()).future[:, 0] - wanted).abs().max() < 1e-3
    assert planner.window.observe == (0,) and planner.window.horizon == 6 and planner.n_action_steps == 5


def test_eval_judges_a_checkpoint_of_lerobots(folder, tmp_path):
    from understudy.eval.evaluate.evaluate import Eval, evaluate

    run = tmp_path / "outputs" / "checkpoints" / "000010" / "pretrained_model"
    shutil.copytree(folder, run)
    (tmp_path / "outputs" / "checkpoints" / "last").symlink_to("000010")
    (run / "train_config.json").write_text('{"seed": 3, "dataset": {"root": "gone"}, "steps": 10, "batch_size": 2}')
    world, out = {"type": "pusht", "horizon": 12}, str(tmp_path / "record")
    settings = Eval(policy=str(tmp_path / "outputs"), world=world, episodes=2, block=2, videos=0, out=out)
    with pytest.warns(ForeignWarning, match="by position for those of 'pusht'"):
        record = evaluate(settings)
    about = record.manifest["policy"]
    assert about["type"] == "lerobot/diffusion" and about["step"] == 10 and len(about["fingerprint"]) == 16
    assert about["train"] == {"seed": 3, "data": "gone", "steps": 10, "batch": 2}
    assert about["body"] == "by position from 'pusht'" and about["scheduler"] == "DDIM"
    assert record.column("env_seed") == [1000, 1001] and find_checkpoint(tmp_path / "outputs") == run
    assert {path.name for path in acting_files(run)} >= {"config.json", "model.safetensors", "policy_preprocessor.json"}


@pytest.mark.filterwarnings("ignore::understudy.policies.foreign.scale.ForeignWarning")
def test_a_card_is_no_part_of_a_policy(folder, tmp_path):
    """It was, until the policy was pushed: what was pulled was another one. Records of then are of it all the same."""
    from understudy.eval.evaluate.evaluate import Eval, evaluate
    from understudy.eval.hub.pull import Pull
    from understudy.eval.hub.push import Push
    from understudy.eval.ledger.identity import matched
    from understudy.eval.ledger.record import RecordError

    run = shutil.copytree(folder, tmp_path / "policy")
    (run / "README.md").write_text("# as lerobot wrote it")
    (run / "part").mkdir()
    (run / "part" / "README.md").write_text("# of a part")
    held = sorted(path for path in run.rglob("*") if path.is_file())
    before = hashlib.sha256(b"".join(path.read_bytes() for path in held)).hexdigest()[:16]
    assert fingerprint(run) == fingerprint(folder) != before == former_fingerprint(run)
    assert former_fingerprint(folder) is None and is_of(before, run) and not is_of(before, folder)

    # a record of an earlier version, that did not end
    acting = {"policy": str(run), "world": {"type": "pusht", "horizon": 8}, "block": 1, "videos": 0}
    old = evaluate(Eval(**acting, episodes=1, out=str(tmp_path / "old")))
    assert old.manifest["policy"]["formerly"] == before
    told = json.loads((old.root / "manifest.json").read_text())
    told["policy"] |= {"fingerprint": before}
    del told["policy"]["formerly"], told["digests"]
    told |= {"complete": False, "starts": told["starts"] | {"count": 2}}
    (old.root / "manifest.json").write_text(json.dumps(told))
    new = evaluate(Eval(**acting, episodes=2, out=str(tmp_path / "new")))
    old = evaluate(Eval(**acting, episodes=2, resume=str(old.root)))
    assert old.manifest["policy"]["fingerprint"] == before and len(old.table) == 2

    # it is of what lies there, of what is pushed of it, and pulled
    Push(what=str(run), to=str(tmp_path / "shelf"), record=(str(old.root), str(new.root))).run()
    Pull(source=str(tmp_path / "shelf"), out=str(tmp_path / "pulled")).run()
    assert fingerprint(tmp_path / "pulled") == fingerprint(run) and (tmp_path / "pulled/part/README.md").is_file()
    assert [(one.records, two.records) for one, two in matched([old], [new])] == [((str(old.root),), (str(new.root),))]

    (run / "config.json").write_text((run / "config.json").read_text() + " ")
    with pytest.raises(RecordError, match="its policy was"):
        evaluate(Eval(**acting, episodes=2, resume=str(old.root)))


@pytest.mark.filterwarnings("ignore::understudy.policies.foreign.scale.ForeignWarning")
def test_loaded_in_python_it_acts_as_in_an_evaluation(folder, tmp_path):
    import understudy

    world = {"type": "pusht", "horizon": 12}
    record = understudy.evaluate(folder, world, tmp_path / "record", episodes=2, block=1, videos=0)
    rolled = understudy.rollout(understudy.load(folder), world, episodes=2, num_envs=1)
    policy, env = understudy.load(folder, world=world), understudy.make(world)
    assert "by position" in policy.about["body"] and "lerobot/diffusion" in repr(policy)
    for row in record.rows:
        obs, _ = env.reset(seed=row["env_seed"])
        policy.reset(env_seed=row["env_seed"])
        actions = []
        for _ in range(row["length"]):
            actions.append(policy.select_action({key: torch.from_numpy(value) for key, value in obs.items()}).numpy())
            obs, _, _, _, info = env.step(actions[-1])
        assert (np.stack(actions) == rolled.actions[row["env_seed"]]).all()
        assert np.float32(info["progress"]) == np.float32(row["final_progress"])


@pytest.mark.filterwarnings("ignore::understudy.policies.foreign.scale.ForeignWarning")
def test_select_action_is_lerobots(peer, tmp_path):
    import understudy

    settings = ENSEMBLED | {"n_action_steps": 3, "temporal_ensemble_coeff": None}
    folder, sight = peer.save(tmp_path / "m", "act", **settings), Sight(9)
    theirs, (before, after) = peer.make("act", **settings)
    ours = understudy.load(folder)
    low, high = torch.tensor(ours.embodiment.limits).T
    for step in range(sight.steps):
        seen = {key: values[step] for key, values in sight.obs.items()}
        wanted = after(theirs.select_action(before(seen))).detach()
        assert ours.predict_action_chunk(seen).shape == (2, 6, 2)
        assert (ours.select_action(seen) - wanted.clamp(low, high)).abs().max() < 2e-4, "px of 500"


def test_it_composes_and_its_body_travels_with_the_mixture(folder, tmp_path):
    body = Embodiment(
        name="pusht", action=("x", "y"), action_units=("px", "px"), limits=((0.0, 512.0),) * 2, rate=10.0,
        state=("x", "y"), state_units=("px", "px"), scene=tuple(map(str, range(16))), scene_units=("px",) * 16,
    )  # fmt: skip
    one = copy_of(folder, tmp_path)
    (one / "embodiment.json").write_text(body.to_json())
    policy = load_policy(one)[0]
    mixture = Mixture([policy, load_foreign(folder, body)[0]], [0.5, 0.5]).eval()
    save_mixture(tmp_path / "mix", mixture, [one, one])
    again, info = load_policy(tmp_path / "mix")
    assert again.embodiment == body and info["type"] == "convex"
    policy.sampler = dataclasses.replace(policy.sampler)  # our sampler, as the mixture's
    difference = again.plan(past(), 2, noise()).future - policy.plan(past(), 2, noise()).future
    assert difference.abs().max() < 1e-2, "composed with itself it is itself"
    with pytest.raises(ForeignError, match="says itself|does not|no embodiment"):
        load_policy(one, tmp_path / "nowhere.json")


def test_a_policy_around_a_model_that_is_not_here_is_refused_by_its_name(lerobot, tmp_path):
    features = {STATE: {"type": "STATE", "shape": [6]}, PICTURE: {"type": "VISUAL", "shape": [3, 32, 32]}}
    settings = {
        "type": "smolvla",
        "vlm_model_name": "nobody/no-such-model",
        "input_features": features,
        "output_features": {"action": {"type": "ACTION", "shape": [6]}},
    }
    settings |= {"normalization_mapping": dict.fromkeys(("STATE", "VISUAL", "ACTION"), "IDENTITY")}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    for name in ("policy_preprocessor", "policy_postprocessor"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name, "steps": []}))
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises((ForeignError, ImportError), match="nobody/no-such-model|lerobot.smolvla"):
        load_foreign(tmp_path)
