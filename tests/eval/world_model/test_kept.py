"""The films that a measured world model keeps: pairs of one recording, and what they are known to show."""

import json

import numpy as np
import torch

from understudy.configs.spec import Embodiment
from understudy.eval.judge.films import find_films
from understudy.eval.world_model.evaluate import _spread
from understudy.eval.world_model.kept import keep, recorded_success
from understudy.policies.kinds import Scales
from understudy.world_models.codec import CodecConfig
from understudy.world_models.films import Clips
from understudy.world_models.video import VideoConfig


def test_success_is_known_where_it_was_recorded():
    won, none = np.array([0, 0, 1, 0]), np.zeros(4)
    every, first = np.ones(4, bool), np.array([False, True, True, True])
    assert recorded_success(won, every) is True and recorded_success(won, first) is True
    assert recorded_success(none, every) is False and recorded_success(none, first) is False
    assert recorded_success(none, np.zeros(4, bool)) is None
    assert recorded_success(won, np.array([True, True, False, True])) is None  # what nobody recorded is no success


def test_films_are_spread_evenly_and_never_twice():
    assert _spread(range(10), 4).tolist() == [0, 3, 6, 9] and _spread(range(3), 8).tolist() == [0, 1, 2]
    assert _spread(range(3), 0).tolist() == [] and _spread(np.array([5, 3, 4]), 2).tolist() == [5, 4]


def test_both_films_of_a_pair_begin_alike_and_only_one_is_imagined(tmp_path):
    """An untrained model of two cameras; of five films in batches of two, three are kept."""
    eyes = CodecConfig(
        cameras=("top", "wrist"), size=(32, 32), width=16, inner=16, keypoints=4, states=(), foresees=True, inverse=True
    )
    body = Embodiment(
        name="arm", action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0
    ).with_cameras({"top": (32, 32), "wrist": (32, 32)})  # fmt: skip
    config = VideoConfig(codec=eyes, horizon=4, width=16, blocks=1, condition=16)
    torch.manual_seed(0)
    model = config.build(body, Scales(action=((-1.0,), (1.0,)), states={})).eval()
    rng, steps = np.random.default_rng(0), 8
    pictures = np.repeat(rng.integers(0, 256, (5, steps + 1, 2, 4, 4, 3), np.uint8), 8, 3).repeat(8, 4)
    outcome = np.zeros((5, steps + 1, 2))
    outcome[2, 6] = 1
    cut = Clips(
        np.array([0, 0, 1, 1, 1]), np.arange(5), rng.uniform(-1, 1, (5, steps, 1)).astype(np.float32),
        torch.from_numpy(pictures), {}, outcome, np.ones((5, steps + 1, 2), bool),
    )  # fmt: skip
    own = {"true": [True, None, False, True, True], "imagined": [False, None, True, None, False]}
    told = keep(tmp_path, model, cut, [0, 2, 4], own, {"rate": 10.0, "episodes": [7, 8]}, 2, 0)
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "world-model", "films": told}))
    films = find_films([tmp_path]).films
    assert [film.place[1:] for film in films] == [
        (kind, number) for number in (0, 2, 4) for kind in ("true", "imagined")
    ]
    assert [film.own for film in films] == [True, False, False, True, True, False]
    assert [film.known for film in films] == [False, False, True, True, False, False]
    assert [one["episode"] for one in told[::2]] == [7, 8, 8]
    for number, true, imagined in zip((0, 2, 4), films[::2], films[1::2], strict=True):
        assert true.pictures.count == imagined.pictures.count == steps + 1
        (begin, end), (same, other) = (one.pictures.read([0, steps]) for one in (true, imagined))
        assert begin.shape == (384, 192, 3)  # both cameras, enlarged
        shown = np.concatenate(list(pictures[number, steps]), 0).astype(int)
        assert np.abs(end[::6, ::6].astype(int) - shown).mean() < 12  # of this recording
        assert np.abs(begin.astype(int) - same).mean() < 6 < 20 < np.abs(end.astype(int) - other).mean()
