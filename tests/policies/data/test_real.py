"""The real recordings open as what they are: PushT by humans (v3.0) and a G1 humanoid (v2.1)."""

import numpy as np
import pyarrow.parquet as pq

from understudy.configs.spec import ACTION, STATE, Embodiment
from understudy.policies.data.open import open_dataset


def test_real_pusht(data_root):
    dataset = open_dataset(data_root / "pusht_human" / "lerobot_v3")
    truth = np.load(data_root / "pusht_human" / "full_state.npz")
    assert (dataset.version, dataset.rate, len(dataset), len(dataset.lengths)) == ("v3.0", 10, 22207, 180)
    np.testing.assert_array_equal(np.cumsum(dataset.lengths), truth["episode_ends"])
    np.testing.assert_array_equal(dataset.columns[STATE], truth["agent_pos"])
    np.testing.assert_array_equal(dataset.columns[ACTION], truth["action"])
    assert dataset.tasks[0].startswith("Push the T-shaped block") and not dataset.cameras


def test_real_g1(data_root):
    dataset = open_dataset(data_root / "g1_bottle_v21")
    assert (dataset.version, dataset.rate, len(dataset), len(dataset.lengths)) == ("v2.1", 30, 29417, 80)
    assert dataset.columns[STATE].shape == (29417, 26) and isinstance(dataset.embodiment, Embodiment)
    assert dataset.embodiment.state[0] == "kLeftShoulderPitch" and dataset.embodiment.cameras == {
        "cam_high": (480, 640)
    }
    alone = pq.read_table(data_root / "g1_bottle_v21/data/chunk-000/episode_000007.parquet")
    part = slice(dataset.starts[7], dataset.starts[7] + dataset.lengths[7])
    np.testing.assert_array_equal(dataset.columns[ACTION][part], np.stack(alone[ACTION].to_pylist()).astype(np.float32))
