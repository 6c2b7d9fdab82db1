"""Words for devices: one vocabulary, and a GPU that is not there is refused without torch."""

from __future__ import annotations

import pytest

from understudy.configs import devices
from understudy.configs.devices import check_device, choose_device


def test_words_that_name_no_device_are_refused():
    for word in ("gpu", "cuda:", "cuda:x", "cuda0", "mps:1", ""):
        with pytest.raises(ValueError, match=f"--device cannot be '{word}'. Known: auto .*, cpu, cuda, cuda:N"):
            check_device(word)
    for word in ("auto", "cpu"):
        check_device(word)


def test_a_gpu_without_a_driver_is_refused(monkeypatch):
    monkeypatch.setattr(devices, "_surely_none", lambda: True)
    for word in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"--device {word}: there is no GPU here"):
            check_device(word)


def test_what_a_word_stands_for_here(monkeypatch):
    import torch

    assert choose_device("cpu") == "cpu"
    monkeypatch.setattr(devices, "_surely_none", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="sees no GPU"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == "cuda" and choose_device("cuda:1") == "cuda:1"
    with pytest.raises(ValueError, match="no such GPU. Known: cuda:0, cuda:1"):
        choose_device("cuda:2")
