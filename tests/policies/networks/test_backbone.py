"""Backbones of timm and transformers, from small random ones saved to folders through the functions that users take."""

import importlib.util

import pytest
import torch

from understudy.configs.compat import prepare_torchvision
from understudy.policies.networks.backbone import TimmConfig, TransformersVisionConfig
from understudy.policies.networks.encoder import EncoderError

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
