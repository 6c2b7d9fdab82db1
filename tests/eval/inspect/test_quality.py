"""Dataset quality: each measure moves as it should when one thing about the demonstrations is changed."""

import dataclasses
import json

import numpy as np
import pytest

from understudy.configs.episode import Episode
from understudy.configs.spec import ACTION, STATE, Embodiment
from understudy.eval.inspect.inspect import Inspect
from understudy.eval.inspect.quality import cells, mean_interval, nearest, quality, spectral_arc_length, standard
from understudy.policies.data.layout import DatasetError
from understudy.policies.data.open import open_dataset
from understudy.policies.data.writer import DatasetWriter

BODY = Embodiment(
    name="walker", action=("x", "y"), action_units=("m", "m"), limits=((-9.0, 9.0),) * 2, rate=10.0,
    state=("x", "y"), state_units=("m", "m"),
)  # fmt: skip


def write(root, *, hesitation=0.0, system=0.0, tremble=0.0, episodes=40, success=1.0, seed=0):
    """A point walks home. Noise on actions, on what follows, and high-frequency noise on the path."""
    rng, writer = np.random.default_rng(seed), DatasetWriter(root, BODY)
    for start in range(episodes):
        state, states, actions = rng.uniform(-1, 1, 2), [], []
        for _ in range(30):
            action = -0.15 * state + hesitation * rng.normal(size=2)
            states.append(state + tremble * rng.normal(size=2))
            actions.append(action)
            state = state - 0.15 * state + system * rng.normal(size=2)
        reward = np.linspace(0, success * (start + 1) / episodes, 30).astype(np.float32)
        told = {"reward": reward, "progress": reward, "success": reward >= 2, "terminated": False, "truncated": True}
        action = np.array(actions, np.float32)
        obs = {STATE: np.array(states, np.float32)}
        writer.add(Episode(start=start, task="walk", obs=obs, action=action, sent=action, **told))
    return root


def measured(root, **changes):
    dataset = open_dataset(write(root, **changes))
    return {m.name: m for m in quality(dataset)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write(tmp_path_factory.mktemp("quality") / "plain")


@pytest.fixture(scope="module")
def clean(plain):
    return {m.name: m for m in quality(open_dataset(plain))}


def test_every_measure_has_an_interval_around_it(clean):
    assert set(clean) == {
        "action consistency", "transition diversity", "state distance", "smoothness", "length", "return",
        "trajectory quality", "coverage",
    }  # fmt: skip
    for m in clean.values():
        assert m.low <= m.value <= m.high, m
    assert clean["length"].value == pytest.approx(3.0)


def test_noisy_actions_are_less_consistent(clean, tmp_path):
    noisy = measured(tmp_path / "noisy", hesitation=0.1)
    assert clean["action consistency"].value > 0.8
    assert noisy["action consistency"].high < clean["action consistency"].low
    assert noisy["action consistency"].value < 0.7


def test_actions_unrelated_to_the_state_have_no_consistency(tmp_path):
    drawn = measured(tmp_path / "drawn", hesitation=5.0)
    assert abs(drawn["action consistency"].value) < 0.1


def test_a_noisy_system_is_more_diverse_and_its_actions_no_less_consistent(clean, tmp_path):
    noisy = measured(tmp_path / "noisy", system=0.05)
    assert noisy["transition diversity"].low > clean["transition diversity"].high
    assert noisy["action consistency"].value > 0.8


def test_a_trembling_path_is_less_smooth(clean, tmp_path):
    assert measured(tmp_path / "tremble", tremble=0.05)["smoothness"].high < clean["smoothness"].low


def test_arc_length_tells_one_movement_from_two():
    time = np.linspace(0, 1, 101)
    one = np.sin(np.pi * time) ** 2
    assert spectral_arc_length(one, 100) == pytest.approx(spectral_arc_length(5 * one, 100))
    assert spectral_arc_length(np.abs(np.sin(2 * np.pi * time)) ** 2, 100) < spectral_arc_length(one, 100) < -1
    assert np.isnan(spectral_arc_length(np.zeros(20), 10))


def test_neighbours_are_the_nearest_frames_of_other_episodes(plain):
    dataset = open_dataset(plain)
    states = standard(dataset, (STATE,))
    usable = np.ones(len(dataset), bool)
    usable[[3, 100]] = False
    rows, owners = np.array([0, 95, 400]), np.array([0, 3, 13])
    found, least = nearest(dataset, states, rows, owners, usable)
    for i, (row, own) in enumerate(zip(rows, owners, strict=True)):
        far = np.where(usable, np.linalg.norm(states - states[row], axis=1), np.inf)
        best = [(far[s : s + 30].min(), s + far[s : s + 30].argmin()) for m, s in enumerate(dataset.starts) if m != own]
        assert sorted(found[i]) == sorted(row for _, row in sorted(best)[:5])
        assert least[i] == pytest.approx(min(best)[0], abs=1e-3)


def test_intervals_cover_the_mean():
    rng = np.random.default_rng(0)
    hits = [low <= 1 <= high for _, low, high in (mean_interval(rng.exponential(1, 60), rng) for _ in range(60))]
    assert sum(hits) >= 50
    assert np.isnan(mean_interval(np.array([np.nan]), rng)[0])


def test_tq_and_saco_are_relative_to_the_reference(plain, tmp_path):
    dataset = open_dataset(plain)
    same = {m.name: m for m in quality(dataset, dataset)}
    assert same["coverage"].value == 1.0
    ends = np.arange(1, 41) / 40
    assert same["trajectory quality"].value == pytest.approx(((ends - 1 / 40) / (39 / 40)).mean(), abs=1e-4)
    few = open_dataset(write(tmp_path / "few", episodes=4, success=0.5))
    told = {m.name: m for m in quality(few, dataset)}
    assert told["coverage"].high < 0.7
    expected = (0.5 * np.arange(1, 5) / 4 - 1 / 40) / (39 / 40)
    assert told["trajectory quality"].value == pytest.approx(expected.mean(), abs=1e-4)
    assert len(np.unique(cells(few, dataset))) <= len(few)


def test_the_command_prints_and_writes(plain, tmp_path, capsys):
    out = tmp_path / "quality.json"
    Inspect(source=str(plain), quality=True, reference=str(plain), out=out).run()
    text = capsys.readouterr().out
    assert "action consistency" in text and "SACo" in text and "TQ" in text
    record = json.loads(out.read_text())
    assert record["episodes"] == 40 and record["reference"] == record["fingerprint"]
    told = record["measures"]["length"]
    assert (told["value"], told["unit"]) == (pytest.approx(3.0), "s")
    with pytest.raises(DatasetError, match="not a picture"):
        Inspect(source=str(plain), quality=True, out=tmp_path / "sheet.png").run()


def test_what_cannot_be_measured_is_refused(plain, tmp_path):
    with pytest.raises(DatasetError, match="at least 3"):
        quality(open_dataset(write(tmp_path / "two", episodes=2)))
    with pytest.raises(DatasetError, match="neither"):
        quality(open_dataset(plain, columns=(ACTION,)))
    dataset = open_dataset(plain)
    spoiled = {**dataset.columns, STATE: np.full_like(dataset.columns[STATE], np.nan)}
    with pytest.raises(DatasetError, match="NaN"):
        quality(dataclasses.replace(dataset, columns=spoiled))
