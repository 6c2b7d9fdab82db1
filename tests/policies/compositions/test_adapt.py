"""Sparing network evaluations of a mixture: what is counted, what stays exact, what calibration chooses."""

import math

import numpy as np
import pytest
import torch

from understudy.configs.spec import Embodiment, Window
from understudy.policies.compositions.adapt import Adapt
from understudy.policies.compositions.mixture import Mixture
from understudy.policies.compositions.skipping import Disagreement, calibrate, disagreement, saving
from understudy.policies.field import PredictionType, from_clean
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import LaneNoise, Past, Scales

STATE = "observation.state"
BODY = Embodiment(
    action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, state=("x",), state_units=("m",)
)
LATE = Adapt(skip=((0.0, 0.5),))


def gaussian(mean, std=0.2, horizon=4):
    """A policy whose field is the exact posterior mean of N(mean * state, std^2)."""
    torch.manual_seed(0)
    network = MLPConfig(width=8, depth=1, condition_width=8)
    config = DiffusionConfig(
        window=Window(observe=(0,), horizon=horizon),
        n_action_steps=2,
        network=network,
        prediction_type=PredictionType.v,
    )
    policy = config.build(BODY, Scales(action=((-1.0,), (1.0,)), states={STATE: ((0.0,), (1.0,))})).eval()
    policy.network.encode = lambda frames, seen, present: frames[:, 0]

    def evaluate(x, s, context):
        wide = s[:, None, None]
        y, centre = x * (1 + wide * wide).sqrt(), mean * context[:, :, None]
        return from_clean(policy.prediction_type, centre + std**2 / (std**2 + wide * wide) * (y - centre), y, wide)

    policy.evaluate = evaluate
    return policy


def past(states):
    lanes = len(states)
    return Past(
        obs={STATE: torch.tensor(states, dtype=torch.float32)[:, None, None]},
        obs_times=(0,),
        obs_valid=torch.ones(lanes, 1, dtype=torch.bool),
        actions=torch.zeros(lanes, 0, 1),
        action_times=(),
        action_valid=torch.ones(lanes, 0, dtype=torch.bool),
        now=torch.zeros(lanes, dtype=torch.int64),
    )


def draw(policy, states=(1.0, 1.0), starts=None):
    starts = np.arange(len(states)) if starts is None else np.asarray(starts)
    return policy.plan(past(states), 2, LaneNoise(3, starts, np.zeros_like(starts))).future


def test_off_by_default_and_all_are_counted():
    mixture = Mixture([gaussian(-0.3), gaussian(0.5)], (0.4, 0.6))
    assert mixture.adapt is None
    draw(mixture)
    assert mixture.evaluations == [10, 10]


def test_a_quarter_is_spared_late_in_the_path():
    mixture = Mixture([gaussian(-0.3), gaussian(0.5)], (0.4, 0.6), adapt=LATE)
    draw(mixture)
    assert mixture.evaluations == [5, 10]  # the fourth and later of ten levels lie below the angle 0.5


@pytest.mark.parametrize("reuse", [True, False])
def test_parents_that_agree_lose_nothing(reuse):
    parents = [gaussian(0.3), gaussian(0.3)]
    skipped = Mixture(parents, (0.4, 0.6), adapt=Adapt(skip=((0.0, 1.0),), reuse=reuse))
    assert torch.allclose(draw(skipped), draw(parents[0]), atol=1e-5) and skipped.evaluations == [0, 10]


def test_all_spared_is_the_heaviest_parent():
    parents = [gaussian(-0.3), gaussian(0.5), gaussian(0.1)]
    skipped = Mixture(parents, (0.3, 0.5, 0.2), adapt=Adapt(skip=((0.0, 1.0),)))
    assert torch.allclose(draw(skipped), draw(parents[1]), atol=1e-6) and skipped.evaluations == [0, 10, 0]


