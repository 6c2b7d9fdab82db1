"""`understudy eval` with a critic that needs no training, and with temporal ensembling."""

import pytest
import torch

from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.evaluate.evaluate import Eval, evaluate
from understudy.eval.ledger.identity import identify
from understudy.eval.ledger.summary import summarize
from understudy.policies.critics.open import critic_checkpoints
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.transformer import TransformerConfig


@pytest.fixture(scope="module")
def remembering(tmp_path_factory):
    """A checkpoint of an untrained policy that predicts two past actions, for the point task."""
    torch.manual_seed(0)
    embodiment = read_world("point").embodiment()
    config = DiffusionConfig(
        window=Window(observe=(-4, 0), recall=(-4, -2), horizon=8),
        inputs=(STATE, SCENE),
        network=TransformerConfig(width=16, depth=1, heads=2),
        n_action_steps=4,
    )
    policy = config.build(embodiment, blank_scales(embodiment))
    for parameter in policy.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("runs") / "untrained"
    save_checkpoint(folder, policy, kind="policy", config=config)
    return folder


def test_recall_and_ensembling_are_asked_for_by_name(remembering, tmp_path):
    records = {
        name: evaluate(
            Eval(
                policy=str(remembering), world={"type": "point", "horizon": 24}, episodes=8, env_seed=1000,
                out=str(tmp_path / name), videos=0, **changes,
            )
        )
        for name, changes in {
            "plain": {},
            "one": {"candidates": 1, "critic": "recall"},
            "best": {"candidates": 10, "critic": "recall"},
            "blended": {"n_action_steps": 2, "ensemble": 0.1},
            "drawn": {"candidates": 10, "critic": "recall", "temperature": 1.0},
            "control": {"candidates": 10, "critic": "random"},
            "any": {"candidates": 10, "critic": "random", "proposal": "uniform"},
        }.items()
    }  # fmt: skip
    agents = {name: record.manifest["agent"] for name, record in records.items()}
    assert agents["best"]["critic"] == "recall" and agents["best"]["candidates"] == 10
    assert agents["blended"]["ensemble"] == 0.1 and "ensemble" not in agents["plain"]
    progress = {name: record.column("progress") for name, record in records.items()}
    assert progress["one"] == progress["plain"]
    assert progress["best"] != progress["plain"] and progress["blended"] != progress["plain"]
    assert len({identify(record.manifest).acts for record in records.values()}) == 7
    assert agents["drawn"]["temperature"] == 1.0 and "temperature" not in agents["best"]
    assert len({str(records[name].column("progress")) for name in ("plain", "best", "drawn", "control", "any")}) == 5
    assert agents["any"]["proposal"] == "uniform" and agents["any"]["sampler"] is None
    lengths = [len(values) for values in records["best"].column("value")]
    assert lengths == [-(-length // 4) for length in records["best"].column("length")]
    for row in records["best"].table.to_pylist():
        assert all(value >= mean - 1e-6 for value, mean in zip(row["value"], row["value_mean"], strict=True))
    assert "value" not in records["plain"].table.column_names
    told = {name: summarize(record) for name, record in records.items()}
    assert told["plain"].chosen is None and told["best"].chosen.candidates == 10
    assert told["best"].chosen.value.estimate > told["best"].chosen.mean
    assert "spreads above the mean" in told["best"].text() and "chosen chunk" not in told["plain"].text()
    assert told["control"].chosen.mean == pytest.approx(0.5, abs=0.1)  # of the greatest of 10 uniform numbers
    assert told["control"].chosen.value.estimate == pytest.approx(10 / 11, abs=0.05)


def test_a_critic_that_cannot_be_is_refused_before_anything_is_written(remembering, tmp_path):
    settings = {"policy": str(remembering), "world": "point", "out": str(tmp_path / "record"), "candidates": 2}
    with pytest.raises(LookupError, match="unknown critic 'runs/none'.*folder of a trained critic"):
        evaluate(Eval(**settings, critic="runs/none"))
    assert not (tmp_path / "record").exists()


def test_the_trained_critics_of_a_combination_are_found(tmp_path):
    folders = [tmp_path / name for name in ("value", "other")]
    for folder in folders:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    a, b = folders
    assert critic_checkpoints(None) == critic_checkpoints("recall") == critic_checkpoints("recall:5>random") == []
    assert critic_checkpoints(str(a)) == critic_checkpoints(f"recall:5>{a}") == [a]
    assert critic_checkpoints(f"{a}:5>{b}") == critic_checkpoints(f"{a} + 0.5*{b}") == [a, b]
