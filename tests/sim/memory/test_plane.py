"""The memory tasks: an expert that remembers does them, and at the common middle nothing observed tells the past."""

import numpy as np
import pytest

from understudy.configs.world import find_world
from understudy.sim.experts import Manner
from understudy.sim.memory.plane import DWELL

TASKS = ("push-and-return", "count-scoops")
SHORT, LONG = (4, 4), (16, 4)  # frames, stride


def flat(obs) -> np.ndarray:
    return np.concatenate([obs[key] for key in sorted(obs)])


def episode(lane, start, act, options=None):
    """(T + 1, F) observations, (T,) whether the clamp holds, final info. `act(lane, obs)` chooses."""
    obs, info = lane.reset(seed=start, options=options)
    seen, held, ended = [flat(obs)], [False], False
    while not ended:
        obs, _, terminated, truncated, info = lane.step(act(lane, obs))
        seen.append(flat(obs)), held.append(bool(lane.memory()["held"]))
        ended = terminated or truncated
    return np.array(seen), np.array(held), info


def middles(lane, starts, act, options=None, window=(1, 1)):
    """Observations at the step in which the clamp opens, (M, frames * F), and what they must not tell, (M,) bool."""
    rows, past = [], []
    frames, stride = window
    for start in starts:
        seen, held, _ = episode(lane, start, act, options)
        opens = np.flatnonzero(held[:-1] & ~held[1:]) + 1
        cue = lane.memory()["cue"] > 0
        for number, now in enumerate(opens.tolist()):
            rows.append(seen[np.maximum(now - stride * np.arange(frames), 0)].ravel())
            past.append(bool(number) if lane.world_name == "count-scoops" else cue)
    return np.array(rows), np.array(past)


def auc_of_a_probe(rows: np.ndarray, past: np.ndarray) -> float:
    """Held-out area under the curve of a logistic regression, fitted on the first half."""
    half = len(rows) // 2
    mean, spread = rows[:half].mean(0), rows[:half].std(0) + 1e-12
    x = np.c_[(rows - mean) / spread, np.ones(len(rows))]
    weights = np.zeros(x.shape[1])
    for _ in range(30):  # Newton's method with a small ridge
        p = 1 / (1 + np.exp(-np.clip(x[:half] @ weights, -30, 30)))
        slope = x[:half].T @ (p - past[:half]) + 1e-2 * weights
        curve = (x[:half] * (p * (1 - p))[:, None]).T @ x[:half] + 1e-2 * np.eye(len(weights))
        weights -= np.linalg.solve(curve, slope)
    scores, truth = x[half:] @ weights, past[half:]
    higher = scores[truth][:, None] - scores[~truth][None]
    return float((higher > 0).mean() + 0.5 * (higher == 0).mean())


def expert(lane, obs):
    return lane.expert_action()


def mistaken(lane, obs):
    """The expert of another past: the other side, or one scoop more than there were."""
    return lane.expert_action(Manner(fail=1.0))


class Neighbour:
    """A policy without memory, cloned from the expert: what was done in one of the nearest five frames, at random."""

    scale = 0.02  # m that count as far

    def __init__(self, lane, episodes: int):
        frames, ways = [], []

        def record(lane, obs):
            action = lane.expert_action()
            frames.append(self.place(obs)), ways.append(action - obs["observation.state"])
            return action

        for start in range(200_000, 200_000 + episodes):
            episode(lane, start, record, {"action_noise": 0.03})
        self.frames, self.ways, self.rng = np.array(frames), np.array(ways), np.random.default_rng(0)

    def place(self, obs) -> np.ndarray:
        return flat(obs) / self.scale

    def __call__(self, lane, obs) -> np.ndarray:
        nearest = np.argpartition(np.linalg.norm(self.frames - self.place(obs), axis=1), 5)[:5]
        return obs["observation.state"] + self.ways[self.rng.choice(nearest)]


@pytest.fixture(params=TASKS)
def lane(request):
    built = find_world(request.param).lane()
    built.world_name = request.param
    yield built
    built.close()


def test_the_expert_remembers(lane):
    for start in range(100_000, 100_012):
        _, held, info = episode(lane, start, expert, {"action_noise": 0.03})
        assert info["success"] and info["progress"] == 1.0
        assert lane.labels() == {"completion": True, "context": True}
        assert held.sum() >= DWELL


def test_a_wrong_answer_completes_without_context_and_ends(lane):
    for start in range(6):
        seen, _, info = episode(lane, start, mistaken)
        assert not info["success"] and info["progress"] < 1 and len(seen) <= lane.horizon
        assert lane.labels() == {"completion": True, "context": False}


def test_doing_nothing_is_no_answer(lane):
    _, held, info = episode(lane, 0, lambda lane, obs: lane.rest())
    assert not held.any() and lane.labels() == {"completion": False, "context": False}


def test_the_clamp_takes_no_orders(lane):
    lane.action_space.seed(0)

    def struggle(lane, obs):
        return lane.action_space.sample() if lane.memory()["held"] else lane.expert_action()

    seen, held, _ = episode(lane, 3, struggle)
    last = np.flatnonzero(held[:-1] & ~held[1:])[0]
    tool = seen[last - 4 : last + 1, -2:]
    assert np.abs(tool - lane.task.clamp).max() < 6e-3, "held in place, up to the noise"


def test_the_middle_tells_nothing_and_a_long_window_tells_all(lane):
    rows, past = middles(lane, range(100_000, 100_100), expert, window=LONG)
    now = rows.shape[1] // LONG[0]
    assert 0.35 < auc_of_a_probe(rows[:, :now], past) < 0.65
    assert auc_of_a_probe(rows, past) > 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("actor", ["expert", "disturbed"])
def test_probe_at_full_size(lane, actor):
    """At least 800 held-out states a class: the current frame and a short window are at chance, a long one is not."""
    count = 3400 if lane.world_name == "push-and-return" else 1700
    options = {"action_noise": 0.05} if actor == "disturbed" else None
    rows, past = middles(lane, range(100_000, 100_000 + count), expert, options, LONG)
    half = len(past) // 2
    assert min(past[half:].sum(), (~past[half:]).sum()) >= 800
    now = rows.shape[1] // LONG[0]
    told = {name: auc_of_a_probe(rows[:, : now * frames], past) for name, frames in (("now", 1), ("short", SHORT[0]))}
    print(lane.world_name, actor, told, auc_of_a_probe(rows, past))
    assert all(0.45 < value < 0.55 for value in told.values()), told
    assert auc_of_a_probe(rows, past) > 0.9


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_policy_without_memory_is_at_chance(lane):
    """It completes, its context is by chance, and the middles of its own rollouts tell nothing either."""
    policy, labels, rows, past = Neighbour(lane, 60), [], [], []
    for start in range(1000, 1200):
        part, cues = middles(lane, [start], policy)
        rows, past = [*rows, *part], [*past, *cues]
        labels.append(lane.labels())
    completion, context = (np.array([one[name] for one in labels]) for name in ("completion", "context"))
    told = auc_of_a_probe(np.array(rows), np.array(past))
    print(lane.world_name, "completion", completion.mean(), "context", context.mean(), "AUC", told, "of", len(past))
    assert completion.mean() > 0.6
    assert context.mean() < (0.62 if lane.world_name == "push-and-return" else 0.35)
    assert 0.38 < told < 0.62  # three standard errors at a hundred states a class


@pytest.mark.slow
def test_the_expert_s_success(lane):
    won = [episode(lane, start, expert)[2]["success"] for start in range(100_000, 100_100)]
    assert np.mean(won) >= 0.95
