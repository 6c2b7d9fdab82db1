"""Which steps of recordings with take-overs are learned from, and that no window reaches over a border."""

import numpy as np
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import STATE, Embodiment, Window
from understudy.policies.data.corrections import INTERVENTION, PHASE, Corrections, helped, learned_steps, runs
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.windows import Windows
from understudy.policies.data.writer import DatasetWriter

BODY = Embodiment(name="a", action=("x",), action_units=("m",), limits=((-99.0, 99.0),), rate=10.0, frame="joint",
                  state=("x",), state_units=("m",))  # fmt: skip
PHASES = np.array([0, 0, 0, 1, 2, 2, 2, 0, 0], np.float32)


def recorded(folder, flagged, done=False):
    extra, flags = ({PHASE: ("phase",)}, (INTERVENTION,)) if flagged else ({}, ())
    writer, steps = DatasetWriter(folder, BODY, extra=extra, flags=flags), len(PHASES)
    numbers = np.arange(steps, dtype=np.float32)
    writer.add(Episode(
        start=0, task="t", obs={STATE: numbers[:, None]}, action=numbers[:, None], sent=numbers[:, None],
        reward=0 * numbers, progress=0 * numbers, success=numbers < len(numbers) * done,
        terminated=False, truncated=True,
        extra={PHASE: PHASES, INTERVENTION: PHASES == 2} if flagged else {},
    ))  # fmt: skip
    return open_dataset(folder)


def test_windows_begin_at_a_persons_steps_and_end_where_they_end(tmp_path):
    data = recorded(tmp_path / "a", True)
    learned = learned_steps(data, None, np.arange(1))
    windows = Windows(data, Window(observe=(-1, 0), recall=(-2, -1), horizon=3), (STATE,), learned=learned)
    batch = windows.gather(np.arange(len(windows)))
    assert batch["index"].tolist() == [4, 5, 6]
    assert batch["action"][..., 0].tolist() == [[0, 0, 4, 5, 6], [0, 4, 5, 6, 6], [4, 5, 6, 6, 6]]
    assert batch["action.valid"].int().tolist() == [[0, 0, 1, 1, 1], [0, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
    assert batch[STATE][0, :, 0].tolist() == [3, 4]  # what was seen stays
    own = learned_steps(data, Corrections(weight=2, own=0.5), np.arange(1))
    assert own.weights.tolist() == [0.5, 0.5, 0.5, 0, 2, 2, 2, 0.5, 0.5] and not own.even


def test_windows_on_a_device_are_the_same(tmp_path):
    import torch

    from understudy.policies.data.resident import ResidentWindows

    data = recorded(tmp_path / "a", True)
    learned = learned_steps(data, Corrections(own=1), np.arange(1))
    windows = Windows(data, Window(observe=(0,), recall=(-1,), horizon=3), (STATE,), learned=learned)
    held, here = ResidentWindows(windows, "cpu", 1e9)(torch.arange(8)), windows.gather(torch.arange(8))
    assert len(windows) == 8 and all(torch.equal(held[key], here[key]) for key in here)


@pytest.mark.parametrize("done", (True, False))
def test_an_episode_that_a_person_helped_with_is_told_beside_the_successes(tmp_path, done):
    said = helped(recorded(tmp_path / "a", True, done))
    assert said == f"; in {int(done)} of them somebody took over, so they are no success of the policy's"
    assert helped(recorded(tmp_path / "b", False, done)) == ""


def test_demonstrations_beside_them_are_whole_and_without_flags_corrections_are_refused(tmp_path):
    plain, flagged = recorded(tmp_path / "a", False), recorded(tmp_path / "b", True)
    both = open_dataset(f"{tmp_path / 'a'},{tmp_path / 'b'}")
    learned = learned_steps(both, None, np.arange(2))
    assert learned.weights.tolist() == [1] * 9 + (PHASES == 2).astype(float).tolist()
    assert learned_steps(plain, None, np.arange(1)) is None and flagged is not None
    with pytest.raises(DatasetError, match="no dataset of .* has the bool column 'intervention'"):
        learned_steps(plain, Corrections(), np.arange(1))
    with pytest.raises(ValueError, match="both weights are 0"):
        Corrections(weight=0)


def test_runs_do_not_cross_episodes():
    first, last = runs(np.array([0, 0, 2, 2, 2]), np.array([0, 3]))
    assert first.tolist() == [0, 0, 2, 3, 3] and last.tolist() == [1, 1, 2, 4, 4]


def test_a_training_learns_from_a_persons_steps_and_says_so(tmp_path, capsys):
    from understudy.__main__ import main

    recorded(tmp_path / "a", False)
    recorded(tmp_path / "b", True)
    data = f"{tmp_path / 'a'},{tmp_path / 'b'}"
    words = ["train", "--policy.type", "regression", "--policy.window.horizon", "3", "--policy.n_action_steps", "2",
             "--steps", "2", "--batch", "4", "--validation", "0", "--device", "cpu"]  # fmt: skip
    more = ["--corrections.weight", "2"]
    assert main([*words, "--data", data, "--out", str(tmp_path / "run"), *more]) == 0
    assert "3 steps of who took over, weight 2; 5 of a policy, not learned from" in capsys.readouterr().out
    assert main([*words, "--data", str(tmp_path / "a"), "--out", str(tmp_path / "other"), *more]) != 0
    assert "has the bool column 'intervention'" in capsys.readouterr().err
    assert (
        main([*words, "--data", data, "--out", str(tmp_path / "third"), *more, "--policy.mask_padding", "false"]) != 0
    )
    assert "need a policy that leaves out actions after the end" in capsys.readouterr().err
