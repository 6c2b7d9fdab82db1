"""Checkpoints: a folder written beside and renamed, never half; no pickle.

    <step:08d>/config.json        {format, kind: policy | critic | world | mixture, type, config, stated}
               embodiment.json    who acts
               model.safetensors  the weights that act (averaged), with the scaling
               training_state/    what a resumed run needs: raw weights, optimiser, generators, progress
               digests.json       hashes of all other files, compared when they are read
               parents/<number>/  instead of the last two, of a mixture: its parents' checkpoints

A run folder holds `checkpoints/` and the links `last` and `best` (`links.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import draccus

from ...configs.documents import read_object
from ...configs.files import HALF, replace_folder
from ...configs.former import policy_settings
from ...configs.plugins import discover, lookup
from ...configs.settings.decode import decode_choice
from ...configs.spec import Embodiment, EmbodimentError
from .integrity import (
    TRAINING,
    CheckpointError,
    check_like,
    check_scales,
    damaged,
    load_tensors,
    verify,
    write_digests,
)
from .links import NAMES, linked, names_nothing, numbered, point, step_of

if TYPE_CHECKING:  # torch takes seconds, and who only asks where a checkpoint is needs none of it
    from torch import Tensor, nn

    from ..policy import CompositionConfig, CriticConfig, PolicyConfig, Scales, WorldModelConfig

FORMAT = 1
KINDS = ("policy", "critic", "mixture", "world")
FOLDERS = {"world": ("policies", "world_models")}  # kind -> where its types register, if not in policies alone
PARENTS = "parents"
INDEX, README = "understudy.json", "README.md"  # what `understudy push` adds to a folder, and no part of a policy
ACTING = ("config.json", "embodiment.json", "model.safetensors")  # what a model of ours acts by

__all__ = ["PARENTS", "TRAINING", "CheckpointError", "find_checkpoint", "load_model", "point", "save_checkpoint"]


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    *,
    kind: str,
    config: PolicyConfig | CriticConfig | WorldModelConfig,
    tensors: Mapping[str, Mapping[str, Tensor]] | None = None,
    documents: Mapping[str, object] | None = None,
) -> None:
    """Write one checkpoint beside and rename it into place.

    Args:
        model: the weights that act; must have an `embodiment`.
        tensors: file name -> tensors of the training state.
        documents: file name -> JSON-able part of the training state.
    Raises:
        OSError: the disk is full or not writable; nothing half-written stays.
    """
    from safetensors.torch import save_file

    def fill(half: Path) -> None:
        (half / TRAINING).mkdir()
        _describe(half, kind, config, model.embodiment, stated_of(model))
        save_file(_plain(model.state_dict()), half / "model.safetensors")
        for name, values in (tensors or {}).items():
            save_file(_plain(values), half / TRAINING / name)
        for name, document in (documents or {}).items():
            _write(half / TRAINING / name, document)

    _put(folder, fill)


def parents_of(folder: str | Path) -> list[Path]:
    """The parents' folders in the checkpoint of a mixture, in order; none for other checkpoints."""
    inside = (Path(folder) / PARENTS).glob("*")
    return sorted((path for path in inside if path.name.isdigit()), key=lambda path: int(path.name))


def acting_files(folder: str | Path, *, formerly: bool = False) -> list[Path]:
    """The files of a checkpoint that say how it acts, in a fixed order; of a mixture with those of its parents.

    Of a folder that another program wrote, all its files but cards.

    Args:
        formerly: with the cards that counted in earlier versions: all but those that `understudy push` wrote.
    """
    folder = Path(folder)
    kind = _read(folder / "config.json").get("kind")
    if kind not in KINDS:
        held = sorted(path for path in folder.rglob("*") if path.is_file())
        pushed = (folder / INDEX, folder / README) if folder / INDEX in held else ()
        return [path for path in held if path not in pushed and (formerly or path.name != README)]
    if kind != "mixture":
        return [folder / name for name in ACTING]
    own = [folder / "config.json", folder / "embodiment.json"]
    return own + [file for parent in parents_of(folder) for file in acting_files(parent, formerly=formerly)]


def stated_of(model: nn.Module) -> dict[str, dict]:
    """Part of the model -> what is said of it elsewhere, in a folder or on a hub that the settings name."""
    parts = {name: module.stated for name, module in model.named_modules() if hasattr(module, "stated")}
    return json.loads(json.dumps(parts, default=str))


def check_stated(folder: Path, model: nn.Module) -> None:
    """Refuse a model for which other things are said elsewhere than when the checkpoint was written.

    Raises:
        CheckpointError: naming the part and what is said otherwise. Checkpoints that kept nothing are not compared.
    """
    kept, now = _read(folder / "config.json").get("stated", {}), stated_of(model)
    for part in kept.keys() & now.keys():
        if changed := [key for key in {**kept[part], **now[part]} if kept[part].get(key) != now[part].get(key)]:
            key = changed[0]
            raise CheckpointError(
                f"{folder} was trained with '{key}' {kept[part].get(key)} in {part}; the folder or hub id that its "
                f"settings name says {now[part].get(key)} now: bring back what it was"
            )


