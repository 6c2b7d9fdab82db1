"""The stages at full size: the same hundred episodes for any workers, and demonstrations that stock lerobot opens."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest

from understudy.configs.lanes.lanes import Lanes
from understudy.configs.plugins import discover
from understudy.configs.spec import ACTION, IMAGES, SCENE, STATE
from understudy.configs.world import find_world, read_world
from understudy.eval.ledger.table import table_of, tables_equal
from understudy.eval.rollout.actors import ExpertActor
from understudy.eval.rollout.rollout import rollout
from understudy.policies.data.frames import open_frames
from understudy.policies.data.open import open_dataset
from understudy.sim.experts import Manner

discover("sim")
TASKS = ("lift", "can", "square", "pusht")
CAMERA = {"lift": "agentview", "can": "agentview", "square": "agentview", "pusht": "image"}
FLAWED = Manner(noise=0.05, fail=0.3)  # so that some starts fail and the vectors of success say something


def episodes(name, workers):
    with closing(Lanes(find_world(name), 8, workers)) as lanes:
        results = rollout(ExpertActor(lanes, FLAWED), lanes, range(1000, 1100), options={"action_noise": 0.05})
        return table_of([result.row for result in results])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [*TASKS, "stack", "pusht-mujoco", "push-and-return", "count-scoops"])
def test_a_hundred_starts_give_one_table_for_any_workers(name):
    here, workers = episodes(name, 0), episodes(name, 2)
    won = here["success"].to_pylist()
    print(name, "successes", sum(won), "of", len(won))
    assert workers["success"].to_pylist() == won and len(won) == 100 and 0 < sum(won) < 100
    assert tables_equal(here, workers)


def demonstrate(out, name, *more):
    words = ["demos", name, "--cameras", f"{{{CAMERA[name]}: [96, 96]}}", "--out", str(out), *more]
    return [sys.executable, "-m", "understudy", *words]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TASKS)
def test_stock_lerobot_opens_demonstrations_that_replay(lerobot, torchcodec, tmp_path, name):
    """Every number of every frame is ours; the recorded actions, played again, give the recorded observations."""
    out = tmp_path / "data"
    subprocess.run(demonstrate(out, name, "--episodes", "3", "--env_seed", "100000"), check=True, timeout=600)
    stock, ours = lerobot(f"someone/{name}", root=out), open_dataset(out)
    frames = open_frames(ours, CAMERA[name])
    assert len(stock) == ours.lengths.sum() and stock.num_episodes == 3
    for row in range(len(stock)):
        item = stock[row]
        for key in (ACTION, STATE, SCENE):
            np.testing.assert_array_equal(item[key], ours.columns[key][row])
        picture = np.asarray(item[IMAGES + CAMERA[name]]).transpose(1, 2, 0) * 255
        assert np.abs(picture - frames.read(np.array([row]))[0]).mean() < 1.5, "another decoder, the same frame"
    replays(name, ours)


def replays(name, ours):
    lane = read_world(name).lane()
    for begin, length, start in zip(ours.starts, ours.lengths, (100_000, 100_001, 100_002), strict=True):
        obs, _ = lane.reset(seed=start)
        for row in range(begin, begin + length):
            np.testing.assert_array_equal(obs[STATE], ours.columns[STATE][row])
            obs = lane.step(ours.columns[ACTION][row])[0]
    lane.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TASKS)
def test_a_writer_killed_in_the_middle_loses_the_episode_in_hand(lerobot, torchcodec, tmp_path, name):
    out = tmp_path / "data"
    process = subprocess.Popen(demonstrate(out, name, "--episodes", "60", "--block", "1"))
    deadline = time.monotonic() + 600
    while not whole(out) >= 2:
        assert process.poll() is None and time.monotonic() < deadline, "it ended, or wrote nothing"
        time.sleep(0.05)
    time.sleep(0.3)  # into the next episode
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stock, ours = lerobot(f"someone/{name}", root=out), open_dataset(out)
    assert 2 <= stock.num_episodes == len(ours.lengths) < 60 and len(stock) == ours.lengths.sum()
    np.testing.assert_array_equal(stock[len(stock) - 1][ACTION], ours.columns[ACTION][-1])
    assert np.asarray(stock[len(stock) - 1][IMAGES + CAMERA[name]]).std() > 0.01


def whole(out) -> int:
    """Episodes that a dataset holds at this moment."""
    import json

    info = out / "meta/info.json"
    return json.loads(info.read_text())["total_episodes"] if info.is_file() else 0
