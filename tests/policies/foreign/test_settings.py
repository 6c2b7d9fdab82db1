"""What a checkpoint of lerobot's says of its acting is honoured, refused or said: nothing is dropped without a word."""

import dataclasses
import json
import shutil
import types
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from understudy.configs.spec import EmbodimentError
from understudy.configs.world import read_world
from understudy.eval.compare.compare import Compare, compare
from understudy.eval.demos.policies import record_policies
from understudy.eval.demos.settings import Settings
from understudy.eval.evaluate.evaluate import Eval, evaluate
from understudy.eval.hub.push import Push
from understudy.eval.ledger.record import read_record
from understudy.eval.rollout.recipes import PolicyRecipe
from understudy.policies.agent.open import Acting, check_world, open_agent
from understudy.policies.foreign.planner import load_foreign
from understudy.policies.foreign.scale import ForeignError, ForeignWarning
from understudy.sim.task import MuJoCoWorld

KEYS = ("observation.state", "observation.environment_state", "action")
quiet = pytest.mark.filterwarnings("ignore::understudy.policies.foreign.scale.ForeignWarning")


@pytest.fixture(scope="module")
def peer(lerobot):
    """Saves tiny policies of lerobot's for the world 'point'."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    kinds = dict(zip(KEYS, ("STATE", "ENV", "ACTION"), strict=True))
    features = {key: PolicyFeature(FeatureType(kind), (2,)) for key, kind in kinds.items()}
    small = {
        "act": {"chunk_size": 16, "dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1,
                "use_vae": False},
        "diffusion": {"horizon": 8, "n_action_steps": 4, "down_dims": (16, 32), "use_group_norm": True,
                      "diffusion_step_embed_dim": 16, "noise_scheduler_type": "DDIM", "num_inference_steps": 5},
    }  # fmt: skip

    def save(folder, kind="act", **settings):
        torch.manual_seed(0)
        config = make_policy_config(
            kind, device="cpu", push_to_hub=False, pretrained_backbone_weights=None, output_features={"action":
            features["action"]}, input_features={key: features[key] for key in KEYS[:2]}, **(small[kind] | settings),
        )  # fmt: skip
        numbers = {"mean": torch.zeros(2), "std": torch.ones(2), "min": -torch.ones(2), "max": torch.ones(2)}
        policy = get_policy_class(kind)(config).eval()
        processors = make_pre_post_processors(config, dataset_stats=dict.fromkeys(KEYS, numbers))
        for part in (policy, *processors):
            part.save_pretrained(folder)
        return types.SimpleNamespace(folder=folder, policy=policy, processors=processors)

    return save


@pytest.fixture(scope="module")
def act(peer, tmp_path_factory):
    root = tmp_path_factory.mktemp("act")
    return {
        "ensemble": peer(root / "ensemble", temporal_ensemble_coeff=0.01, n_action_steps=1),
        "plain": peer(root / "plain", n_action_steps=1),
    }


def progress(record):
    return record.table.sort_by("env_seed")["progress"].to_pylist()


def judged(tmp_path, name, folder, **changes):
    settings = Eval(policy=str(folder), world="point", episodes=3, videos=0, out=str(tmp_path / name), **changes)
    evaluate(settings)
    return read_record(tmp_path / name)


@quiet
def test_a_policy_made_for_ensembling_is_judged_with_it(act, tmp_path):
    own, plain = (judged(tmp_path, name, act[name].folder) for name in ("ensemble", "plain"))
    asked = judged(tmp_path, "asked", act["ensemble"].folder, ensemble=0.01)
    without = judged(tmp_path, "without", act["ensemble"].folder, ensemble=float("-inf"))
    assert own.manifest["agent"]["ensemble"] == asked.manifest["agent"]["ensemble"] == 0.01
    assert own.manifest["agent"]["n_action_steps"] == 1 and "ensemble" not in plain.manifest["agent"]
    assert progress(own) == progress(asked) != progress(plain) == progress(without)


@quiet
def test_a_worker_without_the_training_data_acts_for_the_same_body(peer, tmp_path):
    """Limits that only the card of the data states hold on a machine that has the checkpoint alone."""
    world = read_world("point")
    card = tmp_path / "data" / "meta" / "embodiment.json"
    card.parent.mkdir(parents=True)
    close = ((-0.1, 0.1),) * 2
    card.write_text(dataclasses.replace(world.embodiment(), limits=close, guessed=("limits",)).to_json())
    folder = peer(tmp_path / "m", n_action_steps=8).folder
    (folder / "train_config.json").write_text(json.dumps({"dataset": {"root": str(tmp_path / "data")}}))

    acting = Acting(policy=str(folder))
    agent, about = open_agent(acting, world.embodiment, world.task)
    recipe = PolicyRecipe.of(acting, agent, about, world)
    assert agent.planner.embodiment.limits == close and about["body"] == str(card)
    shutil.rmtree(tmp_path / "data")
    assert recipe.agent().planner.embodiment == agent.planner.embodiment
    assert open_agent(acting, world.embodiment, world.task)[0].planner.embodiment.limits != close


@quiet
def test_what_is_shared_without_who_acts_says_so(peer, tmp_path, capsys):
    folder = peer(tmp_path / "m", n_action_steps=8).folder
    Push(what=str(folder), to=str(tmp_path / "shelf")).run()
    assert "nobody says who acts, and that is not shared" in capsys.readouterr().out
    card = (tmp_path / "shelf" / "README.md").read_text()
    assert "of 2 numbers; nobody says which" in card and "Hz" not in card
    (folder / "embodiment.json").write_text(read_world("point").embodiment().to_json())
    Push(what=str(folder), to=str(tmp_path / "other")).run()
    assert "not shared" not in capsys.readouterr().out
    assert "x [m/s], y [m/s]; velocity, at 20 Hz" in (tmp_path / "other" / "README.md").read_text()


@quiet
def test_guided_plans_are_said_to_be_our_samplers(peer, tmp_path, capsys):
    folder, world = peer(tmp_path / "m", "diffusion").folder, read_world("point")
    for latency in ("blend", "rtc"):
        open_agent(Acting(policy=str(folder), delay=2, latency=latency), world.embodiment, world.task)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "--latency" in line]
    assert said == "--latency rtc: later plans than the first are our sampler's (5 steps), not by DDIM"


@quiet
def test_nothing_is_taken_by_position_for_what_can_break(peer, tmp_path):
    class Real(MuJoCoWorld):
        moves_arm = True

    world, folder = read_world("point"), peer(tmp_path / "m", n_action_steps=8).folder
    agent, about = open_agent(Acting(policy=str(folder)), world.embodiment, world.task)
    assert about["body"] == "by position from 'point'"
    check_world(agent, world)
    with pytest.raises(EmbodimentError, match="nothing says of .* what its numbers are, .*--embodiment FILE"):
        check_world(agent, Real(task="point"))
    (folder / "embodiment.json").write_text(world.embodiment().to_json())
    check_world(open_agent(Acting(policy=str(folder)), world.embodiment, world.task)[0], Real(task="point"))


@quiet
def test_noise_of_each_denoising_step_is_not_called_silenced(peer, tmp_path):
    saved = peer(tmp_path / "m", "diffusion", noise_scheduler_type="DDPM", num_inference_steps=5)
    with pytest.raises(ValueError, match="DDPMScheduler draws noise at every denoising step; add --solver ddim"):
        judged(tmp_path, "noiseless", saved.folder, proposal="noiseless")
    one, other = (
        progress(judged(tmp_path, f"of{seed}", saved.folder, proposal="noiseless", solver="ddim", policy_seed=seed))
        for seed in (0, 1)
    )
    assert one == other


@quiet
def test_live_comparisons_ensemble_too_each_side_by_its_own(act, tmp_path):
    alone = judged(tmp_path, "own", act["ensemble"].folder)
    sides = (str(act["ensemble"].folder), str(act["plain"].folder))
    compare(Compare(what=sides, world="point", max=3, videos=0, out=str(tmp_path / "pair")))
    a, b = (read_record(tmp_path / "pair" / side) for side in "ab")
    assert (a.manifest["agent"].get("ensemble"), b.manifest["agent"].get("ensemble")) == (0.01, None)
    assert progress(a) == progress(alone)
    compare(Compare(what=sides, world="point", max=2, videos=0, out=str(tmp_path / "both"), ensemble=0.5))
    assert {read_record(tmp_path / "both" / side).manifest["agent"]["ensemble"] for side in "ab"} == {0.5}


@quiet
def test_demonstrations_by_it_are_ensembled_and_say_so(act, tmp_path):
    def record(name, folder, **changes):
        config = Settings(
            task="point", policy=(str(folder),), episodes=2, keep_failures=True, out=str(tmp_path / name), **changes
        )
        record_policies(config)
        (who,) = json.loads((tmp_path / name / "meta" / "recording.json").read_text())["who"]
        import pyarrow.parquet

        files = sorted((tmp_path / name / "data").rglob("*.parquet"))
        actions = [row for file in files for row in pyarrow.parquet.read_table(file)["action"].to_pylist()]
        return who.get("ensemble"), np.array(actions)

    own, actions = record("own", act["ensemble"].folder)
    asked, same = record("asked", act["plain"].folder, ensemble=0.01)
    none, others = record("none", act["ensemble"].folder, ensemble=float("-inf"))
    assert (own, asked, none) == (0.01, 0.01, None)
    assert np.array_equal(actions, same) and not np.array_equal(actions, others[: len(actions)])


def changed(saved, tmp_path, file="config.json", **changes):
    """The checkpoint with other settings in one of its files."""
    other = shutil.copytree(saved.folder, tmp_path / "copy")
    (other / file).write_text(json.dumps(json.loads((other / file).read_text()) | changes))
    return other


@pytest.mark.parametrize("decay", [-0.1, float("nan"), float("inf"), "0.01", True])
def test_a_coefficient_that_is_no_decay_is_refused_by_name(act, tmp_path, decay):
    with pytest.raises(ForeignError, match="config.json has temporal_ensemble_coeff"):
        load_foreign(changed(act["ensemble"], tmp_path, temporal_ensemble_coeff=decay))


def test_an_adapter_is_refused_by_name(act, tmp_path):
    with pytest.raises(ForeignError, match="use_peft: its weights are an adapter"):
        load_foreign(changed(act["plain"], tmp_path, use_peft=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_amp": True}, "has use_amp: networks compute in full precision"),
        ({"rtc_config": {"enabled": True}}, "has rtc_config: each chunk is planned afresh"),
    ],
)
def test_settings_of_acting_that_are_left_out_are_said(act, tmp_path, settings, message):
    with pytest.warns(ForeignWarning, match=message):
        load_foreign(changed(act["plain"], tmp_path, **settings))


def test_a_complete_checkpoint_gives_no_warning(act, peer, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ForeignWarning)
        load_foreign(act["ensemble"].folder)
        for steps in (5, 10, 20, 50, 100):
            load_foreign(peer(tmp_path / str(steps), "diffusion", num_inference_steps=steps).folder)


@pytest.mark.parametrize(("kind", "steps"), [("DDIM", 51), ("DDPM", 51), ("DDIM", 60)])
def test_a_scheduler_that_begins_half_clean_is_warned_of(peer, tmp_path, kind, steps):
    saved = peer(tmp_path / "m", "diffusion", noise_scheduler_type=kind, num_inference_steps=steps)
    with pytest.warns(ForeignWarning, match=f"steps {steps} of 100 lerobot's {kind} begins at step {steps - 1}"):
        load_foreign(saved.folder)


def restated(folder, name, change):
    """Change the statistics of a processor file's scaling step."""
    (file,) = folder.glob(f"{name}*normalizer_processor.safetensors")
    save_file({key: change(key, value) for key, value in load_file(file).items()}, file)


