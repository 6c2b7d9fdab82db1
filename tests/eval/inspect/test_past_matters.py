"""Which frames matter: a planner whose dependence on each offset is known by construction is found out."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, SCENE, STATE, Window
from understudy.eval.contracts import sample_embodiment
from understudy.eval.inspect.past_matters import (
    FRAME,
    GIVEN,
    NOISE,
    PINNED,
    changes,
    count_changes,
    interval_of,
    spread_rows,
)
from understudy.policies.data.open import open_dataset
from understudy.policies.data.windows import Windows
from understudy.policies.data.writer import DatasetWriter
from understudy.policies.field import PredictionType
from understudy.policies.learning.checkpoint import blank_scales
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.generative import GenerativePolicy, Sampler
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import Field, Plans

EPISODES, STEPS = 12, 40


class Known:
    """future = sum of weights x states + `token` x the last action + `noise`; is told the scene and ignores it."""

    inputs = (STATE, SCENE)
    n_action_steps = 2

    def __init__(self, weights, token=0.0, noise=0.0):
        self.embodiment, self.weights, self.noise = sample_embodiment(), torch.tensor(weights), noise
        self.window = Window(observe=tuple(range(-4 * (len(weights) - 1), 1, 4)), recall=(-1,), horizon=3)
        self.config, self.token = SimpleNamespace(given=token != 0), token
        self.seen = []

    def plan(self, past, n, rng):
        self.seen.append(past)
        half = torch.tensor([1.0, 2.0])  # of the limits: what is 1 in the scaled space
        answer = (past.obs[STATE] * self.weights[:, None]).sum(1) + self.token * past.actions[:, 0] / half
        future = answer[:, None, None] * half + self.noise * rng.normal(n, 3, 2) * half
        return Plans(past.actions[:, None], future, past.now)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """White noise, so that frames say nothing of each other; the scene tells episode and step."""
    root, rng = tmp_path_factory.mktemp("white") / "data", np.random.default_rng(0)
    writer = DatasetWriter(root, sample_embodiment())
    for start in range(EPISODES):
        action = rng.normal(size=(STEPS, 2)).astype(np.float32) * (1, 2)
        place = np.stack([np.full(STEPS, start), np.arange(STEPS), np.zeros(STEPS)], 1)
        quiet = {"progress": np.zeros(STEPS), "success": np.zeros(STEPS, bool), "reward": np.zeros(STEPS)}
        told = {"start": start, "task": "none", "terminated": True, "truncated": False}
        obs = {STATE: rng.normal(size=(STEPS, 2)).astype(np.float32), SCENE: place.astype(np.float32)}
        writer.add(Episode(obs=obs, action=action.astype(np.float32), sent=action.astype(np.float32), **quiet, **told))
    return open_dataset(root, columns=(STATE, SCENE, ACTION))


def asked(planner, dataset, **settings):
    windows = Windows(dataset, planner.window, planner.inputs)
    found = list(changes(planner, windows, np.arange(len(dataset)), **settings))
    assert len(found) == count_changes(planner, settings.get("keys", False))
    rng = np.random.default_rng(0)
    return {(one.what, one.key, one.offset): one.interval(rng) for one in found}


def test_each_offset_gets_its_share(dataset):
    weights = np.array([0.0, 2.0, 0.0, -1.0], np.float32)
    found = asked(Known(weights), dataset)
    shares = np.abs(weights) / np.sqrt((weights**2).sum())
    for offset, share in zip((-12, -8, -4, 0), shares, strict=True):
        told = found[FRAME, "", offset]
        assert told.estimate == pytest.approx(share, abs=0.03), offset
        assert told.low - 0.02 <= share <= told.high + 0.02 and told.high - told.low < 0.1
    assert found[FRAME, "", -12] == (0, 0, 0) and found[NOISE, "", 0] == (0, 0, 0)


def test_a_key_alone_and_another_noise(dataset):
    found = asked(Known(np.ones(1, np.float32), noise=0.5), dataset, keys=True)
    assert found[FRAME, STATE, 0] == found[FRAME, "", 0] and found[FRAME, "", 0].estimate == pytest.approx(1)
    assert found[FRAME, SCENE, 0].estimate == 0
    # two draws of variance 0.25 against two states of variance 1, under the same noise
    assert found[NOISE, "", 0].estimate == pytest.approx(0.5, abs=0.03)


def test_given_actions_are_swapped_only_where_they_are_given(dataset):
    found = asked(Known(np.ones(1, np.float32), token=1.0), dataset)
    assert found[GIVEN, "", -1].estimate == pytest.approx(np.sqrt(0.5), abs=0.03)
    assert (GIVEN, "", -1) not in asked(Known(np.ones(1, np.float32)), dataset)


class Echo(GenerativePolicy):
    """Denoises each future action to twice the recalled one as it stands in the chunk, and that to 0.1."""

    def field(self, past, n):
        def denoise(y, s):
            return torch.cat([torch.full_like(y[:, :, :1], 0.1), 2 * y[:, :, :1].expand(-1, -1, 3, -1)], 2)

        return Field(denoise, (len(past.now), n, 4, 2), self.window.actions, 0.01, 64.0)


def test_what_a_policy_makes_of_its_past_is_told_from_the_past(dataset):
    sampler = Sampler(steps=10, clip=None)
    config = DiffusionConfig(window=Window(observe=(0,), recall=(-1,), horizon=3), inputs=(STATE,), n_action_steps=2)
    config = dataclasses.replace(config, sampler=sampler, network=MLPConfig(width=8, depth=1))
    echo = Echo(config, PredictionType.v, sample_embodiment(), blank_scales(sample_embodiment()))
    rows = np.arange(1, STEPS)
    found = {one.what: one for one in changes(echo, Windows(dataset, echo.window, echo.inputs), rows)}
    before = dataset.columns[ACTION][rows - 1]
    assert found[PINNED].moved == pytest.approx((4 * (before - 0.1) ** 2).mean(1), rel=0.1, abs=0.1)
    assert found[FRAME].moved.max() == 0 < found[PINNED].moved.mean()


def test_frames_come_from_another_episode_at_the_same_step(dataset):
    planner = Known(np.ones(3, np.float32))
    rows = spread_rows(dataset.starts, dataset.lengths, 200)
    found = list(changes(planner, Windows(dataset, planner.window, planner.inputs), rows))
    plain, most, oldest = planner.seen[:3]
    mine, theirs = plain.obs[SCENE], most.obs[SCENE]
    assert (mine[..., 0] != theirs[..., 0]).all() and (mine[..., 1] == theirs[..., 1]).all()
    assert (oldest.obs[SCENE][:, 0] == theirs[:, 0]).all() and (oldest.obs[SCENE][:, 1:] == mine[:, 1:]).all()
    early = (rows % STEPS) < 8
    assert len(rows) == 200 and early.any() and (np.isnan(found[0].moved) == early).all()


def test_trainings_together_and_none_without_windows(dataset):
    planners = [Known(np.array(weights, np.float32)) for weights in ([0, 1], [1, 0])]
    found = [list(changes(one, Windows(dataset, one.window, one.inputs), np.arange(480))) for one in planners]
    oldest = interval_of([one[0] for one in found], np.random.default_rng(0))
    assert oldest.estimate == pytest.approx(np.sqrt(0.5), abs=0.03)
    early = list(changes(planners[0], Windows(dataset, planners[0].window, planners[0].inputs), np.arange(2)))
    assert early[0].interval(np.random.default_rng(0)) is None
