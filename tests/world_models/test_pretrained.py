"""Pretrained video models are read as released, act so until an adapter learns, and follow actions in order."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from understudy.__main__ import main
from understudy.policies.learning.checkpoint import load_model
from understudy.world_models import backbones
from understudy.world_models.backbones import PretrainedError, describe, load_backbone

pytestmark = pytest.mark.timeout(600)  # diffusers is slow to import where others load the machine

WEIGHTS = "diffusion_pytorch_model.safetensors"
FRAMES = {"cosmos": 9, "svd": 5}
TOLD = 3  # numbers of an action


def save_cosmos(folder: Path, **changes) -> Path:
    """A tiny Cosmos-Predict2 with Wan's autoencoder, random, laid out as released."""
    from diffusers import AutoencoderKLWan, CosmosTransformer3DModel

    torch.manual_seed(0)
    settings = {
        "in_channels": 5, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
        "mlp_ratio": 2, "text_embed_dim": 8, "adaln_lora_dim": 4, "max_size": (8, 16, 16), "extra_pos_embed_type": None,
    }  # fmt: skip
    CosmosTransformer3DModel(**settings | changes).save_pretrained(folder / "transformer")
    wan = {
        "z_dim": 4,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "latents_mean": [0.1] * 4,
        "latents_std": [0.5] * 4,
    }
    AutoencoderKLWan(base_dim=8, **wan).save_pretrained(folder / "vae")
    return folder


def save_svd(folder: Path) -> Path:
    """A tiny Stable Video Diffusion, random, laid out as released."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

    torch.manual_seed(0)
    UNetSpatioTemporalConditionModel(
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"), cross_attention_dim=8,
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), block_out_channels=(32, 32),
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24, layers_per_block=1,
        num_attention_heads=(2, 2), num_frames=5,
    ).save_pretrained(folder / "unet")  # fmt: skip
    down = ("DownEncoderBlock2D",) * 4
    AutoencoderKLTemporalDecoder(block_out_channels=(32,) * 4, down_block_types=down).save_pretrained(folder / "vae")
    return folder


SAVE = {"cosmos": save_cosmos, "svd": save_svd}


@pytest.fixture(scope="module", params=list(SAVE))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return SAVE[family](tmp_path_factory.mktemp(family))


@pytest.fixture
def asked(folder, family):
    """The loaded model, and what it is asked: noised latents, their level, the first frame, actions."""
    backbone = load_backbone(str(folder), told=TOLD, hidden=8).eval()
    generator = torch.Generator().manual_seed(1)
    shape = backbone.latents(FRAMES[family], (32, 32))
    y, first = (torch.randn(2, n, *shape[1:], generator=generator) for n in (shape[0], 1))
    actions = torch.rand(2, FRAMES[family] - 1, TOLD, generator=generator)
    return backbone, (y, torch.tensor([0.7, 2.0]), first), actions


def wake(backbone):
    """An adapter that has learnt something."""
    for value in backbone.adapter.out.parameters():
        torch.nn.init.normal_(value, std=0.5)
    return backbone


def test_the_weights_are_those_that_were_saved(folder, family):
    backbone = load_backbone(str(folder), told=TOLD, hidden=8)
    saved = load_file(folder / backbone.FOLDER / WEIGHTS)
    assert describe(str(folder))[0] == family and saved.keys() == backbone.network.state_dict().keys()
    assert all(torch.equal(value, backbone.network.state_dict()[name]) for name, value in saved.items())


@torch.no_grad()
def test_a_new_adapter_changes_nothing_at_all(asked):
    backbone, noised, actions = asked
    told, untold = (backbone(*noised, given, 4.0) for given in (actions, None))
    assert float((told - untold).abs().max()) == 0
    other = wake(backbone)(*noised, actions, 4.0)
    assert float((other - untold).abs().max()) > 1e-3


@torch.no_grad()
def test_actions_are_followed_in_order(asked):
    """The order of a context is invisible to Stable Video Diffusion; that of adapted frames is not."""
    backbone, noised, actions = asked
    forth, back = (wake(backbone)(*noised, given, 4.0) for given in (actions, actions.flip(1)))
    assert float((forth - back).abs().max()) > 1e-3


@torch.no_grad()
def test_an_action_changes_its_own_frame_more_than_the_first(asked):
    backbone, noised, actions = asked
    other = actions.clone()
    other[:, -backbone.group :] += 1
    changed = (wake(backbone)(*noised, actions, 4.0) - backbone(*noised, other, 4.0)).abs().mean((0, 2, 3, 4))
    assert changed[-1] > changed[0]


@torch.no_grad()
def test_films_go_through_the_autoencoder_whole(folder, family):
    backbone = load_backbone(str(folder), told=TOLD, hidden=8)
    film = torch.rand(1, FRAMES[family], 3, 32, 32)
    latents = backbone.encode(film)
    assert (
        latents.shape[1:] == backbone.latents(FRAMES[family], (32, 32)) and backbone.decode(latents).shape == film.shape
    )
    late = film.clone()
    late[:, -1] = 0
    assert not torch.equal(backbone.encode(late), latents)  # the last frame counts


def test_it_is_trained_saved_and_imagines(folder, family, dots_run, tmp_path, capsys):
    """By the ordinary training, partly, and then as any world model; reader and judge are the codec's."""
    data = (dots_run.parent / "codec.yaml").read_text().partition("data: ")[2].partition("\n")[0]
    part = "time_embed" if family == "cosmos" else "conv_out"
    settings = {
        "type": "pretrained", "model": str(folder), "run": str(dots_run.parent / "codec"), "frames": FRAMES[family],
        "hidden": 8, "tune": part, "checkpointing": True, "sampler": {"steps": 2, "clip": None},
    }  # fmt: skip
    config = {"data": data, "steps": 2, "batch": 4, "device": "cpu", "precision": "bf16", "world_model": settings}
    (tmp_path / "train.yaml").write_text(json.dumps(config))
    assert main(["train", str(tmp_path / "train.yaml"), "--out", str(tmp_path / "run")]) == 0
    model, _ = load_model(tmp_path / "run", "world")
    saved = load_file(folder / model.backbone.FOLDER / WEIGHTS)
    moved = {name for name, value in model.backbone.network.state_dict().items() if not torch.equal(value, saved[name])}
    assert moved and all(part in name for name in moved)
    codec = load_model(dots_run.parent / "codec", "world")[0].sight
    for own, theirs in zip(model.sight.inverse.parameters(), codec.inverse.parameters(), strict=True):
        assert torch.equal(own, theirs)  # a signal of its films would be chance

    first = torch.randint(0, 255, (2, 1, 32, 32, 3), dtype=torch.uint8)
    memory = model.remember(first)
    noise = torch.randn(2, 1, *memory.now.shape[1:])
    with torch.no_grad():
        made, after = model.advance(memory, torch.rand(2, 3, 2) * 100, (1, 3), noise)
        again, _ = model.advance(memory, torch.rand(2, 3, 2) * 100, (1, 3), noise)
    assert made.shape == (2, 2, 3, 32, 32) and 0 <= float(made.min()) and float(made.max()) <= 1
    assert torch.equal(after.now, made[:, 1]) and model.sight.read(model.sight.decode(made[:, 0])).states
    assert not torch.equal(made, again)  # other actions
    assert float(model.strange(first).min()) > 0

    bad = json.loads((tmp_path / "train.yaml").read_text())
    for change, said in (({"tune": "nowhere"}, "no weight of the network"), ({"model": str(tmp_path)}, "holds no pre")):
        (tmp_path / "bad.yaml").write_text(json.dumps(bad | {"world_model": settings | change}))
        assert main(["train", str(tmp_path / "bad.yaml"), "--out", str(tmp_path / "bad")]) == 2
        assert said in capsys.readouterr().err


