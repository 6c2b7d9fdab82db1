"""Pictures and texts of a training: whose encoder reads them, with which weights, from frames or kept embeddings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import draccus
import numpy as np
import torch
from torch import nn

from ...configs.protocols import keeps
from ...configs.spec import IMAGES
from ..data.dataset import Dataset
from ..data.embeddings import open_embeddings
from ..data.frames import Frames, open_frames
from ..data.looks import differences, is_grey, look_of_frames
from ..data.tables import DatasetWarning
from ..data.windows import RowReader
from ..networks.encoder import Encoder, EncoderError
from ..networks.eyes import Eyes, Vision, picture_keys, picture_sizes
from ..networks.language import LanguageError
from ..policy import Instructed, Sees
from .checkpoint import _document, check_stated, find_checkpoint, load_config
from .integrity import check_like, load_tensors

EYES = "eyes."  # how the names of encoders' weights begin
TAKEN = ("encoder", "crop", "shared", "size")  # settings that come with the encoders of another run (`vision.init`)


def eyes_of(model: object) -> Eyes | None:
    """What a model sees with, if anything."""
    return model.eyes if keeps(model, Sees) else None


def settled(learner: Any, dataset: Dataset) -> Any:
    """The settings of a learner, with what they leave to a run (`vision.init`) and to the data (`language.texts`).

    Raises:
        EncoderError: the run reads no pictures.
        FileNotFoundError: there is no such run.
        LanguageError: the data name no task.
    """
    language, vision = (getattr(learner, name, None) for name in ("language", "vision"))
    if language is not None and not language.texts:
        texts = tuple(sorted({text for text in dataset.tasks if text}))
        if not texts:
            raise LanguageError(f"{dataset.root} names no task; leave `language` out")
        learner = dataclasses.replace(learner, language=dataclasses.replace(language, texts=texts))
    theirs = None
    if vision is not None and vision.init is not None:
        theirs = _vision_of(vision.init)
        _refuse_other(vision, theirs)
        taken = {name: getattr(theirs, name) for name in TAKEN} | {"size": theirs.size or vision.size}
        learner = dataclasses.replace(learner, vision=dataclasses.replace(vision, **taken))
    if not picture_keys(tuple(learner.inputs)):
        return learner
    vision = learner.vision or Vision()
    looks = _looks(vision, learner, dataset)
    for strange in differences(theirs.looks, looks) if theirs is not None else ():
        warnings.warn(f"{dataset.root} beside the data of {vision.init}: {strange}", DatasetWarning, stacklevel=3)
    return dataclasses.replace(learner, vision=dataclasses.replace(vision, looks=looks))


def unsettled(learner: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run's learner as `asked` may have put them, both as JSON: what `settled` filled in is left as
    open as there, all else is as the run has it."""
    found = dict(learner)
    if learner.get("vision"):
        wanted = asked.get("vision")
        usual = wanted or json.loads(json.dumps(draccus.encode(Vision())))
        filled = (*(() if usual["looks"] else ("looks",)), *(TAKEN if usual["init"] else ()))
        found["vision"] = dict(learner["vision"]) | {name: usual[name] for name in filled}
        if not wanted and found["vision"] == usual:
            found["vision"] = wanted
    language = asked.get("language") or {}
    if learner.get("language") and not language.get("texts"):
        found["language"] = dict(learner["language"]) | {"texts": language.get("texts")}
    return found


def _refuse_other(vision: Vision, theirs: Vision) -> None:
    """Raise EncoderError: settings of their own beside a run (`vision.init`) that has others."""
    usual = Vision()
    for name in TAKEN:
        stated, known = getattr(vision, name), getattr(theirs, name)
        if stated not in (getattr(usual, name), known) and not (name == "size" and known is None):
            raise EncoderError(
                f"vision.{name} is {stated}, but vision.init takes the encoders of {vision.init} with theirs, {known}; "
                f"leave vision.{name} out"
            )


def _looks(vision: Vision, learner: Any, dataset: Dataset) -> dict[str, tuple[int, ...]]:
    """How each camera looks in the data; warns where parts of it look as if cameras were swapped."""
    parts = dataset.parts or (dataset,)
    ends = np.cumsum([len(part.lengths) for part in parts])
    looks: list[dict[str, tuple[int, ...]]] = [{} for _ in parts]
    whole = range(len(dataset.lengths))
    for key, size in picture_sizes(vision, tuple(learner.inputs), dataset.embodiment).items():
        frames = open_frames(dataset, key.removeprefix(IMAGES), size, list(whole))
        for look, part, end in zip(looks, parts, ends, strict=True):
            look[key] = look_of_frames(frames, range(end - len(part.lengths), end))
            if is_grey(frames.episode(end - len(part.lengths))[0]):
                grey = f"the pictures of '{key}' in {part.root} hold no colours; one in colour will look otherwise"
                warnings.warn(grey, DatasetWarning, stacklevel=4)
    for part, look in zip(parts[1:], looks[1:], strict=True):
        for strange in differences(looks[0], look):
            warnings.warn(f"{part.root} beside {parts[0].root}: {strange}", DatasetWarning, stacklevel=4)
    return looks[0]


