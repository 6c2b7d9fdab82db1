"""Policies that read the text of their task do what it says, and only what they can know."""

import importlib.util
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.episode import Episode
from understudy.configs.settings.decode import decode_choice
from understudy.configs.settings.refusals import UsageError
from understudy.configs.spec import STATE, Embodiment, Window
from understudy.policies.agent.agent import Agent
from understudy.policies.agent.open import Acting, open_agent
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Train, start_run
from understudy.policies.load import load_policy
from understudy.policies.models.regression import RegressionConfig
from understudy.policies.networks.language import LanguageConfig, LanguageError, TableConfig, WordLlamaConfig
from understudy.policies.networks.mlp import MLPConfig

BODY = Embodiment(
    name="point", action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("x",),
    state_units=("m",),
)  # fmt: skip
TEXTS = {"go to the left end": -1.0, "go to the right end": 1.0}


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """From the same places to the left or to the right: the text alone tells which."""
    root, rng = tmp_path_factory.mktemp("texts") / "demos", np.random.default_rng(0)
    writer = DatasetWriter(root, BODY)
    for start in range(12):
        text, side = list(TEXTS.items())[start % 2]
        state = rng.uniform(-0.5, 0.5, (10, 1)).astype(np.float32)
        action, none = np.full((10, 1), 0.8 * side, np.float32), np.zeros(10, np.float32)
        quiet = {"reward": none, "progress": none, "success": none > 0, "terminated": False, "truncated": True}
        writer.add(Episode(start=start, task=text, obs={STATE: state}, action=action, sent=action, **quiet))
    return root


def _run(demos, out, language):
    policy = RegressionConfig(
        window=Window(observe=(0,), horizon=2), n_action_steps=1, language=language,
        network=MLPConfig(width=32, depth=1, condition_width=32),
    )  # fmt: skip
    pace = {"steps": 120, "log_every": 60, "validate_every": 60, "save_every": 60}
    optimize = Optimize(lr=3e-3, warmup=10, ema=0.9)
    start_run(Train(data=str(demos), policy=policy, out=out, batch=32, validation=0.2, optimize=optimize, **pace))
    return out


@pytest.fixture(scope="module")
def table(demos, tmp_path_factory):
    return _run(demos, tmp_path_factory.mktemp("runs") / "table", TableConfig(features=4))


def _act(run, text):
    settings = Acting(policy=str(run), block=1, task_text=text)
    agent, about = open_agent(settings, lambda: BODY)
    agent.reset(np.zeros(1), np.ones(1, bool), {STATE: np.zeros((1, 1), np.float32)})
    return float(agent.act()[0, 0, 0])


def test_a_policy_does_what_the_text_says(table, capsys):
    for text, side in TEXTS.items():
        assert _act(table, text) == pytest.approx(0.8 * side, abs=0.2)
    assert "the policy reads the text of its task: 'go to the right end' (--task_text)" in capsys.readouterr().out
    assert json.loads((table / "last" / "config.json").read_text())["config"]["language"]["texts"] == sorted(TEXTS)


def test_a_text_that_nobody_knows_is_refused_with_those_that_are(table):
    with pytest.raises(LanguageError, match="'fly' was not trained on .*takes one of: go to the left end, go to"):
        _act(table, "fly")
    with pytest.raises(LanguageError, match="several tasks; --task_text takes one of"):
        _act(table, None)
    policy, _ = load_policy(table)
    with pytest.raises(LanguageError, match="was not told which"):
        policy.frames({STATE: torch.zeros(1, 1, 1)})


def test_a_policy_without_language_takes_no_text(demos, tmp_path):
    run = _run(demos, tmp_path / "mute", None)
    with pytest.raises(ValueError, match="reads no text; leave out --task_text"):
        _act(run, "go to the left end")
    assert isinstance(Agent(load_policy(run)[0], lanes=1, n_action_steps=1), Agent)


def test_a_frozen_text_encoder_reads_texts_that_were_not_trained_on(demos, tmp_path):
    if importlib.util.find_spec("wordllama") is None:
        pytest.skip("the text encoder comes with wordllama, the extra `vision`")
    run = _run(demos, tmp_path / "words", WordLlamaConfig(features=4))
    for text, side in TEXTS.items():
        assert _act(run, text) == pytest.approx(0.8 * side, abs=0.2)
    assert _act(run, "please go to the right end") > 0 > _act(run, "go now to the left end")

    policy, _ = load_policy(run)
    policy.language.vectors.neg_()  # as if another encoder had been there in training
    with pytest.raises(LanguageError, match="not the one of the training.*go to the left end"):
        policy.language.instruct("please go to the right end")
    policy.language.instruct("go to the left end")  # needs no encoder


def test_an_encoder_of_transformers_is_told_by_path_and_width():
    config = decode_choice(LanguageConfig, {"type": "transformers", "path": "some/folder", "width": 384})
    assert config.width == 384 and WordLlamaConfig().width == 256 and TableConfig().width is None
    with pytest.raises(UsageError, match="width must be given"):
        decode_choice(LanguageConfig, {"type": "transformers", "path": "some/folder"})


def test_recorded_episodes_are_judged_each_by_its_own_text(demos, table, tmp_path):
    assert main(["eval", "--policy", str(table), "--data", str(demos), "--out", str(tmp_path / "errors")]) == 0
    rows = pq.read_table(tmp_path / "errors" / "episodes.parquet").to_pylist()
    assert {row["task"] for row in rows} == set(TEXTS), "one of each is held out"
    assert all(np.mean(row["error"]) < 0.4 for row in rows)
