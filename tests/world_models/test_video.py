"""A world model of a world whose dynamics are known follows the actions that it is told, and no others."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from understudy.__main__ import main
from understudy.configs.spec import STATE
from understudy.policies.data.dataset import split_episodes
from understudy.policies.learning.checkpoint import load_model
from understudy.policies.policy import LaneNoise, Past
from understudy.world_models.films import clips, imagine, lags, measure

TOP = "observation.images.top"


@pytest.fixture(scope="module")
def model(dots_run):
    return load_model(dots_run, "world")[0]


@pytest.fixture(scope="module")
def cut(model, dots_data):
    dataset = model.config.open(dots_data, None)
    return clips(dataset, model, list(range(len(dataset.lengths)))[-12:], 16, 12)


def test_true_actions_foretell_better_than_shuffled_ones(model, cut):
    measured = measure(model, cut, (4, 8, 16))
    moved = measured["moved"][:, 1]
    gap = (measured["psnr true"] - measured["psnr shuffled"])[moved, 1].mean()
    assert gap > 2
    assert (measured["psnr true"] - measured["copy psnr"])[moved].mean() > 3


def test_the_dot_is_where_the_actions_bring_it(model, cut):
    error = np.abs(measure(model, cut, (4, 8))[f"{STATE} error"])
    assert np.median(error) < 6  # of 100


def test_a_chunk_in_one_pass_is_each_of_its_frames_alone(model, cut):
    memory = model.remember(cut.pictures[:2, 0])
    actions, noise = torch.from_numpy(cut.actions[:2, :4]), torch.zeros(2, 1, *memory.now.shape[1:])
    with torch.no_grad():
        together, _ = model.advance(memory, actions, (1, 2, 4), noise)
        alone = [model.advance(memory, actions[:, :k], (k,), noise)[0][:, 0] for k in (1, 2, 4)]
    assert torch.allclose(together, torch.stack(alone, 1), atol=1e-4)


def test_imagine_is_the_same_film_and_speaks_of_units(model, cut):
    pictures = cut.pictures[:2, :1, 0]
    past = Past(
        {TOP: pictures},
        (0,),
        torch.ones(2, 1).bool(),
        torch.zeros(2, 0, 2),
        (),
        torch.zeros(2, 0).bool(),
        torch.zeros(2),
    )
    noise = LaneNoise(0, np.arange(2), np.zeros(2, int))
    seen = model.imagine(past, torch.from_numpy(cut.actions[:2, :8]), noise)
    assert seen[TOP].shape == (2, 8, 32, 32, 3) and seen[TOP].dtype == torch.uint8
    film = [
        model.sight.decode(latents)[:, 0]
        for _, latents in imagine(model, cut.pictures[:2, 0], cut.actions[:2], range(1, 9))
    ]
    assert torch.equal(seen[TOP], torch.stack(film, 1))
    assert 0 < float(seen[STATE].median()) < 100


def test_a_shift_between_frames_and_actions_is_seen(model, dots_data):
    dataset = model.config.open(dots_data, None)
    episodes = range(len(dataset.lengths))
    found = lags(model, dataset, episodes, 4, 20)
    assert max(found, key=found.get) == 0
    late = np.concatenate([dataset.columns["action.sent"][:1], dataset.columns["action.sent"][:-1]])
    shifted = dataclasses.replace(dataset, columns=dataset.columns | {"action.sent": late})
    found = lags(model, shifted, episodes, 4, 20)
    assert max(found, key=found.get) == 1


def test_eval_measures_and_writes_a_page(dots_run, dots_data, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["eval", "--world-model", str(dots_run), "--data", str(dots_data), "--out", str(out), "--horizon", "16"])
        == 0
    )
    about = json.loads((out / "manifest.json").read_text())
    said = capsys.readouterr().out
    assert about["measures"]["gate"] and "gate: open" in said
    held = split_episodes(load_model(dots_run, "world")[0].config.open(dots_data, None), 0.1, 0)[1]
    assert about["data"]["episodes"] == held.tolist() and not about["data"]["trained_on"]
    page = (out / "report.html").read_text()
    assert page.count("data:video/mp4") == min(6, about["measures"]["films"])
    assert main(["eval", "--world-model", str(dots_run), "--data", str(dots_data), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