def _describe(
    half: Path,
    kind: str,
    config: draccus.ChoiceRegistry,
    embodiment: Embodiment,
    stated: dict[str, dict] | None = None,
) -> None:
    name = config.get_choice_name(type(config))
    settings = {"type": name} | draccus.encode(config)  # draccus 0.11 leaves the type of the outermost choice out
    elsewhere = {"stated": stated} if stated else {}
    _write(half / "config.json", {"format": FORMAT, "kind": kind, "type": name, "config": settings} | elsewhere)
    (half / "embodiment.json").write_text(embodiment.to_json())


def _put(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a folder beside, then rename it into place."""
    from safetensors import SafetensorError

    def make(half: Path) -> None:
        half.mkdir()
        fill(half)
        write_digests(half)

    try:
        replace_folder(folder, make, settle=True)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"checkpoint {folder} could not be written ({error}); earlier checkpoints are untouched"
        ) from error


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder of `path`: itself, or a run's `best`, else its `last`, else its newest.

    Of lerobot's, `pretrained_model` in a checkpoint or in the last one of a training. What is no path here but a name
    on the hub (`OWNER/NAME`, with `@REVISION` for another than the newest) is fetched.

    Raises:
        FileNotFoundError: there is none, or `best` names one that is not there.
    """
    path = _local(os.path.expandvars(path))
    if (path / "config.json").is_file():
        return path.resolve()
    if path.name in NAMES and path.is_file():  # in place of a link
        found = linked(path.parent, path.name)
        if found is not None:
            return found
    for name in NAMES[::-1]:
        if names_nothing(path, name):
            raise FileNotFoundError(
                f"'{path / name}' names a checkpoint that is not there; give one of {path / 'checkpoints'} instead"
            )
        found = linked(path, name)
        if found is not None and (found / "config.json").is_file():
            return found
    theirs = ("pretrained_model", "last/pretrained_model", "checkpoints/last/pretrained_model")
    for candidate in (*reversed(numbered(path)), *(path / name for name in theirs)):
        if (candidate / "config.json").is_file():
            return candidate.resolve()
    there = "it holds neither 'best' nor 'last'" if path.is_dir() else "no such folder"
    raise FileNotFoundError(
        f"'{path}' is not a run or checkpoint: {there}. Give the folder that `understudy train` wrote"
    )


def _local(source: str) -> Path:
    """The path, or where the files of a name on the hub lie. Raises FileNotFoundError if they cannot be had."""
    from ..hub import HubError, fetch_model, is_hub_id

    if not is_hub_id(source):  # asked of the text: "./a/b" is a path
        return Path(source)
    try:
        return fetch_model(source)
    except HubError as error:
        raise FileNotFoundError(f"'{source}' is not a run or checkpoint: {error}") from error


def load_model(path: str | Path, kind: str) -> tuple[nn.Module, dict]:
    """Load what acts, in evaluation mode.

    Returns:
        (model, info) with info = {"path", "step", "type", "config"}.
    Raises:
        CheckpointError: another kind, a newer format, files that are not those saved, weights that do not fit.
        LookupError: a type that no file registers.
    """
    folder = find_checkpoint(path)
    document = _document(folder)
    found = document.get("kind", "checkpoint of another program")
    if found != kind:
        raise CheckpointError(f"{folder} holds a {found}, not a {kind}")
    verify(folder, ACTING)
    embodiment = read_embodiment(folder)
    try:
        model = load_config(document, folder).build(embodiment, blank_scales(embodiment))
    except (CheckpointError, EmbodimentError):
        raise
    except (ArithmeticError, AttributeError, MemoryError, RuntimeError, TypeError, ValueError, KeyError) as error:
        if isinstance(error, LookupError) and not isinstance(error, KeyError):
            raise
        raise damaged(folder, f"{folder / 'config.json'} describes no {kind} ({error})") from error
    check_stated(folder, model)
    try:
        load_weights(model, folder / "model.safetensors")
    except CheckpointError as error:
        raise damaged(folder, str(error)) from error
    return model.eval(), _info(folder, document)


def read_embodiment(folder: Path) -> Embodiment:
    """Who acts by a checkpoint. Raises CheckpointError."""
    try:
        return Embodiment.load(folder / "embodiment.json")
    except EmbodimentError as error:
        raise damaged(folder, str(error)) from error


def _document(folder: Path) -> dict:
    """What `config.json` says, also of another program's checkpoint. Raises CheckpointError."""
    document = _read(folder / "config.json")
    verify(folder, ("config.json",))
    if "kind" not in document:
        return document
    form = document.get("format", 0)
    if type(form) is int and form > FORMAT:
        raise CheckpointError(f"{folder} was written by a newer understudy (format {form}); upgrade to read it")
    wanted = {"format": int, "kind": str, "type": str, "config": dict}
    for key, kind in wanted.items():
        if not isinstance(document.get(key, 0 if key == "format" else None), kind):
            raise damaged(folder, f"{folder / 'config.json'} has no '{key}' that makes sense; the file is damaged")
    return document


def _info(folder: Path, document: dict) -> dict:
    settings = policy_settings(document["config"])  # of an earlier version, under today's names
    return {"path": str(folder), "step": step_of(folder), "type": document["type"], "config": settings}


def load_config(
    document: dict, folder: Path | None = None
) -> PolicyConfig | CriticConfig | CompositionConfig | WorldModelConfig:
    """The settings in a checkpoint's `config.json`.

    Raises:
        LookupError: a kind or type that no file registers.
        CheckpointError: settings that make no sense.
    """
    import draccus

    if document["kind"] not in KINDS:
        raise CheckpointError(f"{folder or 'a checkpoint'} holds a '{document['kind']}', which nothing here reads")
    settings = with_former_defaults(document["kind"], {**document["config"], "type": document["type"]})
    try:
        return decode_choice(_registry(document["kind"]), settings)
    except (draccus.ParsingError, ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        cause = error.__cause__ or error
        place = f"{folder / 'config.json'}" if folder else "a checkpoint's config.json"
        raise CheckpointError(f"{place} holds settings that make no sense: {cause}") from error


def with_former_defaults(kind: str, settings: Mapping) -> dict:
    """The saved settings of a policy, critic or mixture; what they do not say yet is as it was when they were saved.

    Raises:
        LookupError: a type that no file registers.
    """
    discover(*FOLDERS.get(kind, ("policies",)))
    base = _registry(kind)
    lookup(f"{kind} type", settings["type"], base.get_known_choices())
    return {**base.get_choice_class(settings["type"]).BEFORE, **settings}


def _registry(kind: str) -> type[draccus.ChoiceRegistry]:
    """Where the settings of this kind of checkpoint are registered."""
    from ..policy import CompositionConfig, CriticConfig, PolicyConfig, WorldModelConfig

    return dict(zip(KINDS, (PolicyConfig, CriticConfig, CompositionConfig, WorldModelConfig), strict=True))[kind]


def load_weights(model: nn.Module, file: Path) -> None:
    """Read weights into `model`, refusing names, shapes or number types that differ, NaN, and scales that cannot be."""
    tensors = load_tensors(file)
    check_like(file, tensors, model.state_dict())
    model.load_state_dict(tensors)
    check_scales(file, model)


def blank_scales(embodiment: Embodiment) -> Scales:
    """Scales of the right shapes, to be overwritten by saved ones."""
    from ..policy import Scales

    dims = len(embodiment.action)
    vectors = {k: ((0.0,) * len(v), (1.0,) * len(v)) for k, v in embodiment.offers().items() if "images" not in k}
    return Scales(action=((-1.0,) * dims, (1.0,) * dims), states=vectors)


def rotate(run: Path, keep: int, every: int = 0, held: frozenset[Path] = frozenset()) -> None:
    """Delete checkpoints but the newest `keep`, `last`, `best`, multiples of `every` steps, and those `held`."""
    kept = held | {found.resolve() for name in NAMES if (found := linked(run, name))}
    folders = numbered(run)
    for folder in folders[: max(len(folders) - keep, 0)]:
        if folder.resolve() not in kept and not (every and int(folder.name) % every == 0):
            shutil.rmtree(folder)
    for leftover in (*(run / "checkpoints").glob(f".*{HALF}"), *run.glob(f".*{HALF}")):
        shutil.rmtree(leftover, ignore_errors=True)


def _plain(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous().cpu() for name, value in values.items()}


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1))


def _read(path: Path) -> dict:
    try:
        return read_object(path, CheckpointError)
    except CheckpointError as error:
        raise damaged(path.parent, str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def fingerprint(folder: Path) -> str:
    """Hash of the weights and settings that act."""
    return _hash_of(acting_files(folder))


def former_fingerprint(folder: Path) -> str | None:
    """The hash that earlier versions gave these files, by whom cards of other programs counted; None: the same."""
    files = acting_files(folder, formerly=True)
    return None if files == acting_files(folder) else _hash_of(files)


def is_of(mark: object, folder: Path) -> bool:
    """Whether a fingerprint in a record, of this version or an earlier one, is that of what lies in a folder now."""
    return mark is not None and (mark == fingerprint(folder) or mark == former_fingerprint(folder))


def _hash_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
