"""Plans of the same state: worlds come back to it, continuations are counted, critics with known truth are ranked."""

from contextlib import closing

import numpy as np
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.lanes.lanes import Lanes
from understudy.configs.spec import SCENE, STATE, Window
from understudy.configs.world import read_world
from understudy.eval.ledger.study import read_study
from understudy.eval.rollout.rollout import rollout
from understudy.eval.rollout.tried import Noting, RestoreError, check_seen, read_tried, restore, try_plans
from understudy.eval.studies.within_state import ceiling, correlations, rank, scores_of, values
from understudy.policies.agent.agent import Agent
from understudy.policies.critics.chunk import ChunkConfig
from understudy.policies.learning.checkpoint import blank_scales, save_checkpoint
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import Plans

EXECUTE = 4


class Wanderer:
    """Plans one target, or velocity, held for the whole horizon: where it is plus noise, a little towards the scene."""

    def __init__(self, world, spread, pull=0.0, window=None):
        self.embodiment, self.inputs = world.embodiment(), (STATE, SCENE)
        self.window, self.spread, self.pull = window or Window(observe=(-1, 0), horizon=8), spread, pull

    def plan(self, past, n, rng):
        here = past.obs[STATE][:, -1, None] if self.embodiment.mode.value == "absolute" else 0
        aim = self.pull * (past.obs[SCENE][:, -1, None, :2] - past.obs[STATE][:, -1, None, :2])
        target = here + aim + self.spread * rng.normal(n, 2)
        return Plans(target[:, :, None, :0], target[:, :, None].expand(-1, -1, 8, -1), past.now)


class Nearer:
    """Prefers plans that end near the target of the point task: the truth of its progress."""

    window, inputs, reads = Window(observe=(0,), horizon=EXECUTE), (STATE, SCENE), EXECUTE

    def score(self, past, plans):
        moved = plans.future[:, :, :EXECUTE].clamp(-1, 1).sum(2) / 20
        gap = past.obs[SCENE][:, -1] - past.obs[STATE][:, -1]
        return -(gap[:, None] - moved).norm(dim=-1)


@pytest.mark.parametrize(
    ("source", "spread"),
    [
        ({"type": "point", "horizon": 24}, 0.5),
        ({"type": "point", "horizon": 24, "delay": 2}, 0.5),
        ({"type": "pusht", "horizon": 40}, 90.0),
        ({"type": "pusht-mujoco", "horizon": 40}, 90.0),
    ],
)
def test_a_world_comes_back_to_the_state_and_goes_on_as_before(source, spread):
    world = read_world(source)
    agent = Agent(Wanderer(world, spread, pull=0.5 if "point" in str(source) else 0.1), lanes=3, n_action_steps=EXECUTE)
    with closing(Lanes(world, 3, 0)) as lanes:
        noting = Noting(agent, lanes, seed=0)
        results = {result.start: result for result in rollout(noting, lanes, range(3))}
        assert sorted(noting.kept) == [0, 1, 2] and len({len(one.asked) for one in noting.kept.values()}) > 1
        for start, moment in noting.kept.items():
            now = moment.memory.now
            assert now == len(moment.asked) and now % EXECUTE == 0
            check_seen(restore(lanes, 1, moment), moment)
            chunk = lanes.step_chunk(np.repeat(results[start].actions[None, now:], 3, 0))
            progress = chunk.progress[1, chunk.valid[1]]
            assert progress.tolist() == results[start].row["progress"][now : now + len(progress)]
            assert now + len(progress) >= results[start].row["length"]
            assert bool(chunk.success[1].any()) == results[start].row["success"]


@pytest.fixture(scope="module")
def reached():
    """Plans of the point task, tried."""
    world = read_world({"type": "point", "horizon": 40})
    agent = Agent(Wanderer(world, 0.8, pull=1.5), lanes=8, n_action_steps=EXECUTE, critic=Nearer())
    with closing(Lanes(world, 8, 0)) as lanes:
        about = {"starts": "0..23", "policy": "wanderer", "world": "point", "n_action_steps": EXECUTE}
        return try_plans(agent, lanes, range(24), plans=6, times=2, about=about)


def test_critics_whose_truth_is_known_are_ranked(reached):
    with torch.no_grad():
        scores = Nearer().score(reached.past(), reached.plans()).numpy()
    assert reached.won.shape == (24, 6, 2) and 0 < (reached.won > 0).mean() <= 1
    worth = values(reached, "success", 0.9)
    good, bad = rank(scores, worth), rank(-scores, worth)
    assert good.correlation.low > 0.2 and bad.correlation.high < -0.2
    assert good.correlation.estimate == pytest.approx(-bad.correlation.estimate)
    assert good.pairs > 0.6 and good.pairs == pytest.approx(1 - bad.pairs)
    assert 0 < good.gain.estimate <= good.most and good.tell <= good.states == 24
    assert good.correlation.estimate <= ceiling(worth) + 0.25
    blind = rank(np.random.default_rng(0).random(scores.shape), worth)
    assert blind.correlation.low < 0 < blind.correlation.high


