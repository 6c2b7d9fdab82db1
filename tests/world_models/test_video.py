"""A world model of a world whose dynamics are known follows the actions that it is told, and no others."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from understudy.__main__ import main
from understudy.configs.spec import STATE
from understudy.policies.data.dataset import split_episodes
from understudy.policies.learning.checkpoint import find_checkpoint, fingerprint, load_model
from understudy.policies.policy import LaneNoise, Past
from understudy.world_models import gate
from understudy.world_models.conditioning import Conditioning
from understudy.world_models.films import clips, imagine, lags, measure, told_fakes

pytestmark = pytest.mark.timeout(900)  # a small training comes first, on a machine that others load

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


def test_a_film_that_begins_a_chunk_ago_is_the_whole_one_while_there_is_one_chunk(model, cut):
    """From there on what it loses to the film from true frames is what it loses by going on from its own."""
    measured = measure(model, cut, (4, model.horizon, 16))
    assert np.array_equal(measured["given psnr"][:, :2], measured["psnr true"][:, :2])
    assert measured["given psnr"][:, 2].mean() > measured["psnr true"][:, 2].mean()


def test_fourier_features_of_the_action_can_be_left_out(model):
    """So that they can be told to be worth something."""
    actions, k = torch.rand(3, 4, 2), torch.tensor([1, 2, 4])
    for octaves, numbers in ((3, 4 * 3 + 2 * 3 * 2), (0, 4 * 3)):
        told = Conditioning(2, 4, (4, 4), (), width=8, octaves=octaves)
        assert told.embed[0].in_features == numbers and told(actions, actions, k)[1].shape == (3, 8)
    with pytest.raises(ValueError, match="waves counts octaves"):
        dataclasses.replace(model.config, waves=-1)


def test_places_where_something_is_count_more_if_asked_to(model, cut):
    latents = model.remember(cut.pictures[:4, 0]).now
    empty = model.sight.codec.encode(model.sight.codec.mean[None])
    assert model._things(latents) == 0.0
    plain, model.config = model.config, dataclasses.replace(model.config, things=3.0)
    try:
        assert model._things(empty).abs().max() == 0
        weight = model._things(latents)
        assert weight.shape == (4, 1, *latents.shape[2:]) and 2 < weight.max() <= 3
        assert weight.median() < weight.max() / 2  # most of the picture is empty
    finally:
        model.config = plain
    with pytest.raises(ValueError, match="things says how much more"):
        dataclasses.replace(plain, things=-1.0)


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
    apart = (seen[TOP].int() - torch.stack(film, 1).int()).abs()
    assert int(apart.max()) <= 1  # levels: frames decoded together and one by one round otherwise
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


def test_the_judge_refuses_films_that_stand_still(model, cut):
    """Not by one frame, which is as true as any: by what the actions between two must have changed."""
    shares = told_fakes(model, cut)
    for kind in ("true", "imagined"):
        assert shares[kind]["accepted"] > 0.6 and shares[kind]["frozen refused"] > 0.7


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
    judge = about["measures"]["judge"]
    assert set(judge["fakes"]) == {"true", "imagined"} and max(judge["true"]["progress"]) < 0.2
    assert about["measures"]["failures"]["teleported"]["of"] and "false success" in about["measures"]["failures"]
    assert "success by   16 frames" in said and "\nhorizon: " in said
    page = (out / "report.html").read_text()
    assert "How films go wrong" in page and "horizon: " in page
    assert page.count("data:video/mp4") == min(6, about["measures"]["films"])
    assert main(["eval", "--world-model", str(dots_run), "--data", str(dots_data), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    before = (dots_run / gate.FILE).read_text()
    words = ["eval", "--world-model", str(dots_run), "--data", str(dots_data), "--horizon", "16", "--films", "4"]
    assert main([*words, "--episodes", "all", "--kept", "0", "--out", str(tmp_path / "trained_on")]) == 0
    assert "gate: SHUT. the model was trained on" in capsys.readouterr().out
    assert (dots_run / gate.FILE).read_text() == before  # what was measured of unseen films stays


def test_the_gate_opens_by_unseen_films_that_are_long_enough():
    known = {"step": 16, "films": 9, "gap": {"shuffled": [3, 4, 5]}}
    assert gate.passes(known) and not gate.passes(known | {"gap": {"shuffled": [1, 1.9, 3]}})
    assert not gate.passes(known | {"trained_on": True}) and "has not seen" in gate.refusal(
        known | {"trained_on": True}
    )
    assert not gate.passes(known | {"step": 8}) and "--horizon 16" in gate.refusal(known | {"step": 8})


def train_briefly(folder, dots_run, *words, steps=4, **settings):
    """The dynamics alone, on the codec that is there already."""
    config = {"type": "video", "run": str(dots_run.parent / "codec"), "horizon": 4, "width": 16, "blocks": 1} | settings
    data = (dots_run.parent / "codec.yaml").read_text().partition("data: ")[2].partition("\n")[0]
    text = {"data": data, "steps": steps, "batch": 8, "device": "cpu", "world_model": config}
    folder.mkdir(exist_ok=True)
    (folder / "video.yaml").write_text(json.dumps(text))
    status = main(["train", str(folder / "video.yaml"), "--out", str(folder / "run"), *words])
    return status, folder / "run", data


def test_a_model_that_ignores_actions_is_shut_out(dots_run, tmp_path, capsys):
    status, run, data = train_briefly(tmp_path / "new", dots_run)
    assert status == 0
    words = ["--world-model", str(run), "--data", data, "--out", str(tmp_path / "out"), "--horizon", "16"]
    assert main(["eval", *words]) == 0
    assert "gate: SHUT" in capsys.readouterr().out
    following = gate.noted(find_checkpoint(run), fingerprint(find_checkpoint(run)))
    assert not gate.passes(following) and abs(following["gap"]["shuffled"][1]) < 0.5


def test_an_interrupted_training_goes_on_exactly(dots_run, tmp_path):
    weights = []
    for name, words in (("whole", ()), ("parts", ("--save_every", "3"))):
        _, run, _ = train_briefly(tmp_path / name, dots_run, *words, steps=6, own_after=2)
        if words:
            assert main(["train", "--resume", str(run / "checkpoints" / "00000003")]) == 0
        weights.append(load_file(find_checkpoint(run) / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_films_of_a_field_differ_by_their_noise_alone(dots_run, cut, tmp_path):
    status, run, _ = train_briefly(tmp_path / "field", dots_run, form="field")
    assert status == 0
    model = load_model(run, "world")[0]
    memory, actions = model.remember(cut.pictures[:2, 0]), torch.from_numpy(cut.actions[:2, :4])
    noises = [
        torch.randn(2, 1, *memory.now.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    with torch.no_grad():
        first, again, other = (model.advance(memory, actions, (2, 4), noise)[0] for noise in noises)
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-3)
    assert torch.allclose(first.square().mean(2), torch.ones_like(first[:, :, 0]), atol=1e-3)  # unit norm


def test_what_cannot_be_trained_is_refused_by_name(dots_run, tmp_path, capsys):
    for settings, said in (
        ({"run": str(dots_run)}, "holds no codec"),
        ({"action_maps": [{"take": [0, 5]}]}, "no number 5"),
        ({"action_maps": [{"take": [0, 1], "camera": 3}]}, "names camera 3"),
        ({"horizon": 40}, "lower the horizon"),
    ):
        assert train_briefly(tmp_path / "bad", dots_run, **settings)[0] == 2
        assert said in capsys.readouterr().err
