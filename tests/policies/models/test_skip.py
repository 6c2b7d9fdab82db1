"""The fixed linear map beside a denoiser's network: what it is, what it leaves alone, and that no width is needed."""

import json
import warnings

import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import Embodiment, Window
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.field import PredictionType, from_clean, to_clean
from understudy.policies.learning.optimizer import Optimize
from understudy.policies.learning.train import Train
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.flow import FlowConfig
from understudy.policies.models.one_step import OneStepConfig, Predicts
from understudy.policies.models.skip import LinearSkip, gain
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.networks.transformer import TransformerConfig
from understudy.policies.policy import Scales

NOISY = (PredictionType.v, PredictionType.epsilon, PredictionType.flow)
JOINTS = tuple(f"joint {i}" for i in range(26))
HUMANOID = Embodiment(
    name="humanoid", action=JOINTS, action_units=("rad",) * 26, limits=((-4.0, 4.0),) * 26, rate=10.0,
    state=JOINTS, state_units=("rad",) * 26,
)  # fmt: skip


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize("s", [0.03, 0.5, 20.0])
def test_the_gain_is_the_regression_of_the_target_on_the_input(kind, s):
    torch.manual_seed(0)
    clean = 0.4 * torch.randn(400_000, dtype=torch.float64)
    y = clean + s * torch.randn_like(clean)
    x, target = y / (1 + s * s) ** 0.5, from_clean(kind, clean, y, s)
    regression = (x * target).sum() / (x * x).sum()
    expected = gain(kind, torch.tensor(0.16, dtype=torch.float64), torch.tensor(s, dtype=torch.float64))
    assert expected == pytest.approx(float(regression), rel=0.02, abs=0.02)


@pytest.mark.parametrize("kind", NOISY)
def test_alone_it_is_the_linear_least_squares_denoiser(kind):
    """Chunks along one direction of six: noise across it is removed, along it shrunk by p / (p + s^2)."""
    torch.manual_seed(0)
    along = torch.nn.functional.normalize(torch.randn(6), dim=0)
    chunks = (torch.randn(5000, 1) * along).view(-1, 3, 2)
    skip = LinearSkip(kind, 3, [[0, 1, 2]], 2)
    skip.fit(chunks, torch.ones(5000, 3, dtype=torch.bool))

    y, s = torch.randn(7, 3, 2), torch.full((7,), 0.7)
    clean = to_clean(kind, skip(y / (1 + s[:, None, None] ** 2) ** 0.5, s), y, s[:, None, None])

    power = float((chunks.flatten(1) @ along).square().mean())
    expected = (power / (power + 0.49) * (y.flatten(1) @ along)[:, None] * along).view_as(y)
    torch.testing.assert_close(clean, expected, atol=1e-5, rtol=1e-4)


def test_it_is_not_rounded_where_the_network_is():
    skip = LinearSkip(PredictionType.v, 3, [[0, 1, 2]], 2)
    skip.fit(torch.randn(500, 3, 2), torch.ones(500, 3, dtype=torch.bool))
    x, s = torch.randn(7, 3, 2), torch.rand(7) + 0.1
    plain = skip(x, s)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(skip(x, s), plain)


def test_directions_beyond_the_most_share_their_mean(monkeypatch):
    monkeypatch.setattr("understudy.policies.models.skip.MOST", 2)
    chunks = torch.randn(50_000, 1, 4) * torch.tensor([3.0, 2.0, 0.2, 0.1])
    skip = LinearSkip(PredictionType.v, 1, [[0]], 4)
    skip.fit(chunks, torch.ones(50_000, 1, dtype=torch.bool))
    np.testing.assert_allclose(skip.power, [9, 4], rtol=0.05)
    assert float(skip.rest) == pytest.approx((0.04 + 0.01) / 2, rel=0.05)

    s = torch.ones(1)
    of_each = gain(PredictionType.v, torch.tensor([9.0, 4.0, 0.025, 0.025]), s)
    torch.testing.assert_close(skip(torch.ones(1, 1, 4), s)[0, 0], of_each, atol=0.05, rtol=0.05)


def test_past_and_future_are_not_mixed_nor_what_a_mask_keeps_apart():
    window = Window(observe=(0,), recall=(-2, -1), horizon=3)

    def reach(**settings):
        """(5, 5) bool: which token's input moves which token's share of the map."""
        policy = build(window=window, **settings)
        actions = torch.randn(500, 5, 1).cumsum(1).expand(-1, -1, 26).contiguous()
        policy.prepare({"action": actions, "action.valid": torch.ones(500, 5, dtype=torch.bool)})
        s, moved = torch.ones(1), torch.zeros(5, 5, dtype=torch.bool)
        for token in range(5):
            x = torch.zeros(1, 5, 26)
            x[0, token] = 1.0
            moved[token] = policy.skip(x, s)[0].abs().amax(-1) > 1e-6
        return moved

    past, future = torch.tensor([1, 1, 0, 0, 0]).bool(), torch.tensor([0, 0, 1, 1, 1]).bool()
    apart = past[:, None] & past | future[:, None] & future
    assert torch.equal(reach(), apart)
    assert torch.equal(reach(given=True), future[:, None] & future)
    assert torch.equal(reach(network=TransformerConfig(width=32, depth=1, heads=2)), torch.eye(5, dtype=torch.bool))


