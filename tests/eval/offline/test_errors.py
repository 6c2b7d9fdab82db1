"""Errors of planned against recorded actions: the numbers by hand, what a dimension is called, what is held out."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.spec import ACTION, SCENE, STATE, Mode, Window
from understudy.configs.world import read_world
from understudy.eval.offline.errors import Asked, chunk_errors, kinds_of, mean_action, spread_of, wrapping
from understudy.eval.offline.held_out import keys_of, training_of
from understudy.eval.statistics.paired import paired_t
from understudy.policies.data.dataset import split_episodes
from understudy.policies.data.open import open_dataset
from understudy.policies.foreign.planner import callable_planner

HORIZON, EXECUTED = 5, 3


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "demos"
    assert main(["demos", "point", "--episodes", "10", "--noise", "0.3", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def dataset(demos):
    return open_dataset(demos)


def planner(dataset, draw=0.0):
    """Plans the first numbers of the state, growing with the step of the chunk; with `draw`, and noise."""

    def chunks(rows):
        now = rows[STATE][:, -1, : len(dataset.embodiment.action)]
        steps = torch.arange(HORIZON)[None, :, None]
        noise = torch.randn(len(now), 1, now.shape[1])
        return now[:, None] * (1 + 0.1 * steps) + draw * noise

    return callable_planner(
        chunks,
        embodiment=dataset.embodiment,
        inputs=(STATE,),
        window=Window(observe=(0,), horizon=HORIZON),
        n_action_steps=EXECUTED,
    )


def by_hand(dataset, place, guess, every=1):
    """(H, D) mean absolute error at each step, by loops; `guess(t, k)` is the action planned at t for step k."""
    first, length = dataset.starts[place], int(dataset.lengths[place])
    recorded = dataset.columns[ACTION][first : first + length]
    sums = [[] for _ in range(HORIZON)]
    for t in range(0, length, every):
        for k in range(HORIZON):
            if t + k < length:
                sums[k].append(np.abs(guess(t, k) - recorded[t + k]))
    return np.array([np.mean(errors, 0) for errors in sums]), sums


@pytest.mark.parametrize("every", [1, 2, 7])
def test_errors_are_those_that_loops_find(dataset, every):
    place, mean = 3, np.array([0.25, -0.5], np.float32)
    first = dataset.starts[place]
    state, recorded = (dataset.columns[key][first : first + dataset.lengths[place]] for key in (STATE, ACTION))
    row = chunk_errors(planner(dataset), dataset, place, mean, Asked(n_action_steps=EXECUTED, every=every, batch=4))

    guesses = {
        "error": lambda t, k: state[t, :2] * (1 + 0.1 * k),
        "mean_action": lambda t, k: mean,
        "last_action": lambda t, k: recorded[t - 1] if t else mean,
    }
    for name, guess in guesses.items():
        by_step, sums = by_hand(dataset, place, guess, every)
        np.testing.assert_allclose(np.reshape(row[f"{name}_by_step"], (HORIZON, -1)), by_step, rtol=1e-5)
        pooled = np.mean([error for errors in sums[:EXECUTED] for error in errors], 0)
        np.testing.assert_allclose(row["error" if name == "error" else f"{name}_error"], pooled, rtol=1e-5)
    assert row["windows_by_step"] == [len(errors) for errors in by_hand(dataset, place, guesses["error"], every)[1]]

    planned = [guesses["error"](t - t % EXECUTED, t % EXECUTED) for t in range(len(recorded))]
    np.testing.assert_allclose(np.reshape(row["planned"], (-1, 2)), planned, rtol=1e-5)
    np.testing.assert_allclose(np.reshape(row["recorded"], (-1, 2)), recorded, rtol=1e-5)
    assert row["latency"] > 0 and row["samples_mean_error"] == []


def test_one_sample_is_judged_alike_however_many_are_drawn_and_their_mean_is_nearer(dataset):
    noisy, mean = planner(dataset, draw=5.0), np.zeros(2, np.float32)
    one, many = (chunk_errors(noisy, dataset, 0, mean, Asked(n_action_steps=EXECUTED, candidates=n)) for n in (1, 16))
    assert one["error"] == many["error"] and one["planned"] == many["planned"]
    assert sum(many["samples_mean_error"]) < 0.7 * sum(many["error"])


def test_a_plan_that_is_no_number_is_refused(dataset):
    with pytest.raises(FloatingPointError, match="episode 2"):
        chunk_errors(planner(dataset, draw=np.nan), dataset, 2, np.zeros(2, np.float32), Asked(n_action_steps=2))


def test_constant_dimensions_have_no_spread_and_the_mean_is_of_the_episodes_named(dataset):
    actions = dataset.columns[ACTION].copy()
    actions[:, 1] = 7.0
    still = dataclasses.replace(dataset, columns=dataset.columns | {ACTION: actions})
    assert spread_of(still)[1] == 0 and spread_of(still)[0] == pytest.approx(actions[:, 0].std(), rel=1e-5)
    rows = np.r_[tuple(np.arange(dataset.starts[m], dataset.starts[m] + dataset.lengths[m]) for m in (1, 4))]
    np.testing.assert_allclose(mean_action(dataset, np.array([1, 4])), dataset.columns[ACTION][rows].mean(0), rtol=1e-5)


def test_dimensions_are_named_by_what_they_are(dataset):
    names = ("x", "rx", "gripper", "kLeftWristYaw", "left_finger", "shoulder")
    units = ("m", "1", "1", "?", "?", "rad")
    body = dataclasses.replace(dataset.embodiment, action=names, action_units=units, limits=((-1.0, 1.0),) * 6)
    assert kinds_of(body) == ["other", "rotation", "gripper", "rotation", "gripper", "rotation"]


def test_an_angle_that_wraps_is_seen(dataset):
    actions = dataset.columns[ACTION].copy()
    actions[::2, 0], actions[1::2, 0] = 3.1, -3.1
    body = dataclasses.replace(dataset.embodiment, action_units=("rad", "rad"), mode=Mode.absolute)
    assert wrapping(dataclasses.replace(dataset, embodiment=body, columns={ACTION: actions})) == [body.action[0]]
    assert wrapping(dataset) == []


def test_paired_differences_of_any_size():
    from scipy.stats import ttest_1samp

    values = np.array([3.0, -1.0, 5.0, 2.5])
    interval, p = paired_t(values)
    peer = ttest_1samp(values, 0)
    assert p == pytest.approx(peer.pvalue)
    assert (interval.low, interval.high) == pytest.approx(tuple(peer.confidence_interval()))
    assert paired_t([0.0, 0.0]) == ((0, 0, 0), 1.0)
    one, none = paired_t([2.0])
    assert one.estimate == 2 and np.isnan(one.low) and none is None
    with pytest.raises(ValueError, match="finite"):
        paired_t([np.inf])


NETWORK = ["--policy.type", "regression", "--policy.network.type", "mlp", "--policy.network.width", "8"]
SMALL = [*NETWORK, "--policy.window", "{observe: [0], horizon: 5}", "--policy.n_action_steps", "3"]
QUICK = ["--steps", "4", "--batch", "8", "--best", "none", "--save_every", "4", "--threads", "1", "--device", "cpu"]


def train(data, out, *more):
    assert main(["train", "--data", str(data), "--out", str(out), *SMALL, *QUICK, *more]) == 0
    return out


@pytest.fixture(scope="module")
def run(demos, tmp_path_factory):
    return train(demos, tmp_path_factory.mktemp("runs") / "run", "--validation", "0.3")


def ids(dataset, keys):
    return {int(i) for i, key in zip(dataset.episode_ids, keys_of(dataset), strict=True) if key in keys}


def test_what_a_run_held_out_is_known_from_it(demos, dataset, run):
    training = training_of(str(run), dataset, str(demos))
    trained, held = split_episodes(dataset, 0.3, 0)
    assert training.known and training.same
    assert ids(dataset, training.held_out) == set(held.tolist())
    assert ids(dataset, training.trained) == set(trained.tolist())
    checkpoint = training_of(str(run / "last"), dataset, str(demos))
    assert checkpoint == training


def test_a_selection_a_copy_and_another_dataset_are_told_apart(demos, dataset, run, tmp_path):
    part = train(demos, tmp_path / "part", "--validation", "0.3", "--episodes", "2-7")
    training = training_of(str(part), dataset, str(demos))
    assert len(training.held_out) == 2 and ids(dataset, training.trained | training.held_out) == set(range(2, 8))

    shutil.copytree(demos, tmp_path / "copy")
    copy = open_dataset(tmp_path / "copy")
    moved = training_of(str(run), copy, str(tmp_path / "copy"))
    assert moved.same and ids(copy, moved.held_out) == set(split_episodes(dataset, 0.3, 0)[1].tolist())

    assert main(["demos", "point", "--episodes", "2", "--env_seed", "200000", "--out", str(tmp_path / "new")]) == 0
    other = training_of(str(run), open_dataset(tmp_path / "new"), str(tmp_path / "new"))
    assert other.known and not other.same and not set(keys_of(open_dataset(tmp_path / "new"))) & other.trained


def test_several_read_as_one_are_known_one_by_one(demos, dataset, tmp_path):
    assert main(["demos", "point", "--episodes", "4", "--env_seed", "300000", "--out", str(tmp_path / "more")]) == 0
    both = f"{demos},{tmp_path / 'more'}"
    run = train(both, tmp_path / "run", "--validation", "0.3")
    training = training_of(str(run), dataset, str(demos))
    held = split_episodes(open_dataset(both), 0.3, 0)[1]
    assert training.same and ids(dataset, training.held_out) == {int(m) for m in held if m < 10}


def test_what_the_parent_of_a_fine_tuning_saw_is_not_held_out(demos, dataset, run, tmp_path):
    child = train(demos, tmp_path / "child", "--validation", "0.3", "--seed", "1", "--init", str(run))
    training = training_of(str(child), dataset, str(demos))
    held = {seed: set(split_episodes(dataset, 0.3, seed)[1].tolist()) for seed in (0, 1)}
    assert held[0] != held[1]
    assert ids(dataset, training.held_out) == held[0] & held[1] and training.notes


def as_v2(demos, root, episodes):
    """The first episodes in the older format, a file each, so that more can be added beside them."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    dataset, rows = open_dataset(demos), []
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "data/chunk-000").mkdir(parents=True, exist_ok=True)
    keys = (STATE, ACTION)
    shapes = {key: dataset.columns[key].shape[1] for key in keys}
    features = {key: {"dtype": "float32", "shape": [n], "names": None} for key, n in shapes.items()}
    info = {"codebase_version": "v2.1", "fps": 10, "features": features, "chunks_size": 1000}
    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "point"}))
    for m in range(episodes):
        length = int(dataset.lengths[m])
        rows.append({"episode_index": m, "tasks": ["point"], "length": length})
        part = slice(dataset.starts[m], dataset.starts[m] + length)
        table = {key: dataset.columns[key][part].tolist() for key in keys}
        table |= {"episode_index": [m] * length, "frame_index": list(range(length))}
        pq.write_table(pa.table(table), root / f"data/chunk-000/episode_{m:06d}.parquet")
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_episodes_that_were_added_since_were_not_trained_on(demos, tmp_path):
    data = tmp_path / "data"
    as_v2(demos, data, 6)
    run = train(data, tmp_path / "run", "--validation", "0.4")
    then = training_of(str(run), open_dataset(data), str(data))
    as_v2(demos, data, 9)
    grown = open_dataset(data)
    training = training_of(str(run), grown, str(data))
    assert training.known and training.held_out == then.held_out and training.trained == then.trained
    assert "3 episodes were added" in training.notes[0] and len(then.held_out) == 2


