"""Planning and comparing with dreams: plans are ranked by what they lead to; imagined pairs stand beside true ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.world import read_world
from understudy.eval.compare.imagine import Imagination, _check_past, _check_repeats, _dreaming
from understudy.eval.evaluate.evaluate import Eval
from understudy.eval.ledger.record import read_record
from understudy.policies.critics.open import open_critic
from understudy.policies.learning.checkpoint import find_checkpoint, fingerprint
from understudy.policies.load import load_policy
from understudy.policies.policy import Past, Plans
from understudy.world_models import gate

from .conftest import SIDE, TOP, draw

pytestmark = pytest.mark.timeout(900)  # a small training comes first, on a machine that others load


@pytest.fixture(scope="module")
def policies(dots_run, dots_data, tmp_path_factory):
    """Two small policies of the dots."""
    folder, runs = tmp_path_factory.mktemp("policies"), []
    for seed, steps in ((0, 40), (1, 5)):
        run = folder / f"p{seed}"
        text = f"data: {dots_data}\nout: {run}\nsteps: {steps}\nbatch: 32\ndevice: cpu\nseed: {seed}\n"
        text += f"scale: {dots_run.parent.parent / 'scale.yaml'}\n"
        kind = "policy: {type: regression, window: {observe: [0], horizon: 8}}\n"
        (folder / "policy.yaml").write_text(text + kind)
        assert main(["train", str(folder / "policy.yaml")]) == 0
        runs.append(run)
    return runs


@pytest.fixture
def measured(dots_run):
    """The world model, noted as one that follows its actions."""
    file, checkpoint = dots_run / gate.FILE, find_checkpoint(dots_run)
    before = file.read_text() if file.is_file() else None
    gate.note(checkpoint, fingerprint(checkpoint), {"step": 16, "films": 9, "gap": {"shuffled": [3, 4, 5]}})
    yield dots_run
    file.unlink() if before is None else file.write_text(before)


def test_plans_are_ranked_by_what_they_lead_to(measured, policies):
    planner = load_policy(policies[0])[0]
    picture = torch.from_numpy(draw(np.array([75.0, 25.0]), np.array([30.0, 70.0])))
    past = Past(
        {TOP: picture[None, None].repeat(1, 2, 1, 1, 1)}, (-1, 0), torch.ones(1, 2).bool(), torch.zeros(1, 0, 2), (),
        torch.zeros(1, 0).bool(), torch.zeros(1),
    )  # fmt: skip
    goals = torch.tensor([[75.0, 25.0], [90.0, 10.0], [30.0, 70.0]])  # stay, go away, go there
    plans = Plans(torch.zeros(1, 3, 0, 2), goals[None, :, None].repeat(1, 1, 8, 1), torch.zeros(1).long())
    critic = open_critic(str(measured), planner)
    scores = critic.score(past, plans)
    assert scores.shape == (1, 3) and int(scores.argmax()) == 2 and scores[0, 2] > scores[0, 0] + 0.2
    assert torch.equal(scores, critic.score(past, plans)) and critic.eyes.sizes == {TOP: (SIDE, SIDE)}
    outside = plans.future.clone()
    outside[:, 1] = torch.tensor([300.0, -90.0])  # executed as 100, 0
    inside = outside.clamp(0, 100)
    far, near = (critic.score(past, Plans(plans.past, future, plans.start)) for future in (outside, inside))
    assert torch.equal(far, near)
    both = open_critic(f"{measured}+0.5*random", planner)
    assert both.score(past, plans).shape == (1, 3)


def test_a_policy_acts_by_imagined_outcomes_and_no_unproven_model_ranks(measured, policies, tmp_path, capsys):
    words = ["eval", "--policy", str(policies[0]), "--world", "{type: test_dots}", "--episodes", "2", "--block", "2"]
    words += ["--videos", "0", "--candidates", "3", "--critic", str(measured)]
    assert main([*words, "--out", str(tmp_path / "steered")]) == 0
    (measured / gate.FILE).write_text("{}")
    assert main([*words, "--out", str(tmp_path / "refused")]) == 2
    assert "ranks no plans: nobody has measured" in capsys.readouterr().err
    words[-1] = str(measured.parent / "codec")
    assert main([*words, "--out", str(tmp_path / "refused")]) == 2
    assert "holds no world model that imagines" in capsys.readouterr().err


def test_a_comparison_imagines_the_same_starts_only_where_that_pays(measured, policies, tmp_path, capsys):
    (tmp_path / "dots.yaml").write_text("type: test_dots\n")
    world, past = str(tmp_path / "dots.yaml"), []
    for name, run in zip("ab", policies, strict=True):
        past.append(str(tmp_path / f"past_{name}"))
        words = ["--policy", str(run), "--world", world, "--out", past[-1], "--videos", "0", "--workers", "0"]
        assert main(["eval", *words, "--env_seed", "0", "--episodes", "30", "--block", "10"]) == 0
    words = ["compare", *map(str, policies), "--world", world, "--until_decided", "--max", "16", "--on", "progress"]
    words += ["--imagine", str(measured), "--imagined", "100", "--videos", "0", "--block", "10", "--workers", "0"]
    assert main([*words, "--out", str(tmp_path / "none")]) == 2
    assert "--past A_RECORD B_RECORD" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "swapped"), "--past", *past[::-1]]) == 2
    assert "is not of policy A" in capsys.readouterr().err
    record = read_record(past[0])
    acted = record.manifest["agent"] | {"n_action_steps": 2}
    with pytest.raises(ValueError, match="acted otherwise than it will here: n_action_steps 2 against"):
        _check_past(replace(record, manifest=record.manifest | {"agent": acted}), record.manifest, "A")
    now = record.manifest | {"world": record.manifest["world"] | {"gravity": (0, 0, -9.8)}}  # yet to be written
    _check_past(replace(record, manifest=json.loads(json.dumps(now))), now, "A")
    there = {"type": "dream", "model": "m"}
    with pytest.raises(ValueError, match="of another world than this comparison"):
        _check_past(replace(record, manifest=record.manifest | {"world": there}), record.manifest, "A")
    still = Eval(policy=str(policies[0]), out="out", proposal="noiseless")
    with pytest.raises(ValueError, match="all dreams of a start are the same"):
        _check_repeats(Imagination(str(measured), tuple(past), 100, 8), still, world)
    late = {"type": "test_dots", "delay": 2}
    (tmp_path / "late.yaml").write_text(json.dumps(late))
    dream = read_world(_dreaming(Imagination(str(measured), (), 100, 1), still, str(tmp_path / "late.yaml")))
    assert dream.delay == 2 and dream.task == "dots"
    assert main([*words, "--out", str(tmp_path / "out"), "--past", *past]) == 0
    said = capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "compare.json").read_text())["sequential"]["imagined"]
    assert "differences of 30 past starts, true and imagined, correlate" in said
    assert ("imagination is on" in said) == told["pays"] and np.isfinite(told["correlation"])
    assert (tmp_path / "out" / "imagined" / "a").is_dir() == told["pays"]