def build(kind=DiffusionConfig, **settings):
    plain = {"window": Window(horizon=16), "network": MLPConfig(width=64, depth=1, condition_width=16)}
    settings = plain | {"n_action_steps": 2} | settings
    scales = Scales(action=((-1.0,) * 26, (1.0,) * 26), states={"observation.state": ((0.0,) * 26, (1.0,) * 26)})
    return kind(**settings).build(HUMANOID, scales)


def test_what_needs_no_map_has_none_and_what_is_too_narrow_says_so():
    chunk = {"action": torch.zeros(4, 16, 26), "action.valid": torch.ones(4, 16, dtype=torch.bool)}
    assert build(prediction_type=PredictionType.x0).skip is None
    assert build(FlowConfig).skip is not None

    with pytest.warns(UserWarning, match=r"416 numbers of noise.* width 64.*linear_skip: true"):
        build(linear_skip=False).prepare(chunk)
    with pytest.warns(UserWarning, match=r"26 numbers of noise.* width 16"):
        build(linear_skip=False, network=TransformerConfig(width=16, depth=1, heads=2)).prepare(chunk)
    with pytest.warns(UserWarning, match="416 numbers of noise.*predicts: clean"):
        build(OneStepConfig, predicts=Predicts.velocity).prepare(chunk)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(OneStepConfig).prepare(chunk)
        build(prediction_type=PredictionType.x0).prepare(chunk)
        build(linear_skip=False, network=MLPConfig(width=416, depth=1, condition_width=16)).prepare(chunk)


@pytest.fixture(scope="module")
def cycle(tmp_path_factory):
    """26 joints that follow one smooth cycle: two numbers tell the whole chunk of 416."""
    root, rng = tmp_path_factory.mktemp("cycle") / "demos", np.random.default_rng(0)
    mix, writer, none = rng.normal(size=(2, 26)), DatasetWriter(root, HUMANOID), np.zeros(60, np.float32)
    for start in range(10):
        phase = rng.uniform(0, 2 * np.pi) + 0.05 * np.arange(61)
        pose = (np.stack([np.sin(phase), np.cos(phase)], 1) @ mix).astype(np.float32)
        writer.add(
            Episode(
                start=start, task="wave", obs={"observation.state": pose[:-1]}, action=pose[1:], sent=pose[1:],
                reward=none, progress=none, success=none.astype(bool), terminated=False, truncated=True,
            )
        )  # fmt: skip
    return root


def held_out_error(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return next(line for line in reversed(list(lines)) if "validation/action_error" in line)


def test_a_narrow_network_learns_a_body_of_many_joints(cycle, tmp_path, capsys):
    def train(name, **settings):
        policy = DiffusionConfig(
            window=Window(horizon=16), network=MLPConfig(width=96, depth=2, condition_width=32), **settings
        )
        Train(
            data=str(cycle), out=tmp_path / name, policy=policy, steps=400, batch=64, validation=0.2,
            validate_every=400, save_every=400, device="cpu", threads=1,
            optimize=Optimize(lr=2e-3, warmup=50, ema=0.98),
        ).run()  # fmt: skip
        return held_out_error(tmp_path / name)

    error = train("skip")
    assert error["validation/action_error"] < 0.08 < 0.4 < error["validation/mean_action_error"]
    assert 0.05 < error["validation/last_action_error"] < 0.4
    said = capsys.readouterr().out
    assert f"held-out action error {error['validation/action_error']:.3g}; " in said and "no better" not in said

    with pytest.warns(UserWarning, match="416 numbers of noise"):
        assert train("plain", linear_skip=False)["validation/action_error"] > 0.3


def test_an_earlier_run_acts_and_goes_on_without_the_map(cycle, tmp_path):
    """A config.yaml and checkpoints of before do not say `linear_skip` or `input_bound`."""
    import yaml

    from understudy.policies.learning.train import resume_run
    from understudy.policies.load import load_policy

    policy = DiffusionConfig(
        window=Window(horizon=4), n_action_steps=2, linear_skip=False, input_bound=None,
        network=MLPConfig(width=16, depth=1, condition_width=8),
    )  # fmt: skip
    settings = {"data": str(cycle), "policy": policy, "validation": 0.2, "save_every": 5, "device": "cpu", "threads": 1}
    Train(out=tmp_path / "run", steps=5, **settings).run()
    Train(out=tmp_path / "whole", steps=10, **settings).run()

    run = tmp_path / "run"
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"steps": 10}
    for name in ("linear_skip", "input_bound"):
        del config["policy"][name]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    card = run / "checkpoints" / "00000005" / "config.json"
    document = json.loads(card.read_text())
    for name in ("linear_skip", "input_bound"):
        del document["config"][name]
    card.write_text(json.dumps(document))
    (card.parent / "digests.json").unlink(missing_ok=True)  # of before: without

    assert load_policy(run)[0].skip is None
    resume_run(run)
    assert (run / "last/model.safetensors").read_bytes() == (tmp_path / "whole/last/model.safetensors").read_bytes()