def fill_encoders(model: nn.Module) -> Iterator[str]:
    """Give new encoders the weights that the settings name; yields what to say of it.

    Raises:
        EncoderError, CheckpointError: weights that are missing or do not fit.
    """
    eyes, language = eyes_of(model), model.language if keeps(model, Instructed) else None
    if language is not None:
        language.fill()
        yield f"texts: {'; '.join(language.config.texts)}"
    if eyes is None:
        return
    if eyes.config.init is not None:
        folder = find_checkpoint(eyes.config.init)
        take_encoders(model, folder)
        yield f"encoders of {folder}{', frozen' if eyes.config.frozen else ''}"
        return
    loaded = {eyes.config.encoder.pretrained(cast(Encoder, encoder)) for encoder in eyes.encoders.values()}
    yield from (f"encoder: {what}{', frozen' if eyes.frozen else ''}" for what in loaded if what)


def take_encoders(model: nn.Module, folder: Path) -> None:
    """Copy the encoders' weights of a checkpoint into a model. Raises CheckpointError: they do not fit."""
    file = folder / "model.safetensors"
    weights = {name: value for name, value in load_tensors(file).items() if name.startswith(EYES)}
    if not weights:
        raise EncoderError(f"{folder} reads no pictures; take the encoders of another run")
    own = {name: value for name, value in model.state_dict().items() if name.startswith(EYES)}
    check_like(file, weights, own)
    check_stated(folder, model)
    model.load_state_dict(weights, strict=False)


def open_pictures(dataset: Dataset, model: nn.Module, episodes: np.ndarray) -> dict[str, RowReader]:
    """What reads the pictures of a model's cameras by row: decoded frames, or embeddings where encoders are frozen.

    Args:
        episodes: positions of the episodes that will be read.
    """
    eyes = eyes_of(model)
    readers: dict[str, RowReader] = {}
    if eyes is None:
        return readers
    for key in eyes.keys:
        camera = key.removeprefix(IMAGES)
        frames = open_frames(dataset, camera, eyes.sizes[key], sorted(int(m) for m in episodes))
        readers[key] = _embedded(eyes, key, frames, dataset) if eyes.frozen else frames
    return readers


def _embedded(eyes: Eyes, key: str, frames: Frames, dataset: Dataset) -> RowReader:
    device = next(eyes.parameters()).device
    encoder = eyes.encoder(key)
    width = encoder.features if eyes.config.frozen else encoder.embedding
    embeddings, fresh = open_embeddings(
        frames,
        lambda pictures: eyes.embed(key, pictures.to(device)),
        signature(eyes, key),
        width,
        dataset.lengths.tolist(),
        key.removeprefix(IMAGES),
    )
    count = sum(int(dataset.lengths[m]) for m in frames.files)
    cost = 1e3 * _seconds_a_frame(eyes, key, frames, device)
    print(
        f"{key}: {count} frames are read as {width} numbers each, {count - fresh} of them kept from before; that saves "
        f"{cost:.2g} ms for each frame that a step of training reads"
    )
    return embeddings


@torch.no_grad()
def _seconds_a_frame(eyes: Eyes, key: str, frames: Frames, device: torch.device) -> float:
    """Wall time of embedding one picture among several."""
    some = torch.from_numpy(frames.episode(min(frames.files))[:16]).to(device)
    began = time.perf_counter()
    eyes.embed(key, some).cpu()
    return (time.perf_counter() - began) / len(some)


def signature(eyes: Eyes, key: str) -> str:
    """Hash of all that decides what the frozen part of an encoder makes of a picture."""
    encoder, digest = eyes.encoder(key), hashlib.sha256()
    digest.update(f"{encoder} {eyes.config.crop} {eyes.config.frozen} {torch.__version__}".encode())  # its layers, too
    fixed = {name for name, value in encoder.named_parameters() if not value.requires_grad}
    fixed |= {name for name, _ in encoder.named_buffers()}
    held = dict(encoder.named_parameters()) | dict(encoder.named_buffers())  # those too that are not saved
    for name, value in sorted(held.items()):
        if name in fixed:
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _vision_of(run: str) -> Vision:
    """How a run reads pictures."""
    folder = find_checkpoint(run)
    config: Any = load_config(_document(folder), folder)
    if not any(key.startswith(IMAGES) for key in config.inputs):
        raise EncoderError(f"{folder} reads no pictures; take the encoders of another run")
    return config.vision or Vision()