def test_noise_is_common_to_the_plans_of_a_state_and_what_was_tried_is_kept(reached, tmp_path):
    again = read_tried(reached.save(tmp_path / "tried.npz"))
    assert np.array_equal(again.won, reached.won) and dict(again.about) == reached.about
    assert torch.equal(again.past().obs[STATE], reached.past().obs[STATE])
    assert not np.array_equal(reached.future[:, 0], reached.future[:, 1])
    assert (scores_of("random", again) == scores_of("random", reached)).all()
    with pytest.raises(ValueError, match="lacks 'actions'"):
        np.savez(tmp_path / "other.npz", x=np.zeros(1))
        read_tried(tmp_path / "other.npz")


def test_pusht_is_tried_too_and_repeats_itself():
    world = read_world({"type": "pusht", "horizon": 24})
    found = []
    for _ in range(2):
        agent = Agent(Wanderer(world, 60.0), lanes=4, n_action_steps=EXECUTE)
        with closing(Lanes(world, 4, 0)) as lanes:
            found.append(try_plans(agent, lanes, range(3), plans=2, times=2, about={}))
    assert np.array_equal(found[0].best, found[1].best) and np.array_equal(found[0].future, found[1].future)
    assert (found[0].won == -1).all() and found[0].best.max() > 0


def test_a_world_that_does_not_repeat_itself_is_named(monkeypatch):
    world = read_world({"type": "point", "horizon": 24})
    monkeypatch.setattr("understudy.eval.rollout.tried.restore", lambda lanes, slot, moment: {STATE: np.full(2, 9.0)})
    with closing(Lanes(world, 2, 0)) as lanes, pytest.raises(RestoreError, match="came back with 'observation.state'"):
        try_plans(Agent(Wanderer(world, 0.5), lanes=2, n_action_steps=4), lanes, range(2), plans=2, times=1, about={})


def test_statistics_by_hand():
    scores = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [1, 1, 1, 1], [1, 2, 3, 4]])
    truth = np.array([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]])
    np.testing.assert_allclose(correlations(scores, truth), [1, -1, 0, 0], atol=1e-12)
    found = rank(scores, truth[:, :, None])
    assert (found.tell, found.states) == (3, 4) and found.correlation.estimate == pytest.approx(0)
    assert found.pairs == pytest.approx((6 + 0 + 3) / 18)
    assert found.most == pytest.approx(0.15 * 3 / 4)
    assert found.gain.estimate == pytest.approx((0.15 - 0.15 - 0.15) / 4)
    assert ceiling(np.repeat(truth[:, :, None], 4, 2)) == pytest.approx(1)
    with pytest.raises(ValueError, match="in no state do the candidates differ"):
        rank(scores, np.ones((4, 4, 2)))
    with pytest.raises(ValueError, match="scores for"):
        rank(scores[:2], truth[:, :, None])


def test_the_command_tries_keeps_and_asks_again(tmp_path, capsys):
    embodiment = read_world("point").embodiment()
    network = MLPConfig(width=16, depth=1, condition_width=8)
    window = Window(observe=(0,), recall=(-1,), horizon=8)
    config = DiffusionConfig(window=window, inputs=(STATE, SCENE), network=network, n_action_steps=4)
    policy = tmp_path / "policy"
    save_checkpoint(policy, config.build(embodiment, blank_scales(embodiment)), kind="policy", config=config)
    (tmp_path / "w.yaml").write_text("type: mujoco\ntask: point\nhorizon: 12\n")
    few = "--states 4 --plans 3 --times 2 --truth progress --critics random".split()
    where = ["--world", str(tmp_path / "w.yaml"), "--keep", str(tmp_path / "t.npz")]
    words = ["study", "within_state", "--policy", str(policy), *where, *few]
    assert main(words) == 0
    assert "4 states of as many episodes (env seeds 0..3) x 3 candidates" in capsys.readouterr().out
    judge, critic = ChunkConfig(prefix=4, window=Window(observe=(0,), horizon=8)), tmp_path / "critic"
    save_checkpoint(critic, judge.build(embodiment, blank_scales(embodiment)), kind="critic", config=judge)
    again = ["study", "within_state", "--tried", str(tmp_path / "t.npz"), "--truth", "progress"]
    again += ["--out", str(tmp_path / "s.json")]
    assert main([*again, "--critics", "random", "recall", str(critic), "--curve", str(tmp_path / "k.json")]) == 0
    rows = read_study(tmp_path / "k.json").rows
    assert [row[0] for row in rows] == [1, 2, 3] and rows[0][1] == pytest.approx(rows[0][3])
    assert rows[0][2] < rows[1][2] < rows[2][2]  # scores rise with the number of candidates
    assert [row[0] for row in read_study(tmp_path / "s.json").rows] == ["random", "recall", str(critic)]
    assert main([*words[:4], "--critics", "random", "--env_seed", "950"]) == 2
    assert "those for looking are 0..999" in capsys.readouterr().err
