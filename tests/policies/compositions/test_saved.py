"""Mixtures on disk: saved with their parents, loaded to the bit, composed again, evaluated, ranked by a critic."""

import json
import os
import shlex
import shutil

import numpy as np
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.evaluate.evaluate import Eval
from understudy.eval.inspect.files import show_checkpoint
from understudy.eval.ledger.identity import identify
from understudy.eval.ledger.record import read_record
from understudy.eval.studies.mixture_cost import study
from understudy.policies.agent.agent import Agent
from understudy.policies.compositions.adapt import Adapt
from understudy.policies.compositions.mixture import Mixture, WeightSchedule
from understudy.policies.compositions.superpose import Superposition
from understudy.policies.learning.checkpoint import (
    CheckpointError,
    blank_scales,
    fingerprint,
    load_model,
    parents_of,
    save_checkpoint,
)
from understudy.policies.load import load_policy, save_mixture
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.flow import FlowConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import LaneNoise

WORLD = {"type": "point", "horizon": 16}
KINDS = {
    "one": (DiffusionConfig, Window(observe=(-1, 0), horizon=8), (STATE, SCENE)),
    "two": (FlowConfig, Window(observe=(0,), recall=(-2, -1), horizon=6), (STATE,)),
    "three": (DiffusionConfig, Window(observe=(0,), horizon=8), (SCENE,)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints of three untrained policies for the point task, with a training state."""
    root, embodiment = tmp_path_factory.mktemp("parents"), read_world("point").embodiment()
    for seed, (name, (kind, window, inputs)) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        network = MLPConfig(width=16, depth=1, condition_width=8)
        config = kind(window=window, inputs=inputs, network=network, n_action_steps=4)
        policy = config.build(embodiment, blank_scales(embodiment))
        for parameter in policy.network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        tensors = {"ema.safetensors": {"x": torch.zeros(3)}}
        save_checkpoint(root / name, policy, kind="policy", config=config, tensors=tensors)
    return {name: root / name for name in KINDS}


def compose(folders, names, weights, **settings):
    return Mixture([load_policy(folders[name])[0] for name in names], weights, **settings)


def planned(policy):
    agent = Agent(policy, lanes=2, n_action_steps=2)
    offers = policy.embodiment.offers()
    draw = np.random.default_rng(0)
    obs = {key: draw.random((2, len(offers[key])), np.float32) for key in policy.inputs}
    agent.reset(np.arange(2), np.ones(2, bool), obs)
    plans = policy.plan(agent.past(), 3, LaneNoise(0, np.arange(2), np.zeros(2, np.int64)))
    return torch.cat([plans.past, plans.future], 2)


SCHEDULE = WeightSchedule(weights=((0.2, 0.8), (0.7, 0.3)), angles=(0.1, 0.8))


@pytest.mark.parametrize("weights", [(0.3, 0.7), (0.0, 1.0), SCHEDULE])
def test_loaded_to_the_bit(folders, tmp_path, weights):
    mixture = compose(folders, ("one", "two"), weights)
    mixture.sampler, mixture.adapt = type(mixture.sampler)(steps=3), Adapt(skip=((0.1, 0.4), (0.8, 0.9)))
    save_mixture(tmp_path / "deep" / "mix", mixture, [folders["one"], folders["two"]])
    loaded, info = load_policy(tmp_path / "deep" / "mix")
    assert torch.equal(planned(loaded), planned(mixture)) and loaded.config == mixture.config
    assert info["type"] == "convex" and not loaded.training
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["mix"]
    assert not list((tmp_path / "deep").rglob("training_state"))


def test_it_stands_without_its_parents_and_anywhere(folders, tmp_path):
    own = {name: tmp_path / "own" / name for name in ("one", "two")}
    for name, folder in own.items():
        shutil.copytree(folders[name], folder)
    mixture = compose(own, own, (0.5, 0.5))
    save_mixture(tmp_path / "mix", mixture, list(own.values()))
    shutil.rmtree(tmp_path / "own")
    before = fingerprint(tmp_path / "mix")
    (tmp_path / "mix").rename(tmp_path / "elsewhere")
    assert torch.equal(planned(load_policy(tmp_path / "elsewhere")[0]), planned(mixture))
    assert fingerprint(tmp_path / "elsewhere") == before and str(tmp_path) not in json.dumps(
        json.loads((tmp_path / "elsewhere" / "config.json").read_text())
    )


def test_composed_again(folders, tmp_path):
    save_mixture(tmp_path / "inner", compose(folders, ("one", "two"), (0.25, 0.75)), [folders["one"], folders["two"]])
    both = [tmp_path / "inner", folders["three"]]
    outer = Mixture([load_policy(path)[0] for path in both], (0.8, 0.2))
    save_mixture(tmp_path / "outer", outer, both)
    loaded, _ = load_policy(tmp_path / "outer")
    assert torch.equal(planned(loaded), planned(outer))
    flat = compose(folders, KINDS, (0.2, 0.6, 0.2))
    assert torch.allclose(planned(loaded), planned(flat), atol=1e-5)


def test_the_fingerprint_tells_weights_parents_and_policies_apart(folders, tmp_path):
    pair = [folders["one"], folders["two"]]
    for name, weights in (("a", (0.5, 0.5)), ("b", (0.4, 0.6)), ("again", (0.5, 0.5))):
        save_mixture(tmp_path / name, compose(folders, ("one", "two"), weights), pair)
    other = [folders["one"], folders["three"]]
    save_mixture(tmp_path / "c", compose(folders, ("one", "three"), (0.5, 0.5)), other)
    found = [fingerprint(tmp_path / name) for name in ("a", "b", "c")]
    assert len({*found, fingerprint(folders["one"])}) == 4 and fingerprint(tmp_path / "again") == found[0]
    weights = parents_of(tmp_path / "a")[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert fingerprint(tmp_path / "a") != found[0]


def test_only_its_own_parents_are_saved_with_it(folders, tmp_path):
    mixture = compose(folders, ("one", "three"), (0.5, 0.5))
    with pytest.raises(CheckpointError, match="does not hold parent 1"):
        save_mixture(tmp_path / "mix", mixture, [folders["three"], folders["one"]])
    with pytest.raises(CheckpointError, match="needs as many folders"):
        save_mixture(tmp_path / "mix", mixture, [folders["one"]])
    assert not (tmp_path / "mix").exists()


def test_never_half(folders, tmp_path, monkeypatch):
    pair = [folders["one"], folders["two"]]
    first = compose(folders, ("one", "two"), (0.5, 0.5))
    save_mixture(tmp_path / "mix", first, pair)
    copy, count = shutil.copytree, []

    def full(*words, **named):
        count.append(1)
        if len(count) == 2:
            raise OSError("No space left on device")
        return copy(*words, **named)

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="could not be written"):
        save_mixture(tmp_path / "mix", first.weighted((0.1, 0.9)), pair)
    assert [path.name for path in tmp_path.iterdir()] == ["mix"]
    assert load_policy(tmp_path / "mix")[0].weights == first.weights


def test_what_is_no_mixture_says_so(folders, tmp_path):
    pair = [folders["one"], folders["two"]]
    save_mixture(tmp_path / "mix", compose(folders, ("one", "two"), (0.5, 0.5)), pair)
    with pytest.raises(CheckpointError, match="holds a mixture, not a critic"):
        load_model(tmp_path / "mix", "critic")
    shutil.rmtree(tmp_path / "mix" / "parents" / "1")
    with pytest.raises(ValueError, match=r"parents/1/config.json cannot be read"):
        load_policy(tmp_path / "mix")


def test_evaluated_and_ranked_like_a_policy(folders, tmp_path, capsys):
    pair = [folders["one"], folders["two"]]
    save_mixture(tmp_path / "mix", compose(folders, ("one", "two"), (0.5, 0.5)), pair)
    save_mixture(tmp_path / "first", compose(folders, ("one", "two"), (1.0, 0.0)), pair)

    def acted(policy, name, **settings):
        told = {"world": WORLD, "episodes": 4, "env_seed": 1000, "block": 4, "videos": 0, "policy": str(policy)}
        Eval(**told, out=str(tmp_path / name), **settings).run()
        return read_record(tmp_path / name)

    record = acted(tmp_path / "mix", "record", steps=3)
    assert record.manifest["complete"] and record.manifest["policy"]["type"] == "convex"
    assert record.manifest["agent"]["sampler"]["steps"] == 3 and record.manifest["agent"]["n_action_steps"] == 4
    ranked = acted(tmp_path / "mix", "ranked", steps=3, candidates=3, critic="recall")
    assert identify(record.manifest).weights == identify(ranked.manifest).weights
    parent, alone = acted(folders["one"], "parent"), acted(tmp_path / "first", "alone")
    assert parent.column("return") == alone.column("return") != record.column("return")
    assert identify(parent.manifest) != identify(alone.manifest)
    assert "report.html" in capsys.readouterr().out


def test_inspected(folders, tmp_path, capsys):
    pair = [folders["one"], folders["two"]]
    save_mixture(tmp_path / "mix", compose(folders, ("one", "two"), (0.3, 0.7)), pair)
    show_checkpoint(tmp_path / "mix")
    told = capsys.readouterr().out
    assert "mixture, type convex" in told and "0.3" in told
    assert "type diffusion" in told and "type flow" in told


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("--how.type convex --how.weights.weights [[0,1],[1,0]] --how.weights.angles [0.2,0.8]", Mixture),
        ("--how.type convex --how.weights.weights [[0.4,0.6]] --how.adapt.spare [[0.5,1]]", Mixture),
        ("--how.type and --how.sampler.steps 5", Superposition),
        ("--how.type or", Superposition),
    ],
)
def test_written_by_hand(folders, tmp_path, how, kind, capsys):
    words = ["mix", str(folders["one"]), str(folders["three"]), "--out", str(tmp_path / "made"), *how.split()]
    assert main(words) == 0
    policy, _ = load_policy(tmp_path / "made")
    assert type(policy) is kind and torch.isfinite(planned(policy)).all() and policy.n_action_steps == 4
    assert main(words) == 2 and "exists" in capsys.readouterr().err
    assert main([*words[:3], "--out", str(tmp_path / "no"), "--how.type", "nor"]) == 2


def test_the_bench_of_a_mixture_is_a_study(folders, tmp_path, capsys):
    made = study([str(folders["one"]), str(folders["three"])], lanes=(2,), pairs=1, repeat=1)
    assert [row[0] for row in made.rows] == ["mixture", "alternation", "sparing"] and made.rows[0][1] == 2
    words = shlex.split(made.command)[1:]
    assert main([*words, "--out", str(tmp_path / "s.json")]) == 0 and "sparing" in capsys.readouterr().out
    assert main(words[:3]) == 2 and "give two policies, got 1" in capsys.readouterr().err


def test_a_process_is_prepared_before_the_words_are_read(monkeypatch, capsys):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["mix", "--help"]) == 0 and "--parents" in capsys.readouterr().out
    assert main(["mix", "--how.type", "nor"]) == 2
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
