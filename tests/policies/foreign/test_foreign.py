"""Policies made elsewhere, without lerobot: keyed noise, scaling of a checkpoint, callables, refusals."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from understudy.__main__ import main
from understudy.configs.spec import Embodiment, EmbodimentError, Window
from understudy.policies.agent.agent import Agent
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.foreign.body import body_of, by_position
from understudy.policies.foreign.folder import Foreign, _lacks_packages
from understudy.policies.foreign.noise import keyed, row_seeds
from understudy.policies.foreign.planner import callable_planner
from understudy.policies.foreign.scale import (
    ForeignError,
    ForeignWarning,
    Normaliser,
    Rule,
    action_scale,
    check_statistics,
    read_rules,
)
from understudy.policies.foreign.train import LerobotTrain, flags_of, for_installed, merge
from understudy.policies.policy import LaneNoise, Past, Planner, Policy

BODY = Embodiment(
    name="table",
    action=("x", "y"),
    action_units=("px", "px"),
    limits=((0.0, 512.0), (0.0, 512.0)),
    rate=10.0,
    state=("x", "y"),
    state_units=("px", "px"),
)
CPU = torch.device("cpu")


def past(lanes=3, frames=1, state=2):
    return Past(
        obs={"observation.state": torch.arange(lanes * frames * state).float().view(lanes, frames, state)},
        obs_times=tuple(range(1 - frames, 1)),
        obs_valid=torch.ones(lanes, frames, dtype=torch.bool),
        actions=torch.zeros(lanes, 0, 2),
        action_times=(),
        action_valid=torch.ones(lanes, 0, dtype=torch.bool),
        now=torch.zeros(lanes, dtype=torch.int64),
    )


def noise(lanes=3, replan=0):
    return LaneNoise(5, np.arange(lanes), np.full(lanes, replan))


DRAWS = {
    "randn": lambda m: torch.randn(m, 4),
    "randn of a size": lambda m: torch.randn(size=(m, 4), dtype=torch.float64),
    "rand": lambda m: torch.rand((m, 4)),
    "randn_like": lambda m: torch.randn_like(torch.zeros(m, 4)),
    "normal": lambda m: torch.normal(mean=1.0, std=2.0, size=(m, 4)),
    "two parts a row": lambda m: torch.randn(2 * m, 3).view(m, 6),
    "multinomial": lambda m: torch.multinomial(torch.tensor([[0.2, 0.5, 0.3]]).expand(m, 3), 2),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_row_draws_what_it_would_alone_and_the_global_generator_stays_as_it_was(draw):
    seeds = [11, 12, 13]
    before = torch.get_rng_state()
    with keyed(seeds, CPU) as draws:
        together = draw(3)
    assert not draws.strayed and torch.equal(torch.get_rng_state(), before)
    for row, seed in enumerate(seeds):
        with keyed([seed], CPU):
            assert torch.equal(draw(1)[0], together[row])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(
    "draw", [lambda m: torch.zeros(m, 3).normal_(), lambda m: torch.randperm(m), lambda m: torch.randn(m + 1)]
)
def test_a_draw_that_cannot_be_keyed_by_row_is_noticed(draw):
    with keyed([1, 2, 3], CPU) as draws:
        draw(3)
    assert draws.strayed


def test_seeds_of_the_first_candidates_do_not_depend_on_how_many_there_are():
    few, many = row_seeds(noise(), 2), row_seeds(noise(), 5)
    assert [few[2 * lane : 2 * lane + 2] for lane in range(3)] == [many[5 * lane : 5 * lane + 2] for lane in range(3)]
    assert len(set(many)) == 15 and row_seeds(noise(replan=1), 5) != many


def keyable(rows):
    return rows["observation.state"][:, -1:] + torch.randn(len(rows["observation.state"]), 6, 2)


def wild(rows):
    state = rows["observation.state"]
    return (state[:, -1:] + torch.zeros(len(state), 6, 2).normal_()).numpy()


@pytest.mark.parametrize("chunks", [keyable, wild])
def test_a_callable_plans_alike_in_one_call_and_in_a_call_each_whoever_its_neighbours_are(chunks):
    def planner(batched):
        return callable_planner(
            chunks,
            embodiment=BODY,
            inputs=("observation.state",),
            window=Window(observe=(0,), horizon=5),
            n_action_steps=4,
            batched=batched,
        )

    together, apart = planner(True), planner(False)
    assert isinstance(together, Planner) and not isinstance(together, Policy)
    plans = together.plan(past(), 4, noise())
    assert plans.future.shape == (3, 4, 5, 2) and plans.past.shape == (3, 4, 0, 2)
    assert torch.equal(plans.future, apart.plan(past(), 4, noise()).future)
    assert torch.equal(plans.future[:, :1], together.plan(past(), 1, noise()).future)
    alone = together.plan(past(lanes=1), 4, noise(lanes=1))
    assert torch.equal(plans.future[:1], alone.future)
    assert not torch.equal(plans.future, together.plan(past(), 4, noise(replan=1)).future)
    assert together.batched == (chunks is keyable)


def test_candidates_that_are_all_the_same_are_said_once():
    planner = callable_planner(
        lambda rows: rows["observation.state"][:, -1:].repeat(1, 6, 1),
        embodiment=BODY, inputs=("observation.state",), window=Window(observe=(0,), horizon=5), n_action_steps=4,
    )  # fmt: skip
    planner.plan(past(), 1, noise())
    with pytest.warns(ForeignWarning, match="draws nothing: its 4 candidates are one and the same"):
        planner.plan(past(), 4, noise())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planner.plan(past(), 4, noise())


def test_an_agent_acts_with_a_callable():
    planner = callable_planner(
        keyable,
        embodiment=BODY,
        inputs=("observation.state",),
        window=Window(observe=(0,), horizon=5),
        n_action_steps=4,
    )
    agent = Agent(planner, lanes=2, n_action_steps=4)
    agent.reset(np.arange(2), np.ones(2, bool), {"observation.state": np.full((2, 2), 100, np.float32)})
    assert agent.act().shape == (2, 4, 2)


def test_a_callable_that_returns_other_shapes_is_refused():
    def planner(chunks, **settings):
        settings = {"window": Window(observe=(0,), horizon=5), "n_action_steps": 4} | settings
        return callable_planner(chunks, embodiment=BODY, inputs=("observation.state",), **settings)

    for chunks in (
        lambda rows: torch.zeros(3, 4, 2),
        lambda rows: torch.zeros(3, 5, 3),
        lambda rows: torch.zeros(2, 5, 2),
    ):
        with pytest.raises(ForeignError, match=r"should be \(3, at least 5, 2\)"):
            planner(chunks).plan(past(), 1, noise())
    with pytest.raises(ValueError, match="n_action_steps"):
        planner(keyable, n_action_steps=6)
    with pytest.raises(ValueError, match="no past actions"):
        planner(keyable, window=Window(observe=(0,), recall=(-1,), horizon=5))


STATS = {
    "min": torch.tensor([0.0, -3.0, 2.0]),
    "max": torch.tensor([10.0, 5.0, 2.0]),
    "mean": torch.tensor([4.0, 1.0, 2.0]),
    "std": torch.tensor([2.0, 0.5, 0.0]),
    "q01": torch.tensor([1.0, -2.0, 1.0]),
    "q99": torch.tensor([9.0, 4.0, 3.0]),
}


def test_the_ends_of_each_way_of_scaling():
    for mode, low, high in (("MIN_MAX", "min", "max"), ("QUANTILES", "q01", "q99")):
        rule = Rule(mode, STATS)
        scale = action_scale(rule, 3)
        assert torch.allclose(scale.unscale(torch.full((3,), -1.0)), STATS[low])
        assert torch.allclose(scale.unscale(torch.full((3,), 1.0)), STATS[high])
        assert torch.allclose(Normaliser(rule)(STATS[high])[:2], torch.ones(2))
    rule = Rule("MEAN_STD", STATS)
    assert torch.allclose(action_scale(rule, 3).unscale(torch.ones(3)), STATS["mean"] + STATS["std"])
    assert torch.allclose(Normaliser(rule)(STATS["mean"] + STATS["std"])[:2], torch.ones(2))
    plain = action_scale(Rule("IDENTITY", {}), 3)
    assert torch.equal(plain.unscale(STATS["mean"]), STATS["mean"])
    assert torch.equal(Normaliser(Rule("IDENTITY", {}))(STATS["mean"]), STATS["mean"])


CONFIG = {
    "type": "diffusion",
    "input_features": {"observation.state": {"type": "STATE", "shape": [2]}},
    "output_features": {"action": {"type": "ACTION", "shape": [2]}},
    "normalization_mapping": {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
}
ENDS = {"min": torch.tensor([1.0, 2.0]), "max": torch.tensor([5.0, 8.0])}
BUFFERS = {
    f"{where}.buffer_{key}.{name}": value + (key == "action")
    for where, key in (("normalize_inputs", "observation_state"), ("unnormalize_outputs", "action"))
    for name, value in ENDS.items()
}


def checkpoint(folder, config=CONFIG, **tensors):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(1)} | tensors, folder / "model.safetensors")
    return folder


def processors(folder, steps):
    (folder / "policy_preprocessor.json").write_text(json.dumps({"name": "p", "steps": steps}))


def normaliser(folder, **config):
    flat = {
        f"{key}.{name}": v + (key == "action") for key in ("observation.state", "action") for name, v in ENDS.items()
    }
    save_file(flat, folder / "state.safetensors")
    config = {"norm_map": CONFIG["normalization_mapping"], "eps": 1e-8} | config
    processors(folder, [{"registry_name": "normalizer_processor", "config": config, "state_file": "state.safetensors"}])


def test_old_buffers_and_new_processors_say_the_same(tmp_path):
    old, new = checkpoint(tmp_path / "old", **BUFFERS), checkpoint(tmp_path / "new")
    normaliser(new)
    for key in ("observation.state", "action"):
        one, other = Foreign(old).rules[key], Foreign(new).rules[key]
        assert one.mode == other.mode == "MIN_MAX"
        assert all(torch.equal(one.stats[name], other.stats[name]) for name in ("min", "max"))
    assert torch.equal(Foreign(old).rules["action"].stats["min"], ENDS["min"] + 1)


def test_what_is_missing_or_strange_in_a_checkpoint_is_refused_by_name(tmp_path):
    bare = checkpoint(tmp_path / "bare")
    with pytest.raises(ForeignError, match="no statistics"):
        _ = Foreign(bare).rules
    unfilled = checkpoint(tmp_path / "unfilled", **{k: v + torch.inf if "max" in k else v for k, v in BUFFERS.items()})
    with pytest.raises(ForeignError, match="never filled"):
        _ = Foreign(unfilled).rules
    normaliser(bare, norm_map={"ACTION": "MEAN_STD", "STATE": "MIN_MAX"})
    with pytest.raises(ForeignError, match="'action' by MEAN_STD but holds no statistic 'mean'"):
        _ = Foreign(bare).rules
    normaliser(bare, norm_map={"ACTION": "LOGARITHM"})
    with pytest.raises(ForeignError, match="LOGARITHM"):
        _ = Foreign(bare).rules
    processors(bare, [{"class": "somewhere.Evil", "config": {}}])
    with pytest.raises(ForeignError, match=r"asks to run the code somewhere\.Evil"):
        _ = Foreign(bare).rules
    (bare / "model.safetensors").unlink()
    with pytest.raises(ForeignError, match=r"model\.safetensors cannot be read"):
        _ = Foreign(bare).weights
    old = checkpoint(tmp_path / "ancient", {"type": "diffusion", "input_shapes": {}})
    with pytest.raises(ForeignError, match="no 'input_features'"):
        _ = Foreign(old).config


@pytest.mark.parametrize(
    ("mode", "values", "reason"),
    [
        ("MEAN_STD", {"mean": [0.0, torch.nan], "std": [1.0, 1.0]}, "'mean' of 'action' was never filled"),
        ("MEAN_STD", {"mean": [0.0, 0.0], "std": [1.0, -1.0]}, "'std' of 'action' is negative"),
        ("MIN_MAX", {"min": [0.0, 2.0], "max": [1.0, 1.0]}, "'min' of 'action' is above its 'max'"),
        ("MIN_MAX", {"min": [0.0, 0.0], "max": [1.0, 1.0], "mean": [torch.nan, 0.0]}, ""),  # which is not used
    ],
)
def test_statistics_that_cannot_be_are_refused_before_lerobots_own_processors_use_them(tmp_path, mode, values, reason):
    folder = checkpoint(tmp_path / "one")
    save_file({f"action.{name}": torch.tensor(value) for name, value in values.items()}, folder / "state.safetensors")
    config = {"norm_map": {"ACTION": mode}, "features": {"action": {"type": "ACTION", "shape": [2]}}}
    step = {"registry_name": "unnormalizer_processor", "config": config, "state_file": "state.safetensors"}
    processors(folder, [step])
    if not reason:
        return check_statistics(folder)
    with pytest.raises(ForeignError, match=reason):
        check_statistics(folder)


def test_a_processor_reads_no_file_outside_of_its_folder(tmp_path):
    folder = checkpoint(tmp_path / "one")
    save_file({"action.min": torch.zeros(2)}, tmp_path / "other.safetensors")
    processors(folder, [{"registry_name": "unnormalizer_processor", "state_file": "../other.safetensors"}])
    with pytest.raises(ForeignError, match="names the file '../other.safetensors', which is not inside"):
        check_statistics(folder)


def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path):
    with pytest.raises(ForeignError, match="'head' holds NaN or infinity"):
        _ = Foreign(checkpoint(tmp_path / "one", head=torch.tensor([1.0, torch.nan]))).weights


def test_who_acts_is_said_by_a_file_or_a_card_and_else_guessed(tmp_path):
    folder = checkpoint(tmp_path / "policy", **BUFFERS)
    guess = body_of(Foreign(folder))
    assert guess.guessed and guess.embodiment.action == ("0", "1") and set(guess.embodiment.action_units) == {"?"}
    assert guess.embodiment.limits == ((2.0, 6.0), (3.0, 9.0)), "from the statistics"
    with pytest.warns(ForeignWarning, match="taken by position for those of 'table'"):
        taken = by_position(Foreign(folder), guess, BODY)
    assert taken.embodiment is BODY and not taken.guessed
    (folder / "embodiment.json").write_text(BODY.to_json())
    assert body_of(Foreign(folder)).embodiment == BODY
    part = tmp_path / "part.yaml"
    part.write_text("action_units: [m, m]\nrate: 30\n")
    assert body_of(Foreign(folder), part).embodiment.action_units == ("m", "m")
    part.write_text("units: [m, m]\n")
    with pytest.raises(ForeignError, match="unknown field 'units'"):
        body_of(Foreign(folder), part)
    with pytest.raises(ForeignError, match="no embodiment at"):
        body_of(Foreign(folder), tmp_path / "nowhere.yaml")


def test_inspect_prints_what_is_in_a_checkpoint_of_lerobots(tmp_path, capsys):
    (tmp_path / "checkpoints" / "000010").mkdir(parents=True)
    checkpoint(tmp_path / "checkpoints" / "000010" / "pretrained_model", weight=torch.zeros(3, 4), **BUFFERS)
    assert main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert " 13 " in said, "parameters"
    assert "lerobot/diffusion" in said and "observation.state" in said and "by position" in said


def test_the_card_of_the_training_data_counts(tmp_path):
    folder, data = checkpoint(tmp_path / "policy", **BUFFERS), tmp_path / "data"
    (data / "meta").mkdir(parents=True)
    (data / "meta" / "embodiment.json").write_text(BODY.to_json())
    (folder / "train_config.json").write_text(json.dumps({"dataset": {"root": str(data)}}))
    assert body_of(Foreign(folder)).embodiment == BODY


def test_a_body_with_another_number_of_dimensions_is_refused(tmp_path):
    inputs = {"observation.state": {"type": "STATE", "shape": [6]}}
    folder = checkpoint(tmp_path / "arm", CONFIG | {"input_features": inputs}, **BUFFERS)
    with pytest.raises(EmbodimentError, match=r"'observation.state' has 6 dimensions .* 'table' has 2"):
        by_position(Foreign(folder), body_of(Foreign(folder)), BODY)


def test_a_lone_camera_is_matched_by_being_alone_and_two_are_not(tmp_path):
    picture = {"type": "VISUAL", "shape": [3, 8, 10]}
    inputs = CONFIG["input_features"] | {"observation.image": picture}
    foreign = Foreign(checkpoint(tmp_path / "seeing", CONFIG | {"input_features": inputs}, **BUFFERS))
    body = body_of(foreign)
    assert body.embodiment.cameras == {"image": (8, 10)}
    with pytest.warns(ForeignWarning):
        taken = by_position(foreign, body, BODY.with_cameras({"top": (96, 96)}))
    assert taken.keys["observation.images.top"] == "observation.image"
    with pytest.raises(EmbodimentError, match="looks through 'image', 'table' offers top, side"):
        by_position(foreign, body, BODY.with_cameras({"top": (9, 9), "side": (9, 9)}))
    with pytest.warns(ForeignWarning):
        blind = by_position(foreign, body, BODY.with_cameras({}))
    assert blind.embodiment.cameras == {"image": (8, 10)}  # opened where the world has it
    told = body_of(foreign, BODY.with_cameras({"side": (9, 9)})).embodiment  # a card that does not name what it reads
    assert told.cameras == {"image": (8, 10), "side": (9, 9)}


def test_flags_for_lerobot_train_come_from_a_file_and_later_ones_win(tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "/data")
    file = tmp_path / "recipe.yaml"
    file.write_text("dataset.root: $WHERE/x\npolicy.down_dims: [64, 128]\npolicy.push_to_hub: false\nsteps: 10\n")
    flags = flags_of(file)
    assert flags == [
        "--dataset.root=/data/x",
        "--policy.down_dims=[64, 128]",
        "--policy.push_to_hub=false",
        "--steps=10",
    ]
    assert merge(flags, ["--steps=3"])[-1] == "--steps=3" and len(merge(flags, ["--steps=3"])) == 4
    file.write_text("- a\n")
    with pytest.raises(ValueError, match="must hold flags"):
        flags_of(file)


def test_the_words_of_lerobot_train_are_handed_on_as_they_are(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("steps: 10\nbatch_size: 8\n")
    asked = LerobotTrain.from_words([str(tmp_path / "recipe.yaml"), "--steps=3", "--policy.down_dims=[64]"])
    assert asked.flags == ("--steps=3", "--batch_size=8", "--policy.down_dims=[64]")
    assert LerobotTrain.from_words(["configs/foreign/pusht_diffusion.yaml"]).flags, "shipped configs are found"
    assert main(["lerobot-train", "--steps=3"]) == 2
    assert "give a YAML file of lerobot-train's flags first" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["eval_freq", "env_eval_freq"])
def test_flags_are_named_as_the_installed_lerobot_names_them(name):
    flags = ["--steps=3", f"--{name}=0", "--seed", "5"]
    assert for_installed(flags, {"steps", "seed", "env_eval_freq"})[1] == "--env_eval_freq=0"
    assert for_installed(flags, {"steps", "seed", "eval_freq"}) == ["--steps=3", "--eval_freq=0", "--seed", "5"]
    assert for_installed(flags, {"steps", "eval_freq", "env_eval_freq"}) == flags, "both are there: as written"


def test_the_shipped_recipes_have_only_flags_that_the_installed_lerobot_knows(lerobot, root):
    from lerobot.configs.train import TrainPipelineConfig

    known = {field.name for field in dataclasses.fields(TrainPipelineConfig)}
    for file in (root / "configs" / "foreign").glob("*.yaml"):
        flags = for_installed(flags_of(file), known)
        strange = [flag for flag in flags if flag[2:].partition("=")[0].partition(".")[0] not in known]
        assert not strange and {"--policy.horizon=16", "--policy.chunk_size=16"} & set(flags), file


def test_the_features_of_the_training_data_count_where_it_has_no_card(tmp_path):
    """As lerobot's edit tools leave it."""
    folder, data = checkpoint(tmp_path / "policy", **BUFFERS), tmp_path / "data"
    DatasetWriter(data, BODY)
    (data / "meta" / "embodiment.json").unlink()
    (folder / "train_config.json").write_text(json.dumps({"dataset": {"root": str(data)}}))
    body = body_of(Foreign(folder))
    assert body.embodiment == BODY and body.source == str(data / "meta" / "info.json")
    info = json.loads((data / "meta" / "info.json").read_text())
    (data / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v1.6"}))
    assert body_of(Foreign(folder)).guessed, "an old format says nothing"


def test_packages_that_a_type_needs_are_named_by_the_extra_that_lerobot_has():
    assert "pip install 'lerobot[multi-task-dit]'" in str(_lacks_packages("multi_task_dit", ImportError("x")))
    assert "pip install 'lerobot[pi]'" in str(_lacks_packages("pi05", ImportError("x")))
    assert "pip install 'lerobot[diffusion]'" in str(_lacks_packages("diffusion", ImportError("x")))


def test_rules_are_read_without_a_mapping(tmp_path):
    config = {key: value for key, value in CONFIG.items() if key != "normalization_mapping"}
    assert read_rules(checkpoint(tmp_path / "x"), config, {})["action"].mode == "IDENTITY"