def test_numbers_that_never_moved_are_named(peer, tmp_path):
    saved = peer(tmp_path / "m", "diffusion")

    def still(key, value):
        return torch.tensor([0.3, value[1]]) if key in ("observation.state.min", "observation.state.max") else value

    restated(saved.folder, "policy_preprocessor", still)
    with pytest.warns(ForeignWarning, match="number 0 of 'observation.state' was always 0.3"):
        load_foreign(saved.folder)


def test_actions_are_scaled_back_by_the_postprocessors_own_statistics(peer, tmp_path):
    saved = peer(tmp_path / "m", "diffusion")
    before, _ = load_foreign(saved.folder)
    restated(saved.folder, "policy_postprocessor", lambda key, value: value * 4 if key == "action.max" else value)
    after, _ = load_foreign(saved.folder)
    assert before.action_scale.std.tolist() == [1, 1] and after.action_scale.std.tolist() == [2.5, 2.5]


def steps_changed(saved, tmp_path, name, kind, change):
    other = shutil.copytree(saved.folder, tmp_path / "steps")
    document = json.loads((other / name).read_text())
    steps = [step for step in document["steps"] if step["registry_name"] == kind]
    document["steps"] += change(steps[0]) or []
    (other / name).write_text(json.dumps(document))
    return other