def test_sizes_that_would_fail_or_lose_frames_are_refused_by_name(tmp_path):
    cosmos, svd = (load_backbone(str(SAVE[name](tmp_path / name)), told=TOLD) for name in SAVE)
    for frames, size, said in (
        (16, (32, 32), "drops the last ones of 16 .* give frames: 17"),
        (9, (40, 32), "multiples of"),
        (33, (32, 32), "made for at most"),
        (9, (256, 32), "made for at most"),
    ):
        with pytest.raises(PretrainedError, match=said):
            cosmos.check(frames, size)
    cosmos.check(9, (32, 32))
    with pytest.raises(PretrainedError, match="multiples of 16"):
        svd.check(5, (30, 32))
    shape = svd.latents(5, (32, 32))
    with pytest.raises(PretrainedError, match="one level for all frames"):
        svd.denoise(torch.zeros(2, *shape), torch.ones(2, 5), torch.zeros(2, 1, *shape[1:]), 4.0)


def test_weights_that_are_missing_or_left_over_are_named(tmp_path):
    """diffusers warns of them and goes on, with weights on no device."""
    source = save_cosmos(tmp_path / "there")
    file = source / "transformer" / WEIGHTS
    saved = load_file(file)
    save_file({name: value for name, value in saved.items() if name != "norm_out.linear_1.weight"}, file)
    with pytest.raises(PretrainedError, match=r"lacks norm_out.linear_1.weight"):
        load_backbone(str(source), told=TOLD)
    save_file(saved | {"strange": torch.zeros(2)}, file)
    with pytest.raises(PretrainedError, match="holds unknown strange"):
        load_backbone(str(source), told=TOLD)


def test_what_is_no_such_model_is_refused_by_name(tmp_path, monkeypatch):
    with pytest.raises(PretrainedError, match="holds no pretrained video model"):
        describe(str(tmp_path))
    source = save_svd(tmp_path / "svd")
    (source / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(PretrainedError, match="holds a UNet2DModel"):
        load_backbone(str(source), told=TOLD)
    monkeypatch.setattr("diffusers.utils.is_torchvision_available", lambda: False)
    with pytest.raises(PretrainedError, match="pip install torchvision"):
        load_backbone(str(save_cosmos(tmp_path / "cosmos")), told=TOLD)
    load_backbone(str(save_cosmos(tmp_path / "free", concat_padding_mask=False)), told=TOLD)
    assert backbones.is_hub_id("nvidia/Cosmos-Predict2-2B-Video2World")