def test_data_that_changed_since_are_not_guessed_at(demos, tmp_path, capsys):
    shutil.copytree(demos, tmp_path / "data")
    own = train(tmp_path / "data", tmp_path / "run", "--validation", "0.3")
    shutil.rmtree(tmp_path / "data")
    assert main(["demos", "point", "--episodes", "6", "--out", str(tmp_path / "data")]) == 0
    changed = training_of(str(own), open_dataset(tmp_path / "data"), str(tmp_path / "data"))
    assert changed.same and not changed.known and not changed.held_out
    words = ["eval", "--policy", str(own), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "record")]
    assert main(words) == 2
    assert "nobody knows which episodes" in capsys.readouterr().err
    assert main([*words, "--episodes", "4,5"]) == 0
    assert "nobody knows whether the policy was trained on these" in capsys.readouterr().err

    shutil.rmtree(tmp_path / "data")
    gone = training_of(str(own), open_dataset(demos), "elsewhere")
    assert not gone.known and "not there any more" in gone.notes[0]


def test_the_world_of_the_demonstrations_has_what_the_tests_take_for_granted(dataset):
    body = read_world("point").embodiment()
    assert len(body.action) == 2 and {STATE, SCENE} <= set(body.offers()) and min(dataset.lengths) > HORIZON