def test_reusing_the_difference_changes_plans_less():
    parents = [gaussian(-0.3), gaussian(0.5)]
    whole = draw(Mixture(parents, (0.4, 0.6)))
    every = tuple((angle, angle + 0.05) for angle in (0.36, 0.56, 0.76))
    error = [
        float((draw(Mixture(parents, (0.4, 0.6), adapt=Adapt(skip=every, reuse=reuse))) - whole).abs().max())
        for reuse in (True, False)
    ]
    assert error[0] < 0.7 * error[1]


def test_a_lane_does_not_depend_on_its_neighbours():
    mixture = Mixture([gaussian(-0.3), gaussian(0.5)], (0.4, 0.6), adapt=LATE)
    reference = draw(mixture, (1.0, 0.2, -0.7))
    for lane, state in enumerate((1.0, 0.2, -0.7)):
        neighbours = [5.0, -4.0, 3.0]
        neighbours[lane] = state
        assert torch.equal(draw(mixture, neighbours)[lane], reference[lane])


def test_the_owner_of_a_tail_is_asked():
    longer = gaussian(0.2, horizon=6)
    mixture = Mixture([longer, gaussian(0.5)], (0.2, 0.8), adapt=LATE)
    tail = draw(mixture)[:, :, 4:]
    assert mixture.evaluations == [10, 5]
    assert torch.equal(tail, draw(Mixture([longer, gaussian(0.5)], (0.2, 0.8)))[:, :, 4:])


def test_it_stays_with_other_weights_and_in_the_settings():
    mixture = Mixture([gaussian(-0.3), gaussian(0.5)], (0.4, 0.6), adapt=LATE)
    other = mixture.weighted((0.7, 0.3))
    draw(other)
    assert other.adapt == LATE and other.evaluations == [10, 5] and mixture.evaluations == [0, 0]
    assert mixture.config.build(mixture.parents).adapt == LATE and mixture.adapted(None).adapt is None


def batch(count=256):
    return {
        STATE: torch.ones(count, 1, 1),
        "observation.valid": torch.ones(count, 1, dtype=torch.bool),
        "action": 0.1 + 0.2 * torch.randn(count, 4, 1, generator=torch.Generator().manual_seed(5)),
        "action.valid": torch.ones(count, 4, dtype=torch.bool),
    }


def test_disagreement_is_that_of_the_fields():
    mixture = Mixture([gaussian(-0.3), gaussian(0.5)], (0.4, 0.6))
    told = disagreement(mixture, [batch(), batch()])
    assert len(told) == 10 and mixture.evaluations == [0, 0]
    for one in told:
        assert one.apart == pytest.approx(0.4 * 0.8 * one.level**2 / (0.04 + one.level**2), rel=1e-3)
    with pytest.raises(ValueError, match="held-out windows"):
        disagreement(mixture, [])


def test_the_saving_is_measured_on_plans():
    mixture = Mixture([gaussian(-0.3), gaussian(0.5)], (0.4, 0.6))
    late, none, early = (
        saving(mixture, Adapt(skip=skip), [batch(64), batch(64)]) for skip in (((0.0, 0.5),), (), ((0.5, 1.0),))
    )
    assert late.skipped == early.skipped == 0.25 and none.skipped == 0 and late.windows == 128
    assert none.change == 0 < early.change < late.change and 0.15 < late.noise < 0.3


def test_calibration_spares_where_parents_agree():
    levels = [math.tan(angle * math.pi / 2) for angle in (0.9, 0.7, 0.5, 0.3, 0.1)]
    told = [Disagreement(*pair) for pair in zip(levels, (0.01, 0.5, 0.6, 0.02, 0.01), strict=True)]
    adapt = calibrate(told, 0.05)
    assert [adapt.skips(level) for level in levels] == [True, False, False, True, True]
    assert not calibrate(told, 0.0).skip


def test_ranges_that_make_no_sense_are_refused():
    for wrong in ((0.5, 0.5), (-0.1, 0.2), (0.4, 1.2)):
        with pytest.raises(ValueError, match="range of angles"):
            Adapt(skip=(wrong,))
