"""Backbones of timm and transformers, from small random ones saved to folders through the functions that users take."""

import importlib.util
import json
import shutil

import pytest
import torch

from understudy.configs.compat import prepare_torchvision
from understudy.configs.spec import Embodiment, Window
from understudy.policies.learning.checkpoint import CheckpointError, blank_scales, save_checkpoint
from understudy.policies.learning.pictures import signature
from understudy.policies.load import load_policy
from understudy.policies.models.regression import RegressionConfig
from understudy.policies.networks.backbone import TimmConfig, TransformersVisionConfig, on_grid
from understudy.policies.networks.encoder import EncoderError
from understudy.policies.networks.eyes import Eyes, Vision
from understudy.policies.networks.mlp import MLPConfig

SIZE = (64, 64)


def library(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} comes with the extra `vision`")
    prepare_torchvision()
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A folder of transformers with a tiny image network."""
    transformers = library("transformers")
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=64, patch_size=16
    )
    torch.manual_seed(0)
    transformers.ViTModel(config, add_pooling_layer=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    transformers = library("transformers")
    folder = tmp_path_factory.mktemp("text")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=40
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["resnet10t", "test_vit"])
def test_a_network_of_timm_reads_pictures(name):
    library("timm")
    config = TimmConfig(name=name, pretrained_weights=False, tuned=True, keypoints=4, features=6)
    encoder = config.build(SIZE)
    pictures = torch.rand(2, 3, *SIZE)
    assert encoder.body(pictures).ndim == 4 and encoder.embed(pictures).shape == (2, 6)
    encoder.embed(pictures).sum().backward()
    assert any(value.grad is not None for value in encoder.network.parameters())


def test_a_folder_of_transformers_is_opened_with_its_weights_and_frozen(vit):
    transformers = library("transformers")
    config = TransformersVisionConfig(path=str(vit), keypoints=4, features=6)
    encoder = config.build(SIZE).eval()
    assert config.pretrained(encoder) == str(vit)
    saved = transformers.AutoModel.from_pretrained(vit).state_dict()
    ours = encoder.network.state_dict()
    assert all(torch.equal(saved[name], ours[name]) for name in ours)

    pictures = torch.rand(2, 3, *SIZE)
    embedded = encoder.embed(pictures)
    assert embedded.shape == (2, encoder.embedding) == (2, 16 * 4 * 4) and encoder.project(embedded).shape == (2, 6)
    assert not any(value.requires_grad for value in encoder.network.parameters())
    assert any(value.requires_grad for value in encoder.neck.parameters())


def test_tokens_lie_where_their_patches_are(vit):
    library("transformers")
    encoder = (
        TransformersVisionConfig(path=str(vit)).build((96, 128)).eval()
    )  # 6 x 8 patches; with the class token 7 x 7
    pictures = torch.zeros(1, 3, 96, 128)
    assert encoder.body(pictures).shape == (1, 16, 6, 8)
    plain = on_grid(torch.arange(53.0)[None, :, None], (96, 128), encoder.network)  # four registers more
    assert plain[0, 0, 0, 0] == 5 and plain.shape == (1, 1, 6, 8)


def test_pictures_are_normalised_as_the_folder_says_and_kept_embeddings_know_it(vit, tmp_path):
    library("transformers")
    shutil.copytree(vit, tmp_path / "vit")
    file = tmp_path / "vit" / "preprocessor_config.json"
    file.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    config = TransformersVisionConfig(path=str(tmp_path / "vit"))
    assert config.build(SIZE).mean.tolist() == [0.5] * 3

    body = Embodiment(action=("x",), action_units=("m",), limits=((-1, 1),), rate=1.0, cameras={"top": SIZE})
    key, signatures = "observation.images.top", []
    for mean in (0.5, 0.4):
        file.write_text(json.dumps({"image_mean": [mean] * 3, "image_std": [0.25] * 3}))
        torch.manual_seed(0)
        signatures.append(signature(Eyes(Vision(encoder=config), (key,), body), key))
    assert signatures[0] != signatures[1]
    file.write_text("{")
    with pytest.raises(EncoderError, match="preprocessor_config.json of .* cannot be read"):
        config.build(SIZE)


def test_a_folder_of_another_architecture_is_refused(vit, text, tmp_path):
    """A checkpoint names the folder of its backbone; what lies there later must be the same network."""
    transformers = library("transformers")
    shutil.copytree(vit, tmp_path / "vit")
    config = TransformersVisionConfig(path=str(tmp_path / "vit"), keypoints=4, features=6)
    body = Embodiment(action=("x",), action_units=("m",), limits=((-1, 1),), rate=1.0, cameras={"top": SIZE})
    policy = RegressionConfig(
        inputs=("observation.images.top",), window=Window(observe=(0,), horizon=2), n_action_steps=1,
        network=MLPConfig(width=8, depth=1, condition_width=8), vision=Vision(encoder=config),
    )  # fmt: skip
    save_checkpoint(tmp_path / "run", policy.build(body, blank_scales(body)), kind="policy", config=policy)
    assert load_policy(tmp_path / "run")[0].eyes.sizes

    said = tmp_path / "vit" / "config.json"
    before = json.loads(said.read_text())
    said.write_text(json.dumps(before | {"hidden_act": "relu", "transformers_version": "9"}))
    with pytest.raises(CheckpointError, match="trained with 'hidden_act' gelu in eyes.encoders.* says relu now"):
        load_policy(tmp_path / "run")
    said.write_text(json.dumps(before | {"transformers_version": "9"}))
    colours = tmp_path / "vit" / "preprocessor_config.json"
    colours.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    with pytest.raises(CheckpointError, match="trained with 'mean'"):
        load_policy(tmp_path / "run")
    colours.unlink()

    other = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=64, patch_size=16
    )
    transformers.ViTModel(other).save_pretrained(tmp_path / "vit")
    with pytest.raises(CheckpointError, match="eyes.encoders"):
        load_policy(tmp_path / "run")
    shutil.rmtree(tmp_path / "vit")
    with pytest.raises((CheckpointError, EncoderError), match="transformers cannot open"):
        load_policy(tmp_path / "run")


def test_what_is_no_image_network_is_refused_by_name(text, tmp_path):
    with pytest.raises(EncoderError, match="BertModel does not read pictures alone; name an image network"):
        TransformersVisionConfig(path=str(text)).build(SIZE)
    with pytest.raises(EncoderError, match="transformers cannot open"):
        TransformersVisionConfig(path=str(tmp_path)).build(SIZE)
    library("timm")
    with pytest.raises(EncoderError, match="timm cannot open 'resnet1000'"):
        TimmConfig(name="resnet1000").build(SIZE)
    with pytest.raises(EncoderError, match="nothing can be frozen"):
        TimmConfig(name="resnet10t", pretrained_weights=False)
