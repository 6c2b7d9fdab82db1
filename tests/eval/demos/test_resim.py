"""Replaying recorded PushT demonstrations: exact, for any subset or renumbering, or refused at the first difference."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import IMAGES, SCENE, STATE, Embodiment
from understudy.configs.world import find_world
from understudy.eval.demos.resim import BLOCK, GAIN, POSITION, ReplayError, Resim, recorder_start
from understudy.policies.data.open import open_dataset
from understudy.policies.data.writer import DatasetWriter

BARE = Embodiment(
    name="unknown", action=("x", "y"), action_units=("px",) * 2, limits=((0, 512),) * 2, rate=10.0, state=("x", "y"),
    state_units=("px",) * 2,
)  # fmt: skip


def recording(seed, steps=12):
    """What the recorder would have written of a push towards the block: positions of the pusher, actions, rewards."""
    lane = find_world("pusht").lane()
    obs, _ = lane.reset(seed=0, options={"state": recorder_start(seed)})
    rng, state, action, reward = np.random.default_rng(seed), [], [], []
    for _ in range(steps):
        state.append(obs[STATE])
        aim = np.clip(lane.block_pose()[:2] - obs[STATE], -60, 60) + rng.normal(0, 5, 2)
        action.append(np.float32(np.clip(obs[STATE] + aim, 0, 512)))
        obs, gain, *_ = lane.step(action[-1])
        reward.append(gain)
    return np.array(state), np.array(action), np.array(reward, np.float32)


def write(folder, recordings):
    writer = DatasetWriter(folder, BARE)
    for state, action, reward in recordings:
        flags = np.zeros(len(reward), bool)
        writer.add(
            Episode(
                start=0,
                task="Push the T",
                obs={STATE: state},
                action=action,
                sent=action,
                reward=reward,
                progress=reward,
                success=flags,
                terminated=False,
                truncated=True,
            )  # fmt: skip
        )
    return folder


def resim(data, out, images=False):
    Resim(task="pusht", data=str(data), out=str(out), images=images).run()
    return open_dataset(out)


def test_starts_are_found_whatever_the_order_and_numbers(tmp_path, capsys):
    made = {seed: recording(seed) for seed in (9992, 3, 512)}
    dataset = resim(write(tmp_path / "data", made.values()), tmp_path / "out")
    text = capsys.readouterr().out
    assert "3 episodes, 36 steps replayed" in text and "at every step" in text
    table = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet")
    assert table["env_seed"].to_pylist() == [9992, 3, 512]
    for row, (state, action, reward) in zip(dataset.starts, made.values(), strict=True):
        rows = slice(row, row + 12)
        assert np.abs(dataset.columns[STATE][rows] - state).max() <= POSITION
        assert np.abs(dataset.columns["next.reward"][rows, 0] - reward).max() <= GAIN
        assert np.array_equal(dataset.columns["action"][rows], action)


def test_columns_of_other_names_and_chosen_episodes_are_replayed(tmp_path):
    data = write(tmp_path / "data", [recording(3), recording(512)])
    info = json.loads((data / "meta/info.json").read_text())
    info["features"]["pusher"] = info["features"].pop(STATE)
    (data / "meta/info.json").write_text(json.dumps(info))
    for path in data.glob("data/*/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.rename_columns(["pusher" if name == STATE else name for name in table.column_names]), path)
    flags = {"columns": {STATE: "pusher"}, "episodes": "1", "images": False}
    Resim(task="pusht", data=str(data), out=str(tmp_path / "out"), **flags).run()
    table = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet")
    assert table["env_seed"].to_pylist() == [512]


def test_what_is_written_is_what_the_world_offers(tmp_path):
    dataset = resim(write(tmp_path / "data", [recording(5)]), tmp_path / "out", images=True)
    world = find_world("pusht").embodiment().with_cameras({"image": (96, 96)})
    assert dataset.embodiment == world
    assert dataset.features["block_pose"]["names"] == list(BLOCK)
    assert dataset.features[IMAGES + "image"]["shape"] == [96, 96, 3]
    lane = find_world("pusht").lane()
    obs, _ = lane.reset(seed=0, options={"state": recorder_start(5)})
    assert np.array_equal(dataset.columns[SCENE][0], obs[SCENE])
    assert dataset.columns["block_pose"][0] == pytest.approx(lane.block_pose(), abs=1e-4)
    columns = dataset.columns
    assert columns["next.progress"][:, 0] == pytest.approx(columns["next.reward"][:, 0])
    assert columns["next.done"][:, 0].tolist() == [0] * 11 + [1]


def tamper(recorded, what, step, amount):
    changed = [part.copy() for part in recorded]
    changed[what][step] += amount
    return changed


@pytest.mark.parametrize(
    ("what", "step", "amount", "message"),
    [
        (0, 7, 0.01, r"episode 1 is not reproduced: from env seed 512, the pusher is 0.01 px .* at step 7"),
        (1, 6, 3.0, r"episode 1 is not reproduced: from env seed 512, the (pusher|reward) .* at step (6|7)"),
        (2, 8, 0.001, r"episode 1 is not reproduced: from env seed 512, the reward .* at step 8 \(allowed 0.0001\)"),
        (0, 0, 0.3, r"episode 1 is not reproduced: it differs at step 0"),
    ],
)
def test_a_tampered_copy_is_refused_at_its_first_difference(tmp_path, what, step, amount, message):
    data = write(tmp_path / "data", [recording(3), tamper(recording(512), what, step, amount)])
    with pytest.raises(ReplayError, match=message):
        resim(data, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_last_reward_that_repeats_is_accepted(tmp_path):
    state, action, reward = recording(9992)
    assert reward[-1] != reward[-2]
    reward[-1] = reward[-2]
    resim(write(tmp_path / "data", [(state, action, reward)]), tmp_path / "out")


def test_a_used_folder_and_an_unknown_task_are_refused(tmp_path):
    with pytest.raises(FileExistsError, match="exists already"):
        Resim(task="pusht", data="nowhere", out=str(tmp_path)).run()
    with pytest.raises(LookupError, match="Known: pusht"):
        Resim(task="lift", data="nowhere", out=str(tmp_path / "out")).run()


def test_human_demonstrations(tmp_path, data_root, capsys):
    """Three recorded episodes, renumbered, against the block poses that were recovered independently."""
    source = open_dataset(data_root / "pusht_human" / "lerobot_v3")
    chosen = np.argsort(source.lengths)[[2, 0, 1]]
    recordings = []
    for number in chosen:
        rows = slice(source.starts[number], source.starts[number] + source.lengths[number])
        columns = source.columns
        recordings.append((columns[STATE][rows], columns["action"][rows], columns["next.reward"][rows, 0]))
    dataset = resim(write(tmp_path / "data", recordings), tmp_path / "out", images=True)
    known = np.load(data_root / "pusht_human" / "full_state.npz")
    ends = known["episode_ends"]
    for number, row, length in zip(chosen, dataset.starts, dataset.lengths, strict=True):
        poses = known["block_pose"][ends[number] - length : ends[number]]
        assert np.abs(dataset.columns["block_pose"][row : row + length] - poses).max() < 1e-3
    assert "3 episodes" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/meta/info.json").read_text())["total_frames"] == source.lengths[chosen].sum()
