"""A long context in stages beside the same end to end: equal sides, all time counted, on the real trainings."""

import math

import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import IMAGES, STATE, Embodiment
from understudy.eval.bench import tables
from understudy.eval.bench.learn import Side, open_seen
from understudy.eval.bench.learn_stages import Kept, Learning, Stages, compare_stages_learning, table, verdict
from understudy.eval.bench.settings import Settings
from understudy.eval.bench.stages import Context
from understudy.policies.data.writer import DatasetWriter

TOP, SIDE = IMAGES + "top", 32
BODY = Embodiment(
    name="dot", action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("x",), state_units=("m",),
    cameras={"top": (SIDE, SIDE)},
)  # fmt: skip
CONTEXT = Context(frames=3, pictures=SIDE, batch=4)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("bench") / "demos", np.random.default_rng(0)
    writer = DatasetWriter(root, BODY, pictures="image")
    for start in range(10):
        x, none = rng.uniform(-0.9, 0.9, (8, 1)).astype(np.float32), np.zeros(8, np.float32)
        obs = {STATE: x, TOP: rng.integers(0, 255, (8, SIDE, SIDE, 3), np.uint8)}
        quiet = {"reward": none, "progress": none, "success": none > 0, "terminated": False, "truncated": True}
        writer.add(Episode(start=start, task="point", obs=obs, action=x, sent=x, **quiet))
    return root


@pytest.mark.usefixtures("cache")
def test_both_ways_learn_from_the_same_windows(demos):
    pytest.importorskip("diffusers", reason="the noise levels are lerobot's")
    found = compare_stages_learning(str(demos), CONTEXT, seconds=0.2, turns=5)
    stages, whole = (found["curves"][name] for name in ("in stages", "end to end"))
    assert len(whole) == 5 and all(loss > 0 for _, _, loss in whole)
    assert stages[-1][2] > 0, "the encoder's stage is over"
    assert found["embedding_s"] > 0 and found["encoder_s"] == pytest.approx(0.25)
    assert "end to end is at" in table(found)
    title, command, columns, rows, _ = tables.TABLES["learn"](found)
    assert "--against end_to_end" in command and len(rows) == 5 and len(rows[0]) == len(columns)


@pytest.mark.usefixtures("cache")
def test_what_is_kept_is_what_the_eyes_see(demos, tmp_path):
    """Of the head's own eyes, at every row; and both sides have the same weights to begin with, but for the eyes."""
    dataset, camera = open_seen(str(demos))
    learning = Learning(dataset, camera, CONTEXT, 0, tmp_path)
    whole = learning.loop(learning.window, None)
    acting = whole.average.module.eval()
    kept = Kept.of(acting, learning)
    head = learning.loop(learning.window, kept, acting.eyes.encoders)
    batch = learning.windows(learning.window, None, learning.training)(torch.arange(5))
    seen = head.model.eyes.embed(camera, batch[camera].flatten(0, 1)).unflatten(0, batch[camera].shape[:2])
    read = learning.windows(learning.window, kept, learning.training)(torch.arange(5))[camera]
    assert torch.allclose(seen, read, atol=1e-5)
    assert not any(value.requires_grad for value in head.model.eyes.encoders.parameters())

    stages = Stages(learning, lead=1e-9)
    assert math.isinf(stages.held_out()), "an encoder alone does not act on a long context"
    stages.step()
    assert stages.embedding > 0 and math.isfinite(stages.held_out())


def test_the_verdict_is_of_the_least_loss_end_to_end():
    stages, whole = (Side(name, lambda: None, lambda: 1.0) for name in ("in stages", "end to end"))
    stages.curve = [(1.0, 1, float("inf")), (2.0, 2, 0.3)]
    whole.curve = [(1.0, 1, 0.9), (8.0, 2, 0.3), (9.0, 3, 0.4)]
    found = verdict(stages, whole)
    assert (found["loss"], found["whole_s"], found["stages_s"], found["ratio"]) == (0.3, 8.0, 2.0, 4.0)
    assert found["curves"]["in stages"][0] == (1.0, 1, None)


def test_flags_of_the_other_peer_are_refused():
    with pytest.raises(ValueError, match="--against lerobot` does not read --context"):
        Settings(what="learn", context=4)
    with pytest.raises(ValueError, match="--against end_to_end` does not read --noise_draws"):
        Settings(what="learn", against="end_to_end", noise_draws=2)
    with pytest.raises(LookupError, match="end_to_end"):
        Settings(what="learn", against="act")