def test_observations_that_swap_their_names_are_swapped_once(act, tmp_path):
    def swap(step):
        step["config"]["rename_map"] = {KEYS[0]: KEYS[1], KEYS[1]: KEYS[0]}

    saved, name = act["plain"], "policy_preprocessor.json"
    seen = {KEYS[0]: torch.tensor([[[0.1, 0.2]]]), KEYS[1]: torch.tensor([[[0.7, -0.4]]])}
    plain, _ = load_foreign(saved.folder)
    swapped, _ = load_foreign(steps_changed(saved, tmp_path, name, "rename_observations_processor", swap))
    assert swapped.body.keys == {KEYS[0]: KEYS[1], KEYS[1]: KEYS[0]}
    wanted = plain.chunks({KEYS[0]: seen[KEYS[1]], KEYS[1]: seen[KEYS[0]]})
    found = swapped.chunks(seen)
    assert torch.equal(found, wanted) and not torch.equal(found, plain.chunks(seen))


def test_steps_that_compute_otherwise_have_no_field_or_are_obeyed(peer, tmp_path):
    saved, name = peer(tmp_path / "m", "diffusion"), "policy_preprocessor.json"

    def half(step):
        step["config"]["float_dtype"] = "bfloat16"

    with pytest.raises(ForeignError, match="computes in bfloat16"):
        load_foreign(steps_changed(saved, tmp_path / "a", name, "device_processor", half))
    with pytest.raises(ForeignError, match="scales 2 times"):
        load_foreign(steps_changed(saved, tmp_path / "b", name, "normalizer_processor", lambda step: [step]))

    def only_state(step):
        step["config"]["normalize_observation_keys"] = ["observation.state"]

    policy, _ = load_foreign(steps_changed(saved, tmp_path / "c", name, "normalizer_processor", only_state))
    assert policy.foreign.rules["observation.environment_state"].mode == "IDENTITY"
    assert policy.foreign.rules["observation.state"].mode == "MIN_MAX"
