"""Windows equal slices made by hand, clamp at the borders of their own episode, and are gathered fast."""

import time

import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, STATE, Embodiment, Window
from understudy.policies.data.dataset import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.windows import Windows
from understudy.policies.data.writer import DatasetWriter

LENGTHS = (4, 30, 1, 12)
BODY = Embodiment(
    action=("x", "y"), action_units=("m", "m"), limits=((-9, 9),) * 2, rate=10, state=("s",), state_units=("m",)
)


def numbers(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("windows") / "toy"
    writer, rng = DatasetWriter(root, BODY), np.random.default_rng(0)
    for start, steps in enumerate(LENGTHS):
        action = numbers(rng, steps, 2)
        quiet = {"reward": np.zeros(steps), "progress": np.zeros(steps), "success": np.zeros(steps, bool)}
        told = {"start": start, "task": "t", "terminated": True, "truncated": False}
        writer.add(Episode(obs={STATE: numbers(rng, steps, 1)}, action=action, sent=action, **quiet, **told))
    return open_dataset(root)


def by_hand(dataset, window, row):
    """One window, written out offset by offset."""
    m = int(np.searchsorted(dataset.starts, row, "right")) - 1
    first, last = dataset.starts[m], dataset.starts[m] + dataset.lengths[m] - 1
    state, seen, action, inside = [], [], [], []
    for offset in window.observe:
        seen.append(first <= row + offset)
        state.append(dataset.columns[STATE][max(row + offset, first)])
    for offset in window.actions:
        at = row + offset
        inside.append(first <= at <= last)
        action.append(np.zeros(2, np.float32) if at < first else dataset.columns[ACTION][min(at, last)])
    return np.stack(state), seen, np.stack(action), inside, dataset.episode_ids[m]


@pytest.mark.parametrize(
    "window",
    [
        Window(),
        Window(observe=(0,), horizon=1),
        Window(observe=(-1, 0), recall=tuple(range(-16, 0)), horizon=16),
        Window(observe=(-9, -4, 0), recall=(-20, -7, -2), horizon=40),
    ],
    ids=["plain", "one", "recall", "strided"],
)
@pytest.mark.parametrize("episodes", [None, (1, 3), (2,)])
def test_windows_equal_slices_made_by_hand(dataset, window, episodes):
    windows = Windows(dataset, window, (STATE,), episodes=None if episodes is None else np.array(episodes))
    chosen = range(4) if episodes is None else episodes
    rows = [row for m in chosen for row in range(dataset.starts[m], dataset.starts[m] + dataset.lengths[m])]
    assert len(windows) == len(rows)
    order = np.random.default_rng(0).permutation(len(windows))
    batch = windows.gather(torch.from_numpy(order))
    for i, position in enumerate(order):
        state, seen, action, inside, episode = by_hand(dataset, window, rows[position])
        np.testing.assert_array_equal(batch[STATE][i], state)
        np.testing.assert_array_equal(batch["observation.valid"][i], seen)
        np.testing.assert_array_equal(batch[ACTION][i], action)
        np.testing.assert_array_equal(batch["action.valid"][i], inside)
        assert (batch["index"][i], batch["episode"][i]) == (rows[position], episode)


def test_shapes_types_and_own_memory(dataset):
    window = Window(observe=(-2, -1, 0), recall=(-1,), horizon=5)
    windows = Windows(dataset, window, (STATE,))
    before = dataset.columns[ACTION].copy()
    batch = windows.gather(np.array([3, 0]))
    assert {k: (tuple(v.shape), v.dtype) for k, v in batch.items()} == {
        STATE: ((2, 3, 1), torch.float32),
        "observation.valid": ((2, 3), torch.bool),
        ACTION: ((2, 6, 2), torch.float32),
        "action.valid": ((2, 6), torch.bool),
        "index": ((2,), torch.int64),
        "episode": ((2,), torch.int64),
    }
    for value in batch.values():
        value.zero_()
    np.testing.assert_array_equal(dataset.columns[ACTION], before)
    assert windows.gather(np.array([3]))["index"].tolist() == [3]


def test_without_padding_short_episodes_are_refused_and_windows_stay_inside(dataset):
    window = Window(observe=(-1, 0), horizon=8)
    with pytest.raises(DatasetError, match=r"spans 9 frames, .*2 of the episodes .*: 0 \(4 frames\), 2 \(1 frames\)"):
        Windows(dataset, window, (STATE,), padding=False)
    windows = Windows(dataset, window, (STATE,), episodes=np.array([1, 3]), padding=False)
    batch = windows.gather(np.arange(len(windows)))
    assert len(windows) == (30 - 8) + (12 - 8)
    assert batch["action.valid"].all() and batch["observation.valid"].all()


def test_what_is_not_there_is_named(dataset):
    with pytest.raises(DatasetError, match="column 'observation.environment_state' is not loaded .*available: obs"):
        Windows(dataset, Window(), ("observation.environment_state",))
    with pytest.raises(DatasetError, match="no camera 'top'; its cameras: none"):
        Windows(dataset, Window(), ("observation.images.top",))
    with pytest.raises(DatasetError, match="no episodes .* were chosen"):
        Windows(dataset, Window(), (STATE,), episodes=np.array([], int))
    with pytest.raises(IndexError):
        Windows(dataset, Window(), (STATE,)).gather(np.array([47]))


def test_a_million_windows_a_second(tmp_path, data_root):
    """O=2, H=16, random order, masks and scaling, on one core's own time."""
    dataset = open_dataset(data_root / "pusht_human" / "lerobot_v3")
    windows = Windows(dataset, Window(), (STATE,))
    orders = [torch.randperm(len(windows))[:4096] for _ in range(12)]
    rates = []
    for order in orders:
        begin = time.thread_time()
        batch = windows.gather(order)
        batch[ACTION].sub_(256).div_(256)
        batch[STATE].sub_(256).div_(100)
        rates.append(len(order) / (time.thread_time() - begin))
    assert max(rates) > 1e6, f"{max(rates):.3g} windows/s"
