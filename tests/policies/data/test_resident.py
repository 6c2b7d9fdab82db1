"""Windows that are held on a device give what windows read from the disk give, to the last bit."""

import numpy as np
import pytest
import torch

from understudy.configs.episode import Episode
from understudy.configs.spec import IMAGES, STATE, Embodiment, Window
from understudy.policies.data.open import open_dataset
from understudy.policies.data.resident import WINDOW, ResidentWindows, account
from understudy.policies.data.windows import Windows
from understudy.policies.data.writer import DatasetWriter

TOP, WRIST = IMAGES + "top", IMAGES + "wrist"
BODY = Embodiment(
    name="arm", action=("x", "y"), action_units=("m", "m"), limits=((-1.0, 1.0), (-1.0, 1.0)), rate=10.0,
    state=("x", "y"), state_units=("m", "m"), cameras={"top": (8, 12), "wrist": (16, 16)},
)  # fmt: skip
WINDOW_OF = Window(observe=(-3, -1, 0), recall=(-2, -1), horizon=5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("resident") / "demos", np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
        writer = DatasetWriter(root, BODY, pictures="image")
        for start in range(5):
            count = 9 + start
            state, none = rng.normal(size=(count, 2)).astype(np.float32), np.zeros(count, np.float32)
            pictures = {
                key: rng.integers(0, 255, (count, *size, 3), np.uint8)
                for key, size in ((TOP, (8, 12)), (WRIST, (16, 16)))
            }
            quiet = {"reward": none, "progress": none, "success": none > 0, "terminated": False, "truncated": True}
            episode = {"obs": {STATE: state, **pictures}, "action": state / 9, "sent": state / 9}
            writer.add(Episode(start=start, task="reach", **episode, **quiet))
        yield open_dataset(root, columns=(STATE, TOP, WRIST))


def both(dataset, room, **options):
    chosen = np.array([0, 2, 4])
    rows = {"reward": np.arange(len(dataset.columns[STATE]), dtype=np.float32)}
    windows = Windows(dataset, WINDOW_OF, (STATE, TOP, WRIST), chosen, rows=rows, **options)
    return windows, ResidentWindows(windows, "cpu", room)


def same(one, other):
    assert [*one] == [*other]
    for key in one:
        assert one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]), key


@pytest.mark.parametrize("options", [{}, {"ahead": 3}, {"padding": False}])
@pytest.mark.parametrize("room", [1e9, 15000, 0])
def test_what_is_held_is_gathered_as_from_the_disk(dataset, room, options):
    windows, held = both(dataset, room, **options)
    assert len(held) == len(windows)
    assert set(held.streamed) == {1e9: set(), 15000: {WRIST}, 0: {TOP, WRIST}}[room]
    same(windows.gather(torch.arange(len(windows))), held(torch.arange(len(windows))))
    some = torch.tensor([7, 0, 7, len(windows) - 1])
    same(windows.gather(some), held(some))


def test_a_step_needs_positions_alone_where_all_is_held(dataset):
    _, held = both(dataset, 1e9)
    assert [*held.take(torch.arange(3))] == [WINDOW]
    assert "held on cpu: columns, observation.images.top, observation.images.wrist (" in account(held)


def test_the_bound_is_kept_and_what_does_not_fit_is_named(dataset):
    _, held = both(dataset, 15000)
    assert held.bytes <= 15000 and [*held.take(torch.arange(3))] == [WINDOW, WRIST]
    assert account(held).endswith("streamed, for they do not fit: observation.images.wrist (--resident_gb)")
