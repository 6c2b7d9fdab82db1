"""Stages of one file are ordinary runs, and the same command goes on where it was stopped."""

import numpy as np
import pytest

from understudy.configs.episode import Episode
from understudy.configs.plugins import discover
from understudy.configs.settings.refusals import UsageError
from understudy.configs.spec import IMAGES, STATE, Embodiment
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.learning.train import Train
from understudy.policies.load import load_policy

BODY = Embodiment(
    action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("s",), state_units=("m",),
    cameras={"top": (16, 16)},
)  # fmt: skip
FILE = """\
data: {data}
out: {out}
batch: 16
validation: 0.2
log_every: 2
validate_every: 2
save_every: 2
policy:
  type: regression
  n_action_steps: 1
  inputs: [observation.state, observation.images.top]
  window: {{observe: [0], horizon: 2}}
  network: {{type: mlp, width: 16, depth: 1, condition_width: 16}}
stages:
  encoder:
    steps: 2
    policy: {{vision: {{encoder: {{type: resnet18, width: 16, blocks: [1], features: 4}}}}}}
  head:
    steps: 4
    policy:
      type: flow
      n_action_steps: 1
      inputs: [observation.state, observation.images.top]
      window: {{observe: {{count: 3}}, recall: {{count: 2}}, horizon: 2}}
      network: {{type: mlp, width: 16, depth: 1, condition_width: 16}}
      vision: {{init: {init}, frozen: true}}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    discover("policies")
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    writer = DatasetWriter(tmp_path / "data", BODY, pictures="image")
    for start in range(5):
        none, action = np.zeros(6, np.float32), rng.uniform(-1, 1, (6, 1)).astype(np.float32)
        obs = {STATE: action, IMAGES + "top": rng.integers(0, 255, (6, 16, 16, 3), np.uint8)}
        quiet = {"reward": none, "progress": none, "success": none > 0, "terminated": False, "truncated": True}
        writer.add(Episode(start=start, task="t", obs=obs, action=action, sent=action, **quiet))

    def write(init="stage:encoder"):
        file = tmp_path / "stages.yaml"
        file.write_text(FILE.format(data=tmp_path / "data", out=tmp_path / "runs", init=init))
        return file

    return write


def test_stages_are_trained_one_on_the_other_and_go_on(config, tmp_path, capsys):
    file, runs = config(), tmp_path / "runs"
    Train.from_words([str(file)]).run()
    told = capsys.readouterr().out
    assert "stage 1 of 2, encoder\n" in told and "stage 2 of 2, head\n" in told
    assert "30 frames are read as 4 numbers each, 0 of them kept from before; that saves" in told
    assert told.splitlines()[-1] == f"what acts: {runs / 'head'}"
    policy, info = load_policy(runs / "head")
    assert info["type"] == "flow" and policy.eyes.config.init == str(runs / "encoder")

    Train.from_words([str(file)]).run()
    assert capsys.readouterr().out.count("trained already") == 2


def test_a_stage_that_was_stopped_goes_on(config, tmp_path, capsys):
    file, runs = config(), tmp_path / "runs"
    Train.from_words([str(file)]).run()
    (runs / "head" / "last").unlink()
    (runs / "head" / "last").symlink_to("checkpoints/00000002")
    Train.from_words([str(file)]).run()
    assert "resuming" in capsys.readouterr().out and (runs / "head" / "last").resolve().name == "00000004"


def test_other_settings_and_stages_that_are_not_there_are_refused(config, tmp_path):
    Train.from_words([str(config())]).run()
    with pytest.raises(UsageError, match="stage encoder in .* was begun with other settings"):
        Train.from_words([str(config()), "--seed", "3"]).run()
    with pytest.raises(UsageError, match="stage head takes 'stage:eyes', which is no earlier stage .encoder."):
        Train.from_words([str(config(init="stage:eyes"))])


def test_what_a_later_stage_refuses_is_refused_before_the_first(config, tmp_path):
    file = config()
    file.write_text(file.read_text().replace("recall: {count: 2}", "recall: [2]"))
    with pytest.raises(UsageError, match="stage head: ") as refused:
        Train.from_words([str(file)])
    assert "recall" in str(refused.value.__cause__) and not (tmp_path / "runs").exists()
